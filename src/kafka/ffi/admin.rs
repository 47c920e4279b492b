//! Questions to the brokers, as C calls: offsets, topics with their ids, metadata. Each waits for its answer.

use std::{
    ffi::{CString, c_char, c_int},
    fmt,
    ptr::{NonNull, null_mut},
    slice,
    time::Duration,
};

use rdkafka_sys as sys;

use super::{
    Client, Code, Place, copied,
    list::{Element, PartitionList, c_string},
    millis,
};

// The same function as in `sys`, with the error code as an integer (rule 4 of the module).
unsafe extern "C" {
    fn rd_kafka_metadata(
        client: *mut sys::rd_kafka_t,
        all_topics: c_int,
        only_topic: *mut sys::rd_kafka_topic_t,
        metadata: *mut *const sys::rd_kafka_metadata,
        timeout_ms: c_int,
    ) -> c_int;
}

/// ListOffsets: the next offset to be written, or the last stable one under read_committed.
pub(crate) const OFFSET_LATEST: i64 = -1;
/// ListOffsets: the first offset that is there.
pub(crate) const OFFSET_EARLIEST: i64 = -2;

/// How long an answer may come after its own time limit.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// A call that failed as a whole.
#[derive(Debug, Clone)]
pub(crate) struct CallError {
    pub(crate) code: Code,
    pub(crate) text: String,
}

impl CallError {
    pub(super) fn of(code: Code) -> Self {
        Self { code, text: code.text() }
    }

    /// The result that an error object says; destroys it.
    ///
    /// # Safety
    /// `error` is null or an error object that is ours.
    pub(super) unsafe fn take(error: *mut sys::rd_kafka_error_t) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: live, ours, and destroyed after use.
        unsafe {
            let (code, text) = (Code::of_error(error), copied(sys::rd_kafka_error_string(error)));
            sys::rd_kafka_error_destroy(error);
            Err(Self { code, text })
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} code={}", self.text, self.code)
    }
}

impl std::error::Error for CallError {}

/// What ListOffsets says of one partition. A broker that did not answer shows as no error and a negative offset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListedOffset {
    pub(crate) code: Code,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: Option<i32>,
}

/// What metadata or DescribeTopics says of one topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicPartitions {
    pub(crate) topic: String,
    pub(crate) code: Code,
    /// The partitions' numbers.
    pub(crate) partitions: Vec<i32>,
    /// The topic's id, if the broker told one.
    pub(crate) id: Option<String>,
}

