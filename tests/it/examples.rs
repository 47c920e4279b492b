//! Every program of `examples/` runs to its end against real servers and does what it says.
//!
//! A test has its example's name, runs it with [`run_example`], and checks what it left in the database.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    time::{Duration, SystemTime},
};

use directstream::transform::Rdd;
use sqlx::{Connection as _, SqliteConnection};

use crate::support::{
    End, Process, example_names, example_program, fresh_database, record, run_example, shared_kafka, wait_for,
};

#[tokio::test]
async fn word_count() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(3).await;
    let lines = |lines: &[&str]| lines.iter().map(|line| record(*line)).collect::<Vec<_>>();
    kafka.produce(&topic, lines(&["to be or not to be", "that is the question", ""])).await;
    let printed = run_example("word_count", &kafka, &database, &[("TOPIC", &topic)]).await;
    assert!(printed.starts_with("3 records counted"), "{printed}");
    // It goes on from the stored offsets.
    kafka.produce(&topic, lines(&["Question the rest"])).await;
    let printed = run_example("word_count", &kafka, &database, &[("TOPIC", &topic)]).await;
    assert!(printed.starts_with("1 records counted"), "{printed}");
    let counts = database.rows::<(String, i64)>("SELECT word, count FROM word_counts ORDER BY word").await;
    let expected = [("be", 2), ("is", 1), ("not", 1), ("or", 1), ("question", 2), ("rest", 1), ("that", 1)];
    let expected = expected.into_iter().chain([("the", 2), ("to", 2)]);
    assert_eq!(counts, expected.map(|(word, count)| (word.to_owned(), count)).collect::<Vec<_>>());
}

#[tokio::test]
async fn exactly_once_postgres() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(2).await;
    let bookings = |count: i64| {
        let booking = |n: i64| record((n % 7 - 2).to_string()).key(format!("account-{}", n % 5));
        (0..count).map(booking).collect::<Vec<_>>()
    };
    // An aborted transaction among them: nobody ever sees it.
    kafka.produce(&topic, bookings(1000)).await;
    kafka.transactions(&topic, vec![(End::Abort, bookings(100)), (End::Commit, bookings(200))]).await;
    let mut expected = BTreeMap::<String, (i64, i64)>::new();
    for seen in kafka.recount(&topic).await {
        let account = expected.entry(seen.key.unwrap()).or_default();
        *account = (account.0 + seen.value.unwrap().parse::<i64>().unwrap(), account.1 + 1);
    }
    let printed = run_example("exactly_once_postgres", &kafka, &database, &[("TOPIC", &topic)]).await;
    assert!(printed.starts_with("1200 bookings in "), "{printed}");
    let accounts = database.rows::<(String, i64, i64)>("SELECT account, balance, bookings FROM accounts").await;
    let accounts: BTreeMap<_, _> = accounts.into_iter().map(|(name, balance, n)| (name, (balance, n))).collect();
    assert_eq!(accounts, expected);
    assert!(database.count("batch_log").await > 1, "one batch only");
}

#[tokio::test]
async fn exactly_once_sqlite() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(2).await;
    let reading = |n: u32| record(format!("{}.5", n % 40)).key(format!("sensor-{}", n % 3));
    kafka.produce(&topic, (0..500).map(reading).chain([record("none").key("sensor-0")]).collect()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("readings.db").display().to_string();
    let env = [("TOPIC", topic.as_str()), ("SQLITE_FILE", &file)];
    let printed = run_example("exactly_once_sqlite", &kafka, &database, &env).await;
    assert_eq!(printed, "first run: 501 records, second run: 0 more\n500 readings, each once\n");
    let mut file = SqliteConnection::connect(&format!("sqlite:{file}")).await.unwrap();
    let sql = "SELECT sensor, readings FROM sensors ORDER BY sensor";
    let sensors: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(&mut file).await.unwrap();
    let expected = [("sensor-0", 167), ("sensor-1", 167), ("sensor-2", 166)];
    assert_eq!(sensors, expected.map(|(sensor, count)| (sensor.to_owned(), count)));
}

