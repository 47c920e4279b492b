//! Pure: the spans of a batch that ended, of what is known of it.

use std::collections::BTreeSet;

use super::{Ended, names, parent::TraceParent};
use crate::report::{
    completed::{BatchCounts, BatchOutcome},
    listener::OutputOperationInfo,
    steps::{CommitEvent, StepInfo, Steps, ToldEvent},
};

/// So many topics are in a span's name.
const TOPICS_MAX: usize = 4;

/// One span, with those below it. Times are in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::report) struct SpanModel {
    pub(in crate::report) name: String,
    /// Whether it consumes messages; if not it is the process's own affair.
    pub(in crate::report) consumes: bool,
    pub(in crate::report) start_ms: i64,
    pub(in crate::report) end_ms: i64,
    pub(in crate::report) attributes: Vec<Attribute>,
    pub(in crate::report) events: Vec<EventModel>,
    pub(in crate::report) links: Vec<TraceParent>,
    /// Why what it stands for failed, in one line without payload.
    pub(in crate::report) error: Option<String>,
    pub(in crate::report) children: Vec<Self>,
}

pub(in crate::report) type Attribute = (&'static str, Value);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::report) enum Value {
    Text(String),
    Number(i64),
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::report) struct EventModel {
    pub(in crate::report) name: &'static str,
    pub(in crate::report) at_ms: i64,
    pub(in crate::report) attributes: Vec<Attribute>,
}

impl SpanModel {
    fn of(name: impl Into<String>, start_ms: i64, end_ms: i64) -> Self {
        Self {
            name: name.into(),
            consumes: false,
            start_ms,
            end_ms: end_ms.max(start_ms),
            attributes: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
            error: None,
            children: Vec::new(),
        }
    }

    /// Puts a span below this one, within its times: the wall clock may have gone back.
    fn add(&mut self, mut child: Self) {
        child.within(self.start_ms, self.end_ms);
        self.children.push(child);
    }

    fn within(&mut self, start_ms: i64, end_ms: i64) {
        let clamp = |time_ms: &mut i64| *time_ms = (*time_ms).clamp(start_ms, end_ms);
        clamp(&mut self.start_ms);
        clamp(&mut self.end_ms);
        let (start_ms, end_ms) = (self.start_ms, self.end_ms);
        self.events.iter_mut().for_each(|event| event.at_ms = event.at_ms.clamp(start_ms, end_ms));
        self.children.iter_mut().for_each(|child| child.within(start_ms, end_ms));
    }
}

/// The batch's span: from its tick, or from when Kafka was asked if that was before, to its end.
pub(in crate::report) fn trace_of(ended: &Ended<'_>) -> SpanModel {
    let Ended { entry, told, now_ms, .. } = ended;
    let steps = &told.steps;
    let start_ms = entry.submission_time_ms.min(steps.plan.map_or(i64::MAX, |plan| plan.start_time_ms));
    let end_ms = entry.processing_end_time_ms.unwrap_or(*now_ms);
    let mut batch = SpanModel::of(format!("process {}", topics(ended)), start_ms, end_ms);
    batch.consumes = ended.reads_kafka;
    batch.attributes = attributes(ended);
    batch.links.clone_from(&told.parents);
    if ended.completed.outcome != BatchOutcome::Completed {
        batch.error = Some(entry.failure.clone().unwrap_or_default());
    }
    if let Some(plan) = steps.plan {
        batch.add(step(names::PLAN, plan));
    }
    let mut operations: Vec<_> = entry.operations.iter().filter_map(operation).collect();
    if let Some(process) = steps.process {
        let mut span = step(names::READ_AND_TRANSFORM, process);
        if let Some(read) = steps.read {
            span.add(read_span(read, steps));
        }
        let later = operations.iter().position(|operation| operation.start_ms >= process.end_time_ms);
        let later = operations.split_off(later.unwrap_or(operations.len()));
        operations.into_iter().for_each(|operation| span.add(operation));
        operations = later;
        batch.add(span);
    }
    if let Some(wait) = steps.wait {
        batch.add(step(names::WAIT, wait));
    }
    operations.into_iter().for_each(|operation| batch.add(operation));
    if let Some(commit) = steps.commit {
        let mut span = step(names::COMMIT, commit);
        if let Some(took_ms) = entry.commit_time_ms {
            span.attributes.push(number(names::TRANSACTION_TIME, took_ms));
        }
        span.events = told.commit_events.iter().map(event).collect();
        span.error.clone_from(&batch.error);
        batch.add(span);
    }
    batch
}

fn step(name: &str, step: StepInfo) -> SpanModel {
    SpanModel::of(name, step.start_time_ms, step.end_time_ms)
}

