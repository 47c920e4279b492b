//! A fresh PostgreSQL database per test.

use sqlx::{AssertSqlSafe, Connection as _, FromRow, PgConnection, postgres::PgRow};
use tokio::sync::OnceCell;

use super::{
    image::{self, POSTGRES_PORT},
    server::Server,
    unique,
};

/// The server that all tests share; it lives as long as the process.
async fn shared() -> &'static str {
    static SHARED: OnceCell<(String, Option<Server>)> = OnceCell::const_new();
    let start = async || match std::env::var("TEST_POSTGRES") {
        Ok(address) => (address, None),
        Err(_) => {
            let server = Server::start(image::postgres()).await;
            (server.address(POSTGRES_PORT), Some(server))
        }
    };
    &SHARED.get_or_init(start).await.0
}

/// A new, empty database on the shared server. Do not break the server: others use it. It goes with the server's container;
/// on a server that `TEST_POSTGRES` names it stays, as `test_PID_N`.
pub(crate) async fn fresh_database() -> Database {
    Database::create(shared().await).await
}

/// A database; the role `postgres` owns it.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    url: String,
}

impl Database {
    /// A new, empty database on the server at `host:port`: one of the test's own, `server.address(5432)`.
    pub(crate) async fn create(address: &str) -> Self {
        let name = unique("test").replace('-', "_");
        let server = Self { url: format!("postgres://postgres:postgres@{address}/postgres") };
        server.execute(format!("CREATE DATABASE {name}")).await;
        Self { url: format!("postgres://postgres:postgres@{address}/{name}") }
    }

    /// The URL, with user and password.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A connection. A pool or connection belongs to the runtime of its test: none is shared.
    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Runs one or more statements.
    pub(crate) async fn execute(&self, sql: impl Into<String>) {
        let sql = sql.into();
        let mut connection = self.connect().await;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut connection).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// All rows of a query, as tuples or as a type that derives `FromRow`.
    pub(crate) async fn rows<T>(&self, sql: impl Into<String>) -> Vec<T>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let sql = sql.into();
        let mut connection = self.connect().await;
        let rows = sqlx::query_as(AssertSqlSafe(sql.clone())).fetch_all(&mut connection).await;
        rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The first column of the one row of a query.
    pub(crate) async fn one<T>(&self, sql: impl Into<String>) -> T
    where
        (T,): for<'r> FromRow<'r, PgRow>,
        T: Send + Unpin,
    {
        let mut rows = self.rows::<(T,)>(sql).await;
        assert_eq!(rows.len(), 1, "rows");
        rows.remove(0).0
    }

    /// How many rows a table, or a condition on it, has: `count("t WHERE n > 1")`.
    pub(crate) async fn count(&self, from: &str) -> i64 {
        self.one(format!("SELECT count(*) FROM {from}")).await
    }
}
