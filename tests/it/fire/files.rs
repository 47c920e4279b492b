//! What `examples/checkpoint_recovery.rs` leaves: a file per batch, and a checkpoint folder with the ledger of them.

use std::{collections::BTreeMap, fs, path::Path};

use directstream::commit::{Inspector, LedgerBatch};

use crate::main_job::recount::Recount;

async fn open(folder: &Path) -> Inspector {
    let url = format!("checkpoint:{}", folder.join("checkpoint").display());
    Inspector::open(&url.parse().unwrap(), "checkpoint-recovery").await.unwrap()
}

/// Partition, offset and value of every line of every file, sorted; and the names of the files.
fn lines(folder: &Path) -> (Vec<(i64, i64, String)>, Vec<String>) {
    let (mut lines, mut names) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder.join("output")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        // What a killed process did not get to rename.
        if !name.ends_with(".txt") {
            continue;
        }
        for line in fs::read_to_string(entry.path()).unwrap().lines() {
            let mut words = line.splitn(3, ' ');
            let mut word = || words.next().unwrap();
            lines.push((word().parse().unwrap(), word().parse().unwrap(), word().to_owned()));
        }
        names.push(name);
    }
    lines.sort();
    names.sort();
    (lines, names)
}

/// The files hold each record of the topic once, and the ledger is a chain up to the topic's end.
pub(super) async fn compare(recount: &Recount, folder: &Path) {
    let (expected, ends) = recount.values();
    let (found, names) = lines(folder);
    assert_eq!(found.len(), expected.len(), "lines and records");
    assert!(found == expected, "the files are not what Kafka holds");
    let mut look = open(folder).await;
    let batches = look.batches(u32::MAX).await.unwrap();
    assert_eq!(names, (1..=batches.len()).map(|seq| format!("{seq:08}.txt")).collect::<Vec<_>>());
    let mut at = BTreeMap::new();
    for (batch, seq) in batches.iter().zip(1..) {
        assert_eq!(batch.batch_seq, seq);
        for range in &batch.ranges {
            let tp = &range.range.topic_partition;
            let from = at.insert(i64::from(tp.partition), range.range.until_offset.get()).unwrap_or(0);
            assert_eq!(from, range.range.from_offset.get(), "batch {seq}, partition {}", tp.partition);
        }
    }
    assert_eq!(at, *ends);
    let stored = look.offsets().await.unwrap();
    let stored = stored.iter().map(|one| (i64::from(one.topic_partition.partition), one.until_offset.get()));
    assert_eq!(stored.collect::<BTreeMap<_, _>>(), *ends);
    assert!(batches.len() > 1, "one batch only: nothing was interrupted");
}

/// Records that were committed under the last epoch that committed any.
pub(super) async fn committed_last(folder: &Path) -> i64 {
    let batches = open(folder).await.batches(u32::MAX).await.unwrap();
    let last = batches.iter().map(|batch| batch.epoch).max();
    let records = |batch: &LedgerBatch| i64::try_from(batch.records).unwrap();
    batches.iter().filter(|batch| Some(batch.epoch) == last).map(records).sum()
}