#[tokio::test]
async fn windowed_counts() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(2).await;
    let orders =
        |count: u32| (0..count).map(|n| record("order").key(format!("customer-{}", n % 3))).collect::<Vec<_>>();
    kafka.produce(&topic, orders(30)).await;
    let env = [("TOPIC", topic.as_str())];
    assert!(run_example("windowed_counts", &kafka, &database, &env).await.starts_with("30 orders read"));
    // Within two seconds or later: in any case it has read no order of the first run again for its own counts.
    kafka.produce(&topic, orders(3)).await;
    assert!(run_example("windowed_counts", &kafka, &database, &env).await.starts_with("3 orders read"));
    let ranges = "SELECT CAST(sum(records) AS bigint) FROM directstream.batches";
    assert_eq!(database.rows::<(i64,)>(ranges).await, [(33,)]);
}

#[tokio::test]
async fn update_state() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(2).await;
    let env = [("TOPIC", topic.as_str())];
    kafka.produce(&topic, ["a b a", "b a", ""].map(record).to_vec()).await;
    assert!(run_example("update_state", &kafka, &database, &env).await.starts_with("3 lines read"));
    kafka.produce(&topic, ["c a"].map(record).to_vec()).await;
    assert!(run_example("update_state", &kafka, &database, &env).await.starts_with("1 lines read"));
    let counts = database.rows::<(String, i64)>("SELECT word, seen FROM word_counts ORDER BY word").await;
    assert_eq!(counts, [("a", 4), ("b", 2), ("c", 1)].map(|(word, seen)| (word.to_owned(), seen)));
}

#[tokio::test]
async fn map_with_state_sessions() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(2).await;
    let orders =
        |count: i64| (0..count).map(|n| record(n.to_string()).key(format!("customer-{}", n % 3))).collect::<Vec<_>>();
    kafka.produce(&topic, orders(30)).await;
    let env = [("TOPIC", topic.as_str())];
    assert!(run_example("map_with_state_sessions", &kafka, &database, &env).await.starts_with("30 orders read"));
    kafka.produce(&topic, orders(3)).await;
    assert!(run_example("map_with_state_sessions", &kafka, &database, &env).await.starts_with("3 orders read"));
    let rows = "SELECT customer, orders, total FROM map_with_state_sessions WHERE NOT away AND orders IN (1, 10)";
    let rows = database.rows::<(String, i64, i64)>(rows).await;
    // The sums of 0 to 29 by customer. Whoever was away for longer than two seconds since begins anew.
    for (customer, total) in [("customer-0", 135), ("customer-1", 145), ("customer-2", 155)] {
        assert!(rows.contains(&(customer.to_owned(), 10, total)), "{rows:?}");
    }
    assert_eq!(database.count("map_with_state_sessions WHERE NOT away").await, 33);
}

#[tokio::test]
async fn event_time() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(2).await;
    // A whole minute about an hour ago: brokers refuse what is far ahead, and delete what is old.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let minute = (i64::try_from(now.as_millis()).unwrap() - 3_600_000) / 60_000 * 60_000;
    let order = |n: i64, seconds: i64| {
        record(n.to_string()).key(format!("customer-{}", n % 3)).timestamp(minute + seconds * 1000)
    };
    let run = async |orders: Vec<_>| {
        kafka.produce(&topic, orders).await;
        run_example("event_time", &kafka, &database, &[("TOPIC", &topic)]).await
    };
    let printed = run((0..30).map(|n| order(n, n)).collect()).await;
    assert!(printed.starts_with("30 orders read, 0 too late;"), "{printed}");
    assert_eq!((database.count("minutes").await, database.count("minutes_so_far").await), (0, 3));
    // Ten minutes later; from the batch after it on the first minute is over.
    assert!(run(vec![order(30, 600)]).await.starts_with("1 orders read, 0 too late;"));
    assert!(run(vec![order(40, 5), order(31, 610)]).await.starts_with("2 orders read, 1 too late;"));
    let rows = async |table: &str| {
        let sql = format!("SELECT (minute_ms - {minute}) / 60000, customer, orders, total FROM {table} ORDER BY 1, 2");
        database.rows::<(i64, String, i64, i64)>(&sql).await
    };
    // The sums of 0 to 29 by customer.
    let first = [(0, "customer-0", 10, 135), (0, "customer-1", 10, 145), (0, "customer-2", 10, 155)];
    let named = |rows: &[(i64, &str, i64, i64)]| -> Vec<_> {
        rows.iter().map(|(minute, name, orders, total)| (*minute, (*name).to_owned(), *orders, *total)).collect()
    };
    assert_eq!(rows("minutes").await, named(&first));
    let open = [(10, "customer-0", 1, 30), (10, "customer-1", 1, 31)];
    assert_eq!(rows("minutes_so_far").await, named(&[&first[..], &open].concat()));
    let letters = "SELECT convert_from(key, 'UTF8'), convert_from(value, 'UTF8'), stage FROM directstream.dead_letters";
    let letters = database.rows::<(String, String, String)>(letters).await;
    assert_eq!(letters, [("customer-1", "40", "window")].map(|(k, v, s)| (k.to_owned(), v.to_owned(), s.to_owned())));
}

