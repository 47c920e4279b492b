//! Records for Kafka out of a database: at least once, none lost, in order.
//!
//! A batch writes its records as rows of the table `outbox`, in its own transaction (`rows`). A task of the owner, the relay, sends
//! them in the order of batches and of their numbers within, by an idempotent producer, and takes away what every replica in sync has
//! (`relay`). A process that dies between the two leaves rows that are in Kafka already: the next owner sends them once more. That is
//! all that can come twice.
//!
//! * **Lost**: never. A row goes only after its acknowledgement, and comes only with its batch.
//! * **Order**: of one partition, as the rows are. Where the end of an outbox is sent once more, those records come again in the
//!   same order, after those that came before. A process that lost the application stops relaying at its next look at the table;
//!   what it had in hand by then may come beside what its successor sends.
//! * **Waiting**: a batch waits for nothing but room, and only where more records wait than the job allows.

mod relay;
mod rows;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

pub(super) use self::{
    relay::{RelayTask, start},
    rows::{COPY, INSERT, encoded, headers_text},
};
use crate::error::{Error, Result};

/// How an outbox is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxState {
    /// Records that wait in the table.
    pub waiting: u64,
    /// Records that Kafka has acknowledged since this process started.
    pub sent: u64,
    /// What went wrong and was tried again.
    pub errors: u64,
}

/// What the committer and the relay tell each other.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: watch::Sender<OutboxState>,
    /// There are new rows.
    more: Notify,
    /// Why nothing is sent any more.
    failed: Mutex<Option<Error>>,
    waiting_max: u64,
}

impl Outbox {
    fn new(waiting: u64, waiting_max: u64) -> Arc<Self> {
        let (state, _) = watch::channel(OutboxState { waiting, ..OutboxState::default() });
        Arc::new(Self { state, more: Notify::new(), failed: Mutex::new(None), waiting_max })
    }

    /// How it is doing, told whenever that changes.
    pub(crate) fn state(&self) -> watch::Receiver<OutboxState> {
        self.state.subscribe()
    }

    /// A batch with so many records is committed.
    pub(crate) fn added(&self, records: u64) {
        self.state.send_modify(|state| state.waiting += records);
        self.more.notify_one();
    }

    /// Waits until a batch may add to what waits.
    ///
    /// # Errors
    /// Why nothing is sent any more.
    pub(crate) async fn room(&self) -> Result<()> {
        self.at_most(self.waiting_max - 1).await
    }

    /// Waits until all is sent.
    ///
    /// # Errors
    /// As [`room`](Self::room).
    pub(crate) async fn empty(&self) -> Result<()> {
        self.at_most(0).await
    }

    async fn at_most(&self, records: u64) -> Result<()> {
        let mut told = self.state();
        loop {
            if let Some(error) = self.failure() {
                return Err(error);
            }
            if told.borrow_and_update().waiting <= records {
                return Ok(());
            }
            if told.changed().await.is_err() {
                return Err(Error::internal("the outbox is gone"));
            }
        }
    }

    fn failure(&self) -> Option<Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sent(&self, records: u64) {
        self.state.send_modify(|state| {
            state.waiting = state.waiting.saturating_sub(records);
            state.sent += records;
        });
    }

    fn stumbled(&self) {
        self.state.send_modify(|state| state.errors += 1);
    }

    /// It is over: whoever waits is told why.
    fn fail(&self, error: Error) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.state.send_modify(|state| state.errors += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_waits_for_room_and_is_told_of_a_failure() {
        let outbox = Outbox::new(2, 3);
        outbox.room().await.unwrap();
        outbox.added(5);
        let waiting = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move { outbox.room().await }
        });
        tokio::task::yield_now().await;
        outbox.sent(4);
        assert!(!waiting.is_finished());
        outbox.sent(1);
        waiting.await.unwrap().unwrap();
        assert_eq!(*outbox.state().borrow(), OutboxState { waiting: 2, sent: 5, errors: 0 });
        outbox.fail(Error::transform("too large"));
        assert_eq!(outbox.empty().await.unwrap_err().to_string(), "too large");
    }
}
