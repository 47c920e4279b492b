//! The traces that a batch's records came with, of the first records of each range.

use std::collections::HashMap;

use crate::{
    report::{TRACE_LINKS_MAX, TraceParent},
    types::{Chunk, Record, TopicPartition},
};

/// Looks at the headers of so many records of a batch as there may be links, shared among its ranges: of each range at the
/// first ones. A batch of very many ranges has links of one record of each, up to that number.
///
/// This is what traces cost where records are read: headers were parsed by the client already, and no record after those is
/// looked at.
#[derive(Debug, Default)]
pub(super) struct Parents {
    /// So many of each range; 0: none, traces are off.
    of_range: usize,
    /// How many were looked at, and the offset up to which: a range that is read once more has nothing new.
    looked_at: HashMap<TopicPartition, (usize, i64)>,
    found: Vec<TraceParent>,
}

impl Parents {
    /// For a batch of so many ranges that are not empty.
    pub(super) fn sought_in(ranges: u64) -> Self {
        let ranges = usize::try_from(ranges).unwrap_or(usize::MAX).max(1);
        Self { of_range: (TRACE_LINKS_MAX / ranges).max(1), ..Self::default() }
    }

    /// Looks at a chunk, if it is among the first ones of its range.
    pub(super) fn look(&mut self, chunk: &std::sync::Arc<Chunk>) {
        if self.of_range == 0 || self.found.len() >= TRACE_LINKS_MAX {
            return;
        }
        let Some((count, next)) = self.looked_at.get_mut(chunk.topic_partition()) else {
            self.looked_at.insert(chunk.topic_partition().clone(), (0, i64::MIN));
            return self.look(chunk);
        };
        let room = self.of_range.saturating_sub(*count);
        let from = *next;
        for record in chunk.records().skip_while(|record| record.offset().get() < from).take(room) {
            *count += 1;
            *next = record.offset().get() + 1;
            self.found.extend(parent_of(&record));
        }
        self.found.truncate(TRACE_LINKS_MAX);
    }

    /// What was found.
    pub(super) fn found(&self) -> &[TraceParent] {
        &self.found
    }
}

/// The last header of that name counts, as for OpenTelemetry's own instrumentation of Kafka's clients.
fn parent_of(record: &Record) -> Option<TraceParent> {
    let mut parent = None;
    record.for_each_header(|name, value| {
        if name == b"traceparent" {
            parent = value.and_then(TraceParent::parse);
        }
    });
    parent
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::{MemoryChunk, MemoryRecord, Offset};

    fn header(number: usize) -> String {
        format!("00-{:032x}-{:016x}-01", number + 1, number + 1)
    }

    /// Records of these offsets, the trace of each being its offset.
    fn chunk(partition: i32, offsets: std::ops::Range<i64>) -> Arc<Chunk> {
        let of = |offset: i64| MemoryRecord {
            offset: Offset::clamped(offset),
            headers: vec![
                ("traceparent".to_owned(), Some(b"broken".to_vec())),
                ("traceparent".to_owned(), Some(header(usize::try_from(offset).unwrap()).into_bytes())),
                ("other".to_owned(), None),
            ],
            ..MemoryRecord::default()
        };
        let topic_partition = TopicPartition::new("t", partition);
        Arc::new(Chunk::Memory(MemoryChunk { topic_partition, records: offsets.map(of).collect() }))
    }

    fn numbers(parents: &Parents) -> Vec<u128> {
        parents.found().iter().map(|parent| parent.trace_id).collect()
    }

    #[test]
    fn the_first_records_of_each_range_are_looked_at_and_no_others() {
        let mut parents = Parents::sought_in(64);
        for offsets in [0..1, 1..5] {
            parents.look(&chunk(0, offsets));
        }
        parents.look(&chunk(1, 7..9));
        assert_eq!(numbers(&parents), [1, 2, 8, 9]);
    }

    #[test]
    fn a_range_that_is_read_again_brings_nothing_twice() {
        let mut parents = Parents::sought_in(1);
        for offsets in [0..3, 0..3, 3..5, 0..5] {
            parents.look(&chunk(0, offsets));
        }
        assert_eq!(numbers(&parents), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn there_are_never_more_than_a_span_may_have() {
        let mut parents = Parents::sought_in(1_000);
        for partition in 0..1_000 {
            parents.look(&chunk(partition, 0..10));
        }
        assert_eq!(parents.found().len(), TRACE_LINKS_MAX);
        let mut off = Parents::default();
        off.look(&chunk(0, 0..10));
        assert!(off.found().is_empty());
    }
}
