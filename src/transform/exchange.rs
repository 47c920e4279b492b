//! Elements that go to other partitions as they are.

use std::{ops::ControlFlow, sync::Arc};

use super::{
    BatchScope, Element,
    shuffle::{Shuffle, completed},
};
use crate::types::{Compute, Flow, ShuffleStage, Task};

/// Elements in partitions that were chosen for them, in the order of the map partitions that they come from.
pub(super) struct Exchanged<T> {
    // Of each map task: its elements by reduce partition.
    shuffle: Arc<Shuffle<Vec<Vec<T>>>>,
    partitions: usize,
}

impl<T: Element> Exchanged<T> {
    /// The elements of `parent` in `partitions` partitions. `choose` gives each its partition, from its map partition and
    /// its number within it.
    pub(super) fn new(
        (scope, operation): (&BatchScope, &'static str),
        parent: &Arc<dyn Compute<T>>,
        partitions: usize,
        choose: impl Fn((usize, usize), &T) -> usize + Send + Sync + 'static,
    ) -> Self {
        let shuffle = Shuffle::new((scope, operation), parent, move |parent, partition, task| {
            let mut parts: Vec<Vec<T>> = (0..partitions).map(|_| Vec::new()).collect();
            let mut number = 0;
            completed(parent.compute(partition, task, &mut |item| {
                parts[choose((partition, number), &item)].push(item);
                number += 1;
                ControlFlow::Continue(())
            }))?;
            Ok(parts)
        });
        Self { shuffle, partitions }
    }
}

impl<T: Element> Compute<T> for Exchanged<T> {
    fn partitions(&self) -> usize {
        self.partitions
    }

    fn compute(&self, partition: usize, _task: &Task, each: &mut dyn FnMut(T) -> Flow) -> Flow {
        self.shuffle.outputs().flat_map(|parts| &parts[partition]).cloned().try_for_each(each)
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.shuffle.stages()
    }
}
