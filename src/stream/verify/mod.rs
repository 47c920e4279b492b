//! `verify`: everything that the ledger says was committed, read from Kafka again and compared. The proof, not a promise.
//!
//! The ledger must be a chain; each range must hold what it held, by count and checksum; dead letters must be Kafka's records;
//! and the tables must be what the records make of them. Nothing is written but temporary tables, all in one snapshot, also
//! beside a running job.

mod chain;
mod letters;
mod replay;

use std::{collections::BTreeSet, sync::Arc};

use self::{
    chain::Chain,
    letters::{BatchLetters, LedgerLetters, Places},
    replay::{Again, LeftOut, Replay},
};
use super::{job::in_time, latest::whole_answers, work::on_own_thread};
use crate::{
    clock::Clock,
    commit::{Comparison, Inspector, LedgerBatch, LedgerLetter, LedgerLoss, LedgerMove, LedgerRange, RowDifference},
    config::Job,
    error::Result,
    kafka::TopicAnswer,
    plan::Answers,
    report::shortened,
    types::{OffsetRange, RangeCounts},
};

/// Batches of the ledger that are read at a time.
const LEDGER_PAGE: u32 = 100;
/// So many findings are kept; all are counted.
pub const FINDINGS_MAX: usize = 1_000;
/// Enough of a value to know it by.
const VALUE_BYTES_MAX: usize = 60;

/// What was compared, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// The first batch that was verified; `None` if the ledger has none.
    pub first_batch: Option<u64>,
    /// The last one.
    pub last_batch: Option<u64>,
    /// How many batches.
    pub batches: u64,
    /// Ranges that were read again.
    pub ranges: u64,
    /// Their records.
    pub records: u64,
    /// Ranges that Kafka no longer has, and that could not be verified.
    pub ranges_gone: u64,
    /// Dead letters whose bytes were compared with their records'.
    pub letters: u64,
    /// Dead letters whose records Kafka no longer has, and that could not be verified.
    pub letters_gone: u64,
    /// Whether the tables could be compared in both directions: the ledger reaches back to the first batch, and Kafka still has
    /// all its ranges. Otherwise only rows that are missing in append tables can be told.
    pub complete: bool,
    /// The first [`FINDINGS_MAX`] findings.
    pub findings: Vec<Finding>,
    /// All findings.
    pub found: u64,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `ledger`, `records`, or what is wrong with a row or a dead letter: `missing`, `doubled`, `altered`, `unexpected`.
    pub kind: &'static str,
    /// One line: what and where. A row is named by its identity, which is data of the user's; a dead letter by its record's place.
    pub what: String,
}

impl Verification {
    fn add(&mut self, kind: &'static str, what: String) {
        self.find(Finding { kind, what });
    }

