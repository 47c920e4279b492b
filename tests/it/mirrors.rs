//! Copies of the committed offsets, read with the tools that read them in the field: Kafka's `kafka-consumer-groups` and
//! ZooKeeper's `zkCli`.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    types::RDKafkaErrorCode,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    End, JobFile, Kafka, Process, Server, ZOOKEEPER_PORT, death, directstream, fresh_database, kafka, record,
    shared_kafka, shared_zookeeper, unique, wait_until, zookeeper,
};

/// Enough for anything, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(60);
/// So soon after its server is back a mirror shows everything.
const CAUGHT_UP: Duration = Duration::from_secs(10);
const PARTITIONS: i32 = 2;

/// What a broker says that has just come back.
const COMING_BACK: [RDKafkaErrorCode; 3] = [
    RDKafkaErrorCode::NotCoordinator,
    RDKafkaErrorCode::CoordinatorLoadInProgress,
    RDKafkaErrorCode::CoordinatorNotAvailable,
];

/// A job over a topic of two partitions into a SQLite file, and its mirrors.
struct World {
    folder: TempDir,
    kafka: Kafka,
    topic: String,
    group: String,
    metrics: String,
    /// Every setting as `--set` takes it.
    settings: Vec<String>,
}

impl World {
    async fn new() -> Self {
        Self::on("sqlite:job.db").await
    }

    async fn on(store: &str) -> Self {
        Self::with(shared_kafka().await, store).await
    }

    async fn with(kafka: Kafka, store: &str) -> Self {
        let topic = kafka.topic(PARTITIONS).await;
        let folder = tempfile::tempdir().unwrap();
        let output = "[[output]]\ntable = \"records\"\ncreate = true\ncolumns.id = { from = \"value\" }\n";
        let job = JobFile::new(kafka.brokers(), &topic, store).input("format = \"text\"").outputs(output);
        job.write(folder.path());
        // Nobody else takes it meanwhile: the ports of the test servers lie elsewhere.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let metrics = format!("127.0.0.1:{port}");
        let settings = vec![format!("report.listen={metrics}")];
        let world = Self { folder, kafka, topic, group: unique("group"), metrics, settings };
        // A new cluster makes its topic of offsets when somebody first asks for some: no mirror is to wait for that.
        assert_eq!(world.in_group().await, [-1, -1]);
        world
    }

    fn with_group(mut self) -> Self {
        self.settings.push(format!("report.consumer_group.group={}", self.group));
        self
    }

    /// Below a path that is not there yet.
    fn with_zookeeper(mut self, server: &Server, more: &[&str]) -> Self {
        let connect = format!("report.zookeeper.connect={}{}", server.address(ZOOKEEPER_PORT), self.chroot());
        self.settings.push(connect);
        self.settings.push(format!("report.zookeeper.group={}", self.group));
        self.settings.extend(more.iter().map(|setting| format!("report.zookeeper.{setting}")));
        self
    }

    fn chroot(&self) -> String {
        format!("/{}/mirrored", self.topic)
    }

    fn node(&self, path: &str) -> String {
        format!("{}/consumers/{}/{path}", self.chroot(), self.group)
    }

    fn sets(&self) -> Vec<&str> {
        self.settings.iter().flat_map(|setting| ["--set", setting.as_str()]).collect()
    }

    fn run(&self, arguments: &[&str], failpoints: &str) -> Process {
        let mut command = directstream(&["run", "job.toml"]);
        command.args(self.sets()).args(arguments).current_dir(self.folder.path());
        command.env("FAILPOINTS", failpoints);
        Process::start(command, self.folder.path().join(unique("stderr")))
    }

    /// A run that ends by itself.
    async fn until_latest(&self) {
        assert_eq!(self.run(&["--until-latest"], "").code(LIMIT).await, 0);
    }

