//! Somebody changes the stored offsets while the job runs.

use std::time::Duration;

use super::{process::Process, tables::Tables};
use crate::support::{record, shared_kafka, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// Taken for new, the partition would be read again from its beginning: F33 of the failure matrix, and everything doubled.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_offset_that_vanishes_ends_the_job_and_doubles_nothing() {
    let (kafka, tables) = (shared_kafka().await, Tables::postgres().await);
    let topic = kafka.topic(2).await;
    let some = |n: i64| (0..n).map(|id| record(id.to_string()).partition(i32::try_from(id % 2).unwrap())).collect();
    kafka.produce(&topic, some(100)).await;
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.toml");
    let text = format!(
        r#"name = "vanishing"
[kafka]
bootstrap_servers = "{}"
topics = ["{topic}"]
[stream]
batch_interval = "100ms"
[input]
format = "text"
[store]
url = "{}"
[report]
listen = "off"
[[output]]
table = "events"
create = true
[output.columns]
part = {{ from = "partition", type = "bigint" }}
off = {{ from = "offset", type = "bigint" }}
"#,
        kafka.brokers(),
        tables.url()
    );
    std::fs::write(&job, text).unwrap();
    let process = Process::run(&job, &[]);
    wait_until("the first records are committed", LIMIT, async || tables.committed().await == 100).await;
    tables.execute("DELETE FROM directstream.offsets WHERE partition = 1").await;
    kafka.produce(&topic, some(100)).await;
    assert_eq!(process.code(LIMIT).await, 4);
    // Nor does the next start take the partition for a new one: the ledger knows it.
    assert_eq!(Process::run(&job, &[]).code(LIMIT).await, 4);
    assert!(tables.places().await.windows(2).all(|pair| pair[0] != pair[1]), "a record is doubled");
}
