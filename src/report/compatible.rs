//! The same numbers under the names of two exporters of consumer groups, for dashboards and alerts that exist already.
//!
//! Only if the job asks for it: where such an exporter watches the same group, its sums would count everything twice.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    metrics::{Family, Metric, MetricKind},
    partitions::{PARTITION_SERIES_MAX, Place, Positions},
    reporter::Reporter,
};
use crate::config::CompatibleNames;

const fn gauge(name: &'static str, labels: &'static [&'static str], unit: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, unit, labels, help }
}

const GROUP: &[&str] = &["consumergroup"];
const GROUP_TOPIC: &[&str] = &["consumergroup", "topic"];
const GROUP_PARTITION: &[&str] = &["consumergroup", "topic", "partition"];
const TOPIC: &[&str] = &["topic"];
const PARTITION: &[&str] = &["topic", "partition"];

/// kafka_exporter's names.
const KAFKA_EXPORTER: [Metric; 8] = [
    gauge("kafka_topic_partitions", TOPIC, "partitions", "Partitions of the topic."),
    gauge("kafka_topic_partition_current_offset", PARTITION, "offset", "The latest offset."),
    gauge("kafka_topic_partition_oldest_offset", PARTITION, "offset", "The earliest offset."),
    gauge("kafka_consumergroup_current_offset", GROUP_PARTITION, "offset", "The committed offset."),
    gauge(
        "kafka_consumergroup_current_offset_sum",
        GROUP_TOPIC,
        "offset",
        "The committed offsets of the topic, summed.",
    ),
    gauge("kafka_consumergroup_lag", GROUP_PARTITION, "offsets", "Latest minus committed offset."),
    gauge("kafka_consumergroup_lag_sum", GROUP_TOPIC, "offsets", "The same, summed over the topic."),
    gauge("kafka_consumergroup_members", GROUP, "members", "1 while this process owns the application, else 0."),
];

const CLUSTER_PARTITION: &[&str] = &["cluster_name", "topic", "partition"];
const CLUSTER_GROUP: &[&str] = &["cluster_name", "group"];
const CLUSTER_GROUP_TOPIC: &[&str] = &["cluster_name", "group", "topic"];
const MEMBER: &[&str] = &["cluster_name", "group", "topic", "partition", "member_host", "consumer_id", "client_id"];

/// kafka-lag-exporter's names.
const KAFKA_LAG_EXPORTER: [Metric; 9] = [
    gauge("kafka_partition_latest_offset", CLUSTER_PARTITION, "offset", "The latest offset."),
    gauge("kafka_partition_earliest_offset", CLUSTER_PARTITION, "offset", "The earliest offset."),
    gauge("kafka_consumergroup_group_offset", MEMBER, "offset", "The committed offset."),
    gauge("kafka_consumergroup_group_lag", MEMBER, "offsets", "Latest minus committed offset."),
    gauge(
        "kafka_consumergroup_group_lag_seconds",
        MEMBER,
        "seconds",
        "The age of the oldest record that is not committed.",
    ),
    gauge("kafka_consumergroup_group_topic_sum_lag", CLUSTER_GROUP_TOPIC, "offsets", "The lag, summed over the topic."),
    gauge("kafka_consumergroup_group_sum_lag", CLUSTER_GROUP, "offsets", "The lag, summed over all topics."),
    gauge("kafka_consumergroup_group_max_lag", CLUSTER_GROUP, "offsets", "The largest lag of a partition."),
    gauge(
        "kafka_consumergroup_group_max_lag_seconds",
        CLUSTER_GROUP,
        "seconds",
        "The largest lag of a partition in seconds.",
    ),
];

/// Which names are told beside our own, and what their labels say.
#[derive(Debug, Default)]
pub(super) struct Compatible {
    names: BTreeSet<CompatibleNames>,
    group: String,
    cluster: String,
    host: String,
}

impl Reporter {
    /// Tells the same numbers under the names of `names` as well. `group` is what these call the consumer group.
    ///
    /// ```
    /// use directstream::{clock::SystemClock, config::CompatibleNames, report::Reporter};
    ///
    /// let reporter = Reporter::new("orders", SystemClock::shared());
    /// reporter.compatible_names([CompatibleNames::KafkaExporter], "orders");
    /// assert!(reporter.render_metrics().contains("kafka_consumergroup_members{consumergroup=\"orders\"} 0"));
    /// ```
    pub fn compatible_names(&self, names: impl IntoIterator<Item = CompatibleNames>, group: &str) {
        let mut state = self.state();
        let compatible = &mut state.compatible;
        compatible.names = names.into_iter().collect();
        compatible.group = group.to_owned();
        compatible.host = gethostname::gethostname().to_string_lossy().into_owned();
    }

    /// The id of the Kafka cluster that is read: what kafka-lag-exporter's label `cluster_name` says here.
    pub fn cluster(&self, cluster_id: &str) {
        cluster_id.clone_into(&mut self.state().compatible.cluster);
    }
}

impl Compatible {
    pub(super) fn render(&self, positions: &Positions, owner: bool, now_ms: i64) -> Vec<String> {
        let mut blocks = Vec::new();
        if self.names.contains(&CompatibleNames::KafkaExporter) {
            blocks.extend(self.kafka_exporter(positions, owner));
        }
        if self.names.contains(&CompatibleNames::KafkaLagExporter) {
            blocks.extend(self.kafka_lag_exporter(positions, now_ms));
        }
        blocks
    }

    fn kafka_exporter(&self, positions: &Positions, owner: bool) -> Vec<String> {
        let group = &*self.group;
        let families = KAFKA_EXPORTER.each_ref().map(Family::new);
        let [
            mut partitions,
            mut latest,
            mut earliest,
            mut committed,
            mut committed_sum,
            mut lag,
            mut lag_sum,
            mut members,
        ] = families;
        for places in positions.topics() {
            let Some(topic) = places.first().map(Place::topic) else { continue };
            partitions.add(&[topic], places.len());
            let known = || places.iter().filter(|place| place.position.lag().is_some());
            if known().next().is_some() {
                let committed = known().filter_map(|place| place.position.committed).map(i64::from);
                committed_sum.add(&[group, topic], committed.fold(0, i64::saturating_add));
                lag_sum.add(&[group, topic], sum(known()));
            }
        }
        for place in positions.partitions() {
            let (position, topic) = (&place.position, place.topic());
            let partition = &*position.topic_partition.partition.to_string();
            let ends = [(&mut latest, position.latest), (&mut earliest, position.earliest)];
            for (family, offset) in ends {
                if let Some(offset) = offset {
                    family.add(&[topic, partition], offset);
                }
            }
            if let Some(offset) = position.committed {
                committed.add(&[group, topic, partition], offset);
            }
            if let Some(records) = position.lag() {
                lag.add(&[group, topic, partition], records);
            }
        }
        members.add(&[group], u8::from(owner));
        [partitions, latest, earliest, committed, committed_sum, lag, lag_sum, members].map(Family::into_text).into()
    }

    fn kafka_lag_exporter(&self, positions: &Positions, now_ms: i64) -> Vec<String> {
        let (cluster, group) = (&*self.cluster, &*self.group);
        let families = KAFKA_LAG_EXPORTER.each_ref().map(Family::new);
        let [
            mut latest,
            mut earliest,
            mut offset,
            mut lag,
            mut seconds,
            mut topic_sum,
            mut all,
            mut max,
            mut max_seconds,
        ] = families;
        for places in positions.topics() {
            let Some(topic) = places.first().map(Place::topic) else { continue };
            if places.iter().any(|place| place.position.lag().is_some()) {
                topic_sum.add(&[cluster, group, topic], sum(places));
            }
        }
        for place in positions.partitions() {
            let (position, topic) = (&place.position, place.topic());
            let partition = &*position.topic_partition.partition.to_string();
            let ends = [(&mut latest, position.latest), (&mut earliest, position.earliest)];
            for (family, end) in ends {
                if let Some(end) = end {
                    family.add(&[cluster, topic, partition], end);
                }
            }
            let member = [cluster, group, topic, partition, &*self.host, group, group];
            if let Some(committed) = position.committed {
                offset.add(&member, committed);
            }
            if let (Some(records), Some(age)) = (position.lag(), place.age(now_ms)) {
                lag.add(&member, records);
                seconds.add(&member, age.as_secs_f64());
            }
        }
        all.add(&[cluster, group], positions.lag());
        let known = || positions.partitions().iter();
        if let Some(largest) = known().filter_map(|place| place.position.lag()).max() {
            max.add(&[cluster, group], largest);
        }
        if let Some(oldest) = known().filter_map(|place| place.age(now_ms)).max() {
            max_seconds.add(&[cluster, group], oldest.as_secs_f64());
        }
        [latest, earliest, offset, lag, seconds, topic_sum, all, max, max_seconds].map(Family::into_text).into()
    }
}

fn sum<'a>(places: impl IntoIterator<Item = &'a Place>) -> u64 {
    places.into_iter().filter_map(|place| place.position.lag()).fold(0, u64::saturating_add)
}

