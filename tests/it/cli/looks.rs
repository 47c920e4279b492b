//! What is told of a job from outside: `offsets show`, `batches`, `migrate`.

use std::{net::TcpListener, time::Duration, time::Instant};

use serde_json::{Value, json};

use super::{Ran, world::World};

const LOOKS: [&[&str]; 3] =
    [&["offsets", "show", "job.toml"], &["batches", "job.toml"], &["dead-letters", "list", "job.toml"]];

fn one_error(ran: &Ran) -> &str {
    let errors: Vec<&str> = ran.stderr.lines().filter_map(|line| line.strip_prefix("directstream: error: ")).collect();
    assert_eq!((errors.len(), &*ran.stdout), (1, ""), "{}", ran.stderr);
    errors[0]
}

/// The words of each line of a table.
fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn offsets_are_shown_in_the_columns_of_kafka_s_own_tool_with_postgres() {
    offsets_are_shown(World::postgres(2).await).await;
}

#[tokio::test]
async fn offsets_are_shown_in_the_columns_of_kafka_s_own_tool_with_sqlite() {
    offsets_are_shown(World::sqlite(2).await).await;
}

async fn offsets_are_shown(world: World) {
    world.produce(0, 0..7).await;
    world.produce(1, 0..3).await;
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    world.produce(0, 7..9).await;
    world.kafka.create_partitions(&world.topic, 3).await;

    let ran = world.run(&["offsets", "show", "job.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let topic = world.topic.as_str();
    let header = "GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID";
    let expected = [
        header.split(' ').collect(),
        vec!["job", topic, "0", "7", "9", "2", "-", "-", "-"],
        vec!["job", topic, "1", "3", "3", "0", "-", "-", "-"],
        vec!["job", topic, "2", "-", "0", "-", "-", "-", "-"],
    ];
    assert_eq!(words(&ran.stdout), expected);

    let shown = world.json(&["offsets", "show", "job.toml", "--topic", topic]);
    assert_eq!((&shown["group"], &shown["kafka_error"]), (&json!("job"), &Value::Null));
    let first = json!({
        "topic": topic, "partition": 0, "current_offset": 7, "log_end_offset": 9, "lag": 2,
        "consumer_id": null, "host": null, "client_id": null,
    });
    assert_eq!((&shown["partitions"][0], shown["partitions"].as_array().unwrap().len()), (&first, 3));

    let other = world.run(&["offsets", "show", "job.toml", "--topic", "other"]);
    assert_eq!(other.code, 2);
    assert!(one_error(&other).contains("topic=other"), "{}", other.stderr);
}

#[tokio::test]
async fn stored_offsets_are_shown_without_kafka_too() {
    let world = World::sqlite(1).await;
    world.produce(0, 0..4).await;
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    let away = ["offsets", "show", "job.toml", "--set", "kafka.bootstrap_servers=127.0.0.1:1"];
    let ran = world.run(&[&away[..], &["--set", "stream.start_timeout=1s"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("Kafka does not answer"), "{}", ran.stderr);
    assert_eq!(words(&ran.stdout)[1][2..6], ["0", "4", "-", "-"]);
}

#[tokio::test]
async fn the_owner_of_a_running_job_is_shown() {
    let world = World::sqlite(1).await;
    world.produce(0, 0..1).await;
    let running = world.start(&[]);
    world.committed(1).await;
    let row = world.json(&["offsets", "show", "job.toml"])["partitions"][0].clone();
    assert_eq!(row["client_id"], format!("process-{}", running.id()));
    assert_eq!(row["host"], gethostname::gethostname().to_string_lossy().as_ref());
    assert!(row["consumer_id"].as_str().is_some_and(|id| id.len() == 36), "{row}");
}

#[tokio::test]
async fn batches_are_told_newest_first_with_postgres() {
    batches_are_told(World::postgres(2).await).await;
}

#[tokio::test]
async fn batches_are_told_newest_first_with_sqlite() {
    batches_are_told(World::sqlite(2).await).await;
}

async fn batches_are_told(world: World) {
    world.produce(0, 0..5).await;
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    world.produce(1, 5..7).await;
    world.kafka.produce(&world.topic, vec![crate::support::record("not json").partition(0)]).await;
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);

    let batches = world.json(&["batches", "job.toml"]);
    let batches = batches.as_array().unwrap();
    let numbers: Vec<u64> = batches.iter().map(|batch| batch["batch"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).rev().collect::<Vec<_>>());
    let sum = |key: &str| batches.iter().map(|batch| batch[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(["records", "gaps", "dead_letters", "rows"].map(sum), [8, 0, 1, 7]);
    let (newest, oldest) = (&batches[0], &batches[batches.len() - 1]);
    assert_eq!((&oldest["epoch"], &newest["epoch"]), (&json!(1), &json!(2)));
    assert!(newest["batch_time_ms"].as_i64() > oldest["batch_time_ms"].as_i64());
    let time = newest["batch_time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(Some(time.as_millisecond()), newest["batch_time_ms"].as_i64());
    let range = &oldest["ranges"][0];
    assert_eq!((&range["topic"], &range["from_offset"]), (&json!(world.topic), &json!(0)));
    assert_eq!(range["checksum"].as_str().map(str::len), Some(16));

    let ran = world.run(&["batches", "job.toml", "--last", "1"]);
    let lines = words(&ran.stdout);
    assert_eq!(lines[0], ["BATCH", "TIME", "RECORDS", "GAPS", "DEAD-LETTERS", "PROCESSING-TIME", "EPOCH", "RANGES"]);
    assert_eq!((lines.len(), lines[1][0]), (2, numbers[0].to_string().as_str()));
    assert!(ran.stdout.contains(&format!(" {}:", world.topic)), "{}", ran.stdout);
}

#[tokio::test]
async fn tables_come_and_go_with_postgres() {
    tables_come_and_go(&World::postgres(1).await);
}

#[tokio::test]
async fn tables_come_and_go_with_sqlite() {
    let world = World::sqlite(1).await;
    assert_eq!(applied(&world.json(&["migrate", "status", "job.toml"])), [false; 8]);
    assert_eq!(world.json(&["migrate", "down", "job.toml"])["removed"], json!([]));
    assert!(!world.sqlite_file().exists(), "a look made the file");
    tables_come_and_go(&world);
}

fn applied(document: &Value) -> Vec<bool> {
    let migrations = document["migrations"].as_array().unwrap();
    migrations.iter().map(|migration| migration["applied"].as_bool().unwrap()).collect()
}

#[tokio::test]
async fn tables_of_a_running_job_stay() {
    for world in [World::postgres(1).await, World::sqlite(1).await] {
        world.produce(0, 0..1).await;
        let running = world.start(&[]);
        world.committed(1).await;
        let ran = world.run(&["migrate", "down", "job.toml"]);
        assert_eq!(ran.code, 5, "{}", ran.stderr);
        let owner = format!("application=job host={}", gethostname::gethostname().to_string_lossy());
        assert!(one_error(&ran).contains(&format!("{owner} process_id={}", running.id())), "{}", ran.stderr);
        running.signal("TERM");
        assert_eq!(running.ended().await.0, 143);
        assert_eq!(world.run(&["migrate", "down", "job.toml"]).code, 0);
    }
}

fn tables_come_and_go(world: &World) {
    let migrate = |what: &[&str]| world.json(&[&["migrate"], what].concat());
    let up = migrate(&["up", "job.toml"]);
    assert_eq!((&up["applied"], applied(&up)), (&json!([1, 2, 3, 4, 5, 6, 7, 8]), vec![true; 8]));
    assert_eq!(migrate(&["up", "job.toml"])["applied"], json!([]));
    assert_eq!(migrate(&["down", "job.toml", "--to", "1"])["removed"], json!([8, 7, 6, 5, 4, 3, 2]));
    assert_eq!(applied(&migrate(&["status", "job.toml"])), [true, false, false, false, false, false, false, false]);
    let text = world.run(&["migrate", "status", "job.toml"]).stdout;
    let expected = [
        ["VERSION", "NAME", "APPLIED"],
        ["1", "ledger", "yes"],
        ["2", "dead_letters", "no"],
        ["3", "dead_letters_settled", "no"],
        ["4", "dead_letters_timestamp_ms", "no"],
        ["5", "moved_offsets", "no"],
        ["6", "state", "no"],
        ["7", "dead_letters_window", "no"],
        ["8", "outbox", "no"],
    ];
    assert_eq!(words(&text), expected);
    assert_eq!(migrate(&["down", "job.toml"])["removed"], json!([1]));
    assert_eq!(applied(&migrate(&["status", "job.toml"])), [false; 8]);
}

#[tokio::test]
async fn a_store_without_tables_or_without_the_job_ends_a_look_with_2() {
    for world in [World::postgres(1).await, World::sqlite(1).await] {
        for look in LOOKS {
            let ran = world.run(look);
            assert_eq!(ran.code, 2, "{look:?}: {}", ran.stderr);
            assert!(one_error(&ran).contains("no tables of ours yet"), "{}", ran.stderr);
        }
        assert!(!world.sqlite_file().exists(), "a look made the file");
        assert_eq!(world.run(&["migrate", "up", "job.toml"]).code, 0);
        for look in LOOKS {
            let ran = world.run(look);
            assert_eq!(ran.code, 2, "{look:?}: {}", ran.stderr);
            assert!(one_error(&ran).contains("application=job"), "{}", ran.stderr);
        }
    }
}

#[tokio::test]
async fn a_database_that_is_down_or_silent_ends_every_command_with_3_in_time() {
    let world = World::sqlite(1).await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let commands: [&[&str]; 8] = [
        LOOKS[0],
        LOOKS[1],
        LOOKS[2],
        &["dead-letters", "replay", "job.toml", "--all", "--execute"],
        &["migrate", "up", "job.toml"],
        &["migrate", "down", "job.toml"],
        &["migrate", "status", "job.toml"],
        &["run", "job.toml"],
    ];
    // A run asks Kafka first, which needs some time.
    let timeout = |command: &[&str]| if command[0] == "run" { "5s" } else { "1s" };
    for address in ["127.0.0.1:1".to_owned(), silent.local_addr().unwrap().to_string()] {
        let url = format!("store.url=postgres://app:hunter2@{address}/app");
        for command in commands {
            let started = Instant::now();
            let timeout = format!("stream.start_timeout={}", timeout(command));
            let ran = world.run(&[command, &["--set", &url, "--set", &timeout]].concat());
            assert_eq!(ran.code, 3, "{command:?}: {}", ran.stderr);
            let error = one_error(&ran);
            assert!(error.contains(&address) && !ran.stderr.contains("hunter2"), "{command:?}: {}", ran.stderr);
            assert!(started.elapsed() < Duration::from_secs(25), "{command:?}: {:?}", started.elapsed());
        }
    }
}

#[tokio::test]
async fn a_job_file_that_is_not_there_ends_every_command_with_2() {
    let world = World::sqlite(1).await;
    let commands: [&[&str]; 8] = [
        &["run"],
        &["offsets", "show"],
        &["batches"],
        &["dead-letters", "list"],
        &["migrate", "up"],
        &["migrate", "down"],
        &["migrate", "status"],
        &["check-config"],
    ];
    for command in commands {
        let ran = world.run(&[command, &["jbo.toml"]].concat());
        assert_eq!(ran.code, 2, "{command:?}");
        assert!(one_error(&ran).starts_with("jbo.toml: "), "{}", ran.stderr);
    }
}
