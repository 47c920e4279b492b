//! The store in a SQLite file: results and offsets in one file, WAL, `synchronous=FULL`.
//!
//! A transaction is `BEGIN IMMEDIATE`, so the file's write lock is the application's row lock. Whether the recorded owner
//! is alive is told by a lock file that it holds for as long as it lives; the kernel lets go of it with the process. So
//! age is never needed, and heartbeats only read.

mod error;
mod isolate;
mod schema;
pub(super) mod tables;
mod user_code;
pub(super) mod write;

use std::{path::PathBuf, str::FromStr, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Connection, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};

use self::error::{is_busy, rows_error};
pub(super) use self::{
    error::sqlite_error,
    isolate::slices,
    schema::{applied, down, up},
    tables::{Table, check as tables_of},
};
use super::{
    identity::{self, Identity},
    ledger::unsigned,
    owner_file::{self, OwnerFile},
    protocol::{Grounds, Judged, Look, Mark, Session, Term},
    settings::{StoreSettings, StoredPosition, TableShape},
    store::{Blockable, Kept, Store, not_connected},
};
use crate::{
    error::{Error, Result},
    failpoint,
    types::{BatchCommit, BatchTime, Offset, TableRows, TopicId, TopicPartition, rows::rfc3339},
};

/// How long a statement waits for the file's lock. As long as a takeover waits before it calls the row blocked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A SQLite file as a [`Store`].
pub(super) struct SqliteStore {
    settings: StoreSettings,
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    /// Taken before the first connection is used, and held until this process ends.
    owner_file: Option<OwnerFile>,
    tables: Vec<Table>,
    owner: String,
}

/// How to open the file that a URL names.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) for a database that is only read.
pub(super) fn options(settings: &StoreSettings) -> Result<SqliteConnectOptions> {
    let url = &settings.url;
    let text = url.expose();
    let parameters = text.split_once('?').map_or("", |(_, parameters)| parameters);
    let read_only = ["mode=ro", "immutable=1", "immutable=true"].iter().any(|word| parameters.contains(word));
    if read_only {
        return Err(Error::config(format!("the store has to be writable url={url}")));
    }
    let options = SqliteConnectOptions::from_str(text)
        .map_err(|error| Error::config(format!("the store's url cannot be read url={url}")).caused_by(error))?;
    Ok(options
        .create_if_missing(!parameters.contains("mode=rw"))
        .journal_mode(SqliteJournalMode::Wal)
        // A commit that was answered is on the disk: without this the promise ends at a power cut.
        .synchronous(SqliteSynchronous::Full)
        // `open_seq` is a foreign key.
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT))
}

/// The live owner of an application, as a message names it; `None` if nobody owns it, or who did is dead.
pub(super) async fn live_owner(connection: &mut SqliteConnection, settings: &StoreSettings) -> Result<Option<String>> {
    const OWNER: &str = "SELECT owner, COALESCE(host, '?'), COALESCE(process_id, 0), COALESCE(last_batch_time, 'none') \
         FROM directstream_applications WHERE application = $1 AND owner IS NOT NULL";
    let owner = sqlx::query_as(OWNER).bind(&settings.application).fetch_optional(connection).await;
    let owner: Option<(String, String, i64, String)> =
        owner.map_err(|error| sqlite_error("cannot look for a live owner", error))?;
    let Some((owner, host, process_id, last)) = owner else { return Ok(None) };
    let owner = owner.parse().map_err(|_| Error::corrupt("the stored owner is no uuid"))?;
    if owner_file::look(&file_of(&options(settings)?), owner) == Session::Gone {
        return Ok(None);
    }
    Ok(Some(format!("host={host} process_id={process_id} last_batch_time={last}")))
}

/// Whether the file is there. One that cannot be told is taken for there: connecting says why.
pub(super) fn exists(options: &SqliteConnectOptions) -> bool {
    options.get_filename().try_exists().unwrap_or(true)
}

