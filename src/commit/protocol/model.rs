//! The model: every interleaving of processes that drive the very [`step`] which runs, against a small database.
//!
//! Answers are lost before and after their effect, a COMMIT lands late or not at all, processes die and are started again or
//! stand still and go on later, sessions are ended by the server, and the database fails over to a replica that lags. What
//! [`Defect`] names is left out or done wrong around `step`; the checker has to find what follows from it.

mod tests;

use std::sync::Arc;

use stateright::{Model, Property};
use uuid::Uuid;

use super::{Command, Event, Judged, Look, Mark, Ownership, Report, Rules, Session, State, Term, Work, step};
use crate::error::ErrorKind;

const RECORDS_EACH: u64 = 1;
/// How many earlier states of the database a replica may have stopped at.
const REPLICA_LAGS_MAX: usize = 2;

/// What is wrong with the program or the store around [`step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Defect {
    /// Owner and epoch are looked at when the transaction begins, and the row is not locked.
    checked_before_transaction: bool,
    /// Inside the transaction only the epoch is looked at.
    epoch_alone: bool,
    /// Offsets move whatever they were.
    offsets_unchecked: bool,
    /// A lost answer to COMMIT passes for "not committed".
    unknown_is_failed: bool,
    /// A lost answer to COMMIT passes for "committed".
    unknown_is_done: bool,
    /// A doubt is settled by a read that neither waits nor raises the epoch.
    settled_by_a_read: bool,
    /// Results are committed first, offsets after them.
    two_transactions: bool,
}

/// What may happen, and how often.
#[derive(Debug, Clone)]
struct Bounds {
    ownerships: Vec<Ownership>,
    batches: u64,
    lost_answers: u8,
    crashes: u8,
    ended_sessions: u8,
    failovers: u8,
    /// A pooler between: connections outlive a failover where no transaction is open.
    pooler: bool,
    heartbeats: bool,
    defect: Defect,
}

impl Bounds {
    fn none(ownerships: &[Ownership]) -> Self {
        Self {
            ownerships: ownerships.to_vec(),
            batches: 2,
            lost_answers: 0,
            crashes: 0,
            ended_sessions: 0,
            failovers: 0,
            pooler: false,
            heartbeats: false,
            defect: Defect::default(),
        }
    }
}

/// A committed batch: its number, its records, whose it is and under which epoch it was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    seq: u64,
    from: u64,
    until: u64,
    owner: Uuid,
    epoch: u64,
}

/// What a replica can have of the database.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Table {
    epoch: u64,
    owner: Option<Uuid>,
    seq: u64,
    until: u64,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    Process(usize),
    /// A COMMIT whose client is gone, and that the database has not finished.
    Late,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Database {
    now: Arc<Table>,
    before: Vec<Arc<Table>>,
    timeline: i64,
    lock: Option<Holder>,
    late: Option<Row>,
}

impl Database {
    fn change(&mut self, change: impl FnOnce(&mut Table)) {
        if self.before.len() == REPLICA_LAGS_MAX {
            self.before.remove(0);
        }
        self.before.push(Arc::clone(&self.now));
        change(Arc::make_mut(&mut self.now));
    }

