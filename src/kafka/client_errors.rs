//! Errors of a client as a whole: they flood while no broker answers, so they are counted by class.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::ffi::{ClientEvent, Code};
use crate::types::TopicPartition;

/// What a client-wide error is about, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientErrorClass {
    /// The broker refused the credentials, or the two sides do not speak the same SASL.
    Authentication,
    /// TLS failed: unknown authority, wrong host name, expired or missing certificate.
    Tls,
    /// The principal lacks a right.
    Authorization,
    /// A name cannot be resolved.
    Resolve,
    /// A connection failed.
    Transport,
    /// No broker can be reached. Says nothing about why.
    AllBrokersDown,
    /// Anything else.
    Other,
}

const CLASSES: usize = 7;

impl ClientErrorClass {
    fn of(code: Code) -> Self {
        match code {
            Code::AUTHENTICATION | Code::SASL_AUTHENTICATION_FAILED => Self::Authentication,
            Code::SSL => Self::Tls,
            Code::TOPIC_AUTHORIZATION_FAILED
            | Code::GROUP_AUTHORIZATION_FAILED
            | Code::CLUSTER_AUTHORIZATION_FAILED => Self::Authorization,
            Code::RESOLVE => Self::Resolve,
            Code::TRANSPORT | Code::TIMED_OUT => Self::Transport,
            Code::ALL_BROKERS_DOWN => Self::AllBrokersDown,
            _ => Self::Other,
        }
    }

    /// What to look at.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Authentication => "check user, password and sasl.mechanism",
            Self::Tls => "check ssl.ca.location, the broker's certificate and the host name in it",
            Self::Authorization => "check the principal's rights",
            Self::Resolve => "check the host names",
            Self::Transport => "check that the brokers run and that security.protocol fits their listener",
            Self::AllBrokersDown => {
                "check that the brokers run, and security.protocol: a listener that expects TLS or SASL gives no cause"
            }
            Self::Other => "see the text",
        }
    }
}

/// The latest error of its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientError {
    /// What it is about.
    pub class: ClientErrorClass,
    /// The code of the latest one.
    pub code: Code,
    /// librdkafka's text of the latest one: names the broker, holds no secret.
    pub text: String,
    /// How many there were since the client was made.
    pub count: u64,
    /// When the latest one was seen, in the clock's monotonic time.
    pub seen_at: Duration,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} code={} times={}", self.text, self.class.advice(), self.code, self.count)
    }
}

/// The latest error of each class.
#[derive(Debug, Default)]
pub(crate) struct ClientErrors {
    seen: Mutex<[Option<ClientError>; CLASSES]>,
}

impl ClientErrors {
    /// Takes events in; gives the partitions whose records or errors came on the wrong queue.
    pub(crate) fn take_in(&self, events: Vec<ClientEvent>, now: Duration) -> Vec<(TopicPartition, i64)> {
        let mut strays = Vec::new();
        if events.is_empty() {
            return strays;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            match event {
                ClientEvent::Stray { topic_partition, offset } => strays.push((topic_partition, offset)),
                ClientEvent::Error { code, text } => {
                    let class = ClientErrorClass::of(code);
                    let count = seen[class as usize].as_ref().map_or(0, |error| error.count) + 1;
                    if count == 1 {
                        tracing::warn!(class = ?class, code = %code, "kafka client error: {text}");
                    }
                    let text = text.replace(['\n', '\r'], " ");
                    seen[class as usize] = Some(ClientError { class, code, text, count, seen_at: now });
                }
            }
        }
        strays
    }

    /// The latest error of each class, the most telling first, seen at `since` or later.
    pub(crate) fn since(&self, since: Duration) -> Vec<ClientError> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().flatten().filter(|error| error.seen_at >= since).cloned().collect()
    }
}
