//! Keeps a flood of the same line out of the log.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// Classes that are told apart; all others count as one.
const CLASSES_MAX: usize = 256;

/// Lets the first event of a class through, then one per interval together with the number of those held back.
///
/// ```
/// use std::time::Duration;
/// use directstream::report::RateLimit;
///
/// let mut limit = RateLimit::every(Duration::from_secs(30));
/// assert_eq!(limit.admit("broker away", Duration::from_secs(1)), Some(0));
/// assert_eq!(limit.admit("broker away", Duration::from_secs(2)), None);
/// assert_eq!(limit.admit("broker away", Duration::from_secs(31)), Some(1));
/// ```
#[derive(Debug)]
pub struct RateLimit<K> {
    interval: Duration,
    classes: HashMap<K, Class>,
    overflow: Option<Class>,
}

#[derive(Debug, Clone, Copy)]
struct Class {
    last: Duration,
    held_back: u64,
}

impl<K: Eq + Hash> RateLimit<K> {
    /// One event per class and `interval`.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self { interval, classes: HashMap::new(), overflow: None }
    }

    /// Whether an event of `class` goes through at the monotonic time `now`, and then how many were held back before it.
    pub fn admit(&mut self, class: K, now: Duration) -> Option<u64> {
        let interval = self.interval;
        if let Some(known) = self.classes.get_mut(&class) {
            return known.admit(now, interval);
        }
        if self.classes.len() >= CLASSES_MAX {
            self.classes.retain(|_, class| now.saturating_sub(class.last) < interval);
        }
        let fresh = Class { last: now, held_back: 0 };
        if self.classes.len() < CLASSES_MAX {
            self.classes.insert(class, fresh);
            return Some(0);
        }
        match &mut self.overflow {
            Some(overflow) => overflow.admit(now, interval),
            none => {
                *none = Some(fresh);
                Some(0)
            }
        }
    }
}

impl Class {
    fn admit(&mut self, now: Duration, interval: Duration) -> Option<u64> {
        if now.saturating_sub(self.last) < interval {
            self.held_back += 1;
            return None;
        }
        self.last = now;
        Some(std::mem::take(&mut self.held_back))
    }
}
