//! `verify`: everything that the ledger says was committed, read from Kafka again and compared. The proof, not a promise.
//!
//! The ledger must be a chain; each range must hold what it held, by count and checksum; and the tables must be what the
//! records make of them. Nothing is written but temporary tables, all in one snapshot, also beside a running job.

mod chain;

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
};

use self::chain::Chain;
use super::{job::in_time, latest::whole_answers, start::kafka_properties, work::on_own_thread};
use crate::{
    clock::Clock,
    commit::{Comparison, Inspector, LedgerBatch, LedgerLoss, LedgerMove, LedgerRange, RowDifference},
    config::Job,
    error::{Error, Result, Stage},
    kafka::TopicAnswer,
    plan::Answers,
    read::{DirectReader, KafkaRdd, ReadRanges, ReaderSettings},
    report::shortened,
    transform::{
        BatchScope, DirectKafkaInputDStream, Graph, Input, LocalRunner, OnError, Output, Prepared, Runner,
        TransactionalOutput,
    },
    types::{BatchInfo, ColumnShape, Compute, Offset, OffsetRange, RangeCounts, Record, Task, TopicPartition},
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
    /// `ledger`, `records`, or what is wrong with a row: `missing`, `doubled`, `altered`, `unexpected`.
    pub kind: &'static str,
    /// One line: what and where. A row is named by its identity, which is data of the user's.
    pub what: String,
}

impl Verification {
    fn add(&mut self, kind: &'static str, what: String) {
        self.found += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { kind, what });
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
    let (mut comparison, application, stored, losses, moves) = in_time(job, begun).await?;
    let (_, answers) = whole_answers(job, Arc::clone(&clock)).await?;
    let replay = Arc::new(Replay::new(job, &comparison, clock)?);
    let mut verification = Verification { complete: since <= 1, ..Verification::default() };
    let mut chain = Chain::with_moves(moves.clone());
    let mut next = since;
    loop {
        let page = comparison.inspector().batches_from(next, LEDGER_PAGE).await?;
        let Some(last) = page.last() else { break };
        let mut letters = comparison.inspector().letters_of(next..=last.batch_seq).await?;
        next = last.batch_seq + 1;
        for batch in page {
            if verification.first_batch.is_none() {
                verification.first_batch = Some(batch.batch_seq);
                verification.complete &= batch.batch_seq == 1;
            }
            verification.last_batch = Some(batch.batch_seq);
            verification.batches += 1;
            let of_batch: Vec<LedgerLoss> =
                losses.iter().filter(|loss| loss.batch_seq == batch.batch_seq).cloned().collect();
            for wrong in chain.follow(&batch, &of_batch) {
                verification.add("ledger", wrong);
            }
            let kept = letters.counts.get(&batch.batch_seq).copied().unwrap_or(0);
            if kept != batch.dead_letters {
                let what = format!(
                    "the dead letters are not as many as the ledger says batch={} ledger={} kept={kept}",
                    batch.batch_seq, batch.dead_letters
                );
                verification.add("ledger", what);
            }
            let there: Vec<LedgerRange> =
                batch.ranges.iter().filter(|range| is_there(range, &answers)).cloned().collect();
            let gone = batch.ranges.len() - there.len();
            verification.ranges_gone += gone as u64;
            verification.complete &= gone == 0;
            replay.leave_out(LeftOut {
                letters: letters.left_out.remove(&batch.batch_seq).unwrap_or_default(),
                undone: undone(&moves, batch.batch_seq),
            });
            let (replay, again) = (Arc::clone(&replay), there.clone());
            let info = batch.clone();
            let (prepared, counts) = on_own_thread(move || replay.batch(&info, &again)).await??;
            for (range, counts) in there.iter().zip(counts) {
                compare_counts(&mut verification, &batch, range, &counts);
            }
            comparison.expect(&prepared.tables).await?;
            progress(verification.records);
        }
    }
    for wrong in chain.finish(&application, &stored) {
        verification.add("ledger", wrong);
    }
    let complete = verification.complete;
    for table in 0..job.outputs.len() {
        comparison.differences(table, complete, |difference| verification.add_row(&difference)).await?;
    }
    Ok(verification)
}

