//! What to start: images, their settings, and the lines that say that they are ready.

use std::{borrow::Cow, collections::BTreeMap};

use testcontainers::{
    CopyToContainer,
    core::{AccessMode, ContainerPort, Mount, WaitFor},
};

/// A server's image with its settings. Every published port gets a fixed host port (see [`super::Server`]).
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) tag: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) files: Vec<CopyToContainer>,
    pub(crate) command: Vec<String>,
    /// Container ports to publish, each on a host port that the helper chose.
    pub(crate) ports: Vec<u16>,
    /// The server writes this line once per start, when it is ready. `true`: to stdout, else to stderr.
    pub(crate) ready: (String, bool),
    /// Variables whose value needs the host ports: `{9092}` stands for the host port of container port 9092.
    pub(crate) env_with_ports: BTreeMap<String, String>,
    pub(crate) hostname: Option<String>,
    pub(crate) network: Option<String>,
    /// It shares the machine's network, and reaches what listens on loopback there; published ports are its own to open.
    pub(crate) on_host: bool,
    /// Nothing can be written but to `small_disks`, and there are no capabilities.
    pub(crate) read_only: bool,
    /// File systems in memory, of a few bytes: where, and how many; and files of the machine.
    pub(crate) small_disks: Vec<Mount>,
}

/// The image that `variable` names, or `default`.
fn image_from_env(variable: &str, default: &str) -> (String, String) {
    let full = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    // A colon in the last path segment starts the tag; one before that belongs to a registry's port.
    match full.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (full, "latest".to_owned()),
    }
}

impl Image {
    fn new(variable: &str, default: &str, ports: &[u16], ready: (&str, bool)) -> Self {
        let (name, tag) = image_from_env(variable, default);
        Self {
            name,
            tag,
            env: BTreeMap::new(),
            files: Vec::new(),
            command: Vec::new(),
            ports: ports.to_vec(),
            ready: (ready.0.to_owned(), ready.1),
            env_with_ports: BTreeMap::new(),
            hostname: None,
            network: None,
            on_host: false,
            read_only: false,
            small_disks: Vec::new(),
        }
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn env_with_ports(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env_with_ports.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    pub(crate) fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push(CopyToContainer::new(content.into(), path));
        self
    }

    /// A file system of so many bytes, which everybody in the container may write to.
    pub(crate) fn small_disk(mut self, path: &str, bytes: i64) -> Self {
        self.small_disks.push(Mount::tmpfs_mount(path).with_size_bytes(bytes).with_mode(0o1777));
        self
    }

    pub(crate) fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|&w| w.to_owned()).collect();
        self
    }
}

/// The client port of a broker.
pub(crate) const KAFKA_PORT: u16 = 9092;
/// The port of PostgreSQL.
pub(crate) const POSTGRES_PORT: u16 = 5432;
/// The client port of ZooKeeper.
pub(crate) const ZOOKEEPER_PORT: u16 = 2181;

