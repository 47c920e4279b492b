//! One session with a folder: reads it when it begins, and writes under the folder's lock.
//!
//! What is written, in this order, each step only after the one before it is on the disk:
//!
//! 1. with a snapshot, the batches since the last one as a ledger file; with state operators, what the batch stores of them;
//!    the folder, if there is one of these files;
//! 2. the delta or snapshot, and the folder: the commit has happened;
//! 3. `HEAD`, and the folder: losing the last file would be noticed from now on;
//! 4. after a snapshot, files that nobody needs any more are removed.
//!
//! An error in one of them says nothing about the outcome. The session is put away then, and the next one reads what is there. It
//! begins with a snapshot, so nothing that a failed flush may have left in memory alone is relied upon.

use std::{
    collections::BTreeSet,
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};

use super::{
    chain::{self, Chain, Delta, HEAD, Head, LedgerFile, Sealed, Snapshot},
    folder::Folder,
    format::{self, Kind},
    segments::{self, SealedSegments},
    state::{Entry, Position, State},
};
use crate::{
    error::{Error, Result},
    types::StateSegment,
};

/// How long another writer is waited for. As long as a SQLite file's lock is.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
const LOCK_AGAIN: Duration = Duration::from_millis(10);

/// When files are put together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A snapshot is due after so many deltas,
    pub(super) deltas: u64,
    /// or so many bytes of them.
    pub(super) delta_bytes: u64,
    /// The newest ledger file is written anew with the next batches as long as it is shorter.
    pub(super) ledger_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { deltas: 1000, delta_bytes: 8 << 20, ledger_bytes: 1 << 20 }
    }
}

/// Which past batches stay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) batches: u64,
    /// Batches committed before this time may go.
    pub(super) since_ms: i64,
}

/// What a commit changes.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) positions: Vec<Position>,
    pub(super) state: State,
    pub(super) entry: Option<Entry>,
    pub(super) segments: Vec<StateSegment>,
}

impl Draft {
    /// Moves positions.
    pub(super) fn put(&mut self, positions: Vec<Position>) {
        positions.iter().for_each(|position| self.state.put(position.clone()));
        self.positions = positions;
    }
}

/// A folder that is being written to.
#[derive(Debug)]
pub(super) struct Session {
    application: String,
    folder: Folder,
    lock: File,
    /// `None`: the folder is empty.
    chain: Option<Chain>,
    /// Ledger files that were read and found right.
    checked: BTreeSet<u64>,
    pub(super) limits: Limits,
}

impl Session {
    /// Opens the folder and reads all of it.
    pub(super) fn open(path: &Path, application: &str) -> Result<Self> {
        let folder = Folder::make(path, application)?;
        let lock = folder.lock_file()?;
        let mut checked = BTreeSet::new();
        let chain = chain::load(&folder, application, &mut checked)?;
        Ok(Self { application: application.to_owned(), folder, lock, chain, checked, limits: Limits::default() })
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chain.is_none()
    }

    /// What is kept, as it was last read.
    pub(super) fn state(&self) -> Result<&State> {
        self.chain.as_ref().map(|chain| &chain.state).ok_or_else(|| {
            let path = self.folder.path().display();
            Error::corrupt(format!("the checkpoint folder was emptied while it was in use path={path}"))
        })
    }

