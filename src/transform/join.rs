//! `join` and the outer joins: every value of a key here with every one of the same key there.

use std::{ops::ControlFlow, sync::Arc};

use super::{DStream, Element, Groups, Key, Rdd};
use crate::types::{Compute, Flow, ShuffleStage, Task};

/// Each value of one side with each of the other.
struct Products<K, V, W> {
    groups: Arc<dyn Compute<(K, Groups<V, W>)>>,
}

impl<K: Key, V: Element, W: Element> Compute<(K, (V, W))> for Products<K, V, W> {
    fn partitions(&self) -> usize {
        self.groups.partitions()
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut((K, (V, W))) -> Flow) -> Flow {
        self.groups.compute(partition, task, &mut |(key, (left, right))| {
            // Given on one by one: a key that both sides have often makes far more pairs than it has values.
            for value in &left {
                for other in &right {
                    each((key.clone(), (value.clone(), other.clone())))?;
                }
            }
            ControlFlow::Continue(())
        })
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.groups.shuffles()
    }
}

fn products<K: Key, V: Element, W: Element>(groups: &Rdd<(K, Groups<V, W>)>) -> Rdd<(K, (V, W))> {
    Rdd::new(Arc::new(Products { groups: Arc::clone(groups.compute()) }), groups.scope().clone())
}

/// The values of a side, or its absence.
fn or_none<V>(values: Vec<V>) -> Vec<Option<V>> {
    if values.is_empty() { vec![None] } else { values.into_iter().map(Some).collect() }
}

impl<K: Key, V: Element> Rdd<(K, V)> {
    /// Every pair of values, one here and one there, of every key that both have: a key that is twice here and three times
    /// there gives six, those of the first value here first.
    ///
    /// All values of both are held in memory, and shuffled in every batch anew: see [`cogroup`](Self::cogroup). To look up a
    /// small table that stays, [`collect_as_map`](Self::collect_as_map) and [`flat_map`](Self::flat_map) are quicker.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let orders = Rdd::parallelize([("ann", 1), ("bob", 2), ("ann", 3)], 2);
    /// let countries = Rdd::parallelize([("ann", "FR"), ("eve", "IT")], 1);
    /// assert_eq!(orders.join(&countries).collect()?, [("ann", (1, "FR")), ("ann", (3, "FR"))]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn join<W: Element>(&self, other: &Rdd<(K, W)>) -> Rdd<(K, (V, W))> {
        products(&self.cogrouped("join", other))
    }

    /// As [`join`](Self::join), and values here whose key is not there, with `None`.
    #[must_use]
    pub fn left_outer_join<W: Element>(&self, other: &Rdd<(K, W)>) -> Rdd<(K, (V, Option<W>))> {
        let groups = self.cogrouped("left_outer_join", other);
        products(&groups.map_values(|(left, right)| (left, or_none(right))))
    }

    /// As [`join`](Self::join), and values there whose key is not here, with `None`.
    #[must_use]
    pub fn right_outer_join<W: Element>(&self, other: &Rdd<(K, W)>) -> Rdd<(K, (Option<V>, W))> {
        let groups = self.cogrouped("right_outer_join", other);
        products(&groups.map_values(|(left, right)| (or_none(left), right)))
    }

    /// As [`join`](Self::join), and values whose key is only on their side, with `None`.
    #[must_use]
    #[expect(
        clippy::type_complexity,
        reason = "a pair whose halves may both be missing: there is no other word for it"
    )]
    pub fn full_outer_join<W: Element>(&self, other: &Rdd<(K, W)>) -> Rdd<(K, (Option<V>, Option<W>))> {
        let groups = self.cogrouped("full_outer_join", other);
        products(&groups.map_values(|(left, right)| (or_none(left), or_none(right))))
    }
}

impl<K: Key, V: Element> DStream<(K, V)> {
    /// Every pair of values, one of each stream, of every key that both have in a batch. The values of a batch are held in
    /// memory: see [`Rdd::join`]. Spark: `join`.
    ///
    /// ```
    /// # use directstream::transform::DStream;
    /// # fn example(orders: DStream<(String, i64)>, payments: DStream<(String, f64)>) {
    /// let paid = orders.join(&payments).map(|(user, (order, amount))| (user, order, amount));
    /// # }
    /// ```
    #[must_use]
    pub fn join<W: Element>(&self, other: &DStream<(K, W)>) -> DStream<(K, (V, W))> {
        self.derive_with(other, "join", |rdd, other| Ok(rdd.join(&other)))
    }

    /// As [`join`](Self::join), and values of this stream whose key the other does not have in the batch, with `None`.
    /// Spark: `leftOuterJoin`.
    #[must_use]
    pub fn left_outer_join<W: Element>(&self, other: &DStream<(K, W)>) -> DStream<(K, (V, Option<W>))> {
        self.derive_with(other, "left_outer_join", |rdd, other| Ok(rdd.left_outer_join(&other)))
    }

    /// As [`join`](Self::join), and values of the other stream whose key this one does not have in the batch, with `None`.
    /// Spark: `rightOuterJoin`.
    #[must_use]
    pub fn right_outer_join<W: Element>(&self, other: &DStream<(K, W)>) -> DStream<(K, (Option<V>, W))> {
        self.derive_with(other, "right_outer_join", |rdd, other| Ok(rdd.right_outer_join(&other)))
    }

    /// As [`join`](Self::join), and values of either stream whose key the other does not have in the batch, with `None`.
    /// Spark: `fullOuterJoin`.
    #[must_use]
    #[expect(
        clippy::type_complexity,
        reason = "a pair whose halves may both be missing: there is no other word for it"
    )]
    pub fn full_outer_join<W: Element>(&self, other: &DStream<(K, W)>) -> DStream<(K, (Option<V>, Option<W>))> {
        self.derive_with(other, "full_outer_join", |rdd, other| Ok(rdd.full_outer_join(&other)))
    }
}
