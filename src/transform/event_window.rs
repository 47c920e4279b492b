//! Windows over event time: which of them a time belongs to.

use std::{fmt, time::Duration};

use crate::error::{Error, Result};

/// A window over event time: from `start_ms` on, and before `end_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventWindow {
    /// The first millisecond that belongs to it, since 1970-01-01 UTC.
    pub start_ms: i64,
    /// The first millisecond that does not any more, since 1970-01-01 UTC.
    pub end_ms: i64,
}

impl fmt::Display for EventWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start_ms, self.end_ms)
    }
}

/// How event time is cut into windows. They begin at multiples of the slide since 1970-01-01 UTC, also before that.
///
/// ```
/// use std::time::Duration;
///
/// use directstream::transform::EventWindows;
///
/// let minutes = EventWindows::tumbling(Duration::from_secs(60));
/// // The last hour, every five minutes: each element belongs to twelve of them.
/// let hours = EventWindows::sliding(Duration::from_secs(3600), Duration::from_secs(300));
/// # assert_ne!(minutes, hours);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventWindows {
    length: Duration,
    slide: Duration,
}

impl EventWindows {
    /// Windows of `length`, one after the other: each time belongs to one.
    #[must_use]
    pub fn tumbling(length: Duration) -> Self {
        Self { length, slide: length }
    }

    /// Windows of `length`, one every `slide`: each time belongs to `length / slide` of them, and costs as much.
    #[must_use]
    pub fn sliding(length: Duration, slide: Duration) -> Self {
        Self { length, slide }
    }
}

/// A duration in milliseconds.
pub(super) fn whole_ms(what: &str, duration: Duration) -> Result<i64> {
    match i64::try_from(duration.as_millis()) {
        Ok(ms) if Duration::from_millis(ms.unsigned_abs()) == duration => Ok(ms),
        _ => Err(Error::config(format!("the {what} must be whole milliseconds {what}={duration:?}"))),
    }
}

/// Checked windows, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) length_ms: i64,
    pub(super) slide_ms: i64,
    /// How many windows a time belongs to.
    per_time: i64,
}

impl Grid {
    pub(super) fn of(windows: EventWindows) -> Result<Self> {
        let (length_ms, slide_ms) = (whole_ms("window", windows.length)?, whole_ms("slide", windows.slide)?);
        let fits = slide_ms > 0 && length_ms >= slide_ms && length_ms % slide_ms == 0;
        if !fits {
            return Err(Error::config(format!(
                "the slide of a window over event time must be above 0 and divide the window window_ms={length_ms} \
                 slide_ms={slide_ms}"
            )));
        }
        Ok(Self { length_ms, slide_ms, per_time: length_ms / slide_ms })
    }

    pub(super) fn window(self, start_ms: i64) -> EventWindow {
        // In range, for only times are taken that `holds` is true for.
        EventWindow { start_ms, end_ms: start_ms.saturating_add(self.length_ms) }
    }

    /// Whether the windows of that time have starts and ends that are numbers of milliseconds.
    pub(super) fn holds(self, time_ms: i64) -> bool {
        (i64::MIN.saturating_add(self.length_ms)..=i64::MAX.saturating_sub(self.length_ms)).contains(&time_ms)
    }

    /// The starts of the windows of a time that end after the watermark, the latest first.
    ///
    /// ```text
    /// start        start        start       time        end          end          end
    ///   |-------------|------------|----------x----------|------------|------------|
    ///                              <------- slide ------->
    /// ```
    pub(super) fn open(self, time_ms: i64, watermark_ms: Option<i64>) -> impl Iterator<Item = i64> {
        let latest = time_ms - time_ms.rem_euclid(self.slide_ms);
        let starts = (0..self.per_time).map(move |before| latest - before * self.slide_ms);
        starts.take_while(move |start| watermark_ms.is_none_or(|watermark| start + self.length_ms > watermark))
    }
}
