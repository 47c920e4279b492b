//! How a file of a checkpoint folder looks: a line that says what it is, then its body, a JSON document.
//!
//! ```text
//! directstream checkpoint 1 delta 412 9f3c2a7be5d10846
//! {"application":"orders","number":17,...}
//! ```
//!
//! Format version, kind, length of the body, and the checksum (xxh3) of all of it. A file is right only if it is byte for byte
//! what would be written for its body, so no part of the first line can be changed unnoticed either.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    error::{Error, Result},
    failpoint,
};

const MAGIC: &str = "directstream checkpoint";
/// The format that this program writes, and the only one that it reads.
const VERSION: u32 = 1;
/// The first line is not longer.
const LINE_BYTES_MAX: usize = 120;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Which file is the last one.
    Head,
    /// All that is kept.
    Snapshot,
    /// What one commit changed.
    Delta,
    /// Past batches.
    Ledger,
    /// What one batch stored of state operators.
    Segments,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "head",
            Self::Snapshot => "snapshot",
            Self::Delta => "delta",
            Self::Ledger => "ledger",
            Self::Segments => "segments",
        })
    }
}

/// A file's bytes, and the checksum that other files know it by.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) checksum: u64,
}

/// Why a file cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is not what was written.
    Damaged(&'static str),
    /// Another version of this program wrote it.
    OtherVersion(u32),
}

fn checksum(words: &str, body: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(words.as_bytes());
    hash.update(b"\n");
    hash.update(body);
    hash.digest()
}

fn words(version: u32, kind: Kind, body: &[u8]) -> String {
    format!("{MAGIC} {version} {kind} {}", body.len())
}

/// The file for a document.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the document cannot be written as JSON.
pub(super) fn encode(kind: Kind, document: &impl Serialize) -> Result<Encoded> {
    let body =
        serde_json::to_vec(document).map_err(|error| Error::internal("cannot write a checkpoint").caused_by(error))?;
    let words = words(VERSION, kind, &body);
    let checksum = checksum(&words, &body);
    let mut bytes = format!("{words} {checksum:016x}\n").into_bytes();
    bytes.extend_from_slice(&body);
    Ok(Encoded { bytes, checksum })
}

/// A file's document and checksum.
///
/// # Errors
/// Why it cannot be read: see [`Unreadable`].
pub(super) fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<(T, u64), Unreadable> {
    let end = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n');
    let end = end.ok_or(Unreadable::Damaged("its first line is missing or cut off"))?;
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);
    let words = words(VERSION, kind, body);
    let checksum = checksum(&words, body);
    if line != format!("{words} {checksum:016x}").as_bytes() && !failpoint::mutant("checksum_ignored") {
        return Err(why(line, body));
    }
    let document = serde_json::from_slice(body).map_err(|_| Unreadable::Damaged("its document cannot be read"))?;
    Ok((document, checksum))
}

/// What is wrong with a file whose first line is not the one that belongs to its body.
fn why(line: &[u8], body: &[u8]) -> Unreadable {
    let Ok(line) = std::str::from_utf8(line) else { return Unreadable::Damaged("its first line cannot be read") };
    let parts: Vec<&str> = line.split(' ').collect();
    let &[_, _, version, _, length, found] = parts.as_slice() else {
        return Unreadable::Damaged("its first line cannot be read");
    };
    if length != body.len().to_string() {
        return Unreadable::Damaged("it is shorter or longer than it was");
    }
    // A version that was not flipped but written: the checksum covers it.
    let words = line.trim_end_matches(found).trim_end();
    match version.parse() {
        Ok(other) if other != VERSION && found == format!("{:016x}", checksum(words, body)) => {
            Unreadable::OtherVersion(other)
        }
        _ => Unreadable::Damaged("its checksum is not that of its content"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_truncation_and_every_flipped_bit_of_a_file_is_found() {
        let encoded = encode(Kind::Delta, &vec![1, 2, 3]).unwrap();
        assert_eq!(decode::<Vec<i32>>(Kind::Delta, &encoded.bytes), Ok((vec![1, 2, 3], encoded.checksum)));
        for length in 0..encoded.bytes.len() {
            let found = decode::<Vec<i32>>(Kind::Delta, &encoded.bytes[..length]);
            assert!(matches!(found, Err(Unreadable::Damaged(_))), "{length}");
        }
        for at in 0..encoded.bytes.len() {
            for bit in 0..8 {
                let mut bytes = encoded.bytes.clone();
                bytes[at] ^= 1 << bit;
                let found = decode::<Vec<i32>>(Kind::Delta, &bytes);
                assert!(matches!(found, Err(Unreadable::Damaged(_))), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_file_of_another_kind_or_version_is_told() {
        let encoded = encode(Kind::Delta, &1).unwrap();
        assert!(matches!(decode::<i32>(Kind::Snapshot, &encoded.bytes), Err(Unreadable::Damaged(_))));
        let words = words(2, Kind::Delta, b"1");
        let newer = format!("{words} {:016x}\n1", checksum(&words, b"1"));
        assert_eq!(decode::<i32>(Kind::Delta, newer.as_bytes()), Err(Unreadable::OtherVersion(2)));
    }
}
