//! `foreach_partition`: the user's own code per partition, with what is costly to make made once.

use super::{DStream, Rdd, foreach_rdd::add_side_effect, rdd::push};
use crate::error::Result;

impl<T: Send + 'static> Rdd<T> {
    /// Runs `each` once per partition with its number and all its elements, in order; partitions in parallel, in no order. An
    /// empty partition has its call, too. Spark: `foreachPartition`, which gives an iterator.
    ///
    /// Only as many partitions are in memory as tasks run at a time.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use directstream::transform::Rdd;
    ///
    /// let longest = AtomicUsize::new(0);
    /// Rdd::parallelize(0..10, 4).foreach_partition(|_number, items| {
    ///     longest.fetch_max(items.len(), Ordering::Relaxed);
    ///     Ok(())
    /// })?;
    /// assert_eq!(longest.into_inner(), 3);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// What a task or `each` failed with.
    pub fn foreach_partition(&self, each: impl Fn(usize, Vec<T>) -> Result<()> + Sync) -> Result<()> {
        let whole = self.run_whole(
            |partition| Ok((partition, Vec::new())),
            |(_, part), item| push(part, item),
            |(partition, items)| each(partition, items),
        );
        whole.map(|_| ())
    }
}

impl<T: Send + 'static> DStream<T> {
    /// Runs `each` once per batch and partition with the partition's number and all its elements: the place for a connection
    /// of a pool, or a client that sends many elements at once. Tasks are threads of one process, so `each` can hold the pool
    /// itself, where Spark's needs one per executor. See the example `foreach_partition`.
    ///
    /// A side effect: it runs before the commit and again if the batch is retried, so at least once: what it does must be
    /// fit to happen twice, as an upsert is. An error of [`Unavailable`](crate::ErrorKind::Unavailable) has the batch retried, any
    /// other ends the stream. For effects that are exactly once see [`foreach_rdd_in`](Self::foreach_rdd_in). Spark: `foreachRDD`
    /// with `foreachPartition`.
    ///
    /// ```
    /// # struct Pool;
    /// # impl Pool { fn send(&self, _: &[String]) -> std::io::Result<()> { Ok(()) } }
    /// # fn example(lines: directstream::transform::DStream<String>, pool: Pool) {
    /// lines.foreach_partition(move |_number, lines| {
    ///     pool.send(&lines).map_err(|error| directstream::Error::unavailable("cannot send").caused_by(error))
    /// });
    /// # }
    /// ```
    pub fn foreach_partition(&self, each: impl Fn(usize, Vec<T>) -> Result<()> + Send + Sync + 'static) {
        let stream = self.used();
        add_side_effect(self, "foreach_partition", move |scope| stream.rdd(scope)?.foreach_partition(&each));
    }
}
