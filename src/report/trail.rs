//! How old what is not committed is, and when retention will reach it: from what Kafka was asked anyway, without a request
//! for it.
//!
//! ```text
//! latest    10 ........ 40 ........ 70      the offset after the last record, each time it was asked
//! asked at   0 s        1 s         2 s
//!                   ^
//! committed        25: the latest one at 0.5 s. So the record at 25 is 1.5 s old at 2 s.
//! ```

use std::{collections::VecDeque, time::Duration};

use super::partitions::PartitionPosition;
use crate::types::Offset;

/// Answers that are kept of one partition; with as many partitions as have series of their own, all are 2 MB.
const SAMPLES_MAX: usize = 64;

/// When there are so many, those go without which the rest still lie no farther apart than this part of the whole: an age
/// is then exact to a twentieth. That leaves 41 of them.
const SPACING_PARTS: i64 = 20;

/// Moves of the earliest offset that are kept of one partition.
const MOVES_MAX: usize = 16;

/// When an offset was told, in milliseconds of monotonic time. Negative: before the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    at_ms: i64,
    offset: i64,
}

/// What is remembered of the two ends of one partition.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// Times and offsets both grow; of answers that are the same in a row, the first and the last.
    latest: VecDeque<Sample>,
    /// The earliest offset as it was told last.
    earliest: Option<i64>,
    /// When it was found to have moved, and to where.
    moves: VecDeque<Sample>,
}

impl Trail {
    /// The trail of a partition whose committed offset was the latest one, or was below it, when a process before this one
    /// committed it.
    pub(super) fn resumed(at_ms: i64, committed: Option<Offset>) -> Self {
        let sample = committed.map(|offset| Sample { at_ms, offset: offset.get() });
        Self { latest: sample.into_iter().collect(), ..Self::default() }
    }

    /// Takes in what Kafka has just told.
    pub(super) fn note(&mut self, at_ms: i64, position: &PartitionPosition) {
        if let Some(latest) = position.latest {
            self.note_latest(Sample { at_ms, offset: latest.get() });
        }
        if let Some(committed) = position.committed {
            self.forget_below(committed.get());
        }
        if let Some(earliest) = position.earliest {
            self.note_earliest(Sample { at_ms, offset: earliest.get() });
        }
    }

    fn note_latest(&mut self, sample: Sample) {
        // The log was cut off, or the topic made again: what it said before is of another log.
        while self.latest.back().is_some_and(|last| last.offset > sample.offset) {
            self.latest.pop_back();
        }
        let same = |back: usize| {
            let index = self.latest.len().checked_sub(back);
            index.and_then(|index| self.latest.get(index)).is_some_and(|known| known.offset == sample.offset)
        };
        if same(1) && same(2) {
            self.latest.pop_back();
        } else if self.latest.len() >= SAMPLES_MAX {
            self.thin_out();
        }
        self.latest.push_back(sample);
    }

    fn thin_out(&mut self) {
        let (Some(first), Some(last)) = (self.latest.front(), self.latest.back()) else { return };
        let spacing_ms = (last.at_ms - first.at_ms) / SPACING_PARTS;
        let mut kept: VecDeque<Sample> = VecDeque::with_capacity(SAMPLES_MAX);
        for (sample, next) in self.latest.iter().zip(self.latest.iter().skip(1)) {
            if kept.back().is_none_or(|before| next.at_ms - before.at_ms > spacing_ms) {
                kept.push_back(*sample);
            }
        }
        kept.push_back(*last);
        self.latest = kept;
    }

    /// Of the answers up to the committed offset the last one is enough.
    fn forget_below(&mut self, committed: i64) {
        while self.latest.get(1).is_some_and(|second| second.offset <= committed) {
            self.latest.pop_front();
        }
    }

    fn note_earliest(&mut self, sample: Sample) {
        match self.earliest.replace(sample.offset) {
            Some(before) if before < sample.offset => {
                if self.moves.len() >= MOVES_MAX {
                    self.moves.pop_front();
                }
                self.moves.push_back(sample);
            }
            Some(before) if before > sample.offset => self.moves.clear(),
            _ => {}
        }
    }

    /// How long ago `committed` was the latest offset: the age of the oldest record that is not committed, where there is
    /// one. Where the answers do not reach back so far, how long they do: it is older than that.
    pub(super) fn age(&self, now_ms: i64, committed: Offset) -> Duration {
        let committed = committed.get();
        let after = self.latest.partition_point(|sample| sample.offset <= committed);
        let before = after.checked_sub(1).and_then(|index| self.latest.get(index));
        let since_ms = match (before, self.latest.get(after)) {
            (_, None) => now_ms,
            (None, Some(first)) => first.at_ms,
            (Some(before), Some(next)) => {
                let took = share(next.at_ms - before.at_ms, committed - before.offset, next.offset - before.offset);
                before.at_ms.saturating_add(took)
            }
        };
        milliseconds(now_ms.saturating_sub(since_ms))
    }

    /// How long retention takes from where it is up to `committed`, at the speed that it had between its moves. `None`
    /// before its second one: it goes by steps, and when the one before the first was, nobody knows.
    pub(super) fn time_to_loss(&self, now_ms: i64, committed: Offset) -> Option<Duration> {
        let (first, last) = (self.moves.front()?, self.moves.back()?);
        let moved = last.offset - first.offset;
        if moved <= 0 {
            return None;
        }
        let left = committed.get().saturating_sub(last.offset).max(0);
        Some(milliseconds(share(now_ms.saturating_sub(first.at_ms), left, moved)))
    }
}

