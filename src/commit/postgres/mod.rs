//! The store in a PostgreSQL database: one session, no pool.
//!
//! A method takes the session out of its place and puts it back only if it succeeded. So an error, and a future that is dropped
//! half-way, both end with the connection dropped and its socket closed: nothing is ever done again on a session that is in
//! doubt.

mod error;
mod isolate;
mod owner;
mod pooler;
mod schema;
mod session;
pub(super) mod tables;
mod user_code;
pub(super) mod write;

use async_trait::async_trait;
use sqlx::{PgConnection, Row, postgres::PgConnectOptions};

pub(super) use self::{
    error::postgres_error,
    isolate::slices,
    owner::live as live_owner,
    pooler::connect_alone,
    schema::{applied, down, up},
    session::options,
    tables::{Table, tables_of},
};
use self::{
    error::{COMMIT_WITHIN, answer, within},
    owner::Unblock,
    session::Session,
};
use super::{
    ledger::{signed, unsigned},
    protocol::{Grounds, Judged, Look, Mark, Term},
    settings::{StoreSettings, StoredPosition, TableShape},
    store::{Blockable, Kept, Store, not_connected},
};
use crate::{
    error::{Error, ErrorKind, Result},
    failpoint,
    types::{BatchCommit, BatchTime, Offset, TableRows, TopicId, TopicPartition},
};

/// A PostgreSQL database as a [`Store`].
pub(super) struct PostgresStore {
    settings: StoreSettings,
    options: PgConnectOptions,
    session: Option<Session>,
    tables: Vec<Table>,
    owner: String,
    /// Set once the server was good at start.
    prepared: bool,
}

impl PostgresStore {
    /// # Errors
    /// [`ErrorKind::Config`]: the URL cannot be read.
    pub(super) fn new(settings: &StoreSettings) -> Result<Self> {
        let options = options(settings)?;
        let owner = String::from("host=? process_id=?");
        let settings = settings.clone();
        Ok(Self { settings, options, session: None, tables: Vec::new(), owner, prepared: false })
    }

    /// The session, for one method. It comes back by [`keep`](Self::keep), or not at all.
    fn take(&mut self) -> Result<Session> {
        self.session.take().ok_or_else(not_connected)
    }

    fn keep<T>(&mut self, session: Session, done: Result<T>) -> Result<T> {
        if done.is_ok() {
            self.session = Some(session);
        }
        done.map_err(|error| self.told(error))
    }

    /// Says which role lacks a privilege.
    fn told(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Config && error.to_string().contains("sqlstate=42501") {
            return Error::config(format!("{error} role={}", self.options.get_username()));
        }
        error
    }

    async fn simple(&mut self, what: &str, sql: &'static str) -> Result<()> {
        let mut session = self.take()?;
        let done = answer(what, sqlx::raw_sql(sql).execute(&mut session.connection)).await;
        self.keep(session, done.map(drop))
    }
}

async fn prepare(connection: &mut PgConnection, settings: &StoreSettings) -> Result<Vec<Table>> {
    // A row that is there is not tried to insert: that would wait for an owner that stands still in its transaction.
    const REGISTER: &str = "INSERT INTO directstream.applications (application) SELECT $1 WHERE NOT EXISTS \
         (SELECT FROM directstream.applications WHERE application = $1) ON CONFLICT (application) DO NOTHING";
    schema::bring_up(connection, settings.migrate).await?;
    let tables = tables::check(connection, &settings.tables).await?;
    tables::create_stages(connection, &tables).await?;
    let register = sqlx::query(REGISTER).bind(&settings.application).execute(connection);
    answer("cannot register the application", register).await?;
    Ok(tables)
}

