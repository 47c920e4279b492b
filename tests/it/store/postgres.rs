//! What only a server and a network can do.

use std::time::{Duration, Instant};

use directstream::{
    ErrorKind,
    clock::SystemClock,
    commit::{Committer, StoreHealth, StoreSettings},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::watch;

use super::world::{World, append, batch, column, committed, line_batch, line_rows, lines, moved, position, refused};
use crate::support::{Cutter, Fault};
use directstream::types::ColumnType;

/// A world, and settings whose connections go through a proxy that cuts at `pattern`.
async fn cut_at(pattern: &'static [u8]) -> (World, Cutter, StoreSettings) {
    let world = World::postgres().await;
    let url = world.url();
    let server = url.split(['@', '/']).find(|part| part.contains("127.0.0.1")).unwrap().to_owned();
    let cutter = Cutter::start(server.clone(), pattern).await;
    let settings = StoreSettings {
        url: url.replace(&server, &cutter.address).parse().unwrap(),
        tables: vec![lines()],
        ..world.settings()
    };
    (world, cutter, settings)
}

#[tokio::test]
async fn a_lost_answer_to_commit_is_resolved_both_ways() {
    let (world, cutter, settings) = cut_at(b"COMMIT\0").await;
    let (committer, recovered) = world.try_start(settings).await.unwrap();
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let shape = &recovered.tables[0];
    for (seq, turn) in (1..).zip(0..10_i64) {
        let next = || line_batch(shape, seq, turn * 10, turn * 10 + 10);
        if turn % 2 == 0 {
            cutter.cut_after();
            assert!(committed(committer.commit(next()).await.unwrap()).resolved);
        } else {
            cutter.cut_before();
            let error = refused(committer.commit(next()).await.unwrap());
            assert!(error.kind().is_retryable(), "{error:?}");
            assert!(!committed(committer.commit(next()).await.unwrap()).resolved);
        }
    }
    assert_eq!(cutter.cuts(), 10);
    assert_eq!(world.count("lines").await, 100);
    assert_eq!(world.number("SELECT count(DISTINCT id) FROM lines").await, 100);
    assert_eq!(world.count("directstream.batches").await, 10);
    committer.stop().await;
}

#[tokio::test]
async fn a_reset_connection_and_a_late_answer_to_commit_are_told_right() {
    let (world, cutter, settings) = cut_at(b"COMMIT\0").await;
    let (committer, recovered) = world.try_start(settings).await.unwrap();
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let shape = &recovered.tables[0];
    for (seq, turn) in (1..).zip(0..6_i64) {
        let reset = turn % 2 == 0;
        cutter.arm(if reset { Fault::ResetAfter } else { Fault::Late(Duration::from_millis(1_500)) });
        let done = committed(committer.commit(line_batch(shape, seq, turn * 10, turn * 10 + 10)).await.unwrap());
        assert_eq!(done.resolved, reset);
    }
    assert_eq!(cutter.cuts(), 6);
    assert_eq!(world.count("lines").await, 60);
    assert_eq!(world.number("SELECT count(DISTINCT id) FROM lines").await, 60);
    committer.stop().await;
}

/// Nobody says that the connection is gone: the answer is waited for no longer than ten seconds, and then settled.
#[tokio::test]
async fn a_connection_that_falls_silent_at_commit_is_given_up_and_settled() {
    let case = async |fault| {
        let (world, cutter, settings) = cut_at(b"COMMIT\0").await;
        let (committer, recovered) = world.try_start(settings).await.unwrap();
        committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
        let shape = &recovered.tables[0];
        cutter.arm(fault);
        let start = Instant::now();
        let outcome = committer.commit(line_batch(shape, 1, 0, 10)).await.unwrap();
        let took = start.elapsed();
        eprintln!("{fault:?}: settled after {took:?}");
        assert!(took > Duration::from_secs(8) && took < Duration::from_secs(15), "{took:?}");
        if fault == Fault::SilentAfter {
            assert!(committed(outcome).resolved);
        } else {
            refused(outcome);
            committed(committer.commit(line_batch(shape, 1, 0, 10)).await.unwrap());
        }
        committed(committer.commit(line_batch(shape, 2, 10, 20)).await.unwrap());
        assert_eq!((cutter.cuts(), world.count("lines").await), (1, 20));
        committer.stop().await;
    };
    tokio::join!(case(Fault::SilentBefore), case(Fault::SilentAfter));
}

#[tokio::test]
async fn a_lost_answer_to_the_settling_write_does_not_fence_us() {
    // The parameters of that statement alone: the application, then 36 bytes of owner.
    let (world, cutter, settings) = cut_at(b"orders\0\0\0\x24").await;
    let (committer, recovered) = world.try_start(settings).await.unwrap();
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    world.execute("ALTER TABLE lines ADD CHECK (id < 100)").await;
    cutter.cut_after();
    let bad = batch(1, vec![moved(0, 0, 10)], vec![line_rows(&recovered.tables[0], 95, 105)]);
    let error = refused(committer.commit(bad).await.unwrap());
    assert_eq!(error.kind(), ErrorKind::Transform);
    assert_eq!(cutter.cuts(), 1);
    committed(committer.commit(line_batch(&recovered.tables[0], 1, 0, 10)).await.unwrap());
    assert!(world.number("SELECT epoch FROM directstream.applications").await >= 3);
    committer.stop().await;
}

#[tokio::test]
async fn a_terminated_session_is_replaced_and_the_batch_not_committed() {
    let world = World::postgres().await;
    let (committer, recovered) = world.start(vec![lines()]).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let kill = "SELECT pg_terminate_backend(backend_pid)::text FROM directstream.applications";
    world.texts(kill).await;
    let outcome = committer.commit(line_batch(&recovered.tables[0], 1, 0, 10)).await.unwrap();
    let error = refused(outcome);
    assert!(error.kind().is_retryable(), "{error:?}");
    committed(committer.commit(line_batch(&recovered.tables[0], 1, 0, 10)).await.unwrap());
    // Between batches it is found by the heartbeat.
    world.texts(kill).await;
    committer.check_owner().await.unwrap();
    assert_eq!(committer.positions().await.unwrap(), [position(0, 10)]);
    assert_eq!(world.count("lines").await, 10);
    committer.stop().await;
}

#[tokio::test]
async fn a_stopped_session_that_holds_the_row_is_ended() {
    let world = World::postgres().await;
    let (owner, _) = world.start(vec![lines()]).await;
    drop(owner);
    let mut stopped = PgConnection::connect(&world.url()).await.unwrap();
    let lock = "BEGIN; SELECT FROM directstream.applications FOR UPDATE";
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut stopped).await.unwrap();
    let start = Instant::now();
    let (committer, _) = world.start(vec![lines()]).await;
    let waited = start.elapsed();
    assert!(waited > Duration::from_secs(5) && waited < Duration::from_secs(10), "{waited:?}");
    assert!(sqlx::raw_sql("SELECT 1").execute(&mut stopped).await.is_err());
    committer.stop().await;
}

