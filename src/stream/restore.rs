//! The state of state operators as the last committed batch left it: taken in at start.

use std::sync::Arc;

use super::{batch::Workshop, context::Parts, work::on_own_thread};
use crate::{
    commit::{Inspector, Recovered},
    error::{Result, Stage},
    failpoint,
};

impl Workshop {
    /// Takes the stored state in, partitions at the same time. At the first start there is none.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if a segment is missing or damaged.
    pub(super) async fn restore_state(self: &Arc<Self>, parts: &Parts, recovered: &Recovered) -> Result<()> {
        let last = recovered.batch_seq;
        if self.states.is_empty() || last == 0 || failpoint::mutant("state_begins_empty") {
            return Ok(());
        }
        let mut inspector = Inspector::open(&parts.store.url, &parts.application).await?;
        // As many at a time as can be worked on: stored and restored, not all of it is in memory twice.
        let at_once = u32::try_from(self.runner.parallelism().max(1)).unwrap_or(1);
        for (operator, state) in (1..).zip(&self.states) {
            state.clear();
            let mut first = 0;
            while first < state.partitions() {
                let end = state.partitions().min(first.saturating_add(at_once));
                let stored = inspector.state(operator, first..end).await.map_err(|error| error.at(Stage::Start))?;
                let stored: Vec<_> = (first..end).zip(stored).collect();
                let (workshop, state) = (Arc::clone(self), Arc::clone(state));
                let work = on_own_thread(move || {
                    workshop.runner.run(stored.len(), &|index| {
                        let (partition, segments) = &stored[index];
                        state.restore(*partition, segments, last)
                    })
                });
                work.await?.map_err(|error| error.at(Stage::Start))?;
                parts.reporter.progress();
                first = end;
            }
            tracing::info!(operator, keys = state.keys(last), batch_seq = last, "the stored state is there again");
        }
        Ok(())
    }
}