    /// A command that succeeds.
    fn command(&self, arguments: &[&str]) {
        let mut command = directstream(arguments);
        let ran = command.args(self.sets()).current_dir(self.folder.path()).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let told = String::from_utf8(ran.stderr).unwrap();
        assert!(!told.contains("not mirrored"), "{told}");
    }

    async fn produce(&self, count: usize) {
        let records = (0..count).map(|n| record(n.to_string()).partition(i32::try_from(n).unwrap() % PARTITIONS));
        self.kafka.produce(&self.topic, records.collect()).await;
    }

    /// The stored offsets by partition; none while there is no table. Right after a kill the file wants recovery, which only a
    /// writer can do.
    async fn stored(&self) -> Option<Vec<i64>> {
        use sqlx::{Connection as _, SqliteConnection};
        let url = format!("sqlite:{}?mode=rw", self.folder.path().join("job.db").display());
        let mut connection = SqliteConnection::connect(&url).await.ok()?;
        let sql = "SELECT until_offset FROM directstream_offsets ORDER BY partition";
        let rows: Vec<(i64,)> = sqlx::query_as(sql).fetch_all(&mut connection).await.ok()?;
        Some(rows.into_iter().map(|row| row.0).collect())
    }

    async fn stores(&self, offsets: &[i64]) {
        wait_until("it is committed", LIMIT, async || self.stored().await.as_deref() == Some(offsets)).await;
    }

    /// What the group has by partition, read by a client that has not joined it; -1: nothing. `None` where the broker that
    /// keeps the group has just come back, and does not know yet that it does.
    async fn found_in_group(&self) -> Option<Vec<i64>> {
        let (kafka, group, topic) = (self.kafka.clone(), self.group.clone(), self.topic.clone());
        let look = move || {
            let consumer: BaseConsumer = kafka.client().set("group.id", &group).create().unwrap();
            let mut list = TopicPartitionList::new();
            for partition in 0..PARTITIONS {
                list.add_partition(&topic, partition);
            }
            let committed = match consumer.committed_offsets(list, LIMIT) {
                Err(error) if error.rdkafka_error_code().is_some_and(|code| COMING_BACK.contains(&code)) => {
                    return None;
                }
                committed => committed.unwrap(),
            };
            let offset = |partition| committed.find_partition(&topic, partition)?.offset().to_raw();
            let offset = |partition| offset(partition).filter(|offset| *offset >= 0).unwrap_or(-1);
            Some((0..PARTITIONS).map(offset).collect())
        };
        tokio::task::spawn_blocking(look).await.unwrap()
    }

    async fn in_group(&self) -> Vec<i64> {
        self.found_in_group().await.unwrap()
    }

    async fn group_shows(&self, offsets: &[i64], limit: Duration) {
        wait_until("the group shows it", limit, async || self.found_in_group().await.as_deref() == Some(offsets)).await;
    }

    /// Current offset, end of the log and lag of each partition, as `kafka-consumer-groups --describe` has them.
    async fn described(&self) -> Vec<[String; 3]> {
        let (told, _) =
            self.kafka.tool("kafka-consumer-groups", &["--describe", "--group", &self.group]).await.unwrap();
        let mut rows: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
        rows.retain(|row: &Vec<&str>| row.get(1) == Some(&&*self.topic));
        rows.sort_by_key(|row| row[2].to_owned());
        rows.into_iter().map(|row| [3, 4, 5].map(|column: usize| row[column].to_owned())).collect()
    }

    /// The value of a metric of a mirror.
    fn metric(&self, name: &str, mirror: &str) -> Option<f64> {
        self.series(&format!("directstream_mirror_{name}{{mirror=\"{mirror}\"}}"))
    }

    /// The value of a series.
    fn series(&self, series: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(&self.metrics).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?.parse().ok()
    }
}

