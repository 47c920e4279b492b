//! `map_values`: each value becomes one other, and keeps its key.

use std::sync::Arc;

use super::{DStream, Rdd};

impl<K: Send + 'static, V: Send + 'static> Rdd<(K, V)> {
    /// Each value through `function`; keys stay.
    pub fn map_values<W: Send + 'static>(&self, function: impl Fn(V) -> W + Send + Sync + 'static) -> Rdd<(K, W)> {
        self.map(move |(key, value)| (key, function(value)))
    }
}

impl<K: Send + 'static, V: Send + 'static> DStream<(K, V)> {
    /// Each value through `function`; keys stay. Spark: `mapValues`.
    ///
    /// ```
    /// # fn example(prices: directstream::transform::DStream<(String, f64)>) {
    /// let with_tax = prices.map_values(|price| price * 1.2);
    /// # }
    /// ```
    pub fn map_values<W: Send + 'static>(&self, function: impl Fn(V) -> W + Send + Sync + 'static) -> DStream<(K, W)> {
        let function = Arc::new(function);
        self.derive("map_values", move |rdd| {
            let function = Arc::clone(&function);
            Ok(rdd.map_values(move |value| function(value)))
        })
    }
}