    fn term(&self) -> Term {
        Term { epoch: self.now.epoch, batch_seq: self.now.seq }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Process {
    state: State,
    waiting: Option<Command>,
    /// The offset in memory: where the next batch begins.
    at: u64,
    /// What its open transaction will have written.
    row: Option<Row>,
    /// What [`Defect::checked_before_transaction`] found.
    held_at_begin: bool,
    /// The server or a failover ended its connection, and it does not know yet.
    cut: bool,
    /// The database that its session belongs to.
    timeline: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    database: Database,
    processes: Vec<Process>,
    lost_answers: u8,
    crashes: u8,
    ended_sessions: u8,
    failovers: u8,
    /// Processes there were, each with an owner id of its own.
    born: u128,
    /// Whether everything that was told was true, and I2 held, at every step so far.
    wrong: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Start(usize),
    Work(usize),
    Beat(usize),
    Answer(usize),
    LoseBefore(usize),
    LoseAfter(usize),
    /// COMMIT was sent, the connection was lost, and the database is not done yet.
    CommitLate(usize),
    LateLands,
    LateFails,
    Crash(usize),
    EndSession(usize),
    /// To a replica that misses so many transactions.
    FailOver(usize),
    /// A supervisor starts the program again.
    StartAgain(usize),
}

fn rules(number: u128, ownership: Ownership) -> Rules {
    Rules { me: Uuid::from_u128(number), ownership, start_timeout_ms: 30_000, unavailable_max_ms: 600_000 }
}

fn process(number: u128, ownership: Ownership) -> Process {
    let state = State::new(rules(number, ownership));
    Process { state, waiting: None, at: 0, row: None, held_at_begin: false, cut: false, timeline: 0 }
}

impl World {
    fn feed(&mut self, who: usize, event: Event) {
        let (state, commands) = step(self.processes[who].state.clone(), 0, event);
        self.processes[who].state = state;
        for command in commands {
            match command {
                // The server notices, and gives up what was open.
                Command::Disconnect => self.close(who),
                Command::Report(report) => self.told(who, report),
                command => assert!(self.processes[who].waiting.replace(command).is_none(), "two commands at once"),
            }
        }
    }

    fn close(&mut self, who: usize) {
        if self.database.lock == Some(Holder::Process(who)) {
            self.database.lock = None;
        }
        self.processes[who].row = None;
    }

    /// What is told must be true at that moment, and what the driver does with it.
    fn told(&mut self, who: usize, report: Report) {
        let (now, process) = (Arc::clone(&self.database.now), &mut self.processes[who]);
        let me = process.state.rules.me;
        let stored = process.state.term().map_or(0, |term| term.batch_seq);
        let mine = |seq: u64| now.rows.iter().any(|row| row.seq == seq && row.owner == me);
        match report {
            Report::Started(..) => process.at = now.until,
            Report::Committed { .. } => {
                process.at += RECORDS_EACH;
                if !mine(stored) {
                    self.wrong = Some("told committed, and is not");
                }
            }
            Report::NotCommitted | Report::Conflict => {
                let late = self.database.late.is_some_and(|late| late.owner == me);
                if mine(stored + 1) || late {
                    self.wrong = Some("told not committed, and is or may be");
                }
                if report == Report::Conflict {
                    process.at = now.until;
                }
            }
            Report::Misused => self.wrong = Some("misused"),
            Report::Waiting | Report::Held | Report::Reconnected | Report::Ended(_) => {}
        }
    }

    fn live(&self, owner: Uuid) -> bool {
        let session = |process: &Process| process.state.ended().is_none() && !process.cut;
        self.processes.iter().any(|process| process.state.rules.me == owner && session(process))
    }
}

impl Bounds {
    /// Whether a command has to wait for the row's lock.
    fn is_blocked(&self, world: &World, who: usize, command: Command) -> bool {
        let locks = match command {
            Command::TakeOver(..) | Command::Beat(_) => true,
            Command::Settle => !(self.defect.settled_by_a_read || self.defect.unknown_is_failed),
            Command::Lock(_) => !self.defect.checked_before_transaction,
            // Its own update takes the lock where nothing took it before.
            Command::MoveOffsets => self.defect.checked_before_transaction,
            _ => false,
        };
        locks && world.database.lock.is_some_and(|holder| holder != Holder::Process(who))
    }

    /// The effect of a command, and its answer.
    fn act(&self, world: &mut World, who: usize, command: Command) -> Event {
        let (process, database) = (&mut world.processes[who], &mut world.database);
        let me = process.state.rules.me;
        let owned = database.now.owner == Some(me);
        match command {
            Command::Connect => {
                (process.cut, process.timeline) = (false, database.timeline);
                Event::Connected(Some(Mark { system: 1, timeline: database.timeline }))
            }
            Command::Prepare => Event::Prepared,
            Command::Look => Event::Looked(look(world)),
            Command::TakeOver(judged, _) => {
                if (judged.epoch, judged.owner) != (database.now.epoch, database.now.owner) && !owned {
                    return Event::TookOver(None);
                }
                database.change(|table| (table.epoch, table.owner) = (table.epoch + 1, Some(me)));
                Event::TookOver(Some(database.term()))
            }
            Command::Settle if self.defect.unknown_is_failed => Event::Settled(process.state.term()),
            Command::Settle if !owned => Event::Settled(None),
            Command::Settle => {
                if !self.defect.settled_by_a_read {
                    database.change(|table| table.epoch += 1);
                }
                Event::Settled(Some(database.term()))
            }
            Command::Beat(of) => Event::Beaten(owned && of.epoch == database.now.epoch),
            Command::Begin => {
                let (seq, from) = (process.state.term().map_or(0, |term| term.batch_seq) + 1, process.at);
                process.row = Some(Row { seq, from, until: from + RECORDS_EACH, owner: me, epoch: 0 });
                process.held_at_begin = owned && process.state.term() == Some(database.term());
                Event::Begun
            }
            Command::Write => Event::Wrote,
            Command::Commit => {
                commit(world, who, self.defect);
                Event::Committed
            }
            Command::Rollback => {
                world.close(who);
                Event::RolledBack
            }
            Command::Sleep(_) => Event::Woke,
            command => self.check(world, who, command),
        }
    }

    /// The three checks inside the transaction.
    fn check(&self, world: &mut World, who: usize, command: Command) -> Event {
        let (process, database) = (&mut world.processes[who], &mut world.database);
        let owned = database.now.owner == Some(process.state.rules.me);
        let stored = database.term();
        let is = |of: Term| if self.defect.epoch_alone { of.epoch == stored.epoch } else { owned && of == stored };
        match command {
            Command::Lock(of) => {
                let held = if self.defect.checked_before_transaction { process.held_at_begin } else { is(of) };
                if held && !self.defect.checked_before_transaction {
                    database.lock = Some(Holder::Process(who));
                }
                if let Some(row) = &mut process.row {
                    row.epoch = of.epoch;
                }
                Event::Locked(held)
            }
            Command::MoveOffsets => {
                database.lock = Some(Holder::Process(who));
                let Some(row) = process.row else { return Event::Failed(ErrorKind::Internal) };
                if self.defect.two_transactions {
                    database.change(|table| table.rows.push(row));
                }
                Event::Moved(self.defect.offsets_unchecked || database.now.until == row.from)
            }
            Command::Advance(of) => Event::Advanced(self.defect.checked_before_transaction || is(of)),
            other => unreachable!("{other:?}"),
        }
    }

    fn answer(&self, world: &mut World, action: Action, who: usize) {
        let Some(command) = world.processes[who].waiting.take() else { return };
        let lost = Event::Failed(ErrorKind::Unavailable);
        // A session that is gone can do nothing; only a new one can.
        let dead = world.processes[who].cut && !matches!(command, Command::Connect | Command::Sleep(_));
        let event = match action {
            _ if dead => lost.clone(),
            Action::LoseBefore(_) => lost.clone(),
            Action::LoseAfter(_) => {
                self.act(world, who, command);
                lost.clone()
            }
            Action::CommitLate(_) => {
                world.database.late = world.processes[who].row.take();
                world.database.lock = Some(Holder::Late);
                lost.clone()
            }
            _ => self.act(world, who, command),
        };
        if action != Action::Answer(who) {
            world.lost_answers -= 1;
        }
        let done_for_lost = self.defect.unknown_is_done && command == Command::Commit && event == lost;
        if done_for_lost {
            // The connection is gone all the same.
            world.processes[who].cut = true;
            world.close(who);
        }
        world.feed(who, if done_for_lost { Event::Committed } else { event });
    }
}

fn look(world: &World) -> Look {
    let now = &world.database.now;
    let session = if now.owner.is_some_and(|owner| world.live(owner)) { Session::Alive } else { Session::Gone };
    let judged = Judged { epoch: now.epoch, owner: now.owner, seen_at: None };
    Look { judged, session, stale: false, hasty_takeovers: 0 }
}

fn commit(world: &mut World, who: usize, defect: Defect) {
    let row = world.processes[who].row.take();
    world.database.lock = None;
    land(world, row, defect);
}

fn land(world: &mut World, row: Option<Row>, defect: Defect) {
    let Some(row) = row else { return };
    if row.until < world.database.now.until {
        world.wrong = Some("I2: an offset went back");
    }
    world.database.change(|table| {
        (table.seq, table.until) = (row.seq, row.until);
        if !defect.two_transactions {
            table.rows.push(row);
        }
    });
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let processes = (1..).zip(&self.ownerships).map(|(number, ownership)| process(number, *ownership)).collect();
        vec![World {
            database: Database::default(),
            processes,
            lost_answers: self.lost_answers,
            crashes: self.crashes,
            ended_sessions: self.ended_sessions,
            failovers: self.failovers,
            born: u128::try_from(self.ownerships.len()).unwrap(),
            wrong: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.database.late.is_some() {
            actions.extend([Action::LateLands, Action::LateFails]);
        }
        if world.failovers > 0 {
            actions.extend((1..=world.database.before.len()).map(Action::FailOver));
        }
        let nobody = world.processes.iter().all(|process| process.state.ended().is_some());
        for (who, process) in world.processes.iter().enumerate() {
            if process.state.ended().is_some() {
                actions.extend(nobody.then_some(Action::StartAgain(who)));
                continue;
            }
            let ready = process.state.is_ready();
            if let Some(command) = process.waiting {
                if process.cut || !self.is_blocked(world, who, command) {
                    actions.push(Action::Answer(who));
                    let fallible = world.lost_answers > 0 && !matches!(command, Command::Sleep(_));
                    actions.extend(fallible.then_some(Action::LoseBefore(who)));
                    actions.extend((fallible && !process.cut).then_some(Action::LoseAfter(who)));
                    let late = fallible && !process.cut && command == Command::Commit;
                    actions.extend(late.then_some(Action::CommitLate(who)));
                }
            } else if ready {
                let seq = process.state.term().map_or(0, |term| term.batch_seq);
                // After a failover the next record, which always comes, makes it notice.
                let behind = process.timeline != world.database.timeline && world.database.now.seq < self.batches;
                actions.extend((seq < self.batches || behind).then_some(Action::Work(who)));
                actions.extend(self.heartbeats.then_some(Action::Beat(who)));
            } else {
                actions.push(Action::Start(who));
            }
            actions.extend((world.crashes > 0).then_some(Action::Crash(who)));
            let session = world.ended_sessions > 0 && !process.cut && (ready || process.waiting.is_some());
            actions.extend(session.then_some(Action::EndSession(who)));
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Start(who) => world.feed(who, Event::Start),
            Action::Work(who) => {
                let seq = world.processes[who].state.term().map_or(0, |term| term.batch_seq) + 1;
                world.feed(who, Event::Work(Work::Batch(seq)));
            }
            Action::Beat(who) => world.feed(who, Event::BeatDue),
            Action::Answer(who) | Action::LoseBefore(who) | Action::LoseAfter(who) | Action::CommitLate(who) => {
                self.answer(&mut world, action, who);
            }
            Action::LateLands | Action::LateFails => {
                let row = world.database.late.take();
                world.database.lock = None;
                land(&mut world, row.filter(|_| action == Action::LateLands), self.defect);
            }
            Action::Crash(who) | Action::StartAgain(who) => {
                if action == Action::Crash(who) {
                    world.crashes -= 1;
                }
                world.close(who);
                world.born += 1;
                world.processes[who] = process(world.born, world.processes[who].state.rules.ownership);
            }
            Action::EndSession(who) => {
                world.ended_sessions -= 1;
                world.close(who);
                world.processes[who].cut = true;
            }
            Action::FailOver(lag) => self.fail_over(&mut world, lag),
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always("I1 no record doubled", |_, world| {
                pairs(&world.database.now).all(|(until, row)| row.from >= until)
            }),
            Property::<Self>::always("I1 no record missing", |_, world| {
                pairs(&world.database.now).all(|(until, row)| row.from <= until)
                    && world.database.now.rows.last().map_or(0, |row| row.until) >= world.database.now.until
            }),
            Property::<Self>::always("I3 I4 each batch number once, without a hole", |_, world| {
                (1..).zip(&world.database.now.rows).all(|(seq, row)| row.seq == seq)
                    && u64::try_from(world.database.now.rows.len()) == Ok(world.database.now.seq)
            }),
            Property::<Self>::always("I5 epochs of commits never go back", |_, world| {
                world.database.now.rows.windows(2).all(|pair| pair[0].epoch <= pair[1].epoch)
            }),
            Property::<Self>::always("I2 and what is told is true", |_, world| world.wrong.is_none()),
            Property::<Self>::always("I7 an ended process does nothing", |_, world| {
                world.processes.iter().all(|process| process.state.ended().is_none() || process.waiting.is_none())
            }),
            Property::<Self>::always("I8 never stuck before everything is committed", |model, world| {
                let mut actions = Vec::new();
                model.actions(world, &mut actions);
                !actions.is_empty() || world.database.now.seq >= model.batches
            }),
            Property::<Self>::sometimes("everything is committed and somebody owns it", |model, world| {
                let ready = world.processes.iter().any(|process| process.state.is_ready());
                world.database.now.seq == model.batches && ready
            }),
        ]
    }
}

impl Bounds {
    fn fail_over(&self, world: &mut World, lag: usize) {
        world.failovers -= 1;
        let database = &mut world.database;
        database.now = Arc::clone(&database.before[database.before.len() - lag]);
        database.before.clear();
        database.timeline += 1;
        (database.lock, database.late) = (None, None);
        for process in &mut world.processes {
            let carried = self.pooler && process.row.is_none();
            process.cut |= !carried;
            process.row = None;
        }
    }
}

/// Each committed row with the end of the one before it.
fn pairs(table: &Table) -> impl Iterator<Item = (u64, &Row)> {
    let ends = std::iter::once(0).chain(table.rows.iter().map(|row| row.until));
    ends.zip(&table.rows)
}
