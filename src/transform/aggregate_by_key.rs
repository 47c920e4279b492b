//! `aggregate_by_key`: `combine_by_key` that begins with the same value for every key.

use std::sync::Arc;

use super::{DStream, Element, Key, Rdd};

impl<K: Key, V: Send + 'static> Rdd<(K, V)> {
    /// One pair per key. Within each partition a key begins with `zero` and `merge_value` adds its values, in order;
    /// `merge_combiners` then puts together what the partitions made, in their order.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let words = Rdd::parallelize([("a", "apple"), ("b", "bean"), ("a", "air")], 2);
    /// let longest = words.aggregate_by_key(0, |max, word| max.max(word.len()), usize::max).collect_as_map()?;
    /// assert_eq!((longest["a"], longest["b"]), (5, 4));
    /// # Ok::<(), directstream::Error>(())
    /// ```
    pub fn aggregate_by_key<C: Element>(
        &self,
        zero: C,
        merge_value: impl Fn(C, V) -> C + Send + Sync + 'static,
        merge_combiners: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> Rdd<(K, C)> {
        let merge_value = Arc::new(merge_value);
        let first = Arc::clone(&merge_value);
        let create = move |value| first(zero.clone(), value);
        self.combine_by_key(create, move |combined, value| merge_value(combined, value), merge_combiners)
    }
}

impl<K: Key, V: Send + 'static> DStream<(K, V)> {
    /// One pair per key and batch. Within each partition a key begins with `zero` and `merge_value` adds its values, in
    /// order; `merge_combiners` then puts together what the partitions made, in their order. Spark: `aggregateByKey`.
    ///
    /// ```
    /// # fn example(words: directstream::transform::DStream<(char, String)>) {
    /// let longest = words.aggregate_by_key(0, |max, word| max.max(word.len()), usize::max);
    /// # }
    /// ```
    pub fn aggregate_by_key<C: Element>(
        &self,
        zero: C,
        merge_value: impl Fn(C, V) -> C + Send + Sync + 'static,
        merge_combiners: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> DStream<(K, C)> {
        let merge_value = Arc::new(merge_value);
        let first = Arc::clone(&merge_value);
        let create = move |value| first(zero.clone(), value);
        self.combine_by_key(create, move |combined, value| merge_value(combined, value), merge_combiners)
    }
}
