//! The stored state of state operators, for a start that takes it in again.

use std::ops::Range;

use sqlx::AssertSqlSafe;

use super::{
    inspect::Inspector,
    ledger::unsigned,
    link::{Link, fetch, no_sql},
    postgres, sqlite,
};
use crate::{
    error::{Error, Result},
    types::{SegmentKind, StateSegment},
};

type SegmentRow = (i64, String, i64, Vec<u8>);

impl Inspector {
    /// The stored segments of some partitions of a state operator: of each in the order of batches.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn state(&mut self, operator: u32, partitions: Range<u32>) -> Result<Vec<Vec<StateSegment>>> {
        if let Link::Checkpoint(look) = &mut self.connection {
            return look.segments(operator, partitions);
        }
        let mut found = Vec::new();
        for partition in partitions {
            found.push(self.partition_state(operator, partition).await?);
        }
        Ok(found)
    }

    async fn partition_state(&mut self, operator: u32, partition: u32) -> Result<Vec<StateSegment>> {
        let sql = "SELECT batch_seq, kind, keys, data FROM {}state WHERE application = $1 AND operator = $2 \
             AND partition = $3 ORDER BY batch_seq";
        let what = "cannot read the stored state";
        let (stored_operator, stored_partition) = (i64::from(operator), i64::from(partition));
        let rows =
            fetch!(&mut self.connection, what, SegmentRow, sql, &self.application, stored_operator, stored_partition)?;
        let segment = |(batch_seq, kind, keys, data): SegmentRow| {
            let unknown = || Error::corrupt(format!("a segment of stored state is of no known kind kind={kind:?}"));
            Ok(StateSegment {
                operator,
                partition,
                batch_seq: unsigned("batch_seq", batch_seq)?,
                kind: SegmentKind::named(&kind).ok_or_else(unknown)?,
                keys: unsigned("keys", keys)?,
                data,
            })
        };
        rows.into_iter().map(segment).collect()
    }
}
