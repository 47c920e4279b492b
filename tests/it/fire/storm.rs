//! The storm: the main job under faults of every kind, one after the other in an order that a seed tells. The process is
//! killed, a COMMIT or its answer is lost, the database is killed, the broker is killed. In the end the tables equal what
//! Kafka's console consumer gives.
//!
//! The ordinary suite runs a small one; `scripts/storm` runs the long one.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, PgConnection};
use tempfile::TempDir;

use crate::{
    main_job::{
        recount::{OUTPUTS, Recount},
        tables::Tables,
    },
    support::{
        Cutter, Database, End, Fault, JobFile, Kafka, Process, Server, directstream, kafka as broker, kafka::Record,
        postgres, record, shared_kafka, wait_until,
    },
};

const PARTITIONS: i64 = 8;
const USERS: i64 = 1000;
/// A record without its own transaction, in a hundred.
const PLAIN_PERCENT: i64 = 60;
const INTERVAL_MS: u64 = 20;
/// Batches between one fault and the next, and beside those some more.
const BATCHES_PER_FAULT: u64 = 4;
const BATCHES: u64 = 200;
/// How long a recovery may take on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Sigkill,
    CommitLost,
    AnswerLost,
    DatabaseCrash,
    BrokerKill,
}

/// How often each is done, by `DIRECTSTREAM_STORM_*` or the ordinary suite's few.
fn schedule(all: bool, random: &mut Random) -> Vec<Kind> {
    let often = |kind, name: &str, default| vec![kind; usize::try_from(setting(name, default)).unwrap()];
    let mut faults = often(Kind::Sigkill, "KILLS", 6);
    if all {
        let mut lost = often(Kind::AnswerLost, "LOST_ANSWERS", 4);
        lost.iter_mut().step_by(2).for_each(|kind| *kind = Kind::CommitLost);
        faults.extend(lost);
        faults.extend(often(Kind::DatabaseCrash, "DATABASE_CRASHES", 1));
        faults.extend(often(Kind::BrokerKill, "BROKER_KILLS", 1));
    }
    for last in (1..faults.len()).rev() {
        faults.swap(last, usize::try_from(random.below(last as u64 + 1)).unwrap());
    }
    faults
}

