//! `flat_map_values`: each value becomes any number of values of the same key.

use std::sync::Arc;

use super::{DStream, Rdd};

impl<K: Clone + Send + 'static, V: Send + 'static> Rdd<(K, V)> {
    /// Each value through `function`, which gives any number of values; each keeps the key.
    pub fn flat_map_values<I>(&self, function: impl Fn(V) -> I + Send + Sync + 'static) -> Rdd<(K, I::Item)>
    where
        I: IntoIterator<Item: Send + 'static> + 'static,
    {
        self.flat_map(move |(key, value)| function(value).into_iter().map(move |value| (key.clone(), value)))
    }
}

impl<K: Clone + Send + 'static, V: Send + 'static> DStream<(K, V)> {
    /// Each value through `function`, which gives any number of values; each keeps the key. Spark: `flatMapValues`.
    ///
    /// ```
    /// # fn example(sentences: directstream::transform::DStream<(i64, String)>) {
    /// let words = sentences.flat_map_values(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>());
    /// # }
    /// ```
    pub fn flat_map_values<I>(&self, function: impl Fn(V) -> I + Send + Sync + 'static) -> DStream<(K, I::Item)>
    where
        I: IntoIterator<Item: Send + 'static> + 'static,
    {
        let function = Arc::new(function);
        self.derive("flat_map_values", move |rdd| {
            let function = Arc::clone(&function);
            Ok(rdd.flat_map_values(move |value| function(value)))
        })
    }
}