/// All names of other exporters, by whose they are.
pub(super) fn compatible_metrics() -> impl Iterator<Item = (CompatibleNames, &'static Metric)> {
    let of = |names, metrics: &'static [Metric]| metrics.iter().map(move |metric| (names, metric));
    of(CompatibleNames::KafkaExporter, &KAFKA_EXPORTER)
        .chain(of(CompatibleNames::KafkaLagExporter, &KAFKA_LAG_EXPORTER))
}

/// The part of the reference page about them.
pub(super) fn compatible_reference() -> String {
    let mut page = format!(
        "## Names of other exporters\n\n\
         With `report.compatible_names = [\"{}\", \"{}\"]` the same numbers come under these names as well. The group is\n\
         `report.consumer_group.group`, or else the application's name; `cluster_name` is the cluster's id, `consumer_id` and\n\
         `client_id` are the group. Without it none of them is there: where such an exporter watches the same group, sums over\n\
         all instances would count it twice. The bound of {PARTITION_SERIES_MAX} partitions holds for them, too.\n\n\
         | Of | Name | Unit | Labels | Meaning |\n|---|---|---|---|---|\n",
        CompatibleNames::KafkaExporter.as_str(),
        CompatibleNames::KafkaLagExporter.as_str(),
    );
    for (names, metric) in compatible_metrics() {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (of, labels) = (names.as_str(), labels.join(", "));
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| {of} | `{}` | {} | {labels} | {} |", metric.name, metric.unit, metric.help);
    }
    page
}
