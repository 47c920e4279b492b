//! `sum`: all numbers added up.

use std::ops::{Add, ControlFlow};

use super::{DStream, Element, Rdd};
use crate::error::Result;

impl<T: Add<Output = T> + Default + Send + 'static> Rdd<T> {
    /// All numbers added up, within a partition in order, then partition by partition; 0 if there are none. A sum that the
    /// type cannot hold is what `+` makes of it: where that may happen, sum in a wider type.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// assert_eq!(Rdd::parallelize([1.5, 2.0], 2).sum()?, 3.5);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// What a task failed with.
    pub fn sum(&self) -> Result<T> {
        let sums = self.run(
            |_| T::default(),
            |sum: &mut T, item| {
                *sum = std::mem::take(sum) + item;
                ControlFlow::Continue(())
            },
        )?;
        Ok(sums.into_iter().fold(T::default(), Add::add))
    }
}

impl<T: Element + Add<Output = T> + Default> DStream<T> {
    /// One number per batch: all of its numbers added up, 0 for an empty batch. See [`Rdd::sum`]. Spark: `sum` of an RDD.
    ///
    /// ```
    /// # fn example(amounts: directstream::transform::DStream<f64>) {
    /// let turnover_of_each_batch = amounts.sum();
    /// # }
    /// ```
    #[must_use]
    pub fn sum(&self) -> Self {
        self.derive_action("sum", |rdd| Ok([rdd.sum()?]))
    }
}
