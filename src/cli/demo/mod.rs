//! `directstream demo`: the promise being kept, without a server.
//!
//! ```text
//!   parent: producer -> embedded broker            child: directstream run JOB.toml -> SQLite
//!           watches the database, and kills the child with SIGKILL at even steps of progress
//!           at the end: recounts the tables against what was produced
//! ```
//!
//! The broker is librdkafka's own mock cluster: real Kafka protocol over loopback, at most 5 MiB kept per partition, and
//! no transactions (so the child reads uncommitted). The child is the real engine.

mod engine;
mod producer;
mod verdict;

use std::{io::IsTerminal, path::Path, sync::Arc, time::Duration};

use rdkafka::mocking::MockCluster;
use serde::Serialize;

use super::{CommandEnd, Console, args::DemoArgs};
use crate::{
    clock::{Clock, SystemClock},
    error::{Error, ErrorKind, Result},
};
use engine::{Engine, Watch};
use producer::Producer;
use verdict::Recount;

const TOPIC: &str = "orders";
/// So short that the engine is always in a batch: what a kill hits is work.
const BATCH_INTERVAL: Duration = Duration::from_millis(10);
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// The demo gives up after so long: its figures are for people who wait.
const LIMIT: Duration = Duration::from_secs(300);

/// What the demo found.
#[derive(Debug, Serialize)]
struct Report {
    records: u64,
    kills: u64,
    missing: u64,
    doubled: u64,
    wrong_totals: u64,
    batches: u64,
    ledger_contiguous: bool,
    seconds: f64,
    records_per_second: u64,
    ok: bool,
}

/// Produces, kills, recounts, and tells.
pub(super) async fn demo(args: DemoArgs, console: &Console) -> Result<CommandEnd> {
    let work =
        tempfile::tempdir().map_err(|error| Error::config("cannot make a folder for the demo").caused_by(error))?;
    let clock = SystemClock::shared();
    let tell = Tell { clock: Arc::clone(&clock), colours: std::io::stderr().is_terminal() && no_color_unset() };
    let cluster = MockCluster::new(1).map_err(|error| Error::internal("cannot start the broker").caused_by(error))?;
    let created = cluster.create_topic(TOPIC, args.partitions, 1);
    created.map_err(|error| Error::internal("cannot create the topic").caused_by(error))?;
    let servers = cluster.bootstrap_servers();
    tell.line(&format!(
        "embedded broker (librdkafka's mock cluster, no transactions) at {servers}: topic {TOPIC}, {} partitions",
        args.partitions
    ));
    tell.line(&format!("{} records will be produced; the engine will be killed {} times", args.records, args.kills));
    let job = job_file(work.path(), &servers)?;
    let started = clock.monotonic();
    let producer = Producer::start(&servers, args.records, args.partitions)?;
    let watch = run_engine(&args, work.path(), &job, &producer, &tell).await?;
    let elapsed = clock.monotonic().saturating_sub(started);
    producer.finish()?;
    let report = report(&args, &watch, &Recount::of(work.path(), args.records).await?, elapsed);
    tell.verdict(&report);
    console.print(&report, |report| {
        format!(
            "records {}  kills {}  batches {}  missing {}  doubled {}  ok: {}",
            report.records, report.kills, report.batches, report.missing, report.doubled, report.ok
        )
    })?;
    if report.ok {
        return Ok(CommandEnd::Done);
    }
    Err(Error::new(ErrorKind::Internal, "the recount does not match what was produced, or fewer kills hit than asked"))
}