    fn find(&mut self, finding: Finding) {
        self.found += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    fn add_row(&mut self, difference: &RowDifference) {
        let origin = difference.origin.as_ref().map(|origin| format!(" record={origin}")).unwrap_or_default();
        let identity: String = difference
            .identity
            .iter()
            .map(|(name, text)| match text {
                Some(text) => format!(" {name}={}", shortened(text, VALUE_BYTES_MAX)),
                None => format!(" {name}=NULL"),
            })
            .collect();
        let what = format!("table={} rows={}{origin}{identity}", difference.table, difference.rows);
        self.add(difference.damage.as_str(), what);
    }
}

/// Verifies the batches of `job` from number `since` on. `progress` is told how many records were read so far.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) if the job has never run or its tables are of another shape,
/// [`Unavailable`](crate::ErrorKind::Unavailable) if a server does not answer. What is wrong with the data is no error here, but
/// a finding.
pub async fn verify(
    job: &Job,
    since: u64,
    clock: Arc<dyn Clock>,
    mut progress: impl FnMut(u64),
) -> Result<Verification> {
    let begun = async {
        let inspector = Inspector::open(&job.store.url, &job.name).await?;
        let mut comparison = Comparison::begin(inspector, &job.outputs).await?;
        let ledger = comparison.inspector();
        let application = ledger.known().await?;
        let (stored, losses, moves) =
            (ledger.offsets().await?, ledger.lost_ranges().await?, ledger.moved_offsets().await?);
        Ok((comparison, application, stored, losses, moves))
    };
    let (comparison, application, stored, losses, moves) = in_time(job, begun).await?;
    let (_, answers) = whole_answers(job, Arc::clone(&clock)).await?;
    let replay = Arc::new(Replay::new(job, &comparison, clock)?);
    let verification = Verification { complete: since <= 1, ..Verification::default() };
    let chain = Chain::with_moves(moves.clone());
    let mut verifier = Verifier { comparison, answers, replay, losses, moves, verification, chain };
    verifier.batches(since, &mut progress).await?;
    let Verifier { mut comparison, mut verification, mut chain, .. } = verifier;
    for wrong in chain.finish(&application, &stored) {
        verification.add("ledger", wrong);
    }
    for finding in letters::after(comparison.inspector(), application.batch_seq).await? {
        verification.find(finding);
    }
    let complete = verification.complete;
    for table in 0..job.outputs.len() {
        comparison.differences(table, complete, |difference| verification.add_row(&difference)).await?;
    }
    Ok(verification)
}

/// What goes from batch to batch.
struct Verifier {
    comparison: Comparison,
    answers: Answers,
    replay: Arc<Replay>,
    losses: Vec<LedgerLoss>,
    moves: Vec<LedgerMove>,
    verification: Verification,
    chain: Chain,
}

impl Verifier {
    async fn batches(&mut self, since: u64, progress: &mut impl FnMut(u64)) -> Result<()> {
        let mut next = since;
        loop {
            let page = self.comparison.inspector().batches_from(next, LEDGER_PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            let mut letters = LedgerLetters::begin(self.comparison.inspector(), next..=last.batch_seq).await?;
            next = last.batch_seq + 1;
            for batch in page {
                let letters = letters.of(self.comparison.inspector(), batch.batch_seq).await?;
                self.batch(&batch, letters).await?;
                progress(self.verification.records);
            }
        }
    }

    async fn batch(&mut self, batch: &LedgerBatch, letters: Vec<LedgerLetter>) -> Result<()> {
        let verification = &mut self.verification;
        if verification.first_batch.is_none() {
            verification.first_batch = Some(batch.batch_seq);
            verification.complete &= batch.batch_seq == 1;
        }
        verification.last_batch = Some(batch.batch_seq);
        verification.batches += 1;
        let of_batch: Vec<LedgerLoss> =
            self.losses.iter().filter(|loss| loss.batch_seq == batch.batch_seq).cloned().collect();
        for wrong in self.chain.follow(batch, &of_batch) {
            verification.add("ledger", wrong);
        }
        let there: Vec<LedgerRange> =
            batch.ranges.iter().filter(|range| is_there(range, &self.answers)).cloned().collect();
        let gone = batch.ranges.len() - there.len();
        verification.ranges_gone += gone as u64;
        verification.complete &= gone == 0;
        let kept = letters.len() as u64;
        let letters = BatchLetters::sort(batch, &there, letters);
        let (again, letters) = self.compare(batch, &there, letters).await?;
        let (kept, verification) = (letters.of_ledger(kept), &mut self.verification);
        verification.letters += letters.compared;
        verification.letters_gone += letters.gone;
        letters.findings.into_iter().for_each(|finding| verification.find(finding));
        if kept != batch.dead_letters {
            let what = format!(
                "the dead letters are not as many as the ledger says batch={} ledger={} kept={kept}",
                batch.batch_seq, batch.dead_letters
            );
            verification.add("ledger", what);
        }
        self.comparison.expect(&again.prepared.tables).await
    }

    /// Reads the batch again, and compares ranges and dead letters.
    async fn compare(
        &mut self,
        batch: &LedgerBatch,
        there: &[LedgerRange],
        mut letters: BatchLetters,
    ) -> Result<(Again, BatchLetters)> {
        let mut again = self.again(batch, there, letters.left_out().clone()).await?;
        let mut changed = BTreeSet::new();
        for (range, counts) in there.iter().zip(&again.counts) {
            if !compare_counts(&mut self.verification, batch, range, counts) {
                changed.insert(range.range.topic_partition.clone());
            }
        }
        let doubtful = letters.compare(self.comparison.inspector(), &again.left_out, &changed).await?;
        if !doubtful.is_empty() {
            // Whether such a record has its rows, the job itself says.
            again = self.again(batch, there, letters.left_out_for_sure(&doubtful)).await?;
            letters.judge(doubtful, &again.prepared.dead_letters);
        }
        // Without an output there is nothing that could refuse a record.
        if !self.comparison.expected_tables().is_empty() {
            letters.expect(&again.prepared.dead_letters);
        }
        Ok((again, letters))
    }

    async fn again(&self, batch: &LedgerBatch, there: &[LedgerRange], left_out: Places) -> Result<Again> {
        let left_out = LeftOut { letters: left_out, undone: self.undone(batch.batch_seq) };
        let (replay, batch, there) = (Arc::clone(&self.replay), batch.clone(), there.to_vec());
        on_own_thread(move || replay.batch(&batch, &there, left_out)).await?
    }

    /// The offsets of a batch whose rows were deleted later, when they were moved back to be read again.
    fn undone(&self, batch_seq: u64) -> Vec<OffsetRange> {
        self.moves.iter().filter(|moved| batch_seq <= moved.batch_seq).filter_map(LedgerMove::undone).collect()
    }
}

/// Whether a range holds what it held.
fn compare_counts(
    verification: &mut Verification,
    batch: &LedgerBatch,
    range: &LedgerRange,
    now: &RangeCounts,
) -> bool {
    verification.ranges += 1;
    verification.records += now.records;
    let then = &range.counts;
    let same = (then.records, then.gaps, then.bytes, then.checksum) == (now.records, now.gaps, now.bytes, now.checksum);
    if !same {
        verification.add(
            "records",
            format!(
                "Kafka's records are not those of the ledger batch={} range={} records={} now={} bytes={} now={} \
                 checksum={:016x} now={:016x}",
                batch.batch_seq,
                range.range,
                then.records,
                now.records,
                then.bytes,
                now.bytes,
                then.checksum,
                now.checksum
            ),
        );
    }
    same
}

/// Whether Kafka still has a range: its topic is the same one, and its offsets are in the log.
fn is_there(range: &LedgerRange, answers: &Answers) -> bool {
    let tp = &range.range.topic_partition;
    let same_topic = match answers.topics.get(&tp.topic) {
        Some(TopicAnswer::Topic { id, .. }) => match (id, &range.topic_id) {
            (Some(now), Some(then)) => now == then,
            _ => true,
        },
        _ => false,
    };
    let earliest = answers.earliest.get(tp).is_some_and(|earliest| *earliest <= range.range.from_offset);
    let latest = answers.latest.get(tp).is_some_and(|latest| *latest >= range.range.until_offset);
    same_topic && earliest && latest
}
