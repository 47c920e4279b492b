//! A flood of one line is cut.

use std::time::Duration;

use crate::report::RateLimit;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn classes_do_not_hide_one_another() {
    let mut limit = RateLimit::every(at(30));
    assert_eq!(limit.admit("a", at(0)), Some(0));
    assert_eq!(limit.admit("b", at(1)), Some(0));
    assert_eq!(limit.admit("a", at(29)), None);
    assert_eq!(limit.admit("a", at(30)), Some(1));
    assert_eq!(limit.admit("b", at(30)), None);
    assert_eq!(limit.admit("a", at(60)), Some(0));
}

/// Somebody who can make up classes cannot flood the log, nor the memory.
#[test]
fn endless_classes_count_as_one() {
    let mut limit = RateLimit::every(at(30));
    let admitted = (0..100_000).filter(|class| limit.admit(*class, at(1)).is_some()).count();
    assert_eq!(admitted, 257);
    assert_eq!(limit.admit(1_000_000, at(31)), Some(0));
    assert_eq!((0..100_000).filter(|class| limit.admit(class + 2_000_000, at(31)).is_some()).count(), 256);
}
