//! One block of records as it lies in a segment: a head, the records, a checksum over each.
//!
//! All numbers are little-endian. The head is 44 bytes: `DSW1`, the number of records (4), the first record's offset (8), when the
//! block was received in milliseconds since 1970-01-01 UTC (8), bytes of the body (4), xxh3 of the body (8), xxh3 of the 36
//! bytes before (8). In the body each record is its length (4) and its bytes.

use xxhash_rust::xxh3::xxh3_64;

use crate::failpoint;

/// Bytes of a head.
pub(super) const HEAD_BYTES: usize = 44;
const MAGIC: [u8; 4] = *b"DSW1";
/// Bytes of a record's length.
const LENGTH_BYTES: usize = 4;

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) records: u32,
    pub(super) first_offset: i64,
    pub(super) received_ms: i64,
    pub(super) body_bytes: u32,
    body_sum: u64,
}

impl Head {
    /// Reads a head; `None` if it is damaged.
    pub(super) fn parse(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let head = Self {
            records: u32::from_le_bytes(array(bytes, 4)),
            first_offset: i64::from_le_bytes(array(bytes, 8)),
            received_ms: i64::from_le_bytes(array(bytes, 16)),
            body_bytes: u32::from_le_bytes(array(bytes, 24)),
            body_sum: u64::from_le_bytes(array(bytes, 28)),
        };
        let sum = u64::from_le_bytes(array(bytes, 36));
        let whole = bytes[..4] == MAGIC && sum == xxh3_64(&bytes[..36]) && head.first_offset >= 0;
        whole.then_some(head)
    }

    /// Whether this is the body that the head speaks of.
    pub(super) fn fits(&self, body: &[u8]) -> bool {
        (xxh3_64(body) == self.body_sum || failpoint::mutant("receiver_checksum_ignored"))
            && records(body).map(|records| records.len()) == usize::try_from(self.records).ok()
    }

    /// The first offset after the block.
    pub(super) fn end_offset(&self) -> i64 {
        self.first_offset.saturating_add(i64::from(self.records))
    }

    /// Bytes of the whole block.
    pub(super) fn frame_bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.body_bytes)
    }
}

/// `N` bytes from `at`; all callers stay within the head.
fn array<const N: usize>(bytes: &[u8; HEAD_BYTES], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// A block as it is written; `None` if it is larger than a block may be.
pub(super) fn encode(values: &[impl AsRef<[u8]>], first_offset: i64, received_ms: i64) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEAD_BYTES];
    for value in values {
        let value = value.as_ref();
        frame.extend(u32::try_from(value.len()).ok()?.to_le_bytes());
        frame.extend(value);
    }
    let body = &frame[HEAD_BYTES..];
    let (body_bytes, body_sum) = (u32::try_from(body.len()).ok()?, xxh3_64(body));
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..8].copy_from_slice(&u32::try_from(values.len()).ok()?.to_le_bytes());
    frame[8..16].copy_from_slice(&first_offset.to_le_bytes());
    frame[16..24].copy_from_slice(&received_ms.to_le_bytes());
    frame[24..28].copy_from_slice(&body_bytes.to_le_bytes());
    frame[28..36].copy_from_slice(&body_sum.to_le_bytes());
    let head_sum = xxh3_64(&frame[..36]);
    frame[36..HEAD_BYTES].copy_from_slice(&head_sum.to_le_bytes());
    Some(frame)
}

/// The records of a body; `None` if its lengths do not fit it.
pub(super) fn records(mut body: &[u8]) -> Option<Vec<&[u8]>> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let (length, rest) = body.split_first_chunk::<LENGTH_BYTES>()?;
        let (record, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        records.push(record);
        body = rest;
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(frame: &[u8]) -> Option<Head> {
        Head::parse(frame.first_chunk().unwrap())
    }

    #[test]
    fn a_block_is_read_as_it_was_written() {
        let frame = encode(&["ab", "", "c"], 7, -3).unwrap();
        let (found, body) = (head(&frame).unwrap(), &frame[HEAD_BYTES..]);
        assert_eq!((found.records, found.first_offset, found.received_ms, found.end_offset()), (3, 7, -3, 10));
        assert_eq!(found.frame_bytes(), frame.len() as u64);
        assert!(found.fits(body));
        assert_eq!(records(body).unwrap(), [b"ab".as_slice(), b"", b"c"]);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let frame = encode(&["ab", "c"], 7, 1).unwrap();
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let whole = head(&flipped).is_some_and(|head| head.fits(&flipped[HEAD_BYTES..]));
            assert!(!whole, "bit {bit}");
        }
    }
}
