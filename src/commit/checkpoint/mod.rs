//! The store in a folder: offsets, ledger and the state of state operators; no tables.
//!
//! One folder per application below the one that the URL names. Each commit is one file, flushed and renamed, that names the one
//! before it by its checksum; `chain` tells which files there are and `session` how they are written. What the folder keeps is
//! exactly once; what a batch does outside of it is at least once.
//!
//! The right to write is the kernel's lock on one file of the folder: it stands in for the application's row lock. Whether the
//! recorded owner is alive is told by a lock file of its own, as beside a SQLite file.

mod chain;
mod folder;
mod format;
mod look;
mod moves;
mod segments;
mod session;
mod state;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;

pub(super) use self::{look::CheckpointLook, moves::move_offsets};
use self::{
    session::{Draft, Retention, Session},
    state::Entry,
};
use super::{
    owner_file::{self, OwnerFile},
    protocol::{Grounds, Judged, Look, Mark, Session as OwnerSession, Term},
    settings::{StoreSettings, StoredPosition, TableShape},
    store::{Blockable, Kept, Store, not_connected},
    waiting::{on_a_thread, with_session},
};
use crate::{
    clock::Clock,
    error::{Error, Result},
    types::{BatchCommit, BatchTime},
};

/// A folder as a [`Store`].
pub(super) struct CheckpointStore {
    settings: StoreSettings,
    clock: Arc<dyn Clock>,
    path: PathBuf,
    session: Option<Session>,
    /// The open transaction. The folder is locked as long as it is there.
    draft: Option<Draft>,
    /// Taken before the first session is used, and held until this process ends.
    owner_file: Option<OwnerFile>,
    owner: String,
    /// Whether the application was found or made: then an empty folder is one that was emptied.
    known: bool,
}

/// What a batch or a job wants of a folder that only a database has.
fn no_tables() -> Error {
    Error::config(
        "a checkpoint folder keeps offsets and has no tables: use foreach_rdd with an effect that may happen twice, or a \
         postgres: or sqlite: store",
    )
}

fn locked() -> Error {
    Error::unavailable("another process writes to the checkpoint folder and does not finish")
}

impl CheckpointStore {
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the URL names no folder, or the settings have tables.
    pub(super) fn new(settings: &StoreSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        if !settings.tables.is_empty() {
            return Err(no_tables());
        }
        let path = folder::path_of(&settings.url)?;
        let (settings, owner) = (settings.clone(), String::from("host=? process_id=?"));
        Ok(Self { settings, clock, path, session: None, draft: None, owner_file: None, owner, known: false })
    }

    fn retention(&self) -> Retention {
        let kept_ms = i64::try_from(self.settings.ledger_retention.as_millis()).unwrap_or(i64::MAX);
        let since_ms = self.clock.now_ms().saturating_sub(kept_ms);
        Retention { batches: self.settings.ledger_batches_min, since_ms }
    }

    fn session(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or_else(not_connected)
    }

    fn draft(&mut self) -> Result<&mut Draft> {
        self.draft.as_mut().ok_or_else(|| Error::internal("no transaction is open"))
    }

    /// Works on the disk, on a thread that may wait. A panic of that thread is one of this task; the session is gone then.
    async fn on_disk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Session) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        with_session(&mut self.session, work).await
    }

    /// Locks the folder, and changes the application's row by what `change` makes of it; `None` if the lock is not to be had.
    /// An error leaves the folder locked until the session is put away, as the protocol does with it.
    async fn change_row(
        &mut self,
        change: impl FnOnce(&state::State) -> Result<Option<state::State>> + Send + 'static,
    ) -> Result<Blockable<Option<Term>>> {
        let retention = self.retention();
        self.on_disk(move |session| {
            if !session.lock()? {
                return Ok(Blockable::Blocked);
            }
            session.refresh()?;
            let next = change(session.state()?)?;
            let term = next.as_ref().map(state::State::term);
            if let Some(next) = next {
                session.write_snapshot(next, None, retention)?;
            }
            session.unlock();
            Ok(Blockable::Done(term))
        })
        .await
    }

    fn end_transaction(&mut self) {
        self.draft = None;
        if let Some(session) = &mut self.session {
            session.unlock();
        }
    }
}

#[async_trait]
impl Store for CheckpointStore {
    async fn connect(&mut self) -> Result<Option<Mark>> {
        let (path, application) = (self.path.clone(), self.settings.application.clone());
        let session = on_a_thread(move || Session::open(&path, &application)).await??;
        if session.is_empty() && self.known {
            session.state()?;
        }
        self.known |= !session.is_empty();
        if self.owner_file.is_none() {
            self.owner_file = Some(OwnerFile::take(&session.folder().owners(), self.settings.owner)?);
        }
        self.session = Some(session);
        Ok(None)
    }

    async fn disconnect(&mut self) {
        // Its end unlocks the folder. A draft that was not written is as if it had never been.
        self.session = None;
        self.draft = None;
    }

    async fn prepare(&mut self) -> Result<()> {
        if self.session()?.is_empty() {
            let retention = self.retention();
            let made = self.on_disk(move |session| {
                if !session.lock()? {
                    return Err(locked());
                }
                session.refresh()?;
                if session.is_empty() {
                    session.write_snapshot(state::State::default(), None, retention)?;
                }
                session.unlock();
                Ok(())
            });
            made.await?;
        }
        self.known = true;
        Ok(())
    }

    fn tables(&self) -> Vec<TableShape> {
        Vec::new()
    }

