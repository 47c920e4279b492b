//! Messages of one partition, taken in bulk and kept alive: a chunk as librdkafka owns it.

use std::{fmt, ptr::NonNull, slice, sync::Arc};

use rdkafka_sys as sys;

use super::{Client, Code};
use crate::types::{Headers, Offset, Timestamp, TopicPartition};

/// Messages of one partition, taken in one call and kept alive: no byte of them is copied. Offsets ascend.
///
/// It is a part of what one call took; its messages are given back when the last part of that is dropped.
pub struct MessageBatch {
    block: Arc<Block>,
    start: usize,
    end: usize,
    /// Of all keys and values.
    bytes: u64,
}

/// What one call took.
struct Block {
    topic_partition: TopicPartition,
    /// Owned, each destroyed once, by `drop`.
    messages: Box<[NonNull<sys::rd_kafka_message_t>]>,
    /// Whether any message has headers. All headers that there are have been parsed.
    has_headers: bool,
    /// The messages point into the client, which therefore outlives them: fields are dropped after `drop` has run.
    _client: Arc<Client>,
}

// SAFETY: the block owns its messages. They are only read while shared, and reading does not change them: headers, which
// librdkafka parses on first sight, are parsed before a block is made. Destroying them on another thread is allowed, since
// librdkafka counts references to the shared buffer, the partition and the topic with atomics.
unsafe impl Send for Block {}
// SAFETY: see `Send`.
unsafe impl Sync for Block {}

impl Drop for Block {
    fn drop(&mut self) {
        for message in &self.messages {
            // SAFETY: owned by this block alone, and destroyed here only.
            unsafe { sys::rd_kafka_message_destroy(message.as_ptr()) }
        }
    }
}

/// One message, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MessageView<'a> {
    message: NonNull<sys::rd_kafka_message_t>,
    batch: &'a MessageBatch,
}

impl MessageBatch {
    /// Takes ownership of messages without error, all of `topic_partition`, in ascending order of offset. Gives the
    /// batch, and the offset of the first message whose headers cannot be parsed.
    ///
    /// # Safety
    /// Each message is live, is owned by nobody else, and was taken from a queue of `client`.
    pub(super) unsafe fn own(
        client: &Arc<Client>,
        topic_partition: &TopicPartition,
        messages: Box<[NonNull<sys::rd_kafka_message_t>]>,
    ) -> (Self, Option<i64>) {
        let (mut has_headers, mut bad) = (false, None);
        for (index, message) in messages.iter().enumerate() {
            // SAFETY: live, and not yet shared.
            let none = unsafe { sure_to_have_none(message.as_ptr()) };
            // The first one is asked all the same: should librdkafka ever lay records out in another way, that shows.
            if none && index > 0 {
                continue;
            }
            // SAFETY: live, and not yet shared.
            match unsafe { parse_headers(message.as_ptr()) } {
                Parsed::None => {}
                // SAFETY: live.
                _ if none => bad = Some(unsafe { (*message.as_ptr()).offset }),
                Parsed::Some => has_headers = true,
                // SAFETY: live.
                Parsed::Bad => bad = bad.or(Some(unsafe { (*message.as_ptr()).offset })),
            }
        }
        let (end, topic_partition) = (messages.len(), topic_partition.clone());
        let block = Block { topic_partition, messages, has_headers, _client: Arc::clone(client) };
        (Self::part(Arc::new(block), 0, end), bad)
    }

    fn part(block: Arc<Block>, start: usize, end: usize) -> Self {
        let mut part = Self { block, start, end, bytes: 0 };
        let of = |view: MessageView<'_>| view.key().map_or(0, <[u8]>::len) + view.value().map_or(0, <[u8]>::len);
        part.bytes = part.views().map(|view| of(view) as u64).sum();
        part
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whose messages.
    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.block.topic_partition
    }

    /// Splits it: the first `count` messages, and the rest.
    pub(crate) fn split_at(self, count: usize) -> (Self, Self) {
        let middle = (self.start + count).min(self.end);
        let first = Self::part(Arc::clone(&self.block), self.start, middle);
        let bytes = self.bytes - first.bytes;
        (first, Self { block: self.block, start: middle, end: self.end, bytes })
    }

    /// How many of the messages have an offset below `offset`.
    pub(crate) fn partition_point(&self, offset: i64) -> usize {
        // SAFETY: live as long as the block.
        self.messages().partition_point(|message| unsafe { (*message.as_ptr()).offset } < offset)
    }

    fn messages(&self) -> &[NonNull<sys::rd_kafka_message_t>] {
        &self.block.messages[self.start..self.end]
    }

    /// The messages in order.
    pub(crate) fn views(&self) -> impl DoubleEndedIterator<Item = MessageView<'_>> + ExactSizeIterator {
        self.messages().iter().map(|&message| MessageView { message, batch: self })
    }

    /// # Panics
    /// If there is no message `index`, as a slice does.
    fn view(&self, index: usize) -> MessageView<'_> {
        MessageView { message: self.messages()[index], batch: self }
    }

    /// The key of message `index`.
    #[must_use]
    pub fn key(&self, index: usize) -> Option<&[u8]> {
        self.view(index).key()
    }

    /// The value of message `index`.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<&[u8]> {
        self.view(index).value()
    }

    /// The headers of message `index`.
    #[must_use]
    pub fn headers(&self, index: usize) -> Headers {
        let mut headers = Headers::new();
        self.view(index).for_each_header(|name, value| {
            headers.push((String::from_utf8_lossy(name).into_owned(), value.map(<[u8]>::to_vec)));
        });
        headers
    }

    /// Gives each header of message `index` to `each`, in order, uncopied.
    pub fn for_each_header(&self, index: usize, each: impl FnMut(&[u8], Option<&[u8]>)) {
        self.view(index).for_each_header(each);
    }

    /// The offset of message `index`.
    #[must_use]
    pub fn offset(&self, index: usize) -> Offset {
        Offset::clamped(self.view(index).offset())
    }

    /// The timestamp of message `index`.
    #[must_use]
    pub fn timestamp(&self, index: usize) -> Timestamp {
        self.view(index).timestamp()
    }

    /// The leader epoch of message `index`, if the broker told one.
    #[must_use]
    pub fn leader_epoch(&self, index: usize) -> Option<i32> {
        self.view(index).leader_epoch()
    }
}

