//! The arguments of `offsets`: the scenarios of `kafka-consumer-groups --reset-offsets` by their own names.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::{JobArgs, PlaceOfRecord, RecordPlace};
use crate::stream::TopicScope;

/// `offsets ...`
#[derive(Debug, Subcommand)]
pub enum OffsetsCommand {
    /// Show committed and latest offsets and the lag of every partition.
    #[command(after_help = "Example:\n  directstream offsets show orders.toml --topic orders")]
    Show(OffsetsShowArgs),

    /// Move committed offsets, by the scenarios of kafka-consumer-groups. A dry run unless --execute.
    ///
    /// No process may run the job meanwhile (exit code 5). Going back reads records again: append tables and sums then count
    /// them twice, unless --delete-rows. Going on skips records. An offset that Kafka does not have becomes the nearest one
    /// that it has, with a warning. Who moved what is kept in moved_offsets.
    #[command(after_help = "Examples:\n  directstream offsets reset orders.toml --to-earliest\n  \
        directstream offsets reset orders.toml --shift-by -1000 --topic orders:0,1 --delete-rows --execute\n  \
        directstream offsets reset orders.toml --to-datetime 2026-01-31T00:00:00.000 --execute")]
    Reset(OffsetsResetArgs),

    /// Move single committed offsets to exactly these. A dry run unless --execute.
    ///
    /// As reset, but an offset that Kafka does not have is refused.
    #[command(after_help = "Example:\n  directstream offsets set orders.toml orders:0:4711 orders:1:88 --execute")]
    Set(OffsetsSetArgs),

    /// Write committed offsets as CSV (topic,partition,offset), which reset --from-file and kafka-consumer-groups read.
    #[command(after_help = "Example:\n  directstream offsets export orders.toml > orders.csv")]
    Export(OffsetsExportArgs),
}

/// `offsets show`
#[derive(Debug, Clone, Args)]
pub struct OffsetsShowArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Only this topic; may be given more than once. Without it: all topics of the job.
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,
}

/// `offsets export`
#[derive(Debug, Clone, Args)]
pub struct OffsetsExportArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Only this topic; may be given more than once. Without it: all topics of the job.
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,

    /// Begin with a line that names the columns. kafka-consumer-groups does not, and does not read it.
    #[arg(long)]
    pub header: bool,
}

/// What `reset` and `set` have in common.
#[derive(Debug, Clone, Args)]
pub struct OffsetsChangeArgs {
    /// Delete the rows of records that are read again, in the same transaction. For append tables with integer columns from
    /// partition and offset only.
    #[arg(long)]
    pub delete_rows: bool,

    /// The offsets are those of another Kafka cluster than the stored ones: the one that the job file names now. All partitions
    /// of the job go, or none.
    #[arg(long, conflicts_with = "delete_rows")]
    pub new_cluster: bool,

    /// Do it. Without this it is only told what would be done.
    #[arg(long)]
    pub execute: bool,
}

/// `offsets reset`
#[derive(Debug, Clone, Args)]
pub struct OffsetsResetArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Where to.
    #[command(flatten)]
    pub scenario: Scenario,

    /// Only this topic, or only these partitions of it; may be given more than once. Without it: all topics of the job.
    #[arg(long = "topic", value_name = "TOPIC[:PARTITION,...]", value_parser = topic_scope)]
    pub topics: Vec<TopicScope>,

    /// All topics of the job, as without --topic.
    #[arg(long, conflicts_with = "topics")]
    pub all_topics: bool,

    /// Only tell what would be done, as without --execute.
    #[arg(long, conflicts_with = "execute")]
    pub dry_run: bool,

    /// Write where they would go as CSV (topic,partition,offset), as kafka-consumer-groups does; nothing is moved.
    #[arg(long, conflicts_with_all = ["execute", "delete_rows"])]
    pub export: bool,

    /// How.
    #[command(flatten)]
    pub change: OffsetsChangeArgs,
}

