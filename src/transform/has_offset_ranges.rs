//! The direct stream itself, and the ranges that its own RDDs know.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use super::{BatchScope, DStream, Graph, Input, Rdd};
use crate::{
    error::Result,
    types::{Offset, OffsetRange, Record, TopicPartition},
};

/// The ranges an RDD was read from. Only the direct stream's own RDD has them, and only those of its own batch: after
/// `map` or a shuffle there is nothing to ask, so a wrong use does not compile.
///
/// ```
/// use directstream::transform::{DirectKafkaInputDStream, HasOffsetRanges};
///
/// fn log_ranges(stream: &DirectKafkaInputDStream) {
///     stream.foreach_direct_rdd(|rdd| {
///         for range in rdd.offset_ranges() {
///             eprintln!("{range}");
///         }
///         Ok(())
///     });
/// }
/// ```
///
/// ```compile_fail
/// use directstream::transform::{DirectKafkaInputDStream, HasOffsetRanges};
///
/// fn wrong(stream: &DirectKafkaInputDStream) {
///     // The mapped stream's RDD no longer knows which range a partition came from.
///     stream.map(|record| record.offset()).foreach_rdd(|rdd| {
///         rdd.offset_ranges();
///         Ok(())
///     });
/// }
/// ```
pub trait HasOffsetRanges {
    /// The ranges: range `i` is what partition `i` was read from.
    fn offset_ranges(&self) -> &[OffsetRange];
}

/// Offsets that the program wants in a consumer group, for tools that look there: how far a group is, and its lag. Where the
/// stream goes on is not a matter of these: that is in the store. Spark: `CanCommitOffsets`.
///
/// ```
/// use directstream::transform::{CanCommitOffsets, DirectKafkaInputDStream, HasOffsetRanges};
///
/// fn show_to_kafkas_tools(stream: &DirectKafkaInputDStream) {
///     let commits = stream.clone();
///     stream.foreach_direct_rdd(move |rdd| {
///         commits.commit_async(rdd.offset_ranges());
///         Ok(())
///     });
/// }
/// ```
pub trait CanCommitOffsets {
    /// Has the ends of these ranges committed to the group that [`DirectStream::group_id`] names; of several for one partition
    /// the highest. Returns at once. They go to Kafka when a later batch is begun, or the stream ends, and not before their own
    /// batch is committed. What the broker refuses is logged, and not tried again. Spark: `commitAsync`.
    ///
    /// [`DirectStream::group_id`]: crate::stream::DirectStream::group_id
    fn commit_async(&self, offset_ranges: &[OffsetRange]);
}

/// What waits to be committed to a stream's consumer group: of each partition the highest.
#[derive(Debug, Default)]
pub(crate) struct CommitQueue(Mutex<BTreeMap<TopicPartition, Offset>>);

impl CommitQueue {
    fn add(&self, ranges: &[OffsetRange]) {
        let mut queued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for range in ranges {
            let queued = queued.entry(range.topic_partition.clone()).or_default();
            *queued = (*queued).max(range.until_offset);
        }
    }

    /// Takes what `ready` says may go; the rest waits on.
    pub(crate) fn take(&self, ready: impl Fn(&TopicPartition, Offset) -> bool) -> BTreeMap<TopicPartition, Offset> {
        let mut queued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queued.extract_if(.., |known, offset| ready(known, *offset)).collect()
    }
}

/// The direct stream's own RDD of one batch: an [`Rdd`] of records that knows its ranges.
#[derive(Debug, Clone)]
pub struct DirectRdd {
    rdd: Rdd<Record>,
    ranges: Arc<[OffsetRange]>,
}

impl DirectRdd {
    /// The RDD of an input.
    pub(crate) fn of(input: Input, scope: &BatchScope) -> Self {
        Self { rdd: Rdd::new(input.records, scope.clone()), ranges: input.ranges }
    }
}

impl Deref for DirectRdd {
    type Target = Rdd<Record>;

    fn deref(&self) -> &Rdd<Record> {
        &self.rdd
    }
}

impl HasOffsetRanges for DirectRdd {
    fn offset_ranges(&self) -> &[OffsetRange] {
        &self.ranges
    }
}

/// The direct stream: a [`DStream`] of records whose own RDDs know their ranges.
#[derive(Debug, Clone)]
pub struct DirectKafkaInputDStream {
    stream: DStream<Record>,
    input: usize,
    commits: Arc<CommitQueue>,
}

impl CanCommitOffsets for DirectKafkaInputDStream {
    fn commit_async(&self, offset_ranges: &[OffsetRange]) {
        self.commits.add(offset_ranges);
    }
}

impl Deref for DirectKafkaInputDStream {
    type Target = DStream<Record>;

    fn deref(&self) -> &DStream<Record> {
        &self.stream
    }
}

impl DirectKafkaInputDStream {
    /// The direct stream that is the graph's next input.
    #[must_use]
    pub fn new(graph: &Graph) -> Self {
        let (input, commits) = graph.next_input();
        let stream =
            DStream::new(graph, "direct_stream", move |scope| Ok(Rdd::new(scope.input(input)?.records, scope.clone())));
        Self { stream, input, commits }
    }

    /// The number of this input, from 0 in order of definition.
    #[must_use]
    pub fn input(&self) -> usize {
        self.input
    }

    fn direct_rdd(input: usize, stream: &DStream<Record>, scope: &BatchScope) -> Result<DirectRdd> {
        Ok(DirectRdd { rdd: stream.rdd(scope)?, ranges: scope.input(input)?.ranges })
    }

    /// Runs `function` once per batch with the stream's own RDD, which knows its ranges. A side effect: it runs before the
    /// commit, at least once. Spark: `foreachRDD` with `HasOffsetRanges`.
    pub fn foreach_direct_rdd(&self, function: impl Fn(&DirectRdd) -> Result<()> + Send + Sync + 'static) {
        let (input, stream) = (self.input, self.stream.used());
        super::foreach_rdd::add_side_effect(&self.stream, "foreach_direct_rdd", move |scope| {
            function(&Self::direct_rdd(input, &stream, scope)?)
        });
    }

    /// Each batch's own RDD, which knows its ranges, through `function`. Spark: `transform` with `HasOffsetRanges`.
    pub fn transform_direct<U: Send + 'static>(
        &self,
        function: impl Fn(&DirectRdd) -> Result<Rdd<U>> + Send + Sync + 'static,
    ) -> DStream<U> {
        let (input, stream) = (self.input, self.stream.used());
        DStream::new(self.graph(), "transform_direct", move |scope| function(&Self::direct_rdd(input, &stream, scope)?))
    }
}
