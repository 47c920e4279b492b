//! `directstream verify`: the proof that the tables are what Kafka's records make of them.

use serde::Serialize;

use super::{CommandEnd, Console, Table, args::VerifyArgs, job::load_job};
use crate::{
    error::{Error, Result},
    report::printable,
    stream::{self, Verification},
};

#[derive(Debug, Serialize)]
struct Shown {
    first_batch: Option<u64>,
    last_batch: Option<u64>,
    batches: u64,
    ranges: u64,
    records: u64,
    /// Ranges that Kafka no longer has.
    ranges_gone: u64,
    /// Dead letters whose bytes were compared.
    letters: u64,
    /// Dead letters whose records Kafka no longer has.
    letters_gone: u64,
    /// Whether rows too many could be told as well.
    complete: bool,
    /// All findings; `findings` lists the first ones.
    found: u64,
    findings: Vec<Finding>,
    ok: bool,
}

#[derive(Debug, Serialize)]
struct Finding {
    kind: &'static str,
    what: String,
}

impl Shown {
    fn of(verification: &Verification) -> Self {
        let finding =
            |finding: &stream::Finding| Finding { kind: finding.kind, what: printable(&finding.what).into_owned() };
        Self {
            first_batch: verification.first_batch,
            last_batch: verification.last_batch,
            batches: verification.batches,
            ranges: verification.ranges,
            records: verification.records,
            ranges_gone: verification.ranges_gone,
            letters: verification.letters,
            letters_gone: verification.letters_gone,
            complete: verification.complete,
            found: verification.found,
            findings: verification.findings.iter().map(finding).collect(),
            ok: verification.found == 0,
        }
    }
}

/// Reads everything again that the ledger says was committed, and compares. Findings end it with exit code 4.
pub(super) async fn verify(args: VerifyArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args.job)?;
    let mut progress = console.progress("records verified", None);
    let verified = stream::verify(&job, args.since, console.clock(), |records| progress.set(records)).await;
    drop(progress);
    let verification = verified?;
    console.print(&Shown::of(&verification), text)?;
    if verification.found > 0 {
        let found = verification.found;
        return Err(Error::corrupt(format!("Kafka, the ledger and the tables do not agree findings={found}")));
    }
    Ok(CommandEnd::Done)
}

fn text(shown: &Shown) -> String {
    let mut lines = String::new();
    if !shown.findings.is_empty() {
        let mut table = Table::new(["FINDING", "WHAT"]);
        for finding in &shown.findings {
            table.row([finding.kind.to_owned(), finding.what.clone()]);
        }
        lines.push_str(&table.render());
        if shown.found > shown.findings.len() as u64 {
            lines.push_str(&format!("and {} more\n", shown.found - shown.findings.len() as u64));
        }
    }
    let batches = match (shown.first_batch, shown.last_batch) {
        (Some(first), Some(last)) => format!("batches {first} to {last}"),
        _ => "no batch".to_owned(),
    };
    lines.push_str(&format!(
        "{batches}  ranges {}  records {}  dead letters {}  gone from Kafka {}  findings {}  ok: {}\n",
        shown.ranges, shown.records, shown.letters, shown.ranges_gone, shown.found, shown.ok
    ));
    if !shown.complete {
        lines.push_str("only missing rows of append tables could be told: not all batches could be read again\n");
    }
    lines
}
