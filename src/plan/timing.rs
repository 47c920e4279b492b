//! When batches are due, and what they are called.

use std::time::Duration;

use crate::types::BatchTime;

/// The grid of batch times: fixed at a job's first start by its zero time and its interval.
///
/// ```text
///   zero      zero + 1 interval    zero + 2 intervals    zero + 3 intervals
///    |               |                    |                     |
///                  first            a batch is named        after the tick
/// ```
///
/// Names only ever go forward, whatever the clock does, and no batch waits for a clock that went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The zero time, in milliseconds since 1970-01-01 UTC: one interval before the first tick.
    pub zero_ms: i64,
    /// The time from tick to tick in milliseconds, at least 1.
    pub interval_ms: i64,
    /// Whether every batch is named after a tick. Jobs with windows or a rate limit need it; any other may name a batch
    /// between two ticks, where the memory budget cut the one before short.
    pub on_grid: bool,
}

impl Timing {
    /// The grid of a job that starts for the first time: ticks are multiples of the interval since 1970, and the first
    /// batch is due at once.
    #[must_use]
    pub fn first_start(now_ms: i64, batch_interval: Duration, on_grid: bool) -> Self {
        let interval_ms = interval_ms(batch_interval);
        let tick = now_ms.div_euclid(interval_ms).saturating_mul(interval_ms);
        Self { zero_ms: tick.saturating_sub(interval_ms), interval_ms, on_grid }
    }

    /// The grid of a job that goes on, with the zero time of its first start.
    #[must_use]
    pub fn resumed(zero_ms: i64, batch_interval: Duration, on_grid: bool) -> Self {
        Self { zero_ms, interval_ms: interval_ms(batch_interval), on_grid }
    }

    /// The name of the batch that starts now, after the batch `last`: the latest tick, or one step after `last` if that
    /// is later. The step is a tick on the grid and a millisecond off it.
    #[must_use]
    pub fn batch_time(&self, now_ms: i64, last: Option<BatchTime>) -> BatchTime {
        let first = self.zero_ms.saturating_add(self.interval_ms);
        let after = match last.map(BatchTime::as_ms) {
            Some(last) if self.on_grid => self.tick(last).saturating_add(self.interval_ms),
            Some(last) => last.saturating_add(1),
            None => first,
        };
        BatchTime::from_ms(self.tick(now_ms).max(first).max(after))
    }

    /// How long to wait for the next batch. `last` is the name of the last batch that was begun, committed or not;
    /// `since_last` is the time since it was begun, by a clock that only goes forward; `cut_short` says that the memory
    /// budget left records behind.
    ///
    /// Ticks that went by while a batch ran are not made up for: the next batch starts at once, is named after the latest
    /// of them, and takes what has come in all of them.
    #[must_use]
    pub fn wait(&self, now_ms: i64, last: Option<BatchTime>, since_last: Duration, cut_short: bool) -> Duration {
        let Some(last) = last else { return Duration::ZERO };
        if cut_short && !self.on_grid {
            return Duration::ZERO;
        }
        let due_ms = self.tick(last.as_ms()).saturating_add(self.interval_ms);
        let by_wall_clock = Duration::from_millis(u64::try_from(due_ms.saturating_sub(now_ms)).unwrap_or(0));
        // If the wall clock went back, the time that really passed decides.
        let interval = Duration::from_millis(self.interval_ms.unsigned_abs());
        by_wall_clock.min(interval.saturating_sub(since_last))
    }

    /// The tick after the batch `last`: the next batch of a job whose windows still have something in them, however late it is.
    #[must_use]
    pub fn next_tick(&self, last: BatchTime) -> BatchTime {
        BatchTime::from_ms(self.tick(last.as_ms()).saturating_add(self.interval_ms))
    }

    /// How many ticks lie between two batches: they were merged into the later one.
    #[must_use]
    pub fn ticks_missed(&self, last: BatchTime, next: BatchTime) -> u64 {
        let ticks = self.tick(next.as_ms()).saturating_sub(self.tick(last.as_ms())).div_euclid(self.interval_ms.max(1));
        u64::try_from(ticks.saturating_sub(1)).unwrap_or(0)
    }

    /// The latest tick that is not after `ms`.
    fn tick(&self, ms: i64) -> i64 {
        let interval = self.interval_ms.max(1);
        ms.saturating_sub(ms.saturating_sub(self.zero_ms).rem_euclid(interval))
    }
}

