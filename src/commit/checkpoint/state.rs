//! What is kept, and how a batch changes it. Pure: nothing is read or written here.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::{
    identity::{self, Identity},
    ledger::Totals,
    moves::MoveRequest,
    owner_file,
    protocol::{Grounds, Judged, Session, Term},
    settings::{StoreSettings, StoredPosition},
};
use crate::{
    error::{Error, Result},
    failpoint,
    types::{BatchCommit, BatchTime, CommittedRange, Offset, TopicId, TopicPartition},
};

/// Takeovers that are remembered: enough to see processes that fence each other in turn.
const TAKEOVERS_MAX: usize = 20;
/// What "in the last minute" means for those.
const HASTY_WITHIN_MS: i64 = 60_000;

/// All that is kept of an application but its past batches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) epoch: u64,
    pub(super) owner: Option<String>,
    pub(super) host: Option<String>,
    pub(super) process_id: Option<i64>,
    pub(super) seen_at_ms: Option<i64>,
    pub(super) batch_seq: u64,
    pub(super) last_batch_time_ms: Option<i64>,
    pub(super) last_batch_epoch: Option<u64>,
    pub(super) zero_time_ms: Option<i64>,
    pub(super) interval_ms: Option<i64>,
    pub(super) fingerprint: Option<String>,
    pub(super) cluster_id: Option<String>,
    pub(super) build: Option<String>,
    /// In the order of topic and partition.
    pub(super) positions: Vec<Position>,
    /// The newest last.
    pub(super) takeovers: Vec<Takeover>,
}

/// A committed position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    topic: String,
    partition: i32,
    until_offset: i64,
    topic_id: Option<String>,
    leader_epoch: Option<i32>,
}

/// Who became the owner, and why that was right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Takeover {
    epoch: u64,
    owner: String,
    host: String,
    process_id: i64,
    grounds: String,
    taken_at_ms: i64,
}

/// What is kept of a past batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) batch_seq: u64,
    /// Its ledger row; `None` once the ledger has forgotten it.
    pub(super) batch: Option<Batch>,
    pub(super) lost_ranges: Vec<Lost>,
    pub(super) dead_letters: Vec<Letter>,
    /// Offsets that an operator moved after this batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) moves: Vec<Move>,
}

/// A batch's ledger row with its ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Batch {
    pub(super) batch_time_ms: i64,
    pub(super) epoch: u64,
    pub(super) records: u64,
    pub(super) gaps: u64,
    pub(super) bytes: u64,
    pub(super) processing_started_ms: i64,
    pub(super) committed_at_ms: i64,
    pub(super) build: String,
    pub(super) ranges: Vec<Range>,
}

/// A range of a batch that is not empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) from_offset: i64,
    pub(super) until_offset: i64,
    pub(super) records: u64,
    pub(super) gaps: u64,
    pub(super) bytes: u64,
    pub(super) checksum: u64,
    pub(super) topic_id: Option<String>,
    pub(super) leader_epoch: Option<i32>,
}

/// Offsets that a batch went over because Kafka had lost them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lost {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) from_offset: i64,
    pub(super) until_offset: Option<i64>,
    pub(super) reason: String,
    pub(super) topic_id: Option<String>,
}

/// An offset that an operator moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Move {
    pub(super) epoch: u64,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) from_offset: Option<i64>,
    pub(super) until_offset: i64,
    pub(super) topic_id: Option<String>,
    pub(super) scenario: String,
    pub(super) host: String,
    pub(super) process_id: i64,
    pub(super) build: String,
    pub(super) moved_at_ms: i64,
}

/// A record that was refused; its bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Letter {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) stage: String,
    pub(super) reason: String,
    pub(super) output: Option<String>,
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
    pub(super) headers: String,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) refused_at_ms: i64,
}

impl Entry {
    /// Lost ranges, dead letters and moved offsets: what outlives the ledger's row.
    pub(super) fn outlives(&self) -> bool {
        !self.lost_ranges.is_empty() || !self.dead_letters.is_empty() || !self.moves.is_empty()
    }

    /// Offsets that an operator moves after a batch.
    pub(super) fn of_moves(batch_seq: u64, moves: Vec<Move>) -> Self {
        Self { batch_seq, batch: None, lost_ranges: Vec::new(), dead_letters: Vec::new(), moves }
    }
}

fn topic_id(id: Option<&TopicId>) -> Option<String> {
    id.map(|id| id.as_str().to_owned())
}

impl Position {
    fn new(tp: &TopicPartition, until: Offset, id: Option<&TopicId>, leader_epoch: Option<i32>) -> Self {
        let topic = tp.topic.to_string();
        Self { topic, partition: tp.partition, until_offset: until.get(), topic_id: topic_id(id), leader_epoch }
    }

    fn of(stored: &StoredPosition) -> Self {
        let StoredPosition { topic_partition, topic_id, until_offset, leader_epoch } = stored;
        Self::new(topic_partition, *until_offset, topic_id.as_ref(), *leader_epoch)
    }

    fn key(&self) -> (&str, i32) {
        (&self.topic, self.partition)
    }

