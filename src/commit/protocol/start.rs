//! From nothing, or from a doubt, to being the owner with a good connection.

use super::{
    Command, Doubt, End, Event, GONE_TWICE_MS, Grounds, HASTY_TAKEOVERS_MAX, LOOK_EVERY_MS, Look,
    OWNER_LEAVES_WITHIN_MS, Ownership, Phase, Purpose, Report, Session, Starting, State, Term, Work,
};

type Next = (State, Vec<Command>);

pub(super) fn step(mut state: State, now: u64, event: Event) -> Next {
    match (state.phase, event) {
        (Phase::New, Event::Start) => {
            state.go(Phase::Connecting(Purpose::Start(Starting::default())), vec![Command::Connect])
        }
        (Phase::BackingOff(purpose), Event::Woke) => state.go(Phase::Connecting(purpose), vec![Command::Connect]),
        (Phase::Connecting(purpose), Event::Connected(mark)) => {
            state.mark_now = mark;
            match purpose {
                Purpose::Start(starting) => state.go(Phase::Preparing(starting), vec![Command::Prepare]),
                Purpose::Settle(doubt) => state.go(Phase::Settling(doubt), vec![Command::Settle]),
            }
        }
        (Phase::Preparing(starting), Event::Prepared) => state.go(Phase::Looking(starting), vec![Command::Look]),
        (Phase::Pausing(starting), Event::Woke) => state.go(Phase::Looking(starting), vec![Command::Look]),
        (Phase::Looking(starting), Event::Looked(look)) => judge(state, now, starting, &look),
        (Phase::TakingOver(starting, grounds), Event::TookOver(Some(term))) => {
            resolve(state, term, starting.doubt, Some(grounds))
        }
        // The row changed between look and takeover: its owner is alive, or another starter was quicker.
        (Phase::TakingOver(starting, _), Event::TookOver(None)) => pause(state, starting),
        // A transaction holds the row, and its session cannot be shown to be stuck: it counts as live.
        (Phase::TakingOver(starting, _), Event::Blocked) => live(state, now, starting),
        (Phase::Settling(doubt), Event::Settled(Some(term))) => resolve(state, term, Some(doubt), None),
        (Phase::Settling(doubt), Event::Settled(None)) => not_ours(state, doubt),
        // Our own lost transaction is still at work in the database: its outcome is not there to be read yet.
        (Phase::Settling(doubt), Event::Blocked) => {
            state.back_off(now, Purpose::Settle(doubt), crate::error::ErrorKind::Unavailable)
        }
        (Phase::Connecting(purpose), Event::Failed(kind)) => state.failed(now, purpose, kind),
        (Phase::Preparing(starting) | Phase::Looking(starting), Event::Failed(kind))
        | (Phase::TakingOver(starting, _), Event::Failed(kind)) => state.failed(now, Purpose::Start(starting), kind),
        (Phase::Settling(doubt), Event::Failed(kind)) => state.failed(now, Purpose::Settle(doubt), kind),
        // Nothing is owned yet, or the store cannot be reached: there is nothing to give back.
        (_, Event::Stop) => state.end(End::Stopped),
        _ => (state, Vec::new()),
    }
}

/// Judges the recorded owner. Being wrong costs the owner its term and never data: the compare-and-swaps decide.
fn judge(mut state: State, now: u64, mut starting: Starting, look: &Look) -> Next {
    let gone_since = match starting.gone_since {
        Some((since, judged)) if judged.owner == look.judged.owner && judged.epoch == look.judged.epoch => since,
        _ => now,
    };
    starting.gone_since = (look.session == Session::Gone).then_some((gone_since, look.judged));
    let gone_long_enough = state.rules.ownership != Ownership::Standby || now - gone_since >= GONE_TWICE_MS;
    let grounds = match look.judged.owner {
        None => Some(Grounds::Free),
        Some(owner) if owner == state.rules.me => Some(Grounds::Ours),
        Some(_) if look.session == Session::Gone && gone_long_enough => Some(Grounds::Gone),
        // A standby that saw the session go waits for the second look: the grounds are then the better ones.
        Some(_) if look.session == Session::Gone => None,
        Some(_) if look.stale => Some(Grounds::Age),
        Some(_) if state.rules.ownership == Ownership::TakeOver => Some(Grounds::Force),
        Some(_) => None,
    };
    if grounds.is_none() {
        // It answers, and waiting is not its fault. A takeover is another matter: a store that can be read and not be written to
        // counts as away until one succeeds.
        state.down = None;
    }
    match grounds {
        Some(grounds) if grounds.is_hasty() && look.hasty_takeovers >= HASTY_TAKEOVERS_MAX => state.end(End::PingPong),
        Some(grounds) => state.go(Phase::TakingOver(starting, grounds), vec![Command::TakeOver(look.judged, grounds)]),
        None if look.session == Session::Gone => pause(state, starting),
        None => live(state, now, starting),
    }
}

fn pause(state: State, starting: Starting) -> Next {
    state.go(Phase::Pausing(starting), vec![Command::Sleep(LOOK_EVERY_MS)])
}

/// There is a live owner.
fn live(state: State, now: u64, mut starting: Starting) -> Next {
    let since = *starting.live_since.get_or_insert(now);
    if state.rules.ownership != Ownership::Standby && now.saturating_sub(since) >= OWNER_LEAVES_WITHIN_MS {
        return state.end(End::Rival);
    }
    state.go(Phase::Pausing(starting), vec![Command::Report(Report::Waiting), Command::Sleep(LOOK_EVERY_MS)])
}

/// The settling write found that we are not the owner.
fn not_ours(state: State, doubt: Doubt) -> Next {
    if state.mark == state.mark_now {
        return state.end(End::Fenced);
    }
    // Another timeline: the owner recorded here may be one that a replica never saw us replace. Judged as at start, and
    // what was in doubt is settled by the batch number that the takeover finds.
    let starting = Starting { doubt: Some(doubt), ..Starting::default() };
    state.go(Phase::Looking(starting), vec![Command::Look])
}

/// We own the application under `term`: tells what became of the doubt.
fn resolve(mut state: State, term: Term, doubt: Option<Doubt>, grounds: Option<Grounds>) -> Next {
    let known = state.term.map(|term| term.batch_seq);
    state.down = None;
    state.mark = state.mark_now;
    let report = match (doubt, known, grounds) {
        (Some(doubt), Some(known), _) => {
            let stored = term.batch_seq;
            if stored < known {
                return state.end(End::WentBack { stored, known });
            }
            // Taken from another owner on another timeline: a batch of this number may be that owner's. Also where the row
            // is ours by now: then it is by a takeover in this doubt whose answer was lost.
            let others = grounds.is_some();
            match doubt.work {
                _ if stored > known && others => return state.end(End::Fenced),
                Some(Work::Batch(seq)) if stored == seq => Report::Committed { resolved: true },
                _ if stored > known => return state.end(End::Ahead { stored, known }),
                Some(_) if doubt.conflict => Report::Conflict,
                Some(_) => Report::NotCommitted,
                None => Report::Reconnected,
            }
        }
        (_, _, Some(grounds)) => Report::Started(term, grounds),
        _ => Report::Reconnected,
    };
    state.term = Some(term);
    state.go(Phase::Ready, vec![Command::Report(report)])
}
