//! Single rules of the protocol, step by step. Interleavings are the model's: `model.rs`.

use uuid::Uuid;

use super::{
    Command, End, Event, Grounds, Judged, Look, Mark, Ownership, Report, Rules, Session, State, Term, Work, step,
};
use crate::error::ErrorKind;

fn rules(number: u128, ownership: Ownership) -> Rules {
    Rules { me: Uuid::from_u128(number), ownership, start_timeout_ms: 30_000, unavailable_max_ms: 600_000 }
}

fn started(ownership: Ownership) -> State {
    let (state, _) = step(State::new(rules(1, ownership)), 0, Event::Start);
    let (state, _) = step(state, 0, Event::Connected(None));
    step(state, 0, Event::Prepared).0
}

fn look(owner: Option<u128>, session: Session, stale: bool) -> Event {
    let judged = Judged { epoch: 7, owner: owner.map(Uuid::from_u128), seen_at: Some(5) };
    Event::Looked(Look { judged, session, stale, hasty_takeovers: 0 })
}

fn grounds(commands: &[Command]) -> Option<Grounds> {
    commands.iter().find_map(|command| match command {
        Command::TakeOver(_, grounds) => Some(*grounds),
        _ => None,
    })
}

#[test]
fn an_owner_is_dead_if_it_is_gone_or_was_not_seen_for_long() {
    let judge = |ownership, event| grounds(&step(started(ownership), 0, event).1);
    assert_eq!(judge(Ownership::Wait, look(None, Session::Gone, true)), Some(Grounds::Free));
    assert_eq!(judge(Ownership::Wait, look(Some(1), Session::Alive, false)), Some(Grounds::Ours));
    assert_eq!(judge(Ownership::Wait, look(Some(2), Session::Gone, false)), Some(Grounds::Gone));
    assert_eq!(judge(Ownership::Wait, look(Some(2), Session::Alive, true)), Some(Grounds::Age));
    assert_eq!(judge(Ownership::Wait, look(Some(2), Session::Unknown, false)), None);
    assert_eq!(judge(Ownership::Wait, look(Some(2), Session::Alive, false)), None);
    assert_eq!(judge(Ownership::TakeOver, look(Some(2), Session::Alive, false)), Some(Grounds::Force));
    assert_eq!(judge(Ownership::Standby, look(Some(2), Session::Gone, true)), None);
}

#[test]
fn a_starter_waits_ten_seconds_for_a_live_owner_and_a_standby_for_ever() {
    let wait = |ownership| {
        let mut state = started(ownership);
        for turn in 0..1_000_u64 {
            let now = turn * 200;
            let commands;
            (state, commands) = step(state, now, look(Some(2), Session::Alive, false));
            if commands.contains(&Command::Report(Report::Ended(End::Rival))) {
                return Some(now);
            }
            (state, _) = step(state, now, Event::Woke);
        }
        None
    };
    assert_eq!(wait(Ownership::Wait), Some(10_000));
    assert_eq!(wait(Ownership::Standby), None);
}

#[test]
fn a_standby_wants_the_session_gone_twice_two_seconds_apart() {
    let gone = || look(Some(2), Session::Gone, false);
    let (state, commands) = step(started(Ownership::Standby), 0, gone());
    assert_eq!(commands, [Command::Sleep(200)]);
    let (state, _) = step(state, 200, Event::Woke);
    // In between it is seen alive: the count starts again.
    let (state, _) = step(state, 200, look(Some(2), Session::Alive, false));
    let (state, _) = step(state, 400, Event::Woke);
    let (state, commands) = step(state, 400, gone());
    assert_eq!(grounds(&commands), None);
    let (state, _) = step(state, 2_399, Event::Woke);
    let (state, commands) = step(state, 2_399, gone());
    assert_eq!(grounds(&commands), None);
    let (state, _) = step(state, 2_400, Event::Woke);
    assert_eq!(grounds(&step(state, 2_400, gone()).1), Some(Grounds::Gone));
}

#[test]
fn processes_that_take_over_from_each_other_in_turn_are_stopped() {
    let judged = Judged { epoch: 7, owner: Some(Uuid::from_u128(2)), seen_at: Some(5) };
    let looked = |session, stale| Event::Looked(Look { judged, session, stale, hasty_takeovers: 2 });
    let (_, commands) = step(started(Ownership::TakeOver), 0, looked(Session::Alive, false));
    assert!(commands.contains(&Command::Report(Report::Ended(End::PingPong))), "{commands:?}");
    // A crash loop is no ping-pong: the sessions are gone.
    assert_eq!(grounds(&step(started(Ownership::Wait), 0, looked(Session::Gone, true)).1), Some(Grounds::Gone));
}

