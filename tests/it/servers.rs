//! The helpers themselves: what other tests take for granted about their servers.

use std::time::Duration;

use sqlx::{Connection as _, Row as _};

use crate::support::{
    Database, End, Kafka, Server, fresh_database, kafka,
    kafka::{Record, record, tombstone},
    postgres, shared_kafka, unique, wait_until,
};

fn values(from: u32, until: u32) -> Vec<Record> {
    (from..until).map(|n| record(n.to_string())).collect()
}

#[tokio::test]
async fn a_recount_shows_only_what_was_committed() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(2).await;
    kafka.produce(&topic, values(0, 10)).await;
    let transactions = vec![(End::Commit, values(10, 20)), (End::Abort, values(20, 30)), (End::Commit, values(30, 40))];
    kafka.transactions(&topic, transactions).await;
    let mut seen: Vec<u32> =
        kafka.recount(&topic).await.into_iter().map(|r| r.value.unwrap().parse().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..20).chain(30..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_recount_shows_every_part_of_a_record() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(3).await;
    let full = record("a\tb\n\0").key("k").header("h", Some(b"1")).header("none", None).timestamp(1_234).partition(2);
    let places = kafka.produce(&topic, vec![full, tombstone("gone").partition(1), record("").partition(1)]).await;
    assert_eq!(places, [(2, 0), (1, 0), (1, 1)]);
    let seen = kafka.recount(&topic).await;
    assert_eq!((seen[0].partition, seen[0].offset, seen[0].key.as_deref()), (1, 0, Some("gone")));
    assert_eq!(seen[0].value, None);
    assert_eq!((seen[1].key.as_deref(), seen[1].value.as_deref()), (None, Some("")));
    assert_eq!(seen[1].headers, "NO_HEADERS");
    assert_eq!(seen[2].value.as_deref(), Some(r"a\x09b\x0A\x00"));
    assert_eq!((seen[2].timestamp, seen[2].headers.as_str()), (1_234, "h:1,none:<null>"));
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_hundred_thousand_records_are_produced_in_order() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    let places = kafka.produce(&topic, values(0, 100_000)).await;
    assert_eq!(places, (0..100_000).map(|offset| (0, offset)).collect::<Vec<_>>());
    assert_eq!(kafka.offsets(&topic, 0).await, (0, 100_000));
}

#[tokio::test]
async fn deleted_records_new_partitions_and_deleted_topics_are_seen_at_once() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, values(0, 10)).await;
    kafka.delete_records(&topic, &[(0, 4)]).await;
    assert_eq!(kafka.offsets(&topic, 0).await, (4, 10));
    kafka.create_partitions(&topic, 3).await;
    kafka.produce(&topic, vec![record("new").partition(2)]).await;
    assert_eq!(kafka.recount(&topic).await.len(), 7);
    kafka.delete_topic(&topic).await;
    assert_eq!(kafka.partitions(&topic).await, 0);
}

#[tokio::test]
async fn settings_of_a_topic_reach_the_broker() {
    let kafka = shared_kafka().await;
    let topic = unique("settings");
    kafka.create_topic(&topic, 1, &[("retention.ms", "1234")]).await;
    let describe = ["--entity-type", "topics", "--entity-name", &topic, "--describe"];
    assert!(kafka.tool("kafka-configs", &describe).await.unwrap().0.contains("retention.ms=1234"));
    kafka.alter_topic(&topic, &[("segment.bytes", "1048576")]).await;
    assert!(kafka.tool("kafka-configs", &describe).await.unwrap().0.contains("segment.bytes=1048576"));
}

#[tokio::test]
async fn a_failing_tool_is_an_error_with_its_output() {
    let error = shared_kafka().await.tool("kafka-topics", &["--describe", "--topic", "missing"]).await.unwrap_err();
    assert!(error.contains("missing"), "{error}");
}

#[tokio::test]
async fn a_killed_broker_comes_back_at_its_address_with_all_acknowledged_records() {
    let kafka = Kafka::start(kafka()).await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, values(0, 100)).await;
    kafka.server().kill().await;
    kafka.server().start_again().await;
    kafka.produce(&topic, values(100, 200)).await;
    assert_eq!(kafka.recount(&topic).await.len(), 200);
}

#[tokio::test]
async fn a_cluster_outlives_the_leader_of_a_partition() {
    let kafka = Kafka::start_cluster(3).await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, values(0, 100)).await;
    let leader = kafka.leader(&topic, 0).await;
    kafka.servers()[usize::try_from(leader - 1).unwrap()].kill().await;
    kafka.produce(&topic, values(100, 200)).await;
    assert_ne!(kafka.leader(&topic, 0).await, leader);
    assert_eq!(kafka.offsets(&topic, 0).await, (0, 200));
}

#[tokio::test]
async fn each_database_is_new_and_empty() {
    let (one, two) = (fresh_database().await, fresh_database().await);
    one.execute("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1), (2)").await;
    assert_eq!(one.count("t WHERE n > 1").await, 1);
    assert_eq!(one.rows::<(i32,)>("SELECT n FROM t ORDER BY n").await, [(1,), (2,)]);
    assert_eq!(two.count("pg_tables WHERE schemaname = 'public'").await, 0);
}

#[tokio::test]
async fn a_killed_postgres_comes_back_at_its_address_with_committed_rows_only() {
    let server = Server::start(postgres()).await;
    let database = Database::create(&server.address(5432)).await;
    database.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await;
    let mut open = database.connect().await;
    sqlx::raw_sql("BEGIN; INSERT INTO t VALUES (2)").execute(&mut open).await.unwrap();
    server.kill().await;
    assert!(sqlx::raw_sql("COMMIT").execute(&mut open).await.is_err());
    server.start_again().await;
    assert_eq!(database.rows::<(i32,)>("SELECT n FROM t").await, [(1,)]);
}

#[tokio::test]
async fn a_paused_postgres_hangs_and_goes_on() {
    let server = Server::start(postgres()).await;
    let mut connection = Database::create(&server.address(5432)).await.connect().await;
    server.pause().await;
    let hanging = tokio::time::timeout(Duration::from_millis(300), connection.ping()).await;
    assert!(hanging.is_err(), "a paused server answers nothing");
    server.unpause().await;
    let mut connection = Database::create(&server.address(5432)).await.connect().await;
    let row = sqlx::query("SELECT 41 + 1").fetch_one(&mut connection).await.unwrap();
    assert_eq!(row.get::<i32, _>(0), 42);
}

#[tokio::test]
async fn a_server_that_was_dropped_is_gone() {
    let server = Server::start(postgres()).await;
    let address = server.address(5432);
    assert!(tokio::net::TcpStream::connect(&address).await.is_ok());
    drop(server);
    wait_until("nobody listens", Duration::from_secs(10), async || {
        tokio::net::TcpStream::connect(&address).await.is_err()
    })
    .await;
}

#[tokio::test]
#[should_panic(expected = "waited 50ms in vain: never")]
async fn waiting_ends_at_its_limit() {
    wait_until("never", Duration::from_millis(50), async || false).await;
}
