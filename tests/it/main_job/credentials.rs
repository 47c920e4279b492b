//! A new password for Kafka while everything runs that logs in with it: a job file with a mirror, a program whose results are
//! topics, and one with an outbox.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use directstream::{
    stream::{DirectStream, StreamingContext},
    transform::KafkaOutput,
    types::KafkaRecord,
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};
use tempfile::TempDir;

use super::tables::Tables;
use crate::support::{JobFile, Kafka, Process, directstream, kafka as image, record, unique, wait_until};

/// Enough for anything, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(90);
/// Where clients have to log in; they need not where the tests' own do.
const LOGIN_PORT: u16 = 9095;
const USER: &str = "orders";

async fn broker() -> Kafka {
    let names = ["CLIENT", "LOGIN", "INTERNAL", "CONTROLLER"];
    let protocols = names.map(|name| format!("{name}:{}PLAINTEXT", if name == "LOGIN" { "SASL_" } else { "" }));
    let addresses: Vec<_> = names
        .iter()
        .zip([9092, LOGIN_PORT, 9093, 9094])
        .map(|(name, port)| format!("{name}://0.0.0.0:{port}"))
        .collect();
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let advertised =
        format!("CLIENT://127.0.0.1:{{9092}},LOGIN://127.0.0.1:{{{LOGIN_PORT}}},INTERNAL://localhost:9093");
    let image = image()
        .port(LOGIN_PORT)
        .env("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", protocols.join(","))
        .env("KAFKA_LISTENERS", addresses.join(","))
        .env_with_ports("KAFKA_ADVERTISED_LISTENERS", advertised)
        .env("KAFKA_LISTENER_NAME_LOGIN_SASL_ENABLED_MECHANISMS", "SCRAM-SHA-256")
        .env("KAFKA_LISTENER_NAME_LOGIN_SCRAM___SHA___256_SASL_JAAS_CONFIG", scram)
        // Open connections have to log in again.
        .env("KAFKA_LISTENER_NAME_LOGIN_SCRAM___SHA___256_CONNECTIONS_MAX_REAUTH_MS", "2000");
    Kafka::start(image).await
}

async fn set_password(kafka: &Kafka, password: &str) {
    let config = format!("SCRAM-SHA-256=[iterations=4096,password={password}]");
    let words = ["--alter", "--add-config", &config, "--entity-type", "users", "--entity-name", USER];
    kafka.tool("kafka-configs", &words).await.unwrap();
}

struct World {
    kafka: Kafka,
    login: String,
    source: String,
    folder: TempDir,
}

