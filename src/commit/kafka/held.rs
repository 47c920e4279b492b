//! What a consumer group holds of an application: positions, and beside each of them, as metadata, the application's row.
//!
//! Every commit writes the row beside the positions that it moves, in the same transaction. So the row with the highest epoch,
//! and of that the highest batch number, is the last one that was committed, whichever partition it lies beside.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    commit::settings::StoredPosition,
    error::{Error, Result},
    kafka::GroupOffset,
    types::{CommittedRange, Offset, TopicId, TopicPartition},
};

/// The form of the metadata. A program that does not know it must not go on from it.
const FORM: u32 = 1;

/// The application's row, which in a database is one of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) epoch: u64,
    pub(super) batch_seq: u64,
    pub(super) batch_time_ms: Option<i64>,
    /// The epoch of the last batch.
    pub(super) batch_epoch: Option<u64>,
    pub(super) zero_time_ms: i64,
    pub(super) interval_ms: i64,
    /// How many positions there were: fewer than that, and some are lost.
    pub(super) positions: u64,
    pub(super) owner: Option<String>,
    pub(super) host: String,
    pub(super) process_id: i64,
}

impl Row {
    pub(super) fn owner_id(&self) -> Result<Option<Uuid>> {
        let parse = |text: &String| text.parse().map_err(|_| Error::corrupt("the stored owner is no uuid"));
        self.owner.as_ref().map(parse).transpose()
    }

    pub(super) fn is_owned(&self, me: Uuid) -> bool {
        self.owner_id().is_ok_and(|owner| owner == Some(me))
    }
}

/// The metadata of one position.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    directstream: u32,
    topic_id: Option<String>,
    leader_epoch: Option<i32>,
    #[serde(flatten)]
    row: Row,
}

/// The form alone: of a newer one nothing else may be understood.
#[derive(Debug, Deserialize)]
struct Form {
    directstream: u32,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// `None`: nobody has started yet, or somebody else wrote the offsets, as an operator does who moves them.
    pub(super) row: Option<Row>,
    pub(super) positions: BTreeMap<TopicPartition, StoredPosition>,
}

impl Held {
    /// What a group has committed.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if positions are missing: the broker forgets those of a topic that is deleted, and
    /// all of a group that was not used for `offsets.retention.minutes`. [`Config`](crate::ErrorKind::Config) if a newer program
    /// wrote them.
    pub(super) fn of(group: &str, offsets: &[GroupOffset]) -> Result<Self> {
        let mut held = Self::default();
        for committed in offsets.iter().filter(|committed| committed.offset >= 0) {
            let note = note(&committed.metadata)?;
            let known = committed.topic_partition.clone();
            let (topic_id, leader_epoch) =
                note.as_ref().map_or((None, None), |note| (note.topic_id.as_deref(), note.leader_epoch));
            let position = StoredPosition {
                topic_partition: known.clone(),
                topic_id: topic_id.map(TopicId::new),
                until_offset: Offset::clamped(committed.offset),
                leader_epoch,
            };
            held.positions.insert(known, position);
            let order = |row: &Row| (row.epoch, row.batch_seq);
            if let Some(Note { row, .. }) = note
                && held.row.as_ref().is_none_or(|last| order(last) < order(&row))
            {
                held.row = Some(row);
            }
        }
        match &held.row {
            Some(row) if (held.positions.len() as u64) < row.positions => Err(Error::corrupt(format!(
                "the group lost committed offsets: a topic was deleted, or offsets.retention.minutes went by group={group} \
                 batch_seq={} positions={} left={}",
                row.batch_seq,
                row.positions,
                held.positions.len()
            ))),
            _ => Ok(held),
        }
    }

    /// The compare-and-swap on offsets (I4): the moved positions, or `None` if one is not the expected one.
    pub(super) fn moved(&self, ranges: &[CommittedRange]) -> Option<Vec<StoredPosition>> {
        let expected = |moved: &CommittedRange| match (self.positions.get(&moved.range.topic_partition), moved.expected)
        {
            (Some(stored), Some(expected)) => {
                stored.until_offset == expected && stored.topic_id == moved.expected_topic_id
            }
            (stored, expected) => stored.is_none() && expected.is_none(),
        };
        let position = |moved: &CommittedRange| {
            expected(moved).then(|| StoredPosition {
                topic_partition: moved.range.topic_partition.clone(),
                topic_id: moved.topic_id.clone(),
                until_offset: moved.range.until_offset,
                leader_epoch: moved.counts.leader_epoch,
            })
        };
        ranges.iter().map(position).collect()
    }

    /// The first positions; `None` if others are there. Equal ones that are there are as good.
    pub(super) fn first(&self, positions: &[StoredPosition]) -> Option<Vec<StoredPosition>> {
        let position = |given: &StoredPosition| match self.positions.get(&given.topic_partition) {
            None => Some(given.clone()),
            Some(stored) => {
                let same = (stored.until_offset, &stored.topic_id) == (given.until_offset, &given.topic_id);
                same.then(|| stored.clone())
            }
        };
        positions.iter().map(position).collect()
    }

