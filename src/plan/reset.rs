//! Where an operator wants reading to go on: the scenarios of `kafka-consumer-groups --reset-offsets`, as arithmetic.

use std::collections::BTreeMap;

use crate::types::{Offset, TopicPartition};

/// Where the offsets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResetTo {
    /// To the first offset that Kafka still has.
    Earliest,
    /// After the last record that may be read, by the job's isolation level.
    Latest,
    /// Where they are.
    Current,
    /// To this offset of every partition.
    Offset(i64),
    /// So many offsets on, or back.
    ShiftBy(i64),
    /// To the first record with this timestamp or a later one; milliseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// To these offsets; partitions that are not named stay where they are.
    Offsets(BTreeMap<TopicPartition, i64>),
}

/// What is known of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The stored offset; `None` if there is none yet.
    pub current: Option<Offset>,
    /// The first offset that Kafka still has.
    pub earliest: Offset,
    /// The offset after the last record that may be read.
    pub latest: Offset,
    /// The first offset at or after the time that was asked for; `None` if no record is as late, or none was asked for.
    pub by_timestamp: Option<Offset>,
}

/// Where one partition goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetOffset {
    /// The next offset to read.
    pub offset: Offset,
    /// Why it is not the one that was asked for.
    pub adjusted: Option<Adjusted>,
}

/// Why an offset is not the one that was asked for. Kafka's own tool does the same, with a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjusted {
    /// Kafka has nothing as early as this: the earliest offset instead.
    BelowEarliest {
        /// What was asked for.
        wanted: i64,
    },
    /// Kafka has nothing as late as this: the latest offset instead.
    AboveLatest {
        /// What was asked for.
        wanted: i64,
    },
    /// No record is as late as the time: the latest offset instead.
    NoneAfter,
}

impl Adjusted {
    /// What is told.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::BelowEarliest { wanted } => {
                format!("the new offset is lower than the earliest one, which is taken instead wanted={wanted}")
            }
            Self::AboveLatest { wanted } => {
                format!("the new offset is higher than the latest one, which is taken instead wanted={wanted}")
            }
            Self::NoneAfter => "no record is as late as that: the latest offset is taken instead".to_owned(),
        }
    }
}

/// Where one partition goes; `None` if it stays without an offset, or where it is because it is not named.
///
/// # Errors
/// In one line, if a partition cannot be shifted because nothing is stored for it.
pub fn reset_offset(
    to: &ResetTo,
    topic_partition: &TopicPartition,
    known: &PartitionOffsets,
) -> Result<Option<ResetOffset>, String> {
    let exactly = |offset| Ok(Some(ResetOffset { offset, adjusted: None }));
    match to {
        ResetTo::Earliest => exactly(known.earliest),
        ResetTo::Latest => exactly(known.latest),
        // Not even where Kafka has it no more: whoever runs the job decides about a loss.
        ResetTo::Current => Ok(known.current.map(|offset| ResetOffset { offset, adjusted: None })),
        ResetTo::Offset(wanted) => Ok(Some(within(*wanted, known))),
        ResetTo::ShiftBy(by) => match known.current {
            Some(current) => Ok(Some(within(current.get().saturating_add(*by), known))),
            None => Err(format!("{topic_partition} cannot be shifted: no offset is stored for it")),
        },
        ResetTo::Timestamp(_) => match known.by_timestamp {
            // An offset by timestamp can lie beyond what read_committed may see.
            Some(offset) => Ok(Some(within(offset.get(), known))),
            None => Ok(Some(ResetOffset { offset: known.latest, adjusted: Some(Adjusted::NoneAfter) })),
        },
        ResetTo::Offsets(offsets) => Ok(offsets.get(topic_partition).map(|wanted| within(*wanted, known))),
    }
}

