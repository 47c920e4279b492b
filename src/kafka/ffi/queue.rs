//! The queue of one partition: bulk takes, and the client's position.

use std::{
    ffi::CString,
    fmt,
    ptr::{NonNull, null_mut},
    sync::Arc,
    time::Duration,
};

use rdkafka_sys as sys;

use super::{
    CallError, Client, Code, MessageBatch, Place, copied,
    list::{PartitionList, c_string},
    millis,
};
use crate::types::TopicPartition;

/// What came out of a partition's queue, in order.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Records; their offsets ascend.
    Records(MessageBatch),
    /// The end of the partition: `offset` is the next one that will be written.
    Eof { offset: i64 },
    /// The partition failed.
    Failed { code: Code, offset: i64, text: String },
}

/// The queue of one partition, away from the client's main queue.
pub(crate) struct PartitionQueue {
    raw: NonNull<sys::rd_kafka_queue_t>,
    topic_partition: TopicPartition,
    /// The list that [`position`](Self::position) asks with.
    asked: PartitionList,
    /// What one take is put into.
    taken: Vec<*mut sys::rd_kafka_message_t>,
    /// Dropped after the queue: fields are dropped after `drop` has run.
    client: Arc<Client>,
}

// SAFETY: the queue and the list have one owner, and librdkafka's queues may be used by any thread; `taken` is empty
// between calls.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// The queue of a partition that is about to be assigned.
    ///
    /// It is cut off from the main queue *before* the assign. Done after it, the records fetched in between would already
    /// lie on the main queue, and a later one of this queue would be taken for the next one.
    pub(crate) fn open(client: &Arc<Client>, topic_partition: &TopicPartition) -> Result<Self, CallError> {
        let topic: CString = c_string(&topic_partition.topic)?;
        let asked = PartitionList::of(&[Place { topic_partition, offset: 0, leader_epoch: None }])?;
        // SAFETY: the client lives; the topic is copied.
        let raw =
            unsafe { sys::rd_kafka_queue_get_partition(client.as_ptr(), topic.as_ptr(), topic_partition.partition) };
        let raw = NonNull::new(raw).ok_or_else(|| CallError::of(Code::UNKNOWN_PARTITION_LOCAL))?;
        // SAFETY: the queue lives; null means that it is no longer forwarded.
        unsafe { sys::rd_kafka_queue_forward(raw.as_ptr(), null_mut()) };
        let (topic_partition, client) = (topic_partition.clone(), Arc::clone(client));
        Ok(Self { raw, topic_partition, asked, taken: Vec::new(), client })
    }

    /// Takes at most `max` entries and puts them into `entries`, in order. Gives how many there were.
    ///
    /// Without `wait` it takes what is there. With it, it waits for the first entry and takes that one alone: the call
    /// underneath would otherwise wait until all `max` are there.
    pub(crate) fn take(&mut self, max: usize, wait: Duration, entries: &mut Vec<Entry>) -> usize {
        let max = if wait.is_zero() { max } else { 1 };
        self.taken.clear();
        self.taken.reserve(max);
        // SAFETY: the queue lives; `max` pointers fit behind `taken`'s start, and the call fills in as many as it returns.
        // Each message that it gives is ours.
        unsafe {
            let count =
                sys::rd_kafka_consume_batch_queue(self.raw.as_ptr(), millis(wait), self.taken.as_mut_ptr(), max);
            self.taken.set_len(usize::try_from(count).unwrap_or(0).min(max));
        }
        let count = self.taken.len();
        self.sort_out(entries);
        count
    }

    /// Throws away what an assignment that has ended left in the queue: the client would keep it until the next one.
    pub(crate) fn discard(&mut self) {
        let mut entries = Vec::new();
        // The client drops records of ended assignments on the way to what else there is, which is next to nothing.
        while self.take(100, Duration::ZERO, &mut entries) > 0 {
            entries.clear();
        }
    }

    /// Makes entries of what was taken: runs of records whose offsets ascend, and the other entries between them.
    fn sort_out(&mut self, entries: &mut Vec<Entry>) {
        let mut run: Vec<NonNull<sys::rd_kafka_message_t>> = Vec::with_capacity(self.taken.len());
        let mut last = i64::MIN;
        for message in std::mem::take(&mut self.taken) {
            let Some(message) = NonNull::new(message) else { continue };
            // SAFETY: ours and live.
            let (code, offset) = unsafe { (Code::of_message(message.as_ptr()), (*message.as_ptr()).offset) };
            if code == Code::NONE {
                if offset <= last {
                    self.end_run(&mut run, entries);
                }
                last = offset;
                run.push(message);
                continue;
            }
            self.end_run(&mut run, entries);
            last = i64::MIN;
            entries.push(if code == Code::PARTITION_EOF {
                Entry::Eof { offset }
            } else {
                // SAFETY: live; the text of an error message is a C string or null.
                let text = unsafe { copied((*message.as_ptr()).payload.cast()) };
                Entry::Failed { code, offset, text }
            });
            // SAFETY: ours, and destroyed here only.
            unsafe { sys::rd_kafka_message_destroy(message.as_ptr()) };
        }
        self.end_run(&mut run, entries);
    }

    fn end_run(&self, run: &mut Vec<NonNull<sys::rd_kafka_message_t>>, entries: &mut Vec<Entry>) {
        if run.is_empty() {
            return;
        }
        let messages = std::mem::take(run).into_boxed_slice();
        // SAFETY: live, ours, without error, ascending, and from a queue of this client.
        let (batch, bad) = unsafe { MessageBatch::own(&self.client, &self.topic_partition, messages) };
        entries.push(Entry::Records(batch));
        if let Some(offset) = bad {
            entries.push(Entry::Failed { code: Code::BAD_MSG, offset, text: "headers cannot be parsed".to_owned() });
        }
    }

    /// The offset after the last entry that was taken, also over transaction markers, which are never shown; `None` until
    /// the first entry after an assign or a seek. After an entry that is not a record it is one too high.
    pub(crate) fn position(&self) -> Option<i64> {
        // SAFETY: client and list live; the call fills in the list's only element.
        unsafe { sys::rd_kafka_position(self.client.as_ptr(), self.asked.as_ptr()) };
        self.asked.first_offset().filter(|&offset| offset >= 0)
    }

    /// How many entries wait.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: the queue lives.
        unsafe { sys::rd_kafka_queue_length(self.raw.as_ptr()) }
    }

    #[cfg(test)]
    pub(super) fn raw_for_tests(&self) -> *mut sys::rd_kafka_queue_t {
        self.raw.as_ptr()
    }

    /// Whose queue it is.
    pub(crate) fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    /// The client it belongs to.
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once, before the client.
        unsafe { sys::rd_kafka_queue_destroy(self.raw.as_ptr()) }
    }
}

impl fmt::Debug for PartitionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionQueue").field("topic_partition", &self.topic_partition).finish_non_exhaustive()
    }
}
