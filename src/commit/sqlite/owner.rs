//! The lock file by which an owner of a SQLite file is known to be alive.
//!
//! `<database>.<owner>.lock`, locked for as long as its process lives. A lock of the kernel's: no crash can leave it behind,
//! and no age has to be guessed. The file itself may stay behind; the next owner removes it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::super::protocol::Session;
use crate::error::{Error, Result};

/// A lock file that this process holds. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct OwnerFile {
    path: PathBuf,
    _lock: File,
}

fn path_of(database: &Path, owner: Uuid) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(format!(".{owner}.lock"));
    PathBuf::from(path)
}

impl OwnerFile {
    /// Creates and locks the file of `owner`. The standard library opens files close-on-exec: a child process that
    /// outlives us does not keep the lock.
    pub(super) fn take(database: &Path, owner: Uuid) -> Result<Self> {
        let path = path_of(database, owner);
        let failed = |error: io::Error| {
            Error::config(format!("cannot create the owner's lock file beside the database path={}", path.display()))
                .caused_by(error)
        };
        let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
            Err(TryLockError::WouldBlock) => Err(failed(io::Error::other("it is locked already"))),
        }
    }
}

impl Drop for OwnerFile {
    fn drop(&mut self) {
        // A file that stays behind is not locked: it harms nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the recorded owner is alive.
pub(super) fn look(database: &Path, owner: Uuid) -> Session {
    let file = match File::open(path_of(database, owner)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Session::Gone,
        Err(_) => return Session::Unknown,
    };
    match file.try_lock() {
        Ok(()) => Session::Gone,
        Err(TryLockError::WouldBlock) => Session::Alive,
        Err(TryLockError::Error(_)) => Session::Unknown,
    }
}

/// Removes what a dead owner left behind. The file of one that is alive (taken over by force) stays its own.
pub(super) fn remove(database: &Path, owner: Uuid) {
    if look(database, owner) == Session::Gone {
        let _ = std::fs::remove_file(path_of(database, owner));
    }
}
