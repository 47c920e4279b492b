//! `dead-letters list|show|replay|discard`.

use std::fs;

use serde_json::{Value, json};

use super::world::{LIMIT, World};
use crate::support::{record, wait_until};

fn one_error(stderr: &str) -> &str {
    let errors: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("directstream: error: ")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    errors[0]
}

async fn letters(world: &World) -> i64 {
    world.number(format!("SELECT count(*) FROM {}", world.own("dead_letters"))).await.unwrap()
}

async fn settled(world: &World, outcome: &str) -> i64 {
    let table = world.own("dead_letters_settled");
    world.number(format!("SELECT count(*) FROM {table} WHERE outcome = '{outcome}'")).await.unwrap()
}

/// Good records, and in each partition some that are refused.
async fn world_with_letters(world: World) -> World {
    world.produce(0, 0..5).await;
    let key = vec![0, 0xff, b'k'];
    let bad = vec![
        record("not json\x1b[31m").partition(0).key(key).header("trace", Some(b"AB")).timestamp(1_700_000_000_123),
        record(r#"{"id":"seven"}"#).partition(1),
        record(format!(r#"{{"id":"{}"}}"#, "x".repeat(5_000))).partition(1),
    ];
    world.kafka.produce(&world.topic, bad).await;
    world.produce(1, 5..7).await;
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    world
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_discarded_with_postgres() {
    listed_shown_and_discarded(World::postgres(2).await).await;
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_discarded_with_sqlite() {
    listed_shown_and_discarded(World::sqlite(2).await).await;
}

async fn listed_shown_and_discarded(world: World) {
    let world = world_with_letters(world).await;
    let topic = world.topic.as_str();
    list(&world);

    // Shown with its bytes, and nothing in them steers the terminal.
    let first = format!("{topic}:0:5");
    let text = world.run(&["dead-letters", "show", "job.toml", &first]).stdout;
    assert!(text.contains("not json\\u{1b}[31m") && !text.contains('\x1b'), "{text}");
    assert!(text.contains("3 bytes: \\x00\\xffk") && text.contains("trace: 2 bytes: AB"), "{text}");
    let shown = world.json(&["dead-letters", "show", "job.toml", &first])[0].clone();
    assert_eq!((&shown["stage"], &shown["offset"], &shown["batch"]), (&json!("decode"), &json!(5), &json!(1)));
    assert_eq!((&shown["key"]["base64"], &shown["key"]["text"]), (&json!("AP9r"), &Value::Null));
    assert_eq!(shown["timestamp"], "2023-11-14T22:13:20.123Z");
    assert_eq!(shown["headers"][0]["value"]["text"], "AB");
    let large = world.json(&["dead-letters", "show", "job.toml", &format!("{topic}:1:1"), "--bytes", "20"])[0].clone();
    let value = (&large["value"]["bytes"], &large["value"]["truncated"]);
    assert_eq!(value, (&json!(5_009), &json!(true)));
    assert_eq!(large["value"]["text"].as_str().map(str::len), Some(20));
    let missing = world.run(&["dead-letters", "show", "job.toml", &format!("{topic}:0:0")]);
    assert_eq!((missing.code, &*missing.stdout), (2, ""));
    assert!(one_error(&missing.stderr).contains("partition=0 offset=0"), "{}", missing.stderr);

    // Discarded only if that was said, and only what was named.
    let nothing = world.run(&["dead-letters", "discard", "job.toml"]);
    assert_eq!(nothing.code, 2, "{}", nothing.stdout);
    let dry = world.json(&["dead-letters", "discard", "job.toml", &first]);
    assert_eq!(dry, json!({"executed": false, "selected": 1}));
    assert_eq!(letters(&world).await, 3);
    let done = world.json(&["dead-letters", "discard", "job.toml", &first, "--execute"]);
    assert_eq!(done, json!({"executed": true, "selected": 1, "discarded": 1}));
    assert_eq!((letters(&world).await, settled(&world, "discarded").await), (2, 1));
    assert_eq!(world.run(&["dead-letters", "discard", "job.toml", &first, "--execute"]).code, 2);
    let done = world.json(&["dead-letters", "discard", "job.toml", "--all", "--execute"]);
    assert_eq!((&done["discarded"], letters(&world).await, settled(&world, "discarded").await), (&json!(2), 0, 3));
    // The job never sees them again.
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    assert_eq!(world.sums().await, [7, 10, 10]);
    let verified = world.run(&["verify", "job.toml"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
}

fn list(world: &World) {
    let topic = world.topic.as_str();
    let list = |more: &[&str]| world.json(&[&["dead-letters", "list", "job.toml"], more].concat());
    let all = list(&[]);
    let places: Vec<(i64, i64)> = all["letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| (letter["partition"].as_i64().unwrap(), letter["offset"].as_i64().unwrap()))
        .collect();
    assert_eq!((&all["total"], places), (&json!(3), vec![(0, 5), (1, 0), (1, 1)]));
    let of = |more: &[&str]| (list(more)["total"].clone(), list(more)["letters"].as_array().unwrap().len());
    assert_eq!(of(&["--partition", "1"]), (json!(2), 2));
    assert_eq!(of(&["--partition", "1", "--limit", "1"]), (json!(2), 1));
    assert_eq!(of(&["--topic", topic]), (json!(3), 3));
    assert_eq!(of(&["--topic", "other"]), (json!(0), 0));
    assert_eq!(of(&["--since", "2020-01-01T00:00:00Z"]), (json!(3), 3));
    assert_eq!(of(&["--since", "2100-01-01T00:00:00Z"]), (json!(0), 0));
    let text = world.run(&["dead-letters", "list", "job.toml", "--limit", "2"]).stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("TOPIC") && lines[0].ends_with("REASON"), "{text}");
    assert_eq!((lines.len(), lines[3]), (4, "2 of 3"));
    assert!(lines[2].contains("convert") && !text.contains("seven"), "{text}");
    for wrong in [["--since", "yesterday"], ["--partition", "-1"]] {
        let ran = world.run(&[&["dead-letters", "list", "job.toml"], &wrong[..]].concat());
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{wrong:?}");
    }
}

#[tokio::test]
async fn what_is_mended_is_replayed_once_and_the_rest_stays_with_postgres() {
    what_is_mended_is_replayed(World::postgres(1).await).await;
}

#[tokio::test]
async fn what_is_mended_is_replayed_once_and_the_rest_stays_with_sqlite() {
    what_is_mended_is_replayed(World::sqlite(1).await).await;
}

async fn what_is_mended_is_replayed(world: World) {
    world
        .execute(
            "CREATE TABLE allowed (id bigint NOT NULL PRIMARY KEY); INSERT INTO allowed VALUES (0), (1), (2), (3); \
             CREATE TABLE records (id bigint REFERENCES allowed (id))",
        )
        .await;
    world.produce(0, 0..4).await;
    world.produce(0, 200..202).await;
    world.kafka.produce(&world.topic, vec![record("not json").partition(0)]).await;
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    assert_eq!((letters(&world).await, world.sums().await), (3, [4, 7, 7]));

    let replay = |more: &[&str]| world.json(&[&["dead-letters", "replay", "job.toml"], more].concat());
    assert_eq!(replay(&["--all"]), json!({"executed": false, "selected": 3}));
    // Nothing is mended: nothing happens.
    let done = replay(&["--all", "--execute"]);
    assert_eq!(done, json!({"executed": true, "selected": 3, "replayed": 0, "refused_again": 3, "rows": 0}));
    assert_eq!((letters(&world).await, world.sums().await[0]), (3, 4));

    // One of them is, while the job runs: it goes on.
    world.execute("INSERT INTO allowed VALUES (200)").await;
    let running = world.start(&[]);
    world.produce(0, 0..1).await;
    world.committed(8).await;
    let done = replay(&["--all", "--execute"]);
    assert_eq!(done, json!({"executed": true, "selected": 3, "replayed": 1, "refused_again": 2, "rows": 1}));
    world.produce(0, 1..2).await;
    world.committed(9).await;
    running.signal("TERM");
    assert_eq!(running.ended().await.0, 143);
    assert_eq!(world.sums().await, [7, 9, 9]);
    assert_eq!(world.number("SELECT count(*) FROM records WHERE id = 200".to_owned()).await, Some(1));
    assert_eq!((letters(&world).await, settled(&world, "replayed").await), (2, 1));
    let place = format!("{}:0:4", world.topic);
    assert_eq!(world.run(&["dead-letters", "replay", "job.toml", &place, "--execute"]).code, 2, "replayed twice");
    // Kafka read again says the same: what was replayed has its row, what is left has none.
    let verified = world.run(&["verify", "job.toml"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    let left = world.json(&["dead-letters", "list", "job.toml"]);
    let stages: Vec<&Value> = left["letters"].as_array().unwrap().iter().map(|letter| &letter["stage"]).collect();
    assert_eq!(stages, ["write", "decode"]);
}

#[tokio::test]
async fn a_replay_that_is_killed_replays_each_record_once_with_postgres() {
    killed_replays(World::postgres(2).await).await;
}

#[tokio::test]
async fn a_replay_that_is_killed_replays_each_record_once_with_sqlite() {
    killed_replays(World::sqlite(2).await).await;
}

/// A table without any key: a record that is replayed twice would be there twice.
async fn killed_replays(world: World) {
    const RECORDS: i64 = 10_000;
    world.execute("CREATE TABLE records (id bigint NOT NULL)").await;
    for partition in 0..2 {
        let records = (0..RECORDS / 2)
            .map(|n| record(format!(r#"{{"number":{}}}"#, n * 2 + i64::from(partition))).partition(partition));
        world.kafka.produce(&world.topic, records.collect()).await;
    }
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    assert_eq!((letters(&world).await, world.sums().await[0]), (RECORDS, 0));
    // The job asked for a member that the records do not have.
    let job = world.folder.path().join("job.toml");
    fs::write(&job, fs::read_to_string(&job).unwrap().replace("value:/id", "value:/number")).unwrap();
    // In one look: a killed client's COMMIT may still be on its way.
    let state = format!(
        "SELECT (SELECT count(*) FROM {}), (SELECT count(*) FROM {}), (SELECT count(*) FROM records)",
        world.own("dead_letters_settled"),
        world.own("dead_letters")
    );
    let look = async || world.rows::<(i64, i64, i64)>(&state).await[0];
    let mut kills = 0;
    for attempt in 1..=4 {
        let before = look().await.0;
        let replay = world.spawn(&["dead-letters", "replay", "job.toml", "--all", "--execute"]);
        // In the midst of it: a page more than before, or through.
        let moved = async || look().await.0 > before || before == RECORDS;
        wait_until("a page is replayed", LIMIT, moved).await;
        let hit = replay.kill();
        let (replayed, left, rows) = look().await;
        kills += i32::from(hit && left > 0);
        assert_eq!((replayed + left, rows), (RECORDS, replayed), "attempt {attempt}");
    }
    assert!(kills > 0, "no kill hit a replay at work");
    let done = world.json(&["dead-letters", "replay", "job.toml", "--all", "--execute"]);
    assert_eq!(done["refused_again"], 0);
    assert_eq!((letters(&world).await, settled(&world, "replayed").await), (0, RECORDS));
    assert_eq!(world.sums().await[0], RECORDS);
    let distinct = format!("SELECT count(DISTINCT id) FROM records WHERE id >= 0 AND id < {RECORDS}");
    assert_eq!(world.number(distinct).await, Some(RECORDS));
    let verified = world.run(&["verify", "job.toml"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
}