#[tokio::test]
async fn checkpoint_recovery() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(2).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (checkpoint, output) = (path("checkpoint"), path("output"));
    let env = [("TOPIC", topic.as_str()), ("CHECKPOINT", &checkpoint), ("OUTPUT", &output)];
    let orders = |from: u32, until: u32| (from..until).map(|n| record(format!("order {n}"))).collect::<Vec<_>>();
    kafka.produce(&topic, orders(0, 500)).await;
    let printed = run_example("checkpoint_recovery", &kafka, &database, &env).await;
    assert!(printed.starts_with("500 records in "), "{printed}");
    // It goes on from the folder; nobody ever sees an aborted transaction.
    let transactions = vec![(End::Abort, orders(500, 550)), (End::Commit, orders(550, 600))];
    kafka.transactions(&topic, transactions).await;
    let printed = run_example("checkpoint_recovery", &kafka, &database, &env).await;
    assert!(printed.starts_with("50 records in "), "{printed}");
    let files = std::fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().path());
    let text = |path| std::fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> =
        files.map(text).flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let seen = kafka.recount(&topic).await;
    let mut expected: Vec<String> =
        seen.into_iter().map(|seen| format!("{} {} {}", seen.partition, seen.offset, seen.value.unwrap())).collect();
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn replay_offset_ranges() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(3).await;
    let event = |n: u32| record(format!("event {n}")).header("n", Some(&n.to_be_bytes())).header("none", None);
    kafka.produce(&topic, (0..600).map(event).collect()).await;
    // Gaps: an aborted transaction, and the markers of both.
    let transactions = [End::Abort, End::Commit].map(|end| (end, (0..50).map(event).collect()));
    kafka.transactions(&topic, transactions.into()).await;
    let printed = run_example("replay_offset_ranges", &kafka, &database, &[("TOPIC", &topic)]).await;
    assert!(printed.ends_with(" batches read again: 650 records, the same as then\n"), "{printed}");
    assert_eq!(database.count("lengths").await, 650);
    assert!(database.count("directstream.batches").await > 1, "one batch only");
}

