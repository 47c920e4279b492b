//! Storage levels: the same elements whatever the level and the room, each computed once where it is kept.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    error::{Error, ErrorKind},
    transform::{BatchScope, Graph, LocalRunner, parallelize::Parallelized},
    types::{BatchInfo, BatchTime},
};

const LEVELS: [StorageLevel; 5] = [
    StorageLevel::MEMORY_ONLY,
    StorageLevel::MEMORY_ONLY_SER,
    StorageLevel::MEMORY_AND_DISK,
    StorageLevel::MEMORY_AND_DISK_SER,
    StorageLevel::DISK_ONLY,
];

/// One task at a time: which partitions find room is then always the same.
fn scope(memory: &Arc<StorageMemory>) -> BatchScope {
    let batch = BatchInfo { batch_seq: 1, batch_time: BatchTime::from_ms(0), ranges: Arc::new([]) };
    BatchScope::new(Task::new(batch), Arc::new(LocalRunner::new(1)), Vec::new()).storing_in(Arc::clone(memory))
}

/// Three partitions of 5,000 words, and how often a word was made.
fn words(memory: &Arc<StorageMemory>) -> (Rdd<String>, Arc<AtomicUsize>) {
    let partitions = (0..3).map(|partition| (partition * 5_000..(partition + 1) * 5_000).collect::<Vec<u32>>());
    let numbers = Arc::new(Parallelized { partitions: Arc::new(partitions.collect()) });
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let words = Rdd::new(numbers, scope(memory)).map(move |number: u32| {
        count.fetch_add(1, Ordering::Relaxed);
        format!("word number {number}")
    });
    (words, made)
}

#[test]
fn each_level_gives_the_same_elements_with_and_without_room() {
    for (room, level) in [u64::MAX, 250_000, 0].into_iter().flat_map(|room| LEVELS.map(|level| (room, level))) {
        let memory = Arc::new(StorageMemory::new(room));
        let (words, made) = words(&memory);
        let expected = words.collect().unwrap();
        made.store(0, Ordering::Relaxed);
        let persisted = words.persist_at(level);
        for _ in 0..3 {
            assert_eq!(persisted.collect().unwrap(), expected, "{level:?} {room}");
        }
        let made = made.load(Ordering::Relaxed);
        if level.uses_disk() || room == u64::MAX {
            assert_eq!(made, expected.len(), "{level:?} {room}");
        } else {
            // What has no room is computed again, at least twice more.
            assert!(made > expected.len(), "{level:?} {room}: {made}");
        }
        assert!(memory.used() <= room, "{level:?} {room}: {}", memory.used());
        if room > 0 && level != StorageLevel::DISK_ONLY {
            assert!(memory.used() > 0, "{level:?} {room}");
        }
        drop(persisted);
        assert_eq!(memory.used(), 0, "{level:?} {room}");
    }
}

#[test]
fn an_action_that_stops_early_leaves_whole_partitions_behind() {
    for level in LEVELS {
        let memory = Arc::new(StorageMemory::new(u64::MAX));
        let (words, _) = words(&memory);
        let persisted = words.persist_at(level);
        assert_eq!(persisted.take(2).unwrap(), ["word number 0", "word number 1"]);
        assert_eq!(persisted.count().unwrap(), 15_000, "{level:?}");
    }
}

#[test]
fn a_failure_is_not_kept() {
    for level in LEVELS {
        let memory = Arc::new(StorageMemory::new(u64::MAX));
        let (words, _) = words(&memory);
        let failing = Arc::new(AtomicUsize::new(1));
        let fails = Arc::clone(&failing);
        let words = words.try_map(move |word: String| match fails.load(Ordering::Relaxed) {
            1 if word.ends_with("7777") => Err(Error::transform("no good")),
            _ => Ok(word),
        });
        let persisted = words.persist_at(level);
        assert_eq!(persisted.count().unwrap_err().kind(), ErrorKind::Transform);
        failing.store(0, Ordering::Relaxed);
        assert_eq!(persisted.count().unwrap(), 15_000, "{level:?}");
    }
}

#[test]
fn records_stream_through_where_all_outputs_come_from_what_is_on_disk() {
    let build = |level: Option<StorageLevel>| {
        let graph = Graph::default();
        let words = super::super::DirectKafkaInputDStream::new(&graph).map(|record| record.offset().get());
        let words = level.map_or(words.clone(), |level| words.persist(level));
        words.foreach_rdd(|_| Ok(()));
        words.map(|offset| offset + 1).foreach_rdd(|_| Ok(()));
        graph.reads_once()
    };
    assert!(!build(None));
    assert!(!build(Some(StorageLevel::MEMORY_ONLY)));
    assert!(build(Some(StorageLevel::DISK_ONLY)) && build(Some(StorageLevel::MEMORY_AND_DISK)));
}
