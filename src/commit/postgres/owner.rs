//! The application's row: who owns it, taking it over, settling a doubt.

use std::time::Duration;

use sqlx::{
    Connection, PgConnection, Row,
    postgres::{PgConnectOptions, PgRow},
};
use uuid::Uuid;

use super::{
    super::{
        identity::{self, Identity},
        ledger::{signed, unsigned},
        protocol::{Grounds, Judged, Look, Mark, Session, Term},
        settings::StoreSettings,
        store::Blockable,
    },
    error::{answer, is_lock_timeout, postgres_error},
};
use crate::error::{Error, Result};

/// How long a row may stay locked before its holder is looked at.
const LOOK_AT_HOLDER_AFTER: Duration = Duration::from_secs(5);
/// How often, and how many looks in a row have to find it stopped.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOKS: u32 = 4;

/// What a look at the row tells.
pub(super) struct Looked {
    pub(super) look: Look,
    pub(super) owner: String,
    pub(super) mark: Option<Mark>,
}

/// Reads the row and what is known of its owner's session, by the database's clock.
pub(super) async fn look(connection: &mut PgConnection, settings: &StoreSettings) -> Result<Looked> {
    // Another role sees neither a session's start nor that it is there: NULL, which is "unknown" and not "gone". A session that
    // is ours by now is the owner's no more: a pooler keeps it when a client goes, and gives it to the next one.
    const LOOK: &str = "SELECT a.epoch, a.owner::text, (extract(epoch FROM a.seen_at) * 1000000)::bigint, \
         CASE WHEN a.backend_pid IS NULL THEN 'unknown' WHEN s.pid IS NULL THEN 'gone' \
         WHEN s.backend_start IS NULL THEN 'unknown' WHEN s.backend_start IS DISTINCT FROM a.backend_start \
         OR s.pid = pg_catalog.pg_backend_pid() THEN 'gone' \
         ELSE 'alive' END, \
         COALESCE(clock_timestamp() - a.seen_at > interval '5 seconds', true), \
         (SELECT count(*) FROM directstream.takeovers t WHERE t.application = a.application \
          AND t.grounds IN ('age', 'force') AND t.taken_at > clock_timestamp() - interval '60 seconds'), \
         COALESCE(a.host, '?'), COALESCE(a.process_id, 0), COALESCE(a.last_batch_time::text, 'none'), \
         a.fingerprint, a.cluster_id, a.interval_ms, a.system_identifier, a.timeline \
         FROM directstream.applications a LEFT JOIN pg_catalog.pg_stat_activity s ON s.pid = a.backend_pid \
         WHERE a.application = $1";
    let what = "cannot read the application's row";
    let row = answer(what, sqlx::query(LOOK).bind(&settings.application).fetch_optional(connection)).await?;
    let row = row
        .ok_or_else(|| Error::corrupt(format!("the application's row is gone application={}", settings.application)))?;
    let looked = looked(&row).map_err(|error| postgres_error(what, error))?;
    let (epoch, owner, looked, identity) = looked;
    identity.check(settings)?;
    let owner = match owner {
        Some(text) => Some(text.parse::<Uuid>().map_err(|_| Error::corrupt("the stored owner is no uuid"))?),
        None => None,
    };
    let judged = Judged { epoch: unsigned("epoch", epoch)?, owner, ..looked.look.judged };
    Ok(Looked { look: Look { judged, ..looked.look }, ..looked })
}

fn looked(row: &PgRow) -> Result<(i64, Option<String>, Looked, Identity), sqlx::Error> {
    let session = match row.try_get::<&str, _>(3)? {
        "gone" => Session::Gone,
        "alive" => Session::Alive,
        _ => Session::Unknown,
    };
    let hasty: i64 = row.try_get(5)?;
    let (host, process_id, last): (String, i64, String) = (row.try_get(6)?, row.try_get(7)?, row.try_get(8)?);
    let (system, timeline): (Option<i64>, Option<i64>) = (row.try_get(12)?, row.try_get(13)?);
    let looked = Looked {
        look: Look {
            judged: Judged { epoch: 0, owner: None, seen_at: row.try_get(2)? },
            session,
            stale: row.try_get(4)?,
            hasty_takeovers: u32::try_from(hasty).unwrap_or(u32::MAX),
        },
        owner: format!("host={host} process_id={process_id} last_batch_time={last:?}"),
        mark: system.zip(timeline).map(|(system, timeline)| Mark { system, timeline }),
    };
    let identity =
        Identity { fingerprint: row.try_get(9)?, cluster_id: row.try_get(10)?, interval_ms: row.try_get(11)? };
    Ok((row.try_get(0)?, row.try_get(1)?, looked, identity))
}