    /// As the driver takes it.
    pub(super) fn stored(&self) -> Result<StoredPosition> {
        Ok(StoredPosition {
            topic_partition: TopicPartition::new(self.topic.as_str(), self.partition),
            topic_id: self.topic_id.as_deref().map(TopicId::new),
            until_offset: offset(self.until_offset)?,
            leader_epoch: self.leader_epoch,
        })
    }
}

/// A stored offset.
pub(super) fn offset(stored: i64) -> Result<Offset> {
    Offset::new(stored).ok_or_else(|| Error::corrupt("a stored offset is negative"))
}

impl State {
    /// Epoch and batch number.
    pub(super) fn term(&self) -> Term {
        Term { epoch: self.epoch, batch_seq: self.batch_seq }
    }

    /// Who owns the application.
    pub(super) fn owner_id(&self) -> Result<Option<Uuid>> {
        let parse = |text: &String| text.parse().map_err(|_| Error::corrupt("the stored owner is no uuid"));
        self.owner.as_ref().map(parse).transpose()
    }

    /// Whether `owner` owns it under this epoch.
    pub(super) fn is_owned(&self, owner: Uuid, epoch: u64) -> bool {
        self.epoch == epoch && self.owner.as_deref() == Some(&owner.to_string())
    }

    /// The live owner, as a message names it; `None` if nobody owns the application, or who did is dead. `owners` is where their
    /// lock files are.
    pub(super) fn live_owner(&self, owners: &std::path::Path) -> Result<Option<String>> {
        let Some(owner) = self.owner_id()? else { return Ok(None) };
        let gone = owner_file::look(owners, owner) == Session::Gone;
        Ok((!gone).then(|| self.told()))
    }

    /// Who owned the application last, for a message.
    pub(super) fn told(&self) -> String {
        format!(
            "host={} process_id={} last_batch_time={}",
            self.host.as_deref().unwrap_or_default(),
            self.process_id.unwrap_or_default(),
            self.last_batch_time_ms.map_or_else(|| "none".to_owned(), |ms| BatchTime::from_ms(ms).to_string())
        )
    }

    /// What must stay the same from start to start.
    pub(super) fn identity(&self) -> Identity {
        Identity {
            fingerprint: self.fingerprint.clone(),
            cluster_id: self.cluster_id.clone(),
            interval_ms: self.interval_ms,
        }
    }

    /// Takeovers by age or by force in the last minute.
    pub(super) fn hasty_takeovers(&self, now_ms: i64) -> u32 {
        let hasty = |takeover: &&Takeover| {
            [Grounds::Age, Grounds::Force].iter().any(|grounds| grounds.word() == takeover.grounds)
                && takeover.taken_at_ms > now_ms - HASTY_WITHIN_MS
        };
        u32::try_from(self.takeovers.iter().filter(hasty).count()).unwrap_or(u32::MAX)
    }

    /// The state after a takeover; `None` if it is not the judged one any more, nor ours.
    pub(super) fn taken(
        &self,
        judged: Judged,
        grounds: Grounds,
        me: &StoreSettings,
        now_ms: i64,
    ) -> Result<Option<Self>> {
        let owner = self.owner_id()?;
        if (self.epoch, owner) != (judged.epoch, judged.owner) && owner != Some(me.owner) {
            return Ok(None);
        }
        let mut next = self.clone();
        next.epoch += 1;
        next.owner = Some(me.owner.to_string());
        next.host = Some(identity::host());
        next.process_id = Some(identity::process_id());
        next.seen_at_ms = Some(now_ms);
        next.build = Some(me.build.clone());
        next.interval_ms = Some(identity::interval_ms(me));
        next.cluster_id = next.cluster_id.or_else(|| me.cluster_id.clone());
        next.fingerprint.get_or_insert_with(|| me.fingerprint.clone());
        next.zero_time_ms.get_or_insert(me.zero_time_ms);
        next.takeovers.push(Takeover {
            epoch: next.epoch,
            owner: me.owner.to_string(),
            host: identity::host(),
            process_id: identity::process_id(),
            grounds: grounds.word().to_owned(),
            taken_at_ms: now_ms,
        });
        let old = next.takeovers.len().saturating_sub(TAKEOVERS_MAX);
        next.takeovers.drain(..old);
        Ok(Some(next))
    }

    fn find(&self, tp: &TopicPartition) -> Result<usize, usize> {
        self.positions.binary_search_by(|position| position.key().cmp(&(&*tp.topic, tp.partition)))
    }

    /// Puts a position in its place.
    pub(super) fn put(&mut self, position: Position) {
        match self.positions.binary_search_by(|other| other.key().cmp(&position.key())) {
            Ok(index) => self.positions[index] = position,
            Err(index) => self.positions.insert(index, position),
        }
    }

