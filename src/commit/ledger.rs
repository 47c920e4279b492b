//! The numbers of a batch's ledger row.

use crate::{
    error::{Error, Result},
    types::{BatchCommit, TopicPartition},
};

/// How many old batches leave the ledger with each tenth batch: more than come, so that it shrinks after a change of the
/// retention, and few, so that no batch pays for all.
pub(super) const FORGET_PER_BATCH: i64 = 50;
/// Every how many batches.
pub(super) const FORGET_EVERY: u64 = 10;

/// A batch in numbers, as the databases' signed 64 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) records: i64,
    pub(crate) gaps: i64,
    pub(crate) bytes: i64,
    pub(crate) rows: i64,
    pub(crate) dead_letters: i64,
    pub(crate) lost_ranges: i64,
}

impl Totals {
    pub(crate) fn of(batch: &BatchCommit) -> Self {
        let sum = |count: &mut dyn Iterator<Item = u64>| signed(count.fold(0, u64::saturating_add));
        let isolated = batch.isolating.as_ref().map(|isolating| isolating.isolated).unwrap_or_default();
        let counts = || batch.ranges.iter().map(|range| range.counts);
        Self {
            records: sum(&mut counts().map(|counts| counts.records)),
            gaps: sum(&mut counts().map(|counts| counts.gaps)),
            bytes: sum(&mut counts().map(|counts| counts.bytes)),
            rows: sum(&mut batch.tables.iter().flat_map(|table| &table.chunks).map(|chunk| chunk.rows))
                .saturating_add(signed(isolated.rows)),
            dead_letters: length(batch.dead_letters.len()).saturating_add(signed(isolated.dead_letters)),
            lost_ranges: length(batch.lost_ranges.len()),
        }
    }
}

/// A count as the databases' signed 64 bits.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A length as the databases' signed 64 bits.
pub(crate) fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A stored number that is never negative.
pub(crate) fn unsigned(what: &str, stored: i64) -> Result<u64> {
    u64::try_from(stored).map_err(|_| Error::corrupt(format!("a stored number is negative {what}={stored}")))
}

/// A partition that the ledger knows has no stored offset. Only an operator can tell where it stands.
pub(super) fn offset_gone(topic_partition: TopicPartition) -> Error {
    Error::corrupt("a stored offset is missing although the ledger has ranges of its partition").on(topic_partition)
}