/// One statement, so one transaction: the row, if it is still the judged one, and the entry in the log.
pub(super) async fn take_over(
    connection: &mut PgConnection,
    settings: &StoreSettings,
    mark: Option<Mark>,
    judged: Judged,
    grounds: Grounds,
) -> Result<Blockable<Option<Term>>> {
    const TAKE: &str = "WITH taken AS (UPDATE directstream.applications SET epoch = epoch + 1, owner = $2::uuid, host = $3, \
         process_id = $4, backend_pid = pg_catalog.pg_backend_pid(), backend_start = (SELECT backend_start FROM \
         pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()), seen_at = clock_timestamp(), \
         open_seq = NULL, build = $5, cluster_id = COALESCE(cluster_id, $6), fingerprint = COALESCE(fingerprint, $7), \
         zero_time = COALESCE(zero_time, timestamptz 'epoch' + $8 * interval '1 millisecond'), interval_ms = $9, \
         system_identifier = COALESCE($10, system_identifier), timeline = COALESCE($11, timeline) \
         WHERE application = $1 AND ((epoch = $12 AND (extract(epoch FROM seen_at) * 1000000)::bigint IS NOT DISTINCT FROM $13 \
         AND owner IS NOT DISTINCT FROM $14::uuid) OR owner = $2::uuid) RETURNING epoch, batch_seq), \
         logged AS (INSERT INTO directstream.takeovers (application, epoch, owner, host, process_id, grounds) \
         SELECT $1, epoch, $2::uuid, $3, $4, $15 FROM taken) SELECT epoch, batch_seq FROM taken";
    let taking = sqlx::query(TAKE)
        .bind(&settings.application)
        .bind(settings.owner.to_string())
        .bind(identity::host())
        .bind(identity::process_id())
        .bind(&settings.build)
        .bind(&settings.cluster_id)
        .bind(&settings.fingerprint)
        .bind(settings.zero_time_ms)
        .bind(identity::interval_ms(settings))
        .bind(mark.map(|mark| mark.system))
        .bind(mark.map(|mark| mark.timeline))
        .bind(signed(judged.epoch))
        .bind(judged.seen_at)
        .bind(judged.owner.map(|owner| owner.to_string()))
        .bind(grounds.word());
    locked("cannot take the application over", taking.fetch_optional(connection)).await
}

/// Line 13 of the protocol: waits for whatever transaction of ours still holds the row, and then sees its result.
pub(super) async fn settle(connection: &mut PgConnection, settings: &StoreSettings) -> Result<Blockable<Option<Term>>> {
    const SETTLE: &str = "UPDATE directstream.applications SET epoch = epoch + 1, \
         backend_pid = pg_catalog.pg_backend_pid(), backend_start = (SELECT backend_start FROM \
         pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()), seen_at = clock_timestamp() \
         WHERE application = $1 AND owner = $2::uuid RETURNING epoch, batch_seq";
    let settling = sqlx::query(SETTLE).bind(&settings.application).bind(settings.owner.to_string());
    locked("cannot settle the last transaction", settling.fetch_optional(connection)).await
}

/// The answer of a write that may have to wait for the row.
async fn locked(
    what: &str,
    future: impl Future<Output = Result<Option<PgRow>, sqlx::Error>>,
) -> Result<Blockable<Option<Term>>> {
    // A lock timeout is taken out before errors become ours: the statement changed nothing, and the session is good.
    let row = answer(what, async {
        match future.await {
            Err(error) if is_lock_timeout(&error) => Ok(None),
            done => done.map(Some),
        }
    });
    let Some(row) = row.await? else { return Ok(Blockable::Blocked) };
    let Some(row) = row else { return Ok(Blockable::Done(None)) };
    let read = |error| postgres_error(what, error);
    let epoch = unsigned("epoch", row.try_get(0).map_err(read)?)?;
    let batch_seq = unsigned("batch_seq", row.try_get(1).map_err(read)?)?;
    Ok(Blockable::Done(Some(Term { epoch, batch_seq })))
}