impl World {
    /// With a broker that knows the user, and records.
    async fn start() -> Self {
        let kafka = broker().await;
        set_password(&kafka, "canary-one").await;
        let source = kafka.topic(1).await;
        let login = kafka.server().address(LOGIN_PORT);
        let world = Self { kafka, login, source, folder: tempfile::tempdir().unwrap() };
        fs::write(world.file(), "canary-one\n").unwrap();
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &world.login).set("sasl.password", "canary-one");
        for (key, value) in world.properties().into_iter().filter(|(key, _)| key != "sasl.password.file") {
            client.set(key, value);
        }
        let client: BaseConsumer = client.create().unwrap();
        wait_until("the broker knows the user", LIMIT, async || client.fetch_metadata(None, LIMIT / 30).is_ok()).await;
        world.produce(0..10).await;
        world
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    fn properties(&self) -> [(String, String); 4] {
        let file = self.file().display().to_string();
        [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.username", USER),
            ("sasl.password.file", &file),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
    }

    /// The job file's program, with a mirror into a consumer group.
    fn job(&self, tables: &Tables, group: &str) -> Process {
        let properties = self.properties().map(|(key, value)| format!("{key:?} = {value:?}")).join(", ");
        let output = "[[output]]\ntable = \"events\"\ncreate = true\n[output.columns]\n\
                      part = { from = \"partition\", type = \"bigint\" }\noff = { from = \"offset\", type = \"bigint\" }\n";
        let job =
            JobFile::new(&self.login, &self.source, &tables.url()).kafka(format!("properties = {{ {properties} }}"));
        let job = job
            .input("format = \"text\"")
            .outputs(output)
            .report(format!("listen = \"off\"\nconsumer_group = {{ group = \"{group}\" }}"));
        let mut command = directstream(&["run"]);
        command.arg(job.write(self.folder.path())).env("DIRECTSTREAM_LOG", "info");
        Process::start(command, self.folder.path().join("stderr"))
    }

    fn stream(&self) -> DirectStream {
        let stream = DirectStream::topics([&self.source]).bootstrap_servers(&self.login);
        self.properties().into_iter().fold(stream, |stream, (key, value)| stream.property(key, value))
    }

    /// A program that copies records: in transactions of Kafka where `outbox` is false, else by way of a table.
    async fn copies(&self, store: &str, target: &str, outbox: bool) -> StreamingContext {
        let name = unique("copies");
        let context =
            StreamingContext::builder(&name, Duration::from_millis(100)).store(store).unwrap().build().unwrap();
        let to = target.to_owned();
        let copies = context
            .direct_stream(self.stream())
            .unwrap()
            .map(move |record| KafkaRecord::to(&to).value(record.value().unwrap_or_default()));
        if outbox {
            let output = KafkaOutput::bootstrap_servers(&self.login);
            let output = self.properties().into_iter().fold(output, |output, (key, value)| output.property(key, value));
            copies.save_to_kafka_outbox(output).unwrap();
        } else {
            copies.save_to_kafka().unwrap();
        }
        context.start().await.unwrap();
        context
    }

    async fn produce(&self, numbers: std::ops::Range<i32>) {
        self.kafka.produce(&self.source, numbers.map(|n| record(n.to_string())).collect()).await;
    }

    /// How many records the topic has, markers of transactions included.
    async fn in_topic(&self, topic: &str) -> i64 {
        self.kafka.offsets(topic, 0).await.1
    }
}

async fn tells(job: &Process, what: &str) {
    wait_until(what, LIMIT, async || job.told().contains(what)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_kafka_password_is_taken_while_everything_runs() {
    let world = World::start().await;
    let [by_transaction, by_outbox] = [world.kafka.topic(1).await, world.kafka.topic(1).await];
    let (tables, store, group) = (Tables::sqlite(), Tables::sqlite(), unique("mirror"));
    let mut job = world.job(&tables, &group);
    let contexts =
        [world.copies("kafka:", &by_transaction, false).await, world.copies(&store.url(), &by_outbox, true).await];
    let read_by_all = async |count: u64| {
        let so_far = || contexts.each_ref().map(|context| context.reporter().totals().records);
        let committed = i64::try_from(count).unwrap();
        wait_until("all have read it", LIMIT, async || {
            so_far() == [count; 2] && tables.committed().await == Some(committed)
        })
        .await;
        wait_until("the outbox has sent it", LIMIT, async || world.in_topic(&by_outbox).await == committed).await;
    };
    read_by_all(10).await;

    // The password changes on one side. Open connections are asked for it, and after a restart there is none of before.
    assert!(!job.told().contains("Authentication"), "{}", job.told());
    set_password(&world.kafka, "canary-two").await;
    tells(&job, "Authentication").await;
    world.kafka.server().kill().await;
    world.kafka.server().start_again().await;
    world.produce(10..20).await;
    // Between two steps of whoever changes the file.
    fs::remove_file(world.file()).unwrap();
    tells(&job, "the kafka credentials of before are kept: cannot read the file").await;
    job.runs();
    assert_ne!(tables.committed().await, Some(20), "nobody could log in");
    fs::write(world.file(), "canary-two").unwrap();
    read_by_all(20).await;

    // Once more, while nobody has anything to do.
    set_password(&world.kafka, "canary-three").await;
    fs::write(world.file(), "canary-three").unwrap();
    for client in ["planner", "reader", "committer"] {
        let line = format!("new kafka credentials are read, for connections to come client={client}");
        wait_until(&line, LIMIT, async || job.told().matches(&line).count() >= 2).await;
    }
    world.kafka.server().kill().await;
    world.kafka.server().start_again().await;
    world.produce(20..30).await;
    read_by_all(30).await;
    let described = async || {
        let words = ["--describe", "--offsets", "--group", &group];
        let (out, _) = world.kafka.tool("kafka-consumer-groups", &words).await.unwrap_or_default();
        out.lines().filter_map(|line| line.split_whitespace().nth(3)?.parse::<i64>().ok()).collect::<Vec<_>>()
    };
    wait_until("the mirror shows it", LIMIT, async || described().await == [30]).await;

    job.signal("TERM");
    let (code, told) = job.ended().await;
    assert_eq!(code, 143, "{told}");
    assert!(!told.contains("canary"), "{told}");
    for context in contexts {
        context.stop();
        context.await_termination().await.unwrap();
    }
    assert_eq!(tables.places().await, (0..30).map(|offset| (0, offset)).collect::<Vec<_>>());
    let expected: BTreeSet<String> = (0..30).map(|n| n.to_string()).collect();
    for target in [by_transaction, by_outbox] {
        let seen = world.kafka.recount(&target).await;
        let values: BTreeSet<String> = seen.iter().filter_map(|seen| seen.value.clone()).collect();
        assert_eq!((values, seen.len()), (expected.clone(), 30), "{target}");
    }
}
