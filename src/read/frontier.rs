//! When is a range complete? A pure state machine over what comes out of a partition's queue.
//!
//! ```text
//!    given to the range        carry: popped, for later ranges
//!  [from . . . . . . . . until)[. . . . . . . . f)  still in Kafka
//! ```
//!
//! A partition's queue shows records, and ends ("EOF") now and then; it never shows transaction markers, records of
//! aborted transactions, or offsets that compaction has emptied. So a range `[from, until)` is complete when everything
//! below `until` was popped *or is known not to exist*. Three witnesses say so:
//!
//! - a record at offset o was popped: queues are in order, so nothing below o + 1 is still to come;
//! - EOF at offset e was popped: nothing below e is still to come;
//! - the client's position p: it also moves over markers, which nothing shows.
//!
//! The third one lies after every entry that is not a record: having popped EOF at e, the client says e + 1, although e
//! may be written next and be a record. Believing it closes `[.., e + 1)` early and **loses that record**. `poison`
//! remembers how far the position may be such a lie.

use std::collections::VecDeque;

use crate::failpoint;

/// Records of one partition whose offsets ascend.
pub(super) trait Run: Sized {
    /// The lowest and the highest offset; `None` if there are no records.
    fn span(&self) -> Option<(i64, i64)>;

    /// How many records.
    fn len(&self) -> usize;

    /// The records below `offset`, and those at or above it.
    fn split_at_offset(self, offset: i64) -> (Self, Self);
}

/// Where reading a partition stands.
#[derive(Debug)]
pub(super) struct Frontier<R> {
    /// Every record below it was popped, or does not exist.
    frontier: i64,
    /// Popped records at or past the end of the range they came with, in order.
    carry: VecDeque<R>,
    /// The highest offset + 1 of any popped entry that was not a record.
    poison: i64,
    /// Popped records below the frontier: delivered twice by the client, dropped here.
    dropped: u64,
}

impl<R: Run> Frontier<R> {
    /// Right after an assign or a seek to `from`.
    pub(super) fn at(from: i64) -> Self {
        Self { frontier: from, carry: VecDeque::new(), poison: i64::MIN, dropped: 0 }
    }

    /// Starts again, right after an assign or a seek to `from`.
    pub(super) fn restart(&mut self, from: i64) {
        let dropped = self.dropped;
        *self = Self { dropped, ..Self::at(from) };
    }

    pub(super) fn get(&self) -> i64 {
        self.frontier
    }

    /// How many records the client delivered twice.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether everything below `until` was popped or does not exist.
    pub(super) fn covers(&self, until: i64) -> bool {
        self.frontier >= until
    }

    /// Moves what was carried over for the range that ends at `until` to `out`.
    pub(super) fn begin(&mut self, until: i64, out: &mut Vec<R>) {
        while let Some(run) = self.carry.pop_front() {
            let (below, rest) = run.split_at_offset(until);
            push(out, below);
            if rest.span().is_some() {
                self.carry.push_front(rest);
                return;
            }
        }
    }

    /// Records were popped: those below `until` go to `out`, later ones are carried. They are not delivered again.
    pub(super) fn records(&mut self, run: R, until: i64, out: &mut Vec<R>) {
        let (old, fresh) = run.split_at_offset(self.frontier);
        self.dropped += u64::try_from(old.len()).unwrap_or(u64::MAX);
        let Some((_, last)) = fresh.span() else { return };
        self.frontier = last.saturating_add(1);
        let (below, rest) = fresh.split_at_offset(until);
        push(out, below);
        if rest.span().is_some() {
            self.carry.push_back(rest);
        }
    }

    /// EOF was popped: `offset` is the next one that will be written.
    pub(super) fn eof(&mut self, offset: i64) {
        self.failed(offset);
        self.frontier = self.frontier.max(offset);
    }

    /// An error was popped.
    pub(super) fn failed(&mut self, offset: i64) {
        self.poison = self.poison.max(offset.saturating_add(1));
    }

    /// The client's position, asked after the pop.
    pub(super) fn position(&mut self, position: Option<i64>) {
        if let Some(position) = position
            && (position > self.poison || failpoint::mutant("position_without_poison"))
            && position > self.frontier
        {
            self.frontier = position;
        }
    }
}

fn push<R: Run>(out: &mut Vec<R>, run: R) {
    if run.span().is_some() {
        out.push(run);
    }
}

#[cfg(test)]
mod tests;
