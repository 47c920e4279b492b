//! Kafka's own command-line tools, and a recount by its console consumer: another client, in another language, that shares no
//! code with what is tested.

use std::process::Command;

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use tokio::task::spawn_blocking;

use super::{
    kafka::{Kafka, LIMIT},
    unique,
};

/// The broker's address for tools that run in its container.
const INSIDE: &str = "localhost:9093";
/// What the console consumer prints for a missing key or value.
const NULL: &str = "<null>";

/// A record as the console consumer shows it: printable bytes as they are, others as `\x00`; never cut at a newline or tab.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    /// `name:value` pairs joined by commas, or `NO_HEADERS`.
    pub(crate) headers: String,
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
}

impl Kafka {
    /// Runs one of Kafka's tools, such as `kafka-configs`, against the broker; what it printed, stdout and stderr apart.
    ///
    /// # Errors
    /// The tool fails: all that it printed.
    pub(crate) async fn tool(&self, name: &str, arguments: &[&str]) -> Result<(String, String), String> {
        if !self.servers().is_empty() {
            let tool = format!("/opt/kafka/bin/{name}.sh");
            let command = [&[tool.as_str(), "--bootstrap-server", INSIDE], arguments].concat();
            return self.server().run(&command).await;
        }
        // A broker of the user's own: its tools must be in the PATH.
        let mut command = Command::new(format!("{name}.sh"));
        command.args(["--bootstrap-server", self.brokers()]).args(arguments);
        let done = spawn_blocking(move || command.output()).await.unwrap();
        let output = done.map_err(|error| format!("with TEST_KAFKA, {name}.sh must be in the PATH: {error}"))?;
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if output.status.success() {
            Ok((out, err))
        } else {
            Err(format!("{name} ended with {}: {out}{err}", output.status))
        }
    }

    /// All records of a topic that a `read_committed` reader gets, sorted by partition and offset.
    ///
    /// The console consumer ends when nothing came for a while, which a slow machine could do in the middle. So its group's
    /// positions are compared with the topic's stable ends, and it runs again with more patience if it fell short.
    pub(crate) async fn recount(&self, topic: &str) -> Vec<Seen> {
        for patience in ["1000", "5000", "20000"] {
            let group = unique("recount");
            let mut arguments = vec!["--topic", topic, "--group", &group, "--from-beginning", "--timeout-ms", patience];
            arguments.extend(["--isolation-level", "read_committed"]);
            let null = format!("null.literal={NULL}");
            let bytes = "deserializer=org.apache.kafka.common.serialization.BytesDeserializer";
            let [keys, values] = ["key", "value"].map(|what| format!("{what}.{bytes}"));
            let parts = ["timestamp", "partition", "offset", "headers", "key"].map(|part| format!("print.{part}=true"));
            for property in parts.iter().chain([&null, &keys, &values]) {
                arguments.extend(["--property", property]);
            }
            let (out, err) = self.tool("kafka-console-consumer", &arguments).await.unwrap();
            if self.read_all(topic, &group).await {
                let mut seen: Vec<_> = out.lines().map(parse).collect();
                let processed = format!("Processed a total of {} messages", seen.len());
                assert!(err.contains(&processed), "{} lines, but: {err}", seen.len());
                seen.sort_unstable();
                return seen;
            }
        }
        panic!("the console consumer did not reach the end of {topic}");
    }

    /// Whether the group's positions are the stable ends of all partitions.
    async fn read_all(&self, topic: &str, group: &str) -> bool {
        let (mut client, topic) = (self.client(), topic.to_owned());
        client.set("group.id", group);
        spawn_blocking(move || {
            let consumer: BaseConsumer = client.create().unwrap();
            let metadata = consumer.fetch_metadata(Some(&topic), LIMIT).unwrap();
            let mut list = TopicPartitionList::new();
            for partition in metadata.topics()[0].partitions() {
                list.add_partition(&topic, partition.id());
            }
            let positions = consumer.committed_offsets(list, LIMIT).unwrap();
            positions.elements().iter().all(|at| {
                let (first, end) = consumer.fetch_watermarks(&topic, at.partition(), LIMIT).unwrap();
                first == end || at.offset().to_raw() == Some(end)
            })
        })
        .await
        .unwrap()
    }
}

/// `CreateTime:1 <tab> Partition:0 <tab> Offset:5 <tab> NO_HEADERS <tab> key <tab> value`; tabs inside come as `\x09`.
fn parse(line: &str) -> Seen {
    let parts: Vec<_> = line.split('\t').collect();
    let [time, partition, offset, headers, key, value] = parts[..] else { panic!("not a record: {line:?}") };
    let after = |part: &str| part.split_once(':').unwrap().1.to_owned();
    let known = |text: &str| (text != NULL).then(|| text.to_owned());
    Seen {
        partition: after(partition).parse().unwrap(),
        offset: after(offset).parse().unwrap(),
        key: known(key),
        value: known(value),
        headers: headers.to_owned(),
        timestamp: after(time).parse().unwrap(),
    }
}
