//! A log as the receiver, the driver and the readers share it.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    frame::{self, HEAD_BYTES, Head},
    segments::Segment,
    wal::Wal,
};
use crate::{
    clock::Clock,
    error::{Error, Result},
    types::TopicId,
};

/// The most bytes of one block.
const BLOCK_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Whoever waits for room looks so often whether it may still write.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Log {
    unread_bytes_max: u64,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// `None`: not open yet, or closed.
    wal: Option<Wal>,
    /// What lies before is committed, and no window looks back on it.
    forgotten: i64,
}

fn closed() -> Error {
    Error::unavailable("the receiver's log is not open")
}

impl Log {
    pub(super) fn new(unread_bytes_max: u64, clock: Arc<dyn Clock>) -> Self {
        Self { unread_bytes_max, clock, state: Mutex::default(), room: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, wal: Wal, committed: i64) {
        *self.state() = State { wal: Some(wal), forgotten: committed };
    }

    /// Nothing more is written, and another process may open it.
    pub(super) fn close(&self) {
        self.state().wal = None;
        self.room.notify_all();
    }

    /// The log's id, its earliest offset, and the one after the last record that is on the disk.
    ///
    /// # Errors
    /// Why nothing more can be written to it.
    pub(super) fn told(&self) -> Result<Option<(TopicId, i64, i64)>> {
        let state = self.state();
        let Some(wal) = &state.wal else { return Ok(None) };
        match wal.broken() {
            Some(error) => Err(error.clone()),
            None => Ok(Some((wal.id().clone(), wal.earliest(), wal.latest()))),
        }
    }

    pub(super) fn segments_of(&self, from: i64, until: i64) -> Result<Vec<Segment>> {
        self.state().wal.as_ref().map(|wal| wal.segments_of(from, until)).ok_or_else(closed)
    }

    pub(super) fn forget_before(&self, offset: i64) {
        let mut state = self.state();
        state.forgotten = state.forgotten.max(offset);
        if let Some(wal) = &mut state.wal {
            wal.forget_before(offset);
        }
        drop(state);
        self.room.notify_all();
    }

    /// Writes one block, once there is room for it and as long as `may` says that it may be written.
    pub(super) fn store(&self, records: &[impl AsRef<[u8]>], may: impl Fn() -> bool) -> Result<()> {
        let bytes: u64 = records.iter().map(|record| record.as_ref().len() as u64 + 4).sum();
        let bytes = bytes + HEAD_BYTES as u64;
        if bytes > BLOCK_BYTES_MAX {
            return Err(Error::transform(format!(
                "a block of records is too large for a receiver's log bytes={bytes} bytes_max={BLOCK_BYTES_MAX}"
            )));
        }
        let mut state = self.state();
        loop {
            if !may() {
                return Err(Error::unavailable("the receiver was stopped"));
            }
            let forgotten = state.forgotten;
            let wal = state.wal.as_mut().ok_or_else(closed)?;
            let unread = wal.bytes_from(forgotten);
            // Alone, a block may be larger than all the room there is.
            if unread == 0 || unread + bytes <= self.unread_bytes_max {
                let frame = frame::encode(records, wal.latest(), self.clock.now_ms());
                let frame = frame.ok_or_else(|| Error::internal("a block of records cannot be encoded"))?;
                let head = frame.first_chunk().and_then(Head::parse);
                let head = head.ok_or_else(|| Error::internal("a block's head cannot be read"))?;
                return wal.append(&frame, &head);
            }
            state = self.room.wait_timeout(state, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
