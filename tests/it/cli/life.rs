//! A running job: how it starts, how it ends, and who owns it.

use super::world::{LIMIT, World};
use crate::support::wait_until;

#[tokio::test]
async fn a_run_until_latest_on_an_empty_topic_ends_at_once() {
    for world in [World::postgres(2).await, World::sqlite(2).await] {
        let document = world.json(&["run", "job.toml", "--until-latest"]);
        assert_eq!((&document["reason"], &document["records"]), (&"reached_latest".into(), &0.into()));
        assert_eq!(world.sums().await, [0, 0, 0]);
    }
}

#[tokio::test]
async fn a_table_of_another_shape_or_a_missing_one_ends_a_run_with_2() {
    let world = World::postgres(1).await;
    let database = world.database.as_ref().unwrap();
    let missing = world.run(&["run", "job.toml", "--set", "output.0.create=false"]);
    assert_eq!(missing.code, 2, "{}", missing.stderr);
    assert!(missing.stderr.contains("records"), "{}", missing.stderr);
    database.execute("CREATE TABLE records (id date)").await;
    let other = world.run(&["run", "job.toml"]);
    assert_eq!((other.code, &*other.stdout), (2, ""), "{}", other.stderr);
    let error = other.stderr.lines().find(|line| line.starts_with("directstream: error: ")).unwrap();
    assert!(error.contains("table=records") && error.contains("column=id"), "{error}");
}

#[tokio::test]
async fn sigterm_and_sigint_end_a_running_job_whole_with_postgres() {
    signals_end_it_whole(World::postgres(2).await).await;
}

#[tokio::test]
async fn sigterm_and_sigint_end_a_running_job_whole_with_sqlite() {
    signals_end_it_whole(World::sqlite(2).await).await;
}

async fn signals_end_it_whole(world: World) {
    world.produce(0, 0..20_000).await;
    world.produce(1, 0..20_000).await;
    // A rate, so that it is in the middle of the topic when the signal comes.
    let slowly = ["--set", "stream.max_rate_per_partition=2000"];
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let before = world.number(format!("SELECT max(batch_seq) FROM {}", world.own("batches"))).await.unwrap_or(0);
        let running = world.start(&slowly);
        let sql = format!("SELECT max(batch_seq) FROM {}", world.own("batches"));
        let goes_on = async || world.number(sql.clone()).await.is_some_and(|seq| seq >= before + 3);
        wait_until("batches are committed", LIMIT, goes_on).await;
        running.signal(signal);
        let (ended, told) = running.ended().await;
        assert_eq!(ended, code, "{told}");
        assert!(!told.contains("ERROR") && !told.contains("error:"), "{told}");
        let [rows, records, offsets] = world.sums().await;
        assert!(rows == records && rows == offsets && rows > 0 && rows < 40_000, "{rows} {records} {offsets}");
        let owned = format!("SELECT count(*) FROM {} WHERE owner IS NOT NULL", world.own("applications"));
        assert_eq!(world.number(owned).await, Some(0), "the application was not given up");
    }
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    assert_eq!(world.sums().await, [40_000; 3]);
}

#[tokio::test]
async fn a_rival_is_told_who_owns_the_job_and_a_dead_owner_is_followed_at_once_with_postgres() {
    rivals(World::postgres(1).await).await;
}

#[tokio::test]
async fn a_rival_is_told_who_owns_the_job_and_a_dead_owner_is_followed_at_once_with_sqlite() {
    rivals(World::sqlite(1).await).await;
}

async fn rivals(world: World) {
    world.produce(0, 0..10).await;
    let owner = world.start(&[]);
    world.committed(10).await;
    let rival = world.run(&["run", "job.toml"]);
    assert_eq!((rival.code, &*rival.stdout), (5, ""), "{}", rival.stderr);
    let error = rival.stderr.lines().find(|line| line.starts_with("directstream: error: ")).unwrap();
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    assert!(error.contains(&format!("host={host}")), "{error}");
    assert!(error.contains(&format!("process_id={}", owner.id())), "{error}");

    owner.signal("KILL");
    drop(owner);
    world.produce(0, 10..20).await;
    // Without waiting: a rival that waited would end with 5.
    let successor = world.run(&["run", "job.toml", "--until-latest"]);
    assert_eq!(successor.code, 0, "{}", successor.stderr);
    assert_eq!(world.sums().await, [20; 3]);
}

#[tokio::test]
async fn an_owner_that_was_taken_over_ends_with_5() {
    for world in [World::postgres(1).await, World::sqlite(1).await] {
        world.produce(0, 0..10).await;
        let owner = world.start(&[]);
        world.committed(10).await;
        world.produce(0, 10..20).await;
        let taken = world.run(&["run", "job.toml", "--until-latest", "--take-over"]);
        assert_eq!(taken.code, 0, "{}", taken.stderr);
        world.produce(0, 20..30).await;
        let (ended, told) = owner.ended().await;
        assert_eq!(ended, 5, "{told}");
        assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
        assert_eq!(world.sums().await, [30; 3]);
    }
}
