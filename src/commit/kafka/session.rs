//! One session: a producer of the application's transactional id, and a client that reads the group's offsets. It waits.

use std::{sync::Arc, time::Duration};

use super::held::{Held, Row, metadata};
use crate::{
    commit::settings::StoredPosition,
    error::{Error, Result},
    failpoint,
    kafka::{CallError, Client, Code, KafkaProperties, TransactionalProducer},
    types::KafkaRecord,
};

/// How long one question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often offsets are asked for again while a transaction holds them: its marker comes a moment after the answer to its commit.
const STABLE_TRIES: u32 = 400;
const STABLE_AGAIN: Duration = Duration::from_millis(5);
const STABLE_AGAIN_MAX: Duration = Duration::from_millis(50);
/// More of the client's own events than this are left for the next question.
const EVENTS_MAX: usize = 1_000;

/// A producer of the transactional id, which is taken over apart, and a reader of the group's offsets.
pub(super) struct Session {
    group: String,
    reader: Arc<Client>,
    producer: TransactionalProducer,
}

impl Session {
    /// Makes both clients. Whether a broker answers shows in what they are used for.
    pub(super) fn open(properties: &KafkaProperties, application: &str, group: String) -> Result<Self> {
        let reader = properties.planner()?;
        let producer = TransactionalProducer::new(properties, application, &group)?;
        Ok(Self { group, reader, producer })
    }

    /// What the group holds. `stable`: once no transaction has a part in it.
    pub(super) fn read(&self, stable: bool) -> Result<Held> {
        // What the client has to say is known from the answers; left there, it would grow while no broker is to be had.
        self.reader.poll_events(EVENTS_MAX);
        let mut pause = STABLE_AGAIN;
        for _ in 0..STABLE_TRIES {
            let offsets = self.reader.group_offsets(&self.group, stable, ANSWER_WITHIN);
            let offsets = offsets.map_err(|error| self.unreadable(error))?;
            let held_back = |code: Code| code == Code::UNSTABLE_OFFSET_COMMIT;
            if offsets.iter().any(|offset| held_back(offset.code)) {
                std::thread::sleep(pause);
                pause = (pause * 2).min(STABLE_AGAIN_MAX);
                continue;
            }
            if let Some(failed) = offsets.iter().find(|offset| offset.code != Code::NONE) {
                let error = CallError { code: failed.code, text: failed.code.text() };
                return Err(self.unreadable(error).on(failed.topic_partition.clone()));
            }
            return Held::of(&self.group, &offsets);
        }
        Err(Error::unavailable(format!("a transaction holds the group's offsets group={}", self.group)))
    }

    fn unreadable(&self, error: CallError) -> Error {
        Error::unavailable(format!("cannot read the group's committed offsets group={}", self.group)).caused_by(error)
    }

    pub(super) fn take_over(&self) -> Result<()> {
        self.producer.take_over()
    }

    pub(super) fn begin(&self) -> Result<()> {
        self.producer.begin()
    }

    pub(super) fn send(&self, records: &[KafkaRecord]) -> Result<()> {
        self.producer.send(records)
    }

    pub(super) fn send_offsets(&self, positions: &[StoredPosition], row: &Row) -> Result<()> {
        let mut offsets = Vec::with_capacity(positions.len());
        for position in positions {
            offsets.push((&position.topic_partition, position.until_offset.get(), metadata(position, row)?));
        }
        if failpoint::mutant("kafka_offsets_in_second_transaction") {
            self.producer.commit()?;
            self.producer.begin()?;
        }
        self.producer.send_offsets(offsets)
    }

    pub(super) fn commit(&self) -> Result<()> {
        self.producer.commit()
    }

    pub(super) fn abort(&self) -> Result<()> {
        self.producer.abort()
    }
}
