//! `directstream offsets reset` and `set`: committed offsets moved, or told where they would go.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::{
    super::args::{OffsetsChangeArgs, OffsetsResetArgs, OffsetsSetArgs, Scenario},
    CommandEnd, Console, Exported, Table, csv, load_job, stored,
};
use crate::{
    commit::{MoveRequest, Moved, OffsetMove, OffsetMover, TracedTable},
    config::{Job, Subscription},
    error::{Error, ErrorKind, Result, Stage},
    plan::{Adjusted, ResetTo},
    report::printable,
    stream::{PlannedReset, PlannedResets, ResetScope, TopicScope, in_time, mirror_once, plan_reset},
    types::{Offset, TopicPartition},
};

/// What was moved, or would be.
#[derive(Debug, Serialize)]
struct Reset {
    group: String,
    executed: bool,
    /// The Kafka cluster that the offsets go to; null: the same as before.
    new_cluster: Option<String>,
    /// The epoch that the move began; null where nothing was moved.
    epoch: Option<u64>,
    /// How many partitions have another offset then.
    moved: u64,
    /// Rows of output tables that go with it; null: rows are left as they are.
    rows: Option<u64>,
    /// Dead letters that were discarded, because their records are read again; null before it is done.
    dead_letters: Option<u64>,
    partitions: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    topic: String,
    partition: i32,
    new_offset: i64,
    /// Null: nothing is stored for it yet.
    current_offset: Option<i64>,
    /// Below zero: so many offsets are read again; above: so many are skipped. Null as well where the stored offset is another
    /// topic's, or another cluster's.
    shift: Option<i64>,
    log_start_offset: i64,
    log_end_offset: i64,
    /// Why it is not the offset that was asked for.
    adjusted: Option<String>,
}

impl Row {
    fn of(planned: &PlannedReset) -> Self {
        let (new, current) = (planned.new.offset.get(), planned.current.map(Offset::get));
        Self {
            topic: planned.topic_partition.topic.to_string(),
            partition: planned.topic_partition.partition,
            new_offset: new,
            current_offset: current,
            shift: current.filter(|_| !planned.of_another_topic).map(|current| new - current),
            log_start_offset: planned.earliest.get(),
            log_end_offset: planned.latest.get(),
            adjusted: planned.new.adjusted.map(Adjusted::text),
        }
    }
}

/// `offsets reset`.
pub(in crate::cli) async fn reset(args: OffsetsResetArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args.job)?;
    let (to, words) = target(&args.scenario, &job.name, console.clock().now_ms())?;
    run(&job, (to, words), &args.topics, &args.change, Told { csv: args.export, console }).await
}

/// `offsets set`.
pub(in crate::cli) async fn set(args: OffsetsSetArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args.job)?;
    let mut offsets = BTreeMap::new();
    for place in &args.places {
        let topic_partition = TopicPartition::new(place.topic.as_str(), place.partition);
        if offsets.insert(topic_partition.clone(), place.offset).is_some() {
            return Err(Error::config("the same partition twice").on(topic_partition));
        }
    }
    let told = Told { csv: false, console };
    run(&job, (ResetTo::Offsets(offsets), "set".to_owned()), &[], &args.change, told).await
}

/// Where to, and the operator's words for it.
fn target(scenario: &Scenario, group: &str, now_ms: i64) -> Result<(ResetTo, String)> {
    let time = |ms: i64| super::super::console::time(ms);
    Ok(match scenario {
        Scenario { to_earliest: true, .. } => (ResetTo::Earliest, "--to-earliest".to_owned()),
        Scenario { to_latest: true, .. } => (ResetTo::Latest, "--to-latest".to_owned()),
        Scenario { to_current: true, .. } => (ResetTo::Current, "--to-current".to_owned()),
        Scenario { to_offset: Some(offset), .. } => (ResetTo::Offset(*offset), format!("--to-offset {offset}")),
        Scenario { shift_by: Some(by), .. } => (ResetTo::ShiftBy(*by), format!("--shift-by {by}")),
        Scenario { to_datetime: Some(ms), .. } => (ResetTo::Timestamp(*ms), format!("--to-datetime {}", time(*ms))),
        Scenario { by_duration: Some(ago_ms), .. } => {
            let ms = now_ms.saturating_sub(*ago_ms);
            (ResetTo::Timestamp(ms), format!("--by-duration {ago_ms}ms, which is {}", time(ms)))
        }
        Scenario { from_file: Some(file), .. } => (ResetTo::Offsets(from_file(file, group)?), "--from-file".to_owned()),
        _ => return Err(Error::internal("no scenario was given")),
    })
}

