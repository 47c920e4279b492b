//! Moving to another Kafka cluster, and a database put back from a backup: what `docs/operating.md` says to do, by the documented
//! commands, and the tables have each record once.

use std::ops::Range;

use serde_json::Value;

use super::{
    Ran, directstream, run,
    world::{LIMIT, World},
};
use crate::support::{Database, Kafka, Server, kafka, postgres, record, wait_until};

/// What is in each partition of the first cluster: ids from a thousand times the partition's number on.
const READ: u32 = 50;
const WRITTEN: u32 = 80;
/// Where the copy begins: what is before is not in the second cluster, so that offsets differ.
const COPIED_FROM: [u32; 2] = [20, 35];
/// The producers have moved by then.
const AFTER: u32 = 100;

fn ids(partition: u32, range: Range<u32>) -> Range<u32> {
    partition * 1_000 + range.start..partition * 1_000 + range.end
}

fn refused(ran: &Ran, code: i32, words: &str) {
    assert!(ran.code == code && ran.stderr.contains(words), "{}: {}", ran.code, ran.stderr);
}

/// The values of a range of a partition, with their offsets, by `directstream peek`.
fn values(brokers: &str, range: &str) -> Vec<(i64, String)> {
    let ran =
        run(directstream(&["peek", range, "--bootstrap-servers", brokers, "--limit", "1000", "--output", "json"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let value = |record: &Value| record["value"]["text"].as_str().unwrap().to_owned();
    document.as_array().unwrap().iter().map(|record| (record["offset"].as_i64().unwrap(), value(record))).collect()
}

#[tokio::test]
async fn a_job_moves_to_another_cluster_whose_offsets_differ_and_reads_each_record_once() {
    // The image gives all its clusters the same id, unless it is told another one.
    let second = Kafka::start(kafka().env("CLUSTER_ID", "c2Vjb25kLWNsdXN0ZXItMg")).await;
    for world in [World::postgres(2).await, World::sqlite(2).await] {
        moves(&world, &second).await;
    }
}

async fn moves(world: &World, second: &Kafka) {
    for partition in 0..2 {
        world.produce(i32::try_from(partition).unwrap(), ids(partition, 0..READ)).await;
    }
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    // The copy has what the job has not read yet, and some that it has. From then on producers write to the second cluster.
    second.create_topic(&world.topic, 2, &[]).await;
    for partition in 0..2 {
        let number = i32::try_from(partition).unwrap();
        world.produce(number, ids(partition, READ..WRITTEN)).await;
        let from = COPIED_FROM[usize::try_from(partition).unwrap()];
        let copy = |id| record(format!(r#"{{"id":{id}}}"#)).partition(number);
        second.produce(&world.topic, ids(partition, from..AFTER).map(copy).collect()).await;
    }

    let there = ["--set", &format!("kafka.bootstrap_servers={}", second.brokers())];
    let with = |arguments: &[&str]| world.run(&[arguments, &there].concat());
    // Neither the job nor an operator goes on from offsets of another cluster by mistake.
    let set = ["offsets", "set", "job.toml", &format!("{}:0:30", world.topic), "--execute"];
    for command in [&["run", "job.toml", "--until-latest"][..], &set] {
        refused(&with(command), 4, "the stored offsets belong to another Kafka cluster");
    }
    let exported = world.run(&["offsets", "export", "job.toml"]);
    assert_eq!(exported.stdout.lines().count(), 2, "{}", exported.stdout);
    // Each offset is that of the record after the last one that was read: which is where in the copy?
    let translated = exported.stdout.lines().map(|line| {
        let (place, offset) = line.rsplit_once(',').unwrap();
        let (place, offset): (String, i64) = (place.replace(',', ":"), offset.parse().unwrap());
        let last = values(world.kafka.brokers(), &format!("{place}:{}..{offset}", offset - 1)).remove(0).1;
        let copies = values(second.brokers(), &format!("{place}:.."));
        let same: Vec<i64> = copies.iter().filter(|(_, value)| *value == last).map(|(offset, _)| *offset).collect();
        assert_eq!(same.len(), 1, "a record must be told from all others");
        format!("{place}:{}", same[0] + 1)
    });
    let places: Vec<String> = translated.collect();
    assert_eq!(places, [0, 1].map(|p| format!("{}:{p}:{}", world.topic, READ - COPIED_FROM[p])));
    let words: Vec<&str> = places.iter().map(String::as_str).collect();
    let move_with = |words: &[&str], more: &[&str]| with(&[&["offsets", "set", "job.toml"], words, more].concat());
    // All or none, to a cluster that is another one, and in the open; and the old numbers are none there.
    let too_far = ["offsets", "reset", "job.toml", "--to-offset", "90", "--new-cluster", "--execute"];
    refused(&with(&too_far), 2, "the new cluster does not have this offset");
    refused(
        &move_with(&words[..1], &["--new-cluster", "--execute"]),
        2,
        "all partitions of the job go to the new cluster or none",
    );
    let by_shift = ["offsets", "reset", "job.toml", "--shift-by", "-1", "--new-cluster", "--execute"];
    refused(&with(&by_shift), 2, "is of another cluster, so that nothing can be counted");
    let same = [&["offsets", "set", "job.toml"], &words[..], &["--new-cluster", "--execute"]].concat();
    refused(&world.run(&same), 2, "belong to this Kafka cluster already");
    let dry = move_with(&words, &["--new-cluster"]);
    assert!(dry.code == 0 && dry.stdout.contains("new cluster: c2Vjb25k"), "{}{}", dry.stdout, dry.stderr);
    refused(&with(&["run", "job.toml", "--until-latest"]), 4, "belong to another Kafka cluster");
    let done = move_with(&words, &["--new-cluster", "--execute"]);
    assert!(done.code == 0 && !done.stderr.contains("read again"), "{}", done.stderr);

    let ran = with(&["run", "job.toml", "--until-latest"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut rows: Vec<(i64,)> = world.rows("SELECT id FROM records").await;
    rows.sort_unstable();
    let all: Vec<(i64,)> = (0..2).flat_map(|partition| ids(partition, 0..AFTER)).map(|id| (i64::from(id),)).collect();
    assert_eq!(rows, all, "rows are not the records, each once");
    let verified = with(&["verify", "job.toml", "--output", "json"]);
    let document: Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!((verified.code, &document["found"]), (0, &0.into()), "{}", verified.stdout);
    // And back by mistake it does not go either.
    refused(&world.run(&["run", "job.toml", "--until-latest"]), 4, "belong to another Kafka cluster");
}

/// One file of the container, in a format of which `pg_restore` makes the same database again.
const DUMP: &str = "/tmp/backup.dump";

#[tokio::test]
async fn a_database_restored_from_a_dump_of_a_running_job_has_rows_and_offsets_of_one_moment_and_goes_on() {
    let server = Server::start(postgres()).await;
    let database = Database::create(&server.address(5432)).await;
    let name = database.url().rsplit('/').next().unwrap().to_owned();
    let tool = async |words: &str| {
        let command = format!("export PGHOST=127.0.0.1 PGUSER=postgres PGPASSWORD=postgres; {words}");
        server.run(&["bash", "-c", &command]).await.unwrap();
    };
    let world = World::on(database, 2).await;
    for partition in 0..2 {
        world.produce(i32::try_from(partition).unwrap(), ids(partition, 0..1_000)).await;
    }
    let slowly = world.start(&["--set", "stream.max_rate_per_partition=200"]);
    world.committed(100).await;
    tool(&format!("pg_dump --format=custom --file={DUMP} {name}")).await;
    let dumped = world.sums().await[2];
    world.committed(dumped + 200).await;
    slowly.signal("TERM");
    assert_eq!(slowly.ended().await.0, 143);
    let before = world.sums().await;
    tool(&format!("dropdb --force {name} && createdb {name} && pg_restore --dbname={name} {DUMP}")).await;

    let [rows, records, offsets] = world.sums().await;
    assert!(rows == records && rows == offsets, "{rows} {records} {offsets}");
    assert!(rows >= 100 && rows <= dumped && rows < before[0], "{rows}, {dumped} a moment after the dump, {before:?}");
    assert_eq!(world.json(&["verify", "job.toml"])["found"], 0);
    let restored = world.start(&[]);
    wait_until("it has read all of it again", LIMIT, async || world.sums().await == [2_000; 3]).await;
    restored.signal("TERM");
    assert_eq!(restored.ended().await.0, 143);
    let different = "SELECT count(DISTINCT id) FROM records".to_owned();
    assert_eq!(world.number(different).await, Some(2_000), "each once");
    assert_eq!(world.json(&["verify", "job.toml"])["found"], 0);
}
