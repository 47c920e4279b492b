//! A connection to one of the stores, for whoever is not the committer: to look, to compare, to replay, to migrate.

use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use super::{
    checkpoint::CheckpointLook,
    migrate::Applied,
    postgres,
    settings::{StoreSettings, TableShape},
    sqlite,
};
use crate::{
    config::{StoreKind, StoreUrl},
    error::{Error, Result},
    types::{ColumnShape, TableSpec},
};

const CHECK: &str = "cannot check the output tables";

/// A connection to one of the stores, for whoever is not the committer.
#[derive(Debug)]
pub(super) enum Link {
    Postgres(Box<PgConnection>),
    Sqlite(Box<SqliteConnection>),
    Checkpoint(Box<CheckpointLook>),
}

/// Runs a query on either database. `{}` in it is the prefix of our tables.
macro_rules! fetch {
    ($link:expr, $what:expr, $tuple:ty, $sql:expr $(, $bind:expr)*) => {
        match $link {
            Link::Postgres(link) => sqlx::query_as::<_, $tuple>(AssertSqlSafe($sql.replace("{}", "directstream.")))
                $(.bind($bind))*.fetch_all(&mut **link).await.map_err(|error| postgres::postgres_error($what, error)),
            Link::Sqlite(link) => sqlx::query_as::<_, $tuple>(AssertSqlSafe($sql.replace("{}", "directstream_")))
                $(.bind($bind))*.fetch_all(&mut **link).await.map_err(|error| sqlite::sqlite_error($what, error)),
            Link::Checkpoint(_) => Err(no_sql($what)),
        }
    };
}

/// What a folder cannot do.
pub(super) fn no_sql(what: &str) -> Error {
    Error::config(format!("{what}: a checkpoint folder has no tables"))
}

/// A consumer group is looked at by Kafka's own tools.
fn no_look(url: &StoreUrl) -> Error {
    Error::config(format!(
        "a kafka: store has no ledger to look at: its offsets are those of a consumer group, which kafka-consumer-groups shows and \
         moves url={url}"
    ))
}

/// Runs a statement on either database; how many rows it changed.
macro_rules! execute {
    ($link:expr, $what:expr, $sql:expr $(, $bind:expr)*) => {
        match $link {
            Link::Postgres(link) => sqlx::query(AssertSqlSafe($sql.replace("{}", "directstream.")))
                $(.bind($bind))*.execute(&mut **link).await.map(|done| done.rows_affected())
                .map_err(|error| postgres::postgres_error($what, error)),
            Link::Sqlite(link) => sqlx::query(AssertSqlSafe($sql.replace("{}", "directstream_")))
                $(.bind($bind))*.execute(&mut **link).await.map(|done| done.rows_affected())
                .map_err(|error| sqlite::sqlite_error($what, error)),
            Link::Checkpoint(_) => Err(no_sql($what)),
        }
    };
}

pub(super) use execute;
pub(super) use fetch;

/// Output tables, checked and ready to be written.
#[derive(Debug)]
pub(super) enum Tables {
    Postgres(Vec<postgres::Table>),
    Sqlite(Vec<sqlite::Table>),
    /// A folder has none.
    None,
}

impl Tables {
    /// Their columns, as the database has them.
    pub(super) fn shapes(&self) -> Vec<TableShape> {
        match self {
            Self::Postgres(tables) => tables.iter().map(postgres::Table::shape).collect(),
            Self::Sqlite(tables) => tables.iter().map(sqlite::Table::shape).collect(),
            Self::None => Vec::new(),
        }
    }
}

impl Link {
    /// Whether there is something to connect to: a SQLite file comes into being when it is opened, and a look must not make
    /// one.
    pub(super) fn is_there(url: &StoreUrl) -> Result<bool> {
        Ok(match url.kind() {
            StoreKind::Postgres | StoreKind::Checkpoint | StoreKind::Kafka => true,
            StoreKind::Sqlite => sqlite::exists(&sqlite::options(&StoreSettings::new(url.clone(), "look"))?),
        })
    }

