//! The dashboard and the alerts against a real Prometheus that scrapes real jobs: what a panel is about is made to happen, and every
//! query of every panel moves.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

use directstream::config::CompatibleNames;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::program::Program;
use crate::support::{
    Database, End, JobFile, Kafka, PROMETHEUS_PORT, Process, Server, free_port, fresh_database, get, prometheus, query,
    record, shared_kafka, unique, wait_until,
};

/// Enough for anything, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(60);

const DASHBOARD: &str = include_str!("../../../docker/grafana/directstream.json");
const RULES: &str = include_str!("../../../docker/prometheus/directstream.rules.yml");
const RULE_TESTS: &str = include_str!("../../../docker/prometheus/directstream.rules.test.yml");

/// The group that the committed offsets are copied to.
const GROUP: &str = "watched";

const OUTPUT: &str = r#"
[[output]]
table = "records"
create = true
columns.id = { from = "value:/id", type = "bigint" }
"#;

/// A job that is watched: with a backlog that lasts, since it may read a hundred records a second of each partition.
pub(super) struct Watched {
    kafka: Kafka,
    topic: String,
    /// Another topic of the job, with nothing in it.
    doomed: String,
    /// Before and after the backlog was produced: seconds since 1970.
    produced: [f64; 2],
    database: Database,
    instance: String,
    prometheus: Server,
    /// Before Prometheus began.
    began: f64,
    job_file: PathBuf,
    job: Process,
    /// The same job once more, which waits for its death.
    standby: (String, Process),
    /// What no job file has.
    program: Program,
    _folder: tempfile::TempDir,
}

/// Seconds since 1970.
fn now() -> f64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

impl Watched {
    async fn start() -> Self {
        let (kafka, database) = (shared_kafka().await, fresh_database().await);
        let (topic, doomed) = (kafka.topic(2).await, kafka.topic(1).await);
        let folder = tempfile::tempdir().unwrap();
        let [instance, standby, program] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
        let names = CompatibleNames::ALL.map(|names| format!("\"{}\"", names.as_str())).join(", ");
        let topics = [&*topic, &*doomed].join("\", \"");
        let job_file = JobFile::new(kafka.brokers(), &topics, database.url())
            .kafka("on_data_loss = \"skip\"")
            .stream(
                "batch_interval = \"100ms\"\nmax_rate_per_partition = 100\n\
                 backpressure = { enabled = true, initial_rate = 1000 }",
            )
            .input("on_error = \"dead_letter\"")
            .report(format!(
                "listen = \"{instance}\"\ncompatible_names = [{names}]\nconsumer_group.group = \"{GROUP}\""
            ))
            .outputs(OUTPUT)
            .write(folder.path());
        let configuration = format!(
            "global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}\nrule_files: [quick.rules.yml]\n\
             scrape_configs:\n  - job_name: directstream\n    static_configs: [{{ targets: [\"{instance}\", \"{standby}\", \"{program}\"] }}]\n"
        );
        let image = prometheus(&[
            ("/etc/prometheus/prometheus.yml", &configuration),
            ("/etc/prometheus/quick.rules.yml", &quick(RULES)),
            ("/rules/directstream.rules.yml", RULES),
            ("/rules/directstream.rules.test.yml", RULE_TESTS),
        ]);
        let began = now();
        let program = Program::start(&kafka, database.url(), &program).await;
        let job = Process::run(&job_file, &[]);
        // Else it might be the standby that has it.
        wait_until("the job owns the application", LIMIT, async || answers(&instance, "/readyz")).await;
        let waits = Process::run(&job_file, &["--standby", "--set", &format!("report.listen={standby}")]);
        wait_until("the standby waits", LIMIT, async || answers(&standby, "/metrics")).await;
        let mut watched = Self {
            prometheus: Server::start(image).await,
            began,
            job,
            standby: (standby, waits),
            program,
            job_file,
            kafka,
            topic,
            doomed,
            produced: [0.0; 2],
            database,
            instance,
            _folder: folder,
        };
        // What comes while it is looked at has an age that is known.
        watched.shows(&watched.own("directstream_partition_latest_offset", " == 0")).await;
        let before = now();
        watched.produce(0, "{\"id\":1}", 30_000).await;
        watched.produced = [before, now()];
        watched.shows(&watched.own("directstream_records_total", " > 50")).await;
        watched
    }

    /// A metric of the job alone, and what is asked of it.
    fn own(&self, metric: &str, more: &str) -> String {
        format!("{metric}{{instance=\"{}\"}}{more}", self.instance)
    }

