//! The write-ahead log of one receiver: what was pushed to it lies here before anybody is told that it is stored.
//!
//! A log is a folder of segments, one of them at a time being written. It has one writer, which holds the lock of a file in it.
//! What a call of [`Wal::append`] was given is one block: written, flushed to the disk, and only then part of the log.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{
    frame::{self, Head},
    segments::{Ended, Segment, damaged, failed, flush_folder, list, walk},
};
use crate::{
    error::{Error, ErrorKind, Result},
    failpoint,
    types::TopicId,
};

/// The file whose lock is the right to write.
const LOCK: &str = "lock";
/// The file with the log's id, and its name while it is written.
const ID: &str = "id";
const ID_UNFINISHED: &str = "id.tmp";

/// A log that is open for writing.
#[derive(Debug)]
pub(super) struct Wal {
    folder: PathBuf,
    id: TopicId,
    segment_bytes_max: u64,
    /// In order; the last one is being written.
    segments: VecDeque<Segment>,
    writing: Option<File>,
    /// Why nothing more can be written.
    broken: Option<Error>,
    _lock: File,
}

/// Records of a log as they are read.
pub(super) struct Block<'a> {
    /// The offset of the first of them.
    pub(super) first_offset: i64,
    /// When they were received, in milliseconds since 1970-01-01 UTC.
    pub(super) received_ms: i64,
    /// Their bytes.
    pub(super) records: Vec<&'a [u8]>,
}

impl Wal {
    /// Opens the log of a folder, made if it is missing, and reads it whole: a block at its end whose writing did not end was
    /// never told to be stored, and is cut off.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] while another process has it open; [`ErrorKind::Corrupt`] if it is damaged, naming file and byte;
    /// [`ErrorKind::Config`] if the folder cannot be used.
    pub(super) fn open(folder: &Path, segment_bytes_max: u64) -> Result<Self> {
        make_folder(folder)?;
        let lock = lock(folder)?;
        let id = id_of(folder)?;
        let mut wal = Self {
            folder: folder.to_owned(),
            id,
            segment_bytes_max,
            segments: VecDeque::new(),
            writing: None,
            broken: None,
            _lock: lock,
        };
        wal.read_segments()?;
        Ok(wal)
    }

    fn read_segments(&mut self) -> Result<()> {
        let found = list(&self.folder)?;
        for (number, first_offset) in found.iter().enumerate() {
            let mut segment = Segment::begin(&self.folder, *first_offset);
            if self.segments.back().is_some_and(|before| before.end_offset != *first_offset) {
                let text = format!("a segment of a receiver's log is missing before path={}", segment.path.display());
                return Err(Error::corrupt(text));
            }
            let path = segment.path.clone();
            let ended = walk(&path, 0, |head, _| {
                // What lies between two blocks whole in themselves was taken out.
                if head.first_offset != segment.end_offset {
                    return Err(damaged(&path, segment.bytes));
                }
                segment.add(head);
                Ok(true)
            })?;
            match ended {
                Ended::Whole => {}
                Ended::Torn { at } if number + 1 == found.len() => cut_off(&path, at)?,
                // The one after it was begun when this one was whole.
                Ended::Torn { at } => return Err(damaged(&path, at)),
            }
            self.segments.push_back(segment);
        }
        Ok(())
    }

    /// By what the log is told from a later one in its place.
    pub(super) fn id(&self) -> &TopicId {
        &self.id
    }

    /// The first offset that it still has.
    pub(super) fn earliest(&self) -> i64 {
        self.segments.front().map_or(0, |segment| segment.first_offset)
    }

    /// The offset after the last record that is on the disk.
    pub(super) fn latest(&self) -> i64 {
        self.segments.back().map_or(0, |segment| segment.end_offset)
    }

    /// Bytes of the blocks from this offset on; the block that it lies in counts whole, and some before it may.
    pub(super) fn bytes_from(&self, offset: i64) -> u64 {
        let left = self.segments.iter().filter(|segment| segment.end_offset > offset);
        left.map(|segment| segment.bytes - if segment.first_offset < offset { segment.place_of(offset) } else { 0 })
            .sum()
    }

    /// Why nothing more can be written, if so.
    pub(super) fn broken(&self) -> Option<&Error> {
        self.broken.as_ref()
    }

