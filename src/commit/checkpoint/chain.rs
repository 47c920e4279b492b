//! The files of a folder, read: which there must be, in which order, and what they come to.
//!
//! ```text
//! HEAD                       the number and checksum of the last file, and the number of the snapshot below it
//! 00000000000000000012.snapshot    all that is kept, and the number and checksum of each ledger file
//! 00000000000000000013.delta       what one commit changed; names its predecessor's checksum
//! 00000000000000000014.delta
//! 00000000000000000012.ledger      past batches up to the snapshot
//! 00000000000000000014.segments    what the batch of that number stored of state operators
//! ```
//!
//! A file is on the disk, and so is its name, before another one names it.
//!
//! `HEAD` is written after the file that it names. So one file may lie beyond it: a commit whose process died in between. It is
//! taken for committed, for it is whole and on the disk. Two of them cannot be.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    folder::Folder,
    format::{self, Kind, Unreadable},
    segments::{SealedSegments, trim},
    state::{Entry, Position, State},
};
use crate::error::{Error, ErrorKind, Result};

/// The file that names the last one.
pub(super) const HEAD: &str = "HEAD";
/// How often a folder that a live owner changes is read again before it counts as unreadable.
pub(super) const READS_MAX: u32 = 50;

/// Which file is the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) application: String,
    pub(super) number: u64,
    pub(super) checksum: u64,
    /// The number of the newest snapshot.
    pub(super) snapshot: u64,
}

/// All that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) application: String,
    pub(super) number: u64,
    /// The checksum of the file before it; 0 for the first one.
    pub(super) previous: u64,
    pub(super) state: State,
    pub(super) ledger: Vec<Sealed>,
    /// What state operators stored, as far as it is needed, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) segments: Vec<SealedSegments>,
}

/// What one commit changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delta {
    pub(super) application: String,
    pub(super) number: u64,
    /// The checksum of the file before it.
    pub(super) previous: u64,
    pub(super) epoch: u64,
    pub(super) batch_seq: u64,
    pub(super) last_batch_time_ms: Option<i64>,
    pub(super) seen_at_ms: Option<i64>,
    /// The positions that moved.
    pub(super) positions: Vec<Position>,
    /// The batch, if it is one and not the first positions.
    pub(super) entry: Option<Entry>,
    /// What it stored of state operators, if there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) segments: Option<SealedSegments>,
}

/// A ledger file, as the snapshot knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    pub(super) number: u64,
    pub(super) checksum: u64,
    pub(super) bytes: u64,
    /// The first and last batch that has a row in it; 0 if none has.
    pub(super) first_batch: u64,
    pub(super) last_batch: u64,
    /// When the last of them was committed: milliseconds since 1970-01-01 UTC.
    pub(super) committed_at_ms: i64,
    /// Entries with lost ranges or dead letters.
    pub(super) outliving: u64,
}

/// Past batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LedgerFile {
    pub(super) application: String,
    pub(super) number: u64,
    pub(super) entries: Vec<Entry>,
}

/// What the folder's files come to.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    /// `HEAD` byte for byte: as long as it is the same, so is all the rest.
    pub(super) head: Vec<u8>,
    /// The last file's number and checksum.
    pub(super) number: u64,
    pub(super) checksum: u64,
    pub(super) snapshot: u64,
    /// Whether the last file is one that `HEAD` does not name yet.
    pub(super) beyond: bool,
    pub(super) state: State,
    pub(super) ledger: Vec<Sealed>,
    pub(super) segments: Vec<SealedSegments>,
    /// The batches since the snapshot, and how long their deltas are.
    pub(super) entries: Vec<Entry>,
    pub(super) deltas: u64,
    pub(super) delta_bytes: u64,
}

/// A data file's name.
pub(super) fn name(number: u64, kind: Kind) -> String {
    format!("{number:020}.{kind}")
}

/// A data file's number and kind, by its name.
pub(super) fn parsed(name: &str) -> Option<(u64, Kind)> {
    let (number, kind) = name.split_once('.')?;
    let kinds = [Kind::Snapshot, Kind::Delta, Kind::Ledger, Kind::Segments];
    let kind = kinds.into_iter().find(|known| known.to_string() == kind)?;
    Some((number.parse().ok()?, kind)).filter(|_| number.len() == 20)
}