    /// The job once more. The topic that is gone is not asked for.
    fn start_again(&self, settings: &[&str], failpoints: &str) -> Process {
        let topics = format!("kafka.topics={}", self.topic);
        let arguments = [&["--set", &topics], settings].concat();
        Process::under_fire(&self.job_file, &arguments, failpoints, self.job_file.with_file_name(unique("stderr")))
    }

    async fn produce(&self, partition: i32, value: &str, count: usize) {
        let records = (0..count).map(|_| record(value).partition(partition)).collect();
        self.kafka.produce(&self.topic, records).await;
    }

    /// What Prometheus says to an expression: the numbers of its series, without those that are none.
    pub(super) fn numbers(&self, expression: &str) -> Result<Vec<f64>, String> {
        let answer = query(&self.prometheus.address(PROMETHEUS_PORT), "query", &[("query", expression)])?;
        let series = answer["result"].as_array().cloned().unwrap_or_default();
        let number = |series: &Value| series["value"][1].as_str()?.parse::<f64>().ok();
        Ok(series.iter().filter_map(number).filter(|number| number.is_finite()).collect())
    }

    /// Whether a series of the expression has had two numbers since Prometheus began. A filter would take one of them away.
    fn moved(&self, expression: &str) -> bool {
        let expression = expression.strip_suffix(" == 1").unwrap_or(expression);
        let [start, end] = [self.began, now()].map(|at| at.to_string());
        let parameters = [("query", expression), ("start", &*start), ("end", &*end), ("step", "0.5")];
        let answer = query(&self.prometheus.address(PROMETHEUS_PORT), "query_range", &parameters).unwrap();
        let numbers = |series: &Value| -> BTreeSet<String> {
            let values = series["values"].as_array().into_iter().flatten().filter_map(|value| value[1].as_str());
            values.filter(|text| text.parse::<f64>().is_ok_and(f64::is_finite)).map(str::to_owned).collect()
        };
        answer["result"].as_array().is_some_and(|all| all.iter().any(|series| numbers(series).len() > 1))
    }

    /// Waits until the expression has a series with a number.
    pub(super) async fn shows(&self, expression: &str) {
        let some =
            async || !self.numbers(expression).unwrap_or_else(|error| panic!("{expression}: {error}")).is_empty();
        wait_until(&format!("there is something to show for {expression}"), LIMIT, some).await;
    }

    /// Waits until an alert has fired.
    async fn fires(&self, alert: &str) {
        wait_until(&format!("{alert} fires"), LIMIT, async || self.has_fired(alert)).await;
    }

    /// Whether an alert has fired, ever.
    fn has_fired(&self, alert: &str) -> bool {
        let fired = format!("count_over_time(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}[10m])");
        !self.numbers(&fired).unwrap().is_empty()
    }

    /// What a variable of a dashboard offers.
    async fn offers(&self, label_values: &str) {
        let inside = label_values.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
        let (selector, label) = inside.rsplit_once(", ").unwrap();
        let found = async || {
            let series = query(&self.prometheus.address(PROMETHEUS_PORT), "series", &[("match[]", selector)]).unwrap();
            series.as_array().is_some_and(|series| series.iter().any(|labels| labels[label].is_string()))
        };
        wait_until(&format!("the variable offers something: {label_values}"), LIMIT, found).await;
    }

    /// An expression of a dashboard with everything chosen in its variables.
    fn chosen(&self, expression: &str) -> String {
        let text = expression.replace("$__rate_interval", "4s").replace("'$instance'", &format!("'{}'", self.instance));
        text.replace("$job", ".*").replace("$instance", ".*").replace("$topic", ".*")
    }
}

fn answers(instance: &str, path: &str) -> bool {
    get(instance, path).is_some_and(|(status, _)| status == 200)
}

/// The rules for a test: what takes minutes takes seconds. Each piece is there, or this would prove nothing.
fn quick(rules: &str) -> String {
    let pieces = [
        ("[15m:15s]", "[60s:500ms]"),
        ("[15m]", "[4s]"),
        ("[10m]", "[4s]"),
        ("[5m]", "[4s]"),
        ("for: 10m", "for: 0m"),
        ("for: 5m", "for: 0m"),
        // More than one scrape that nobody answers in time, as happens on a busy machine.
        ("for: 1m", "for: 3s"),
        ("> 120 + 10 *", "> 3 + 0 *"),
        ("> 60 + 10 *", "> 0 + 0 *"),
        ("silent_seconds > 60", "silent_seconds > 1"),
    ];
    pieces.into_iter().fold(rules.to_owned(), |rules, (slow, quick)| {
        assert!(rules.contains(slow), "{slow}");
        rules.replace(slow, quick)
    })
}