    /// Connects; changes nothing, but for a SQLite file that is made if it [is not there](Self::is_there).
    pub(super) async fn connect(url: &StoreUrl, application: &str) -> Result<Self> {
        let settings = StoreSettings::new(url.clone(), application);
        let what = format!("cannot connect to the store url={url}");
        Ok(match url.kind() {
            StoreKind::Postgres => {
                let link = PgConnection::connect_with(&postgres::options(&settings)?).await;
                Self::Postgres(Box::new(link.map_err(|error| postgres::postgres_error(&what, error))?))
            }
            StoreKind::Sqlite => {
                let link = SqliteConnection::connect_with(&sqlite::options(&settings)?).await;
                Self::Sqlite(Box::new(link.map_err(|error| sqlite::sqlite_error(&what, error))?))
            }
            StoreKind::Checkpoint => Self::Checkpoint(Box::new(CheckpointLook::open(url, application)?)),
            StoreKind::Kafka => return Err(no_look(url)),
        })
    }

    /// Connects for whoever writes: refuses a pooler that gives the session to others between two transactions.
    pub(super) async fn connect_to_write(url: &StoreUrl, application: &str) -> Result<Self> {
        match url.kind() {
            StoreKind::Postgres => {
                let options = postgres::options(&StoreSettings::new(url.clone(), application))?;
                let what = format!("cannot connect to the store url={url}");
                Ok(Self::Postgres(Box::new(postgres::connect_alone(&options, &what).await?)))
            }
            StoreKind::Sqlite | StoreKind::Checkpoint | StoreKind::Kafka => Self::connect(url, application).await,
        }
    }

    /// Limits on this session's statements and transactions. The server ends what hangs: a client cannot do so safely.
    pub(super) async fn set_limits(&mut self) -> Result<()> {
        if let Self::Postgres(_) = self {
            let limits = "SELECT set_config('lock_timeout', '10s', false), set_config('statement_timeout', '300s', false), \
                 set_config('idle_in_transaction_session_timeout', '10s', false)";
            execute!(self, "cannot set up the session", limits)?;
        }
        Ok(())
    }

    /// The migrations that the database has.
    pub(super) async fn applied(&mut self) -> Result<Vec<Applied>> {
        match self {
            Self::Postgres(link) => postgres::applied(link).await,
            Self::Sqlite(link) => sqlite::applied(link).await,
            Self::Checkpoint(_) => Err(no_sql("cannot read the migrations")),
        }
    }

    /// The columns of output tables, as the database has them.
    pub(super) async fn columns(&mut self, specs: &[TableSpec]) -> Result<Vec<Vec<ColumnShape>>> {
        let tables = match self {
            Self::Postgres(link) => Tables::Postgres(postgres::tables::check(link, specs).await?),
            Self::Sqlite(link) => Tables::Sqlite(sqlite::tables::check(link, specs).await?),
            Self::Checkpoint(_) => return if specs.is_empty() { Ok(Vec::new()) } else { Err(no_sql(CHECK)) },
        };
        Ok(tables.shapes().into_iter().map(|shape| shape.columns).collect())
    }

    /// Makes an empty table for as long as the connection lives.
    pub(super) async fn create_temporary(&mut self, what: &str, spec: &TableSpec) -> Result<()> {
        const CREATE: &str = "CREATE TEMPORARY TABLE";
        match self {
            Self::Postgres(link) => {
                let made =
                    sqlx::raw_sql(AssertSqlSafe(postgres::tables::create(spec, CREATE))).execute(&mut **link).await;
                made.map(drop).map_err(|error| postgres::postgres_error(what, error))
            }
            Self::Sqlite(link) => {
                let made =
                    sqlx::raw_sql(AssertSqlSafe(sqlite::tables::create(spec, CREATE))).execute(&mut **link).await;
                made.map(drop).map_err(|error| sqlite::sqlite_error(what, error))
            }
            Self::Checkpoint(_) => Err(no_sql(what)),
        }
    }

    /// Checks output tables, and makes what writing them needs.
    pub(super) async fn tables(&mut self, specs: &[TableSpec]) -> Result<Tables> {
        Ok(match self {
            Self::Postgres(link) => Tables::Postgres(postgres::tables_of(link, specs).await?),
            Self::Sqlite(link) => Tables::Sqlite(sqlite::tables_of(link, specs).await?),
            Self::Checkpoint(_) if specs.is_empty() => Tables::None,
            Self::Checkpoint(_) => return Err(no_sql(CHECK)),
        })
    }

    /// An expression for milliseconds since 1970-01-01 UTC.
    pub(super) fn ms(&self, column: &str) -> String {
        match self {
            Self::Postgres(_) | Self::Checkpoint(_) => format!("(extract(epoch FROM {column}) * 1000)::bigint"),
            Self::Sqlite(_) => {
                format!("(CAST(strftime('%s', {column}) AS INTEGER) * 1000 + CAST(substr({column}, 21, 3) AS INTEGER))")
            }
        }
    }
}
