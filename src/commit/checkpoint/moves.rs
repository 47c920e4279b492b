//! Offsets of a folder moved by an operator: one snapshot, under the folder's lock.

use super::{
    folder::path_of,
    session::{Retention, Session},
};
use crate::{
    clock::Clock,
    commit::{
        moves::{MoveRequest, Moved, moved_meanwhile, owned},
        settings::StoreSettings,
        waiting::on_a_thread,
    },
    error::{Error, ErrorKind, Result},
};

/// Moves the offsets, all of them or none. The folder is there, and knows the application.
///
/// # Errors
/// [`Fenced`](ErrorKind::Fenced) while a live process owns the application, [`Conflict`](ErrorKind::Conflict) if an offset is not
/// the expected one, [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) with what the disk says.
pub(in crate::commit) async fn move_offsets(
    settings: &StoreSettings,
    request: &MoveRequest,
    clock: &dyn Clock,
) -> Result<Moved> {
    let (settings, request, now_ms) = (settings.clone(), request.clone(), clock.now_ms());
    on_a_thread(move || write(&settings, &request, now_ms)).await?
}

fn write(settings: &StoreSettings, request: &MoveRequest, now_ms: i64) -> Result<Moved> {
    let application = &settings.application;
    let mut session = Session::open(&path_of(&settings.url)?, application)?;
    if !session.lock()? {
        return Err(super::locked());
    }
    session.refresh()?;
    // Nobody can become the owner any more.
    let state = session.state()?;
    if let Some(told) = state.live_owner(&session.folder().owners())? {
        return Err(owned(application, &told));
    }
    let (next, entry) = state.moved_by(request, settings, now_ms).map_err(|stale| moved_meanwhile(&stale))?;
    let moved = Moved { epoch: next.epoch, partitions: request.moves.len() as u64, ..Moved::default() };
    // Whoever keeps the ledger short is the job, by its own setting.
    let retention = Retention { batches: u64::MAX, since_ms: i64::MIN };
    session.write_snapshot(next, Some(entry), retention).map_err(|error| {
        let text = "the folder could not be written: directstream offsets show tells where the offsets stand";
        Error::new(ErrorKind::OutcomeUnknown, text).caused_by(error)
    })?;
    Ok(moved)
}