/// Title and expressions of each panel, and the queries of the variables.
fn panels_and_variables() -> (Vec<(String, String)>, Vec<String>) {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |panel: &Value| -> Vec<(String, String)> {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.iter().map(|target| (text(&panel["title"]), text(&target["expr"]))).collect()
    };
    let panels = dashboard["panels"].as_array().unwrap().iter().flat_map(of).collect();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let queries = variables.iter().filter(|variable| variable["type"] == "query");
    (panels, queries.map(|variable| text(&variable["query"]["query"])).collect())
}

/// What the dashboards that people have for kafka_exporter (number 7589) and kafka-lag-exporter ask.
const OTHERS: [&str; 13] = [
    "sum(rate(kafka_topic_partition_current_offset{topic=~\"$topic\"}[1m])) by (topic)",
    "sum(kafka_consumergroup_lag{topic=~\"$topic\"}) by (consumergroup, topic)",
    "sum(delta(kafka_topic_partition_current_offset{topic=~\"$topic\"}[5m])/5) by (topic)",
    "sum(delta(kafka_consumergroup_current_offset{topic=~\"$topic\"}[5m])/5) by (consumergroup, topic)",
    "sum by(topic) (kafka_topic_partitions{topic=~\"$topic\"})",
    "kafka_consumergroup_lag_sum",
    "kafka_consumergroup_current_offset_sum",
    "kafka_consumergroup_members == 1",
    "sum by (group) (kafka_consumergroup_group_max_lag_seconds)",
    "max by (cluster_name, group) (kafka_consumergroup_group_max_lag)",
    "topk(10, sum by (group, topic, partition, member_host) (kafka_consumergroup_group_lag_seconds))",
    "sum by (cluster_name, group, topic) (kafka_consumergroup_group_topic_sum_lag) > 0",
    "sum(kafka_partition_latest_offset) - sum(kafka_consumergroup_group_offset) >= 0",
];
const OTHERS_VARIABLES: [&str; 3] = [
    "label_values(kafka_consumergroup_current_offset, job)",
    "label_values(kafka_topic_partition_current_offset{instance='$instance',topic!='__consumer_offsets',topic!='--kafka'}, topic)",
    "label_values(kafka_consumergroup_group_offset, cluster_name)",
];

/// What this test does not make happen: a build stays the same, a batch begins as soon as it is planned, and the queue of a listener
/// that stands still has room for half an hour of batches.
const STILL: [&str; 3] = [
    "Versions: directstream_info",
    "Batches in hand: sum(directstream_waiting_batches",
    "Listeners: sum(directstream_listener_events_dropped_total",
];

/// What a panel or an alert is about is made to happen.
#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_every_alert_is_fed_by_a_real_job() {
    let mut watched = Watched::start().await;
    for part in ["check", "test"] {
        let file = if part == "check" { "directstream.rules.yml" } else { "directstream.rules.test.yml" };
        watched.prometheus.run(&["promtool", part, "rules", &format!("/rules/{file}")]).await.unwrap();
    }
    retention_moves(&watched).await;
    let (panels, variables) = panels_and_variables();
    assert!(panels.len() > 40 && variables.len() == 3, "{} {}", panels.len(), variables.len());
    for variable in variables.iter().map(String::as_str).chain(OTHERS_VARIABLES) {
        watched.offers(&watched.chosen(variable)).await;
    }
    for (title, expression) in &panels {
        eprintln!("{title}");
        watched.shows(&watched.chosen(expression)).await;
    }
    for expression in OTHERS {
        watched.shows(&watched.chosen(expression)).await;
    }
    every_rule_is_evaluated(&watched);
    the_backlog_is_as_old_as_it_is(&watched).await;
    faults_are_seen(&watched).await;
    watched.job.runs();
    watched.program.is_seen(&watched).await;
    // What is left is that it ends, and that it is taken over again and again.
    let alerts = RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let never: Vec<&str> = alerts.filter(|alert| !watched.has_fired(alert)).collect();
    assert_eq!(never, ["DirectstreamDown", "DirectstreamFencedLoop"], "alerts that nothing caused");
    the_standby_follows(&mut watched).await;
    dies_and_is_started_again(&mut watched).await;
    let still: Vec<String> = panels
        .iter()
        .filter(|(_, expression)| !watched.moved(&watched.chosen(expression)))
        .map(|(title, expression)| format!("{title}: {expression}"))
        .collect();
    let known = still.len() == STILL.len() && still.iter().zip(STILL).all(|(found, known)| found.starts_with(known));
    assert!(known, "panels that nothing moved: {still:#?}");

    watched.job.runs();
    watched.job.signal("KILL");
    let down = watched.own("up", " == 0");
    let firing =
        format!("ALERTS{{alertname=\"DirectstreamDown\",alertstate=\"firing\",instance=\"{}\"}}", watched.instance);
    watched.shows(&format!("{down} and on() {firing}")).await;
}

