//! `directstream batches`: the last batches of a job, as its ledger has them.

use serde::Serialize;

use super::{CommandEnd, Console, Table, args::BatchesArgs, console::time, job::load_job};
use crate::{
    commit::{Inspector, LedgerBatch, LedgerRange},
    config::Job,
    error::Result,
    stream::in_time,
};

/// A table shows so many ranges of a batch; JSON shows all.
const RANGES_SHOWN_MAX: usize = 4;

#[derive(Debug, Serialize)]
struct Batch {
    batch: u64,
    /// RFC 3339 in UTC.
    batch_time: String,
    batch_time_ms: i64,
    epoch: u64,
    records: u64,
    gaps: u64,
    bytes: u64,
    rows: u64,
    dead_letters: u64,
    lost_ranges: u64,
    processing_time_ms: i64,
    committed_at: String,
    build: String,
    ranges: Vec<Range>,
}

#[derive(Debug, Serialize)]
struct Range {
    topic: String,
    partition: i32,
    from_offset: i64,
    until_offset: i64,
    records: u64,
    gaps: u64,
    bytes: u64,
    /// 16 hexadecimal digits.
    checksum: String,
}

/// The batches that were committed last, the newest first.
pub(super) async fn batches(args: BatchesArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args.job)?;
    let batches = in_time(&job, read(&job, args.last)).await?;
    let batches: Vec<Batch> = batches.iter().rev().map(Batch::of).collect();
    console.print(&batches, |batches| text(batches))?;
    Ok(CommandEnd::Done)
}

async fn read(job: &Job, last: u32) -> Result<Vec<LedgerBatch>> {
    let mut store = Inspector::open(&job.store.url, &job.name).await?;
    store.known().await?;
    store.batches(last).await
}

impl Batch {
    fn of(batch: &LedgerBatch) -> Self {
        Self {
            batch: batch.batch_seq,
            batch_time: time(batch.batch_time.as_ms()),
            batch_time_ms: batch.batch_time.as_ms(),
            epoch: batch.epoch,
            records: batch.records,
            gaps: batch.gaps,
            bytes: batch.bytes,
            rows: batch.rows,
            dead_letters: batch.dead_letters,
            lost_ranges: batch.lost_ranges,
            // By two clocks, this program's and the database's: a difference between them is not told as a time below zero.
            processing_time_ms: (batch.committed_at_ms - batch.processing_started_ms).max(0),
            committed_at: time(batch.committed_at_ms),
            build: batch.build.clone(),
            ranges: batch.ranges.iter().map(Range::of).collect(),
        }
    }

    /// `topic:partition:from..until` of each range.
    fn ranges_text(&self) -> String {
        let shown = self.ranges.iter().take(RANGES_SHOWN_MAX);
        let mut words: Vec<String> = shown
            .map(|range| format!("{}:{}:{}..{}", range.topic, range.partition, range.from_offset, range.until_offset))
            .collect();
        if self.ranges.len() > RANGES_SHOWN_MAX {
            words.push(format!("and {} more", self.ranges.len() - RANGES_SHOWN_MAX));
        }
        words.join(" ")
    }
}

impl Range {
    fn of(range: &LedgerRange) -> Self {
        Self {
            topic: range.range.topic().to_owned(),
            partition: range.range.partition(),
            from_offset: range.range.from_offset.get(),
            until_offset: range.range.until_offset.get(),
            records: range.counts.records,
            gaps: range.counts.gaps,
            bytes: range.counts.bytes,
            checksum: format!("{:016x}", range.counts.checksum),
        }
    }
}

fn text(batches: &[Batch]) -> String {
    let headings = ["BATCH", "TIME", "RECORDS", "GAPS", "DEAD-LETTERS", "PROCESSING-TIME", "EPOCH", "RANGES"];
    let mut table = Table::new(headings).right([0, 2, 3, 4, 5, 6]);
    for batch in batches {
        table.row([
            batch.batch.to_string(),
            batch.batch_time.clone(),
            batch.records.to_string(),
            batch.gaps.to_string(),
            batch.dead_letters.to_string(),
            format!("{} ms", batch.processing_time_ms),
            batch.epoch.to_string(),
            batch.ranges_text(),
        ]);
    }
    table.render()
}
