//! What a stream's receivers are at, in Spark's words.

use std::sync::Arc;

use super::{
    listener::StreamingEvent,
    reporter::Reporter,
    text::{printable, shortened},
};

/// Bytes of a name or of an error's line that are kept.
const NAME_BYTES_MAX: usize = 200;
const ERROR_BYTES_MAX: usize = 2_000;

/// A receiver and what it is at: Spark's `ReceiverInfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverInfo {
    /// The number of its stream, in order of definition.
    pub stream_id: usize,
    /// Its name.
    pub name: String,
    /// Whether it receives.
    pub is_active: bool,
    /// What ended it last, in one line; `None` if nothing has.
    pub last_error: Option<String>,
    /// When that was, in milliseconds since 1970-01-01 UTC.
    pub last_error_time_ms: Option<i64>,
}

/// What the receivers' supervisors tell. There are as many as the context has streams for them.
impl Reporter {
    /// A receiver begins, or begins again.
    pub fn receiver_started(&self, stream_id: usize, name: &str) {
        self.receiver(stream_id, name, StreamingEvent::ReceiverStarted, |receiver| receiver.is_active = true);
    }

    /// A receiver has ended, and is started again after a pause.
    pub fn receiver_error(&self, stream_id: usize, name: &str, error: &str) {
        let now_ms = self.shared.clock.now_ms();
        self.receiver(stream_id, name, StreamingEvent::ReceiverError, |receiver| {
            receiver.is_active = false;
            receiver.last_error = Some(shortened(&printable(error), ERROR_BYTES_MAX).into_owned());
            receiver.last_error_time_ms = Some(now_ms);
        });
    }

    /// A receiver has ended with its stream.
    pub fn receiver_stopped(&self, stream_id: usize, name: &str) {
        self.receiver(stream_id, name, StreamingEvent::ReceiverStopped, |receiver| receiver.is_active = false);
    }

    fn receiver(
        &self,
        stream_id: usize,
        name: &str,
        event: impl FnOnce(Arc<ReceiverInfo>) -> StreamingEvent,
        change: impl FnOnce(&mut ReceiverInfo),
    ) {
        let told = {
            let mut history = self.history();
            let receiver = history.receivers.entry(stream_id).or_insert_with(|| ReceiverInfo {
                stream_id,
                name: shortened(name, NAME_BYTES_MAX).into_owned(),
                is_active: false,
                last_error: None,
                last_error_time_ms: None,
            });
            change(receiver);
            receiver.clone()
        };
        self.listeners().post(&event(Arc::new(told)));
    }
}