/// Killed, the job goes on at once in another process, which is then killed in its turn.
async fn the_standby_follows(watched: &mut Watched) {
    let owner = format!("directstream_owner{{instance=\"{}\"}}", watched.standby.0);
    watched.shows(&format!("{owner} == 0")).await;
    watched.job.signal("KILL");
    watched.shows(&format!("{owner} == 1")).await;
    watched.standby.1.runs();
    watched.standby.1.signal("KILL");
    wait_until("the standby is dead", LIMIT, async || watched.standby.1.has_ended()).await;
    watched.job = watched.start_again(&[], "");
    watched.shows(&watched.own("directstream_owner", " == 1")).await;
}

/// All records of the backlog came at once, so the oldest that is not committed is as old as that when it is scraped. Two
/// questions to Kafka lie 100 ms apart, and more on a busy machine.
async fn the_backlog_is_as_old_as_it_is(watched: &Watched) {
    let age = format!("directstream_partition_lag_seconds{{topic=\"{}\",partition=\"0\"}}", watched.topic);
    watched.shows(&format!("{age} > 5")).await;
    let off = watched.produced.map(|at| watched.numbers(&format!("{age} - (timestamp({age}) - {at})")).unwrap()[0]);
    assert!(off[0] < 2.0 && off[1] > -2.0, "{off:?}");
}

/// Retention goes twice, up to offsets that are committed.
async fn retention_moves(watched: &Watched) {
    for below in [10, 20] {
        let of_first = |metric: &str| format!("{metric}{{topic=\"{}\",partition=\"0\"}}", watched.topic);
        watched.shows(&format!("{} > {below}", of_first("directstream_partition_committed_offset"))).await;
        watched.kafka.delete_records(&watched.topic, &[(0, below)]).await;
        watched.shows(&format!("{} == {below}", of_first("directstream_partition_earliest_offset"))).await;
    }
    watched.fires("DirectstreamNearRetentionLoss").await;
}

fn every_rule_is_evaluated(watched: &Watched) {
    let rules = query(&watched.prometheus.address(PROMETHEUS_PORT), "rules", &[]).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap().clone();
    assert_eq!(rules.len(), RULES.matches("- alert:").count());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}

/// Often: a deployment and the way back are two starts, and no reason for an alarm. One of its lives has other settings, and in one
/// the answer to a commit is lost.
async fn dies_and_is_started_again(watched: &mut Watched) {
    let lives: [(&[&str], &str); 3] = [
        (&[], "commit::after_commit=3*off->1*return(error)->off"),
        (&["--set", "stream.batch_interval=150ms", "--set", "stream.memory_max=300MiB"], ""),
        (&[], ""),
    ];
    for (death, (settings, failpoints)) in lives.into_iter().enumerate() {
        let epoch = watched.numbers(&watched.own("directstream_epoch", " > 0")).unwrap()[0];
        watched.job.runs();
        watched.job.signal("KILL");
        wait_until("the job is dead", LIMIT, async || watched.job.has_ended()).await;
        watched.produce(0, "{\"id\":3}", 1_000).await;
        watched.job = watched.start_again(settings, failpoints);
        watched.shows(&watched.own("directstream_epoch", &format!(" > {epoch}"))).await;
        if !failpoints.is_empty() {
            watched.shows(&watched.own("directstream_commits_settled_total", " > 0")).await;
        }
        assert!(death > 0 || !watched.has_fired("DirectstreamFencedLoop"), "it fired after one");
    }
    watched.fires("DirectstreamFencedLoop").await;
}

