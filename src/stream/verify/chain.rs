//! Is the ledger whole? Pure: batches without holes, each range where the one before it ended, or where an operator moved its
//! partition.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    commit::{ApplicationInfo, LedgerBatch, LedgerLoss, LedgerMove, StoredPosition},
    types::{Offset, TopicId, TopicPartition},
};

/// The ledger as far as it was followed.
#[derive(Debug, Default)]
pub(super) struct Chain {
    last_seq: Option<u64>,
    ends: BTreeMap<TopicPartition, End>,
    /// Offsets that operators moved, in the order in which they did, as far as they are still to come.
    moves: VecDeque<LedgerMove>,
}

/// Where a partition stands.
#[derive(Debug)]
struct End {
    /// `None`: a loss of unknown length came last.
    offset: Option<Offset>,
    topic_id: Option<TopicId>,
}

impl End {
    /// Whether it may be of the topic of this id: ids that nobody told are no evidence.
    fn is_of(&self, topic_id: Option<&TopicId>) -> bool {
        match (&self.topic_id, topic_id) {
            (Some(known), Some(other)) => known == other,
            _ => true,
        }
    }
}

impl Chain {
    /// A chain on which operators moved these offsets.
    pub(super) fn with_moves(moves: Vec<LedgerMove>) -> Self {
        Self { moves: moves.into(), ..Self::default() }
    }

    /// Takes in what was moved before batch `next`, and gives what is wrong with it.
    fn take_moves(&mut self, next: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        while let Some(moved) = self.moves.pop_front_if(|moved| moved.batch_seq < next) {
            // What was moved before the part of the ledger that is followed says nothing about it.
            if moved.batch_seq < self.last_seq.unwrap_or(next.saturating_sub(1)) {
                continue;
            }
            let (tp, from) = (&moved.topic_partition, moved.from_offset);
            let known = self.ends.get(tp).filter(|end| end.is_of(moved.topic_id.as_ref()));
            if let Some(at) = known.and_then(|end| end.offset)
                && from != Some(at)
            {
                let from = from.map_or_else(|| "none".to_owned(), |from| from.to_string());
                wrong.push(format!(
                    "an offset was moved from another place than where its partition stood batch={} topic={} partition={} \
                     from={from} expected={at}",
                    moved.batch_seq, tp.topic, tp.partition
                ));
            }
            let end = End { offset: Some(moved.until_offset), topic_id: moved.topic_id };
            self.ends.insert(moved.topic_partition, end);
        }
        wrong
    }

    /// Follows one batch and gives what is wrong with it, a line each.
    pub(super) fn follow(&mut self, batch: &LedgerBatch, losses: &[LedgerLoss]) -> Vec<String> {
        let seq = batch.batch_seq;
        let mut wrong = self.take_moves(seq);
        if let Some(last) = self.last_seq
            && seq != last + 1
        {
            wrong.push(format!("batches are missing in the ledger from={} until={seq}", last + 1));
        }
        self.last_seq = Some(seq);
        for loss in losses {
            let end = self.ends.get_mut(&loss.topic_partition);
            if let Some(End { offset: Some(at), .. }) = &end
                && *at != loss.from_offset
            {
                let tp = &loss.topic_partition;
                wrong.push(format!(
                    "a lost range does not begin where its partition stood batch={seq} topic={} partition={} from={} expected={at}",
                    tp.topic, tp.partition, loss.from_offset
                ));
            }
            if let Some(end) = end {
                end.offset = loss.until_offset;
            }
        }
        let mut sums = [0_u64; 3];
        for range in &batch.ranges {
            let (tp, counts) = (&range.range.topic_partition, &range.counts);
            let known = self.ends.get(tp);
            // A topic that was created again begins a new chain.
            let known = known.filter(|end| end.is_of(range.topic_id.as_ref()));
            if let Some(at) = known.and_then(|end| end.offset)
                && at != range.range.from_offset
            {
                wrong.push(format!(
                    "a range does not begin where the one before it ended batch={seq} range={} expected={at}",
                    range.range
                ));
            }
            if counts.records + counts.gaps != range.range.count() {
                wrong.push(format!(
                    "records and gaps are not the range's offsets batch={seq} range={} records={} gaps={}",
                    range.range, counts.records, counts.gaps
                ));
            }
            for (sum, count) in sums.iter_mut().zip([counts.records, counts.gaps, counts.bytes]) {
                *sum += count;
            }
            let end = End { offset: Some(range.range.until_offset), topic_id: range.topic_id.clone() };
            self.ends.insert(tp.clone(), end);
        }
        if sums != [batch.records, batch.gaps, batch.bytes] {
            wrong.push(format!(
                "the batch's totals are not the sums of its ranges batch={seq} records={} gaps={} bytes={} sums={sums:?}",
                batch.records, batch.gaps, batch.bytes
            ));
        }
        wrong
    }