impl<'a> MessageView<'a> {
    pub(crate) fn offset(self) -> i64 {
        // SAFETY: live as long as its batch.
        unsafe { (*self.message.as_ptr()).offset }
    }

    pub(crate) fn key(self) -> Option<&'a [u8]> {
        let message = self.message.as_ptr();
        // SAFETY: live and unchanged for 'a; `key_len` bytes lie at a key that is not null.
        unsafe { bytes((*message).key.cast(), (*message).key_len) }
    }

    pub(crate) fn value(self) -> Option<&'a [u8]> {
        let message = self.message.as_ptr();
        // SAFETY: live and unchanged for 'a; `len` bytes lie at a payload that is not null.
        unsafe { bytes((*message).payload.cast(), (*message).len) }
    }

    pub(crate) fn timestamp(self) -> Timestamp {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: live; the kind is set by librdkafka to one of its three values.
        let ms = unsafe { sys::rd_kafka_message_timestamp(self.message.as_ptr(), &raw mut kind) };
        match kind {
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => Timestamp::NotAvailable,
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => Timestamp::CreateTime(ms),
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => Timestamp::LogAppendTime(ms),
        }
    }

    pub(crate) fn leader_epoch(self) -> Option<i32> {
        // SAFETY: live.
        let epoch = unsafe { sys::rd_kafka_message_leader_epoch(self.message.as_ptr()) };
        (epoch >= 0).then_some(epoch)
    }

    fn parsed_headers(self) -> Option<NonNull<sys::rd_kafka_headers_t>> {
        if !self.batch.block.has_headers {
            return None;
        }
        let mut headers = std::ptr::null_mut();
        // SAFETY: live. Headers that exist were parsed before the batch was made, so this changes nothing.
        unsafe { sys::rd_kafka_message_headers(self.message.as_ptr(), &raw mut headers) };
        NonNull::new(headers)
    }

    /// How many headers there are.
    pub(crate) fn header_count(self) -> usize {
        // SAFETY: the headers live as long as their message.
        self.parsed_headers().map_or(0, |headers| unsafe { sys::rd_kafka_header_cnt(headers.as_ptr()) })
    }

    /// Gives name and value of each header, in order.
    pub(crate) fn for_each_header(self, mut each: impl FnMut(&'a [u8], Option<&'a [u8]>)) {
        let Some(headers) = self.parsed_headers() else { return };
        for index in 0..self.header_count() {
            let (mut name, mut value, mut len) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: the headers live for 'a; name is a C string, `len` bytes lie at a value that is not null.
            unsafe {
                sys::rd_kafka_header_get_all(headers.as_ptr(), index, &raw mut name, &raw mut value, &raw mut len);
                if !name.is_null() {
                    each(std::ffi::CStr::from_ptr(name).to_bytes(), bytes(value.cast(), len));
                }
            }
        }
    }
}

impl fmt::Debug for MessageBatch {
    /// Position and sizes only: payloads do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut views = self.views();
        f.debug_struct("MessageBatch")
            .field("topic_partition", self.topic_partition())
            .field("len", &self.len())
            .field("first", &views.next().map(MessageView::offset))
            .field("last", &views.next_back().map(MessageView::offset))
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parsed {
    None,
    Some,
    Bad,
}

/// # Safety
/// `message` is live and seen by this thread alone.
unsafe fn parse_headers(message: *const sys::rd_kafka_message_t) -> Parsed {
    let mut headers = std::ptr::null_mut();
    // SAFETY: live, and ours alone, so it may change.
    let code = unsafe { sys::rd_kafka_message_headers(message, &raw mut headers) };
    match Code::new(code as i32) {
        Code::NONE => Parsed::Some,
        Code::NOENT => Parsed::None,
        _ => Parsed::Bad,
    }
}

/// Whether a message is sure to have no headers, told without asking for them: librdkafka allocates a buffer to answer
/// that, which for small records costs as much as reading them.
///
/// In the record format v2, the byte after a record's value is the first one of the number of its headers, and 0 says that
/// there are none. librdkafka does not copy a value: it lies where it was received, or decompressed, in one piece with the
/// rest of its record. Older formats have no headers and no leader epoch, which every v2 record of a broker has.
///
/// # Safety
/// `message` is a live message without error, taken from a queue of the librdkafka that this crate is pinned to.
unsafe fn sure_to_have_none(message: *const sys::rd_kafka_message_t) -> bool {
    // SAFETY: live; see above for the byte behind the value.
    unsafe {
        let payload = (*message).payload.cast::<u8>();
        !payload.is_null()
            && sys::rd_kafka_message_leader_epoch(message) >= 0
            && payload.add((*message).len).read() == 0
    }
}

/// The bytes at `data`; `None` if it is null.
///
/// # Safety
/// `data` is null, or `len` bytes lie there and stay unchanged for `'a`.
unsafe fn bytes<'a>(data: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: not null, and as the caller promises.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data, len) })
}
