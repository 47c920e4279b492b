//! One librdkafka client: how it is made, what it is assigned, where it seeks.

use std::{
    ffi::{CStr, CString, c_char, c_int},
    fmt,
    ptr::NonNull,
    sync::Arc,
    time::Duration,
};

use rdkafka::ClientContext;
use rdkafka_sys as sys;

use super::{
    CallError, Code, Place, copied,
    list::{Element, PartitionList, c_string},
    millis,
};
use crate::types::TopicPartition;

/// A Kafka consumer client: connections, threads, and one queue for what concerns the whole client.
pub(crate) struct Client {
    raw: NonNull<sys::rd_kafka_t>,
    /// Errors of the client as a whole; destroyed before the client.
    main: NonNull<sys::rd_kafka_queue_t>,
}

// SAFETY: librdkafka's handles may be used by any thread, and by many at once, by its own documentation.
unsafe impl Send for Client {}
// SAFETY: see `Send`.
unsafe impl Sync for Client {}

/// Why a client could not be made.
#[derive(Debug)]
pub(crate) struct CreateError {
    /// The setting at fault, if it is one.
    pub(crate) key: Option<String>,
    /// librdkafka's text. About a setting it may quote the value, which may be a secret.
    pub(crate) text: String,
}

/// Something on the main queue.
#[derive(Debug)]
pub(crate) enum ClientEvent {
    /// An error of the client as a whole.
    Error { code: Code, text: String },
    /// A record or an error of a partition that did not come on the partition's own queue, where it belongs.
    Stray { topic_partition: TopicPartition, offset: i64 },
}