    /// The ledger's end beside what the store goes on from.
    pub(super) fn finish(&mut self, application: &ApplicationInfo, stored: &[StoredPosition]) -> Vec<String> {
        let mut wrong = self.take_moves(u64::MAX);
        let last = self.last_seq.unwrap_or(application.batch_seq);
        if last != application.batch_seq {
            wrong.push(format!(
                "the ledger's last batch is not the application's ledger={last} application={}",
                application.batch_seq
            ));
        }
        for position in stored {
            // A topic that was created again and is still empty has no range in the ledger yet.
            let known = self.ends.get(&position.topic_partition).filter(|end| end.is_of(position.topic_id.as_ref()));
            let end = known.and_then(|end| end.offset);
            if let Some(end) = end.filter(|end| *end != position.until_offset) {
                let tp = &position.topic_partition;
                wrong.push(format!(
                    "the stored offset is not the ledger's end topic={} partition={} stored={} ledger={end}",
                    tp.topic, tp.partition, position.until_offset
                ));
            }
        }
        let gone = self.ends.keys().filter(|known| !stored.iter().any(|position| position.topic_partition == **known));
        wrong.extend(gone.map(|tp| {
            format!(
                "the ledger has ranges of a partition without a stored offset topic={} partition={}",
                tp.topic, tp.partition
            )
        }));
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commit::LedgerRange,
        types::{BatchTime, OffsetRange, RangeCounts},
    };

    fn range(partition: i32, from: i64, until: i64, id: &str) -> LedgerRange {
        let range =
            OffsetRange::new(TopicPartition::new("t", partition), Offset::clamped(from), Offset::clamped(until));
        let counts = RangeCounts { records: range.count(), bytes: 10, ..RangeCounts::default() };
        LedgerRange { range, topic_id: Some(TopicId::new(id)), counts }
    }

    fn batch(seq: u64, ranges: Vec<LedgerRange>) -> LedgerBatch {
        LedgerBatch {
            batch_seq: seq,
            batch_time: BatchTime::from_ms(0),
            epoch: 1,
            records: ranges.iter().map(|range| range.counts.records).sum(),
            gaps: 0,
            bytes: ranges.iter().map(|range| range.counts.bytes).sum(),
            rows: 0,
            dead_letters: 0,
            lost_ranges: 0,
            processing_started_ms: 0,
            committed_at_ms: 0,
            build: String::new(),
            ranges,
        }
    }

    fn loss(from: i64, until: Option<i64>) -> LedgerLoss {
        LedgerLoss {
            batch_seq: 2,
            topic_partition: TopicPartition::new("t", 0),
            from_offset: Offset::clamped(from),
            until_offset: until.map(Offset::clamped),
        }
    }

    fn application(batch_seq: u64) -> ApplicationInfo {
        ApplicationInfo {
            epoch: 1,
            batch_seq,
            last_batch_time: None,
            owner: None,
            host: None,
            process_id: None,
            seen_at_ms: None,
            cluster_id: None,
            build: None,
            interval_ms: None,
        }
    }

    fn stored(partition: i32, until: i64) -> StoredPosition {
        StoredPosition {
            topic_partition: TopicPartition::new("t", partition),
            topic_id: None,
            until_offset: Offset::clamped(until),
            leader_epoch: None,
        }
    }

    #[test]
    fn a_whole_chain_says_nothing() {
        let mut chain = Chain::default();
        assert_eq!(chain.follow(&batch(4, vec![range(0, 7, 9, "a"), range(1, 0, 1, "a")]), &[]), [] as [String; 0]);
        assert_eq!(chain.follow(&batch(5, vec![range(0, 9, 12, "a")]), &[]), [] as [String; 0]);
        assert_eq!(chain.finish(&application(5), &[stored(0, 12), stored(1, 1)]), [] as [String; 0]);
    }

    #[test]
    fn a_loss_bridges_and_a_new_topic_begins_anew() {
        let mut chain = Chain::default();
        chain.follow(&batch(1, vec![range(0, 0, 5, "a")]), &[]);
        assert_eq!(chain.follow(&batch(2, vec![range(0, 8, 9, "a")]), &[loss(5, Some(8))]), [] as [String; 0]);
        assert_eq!(chain.follow(&batch(3, vec![range(0, 0, 2, "b")]), &[]), [] as [String; 0]);
        assert_eq!(chain.follow(&batch(4, vec![range(0, 20, 22, "b")]), &[loss(2, None)]), [] as [String; 0]);
    }