fn no_color_unset() -> bool {
    // The one variable that decides how it looks, not what it does: https://no-color.org
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn report(args: &DemoArgs, watch: &Watch, recount: &Recount, elapsed: Duration) -> Report {
    let seconds = elapsed.as_secs_f64();
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    let records_per_second = (args.records as f64 / seconds.max(0.001)) as u64;
    let exact = recount.missing == 0 && recount.doubled == 0 && recount.wrong_totals == 0 && recount.contiguous;
    Report {
        records: args.records,
        kills: watch.kills,
        missing: recount.missing,
        doubled: recount.doubled,
        wrong_totals: recount.wrong_totals,
        batches: recount.batches,
        ledger_contiguous: recount.contiguous,
        seconds,
        records_per_second,
        ok: exact && watch.kills == args.kills,
    }
}

/// The job file of the child: what a person would write.
fn job_file(folder: &Path, servers: &str) -> Result<std::path::PathBuf> {
    let text = format!(
        r#"name = "demo"
[kafka]
bootstrap_servers = "{servers}"
topics = ["{TOPIC}"]
isolation_level = "read_uncommitted"
[stream]
batch_interval = "{interval}ms"
memory_max = "16MiB"
[store]
url = "sqlite:{database}"
[report]
listen = "off"
[[output]]
table = "orders"
mode = "append"
create = true
[output.columns]
id = {{ from = "value:/id", type = "bigint" }}
amount = {{ from = "value:/amount", type = "bigint" }}
[[output]]
table = "totals"
mode = "upsert"
key = ["customer"]
create = true
[output.columns]
customer = {{ from = "value:/customer", type = "text" }}
total = {{ from = "value:/amount", type = "bigint", merge = "add" }}
orders = {{ from = "one", type = "bigint", merge = "add" }}
"#,
        interval = BATCH_INTERVAL.as_millis(),
        database = database(folder).display(),
    );
    let path = folder.join("demo.toml");
    std::fs::write(&path, text).map_err(|error| Error::config("cannot write the demo's job file").caused_by(error))?;
    Ok(path)
}

fn database(folder: &Path) -> std::path::PathBuf {
    folder.join("demo.db")
}

/// Runs the engine until all records are committed, and kills it on the way.
async fn run_engine(args: &DemoArgs, folder: &Path, job: &Path, producer: &Producer, tell: &Tell) -> Result<Watch> {
    let mut engine = Engine::start(job)?;
    let mut watch = Watch::new(database(folder));
    let mut kills = 0;
    tell.line(&format!("engine started, process {}", engine.id()));
    let deadline = tell.clock.monotonic() + LIMIT;
    loop {
        let committed = watch.look(tell).await?;
        producer.committed(&watch.offsets());
        if committed >= args.records {
            break;
        }
        // Even steps of progress, the last of them with work left: the producer stays half a step beyond the next kill.
        let step = (args.records / (args.kills + 1)).max(1);
        let next = step * (kills + 1);
        producer.allow(if kills < args.kills { next + step / 2 } else { args.records });
        if kills < args.kills && committed >= next {
            // A little more work, and a moment that differs from kill to kill, so that it falls anywhere in a batch.
            producer.allow(next + step * 3 / 4);
            tokio::time::sleep(LOOK_EVERY * u32::try_from(kills % 5).unwrap_or(0)).await;
            if engine.kill()? {
                watch.kills += 1;
            }
            kills += 1;
            tell.killed(kills, committed, args.records);
            engine = Engine::start(job)?;
            tell.line(&format!("engine started again, process {}", engine.id()));
        }
        engine.must_live()?;
        if tell.clock.monotonic() > deadline {
            return Err(Error::internal(format!("the demo did not end within {} s", LIMIT.as_secs())));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    engine.stop()?;
    Ok(watch)
}

/// What is shown as it happens, on stderr.
pub(super) struct Tell {
    clock: Arc<dyn Clock>,
    colours: bool,
}

impl Tell {
    fn line(&self, text: &str) {
        use std::io::Write;
        // With stderr closed there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "{:6.2}s  {text}", self.clock.monotonic().as_secs_f64());
    }

    fn killed(&self, kill: u64, committed: u64, records: u64) {
        let text = format!("SIGKILL {kill}: {committed} of {records} records committed, the batch in hand is gone");
        self.line(&self.coloured("31;1", &text));
    }

    fn verdict(&self, report: &Report) {
        let text = format!(
            "recount: {} missing, {} doubled, {} wrong totals after {} kills; the ledger of {} batches is {}",
            report.missing,
            report.doubled,
            report.wrong_totals,
            report.kills,
            report.batches,
            if report.ledger_contiguous { "contiguous" } else { "BROKEN" },
        );
        self.line(&self.coloured(if report.ok { "32;1" } else { "31;1" }, &text));
    }

    fn coloured(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
