//! A record as a producer sends it, and the partition that it goes to.

use crate::types::Headers;

/// A record on its way to a [`MemoryBroker`](super::MemoryBroker). Kafka: `ProducerRecord`.
///
/// `(topic, value)` and `(topic, key, value)` are such records as well.
///
/// ```
/// use directstream::testing::ProducerRecord;
///
/// let order = ProducerRecord::new("orders", "12.50").key("ann").timestamp_ms(1_700_000_000_000).header("shop", "web");
/// let deleted = ProducerRecord::tombstone("orders", "ann");
/// # let _ = (order, deleted);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerRecord {
    pub(super) topic: String,
    pub(super) partition: Option<i32>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) headers: Headers,
}

impl ProducerRecord {
    /// `value` to `topic`.
    pub fn new(topic: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            topic: topic.into(),
            partition: None,
            key: None,
            value: Some(value.into()),
            timestamp_ms: None,
            headers: Headers::new(),
        }
    }

    /// A record of `key` whose value is Kafka's null.
    pub fn tombstone(topic: impl Into<String>, key: impl Into<Vec<u8>>) -> Self {
        Self { value: None, ..Self::new(topic, []) }.key(key)
    }

    /// Its key. Default: Kafka's null.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Its partition. Default: by the key, as Kafka's producer chooses it; without a key one partition after the other.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Its timestamp, the producer's, in milliseconds since 1970-01-01 UTC. Default: none.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// One more header; a name may come twice.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }
}

impl<T: Into<String>, V: Into<Vec<u8>>> From<(T, V)> for ProducerRecord {
    fn from((topic, value): (T, V)) -> Self {
        Self::new(topic, value)
    }
}

impl<T: Into<String>, K: Into<Vec<u8>>, V: Into<Vec<u8>>> From<(T, K, V)> for ProducerRecord {
    fn from((topic, key, value): (T, K, V)) -> Self {
        Self::new(topic, value).key(key)
    }
}

/// The partition of a key among `partitions`, as Kafka's `BuiltInPartitioner` has it.
pub(super) fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let positive = i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or(0);
    positive % partitions.max(1)
}

/// The hash of Kafka's `Utils.murmur2`: 32 bits, with its own seed.
fn murmur2(bytes: &[u8]) -> u32 {
    const FACTOR: u32 = 0x5bd1_e995;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let (fours, rest) = bytes.as_chunks::<4>();
    let mut hash = 0x9747_b28c ^ length;
    for &four in fours {
        let mut word = u32::from_le_bytes(four).wrapping_mul(FACTOR);
        word ^= word >> 24;
        hash = hash.wrapping_mul(FACTOR) ^ word.wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
        hash = hash.wrapping_mul(FACTOR);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(FACTOR);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_to_the_partitions_that_kafkas_producer_chooses() {
        // Kafka's UtilsTest, "testMurmur2".
        let known: [(&[u8], i32); 5] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key), hash.cast_unsigned(), "{key:?}");
            assert_eq!(partition_of(key, 7), (hash & i32::MAX) % 7);
        }
    }
}