/// The offset, or the end of the log that is nearer to it.
fn within(wanted: i64, known: &PartitionOffsets) -> ResetOffset {
    if wanted < known.earliest.get() {
        return ResetOffset { offset: known.earliest, adjusted: Some(Adjusted::BelowEarliest { wanted }) };
    }
    if wanted > known.latest.get() {
        return ResetOffset { offset: known.latest, adjusted: Some(Adjusted::AboveLatest { wanted }) };
    }
    ResetOffset { offset: Offset::clamped(wanted), adjusted: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(offset: i64) -> Offset {
        Offset::new(offset).unwrap()
    }

    fn known(current: Option<i64>) -> PartitionOffsets {
        let (current, by_timestamp) = (current.map(at), None);
        PartitionOffsets { current, earliest: at(10), latest: at(100), by_timestamp }
    }

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    /// Where it goes, and whether that is what was asked for.
    fn reset(to: &ResetTo, known: &PartitionOffsets) -> Option<(i64, bool)> {
        let reset = reset_offset(to, &tp(0), known).unwrap();
        reset.map(|reset| (reset.offset.get(), reset.adjusted.is_none()))
    }

    #[test]
    fn every_scenario_of_kafkas_own_tool_is_known() {
        let named = ResetTo::Offsets([(tp(0), 44), (tp(1), 7)].into());
        for (to, current, expected) in [
            (ResetTo::Earliest, Some(40), Some((10, true))),
            (ResetTo::Latest, Some(40), Some((100, true))),
            (ResetTo::Latest, None, Some((100, true))),
            (ResetTo::Current, Some(40), Some((40, true))),
            (ResetTo::Current, Some(3), Some((3, true))),
            // Kafka would take the latest offset; a partition that joins here begins at the earliest.
            (ResetTo::Current, None, None),
            (ResetTo::Offset(50), Some(40), Some((50, true))),
            (ResetTo::Offset(10), Some(40), Some((10, true))),
            (ResetTo::Offset(100), Some(40), Some((100, true))),
            (ResetTo::Offset(9), Some(40), Some((10, false))),
            (ResetTo::Offset(101), Some(40), Some((100, false))),
            (ResetTo::Offset(-1), Some(40), Some((10, false))),
            (ResetTo::ShiftBy(-5), Some(40), Some((35, true))),
            (ResetTo::ShiftBy(60), Some(40), Some((100, true))),
            (ResetTo::ShiftBy(61), Some(40), Some((100, false))),
            (ResetTo::ShiftBy(-31), Some(40), Some((10, false))),
            (named.clone(), Some(40), Some((44, true))),
        ] {
            assert_eq!(reset(&to, &known(current)), expected, "{to:?} {current:?}");
        }
        assert_eq!(reset_offset(&named, &tp(2), &known(Some(1))), Ok(None));
        let told = reset_offset(&ResetTo::ShiftBy(1), &tp(0), &known(None)).unwrap_err();
        assert_eq!(told, "t-0 cannot be shifted: no offset is stored for it");
    }

    #[test]
    fn a_time_is_the_first_record_from_it_on_and_after_the_last_one_the_end() {
        let to = ResetTo::Timestamp(1);
        let found = |offset: i64| PartitionOffsets { by_timestamp: Some(at(offset)), ..known(Some(40)) };
        assert_eq!(reset(&to, &found(77)), Some((77, true)));
        assert_eq!(reset(&to, &found(101)), Some((100, false)));
        assert_eq!(reset(&to, &known(Some(40))), Some((100, false)));
        let after = reset_offset(&to, &tp(0), &known(Some(40))).unwrap().unwrap();
        assert_eq!(after.adjusted, Some(Adjusted::NoneAfter));
        assert!(after.adjusted.unwrap().text().contains("no record is as late"));
    }

    proptest! {
        #[test]
        fn no_number_overflows_and_every_new_offset_is_one_that_kafka_has(
            wanted: i64,
            current in 0..=i64::MAX,
            ends in (0..=i64::MAX, 0..=i64::MAX),
        ) {
            let (earliest, latest) = (at(ends.0.min(ends.1)), at(ends.0.max(ends.1)));
            let known = PartitionOffsets { current: Some(at(current)), earliest, latest, by_timestamp: Some(at(current)) };
            for to in [ResetTo::Offset(wanted), ResetTo::ShiftBy(wanted), ResetTo::Timestamp(wanted)] {
                let reset = reset_offset(&to, &tp(0), &known).unwrap().unwrap();
                prop_assert!((earliest..=latest).contains(&reset.offset));
            }
        }
    }
}
