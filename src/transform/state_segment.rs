//! Segments of state as bytes: a format version, a checksum, and one entry after the other.

use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    error::{Error, Result},
    types::{SegmentKind, StateSegment},
};

/// The version of the form of `data`: its first byte.
const FORMAT: u8 = 1;
/// The version and the checksum.
const HEADER_BYTES: usize = 9;

/// Which segment it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    pub(super) operator: u32,
    pub(super) partition: u32,
    pub(super) batch_seq: u64,
}

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct Draft {
    keys: u64,
    data: Vec<u8>,
}

impl Draft {
    pub(super) fn new() -> Self {
        Self { keys: 0, data: vec![0; HEADER_BYTES] }
    }

    /// A key and its state; `None` for one that is removed.
    pub(super) fn add(&mut self, key: &impl Serialize, state: Option<&impl Serialize>) -> Result<()> {
        self.data = encoded(&(key, state), std::mem::take(&mut self.data))?;
        self.keys += 1;
        Ok(())
    }

    pub(super) fn sealed(mut self, name: Name, kind: SegmentKind) -> StateSegment {
        let checksum = checksum(FORMAT, name, kind, self.keys, &self.data[HEADER_BYTES..]);
        self.data[0] = FORMAT;
        self.data[1..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        let Name { operator, partition, batch_seq } = name;
        StateSegment { operator, partition, batch_seq, kind, keys: self.keys, data: self.data }
    }
}

/// `value` in the form that is stored, after what is in `buffer`.
pub(super) fn encoded(value: &impl Serialize, buffer: Vec<u8>) -> Result<Vec<u8>> {
    postcard::to_extend(value, buffer)
        .map_err(|error| Error::transform("a key or its state cannot be serialized").caused_by(error))
}

/// Over all that a segment says, its place included.
fn checksum(format: u8, name: Name, kind: SegmentKind, keys: u64, entries: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&[format]);
    hash.update(&name.operator.to_le_bytes());
    hash.update(&name.partition.to_le_bytes());
    hash.update(&name.batch_seq.to_le_bytes());
    hash.update(kind.name().as_bytes());
    hash.update(&keys.to_le_bytes());
    hash.update(entries);
    hash.digest()
}

/// Why stored state cannot be used.
pub(super) fn damaged(operator: u32, partition: u32, what: &str) -> Error {
    Error::corrupt(format!(
        "the stored state is damaged, restore the store from a backup or choose another application id: {what} \
         operator={operator} partition={partition}"
    ))
}

/// Gives the entries of a segment that is whole.
pub(super) fn read<K: DeserializeOwned, T: DeserializeOwned>(
    segment: &StateSegment,
    mut each: impl FnMut(K, Option<T>),
) -> Result<()> {
    let &StateSegment { operator, partition, batch_seq, kind, keys, ref data } = segment;
    let fault = |what: &str| damaged(operator, partition, &format!("{what} batch_seq={batch_seq}"));
    let Some((header, mut entries)) = data.split_at_checked(HEADER_BYTES) else {
        return Err(fault("a segment is cut off"));
    };
    let name = Name { operator, partition, batch_seq };
    let format = header[0];
    if header[1..] != checksum(format, name, kind, keys, entries).to_le_bytes() {
        return Err(fault("the checksum of a segment is wrong"));
    }
    if format != FORMAT {
        return Err(Error::config(format!(
            "the stored state was written by another version of this program: start that one operator={operator} \
             format={format}"
        )));
    }
    for _ in 0..keys {
        // Whole bytes that are not of these types: another program wrote them under the same fingerprint.
        let entry = postcard::take_from_bytes::<(K, Option<T>)>(entries).map_err(|error| {
            Error::config(format!(
                "the stored state is not of the types that the job has now: undo the change, or choose another application id \
                 operator={operator} partition={partition} batch_seq={batch_seq}"
            ))
            .caused_by(error)
        })?;
        let ((key, state), rest) = entry;
        each(key, state);
        entries = rest;
    }
    if entries.is_empty() { Ok(()) } else { Err(fault("a segment has more entries than it says")) }
}

/// Refuses segments of one partition, in the order of batches, that are not one base and every batch after it up to `last`.
pub(super) fn check_chain(operator: u32, partition: u32, segments: &[StateSegment], last: u64) -> Result<()> {
    let fault = |what: String| Err(damaged(operator, partition, &what));
    let Some((base, deltas)) = segments.split_first() else {
        return fault(format!("its segments are missing batch_seq={last}"));
    };
    if base.kind != SegmentKind::Base {
        return fault(format!("the base before a segment is missing batch_seq={}", base.batch_seq));
    }
    let mut before = base.batch_seq;
    for delta in deltas {
        if delta.batch_seq != before + 1 || delta.kind != SegmentKind::Delta {
            return fault(format!("a segment is missing batch_seq={}", before + 1));
        }
        before = delta.batch_seq;
    }
    match before.cmp(&last) {
        std::cmp::Ordering::Less => fault(format!("a segment is missing batch_seq={}", before + 1)),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => {
            fault(format!("a segment is of a batch that was not committed batch_seq={before}"))
        }
    }
}