/// The file by its one name: two names of one file must lead to one lock file.
fn file_of(options: &SqliteConnectOptions) -> PathBuf {
    let path = options.get_filename();
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

impl SqliteStore {
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): see [`options`].
    pub(super) fn new(settings: &StoreSettings) -> Result<Self> {
        let options = options(settings)?;
        let owner = String::from("host=? process_id=?");
        let settings = settings.clone();
        Ok(Self { settings, options, connection: None, owner_file: None, tables: Vec::new(), owner })
    }

    fn session(&mut self) -> Result<&mut SqliteConnection> {
        self.connection.as_mut().ok_or_else(not_connected)
    }

    fn file(&self) -> PathBuf {
        file_of(&self.options)
    }

    /// Runs a statement of ours; how many rows it changed.
    async fn execute(&mut self, what: &str, sql: &'static str) -> Result<u64> {
        let done = sqlx::query(sql).execute(self.session()?).await;
        done.map(|done| done.rows_affected()).map_err(|error| sqlite_error(what, error))
    }

    /// Rolls back what a method of ours began, and gives its error on. If even that fails, the session is put away: the next
    /// method fails, and the shell connects again.
    async fn abandon(&mut self, error: Error) -> Error {
        if self.execute("cannot roll back", "ROLLBACK").await.is_err() {
            self.connection = None;
        }
        error
    }

    async fn take_row(&mut self, judged: Judged, grounds: Grounds) -> Result<Option<Term>> {
        const TAKE: &str = "UPDATE directstream_applications SET epoch = epoch + 1, owner = $1, host = $2, process_id = $3, \
             seen_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), open_seq = NULL, build = $4, \
             cluster_id = COALESCE(cluster_id, $5), fingerprint = COALESCE(fingerprint, $6), \
             zero_time = COALESCE(zero_time, $7), interval_ms = $8 \
             WHERE application = $9 AND ((epoch = $10 AND owner IS $11) OR owner = $1) RETURNING epoch, batch_seq";
        const LOG: &str = "INSERT INTO directstream_takeovers (application, epoch, owner, host, process_id, grounds) \
             VALUES ($1, $2, $3, $4, $5, $6)";
        let settings = self.settings.clone();
        let me = settings.owner.to_string();
        let zero_time = rfc3339(settings.zero_time_ms.saturating_mul(1000))
            .map_err(|refusal| Error::config(format!("zero_time: {refusal}")))?;
        let row = sqlx::query(TAKE)
            .bind(&me)
            .bind(identity::host())
            .bind(identity::process_id())
            .bind(&settings.build)
            .bind(&settings.cluster_id)
            .bind(&settings.fingerprint)
            .bind(zero_time)
            .bind(identity::interval_ms(&settings))
            .bind(&settings.application)
            .bind(i64::try_from(judged.epoch).unwrap_or(i64::MAX))
            .bind(judged.owner.map(|owner| owner.to_string()))
            .fetch_optional(self.session()?)
            .await
            .map_err(|error| sqlite_error("cannot take the application over", error))?;
        let Some(row) = row else { return Ok(None) };
        let term = term_of(&row)?;
        sqlx::query(LOG)
            .bind(&settings.application)
            .bind(i64::try_from(term.epoch).unwrap_or(i64::MAX))
            .bind(&me)
            .bind(identity::host())
            .bind(identity::process_id())
            .bind(grounds.word())
            .execute(self.session()?)
            .await
            .map_err(|error| sqlite_error("cannot log the takeover", error))?;
        Ok(Some(term))
    }
}

fn term_of(row: &SqliteRow) -> Result<Term> {
    let read = |error| sqlite_error("cannot read the application's row", error);
    Ok(Term {
        epoch: unsigned("epoch", row.try_get(0).map_err(read)?)?,
        batch_seq: unsigned("batch_seq", row.try_get(1).map_err(read)?)?,
    })
}

fn signed_term(term: Term) -> (i64, i64) {
    (super::ledger::signed(term.epoch), super::ledger::signed(term.batch_seq))
}

fn time_ms(what: &str, text: &str) -> Result<i64> {
    let time: jiff::Timestamp =
        text.parse().map_err(|_| Error::corrupt(format!("a stored time cannot be read {what}={text:?}")))?;
    Ok(time.as_millisecond())
}

