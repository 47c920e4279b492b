//! A shuffle: map tasks whose outputs are kept for the reduce side.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use super::BatchScope;
use crate::{
    error::Result,
    types::{Compute, Flow, ShuffleStage, Stop, Task},
};

/// What a map task does with its partition of the parent.
type Work<O> = dyn Fn(usize, &Task) -> Result<O> + Send + Sync;

/// The map side of a shuffle, and what its tasks gave. It runs once: whatever is made of it finds the outputs there.
pub(crate) struct Shuffle<O> {
    id: usize,
    operation: &'static str,
    parents: Vec<Arc<dyn ShuffleStage>>,
    work: Box<Work<O>>,
    // One slot per map task; written once.
    outputs: Vec<OnceLock<O>>,
}

impl<O: Send + Sync + 'static> Shuffle<O> {
    /// The shuffle of `operation` over `parent`: `work` is one map task.
    pub(crate) fn new<T: 'static>(
        (scope, operation): (&BatchScope, &'static str),
        parent: &Arc<dyn Compute<T>>,
        work: impl Fn(&dyn Compute<T>, usize, &Task) -> Result<O> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (id, parents) = (scope.next_shuffle_id(), parent.shuffles());
        let outputs = (0..parent.partitions()).map(|_| OnceLock::new()).collect();
        let parent = Arc::clone(parent);
        let work = Box::new(move |partition: usize, task: &Task| work(&*parent, partition, task));
        Arc::new(Self { id, operation, parents, work, outputs })
    }

    /// A shuffle whose map tasks keep the elements of their partitions, after `finish` has seen them.
    pub(crate) fn of_elements<T: Send + 'static>(
        (scope, operation): (&BatchScope, &'static str),
        parent: &Arc<dyn Compute<T>>,
        finish: impl Fn(Vec<T>) -> O + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::new((scope, operation), parent, move |parent, partition, task| {
            let mut items = Vec::new();
            completed(parent.compute(partition, task, &mut |item| super::rdd::push(&mut items, item)))?;
            Ok(finish(items))
        })
    }

    /// The outputs of all map tasks, in the order of map partitions: whoever merges them in this order gets the same in
    /// every run. All are there, for a shuffle runs before what needs it.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &O> {
        self.outputs.iter().filter_map(OnceLock::get)
    }

    /// As what must have run before its reduce side.
    pub(crate) fn stages(self: &Arc<Self>) -> Vec<Arc<dyn ShuffleStage>> {
        vec![Arc::clone(self) as Arc<dyn ShuffleStage>]
    }
}

/// A partition that was computed to its end, or what it failed with.
pub(crate) fn completed(flow: Flow) -> Result<()> {
    match flow {
        Flow::Break(Stop::Failed(error)) => Err(error),
        Flow::Break(Stop::Enough) | Flow::Continue(()) => Ok(()),
    }
}

impl<O> fmt::Debug for Shuffle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shuffle").field("id", &self.id).field("operation", &self.operation).finish_non_exhaustive()
    }
}

impl<O: Send + Sync> ShuffleStage for Shuffle<O> {
    fn id(&self) -> usize {
        self.id
    }

    fn parents(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.parents.clone()
    }

    fn map_partitions(&self) -> usize {
        self.outputs.len()
    }

    fn is_done(&self) -> bool {
        self.outputs.iter().all(|output| output.get().is_some())
    }

    fn run_map(&self, partition: usize, task: &Task) -> Result<()> {
        if self.outputs[partition].get().is_some() {
            return Ok(());
        }
        let output = (self.work)(partition, task)?;
        // A second run of the same task gives the same: the first one stays.
        let _ = self.outputs[partition].set(output);
        Ok(())
    }
}