impl Client {
    /// A consumer client with these settings. It connects by and by, in threads of its own.
    pub(crate) fn consumer<'a>(
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Arc<Self>, CreateError> {
        let config = Config::new()?;
        let mut oauth = false;
        for (key, value) in settings {
            oauth |= key.starts_with("sasl.mechanism") && value.eq_ignore_ascii_case("OAUTHBEARER");
            config.set(key, value)?;
        }
        // SAFETY: the configuration lives; the callback is a function for all time.
        unsafe {
            sys::rd_kafka_conf_set_events(config.0.as_ptr(), sys::RD_KAFKA_EVENT_ERROR);
            sys::rd_kafka_conf_set_log_cb(config.0.as_ptr(), Some(log));
            // Tokens are then refreshed in the background, also while a call waits for its answer.
            sys::rd_kafka_conf_enable_sasl_queue(config.0.as_ptr(), c_int::from(oauth));
        }
        let raw = config.into_client()?;
        // SAFETY: the client lives; it becomes a consumer whose main queue leads to the consumer queue.
        let main = unsafe {
            sys::rd_kafka_poll_set_consumer(raw.as_ptr());
            if oauth {
                drop_error(sys::rd_kafka_sasl_background_callbacks_enable(raw.as_ptr()));
            }
            NonNull::new(sys::rd_kafka_queue_get_consumer(raw.as_ptr()))
        };
        let Some(main) = main else {
            // SAFETY: made above, and given to nobody.
            unsafe { sys::rd_kafka_destroy_flags(raw.as_ptr(), sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) };
            return Err(CreateError { key: None, text: "the client has no consumer queue".to_owned() });
        };
        Ok(Arc::new(Self { raw, main }))
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_t {
        self.raw.as_ptr()
    }

    /// From now on it logs in with these. Open connections stay.
    pub(crate) fn set_credentials(&self, username: &str, password: &str) -> Result<(), CallError> {
        // SAFETY: the client lives.
        unsafe { set_credentials(self.as_ptr(), username, password) }
    }

    /// What lies on the main queue, at most `limit` events. Never waits.
    pub(crate) fn poll_events(&self, limit: usize) -> Vec<ClientEvent> {
        let mut events = Vec::new();
        for _ in 0..limit {
            // SAFETY: the queue lives.
            let event = unsafe { sys::rd_kafka_queue_poll(self.main.as_ptr(), 0) };
            let Some(event) = NonNull::new(event) else { break };
            // SAFETY: a live event, used before it is destroyed, once.
            unsafe {
                read_event(event.as_ptr(), &mut events);
                sys::rd_kafka_event_destroy(event.as_ptr());
            }
        }
        events
    }

    /// Adds partitions to the assignment, each at its offset. None of them may be assigned.
    pub(crate) fn assign(&self, places: &[Place<'_>]) -> Result<(), CallError> {
        let list = PartitionList::of(places)?;
        // SAFETY: client and list live; the list is copied.
        unsafe { CallError::take(sys::rd_kafka_incremental_assign(self.as_ptr(), list.as_ptr())) }
    }

    /// Takes partitions out of the assignment.
    pub(crate) fn unassign(&self, partitions: &[&TopicPartition]) -> Result<(), CallError> {
        let places: Vec<_> = partitions
            .iter()
            .map(|&topic_partition| Place { topic_partition, offset: 0, leader_epoch: None })
            .collect();
        let list = PartitionList::of(&places)?;
        // SAFETY: client and list live; the list is copied.
        unsafe { CallError::take(sys::rd_kafka_incremental_unassign(self.as_ptr(), list.as_ptr())) }
    }

    /// Seeks, and waits until all partitions have started to; the code of each, in the order of `places`. What a partition
    /// had prefetched is dropped, and its position is unknown until its next record.
    pub(crate) fn seek(&self, places: &[Place<'_>], limit: Duration) -> Result<Vec<Code>, CallError> {
        let list = PartitionList::of(places)?;
        // SAFETY: client and list live; the call fills in the codes, in place.
        unsafe {
            CallError::take(sys::rd_kafka_seek_partitions(self.as_ptr(), list.as_ptr(), millis(limit)))?;
        }
        Ok(list.elements().iter().map(|element| element.code).collect())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the last user is gone (rule 1). No group was ever joined, so there is nothing to leave or to close.
        unsafe {
            sys::rd_kafka_queue_destroy(self.main.as_ptr());
            sys::rd_kafka_destroy_flags(self.raw.as_ptr(), sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// The same for a client of the `rdkafka` crate.
pub(crate) fn set_credentials_of<C: ClientContext>(
    client: &rdkafka::client::Client<C>,
    username: &str,
    password: &str,
) -> Result<(), CallError> {
    // SAFETY: the client lives as long as the reference to it.
    unsafe { set_credentials(client.native_ptr(), username, password) }
}

/// # Safety
/// `client` is live.
unsafe fn set_credentials(client: *mut sys::rd_kafka_t, username: &str, password: &str) -> Result<(), CallError> {
    let (username, password) = (c_string(username)?, c_string(password)?);
    // SAFETY: the client lives as the caller promises; both texts are copied.
    unsafe { CallError::take(sys::rd_kafka_sasl_set_credentials(client, username.as_ptr(), password.as_ptr())) }
}

struct Config(NonNull<sys::rd_kafka_conf_t>);

impl Config {
    fn new() -> Result<Self, CreateError> {
        // SAFETY: takes nothing.
        let raw = unsafe { sys::rd_kafka_conf_new() };
        let none = || CreateError { key: None, text: "no memory for a configuration".to_owned() };
        NonNull::new(raw).map(Self).ok_or_else(none)
    }

    fn set(&self, key: &str, value: &str) -> Result<(), CreateError> {
        let fault = |text: String| CreateError { key: Some(key.to_owned()), text };
        let nul = |_| fault("contains a NUL".to_owned());
        let (name, value) = (CString::new(key).map_err(nul)?, CString::new(value).map_err(nul)?);
        let mut text = [0; 512];
        // SAFETY: the configuration and both strings live; the text is as long as is said.
        let result = unsafe {
            sys::rd_kafka_conf_set(self.0.as_ptr(), name.as_ptr(), value.as_ptr(), text.as_mut_ptr(), text.len())
        };
        match result {
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
            _ => Err(fault(from_buffer(&text))),
        }
    }

    fn into_client(self) -> Result<NonNull<sys::rd_kafka_t>, CreateError> {
        let mut text = [0; 512];
        // SAFETY: the configuration lives; the client takes it over if it can be made, and leaves it to us if not.
        let raw = unsafe {
            sys::rd_kafka_new(sys::rd_kafka_type_t::RD_KAFKA_CONSUMER, self.0.as_ptr(), text.as_mut_ptr(), text.len())
        };
        let Some(raw) = NonNull::new(raw) else {
            return Err(CreateError { key: None, text: from_buffer(&text) });
        };
        std::mem::forget(self);
        Ok(raw)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: owned: a client that took it over forgot it here.
        unsafe { sys::rd_kafka_conf_destroy(self.0.as_ptr()) }
    }
}

fn from_buffer(text: &[c_char]) -> String {
    let bytes: Vec<u8> = text.iter().take_while(|&&c| c != 0).map(|&c| c.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// # Safety
/// `event` is live.
unsafe fn read_event(event: *mut sys::rd_kafka_event_t, events: &mut Vec<ClientEvent>) {
    // SAFETY: the event lives; what is asked of it fits its type; the partition it gives is ours to destroy.
    unsafe {
        match sys::rd_kafka_event_type(event) {
            sys::RD_KAFKA_EVENT_ERROR => {
                let partition = sys::rd_kafka_event_topic_partition(event);
                if partition.is_null() {
                    let text = copied(sys::rd_kafka_event_error_string(event));
                    events.push(ClientEvent::Error { code: Code::of_event(event), text });
                } else {
                    let (topic, element) = (copied((*partition).topic), Element::read(partition));
                    sys::rd_kafka_topic_partition_destroy(partition);
                    events.push(stray(topic, element.partition, element.offset));
                }
            }
            sys::RD_KAFKA_EVENT_FETCH => {
                while let Some(message) = NonNull::new(sys::rd_kafka_event_message_next(event).cast_mut()) {
                    let message = message.as_ptr();
                    let topic = (*message).rkt;
                    if !topic.is_null() {
                        let name = copied(sys::rd_kafka_topic_name(topic));
                        events.push(stray(name, (*message).partition, (*message).offset));
                    }
                }
            }
            _ => {}
        }
    }
}

fn stray(topic: String, partition: i32, offset: i64) -> ClientEvent {
    ClientEvent::Stray { topic_partition: TopicPartition::new(topic, partition), offset }
}

/// # Safety
/// `error` is null or an error object that is ours.
unsafe fn drop_error(error: *mut sys::rd_kafka_error_t) {
    if !error.is_null() {
        // SAFETY: ours, destroyed once.
        unsafe { sys::rd_kafka_error_destroy(error) }
    }
}

/// librdkafka's own log. What matters comes as an event or as a result, so this is for who looks for details; it floods
/// while no broker answers.
unsafe extern "C" fn log(_client: *const sys::rd_kafka_t, level: c_int, facility: *const c_char, text: *const c_char) {
    if facility.is_null() || text.is_null() {
        return;
    }
    // SAFETY: both are C strings that live during the callback.
    let (facility, text) = unsafe { (CStr::from_ptr(facility), CStr::from_ptr(text)) };
    tracing::debug!(target: "librdkafka", level, facility = %facility.to_string_lossy(), "{}", text.to_string_lossy());
}