/// What `zkCli` says to a command; everything that its own log does not say.
async fn zk(server: &Server, commands: &[&str]) -> Vec<String> {
    let script = format!("printf '{}\\n' | zkCli.sh -server localhost:2181 2>&1; true", commands.join("\\n"));
    let (told, _) = server.run(&["bash", "-c", &script]).await.unwrap();
    told.lines().map(str::to_owned).collect()
}

/// The offset in a node; `None` while it is not there.
async fn zk_offset(server: &Server, path: &str) -> Option<i64> {
    zk(server, &[&format!("get {path}")]).await.iter().find_map(|line| line.parse().ok())
}

#[tokio::test]
async fn both_mirrors_show_what_is_committed_to_the_tools_that_read_them() {
    let server = shared_zookeeper().await;
    let world = World::new().await.with_group().with_zookeeper(server, &["digest=me:canary"]);
    world.produce(10).await;
    // A transaction's marker is the log's last entry: the lag is 0 all the same.
    let records = |from: i32| (from..from + 4).map(|n| record(n.to_string()).partition(n % PARTITIONS)).collect();
    world.kafka.transactions(&world.topic, vec![(End::Commit, records(0)), (End::Abort, records(4))]).await;
    let ends = [world.kafka.offsets(&world.topic, 0).await.1, world.kafka.offsets(&world.topic, 1).await.1];
    assert!(ends.iter().all(|end| *end > 9), "{ends:?}");

    let running = world.run(&[], "");
    world.stores(&ends).await;
    world.group_shows(&ends, LIMIT).await;
    let text = ends.map(|end| [end.to_string(), end.to_string(), "0".to_owned()]);
    assert_eq!(world.described().await, text);

    let node = world.node("offsets");
    wait_until("zookeeper shows it", LIMIT, async || {
        zk_offset(server, &format!("{node}/{}/1", world.topic)).await == Some(ends[1])
    })
    .await;
    let topic = &world.topic;
    let [ids, owner] = [world.node("ids"), world.node(&format!("owners/{topic}/0"))];
    let told = zk(
        server,
        &[
            &format!("ls {node}/{topic}"),
            &format!("get {node}/{topic}/0"),
            &format!("get {owner}"),
            &format!("ls {ids}"),
            &format!("getAcl {node}/{topic}/0"),
            &format!("stat {owner}"),
        ],
    )
    .await;
    let has = |line: &str| told.iter().any(|told| told == line);
    assert!(has("[0, 1]") && has(&ends[0].to_string()), "{told:#?}");
    let owner = told.iter().find(|line| line.ends_with("-0") && line.starts_with(&world.group)).expect("an owner");
    let consumer = owner.strip_suffix("-0").unwrap();
    assert!(has(&format!("[{consumer}]")), "{told:#?}");
    // Everybody reads, and one changes: not by a password in the open.
    let acl = told.join("\n");
    assert!(acl.contains("'digest,'me:") && acl.contains("cdrwa") && acl.contains("'world,'anyone\n: r"), "{acl}");
    assert!(!acl.contains("canary") && acl.contains("ephemeralOwner = 0x"), "{acl}");
    assert!(!acl.contains("ephemeralOwner = 0x0\n"), "{acl}");
    let registered = zk(server, &[&format!("get {ids}/{consumer}")]).await;
    let registered: Value =
        registered.iter().find_map(|line| serde_json::from_str(line).ok().filter(Value::is_object)).unwrap();
    assert_eq!((&registered["version"], &registered["subscription"][topic]), (&1.into(), &1.into()));
    assert!(registered["timestamp"].as_str().unwrap().parse::<i64>().unwrap() > 0, "{registered}");

    // A stop writes what is committed, and takes away what only a living process has.
    world.produce(6).await;
    let ends = ends.map(|end| end + 3);
    world.stores(&ends).await;
    running.signal("TERM");
    let (code, told) = running.ended().await;
    assert_eq!(code, 143, "{told}");
    assert!(!told.contains("canary") && !told.contains("not mirrored"), "{told}");
    assert_eq!(world.in_group().await, ends);
    let told = zk(server, &[&format!("ls {ids}"), &format!("get {node}/{topic}/0")]).await;
    assert!(told.iter().any(|line| line == "[]") && told.contains(&ends[0].to_string()), "{told:#?}");

    // An operator's move goes further back, in the mirrors as well.
    world.command(&["offsets", "reset", "job.toml", "--to-offset", "2", "--execute"]);
    let text = ends.map(|end| ["2".to_owned(), end.to_string(), (end - 2).to_string()]);
    assert_eq!(world.described().await, text);
    assert_eq!(zk_offset(server, &format!("{node}/{topic}/1")).await, Some(2));
    world.until_latest().await;
    assert_eq!(world.in_group().await, ends);
    assert_eq!(zk_offset(server, &format!("{node}/{topic}/1")).await, Some(ends[1]));
}