fn setting(name: &str, default: u64) -> u64 {
    let name = format!("DIRECTSTREAM_STORM_{name}");
    std::env::var(&name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A small generator of pseudo-random numbers (xorshift64*), so that a seed tells the whole run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_in_postgres_equal_kafka_after_a_storm() {
    let (kafka, server) = tokio::join!(Kafka::start(broker()), Server::start(postgres()));
    let address = server.address(5432);
    let tables = Tables::Postgres(Database::create(&address).await);
    let cutter = Cutter::start(address.clone(), b"COMMIT\0").await;
    let url = tables.url().replace(&address, &cutter.address);
    survive(kafka, tables, &url, Some((server, cutter))).await;
}

/// There is no server and no connection: the program alone is killed.
#[tokio::test(flavor = "multi_thread")]
async fn tables_in_sqlite_equal_kafka_after_a_storm() {
    let tables = Tables::sqlite();
    let url = tables.url();
    survive(shared_kafka().await, tables, &url, None).await;
}

async fn survive(kafka: Kafka, tables: Tables, url: &str, database: Option<(Server, Cutter)>) {
    let seed = setting("SEED", u64::from(std::process::id()));
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let faults = schedule(database.is_some(), &mut random);
    let count = u64::try_from(faults.len()).unwrap();
    let records = setting("RECORDS", 20_000);
    let store = url.split(':').next().unwrap_or_default();
    eprintln!("seed {seed}, {records} records, {count} faults, {store}");
    let topic = kafka.topic(i32::try_from(PARTITIONS).unwrap()).await;
    produce(&kafka, &topic, i64::try_from(records).unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let each = records / u64::try_from(PARTITIONS).unwrap() / (count * BATCHES_PER_FAULT + BATCHES);
    job_file(folder.path(), &kafka, &topic, url, each.max(1));
    let mut storm = Storm::new(kafka, topic, tables, database, folder).await;
    let mut times = BTreeMap::<Kind, Vec<Duration>>::new();
    let part = storm.total / (count + 2);
    for (number, kind) in (0..).zip(faults) {
        storm.reach(number * part + random.below(part)).await;
        tokio::time::sleep(Duration::from_micros(random.below(2 * INTERVAL_MS * 1000))).await;
        times.entry(kind).or_default().push(storm.hit(kind).await);
    }
    let rows = storm.finish().await;
    eprintln!("{store}: {rows} rows equal Kafka; 0 missing, 0 doubled; `verify` finds nothing");
    eprintln!("{}", table(store, times));
}

/// Told after the comparison: nothing at all was missing or doubled, so nothing was after any kind of fault.
fn table(store: &str, times: BTreeMap<Kind, Vec<Duration>>) -> String {
    let mut text = format!("{store}: fault    times  lost  doubled  recovery: median  longest");
    for (kind, mut times) in times {
        times.sort_unstable();
        let (median, longest) = (times[times.len() / 2].as_secs_f64(), times[times.len() - 1].as_secs_f64());
        let (name, count) = (format!("{kind:?}"), times.len());
        write!(text, "\n{store}: {name:13} {count:4}  {:4}  {:7}  {median:15.2} s  {longest:5.2} s", 0, 0).unwrap();
    }
    text
}

/// A job at work.
struct Storm {
    kafka: Kafka,
    topic: String,
    tables: Tables,
    /// The database's server, and the proxy between it and the job.
    database: Option<(Server, Cutter)>,
    folder: TempDir,
    process: Option<Process>,
    /// One connection for many looks, until a crash ends it.
    watch: Option<PgConnection>,
    seen: Seen,
    /// All offsets of the topic.
    total: u64,
}

/// What is committed: offsets, and the term of ownership that the last batch was committed under.
#[derive(Clone, Copy, Default)]
struct Seen {
    offsets: u64,
    epoch: i64,
}

impl Storm {
    async fn new(
        kafka: Kafka,
        topic: String,
        tables: Tables,
        database: Option<(Server, Cutter)>,
        folder: TempDir,
    ) -> Self {
        let mut total = 0;
        for partition in 0..i32::try_from(PARTITIONS).unwrap() {
            total += u64::try_from(kafka.offsets(&topic, partition).await.1).unwrap();
        }
        let (process, watch, seen) = (None, None, Seen::default());
        let mut storm = Self { kafka, topic, tables, database, folder, process, watch, seen, total };
        storm.run();
        storm
    }

    fn job(&self) -> PathBuf {
        self.folder.path().join("job.toml")
    }

    fn run(&mut self) {
        self.process = Some(Process::run(&self.job(), &["--until-latest"]));
    }

    /// Whether all is done. A process that ended as one that wants to be started again is.
    fn done(&mut self) -> bool {
        let process = self.process.as_mut().unwrap();
        let Some(end) = process.status() else { return false };
        match end.code() {
            Some(0) => return true,
            Some(3) => eprintln!("the job ended with exit code 3 and is started again: {}", process.told()),
            _ => panic!("{end}: {}", process.told()),
        }
        self.run();
        false
    }

    /// What is committed now; what it was at the last look if that cannot be told now.
    async fn look(&mut self) -> Seen {
        let (offsets, batches) = (self.tables.own("offsets"), self.tables.own("batches"));
        let sql = format!(
            "SELECT CAST(coalesce(sum(until_offset), 0) AS bigint), \
             (SELECT CAST(coalesce(max(epoch), 0) AS bigint) FROM {batches}) FROM {offsets}"
        );
        let found: sqlx::Result<(i64, i64)> = if let Tables::Postgres(database) = &self.tables {
            let mut connection = match self.watch.take() {
                Some(connection) => connection,
                None => database.connect().await,
            };
            let found = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut connection).await;
            self.watch = found.is_ok().then_some(connection);
            found
        } else {
            self.tables.rows(sql).await.map(|rows| rows[0])
        };
        if let Ok((offsets, epoch)) = found {
            self.seen = Seen { offsets: u64::try_from(offsets).unwrap(), epoch };
        }
        self.seen
    }

    /// Waits until so many offsets are committed, and some are left.
    async fn reach(&mut self, offsets: u64) {
        wait_until("the job goes on", LIMIT, async || {
            assert!(!self.done(), "all is done before the last fault: a longer storm wants more records");
            self.look().await.offsets >= offsets
        })
        .await;
    }

    /// Does it to a job that has work left; how long it took from the fault to the next commit.
    async fn hit(&mut self, kind: Kind) -> Duration {
        let (mut before, start) = (self.look().await, Instant::now());
        match kind {
            Kind::Sigkill => {
                assert!(self.process.take().unwrap().kill(), "the process had ended by itself");
                self.run();
            }
            Kind::CommitLost => self.cut(Fault::CutBefore).await,
            Kind::AnswerLost => self.cut(Fault::CutAfter).await,
            Kind::DatabaseCrash => {
                self.watch = None;
                let (server, _) = self.database.as_ref().unwrap();
                server.kill().await;
                server.start_again().await;
            }
            Kind::BrokerKill => {
                self.kafka.server().kill().await;
                self.kafka.server().start_again().await;
                before = self.look().await;
            }
        }
        assert!(self.look().await.offsets < self.total, "{kind:?} came when all was done");
        wait_until("the next commit", LIMIT, async || {
            assert!(!self.done(), "{kind:?} came when all was done");
            let now = self.look().await;
            // What hits the process or its connection begins a new term; a broker does not.
            if kind == Kind::BrokerKill { now.offsets > before.offsets } else { now.epoch > before.epoch }
        })
        .await;
        start.elapsed()
    }

    /// Cuts the connection at the next COMMIT.
    async fn cut(&self, fault: Fault) {
        let (_, cutter) = self.database.as_ref().unwrap();
        let before = cutter.cuts();
        cutter.arm(fault);
        wait_until("a COMMIT is cut", LIMIT, async || cutter.cuts() > before).await;
    }

    /// Lets the job finish, and compares; how many rows there are.
    async fn finish(&mut self) -> usize {
        wait_until("the job ends", LIMIT, async || self.done()).await;
        let recount = Recount::of(&self.kafka, &self.topic, PARTITIONS).await;
        assert_eq!(u64::try_from(recount.end()).unwrap(), self.total, "Kafka lost records");
        recount.compare(&self.tables).await;
        let verified = directstream(&["verify"]).arg(self.job()).output().unwrap();
        assert!(verified.status.success(), "{verified:?}");
        recount.rows()
    }
}

/// Numbered records: each user's in one partition, some plain and some in transactions of which a tenth abort.
async fn produce(kafka: &Kafka, topic: &str, records: i64) {
    const TRANSACTION: usize = 500;
    let numbered = |id: i64| -> Record {
        let user = id * 7919 % USERS;
        let value = format!(r#"{{"id":{id},"user":"user-{user}","amount":{},"note":"some text to carry"}}"#, id % 97);
        record(value).partition(i32::try_from(user % PARTITIONS).unwrap())
    };
    let plain = records * PLAIN_PERCENT / 100;
    // In pieces, so that plain and transactional records are mixed in every partition.
    let mut transactions = 0;
    let piece = 5_000;
    for start in (0..records).step_by(piece) {
        let end = (start + i64::try_from(piece).unwrap()).min(records);
        let middle = start + (end - start) * plain / records;
        kafka.produce(topic, (start..middle).map(numbered).collect()).await;
        let inside: Vec<Record> = (middle..end).map(numbered).collect();
        let chunks = inside.chunks(TRANSACTION).map(|chunk| {
            transactions += 1;
            let end = if transactions % 10 == 0 { End::Abort } else { End::Commit };
            (end, chunk.to_vec())
        });
        kafka.transactions(topic, chunks.collect()).await;
    }
}

/// Three tables, in batches of `each` offsets per partition.
fn job_file(folder: &Path, kafka: &Kafka, topic: &str, url: &str, each: u64) {
    let rate = each * 1000 / INTERVAL_MS;
    let stream = format!("batch_interval = \"{INTERVAL_MS}ms\"\nmax_rate_per_partition = {rate}");
    JobFile::new(kafka.brokers(), topic, url).name("storm").stream(stream).outputs(OUTPUTS).write(folder);
}
