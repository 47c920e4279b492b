//! `verify`: says nothing where nothing is wrong, and names each kind of damage that is planted.

use std::fs;

use serde_json::Value;

use super::world::World;

const OUTPUTS: &str = r#"
[[output]]
table = "places"
create = true
columns.part = { from = "partition", type = "integer" }
columns.off = { from = "offset", type = "bigint" }
columns.id = { from = "value:/id", type = "bigint" }
columns.seen = { from = "timestamp", type = "timestamptz" }
columns.whole = { from = "value", type = "jsonb" }
[[output]]
table = "sums"
mode = "upsert"
key = ["part"]
create = true
columns.part = { from = "partition", type = "integer" }
columns.total = { from = "value:/id", type = "bigint", merge = "add" }
columns.share = { from = "value:/share", type = "double precision", merge = "add" }
columns.last = { from = "offset", type = "bigint" }
"#;

/// Kinds and texts of what `verify` finds; none means that it ended with 0.
fn findings(world: &World, arguments: &[&str]) -> Vec<(String, String)> {
    let ran = world.run(&[&["verify", "job.toml", "--output", "json"], arguments].concat());
    let document: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stderr));
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let found: Vec<_> = document["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| (text(finding, "kind"), text(finding, "what")))
        .collect();
    assert_eq!(document["found"].as_u64(), Some(found.len() as u64));
    assert_eq!(document["ok"], found.is_empty());
    assert_eq!(ran.code, if found.is_empty() { 0 } else { 4 }, "{}", ran.stderr);
    found
}

async fn filled(world: &World) {
    let job = world.folder.path().join("job.toml");
    fs::write(&job, fs::read_to_string(&job).unwrap() + OUTPUTS).unwrap();
    for ids in [0..40, 40..100] {
        for partition in 0..2 {
            let value = |n: i32| match n % 10 {
                // A dead letter.
                9 => r#"{"id":"no number"}"#.to_owned(),
                // A sum of such shares depends on their order in its last bits.
                _ => format!(r#"{{"id":{},"share":0.{n}1}}"#, n * 2 + partition),
            };
            let records = ids.clone().map(|n| crate::support::record(value(n)).partition(partition));
            world.kafka.produce(&world.topic, records.collect()).await;
        }
        assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    }
}

#[tokio::test]
async fn verify_names_each_planted_damage_with_postgres() {
    verify_names_each_planted_damage(World::postgres(2).await).await;
}

#[tokio::test]
async fn verify_names_each_planted_damage_with_sqlite() {
    verify_names_each_planted_damage(World::sqlite(2).await).await;
}

/// One thing planted, and how it must be told.
struct Damage<'t> {
    name: &'t str,
    plant: String,
    repair: String,
    kind: &'t str,
    words: Vec<&'t str>,
}