#[tokio::test]
async fn batches_go_on_while_zookeeper_is_away_and_it_is_caught_up_within_ten_seconds() {
    let server = Server::start(zookeeper()).await;
    let world = World::new().await.with_zookeeper(&server, &[]);
    let node = world.node(&format!("offsets/{}/0", world.topic));
    let mut running = world.run(&[], "");
    let mut sent = 0;
    let batch = async |sent: &mut i64| {
        world.produce(20).await;
        *sent += 10;
        world.stores(&[*sent, *sent]).await;
    };
    batch(&mut sent).await;
    wait_until("zookeeper shows it", LIMIT, async || zk_offset(&server, &node).await == Some(sent)).await;
    for fault in ["pause", "kill"] {
        match fault {
            "pause" => server.pause().await,
            _ => server.kill().await,
        }
        let errors = world.metric("errors_total", "zookeeper").unwrap();
        let before = sent;
        let noticed = async || world.metric("errors_total", "zookeeper").is_some_and(|count| count > errors);
        batch(&mut sent).await;
        wait_until("it is noticed", LIMIT, noticed).await;
        batch(&mut sent).await;
        let lag = world.metric("lag_offsets", "zookeeper").unwrap();
        assert!(lag >= 2.0 * f64::from(i32::try_from(sent - before).unwrap()), "{fault}: {lag}");
        match fault {
            "pause" => server.unpause().await,
            _ => server.start_again().await,
        }
        let back = Instant::now();
        let caught_up = async || world.metric("lag_offsets", "zookeeper") == Some(0.0);
        wait_until("it is caught up", CAUGHT_UP, caught_up).await;
        eprintln!("{fault}: caught up after {:?}", back.elapsed());
        assert_eq!(zk_offset(&server, &node).await, Some(sent), "{fault}");
        running.runs();
    }
    // It costs a line every half minute, and the batches nothing.
    let told = running.told();
    let lines = told.matches("the committed offsets are not mirrored").count();
    assert!((1..=3).contains(&lines), "{told}");
    assert!(!told.contains("zookeeper_client"), "{told}");
    // A server that is away at the end does not hold it up.
    server.pause().await;
    world.produce(20).await;
    world.stores(&[sent + 10, sent + 10]).await;
    let asked = Instant::now();
    running.signal("TERM");
    assert_eq!(running.ended().await.0, 143);
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    server.unpause().await;
    // What was not written then is with the next start.
    world.until_latest().await;
    assert_eq!(zk_offset(&server, &node).await, Some(sent + 10));
}