impl Client {
    /// One ListOffsets for each of `calls`, whose places have specifications or timestamps as offsets. All are sent before
    /// the first answer is waited for. Results in the order of `calls` and places, `None` where nothing was said. No
    /// partition may come twice in one call.
    pub(crate) fn list_offsets(
        &self,
        calls: &[&[Place<'_>]],
        read_committed: bool,
        limit: Duration,
    ) -> Vec<Result<Vec<Option<ListedOffset>>, CallError>> {
        let asked: Vec<_> = calls.iter().map(|places| self.send_list_offsets(places, read_committed, limit)).collect();
        let mut patience = limit + GRACE;
        let answer = |(asked, places): (Result<Queue, CallError>, &&[Place<'_>])| {
            let answer = asked?.wait(patience);
            if answer.as_ref().is_err_and(|error| error.code == Code::TIMED_OUT) {
                // All time limits began together: the others' answers are there by now, or never come.
                patience = Duration::ZERO;
            }
            // SAFETY: the event lives until it has been read.
            answer.and_then(|event| unsafe { read_listed(&event, places) })
        };
        asked.into_iter().zip(calls).map(answer).collect()
    }

    fn send_list_offsets(&self, places: &[Place<'_>], committed: bool, limit: Duration) -> Result<Queue, CallError> {
        let list = PartitionList::of(places)?;
        let options = Options::new(self, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS, limit)?;
        let isolation = if committed {
            sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
        } else {
            sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
        };
        // SAFETY: the options live. The default is read_uncommitted, whatever the client's own setting is.
        unsafe { CallError::take(sys::rd_kafka_AdminOptions_set_isolation_level(options.0.as_ptr(), isolation))? };
        // SAFETY: all live; the list is copied.
        self.send(|queue| unsafe {
            sys::rd_kafka_ListOffsets(self.as_ptr(), list.as_ptr(), options.0.as_ptr(), queue);
        })
    }

    /// Partitions and ids of these topics.
    pub(crate) fn describe_topics(&self, topics: &[&str], limit: Duration) -> Result<Vec<TopicPartitions>, CallError> {
        let names: Vec<CString> = topics.iter().map(|topic| c_string(topic)).collect::<Result<_, _>>()?;
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let options = Options::new(self, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, limit)?;
        // SAFETY: the names live and are copied; the collection is destroyed once, after the call has copied it.
        let asked = self.send(|queue| unsafe {
            let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            sys::rd_kafka_DescribeTopics(self.as_ptr(), collection, options.0.as_ptr(), queue);
            sys::rd_kafka_TopicCollection_destroy(collection);
        })?;
        let event = asked.wait(limit + GRACE)?;
        // SAFETY: the event lives, and so do the result and all its parts.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(event.0.as_ptr());
            if result.is_null() {
                return Err(CallError::of(Code::INVALID_ARG));
            }
            let mut count = 0;
            let described = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            Ok(elements(described, count).iter().map(|&topic| read_description(topic)).collect())
        }
    }

    /// Metadata of one topic, or of all that the principal may see.
    pub(crate) fn metadata(&self, topic: Option<&str>, limit: Duration) -> Result<Vec<TopicPartitions>, CallError> {
        let only = topic.map(|name| Topic::new(self, name)).transpose()?;
        let only_raw = only.as_ref().map_or(null_mut(), |topic| topic.0.as_ptr());
        let mut raw = std::ptr::null();
        // SAFETY: client and topic live; the metadata is ours if the call succeeds.
        let code = unsafe {
            rd_kafka_metadata(self.as_ptr(), c_int::from(topic.is_none()), only_raw, &raw mut raw, millis(limit))
        };
        if raw.is_null() {
            return Err(CallError::of(Code::new(code)));
        }
        // SAFETY: live until destroyed, after use; topics and partitions lie where their counts say.
        unsafe {
            let count = usize::try_from((*raw).topic_cnt).unwrap_or(0);
            let topics = (0..count).map(|i| read_metadata((*raw).topics.add(i))).collect();
            sys::rd_kafka_metadata_destroy(raw);
            Ok(topics)
        }
    }

    /// The cluster's id, if a broker told it in time.
    pub(crate) fn cluster_id(&self, limit: Duration) -> Option<String> {
        // SAFETY: the client lives; the text is ours to free, by the client's own function.
        unsafe {
            let text = sys::rd_kafka_clusterid(self.as_ptr(), millis(limit));
            let id = NonNull::new(text).map(|text| copied(text.as_ptr()));
            if !text.is_null() {
                sys::rd_kafka_mem_free(self.as_ptr(), text.cast());
            }
            id.filter(|id| !id.is_empty())
        }
    }

    /// Whether the cluster's controller is one of its brokers; `None` if no broker answered in time, or the cluster is
    /// without a controller at the moment.
    ///
    /// The mock cluster names a controller that does not exist, and never answers what only a controller can.
    pub(crate) fn has_controller(&self, limit: Duration) -> Option<bool> {
        let mut raw = std::ptr::null();
        // SAFETY: the client lives; the metadata is ours if the call succeeds.
        unsafe { rd_kafka_metadata(self.as_ptr(), 0, null_mut(), &raw mut raw, millis(limit)) };
        if raw.is_null() {
            return None;
        }
        // SAFETY: live until destroyed, after use; the brokers lie where their count says. The metadata has just come, so
        // the controller's id is known and nothing is waited for.
        unsafe {
            let controller = sys::rd_kafka_controllerid(self.as_ptr(), 0);
            let count = usize::try_from((*raw).broker_cnt).unwrap_or(0);
            let found = (0..count).any(|i| (*(*raw).brokers.add(i)).id == controller);
            sys::rd_kafka_metadata_destroy(raw);
            // None is elected: that passes, and says nothing about the cluster.
            (controller >= 0).then_some(found)
        }
    }

    /// Asks; the answer comes on a queue of its own.
    pub(super) fn send(&self, call: impl FnOnce(*mut sys::rd_kafka_queue_t)) -> Result<Queue, CallError> {
        // SAFETY: the client lives.
        let queue = unsafe { sys::rd_kafka_queue_new(self.as_ptr()) };
        let queue = Queue(NonNull::new(queue).ok_or_else(|| CallError::of(Code::INVALID_ARG))?);
        call(queue.0.as_ptr());
        Ok(queue)
    }
}

/// # Safety
/// `event` is a live result of ListOffsets.
unsafe fn read_listed(event: &Event, places: &[Place<'_>]) -> Result<Vec<Option<ListedOffset>>, CallError> {
    let mut listed = vec![None; places.len()];
    // SAFETY: the event lives, and so do the result and its elements.
    unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(event.0.as_ptr());
        if result.is_null() {
            return Err(CallError::of(Code::INVALID_ARG));
        }
        let mut count = 0;
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        for (position, &info) in elements(infos, count).iter().enumerate() {
            let element = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(info);
            let is_of = |place: &Place<'_>| Element::is_of(element, place.topic_partition);
            // They come in the order of the request, which no documentation promises.
            let found = match places.get(position) {
                Some(place) if is_of(place) => Some(position),
                _ => places.iter().position(is_of),
            };
            if let Some(index) = found {
                let Element { code, offset, leader_epoch, .. } = Element::read(element);
                listed[index] = Some(ListedOffset { code, offset, leader_epoch });
            }
        }
    }
    Ok(listed)
}

/// The elements of a C array.
///
/// # Safety
/// `first` is null or `count` elements lie there for `'a`.
pub(super) unsafe fn elements<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: not null, and as the caller promises.
    unsafe { slice::from_raw_parts(first, count) }
}

/// # Safety
/// `topic` is a live description.
unsafe fn read_description(topic: *const sys::rd_kafka_TopicDescription_t) -> TopicPartitions {
    // SAFETY: the description lives, and so do its parts; texts are copied.
    unsafe {
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let zero = id.is_null()
            || (sys::rd_kafka_Uuid_most_significant_bits(id) == 0
                && sys::rd_kafka_Uuid_least_significant_bits(id) == 0);
        TopicPartitions {
            topic: copied(sys::rd_kafka_TopicDescription_name(topic)),
            code: Code::of_error(sys::rd_kafka_TopicDescription_error(topic)),
            partitions: elements(partitions, count)
                .iter()
                .map(|&partition| sys::rd_kafka_TopicPartitionInfo_partition(partition))
                .collect(),
            id: (!zero).then(|| copied(sys::rd_kafka_Uuid_base64str(id))).filter(|id| !id.is_empty()),
        }
    }
}

/// # Safety
/// `topic` is live metadata.
unsafe fn read_metadata(topic: *const sys::rd_kafka_metadata_topic_t) -> TopicPartitions {
    // SAFETY: the metadata lives; the code is read as an integer, and of a partition only its number.
    unsafe {
        let count = usize::try_from((*topic).partition_cnt).unwrap_or(0);
        let partitions = (0..count).map(|i| (*(*topic).partitions.add(i)).id).collect();
        TopicPartitions { topic: copied((*topic).topic), code: Code::of_topic(topic), partitions, id: None }
    }
}

pub(super) struct Options(NonNull<sys::rd_kafka_AdminOptions_t>);

impl Options {
    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_AdminOptions_t {
        self.0.as_ptr()
    }

    pub(super) fn new(
        client: &Client,
        operation: sys::rd_kafka_admin_op_t,
        limit: Duration,
    ) -> Result<Self, CallError> {
        // SAFETY: the client lives.
        let raw = unsafe { sys::rd_kafka_AdminOptions_new(client.as_ptr(), operation) };
        let options = Self(NonNull::new(raw).ok_or_else(|| CallError::of(Code::INVALID_ARG))?);
        let mut text = [0; 256];
        // SAFETY: the options live; the text is as long as is said.
        unsafe {
            sys::rd_kafka_AdminOptions_set_request_timeout(raw, millis(limit), text.as_mut_ptr(), text.len());
        }
        Ok(options)
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) }
    }
}