/// One Kafka broker that is its own controller. Port 9092 is for clients; 9093 is for use inside the container: a broker
/// whose only listener is advertised at a port of the host cannot reach itself, and its transactions time out.
pub(crate) fn kafka() -> Image {
    Image::new("TEST_KAFKA_IMAGE", "apache/kafka:4.1.2", &[KAFKA_PORT], ("Kafka Server started", true))
        .env("CLUSTER_ID", "5L6g3nShT-eMCtK--X86sw")
        .env("KAFKA_NODE_ID", "1")
        .env("KAFKA_PROCESS_ROLES", "broker,controller")
        .env("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@localhost:9094")
        .env("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER")
        .env("KAFKA_INTER_BROKER_LISTENER_NAME", "INTERNAL")
        .env("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT")
        .env("KAFKA_LISTENERS", "CLIENT://0.0.0.0:9092,INTERNAL://0.0.0.0:9093,CONTROLLER://0.0.0.0:9094")
        .env_with_ports("KAFKA_ADVERTISED_LISTENERS", "CLIENT://127.0.0.1:{9092},INTERNAL://localhost:9093")
        .env("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1")
        .env("KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS", "1")
        .env("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
        .env("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1")
        .env("KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS", "1")
        .env("KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR", "1")
        .env("KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR", "1")
        .env("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0")
        .env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
        // A broker killed by SIGKILL may register again only when its old session is over: by default 9 s.
        .env("KAFKA_BROKER_HEARTBEAT_INTERVAL_MS", "500")
        .env("KAFKA_BROKER_SESSION_TIMEOUT_MS", "3000")
        .env("KAFKA_HEAP_OPTS", "-Xms256m -Xmx512m")
        .env("KAFKA_JVM_PERFORMANCE_OPTS", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1")
}

/// The brokers of one cluster; `network` must be new and unique. Start all at once: none is ready alone.
pub(crate) fn kafka_cluster(network: &str, brokers: u32) -> Vec<Image> {
    let host = |id: u32| format!("{network}-{id}");
    let voters: Vec<_> = (1..=brokers).map(|id| format!("{id}@{}:9094", host(id))).collect();
    (1..=brokers)
        .map(|id| {
            let mut image = kafka()
                .env("KAFKA_NODE_ID", id.to_string())
                .env("KAFKA_CONTROLLER_QUORUM_VOTERS", voters.join(","))
                .env("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", brokers.to_string())
                .env("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", brokers.to_string())
                .env("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", (brokers / 2 + 1).to_string())
                .env("KAFKA_MIN_INSYNC_REPLICAS", (brokers / 2 + 1).to_string())
                .env_with_ports(
                    "KAFKA_ADVERTISED_LISTENERS",
                    format!("CLIENT://127.0.0.1:{{9092}},INTERNAL://{}:9093", host(id)),
                );
            image.hostname = Some(host(id));
            image.network = Some(network.to_owned());
            image
        })
        .collect()
}

/// PostgreSQL, user, password and database "postgres". Durable as in production: tests of crashes rely on it.
pub(crate) fn postgres() -> Image {
    let ready = ("database system is ready to accept connections", false);
    Image::new("TEST_POSTGRES_IMAGE", "postgres:15", &[POSTGRES_PORT], ready).env("POSTGRES_PASSWORD", "postgres")
}

/// The port of Prometheus's web server.
pub(crate) const PROMETHEUS_PORT: u16 = 9090;

/// Prometheus on the machine's own network, with these files; it reads `/etc/prometheus/prometheus.yml`. `promtool` is in it.
pub(crate) fn prometheus(files: &[(&str, &str)]) -> Image {
    let ready = ("Server is ready to receive web requests", false);
    let mut image = Image::new("TEST_PROMETHEUS_IMAGE", "prom/prometheus:v2.53.4", &[PROMETHEUS_PORT], ready);
    image.on_host = true;
    let image = files.iter().fold(image, |image, (path, content)| image.file(path, *content));
    image.command(&[
        "--config.file=/etc/prometheus/prometheus.yml",
        "--storage.tsdb.path=/prometheus",
        "--web.listen-address=127.0.0.1:{9090}",
    ])
}

/// The image `name` of the program itself, on the machine's own network, as carefully as it is meant to be run: its file
/// system is read-only, but for `/tmp`. `job` is a file of the machine.
pub(crate) fn program(name: &str, job: &str) -> Image {
    let ready = ("to=running", false);
    let mut image = Image::new("NONE", name, &[], ready);
    (image.on_host, image.read_only) = (true, true);
    image.small_disks.push(Mount::bind_mount(job, "/etc/directstream/job.toml").with_access_mode(AccessMode::ReadOnly));
    image.small_disk("/tmp", 16 << 20)
}

/// One ZooKeeper server. A short tick, so that sessions of 6 s are not made longer.
pub(crate) fn zookeeper() -> Image {
    let ready = ("PrepRequestProcessor (sid:0) started", true);
    Image::new("TEST_ZOOKEEPER_IMAGE", "zookeeper:3.9.4", &[ZOOKEEPER_PORT], ready)
        .env("ZOO_TICK_TIME", "500")
        .env("ZOO_ADMINSERVER_ENABLED", "false")
}

impl testcontainers::Image for Image {
    fn name(&self) -> &str {
        &self.name
    }

    fn tag(&self) -> &str {
        &self.tag
    }

    fn ready_conditions(&self) -> Vec<WaitFor> {
        match &self.ready {
            (line, true) => vec![WaitFor::message_on_stdout(line)],
            (line, false) => vec![WaitFor::message_on_stderr(line)],
        }
    }

    fn env_vars(&self) -> impl IntoIterator<Item = (impl Into<Cow<'_, str>>, impl Into<Cow<'_, str>>)> {
        &self.env
    }

    fn mounts(&self) -> impl IntoIterator<Item = &Mount> {
        &self.small_disks
    }

    fn copy_to_sources(&self) -> impl IntoIterator<Item = &CopyToContainer> {
        &self.files
    }

    fn cmd(&self) -> impl IntoIterator<Item = impl Into<Cow<'_, str>>> {
        &self.command
    }

    fn expose_ports(&self) -> &[ContainerPort] {
        &[]
    }
}
