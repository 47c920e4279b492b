//! What state operators store with a batch: a file of its own, which the batch's delta or snapshot names.
//!
//! Each batch stores a segment of every partition of every operator, a base or a delta. A file is needed as long as it has a base,
//! or a delta after one, that a start would read: from the oldest of all newest bases on.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    chain::{self, belongs, damaged},
    folder::Folder,
    format::{self, Kind},
};
use crate::{
    error::Result,
    types::{SegmentKind, StateSegment},
};

/// A file of segments, as the delta or snapshot knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SealedSegments {
    pub(super) number: u64,
    pub(super) checksum: u64,
    pub(super) bytes: u64,
    pub(super) batch_seq: u64,
    /// Operator and partition of each base in it. Of all others it has a delta.
    pub(super) bases: Vec<(u32, u32)>,
}

/// What one batch stored.
#[derive(Debug, Serialize, Deserialize)]
struct SegmentsFile {
    application: String,
    number: u64,
    segments: Vec<Segment>,
}

/// A segment; its bytes in base64.
#[derive(Debug, Serialize, Deserialize)]
struct Segment {
    operator: u32,
    partition: u32,
    batch_seq: u64,
    kind: String,
    keys: u64,
    data: String,
}

/// Leaves out files, the oldest first, that no start would read.
pub(super) fn trim(files: &mut Vec<SealedSegments>) {
    let mut newest: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for file in files.iter() {
        newest.extend(file.bases.iter().map(|place| (*place, file.batch_seq)));
    }
    let first = newest.into_values().min().unwrap_or(0);
    files.retain(|file| file.batch_seq >= first);
}

/// Writes the file of a batch. Its name is not kept for certain before the folder is flushed.
pub(super) fn write(
    folder: &Folder,
    application: &str,
    number: u64,
    segments: &[StateSegment],
) -> Result<SealedSegments> {
    let written = |segment: &StateSegment| Segment {
        operator: segment.operator,
        partition: segment.partition,
        batch_seq: segment.batch_seq,
        kind: segment.kind.name().to_owned(),
        keys: segment.keys,
        data: BASE64_STANDARD.encode(&segment.data),
    };
    let file =
        SegmentsFile { application: application.to_owned(), number, segments: segments.iter().map(written).collect() };
    let encoded = format::encode(Kind::Segments, &file)?;
    folder.write(&chain::name(number, Kind::Segments), &encoded.bytes)?;
    let bases = segments.iter().filter(|segment| segment.kind == SegmentKind::Base);
    Ok(SealedSegments {
        number,
        checksum: encoded.checksum,
        bytes: encoded.bytes.len() as u64,
        batch_seq: segments.first().map_or(0, |segment| segment.batch_seq),
        bases: bases.map(|segment| (segment.operator, segment.partition)).collect(),
    })
}

/// A file's segments.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt) if it is not the file that was written.
pub(super) fn read(folder: &Folder, application: &str, sealed: &SealedSegments) -> Result<Vec<StateSegment>> {
    let (file, checksum, _): (SegmentsFile, u64, u64) = chain::read(folder, sealed.number, Kind::Segments)?;
    let place = chain::name(sealed.number, Kind::Segments);
    belongs(folder, &place, (&file.application, file.number), (application, sealed.number))?;
    if checksum != sealed.checksum {
        return Err(damaged(folder, &place, "a file is not the one that was stored with its batch"));
    }
    let unreadable = || damaged(folder, &place, "a segment of state cannot be read");
    let segment = |segment: Segment| {
        Ok(StateSegment {
            operator: segment.operator,
            partition: segment.partition,
            batch_seq: segment.batch_seq,
            kind: SegmentKind::named(&segment.kind).ok_or_else(unreadable)?,
            keys: segment.keys,
            data: BASE64_STANDARD.decode(&segment.data).map_err(|_| unreadable())?,
        })
    };
    file.segments.into_iter().map(segment).collect()
}
