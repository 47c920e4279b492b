//! Records that only the database can refuse: dead letters under `on_error = "dead_letter"`, exit code 6 under `fail`.

use std::{collections::BTreeMap, fs, os::unix::process::ExitStatusExt as _};

use super::world::World;
use crate::support::{JobFile, record};

const PARTITIONS: i32 = 3;
const RECORDS: i64 = 1_500;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    BreaksCheck,
    HasNoUser,
    HasNoUserLate,
    Repeats,
    IsNoJson,
}

fn kind(partition: i32, offset: i64) -> Kind {
    match (partition, offset) {
        (0, 0) | (1, 700) | (2, 1_499) => Kind::BreaksCheck,
        (0, 801) => Kind::HasNoUser,
        (1, 702 | 703) => Kind::HasNoUserLate,
        (0, 1_000) | (2, 1_400) => Kind::Repeats,
        (1, 5) => Kind::IsNoJson,
        _ => Kind::Good,
    }
}

fn id(partition: i32, offset: i64) -> i64 {
    i64::from(partition) * 10_000 + offset
}

fn user(offset: i64) -> i64 {
    offset % 10
}

fn value(partition: i32, offset: i64) -> String {
    let (mut id, mut amount, mut user_id, mut late) = (id(partition, offset), offset, user(offset), user(offset));
    match kind(partition, offset) {
        Kind::Good => {}
        Kind::BreaksCheck => amount = -1,
        Kind::HasNoUser => user_id = 99,
        Kind::HasNoUserLate => late = 99,
        // The one right before it, which comes first in any batch that holds both.
        Kind::Repeats => id -= 1,
        Kind::IsNoJson => return "not json".to_owned(),
    }
    format!(r#"{{"id":{id},"amount":{amount},"user":{user_id},"late":{late}}}"#)
}

const OUTPUTS: &str = r#"
[[output]]
table = "records"
[output.columns]
id = { from = "value:/id" }
amount = { from = "value:/amount" }
user_id = { from = "value:/user" }
late = { from = "value:/late" }
part = { from = "partition" }
off = { from = "offset" }
[[output]]
table = "totals"
mode = "upsert"
key = ["user_id"]
[output.columns]
user_id = { from = "value:/user" }
total = { from = "value:/amount", merge = "add" }
n = { from = "one", merge = "add" }
"#;

/// Partition, offset, stage, reason, key, value, headers.
type Letter = (i64, i64, String, String, Vec<u8>, Vec<u8>, String);

async fn world_with_constraints(world: World, on_error: &str) -> World {
    let url = world.database.as_ref().map_or("sqlite:job.db", |database| database.url());
    let job = JobFile::new(world.kafka.brokers(), &world.topic, url);
    job.input(format!("on_error = \"{on_error}\"")).outputs(OUTPUTS).write(world.folder.path());
    let users: Vec<String> = (0..10).map(|user| format!("({user})")).collect();
    world
        .execute(&format!(
            "CREATE TABLE users (id bigint NOT NULL PRIMARY KEY); INSERT INTO users VALUES {}; \
             CREATE TABLE records (id bigint NOT NULL UNIQUE, amount bigint CHECK (amount >= 0), \
             user_id bigint REFERENCES users (id), late bigint REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED, \
             part bigint, off bigint); \
             CREATE TABLE totals (user_id bigint NOT NULL PRIMARY KEY, total bigint, n bigint)",
            users.join(", ")
        ))
        .await;
    for partition in 0..PARTITIONS {
        let records = (0..RECORDS).map(|offset| {
            let key = format!("key {offset}");
            // Without it only the database refuses anything.
            let text = match kind(partition, offset) {
                Kind::IsNoJson if on_error == "fail" => value(0, 9_999),
                _ => value(partition, offset),
            };
            record(text).partition(partition).key(key).header("trace", Some(b"AB"))
        });
        world.kafka.produce(&world.topic, records.collect()).await;
    }
    world
}

#[tokio::test]
async fn records_that_only_the_database_refuses_become_dead_letters_with_postgres() {
    refused_records_become_dead_letters(World::postgres(PARTITIONS).await).await;
}

#[tokio::test]
async fn records_that_only_the_database_refuses_become_dead_letters_with_sqlite() {
    refused_records_become_dead_letters(World::sqlite(PARTITIONS).await).await;
}

async fn refused_records_become_dead_letters(world: World) {
    let world = world_with_constraints(world, "dead_letter").await;
    let ran = world.run(&["run", "job.toml", "--until-latest"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    // Again, for what only comes to light at a start.
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    recount(&world).await;
}

#[tokio::test]
async fn kills_while_records_are_isolated_lose_and_double_nothing_with_postgres() {
    kills_while_records_are_isolated(World::postgres(PARTITIONS).await).await;
}

#[tokio::test]
async fn kills_while_records_are_isolated_lose_and_double_nothing_with_sqlite() {
    kills_while_records_are_isolated(World::sqlite(PARTITIONS).await).await;
}

async fn kills_while_records_are_isolated(world: World) {
    let world = world_with_constraints(world, "dead_letter").await;
    // The first batch is refused while it is written, so the transaction that writes it record by record is the first to get
    // so far. At the first two kills it is not committed, at the third one it is.
    for point in ["commit::after_advance", "commit::after_advance", "commit::after_commit"] {
        let failpoints = format!("{point}=1*return(kill)->off");
        let (status, told) = world.under_fire(&["run", "job.toml", "--until-latest"], &failpoints);
        assert_eq!(status.signal(), Some(9), "{told}");
        let at = |words: &str| told.find(words).unwrap_or_else(|| panic!("not {words}: {told}"));
        assert!(at("the batch is run again") < at(&format!("failpoint {point}: kill")), "{told}");
    }
    let ran = world.run(&["run", "job.toml", "--until-latest"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    recount(&world).await;
}

/// Every record is in its place: good ones in the tables, each once, the others among the dead letters.
async fn recount(world: &World) {
    let all = (0..PARTITIONS).flat_map(|partition| (0..RECORDS).map(move |offset| (i64::from(partition), offset)));
    let kind_of = |place: &(i64, i64)| kind(i32::try_from(place.0).unwrap(), place.1);
    let (good, bad): (Vec<_>, Vec<_>) = all.partition(|place| kind_of(place) == Kind::Good);
    let rows: Vec<(i64, i64)> = world.rows("SELECT part, off FROM records ORDER BY part, off").await;
    assert_eq!(rows, good);
    let letters = world.own("dead_letters");
    let places = format!("SELECT CAST(partition AS bigint), \"offset\" FROM {letters} ORDER BY partition, \"offset\"");
    let found: Vec<(i64, i64)> = world.rows(&places).await;
    assert_eq!(found, bad);

    let mut totals: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (_, offset) in &good {
        let total = totals.entry(user(*offset)).or_default();
        *total = (total.0 + offset, total.1 + 1);
    }
    let stored: Vec<(i64, i64, i64)> = world.rows("SELECT user_id, total, n FROM totals ORDER BY user_id").await;
    assert_eq!(stored, totals.into_iter().map(|(user, (total, n))| (user, total, n)).collect::<Vec<_>>());

    // Each is kept whole, with the step that refused it and a reason without its payload.
    let kept: Vec<Letter> = world
        .rows(&format!(
            "SELECT CAST(partition AS bigint), \"offset\", stage, reason, key, value, CAST(headers AS text) FROM {letters}"
        ))
        .await;
    for (partition, offset, stage, reason, key, bytes, headers) in kept {
        let place = (partition, offset);
        assert_eq!(stage, if kind_of(&place) == Kind::IsNoJson { "decode" } else { "write" }, "{place:?}");
        assert_eq!(key, format!("key {offset}").into_bytes());
        assert_eq!(bytes, value(i32::try_from(partition).unwrap(), offset).into_bytes());
        assert_eq!(headers.replace(' ', ""), r#"[["trace","QUI="]]"#);
        assert!(!reason.is_empty() && !reason.contains("99") && !reason.contains("-1"), "{reason}");
    }
    let sums: Vec<(i64, i64, i64)> = world
        .rows(&format!(
            "SELECT CAST(sum(records) AS bigint), CAST(sum(dead_letters) AS bigint), \
             (SELECT CAST(sum(until_offset) AS bigint) FROM {}) FROM {}",
            world.own("offsets"),
            world.own("batches")
        ))
        .await;
    let count = i64::from(PARTITIONS) * RECORDS;
    assert_eq!(sums, [(count, i64::try_from(bad.len()).unwrap(), count)]);
    let chained = world.number(format!(
        "SELECT count(*) FROM {0} a WHERE batch_seq > 1 AND NOT EXISTS (SELECT 1 FROM {0} b WHERE b.batch_seq = a.batch_seq - 1)",
        world.own("batches")
    ));
    assert_eq!(chained.await, Some(0), "batch numbers have a hole");
    let verified = world.run(&["verify", "job.toml"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
}

#[tokio::test]
async fn a_record_that_the_database_refuses_ends_a_job_that_fails_on_errors_with_postgres() {
    refused_record_ends_the_job(World::postgres(PARTITIONS).await).await;
}

#[tokio::test]
async fn a_record_that_the_database_refuses_ends_a_job_that_fails_on_errors_with_sqlite() {
    refused_record_ends_the_job(World::sqlite(PARTITIONS).await).await;
}

async fn refused_record_ends_the_job(world: World) {
    let world = world_with_constraints(world, "fail").await;
    let ran = world.run(&["run", "job.toml", "--until-latest"]);
    assert_eq!(ran.code, 6, "{}", ran.stderr);
    assert!(ran.stderr.contains("the database refused"), "{}", ran.stderr);
    let rows = world.number("SELECT count(*) FROM records".to_owned()).await;
    let committed = world.sums().await;
    assert_eq!(rows, Some(committed[2]), "rows and offsets do not agree");
    assert_eq!(world.number(format!("SELECT count(*) FROM {}", world.own("dead_letters"))).await, Some(0));
}

/// A sum is out of range only when the records meet: found before the database is asked, or by it.
#[tokio::test]
async fn a_sum_out_of_range_is_the_fault_of_one_record() {
    for world in [World::postgres(PARTITIONS).await, World::sqlite(PARTITIONS).await] {
        let world = world_with_constraints(world, "dead_letter").await;
        let large = |id: i64| {
            let amount = i64::MAX - 2_000_000;
            record(format!(r#"{{"id":{id},"amount":{amount},"user":1,"late":1}}"#)).partition(2)
        };
        world.kafka.produce(&world.topic, vec![large(50_001), large(50_002), large(50_003)]).await;
        let ran = world.run(&["run", "job.toml", "--until-latest"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        // The first of them fits beside all the others' amounts, together no two of them do.
        let letters = world.own("dead_letters");
        assert_eq!(world.number(format!("SELECT count(*) FROM {letters} WHERE \"offset\" > {RECORDS}")).await, Some(2));
        let [rows, records, offsets] = world.sums().await;
        let dead = world.number(format!("SELECT count(*) FROM {letters}")).await.unwrap();
        assert_eq!((rows + dead, records), (offsets, offsets));
    }
}

/// A merged row is of many records. Under `fail` it ends the job; under `dead_letter` those records are left out without which
/// it is taken.
#[tokio::test]
async fn a_merged_row_that_the_database_refuses_ends_the_job_or_costs_the_records_that_are_too_many() {
    const SUMS: &str = r#"
[[output]]
table = "sums"
mode = "upsert"
key = ["part"]
columns.part = { from = "partition" }
columns.total = { from = "value:/id", merge = "add" }
"#;
    for world in [World::postgres(1).await, World::sqlite(1).await] {
        let job = world.folder.path().join("job.toml");
        fs::write(&job, fs::read_to_string(&job).unwrap() + SUMS).unwrap();
        let create = "CREATE TABLE sums (part integer NOT NULL PRIMARY KEY, total bigint CHECK (total < 100))";
        world.execute(create).await;
        world.produce(0, 0..20).await;
        let fail = world.run(&["run", "job.toml", "--until-latest", "--set", "input.on_error=fail"]);
        assert_eq!(fail.code, 6, "{}", fail.stderr);
        let errors: Vec<_> = fail.stderr.lines().filter(|line| line.contains("error: ")).collect();
        let named = |line: &str| ["table=sums", &world.topic, "partition: 0"].iter().all(|word| line.contains(word));
        assert!(matches!(errors[..], [line] if named(line)), "{}", fail.stderr);
        assert_eq!(world.sums().await, [0; 3]);
        let ran = world.run(&["run", "job.toml", "--until-latest"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let letters = world.number(format!("SELECT count(*) FROM {}", world.own("dead_letters"))).await.unwrap();
        let [rows, records, offsets] = world.sums().await;
        assert_eq!((rows + letters, records, offsets), (20, 20, 20));
        // In the order of offsets, each that still fits: 0 to 13 are 91, and 14 is too many.
        assert_eq!(world.number("SELECT total FROM sums".to_owned()).await, Some(91));
        assert_eq!(world.json(&["verify", "job.toml"])["found"], 0);
    }
}