fn from_file(file: &Path, group: &str) -> Result<BTreeMap<TopicPartition, i64>> {
    let path = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::config(format!("cannot read the offsets file={path}")).caused_by(error))?;
    csv::read(&text, group).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(|(line, fault)| format!("{path}:{line}: {fault}")).collect();
        Error::config(printable_lines(&lines))
    })
}

/// Words of a file that is not ours, a line each.
fn printable_lines(lines: &[String]) -> String {
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
}

/// How it is told.
struct Told<'a> {
    /// As `kafka-consumer-groups --export` does.
    csv: bool,
    console: &'a Console,
}

async fn run(
    job: &Job,
    (to, words): (ResetTo, String),
    scope: &[TopicScope],
    change: &OffsetsChangeArgs,
    Told { csv, console }: Told<'_>,
) -> Result<CommandEnd> {
    let opened = async {
        let (application, positions) = stored(job).await?;
        let mut mover = OffsetMover::open(&job.store.url, &job.name).await?;
        match mover.refuse_live_owner().await {
            // What would be done can be told all the same.
            Err(error) if error.kind() == ErrorKind::Fenced && !change.execute => tracing::warn!("{error}"),
            refused => refused?,
        }
        Ok((mover, application, positions))
    };
    let (mut mover, application, positions) = in_time(job, opened).await?;
    let scope = ResetScope { topics: scope, new_cluster: change.new_cluster };
    let planned = plan_reset(job, (&application, &positions), &to, scope, console.clock()).await?;
    let PlannedResets { partitions: planned, cluster_id } = planned;
    if words == "set" {
        refuse_adjusted(&planned)?;
    }
    warn_of_adjusted(&planned);
    if csv {
        let rows = planned.iter().map(|one| Exported::of(&one.topic_partition, one.new.offset)).collect::<Vec<_>>();
        console.print(&rows, |rows| Exported::csv(rows, false))?;
        return Ok(CommandEnd::Done);
    }
    let moves: Vec<OffsetMove> = planned.iter().filter_map(PlannedReset::to_move).collect();
    let one_topic = one_topic(job, positions.iter().map(|position| &*position.topic_partition.topic));
    let tables: Option<Vec<TracedTable>> = match change.delete_rows {
        true => Some(in_time(job, mover.traced(&job.outputs, one_topic)).await?),
        false => None,
    };
    // Numbers of two clusters cannot be compared.
    let moved_back = moves.iter().filter(|_| cluster_id.is_none()).filter_map(OffsetMove::read_again);
    let again: u64 = moved_back.map(|range| range.count()).sum();
    if again > 0 && tables.is_none() && !job.outputs.is_empty() {
        tracing::warn!(
            offsets = again,
            "records are read again: append tables and sums then count them twice, without --delete-rows"
        );
    }
    let (mut moved, mut rows) = (Moved { partitions: moves.len() as u64, ..Moved::default() }, None);
    if let Some(tables) = &tables {
        rows = Some(in_time(job, mover.rows_read_again(&moves, tables)).await?);
    }
    let executed = change.execute && (!moves.is_empty() || cluster_id.is_some());
    if executed {
        let scenario = match &cluster_id {
            Some(cluster) => format!("{words} --new-cluster, which is {cluster}"),
            None => words,
        };
        let request = MoveRequest { moves, scenario, delete_rows: tables, cluster_id: cluster_id.clone() };
        let done = mover.move_offsets(&request, &*console.clock()).await;
        moved = done.map_err(|error| error.at(Stage::Commit))?;
        rows = request.delete_rows.is_some().then_some(moved.rows);
        let offsets = planned.iter().map(|one| (one.topic_partition.clone(), one.new.offset)).collect();
        mirror_once(job, &offsets, &console.clock()).await;
    }
    let document = Reset {
        group: job.name.clone(),
        executed: change.execute,
        new_cluster: cluster_id,
        epoch: executed.then_some(moved.epoch),
        moved: moved.partitions,
        rows,
        dead_letters: (executed && rows.is_some()).then_some(moved.dead_letters),
        partitions: planned.iter().map(Row::of).collect(),
    };
    console.print(&document, text)?;
    Ok(CommandEnd::Done)
}

