//! `directstream lag`: how far the committed offsets are behind Kafka, once or again and again.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tokio::signal::unix::SignalKind;

use super::{
    CommandEnd, Console, Table,
    args::LagArgs,
    console::time,
    job::load_job,
    offsets::{self, Row, Shown},
    run::listen,
};
use crate::{
    config::Job,
    error::{ErrorKind, Result},
    stream::{LatestLookup, in_time},
};

/// What is told of one look.
#[derive(Debug, Serialize)]
struct Lag {
    group: String,
    /// RFC 3339 in UTC.
    time: String,
    /// Latest minus committed offset, summed over the partitions where both are known; null where none is.
    lag: Option<i64>,
    /// Offsets committed, and offsets that became readable, a second, since the look before; null at the first one.
    committed_per_second: Option<i64>,
    produced_per_second: Option<i64>,
    /// At these rates; null where the lag does not shrink.
    seconds_left: Option<i64>,
    /// What Kafka did not tell, and why; null if it told everything.
    kafka_error: Option<String>,
    partitions: Vec<PartitionLag>,
}

#[derive(Debug, Clone, Serialize)]
struct PartitionLag {
    topic: String,
    partition: i32,
    /// Null: nothing is stored for it yet.
    current_offset: Option<i64>,
    /// Null: Kafka did not tell.
    log_end_offset: Option<i64>,
    lag: Option<i64>,
}

/// Where the partitions stood at one look.
struct Look {
    at: Duration,
    ends: BTreeMap<(String, i32), (i64, i64)>,
}

/// `lag`.
pub(super) async fn lag(args: LagArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args.job)?;
    let lookup = LatestLookup::new(&job.kafka, &job.name, console.clock())?;
    let (mut last, first) = look(&job, &lookup, &args.topics, None, console).await?;
    if !args.watch {
        console.print(&first, table)?;
        return Ok(CommandEnd::Done);
    }
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut told = first;
    let mut headings = true;
    loop {
        // Nobody reads on: as good as a signal, and no failure.
        if !console.print_line(&told, |told| line(told, headings))? {
            return Ok(CommandEnd::Done);
        }
        headings = false;
        tokio::select! {
            () = tokio::time::sleep(args.every) => {}
            _ = interrupt.recv() => return Ok(CommandEnd::Interrupted),
            _ = terminate.recv() => return Ok(CommandEnd::Terminated),
        }
        loop {
            let looked = tokio::select! {
                looked = look(&job, &lookup, &args.topics, Some(&last), console) => looked,
                _ = interrupt.recv() => return Ok(CommandEnd::Interrupted),
                _ = terminate.recv() => return Ok(CommandEnd::Terminated),
            };
            match looked {
                Ok(looked) => {
                    (last, told) = looked;
                    break;
                }
                // A store that is away comes back: whoever watches wants to see that.
                Err(error) if error.kind() == ErrorKind::Unavailable => tracing::warn!("{}", error.chain()),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(args.every).await;
        }
    }
}

async fn look(
    job: &Job,
    lookup: &LatestLookup,
    topics: &[String],
    before: Option<&Look>,
    console: &Console,
) -> Result<(Look, Lag)> {
    let (stored, latest) = tokio::join!(in_time(job, offsets::stored(job)), lookup.ask(job.stream.start_timeout));
    let ((application, positions), latest) = (stored?, latest?);
    if let Some(error) = &latest.missing {
        tracing::warn!("{}", error.chain());
    }
    let Shown { group, kafka_error, partitions, .. } = offsets::shown(job, topics, &application, &positions, &latest)?;
    let clock = console.clock();
    let ends = partitions
        .iter()
        .filter_map(|row| Some(((row.topic.clone(), row.partition), (row.current_offset?, row.log_end_offset?))));
    let look = Look { at: clock.monotonic(), ends: ends.collect() };
    let partitions: Vec<PartitionLag> = partitions.into_iter().map(PartitionLag::of).collect();
    let lags: Vec<i64> = partitions.iter().filter_map(|partition| partition.lag).collect();
    let lag = (!lags.is_empty()).then(|| lags.iter().sum());
    let rates = before.and_then(|before| rates(before, &look));
    let told = Lag {
        group,
        time: time(clock.now_ms()),
        lag,
        committed_per_second: rates.map(|(committed, _)| committed),
        produced_per_second: rates.map(|(_, produced)| produced),
        seconds_left: lag.and_then(|lag| seconds_left(lag, rates)),
        kafka_error,
        partitions,
    };
    Ok((look, told))
}

