//! Records and the chunks that they are views into.

use std::{fmt, sync::Arc};

use super::{Offset, TopicPartition};
use crate::kafka::MessageBatch;

/// A record's timestamp and who set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestamp {
    /// The producer's clock, milliseconds since 1970-01-01 UTC. Any value: producers may send 0, -1 or the year 9999.
    CreateTime(i64),
    /// The broker's clock, milliseconds since 1970-01-01 UTC.
    LogAppendTime(i64),
    /// None was sent.
    NotAvailable,
}

impl Timestamp {
    /// Milliseconds since 1970-01-01 UTC, if there is one.
    #[must_use]
    pub fn as_ms(self) -> Option<i64> {
        match self {
            Self::CreateTime(ms) | Self::LogAppendTime(ms) => Some(ms),
            Self::NotAvailable => None,
        }
    }
}

/// A record's headers in order; a name may come twice.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// Records of one partition in offset order, as one bulk take gave them. Records are views into it.
#[derive(Debug)]
pub enum Chunk {
    /// Taken from Kafka: the client's own messages, kept alive and not copied.
    Kafka(MessageBatch),
    /// Made in memory.
    Memory(MemoryChunk),
}

/// Records made in memory, for tests and for streams that do not come from Kafka.
#[derive(Debug)]
pub struct MemoryChunk {
    /// Where the records are said to come from.
    pub topic_partition: TopicPartition,
    /// The records, in offset order.
    pub records: Vec<MemoryRecord>,
}

/// One record made in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryRecord {
    /// Its offset.
    pub offset: Offset,
    /// Its key; `None` is Kafka's null.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is Kafka's null, a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Headers,
    /// Its timestamp in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: Option<i64>,
}

impl Chunk {
    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Kafka(batch) => batch.len(),
            Self::Memory(chunk) => chunk.records.len(),
        }
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let of = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len) as u64;
        match self {
            Self::Kafka(batch) => batch.bytes(),
            Self::Memory(chunk) => chunk.records.iter().map(|record| of(&record.key) + of(&record.value)).sum(),
        }
    }

    /// Whose records they are.
    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        match self {
            Self::Kafka(batch) => batch.topic_partition(),
            Self::Memory(chunk) => &chunk.topic_partition,
        }
    }

    /// The records, each a view that shares this chunk.
    pub fn records(self: &Arc<Self>) -> impl Iterator<Item = Record> + '_ {
        // A chunk is one bulk take, far below 2^32 records; the reader caps it.
        (0..u32::try_from(self.len()).unwrap_or(u32::MAX)).map(|index| Record { chunk: Arc::clone(self), index })
    }
}

/// One Kafka record: a cheap view into its chunk. Cloning it copies no bytes, and keeps the whole chunk alive.
#[derive(Clone)]
pub struct Record {
    chunk: Arc<Chunk>,
    index: u32,
}

impl Record {
    fn index(&self) -> usize {
        self.index as usize
    }

    /// The key; `None` is Kafka's null.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        match &*self.chunk {
            Chunk::Kafka(batch) => batch.key(self.index()),
            Chunk::Memory(chunk) => chunk.records[self.index()].key.as_deref(),
        }
    }

    /// The value; `None` is Kafka's null, a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        match &*self.chunk {
            Chunk::Kafka(batch) => batch.value(self.index()),
            Chunk::Memory(chunk) => chunk.records[self.index()].value.as_deref(),
        }
    }

    /// The value as text, if it is there and is UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.value().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The headers, copied out.
    #[must_use]
    pub fn headers(&self) -> Headers {
        match &*self.chunk {
            Chunk::Kafka(batch) => batch.headers(self.index()),
            Chunk::Memory(chunk) => chunk.records[self.index()].headers.clone(),
        }
    }

    /// Gives each header to `each`, in order: its name as it was sent, which need not be text, and its value.
    pub fn for_each_header(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        match &*self.chunk {
            Chunk::Kafka(batch) => batch.for_each_header(self.index(), each),
            Chunk::Memory(chunk) => {
                for (name, value) in &chunk.records[self.index()].headers {
                    each(name.as_bytes(), value.as_deref());
                }
            }
        }
    }

    /// The offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        match &*self.chunk {
            Chunk::Kafka(batch) => batch.offset(self.index()),
            Chunk::Memory(chunk) => chunk.records[self.index()].offset,
        }
    }

    /// The timestamp.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        match &*self.chunk {
            Chunk::Kafka(batch) => batch.timestamp(self.index()),
            Chunk::Memory(chunk) => {
                chunk.records[self.index()].timestamp_ms.map_or(Timestamp::NotAvailable, Timestamp::CreateTime)
            }
        }
    }

    /// The topic and partition.
    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        self.chunk.topic_partition()
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic_partition().topic
    }

    /// The partition's number.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.topic_partition().partition
    }
}

impl fmt::Debug for Record {
    /// Position and sizes only: payloads do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("topic", &self.topic())
            .field("partition", &self.partition())
            .field("offset", &self.offset().get())
            .field("key_bytes", &self.key().map(<[u8]>::len))
            .field("value_bytes", &self.value().map(<[u8]>::len))
            .finish()
    }
}
