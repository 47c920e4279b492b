//! Batches: whole or not at all.

use directstream::{ErrorKind, commit::CommitOutcome};

use super::{
    on_every_database, on_every_store,
    world::{World, batch, committed, line_batch, line_rows, lines, moved, position, refused},
};

on_every_store! {
    a_restart_goes_on_where_the_last_commit_ended,
    a_batch_number_out_of_order_is_refused,
    first_positions_may_be_written_twice,
}

mod with_tables {
    use super::*;

    on_every_database! {
        rows_offsets_and_ledger_commit_together,
        offsets_that_moved_are_a_conflict_and_nothing_is_written,
        a_refused_row_rolls_the_whole_batch_back,
    }
}

async fn rows_offsets_and_ledger_commit_together(world: World) {
    let (committer, recovered) = world.start(vec![lines()]).await;
    assert_eq!((recovered.epoch, recovered.batch_seq, recovered.positions.len()), (1, 0, 0));
    committer.initialize_positions(vec![position(0, 5), position(1, 0)]).await.unwrap();
    let shape = &recovered.tables[0];
    let chunks = vec![line_rows(shape, 0, 250), line_rows(shape, 250, 333)];
    let first = batch(1, vec![moved(0, 5, 300), moved(1, 0, 0)], chunks);
    let done = committed(committer.commit(first).await.unwrap());
    assert_eq!((done.batch_seq, done.resolved), (1, false));
    assert_eq!(world.count("lines").await, 333);
    assert_eq!(world.number("SELECT count(DISTINCT id) FROM lines").await, 333);
    let offsets = format!("SELECT until_offset FROM {} ORDER BY partition LIMIT 1", world.own("offsets"));
    assert_eq!(world.number(&offsets).await, 300);
    assert_eq!(world.number(&format!("SELECT records FROM {}", world.own("batches"))).await, 295);
    assert_eq!(world.number(&format!("SELECT rows FROM {}", world.own("batches"))).await, 333);
    // The empty range is not in the ledger.
    assert_eq!(world.count(&world.own("batch_ranges")).await, 1);
    committer.stop().await;
}

async fn a_restart_goes_on_where_the_last_commit_ended(world: World) {
    let (committer, recovered) = world.start(world.lines()).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    for seq in 1..=3_u32 {
        let from = i64::from(seq - 1) * 10;
        let next = world.line_batch(&recovered, seq.into(), from, from + 10);
        committed(committer.commit(next).await.unwrap());
    }
    committer.stop().await;
    let (committer, recovered) = world.start(world.lines()).await;
    assert_eq!((recovered.epoch, recovered.batch_seq), (2, 3));
    assert_eq!(recovered.positions, [position(0, 30)]);
    assert_eq!(recovered.last_batch_time.unwrap().as_ms(), 1_700_000_000_003);
    committer.stop().await;
}

async fn offsets_that_moved_are_a_conflict_and_nothing_is_written(world: World) {
    let (committer, recovered) = world.start(vec![lines()]).await;
    committer.initialize_positions(vec![position(0, 0), position(1, 0)]).await.unwrap();
    let shape = &recovered.tables[0];
    world.execute(&format!("UPDATE {} SET until_offset = 7 WHERE partition = 1", world.own("offsets"))).await;
    let stale = batch(1, vec![moved(0, 0, 10), moved(1, 0, 10)], vec![line_rows(shape, 0, 20)]);
    let CommitOutcome::Conflict { positions, batch: back } = committer.commit(stale).await.unwrap() else {
        panic!("no conflict")
    };
    assert_eq!(positions, [position(0, 0), position(1, 7)]);
    assert_eq!(back.ranges.len(), 2);
    assert_eq!(world.count("lines").await, 0);
    // A new partition whose row is there already is a conflict as well, not a refused record.
    let mut inserted = moved(1, 0, 10);
    inserted.expected = None;
    let again = committer.commit(batch(1, vec![inserted], Vec::new())).await.unwrap();
    assert!(matches!(again, CommitOutcome::Conflict { .. }), "{again:?}");
    // Planned again from what is stored, it goes through.
    let right = batch(1, vec![moved(0, 0, 10), moved(1, 7, 10)], vec![line_rows(shape, 0, 13)]);
    committed(committer.commit(right).await.unwrap());
    assert_eq!(world.count("lines").await, 13);
    committer.stop().await;
}

async fn a_refused_row_rolls_the_whole_batch_back(world: World) {
    world.execute("CREATE TABLE lines (id bigint NOT NULL UNIQUE, name text)").await;
    let (committer, recovered) = world.start(vec![lines()]).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let shape = &recovered.tables[0];
    assert!(shape.columns[0].not_null && !shape.columns[1].not_null);
    let twice = batch(1, vec![moved(0, 0, 20)], vec![line_rows(shape, 0, 10), line_rows(shape, 9, 19)]);
    let error = refused(committer.commit(twice).await.unwrap());
    assert_eq!(error.kind(), ErrorKind::Transform);
    assert!(error.to_string().contains("table=") && error.to_string().contains("lines"), "{error}");
    assert_eq!(world.count("lines").await, 0);
    committed(committer.commit(line_batch(shape, 1, 0, 10)).await.unwrap());
    assert_eq!(world.count("lines").await, 10);
    committer.stop().await;
}

async fn a_batch_number_out_of_order_is_refused(world: World) {
    let (committer, recovered) = world.start(world.lines()).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let error = committer.commit(world.line_batch(&recovered, 2, 0, 10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    committer.stop().await;
}

async fn first_positions_may_be_written_twice(world: World) {
    let (committer, _) = world.start(world.lines()).await;
    committer.initialize_positions(vec![position(0, 3)]).await.unwrap();
    committer.initialize_positions(vec![position(0, 3), position(1, 4)]).await.unwrap();
    let error = committer.initialize_positions(vec![position(0, 9)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(committer.positions().await.unwrap(), [position(0, 3), position(1, 4)]);
    committer.stop().await;
}