fn interval_ms(batch_interval: Duration) -> i64 {
    i64::try_from(batch_interval.as_millis()).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ms: i64) -> BatchTime {
        BatchTime::from_ms(ms)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_batch_is_due_at_once_and_named_after_the_tick_that_was() {
        let timing = Timing::first_start(10_300, SECOND, true);
        assert_eq!(timing.zero_ms, 9_000);
        assert_eq!(timing.wait(10_300, None, Duration::ZERO, false), Duration::ZERO);
        assert_eq!(timing.batch_time(10_300, None), at(10_000));
    }

    #[test]
    fn batches_follow_the_ticks() {
        let timing = Timing::first_start(10_300, SECOND, true);
        assert_eq!(timing.wait(10_450, Some(at(10_000)), ms(150), false), ms(550));
        assert_eq!(timing.batch_time(11_000, Some(at(10_000))), at(11_000));
        assert_eq!(timing.batch_time(11_002, Some(at(10_000))), at(11_000));
    }

    #[test]
    fn ticks_that_were_missed_are_merged_into_one_batch() {
        let timing = Timing::first_start(10_000, SECOND, true);
        assert_eq!(timing.wait(14_700, Some(at(10_000)), ms(4_700), false), Duration::ZERO);
        assert_eq!(timing.batch_time(14_700, Some(at(10_000))), at(14_000));
        assert_eq!(timing.ticks_missed(at(10_000), at(14_000)), 3);
        assert_eq!(timing.ticks_missed(at(10_000), at(11_000)), 0);
        assert_eq!(timing.wait(14_700, Some(at(14_000)), ms(0), false), ms(300));
    }

    #[test]
    fn a_batch_cut_short_is_followed_at_once_but_not_on_the_grid() {
        let free = Timing::first_start(10_000, SECOND, false);
        assert_eq!(free.wait(10_200, Some(at(10_000)), ms(200), true), Duration::ZERO);
        assert_eq!(free.batch_time(10_200, Some(at(10_000))), at(10_001));
        assert_eq!(free.batch_time(10_300, Some(at(10_001))), at(10_002));
        assert_eq!(free.wait(10_400, Some(at(10_002)), ms(100), false), ms(600));
        assert_eq!(free.batch_time(11_000, Some(at(10_002))), at(11_000));
        let grid = Timing { on_grid: true, ..free };
        assert_eq!(grid.wait(10_200, Some(at(10_000)), ms(200), true), ms(800));
    }

    #[test]
    fn a_name_between_two_ticks_is_followed_by_the_next_tick_on_the_grid() {
        let grid = Timing::first_start(10_000, SECOND, true);
        assert_eq!(grid.batch_time(10_500, Some(at(10_002))), at(11_000));
    }

    #[test]
    fn a_clock_that_went_back_is_not_waited_for() {
        let timing = Timing::first_start(3_600_000, SECOND, true);
        let last = Some(at(3_600_000));
        assert_eq!(timing.wait(100_250, last, ms(400), false), ms(600));
        assert_eq!(timing.batch_time(100_850, last), at(3_601_000));
        assert_eq!(timing.wait(100_850, last, SECOND, false), Duration::ZERO);
        // Even before the zero time, and before 1970.
        assert_eq!(timing.batch_time(-5, None), at(3_600_000));
        assert_eq!(Timing::first_start(-300, SECOND, true).batch_time(-300, None), at(-1_000));
    }

    #[test]
    fn another_interval_keeps_the_zero_time() {
        let timing = Timing::resumed(9_000, ms(400), false);
        assert_eq!(timing.batch_time(10_000, Some(at(9_500))), at(9_800));
    }

    proptest! {
        #[test]
        fn names_only_go_forward_and_waits_stay_within_an_interval(
            zero in -1_000_000_i64..2_000_000,
            interval in 1_u64..100_000,
            on_grid: bool,
            nows in proptest::collection::vec(-2_000_000_i64..3_000_000, 1..50),
        ) {
            let timing = Timing::first_start(zero, ms(interval), on_grid);
            let mut last = None;
            for now in nows {
                prop_assert!(timing.wait(now, last, Duration::ZERO, false) <= ms(interval));
                let next = timing.batch_time(now, last);
                prop_assert!(last.is_none_or(|last| next > last));
                prop_assert!(next.as_ms() > timing.zero_ms);
                if on_grid {
                    prop_assert_eq!((next.as_ms() - timing.zero_ms).rem_euclid(timing.interval_ms), 0);
                }
                last = Some(next);
            }
        }

        #[test]
        fn no_number_overflows(zero: i64, now: i64, last: i64, interval: u64, on_grid: bool) {
            let timing = Timing::resumed(zero, ms(interval), on_grid);
            let _ = timing.batch_time(now, Some(at(last)));
            let _ = timing.wait(now, Some(at(last)), ms(interval), false);
            let _ = timing.ticks_missed(at(last), at(now));
            let _ = Timing::first_start(now, ms(interval), on_grid);
        }
    }
}