/// Where offsets go: exactly one of these.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Scenario {
    /// To the first offsets that Kafka still has.
    #[arg(long)]
    pub to_earliest: bool,

    /// After the last records that may be read, by the job's isolation level.
    #[arg(long)]
    pub to_latest: bool,

    /// Where they are.
    #[arg(long)]
    pub to_current: bool,

    /// To this offset of every partition.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub to_offset: Option<i64>,

    /// So many offsets on, or back if negative.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub shift_by: Option<i64>,

    /// To the first records of this time or later, as in 2026-01-31T00:00:00.000; UTC unless it ends with an offset.
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    pub to_datetime: Option<i64>,

    /// To the first records of so long ago or later, as in P1DT2H30M or 1h30m.
    #[arg(long, value_name = "DURATION", value_parser = duration_ms)]
    pub by_duration: Option<i64>,

    /// To the offsets of a CSV file (topic,partition,offset), with or without a line that names the columns.
    #[arg(long, value_name = "FILE")]
    pub from_file: Option<PathBuf>,
}

/// `offsets set`
#[derive(Debug, Clone, Args)]
pub struct OffsetsSetArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Which partitions, and the next offset to read of each.
    #[arg(value_name = "TOPIC:PARTITION:OFFSET", required = true, value_parser = PlaceOfRecord)]
    pub places: Vec<RecordPlace>,

    /// How.
    #[command(flatten)]
    pub change: OffsetsChangeArgs,
}

/// Reads `TOPIC` or `TOPIC:0,1,2`.
fn topic_scope(text: &str) -> Result<TopicScope, String> {
    let told = || "a topic, or a topic and some of its partitions, such as orders:0,1".to_owned();
    let (topic, numbers) = match text.split_once(':') {
        Some((topic, numbers)) => (topic, numbers.split(',').map(|number| number.trim().parse().ok()).collect()),
        None => (text, Some(Vec::new())),
    };
    let partitions = numbers.filter(|numbers: &Vec<i32>| numbers.iter().all(|number| *number >= 0)).ok_or_else(told)?;
    if topic.is_empty() { Err(told()) } else { Ok(TopicScope { topic: topic.to_owned(), partitions }) }
}

/// Reads a time, in UTC if it has no offset, as milliseconds since 1970-01-01 UTC.
fn time_ms(text: &str) -> Result<i64, String> {
    let time = text.parse::<jiff::Timestamp>().or_else(|_| {
        let civil: jiff::civil::DateTime = text.parse()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp())
    });
    time.map(jiff::Timestamp::as_millisecond)
        .map_err(|_| "a time is such as 2026-01-31T00:00:00.000 or 2026-01-31T01:00:00+01:00".to_owned())
}

/// Reads a duration that is not zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let ms = u64::try_from(duration_ms(text)?).ok().filter(|ms| *ms > 0);
    ms.map(Duration::from_millis).ok_or_else(|| "a duration is such as 2s or 500ms, and not zero".to_owned())
}

/// Reads a duration as milliseconds; a day has 24 hours.
fn duration_ms(text: &str) -> Result<i64, String> {
    let told = || "a duration is such as P1DT2H30M or 1h30m, and not negative".to_owned();
    let span: jiff::Span = text.parse().map_err(|_| told())?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| told())?;
    i64::try_from(duration.as_millis()).ok().filter(|ms| *ms >= 0).ok_or_else(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_named_with_or_without_partitions() {
        let scope = |text: &str| topic_scope(text).map(|scope| (scope.topic, scope.partitions));
        assert_eq!(scope("orders"), Ok(("orders".to_owned(), vec![])));
        assert_eq!(scope("orders:0, 2"), Ok(("orders".to_owned(), vec![0, 2])));
        for wrong in ["", ":0", "orders:", "orders:x", "orders:-1", "orders:0,,1"] {
            assert!(scope(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_utc_unless_they_say_otherwise() {
        assert_eq!(time_ms("1970-01-01T00:00:01.5"), Ok(1_500));
        assert_eq!(time_ms("1970-01-01T01:00:00+01:00"), Ok(0));
        assert_eq!(time_ms("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(time_ms("1969-12-31T23:59:59.000"), Ok(-1_000));
        assert!(time_ms("yesterday").is_err() && time_ms("").is_err());
    }

    #[test]
    fn durations_are_iso_8601_or_as_people_write_them() {
        let hour = 3_600_000;
        for (text, ms) in
            [("PT1H", hour), ("P1DT2H30M", 26 * hour + hour / 2), ("P7D", 168 * hour), ("1h30m", 5_400_000)]
        {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for wrong in ["", "5", "-PT1H", "P1M", "P1Y"] {
            assert!(duration_ms(wrong).is_err(), "{wrong}");
        }
    }
}
