//! A folder of part files, in Spark's form: `part-00000` and so on, one per partition, and `_SUCCESS`.
//!
//! It comes into being whole or not at all: it is written under another name beside its place, each file is flushed, then the
//! folder, and then it is renamed. `_SUCCESS` says which batch it is of, so that a batch that is run again replaces its own
//! folder and no other.

use std::{
    fs::{self, File},
    io::{self, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::Rdd;
use crate::{
    error::{Error, ErrorKind, Result},
    failpoint,
    types::{BatchInfo, Flow, Stop, Term},
};

/// The file that says that a folder is whole. Hadoop's and Spark's readers pass over names that begin with `_` or a dot.
const SUCCESS: &str = "_SUCCESS";
/// The version of the form of [`SUCCESS`].
const FORMAT: u32 = 1;
/// The end of the name of a folder that is being written, or removed.
const UNFINISHED: &str = ".tmp";
/// What is gathered before it is written.
const BUFFER_BYTES: usize = 64 * 1024;

/// How the elements of one part become bytes.
pub(super) trait PartEncoder<T>: Sized {
    /// The part of that number begins.
    fn begin(partition: usize, out: &mut Vec<u8>) -> Result<Self>;

    /// One more element.
    fn add(&mut self, item: &T, out: &mut Vec<u8>) -> Result<()>;

    /// The part is complete.
    fn end(self, out: &mut Vec<u8>);
}

/// What a disk's error means: what has to be mended first is [`ErrorKind::Config`], anything else may pass, as a full disk.
pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind as Io;
    let wrong = matches!(
        error.kind(),
        Io::PermissionDenied
            | Io::NotADirectory
            | Io::IsADirectory
            | Io::AlreadyExists
            | Io::DirectoryNotEmpty
            | Io::ReadOnlyFilesystem
            | Io::InvalidFilename
            | Io::InvalidInput
    );
    let looped = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    let kind = if wrong || looped { ErrorKind::Config } else { ErrorKind::Unavailable };
    Error::new(kind, format!("{what} path={}", path.display())).caused_by(error)
}

/// What a folder says of itself: which batch of which application it is, and how many parts it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Marker {
    directstream: u32,
    application: String,
    zero_time_ms: i64,
    epoch: u64,
    pub(super) batch_seq: u64,
    batch_time_ms: i64,
    pub(super) parts: usize,
    checksum: String,
}

impl Marker {
    fn of(batch: &BatchInfo, term: Option<&Term>, parts: usize) -> Self {
        let mut marker = Self {
            directstream: FORMAT,
            application: term.map(|term| term.application.to_string()).unwrap_or_default(),
            zero_time_ms: term.map_or(0, |term| term.zero_time_ms),
            epoch: term.map_or(0, |term| term.epoch),
            batch_seq: batch.batch_seq,
            batch_time_ms: batch.batch_time.as_ms(),
            parts,
            checksum: String::new(),
        };
        marker.checksum = marker.sum();
        marker
    }

    /// Over all that it says.
    fn sum(&self) -> String {
        let Self { directstream, application, zero_time_ms, epoch, batch_seq, batch_time_ms, parts, .. } = self;
        let said = format!("{directstream} {application:?} {zero_time_ms} {epoch} {batch_seq} {batch_time_ms} {parts}");
        format!("{:016x}", xxh3_64(said.as_bytes()))
    }

    /// Whether it is of this application, and not of one of the same name before its store was made anew.
    pub(super) fn is_of(&self, term: &Term) -> bool {
        *self.application == *term.application && self.zero_time_ms == term.zero_time_ms
    }

    /// Whether `other` is an attempt at the same batch, by the same owner or an earlier one.
    fn replaces(&self, other: &Self) -> bool {
        let same = |of: &Self| (of.application.clone(), of.zero_time_ms, of.batch_seq);
        self.epoch > 0 && same(self) == same(other) && other.epoch <= self.epoch
    }