/// Offsets committed and produced a second, over the partitions that both looks know.
fn rates(before: &Look, now: &Look) -> Option<(i64, i64)> {
    let ms = i64::try_from(now.at.saturating_sub(before.at).as_millis()).ok().filter(|ms| *ms > 0)?;
    let (mut committed, mut produced) = (0_i64, 0_i64);
    for (partition, (current, end)) in &now.ends {
        if let Some((current_before, end_before)) = before.ends.get(partition) {
            committed = committed.saturating_add(current - current_before);
            produced = produced.saturating_add(end - end_before);
        }
    }
    Some((committed.saturating_mul(1_000) / ms, produced.saturating_mul(1_000) / ms))
}

/// At these rates; nothing is left of no lag, and it is not known where the lag does not shrink.
fn seconds_left(lag: i64, rates: Option<(i64, i64)>) -> Option<i64> {
    if lag <= 0 {
        return Some(0);
    }
    let shrinks_per_second = rates.map(|(committed, produced)| committed - produced).filter(|shrinks| *shrinks > 0)?;
    Some(lag / shrinks_per_second)
}

impl PartitionLag {
    fn of(row: Row) -> Self {
        let Row { topic, partition, current_offset, log_end_offset, lag, .. } = row;
        Self { topic, partition, current_offset, log_end_offset, lag }
    }
}

fn number(number: Option<i64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// A row per partition, and the sum.
fn table(lag: &Lag) -> String {
    let headings = ["GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"];
    let mut table = Table::new(headings).right([2, 3, 4, 5]);
    for row in &lag.partitions {
        table.row([
            lag.group.clone(),
            row.topic.clone(),
            row.partition.to_string(),
            number(row.current_offset),
            number(row.log_end_offset),
            number(row.lag),
        ]);
    }
    format!("{}\nlag: {}", table.render(), lag.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()))
}

/// A line per look. The columns do not move: no line knows how wide the next ones will be.
fn line(lag: &Lag, headings: bool) -> String {
    let row = |cells: [&str; 5]| {
        let [time, lag, committed, produced, left] = cells;
        format!("{time:<24}  {lag:>12}  {committed:>11}  {produced:>10}  {left:>9}")
    };
    let cell = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let left = lag.seconds_left.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds}s"));
    let numbers = [lag.lag, lag.committed_per_second, lag.produced_per_second].map(cell);
    let told = row([&lag.time, &numbers[0], &numbers[1], &numbers[2], &left]);
    if headings {
        let names = row(["TIME", "LAG", "COMMITTED/S", "PRODUCED/S", "TIME-LEFT"]);
        return format!("{names}\n{told}");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at_ms: u64, ends: &[(i32, i64, i64)]) -> Look {
        let ends = ends.iter().map(|(partition, current, end)| (("t".to_owned(), *partition), (*current, *end)));
        Look { at: Duration::from_millis(at_ms), ends: ends.collect() }
    }

    #[test]
    fn rates_are_of_the_partitions_that_both_looks_know() {
        let before = look(1_000, &[(0, 10, 100), (1, 0, 0)]);
        let now = look(3_000, &[(0, 50, 120), (1, 4, 8), (2, 500, 900)]);
        assert_eq!(rates(&before, &now), Some((22, 14)));
        assert_eq!(rates(&before, &before), None);
        // Moved back by an operator.
        assert_eq!(rates(&now, &look(4_000, &[(0, 20, 120)])), Some((-30, 0)));
    }

    #[test]
    fn time_is_left_where_the_lag_shrinks() {
        let left = |lag, committed, produced| seconds_left(lag, Some((committed, produced)));
        assert_eq!([left(100, 10, 2), left(100, 5, 5), left(100, 0, 5)], [Some(12), None, None]);
        assert_eq!(
            [left(0, 0, 5), left(-3, 1, 0), seconds_left(0, None), seconds_left(5, None)],
            [Some(0), Some(0), Some(0), None]
        );
    }
}
