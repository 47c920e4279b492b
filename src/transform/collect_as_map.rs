//! `collect_as_map`: all pairs as a map.

use std::{collections::HashMap, hash::Hash};

use super::Rdd;
use crate::error::Result;

impl<K: Hash + Eq + Send + 'static, V: Send + 'static> Rdd<(K, V)> {
    /// All pairs as a map, in which the last of a key's values stays. They must fit into memory. Spark: `collectAsMap`.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let countries = Rdd::parallelize([("ann", "FR"), ("eve", "IT"), ("ann", "DE")], 2).collect_as_map()?;
    /// assert_eq!((countries["ann"], countries["eve"]), ("DE", "IT"));
    /// # Ok::<(), directstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// What a task failed with.
    pub fn collect_as_map(&self) -> Result<HashMap<K, V>> {
        Ok(self.collect()?.into_iter().collect())
    }
}
