//! Error codes as plain integers, so that one unknown to the C enum does no harm.

use std::{
    ffi::{c_char, c_int},
    fmt,
    ptr::addr_of,
};

use rdkafka_sys as sys;

use super::copied;

// The same functions as in `sys`, with error codes as integers (rule 4 of the module).
unsafe extern "C" {
    fn rd_kafka_err2name(code: c_int) -> *const c_char;
    fn rd_kafka_err2str(code: c_int) -> *const c_char;
    fn rd_kafka_error_code(error: *const sys::rd_kafka_error_t) -> c_int;
    fn rd_kafka_event_error(event: *mut sys::rd_kafka_event_t) -> c_int;
}

/// An error code of Kafka (above zero) or of librdkafka itself (below zero).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(i32);

impl Code {
    /// No error.
    pub const NONE: Self = Self(0);
    /// A record batch fails its checksum.
    pub const BAD_MSG: Self = Self(-199);
    /// A connection failed.
    pub const TRANSPORT: Self = Self(-195);
    /// The end of a partition: not an error.
    pub const PARTITION_EOF: Self = Self(-191);
    /// The partition does not exist.
    pub const UNKNOWN_PARTITION_LOCAL: Self = Self(-190);
    /// The topic does not exist.
    pub const UNKNOWN_TOPIC_LOCAL: Self = Self(-188);
    /// No broker can be reached.
    pub const ALL_BROKERS_DOWN: Self = Self(-187);
    /// An argument is wrong.
    pub const INVALID_ARG: Self = Self(-186);
    /// No answer in time.
    pub const TIMED_OUT: Self = Self(-185);
    /// TLS failed.
    pub const SSL: Self = Self(-181);
    /// Not possible in this state.
    pub const STATE: Self = Self(-172);
    /// An earlier operation is still under way.
    pub const PREV_IN_PROGRESS: Self = Self(-177);
    /// The credentials were refused.
    pub const AUTHENTICATION: Self = Self(-169);
    /// Not found.
    pub const NOENT: Self = Self(-156);
    /// A name cannot be resolved.
    pub const RESOLVE: Self = Self(-193);
    /// The offset to read is not in the log.
    pub const AUTO_OFFSET_RESET: Self = Self(-140);
    /// The offset is not in the log, in the broker's words.
    pub const OFFSET_OUT_OF_RANGE: Self = Self(1);
    /// The broker's word for a batch that fails its checksum.
    pub const CORRUPT_MESSAGE: Self = Self(2);
    /// The broker does not know the topic or partition.
    pub const UNKNOWN_TOPIC_OR_PARTITION: Self = Self(3);
    /// The broker's record is too large for the client's settings.
    pub const MESSAGE_TOO_LARGE: Self = Self(10);
    /// The principal may not do this with the topic.
    pub const TOPIC_AUTHORIZATION_FAILED: Self = Self(29);
    /// The principal may not use the group.
    pub const GROUP_AUTHORIZATION_FAILED: Self = Self(30);
    /// The principal may not use the cluster.
    pub const CLUSTER_AUTHORIZATION_FAILED: Self = Self(31);
    /// A transaction that has not ended yet holds the offset.
    pub const UNSTABLE_OFFSET_COMMIT: Self = Self(88);
    /// The broker refuses the credentials.
    pub const SASL_AUTHENTICATION_FAILED: Self = Self(58);

    pub(super) const fn new(code: i32) -> Self {
        Self(code)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }

    /// librdkafka's name for it, such as `TOPIC_AUTHORIZATION_FAILED`.
    #[must_use]
    pub fn name(self) -> String {
        // SAFETY: takes any integer; gives a static string, or this thread's own buffer, which is copied at once.
        unsafe { copied(rd_kafka_err2name(self.0)) }
    }

    /// What it means, in librdkafka's words.
    #[must_use]
    pub fn text(self) -> String {
        // SAFETY: as in `name`.
        unsafe { copied(rd_kafka_err2str(self.0)) }
    }

    /// The code of a message.
    ///
    /// # Safety
    /// `message` points to a live message.
    pub(super) unsafe fn of_message(message: *const sys::rd_kafka_message_t) -> Self {
        // SAFETY: the field is there and is as large as an i32 (`repr(i32)`); no value of the enum's type is made.
        Self(unsafe { addr_of!((*message).err).cast::<i32>().read() })
    }

    /// The code of an element of a partition list.
    ///
    /// # Safety
    /// `element` points to a live element.
    pub(super) unsafe fn of_element(element: *const sys::rd_kafka_topic_partition_t) -> Self {
        // SAFETY: as in `of_message`.
        Self(unsafe { addr_of!((*element).err).cast::<i32>().read() })
    }

    /// The code of a topic's metadata.
    ///
    /// # Safety
    /// `topic` points to live metadata.
    pub(super) unsafe fn of_topic(topic: *const sys::rd_kafka_metadata_topic_t) -> Self {
        // SAFETY: as in `of_message`.
        Self(unsafe { addr_of!((*topic).err).cast::<i32>().read() })
    }

    /// The code of an error object; none if it is null.
    ///
    /// # Safety
    /// `error` is null or a live error object.
    pub(super) unsafe fn of_error(error: *const sys::rd_kafka_error_t) -> Self {
        // SAFETY: null is allowed and means no error.
        Self(unsafe { rd_kafka_error_code(error) })
    }

    /// The code of an event.
    ///
    /// # Safety
    /// `event` is a live event.
    pub(super) unsafe fn of_event(event: *mut sys::rd_kafka_event_t) -> Self {
        // SAFETY: the event lives.
        Self(unsafe { rd_kafka_event_error(event) })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}
