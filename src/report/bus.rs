//! Carries events from the driver to the listeners without ever waiting for one.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use super::listener::{StreamingEvent, StreamingListener};
use crate::error::{Error, Result};

/// Events that may wait for one listener. At one batch a second with two output operations this is half an hour of a
/// listener that stands still, and less than a megabyte beside the batches' own ranges.
const QUEUE_EVENTS_MAX: usize = 10_000;

/// The listeners of one stream. Cheap to clone; all clones are the same bus.
#[derive(Clone)]
pub struct ListenerBus {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lanes: Mutex<Vec<Lane>>,
    dropped: AtomicU64,
    panics: Arc<AtomicU64>,
}

/// One listener: the queue to its thread, and the sign that the thread has ended.
struct Lane {
    queue: Option<SyncSender<StreamingEvent>>,
    ended: Receiver<()>,
}

impl ListenerBus {
    /// A bus without listeners.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::new(Shared::default()) }
    }

    /// Adds a listener. It sees the events that are posted from now on.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the system gives no thread.
    pub fn add(&self, listener: Box<dyn StreamingListener>) -> Result<()> {
        self.add_with_queue(listener, QUEUE_EVENTS_MAX)
    }

    pub(super) fn add_with_queue(&self, mut listener: Box<dyn StreamingListener>, events_max: usize) -> Result<()> {
        let (queue, events) = sync_channel::<StreamingEvent>(events_max);
        let (end, ended) = sync_channel::<()>(1);
        let panics = Arc::clone(&self.shared.panics);
        thread::Builder::new()
            .name("listener".to_owned())
            .spawn(move || {
                // Moved in, so that it is dropped when the thread ends.
                let _end = end;
                while let Ok(event) = events.recv() {
                    // The listener's own state may be half changed after a panic; that is the listener's affair, as with
                    // any other error it makes. The stream goes on.
                    if catch_unwind(AssertUnwindSafe(|| event.deliver(&mut *listener))).is_err() {
                        panics.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
            .map_err(|error| Error::internal("cannot start a thread for a listener").caused_by(error))?;
        self.lanes().push(Lane { queue: Some(queue), ended });
        Ok(())
    }

    /// Hands the event to every listener's queue. Never waits.
    pub(super) fn post(&self, event: &StreamingEvent) {
        for lane in self.lanes().iter() {
            let Some(queue) = &lane.queue else { continue };
            if let Err(TrySendError::Full(_)) = queue.try_send(event.clone()) {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes no more events, and waits up to `grace` in all for the listeners to see those that are under way. A listener
    /// that is still busy then is left to itself.
    pub fn close(&self, grace: Duration) {
        let mut lanes = std::mem::take(&mut *self.lanes());
        for lane in &mut lanes {
            lane.queue = None;
        }
        // The listeners work side by side, so an equal share for each is at least what each needs if all are quick, and
        // keeps the sum within the grace if all hang.
        let share = grace / u32::try_from(lanes.len().max(1)).unwrap_or(u32::MAX);
        for lane in &lanes {
            if lane.ended.recv_timeout(share) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!("a listener was still busy at the end of the stream and is left behind");
            }
        }
    }

    /// Events that were lost because a listener's queue was full.
    #[must_use]
    pub fn dropped_events(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Panics of listeners.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, Vec<Lane>> {
        self.shared.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ListenerBus {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ListenerBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerBus").field("listeners", &self.lanes().len()).finish_non_exhaustive()
    }
}