    fn moved(batch_seq: u64, from: Option<i64>, until: i64) -> LedgerMove {
        LedgerMove {
            batch_seq,
            topic_partition: TopicPartition::new("t", 0),
            from_offset: from.map(Offset::clamped),
            until_offset: Offset::clamped(until),
            topic_id: None,
            rows_deleted: false,
        }
    }

    #[test]
    fn an_offset_that_was_moved_bridges_and_one_moved_from_elsewhere_does_not() {
        let batches = [(1, 0, 5), (2, 2, 7), (3, 9, 10)];
        let follow = |moves: Vec<LedgerMove>, stored_at: i64| {
            let mut chain = Chain::with_moves(moves);
            let mut wrong: Vec<String> = Vec::new();
            for (seq, from, until) in batches {
                wrong.extend(chain.follow(&batch(seq, vec![range(0, from, until, "a")]), &[]));
            }
            wrong.extend(chain.finish(&application(3), &[stored(0, stored_at)]));
            wrong
        };
        // Back by three, on by two, and in the end back to the beginning.
        let all = || vec![moved(1, Some(5), 2), moved(2, Some(7), 8), moved(2, Some(8), 9), moved(3, Some(10), 0)];
        assert_eq!(follow(all(), 0), [] as [String; 0]);
        assert_eq!(follow(all(), 10).len(), 1);
        assert_eq!(follow(all()[1..].to_vec(), 0).len(), 1);
        let elsewhere = follow(vec![moved(1, Some(4), 2), moved(2, Some(7), 9)], 10);
        assert!(elsewhere.len() == 1 && elsewhere[0].contains("was moved from another place"), "{elsewhere:?}");
        assert_eq!(follow(vec![moved(1, None, 2), moved(2, Some(7), 9)], 10).len(), 1);
    }

    #[test]
    fn what_was_moved_before_the_ledger_begins_says_nothing() {
        let mut chain = Chain::with_moves(vec![moved(2, Some(9), 3), moved(6, Some(1), 7)]);
        assert_eq!(chain.follow(&batch(7, vec![range(0, 7, 9, "a")]), &[]), [] as [String; 0]);
        let mut chain = Chain::with_moves(vec![moved(2, Some(9), 3)]);
        assert_eq!(chain.follow(&batch(7, vec![range(0, 7, 9, "a")]), &[]), [] as [String; 0]);
        // Nothing was committed at all.
        let mut chain = Chain::with_moves(vec![moved(0, Some(0), 7)]);
        assert_eq!(chain.finish(&application(0), &[stored(0, 7)]), [] as [String; 0]);
    }

    #[test]
    fn a_topic_created_again_and_still_empty_is_no_break() {
        let mut chain = Chain::default();
        chain.follow(&batch(1, vec![range(0, 0, 5, "a")]), &[]);
        let mut lost = batch(2, Vec::new());
        lost.lost_ranges = 1;
        chain.follow(&lost, &[loss(5, Some(9))]);
        let anew = StoredPosition { topic_id: Some(TopicId::new("b")), ..stored(0, 0) };
        assert_eq!(chain.finish(&application(2), &[anew]), [] as [String; 0]);
    }

    #[test]
    fn each_kind_of_break_is_named_once() {
        let one = |wrong: Vec<String>, words: &str| {
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert!(wrong[0].contains(words), "{wrong:?}");
        };
        let begun = || {
            let mut chain = Chain::default();
            chain.follow(&batch(1, vec![range(0, 0, 5, "a")]), &[]);
            chain
        };
        one(begun().follow(&batch(3, vec![range(0, 5, 6, "a")]), &[]), "batches are missing");
        one(begun().follow(&batch(2, vec![range(0, 6, 7, "a")]), &[]), "does not begin where the one before");
        one(begun().follow(&batch(2, vec![range(0, 4, 7, "a")]), &[]), "does not begin where the one before");
        one(begun().follow(&batch(2, vec![range(0, 8, 9, "a")]), &[loss(4, Some(8))]), "a lost range does not begin");
        let mut miscounted = batch(2, vec![range(0, 5, 6, "a")]);
        miscounted.records += 1;
        one(begun().follow(&miscounted, &[]), "not the sums");
        let mut short = batch(2, vec![range(0, 5, 7, "a")]);
        short.ranges[0].counts.records = 1;
        short.records = 1;
        one(begun().follow(&short, &[]), "records and gaps are not");
        one(begun().finish(&application(2), &[stored(0, 5)]), "the ledger's last batch");
        one(begun().finish(&application(1), &[stored(0, 4)]), "the stored offset is not");
        one(begun().finish(&application(1), &[]), "without a stored offset");
    }
}
