//! The folder as it is on the disk: which files are in it, and by what a file is told from another one of its name.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::Path,
};

use crate::types::TopicId;

/// By what a file is told from another one of its name: its size in bytes, and when it was last modified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    /// Seconds since 1970-01-01 UTC, and nanoseconds. First, so that older files come first.
    pub(super) modified: (i64, i64),
    /// Bytes.
    pub(super) size: u64,
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { modified: (metadata.mtime(), metadata.mtime_nsec()), size: metadata.len() }
    }

    /// As it is stored: `SIZE@SECONDS.NANOSECONDS`.
    pub(super) fn topic_id(self) -> TopicId {
        let Self { modified: (seconds, nanoseconds), size } = self;
        TopicId::new(format!("{size}@{seconds}.{nanoseconds:09}"))
    }

    /// What was stored.
    pub(super) fn parse(id: &TopicId) -> Option<Self> {
        let (size, modified) = id.as_str().split_once('@')?;
        let (seconds, nanoseconds) = modified.split_once('.')?;
        Some(Self { modified: (seconds.parse().ok()?, nanoseconds.parse().ok()?), size: size.parse().ok()? })
    }

    /// When it was last modified, in milliseconds since 1970-01-01 UTC.
    pub(super) fn modified_ms(self) -> i64 {
        self.modified.0.saturating_mul(1_000).saturating_add(self.modified.1 / 1_000_000)
    }
}

/// A name as it stands in a topic: what is not printable text, and `%` itself, is written as `%` and two hexadecimal digits. So
/// no two names become one.
pub(super) fn escaped(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '%' || c.is_control() {
                escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(c);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str(&format!("%{byte:02x}"));
    }
}

/// The name that was escaped; `None` if this is none.
pub(super) fn unescaped(text: &str) -> Option<OsString> {
    let mut parts = text.split('%');
    let mut name = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        name.push(u8::from_str_radix(code, 16).ok()?);
        name.extend_from_slice(rest.as_bytes());
    }
    Some(OsString::from_vec(name))
}

/// Whether a file of this name is still being written, or is none of the data: Hadoop's rule, and names ending in `.tmp`.
fn is_passed_over(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b".") || name.starts_with(b"_") || name.ends_with(b".tmp") || name.ends_with(b"._COPYING_")
}

/// The files that are in the folder now, by their names. A symbolic link is the file that it leads to.
pub(super) fn files_in(folder: &Path) -> io::Result<BTreeMap<OsString, Identity>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_passed_over(&name) {
            continue;
        }
        // Without a path, unless it is a link: of many files this is most of the work.
        let link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let metadata = if link { fs::metadata(folder.join(&name)) } else { entry.metadata() };
        if let Some(identity) = file_of(metadata)? {
            found.insert(name, identity);
        }
    }
    Ok(found)
}

/// The identity of a file; `None` if there is none by this path.
pub(super) fn identity(path: &Path) -> io::Result<Option<Identity>> {
    file_of(fs::metadata(path))
}

fn file_of(metadata: io::Result<Metadata>) -> io::Result<Option<Identity>> {
    match metadata {
        Ok(metadata) if metadata.is_file() => Ok(Some(Identity::of(&metadata))),
        Ok(_) => Ok(None),
        // Moved away since it was listed, or a link that leads nowhere.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_size_and_time_and_can_be_read_again() {
        for modified in [(0, 0), (1_700_000_000, 5), (-3, 999_999_999)] {
            let identity = Identity { modified, size: 42 };
            assert_eq!(Identity::parse(&identity.topic_id()), Some(identity));
        }
        assert_eq!(Identity { modified: (7, 8_000_000), size: 9 }.topic_id().as_str(), "9@7.008000000");
        assert_eq!(Identity { modified: (7, 8_000_000), size: 9 }.modified_ms(), 7_008);
        assert_eq!(Identity::parse(&TopicId::new("uT1yVYpnQmqXPVtqrSUqjw")), None);
    }

    #[test]
    fn no_two_names_become_one() {
        let of = |bytes: &[u8]| escaped(&OsString::from_vec(bytes.to_vec()));
        assert_eq!(of("Übung 1.txt".as_bytes()), "Übung 1.txt");
        assert_eq!(of(b"50%.txt"), "50%25.txt");
        assert_eq!(of(b"a\nb\xff"), "a%0ab%ff");
        assert_ne!(of(b"%ff"), of(b"\xff"));
        for name in ["Übung 1.txt".as_bytes(), b"50%.txt", b"a\nb\xff", b"%ff", b"\xff"] {
            assert_eq!(unescaped(&of(name)).unwrap().as_bytes(), name);
        }
        assert!(unescaped("%f").is_none() && unescaped("%zz").is_none());
    }

    #[test]
    fn what_is_being_written_is_passed_over_and_a_link_is_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a", "b.txt", ".hidden", "_SUCCESS", "c.tmp", "d._COPYING_"] {
            fs::write(path(name), "text").unwrap();
        }
        fs::create_dir(path("below")).unwrap();
        std::os::unix::fs::symlink(path(".hidden"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("nowhere"), path("dangling")).unwrap();
        let found = files_in(folder.path()).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b.txt", "link"]);
        assert_eq!(found[OsStr::new("link")], identity(&path(".hidden")).unwrap().unwrap());
    }
}