/// The offsets of a batch whose rows were deleted later, when they were moved back to be read again.
fn undone(moves: &[LedgerMove], batch_seq: u64) -> Vec<OffsetRange> {
    moves.iter().filter(|moved| batch_seq <= moved.batch_seq).filter_map(LedgerMove::undone).collect()
}

fn compare_counts(verification: &mut Verification, batch: &LedgerBatch, range: &LedgerRange, now: &RangeCounts) {
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

/// The job's own pipeline, without its commit.
struct Replay {
    reader: Arc<DirectReader>,
    runner: Arc<dyn Runner>,
    output: Arc<dyn TransactionalOutput>,
    shapes: Vec<Vec<ColumnShape>>,
    left_out: Arc<RwLock<LeftOut>>,
}

/// The records of the batch at hand that have no row.
#[derive(Debug, Default)]
struct LeftOut {
    /// Refused by the database, or where the job file was mended since.
    letters: BTreeSet<(TopicPartition, Offset)>,
    /// Taken back by an operator.
    undone: Vec<OffsetRange>,
}

impl LeftOut {
    fn has(&self, record: &Record) -> bool {
        let (tp, offset) = (record.topic_partition(), record.offset());
        let within = |range: &OffsetRange| {
            range.topic_partition == *tp && (range.from_offset..range.until_offset).contains(&offset)
        };
        self.undone.iter().any(within) || (!self.letters.is_empty() && self.letters.contains(&(tp.clone(), offset)))
    }
}

impl Replay {
    fn new(job: &Job, comparison: &Comparison, clock: Arc<dyn Clock>) -> Result<Self> {
        let settings = ReaderSettings {
            properties: kafka_properties(&job.kafka, &job.name),
            isolation: job.kafka.isolation_level,
            memory_max_bytes: job.stream.memory_max,
            clients: None,
        };
        let graph = Graph::default();
        let left_out = Arc::<RwLock<LeftOut>>::default();
        let left = Arc::clone(&left_out);
        let records = DirectKafkaInputDStream::new(&graph)
            .filter(move |record: &Record| !left.read().unwrap_or_else(PoisonError::into_inner).has(record));
        records.save_records(job.input.format, OnError::DeadLetter, comparison.expected_tables().to_vec());
        let outputs = graph.outputs();
        let [Output::Transactional(output)] = outputs.as_slice() else {
            return Err(Error::internal("a job has one output"));
        };
        Ok(Self {
            reader: Arc::new(DirectReader::new(settings, clock)?),
            runner: Arc::new(LocalRunner::per_core()),
            output: Arc::clone(output),
            shapes: comparison.shapes(),
            left_out,
        })
    }

    /// What of the next batch has no row.
    fn leave_out(&self, left_out: LeftOut) {
        *self.left_out.write().unwrap_or_else(PoisonError::into_inner) = left_out;
    }

    /// Reads and transforms the batch again; waits for Kafka.
    fn batch(&self, batch: &LedgerBatch, ranges: &[LedgerRange]) -> Result<(Prepared, Vec<RangeCounts>)> {
        let ranges: Arc<[OffsetRange]> = ranges.iter().map(|range| range.range.clone()).collect();
        // All at once, so that they share the memory budget.
        self.reader.prepare(&ranges, &|_| None).map_err(|error| error.at(Stage::Read))?;
        let reader: Arc<dyn ReadRanges> = Arc::clone(&self.reader) as Arc<dyn ReadRanges>;
        let records = Arc::new(KafkaRdd::new(reader, Arc::clone(&ranges), false));
        let input = Input { records: Arc::clone(&records) as Arc<dyn Compute<Record>>, ranges: Arc::clone(&ranges) };
        let info = BatchInfo { batch_seq: batch.batch_seq, batch_time: batch.batch_time, ranges };
        let task = Task::new(info);
        let scope = BatchScope::new(task.clone(), Arc::clone(&self.runner), vec![input]);
        let prepared = self.output.prepare(&scope, &self.shapes)?;
        let counts = (0..records.offset_ranges().len()).map(|partition| records.complete(partition, &task));
        Ok((prepared, counts.collect::<Result<_>>()?))
    }
}