/// The database lets nobody in, until the alert has fired.
async fn store_is_away(watched: &Watched) {
    let (server, name) = watched.database.url().rsplit_once('/').unwrap();
    let mut operator = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
    let mut order = async |sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut operator).await.unwrap();
    };
    order(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
    order(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")).await;
    watched.fires("DirectstreamStoreUnavailable").await;
    order(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await;
}

/// Each statement on the table takes longer than the interval, so that reading the next batch meanwhile does not make up for it.
async fn batches_are_slow(watched: &Watched) {
    let delay = "rate(directstream_batch_total_delay_seconds_sum[4s]) \
                 / rate(directstream_batch_total_delay_seconds_count[4s])";
    watched.shows(&format!("{delay} < 2 * directstream_batch_interval_seconds")).await;
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END'; \
                CREATE TRIGGER slow BEFORE INSERT ON records FOR EACH STATEMENT EXECUTE FUNCTION slow()";
    watched.database.execute(slow).await;
    let firing = "ALERTS{alertname=\"DirectstreamSchedulingDelay\",alertstate=\"firing\"}";
    watched.shows(&format!("({delay} > 0.4) and on() {firing}")).await;
    watched.database.execute("DROP TRIGGER slow ON records").await;
}

/// After each batch its session is ended.
async fn sessions_are_ended(watched: &Watched) {
    assert!(!watched.has_fired("DirectstreamStoreErrors"), "it fired without a cause");
    let (mut operator, mut last) = (watched.database.connect().await, 0);
    wait_until("it is noticed that sessions are ended", LIMIT, async || {
        let seq = "SELECT batch_seq FROM directstream.applications";
        let (seq,): (i64,) = sqlx::query_as(seq).fetch_one(&mut operator).await.unwrap();
        if seq > last {
            last = seq;
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
            operator.execute(end).await.unwrap();
        }
        watched.has_fired("DirectstreamStoreErrors")
    })
    .await;
}

/// Rows that the database refuses, one after the other: each batch that has some is run again without them.
async fn rows_are_refused(watched: &Watched) {
    assert!(!watched.has_fired("DirectstreamErrors"), "it fired without a cause");
    watched.database.execute("ALTER TABLE records ADD CONSTRAINT positive CHECK (id > 0) NOT VALID").await;
    watched.produce(1, "{\"id\":0}", 2_000).await;
    watched.fires("DirectstreamErrors").await;
    watched.shows("directstream_errors_total{kind=\"transform\"} > 5").await;
    watched.database.execute("ALTER TABLE records DROP CONSTRAINT positive").await;
}

/// Bad records, a lock on the table, a slow one, sessions that are ended, rows that are refused, a group that is taken, a database
/// that is away, offsets and a topic that are gone.
async fn faults_are_seen(watched: &Watched) {
    watched.produce(1, "no json", 3).await;
    watched.fires("DirectstreamDeadLetters").await;
    watched.shows("sum(directstream_dead_letters_total) == 3").await;

    watched.produce(0, "{\"id\":2}", 5_000).await;
    watched.fires("DirectstreamLagGrowing").await;

    let mut connection = watched.database.connect().await;
    let mut lock = connection.begin().await.unwrap();
    lock.execute("LOCK TABLE records IN ACCESS EXCLUSIVE MODE").await.unwrap();
    watched.fires("DirectstreamStalled").await;
    lock.rollback().await.unwrap();

    batches_are_slow(watched).await;
    let member = watched.kafka.member_of(GROUP).await;
    sessions_are_ended(watched).await;
    rows_are_refused(watched).await;
    // More than is committed between two copies, and nothing but standing still.
    let behind = format!("min_over_time({}) > 200", watched.own("directstream_mirror_lag_offsets", "[4s]"));
    let firing = "ALERTS{alertname=\"DirectstreamMirrorLag\",alertstate=\"firing\"}";
    watched.shows(&format!("{behind} and on() {firing}")).await;
    drop(member);
    watched.shows(&watched.own("directstream_mirror_lag_offsets", " < 200")).await;

    store_is_away(watched).await;
    let [reconnects, errors] =
        ["reconnects", "errors"].map(|what| watched.own(&format!("directstream_store_{what}_total"), " > 0"));
    watched.shows(&format!("{reconnects} and {errors}")).await;
    watched.shows(&watched.own("directstream_store_up", " == 1")).await;

    // A topic grows by a partition. A transaction's marker is an offset without a record.
    watched.kafka.create_partitions(&watched.topic, 3).await;
    watched.shows(&watched.own("directstream_topic_partitions", " == 3")).await;
    watched.kafka.transactions(&watched.topic, vec![(End::Commit, vec![record("{\"id\":4}").partition(2)])]).await;
    watched.shows(&watched.own("directstream_gaps_total", " > 0")).await;

    watched.kafka.delete_records(&watched.topic, &[(0, 30_000)]).await;
    watched.fires("DirectstreamOffsetsLost").await;
    watched.shows("sum(directstream_lost_offsets_total) > 1000").await;

    // A topic that is gone may come back: the job goes on with the other one, and says how long it has heard nothing.
    watched.kafka.delete_topic(&watched.doomed).await;
    watched.fires("DirectstreamKafkaSilent").await;
}
