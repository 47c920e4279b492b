//! The segments of a log on the disk: files named by the offset that they begin with.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::frame::{HEAD_BYTES, Head};
use crate::error::{Error, ErrorKind, Result};

const ENDING: &str = ".wal";
/// Of each segment the place of a block is kept every so many bytes: reading finds the others from there.
const PLACE_BYTES: u64 = 64 * 1024;
const READ_BYTES: usize = 256 * 1024;

/// One segment, as far as it is known to be on the disk.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// The offset that it begins with.
    pub(super) first_offset: i64,
    /// The first offset after it.
    pub(super) end_offset: i64,
    /// Bytes of its blocks.
    pub(super) bytes: u64,
    /// Offset and byte of some of its blocks, in order.
    places: Vec<(i64, u64)>,
}

impl Segment {
    /// A segment without a block.
    pub(super) fn begin(folder: &Path, first_offset: i64) -> Self {
        let path = folder.join(format!("{first_offset:020}{ENDING}"));
        Self { path, first_offset, end_offset: first_offset, bytes: 0, places: Vec::new() }
    }

    /// Takes in that a block was added.
    pub(super) fn add(&mut self, head: &Head) {
        if self.places.last().is_none_or(|(_, byte)| self.bytes - byte >= PLACE_BYTES) {
            self.places.push((head.first_offset, self.bytes));
        }
        self.bytes += head.frame_bytes();
        self.end_offset = head.end_offset();
    }

    /// The byte of a block that begins at or before the offset.
    pub(super) fn place_of(&self, offset: i64) -> u64 {
        let after = self.places.partition_point(|(first, _)| *first <= offset);
        after.checked_sub(1).and_then(|at| self.places.get(at)).map_or(0, |(_, byte)| *byte)
    }
}

/// What a disk's error means: a folder that cannot be used as it is has to be mended, anything else may pass.
pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind as Io;
    let wrong = matches!(
        error.kind(),
        Io::NotFound | Io::NotADirectory | Io::PermissionDenied | Io::ReadOnlyFilesystem | Io::InvalidFilename
    );
    let kind = if wrong { ErrorKind::Config } else { ErrorKind::Unavailable };
    Error::new(kind, format!("{what} path={}", path.display())).caused_by(error)
}

/// Makes the names in a folder outlive a power cut.
pub(super) fn flush_folder(folder: &Path) -> Result<()> {
    let flush = || File::open(folder)?.sync_all();
    flush().map_err(|error| failed("cannot flush the folder of a receiver's log", folder, error))
}

/// The offsets that segments begin with, in order.
pub(super) fn list(folder: &Path) -> Result<Vec<i64>> {
    let unreadable = |error| failed("cannot list the folder of a receiver's log", folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(ENDING));
        found.extend(number.and_then(|number| number.parse::<i64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// What a walk over blocks came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The file ends with a whole block, or the walk was ended.
    Whole,
    /// What begins at this byte is the beginning of a block, or nothing but zeros: its writing did not end.
    Torn {
        /// Where it begins.
        at: u64,
    },
}

/// Gives each block from `byte` on to `each`, until that says no.
///
/// # Errors
/// [`ErrorKind::Corrupt`] where a block is there and damaged, naming file and byte; what reading failed with.
pub(super) fn walk(path: &Path, byte: u64, mut each: impl FnMut(&Head, &[u8]) -> Result<bool>) -> Result<Ended> {
    let unreadable = |error| failed("cannot read a segment of a receiver's log", path, error);
    let mut file = File::open(path).map_err(unreadable)?;
    file.seek(SeekFrom::Start(byte)).map_err(unreadable)?;
    let mut file = BufReader::with_capacity(READ_BYTES, file);
    let mut at = byte;
    let mut head_bytes = Vec::with_capacity(HEAD_BYTES);
    let mut body = Vec::new();
    loop {
        head_bytes.clear();
        file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head_bytes).map_err(unreadable)?;
        let Some(bytes) = head_bytes.first_chunk::<HEAD_BYTES>() else {
            return Ok(if head_bytes.is_empty() { Ended::Whole } else { Ended::Torn { at } });
        };
        let Some(head) = Head::parse(bytes) else {
            let nothing = bytes.iter().all(|byte| *byte == 0) && only_zeros(&mut file).map_err(unreadable)?;
            return if nothing { Ok(Ended::Torn { at }) } else { Err(damaged(path, at)) };
        };
        body.clear();
        let read = file.by_ref().take(u64::from(head.body_bytes)).read_to_end(&mut body).map_err(unreadable)?;
        if read as u64 != u64::from(head.body_bytes) {
            return Ok(Ended::Torn { at });
        }
        if !head.fits(&body) {
            return Err(damaged(path, at));
        }
        if !each(&head, &body)? {
            return Ok(Ended::Whole);
        }
        at += head.frame_bytes();
    }
}

/// Whether all that follows are zeros: what a file system may show of a file whose growth was flushed, and whose bytes were not.
fn only_zeros(file: &mut impl Read) -> io::Result<bool> {
    let mut rest = [0; 4096];
    loop {
        match file.read(&mut rest)? {
            0 => return Ok(true),
            read if rest[..read].iter().any(|byte| *byte != 0) => return Ok(false),
            _ => {}
        }
    }
}

/// The error of a block that is there and is not what was written.
pub(super) fn damaged(path: &Path, byte: u64) -> Error {
    Error::corrupt(format!("a receiver's log is damaged path={} byte={byte}", path.display()))
}
