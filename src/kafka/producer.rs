//! Clients that send: one that is idempotent, and one that sends in transactions together with a group's offsets.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext, Message as _, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata},
    error::{KafkaError, RDKafkaErrorCode as Kafka},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};

use super::{
    KafkaProperties,
    credentials::{self, LogsIn},
    ffi::{CallError, set_credentials_of},
};
use crate::{
    error::{Error, ErrorKind, Result},
    types::{KafkaRecord, TopicPartition},
};

/// How long taking a transactional id over may take: a transaction of the process before is ended first.
const INIT_WITHIN: Duration = Duration::from_secs(30);
/// How long records may take to be acknowledged, and a transaction to be committed. The broker aborts a transaction after
/// `transaction.timeout.ms`, a minute by default.
const SEND_WITHIN: Duration = Duration::from_secs(90);
/// How long a full queue is polled at a time.
const POLL: Duration = Duration::from_millis(20);

/// What became of a record, told on the thread that polls: its number as it was given, and why it failed if it did.
pub(crate) trait Delivered: Send + Sync + 'static {
    /// Takes it in.
    fn delivered(&self, number: usize, failed: Option<Error>);
}

/// The first failure since it was last asked for.
#[derive(Debug, Default)]
struct FirstFailure(Mutex<Option<Error>>);

impl Delivered for FirstFailure {
    fn delivered(&self, _number: usize, failed: Option<Error>) {
        if let Some(error) = failed {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}

/// librdkafka's callbacks.
struct Context<D>(Arc<D>);

impl<D: Delivered> ClientContext for Context<D> {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(target: "librdkafka", facility, "{text}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl<D: Delivered> ProducerContext for Context<D> {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let failed = result.as_ref().err().map(|(error, message)| {
            // A partition below zero: none was chosen.
            let place = TopicPartition::new(message.topic(), message.partition());
            failed("a record was not taken by Kafka", error).on(place)
        });
        self.0.delivered(number, failed);
    }
}

impl<D: Delivered> LogsIn for BaseProducer<Context<D>> {
    fn log_in_as(&self, username: &str, password: &str) -> Result<(), CallError> {
        set_credentials_of(self.client(), username, password)
    }
}

/// A client that sends: idempotent, so that no try of its own doubles a record or changes the order within a partition.
pub(crate) struct Producer<D: Delivered> {
    producer: Arc<BaseProducer<Context<D>>>,
    delivered: Arc<D>,
}

impl<D: Delivered> Producer<D> {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a property that cannot be used; [`ErrorKind::Unavailable`] while a file with credentials cannot be
    /// read.
    pub(crate) fn new(properties: &KafkaProperties, own: &[(&str, &str)], delivered: Arc<D>) -> Result<Self> {
        let (config, credentials) = properties.producer(own)?;
        let made = config.create_with_context(Context(Arc::clone(&delivered)));
        let producer = Arc::new(made.map_err(|error| cannot_create(&error))?);
        credentials::keep(credentials, &producer)?;
        Ok(Self { producer, delivered })
    }

    /// Sends a record, waiting while the client's own queue is full. What became of it is [told](Delivered) under `number`.
    ///
    /// # Errors
    /// It cannot be sent: [`ErrorKind::Transform`] if for what it is, as where it is too large.
    pub(crate) fn send(&self, record: &KafkaRecord, number: usize) -> Result<()> {
        let mut next = base(record, number);
        loop {
            match self.producer.send(next) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Kafka::QueueFull), again)) => {
                    next = again;
                    self.producer.poll(POLL);
                }
                Err((error, _)) => {
                    let place = TopicPartition::new(record.topic(), record.partition().unwrap_or(-1));
                    return Err(failed("a record cannot be sent", &error).on(place));
                }
            }
        }
    }

    /// Takes in what was acknowledged, waiting for `limit` at most.
    pub(crate) fn poll(&self, limit: Duration) {
        self.producer.poll(limit);
    }

    /// Waits until every record is acknowledged or has failed.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if that takes too long.
    pub(crate) fn flush(&self) -> Result<()> {
        self.producer.flush(SEND_WITHIN).map_err(|error| failed("records are not acknowledged in time", &error))
    }
}

/// A producer whose records and offsets are seen together or not at all.
///
/// Of all that have the same transactional id, only the one that [took it over](Self::take_over) last can commit.
pub(crate) struct TransactionalProducer {
    producer: Producer<FirstFailure>,
    group: ConsumerGroupMetadata,
}

impl TransactionalProducer {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// As [`Producer::new`].
    pub(crate) fn new(properties: &KafkaProperties, transactional_id: &str, group: &str) -> Result<Self> {
        let own = [("transactional.id", transactional_id)];
        let producer = Producer::new(properties, &own, Arc::new(FirstFailure::default()))?;
        // A consumer that reads nothing and joins nothing: it only says, in librdkafka's own form, which group is meant.
        let named: BaseConsumer = properties
            .producer(&[("group.id", group), ("enable.auto.commit", "false")])?
            .0
            .create()
            .map_err(|error| cannot_create(&error))?;
        let group = named.group_metadata().ok_or_else(|| Error::internal("a consumer with a group has none"))?;
        Ok(Self { producer, group })
    }

