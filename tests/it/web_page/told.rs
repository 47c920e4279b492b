//! A reporter that was told of a job that never was: names, batches and numbers are the test's.

use std::{sync::Arc, time::Duration};

use directstream::{
    BatchInfo, BatchTime, Offset, OffsetRange, TopicPartition,
    clock::SystemClock,
    report::{
        BatchCounts, BatchOutcome, BatchProgress, CompletedBatch, CountedRange, GraphNode, GraphOutput, GraphStream,
        InputInfo, JobGraph, OutputOperationInfo, PartitionPosition, Reporter, Status, StepInfo, StepKind, TaskTimes,
    },
    types::DeadLetterStage,
};

use super::{BATCHES, FAILED, PARTITIONS};

/// How long each batch's transaction took.
const COMMIT_MS: i64 = 38;

/// Numbers that look like a job's, the same each time.
struct Noise(u64);

impl Noise {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Where a partition stands before a batch.
fn first_offset(partition: i32, batch_seq: u64) -> i64 {
    100_000 + i64::from(partition) * 7 + i64::try_from(batch_seq).unwrap() * 20
}

/// What a reporter is told of, and the names in it.
pub(super) struct Told {
    pub(super) reporter: Reporter,
    start_ms: i64,
    topics: [String; 2],
    output: String,
    pub(super) failure: String,
    noise: Noise,
}

impl Told {
    pub(super) fn new(application: &str, [orders, returns, output, failure]: [&str; 4]) -> Self {
        let clock = SystemClock::shared();
        let start_ms = (clock.now_ms() / 1_000 - i64::try_from(BATCHES).unwrap() - 1) * 1_000;
        let reporter = Reporter::new(application, clock);
        reporter.owned(3, 0);
        reporter.status(Status::Running);
        reporter.streaming_started(Duration::from_secs(1));
        reporter.rate_limit(Some(12_500.0));
        reporter.memory(73 << 20, 512 << 20);
        let topics = [orders, returns].map(str::to_owned);
        let told = Self { reporter, start_ms, topics, output: output.into(), failure: failure.into(), noise: Noise(7) };
        told.graph();
        told
    }

    fn graph(&self) {
        let node = |id, name: &str, inputs: &[usize], stream| GraphNode {
            id,
            name: name.into(),
            inputs: inputs.into(),
            stream,
            slide_ms: (id == 6).then_some(10_000),
        };
        let output = |name: &str, inputs: &[usize], table: &str| GraphOutput {
            name: name.into(),
            inputs: inputs.into(),
            transactional: !table.is_empty(),
            tables: Some(table.to_owned()).into_iter().filter(|table| !table.is_empty()).collect(),
            slide_ms: None,
        };
        self.reporter.job_graph(JobGraph {
            streams: self.topics.iter().map(|name| GraphStream { name: name.clone() }).collect(),
            operators: vec![
                node(1, "direct_stream", &[], Some(0)),
                node(2, "direct_stream", &[], Some(1)),
                node(3, "map", &[1], None),
                node(4, "map", &[2], None),
                node(5, "union", &[3, 4], None),
                node(6, "reduce_by_key_and_window", &[5], None),
            ],
            outputs: vec![
                output(&self.output, &[3], "orders"),
                output("save_to_table user_totals", &[6], "user_totals"),
                output("print", &[5], ""),
            ],
        });
    }

    fn topic_partition(&self, partition: i32) -> TopicPartition {
        let of_orders = PARTITIONS * 3 / 5;
        if partition < of_orders {
            TopicPartition::new(self.topics[0].as_str(), partition)
        } else {
            TopicPartition::new(self.topics[1].as_str(), partition - of_orders)
        }
    }

    pub(super) fn positions(&mut self, partitions: i32) {
        let position = |partition| {
            let committed = first_offset(partition, BATCHES + 1);
            let lag = if partition % 13 == 0 { 3 } else { 1 } * self.noise.below(977);
            PartitionPosition {
                topic_partition: self.topic_partition(partition),
                committed: Offset::new(committed),
                latest: Offset::new(committed + 20 + i64::try_from(lag).unwrap()),
                earliest: Offset::new(20_000),
            }
        };
        let positions = (0..partitions).map(position).collect();
        self.reporter.positions(positions);
    }

