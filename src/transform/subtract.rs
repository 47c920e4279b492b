//! `subtract`, `subtract_by_key` and `intersection`: what is here and not there, and what is in both.

use super::{DStream, Element, Groups, Key, Rdd};

impl<T: Key> Rdd<T> {
    /// The elements that are not in `other`; one that is here twice stays twice. Both are held in memory, each element once.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let seen = Rdd::parallelize(["a", "b", "b"], 2);
    /// assert_eq!(seen.subtract(&Rdd::parallelize(["a", "c"], 1)).collect()?, ["b", "b"]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        self.cogrouped_with("subtract", other).flat_map(|(item, (here, there))| {
            let copies = if there.is_empty() { here.len() } else { 0 };
            std::iter::repeat_n(item, copies)
        })
    }

    /// The elements that are in both, each once. Both are held in memory, each element once.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let seen = Rdd::parallelize(["a", "a", "b"], 2);
    /// assert_eq!(seen.intersection(&Rdd::parallelize(["a", "c"], 1)).collect()?, ["a"]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.cogrouped_with("intersection", other)
            .flat_map(|(item, (here, there))| (!here.is_empty() && !there.is_empty()).then_some(item))
    }

    fn cogrouped_with(&self, operation: &'static str, other: &Self) -> Rdd<(T, Groups<(), ()>)> {
        self.map(|item| (item, ())).cogrouped(operation, &other.map(|item| (item, ())))
    }
}

impl<K: Key, V: Element> Rdd<(K, V)> {
    /// The pairs whose key is not in `other`. All values are held in memory.
    #[must_use]
    pub fn subtract_by_key<W: Element>(&self, other: &Rdd<(K, W)>) -> Self {
        let groups = self.cogrouped("subtract_by_key", &other.map_values(drop));
        groups.flat_map(|(key, (here, there))| {
            let kept = if there.is_empty() { here } else { Vec::new() };
            kept.into_iter().map(move |value| (key.clone(), value))
        })
    }
}

impl<T: Key> DStream<T> {
    /// The elements of each batch that are not in the other stream's: see [`Rdd::subtract`]. Spark: `subtract`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        self.derive_with(other, "subtract", |rdd, other| Ok(rdd.subtract(&other)))
    }

    /// The elements that are in both streams' batch, each once: see [`Rdd::intersection`]. Spark: `intersection`.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.derive_with(other, "intersection", |rdd, other| Ok(rdd.intersection(&other)))
    }
}

impl<K: Key, V: Element> DStream<(K, V)> {
    /// The pairs of each batch whose key is not in the other stream's. All values are held in memory. Spark:
    /// `subtractByKey`.
    #[must_use]
    pub fn subtract_by_key<W: Element>(&self, other: &DStream<(K, W)>) -> Self {
        self.derive_with(other, "subtract_by_key", |rdd, other| Ok(rdd.subtract_by_key(&other)))
    }
}
