//! The checksum of a range: equal if and only if the same records were read, as far as 64 bits can tell.
//!
//! It is a chain of xxh3 (64 bits), each link seeded with the one before, the first with 0, over the records in offset
//! order. All numbers are 64-bit little-endian. For each record, in this order:
//!
//! 1. 32 bytes: offset, length of the key, length of the value, number of headers; the length of a null is -1, so that
//!    null and empty differ;
//! 2. the key, if its length is above 0;
//! 3. the value, if its length is above 0;
//! 4. for each header, in order: 16 bytes, length of the name and length of the value (-1 for null); then the name, then
//!    the value, each if its length is above 0.
//!
//! ```
//! use directstream::read::checksum;
//! use xxhash_rust::xxh3::xxh3_64_with_seed;
//!
//! let mut frame = [0; 32];
//! frame[..8].copy_from_slice(&7_i64.to_le_bytes());
//! frame[8..16].copy_from_slice(&(-1_i64).to_le_bytes());
//! frame[16..24].copy_from_slice(&2_i64.to_le_bytes());
//! let expected = xxh3_64_with_seed(b"hi", xxh3_64_with_seed(&frame, 0));
//! assert_eq!(checksum::extend(0, 7, None, Some(b"hi"), &[]), expected);
//! ```

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{kafka::MessageView, types::Record};

/// `sum` extended by one record. A range's checksum starts at 0.
#[must_use]
pub fn extend(
    sum: u64,
    offset: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&[u8], Option<&[u8]>)],
) -> u64 {
    let sum = record(sum, offset, key, value, headers.len());
    headers.iter().fold(sum, |sum, (name, value)| header(sum, name, *value))
}

/// `sum` extended by `record`.
#[must_use]
pub fn extend_by_record(sum: u64, record: &Record) -> u64 {
    let mut count = 0;
    record.for_each_header(|_, _| count += 1);
    let mut sum = self::record(sum, record.offset().get(), record.key(), record.value(), count);
    record.for_each_header(|name, value| sum = header(sum, name, value));
    sum
}

/// The same for a record that lies in a batch.
pub(super) fn extend_by(sum: u64, view: MessageView<'_>) -> u64 {
    let count = view.header_count();
    let mut sum = record(sum, view.offset(), view.key(), view.value(), count);
    if count > 0 {
        view.for_each_header(|name, value| sum = header(sum, name, value));
    }
    sum
}

fn record(sum: u64, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: usize) -> u64 {
    let mut frame = [0; 32];
    frame[..8].copy_from_slice(&offset.to_le_bytes());
    frame[8..16].copy_from_slice(&length(key));
    frame[16..24].copy_from_slice(&length(value));
    frame[24..].copy_from_slice(&signed(headers).to_le_bytes());
    bytes(bytes(xxh3_64_with_seed(&frame, sum), key), value)
}

fn header(sum: u64, name: &[u8], value: Option<&[u8]>) -> u64 {
    let mut frame = [0; 16];
    frame[..8].copy_from_slice(&length(Some(name)));
    frame[8..].copy_from_slice(&length(value));
    bytes(bytes(xxh3_64_with_seed(&frame, sum), Some(name)), value)
}

fn bytes(sum: u64, part: Option<&[u8]>) -> u64 {
    part.filter(|part| !part.is_empty()).map_or(sum, |part| xxh3_64_with_seed(part, sum))
}

fn length(part: Option<&[u8]>) -> [u8; 8] {
    part.map_or(-1, |part| signed(part.len())).to_le_bytes()
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::extend;

    #[test]
    fn every_part_of_a_record_counts() {
        let sums = [
            extend(0, 1, None, None, &[]),
            extend(0, 2, None, None, &[]),
            extend(1, 1, None, None, &[]),
            extend(0, 1, Some(b""), None, &[]),
            extend(0, 1, None, Some(b""), &[]),
            extend(0, 1, Some(b"ab"), Some(b"c"), &[]),
            extend(0, 1, Some(b"a"), Some(b"bc"), &[]),
            extend(0, 1, None, None, &[(b"n", None)]),
            extend(0, 1, None, None, &[(b"n", Some(b""))]),
            extend(0, 1, None, None, &[(b"", Some(b"n"))]),
            extend(0, 1, None, None, &[(b"n", None), (b"n", None)]),
            extend(0, 1, Some(b"n"), None, &[(b"m", None)]),
            extend(0, 1, Some(b"m"), None, &[(b"n", None)]),
        ];
        let mut different = sums.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), sums.len());
    }

    #[test]
    fn the_definition_does_not_change() {
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"h", Some(b"1")), (b"none", None)];
        let sum = extend(0, 42, Some(b"key"), Some(b"a value"), &headers);
        assert_eq!(extend(sum, 43, None, Some(b""), &[]), 3_408_415_156_079_692_129);
    }
}
