//! What holds with the program as it is, and what the checker finds where something is left out.

use stateright::{Checker, Model};

use super::{Bounds, Defect, Ownership};

/// Looks at every state; how many there are.
fn holds(bounds: &Bounds) -> usize {
    let checker = bounds.clone().checker().threads(2).spawn_bfs().join();
    let states = checker.unique_state_count();
    eprintln!("{states} states: {bounds:?}");
    checker.assert_properties();
    states
}

/// Which invariants are broken.
fn broken(bounds: Bounds) -> Vec<&'static str> {
    let checker = bounds.checker().threads(2).spawn_bfs().join();
    let mut names: Vec<_> = checker.discoveries().into_keys().filter(|name| name.starts_with('I')).collect();
    names.sort_unstable();
    names
}

const DOUBLED: &str = "I1 no record doubled";
const MISSING: &str = "I1 no record missing";
const UNTRUE: &str = "I2 and what is told is true";
const OLD_EPOCH: &str = "I5 epochs of commits never go back";

/// An owner, and another process that takes over whenever it likes; the first may stand still anywhere and go on later.
fn rivals() -> Bounds {
    Bounds::none(&[Ownership::Wait, Ownership::TakeOver])
}

#[test]
fn two_processes_with_lost_answers_and_crashes() {
    let states = holds(&Bounds { lost_answers: 2, crashes: 1, ended_sessions: 1, ..rivals() });
    assert!(states > 10_000, "{states}");
}

#[test]
fn two_processes_with_failovers_that_lose_commits() {
    for pooler in [false, true] {
        let states = holds(&Bounds { lost_answers: 1, crashes: 1, failovers: 1, pooler, ..rivals() });
        assert!(states > 10_000, "{states}");
    }
}

#[test]
fn heartbeats_and_a_standby() {
    let pair = Bounds::none(&[Ownership::Wait, Ownership::Standby]);
    let states = holds(&Bounds { lost_answers: 1, crashes: 1, ended_sessions: 1, heartbeats: true, ..pair });
    assert!(states > 1_000, "{states}");
}

#[test]
fn one_process_with_many_lost_answers() {
    let alone = Bounds::none(&[Ownership::Wait]);
    let states = holds(&Bounds { batches: 3, lost_answers: 5, crashes: 1, ..alone });
    assert!(states > 1_000, "{states}");
}

#[test]
fn the_epoch_checked_before_the_transaction_doubles() {
    let defect = Defect { checked_before_transaction: true, offsets_unchecked: true, ..Defect::default() };
    let found = broken(Bounds { defect, ..rivals() });
    assert!(found.contains(&DOUBLED) && found.contains(&OLD_EPOCH), "{found:?}");
}

#[test]
fn the_epoch_alone_doubles_under_failover() {
    let defect = Defect { epoch_alone: true, offsets_unchecked: true, ..Defect::default() };
    let failing = Bounds { crashes: 1, failovers: 1, pooler: true, defect, ..rivals() };
    let found = broken(failing);
    assert!(found.contains(&DOUBLED), "{found:?}");
}

#[test]
fn an_unknown_outcome_taken_for_failed_is_a_lie_and_doubles_without_the_checks() {
    let defect = Defect { unknown_is_failed: true, ..Defect::default() };
    let found = broken(Bounds { lost_answers: 1, defect, ..rivals() });
    assert!(found.contains(&UNTRUE), "{found:?}");
    let defect = Defect { epoch_alone: true, offsets_unchecked: true, ..defect };
    let found = broken(Bounds { lost_answers: 1, defect, ..rivals() });
    assert!(found.contains(&DOUBLED), "{found:?}");
}

#[test]
fn an_unknown_outcome_taken_for_done_is_a_lie_and_loses_without_the_checks() {
    let defect = Defect { unknown_is_done: true, ..Defect::default() };
    let found = broken(Bounds { lost_answers: 1, defect, ..rivals() });
    assert!(found.contains(&UNTRUE), "{found:?}");
    let defect = Defect { epoch_alone: true, offsets_unchecked: true, unknown_is_failed: true, ..defect };
    let found = broken(Bounds { lost_answers: 1, defect, ..rivals() });
    assert!(found.contains(&MISSING), "{found:?}");
}

#[test]
fn a_doubt_settled_by_a_plain_read_is_a_lie() {
    let defect = Defect { settled_by_a_read: true, ..Defect::default() };
    let found = broken(Bounds { lost_answers: 1, defect, ..rivals() });
    assert!(found.contains(&UNTRUE), "{found:?}");
}

#[test]
fn results_and_offsets_in_two_transactions_double() {
    let defect = Defect { two_transactions: true, ..Defect::default() };
    let found = broken(Bounds { crashes: 1, defect, ..rivals() });
    assert!(found.contains(&DOUBLED), "{found:?}");
}

/// The compare-and-swap on offsets alone gives safety: with every other guard gone, no record is doubled or missing.
#[test]
fn the_check_of_the_offsets_alone_keeps_every_record_once() {
    let defect = Defect { epoch_alone: true, unknown_is_failed: true, ..Defect::default() };
    let found = broken(Bounds { lost_answers: 1, crashes: 1, failovers: 1, pooler: true, defect, ..rivals() });
    assert!(!found.contains(&DOUBLED) && !found.contains(&MISSING), "{found:?}");
    let defect = Defect { checked_before_transaction: true, ..defect };
    let found = broken(Bounds { lost_answers: 1, crashes: 1, defect, ..rivals() });
    assert!(!found.contains(&DOUBLED) && !found.contains(&MISSING), "{found:?}");
}
