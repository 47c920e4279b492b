//! A record on its way into Kafka.

use compact_str::CompactString;

/// A record to be written to a Kafka topic: what an output to Kafka is made of. Kafka: `ProducerRecord`.
///
/// Without a [partition](Self::with_partition) of its own a record goes where its key says, by the client's `partitioner`
/// (default: `consistent_random`), and to any partition if it has no key. Without a [timestamp](Self::with_timestamp_ms) it gets
/// the time at which it is sent.
///
/// ```
/// use directstream::types::KafkaRecord;
///
/// let record = KafkaRecord::to("totals").key("ann").value("12.50").header("currency", Some(b"EUR"));
/// assert_eq!(record.topic(), "totals");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaRecord {
    topic: CompactString,
    partition: Option<i32>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp_ms: Option<i64>,
}

impl KafkaRecord {
    /// A record for `topic`, with nothing in it: without a value it is a tombstone.
    pub fn to(topic: impl AsRef<str>) -> Self {
        Self {
            topic: CompactString::new(topic.as_ref()),
            partition: None,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp_ms: None,
        }
    }

    /// Its partition; else the key decides. The partition must be there: one that is not ends the stream.
    #[must_use]
    pub fn with_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Its key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Its value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// One more header, after those it has. A value may be missing, and a name may come twice.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: Option<&[u8]>) -> Self {
        self.headers.push((name.into(), value.map(<[u8]>::to_vec)));
        self
    }

    /// Its time in milliseconds since 1970-01-01 UTC; else that of its sending.
    #[must_use]
    pub fn with_timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition, if it was given one.
    #[must_use]
    pub fn partition(&self) -> Option<i32> {
        self.partition
    }

    /// The bytes of its key.
    #[must_use]
    pub fn key_bytes(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// The bytes of its value.
    #[must_use]
    pub fn value_bytes(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// Its headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// Its time in milliseconds since 1970-01-01 UTC, if it was given one.
    #[must_use]
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.timestamp_ms
    }

    /// Bytes of key, value and headers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers: usize = self.headers().map(|(name, value)| name.len() + of(value)).sum();
        of(self.key_bytes()) + of(self.value_bytes()) + headers
    }
}
