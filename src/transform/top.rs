//! `top` and `take_ordered`: the largest and the smallest elements.

use std::{cmp::Reverse, collections::BinaryHeap, ops::ControlFlow};

use super::{DStream, Element, Rdd};
use crate::error::Result;

impl<T: Ord + Send + 'static> Rdd<T> {
    /// The `count` smallest elements, in order. Each partition holds no more than `count` of them.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// assert_eq!(Rdd::parallelize([5, 3, 9, 1], 2).take_ordered(2)?, [1, 3]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// What a task failed with.
    pub fn take_ordered(&self, count: usize) -> Result<Vec<T>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let heaps = self.run(
            |_| BinaryHeap::new(),
            |smallest: &mut BinaryHeap<T>, item| {
                if smallest.len() < count {
                    smallest.push(item);
                } else if let Some(mut largest) = smallest.peek_mut()
                    && item < *largest
                {
                    *largest = item;
                }
                ControlFlow::Continue(())
            },
        )?;
        let mut items: Vec<T> = heaps.into_iter().flat_map(BinaryHeap::into_vec).collect();
        items.sort();
        items.truncate(count);
        Ok(items)
    }

    /// The `count` largest elements, the largest first. Each partition holds no more than `count` of them.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// assert_eq!(Rdd::parallelize([5, 3, 9, 1], 2).top(2)?, [9, 5]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// What a task failed with.
    pub fn top(&self, count: usize) -> Result<Vec<T>> {
        let items = self.map(Reverse).take_ordered(count)?;
        Ok(items.into_iter().map(|Reverse(item)| item).collect())
    }
}

impl<T: Element + Ord> DStream<T> {
    /// The `count` smallest elements of each batch, in order. Spark: `takeOrdered` of an RDD.
    #[must_use]
    pub fn take_ordered(&self, count: usize) -> Self {
        self.derive_action("take_ordered", move |rdd| rdd.take_ordered(count))
    }

    /// The `count` largest elements of each batch, the largest first. Spark: `top` of an RDD.
    ///
    /// ```
    /// # fn example(words: directstream::transform::DStream<String>) {
    /// // The ten most frequent words of each batch.
    /// let most_frequent = words.count_by_value().swap().top(10);
    /// # }
    /// ```
    #[must_use]
    pub fn top(&self, count: usize) -> Self {
        self.derive_action("top", move |rdd| rdd.top(count))
    }
}
