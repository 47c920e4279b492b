//! Several processes with one application id: one owner, whatever they do.

use std::time::{Duration, Instant};

use super::world::{LIMIT, World};
use crate::support::{Process, wait_for, wait_until, wait_until_stopped};

const PAIRS: usize = 20;
const RECORDS: u32 = 50;
/// How long a process that stands still may keep the application from another one.
const TAKEN_OVER_MAX: Duration = Duration::from_secs(15);

#[tokio::test]
async fn of_two_processes_started_together_one_owns_the_job_with_postgres() {
    pairs(World::postgres(1).await).await;
}

#[tokio::test]
async fn of_two_processes_started_together_one_owns_the_job_with_sqlite() {
    pairs(World::sqlite(1).await).await;
}

/// Each pair is an application of its own, and all pairs write into one table of one store: the more they disturb each other,
/// the better.
async fn pairs(world: World) {
    world.produce(0, 0..RECORDS).await;
    // Makes the tables, so that no pair's first statement is the one that does.
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    for names in (0..PAIRS).collect::<Vec<_>>().chunks(10) {
        let started: Vec<[Process; 2]> =
            names.iter().map(|pair| [(); 2].map(|()| world.start(&["--set", &format!("name=pair-{pair}")]))).collect();
        for [one, other] in started {
            one_stays(one, other).await;
        }
    }
    let rows = i64::from(RECORDS) * (1 + i64::try_from(PAIRS).unwrap());
    assert_eq!(
        world.number("SELECT count(*) FROM records".to_owned()).await,
        Some(rows),
        "each pair wrote each record once"
    );
    let takeovers = format!("SELECT count(*) FROM {} WHERE application LIKE 'pair-%'", world.own("takeovers"));
    assert_eq!(
        world.number(takeovers).await,
        Some(i64::try_from(PAIRS).unwrap()),
        "nobody took an application from another"
    );
}

async fn one_stays(mut one: Process, mut other: Process) {
    // The loser waits 10 s for the owner to leave.
    let first = wait_for("one of the two ends", LIMIT, async || match (one.has_ended(), other.has_ended()) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    })
    .await;
    let (loser, winner) = if first { (one, other) } else { (other, one) };
    let winners_id = winner.id();
    let (code, told) = loser.ended().await;
    assert_eq!(code, 5, "{told}");
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("directstream: error: ")).collect();
    assert_eq!(errors.len(), 1, "{told}");
    assert!(errors[0].contains(&format!("process_id={winners_id}")), "{told}");
    winner.signal("TERM");
    let (code, told) = winner.ended().await;
    assert_eq!(code, 143, "{told}");
}

#[tokio::test]
async fn an_idle_process_that_stands_still_is_taken_over_and_ends_with_5() {
    let world = World::postgres(1).await;
    world.produce(0, 0..10).await;
    let zombie = world.start(&[]);
    world.committed(10).await;
    zombie.signal("STOP");
    wait_until_stopped(zombie.id(), LIMIT).await;
    world.produce(0, 10..20).await;
    let started = Instant::now();
    let successor = world.start(&[]);
    world.committed(20).await;
    let took = started.elapsed();
    assert!(took < TAKEN_OVER_MAX, "{took:?}");
    zombie.signal("CONT");
    let (code, told) = zombie.ended().await;
    assert_eq!(code, 5, "{told}");
    world.produce(0, 20..30).await;
    world.committed(30).await;
    successor.signal("TERM");
    assert_eq!(successor.ended().await.0, 143);
    assert_eq!(world.sums().await, [30; 3]);
}

#[tokio::test]
async fn a_standby_waits_and_follows_with_postgres() {
    standby(World::postgres(1).await).await;
}

#[tokio::test]
async fn a_standby_waits_and_follows_with_sqlite() {
    standby(World::sqlite(1).await).await;
}

async fn standby(world: World) {
    world.produce(0, 0..10).await;
    let owner = world.start(&[]);
    world.committed(10).await;
    let mut standby = world.start(&["--standby"]);
    // Longer than one that does not stand by would wait.
    let rival = world.run(&["run", "job.toml"]);
    assert_eq!(rival.code, 5, "{}", rival.stderr);
    assert!(!standby.has_ended());
    owner.signal("KILL");
    drop(owner);
    world.produce(0, 10..20).await;
    world.committed(20).await;
    standby.signal("TERM");
    assert_eq!(standby.ended().await.0, 143);
    wait_until("nobody owns it", LIMIT, async || {
        let owned = format!("SELECT count(*) FROM {} WHERE owner IS NOT NULL", world.own("applications"));
        world.number(owned).await == Some(0)
    })
    .await;
    assert_eq!(world.sums().await, [20; 3]);
}
