//! What the tables must hold: another client's reading of the topic.

use std::collections::BTreeMap;

use super::tables::{Event, Tables};
use crate::support::Kafka;

/// Three tables, one of each mode, as [`Recount`] knows them.
pub(crate) const OUTPUTS: &str = r#"
[[output]]
table = "events"
create = true
mode = "append"
[output.columns]
part = { from = "partition", type = "bigint" }
off = { from = "offset", type = "bigint" }
id = { from = "value:/id", type = "bigint" }
usr = { from = "value:/user", type = "text" }
amount = { from = "value:/amount", type = "bigint" }
[[output]]
table = "latest"
create = true
mode = "upsert"
key = ["usr"]
[output.columns]
usr = { from = "value:/user", type = "text" }
id = { from = "value:/id", type = "bigint" }
[[output]]
table = "totals"
create = true
mode = "upsert"
key = ["usr"]
[output.columns]
usr = { from = "value:/user", type = "text" }
total = { from = "value:/amount", type = "bigint", merge = "add" }
n = { from = "one", type = "bigint", merge = "add" }
"#;

/// A record: partition, offset, value.
pub(crate) type Place = (i64, i64, String);

/// A topic as Kafka's own console consumer reads it (read_committed), and what a job makes of it that fills `events`, `latest`
/// and `totals`. A record that is not JSON is a dead letter.
pub(crate) struct Recount {
    events: Vec<Event>,
    latest: BTreeMap<String, i64>,
    totals: BTreeMap<String, (i64, i64)>,
    dead_letters: Vec<(i64, i64)>,
    /// Every record, sorted.
    values: Vec<Place>,
    /// The stable end of each partition.
    ends: BTreeMap<i64, i64>,
}

impl Recount {
    pub(crate) async fn of(kafka: &Kafka, topic: &str, partitions: i64) -> Self {
        let mut ends = BTreeMap::new();
        for partition in 0..partitions {
            ends.insert(partition, kafka.offsets(topic, i32::try_from(partition).unwrap()).await.1);
        }
        let (mut events, mut dead_letters, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (mut latest, mut totals) = (BTreeMap::new(), BTreeMap::<String, (i64, i64)>::new());
        for seen in kafka.recount(topic).await {
            let partition = i64::from(seen.partition);
            let text = seen.value.unwrap();
            values.push((partition, seen.offset, text.clone()));
            let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) else {
                dead_letters.push((partition, seen.offset));
                continue;
            };
            let (id, amount) = (value["id"].as_i64().unwrap(), value["amount"].as_i64().unwrap());
            let user = value["user"].as_str().unwrap().to_owned();
            let total = totals.entry(user.clone()).or_default();
            *total = (total.0 + amount, total.1 + 1);
            latest.insert(user.clone(), id);
            events.push((partition, seen.offset, id, user, amount));
        }
        values.sort();
        Self { events, latest, totals, dead_letters, values, ends }
    }

    /// Every record, sorted; and the stable end of each partition.
    pub(crate) fn values(&self) -> (&[Place], &BTreeMap<i64, i64>) {
        (&self.values, &self.ends)
    }

    /// All offsets below the stable ends, summed.
    pub(crate) fn end(&self) -> i64 {
        self.ends.values().sum()
    }

    /// Rows of the append table.
    pub(crate) fn rows(&self) -> usize {
        self.events.len()
    }

    /// The tables and the ledger hold each record once.
    pub(crate) async fn compare(&self, tables: &Tables) {
        let (missing, doubled) = difference(&self.events, &tables.events().await);
        assert_eq!((missing, doubled), (0, 0), "missing and doubled rows of {}", self.events.len());
        assert_eq!(tables.totals().await, self.totals);
        assert_eq!(tables.latest().await, self.latest);
        assert_eq!(tables.dead_letters().await, self.dead_letters);
        self.contiguous(tables).await;
    }

    /// I3: batches without a hole, ranges that continue one another, up to the topic's end; every offset a record or a gap.
    async fn contiguous(&self, tables: &Tables) {
        let mut at = BTreeMap::new();
        let mut last = 0;
        let (mut records, mut batches) = (0, 0);
        for (seq, partition, from, until, found, gaps) in tables.ranges().await {
            assert_eq!(at.insert(partition, until).unwrap_or(0), from, "batch {seq}, partition {partition}");
            assert!(seq == last || seq == last + 1, "no batch between {last} and {seq}");
            assert_eq!(found + gaps, until - from, "batch {seq}, partition {partition}");
            batches += seq - last;
            last = seq;
            records += found;
        }
        assert_eq!(usize::try_from(records).unwrap(), self.events.len() + self.dead_letters.len());
        assert_eq!(at, self.ends);
        assert_eq!(tables.offsets().await, self.ends);
        assert!(batches > 1, "one batch only: nothing was interrupted");
    }
}

/// How many of the sorted `expected` rows are not among the sorted `found` ones, and how many found ones are too many.
fn difference(expected: &[Event], found: &[Event]) -> (usize, usize) {
    let mut counts = BTreeMap::<&Event, i64>::new();
    expected.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    found.iter().for_each(|row| *counts.entry(row).or_default() -= 1);
    (counts.values().filter(|n| **n > 0).count(), counts.values().filter(|n| **n < 0).count())
}

#[test]
fn the_comparison_sees_a_missing_and_a_doubled_row() {
    let row = |offset| (0, offset, offset, "user".to_owned(), 1);
    assert_eq!(difference(&[row(0), row(1)], &[row(0), row(1)]), (0, 0));
    assert_eq!(difference(&[row(0), row(1)], &[row(0)]), (1, 0));
    assert_eq!(difference(&[row(0)], &[row(0), row(0)]), (0, 1));
}
