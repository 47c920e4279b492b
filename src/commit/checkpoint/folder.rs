//! The folder on the disk: opened once, checked, and used by its handle from then on.
//!
//! A file comes into being whole or not at all: it is written under another name, flushed, and renamed. Its name is only kept
//! for certain once the folder itself is flushed ([`Folder::sync`]). No symbolic link is followed within it.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags},
    io::Errno,
};

use crate::{
    config::StoreUrl,
    error::{Error, ErrorKind, Result},
    failpoint,
};

/// The end of the name of a file that is being written.
const UNFINISHED: &str = ".tmp";
/// The file whose lock is the right to write.
const LOCK: &str = "lock";
/// A name on a disk has at most 255 bytes.
const NAME_BYTES_MAX: usize = 200;

/// The folder of one application.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    handle: OwnedFd,
}

/// The folder that a URL names.
///
/// # Errors
/// [`ErrorKind::Config`] if it is another store's.
pub(super) fn path_of(url: &StoreUrl) -> Result<PathBuf> {
    let path = url.checkpoint_path().map(PathBuf::from);
    path.ok_or_else(|| Error::config("the store's url names no folder, as in checkpoint:orders.checkpoint"))
}

/// An application's name as a file's name: what is not a letter, digit, `-`, `_` or inner dot is written as `%` and two hexadecimal
/// digits.
fn file_name(application: &str) -> Result<String> {
    let mut name = String::new();
    for byte in application.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && !name.is_empty());
        if plain { name.push(char::from(byte)) } else { name.push_str(&format!("%{byte:02x}")) }
    }
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Error::config(format!(
            "the application's name cannot be the name of a folder: it is empty or too long bytes={}",
            name.len()
        )));
    }
    Ok(name)
}