#[tokio::test]
async fn batches_go_on_while_somebody_is_in_the_group_and_it_is_caught_up_within_ten_seconds() {
    let world = World::new().await.with_group();
    let mut running = world.run(&[], "");
    world.produce(10).await;
    world.group_shows(&[5, 5], LIMIT).await;
    // Another topic's reader takes the same group.
    let member = world.kafka.member_of(&world.group).await;
    world.produce(10).await;
    world.stores(&[10, 10]).await;
    let refused = async || {
        drop(member.poll(Duration::from_millis(10)));
        world.metric("errors_total", "consumer_group").is_some_and(|errors| errors >= 2.0)
    };
    wait_until("it is refused", LIMIT, refused).await;
    world.produce(10).await;
    world.stores(&[15, 15]).await;
    assert_eq!(world.metric("lag_offsets", "consumer_group"), Some(20.0));
    assert_eq!(world.in_group().await, [5, 5]);
    drop(member);
    world.group_shows(&[15, 15], CAUGHT_UP).await;
    wait_until("the metric falls", LIMIT, async || world.metric("lag_offsets", "consumer_group") == Some(0.0)).await;
    running.runs();
    let told = running.told();
    assert_eq!(told.matches("the committed offsets are not mirrored").count(), 1, "{told}");
    assert!(told.contains("a consumer has joined the group"), "{told}");
    running.signal("TERM");
    assert_eq!(running.ended().await.0, 143);
}

/// The one broker has the records and the group: while it is gone nothing is read and nothing is copied.
#[tokio::test]
async fn after_the_source_s_broker_was_killed_batches_go_on_and_the_group_is_caught_up_within_ten_seconds() {
    let world = World::with(Kafka::start(kafka()).await, "sqlite:job.db").await.with_group();
    let mut running = world.run(&[], "");
    world.produce(10).await;
    world.group_shows(&[5, 5], LIMIT).await;
    let mut sent = 5;
    for _ in 0..2 {
        let errors = world.series("directstream_errors_total{kind=\"unavailable\"}").unwrap();
        // These are read by the job, or they are not: the broker dies at once.
        world.produce(10).await;
        world.kafka.server().kill().await;
        let silent = async || {
            let silent = world.series("directstream_kafka_silent_seconds").is_some_and(|seconds| seconds > 1.0);
            silent || world.series("directstream_errors_total{kind=\"unavailable\"}").is_some_and(|now| now > errors)
        };
        wait_until("it is noticed", LIMIT, silent).await;
        running.runs();
        world.kafka.server().start_again().await;
        let back = Instant::now();
        world.produce(10).await;
        sent += 10;
        world.stores(&[sent, sent]).await;
        let stored = back.elapsed();
        let caught_up = async || world.metric("lag_offsets", "consumer_group") == Some(0.0);
        wait_until("the copy is caught up", CAUGHT_UP, caught_up).await;
        eprintln!("read after {stored:?}, copied after {:?}", back.elapsed());
        assert!(back.elapsed() < CAUGHT_UP, "{:?}", back.elapsed());
        world.group_shows(&[sent, sent], LIMIT).await;
    }
    running.signal("TERM");
    assert_eq!(running.ended().await.0, 143);
}