    /// Moves positions.
    pub(super) fn put(&mut self, moved: &[StoredPosition]) {
        for position in moved {
            self.positions.insert(position.topic_partition.clone(), position.clone());
        }
    }
}

/// The metadata of a position, with the application's row in it.
pub(super) fn metadata(position: &StoredPosition, row: &Row) -> Result<String> {
    let note = Note {
        directstream: FORM,
        topic_id: position.topic_id.as_ref().map(|id| id.as_str().to_owned()),
        leader_epoch: position.leader_epoch,
        row: row.clone(),
    };
    serde_json::to_string(&note).map_err(|error| Error::internal("a position cannot be written").caused_by(error))
}

/// What lies beside an offset; `None` if that is not ours.
fn note(metadata: &[u8]) -> Result<Option<Note>> {
    match serde_json::from_slice::<Form>(metadata) {
        Ok(Form { directstream: FORM }) => serde_json::from_slice(metadata)
            .map(Some)
            .map_err(|error| Error::corrupt("the metadata of a committed offset cannot be read").caused_by(error)),
        Ok(Form { directstream }) => Err(Error::config(format!(
            "the group's offsets were committed by a newer program form={directstream} known={FORM}"
        ))),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind,
        kafka::Code,
        types::{OffsetRange, RangeCounts},
    };

    fn position(partition: i32, offset: i64) -> StoredPosition {
        StoredPosition {
            topic_partition: TopicPartition::new("orders", partition),
            topic_id: Some(TopicId::new("abc")),
            until_offset: Offset::clamped(offset),
            leader_epoch: Some(3),
        }
    }

    fn row(epoch: u64, batch_seq: u64, positions: u64) -> Row {
        Row { epoch, batch_seq, positions, owner: Some(Uuid::nil().to_string()), ..Row::default() }
    }

    fn committed(position: &StoredPosition, metadata: &str) -> GroupOffset {
        GroupOffset {
            topic_partition: position.topic_partition.clone(),
            offset: position.until_offset.get(),
            metadata: metadata.as_bytes().to_vec(),
            code: Code::NONE,
        }
    }

    #[test]
    fn the_row_is_that_of_the_last_commit_and_positions_come_back_as_they_were() {
        let (old, new) = (row(2, 9, 2), row(3, 7, 2));
        let offsets = [(0, 5, &new), (1, 8, &old)].map(|(partition, offset, row)| {
            let position = position(partition, offset);
            committed(&position, &metadata(&position, row).unwrap())
        });
        let held = Held::of("g", &offsets).unwrap();
        assert_eq!(held.row, Some(new));
        assert_eq!(held.positions.into_values().collect::<Vec<_>>(), [position(0, 5), position(1, 8)]);
    }

    #[test]
    fn offsets_of_somebody_else_are_positions_without_a_row() {
        let none = GroupOffset { offset: -1001, ..committed(&position(2, 0), "") };
        let held = Held::of("g", &[committed(&position(0, 5), ""), committed(&position(1, 6), "{}"), none]).unwrap();
        assert_eq!((held.row, held.positions.len()), (None, 2));
        assert!(held.positions.values().all(|position| position.topic_id.is_none()));
    }

    #[test]
    fn lost_positions_and_a_newer_form_are_refused() {
        let one = position(0, 5);
        let lost = Held::of("g", &[committed(&one, &metadata(&one, &row(1, 1, 2)).unwrap())]).unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Corrupt);
        let newer = Held::of("g", &[committed(&one, r#"{"directstream":2,"else":true}"#)]).unwrap_err();
        assert_eq!(newer.kind(), ErrorKind::Config);
    }

    #[test]
    fn offsets_move_only_from_where_they_are_expected() {
        let mut held = Held::default();
        held.put(&[position(0, 5)]);
        let range = |partition, expected: Option<i64>, id: Option<&str>| CommittedRange {
            range: OffsetRange::new(TopicPartition::new("orders", partition), Offset::clamped(5), Offset::clamped(9)),
            expected: expected.map(Offset::clamped),
            expected_topic_id: id.map(TopicId::new),
            topic_id: id.map(TopicId::new),
            counts: RangeCounts { leader_epoch: Some(3), ..RangeCounts::default() },
        };
        assert_eq!(held.moved(&[range(0, Some(5), Some("abc"))]), Some(vec![position(0, 9)]));
        assert_eq!(held.moved(&[range(1, None, Some("abc"))]), Some(vec![position(1, 9)]));
        let refused = [(0, Some(4), Some("abc")), (0, Some(5), Some("other")), (0, None, None), (1, Some(5), None)];
        for (partition, expected, id) in refused {
            assert_eq!(held.moved(&[range(partition, expected, id)]), None, "{partition} {expected:?} {id:?}");
        }
    }
}