async fn kept(connection: &mut PgConnection, application: &str) -> Result<Kept> {
    const APPLICATION: &str = "SELECT (extract(epoch FROM last_batch_time) * 1000)::bigint, \
         COALESCE((extract(epoch FROM zero_time) * 1000)::bigint, 0), (SELECT b.epoch FROM directstream.batches b \
         WHERE b.application = a.application AND b.batch_seq = a.batch_seq) FROM directstream.applications a \
         WHERE application = $1";
    const POSITIONS: &str = "SELECT topic, partition, until_offset, topic_id, leader_epoch FROM directstream.offsets \
         WHERE application = $1 ORDER BY topic COLLATE \"C\", partition";
    let what = "cannot read the stored positions";
    let read = |error| postgres_error(what, error);
    let row = answer(what, sqlx::query(APPLICATION).bind(application).fetch_one(&mut *connection)).await?;
    let last: Option<i64> = row.try_get(0).map_err(read)?;
    let zero_time_ms = row.try_get(1).map_err(read)?;
    let last_batch_epoch: Option<i64> = row.try_get(2).map_err(read)?;
    let last_batch_epoch = last_batch_epoch.map(|epoch| unsigned("epoch", epoch)).transpose()?;
    let rows = answer(what, sqlx::query(POSITIONS).bind(application).fetch_all(connection)).await?;
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
    Ok(Kept { last_batch_time: last.map(BatchTime::from_ms), last_batch_epoch, zero_time_ms, positions })
}

async fn lock(connection: &mut PgConnection, settings: &StoreSettings, term: Term) -> Result<bool> {
    const LOCK: &str = "SELECT 1 FROM directstream.applications WHERE application = $1 AND epoch = $2 AND owner = $3::uuid \
         AND batch_seq = $4 FOR UPDATE";
    let row = sqlx::query(LOCK)
        .bind(&settings.application)
        .bind(signed(term.epoch))
        .bind(settings.owner.to_string())
        .bind(signed(term.batch_seq))
        .fetch_optional(connection);
    answer("cannot lock the application's row", row).await.map(|row| row.is_some())
}

async fn table_rows(connection: &mut PgConnection, tables: &[Table], rows: &TableRows) -> Result<()> {
    write::rows(connection, tables.get(rows.table).ok_or_else(tables::unknown)?, rows).await?;
    failpoint::hit("commit::mid_write")
}

async fn write_all(
    connection: &mut PgConnection,
    settings: &StoreSettings,
    tables: &[Table],
    batch: &mut BatchCommit,
) -> Result<()> {
    let isolating_from = batch.isolating.as_ref().map_or(usize::MAX, |isolating| isolating.first_table);
    let (before, after): (Vec<_>, Vec<_>) = batch.tables.iter().partition(|rows| rows.table < isolating_from);
    for rows in before {
        table_rows(connection, tables, rows).await?;
    }
    if let Some(isolating) = &mut batch.isolating {
        isolating.isolated = isolate::run(connection, settings, tables, batch.batch_seq, isolating).await?;
    }
    for rows in after {
        table_rows(connection, tables, rows).await?;
    }
    user_code::run(connection, settings, batch).await?;
    write::records(connection, &settings.application, batch).await?;
    write::state(connection, &settings.application, batch).await?;
    write::dead_letters(connection, &settings.application, batch.batch_seq, &batch.dead_letters).await?;
    write::lost_ranges(connection, &settings.application, batch).await
}

async fn advance(
    connection: &mut PgConnection,
    settings: &StoreSettings,
    term: Term,
    batch: &BatchCommit,
) -> Result<bool> {
    write::ledger(connection, settings, term, batch).await?;
    write::advance(connection, settings, term, batch).await
}

#[async_trait]
impl Store for PostgresStore {
    async fn connect(&mut self) -> Result<Option<Mark>> {
        // A password may have been changed meanwhile.
        self.options = options(&self.settings)?;
        let mut session = session::open(&self.options, &self.settings, self.prepared).await?;
        // After a lost connection: what belongs to a session is made again.
        tables::create_stages(&mut session.connection, &self.tables).await.map_err(|error| self.told(error))?;
        let mark = session.mark;
        self.session = Some(session);
        Ok(mark)
    }

    async fn disconnect(&mut self) {
        // Dropped, not closed in good order: on a connection in doubt even a farewell may wait for ever.
        self.session = None;
    }