/// The folder cannot be trusted: which file, what is wrong with it, and what to do.
pub(super) fn damaged(folder: &Folder, name: &str, what: &str) -> Error {
    Error::corrupt(format!(
        "the checkpoint folder is damaged: {what}: restore the whole folder from a backup, or choose another application \
         id and say where it starts file={}",
        folder.path().join(name).display()
    ))
}

/// A file of the folder that must be there, its checksum, and how long it is.
pub(super) fn read<T: DeserializeOwned>(folder: &Folder, number: u64, kind: Kind) -> Result<(T, u64, u64)> {
    let name = name(number, kind);
    let bytes = folder.read(&name)?.ok_or_else(|| damaged(folder, &name, "a file is missing"))?;
    let (document, checksum) = decode(folder, &name, kind, &bytes)?;
    Ok((document, checksum, bytes.len() as u64))
}

fn decode<T: DeserializeOwned>(folder: &Folder, name: &str, kind: Kind, bytes: &[u8]) -> Result<(T, u64)> {
    format::decode(kind, bytes).map_err(|unreadable| match unreadable {
        Unreadable::Damaged(what) => damaged(folder, name, &format!("a file is not what was written, {what}")),
        Unreadable::OtherVersion(version) => Error::config(format!(
            "another version of this program wrote the checkpoint: start that one file={} format={version}",
            folder.path().join(name).display()
        )),
    })
}

/// Reads all files and checks that they belong together; `None` if there are none. A live owner may write meanwhile: what
/// does not fit is looked at again if `HEAD` has changed.
///
/// `checked` are checksums of ledger files that were read before, and need not be again.
///
/// # Errors
/// [`Corrupt`](ErrorKind::Corrupt) naming the file that is not as it was written; [`Unavailable`](ErrorKind::Unavailable) with
/// what the disk says.
pub(super) fn load(folder: &Folder, application: &str, checked: &mut BTreeSet<u64>) -> Result<Option<Chain>> {
    let mut tries = 1;
    loop {
        let before = folder.read(HEAD)?;
        match load_once(folder, application, before.clone(), checked) {
            Err(error) if error.kind() == ErrorKind::Corrupt && tries < READS_MAX && folder.read(HEAD)? != before => {
                tries += 1;
            }
            loaded => return loaded,
        }
    }
}

fn load_once(
    folder: &Folder,
    application: &str,
    head: Option<Vec<u8>>,
    checked: &mut BTreeSet<u64>,
) -> Result<Option<Chain>> {
    let found: Vec<(u64, Kind)> = folder.names()?.iter().filter_map(|name| parsed(name)).collect();
    let Some(head_bytes) = head else {
        // A process that died while it made the first file: there is nothing yet that could be lost.
        return match found.iter().find(|file| **file != (1, Kind::Snapshot)) {
            None => Ok(None),
            Some(_) => Err(damaged(folder, HEAD, "a file is missing")),
        };
    };
    let (head, _): (Head, u64) = decode(folder, HEAD, Kind::Head, &head_bytes)?;
    belongs(folder, HEAD, (&head.application, head.number), (application, head.number))?;
    let mut chain = from_snapshot(folder, application, &head, head_bytes)?;
    while chain.number < head.number {
        chain.follow(folder, application)?;
    }
    if chain.checksum != head.checksum {
        return Err(damaged(folder, &name(head.number, kind_of(&chain)), "a file is not the one that HEAD names"));
    }
    go_beyond(folder, application, &mut chain, &found)?;
    for sealed in &chain.ledger {
        if checked.contains(&sealed.checksum) {
            continue;
        }
        read_ledger(folder, application, sealed)?;
        checked.insert(sealed.checksum);
    }
    Ok(Some(chain))
}

fn kind_of(chain: &Chain) -> Kind {
    if chain.number == chain.snapshot { Kind::Snapshot } else { Kind::Delta }
}

/// A file is of this application and has this number: another folder's file may be whole.
pub(super) fn belongs(folder: &Folder, name: &str, found: (&str, u64), expected: (&str, u64)) -> Result<()> {
    if found == expected { Ok(()) } else { Err(damaged(folder, name, "a file belongs to another place")) }
}

fn from_snapshot(folder: &Folder, application: &str, head: &Head, head_bytes: Vec<u8>) -> Result<Chain> {
    let (snapshot, checksum, _): (Snapshot, u64, u64) = read(folder, head.snapshot, Kind::Snapshot)?;
    let place = name(head.snapshot, Kind::Snapshot);
    belongs(folder, &place, (&snapshot.application, snapshot.number), (application, head.snapshot))?;
    Ok(Chain::at(snapshot, checksum, head_bytes))
}

