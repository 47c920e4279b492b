//! A stream of what the program itself puts into a queue; and why it has no past.

use super::{StreamingContext, context::Parts};
use crate::{
    commit::Inspector,
    error::{Error, Result, Stage},
    transform::{DStream, Element, RddQueue, queue_stream},
};

impl StreamingContext {
    /// The elements of the RDDs in `queue`: those of one RDD per batch, or of all that are there. Spark: `queueStream`.
    ///
    /// A batch is due as soon as something is in the queue. One that is run again has the same elements again; once it is
    /// committed, they are gone. A queue is no log: it ends with the process, so an application that has committed batches
    /// cannot be started with one. It is for tests, and for programs that begin anew with each start.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use directstream::{stream::StreamingContext, transform::RddQueue};
    /// # async fn example() -> directstream::Result<()> {
    /// let context = StreamingContext::builder("squares", Duration::from_secs(1)).store("sqlite:squares.db")?.build()?;
    /// let queue = RddQueue::new();
    /// context.queue_stream(&queue, true)?.map(|n: i64| n * n).print();
    /// context.start().await?;
    /// queue.push([1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) once the context was started or stopped. Its start gives the same if the
    /// application has committed batches.
    pub fn queue_stream<T: Element>(&self, queue: &RddQueue<T>, one_at_a_time: bool) -> Result<DStream<T>> {
        self.graph().check_open()?;
        Ok(queue_stream(self.graph(), queue, one_at_a_time))
    }
}

/// Batches that are committed cannot be made again from a queue, nor can windows look back on them. Asked before the
/// application is taken over: whoever runs it goes on.
pub(super) async fn refuse_a_past(parts: &Parts) -> Result<()> {
    if parts.graph.queues().is_empty() {
        return Ok(());
    }
    let look = async { Inspector::open(&parts.store.url, &parts.application).await?.application().await };
    // A store that cannot be looked at is one on which nothing has run, or it does not answer yet. Whoever takes the application
    // over waits for it, and looks again.
    let known = look.await.unwrap_or_default();
    match known.map_or(0, |known| known.batch_seq) {
        0 => Ok(()),
        batch_seq => Err(has_a_past(&parts.application, batch_seq)),
    }
}

/// Spark's own words are among these: somebody may look for them.
pub(super) fn has_a_past(application: &str, batch_seq: u64) -> Error {
    Error::config(format!(
        "a queue cannot be read again, so an application with committed batches cannot go on with one (queueStream doesn't \
         support checkpointing): give the application another name, or an empty store application={application} \
         batch_seq={batch_seq}"
    ))
    .at(Stage::Start)
}
