//! Somebody changes the stored offsets while the job runs.

use std::{ops::Range, path::PathBuf, time::Duration};

use tempfile::TempDir;

use super::{job::OUTPUT, tables::Tables};
use crate::support::{End, JobFile, Kafka, Process, kafka::Record, record, shared_kafka, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// A job over a topic of two partitions that has committed 50 records of each.
struct World {
    kafka: Kafka,
    topic: String,
    tables: Tables,
    job: PathBuf,
    process: Process,
    _folder: TempDir,
}

async fn world() -> World {
    let (kafka, tables) = (shared_kafka().await, Tables::postgres().await);
    let topic = kafka.topic(2).await;
    let folder = tempfile::tempdir().unwrap();
    let job = JobFile::new(kafka.brokers(), &topic, &tables.url()).name("moved").stream("batch_interval = \"100ms\"");
    let job = job.input("format = \"text\"").outputs(OUTPUT).write(folder.path());
    kafka.produce(&topic, some(50)).await;
    let process = Process::run(&job, &[]);
    wait_until("the first records are committed", LIMIT, async || tables.committed().await == Some(100)).await;
    World { kafka, topic, tables, job, process, _folder: folder }
}

/// So many records for each of the two partitions.
fn some(each: i32) -> Vec<Record> {
    (0..2 * each).map(|id| record(id.to_string()).partition(id % 2)).collect()
}

/// Partition 0 up to an offset, partition 1 without what `skipped` has.
fn places(until: i64, skipped: Range<i64>) -> Vec<(i64, i64)> {
    let all = (0..2).flat_map(|partition| (0..until).map(move |offset| (partition, offset)));
    all.filter(|(partition, offset)| *partition == 0 || !skipped.contains(offset)).collect()
}

/// Taken for new, the partition would be read again from its beginning: F33 of the failure matrix, and everything doubled.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_offset_that_vanishes_ends_the_job_and_doubles_nothing() {
    let World { kafka, topic, tables, job, process, _folder } = world().await;
    tables.execute("DELETE FROM directstream.offsets WHERE partition = 1").await;
    kafka.produce(&topic, some(50)).await;
    assert_eq!(process.code(LIMIT).await, 4);
    // Nor does the next start take the partition for a new one: the ledger knows it.
    assert_eq!(Process::run(&job, &[]).code(LIMIT).await, 4);
    assert!(tables.places().await.windows(2).all(|pair| pair[0] != pair[1]), "a record is doubled");
}

/// Somebody skips five records. What was planned without knowing is not committed, and planned again from there.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_offset_that_was_moved_is_gone_on_from() {
    let World { kafka, topic, tables, process, .. } = world().await;
    tables.execute("UPDATE directstream.offsets SET until_offset = 55 WHERE partition = 1").await;
    // All of a partition at once, so that no plan ends below what is stored; and a marker.
    kafka.transactions(&topic, vec![(End::Commit, some(20))]).await;
    wait_until("all is committed", LIMIT, async || tables.committed().await == Some(142)).await;
    assert_eq!(tables.places().await, places(70, 50..55));
    drop(process);
}

/// Where offsets cannot be moved, planning again would go on for ever.
#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_do_not_move_twice_in_a_row_end_the_job_and_nothing_is_lost_or_doubled() {
    let World { kafka, topic, tables, job, process, _folder } = world().await;
    tables.execute("CREATE RULE still AS ON UPDATE TO directstream.offsets DO INSTEAD NOTHING").await;
    kafka.produce(&topic, some(20)).await;
    assert_eq!(process.code(LIMIT).await, 5);
    assert_eq!(tables.places().await, places(50, 0..0));
    tables.execute("DROP RULE still ON directstream.offsets").await;
    assert_eq!(Process::run(&job, &["--until-latest"]).code(LIMIT).await, 0);
    assert_eq!(tables.places().await, places(70, 0..0));
}
