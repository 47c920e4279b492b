//! One Kafka client, and how partitions come to be read by it: assigned, sought, given up.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{lane::Lane, reader::ReaderSettings};
use crate::{
    error::{Error, Result, Stage},
    kafka::{CallError, Client, ClientError, ClientErrors, Code, PartitionQueue, Place, QueueLimits},
    types::TopicPartition,
};

/// How long a seek may take: it is answered within the client, without a broker.
const SEEK_LIMIT: Duration = Duration::from_secs(5);
/// Pause between the tries to seek in a partition whose assignment is still under way, and how many there are.
const SEEK_RETRY_PAUSE: Duration = Duration::from_millis(5);
const SEEK_TRIES: u32 = 100;
const EVENTS_MAX: usize = 10_000;

/// A lane, and where it is to stand.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) lane: &'a mut Lane,
    pub(super) offset: i64,
    /// The epoch that the offset was read under.
    pub(super) leader_epoch: Option<i32>,
}

impl Wanted<'_> {
    fn place(&self) -> Place<'_> {
        Place { topic_partition: &self.lane.topic_partition, offset: self.offset, leader_epoch: self.leader_epoch }
    }
}

/// A client and what it said.
#[derive(Debug)]
pub(super) struct Slot {
    client: Arc<Client>,
    errors: ClientErrors,
    /// Partitions whose records came on the client's main queue. Nothing of it is known to happen, since queues are cut
    /// off before every assign; if it does, the range fails and is read again.
    strays: Mutex<HashMap<TopicPartition, i64>>,
}

impl Slot {
    pub(super) fn new(settings: &ReaderSettings, limits: QueueLimits) -> Result<Self> {
        let client = settings.properties.reader(settings.isolation, limits)?;
        Ok(Self { client, errors: ClientErrors::default(), strays: Mutex::default() })
    }

    /// Assigns and seeks in the lanes at `indexes`; gives those back that could not be placed.
    ///
    /// An assign is always followed by a seek: the seek carries the leader epoch, and only when it is answered is it sure
    /// that the position of an earlier assignment is forgotten, which the close rule must never see.
    pub(super) fn place(&self, lanes: &mut [Wanted<'_>], mut indexes: Vec<usize>) -> Result<Vec<usize>> {
        if !indexes.is_empty() {
            self.assign(lanes, &indexes)?;
            self.seek(lanes, &indexes)?;
            indexes.retain(|&index| lanes[index].lane.next.is_none());
        }
        Ok(indexes)
    }

    fn assign(&self, lanes: &mut [Wanted<'_>], indexes: &[usize]) -> Result<()> {
        let mut new = Vec::new();
        for &index in indexes {
            let lane = &mut lanes[index].lane;
            if lane.stopped {
                lane.give_up();
            }
            if lane.queue.is_none() {
                let queue = PartitionQueue::open(&self.client, &lane.topic_partition);
                lane.queue = Some(queue.map_err(|error| refused(&error))?);
                lane.stopped = false;
                lock(&self.strays).remove(&lane.topic_partition);
                new.push(index);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let places: Vec<_> = new.iter().map(|&index| lanes[index].place()).collect();
        self.client.assign(&places).map_err(|error| {
            for &index in &new {
                lanes[index].lane.queue = None;
            }
            refused(&error)
        })
    }

    fn seek(&self, lanes: &mut [Wanted<'_>], indexes: &[usize]) -> Result<()> {
        let mut indexes = indexes.to_vec();
        for _ in 0..SEEK_TRIES {
            let places: Vec<_> = indexes.iter().map(|&index| lanes[index].place()).collect();
            let codes = self.client.seek(&places, SEEK_LIMIT).map_err(|error| refused(&error))?;
            let mut again = Vec::new();
            for (&index, code) in indexes.iter().zip(codes) {
                let Wanted { lane, offset, .. } = &mut lanes[index];
                lane.refused = Some(code);
                match code {
                    Code::NONE => lane.placed_at(*offset),
                    // Its assignment, or the end of the one before, is still under way.
                    Code::STATE | Code::PREV_IN_PROGRESS | Code::UNKNOWN_PARTITION_LOCAL => again.push(index),
                    _ => lane.stopped = true,
                }
            }
            if again.is_empty() {
                return Ok(());
            }
            indexes = again;
            std::thread::sleep(SEEK_RETRY_PAUSE);
        }
        for index in indexes {
            lanes[index].lane.stopped = true;
        }
        Ok(())
    }

    /// Takes in what lies on the client's main queue.
    pub(super) fn drain_events(&self, now: Duration) {
        let events = self.client.poll_events(EVENTS_MAX);
        for (topic_partition, offset) in self.errors.take_in(events, now) {
            lock(&self.strays).insert(topic_partition, offset);
        }
    }

    /// The offset of a record of this partition that came on the main queue, if one did.
    pub(super) fn take_stray(&self, topic_partition: &TopicPartition) -> Option<i64> {
        lock(&self.strays).remove(topic_partition)
    }

    pub(super) fn errors_since(&self, since: Duration) -> Vec<ClientError> {
        self.errors.since(since)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(error: &CallError) -> Error {
    Error::internal(format!("the kafka client refused the assignment: {error}")).at(Stage::Read)
}
