//! `lag`: how far a job is behind, once and again and again.

use std::io::{BufRead as _, BufReader};

use serde_json::{Value, json};

use super::{directstream, world::World};

#[tokio::test]
async fn the_lag_is_told_by_partition_and_in_sum() {
    for world in [World::postgres(2).await, World::sqlite(2).await] {
        world.produce(0, 0..7).await;
        assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
        world.produce(0, 7..10).await;
        world.produce(1, 0..2).await;
        let ran = world.run(&["lag", "job.toml"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let words: Vec<Vec<&str>> = ran.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
        let topic = world.topic.as_str();
        let expected = [
            vec!["GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"],
            vec!["job", topic, "0", "7", "10", "3"],
            vec!["job", topic, "1", "0", "2", "2"],
            vec!["lag:", "5"],
        ];
        assert_eq!(words, expected);
        let told = world.json(&["lag", "job.toml", "--topic", topic]);
        assert_eq!((&told["lag"], &told["committed_per_second"]), (&json!(5), &Value::Null));
        assert_eq!(world.run(&["lag", "job.toml", "--topic", "other"]).code, 2);
        let away =
            ["lag", "job.toml", "--set", "kafka.bootstrap_servers=127.0.0.1:1", "--set", "stream.start_timeout=1s"];
        let told = world.json(&away);
        assert!(told["lag"].is_null() && told["kafka_error"].as_str().is_some(), "{told}");
    }
}

/// A document a line, until the lag that is watched has gone, and then a signal.
#[tokio::test]
async fn a_lag_that_is_watched_shrinks_line_by_line_until_a_signal_comes() {
    let world = World::sqlite(1).await;
    world.produce(0, 0..5).await;
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    world.produce(0, 5..45).await;
    let mut command = directstream(&["lag", "job.toml", "--watch", "--every", "100ms", "--output", "json"]);
    let command = command.current_dir(world.folder.path()).stdout(std::process::Stdio::piped());
    let mut watching = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first = next();
    assert_eq!((&first["lag"], &first["produced_per_second"]), (&json!(40), &Value::Null));
    assert_eq!((&next()["produced_per_second"]), &json!(0));
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    let mut committed = 0;
    loop {
        let told = next();
        committed = committed.max(told["committed_per_second"].as_i64().unwrap());
        if told["lag"] == 0 {
            assert_eq!(told["seconds_left"], 0);
            break;
        }
    }
    assert!(committed > 0, "it was never seen to commit");
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -INT {}", watching.id())]).status().unwrap();
    assert!(sent.success());
    assert_eq!(watching.wait().unwrap().code(), Some(130));
}

/// For people: headings once, and an end when nobody reads on.
#[tokio::test]
async fn a_watch_that_nobody_reads_ends() {
    let world = World::sqlite(1).await;
    world.produce(0, 0..5).await;
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    let mut command = directstream(&["lag", "job.toml", "--watch", "--every", "50ms"]);
    let command = command.current_dir(world.folder.path()).stdout(std::process::Stdio::piped());
    let mut watching = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let told: Vec<String> = (0..3).map(|_| lines.next().unwrap().unwrap()).collect();
    assert_eq!(
        told[0].split_whitespace().collect::<Vec<_>>(),
        ["TIME", "LAG", "COMMITTED/S", "PRODUCED/S", "TIME-LEFT"]
    );
    assert_eq!(told[1].split_whitespace().skip(1).collect::<Vec<_>>(), ["0", "-", "-", "0s"]);
    assert_eq!(told[2].split_whitespace().skip(1).collect::<Vec<_>>(), ["0", "0", "0", "0s"]);
    drop(lines);
    assert_eq!(watching.wait().unwrap().code(), Some(0));
}