/// A process that owns the application at batch 5 of timeline 1, and lost the answer to the commit of batch 6.
fn in_doubt() -> State {
    let (mut state, _) = step(State::new(rules(1, Ownership::Wait)), 0, Event::Start);
    let term = Term { epoch: 3, batch_seq: 5 };
    let events = [
        Event::Connected(Some(Mark { system: 1, timeline: 1 })),
        Event::Prepared,
        look(None, Session::Gone, false),
        Event::TookOver(Some(term)),
        Event::Work(Work::Batch(6)),
        Event::Begun,
        Event::Locked(true),
        Event::Wrote,
        Event::Moved(true),
        Event::Advanced(true),
        Event::Failed(ErrorKind::Unavailable),
    ];
    for event in events {
        (state, _) = step(state, 0, event);
    }
    state
}

fn settle(timeline: i64, row: Option<u64>) -> (State, Vec<Command>) {
    let (state, _) = step(in_doubt(), 0, Event::Connected(Some(Mark { system: 1, timeline })));
    step(state, 0, Event::Settled(row.map(|batch_seq| Term { epoch: 4, batch_seq })))
}

#[test]
fn a_doubt_is_settled_by_what_the_locked_row_says() {
    let told = |row| settle(1, row).1;
    assert_eq!(told(Some(6)), [Command::Report(Report::Committed { resolved: true })]);
    assert_eq!(told(Some(5)), [Command::Report(Report::NotCommitted)]);
    let ended = |end| vec![Command::Disconnect, Command::Report(Report::Ended(end))];
    assert_eq!(told(Some(4)), ended(End::WentBack { stored: 4, known: 5 }));
    assert_eq!(told(Some(7)), ended(End::Ahead { stored: 7, known: 5 }));
    assert_eq!(told(None), ended(End::Fenced));
}

#[test]
fn another_owner_on_another_timeline_is_judged_as_at_start() {
    let (state, commands) = settle(2, None);
    assert_eq!(commands, [Command::Look]);
    let (state, commands) = step(state, 0, look(Some(2), Session::Gone, true));
    assert_eq!(grounds(&commands), Some(Grounds::Gone));
    let taken = |batch_seq| step(state.clone(), 0, Event::TookOver(Some(Term { epoch: 9, batch_seq }))).1;
    assert_eq!(taken(5), [Command::Report(Report::NotCommitted)]);
    // The answer to that takeover may be lost: then the row is found to be ours, and it says no more than before.
    let (lost, _) = step(state.clone(), 0, Event::Failed(ErrorKind::Unavailable));
    let (lost, _) = step(lost, 0, Event::Woke);
    let (lost, _) = step(lost, 0, Event::Connected(Some(Mark { system: 1, timeline: 2 })));
    let (lost, _) = step(lost, 0, Event::Prepared);
    let (lost, commands) = step(lost, 0, look(Some(1), Session::Gone, false));
    assert_eq!(grounds(&commands), Some(Grounds::Ours));
    let (_, commands) = step(lost, 0, Event::TookOver(Some(Term { epoch: 10, batch_seq: 6 })));
    assert!(commands.contains(&Command::Report(Report::Ended(End::Fenced))), "{commands:?}");
    // A batch 6 there is, but whose?
    assert!(taken(6).contains(&Command::Report(Report::Ended(End::Fenced))));
    assert!(taken(4).contains(&Command::Report(Report::Ended(End::WentBack { stored: 4, known: 5 }))));
}

#[test]
fn a_store_that_stays_away_ends_the_process_with_the_outcome_unknown() {
    let mut state = in_doubt();
    let mut now = 0;
    let end = loop {
        let commands;
        (state, commands) = step(state, now, Event::Failed(ErrorKind::Unavailable));
        match commands.last() {
            Some(Command::Sleep(ms)) => now += ms,
            other => break other.copied(),
        }
        (state, _) = step(state, now, Event::Woke);
    };
    assert_eq!(end, Some(Command::Report(Report::Ended(End::Failed(ErrorKind::OutcomeUnknown)))));
    assert!((600_000..603_000).contains(&now), "{now}");
}

/// A full disk: it can be read, and the takeover fails each time.
#[test]
fn a_store_that_can_only_be_read_ends_the_start_in_time() {
    let (mut state, _) = step(State::new(rules(1, Ownership::Wait)), 0, Event::Start);
    let mut now = 0;
    let end = loop {
        for event in [Event::Connected(None), Event::Prepared, look(None, Session::Gone, false)] {
            (state, _) = step(state, now, event);
        }
        let commands;
        (state, commands) = step(state, now, Event::Failed(ErrorKind::Unavailable));
        match commands.last() {
            Some(Command::Sleep(ms)) => now += ms,
            other => break other.copied(),
        }
        assert!(now < 100_000, "it never ends");
        (state, _) = step(state, now, Event::Woke);
    };
    assert_eq!(end, Some(Command::Report(Report::Ended(End::Failed(ErrorKind::Unavailable)))));
    assert!((30_000..33_000).contains(&now), "{now}");
}

#[test]
fn fenced_is_terminal() {
    let (state, _) = settle(1, None);
    for event in [Event::Start, Event::BeatDue, Event::Work(Work::Batch(6)), Event::Woke, Event::Connected(None)] {
        assert_eq!(step(state.clone(), 0, event), (state.clone(), Vec::new()));
    }
}