/// Where one answer comes.
pub(super) struct Queue(NonNull<sys::rd_kafka_queue_t>);

impl Queue {
    pub(super) fn wait(self, limit: Duration) -> Result<Event, CallError> {
        // SAFETY: the queue lives; the event is ours.
        let event = unsafe { sys::rd_kafka_queue_poll(self.0.as_ptr(), millis(limit)) };
        let event = Event(NonNull::new(event).ok_or_else(|| CallError::of(Code::TIMED_OUT))?);
        // SAFETY: the event lives.
        let code = unsafe { Code::of_event(event.0.as_ptr()) };
        if code == Code::NONE {
            return Ok(event);
        }
        // SAFETY: the event lives; the text is copied.
        let text = unsafe { copied(sys::rd_kafka_event_error_string(event.0.as_ptr())) };
        Err(CallError { code, text })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once. An answer that comes later is dropped by librdkafka.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

pub(super) struct Event(NonNull<sys::rd_kafka_event_t>);

impl Event {
    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_event_t {
        self.0.as_ptr()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

struct Topic(NonNull<sys::rd_kafka_topic_t>);

impl Topic {
    fn new(client: &Client, name: &str) -> Result<Self, CallError> {
        let name = c_string(name)?;
        // SAFETY: client and name live; no settings of its own.
        let raw = unsafe { sys::rd_kafka_topic_new(client.as_ptr(), name.as_ptr(), null_mut()) };
        NonNull::new(raw).map(Self).ok_or_else(|| CallError::of(Code::INVALID_ARG))
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once.
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}