#[tokio::test]
async fn text_files() {
    let folder = tempfile::tempdir().unwrap();
    let (incoming, file) = (folder.path().join("incoming"), folder.path().join("lines.db"));
    std::fs::create_dir(&incoming).unwrap();
    let env = [("FOLDER", incoming.to_str().unwrap()), ("SQLITE_FILE", file.to_str().unwrap())];
    std::fs::write(incoming.join("one.txt"), "to be\r\nor not").unwrap();
    std::fs::write(incoming.join("_two.txt"), "being written").unwrap();
    assert_eq!(run_alone("text_files", &env).await, "2 lines\n");
    std::fs::rename(incoming.join("_two.txt"), incoming.join("two.txt")).unwrap();
    assert_eq!(run_alone("text_files", &env).await, "1 lines\n");
    assert_eq!(run_alone("text_files", &env).await, "0 lines\n");
    let mut file = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    let sql = "SELECT file, off, line FROM lines ORDER BY file, off";
    let lines: Vec<(String, i64, String)> = sqlx::query_as(sql).fetch_all(&mut file).await.unwrap();
    let expected = [("one.txt", 0, "to be"), ("one.txt", 7, "or not"), ("two.txt", 0, "being written")];
    assert_eq!(lines, expected.map(|(file, off, line)| (file.to_owned(), off, line.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn receiver_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (wal, file) = (path("wal"), path("words.db"));
    let mut program = std::process::Command::new(example_program("receiver_socket"));
    program.env("ADDRESS", address).env("WAL", wal).env("SQLITE_FILE", &file);
    let process = Process::start(program, folder.path().join("stderr"));
    let sender = tokio::task::spawn_blocking(move || {
        let (mut connection, _) = listener.accept().unwrap();
        connection.write_all(b"to be or\nnot to be\n").unwrap();
        let mut acknowledged = String::new();
        let mut acknowledgements = BufReader::new(connection.try_clone().unwrap());
        while acknowledged.lines().last() != Some("2") {
            acknowledgements.read_line(&mut acknowledged).unwrap();
        }
        connection
    });
    let _connection = sender.await.unwrap();
    // What it stored is the next start's at the latest; here it is there soon.
    let counts = async || {
        let mut file = SqliteConnection::connect(&format!("sqlite:{file}")).await.ok()?;
        let sql = "SELECT word, count FROM word_counts ORDER BY word";
        let counts: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(&mut file).await.ok()?;
        (counts.iter().map(|(_, count)| count).sum::<i64>() == 6).then_some(counts)
    };
    let counts = wait_for("all words are counted", Duration::from_secs(60), counts).await;
    assert_eq!(counts, [("be", 2), ("not", 1), ("or", 1), ("to", 2)].map(|(word, count)| (word.to_owned(), count)));
    process.signal("INT");
    assert_eq!(process.code(Duration::from_secs(60)).await, 0);
}

/// Runs an example that needs no server to its end; what it printed.
async fn run_alone(name: &str, env: &[(&str, &str)]) -> String {
    let mut command = std::process::Command::new(example_program(name));
    command.envs(env.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{out}{err}");
    out
}

#[tokio::test]
async fn batch_and_stream() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(3).await;
    let line = |n: u32| record(format!("line {} Line of {}", n % 10, n % 7));
    kafka.produce(&topic, (0..600).map(line).collect()).await;
    // Gaps among what is read as one range in the end.
    let transactions = [End::Abort, End::Commit].map(|end| (end, (0..50).map(line).collect()));
    kafka.transactions(&topic, transactions.into()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines.db").display().to_string();
    let env = [("TOPIC", topic.as_str()), ("SQLITE_FILE", &file)];
    let printed = run_example("batch_and_stream", &kafka, &database, &env).await;
    assert!(printed.starts_with("3250 words in ") && printed.ends_with(" batches, and as many at once\n"), "{printed}");
    let mut file = SqliteConnection::connect(&format!("sqlite:{file}")).await.unwrap();
    let sql = "SELECT word, count FROM word_counts WHERE word IN ('line', 'of', '9') ORDER BY word";
    let counts: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(&mut file).await.unwrap();
    assert_eq!(counts, [("9", 65), ("line", 1300), ("of", 650)].map(|(word, count)| (word.to_owned(), count)));
    let batches: i64 =
        sqlx::query_scalar("SELECT count(*) FROM directstream_batches").fetch_one(&mut file).await.unwrap();
    assert!(batches > 1, "one batch only");
}

#[tokio::test]
async fn join_with_table() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(3).await;
    database.execute("CREATE TABLE prices (product text PRIMARY KEY, cents bigint NOT NULL)").await;
    database.execute("INSERT INTO prices VALUES ('tea', 300), ('pen', 150)").await;
    let orders = |orders: &[(&str, &str)]| -> Vec<_> {
        orders.iter().map(|(country, product)| record(*product).key(*country)).collect()
    };
    kafka.produce(&topic, orders(&[("FR", "tea"), ("IT", "pen"), ("JP", "tea"), ("FR", "hat"), ("XX", "tea")])).await;
    let run = async || run_example("join_with_table", &kafka, &database, &[("TOPIC", &topic)]).await;
    assert_eq!(run().await, "5 orders joined; see the table turnover\n");
    // The next batches see the prices of their own time; what was computed stays.
    database.execute("UPDATE prices SET cents = 1000 WHERE product = 'tea'").await;
    database.execute("INSERT INTO prices VALUES ('hat', 2000)").await;
    kafka.produce(&topic, orders(&[("FR", "hat"), ("JP", "tea"), ("JP", "tea")])).await;
    assert_eq!(run().await, "3 orders joined; see the table turnover\n");
    let turnover = database.rows::<(String, i64, i64, i64)>("SELECT * FROM turnover ORDER BY region").await;
    let expected = [("Asia", 2300, 3, 0), ("Europe", 2450, 4, 1)];
    assert_eq!(
        turnover,
        expected.map(|(region, cents, orders, unpriced)| (region.to_owned(), cents, orders, unpriced))
    );
}

#[tokio::test]
async fn save_as_files() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(2).await;
    let orders = |from: u32, until: u32| (from..until).map(|n| record(format!("order {n}"))).collect::<Vec<_>>();
    kafka.produce(&topic, orders(0, 500)).await;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("output");
    let env = [("TOPIC", topic.as_str()), ("OUTPUT", output.to_str().unwrap())];
    let printed = run_example("save_as_files", &kafka, &database, &env).await;
    assert!(printed.starts_with("500 records in "), "{printed}");
    // It goes on from the offsets; nobody ever sees an aborted transaction.
    let transactions = vec![(End::Abort, orders(500, 550)), (End::Commit, orders(550, 600))];
    kafka.transactions(&topic, transactions).await;
    let printed = run_example("save_as_files", &kafka, &database, &env).await;
    assert!(printed.starts_with("50 records in "), "{printed}");
    let (mut lines, mut objects) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(&output).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = output.join(&name).display().to_string();
        if name.starts_with("lines-") {
            lines.extend(Rdd::text_file(&path).unwrap().collect().unwrap());
        } else if name.starts_with("objects-") {
            objects.extend(Rdd::<(i32, i64, String)>::object_file(&path).unwrap().collect().unwrap());
        }
    }
    let seen = kafka.recount(&topic).await.into_iter().map(|seen| (seen.partition, seen.offset, seen.value.unwrap()));
    let mut expected: Vec<_> = seen.collect();
    expected.sort();
    objects.sort();
    assert_eq!(objects, expected);
    let mut expected: Vec<_> = expected.into_iter().map(|(p, offset, value)| format!("{p} {offset} {value}")).collect();
    expected.sort();
    lines.sort();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn foreach_partition() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let topic = kafka.topic(3).await;
    let reading = |n: u32| record(format!("{n}.5")).key(format!("sensor-{}", n % 7));
    let folder = tempfile::tempdir().unwrap();
    let store = |name: &str| format!("checkpoint:{}", folder.path().join(name).display());
    let run = async |store: &str| {
        let env = [("TOPIC", topic.as_str()), ("STORE", store)];
        let printed = run_example("foreach_partition", &kafka, &database, &env).await;
        let sql = "SELECT sensor, kafka_offset, value FROM last_readings ORDER BY sensor";
        (printed, database.rows::<(String, i64, f64)>(sql).await)
    };
    kafka.produce(&topic, (0..1000).map(reading).chain([record("none").key("sensor-0")]).collect()).await;
    let (printed, _) = run(&store("a")).await;
    assert!(printed.starts_with("1001 readings"), "{printed}");
    kafka.produce(&topic, (1000..1100).map(reading).collect()).await;
    let (printed, last) = run(&store("a")).await;
    assert!(printed.starts_with("100 readings"), "{printed}");
    let mut expected = BTreeMap::new();
    for seen in kafka.recount(&topic).await {
        if let Ok(value) = seen.value.unwrap().parse::<f64>() {
            expected.insert(seen.key.unwrap(), (seen.offset, value));
        }
    }
    let rows = |last: Vec<(String, i64, f64)>| last.into_iter().map(|(sensor, at, value)| (sensor, (at, value)));
    assert_eq!(rows(last).collect::<BTreeMap<_, _>>(), expected);
    // Offsets that are gone: every batch happens once more, and changes nothing.
    let (printed, last) = run(&store("b")).await;
    assert!(printed.starts_with("1101 readings"), "{printed}");
    assert_eq!(rows(last).collect::<BTreeMap<_, _>>(), expected);
}

#[tokio::test]
async fn testing_a_job() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let printed = run_example("testing_a_job", &kafka, &database, &[]).await;
    assert_eq!(printed, "tried without a server: ann|300, bob|111, also after a restart\n");
    let topic = kafka.topic(2).await;
    let orders = [("ann", "250"), ("bob", "100"), ("ann", "50"), ("bob", "a lot")];
    kafka.produce(&topic, orders.map(|(customer, cents)| record(cents).key(customer)).to_vec()).await;
    let printed = run_example("testing_a_job", &kafka, &database, &[("TOPIC", &topic)]).await;
    assert_eq!(printed, "4 orders read; see the table totals\n");
    let totals = database.rows::<(String, i64)>("SELECT customer, cents FROM totals ORDER BY customer").await;
    assert_eq!(totals, [("ann".to_owned(), 300), ("bob".to_owned(), 100)]);
}

