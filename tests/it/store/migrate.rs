//! The store's own tables: made at start, taken away again, refused when they are newer; and looked at from outside.

use directstream::{
    ErrorKind,
    commit::{Inspector, Migrate, StoreSettings, migrate_down, migrate_up, migration_status},
};

use crate::support::wait_until;

use super::{
    on_every_database,
    world::{APPLICATION, World, at, batch, committed, line_batch, line_rows, lines, moved, position},
};

on_every_database! {
    up_down_and_up_again,
    a_newer_schema_is_refused_with_both_versions,
    an_older_schema_is_refused_when_migrating_is_off,
    processes_that_start_together_migrate_once,
    tables_stay_while_a_live_process_owns_an_application,
    the_inspector_reads_while_the_job_runs,
    the_ledger_forgets_old_batches_and_keeps_enough,
    dead_letters_and_lost_ranges_are_kept_whole,
    dead_letters_of_windows_stay_and_keep_their_numbers_when_the_schema_goes_back,
}

async fn up_down_and_up_again(world: World) {
    let url = world.url().parse().unwrap();
    assert!(migration_status(&url).await.is_err() || migration_status(&url).await.unwrap().iter().all(|m| !m.applied));
    let (committer, _) = world.start(vec![lines()]).await;
    committer.initialize_positions(vec![position(0, 1)]).await.unwrap();
    committer.stop().await;
    assert!(migration_status(&url).await.unwrap().iter().all(|migration| migration.applied));
    assert!(migrate_up(&url).await.unwrap().is_empty());
    assert_eq!(migrate_down(&url, 1).await.unwrap(), [8, 7, 6, 5, 4, 3, 2]);
    assert_eq!(migrate_down(&url, 0).await.unwrap(), [1]);
    assert_eq!(migrate_up(&url).await.unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(world.count(&world.own("applications")).await, 0);
}

async fn a_newer_schema_is_refused_with_both_versions(world: World) {
    let (committer, _) = world.start(vec![lines()]).await;
    committer.stop().await;
    let sql = format!("INSERT INTO {} (version, name, checksum) VALUES (99, 'later', '')", world.own("migrations"));
    world.execute(&sql).await;
    let error = world.try_start(world.settings()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("schema=99 program=8"), "{error}");
    let url = world.url().parse().unwrap();
    assert_eq!(migrate_down(&url, 0).await.unwrap_err().kind(), ErrorKind::Config);
}

async fn an_older_schema_is_refused_when_migrating_is_off(world: World) {
    let settings = || StoreSettings { migrate: Migrate::Off, ..world.settings() };
    let error = world.try_start(settings()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("migrate up"), "{error}");
    migrate_up(&world.url().parse().unwrap()).await.unwrap();
    world.try_start(settings()).await.unwrap().0.stop().await;
}

async fn processes_that_start_together_migrate_once(world: World) {
    let start = |number: u32| {
        let settings = StoreSettings { application: format!("job{number}"), ..world.settings() };
        world.try_start(settings)
    };
    let started = tokio::join!(start(1), start(2), start(3));
    assert!(started.0.is_ok() && started.1.is_ok() && started.2.is_ok(), "{started:?}");
    assert_eq!(world.count(&world.own("migrations")).await, 8);
}

async fn tables_stay_while_a_live_process_owns_an_application(world: World) {
    let url = world.url().parse().unwrap();
    let (committer, _) = world.start(vec![lines()]).await;
    for target in [0, 1] {
        let error = migrate_down(&url, target).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
        let process = format!("application={APPLICATION} host=");
        assert!(error.to_string().contains(&process), "{error}");
        assert!(error.to_string().ends_with(&format!("process_id={}", std::process::id())), "{error}");
    }
    // Nothing to take away is no harm.
    assert!(migrate_down(&url, 99).await.unwrap().is_empty());
    assert!(migration_status(&url).await.unwrap().iter().all(|migration| migration.applied));
    // Gone without a word, as after a crash: it is recorded as the owner, and it is dead.
    drop(committer);
    let removed = async || migrate_down(&url, 0).await.is_ok();
    wait_until("the dead owner is seen as dead", std::time::Duration::from_secs(20), removed).await;
}

async fn the_inspector_reads_while_the_job_runs(world: World) {
    let (committer, recovered) = world.start(vec![lines()]).await;
    committer.initialize_positions(vec![position(0, 0), position(10, 0), position(9, 0)]).await.unwrap();
    for seq in 1..=3_u32 {
        let from = i64::from(seq - 1) * 10;
        committed(committer.commit(line_batch(&recovered.tables[0], seq.into(), from, from + 10)).await.unwrap());
    }
    let mut inspector = Inspector::open(&world.url().parse().unwrap(), APPLICATION).await.unwrap();
    let application = inspector.application().await.unwrap().unwrap();
    assert_eq!((application.epoch, application.batch_seq), (1, 3));
    assert_eq!(application.last_batch_time.unwrap().as_ms(), 1_700_000_000_003);
    assert_eq!(application.process_id, Some(std::process::id().into()));
    assert!(application.owner.is_some() && application.seen_at_ms.unwrap() > 1_700_000_000_000);
    let offsets: Vec<_> = inspector.offsets().await.unwrap();
    assert_eq!(offsets, [position(0, 30), position(9, 0), position(10, 0)]);
    let batches = inspector.batches(2).await.unwrap();
    assert_eq!(batches.iter().map(|batch| batch.batch_seq).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(batches[0].ranges[0].range, moved(0, 10, 20).range);
    assert_eq!(batches[0].ranges[0].counts, moved(0, 10, 20).counts);
    assert_eq!((batches[1].records, batches[1].rows, batches[1].epoch), (10, 10, 1));
    assert!(batches[1].committed_at_ms >= 1_700_000_000_003);
    committer.stop().await;
    assert_eq!(inspector.application().await.unwrap().unwrap().owner, None);
}

async fn the_ledger_forgets_old_batches_and_keeps_enough(world: World) {
    let settings = StoreSettings {
        tables: vec![lines()],
        ledger_retention: std::time::Duration::ZERO,
        ledger_batches_min: 5,
        ..world.settings()
    };
    let (committer, recovered) = world.try_start(settings).await.unwrap();
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    // Forgotten are batches of another moment: a clock that is set back meanwhile puts it off.
    let (mut last, mut oldest) = (0_i64, 1);
    while last < 20 || oldest != last - 4 {
        assert!(last < 200, "after batch {last} the oldest is {oldest}");
        for _ in 0..10 {
            last += 1;
            let seq = last.unsigned_abs();
            committed(committer.commit(line_batch(&recovered.tables[0], seq, last - 1, last)).await.unwrap());
        }
        oldest = world.number(&format!("SELECT min(batch_seq) FROM {}", world.own("batches"))).await;
        assert!(oldest <= last - 4, "too few are kept: after batch {last} the oldest is {oldest}");
    }
    assert_eq!(world.count(&world.own("batch_ranges")).await, 5);
    committer.stop().await;
}

async fn dead_letters_and_lost_ranges_are_kept_whole(world: World) {
    use directstream::types::{DeadLetter, DeadLetterStage, LostRange, LostRangeReason};
    let (committer, recovered) = world.start(vec![lines()]).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let letter = |offset: i64, timestamp_ms| DeadLetter {
        topic_partition: moved(0, 0, 1).range.topic_partition,
        offset: at(offset),
        stage: DeadLetterStage::Convert,
        reason: "not \0 a number".into(),
        output: Some("lines".into()),
        key: None,
        value: Some(vec![0, 159, 146, 150]),
        headers: "[[\"trace\",\"AAE=\"]]".into(),
        timestamp_ms,
    };
    let mut first = batch(1, vec![moved(0, 50, 60)], vec![line_rows(&recovered.tables[0], 0, 8)]);
    first.ranges[0].expected = Some(at(0));
    first.dead_letters = vec![letter(52, Some(1_700_000_000_123)), letter(53, Some(i64::MIN))];
    first.lost_ranges.push(LostRange {
        topic_partition: moved(0, 0, 1).range.topic_partition,
        from_offset: at(0),
        until_offset: Some(at(50)),
        reason: LostRangeReason::Retention,
        topic_id: None,
    });
    committed(committer.commit(first).await.unwrap());
    let letters = world.own("dead_letters");
    let whole = format!(
        "{letters} WHERE \"offset\" = 52 AND stage = 'convert' AND output = 'lines' AND key IS NULL \
         AND length(value) = 4 AND timestamp IS NOT NULL AND batch_seq = 1"
    );
    assert_eq!(world.count(&whole).await, 1);
    let no_time = format!("{letters} WHERE \"offset\" = 53 AND timestamp IS NULL AND timestamp_ms = {}", i64::MIN);
    assert_eq!(world.count(&no_time).await, 1);
    let lost =
        format!("{} WHERE from_offset = 0 AND until_offset = 50 AND reason = 'retention'", world.own("lost_ranges"));
    assert_eq!(world.count(&lost).await, 1);
    assert_eq!(world.number(&format!("SELECT dead_letters + lost_ranges FROM {}", world.own("batches"))).await, 3);
    committer.stop().await;
}

async fn dead_letters_of_windows_stay_and_keep_their_numbers_when_the_schema_goes_back(world: World) {
    use directstream::types::{DeadLetter, DeadLetterStage};
    let letter = |offset: i64| DeadLetter {
        topic_partition: moved(0, 0, 1).range.topic_partition,
        offset: at(offset),
        stage: DeadLetterStage::Window,
        reason: "too late".into(),
        output: Some("minutes".into()),
        key: Some(vec![0, 1]),
        value: None,
        headers: "[]".into(),
        timestamp_ms: Some(7),
    };
    let url = world.url().parse().unwrap();
    let letters = world.own("dead_letters");
    let refuse = async |seq: u32, offsets: &[i64]| {
        let (committer, recovered) = world.start(vec![lines()]).await;
        if seq == 1 {
            committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
        }
        let from = i64::from(seq - 1) * 10;
        let mut batch = line_batch(&recovered.tables[0], seq.into(), from, from + 10);
        batch.dead_letters = offsets.iter().map(|offset| letter(*offset)).collect();
        committed(committer.commit(batch).await.unwrap());
        committer.stop().await;
    };
    refuse(1, &[3, 4]).await;
    assert_eq!(world.count(&format!("{letters} WHERE stage = 'window'")).await, 2);
    // The last number was given, and is not given again.
    world.execute(&format!("DELETE FROM {letters} WHERE \"offset\" = 4")).await;
    assert_eq!(migrate_down(&url, 6).await.unwrap(), [8, 7]);
    assert_eq!(world.count(&format!("{letters} WHERE stage = 'convert' AND id = 1 AND timestamp_ms = 7")).await, 1);
    assert_eq!(migrate_up(&url).await.unwrap(), [7, 8]);
    refuse(2, &[15]).await;
    assert_eq!(world.number(&format!("SELECT id FROM {letters} WHERE \"offset\" = 15 AND stage = 'window'")).await, 3);
    assert_eq!(world.count(&letters).await, 2);
}
