//! Goal: every answer that can be lost, is lost, before and after its effect, and the outcome told is the one in the database.
//! Method: all interleavings of two processes that drive [`step`] against a small database, with faults at every command.

use std::collections::HashSet;

use uuid::Uuid;

use super::{
    Command, End, Event, Grounds, Judged, Look, Mark, Ownership, Report, Rules, Session, State, Term, Work, step,
};
use crate::error::ErrorKind;

/// Batches that each process wants to see committed.
const BATCHES: u64 = 2;

fn rules(number: u128, ownership: Ownership) -> Rules {
    Rules { me: Uuid::from_u128(number), ownership, start_timeout_ms: 30_000, unavailable_max_ms: 600_000 }
}

/// A committed batch, and who committed it.
type Row = (u64, usize);

#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Database {
    epoch: u64,
    owner: Option<Uuid>,
    seq: u64,
    until: u64,
    rows: Vec<Row>,
    /// Who holds the row's lock.
    lock: Option<usize>,
    /// A commit whose client is gone and that the database has not finished.
    late: Option<usize>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Process {
    state: State,
    waiting: Option<Command>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    database: Database,
    processes: Vec<Process>,
    faults: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    LostBefore,
    LostAfter,
    /// COMMIT was sent, the connection was lost, and the database is not done yet.
    Late,
}

impl World {
    fn new(owners: &[Ownership], faults: u32) -> Self {
        let process = |(number, ownership): (usize, &Ownership)| Process {
            state: State::new(rules(u128::try_from(number).unwrap() + 1, *ownership)),
            waiting: None,
        };
        Self { database: Database::default(), processes: owners.iter().enumerate().map(process).collect(), faults }
    }

    fn feed(&mut self, who: usize, event: Event) {
        let process = &mut self.processes[who];
        let (state, commands) = step(process.state.clone(), 0, event);
        process.state = state;
        for command in commands {
            match command {
                // The server notices, and gives up what was open.
                Command::Disconnect => {
                    if self.database.lock == Some(who) && self.database.late != Some(who) {
                        self.database.lock = None;
                    }
                }
                Command::Report(report) => self.told(who, report),
                command => assert!(self.processes[who].waiting.replace(command).is_none(), "two commands at once"),
            }
        }
    }

    fn told(&mut self, who: usize, report: Report) {
        // What was tried follows the batch number that the process now holds for stored.
        let stored = self.processes[who].state.term().map_or(0, |term| term.batch_seq);
        let mine = |seq: u64| self.database.rows.contains(&(seq, who));
        match report {
            Report::Committed { .. } => assert!(mine(stored), "told committed, and is not"),
            Report::NotCommitted | Report::Conflict => assert!(!mine(stored + 1), "told not committed, and is"),
            Report::Ended(End::Fenced | End::Stopped) => {}
            Report::Started(..) | Report::Reconnected | Report::Waiting => {}
            other => panic!("{other:?}"),
        }
    }

    /// Whether a command has to wait for the row's lock.
    fn blocked(&self, who: usize, command: Command) -> bool {
        let locks = matches!(
            command,
            Command::TakeOver(..) | Command::Settle | Command::Lock(_) | Command::Release(_) | Command::Beat(_)
        );
        locks && self.database.lock.is_some_and(|holder| holder != who || self.database.late == Some(who))
    }

