//! The child process, and what its database shows of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use sqlx::{ConnectOptions, Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

use super::Tell;
use crate::error::{Error, Result};

/// The real engine in a process of its own. Dropped, it is killed: the demo leaves nothing behind.
pub(super) struct Engine {
    child: Child,
}

impl Engine {
    pub(super) fn start(job: &Path) -> Result<Self> {
        let program = std::env::current_exe();
        let program = program.map_err(|error| Error::internal("cannot find this program").caused_by(error))?;
        let child = Command::new(program)
            .arg("run")
            .arg(job)
            // Only what goes wrong: the demo itself tells what happens.
            .env("DIRECTSTREAM_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let child = child.map_err(|error| Error::internal("cannot start the engine").caused_by(error))?;
        Ok(Self { child })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL. Gives whether it hit a live process.
    pub(super) fn kill(&mut self) -> Result<bool> {
        let lived = self.exit_status()?.is_none();
        self.child.kill().map_err(|error| Error::internal("cannot kill the engine").caused_by(error))?;
        let status =
            self.child.wait().map_err(|error| Error::internal("cannot wait for the engine").caused_by(error))?;
        // Killed by the signal and not ended by itself in between.
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL);
        Ok(lived && by_signal)
    }

    fn exit_status(&mut self) -> Result<Option<std::process::ExitStatus>> {
        self.child.try_wait().map_err(|error| Error::internal("cannot look at the engine").caused_by(error))
    }

    /// Fails if the engine ended by itself.
    pub(super) fn must_live(&mut self) -> Result<()> {
        match self.exit_status()? {
            None => Ok(()),
            Some(status) => Err(Error::internal(format!("the engine ended by itself: {status}"))),
        }
    }

    /// Ends it: everything is committed, so how does not matter.
    pub(super) fn stop(mut self) -> Result<()> {
        self.kill().map(|_| ())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was seen in the database.
pub(super) struct Watch {
    database: PathBuf,
    connection: Option<SqliteConnection>,
    offsets: BTreeMap<i32, i64>,
    shown: i64,
    pub(super) kills: u64,
}

/// A batch line is shown for every so many batches, and for the first one after each kill.
const SHOW_EVERY: i64 = 25;

impl Watch {
    pub(super) fn new(database: PathBuf) -> Self {
        Self { database, connection: None, offsets: BTreeMap::new(), shown: 0, kills: 0 }
    }

    /// The committed offset of every partition.
    pub(super) fn offsets(&self) -> BTreeMap<i32, i64> {
        self.offsets.clone()
    }

    /// Looks at what is committed: how many records, and which ranges came.
    pub(super) async fn look(&mut self, tell: &Tell) -> Result<u64> {
        // Until the engine has made its tables there is nothing to see; and while it is killed, SQLite may recover.
        let Ok(rows) = self.read().await else {
            self.connection = None;
            return Ok(self.sum());
        };
        self.offsets = rows.0;
        if let Some((seq, ranges)) = rows.1
            && seq >= self.shown + SHOW_EVERY
        {
            self.shown = seq;
            tell.line(&format!("batch {seq} committed: {ranges}"));
        }
        Ok(self.sum())
    }

    fn sum(&self) -> u64 {
        u64::try_from(self.offsets.values().sum::<i64>()).unwrap_or(0)
    }

    /// Offsets by partition, and the last batch with its ranges.
    async fn read(&mut self) -> sqlx::Result<(BTreeMap<i32, i64>, Option<(i64, String)>)> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(open(&self.database).await?),
        };
        let offsets =
            sqlx::query("SELECT partition, until_offset FROM directstream_offsets").fetch_all(&mut *connection);
        let offsets =
            offsets.await?.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<sqlx::Result<_>>()?;
        let ranges = sqlx::query(
            "SELECT batch_seq, partition, from_offset, until_offset FROM directstream_batch_ranges \
             WHERE batch_seq = (SELECT max(batch_seq) FROM directstream_batches) ORDER BY partition",
        );
        let mut batch = None;
        let mut text = String::new();
        for row in ranges.fetch_all(&mut *connection).await? {
            batch = Some(row.try_get::<i64, _>(0)?);
            let (partition, from, until): (i32, i64, i64) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            text.push_str(&format!("orders-{partition} [{from} -> {until}] "));
        }
        Ok((offsets, batch.map(|seq| (seq, text))))
    }
}

/// A reader of the engine's database that never writes to it.
pub(super) async fn open(database: &Path) -> sqlx::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(database).read_only(true).disable_statement_logging();
    SqliteConnection::connect_with(&options).await
}