async fn table_rows(connection: &mut SqliteConnection, tables: &[Table], rows: &TableRows) -> Result<()> {
    match write::rows(connection, tables.get(rows.table).ok_or_else(tables::unknown)?, rows).await {
        Err(_) if failpoint::mutant("error_swallowed") => {}
        done => done?,
    }
    failpoint::hit("commit::mid_write")
}

#[async_trait]
impl Store for SqliteStore {
    async fn connect(&mut self) -> Result<Option<Mark>> {
        let connection = SqliteConnection::connect_with(&self.options).await;
        let mut connection = connection
            .map_err(|error| sqlite_error(&format!("cannot open the store url={}", self.settings.url), error))?;
        schema::check_durability(&mut connection).await?;
        if self.owner_file.is_none() {
            self.owner_file = Some(OwnerFile::take(&self.file(), self.settings.owner)?);
        }
        self.connection = Some(connection);
        Ok(None)
    }

    async fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Waits for the connection's thread, which rolls back what is open: nothing of it is at work afterwards.
            let _ = connection.close().await;
        }
    }

    async fn prepare(&mut self) -> Result<()> {
        let settings = self.settings.clone();
        let connection = self.connection.as_mut().ok_or_else(not_connected)?;
        schema::bring_up(connection, settings.migrate).await?;
        self.tables = tables::check(connection, &settings.tables).await?;
        // A row that is there is not tried to insert: a process that stands still in its transaction holds the file's lock, and
        // must be judged and named, not waited for here.
        let failed = |error| sqlite_error("cannot register the application", error);
        let known = sqlx::query("SELECT 1 FROM directstream_applications WHERE application = $1");
        let known = known.bind(&settings.application).fetch_optional(&mut *connection).await.map_err(failed)?;
        if known.is_none() {
            let register = sqlx::query("INSERT OR IGNORE INTO directstream_applications (application) VALUES ($1)");
            register.bind(&settings.application).execute(connection).await.map_err(failed)?;
        }
        Ok(())
    }

    fn tables(&self) -> Vec<TableShape> {
        self.tables.iter().map(Table::shape).collect()
    }

    async fn look(&mut self) -> Result<Look> {
        const LOOK: &str = "SELECT epoch, batch_seq, owner, host, process_id, last_batch_time, fingerprint, cluster_id, \
             interval_ms, (SELECT count(*) FROM directstream_takeovers t WHERE t.application = a.application \
             AND t.grounds IN ('age', 'force') AND t.taken_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-60 seconds')) \
             FROM directstream_applications a WHERE application = $1";
        let application = self.settings.application.clone();
        let row = sqlx::query(LOOK)
            .bind(&application)
            .fetch_optional(self.session()?)
            .await
            .map_err(|error| sqlite_error("cannot read the application's row", error))?
            .ok_or_else(|| Error::corrupt(format!("the application's row is gone application={application}")))?;
        let read = |error| sqlite_error("cannot read the application's row", error);
        let identity = Identity {
            fingerprint: row.try_get(6).map_err(read)?,
            cluster_id: row.try_get(7).map_err(read)?,
            interval_ms: row.try_get(8).map_err(read)?,
        };
        identity.check(&self.settings)?;
        let owner: Option<String> = row.try_get(2).map_err(read)?;
        let owner = match owner {
            Some(text) => Some(text.parse().map_err(|_| Error::corrupt("the stored owner is no uuid"))?),
            None => None,
        };
        let host: Option<String> = row.try_get(3).map_err(read)?;
        let process_id: Option<i64> = row.try_get(4).map_err(read)?;
        let last: Option<String> = row.try_get(5).map_err(read)?;
        self.owner = format!(
            "host={} process_id={} last_batch_time={}",
            host.unwrap_or_default(),
            process_id.unwrap_or_default(),
            last.unwrap_or_else(|| "none".to_owned())
        );
        let session = owner.map_or(Session::Gone, |owner| owner_file::look(&self.file(), owner));
        let hasty: i64 = row.try_get(9).map_err(read)?;
        Ok(Look {
            judged: Judged { epoch: term_of(&row)?.epoch, owner, seen_at: None },
            session,
            stale: false,
            hasty_takeovers: u32::try_from(hasty).unwrap_or(u32::MAX),
        })
    }

    fn owner(&self) -> String {
        self.owner.clone()
    }

    async fn take_over(&mut self, judged: Judged, grounds: Grounds) -> Result<Blockable<Option<Term>>> {
        // Waits for the owner's transaction, if one is open: a process that is stopped inside one blocks the file, and
        // nobody but the operator can end it.
        match sqlx::query("BEGIN IMMEDIATE").execute(self.session()?).await {
            Err(error) if is_busy(&error) => return Ok(Blockable::Blocked),
            done => done.map_err(|error| sqlite_error("cannot begin", error))?,
        };
        let term = match self.take_row(judged, grounds).await {
            Ok(term) => term,
            Err(error) => return Err(self.abandon(error).await),
        };
        self.commit().await?;
        if let (Some(_), Some(owner)) = (term, judged.owner)
            && owner != self.settings.owner
        {
            owner_file::remove(&self.file(), owner);
        }
        Ok(Blockable::Done(term))
    }

    async fn settle(&mut self) -> Result<Blockable<Option<Term>>> {
        const SETTLE: &str = "UPDATE directstream_applications SET epoch = epoch + 1, \
             seen_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE application = $1 AND owner = $2 \
             RETURNING epoch, batch_seq";
        let (application, me) = (self.settings.application.clone(), self.settings.owner.to_string());
        match sqlx::query(SETTLE).bind(application).bind(me).fetch_optional(self.session()?).await {
            Err(error) if is_busy(&error) => Ok(Blockable::Blocked),
            Err(error) => Err(sqlite_error("cannot settle the last transaction", error)),
            Ok(row) => Ok(Blockable::Done(row.as_ref().map(term_of).transpose()?)),
        }
    }

    async fn beat(&mut self, term: Term) -> Result<bool> {
        // Only read: the lock file tells that we live, and a write a second would be a flush of the disk a second.
        const BEAT: &str =
            "SELECT 1 FROM directstream_applications WHERE application = $1 AND epoch = $2 AND owner = $3";
        let (epoch, _) = signed_term(term);
        let (application, me) = (self.settings.application.clone(), self.settings.owner.to_string());
        let row = sqlx::query(BEAT).bind(application).bind(epoch).bind(me).fetch_optional(self.session()?).await;
        row.map(|row| row.is_some()).map_err(|error| sqlite_error("cannot read the application's row", error))
    }

    async fn release(&mut self, term: Term) -> Result<()> {
        const RELEASE: &str = "UPDATE directstream_applications SET owner = NULL WHERE application = $1 AND epoch = $2 \
             AND owner = $3";
        let (epoch, _) = signed_term(term);
        let (application, me) = (self.settings.application.clone(), self.settings.owner.to_string());
        let done = sqlx::query(RELEASE).bind(application).bind(epoch).bind(me).execute(self.session()?).await;
        done.map_err(|error| sqlite_error("cannot release the application", error))?;
        self.owner_file = None;
        Ok(())
    }

    async fn kept(&mut self) -> Result<Kept> {
        const APPLICATION: &str = "SELECT last_batch_time, zero_time, (SELECT b.epoch FROM directstream_batches b \
             WHERE b.application = a.application AND b.batch_seq = a.batch_seq) \
             FROM directstream_applications a WHERE application = $1";
        const POSITIONS: &str = "SELECT topic, partition, until_offset, topic_id, leader_epoch FROM directstream_offsets \
             WHERE application = $1 ORDER BY topic, partition";
        let application = self.settings.application.clone();
        let read = |error| sqlite_error("cannot read the stored positions", error);
        let row = sqlx::query(APPLICATION).bind(&application).fetch_one(self.session()?).await.map_err(read)?;
        let last: Option<String> = row.try_get(0).map_err(read)?;
        let zero: Option<String> = row.try_get(1).map_err(read)?;
        let last_batch_epoch: Option<i64> = row.try_get(2).map_err(read)?;
        let rows = sqlx::query(POSITIONS).bind(&application).fetch_all(self.session()?).await.map_err(read)?;
        let mut positions = Vec::with_capacity(rows.len());
        for row in rows {
            let topic: String = row.try_get(0).map_err(read)?;
            let topic_id: Option<String> = row.try_get(3).map_err(read)?;
            let until: i64 = row.try_get(2).map_err(read)?;
            positions.push(StoredPosition {
                topic_partition: TopicPartition::new(topic, row.try_get(1).map_err(read)?),
                topic_id: topic_id.map(TopicId::new),
                until_offset: Offset::new(until).ok_or_else(|| Error::corrupt("a stored offset is negative"))?,
                leader_epoch: row.try_get(4).map_err(read)?,
            });
        }
        let last_batch_time = last.map(|text| time_ms("last_batch_time", &text).map(BatchTime::from_ms));
        Ok(Kept {
            last_batch_time: last_batch_time.transpose()?,
            last_batch_epoch: last_batch_epoch.map(|epoch| unsigned("epoch", epoch)).transpose()?,
            zero_time_ms: zero.map(|text| time_ms("zero_time", &text)).transpose()?.unwrap_or_default(),
            positions,
        })
    }

    async fn begin(&mut self) -> Result<()> {
        self.execute("cannot begin", "BEGIN IMMEDIATE").await.map(drop)
    }

    async fn lock(&mut self, term: Term) -> Result<bool> {
        const LOCK: &str = "SELECT 1 FROM directstream_applications WHERE application = $1 AND epoch = $2 AND owner = $3 \
             AND batch_seq = $4";
        let (epoch, batch_seq) = signed_term(term);
        let (application, me) = (self.settings.application.clone(), self.settings.owner.to_string());
        let row = sqlx::query(LOCK)
            .bind(application)
            .bind(epoch)
            .bind(me)
            .bind(batch_seq)
            .fetch_optional(self.session()?)
            .await;
        row.map(|row| row.is_some()).map_err(|error| sqlite_error("cannot read the application's row", error))
    }

    async fn write(&mut self, batch: &mut BatchCommit) -> Result<()> {
        let connection = self.connection.as_mut().ok_or_else(not_connected)?;
        let isolating_from = batch.isolating.as_ref().map_or(usize::MAX, |isolating| isolating.first_table);
        let (before, after): (Vec<_>, Vec<_>) = batch.tables.iter().partition(|rows| rows.table < isolating_from);
        for rows in before {
            table_rows(connection, &self.tables, rows).await?;
        }
        if let Some(isolating) = &mut batch.isolating {
            let slices = isolate::run(connection, &self.settings, &self.tables, batch.batch_seq, isolating);
            isolating.isolated = slices.await?;
        }
        for rows in after {
            table_rows(connection, &self.tables, rows).await?;
        }
        user_code::run(connection, &self.settings, batch).await?;
        write::records(connection, &self.settings.application, batch).await?;
        write::state(connection, &self.settings.application, batch).await?;
        write::dead_letters(connection, &self.settings.application, batch.batch_seq, &batch.dead_letters).await?;
        write::lost_ranges(connection, &self.settings.application, batch).await
    }

    async fn move_offsets(&mut self, batch: &BatchCommit) -> Result<bool> {
        let connection = self.connection.as_mut().ok_or_else(not_connected)?;
        write::move_offsets(connection, &self.settings.application, batch).await
    }

    async fn advance(&mut self, term: Term, batch: &BatchCommit) -> Result<bool> {
        let connection = self.connection.as_mut().ok_or_else(not_connected)?;
        write::ledger(connection, &self.settings, term, batch).await?;
        write::advance(connection, &self.settings, term, batch).await
    }

    async fn first_positions(&mut self, positions: &[StoredPosition]) -> Result<bool> {
        let connection = self.connection.as_mut().ok_or_else(not_connected)?;
        write::first_positions(connection, &self.settings.application, positions).await
    }

    async fn commit(&mut self) -> Result<()> {
        // Deferred foreign keys are checked here and not before. The transaction stays open if one is broken; the session is
        // put away then, as after any failure.
        let done = sqlx::query("COMMIT").execute(self.session()?).await;
        done.map(drop).map_err(|error| rows_error("the database refused the batch", error))
    }

    async fn rollback(&mut self) -> Result<()> {
        self.execute("cannot roll back", "ROLLBACK").await.map(drop)
    }
}
