//! The runbook of the exit codes: each one is caused, its line is told, and what `docs/operating.md` says to do about it leads on,
//! over one topic and into one store. At the end the table has each record once that was not given up on purpose.

use std::os::unix::process::ExitStatusExt as _;

use super::world::{LIMIT, World};
use crate::support::{Process, record, wait_until};

/// The job as it is after a remedy: it reads what there is, and `rows` are in the table.
async fn goes_on(world: &World, settings: &[&str], rows: i64) {
    let ran = world.run(&[&["run", "job.toml", "--until-latest"], settings].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(world.sums().await[0], rows, "{}", ran.stderr);
}

/// A run that ends with this code; its one line has these words.
fn ends(world: &World, settings: &[&str], code: i32, words: &str) {
    let ran = world.run(&[&["run", "job.toml", "--until-latest"], settings].concat());
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("directstream: error: ")).collect();
    assert_eq!((ran.code, &*ran.stdout, errors.len()), (code, "", 1), "{}", ran.stderr);
    assert!(errors[0].contains(words), "{}", ran.stderr);
}

#[tokio::test]
async fn each_exit_code_is_caused_and_its_remedy_leads_on_with_postgres() {
    runbook(World::postgres(1).await).await;
}

#[tokio::test]
async fn each_exit_code_is_caused_and_its_remedy_leads_on_with_sqlite() {
    runbook(World::sqlite(1).await).await;
}

async fn runbook(world: World) {
    world.produce(0, 0..10).await;
    goes_on(&world, &[], 10).await;
    passing(&world).await;
    signals(&world).await;
    to_be_mended(&world).await;
    assert_eq!(world.json(&["verify", "job.toml"])["found"], 0);
}

/// 1 and 3, after which the same start again goes on.
async fn passing(world: &World) {
    world.produce(0, 10..20).await;
    let (status, told) = world.under_fire(&["run", "job.toml", "--until-latest"], "plan::done=1*return(panic)->off");
    assert!(told.contains("failpoint plan::done: panic") && told.contains("directstream: error: panic: "), "{told}");
    assert_eq!((status.code(), world.sums().await[0]), (Some(1), 10), "{told}");
    goes_on(world, &[], 20).await;

    world.produce(0, 20..30).await;
    let nobody = ["--set", "kafka.bootstrap_servers=127.0.0.1:1", "--set", "stream.start_timeout=1s"];
    ends(world, &nobody, 3, "start again when the server answers");
    goes_on(world, &[], 30).await;
}

/// 5, 143, 130, and a death without a code.
async fn signals(world: &World) {
    let committed = async |count: i64| world.committed(count).await;
    let running = world.start(&[]);
    world.produce(0, 30..40).await;
    committed(40).await;
    let owner = world.start(&["--take-over"]);
    let (code, told) = running.ended().await;
    assert!(code == 5 && told.contains("another process owns the application"), "{code}: {told}");
    // The one that does the work is left alone: nothing else is to be done.
    world.produce(0, 40..50).await;
    committed(50).await;
    ends_by(owner, "TERM", 143).await;
    let owner = world.start(&[]);
    world.produce(0, 50..60).await;
    committed(60).await;
    ends_by(owner, "INT", 130).await;
    let owner = world.start(&[]);
    world.produce(0, 60..70).await;
    committed(70).await;
    assert!(owner.kill());
    world.produce(0, 70..80).await;
    goes_on(world, &[], 80).await;

    // A second signal ends it at once, in the midst of a batch.
    world.produce(0, 80..90).await;
    let mut busy = world.spawn_under_fire(&["run", "job.toml"], "transform::done=1*return(delay:20000)->off");
    wait_until("it is in the midst of a batch", LIMIT, async || busy.told().contains("failpoint transform::done"))
        .await;
    busy.signal("TERM");
    wait_until("it has heard that", LIMIT, async || busy.told().contains("asked to stop")).await;
    busy.signal("TERM");
    wait_until("it ends", LIMIT, async || busy.has_ended()).await;
    let status = busy.status().unwrap();
    assert_eq!((status.code(), status.signal(), world.sums().await[0]), (Some(143), None, 80), "{}", busy.told());
    goes_on(world, &[], 90).await;
}

async fn ends_by(process: Process, signal: &str, code: i32) {
    process.signal(signal);
    let (ended, told) = process.ended().await;
    assert_eq!(ended, code, "{told}");
}

/// 2, 6 and 4, where somebody has to do something first: the same start again ends the same.
async fn to_be_mended(world: &World) {
    world.produce(0, 90..100).await;
    for _ in 0..2 {
        ends(world, &["--set", "output.0.columns.id.from=valeu"], 2, "output.0.columns.id.from");
    }
    goes_on(world, &[], 100).await;

    world.kafka.produce(&world.topic, vec![record("no json").partition(0)]).await;
    for _ in 0..2 {
        ends(world, &["--set", "input.on_error=fail"], 6, "offset=100");
    }
    // It is kept as a dead letter.
    goes_on(world, &[], 100).await;

    world.produce(0, 100..120).await;
    world.kafka.delete_records(&world.topic, &[(0, 111)]).await;
    for _ in 0..2 {
        ends(world, &[], 4, "reason=RETENTION");
    }
    // Offsets 101 to 110 are given up.
    goes_on(world, &["--set", "kafka.on_data_loss=skip"], 110).await;
}