    /// What the folder says; `None` if it says nothing or is not there, as one of another program.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(SUCCESS);
        let bytes = match fs::read(&path) {
            Ok(bytes) if bytes.is_empty() => return Ok(None),
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(failed("cannot read the mark of a folder", &path, error)),
        };
        let damaged = || Error::corrupt(format!("the mark of a folder is damaged path={}", path.display()));
        let marker: Self = serde_json::from_slice(&bytes).map_err(|error| damaged().caused_by(error))?;
        if marker.checksum != marker.sum() {
            return Err(damaged());
        }
        if marker.directstream != FORMAT {
            let (path, format) = (path.display(), marker.directstream);
            return Err(Error::config(format!(
                "a folder was written by another version of this program path={path} format={format}"
            )));
        }
        Ok(Some(marker))
    }
}

/// The name of a part.
pub(super) fn part_name(partition: usize) -> String {
    format!("part-{partition:05}")
}

/// A part file that is being written.
struct Part<E> {
    path: PathBuf,
    file: File,
    encoder: E,
    buffer: Vec<u8>,
}

impl<E> Part<E> {
    fn create<T>(folder: &Path, partition: usize) -> Result<Self>
    where
        E: PartEncoder<T>,
    {
        let path = folder.join(part_name(partition));
        let file = File::create_new(&path).map_err(|error| failed("cannot make a part file", &path, error))?;
        let mut buffer = Vec::new();
        let encoder = E::begin(partition, &mut buffer)?;
        Ok(Self { path, file, encoder, buffer })
    }

    fn add<T>(&mut self, item: &T) -> Flow
    where
        E: PartEncoder<T>,
    {
        let mut added = self.encoder.add(item, &mut self.buffer);
        if added.is_ok() && self.buffer.len() >= BUFFER_BYTES {
            added = self.write_out();
        }
        added.map_or_else(|error| ControlFlow::Break(Stop::Failed(error)), ControlFlow::Continue)
    }

    fn write_out(&mut self) -> Result<()> {
        let (first, rest) = self.buffer.split_at(self.buffer.len() / 2);
        let written = self.file.write_all(first).and_then(|()| {
            failpoint::hit_os("files::mid_write")?;
            self.file.write_all(rest)
        });
        self.buffer.clear();
        written.map_err(|error| failed("cannot write a part file", &self.path, error))
    }

    fn finish<T>(mut self) -> Result<()>
    where
        E: PartEncoder<T>,
    {
        let (buffer, encoder) = (&mut self.buffer, self.encoder);
        encoder.end(buffer);
        let (first, rest) = buffer.split_at(buffer.len() / 2);
        let written = self.file.write_all(first).and_then(|()| {
            failpoint::hit_os("files::mid_write")?;
            self.file.write_all(rest)?;
            failpoint::hit_os("files::before_flush")?;
            self.file.sync_all()
        });
        written.map_err(|error| failed("cannot write a part file", &self.path, error))
    }
}

/// Flushes a folder: the names of what was put into it, or taken out of it, are kept for certain.
pub(super) fn flush_folder(path: &Path) -> Result<()> {
    let flushed = File::open(path).and_then(|folder| folder.sync_all());
    flushed.map_err(|error| failed("cannot flush a folder", path, error))
}

/// A folder of that path, made with those above it if it is missing. Its name is kept for certain.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_folder(above)?;
    }
    match fs::create_dir(path) {
        Ok(()) => path.parent().map_or(Ok(()), flush_folder),
        // Another process was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(failed("cannot make a folder", path, error)),
    }
}

/// A name beside `path` that nobody uses.
fn beside(parent: &Path, name: &str) -> PathBuf {
    parent.join(format!(".{name}.{}{UNFINISHED}", Uuid::new_v4()))
}

/// The name of the folder that this one would have become, or was, if it is an unfinished one.
pub(super) fn unfinished(name: &str) -> Option<&str> {
    let (name, _unique) = name.strip_prefix('.')?.strip_suffix(UNFINISHED)?.rsplit_once('.')?;
    Some(name)
}

/// Where a folder goes: the folder that it is in, and its name.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) parent: PathBuf,
    pub(super) name: String,
}

