//! `offsets reset`, `set` and `export`: stored offsets moved by an operator.

use std::fs;

use serde_json::{Value, json};

use super::{
    Ran,
    world::{LIMIT, World},
};
use crate::support::{Kafka, record, unique, wait_until};

/// What a command that fails says, in one line.
#[track_caller]
fn refused<'r>(ran: &'r Ran, code: i32, words: &str) -> &'r str {
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("directstream: error: ")).collect();
    assert_eq!((ran.code, errors.len(), &*ran.stdout), (code, 1, ""), "{}", ran.stderr);
    assert!(errors[0].contains(words), "{words}: {}", ran.stderr);
    errors[0]
}

/// New offsets by partition, as a document tells them.
fn new_offsets(document: &Value) -> Vec<i64> {
    let rows = document["partitions"].as_array().unwrap();
    rows.iter().map(|row| row["new_offset"].as_i64().unwrap()).collect()
}

impl World {
    #[track_caller]
    fn until_latest(&self) {
        let ran = self.run(&["run", "job.toml", "--until-latest"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }

    /// The stored offsets by partition.
    async fn stored(&self) -> Vec<i64> {
        let sql = format!("SELECT until_offset FROM {} ORDER BY partition", self.own("offsets"));
        self.rows::<(i64,)>(&sql).await.into_iter().map(|row| row.0).collect()
    }

    async fn epoch(&self) -> i64 {
        self.number(format!("SELECT epoch FROM {}", self.own("applications"))).await.unwrap()
    }

    /// Partition, from, until and deleted rows of all that was moved, in that order.
    async fn moved(&self) -> Vec<(i64, Option<i64>, i64, Option<i64>)> {
        let sql = format!(
            "SELECT CAST(partition AS bigint), from_offset, until_offset, rows_deleted FROM {} ORDER BY id",
            self.own("moved_offsets")
        );
        self.rows(&sql).await
    }

    /// Adds columns to the job's one table.
    fn with_columns(&self, columns: &str) {
        let path = self.folder.path().join("job.toml");
        let job = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{job}{columns}")).unwrap();
    }

    #[track_caller]
    fn verifies(&self) {
        let ran = self.run(&["verify", "job.toml"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    }

    /// `offsets reset job.toml` and so on, as JSON.
    fn reset(&self, arguments: &[&str]) -> Value {
        self.json(&[&["offsets", "reset", "job.toml"], arguments].concat())
    }
}

const TRACED: &str = "columns.part = { from = \"partition\", type = \"integer\" }\n\
                      columns.off = { from = \"offset\", type = \"bigint\" }\n";

#[tokio::test]
async fn offsets_are_moved_and_what_is_read_again_is_in_the_ledger_with_postgres() {
    offsets_are_moved(World::postgres(2).await).await;
}

#[tokio::test]
async fn offsets_are_moved_and_what_is_read_again_is_in_the_ledger_with_sqlite() {
    offsets_are_moved(World::sqlite(2).await).await;
}

async fn offsets_are_moved(world: World) {
    world.produce(0, 0..10).await;
    world.produce(1, 0..4).await;
    world.until_latest();
    let epoch = world.epoch().await;

    // A dry run tells, and changes nothing.
    let told = world.reset(&["--to-earliest"]);
    let first = json!({
        "topic": world.topic, "partition": 0, "new_offset": 0, "current_offset": 10, "shift": -10,
        "log_start_offset": 0, "log_end_offset": 10, "adjusted": null,
    });
    assert_eq!((&told["executed"], &told["moved"], &told["epoch"]), (&json!(false), &json!(2), &Value::Null));
    assert_eq!(told["partitions"][0], first);
    let text = world.run(&["offsets", "reset", "job.toml", "--to-earliest", "--dry-run"]);
    assert_eq!(text.code, 0, "{}", text.stderr);
    let words: Vec<Vec<&str>> = text.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0][..4], ["GROUP", "TOPIC", "PARTITION", "NEW-OFFSET"]);
    assert_eq!(words[1], ["job", &world.topic, "0", "0", "10", "-10", "0", "10"]);
    assert!(text.stdout.ends_with("would move: 2\nAdd --execute to do it.\n"), "{}", text.stdout);
    assert!(text.stderr.contains("records are read again") && text.stderr.contains("offsets=14"), "{}", text.stderr);
    assert_eq!((world.stored().await, world.epoch().await, world.moved().await.len()), (vec![10, 4], epoch, 0));

    // Back by three in one partition: its records are read again, and everything that looks at it agrees.
    let scope = format!("{}:0", world.topic);
    let done = world.reset(&["--shift-by", "-3", "--topic", &scope, "--execute"]);
    assert_eq!((&done["moved"], &done["epoch"]), (&json!(1), &json!(epoch + 1)));
    assert_eq!((world.stored().await, world.epoch().await), (vec![7, 4], epoch + 1));
    world.until_latest();
    assert_eq!(world.sums().await, [17, 17, 14]);
    world.verifies();

    // On by one: a record is skipped.
    world.produce(0, 10..12).await;
    let done = world.reset(&["--to-offset", "11", "--topic", &scope, "--execute"]);
    assert_eq!(new_offsets(&done), [11]);
    world.until_latest();
    assert_eq!((world.sums().await[0], world.stored().await), (18, vec![12, 4]));
    world.verifies();
    assert_eq!(world.moved().await, [(0, Some(10), 7, None), (0, Some(10), 11, None)]);
    let sql = format!(
        "SELECT scenario, host, process_id, batch_seq FROM {} WHERE until_offset = 7",
        world.own("moved_offsets")
    );
    let (scenario, host, process, batch): (String, String, i64, i64) = world.rows(&sql).await.remove(0);
    assert_eq!((&*scenario, &*host), ("--shift-by -3", &*gethostname::gethostname().to_string_lossy()));
    assert!(process > 0 && batch > 0);
    // Nothing to do is done at once, and no epoch of its own.
    let nothing = world.reset(&["--to-current", "--execute"]);
    assert_eq!((&nothing["moved"], &nothing["epoch"], world.moved().await.len()), (&json!(0), &Value::Null, 2));

    // Somebody who moves them by hand, and tells nobody, is found.
    world.execute(&format!("UPDATE {} SET until_offset = 1 WHERE partition = 1", world.own("offsets"))).await;
    let ran = world.run(&["verify", "job.toml"]);
    assert!(ran.code == 4 && ran.stdout.contains("the stored offset is not the ledger's end"), "{}", ran.stdout);
}

/// The job goes on from the moved offsets also where nothing was committed before, and where a topic was made again.
#[tokio::test]
async fn the_first_and_a_made_again_topic_s_offsets_are_moved_too() {
    let world = World::sqlite(1).await;
    world.until_latest();
    world.produce(0, 0..5).await;
    world.reset(&["--to-offset", "2", "--execute"]);
    world.until_latest();
    assert_eq!(world.sums().await, [3, 3, 5]);
    world.verifies();

    world.kafka.delete_topic(&world.topic).await;
    let gone = async || world.kafka.partitions(&world.topic).await == 0;
    wait_until("the topic is gone", LIMIT, gone).await;
    world.kafka.create_topic(&world.topic, 1, &[]).await;
    world.produce(0, 5..13).await;
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 4);
    refused(&world.run(&["offsets", "reset", "job.toml", "--shift-by", "1"]), 2, "an earlier topic of that name");
    let rows = ["offsets", "reset", "job.toml", "--to-earliest", "--delete-rows"];
    refused(&world.run(&rows), 2, "no integer columns");
    // The same number is another place there.
    let done = world.reset(&["--to-offset", "5", "--execute"]);
    assert_eq!(done["moved"], 1);
    world.until_latest();
    assert_eq!(world.sums().await, [6, 6, 8]);
}

#[tokio::test]
async fn an_offset_outside_of_the_log_is_the_nearest_one_with_a_warning_or_refused_by_set() {
    let world = World::sqlite(1).await;
    world.produce(0, 0..10).await;
    world.until_latest();
    world.kafka.delete_records(&world.topic, &[(0, 6)]).await;
    for (arguments, expected, told) in [
        (["--to-offset", "2"], 6, "lower than the earliest one, which is taken instead wanted=2"),
        (["--shift-by", "-100"], 6, "wanted=-90"),
        (["--to-offset", "99"], 10, "higher than the latest one, which is taken instead wanted=99"),
        (["--shift-by", "5"], 10, "wanted=15"),
        (["--to-datetime", "2200-01-01T00:00:00.000"], 10, "no record is as late as that"),
    ] {
        let ran = world.run(&[&["offsets", "reset", "job.toml"], &arguments[..], &["--output", "json"]].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stderr.contains("WARN") && ran.stderr.contains(told), "{arguments:?}: {}", ran.stderr);
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(new_offsets(&document), [expected], "{arguments:?}");
        assert!(document["partitions"][0]["adjusted"].as_str().unwrap().contains(told), "{document}");
    }
    let set = |place: &str| world.run(&["offsets", "set", "job.toml", place, "--execute"]);
    for outside in ["5", "11"] {
        let line = format!("{}:0:{outside}", world.topic);
        refused(&set(&line), 2, &format!("Kafka does not have this offset offset={outside} earliest=6 latest=10"));
    }
    assert_eq!((world.stored().await, world.moved().await.len()), (vec![10], 0));
    assert_eq!(set(&format!("{}:0:8", world.topic)).code, 0);
    assert_eq!(world.stored().await, [8]);
    for (arguments, told) in [
        (vec!["reset", "job.toml", "--to-earliest", "--topic", "other"], "topic=\"other\""),
        (vec!["reset", "job.toml", "--to-earliest", "--topic", &format!("{}:0,7", world.topic)], "partition=7"),
        (vec!["set", "job.toml", "other:0:1"], "topic=\"other\""),
    ] {
        refused(&world.run(&[&["offsets"], &arguments[..]].concat()), 2, told);
    }
    let away = ["offsets", "reset", "job.toml", "--to-latest", "--set", "kafka.bootstrap_servers=127.0.0.1:1"];
    refused(&world.run(&[&away[..], &["--set", "stream.start_timeout=1s"]].concat()), 3, "127.0.0.1:1");
}

#[tokio::test]
async fn offsets_of_a_running_job_stay_and_its_owner_is_named() {
    for world in [World::postgres(1).await, World::sqlite(1).await] {
        world.produce(0, 0..5).await;
        let running = world.start(&[]);
        world.committed(5).await;
        let epoch = world.epoch().await;
        let owner = format!("host={} process_id={}", gethostname::gethostname().to_string_lossy(), running.id());
        for change in
            [&["reset", "job.toml", "--to-earliest"][..], &["set", "job.toml", &format!("{}:0:1", world.topic)]]
        {
            let execute = world.run(&[&["offsets"], change, &["--execute"]].concat());
            refused(&execute, 5, &owner);
            // What would be done can be told all the same.
            let dry = world.run(&[&["offsets"], change].concat());
            assert!(dry.code == 0 && dry.stderr.contains(&owner), "{}", dry.stderr);
        }
        // Nor while it stands still.
        running.signal("STOP");
        refused(&world.run(&["offsets", "reset", "job.toml", "--to-earliest", "--execute"]), 5, &owner);
        running.signal("CONT");
        world.produce(0, 5..7).await;
        world.committed(7).await;
        assert_eq!((world.epoch().await, world.moved().await.len()), (epoch, 0));
        // Once it is dead, though it could not say so.
        assert!(running.kill());
        let moved = async || world.run(&["offsets", "reset", "job.toml", "--to-offset", "3", "--execute"]).code == 0;
        wait_until("its session is gone", LIMIT, moved).await;
        world.until_latest();
        assert_eq!(world.sums().await, [11, 11, 7]);
        world.verifies();
    }
}

/// A job that has judged the application's row, and then takes it over, does so anew where the row was changed in between.
#[tokio::test]
async fn a_job_that_starts_meanwhile_goes_on_from_the_moved_offsets() {
    for world in [World::postgres(1).await, World::sqlite(1).await] {
        world.produce(0, 0..10).await;
        world.until_latest();
        let starting = world.spawn_under_fire(
            &["run", "job.toml", "--until-latest"],
            "commit::before_take_over=1*return(delay:3000)->off",
        );
        let about_to = async || starting.told().contains("failpoint commit::before_take_over");
        wait_until("it is about to take the application over", LIMIT, about_to).await;
        world.reset(&["--shift-by", "-4", "--execute"]);
        let (code, told) = starting.ended().await;
        assert_eq!(code, 0, "{told}");
        assert_eq!(world.sums().await, [14, 14, 10]);
        world.verifies();
    }
}

/// And one that starts in the midst of the move waits for its end, and then goes on from there.
#[tokio::test]
async fn a_move_is_all_or_nothing_whenever_it_is_killed_and_whoever_starts_meanwhile() {
    for world in [World::postgres(2).await, World::sqlite(2).await] {
        world.produce(0, 0..10).await;
        world.produce(1, 0..10).await;
        world.until_latest();
        let reset = ["offsets", "reset", "job.toml", "--shift-by", "-4", "--execute"];
        let (status, told) = world.under_fire(&reset, "moves::before_commit=return(kill)");
        assert!(status.code().is_none() && told.contains("moves::before_commit: kill"), "{status}: {told}");
        let unchanged = async || world.stored().await == [10, 10] && world.moved().await.is_empty();
        wait_until("the transaction is rolled back", LIMIT, unchanged).await;
        let (status, told) = world.under_fire(&reset, "moves::after_commit=return(kill)");
        assert!(status.code().is_none() && told.contains("moves::after_commit: kill"), "{status}: {told}");
        assert_eq!((world.stored().await, world.moved().await.len()), (vec![6, 6], 2));
        world.until_latest();
        assert_eq!(world.sums().await, [28, 28, 20]);

        let moving = world.spawn_under_fire(&reset, "moves::before_commit=return(delay:2000)");
        let midst = async || moving.told().contains("failpoint moves::before_commit");
        wait_until("the move is under way", LIMIT, midst).await;
        world.until_latest();
        let (code, told) = moving.ended().await;
        assert_eq!(code, 0, "{told}");
        // The job came before the move or after it; the next one has read all of it.
        world.until_latest();
        assert_eq!(world.sums().await, [36, 36, 20]);
        world.verifies();
    }
}

#[tokio::test]
async fn rows_of_records_that_are_read_again_go_with_the_move_with_postgres() {
    rows_go_with_the_move(World::postgres(2).await).await;
}

#[tokio::test]
async fn rows_of_records_that_are_read_again_go_with_the_move_with_sqlite() {
    rows_go_with_the_move(World::sqlite(2).await).await;
}

async fn rows_go_with_the_move(world: World) {
    world.with_columns(TRACED);
    world.produce(0, 0..10).await;
    world.produce(1, 0..5).await;
    world.kafka.produce(&world.topic, vec![record("not json").partition(0)]).await;
    world.produce(0, 10..14).await;
    world.until_latest();
    assert_eq!(world.sums().await, [19, 20, 20]);

    let scope = format!("{}:0", world.topic);
    let back = ["--to-offset", "8", "--topic", &scope, "--delete-rows"];
    // Offsets 8 to 14, of which one is a dead letter.
    assert_eq!(world.reset(&back)["rows"], 6);
    assert_eq!(world.sums().await[0], 19);
    let done = world.reset(&[&back[..], &["--execute"]].concat());
    assert_eq!((&done["rows"], &done["dead_letters"]), (&json!(6), &json!(1)));
    assert_eq!((world.sums().await[0], world.stored().await), (13, vec![8, 5]));
    assert_eq!(world.moved().await, [(0, Some(15), 8, Some(6))]);
    world.verifies();
    world.until_latest();
    let places = "SELECT CAST(part AS bigint), off FROM records ORDER BY part, off";
    let read: Vec<(i64, i64)> =
        (0..15).filter(|off| *off != 10).map(|off| (0, off)).chain((0..5).map(|off| (1, off))).collect();
    assert_eq!(world.rows::<(i64, i64)>(places).await, read);
    world.verifies();

    // A second time, over what was read again, and further back.
    world.reset(&["--to-offset", "5", "--topic", &scope, "--delete-rows", "--execute"]);
    world.until_latest();
    assert_eq!(world.rows::<(i64, i64)>(places).await, read);
    world.verifies();
    // A row that is missing, and one too many, are seen all the same.
    world.execute("DELETE FROM records WHERE part = 0 AND off = 9").await;
    world.execute("INSERT INTO records (id, part, off) VALUES (1, 1, 1)").await;
    let ran = world.run(&["verify", "job.toml"]);
    assert!(ran.code == 4 && ran.stdout.contains("missing") && ran.stdout.contains("doubled"), "{}", ran.stdout);
}

#[tokio::test]
async fn rows_that_cannot_be_told_stay_and_the_reason_is_said() {
    for world in [World::postgres(1).await, World::sqlite(1).await] {
        world.produce(0, 0..10).await;
        world.until_latest();
        let back = ["offsets", "reset", "job.toml", "--to-earliest", "--delete-rows", "--execute"];
        refused(&world.run(&back), 2, "the table has no integer columns from partition and from offset table=records");
        let job = world.folder.path().join("job.toml");
        let text = fs::read_to_string(&job).unwrap();
        let upsert = "[[output]]\ntable = \"last\"\nmode = \"upsert\"\nkey = [\"part\"]\ncreate = true\n";
        fs::write(&job, format!("{text}{upsert}{TRACED}columns.id.from = \"value:/id\"\n")).unwrap();
        world.execute("ALTER TABLE records ADD COLUMN part integer").await;
        world.execute("ALTER TABLE records ADD COLUMN off bigint").await;
        world.until_latest();
        let table = text.replace("create = true\n", &format!("create = true\n{TRACED}"));
        fs::write(&job, format!("{table}{upsert}{TRACED}columns.id.from = \"value:/id\"\n")).unwrap();
        refused(&world.run(&back), 2, "an upsert merges the rows of many records");
        fs::write(&job, &table).unwrap();
        // Batches that the ledger has forgotten.
        world.execute(&format!("DELETE FROM {} WHERE batch_seq = 1", world.own("batches"))).await;
        refused(&world.run(&back), 2, "the ledger does not reach back that far");
        assert_eq!((world.stored().await, world.sums().await[0], world.moved().await.len()), (vec![10], 10, 0));
    }
}

#[tokio::test]
async fn what_is_exported_is_read_back() {
    let world = World::sqlite(3).await;
    for partition in 0..3 {
        world.produce(partition, 0..10).await;
    }
    world.until_latest();
    let topic = &world.topic;
    let export = |more: &[&str]| {
        let ran = world.run(&[&["offsets", "export", "job.toml"], more].concat());
        assert_eq!((ran.code, &*ran.stderr), (0, ""));
        ran.stdout
    };
    assert_eq!(export(&[]), format!("{topic},0,10\n{topic},1,10\n{topic},2,10\n"));
    let file = world.folder.path().join("offsets.csv");
    let name = file.to_str().unwrap();
    fs::write(&file, export(&["--header", "--topic", topic])).unwrap();
    assert!(fs::read_to_string(&file).unwrap().starts_with("topic,partition,offset\n"));
    assert_eq!(
        world.json(&["offsets", "export", "job.toml"])[2],
        json!({"topic": topic, "partition": 2, "offset": 10})
    );
    world.reset(&["--to-earliest", "--execute"]);
    let back = world.reset(&["--from-file", name, "--execute"]);
    assert_eq!((&back["moved"], world.stored().await), (&json!(3), vec![10, 10, 10]));
    // Only the partitions that are named, and the group if there is one.
    fs::write(&file, format!("job,{topic},1,4\n")).unwrap();
    assert_eq!(new_offsets(&world.reset(&["--from-file", name])), [4]);
    fs::write(&file, format!("other,{topic},1,4\n{topic},x,1\n")).unwrap();
    let ran = world.run(&["offsets", "reset", "job.toml", "--from-file", name]);
    assert_eq!(ran.code, 2);
    let lines: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("offsets.csv:")).collect();
    assert!(lines.len() == 2 && lines[0].contains(":1: the offset of another group"), "{}", ran.stderr);
    refused(&world.run(&["offsets", "export", "job.toml", "--topic", "other"]), 2, "topic=other");
}