    /// Fences every other producer of the same transactional id, and waits until its last transaction has ended: committed if
    /// its commit was decided, else aborted.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if no broker answers in time.
    pub(crate) fn take_over(&self) -> Result<()> {
        let done = self.producer.producer.init_transactions(INIT_WITHIN);
        done.map_err(|error| failed("cannot take the transactional id over", &error))
    }

    /// Begins a transaction. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] if another producer has the transactional id now.
    pub(crate) fn begin(&self) -> Result<()> {
        self.first_failure();
        self.producer.producer.begin_transaction().map_err(|error| failed("cannot begin a transaction", &error))
    }

    /// Sends records, and waits until every one is acknowledged.
    ///
    /// # Errors
    /// Why the first one was not: [`ErrorKind::Transform`] if for what it is.
    pub(crate) fn send(&self, records: &[KafkaRecord]) -> Result<()> {
        for (number, record) in records.iter().enumerate() {
            self.producer.send(record, number).map_err(|error| self.first_failure().unwrap_or(error))?;
            if number % 1000 == 0 {
                self.producer.poll(Duration::ZERO);
            }
        }
        self.producer.flush()?;
        self.first_failure().map_or(Ok(()), Err)
    }

    /// Adds the group's offsets to the transaction, each with what is stored beside it.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`], and [`ErrorKind::Unavailable`].
    pub(crate) fn send_offsets<'a>(
        &self,
        offsets: impl IntoIterator<Item = (&'a TopicPartition, i64, String)>,
    ) -> Result<()> {
        let what = "cannot add the offsets to the transaction";
        let mut list = TopicPartitionList::new();
        for (topic_partition, offset, metadata) in offsets {
            let mut element = list.add_partition(&topic_partition.topic, topic_partition.partition);
            element.set_offset(rdkafka::Offset::Offset(offset)).map_err(|error| failed(what, &error))?;
            element.set_metadata(metadata);
        }
        let done = self.producer.producer.send_offsets_to_transaction(&list, &self.group, SEND_WITHIN);
        done.map_err(|error| failed(what, &error))
    }

    /// Commits.
    ///
    /// # Errors
    /// They say nothing about the outcome: the next [`take_over`](Self::take_over) settles it.
    pub(crate) fn commit(&self) -> Result<()> {
        let done = self.producer.producer.commit_transaction(SEND_WITHIN);
        done.map_err(|error| failed("cannot commit the transaction", &error))
    }

    /// Aborts.
    ///
    /// # Errors
    /// They say nothing about the outcome.
    pub(crate) fn abort(&self) -> Result<()> {
        let done = self.producer.producer.abort_transaction(SEND_WITHIN);
        done.map_err(|error| failed("cannot abort the transaction", &error))
    }

    fn first_failure(&self) -> Option<Error> {
        self.producer.delivered.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn base(record: &KafkaRecord, number: usize) -> BaseRecord<'_, [u8], [u8], usize> {
    let mut base = BaseRecord::with_opaque_to(record.topic(), number);
    (base.partition, base.timestamp) = (record.partition(), record.timestamp_ms());
    (base.key, base.payload) = (record.key_bytes(), record.value_bytes());
    let mut headers: Option<OwnedHeaders> = None;
    for (key, value) in record.headers() {
        headers = Some(headers.unwrap_or_default().insert(Header { key, value }));
    }
    base.headers = headers;
    base
}

/// With the key and never the value, which may be a password.
fn cannot_create(error: &KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, text, key, _) => {
            let key_only = if KafkaProperties::is_printable(key) { text.as_str() } else { "the value is refused" };
            Error::config(format!("the property cannot be set: {} key={key}", key_only.replace(['\n', '\r'], " ")))
        }
        other => Error::config("cannot make a client that sends").caused_by(other.clone()),
    }
}

/// An error of a producer in this program's words.
fn failed(what: &str, error: &KafkaError) -> Error {
    let kind = error.rdkafka_error_code().map_or(ErrorKind::Unavailable, kind_of);
    Error::new(kind, what).caused_by(error.clone())
}

const fn kind_of(code: Kafka) -> ErrorKind {
    match code {
        Kafka::Fenced | Kafka::ProducerFenced | Kafka::InvalidProducerEpoch => ErrorKind::Fenced,
        // For what the record is: no other try would go better.
        Kafka::MessageSizeTooLarge | Kafka::InvalidMessageSize | Kafka::InvalidRecord | Kafka::InvalidTimestamp => {
            ErrorKind::Transform
        }
        Kafka::UnknownTopic | Kafka::UnknownPartition | Kafka::UnknownTopicOrPartition | Kafka::InvalidTopic => {
            ErrorKind::Config
        }
        _ => ErrorKind::Unavailable,
    }
}