impl Place {
    /// The place that a path names, from the current folder of the process.
    pub(super) fn of(path: &str) -> Result<Self> {
        let refused = || Error::config(format!("the path does not end with a name to write to path={path:?}"));
        let whole = std::path::absolute(path).map_err(|error| refused().caused_by(error))?;
        let name = whole.file_name().and_then(|name| name.to_str()).filter(|_| !path.ends_with('/'));
        match (whole.parent(), name) {
            (Some(parent), Some(name)) => Ok(Self { parent: parent.to_owned(), name: name.to_owned() }),
            _ => Err(refused()),
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }
}

/// A folder that is written and not in its place yet. Dropped, it is removed: its space may be what is needed.
#[derive(Debug)]
pub(super) struct Written {
    unfinished: PathBuf,
    marker: Marker,
}

impl Drop for Written {
    fn drop(&mut self) {
        // In its place it has another name. What stays behind is removed by the next start.
        let _ = fs::remove_dir_all(&self.unfinished);
    }
}

impl Written {
    /// Computes the RDD, one part file for each partition, beside the place where it is to be.
    pub(super) fn write<T: Send + 'static, E: PartEncoder<T>>(rdd: &Rdd<T>, place: &Place) -> Result<Self> {
        let unfinished = beside(&place.parent, &place.name);
        fs::create_dir(&unfinished).map_err(|error| failed("cannot make a folder", &unfinished, error))?;
        let marker = Marker::of(rdd.batch(), rdd.scope().task().term(), rdd.partitions());
        let written = Self { unfinished, marker };
        let folder = &written.unfinished;
        rdd.run_whole(
            |partition| Part::<E>::create(folder, partition),
            |part, item| part.add(&item),
            |part| part.finish(),
        )?;
        let path = folder.join(SUCCESS);
        let marked = serde_json::to_vec(&written.marker).map_err(io::Error::other).and_then(|mut text| {
            text.push(b'\n');
            let mut file = File::create_new(&path)?;
            file.write_all(&text)?;
            file.sync_all()
        });
        marked.map_err(|error| failed("cannot write the mark of a folder", &path, error))?;
        flush_folder(folder)?;
        Ok(written)
    }

    /// Puts it in its place. What an earlier attempt at the same batch left there makes room.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if something else is there.
    pub(super) fn put(self, place: &Place) -> Result<()> {
        let path = place.path();
        if path.symlink_metadata().is_ok() {
            if !Marker::read(&path)?.is_some_and(|there| self.marker.replaces(&there)) {
                return Err(Error::config(format!("there is something already path={}", path.display())));
            }
            remove(place)?;
        }
        failpoint::hit("files::before_rename")?;
        fs::rename(&self.unfinished, &path).map_err(|error| failed("cannot rename a folder", &path, error))?;
        failpoint::hit("files::after_rename")?;
        flush_folder(&place.parent)
    }
}

/// Removes a folder: half of it is never seen under its name.
pub(super) fn remove(place: &Place) -> Result<()> {
    let (path, aside) = (place.path(), beside(&place.parent, &place.name));
    fs::rename(&path, &aside).map_err(|error| failed("cannot remove a folder", &path, error))?;
    failpoint::hit("files::mid_remove")?;
    remove_unfinished(&aside)
}

/// Removes a folder that is seen by nobody.
pub(super) fn remove_unfinished(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("cannot remove a folder", path, error)),
        _ => Ok(()),
    }
}

/// The names in a folder, and those that are no text left out: they are not ours.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let cannot = |error| failed("cannot list a folder", folder, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        names.extend(entry.map_err(cannot)?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Writes an RDD into a folder of its own.
pub(super) fn save<T: Send + 'static, E: PartEncoder<T>>(rdd: &Rdd<T>, path: &str) -> Result<()> {
    let place = Place::of(path)?;
    make_folder(&place.parent)?;
    // What a process that was killed left behind. Two that write to one place at a time would spoil it for each other, and never
    // leave half a folder there.
    for name in names(&place.parent)?.iter().filter(|name| unfinished(name) == Some(&place.name)) {
        remove_unfinished(&place.parent.join(name))?;
    }
    Written::write::<T, E>(rdd, &place)?.put(&place)
}