/// Says that we are alive, by the clock of the database: never `now()`, which is as old as its transaction.
pub(super) async fn beat(connection: &mut PgConnection, settings: &StoreSettings, term: Term) -> Result<bool> {
    const BEAT: &str = "UPDATE directstream.applications SET seen_at = clock_timestamp() \
         WHERE application = $1 AND epoch = $2 AND owner = $3::uuid";
    let beating =
        sqlx::query(BEAT).bind(&settings.application).bind(signed(term.epoch)).bind(settings.owner.to_string());
    Ok(answer("cannot tell that we are alive", beating.execute(connection)).await?.rows_affected() == 1)
}

/// The live owner of an application, as a message names it; `None` if nobody owns it, or who did is dead. A session that is there
/// counts whatever its age; one that this role may not see, if it was seen lately.
pub(in crate::commit) async fn live(connection: &mut PgConnection, application: &str) -> Result<Option<String>> {
    const LIVE: &str = "SELECT COALESCE(a.host, '?'), COALESCE(a.process_id, 0), COALESCE(a.last_batch_time::text, 'none') \
         FROM directstream.applications a LEFT JOIN pg_catalog.pg_stat_activity s \
         ON s.pid = a.backend_pid AND s.pid <> pg_catalog.pg_backend_pid() \
         WHERE a.application = $1 AND a.owner IS NOT NULL AND (s.backend_start = a.backend_start \
         OR ((a.backend_pid IS NULL OR s.pid IS NOT NULL AND s.backend_start IS NULL) \
         AND a.seen_at > clock_timestamp() - interval '5 seconds'))";
    let live = sqlx::query_as::<_, (String, i64, String)>(LIVE).bind(application).fetch_optional(connection);
    let live = answer("cannot look for a live owner", live).await?;
    Ok(live.map(|(host, process_id, last)| format!("host={host} process_id={process_id} last_batch_time={last:?}")))
}

/// Gives the application up.
pub(super) async fn release(connection: &mut PgConnection, settings: &StoreSettings, term: Term) -> Result<()> {
    const RELEASE: &str = "UPDATE directstream.applications SET owner = NULL, backend_pid = NULL, backend_start = NULL \
         WHERE application = $1 AND epoch = $2 AND owner = $3::uuid";
    let leaving =
        sqlx::query(RELEASE).bind(&settings.application).bind(signed(term.epoch)).bind(settings.owner.to_string());
    answer("cannot release the application", leaving.execute(connection)).await.map(drop)
}

/// Ends, from a second connection, sessions that hold the row of ours while their process is stopped. Dropped, it stops.
///
/// Only sessions that block ours, and only those that at every look wait for their client and have not moved: neither their
/// state nor, inside a COPY (which counts as active), the bytes they have taken. Anything else is busy, and counts as live.
pub(super) struct Unblock(tokio::task::AbortHandle);

impl Unblock {
    pub(super) fn watch(options: PgConnectOptions, pid: i32) -> Self {
        let watching = tokio::spawn(async move {
            tokio::time::sleep(LOOK_AT_HOLDER_AFTER).await;
            // A failure here only means that nobody is ended: the lock timeout tells.
            if let Err(error) = end_stopped(&options, pid).await {
                tracing::debug!(%error, "cannot look at who holds the application's row");
            }
        });
        Self(watching.abort_handle())
    }
}

impl Drop for Unblock {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A blocking session as one look sees it: process id, state change, bytes of its COPY.
type Seen = (i32, Option<i64>, i64);

async fn end_stopped(options: &PgConnectOptions, pid: i32) -> Result<(), sqlx::Error> {
    const HOLDERS: &str = "SELECT a.pid, (extract(epoch FROM a.state_change) * 1000000)::bigint, COALESCE(p.bytes_processed, -1) \
         FROM unnest(pg_catalog.pg_blocking_pids($1)) blocking(pid) JOIN pg_catalog.pg_stat_activity a USING (pid) \
         LEFT JOIN pg_catalog.pg_stat_progress_copy p USING (pid) WHERE a.wait_event_type = 'Client' ORDER BY 1";
    let mut connection = PgConnection::connect_with(options).await?;
    let mut stopped: Vec<Seen> = Vec::new();
    for look in 0..LOOKS {
        let now: Vec<Seen> = sqlx::query_as(HOLDERS).bind(pid).fetch_all(&mut connection).await?;
        if look == 0 {
            stopped = now;
        } else {
            stopped.retain(|seen| now.contains(seen));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    for (holder, _, _) in stopped {
        tracing::warn!(holder, "a session that holds the application's row does not move: it is ended");
        sqlx::query("SELECT pg_catalog.pg_terminate_backend($1)").bind(holder).execute(&mut connection).await?;
    }
    connection.close().await
}