/// Takes in the one file that may lie beyond `HEAD`.
fn go_beyond(folder: &Folder, application: &str, chain: &mut Chain, found: &[(u64, Kind)]) -> Result<()> {
    let data = |file: &&(u64, Kind)| file.0 > chain.number && [Kind::Snapshot, Kind::Delta].contains(&file.1);
    let beyond: Vec<(u64, Kind)> = found.iter().filter(data).copied().collect();
    let &[(number, kind)] = beyond.as_slice() else {
        let older = || damaged(folder, HEAD, "it is older than the files beside it");
        return if beyond.is_empty() { Ok(()) } else { Err(older()) };
    };
    if number != chain.number + 1 {
        return Err(damaged(folder, HEAD, "it is older than the files beside it"));
    }
    chain.beyond = true;
    if kind == Kind::Delta {
        return chain.follow(folder, application);
    }
    let (snapshot, checksum, _): (Snapshot, u64, u64) = read(folder, number, Kind::Snapshot)?;
    let place = name(number, Kind::Snapshot);
    belongs(folder, &place, (&snapshot.application, snapshot.number), (application, number))?;
    if snapshot.previous != chain.checksum {
        return Err(damaged(folder, &place, "a file does not follow the one before it"));
    }
    (chain.number, chain.checksum, chain.snapshot) = (number, checksum, number);
    (chain.state, chain.ledger, chain.segments) = (snapshot.state, snapshot.ledger, snapshot.segments);
    (chain.deltas, chain.delta_bytes) = (0, 0);
    chain.entries.clear();
    Ok(())
}

/// A ledger file's entries.
pub(super) fn read_ledger(folder: &Folder, application: &str, sealed: &Sealed) -> Result<Vec<Entry>> {
    let (file, checksum, _): (LedgerFile, u64, u64) = read(folder, sealed.number, Kind::Ledger)?;
    let place = name(sealed.number, Kind::Ledger);
    belongs(folder, &place, (&file.application, file.number), (application, sealed.number))?;
    if checksum != sealed.checksum {
        return Err(damaged(folder, &place, "a file is not the one that the snapshot names"));
    }
    Ok(file.entries)
}

impl Chain {
    /// A snapshot that `HEAD` names, and nothing after it.
    pub(super) fn at(snapshot: Snapshot, checksum: u64, head: Vec<u8>) -> Self {
        let Snapshot { number, state, ledger, segments, .. } = snapshot;
        Self {
            head,
            number,
            checksum,
            snapshot: number,
            beyond: false,
            state,
            ledger,
            segments,
            entries: Vec::new(),
            deltas: 0,
            delta_bytes: 0,
        }
    }

    /// Takes in the delta after the last file.
    fn follow(&mut self, folder: &Folder, application: &str) -> Result<()> {
        let number = self.number + 1;
        let (delta, checksum, bytes): (Delta, u64, u64) = read(folder, number, Kind::Delta)?;
        let place = name(number, Kind::Delta);
        belongs(folder, &place, (&delta.application, delta.number), (application, number))?;
        if delta.previous != self.checksum {
            return Err(damaged(folder, &place, "a file does not follow the one before it"));
        }
        let one_more = self.state.batch_seq + u64::from(delta.entry.is_some());
        if (delta.epoch, delta.batch_seq) != (self.state.epoch, one_more) {
            return Err(damaged(folder, &place, "a file contradicts the one before it"));
        }
        self.take(delta, checksum, bytes);
        Ok(())
    }

    /// Makes a delta that is on the disk the last file.
    pub(super) fn take(&mut self, delta: Delta, checksum: u64, bytes: u64) {
        (self.number, self.checksum) = (delta.number, checksum);
        self.state.batch_seq = delta.batch_seq;
        self.state.last_batch_time_ms = delta.last_batch_time_ms;
        if delta.entry.is_some() {
            self.state.last_batch_epoch = Some(delta.epoch);
        }
        self.state.seen_at_ms = delta.seen_at_ms;
        delta.positions.into_iter().for_each(|position| self.state.put(position));
        self.entries.extend(delta.entry);
        self.delta_bytes += delta.segments.as_ref().map_or(0, |sealed| sealed.bytes);
        self.segments.extend(delta.segments);
        trim(&mut self.segments);
        self.deltas += 1;
        self.delta_bytes += bytes;
    }
}
