//! Bad input is normal: a corpus of records, each of which becomes a row or a dead letter with its very bytes, in both stores.

use std::fs;

use serde_json::{Value, json};

use super::world::World;
use crate::support::{
    kafka::{Record, tombstone},
    record,
};

const OUTPUT: &str = r#"
[[output]]
table = "typed"
create = true
columns.off = { from = "offset", type = "bigint" }
columns.int = { from = "value:/int", type = "integer" }
columns.big = { from = "value:/big", type = "bigint" }
columns.text = { from = "value:/text", type = "text" }
columns.double = { from = "value:/double", type = "double precision" }
columns.seen = { from = "timestamp", type = "timestamptz" }
"#;

/// Records without JSON behind the corpus, as from a producer that went wrong for good.
const MANY: usize = 1000;

/// What a record becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Becomes {
    Row,
    Letter(&'static str),
}
use Becomes::{Letter, Row};

fn json(text: &str) -> Record {
    record(text)
}

/// A document with `depth` arrays in each other, where no column looks.
fn deep(depth: usize) -> String {
    format!(r#"{{"other":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
}

fn corpus() -> Vec<(&'static str, Record, Becomes)> {
    vec![
        ("a good one", json(r#"{"int":1,"big":2,"text":"t","double":0.5}"#), Row),
        ("nothing wanted is there", json("{}"), Row),
        ("a tombstone", tombstone("key"), Row),
        ("an empty value", record(""), Letter("decode")),
        ("no JSON", json("not json"), Letter("decode")),
        ("JSON and more", json("{} {}"), Letter("decode")),
        ("half a document", json(r#"{"int":1"#), Letter("decode")),
        ("a scalar document", json("17"), Row),
        ("no UTF-8", record(vec![b'{', b'"', 0xff, b'"', b':', b'1', b'}']), Letter("decode")),
        ("no UTF-8 in a wanted text", record(b"{\"text\":\"\xc3\x28\"}".to_vec()), Letter("decode")),
        ("a lone surrogate", json(r#"{"text":"\ud800"}"#), Letter("decode")),
        ("NUL in text", json(r#"{"text":"a\u0000b"}"#), Letter("convert")),
        ("text in every plane", json(r#"{"text":"\ud83d\ude00 ü \u200b \u001b[31m"}"#), Row),
        ("the largest 64-bit integer", json(r#"{"big":9223372036854775807}"#), Row),
        ("one above it", json(r#"{"big":9223372036854775808}"#), Letter("convert")),
        ("the largest 32-bit integer", json(r#"{"int":2147483647}"#), Row),
        ("one above that", json(r#"{"int":2147483648}"#), Letter("convert")),
        ("a fraction for an integer", json(r#"{"int":1.5}"#), Letter("convert")),
        ("a whole number with a point", json(r#"{"int":1.0}"#), Row),
        ("text for an integer", json(r#"{"int":"1"}"#), Letter("convert")),
        ("a truth value for an integer", json(r#"{"int":true}"#), Letter("convert")),
        ("beyond every double", json(r#"{"double":1e400}"#), Letter("decode")),
        ("below every double", json(r#"{"double":1e-400}"#), Row),
        ("a member twice", json(r#"{"int":1,"int":2}"#), Row),
        ("deep where nobody looks", record(deep(100)), Row),
        ("far too deep where nobody looks", record(deep(10_000)), Row),
        ("far too deep for a column", record(deep(10_000).replace("other", "int")), Letter("convert")),
        ("a long text", record(format!(r#"{{"text":"{}"}}"#, "x".repeat(800_000))), Row),
        (
            "many members",
            record(format!("{{{}}}", (0..20_000).map(|n| format!(r#""m{n}":{n}"#)).collect::<Vec<_>>().join(","))),
            Row,
        ),
        (
            "many headers, also without a value",
            (0..500)
                .fold(json("{}"), |record, n| record.header(&format!("h{n}"), (n % 2 == 0).then_some(b"v".as_slice()))),
            Row,
        ),
        ("the beginning of time", json("{}").timestamp(0), Row),
        ("the year 9999", json("{}").timestamp(253_402_207_200_000), Row),
        ("the last second of the year 9999", json("{}").timestamp(253_402_300_799_000), Letter("convert")),
        ("far beyond any calendar", json("{}").timestamp(i64::MAX), Letter("convert")),
    ]
}

#[tokio::test]
async fn each_bad_record_becomes_a_row_or_a_dead_letter_with_postgres() {
    each_becomes_what_it_should(World::postgres(1).await).await;
}

#[tokio::test]
async fn each_bad_record_becomes_a_row_or_a_dead_letter_with_sqlite() {
    each_becomes_what_it_should(World::sqlite(1).await).await;
}

async fn each_becomes_what_it_should(world: World) {
    let job = world.folder.path().join("job.toml");
    fs::write(&job, fs::read_to_string(&job).unwrap() + OUTPUT).unwrap();
    let corpus = corpus();
    // Else the broker itself refuses times that are far ahead.
    world.kafka.alter_topic(&world.topic, &[("message.timestamp.after.max.ms", "9223372036854775807")]).await;
    world.kafka.produce(&world.topic, corpus.iter().map(|(_, record, _)| record.clone()).collect()).await;
    world.kafka.produce(&world.topic, vec![json("not json"); MANY]).await;
    let ran = world.run(&["run", "job.toml", "--until-latest"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for (offset, (name, ..)) in corpus.iter().enumerate() {
        let becomes = corpus[offset].2;
        let rows = world.number(format!("SELECT count(*) FROM typed WHERE off = {offset}")).await;
        let letters = world.own("dead_letters");
        let letter = world.number(format!("SELECT count(*) FROM {letters} WHERE \"offset\" = {offset}")).await;
        let stage =
            |stage: &str| format!("SELECT count(*) FROM {letters} WHERE \"offset\" = {offset} AND stage = '{stage}'");
        match becomes {
            Row => assert_eq!((rows, letter), (Some(1), Some(0)), "{name}, offset {offset}"),
            Letter(at) => {
                assert_eq!((rows, letter), (Some(0), Some(1)), "{name}, offset {offset}");
                assert_eq!(world.number(stage(at)).await, Some(1), "{name} is refused at another stage");
            }
        }
    }
    let letters = format!("SELECT \"offset\", value FROM {} ORDER BY \"offset\"", world.own("dead_letters"));
    let letters: Vec<(i64, Vec<u8>)> = world.rows(&letters).await;
    let sent = corpus.iter().map(|(_, record, becomes)| (record.value(), *becomes));
    let sent = (0..).zip(sent.chain([(Some(b"not json".as_slice()), Letter("decode")); MANY]));
    let refused = sent.filter(|(_, (_, becomes))| *becomes != Row);
    let refused: Vec<(i64, Vec<u8>)> = refused.map(|(offset, (value, _))| (offset, value.unwrap().to_vec())).collect();
    assert!(letters == refused, "the letters' bytes are not those that were sent");
    // With nothing mended nothing is taken at a second try either.
    let again = world.json(&["dead-letters", "replay", "job.toml", "--all", "--execute"]);
    assert_eq!((&again["replayed"], &again["refused_again"]), (&json!(0), &json!(refused.len())), "{again}");
    assert_eq!(world.json(&["verify", "job.toml"])["found"], 0);
    assert!(ran.stderr.lines().count() < MANY / 10, "a log line per record: {}", ran.stderr);
    assert!(!ran.stderr.contains("xxxx") && !ran.stderr.contains("not json"), "a payload in the log");
}

/// Under `fail` each refused record ends the job with 6, in one line that names it and shows nothing of it.
#[tokio::test]
async fn a_bad_record_ends_a_job_that_fails_on_errors() {
    let world = World::sqlite(1).await;
    let job = world.folder.path().join("job.toml");
    fs::write(&job, fs::read_to_string(&job).unwrap() + OUTPUT).unwrap();
    world.kafka.produce(&world.topic, vec![json("{}"), json(r#"{"int":"secret payload"}"#), json("{}")]).await;
    let ran = world.run(&["run", "job.toml", "--until-latest", "--set", "input.on_error=fail"]);
    assert_eq!(ran.code, 6, "{}", ran.stderr);
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("directstream: error: ")).collect();
    assert_eq!(errors.len(), 1, "{}", ran.stderr);
    let names = [format!("topic={}", world.topic), "partition=0".to_owned(), "offset=1".to_owned()];
    assert!(names.iter().all(|name| errors[0].contains(name)), "{}", errors[0]);
    assert!(!ran.stderr.contains("secret payload"), "{}", ran.stderr);
    assert_eq!(world.number("SELECT count(*) FROM typed".to_owned()).await, Some(0), "nothing of the batch is kept");
    let shown: Value = world.json(&["offsets", "show", "job.toml"]);
    assert_eq!(shown["partitions"][0]["current_offset"], 0);
}