    async fn look(&mut self) -> Result<Look> {
        self.on_disk(Session::refresh).await?;
        let (now_ms, settings) = (self.clock.now_ms(), self.settings.clone());
        let session = self.session()?;
        let state = session.state()?;
        state.identity().check(&settings)?;
        let owner = state.owner_id()?;
        let told = state.told();
        let look = Look {
            judged: Judged { epoch: state.epoch, owner, seen_at: None },
            session: owner.map_or(OwnerSession::Gone, |owner| owner_file::look(&session.folder().owners(), owner)),
            stale: false,
            hasty_takeovers: state.hasty_takeovers(now_ms),
        };
        self.owner = told;
        Ok(look)
    }

    fn owner(&self) -> String {
        self.owner.clone()
    }

    async fn take_over(&mut self, judged: Judged, grounds: Grounds) -> Result<Blockable<Option<Term>>> {
        let (settings, now_ms) = (self.settings.clone(), self.clock.now_ms());
        let taken = self.change_row(move |state| state.taken(judged, grounds, &settings, now_ms)).await?;
        if let (Blockable::Done(Some(_)), Some(owner)) = (taken, judged.owner)
            && owner != self.settings.owner
        {
            owner_file::remove(&self.session()?.folder().owners(), owner);
        }
        Ok(taken)
    }

    async fn settle(&mut self) -> Result<Blockable<Option<Term>>> {
        let (me, now_ms) = (self.settings.owner, self.clock.now_ms());
        let settle = move |state: &state::State| {
            let mut next = state.clone();
            next.epoch += 1;
            next.seen_at_ms = Some(now_ms);
            Ok(state.is_owned(me, state.epoch).then_some(next))
        };
        self.change_row(settle).await
    }

    async fn beat(&mut self, term: Term) -> Result<bool> {
        // Only read: the lock file tells that we live, and a write a second would be a flush of the disk a second.
        self.on_disk(Session::refresh).await?;
        let me = self.settings.owner;
        Ok(self.session()?.state()?.is_owned(me, term.epoch))
    }

    async fn release(&mut self, term: Term) -> Result<()> {
        let me = self.settings.owner;
        let release = move |state: &state::State| {
            Ok(state.is_owned(me, term.epoch).then(|| state::State { owner: None, ..state.clone() }))
        };
        self.change_row(release).await?;
        self.owner_file = None;
        Ok(())
    }

    async fn kept(&mut self) -> Result<Kept> {
        let state = self.session()?.state()?;
        Ok(Kept {
            last_batch_time: state.last_batch_time_ms.map(BatchTime::from_ms),
            last_batch_epoch: state.last_batch_epoch,
            zero_time_ms: state.zero_time_ms.unwrap_or_default(),
            positions: state.positions.iter().map(state::Position::stored).collect::<Result<_>>()?,
        })
    }

    async fn begin(&mut self) -> Result<()> {
        let begun = self.on_disk(|session| {
            if !session.lock()? {
                return Err(locked());
            }
            session.refresh()?;
            Ok(session.state()?.clone())
        });
        self.draft = Some(Draft { positions: Vec::new(), state: begun.await?, entry: None, segments: Vec::new() });
        Ok(())
    }

    async fn lock(&mut self, term: Term) -> Result<bool> {
        let me = self.settings.owner;
        let state = &self.draft()?.state;
        Ok(state.is_owned(me, term.epoch) && state.batch_seq == term.batch_seq)
    }

    async fn write(&mut self, batch: &mut BatchCommit) -> Result<()> {
        let rows = batch.tables.iter().any(|table| !table.chunks.is_empty());
        if rows || !batch.records.is_empty() || batch.isolating.is_some() || !batch.user_code.is_empty() {
            return Err(no_tables());
        }
        // Kept by the batch as well: it may have to be written again.
        self.draft()?.segments.clone_from(&batch.state);
        Ok(())
    }

    async fn move_offsets(&mut self, batch: &BatchCommit) -> Result<bool> {
        let draft = self.draft()?;
        let moved = draft.state.moved(&batch.ranges);
        Ok(moved.map(|positions| draft.put(positions)).is_some())
    }

    async fn advance(&mut self, term: Term, batch: &BatchCommit) -> Result<bool> {
        let (me, build, now_ms) = (self.settings.owner, self.settings.build.clone(), self.clock.now_ms());
        let draft = self.draft()?;
        if !draft.state.is_owned(me, term.epoch) || draft.state.batch_seq != term.batch_seq {
            return Ok(false);
        }
        draft.state.batch_seq = batch.batch_seq;
        draft.state.last_batch_time_ms = Some(batch.batch_time.as_ms());
        draft.state.seen_at_ms = Some(now_ms);
        draft.entry = Some(Entry::of(batch, term.epoch, &build, now_ms));
        Ok(true)
    }

    async fn first_positions(&mut self, positions: &[StoredPosition]) -> Result<bool> {
        let draft = self.draft()?;
        let first = draft.state.first(positions);
        Ok(first.map(|positions| draft.put(positions)).is_some())
    }

    async fn commit(&mut self) -> Result<()> {
        let draft = self.draft.take().ok_or_else(|| Error::internal("no transaction is open"))?;
        let retention = self.retention();
        self.on_disk(move |session| {
            session.commit(draft, retention)?;
            session.unlock();
            Ok(())
        })
        .await
    }

    async fn rollback(&mut self) -> Result<()> {
        self.session()?;
        self.end_transaction();
        Ok(())
    }
}