/// New offsets by Kafka's own tool.
async fn by_kafka(kafka: &Kafka, group: &str, topic: &str, arguments: &[&str]) -> Vec<i64> {
    let reset = ["--reset-offsets", "--group", group, "--topic", topic];
    let (out, err) = kafka.tool("kafka-consumer-groups", &[&reset, arguments].concat()).await.unwrap();
    // By words: Kafka 3.9 does not end the line of the table's head.
    let words: Vec<&str> = out.split_whitespace().collect();
    let rows = words.windows(4).filter_map(|words| match words {
        [named, _, partition, new] if *named == group => {
            Some((partition.parse::<i32>().unwrap(), new.parse().unwrap()))
        }
        _ => None,
    });
    let mut rows: Vec<(i32, i64)> = rows.collect();
    rows.sort_unstable();
    assert!(!rows.is_empty(), "{out}{err}");
    rows.into_iter().map(|(_, new)| new).collect()
}

/// The oracle is Kafka's own tool on a group with the same offsets.
#[tokio::test]
async fn every_scenario_gives_the_offsets_that_kafka_s_own_tool_gives() {
    let world = World::sqlite(2).await;
    let (kafka, topic, group) = (&world.kafka, world.topic.as_str(), unique("group"));
    for (partition, count) in [(0, 20), (1, 7)] {
        let records =
            (0..count).map(|n: i64| record(format!(r#"{{"id":{n}}}"#)).partition(partition).timestamp(n * 1_000));
        kafka.produce(topic, records.collect()).await;
    }
    world.until_latest();
    kafka.delete_records(topic, &[(0, 3)]).await;
    let places = [format!("{topic}:0:12"), format!("{topic}:1:5")];
    world.json(&["offsets", "set", "job.toml", &places[0], &places[1], "--execute"]);
    let only = format!("{topic}:0");
    by_kafka(kafka, &group, &only, &["--to-offset", "12", "--execute"]).await;
    by_kafka(kafka, &group, &format!("{topic}:1"), &["--to-offset", "5", "--execute"]).await;
    for scenario in [
        &["--to-current"][..],
        &["--to-earliest"],
        &["--to-latest"],
        &["--to-offset", "6"],
        &["--to-offset", "0"],
        &["--to-offset", "99"],
        &["--shift-by", "-4"],
        &["--shift-by", "3"],
        &["--to-datetime", "1970-01-01T00:00:05.500"],
        &["--to-datetime", "1970-01-01T01:00:04.000+01:00"],
        &["--to-datetime", "2100-01-01T00:00:00.000"],
        &["--by-duration", "P1DT2H"],
    ] {
        let theirs = by_kafka(kafka, &group, topic, scenario).await;
        assert_eq!(new_offsets(&world.reset(scenario)), theirs, "{scenario:?}");
    }
    // What one of them exports the other reads.
    let reset = ["--reset-offsets", "--group", &group, "--topic", topic, "--shift-by", "-2", "--export", "--dry-run"];
    let (theirs, _) = kafka.tool("kafka-consumer-groups", &reset).await.unwrap();
    let file = world.folder.path().join("theirs.csv");
    fs::write(&file, &theirs).unwrap();
    assert_eq!(new_offsets(&world.reset(&["--from-file", file.to_str().unwrap()])), [10, 3], "{theirs}");
    let planned = world.run(&["offsets", "reset", "job.toml", "--shift-by", "-2", "--export"]).stdout;
    assert_eq!(planned, format!("{topic},0,10\n{topic},1,3\n"));
    let ours = world.run(&["offsets", "export", "job.toml"]).stdout;
    // But for the offsets, and quotes around a long name, they are the same.
    let places = |text: &str| {
        let lines = text.lines().filter_map(|line| Some(line.rsplit_once(',')?.0.replace('"', "")));
        let mut lines: Vec<String> = lines.collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!((places(&theirs).len(), places(&theirs)), (2, places(&ours)), "{theirs}");
    let path = if kafka.servers().is_empty() {
        fs::write(&file, &ours).unwrap();
        file.display().to_string()
    } else {
        let path = format!("/tmp/{group}.csv");
        kafka.server().run(&["sh", "-c", &format!("printf %s '{ours}' > {path}")]).await.unwrap();
        path
    };
    assert_eq!(by_kafka(kafka, &group, topic, &["--from-file", &path]).await, [12, 5]);
}
