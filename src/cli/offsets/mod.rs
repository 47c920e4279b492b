//! `directstream offsets`: committed and latest offsets of a job, and the lag; offsets moved, and written as CSV.

mod csv;
mod reset;

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    CommandEnd, Console, Table,
    args::{OffsetsExportArgs, OffsetsShowArgs},
    job::load_job,
};
use crate::{
    commit::{ApplicationInfo, Inspector, StoredPosition},
    config::Job,
    error::{Error, Result},
    report::printable,
    stream::{LatestLookup, LatestOffsets, in_time},
    types::{Offset, TopicPartition},
};
pub(super) use reset::{reset, set};

/// What `offsets show` tells, in the words of Kafka's own `kafka-consumer-groups`.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) group: String,
    epoch: u64,
    batch_seq: u64,
    /// What Kafka did not tell, and why; null if it told everything.
    pub(super) kafka_error: Option<String>,
    pub(super) partitions: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// Null: nothing is stored for it yet.
    pub(super) current_offset: Option<i64>,
    /// Null: Kafka did not tell.
    pub(super) log_end_offset: Option<i64>,
    pub(super) lag: Option<i64>,
    /// The owner; null if no process owns the application.
    consumer_id: Option<String>,
    host: Option<String>,
    client_id: Option<String>,
}

/// `offsets show`: committed and latest offsets and the lag of every partition.
pub(super) async fn show(args: OffsetsShowArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args.job)?;
    let stored = in_time(&job, stored(&job));
    let lookup = LatestLookup::new(&job.kafka, &job.name, console.clock())?;
    let (stored, latest) = tokio::join!(stored, lookup.ask(job.stream.start_timeout));
    let ((application, positions), latest) = (stored?, latest?);
    if let Some(error) = &latest.missing {
        tracing::warn!("{}", error.chain());
    }
    let shown = shown(&job, &args.topics, &application, &positions, &latest)?;
    console.print(&shown, text)?;
    Ok(CommandEnd::Done)
}

/// What `offsets export` tells in JSON.
#[derive(Debug, Serialize)]
struct Exported {
    topic: String,
    partition: i32,
    offset: i64,
}

impl Exported {
    fn of(topic_partition: &TopicPartition, offset: Offset) -> Self {
        let TopicPartition { topic, partition } = topic_partition;
        Self { topic: topic.to_string(), partition: *partition, offset: offset.get() }
    }

    fn csv(rows: &[Self], header: bool) -> String {
        csv::write(rows.iter().map(|row| (&*row.topic, row.partition, row.offset)), header)
    }
}

/// `offsets export`: the committed offsets as `kafka-consumer-groups` writes and reads them.
pub(super) async fn export(args: OffsetsExportArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args.job)?;
    let (_, positions) = in_time(&job, stored(&job)).await?;
    let known = |topic: &String| positions.iter().any(|position| *position.topic_partition.topic == **topic);
    if let Some(unknown) = args.topics.iter().find(|topic| !known(topic)) {
        return Err(Error::config(format!("no offset of this topic is stored topic={}", printable(unknown))));
    }
    let of_topics = |position: &&StoredPosition| {
        args.topics.is_empty() || args.topics.iter().any(|topic| *position.topic_partition.topic == **topic)
    };
    let exported = |position: &StoredPosition| Exported::of(&position.topic_partition, position.until_offset);
    let rows: Vec<Exported> = positions.iter().filter(of_topics).map(exported).collect();
    console.print(&rows, |rows| Exported::csv(rows, args.header))?;
    Ok(CommandEnd::Done)
}

pub(super) async fn stored(job: &Job) -> Result<(ApplicationInfo, Vec<StoredPosition>)> {
    let mut store = Inspector::open(&job.store.url, &job.name).await?;
    let application = store.known().await?;
    Ok((application, store.offsets().await?))
}

pub(super) fn shown(
    job: &Job,
    topics: &[String],
    application: &ApplicationInfo,
    positions: &[StoredPosition],
    latest: &LatestOffsets,
) -> Result<Shown> {
    let mut partitions: BTreeMap<TopicPartition, (Option<Offset>, Option<Offset>)> =
        latest.partitions.iter().map(|(topic_partition, end)| (topic_partition.clone(), (None, *end))).collect();
    for position in positions {
        partitions.entry(position.topic_partition.clone()).or_default().0 = Some(position.until_offset);
    }
    if !topics.is_empty() {
        let is_known = |topic: &&String| partitions.keys().any(|known| *known.topic == ***topic);
        if let Some(unknown) = topics.iter().find(|topic| !is_known(topic)) {
            let message = format!("the job has no partition of this topic topic={}", printable(unknown));
            return Err(Error::config(message));
        }
        partitions.retain(|known, _| topics.iter().any(|topic| *known.topic == **topic));
    }
    let rows = partitions
        .into_iter()
        .map(|(topic_partition, (current, end))| row(application, &topic_partition, current, end));
    Ok(Shown {
        group: job.name.clone(),
        epoch: application.epoch,
        batch_seq: application.batch_seq,
        kafka_error: latest.missing.as_ref().map(Error::chain),
        partitions: rows.collect(),
    })
}

fn row(
    application: &ApplicationInfo,
    topic_partition: &TopicPartition,
    current: Option<Offset>,
    end: Option<Offset>,
) -> Row {
    let (current, end) = (current.map(Offset::get), end.map(Offset::get));
    let owned = application.owner.is_some();
    Row {
        topic: topic_partition.topic.to_string(),
        partition: topic_partition.partition,
        current_offset: current,
        log_end_offset: end,
        // Below zero if Kafka has less than what is committed: worth seeing.
        lag: current.zip(end).map(|(current, end)| end - current),
        consumer_id: application.owner.map(|owner| owner.to_string()),
        host: application.host.clone().filter(|_| owned),
        client_id: application.process_id.filter(|_| owned).map(|id| format!("process-{id}")),
    }
}

fn text(shown: &Shown) -> String {
    let mut table = Table::new([
        "GROUP",
        "TOPIC",
        "PARTITION",
        "CURRENT-OFFSET",
        "LOG-END-OFFSET",
        "LAG",
        "CONSUMER-ID",
        "HOST",
        "CLIENT-ID",
    ])
    .right([2, 3, 4, 5]);
    let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    for row in &shown.partitions {
        table.row([
            shown.group.clone(),
            row.topic.clone(),
            row.partition.to_string(),
            number(row.current_offset),
            number(row.log_end_offset),
            number(row.lag),
            row.consumer_id.clone().unwrap_or_default(),
            row.host.clone().unwrap_or_default(),
            row.client_id.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}