    /// Batch `batch_seq` over so many partitions, before it began.
    pub(super) fn batch(&mut self, batch_seq: u64, partitions: i32) -> BatchProgress {
        let batch_time = BatchTime::from_ms(self.start_ms + i64::try_from(batch_seq).unwrap() * 1_000);
        let load = 8 + self.noise.below(10);
        let range = |partition| {
            let from = first_offset(partition, batch_seq);
            let until = from + 3 + i64::try_from(self.noise.below(load)).unwrap();
            OffsetRange::new(self.topic_partition(partition), Offset::clamped(from), Offset::clamped(until))
        };
        let ranges: Arc<[OffsetRange]> = (0..partitions).map(range).collect();
        let of = |stream_id: usize| InputInfo {
            stream_id,
            ranges: ranges.iter().filter(|range| range.topic() == self.topics[stream_id]).cloned().collect(),
            records: None,
        };
        BatchProgress {
            inputs: vec![of(0), of(1)],
            batch: BatchInfo { batch_seq, batch_time, ranges },
            submission_time_ms: batch_time.as_ms(),
            processing_start_time_ms: None,
            processing_end_time_ms: None,
            output_operations: Vec::new(),
        }
    }

    /// The same, up to its end.
    pub(super) fn run(&mut self, batch_seq: u64, partitions: i32) {
        let mut batch = self.batch(batch_seq, partitions);
        self.reporter.batch_submitted(&batch);
        batch.processing_start_time_ms = Some(batch.submission_time_ms);
        self.reporter.batch_started(&batch);
        self.end(batch);
    }

    /// When which part of a batch ran, as the driver tells it: two tasks that read for half of their time.
    fn steps(&mut self, batch_time: BatchTime, [began, end]: [i64; 2]) {
        let committing = end - COMMIT_MS;
        let reading = Duration::from_millis(40 + self.noise.below(20));
        let step = |kind, start_time_ms, end_time_ms| StepInfo { kind, start_time_ms, end_time_ms };
        self.reporter.batch_step(batch_time, step(StepKind::Plan, began - 3, began));
        self.reporter.batch_step(batch_time, step(StepKind::Read, began + 2, committing - 20));
        self.reporter.batch_read(batch_time, TaskTimes { reading, transforming: reading.mul_f64(1.3) }, &[]);
        self.reporter.batch_step(batch_time, step(StepKind::Process, began, committing - 12));
        self.reporter.batch_step(batch_time, step(StepKind::Wait, committing - 12, committing));
        self.reporter.batch_step(batch_time, step(StepKind::Commit, committing, end));
    }

    /// The end of a batch that runs.
    pub(super) fn end(&mut self, mut batch: BatchProgress) {
        let batch_seq = batch.batch.batch_seq;
        let time_ms = batch.batch.batch_time.as_ms();
        let spike = if batch_seq % 241 == 200 { 900 } else { 0 };
        let [waited, worked] = [self.noise.below(9), 180 + self.noise.below(250) + spike];
        let began = time_ms + i64::try_from(waited).unwrap();
        batch.processing_start_time_ms = Some(began);
        let failed = batch_seq == FAILED;
        let end = began + i64::try_from(worked).unwrap();
        let operation = |id, name: &str, failure: Option<&str>| OutputOperationInfo {
            batch_time: batch.batch.batch_time,
            id,
            name: name.to_owned(),
            start_time_ms: Some(began + 10),
            end_time_ms: Some(end - 30),
            failure_reason: failure.map(str::to_owned),
        };
        batch.output_operations = vec![
            operation(0, &self.output, None),
            operation(1, "save_to_table user_totals", failed.then_some(self.failure.as_str())),
        ];
        batch.processing_end_time_ms = Some(end);
        self.steps(batch.batch.batch_time, [began, end]);
        let records = batch.num_records();
        let counted = |range: &OffsetRange| CountedRange { range: range.clone(), records: range.count(), gaps: 0 };
        let counts = BatchCounts {
            records,
            bytes: records * 130,
            rows: records - 2,
            dead_letters: vec![(DeadLetterStage::Convert, 2)],
            ranges: batch.batch.ranges.iter().map(counted).collect(),
            ..BatchCounts::default()
        };
        self.reporter.batch_completed(&CompletedBatch {
            progress: batch,
            outcome: if failed { BatchOutcome::Failed } else { BatchOutcome::Completed },
            counts,
            commit_time: Some(Duration::from_millis(COMMIT_MS.unsigned_abs())),
            failure: failed.then(|| self.failure.clone()),
        });
    }
}