    /// The compare-and-swap on offsets (I4): the moved positions, or `None` if one is not the expected one.
    pub(super) fn moved(&self, ranges: &[CommittedRange]) -> Option<Vec<Position>> {
        let expected = |moved: &CommittedRange| match (self.find(&moved.range.topic_partition), moved.expected) {
            (Ok(_), Some(_)) if failpoint::mutant("no_offset_check") => true,
            (Ok(index), Some(expected)) => {
                let stored = &self.positions[index];
                stored.until_offset == expected.get() && stored.topic_id == topic_id(moved.expected_topic_id.as_ref())
            }
            (found, expected) => found.is_err() && expected.is_none(),
        };
        let position = |moved: &CommittedRange| {
            let range = &moved.range;
            let (id, leader_epoch) = (moved.topic_id.as_ref(), moved.counts.leader_epoch);
            expected(moved).then(|| Position::new(&range.topic_partition, range.until_offset, id, leader_epoch))
        };
        ranges.iter().map(position).collect()
    }

    /// The state after an operator's move, which nobody owns, and what is noted of it; the first partition whose offset is not
    /// the expected one, if there is one.
    pub(super) fn moved_by(
        &self,
        request: &MoveRequest,
        me: &StoreSettings,
        now_ms: i64,
    ) -> Result<(Self, Entry), TopicPartition> {
        let cluster_id = request.cluster_id.clone().or_else(|| self.cluster_id.clone());
        let mut next = Self { epoch: self.epoch + 1, owner: None, cluster_id, ..self.clone() };
        let mut moves = Vec::with_capacity(request.moves.len());
        for one in &request.moves {
            let tp = &one.topic_partition;
            let stored = self.find(tp).ok().map(|index| self.positions[index].until_offset);
            if stored != one.expected.map(Offset::get) {
                return Err(tp.clone());
            }
            next.put(Position::new(tp, one.until_offset, one.topic_id.as_ref(), None));
            moves.push(Move {
                epoch: next.epoch,
                topic: tp.topic.to_string(),
                partition: tp.partition,
                from_offset: stored,
                until_offset: one.until_offset.get(),
                topic_id: topic_id(one.topic_id.as_ref()),
                scenario: request.scenario.clone(),
                host: identity::host(),
                process_id: identity::process_id(),
                build: me.build.clone(),
                moved_at_ms: now_ms,
            });
        }
        Ok((next, Entry::of_moves(self.batch_seq, moves)))
    }

    /// The first positions; `None` if others are there. Equal ones that are there are as good.
    pub(super) fn first(&self, positions: &[StoredPosition]) -> Option<Vec<Position>> {
        let position = |position: &StoredPosition| match self.find(&position.topic_partition) {
            Err(_) => Some(Position::of(position)),
            Ok(index) => {
                let (stored, given) = (&self.positions[index], Position::of(position));
                let same = (stored.until_offset, &stored.topic_id) == (given.until_offset, &given.topic_id);
                same.then(|| stored.clone())
            }
        };
        positions.iter().map(position).collect()
    }
}

impl Entry {
    /// What a batch leaves behind.
    pub(super) fn of(batch: &BatchCommit, epoch: u64, build: &str, now_ms: i64) -> Self {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| BASE64_STANDARD.encode(bytes));
        let totals = Totals::of(batch);
        let count = |count: i64| u64::try_from(count).unwrap_or_default();
        let lost = batch.lost_ranges.iter().map(|lost| Lost {
            topic: lost.topic_partition.topic.to_string(),
            partition: lost.topic_partition.partition,
            from_offset: lost.from_offset.get(),
            until_offset: lost.until_offset.map(i64::from),
            reason: lost.reason.to_string(),
            topic_id: topic_id(lost.topic_id.as_ref()),
        });
        let letters = batch.dead_letters.iter().map(|letter| Letter {
            topic: letter.topic_partition.topic.to_string(),
            partition: letter.topic_partition.partition,
            offset: letter.offset.get(),
            stage: letter.stage.to_string(),
            reason: letter.reason.clone(),
            output: letter.output.clone(),
            key: text(&letter.key),
            value: text(&letter.value),
            headers: letter.headers.clone(),
            timestamp_ms: letter.timestamp_ms,
            refused_at_ms: now_ms,
        });
        Self {
            batch_seq: batch.batch_seq,
            lost_ranges: lost.collect(),
            dead_letters: letters.collect(),
            moves: Vec::new(),
            batch: Some(Batch {
                batch_time_ms: batch.batch_time.as_ms(),
                epoch,
                records: count(totals.records),
                gaps: count(totals.gaps),
                bytes: count(totals.bytes),
                processing_started_ms: batch.processing_started_ms,
                committed_at_ms: now_ms,
                build: build.to_owned(),
                ranges: batch.ranges.iter().filter(|moved| !moved.range.is_empty()).map(Range::of).collect(),
            }),
        }
    }
}

impl Range {
    fn of(moved: &CommittedRange) -> Self {
        Self {
            topic: moved.range.topic().to_owned(),
            partition: moved.range.partition(),
            from_offset: moved.range.from_offset.get(),
            until_offset: moved.range.until_offset.get(),
            records: moved.counts.records,
            gaps: moved.counts.gaps,
            bytes: moved.counts.bytes,
            checksum: moved.counts.checksum,
            topic_id: topic_id(moved.topic_id.as_ref()),
            leader_epoch: moved.counts.leader_epoch,
        }
    }
}