fn read_span(read: StepInfo, steps: &Steps) -> SpanModel {
    let mut span = step(names::READ, read);
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    span.attributes = vec![
        number(names::TASKS_READING, ms(steps.tasks.reading)),
        number(names::TASKS_TRANSFORMING, ms(steps.tasks.transforming)),
    ];
    span
}

/// An output operation that ended.
fn operation(known: &OutputOperationInfo) -> Option<SpanModel> {
    let mut span = SpanModel::of(known.name.clone(), known.start_time_ms?, known.end_time_ms?);
    span.attributes = vec![number(names::OPERATION_ID, as_u64(known.id))];
    span.error.clone_from(&known.failure_reason);
    Some(span)
}

fn event(told: &ToldEvent) -> EventModel {
    let settled = |outcome| (names::SETTLED, vec![text(names::OUTCOME, outcome)]);
    let (name, mut attributes) = match told.event {
        CommitEvent::SettledCommitted => settled("committed"),
        CommitEvent::SettledRolledBack => settled("rolled_back"),
        CommitEvent::NotCommitted => (names::NOT_COMMITTED, Vec::new()),
    };
    attributes.extend(told.line.as_deref().map(|line| text(names::REASON, line)));
    EventModel { name, at_ms: told.at_ms, attributes }
}

/// The topics of the ranges that are not empty, in order; of all ranges where all are.
fn topics(ended: &Ended<'_>) -> String {
    let names = topic_names(ended);
    let more = names.len().saturating_sub(TOPICS_MAX);
    let mut text = names.into_iter().take(TOPICS_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn topic_names<'a>(ended: &Ended<'a>) -> BTreeSet<&'a str> {
    let ranges = &ended.completed.progress.batch.ranges;
    let all_empty = ranges.iter().all(crate::types::OffsetRange::is_empty);
    let named = ranges.iter().filter(|range| all_empty || !range.is_empty());
    named.map(|range| range.topic()).collect()
}

fn attributes(ended: &Ended<'_>) -> Vec<Attribute> {
    let Ended { application, epoch, entry, completed, .. } = ended;
    let counts = &completed.counts;
    let outcome = match completed.outcome {
        BatchOutcome::Completed => "completed",
        BatchOutcome::Failed => "failed",
        BatchOutcome::Dropped => "dropped",
    };
    let mut all = vec![
        text(names::APPLICATION, application),
        number(names::BATCH_SEQ, entry.batch_seq),
        (names::BATCH_TIME, Value::Number(entry.batch_time.as_ms())),
        number(names::EPOCH, *epoch),
        number(names::RANGES, as_u64(entry.ranges_total)),
        text(names::OUTCOME, outcome),
    ];
    all.extend(entry.scheduling_delay_ms.map(|ms| number(names::SCHEDULING_DELAY, ms)));
    all.extend(entry.processing_delay_ms.map(|ms| number(names::PROCESSING_DELAY, ms)));
    if ended.reads_kafka {
        all.extend([
            text(names::SYSTEM, names::KAFKA),
            text(names::OPERATION_NAME, names::PROCESS),
            text(names::OPERATION_TYPE, names::PROCESS),
            number(names::MESSAGE_COUNT, entry.num_records),
        ]);
        let topics = topic_names(ended);
        all.extend(topics.first().filter(|_| topics.len() == 1).map(|topic| text(names::DESTINATION, topic)));
    }
    match completed.outcome {
        BatchOutcome::Completed => all.extend(moved(counts)),
        BatchOutcome::Failed | BatchOutcome::Dropped => all.push(text(names::ERROR_TYPE, outcome)),
    }
    all
}

/// What a committed batch moved.
fn moved(counts: &BatchCounts) -> Vec<Attribute> {
    let dead_letters = counts.dead_letters.iter().map(|(_, count)| count).sum();
    let mut all = vec![
        number(names::RECORDS, counts.records),
        number(names::GAPS, counts.gaps),
        number(names::BYTES, counts.bytes),
        number(names::ROWS, counts.rows),
        number(names::DEAD_LETTERS, dead_letters),
    ];
    let rare = [(names::LATE_RECORDS, counts.late_records), (names::LOST_RANGES, as_u64(counts.lost_ranges.len()))];
    all.extend(rare.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| number(name, count)));
    all
}

fn text(name: &'static str, text: &str) -> Attribute {
    (name, Value::Text(text.to_owned()))
}

/// Numbers of a span are signed.
fn number(name: &'static str, number: u64) -> Attribute {
    (name, Value::Number(i64::try_from(number).unwrap_or(i64::MAX)))
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