/// `whole` times `part` by `of`.
fn share(whole: i64, part: i64, of: i64) -> i64 {
    let exact = i128::from(whole) * i128::from(part) / i128::from(of.max(1));
    i64::try_from(exact).unwrap_or(i64::MAX)
}

fn milliseconds(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TopicPartition;

    fn position(committed: i64, latest: i64, earliest: i64) -> PartitionPosition {
        PartitionPosition {
            topic_partition: TopicPartition::new("t", 0),
            committed: Offset::new(committed),
            latest: Offset::new(latest),
            earliest: Offset::new(earliest),
        }
    }

    /// A trail of a partition of which nothing is committed, asked once a second.
    fn asked(latest: &[i64]) -> Trail {
        let mut trail = Trail::default();
        for (second, latest) in latest.iter().enumerate() {
            trail.note(1_000 * i64::try_from(second).unwrap(), &position(0, *latest, 0));
        }
        trail
    }

    fn age_ms(trail: &Trail, now_ms: i64, committed: i64) -> u128 {
        trail.age(now_ms, Offset::clamped(committed)).as_millis()
    }

    #[test]
    fn an_age_is_the_time_since_the_committed_offset_was_the_latest_one() {
        let trail = asked(&[10, 40, 70]);
        assert_eq!(age_ms(&trail, 2_000, 40), 1_000);
        assert_eq!(age_ms(&trail, 2_000, 25), 1_500);
        // It goes on growing while nobody asks.
        assert_eq!(age_ms(&trail, 9_000, 25), 8_500);
        assert_eq!(age_ms(&trail, 2_000, 70), 0, "nothing waits");
    }

    #[test]
    fn what_lay_there_before_the_first_question_is_at_least_as_old() {
        assert_eq!(age_ms(&asked(&[10, 40]), 5_000, 3), 5_000);
    }

    #[test]
    fn a_silent_topic_counts_from_its_last_silent_answer() {
        // Nothing came for three seconds, then ten records, of which none is committed: at most a second old.
        assert_eq!(age_ms(&asked(&[10, 10, 10, 10, 20]), 4_000, 10), 1_000);
    }

    #[test]
    fn a_process_that_goes_on_counts_from_the_last_batch_of_the_one_before() {
        let mut trail = Trail::resumed(-60_000, Offset::new(100));
        trail.note(0, &position(100, 220, 0));
        assert_eq!(age_ms(&trail, 0, 100), 60_000);
        assert_eq!(age_ms(&trail, 0, 160), 30_000);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_reaches_back() {
        let mut trail = Trail::default();
        for second in 0..10_000_i64 {
            // More and more of them.
            trail.note(1_000 * second, &position(0, second * second + 1, second / 7));
            assert!(trail.latest.len() <= SAMPLES_MAX && trail.moves.len() <= MOVES_MAX);
        }
        for second in [1, 1_000, 5_000, 9_000, 9_990_u32] {
            let (age, exact) = (age_ms(&trail, 9_999_000, i64::from(second * second + 1)), u128::from(9_999 - second));
            assert!(age.abs_diff(1_000 * exact) <= 9_999_000 / 20, "second {second}: {age}");
        }
        // The last answers are all there, as long as nothing had to go.
        assert_eq!(age_ms(&trail, 9_999_000, 9_998 * 9_998 + 1), 1_000);
    }

    #[test]
    fn a_log_that_was_cut_off_is_another_one() {
        let mut trail = asked(&[10, 40, 70]);
        trail.note(3_000, &position(0, 20, 0));
        assert_eq!(age_ms(&trail, 3_000, 15), 1_500, "between the answers 10 and 20");
    }

    #[test]
    fn committed_offsets_make_room() {
        let mut trail = asked(&[10, 20, 30, 40]);
        trail.note(4_000, &position(35, 50, 0));
        assert_eq!(trail.latest.front(), Some(&Sample { at_ms: 2_000, offset: 30 }));
        assert_eq!(age_ms(&trail, 4_000, 35), 1_500);
    }

    fn loss_seconds(trail: &Trail, now_ms: i64, committed: i64) -> Option<u64> {
        trail.time_to_loss(now_ms, Offset::clamped(committed)).map(|left| left.as_secs())
    }

    #[test]
    fn retention_reaches_the_committed_offset_at_the_speed_of_its_moves() {
        let mut trail = Trail::default();
        // A step of 100 offsets a minute. The first one found says nothing: the one before it may be an hour ago.
        for (second, earliest) in [(0, 0), (10, 100), (40, 100), (70, 200)] {
            assert_eq!(loss_seconds(&trail, second * 1_000, 1_000), None);
            trail.note(second * 1_000, &position(1_000, 2_000, earliest));
        }
        assert_eq!(loss_seconds(&trail, 70_000, 1_000), Some(480));
        // It slows down by standing still, and where it is past the offset there is no time left.
        assert_eq!(loss_seconds(&trail, 130_000, 1_000), Some(960));
        assert_eq!(loss_seconds(&trail, 70_000, 150), Some(0));
    }

    #[test]
    fn a_topic_that_was_made_again_has_no_speed() {
        let mut trail = Trail::default();
        for (second, earliest) in [(0, 0), (1, 100), (2, 200), (3, 0), (4, 50)] {
            trail.note(second * 1_000, &position(1_000, 2_000, earliest));
        }
        assert_eq!(loss_seconds(&trail, 4_000, 1_000), None);
    }
}