/// What a disk's error means: a folder that cannot be used as it is has to be mended, anything else may pass.
fn failed(what: &str, path: &Path, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    let wrong = [Errno::NOTDIR, Errno::LOOP, Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::NAMETOOLONG, Errno::NOENT];
    let kind = if code.is_some_and(|code| wrong.contains(&code)) { ErrorKind::Config } else { ErrorKind::Unavailable };
    Error::new(kind, format!("{what} path={}", path.display())).caused_by(error)
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a folder below another one, made first if it is missing. `None` if it is missing and not to be made.
fn open_folder(above: impl rustix::fd::AsFd, name: &Path, path: &Path, make: bool) -> Result<Option<OwnedFd>> {
    let what = "cannot open the checkpoint folder";
    match rustix::fs::openat(&above, name, FOLDER, Mode::empty()) {
        Ok(handle) => return Ok(Some(handle)),
        Err(Errno::NOENT) if !make => return Ok(None),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(failed(what, path, error)),
    }
    match rustix::fs::mkdirat(&above, name, Mode::RWXU) {
        // Another process was quicker.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed("cannot make the checkpoint folder", path, error)),
    }
    rustix::fs::openat(&above, name, FOLDER, Mode::empty()).map(Some).map_err(|error| failed(what, path, error))
}

/// Refuses a folder in which somebody else could put other files in the place of ours.
fn check(handle: &OwnedFd, path: &Path) -> Result<()> {
    let found =
        rustix::fs::fstat(handle).map_err(|error| failed("cannot look at the checkpoint folder", path, error))?;
    let me = rustix::process::geteuid().as_raw();
    if found.st_uid != me {
        let (path, owner) = (path.display(), found.st_uid);
        return Err(Error::config(format!(
            "the checkpoint folder belongs to another user path={path} user={owner} me={me}"
        )));
    }
    if found.st_mode & 0o022 != 0 {
        let mode = found.st_mode & 0o7777;
        return Err(Error::config(format!(
            "others can write to the checkpoint folder: chmod go-w it path={} mode={mode:o}",
            path.display()
        )));
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Folder {
    /// The folder of an application, made if it is missing: for whoever is going to write.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is no folder of ours alone.
    pub(super) fn make(path: &Path, application: &str) -> Result<Self> {
        let gone = || Error::unavailable(format!("the checkpoint folder is gone path={}", path.display()));
        let outer = open_folder(CWD, path, path, true)?.ok_or_else(gone)?;
        check(&outer, path)?;
        let name = file_name(application)?;
        let inner = path.join(&name);
        let handle = open_folder(&outer, Path::new(&name), &inner, true)?.ok_or_else(gone)?;
        check(&handle, &inner)?;
        // So that both names outlive a power cut; done at each start, for the one before may have died in between.
        let flush = |folder, path| {
            rustix::fs::fsync(folder).map_err(|error| failed("cannot flush the folder above", path, error))
        };
        flush(&outer, path)?;
        let above = parent(path);
        match rustix::fs::open(above, FOLDER & !OFlags::NOFOLLOW, Mode::empty()) {
            Ok(handle) => flush(&handle, above)?,
            // Not ours to read: whoever made the folder for us there saw to its name.
            Err(Errno::ACCESS) => {}
            Err(error) => return Err(failed("cannot open the folder above", above, error)),
        }
        Ok(Self { path: inner, handle })
    }

    /// The folder of an application as it is, to be read only; `None` if it is not there.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it cannot be opened.
    pub(super) fn find(path: &Path, application: &str) -> Result<Option<Self>> {
        let Some(outer) = open_folder(CWD, path, path, false)? else { return Ok(None) };
        let name = file_name(application)?;
        let inner = path.join(&name);
        let handle = open_folder(&outer, Path::new(&name), &inner, false)?;
        Ok(handle.map(|handle| Self { path: inner, handle }))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the files of owners are named after.
    pub(super) fn owners(&self) -> PathBuf {
        self.path.join("owner")
    }

    fn open(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.handle, name, flags, mode)?))
    }

    /// The file whose lock is the right to write, not locked yet.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn lock_file(&self) -> Result<File> {
        let file = self.open(LOCK, OFlags::RDWR | OFlags::CREATE, Mode::RUSR | Mode::WUSR);
        file.map_err(|error| failed("cannot open the lock file", &self.path.join(LOCK), error))
    }

    /// A file's bytes; `None` if it is not there.
    ///
    /// # Errors
    /// What the disk says; [`ErrorKind::Corrupt`] for what is no file.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        // Without waiting: a pipe of that name must not make us stand still.
        let mut file = match self.open(name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                return Err(Error::corrupt(format!("a checkpoint file is a link path={}", path.display())));
            }
            Err(error) => return Err(failed("cannot open a checkpoint file", &path, error)),
        };
        let mut bytes = Vec::new();
        let read = failpoint::hit_os("checkpoint::read").and_then(|()| file.read_to_end(&mut bytes));
        read.map_err(|error| failed("cannot read a checkpoint file", &path, error))?;
        Ok(Some(bytes))
    }

    /// Writes a file under its name: whole, flushed, and in the place of the one that was there. The name itself is kept for
    /// certain after the next [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] with what the disk says. The file that was there still is, or
    /// the new one is there already.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let unfinished = format!("{name}{UNFINISHED}");
        let done = self.write_unfinished(&unfinished, bytes).and_then(|()| {
            failpoint::hit_os("checkpoint::before_rename")?;
            rustix::fs::renameat(&self.handle, &unfinished, &self.handle, name)?;
            failpoint::hit_os("checkpoint::after_rename")
        });
        done.map_err(|error| {
            // Its space may be what is needed.
            let _ = rustix::fs::unlinkat(&self.handle, &unfinished, AtFlags::empty());
            let text = format!("cannot write a checkpoint file path={}", self.path.join(name).display());
            Error::unavailable(text).caused_by(error)
        })
    }

    fn write_unfinished(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // What a process left behind that died here. Made anew, so that nothing of it can be in the new file.
        let _ = rustix::fs::unlinkat(&self.handle, name, AtFlags::empty());
        failpoint::hit_os("checkpoint::before_create")?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut file = self.open(name, flags, Mode::RUSR | Mode::WUSR)?;
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        file.write_all(first)?;
        failpoint::hit_os("checkpoint::mid_write")?;
        file.write_all(rest)?;
        if failpoint::mutant("rename_before_flush") {
            return Ok(());
        }
        failpoint::hit_os("checkpoint::before_flush")?;
        file.sync_all()?;
        failpoint::hit_os("checkpoint::after_flush")
    }

    /// Flushes the folder: the names of all files that were written so far are kept.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] with what the disk says. Which names are kept is not known then.
    pub(super) fn sync(&self) -> Result<()> {
        let done = failpoint::hit_os("checkpoint::before_folder_flush")
            .and_then(|()| Ok(rustix::fs::fsync(&self.handle)?))
            .and_then(|()| failpoint::hit_os("checkpoint::after_folder_flush"));
        done.map_err(|error| {
            let text = format!("cannot flush the checkpoint folder path={}", self.path.display());
            Error::unavailable(text).caused_by(error)
        })
    }

    /// The names of all files.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let what = "cannot list the checkpoint folder";
        let entries = Dir::read_from(&self.handle).map_err(|error| failed(what, &self.path, error))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed(what, &self.path, error))?;
            names.extend(entry.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    /// Removes a file that nobody needs. One that stays behind harms nobody: the next time removes it.
    pub(super) fn remove(&self, name: &str) {
        let _ = rustix::fs::unlinkat(&self.handle, name, AtFlags::empty());
    }

    /// Whether the name is that of a file that was never finished.
    pub(super) fn is_unfinished(name: &str) -> bool {
        name.ends_with(UNFINISHED)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn an_application_has_a_name_of_its_own_that_stays_within_the_folder() {
        let name = |application| file_name(application).unwrap();
        assert_eq!(name("orders-2_a.b"), "orders-2_a.b");
        assert_eq!(
            (name(".."), name("."), name("a/b"), name("a%2fb")),
            ("%2e.".into(), "%2e".into(), "a%2fb".into(), "a%252fb".into())
        );
        assert_eq!(file_name("").unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(file_name(&"x".repeat(201)).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn a_url_of_another_store_names_no_folder() {
        assert_eq!(path_of(&"checkpoint:a/b".parse().unwrap()).unwrap(), Path::new("a/b"));
        assert_eq!(path_of(&"sqlite:a/b".parse().unwrap()).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn files_and_folder_are_for_us_alone() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("c");
        let folder = Folder::make(&path, "a").unwrap();
        folder.write("f", b"abc").unwrap();
        folder.sync().unwrap();
        assert_eq!(folder.read("f").unwrap().unwrap(), b"abc");
        let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(path.clone()), mode(path.join("a")), mode(path.join("a/f"))), (0o700, 0o700, 0o600));
        std::fs::set_permissions(path.join("a"), PermissionsExt::from_mode(0o770)).unwrap();
        assert_eq!(Folder::make(&path, "a").unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn no_link_is_followed() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("c");
        let folder = Folder::make(&path, "a").unwrap();
        std::fs::write(above.path().join("other"), b"other").unwrap();
        for name in ["f", "f.tmp", "lock"] {
            symlink(above.path().join("other"), path.join("a").join(name)).unwrap();
        }
        assert_eq!(folder.read("f").unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(folder.lock_file().is_err());
        folder.write("f", b"mine").unwrap();
        assert_eq!(std::fs::read(above.path().join("other")).unwrap(), b"other");
        assert_eq!(folder.read("f").unwrap().unwrap(), b"mine");
        symlink(path.join("a"), path.join("b")).unwrap();
        assert_eq!(Folder::make(&path, "b").unwrap_err().kind(), ErrorKind::Config);
        symlink(&path, above.path().join("d")).unwrap();
        assert_eq!(Folder::make(&above.path().join("d"), "a").unwrap_err().kind(), ErrorKind::Config);
    }
}