    /// Gets the right to write, waiting for who has it; `false` if that took too long. It ends with [`unlock`](Self::unlock) or
    /// with the session, and with the process, however that ends.
    pub(super) fn lock(&mut self) -> Result<bool> {
        let tries = LOCK_WITHIN.as_millis() / LOCK_AGAIN.as_millis();
        for _ in 0..tries {
            match self.lock.try_lock() {
                Ok(()) => return Ok(true),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_AGAIN),
                Err(TryLockError::Error(error)) => {
                    return Err(Error::unavailable("cannot lock the checkpoint folder").caused_by(error));
                }
            }
        }
        Ok(false)
    }

    pub(super) fn unlock(&mut self) {
        // Nothing is open any more. If it fails, the end of the session unlocks.
        let _ = self.lock.unlock();
    }

    /// Reads the folder again if somebody else wrote since.
    pub(super) fn refresh(&mut self) -> Result<()> {
        let head = self.folder.read(HEAD)?;
        if head.is_none() || head.as_ref() != self.chain.as_ref().map(|chain| &chain.head) {
            self.chain = chain::load(&self.folder, &self.application, &mut self.checked)?;
        }
        Ok(())
    }

    /// Commits a batch or the first positions. The folder is locked, and `draft` was made of what it holds.
    pub(super) fn commit(&mut self, draft: Draft, retention: Retention) -> Result<()> {
        let chain = self.chain.as_ref().ok_or_else(|| Error::internal("a commit without an application"))?;
        if chain.deltas >= self.limits.deltas || chain.delta_bytes >= self.limits.delta_bytes {
            return self.snapshot(draft.state, (draft.entry, draft.segments), retention);
        }
        self.complete_head()?;
        let chain = self.chain.as_ref().ok_or_else(|| Error::internal("a commit without an application"))?;
        let segments = self.seal_segments(chain.number + 1, &draft.segments)?;
        if segments.is_some() {
            self.folder.sync()?;
        }
        let delta = Delta {
            application: self.application.clone(),
            number: chain.number + 1,
            previous: chain.checksum,
            epoch: draft.state.epoch,
            batch_seq: draft.state.batch_seq,
            last_batch_time_ms: draft.state.last_batch_time_ms,
            seen_at_ms: draft.state.seen_at_ms,
            positions: draft.positions,
            entry: draft.entry,
            segments,
        };
        let encoded = format::encode(Kind::Delta, &delta)?;
        self.folder.write(&chain::name(delta.number, Kind::Delta), &encoded.bytes)?;
        self.folder.sync()?;
        let head = self.write_head(delta.number, encoded.checksum, chain.snapshot)?;
        if let Some(chain) = &mut self.chain {
            chain.take(delta, encoded.checksum, encoded.bytes.len() as u64);
            chain.head = head;
        }
        Ok(())
    }

    /// Writes all that is kept: of a new application, at each change of its owner, and from time to time.
    pub(super) fn write_snapshot(&mut self, state: State, entry: Option<Entry>, retention: Retention) -> Result<()> {
        self.snapshot(state, (entry, Vec::new()), retention)
    }

    fn snapshot(
        &mut self,
        state: State,
        (entry, segments): (Option<Entry>, Vec<StateSegment>),
        retention: Retention,
    ) -> Result<()> {
        self.complete_head()?;
        let chain = self.chain.as_ref();
        let number = chain.map_or(1, |chain| chain.number + 1);
        let ledger = self.seal(number, entry, state.batch_seq, retention)?;
        let mut all_segments = chain.map_or_else(Vec::new, |chain| chain.segments.clone());
        all_segments.extend(self.seal_segments(number, &segments)?);
        segments::trim(&mut all_segments);
        self.folder.sync()?;
        let snapshot = Snapshot {
            application: self.application.clone(),
            number,
            previous: chain.map_or(0, |chain| chain.checksum),
            state,
            ledger,
            segments: all_segments,
        };
        let encoded = format::encode(Kind::Snapshot, &snapshot)?;
        self.folder.write(&chain::name(number, Kind::Snapshot), &encoded.bytes)?;
        self.folder.sync()?;
        let head = self.write_head(number, encoded.checksum, number)?;
        self.checked = snapshot.ledger.iter().map(|sealed| sealed.checksum).collect();
        self.chain = Some(Chain::at(snapshot, encoded.checksum, head));
        self.sweep();
        Ok(())
    }

    /// Writes what a batch stores of state operators; `None` if that is nothing.
    fn seal_segments(&self, number: u64, segments: &[StateSegment]) -> Result<Option<SealedSegments>> {
        if segments.is_empty() {
            return Ok(None);
        }
        segments::write(&self.folder, &self.application, number, segments).map(Some)
    }

    /// Names the file beyond `HEAD` in it, if there is one: two of them would not be read.
    fn complete_head(&mut self) -> Result<()> {
        let Some(chain) = self.chain.as_ref().filter(|chain| chain.beyond) else { return Ok(()) };
        // The flush that its commit did not live to see.
        self.folder.sync()?;
        let head = self.write_head(chain.number, chain.checksum, chain.snapshot)?;
        if let Some(chain) = &mut self.chain {
            (chain.head, chain.beyond) = (head, false);
        }
        Ok(())
    }

    fn write_head(&self, number: u64, checksum: u64, snapshot: u64) -> Result<Vec<u8>> {
        let head = Head { application: self.application.clone(), number, checksum, snapshot };
        let encoded = format::encode(Kind::Head, &head)?;
        self.folder.write(HEAD, &encoded.bytes)?;
        self.folder.sync()?;
        Ok(encoded.bytes)
    }

    /// Writes the batches since the last snapshot into a ledger file, and drops files of forgotten ones; what ledger there is
    /// then. Lost ranges and dead letters of a file that goes move into the new one.
    fn seal(&self, number: u64, entry: Option<Entry>, batch_seq: u64, retention: Retention) -> Result<Vec<Sealed>> {
        let Some(chain) = &self.chain else { return Ok(Vec::new()) };
        let forgotten = |sealed: &Sealed| {
            let old = sealed.committed_at_ms < retention.since_ms;
            sealed.last_batch > 0 && old && sealed.last_batch.saturating_add(retention.batches) < batch_seq
        };
        let (gone, mut stay): (Vec<Sealed>, Vec<Sealed>) = chain.ledger.iter().cloned().partition(forgotten);
        let mut entries = Vec::new();
        for sealed in gone.iter().filter(|sealed| sealed.outliving > 0) {
            let outliving = chain::read_ledger(&self.folder, &self.application, sealed)?;
            let outliving = outliving.into_iter().filter(Entry::outlives);
            entries.extend(outliving.map(|entry| Entry { batch: None, ..entry }));
        }
        let new = !entries.is_empty() || !chain.entries.is_empty() || entry.is_some();
        if !new {
            return Ok(stay);
        }
        // So that many short lives of a process do not leave many short files.
        if let Some(last) = stay.pop_if(|last| last.bytes < self.limits.ledger_bytes) {
            entries.extend(chain::read_ledger(&self.folder, &self.application, &last)?);
        }
        entries.extend(chain.entries.iter().cloned().chain(entry));
        stay.push(self.write_ledger(number, entries)?);
        Ok(stay)
    }

    fn write_ledger(&self, number: u64, entries: Vec<Entry>) -> Result<Sealed> {
        let numbers = || entries.iter().filter(|entry| entry.batch.is_some()).map(|entry| entry.batch_seq);
        let committed = entries.iter().filter_map(|entry| entry.batch.as_ref()).map(|batch| batch.committed_at_ms);
        let mut sealed = Sealed {
            number,
            checksum: 0,
            bytes: 0,
            first_batch: numbers().min().unwrap_or(0),
            last_batch: numbers().max().unwrap_or(0),
            committed_at_ms: committed.max().unwrap_or(0),
            outliving: entries.iter().filter(|entry| entry.outlives()).count() as u64,
        };
        let file = LedgerFile { application: self.application.clone(), number, entries };
        let encoded = format::encode(Kind::Ledger, &file)?;
        self.folder.write(&chain::name(number, Kind::Ledger), &encoded.bytes)?;
        (sealed.checksum, sealed.bytes) = (encoded.checksum, encoded.bytes.len() as u64);
        Ok(sealed)
    }

    /// Removes what nobody needs: files before the snapshot, and what was never finished. What stays behind is never read.
    fn sweep(&self) {
        let (Some(chain), Ok(names)) = (&self.chain, self.folder.names()) else { return };
        let needless = |name: &&String| match chain::parsed(name) {
            Some((number, Kind::Ledger)) => !chain.ledger.iter().any(|sealed| sealed.number == number),
            Some((number, Kind::Segments)) => !chain.segments.iter().any(|sealed| sealed.number == number),
            Some((number, _)) => number < chain.snapshot,
            None => Folder::is_unfinished(name),
        };
        names.iter().filter(needless).for_each(|name| self.folder.remove(name));
    }
}
