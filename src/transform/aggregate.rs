//! `aggregate` and `fold`: all elements become one value.

use std::ops::ControlFlow;

use super::{DStream, Element, Rdd};
use crate::error::Result;

impl<T: Send + 'static> Rdd<T> {
    /// Each partition begins with `zero` and `add`s its elements, in order; then the partitions' results are `merge`d into
    /// `zero`, in the order of partitions. `zero` must change nothing: it comes in once per partition and once more.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let letters = Rdd::parallelize(["a", "bc"], 2).aggregate(0, |sum, word| sum + word.len(), |a, b| a + b)?;
    /// assert_eq!(letters, 3);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// What a task failed with.
    pub fn aggregate<A: Clone + Send + Sync>(
        &self,
        zero: A,
        add: impl Fn(A, T) -> A + Sync,
        merge: impl Fn(A, A) -> A,
    ) -> Result<A> {
        let parts = self.run(
            |_| None,
            |total: &mut Option<A>, item| {
                *total = Some(add(total.take().unwrap_or_else(|| zero.clone()), item));
                ControlFlow::Continue(())
            },
        )?;
        Ok(parts.into_iter().flatten().fold(zero, merge))
    }

    /// Each partition begins with `zero` and combines its elements, in order; then the partitions' results are combined, in
    /// their order. `zero` must change nothing: it comes in once per partition and once more. Other than
    /// [`reduce`](Self::reduce) it gives something, `zero`, if there are no elements.
    ///
    /// # Errors
    /// What a task failed with.
    pub fn fold(&self, zero: T, combine: impl Fn(T, T) -> T + Sync) -> Result<T>
    where
        T: Clone + Sync,
    {
        self.aggregate(zero, &combine, &combine)
    }
}

impl<T: Send + 'static> DStream<T> {
    /// One element per batch, `zero` for an empty one: each partition begins with `zero` and `add`s its elements, in order;
    /// then the results are `merge`d, in the order of partitions. See [`Rdd::aggregate`]. Spark: `aggregate` of an RDD.
    ///
    /// ```
    /// # fn example(lines: directstream::transform::DStream<String>) {
    /// let letters_of_each_batch = lines.aggregate(0, |sum, line| sum + line.len(), |a, b| a + b);
    /// # }
    /// ```
    #[must_use]
    pub fn aggregate<A: Element>(
        &self,
        zero: A,
        add: impl Fn(A, T) -> A + Send + Sync + 'static,
        merge: impl Fn(A, A) -> A + Send + Sync + 'static,
    ) -> DStream<A> {
        self.derive_action("aggregate", move |rdd| Ok([rdd.aggregate(zero.clone(), &add, &merge)?]))
    }

    /// One element per batch, `zero` for an empty one: all elements combined. See [`Rdd::fold`]. Spark: `fold` of an RDD.
    #[must_use]
    pub fn fold(&self, zero: T, combine: impl Fn(T, T) -> T + Send + Sync + 'static) -> Self
    where
        T: Element,
    {
        self.derive_action("fold", move |rdd| Ok([rdd.fold(zero.clone(), &combine)?]))
    }
}