#[tokio::test]
async fn a_mirror_never_leads_and_is_mended_after_a_death_between_commit_and_copy() {
    let server = shared_zookeeper().await;
    let world = World::new().await.with_group().with_zookeeper(server, &[]);
    let node = world.node(&format!("offsets/{}/0", world.topic));
    world.produce(10).await;
    world.until_latest().await;
    assert_eq!(world.in_group().await, [5, 5]);
    // A commit that takes its time: the copies wait for it.
    let running = world.run(&[], "commit::before_commit=1*return(delay:3000)->off");
    wait_until("it runs", LIMIT, async || world.metric("errors_total", "zookeeper").is_some()).await;
    world.produce(10).await;
    wait_until("it is about to commit", LIMIT, async || running.told().contains("failpoint commit::before_commit"))
        .await;
    let mut held = 0;
    wait_until("it is committed and copied", LIMIT, async || {
        let copied = world.in_group().await;
        let stored = world.stored().await;
        if let Some(stored) = &stored {
            held += u32::from(*stored == [5, 5]);
            assert!(copied.iter().zip(stored).all(|(copied, stored)| copied <= stored), "{copied:?} {stored:?}");
        }
        copied == [10, 10]
    })
    .await;
    assert!(held > 1, "nobody looked while it was held up");
    running.signal("TERM");
    assert_eq!(running.ended().await.0, 143);

    // Killed with a batch committed, before one of the mirrors has heard of it.
    let dying = world.run(&[], &death("mirror::before_write", 2));
    wait_until("both have begun", LIMIT, async || {
        let done = |mirror: &str| world.metric("last_success_time_seconds", mirror).is_some_and(|time| time > 0.0);
        done("zookeeper") && done("consumer_group")
    })
    .await;
    world.produce(10).await;
    dying.dies("mirror::before_write", LIMIT).await;
    let stored = world.stored().await.unwrap();
    let behind: Vec<[String; 3]> = world.described().await;
    let copied: Vec<i64> = behind.iter().map(|row| row[0].parse().unwrap()).collect();
    let in_zookeeper = zk_offset(server, &node).await.unwrap();
    assert!(copied.iter().zip(&stored).all(|(copied, stored)| copied <= stored), "{copied:?} {stored:?}");
    assert!(in_zookeeper <= stored[0] && (in_zookeeper < stored[0] || copied[0] < stored[0]), "the fault hit nothing");
    nobody_is_there(server, &world).await;
    // Whether or not there is more to read, the start itself mends it.
    world.until_latest().await;
    let stored = world.stored().await.unwrap();
    assert_eq!(world.in_group().await, stored);
    assert_eq!(zk_offset(server, &node).await, Some(stored[0]));
}

/// The mirror alone, for the fault is to hit it and not another one: what is on its way already nobody calls back.
async fn overtaken(mirror: &str, with: impl FnOnce(World, &Server) -> World) {
    let (server, database) = (shared_zookeeper().await, fresh_database().await);
    let world = with(World::on(database.url()).await, server);
    let node = world.node(&format!("offsets/{}/0", world.topic));
    let shown = async || match mirror {
        "zookeeper" => zk_offset(server, &node).await,
        _ => world.in_group().await.first().copied(),
    };
    // One write at the start, and then the first one of a batch.
    let zombie = world.run(&[], "mirror::before_write=1*off->1*return(stop)->off");
    let begun = async || world.metric("last_success_time_seconds", mirror).is_some_and(|time| time > 0.0);
    wait_until("it has begun", LIMIT, begun).await;
    world.produce(10).await;
    zombie.stopped(LIMIT).await;
    assert_eq!(shown().await, Some(0));
    world.produce(10).await;
    // Beside it the port is taken.
    let successor = world.run(&["--take-over", "--until-latest", "--set", "report.listen=off"], "");
    assert_eq!(successor.code(LIMIT).await, 0);
    assert_eq!(shown().await, Some(10));
    zombie.signal("CONT");
    let (code, told) = zombie.ended().await;
    assert_eq!(code, 5, "{told}");
    assert_eq!(shown().await, Some(10));
    if mirror == "zookeeper" {
        nobody_is_there(server, &world).await;
    }
}

/// Whoever has ended is no consumer any more, and owns no partition: at once, or once ZooKeeper misses its session.
async fn nobody_is_there(server: &Server, world: &World) {
    let look = [format!("ls {}", world.node("ids")), format!("ls {}", world.node(&format!("owners/{}", world.topic)))];
    wait_until("nobody is there", CAUGHT_UP, async || {
        zk(server, &look.each_ref().map(String::as_str)).await.iter().filter(|line| *line == "[]").count() == 2
    })
    .await;
}

#[tokio::test]
async fn a_process_that_was_overtaken_before_its_copy_writes_nothing_more_into_the_group() {
    overtaken("consumer_group", |world, _| world.with_group()).await;
}

#[tokio::test]
async fn a_process_that_was_overtaken_before_its_copy_writes_nothing_more_into_zookeeper() {
    overtaken("zookeeper", |world, server| world.with_zookeeper(server, &[])).await;
}
