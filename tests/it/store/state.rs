//! State of state operators in the stores: with its batch or not at all.

use directstream::{
    commit::CommitOutcome,
    types::{SegmentKind, StateSegment},
};

use super::{
    on_every_store,
    world::{World, committed, position},
};

on_every_store! {
    state_is_stored_with_its_batch_or_not_at_all,
}

fn segment(partition: u32, batch_seq: u64, kind: SegmentKind, bytes: usize) -> StateSegment {
    let fill = u8::try_from(batch_seq).unwrap();
    StateSegment { operator: 1, partition, batch_seq, kind, keys: batch_seq * 10, data: vec![fill; bytes] }
}

async fn state_is_stored_with_its_batch_or_not_at_all(world: World) {
    use SegmentKind::{Base, Delta};
    let (committer, recovered) = world.start(world.lines()).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let stored =
        async |partition: u32| world.inspector().await.state(1, partition..partition + 1).await.unwrap().remove(0);
    let with = |seq: u64, from: i64, state: Vec<StateSegment>| {
        let mut batch = world.line_batch(&recovered, seq, from, from + 10);
        batch.state = state;
        batch
    };
    let first = vec![segment(0, 1, Base, 20), segment(1, 1, Base, 0)];
    committed(committer.commit(with(1, 0, first.clone())).await.unwrap());
    let second = vec![segment(0, 2, Delta, 30), segment(1, 2, Delta, 40)];
    committed(committer.commit(with(2, 10, second.clone())).await.unwrap());
    assert_eq!(stored(0).await, [first[0].clone(), second[0].clone()]);
    assert_eq!(stored(1).await, [first[1].clone(), second[1].clone()]);
    // A batch that is not committed: its new base takes nothing away.
    let dropped = with(3, 15, vec![segment(0, 3, Base, 50), segment(1, 3, Delta, 60)]);
    let outcome = committer.commit(dropped).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Conflict { .. }), "{outcome:?}");
    assert_eq!(stored(0).await.len(), 2);
    // The same number again. A new base stands for all of its partition, and of no other; it may be large.
    let third = vec![segment(0, 3, Base, 9 << 20), segment(1, 3, Delta, 5 << 20)];
    committed(committer.commit(with(3, 20, third.clone())).await.unwrap());
    assert!(stored(0).await == third[..1]);
    assert!(stored(1).await == [first[1].clone(), second[1].clone(), third[1].clone()]);
    assert!(stored(2).await.is_empty());
    committer.stop().await;
}
