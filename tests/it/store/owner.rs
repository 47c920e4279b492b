//! One owner at a time, and an explained end for the others.

use std::time::{Duration, Instant};

use directstream::{
    ErrorKind,
    commit::{Ownership, StoreHealth, StoreSettings},
};

use super::{
    on_every_database, on_every_store,
    world::{World, committed, line_batch, lines, position},
};

on_every_store! {
    a_fenced_process_ends_at_its_next_commit_and_writes_nothing,
    an_idle_process_learns_within_seconds_that_it_was_fenced,
    an_owner_that_stopped_is_followed_at_once,
    an_owner_that_died_is_followed_at_once,
    a_live_owner_makes_a_starter_wait_ten_seconds_and_end,
    a_standby_follows_when_the_owner_leaves,
    another_fingerprint_or_cluster_is_refused,
}

mod with_tables {
    use super::*;

    on_every_database! {
        missing_offsets_are_state_lost,
    }
}

async fn a_fenced_process_ends_at_its_next_commit_and_writes_nothing(world: World) {
    let (old, recovered) = world.start(world.lines()).await;
    old.initialize_positions(vec![position(0, 0)]).await.unwrap();
    committed(old.commit(world.line_batch(&recovered, 1, 0, 10)).await.unwrap());
    let (new, taken) = world.take_over(world.lines()).await;
    assert_eq!((taken.epoch, taken.batch_seq), (2, 1));
    let error = old.commit(world.line_batch(&recovered, 2, 10, 20)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
    // Terminal: whatever is asked next gets the same answer.
    assert_eq!(old.check_owner().await.unwrap_err().kind(), ErrorKind::Fenced);
    committed(new.commit(world.line_batch(&taken, 2, 10, 20)).await.unwrap());
    assert_eq!(world.lines_written().await, (20, 20));
    new.stop().await;
}

async fn an_idle_process_learns_within_seconds_that_it_was_fenced(world: World) {
    let (old, _) = world.start(world.lines()).await;
    let mut health = old.health();
    let (new, _) = world.take_over(world.lines()).await;
    let ended = health.wait_for(|health| matches!(health, StoreHealth::Ended(ErrorKind::Fenced, _)));
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().unwrap();
    new.check_owner().await.unwrap();
    new.stop().await;
}

async fn an_owner_that_stopped_is_followed_at_once(world: World) {
    let (old, _) = world.start(world.lines()).await;
    old.stop().await;
    let start = Instant::now();
    let (new, recovered) = world.start(world.lines()).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(recovered.epoch, 2);
    assert_eq!(world.grounds().await, ["free", "free"]);
    new.stop().await;
}

async fn an_owner_that_died_is_followed_at_once(world: World) {
    let (old, _) = world.start(world.lines()).await;
    // All handles gone: the task ends as a killed process would, without giving anything back.
    drop(old);
    let start = Instant::now();
    let (new, recovered) = world.start(world.lines()).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(recovered.epoch, 2);
    assert_eq!(world.grounds().await, ["free", "gone"]);
    new.stop().await;
}

async fn a_live_owner_makes_a_starter_wait_ten_seconds_and_end(world: World) {
    let (owner, _) = world.start(world.lines()).await;
    let start = Instant::now();
    let error = world.try_start(world.settings()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(10) && waited < Duration::from_secs(14), "{waited:?}");
    let process_id = format!("process_id={}", std::process::id());
    assert!(error.to_string().contains("host=") && error.to_string().contains(&process_id), "{error}");
    owner.check_owner().await.unwrap();
    owner.stop().await;
}

async fn a_standby_follows_when_the_owner_leaves(world: World) {
    let (owner, _) = world.start(world.lines()).await;
    let settings = StoreSettings { ownership: Ownership::Standby, ..world.settings() };
    let standby = tokio::spawn({
        let (health, _) = tokio::sync::watch::channel(StoreHealth::Serving);
        directstream::commit::Committer::start(settings, directstream::clock::SystemClock::shared(), health)
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!standby.is_finished());
    owner.check_owner().await.unwrap();
    owner.stop().await;
    let standby = tokio::time::timeout(Duration::from_secs(10), standby).await.unwrap().unwrap();
    assert_eq!(standby.unwrap().1.epoch, 2);
}

async fn another_fingerprint_or_cluster_is_refused(world: World) {
    let settings = StoreSettings { cluster_id: Some("one".into()), fingerprint: "a".into(), ..world.settings() };
    let (owner, _) = world.try_start(settings.clone()).await.unwrap();
    owner.stop().await;
    let other = StoreSettings { fingerprint: "b".into(), ..settings.clone() };
    assert_eq!(world.try_start(other).await.unwrap_err().kind(), ErrorKind::Config);
    let other = StoreSettings { cluster_id: Some("two".into()), ..settings.clone() };
    assert_eq!(world.try_start(other).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let other = StoreSettings { interval: Duration::from_secs(9), interval_fixed: true, ..settings.clone() };
    assert_eq!(world.try_start(other).await.unwrap_err().kind(), ErrorKind::Config);
    // A cluster that does not tell its id is let in; nobody was fenced by those that were not.
    let unknown = StoreSettings { cluster_id: None, ..settings };
    assert_eq!(world.try_start(unknown).await.unwrap().1.epoch, 2);
}

async fn missing_offsets_are_state_lost(world: World) {
    let (owner, recovered) = world.start(vec![lines()]).await;
    owner.initialize_positions(vec![position(0, 0)]).await.unwrap();
    committed(owner.commit(line_batch(&recovered.tables[0], 1, 0, 10)).await.unwrap());
    owner.stop().await;
    world.execute(&format!("DELETE FROM {}", world.own("offsets"))).await;
    let error = world.try_start(world.settings()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
}