fn warn_of_adjusted(planned: &[PlannedReset]) {
    for one in planned {
        if let Some(adjusted) = one.new.adjusted {
            let TopicPartition { topic, partition } = &one.topic_partition;
            tracing::warn!(%topic, partition, new_offset = one.new.offset.get(), "{}", adjusted.text());
        }
    }
}

/// `set` means what it says.
fn refuse_adjusted(planned: &[PlannedReset]) -> Result<()> {
    let Some((one, adjusted)) = planned.iter().find_map(|one| Some((one, one.new.adjusted?))) else { return Ok(()) };
    let wanted = match adjusted {
        Adjusted::BelowEarliest { wanted } | Adjusted::AboveLatest { wanted } => wanted,
        Adjusted::NoneAfter => one.new.offset.get(),
    };
    let (earliest, latest) = (one.earliest, one.latest);
    let text = format!("Kafka does not have this offset offset={wanted} earliest={earliest} latest={latest}");
    Err(Error::config(text).on(one.topic_partition.clone()))
}

/// Whether the job reads one topic only, and has read no other: then a row's partition and offset name its record.
fn one_topic<'t>(job: &Job, mut stored: impl Iterator<Item = &'t str>) -> bool {
    match &job.kafka.subscription {
        Subscription::Topics(topics) if topics.len() == 1 => stored.all(|topic| topic == topics[0]),
        _ => false,
    }
}

fn text(document: &Reset) -> String {
    let headings =
        ["GROUP", "TOPIC", "PARTITION", "NEW-OFFSET", "CURRENT-OFFSET", "SHIFT", "LOG-START-OFFSET", "LOG-END-OFFSET"];
    let mut table = Table::new(headings).right([2, 3, 4, 5, 6, 7]);
    let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    for row in &document.partitions {
        table.row([
            document.group.clone(),
            row.topic.clone(),
            row.partition.to_string(),
            row.new_offset.to_string(),
            number(row.current_offset),
            number(row.shift),
            row.log_start_offset.to_string(),
            row.log_end_offset.to_string(),
        ]);
    }
    let rows = document.rows.map(|rows| format!("  rows deleted: {rows}")).unwrap_or_default();
    let letters =
        document.dead_letters.map(|letters| format!("  dead letters discarded: {letters}")).unwrap_or_default();
    let cluster = document.new_cluster.as_ref().map(|id| format!("  new cluster: {id}")).unwrap_or_default();
    let told = match (document.executed, document.epoch) {
        (true, Some(epoch)) => format!("moved: {}{rows}{letters}{cluster}  epoch: {epoch}", document.moved),
        (true, None) => "moved: 0".to_owned(),
        (false, _) => format!("would move: {}{rows}{cluster}\nAdd --execute to do it.", document.moved),
    };
    format!("{}\n{told}", table.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        Scenario {
            to_earliest: false,
            to_latest: false,
            to_current: false,
            to_offset: None,
            shift_by: None,
            to_datetime: None,
            by_duration: None,
            from_file: None,
        }
    }

    #[test]
    fn each_scenario_has_its_target_and_its_words() {
        let of = |scenario: Scenario| target(&scenario, "job", 10_000).unwrap();
        assert_eq!(of(Scenario { to_latest: true, ..scenario() }), (ResetTo::Latest, "--to-latest".to_owned()));
        assert_eq!(of(Scenario { shift_by: Some(-5), ..scenario() }).1, "--shift-by -5");
        let (to, words) = of(Scenario { by_duration: Some(4_000), ..scenario() });
        assert_eq!(to, ResetTo::Timestamp(6_000));
        assert_eq!(words, "--by-duration 4000ms, which is 1970-01-01T00:00:06.000Z");
    }

    #[test]
    fn the_lines_of_a_file_that_are_none_are_named_each() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("o.csv");
        std::fs::write(&file, "t,0,1\nt,0\nt,one,1\n").unwrap();
        let error = from_file(&file, "job").unwrap_err();
        let told = error.to_string();
        let lines: Vec<_> = told.lines().map(|line| line.rsplit_once("o.csv:").unwrap().1).collect();
        assert_eq!(lines, ["2: not topic,partition,offset", "3: the partition is not a number from 0"]);
        assert!(from_file(&folder.path().join("none"), "job").is_err());
    }
}
