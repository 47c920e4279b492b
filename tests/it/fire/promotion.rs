//! The database's primary dies with commits that its standby has not got, and the standby is promoted. The job says that the
//! database went back; the next start goes on from what is there, and the tables equal Kafka again.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::field::{Field, LIMIT};
use crate::{
    main_job::tables::Tables,
    support::{Cutter, Database, Server, postgres, unique, wait_until},
};

/// A primary, and a standby that follows it and is not waited for.
async fn pair() -> (Server, Server) {
    let (network, name) = (unique("postgres"), unique("primary"));
    let admit = "echo 'host replication all all trust' >> \"$PGDATA/pg_hba.conf\"";
    let mut primary = postgres().file("/docker-entrypoint-initdb.d/replication.sh", admit);
    (primary.network, primary.hostname) = (Some(network.clone()), Some(name.clone()));
    let primary = Server::start(primary).await;
    let follow = format!(
        "chmod 700 \"$PGDATA\" && pg_basebackup --host={name} --username=postgres --pgdata=\"$PGDATA\" --checkpoint=fast \
         --write-recovery-conf && exec postgres -c listen_addresses='*'"
    );
    let mut standby = postgres().command(&["bash", "-c", &follow]);
    (standby.network, standby.hostname) = (Some(network), Some(unique("standby")));
    standby.ready = ("database system is ready to accept read-only connections".to_owned(), false);
    (primary, Server::start(standby).await)
}

/// Runs a statement on a server, whoever it is now: its one value.
async fn ask<T>(url: &str, sql: &str) -> sqlx::Result<T>
where
    (T,): for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
    T: Send + Unpin,
{
    let mut connection = PgConnection::connect(url).await?;
    let row: (T,) = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
    Ok(row.0)
}

const COMMITTED: &str = "SELECT CAST(coalesce(sum(until_offset), 0) AS bigint) FROM directstream.offsets";

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_that_lagged_is_noticed_and_gone_on_from() {
    let (primary, standby) = pair().await;
    let proxy = Cutter::start(primary.address(5432), b"COMMIT\0").await;
    let tables = Tables::Postgres(Database::create(&proxy.address).await);
    let at_standby = tables.url().replace(&proxy.address, &standby.address(5432));
    let field = Field::new(tables).await;
    // Slowly: all this must happen while work is left.
    let process = field.run("plan::done=return(delay:400)");
    let part = field.records() / 8;
    wait_until("the standby follows", LIMIT, async || {
        ask::<i64>(&at_standby, COMMITTED).await.is_ok_and(|committed| committed >= part)
    })
    .await;
    let mut connection = PgConnection::connect(&at_standby).await.unwrap();
    sqlx::raw_sql("ALTER SYSTEM SET primary_conninfo = ''").execute(&mut connection).await.unwrap();
    sqlx::raw_sql("SELECT pg_reload_conf()").execute(&mut connection).await.unwrap();
    wait_until("the standby follows no more", LIMIT, async || {
        ask::<i64>(&at_standby, "SELECT count(*) FROM pg_stat_wal_receiver").await.unwrap() == 0
    })
    .await;
    let kept: i64 = ask(&at_standby, COMMITTED).await.unwrap();
    wait_until("commits that the standby has not got", LIMIT, async || field.committed().await >= kept + part).await;
    let lost = field.committed().await - kept;
    assert!(kept + lost < field.records(), "all was done before the primary died");
    primary.kill().await;
    assert!(ask::<bool>(&at_standby, "SELECT pg_promote()").await.unwrap());
    proxy.lead_to(standby.address(5432));

    let end = process.end(LIMIT).await;
    assert_eq!(end.code(), Some(4), "{end}: {}", field.said());
    assert!(field.said().contains("the database went back"), "{}", field.said());
    assert_eq!(field.committed().await, kept, "the process changed nothing");
    field.finish().await;
    field.compare().await;
}
