//! Progress of long work: a bar on a terminal, a log line every few seconds elsewhere.

use std::{fmt, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{reporter::Reporter, terminal::Terminal};
use crate::clock::Clock;

/// Where there is no terminal, a line comes at most so often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The bar with a known total, and without.
pub(super) const TEMPLATES: [&str; 2] = [
    "{prefix} [{bar:30}] {human_pos}/{human_len} records, {per_sec}, {eta} left",
    "{prefix} {spinner} {human_pos} records, {per_sec}",
];

/// How far some work is. Dropping it takes the bar away.
pub struct Progress {
    pub(super) face: Face,
    pub(super) done: u64,
}

pub(super) enum Face {
    Bar { bar: ProgressBar, terminal: Terminal },
    Lines(Lines),
}

/// What a line is made of.
#[derive(Debug)]
pub(super) struct Lines {
    label: String,
    pub(super) total: Option<u64>,
    clock: Arc<dyn Clock>,
    started: Duration,
    last: Duration,
}

/// One line's numbers.
#[derive(Debug, PartialEq)]
pub(super) struct Pace {
    pub(super) records: u64,
    pub(super) per_second: u64,
    pub(super) seconds_left: Option<u64>,
}

impl Progress {
    /// Work called `label`, with `total` records if that is known.
    #[must_use]
    pub fn start(label: &str, total: Option<u64>, terminal: &Terminal, clock: Arc<dyn Clock>) -> Self {
        if !terminal.is_terminal() {
            return Self { face: Face::Lines(Lines::start(label, total, clock)), done: 0 };
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        bar.set_style(style(total.is_some()));
        bar.set_prefix(label.to_owned());
        terminal.show(Some(bar.clone()));
        Self { face: Face::Bar { bar, terminal: terminal.clone() }, done: 0 }
    }

    /// `done` records in all are done.
    pub fn set(&mut self, done: u64) {
        self.done = done;
        match &mut self.face {
            Face::Bar { bar, .. } => bar.set_position(done),
            Face::Lines(lines) => {
                if let Some(pace) = lines.due(done) {
                    lines.write(&pace);
                }
            }
        }
    }

    /// `total` records are to be done in all.
    pub fn set_total(&mut self, total: u64) {
        match &mut self.face {
            Face::Bar { bar, .. } => {
                bar.set_length(total);
                bar.set_style(style(true));
            }
            Face::Lines(lines) => lines.total = Some(total),
        }
    }

    /// Takes what is done from a stream's reporter, and the total from its lag as soon as that is known. Offsets without
    /// a record count as done too: the lag cannot tell them apart.
    pub fn follow(&mut self, reporter: &Reporter) {
        let (totals, lag) = (reporter.totals(), reporter.lag());
        let done = totals.records.saturating_add(totals.gaps);
        let known = match &self.face {
            Face::Bar { bar, .. } => bar.length().is_some(),
            Face::Lines(lines) => lines.total.is_some(),
        };
        if !known && lag > 0 {
            self.set_total(done.saturating_add(lag));
        }
        self.set(done);
    }
}

fn style(with_total: bool) -> ProgressStyle {
    let template = if with_total { TEMPLATES[0] } else { TEMPLATES[1] };
    // The templates are constants, and a test reads them.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Face::Bar { bar, terminal } = &self.face {
            terminal.show(None);
            bar.finish_and_clear();
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Lines {
    pub(super) fn start(label: &str, total: Option<u64>, clock: Arc<dyn Clock>) -> Self {
        let started = clock.monotonic();
        Self { label: label.to_owned(), total, clock, started, last: started }
    }

    /// The numbers for the next line, if it is time for one.
    pub(super) fn due(&mut self, records: u64) -> Option<Pace> {
        let now = self.clock.monotonic();
        if now.saturating_sub(self.last) < LINE_INTERVAL {
            return None;
        }
        self.last = now;
        let elapsed_ms = u64::try_from(now.saturating_sub(self.started).as_millis()).unwrap_or(u64::MAX).max(1);
        let per_second = records.saturating_mul(1000) / elapsed_ms;
        let seconds_left = match (self.total, per_second) {
            (Some(total), 1..) => Some(total.saturating_sub(records) / per_second),
            _ => None,
        };
        Some(Pace { records, per_second, seconds_left })
    }

    fn write(&self, pace: &Pace) {
        let Pace { records, per_second, seconds_left } = *pace;
        tracing::info!(records, total = self.total, per_second, seconds_left, "{}", self.label);
    }
}