impl<'t> Damage<'t> {
    fn new(
        name: &'t str,
        plant: impl Into<String>,
        repair: impl Into<String>,
        kind: &'t str,
        words: &[&'t str],
    ) -> Self {
        Self { name, plant: plant.into(), repair: repair.into(), kind, words: words.to_vec() }
    }

    /// Plants it, and repairs it after it was found.
    async fn must_be_found(self, world: &World) {
        world.execute(&self.plant).await;
        let found = findings(world, &[]);
        assert_eq!(found.len(), 1, "{}: {found:?}", self.name);
        assert_eq!(found[0].0, self.kind, "{}: {found:?}", self.name);
        assert!(self.words.iter().all(|word| found[0].1.contains(word)), "{}: {found:?}", self.name);
        world.execute(&self.repair).await;
    }
}

async fn verify_names_each_planted_damage(world: World) {
    filled(&world).await;
    assert_eq!(world.number("SELECT count(*) FROM places".to_owned()).await, Some(180));
    assert_eq!(findings(&world, &[]), []);
    let shown = world.json(&["verify", "job.toml"]);
    assert_eq!((&shown["records"], &shown["complete"]), (&Value::from(200), &Value::from(true)));
    let ran = world.run(&["verify", "job.toml"]);
    assert!(ran.stdout.contains("records 200") && ran.stdout.contains("ok: true"), "{}", ran.stdout);

    let (ranges, offsets) = (world.own("batch_ranges"), world.own("offsets"));
    let record = format!("record={}:0:3", world.topic);
    let aside = "CREATE TABLE aside AS SELECT * FROM places WHERE part = 0 AND off = 3";
    let take = "DELETE FROM places WHERE part = 0 AND off = 3";
    let back = "INSERT INTO places SELECT * FROM aside";
    let damages = [
        Damage::new("a row is missing", format!("{aside}; {take}"), back, "missing", &[&record, "part=0", "off=3"]),
        Damage::new("a row is there twice", back, format!("{take}; {back}"), "doubled", &["rows=1", "part=0", "off=3"]),
        Damage::new(
            "a row has another value",
            "UPDATE places SET id = 999 WHERE part = 0 AND off = 3",
            "UPDATE places SET id = 6 WHERE part = 0 AND off = 3",
            "altered",
            &[&record, "table=places", "part=0", "off=3"],
        ),
        Damage::new(
            "a running sum is off by one",
            "UPDATE sums SET total = total + 1 WHERE part = 1",
            "UPDATE sums SET total = total - 1 WHERE part = 1",
            "altered",
            &["table=sums", "part=1"],
        ),
        Damage::new(
            "a row that no record makes",
            "INSERT INTO sums (part, total) VALUES (7, 1)",
            "DELETE FROM sums WHERE part = 7",
            "unexpected",
            &["table=sums", "part=7"],
        ),
        Damage::new(
            "the ledger says that other records were read",
            format!("UPDATE {ranges} SET checksum = checksum + 1 WHERE partition = 0 AND from_offset = 0"),
            format!("UPDATE {ranges} SET checksum = checksum - 1 WHERE partition = 0 AND from_offset = 0"),
            "records",
            &["checksum="],
        ),
        Damage::new(
            "the stored offset was moved",
            format!("UPDATE {offsets} SET until_offset = until_offset - 1 WHERE partition = 1"),
            format!("UPDATE {offsets} SET until_offset = until_offset + 1 WHERE partition = 1"),
            "ledger",
            &["partition=1", "stored=99", "ledger=100"],
        ),
    ];
    for damage in damages {
        damage.must_be_found(&world).await;
    }
    assert_eq!(findings(&world, &[]), []);
    // Without a column that names the record, an altered row is one that is missing and one that is unexpected.
    world.execute("UPDATE records SET id = 777 WHERE id = 4").await;
    let kinds: Vec<String> = findings(&world, &[]).into_iter().map(|found| found.0).collect();
    assert_eq!(kinds, ["missing", "unexpected"]);
    // From a later batch on only what is missing can be told, and this one belongs to an earlier batch.
    let last = world.json(&["batches", "job.toml", "--last", "1"])[0]["batch"].as_u64().unwrap();
    assert_eq!(findings(&world, &["--since", &last.to_string()]), []);
    world.execute("UPDATE records SET id = 4 WHERE id = 777").await;
    world.execute(&format!("DELETE FROM {ranges} WHERE partition = 0 AND from_offset = 0")).await;
    let found = findings(&world, &[]);
    assert!(found.iter().any(|(kind, what)| kind == "ledger" && what.contains("not the sums")), "{found:?}");
    assert!(found.iter().any(|(kind, _)| kind == "unexpected"), "rows without a range: {found:?}");
}

#[tokio::test]
async fn verify_names_each_damaged_dead_letter_with_postgres() {
    verify_names_each_damaged_dead_letter(World::postgres(2).await).await;
}

#[tokio::test]
async fn verify_names_each_damaged_dead_letter_with_sqlite() {
    verify_names_each_damaged_dead_letter(World::sqlite(2).await).await;
}

/// Each piece of damage is told once for each letter that it befell, with the record's place, and nothing else is told.
async fn verify_names_each_damaged_dead_letter(world: World) {
    // One record that only the database refuses: partition 0, offset 7.
    world.execute("CREATE TABLE records (id bigint CHECK (id <> 14))").await;
    filled(&world).await;
    assert_eq!(world.number("SELECT count(*) FROM places".to_owned()).await, Some(179));
    let letters = world.own("dead_letters");
    let shown = world.json(&["verify", "job.toml"]);
    assert_eq!((&shown["letters"], &shown["letters_gone"]), (&Value::from(21), &Value::from(0)));
    let columns = "application, batch_seq, topic, partition, \"offset\", stage, reason, output, key, value, headers, timestamp, \
         refused_at, timestamp_ms";
    let of = |offset: i64| format!("partition = 0 AND \"offset\" = {offset}");
    world.execute(&format!("CREATE TABLE aside AS SELECT * FROM {letters} WHERE {}", of(9))).await;
    let (other_byte, key) = match world.database {
        Some(_) => ("set_byte(value, 3, 65)", "'k'"),
        None => ("CAST(substr(value, 1, 3) || 'A' || substr(value, 5) AS BLOB)", "CAST('k' AS BLOB)"),
    };
    let insert = |batch: &str, offset: i64| {
        let copied = columns.replace("batch_seq", batch).replace("\"offset\"", &offset.to_string());
        format!("INSERT INTO {letters} ({columns}) SELECT {copied} FROM aside")
    };
    let set = |what: String, offset: i64| format!("UPDATE {letters} SET {what} WHERE {}", of(offset));
    let take = |offset: i64| format!("DELETE FROM {letters} WHERE {}", of(offset));
    let found = |kind: &'static str, offset: i64, words: &'static str| {
        (kind, format!("topic={} partition=0 offset={offset}{words}", world.topic))
    };
    let whole = "UPDATE {letters} SET (key, value, headers, timestamp_ms) = \
         (SELECT key, value, headers, timestamp_ms FROM aside) WHERE {of}";
    let whole = whole.replace("{letters}", &letters).replace("{of}", &of(9));
    let back = insert("batch_seq", 9);
    let damages = [
        (set(format!("value = {other_byte}"), 9), whole.clone(), vec![found("altered", 9, " differs=value")]),
        (set(format!("key = {key}"), 9), whole.clone(), vec![found("altered", 9, " differs=key")]),
        (
            set("headers = '[[\"h\", null]]', timestamp_ms = timestamp_ms + 1".to_owned(), 9),
            whole,
            vec![found("altered", 9, " differs=headers,timestamp")],
        ),
        // As many as the ledger says, and yet not the same.
        (
            format!("{}; {}", take(9), insert("batch_seq", 10)),
            format!("{}; {back}", take(10)),
            vec![found("missing", 9, ""), found("unexpected", 10, "")],
        ),
        (take(9), back.clone(), vec![found("missing", 9, "")]),
        (back.clone(), format!("{}; {back}", take(9)), vec![found("unexpected", 9, "")]),
        (insert("batch_seq", 1_000_000), take(1_000_000), vec![found("unexpected", 1_000_000, "")]),
        (insert("999", 9), format!("DELETE FROM {letters} WHERE batch_seq = 999"), vec![found("unexpected", 9, "")]),
        // Of the database's refusal the records tell nothing: the letter alone keeps the row out.
        (set(format!("value = {other_byte}"), 7), String::new(), vec![found("altered", 7, " differs=value")]),
    ];
    for (plant, repair, expected) in damages {
        world.execute(&plant).await;
        let mut told = findings(&world, &[]);
        told.sort();
        assert_eq!(told.len(), expected.len(), "{plant}: {told:?}");
        for ((kind, what), (expected, words)) in told.iter().zip(&expected) {
            assert!(kind == expected && what.ends_with(words) && what.contains("dead letter"), "{plant}: {told:?}");
            assert!(!what.contains("no number"), "no payload: {what}");
        }
        world.execute(&repair).await;
    }
}

#[tokio::test]
async fn dead_letters_of_a_topic_that_was_made_again_say_nothing_of_the_new_records() {
    let world = World::sqlite(1).await;
    let bad = crate::support::record("no JSON").partition(0);
    world.produce(0, 0..3).await;
    world.kafka.produce(&world.topic, vec![bad]).await;
    let skip = ["--until-latest", "--set", "kafka.on_data_loss=skip"];
    let run = [&["run", "job.toml"], &skip[..]].concat();
    assert_eq!(world.run(&run).code, 0);
    world.kafka.delete_topic(&world.topic).await;
    world.kafka.create_topic(&world.topic, 1, &[]).await;
    // A good record lies where the refused one lay.
    world.produce(0, 0..8).await;
    let ran = world.run(&run);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(world.number("SELECT count(*) FROM records".to_owned()).await, Some(11));
    let shown = world.json(&["verify", "job.toml"]);
    assert_eq!((&shown["found"], &shown["letters_gone"]), (&Value::from(0), &Value::from(1)), "{shown}");
}

#[tokio::test]
async fn what_kafka_has_deleted_is_told_and_not_taken_for_damage() {
    let world = World::sqlite(2).await;
    filled(&world).await;
    world.kafka.delete_records(&world.topic, &[(0, 50)]).await;
    let shown = world.json(&["verify", "job.toml"]);
    assert_eq!((&shown["complete"], &shown["found"]), (&Value::from(false), &Value::from(0)));
    assert!(shown["ranges_gone"].as_u64().unwrap() > 0, "{shown}");
    let (letters, gone) = (shown["letters"].as_u64().unwrap(), shown["letters_gone"].as_u64().unwrap());
    assert!(letters > 0 && gone > 0 && letters + gone == 20, "{shown}");
    // What is left is still compared.
    world.execute("DELETE FROM places WHERE part = 1 AND off = 3").await;
    let found = findings(&world, &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains("part=1 off=3"), "{found:?}");
}

#[tokio::test]
async fn a_job_that_never_ran_has_nothing_to_verify() {
    let world = World::sqlite(1).await;
    let ran = world.run(&["verify", "job.toml"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""), "{}", ran.stderr);
}