#[tokio::test]
async fn a_locked_output_table_is_an_error_that_says_so_and_passes() {
    let world = World::postgres().await;
    let (committer, recovered) = world.start(vec![lines()]).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let mut stranger = PgConnection::connect(&world.url()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE lines").execute(&mut stranger).await.unwrap();
    let error = refused(committer.commit(line_batch(&recovered.tables[0], 1, 0, 10)).await.unwrap());
    assert!(error.kind().is_retryable() && error.to_string().contains("55P03"), "{error:?}");
    sqlx::raw_sql("ROLLBACK").execute(&mut stranger).await.unwrap();
    committed(committer.commit(line_batch(&recovered.tables[0], 1, 0, 10)).await.unwrap());
    committer.stop().await;
}

#[tokio::test]
async fn a_deferred_constraint_refuses_its_row_and_is_no_endless_doubt() {
    let world = World::postgres().await;
    world.execute("CREATE TABLE known (id bigint PRIMARY KEY); INSERT INTO known SELECT generate_series(0, 9)").await;
    world.execute("CREATE TABLE lines (id bigint REFERENCES known DEFERRABLE INITIALLY DEFERRED, name text)").await;
    let (committer, recovered) = world.start(vec![lines()]).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let unknown = batch(1, vec![moved(0, 0, 10)], vec![line_rows(&recovered.tables[0], 5, 15)]);
    let error = refused(committer.commit(unknown).await.unwrap());
    assert_eq!(error.kind(), ErrorKind::Transform);
    assert!(error.to_string().contains("23503") && !error.to_string().contains("10"), "{error}");
    committer.stop().await;
}

#[tokio::test]
async fn errors_hold_no_value_and_no_password() {
    let world = World::postgres().await;
    world.execute("CREATE TABLE lines (id bigint UNIQUE, name varchar(4))").await;
    let (committer, recovered) = world.start(vec![lines()]).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let canary = batch(1, vec![moved(0, 0, 2)], vec![line_rows(&recovered.tables[0], 424_242, 424_244)]);
    let error = refused(committer.commit(canary).await.unwrap());
    assert!(error.chain().contains("22001") && !error.chain().contains("424"), "{error:?}");
    committer.stop().await;
    let url = world.url().replace(":postgres@", ":canary@");
    let settings =
        StoreSettings { url: url.parse().unwrap(), start_timeout: Duration::from_millis(300), ..world.settings() };
    let error = world.try_start(settings.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let shown = format!("{error:?} {} {settings:?}", error.chain());
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn a_revoked_privilege_names_role_and_table() {
    let world = World::postgres().await;
    let role = format!("runner_{}", crate::support::unique("r").replace('-', "_"));
    let (committer, _) = world.start(vec![lines()]).await;
    committer.stop().await;
    world
        .execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'runner'; GRANT USAGE ON SCHEMA directstream TO {role}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA directstream TO {role}; \
             GRANT INSERT ON lines TO {role}"
        ))
        .await;
    let url = world.url().replace("postgres:postgres@", &format!("{role}:runner@"));
    let settings = StoreSettings { url: url.parse().unwrap(), tables: vec![lines()], ..world.settings() };
    let (health, _) = watch::channel(StoreHealth::Waiting);
    let (committer, recovered) = Committer::start(settings, SystemClock::shared(), health).await.unwrap();
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    committed(committer.commit(line_batch(&recovered.tables[0], 1, 0, 10)).await.unwrap());
    world.execute(&format!("REVOKE INSERT ON lines FROM {role}")).await;
    let error = refused(committer.commit(line_batch(&recovered.tables[0], 2, 10, 20)).await.unwrap());
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(&role) && error.to_string().contains("lines"), "{error}");
    drop(committer);
    world.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_server_that_forgets_or_cannot_be_written_to_is_refused() {
    for setting in ["synchronous_commit = off", "default_transaction_read_only = on"] {
        let world = World::postgres().await;
        let name = world.url().rsplit('/').next().unwrap().to_owned();
        world.execute(&format!("ALTER DATABASE {name} SET {setting}")).await;
        let error = world.try_start(world.settings()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(error.to_string().contains(setting.split(' ').next().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn a_database_that_went_back_ends_the_process() {
    let world = World::postgres().await;
    let (committer, recovered) = world.start(vec![lines()]).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    committed(committer.commit(line_batch(&recovered.tables[0], 1, 0, 10)).await.unwrap());
    world
        .execute("UPDATE directstream.applications SET batch_seq = 0; UPDATE directstream.offsets SET until_offset = 0")
        .await;
    world.texts("SELECT pg_terminate_backend(backend_pid)::text FROM directstream.applications").await;
    let error = committer.commit(line_batch(&recovered.tables[0], 2, 10, 20)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(error.to_string().contains("stored_batch=0 committed_batch=1"), "{error}");
}

/// Figures, not a test: `cargo test --test it -- --ignored --nocapture rows_a_second`.
#[tokio::test]
#[ignore = "figures"]
async fn rows_a_second() {
    for world in [World::postgres().await, World::sqlite()] {
        let columns = vec![
            column("id", ColumnType::BigInt),
            column("user", ColumnType::Text),
            column("amount", ColumnType::Double),
            column("seen", ColumnType::Timestamptz),
        ];
        let (committer, recovered) = world.start(vec![append("facts", columns)]).await;
        committer.initialize_positions((0..8).map(|partition| position(partition, 0)).collect()).await.unwrap();
        let rows: Vec<_> = (0..200_000_i64)
            .map(|id| {
                let time = directstream::types::Value::TimestampMicros(1_700_000_000_000_000 + id);
                vec![id.into(), format!("user {}", id % 1000).into(), (id as f64).into(), time]
            })
            .collect();
        let chunk = super::world::encode(&recovered.tables[0], &rows);
        let mut seq = 0;
        for rows in [false, true] {
            let mut took = Vec::new();
            for _ in 0..if rows { 5 } else { 50 } {
                let from = i64::try_from(seq).unwrap() * 10;
                let ranges = (0..8).map(|partition| moved(partition, from, from + 10)).collect();
                seq += 1;
                let chunks = if rows { vec![chunk.clone()] } else { Vec::new() };
                took.push(committed(committer.commit(batch(seq, ranges, chunks)).await.unwrap()).took);
            }
            took.sort();
            let median = took[took.len() / 2];
            let rate = if rows { 200_000.0 / median.as_secs_f64() } else { 0.0 };
            eprintln!(
                "postgres={} rows={rows} median={median:?} max={:?} rows/s={rate:.0}",
                world.is_postgres(),
                took.last()
            );
        }
        committer.stop().await;
    }
}