    /// Adds one block. When this returns, it is on the disk; if it fails, nothing of it is in the log.
    ///
    /// # Errors
    /// What the disk failed with. Whoever cannot be sure of what is on the disk any more refuses all that comes after.
    pub(super) fn append(&mut self, frame: &[u8], head: &Head) -> Result<()> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if self.segments.back().is_none_or(|segment| segment.bytes >= self.segment_bytes_max) || self.writing.is_none()
        {
            self.begin_segment()?;
        }
        let (Some(file), Some(segment)) = (&mut self.writing, self.segments.back_mut()) else {
            return Err(Error::internal("a receiver's log has no segment to write"));
        };
        if let Err(error) = file.write_all(frame) {
            // A full disk: what was written of the block is taken back.
            let back = file.set_len(segment.bytes).and_then(|()| file.sync_data());
            let error = failed("cannot write a receiver's log", &segment.path, error);
            if back.is_err() {
                self.broken = Some(error.clone());
            }
            return Err(error);
        }
        if let Err(error) = file.sync_data() {
            // Whether the block is on the disk cannot be found out: a second flush would say yes to what the first one lost.
            let error = failed("cannot flush a receiver's log", &segment.path, error);
            self.broken = Some(error.clone());
            return Err(error);
        }
        segment.add(head);
        Ok(())
    }

    /// Opens the segment that is written next: the last one if it has room, as after a start, or a new one.
    fn begin_segment(&mut self) -> Result<()> {
        let room = self.segments.back().is_some_and(|segment| segment.bytes < self.segment_bytes_max);
        if !room {
            let segment = Segment::begin(&self.folder, self.latest());
            let made = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&segment.path);
            let file =
                made.map_err(|error| failed("cannot make a segment of a receiver's log", &segment.path, error))?;
            if let Err(error) = flush_folder(&self.folder) {
                // Without its name on the disk nothing in it would be safe; with the next block it is tried again.
                let _ = fs::remove_file(&segment.path);
                return Err(error);
            }
            self.segments.push_back(segment);
            self.writing = Some(file);
            return Ok(());
        }
        let path = self.segments.back().map_or_else(PathBuf::new, |segment| segment.path.clone());
        let opened = OpenOptions::new().append(true).open(&path);
        self.writing = Some(opened.map_err(|error| failed("cannot open a segment of a receiver's log", &path, error))?);
        Ok(())
    }

    /// The segments that have a part of these offsets.
    pub(super) fn segments_of(&self, from: i64, until: i64) -> Vec<Segment> {
        let within = |segment: &&Segment| segment.first_offset < until && segment.end_offset > from;
        self.segments.iter().filter(within).cloned().collect()
    }

    /// Deletes the segments that lie wholly before this offset. The one that is being written stays: its name tells the next
    /// start where the log is.
    pub(super) fn forget_before(&mut self, offset: i64) {
        let offset = if failpoint::mutant("receiver_forgets_unread") { self.latest() } else { offset };
        while self.segments.len() > 1 && self.segments.front().is_some_and(|first| first.end_offset <= offset) {
            let Some(first) = self.segments.pop_front() else { return };
            // One that stays behind is deleted after the next start: it is whole, and lies before the others.
            if let Err(error) = fs::remove_file(&first.path) {
                tracing::warn!(path = %first.path.display(), "cannot delete a segment of a receiver's log: {error}");
            }
        }
    }
}

/// Gives the blocks of these offsets to `each`, until that says no.
///
/// # Errors
/// [`ErrorKind::Corrupt`] where the log is damaged, naming file and byte.
pub(super) fn blocks(
    segments: &[Segment],
    from: i64,
    until: i64,
    mut each: impl FnMut(&Block<'_>) -> bool,
) -> Result<()> {
    for segment in segments {
        let mut at = segment.place_of(from);
        let mut next = from.max(segment.first_offset);
        let last = until.min(segment.end_offset);
        let mut wanted = true;
        walk(&segment.path, at, |head, body| {
            if head.end_offset() > next {
                let records = frame::records(body).filter(|_| head.first_offset <= next);
                let Some(records) = records else { return Err(damaged(&segment.path, at)) };
                next = head.end_offset();
                wanted = each(&Block { first_offset: head.first_offset, received_ms: head.received_ms, records });
            }
            at += head.frame_bytes();
            Ok(wanted && next < last)
        })?;
        if wanted && next < last {
            // It was whole when it was written, or when the log was opened.
            return Err(damaged(&segment.path, at));
        }
        if !wanted {
            break;
        }
    }
    Ok(())
}

fn make_folder(folder: &Path) -> Result<()> {
    let unusable = |error| failed("cannot make the folder of a receiver's log", folder, error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
    // So that its name and those of the two above outlive a power cut.
    let shown = |path: &'_ Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    let mut above = folder.ancestors().map(shown);
    above.by_ref().take(3).try_for_each(|path| flush_folder(&path))?;
    match above.next().map(|path| flush_folder(&path)) {
        // Not ours to read: whoever made the folder for us there saw to its name.
        Some(Err(error)) if error.kind() != ErrorKind::Config => return Err(error),
        _ => {}
    }
    Ok(())
}

/// The kernel's own lock: no crash can leave it behind.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let unusable = |error: io::Error| failed("cannot open the lock file of a receiver's log", &path, error);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let text = format!("another process has the receiver's log open path={}", path.display());
            Err(Error::new(ErrorKind::Fenced, text))
        }
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// The log's id, made when it is opened for the first time.
fn id_of(folder: &Path) -> Result<TopicId> {
    let (path, unfinished) = (folder.join(ID), folder.join(ID_UNFINISHED));
    let unusable = |error: io::Error| failed("cannot use the id of a receiver's log", &path, error);
    match fs::read_to_string(&path) {
        Ok(text) => match Uuid::parse_str(&text) {
            Ok(id) => return Ok(TopicId::new(id.to_string())),
            Err(_) => return Err(damaged(&path, 0)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged(&path, 0)),
        Err(error) => return Err(unusable(error)),
    }
    if !list(folder)?.is_empty() {
        return Err(Error::corrupt(format!("a receiver's log has segments and no id path={}", path.display())));
    }
    let id = Uuid::new_v4().to_string();
    let write = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(id.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)
    };
    write().map_err(unusable)?;
    flush_folder(folder)?;
    Ok(TopicId::new(id))
}

/// Cuts off what was never told to be stored.
fn cut_off(path: &Path, at: u64) -> Result<()> {
    let cut = || {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(at)?;
        file.sync_all()
    };
    cut().map_err(|error| failed("cannot cut off the end of a receiver's log", path, error))?;
    tracing::info!(path = %path.display(), byte = at, "a block whose writing did not end is cut off");
    Ok(())
}

#[cfg(test)]
#[path = "wal_tests.rs"]
mod tests;
