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

/// Which invariants are broken, in a model whose work can be done all the same.
fn broken(bounds: Bounds) -> Vec<&'static str> {
    let checker = bounds.checker().threads(2).spawn_bfs().join();
    assert!(checker.discovery("everything is committed and somebody owns it").is_some(), "nothing is ever done");
    let mut names: Vec<_> = checker.discoveries().into_keys().filter(|name| name.starts_with('I')).collect();
    names.sort_unstable();
    names
}

/// The checker finds that these invariants are broken.
fn finds(bounds: Bounds, invariants: &[&str]) {
    let found = broken(bounds);
    assert!(invariants.iter().all(|invariant| found.contains(invariant)), "{found:?}");
}

/// Whatever else is broken, each record is there once.
fn keeps_every_record_once(bounds: Bounds) {
    let found = broken(bounds);
    assert!(!found.contains(&DOUBLED) && !found.contains(&MISSING), "{found:?}");
}

const DOUBLED: &str = "I1 no record doubled";
const MISSING: &str = "I1 no record missing";
const UNTRUE: &str = "I2 and what is told is true";
const OLD_EPOCH: &str = "I5 epochs of commits never go back";

/// An owner, and another process that takes over whenever it likes; the first may stand still anywhere and go on later.
fn rivals() -> Bounds {
    Bounds::none(&[Ownership::Wait, Ownership::TakeOver])
}

/// The rivals with a defect, and one lost answer.
fn one_lost(defect: Defect) -> Bounds {
    Bounds { lost_answers: 1, defect, ..rivals() }
}

/// The defect, with neither owner nor offsets looked at.
fn unchecked(defect: Defect) -> Defect {
    Defect { epoch_alone: true, offsets_unchecked: true, ..defect }
}

#[test]
fn two_processes_with_lost_answers_and_crashes() {
    assert_eq!(holds(&Bounds { lost_answers: 2, crashes: 1, ended_sessions: 1, ..rivals() }), 1_162_412);
}

#[test]
fn two_processes_with_failovers_that_lose_commits() {
    let failing = Bounds { lost_answers: 1, crashes: 1, failovers: 1, ..rivals() };
    assert_eq!(holds(&failing), 956_193);
    assert_eq!(holds(&Bounds { pooler: true, ..failing }), 832_234);
}

#[test]
fn heartbeats_and_a_standby() {
    let pair = Bounds::none(&[Ownership::Wait, Ownership::Standby]);
    assert_eq!(holds(&Bounds { lost_answers: 1, crashes: 1, ended_sessions: 1, heartbeats: true, ..pair }), 171_290);
}

#[test]
fn one_process_with_many_lost_answers() {
    let alone = Bounds::none(&[Ownership::Wait]);
    assert_eq!(holds(&Bounds { batches: 3, lost_answers: 5, crashes: 1, ..alone }), 37_267);
}

#[test]
fn the_epoch_checked_before_the_transaction_doubles() {
    let defect = Defect { checked_before_transaction: true, offsets_unchecked: true, ..Defect::default() };
    finds(Bounds { defect, ..rivals() }, &[DOUBLED, OLD_EPOCH]);
}

#[test]
fn the_epoch_alone_doubles_under_failover() {
    let defect = unchecked(Defect::default());
    finds(Bounds { crashes: 1, failovers: 1, pooler: true, defect, ..rivals() }, &[DOUBLED]);
}

#[test]
fn an_unknown_outcome_taken_for_failed_is_a_lie_and_doubles_without_the_checks() {
    let defect = Defect { unknown_is_failed: true, ..Defect::default() };
    finds(one_lost(defect), &[UNTRUE]);
    finds(one_lost(unchecked(defect)), &[DOUBLED]);
}

#[test]
fn an_unknown_outcome_taken_for_done_is_a_lie_and_loses_without_the_checks_and_the_settling() {
    let defect = Defect { unknown_is_done: true, ..Defect::default() };
    finds(one_lost(defect), &[UNTRUE]);
    finds(one_lost(unchecked(Defect { unknown_is_failed: true, ..defect })), &[MISSING]);
}

#[test]
fn a_doubt_settled_by_a_plain_read_is_a_lie() {
    finds(one_lost(Defect { settled_by_a_read: true, ..Defect::default() }), &[UNTRUE]);
}

#[test]
fn results_and_offsets_in_two_transactions_double() {
    let defect = Defect { two_transactions: true, ..Defect::default() };
    finds(Bounds { crashes: 1, defect, ..rivals() }, &[DOUBLED]);
}

/// The compare-and-swap on offsets alone gives safety: with every other guard gone, no record is doubled or missing.
#[test]
fn the_check_of_the_offsets_alone_keeps_every_record_once() {
    let defect = Defect { epoch_alone: true, unknown_is_failed: true, ..Defect::default() };
    keeps_every_record_once(Bounds { crashes: 1, failovers: 1, pooler: true, ..one_lost(defect) });
    keeps_every_record_once(Bounds { crashes: 1, ..one_lost(Defect { checked_before_transaction: true, ..defect }) });
}