    async fn prepare(&mut self) -> Result<()> {
        let mut session = self.take()?;
        let done = prepare(&mut session.connection, &self.settings).await;
        self.tables = self.keep(session, done)?;
        self.prepared = true;
        Ok(())
    }

    fn tables(&self) -> Vec<TableShape> {
        self.tables.iter().map(Table::shape).collect()
    }

    async fn look(&mut self) -> Result<Look> {
        let mut session = self.take()?;
        let mark = session.mark;
        let done = owner::look(&mut session.connection, &self.settings).await;
        let looked = self.keep(session, done)?;
        if let (Some(stored), Some(found)) = (looked.mark, mark)
            && stored != found
        {
            tracing::warn!(
                ?stored,
                ?found,
                "the database was restored or failed over since the last start: going on from what it holds"
            );
        }
        self.owner = looked.owner;
        Ok(looked.look)
    }

    fn owner(&self) -> String {
        self.owner.clone()
    }

    async fn take_over(&mut self, judged: Judged, grounds: Grounds) -> Result<Blockable<Option<Term>>> {
        let mut session = self.take()?;
        let _unblock = Unblock::watch(self.options.clone(), session.pid);
        let done = owner::take_over(&mut session.connection, &self.settings, session.mark, judged, grounds).await;
        self.keep(session, done)
    }

    async fn settle(&mut self) -> Result<Blockable<Option<Term>>> {
        let mut session = self.take()?;
        let _unblock = Unblock::watch(self.options.clone(), session.pid);
        let done = owner::settle(&mut session.connection, &self.settings).await;
        self.keep(session, done)
    }

    async fn beat(&mut self, term: Term) -> Result<bool> {
        let mut session = self.take()?;
        let done = owner::beat(&mut session.connection, &self.settings, term).await;
        self.keep(session, done)
    }

    async fn release(&mut self, term: Term) -> Result<()> {
        let mut session = self.take()?;
        let done = owner::release(&mut session.connection, &self.settings, term).await;
        self.keep(session, done)
    }

    async fn kept(&mut self) -> Result<Kept> {
        let mut session = self.take()?;
        let done = kept(&mut session.connection, &self.settings.application).await;
        self.keep(session, done)
    }

    async fn begin(&mut self) -> Result<()> {
        // Told in full: the protocol's compare-and-swaps rest on READ COMMITTED, whatever the role's default is.
        self.simple("cannot begin", "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await
    }

    async fn lock(&mut self, term: Term) -> Result<bool> {
        let mut session = self.take()?;
        let done = lock(&mut session.connection, &self.settings, term).await;
        self.keep(session, done)
    }

    async fn write(&mut self, batch: &mut BatchCommit) -> Result<()> {
        let mut session = self.take()?;
        let mut done = write_all(&mut session.connection, &self.settings, &self.tables, batch).await;
        if failpoint::mutant("error_swallowed") {
            done = Ok(());
        }
        self.keep(session, done)
    }

    async fn move_offsets(&mut self, batch: &BatchCommit) -> Result<bool> {
        let mut session = self.take()?;
        let done = write::move_offsets(&mut session.connection, &self.settings.application, batch).await;
        self.keep(session, done)
    }

    async fn advance(&mut self, term: Term, batch: &BatchCommit) -> Result<bool> {
        let mut session = self.take()?;
        let done = advance(&mut session.connection, &self.settings, term, batch).await;
        self.keep(session, done)
    }

    async fn first_positions(&mut self, positions: &[StoredPosition]) -> Result<bool> {
        let mut session = self.take()?;
        let done = write::first_positions(&mut session.connection, &self.settings.application, positions).await;
        self.keep(session, done)
    }

    async fn commit(&mut self) -> Result<()> {
        let mut session = self.take()?;
        let commit = sqlx::raw_sql("COMMIT").execute(&mut session.connection);
        let done = within(COMMIT_WITHIN, "cannot commit", commit).await;
        self.keep(session, done.map(drop))
    }

    async fn rollback(&mut self) -> Result<()> {
        self.simple("cannot roll back", "ROLLBACK").await
    }
}
