//! `min` and `max`: the smallest and the largest element.

use super::{DStream, Element, Rdd};
use crate::error::Result;

impl<T: Ord + Send + 'static> Rdd<T> {
    /// The smallest element, the first of equal ones; `None` if there are none.
    ///
    /// # Errors
    /// What a task failed with.
    pub fn min(&self) -> Result<Option<T>> {
        self.reduce(std::cmp::min)
    }

    /// The largest element, the last of equal ones; `None` if there are none.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let numbers = Rdd::parallelize([3, 8, 5], 2);
    /// assert_eq!((numbers.min()?, numbers.max()?), (Some(3), Some(8)));
    /// # Ok::<(), directstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// What a task failed with.
    pub fn max(&self) -> Result<Option<T>> {
        self.reduce(std::cmp::max)
    }
}

impl<T: Element + Ord> DStream<T> {
    /// The smallest element of each batch; none for an empty one. Spark: `min` of an RDD.
    #[must_use]
    pub fn min(&self) -> Self {
        self.derive_action("min", |rdd| rdd.min())
    }

    /// The largest element of each batch; none for an empty one. Spark: `max` of an RDD.
    #[must_use]
    pub fn max(&self) -> Self {
        self.derive_action("max", |rdd| rdd.max())
    }
}
