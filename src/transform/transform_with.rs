//! `transform_with`: any function from the RDDs of two streams, or of many, to another.

use super::{DStream, Graph, Rdd, dstream::Nature};
use crate::{
    error::{Error, Result},
    types::BatchTime,
};

impl<T: Send + 'static> DStream<T> {
    /// Each batch's RDDs of this stream and another through `function`, which runs in the driver once per batch. Spark:
    /// `transformWith`.
    ///
    /// ```
    /// # use directstream::transform::DStream;
    /// # fn example(orders: DStream<(String, i64)>, payments: DStream<(String, i64)>) {
    /// let unpaid = orders.transform_with(&payments, |orders, payments| Ok(orders.subtract_by_key(&payments)));
    /// # }
    /// ```
    pub fn transform_with<U: Send + 'static, R: Send + 'static>(
        &self,
        other: &DStream<U>,
        function: impl Fn(Rdd<T>, Rdd<U>) -> Result<Rdd<R>> + Send + Sync + 'static,
    ) -> DStream<R> {
        self.derive_with(other, "transform_with", function)
    }
}

impl Graph {
    /// Each batch's RDDs of all `streams`, in this order, and its time through `function`, which runs in the driver once per
    /// batch. Spark: `StreamingContext.transform`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no stream, or one of another context.
    pub fn transform<T: Send + 'static, R: Send + 'static>(
        &self,
        streams: impl IntoIterator<Item = DStream<T>>,
        function: impl Fn(&[Rdd<T>], BatchTime) -> Result<Rdd<R>> + Send + Sync + 'static,
    ) -> Result<DStream<R>> {
        self.derive("transform", streams, move |rdds, batch_time| function(rdds, batch_time))
    }

    /// The elements of all `streams`, batch by batch: their partitions one after the other. Spark: `StreamingContext.union`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no stream, or one of another context.
    pub fn union<T: Send + 'static>(&self, streams: impl IntoIterator<Item = DStream<T>>) -> Result<DStream<T>> {
        self.derive("union", streams, |rdds, _| match rdds {
            [first, others @ ..] => Ok(first.union_all(others)),
            [] => Err(Error::internal("a union of no streams")),
        })
    }

    fn derive<T: Send + 'static, R: Send + 'static>(
        &self,
        operation: &'static str,
        streams: impl IntoIterator<Item = DStream<T>>,
        make: impl Fn(&[Rdd<T>], BatchTime) -> Result<Rdd<R>> + Send + Sync + 'static,
    ) -> Result<DStream<R>> {
        let streams: Vec<DStream<T>> = streams.into_iter().map(|stream| stream.used()).collect();
        if streams.is_empty() {
            return Err(Error::config(format!("an operation over many streams has none operation={operation}")));
        }
        if !streams.iter().all(|stream| stream.graph().is(self)) {
            return Err(Error::config(format!("a stream belongs to another context operation={operation}")));
        }
        self.check_slides(operation, streams.iter().map(DStream::slide_ms));
        let slide_ms = streams.first().and_then(DStream::slide_ms);
        let nature = Nature { slide_ms, stateful: streams.iter().any(DStream::is_stateful), kept: false };
        Ok(DStream::of_nature(self, operation, nature, move |scope| {
            let rdds = streams.iter().map(|stream| stream.rdd(scope)).collect::<Result<Vec<_>>>()?;
            make(&rdds, scope.batch().batch_time)
        }))
    }
}