#[test]
fn every_example_has_a_test() {
    let tests = include_str!("examples.rs");
    let missing = without_test(&example_names(Path::new(env!("CARGO_MANIFEST_DIR"))), tests);
    assert!(missing.is_empty(), "examples without a test here: {missing:?}");
}

#[test]
fn an_example_without_a_test_is_found() {
    let tests = "#[tokio::test]\nasync fn known() {}\n// async fn in_a_comment() {}";
    assert_eq!(
        without_test(&["known".to_owned(), "new".to_owned(), "in_a_comment".to_owned()], tests),
        ["new", "in_a_comment"]
    );
}

/// The examples for which there is no test function of the same name.
fn without_test(examples: &[String], tests: &str) -> Vec<String> {
    let has_test = |name: &str| tests.lines().any(|line| line.starts_with(&format!("async fn {name}()")));
    examples.iter().filter(|name| !has_test(name)).cloned().collect()
}

#[tokio::test]
async fn kafka_to_kafka() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let (topic, target) = (kafka.topic(2).await, kafka.topic(2).await);
    let order = |n: u32| record(format!("{n}.5")).key(format!("customer-{}", n % 3));
    let env = [("TOPIC", topic.as_str()), ("TARGET", &target), ("NAME", &target)];
    kafka.produce(&topic, (0..30).map(order).chain([record("none").key("customer-0")]).collect()).await;
    assert_eq!(run_example("kafka_to_kafka", &kafka, &database, &env).await, "31 orders read\n");
    // It goes on from the group's offsets; nobody ever sees an aborted transaction.
    let transactions = vec![(End::Abort, (90..95).map(order).collect()), (End::Commit, (30..33).map(order).collect())];
    kafka.transactions(&topic, transactions).await;
    assert_eq!(run_example("kafka_to_kafka", &kafka, &database, &env).await, "3 orders read\n");
    let order_of = |value: &str| value.rsplit_once(": ").unwrap().1.to_owned();
    let seen = kafka.recount(&target).await;
    let mut invoices: Vec<_> = seen.iter().map(|seen| order_of(seen.value.as_deref().unwrap())).collect();
    invoices.sort();
    let mut expected: Vec<_> = (0..33).map(|n| format!("{n}.50")).collect();
    expected.sort();
    assert_eq!(invoices, expected);
}

