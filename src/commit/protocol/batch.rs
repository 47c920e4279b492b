//! While we are the owner: heartbeats, and one transaction after the other.

use super::{Command, Doubt, End, Event, Phase, Purpose, Report, Stage, State, Term, Work};
use crate::error::ErrorKind;

type Next = (State, Vec<Command>);

pub(super) fn step(state: State, event: &Event) -> Next {
    let Some(term) = state.term else {
        return state.end(End::Failed(ErrorKind::Internal));
    };
    match (state.phase, event) {
        (Phase::Ready, Event::BeatDue) => state.go(Phase::Beating, vec![Command::Beat(term)]),
        (Phase::Ready, Event::Work(Work::Batch(seq))) if *seq != term.batch_seq + 1 => {
            (state, vec![Command::Report(Report::Misused)])
        }
        (Phase::Ready, Event::Work(work)) => state.go(Phase::Working(*work, Stage::Beginning), vec![Command::Begin]),
        (Phase::Ready, Event::Stop) => state.go(Phase::Releasing, vec![Command::Release(term)]),
        (Phase::Beating, Event::Beaten(true)) => state.go(Phase::Ready, vec![Command::Report(Report::Held)]),
        // I7: an idle process that was replaced learns it here, within a second.
        (Phase::Beating, Event::Beaten(false)) => state.end(End::Fenced),
        // A heartbeat done twice is done once; but the session is gone, and with it what a rival judges us by.
        (Phase::Beating, Event::Failed(_)) => state.reconnect(Purpose::Settle(Doubt { work: None, conflict: false })),
        (Phase::Working(work, stage), event) => work_step(state, work, stage, event, term),
        (Phase::RollingBack(_), Event::RolledBack) => state.go(Phase::Ready, vec![Command::Report(Report::Conflict)]),
        (Phase::RollingBack(work), Event::Failed(_)) => {
            state.reconnect(Purpose::Settle(Doubt { work: Some(work), conflict: true }))
        }
        // Not given back: the next start finds our session gone.
        (Phase::Releasing, Event::Released | Event::Failed(_)) => state.end(End::Stopped),
        _ => (state, Vec::new()),
    }
}

/// One step of a transaction.
///
/// What is known when something fails (the answer lost, the server's refusal, it is all one here):
///
/// * before `Commit` was sent: the transaction is open, or rolled back. Its session may live on in the database for a
///   while, holding the row. If user code got a COMMIT through in spite of everything, it may even be committed.
/// * after `Commit` was sent: it is committed, or rolled back, or still at work.
///
/// So there is one way out of all of them: close the socket, connect again, and settle by a write that waits for the row.
fn work_step(mut state: State, work: Work, stage: Stage, event: &Event, term: Term) -> Next {
    let (stage, command) = match (stage, event) {
        (Stage::Beginning, Event::Begun) => (Stage::Locking, Command::Lock(term)),
        // Locked first, so that a takeover waits for this transaction, and its write then tells the outcome (I5).
        (Stage::Locking, Event::Locked(true)) => (Stage::Writing, Command::Write),
        (Stage::Locking, Event::Locked(false)) => return state.end(End::Fenced),
        // The compare-and-swap: it alone keeps a record from being counted twice (I4).
        (Stage::Writing, Event::Wrote) => (Stage::MovingOffsets, Command::MoveOffsets),
        (Stage::MovingOffsets, Event::Moved(false)) => {
            return state.go(Phase::RollingBack(work), vec![Command::Rollback]);
        }
        (Stage::MovingOffsets, Event::Moved(true)) => match work {
            Work::Batch(_) => (Stage::Advancing, Command::Advance(term)),
            Work::Positions => (Stage::Committing, Command::Commit),
        },
        (Stage::Advancing, Event::Advanced(true)) => (Stage::Committing, Command::Commit),
        (Stage::Committing, Event::Committed) => {
            if let Work::Batch(seq) = work {
                state.term = Some(Term { batch_seq: seq, ..term });
            }
            return state.go(Phase::Ready, vec![Command::Report(Report::Committed { resolved: false })]);
        }
        (_, Event::Failed(_)) | (Stage::Advancing, Event::Advanced(false)) => {
            return state.reconnect(Purpose::Settle(Doubt { work: Some(work), conflict: false }));
        }
        _ => return (state, Vec::new()),
    };
    state.go(Phase::Working(work, stage), vec![command])
}
