//! A committed batch once more: read and transformed as the job does it, without its commit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::letters::{Content, Place, Places};
use crate::{
    clock::Clock,
    commit::{Comparison, LedgerBatch, LedgerRange},
    config::Job,
    error::{Error, Result, Stage},
    read::{DirectReader, KafkaRdd, ReadRanges, ReaderSettings},
    stream::source::kafka_properties,
    transform::{
        BatchScope, DirectKafkaInputDStream, Graph, Input, InputFormat, LocalRunner, OnError, Output, Prepared, Runner,
        TransactionalOutput,
    },
    types::{BatchInfo, ColumnShape, Compute, OffsetRange, RangeCounts, Record, TableSpec, Task},
};

/// What is found of records that have no row.
type Found = Arc<Mutex<BTreeMap<Place, Content>>>;

/// The records of a batch that have no row.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Refused by the database, or where the job file was mended since.
    pub(super) letters: Places,
    /// Taken back by an operator.
    pub(super) undone: Vec<OffsetRange>,
}

impl LeftOut {
    fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.undone.is_empty()
    }

    fn is_undone(&self, record: &Record) -> bool {
        let (topic_partition, offset) = (record.topic_partition(), record.offset());
        let within = |range: &OffsetRange| {
            range.topic_partition == *topic_partition && (range.from_offset..range.until_offset).contains(&offset)
        };
        self.undone.iter().any(within)
    }
}

/// A batch read and transformed again.
pub(super) struct Again {
    pub(super) prepared: Prepared,
    /// What reading each range found.
    pub(super) counts: Vec<RangeCounts>,
    /// The records that were left out, those that Kafka has.
    pub(super) left_out: BTreeMap<Place, Content>,
}

/// The job's own pipeline, without its commit.
pub(super) struct Replay {
    reader: Arc<DirectReader>,
    runner: Arc<dyn Runner>,
    format: InputFormat,
    tables: Vec<TableSpec>,
    shapes: Vec<Vec<ColumnShape>>,
    /// For batches of which every record has its rows: no record is looked up anywhere.
    whole: Arc<dyn TransactionalOutput>,
}

impl Replay {
    pub(super) fn new(job: &Job, comparison: &Comparison, clock: Arc<dyn Clock>) -> Result<Self> {
        let settings = ReaderSettings {
            properties: kafka_properties(&job.kafka, &job.name),
            isolation: job.kafka.isolation_level,
            memory_max_bytes: job.stream.memory_max,
            clients: None,
        };
        let (format, tables) = (job.input.format, comparison.expected_tables().to_vec());
        Ok(Self {
            reader: Arc::new(DirectReader::new(settings, clock)?),
            runner: Arc::new(LocalRunner::per_core()),
            whole: output(format, &tables, LeftOut::default(), Found::default())?,
            format,
            tables,
            shapes: comparison.shapes(),
        })
    }

    /// Reads and transforms the batch again, without the records of `left_out`; waits for Kafka.
    pub(super) fn batch(&self, batch: &LedgerBatch, ranges: &[LedgerRange], left_out: LeftOut) -> Result<Again> {
        let found = Found::default();
        let output = match left_out.is_empty() {
            true => Arc::clone(&self.whole),
            false => output(self.format, &self.tables, left_out, Arc::clone(&found))?,
        };
        let ranges: Arc<[OffsetRange]> = ranges.iter().map(|range| range.range.clone()).collect();
        // All at once, so that they share the memory budget.
        self.reader.prepare(&ranges, &|_| None).map_err(|error| error.at(Stage::Read))?;
        let reader: Arc<dyn ReadRanges> = Arc::clone(&self.reader) as Arc<dyn ReadRanges>;
        let records = Arc::new(KafkaRdd::new(reader, Arc::clone(&ranges), false));
        let input = Input { records: Arc::clone(&records) as Arc<dyn Compute<Record>>, ranges: Arc::clone(&ranges) };
        let info = BatchInfo { batch_seq: batch.batch_seq, batch_time: batch.batch_time, ranges };
        let task = Task::new(info);
        let scope = BatchScope::new(task.clone(), Arc::clone(&self.runner), vec![input]);
        let prepared = output.prepare(&scope, &self.shapes)?;
        let counts = (0..records.offset_ranges().len()).map(|partition| records.complete(partition, &task));
        let counts = counts.collect::<Result<_>>()?;
        let left_out = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Again { prepared, counts, left_out })
    }
}

/// The job's output over all records but those of `left_out`, which go into `found`.
fn output(
    format: InputFormat,
    tables: &[TableSpec],
    left_out: LeftOut,
    found: Found,
) -> Result<Arc<dyn TransactionalOutput>> {
    let graph = Graph::default();
    let records = DirectKafkaInputDStream::new(&graph);
    let tables = tables.to_vec();
    if left_out.is_empty() {
        records.save_records(format, OnError::DeadLetter, tables);
    } else {
        let others = records.filter(move |record: &Record| {
            let (topic_partition, offset) = (record.topic_partition(), record.offset());
            if !left_out.letters.contains(topic_partition, offset) {
                return !left_out.is_undone(record);
            }
            let content = Content::of_record(record);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.insert((topic_partition.clone(), offset), content);
            false
        });
        others.save_records(format, OnError::DeadLetter, tables);
    }
    match graph.outputs().as_slice() {
        [Output::Transactional(output)] => Ok(Arc::clone(output)),
        _ => Err(Error::internal("a job has one output")),
    }
}