#[tokio::test]
async fn kafka_outbox() {
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let (topic, target) = (kafka.topic(2).await, kafka.topic(2).await);
    let order = |n: u32| record(n.to_string()).key(format!("customer-{}", n % 3));
    let env = [("TOPIC", topic.as_str()), ("TARGET", &target)];
    kafka.produce(&topic, (0..30).map(order).chain([record("none").key("customer-0")]).collect()).await;
    assert_eq!(run_example("kafka_outbox", &kafka, &database, &env).await, "31 orders read\n");
    kafka.produce(&topic, vec![order(30)]).await;
    assert_eq!(run_example("kafka_outbox", &kafka, &database, &env).await, "1 orders read\n");
    let seen = kafka.recount(&target).await;
    let amount = |value: &str| value.rsplit_once(": ").unwrap().1.parse::<i64>().unwrap();
    let mut amounts: Vec<_> = seen.iter().map(|seen| amount(seen.value.as_deref().unwrap())).collect();
    amounts.sort_unstable();
    assert_eq!(amounts, (0..31).collect::<Vec<_>>());
    assert_eq!(database.count("directstream.outbox").await, 0);
    let total = "SELECT CAST(sum(amount) AS bigint) FROM customers";
    assert_eq!(database.rows::<(i64,)>(total).await, [((0..31).sum(),)]);
}