    /// The effect of a command, and its answer.
    fn act(&mut self, who: usize, command: Command) -> Event {
        let me = self.processes[who].state.rules.me;
        let database = &mut self.database;
        let term = |database: &Database| Term { epoch: database.epoch, batch_seq: database.seq };
        match command {
            Command::Connect => Event::Connected(Some(Mark::default())),
            Command::Prepare => Event::Prepared,
            Command::Look => Event::Looked(Look {
                judged: Judged { epoch: database.epoch, owner: database.owner, seen_at: None },
                session: Session::Alive,
                stale: false,
                hasty_takeovers: 0,
            }),
            Command::TakeOver(judged, _) => {
                let judged_still = (judged.epoch, judged.owner) == (database.epoch, database.owner);
                if !judged_still && database.owner != Some(me) {
                    return Event::TookOver(None);
                }
                database.epoch += 1;
                database.owner = Some(me);
                Event::TookOver(Some(term(database)))
            }
            Command::Settle if database.owner != Some(me) => Event::Settled(None),
            Command::Settle => {
                database.epoch += 1;
                Event::Settled(Some(term(database)))
            }
            Command::Begin => Event::Begun,
            Command::Lock(of) => {
                let held = of == term(database) && database.owner == Some(me);
                database.lock = held.then_some(who).or(database.lock);
                Event::Locked(held)
            }
            Command::Write => Event::Wrote,
            Command::MoveOffsets => Event::Moved(database.until == database.seq),
            Command::Advance(of) => Event::Advanced(of == term(database)),
            Command::Commit => {
                self.commit(who);
                Event::Committed
            }
            Command::Sleep(_) => Event::Woke,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, who: usize) {
        let database = &mut self.database;
        assert_eq!(database.lock, Some(who), "a commit without the lock");
        database.seq += 1;
        database.until += 1;
        database.rows.push((database.seq, who));
        database.lock = None;
        database.late = None;
        let mut seqs: Vec<u64> = database.rows.iter().map(|row| row.0).collect();
        seqs.dedup();
        assert_eq!(seqs.len(), database.rows.len(), "I4: a batch number committed twice");
    }

    fn answer(&mut self, who: usize, command: Command, fate: Fate) {
        self.processes[who].waiting = None;
        self.faults -= u32::from(fate != Fate::Fine);
        match fate {
            Fate::Fine => {
                let event = self.act(who, command);
                self.feed(who, event);
            }
            Fate::LostBefore => self.feed(who, Event::Failed(ErrorKind::Unavailable)),
            Fate::LostAfter => {
                self.act(who, command);
                self.feed(who, Event::Failed(ErrorKind::Unavailable));
            }
            Fate::Late => {
                self.database.late = Some(who);
                self.feed(who, Event::Failed(ErrorKind::Unavailable));
            }
        }
    }

    fn next(&self) -> Vec<Self> {
        let mut next = Vec::new();
        let mut push = |change: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        if let Some(late) = self.database.late {
            push(&|world| world.commit(late));
            push(&|world| (world.database.lock, world.database.late) = (None, None));
        }
        for (who, process) in self.processes.iter().enumerate() {
            match process.waiting {
                None if process.state.is_ready() => {
                    let seq = process.state.term().map_or(0, |term| term.batch_seq) + 1;
                    if seq <= BATCHES {
                        push(&|world| world.feed(who, Event::Work(Work::Batch(seq))));
                    }
                }
                None if process.state.ended().is_none() => push(&|world| world.feed(who, Event::Start)),
                None => {}
                Some(command) if self.blocked(who, command) => {}
                Some(command) => {
                    push(&|world| world.answer(who, command, Fate::Fine));
                    if self.faults > 0 && !matches!(command, Command::Sleep(_)) {
                        push(&|world| world.answer(who, command, Fate::LostBefore));
                        push(&|world| world.answer(who, command, Fate::LostAfter));
                    }
                    if self.faults > 0 && command == Command::Commit {
                        push(&|world| world.answer(who, command, Fate::Late));
                    }
                }
            }
        }
        next
    }
}

/// Walks every state that can be reached; how many there are.
fn explore(world: World) -> usize {
    let mut seen = HashSet::from([world.clone()]);
    let mut open = vec![world];
    while let Some(world) = open.pop() {
        let next = world.next();
        if next.is_empty() {
            // I8: when nothing more can happen, somebody owns the application and has committed everything.
            assert_eq!(world.database.seq, BATCHES, "stuck");
            assert!(world.processes.iter().any(|process| process.state.is_ready()), "nobody is left");
        }
        open.extend(next.into_iter().filter(|world| seen.insert(world.clone())));
    }
    seen.len()
}

#[test]
fn one_process_tells_the_truth_whatever_answers_are_lost() {
    let states = explore(World::new(&[Ownership::Wait], 4));
    assert!(states > 500, "{states}");
}

#[test]
fn two_processes_never_commit_a_batch_twice_whatever_answers_are_lost() {
    let states = explore(World::new(&[Ownership::Wait, Ownership::TakeOver], 3));
    assert!(states > 10_000, "{states}");
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

#[test]
fn fenced_is_terminal() {
    let (state, _) = settle(1, None);
    for event in [Event::Start, Event::BeatDue, Event::Work(Work::Batch(6)), Event::Woke, Event::Connected(None)] {
        assert_eq!(step(state.clone(), 0, event), (state.clone(), Vec::new()));
    }
}
