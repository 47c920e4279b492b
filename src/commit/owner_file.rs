//! The lock file by which an owner is known to be alive, where the store is a file or a folder.
//!
//! `<store>.<owner>.lock`, locked for as long as its process lives. A lock of the kernel's: no crash can leave it behind,
//! and no age has to be guessed. The file itself may stay behind; the next owner removes it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::protocol::Session;
use crate::error::{Error, ErrorKind, Result};

/// A lock file that this process holds. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct OwnerFile {
    path: PathBuf,
    _lock: File,
}

fn path_of(store: &Path, owner: Uuid) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(format!(".{owner}.lock"));
    PathBuf::from(path)
}

impl OwnerFile {
    /// Creates and locks the file of `owner`. The standard library opens files close-on-exec: a child process that
    /// outlives us does not keep the lock.
    pub(crate) fn take(store: &Path, owner: Uuid) -> Result<Self> {
        let path = path_of(store, owner);
        let failed = |error: io::Error| {
            // A full or failing disk passes; a folder that may not be written to does not.
            let passes = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EIO));
            let kind = if passes { ErrorKind::Unavailable } else { ErrorKind::Config };
            let text = format!("cannot create the owner's lock file beside the store path={}", path.display());
            Error::new(kind, text).caused_by(error)
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
pub(crate) fn look(store: &Path, owner: Uuid) -> Session {
    let file = match File::open(path_of(store, owner)) {
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
pub(crate) fn remove(store: &Path, owner: Uuid) {
    if look(store, owner) == Session::Gone {
        let _ = std::fs::remove_file(path_of(store, owner));
    }
}
