//! An offset: never a bare number in code.

use std::fmt;

/// A position in a partition. Stored offsets are always the next one to read, never the last one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Offset(i64);

impl Offset {
    /// The first offset a partition can have.
    pub const ZERO: Self = Self(0);

    /// The offset `value`; `None` if it is negative, which in Kafka's protocol is never an offset.
    #[must_use]
    pub const fn new(value: i64) -> Option<Self> {
        if value < 0 { None } else { Some(Self(value)) }
    }

    /// The offset `value`, or zero if it is negative.
    #[must_use]
    pub const fn clamped(value: i64) -> Self {
        if value < 0 { Self(0) } else { Self(value) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The offset after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// This offset moved forward by `count`.
    #[must_use]
    pub fn advanced_by(self, count: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(count).unwrap_or(i64::MAX)))
    }

    /// How many offsets lie in `[self, until)`; 0 if `until` is not above.
    #[must_use]
    pub fn offsets_until(self, until: Self) -> u64 {
        u64::try_from(until.0.saturating_sub(self.0)).unwrap_or(0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Offset> for i64 {
    fn from(offset: Offset) -> Self {
        offset.0
    }
}
