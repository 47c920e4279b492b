//! PgBouncer between a job and its database: with sessions of one's own the job works, exactly once; without them it does not
//! start.

use super::world::{LIMIT, World};
use crate::support::{Database, Image, Server, postgres, wait_until};

const EACH: u32 = 1000;
const TOTAL: i64 = 2 * EACH as i64;
/// Some fifty batches, so that a fault falls into the middle.
const SLOWLY: &str = "stream.max_rate_per_partition=400";

/// It grows with each doubt that is settled.
const EPOCH: &str = "SELECT epoch FROM directstream.applications";

const SESSION: u16 = 6432;
const SESSION_IGNORING: u16 = 6433;
const TRANSACTION: u16 = 6434;
const TRANSACTION_IGNORING: u16 = 6435;
const STATEMENT: u16 = 6436;

/// A pooler of each kind: by its mode, and by whether it refuses parameters that it does not know or says nothing.
const POOLERS: [(u16, &str, &str); 5] = [
    (SESSION, "session", ""),
    (SESSION_IGNORING, "session", "extra_float_digits, options"),
    (TRANSACTION, "transaction", ""),
    (TRANSACTION_IGNORING, "transaction", "extra_float_digits, options"),
    (STATEMENT, "statement", ""),
];

fn file(port: u16) -> String {
    format!("/etc/pgbouncer/{port}.ini")
}

fn settings(image: Image, (port, mode, ignored): (u16, &str, &str)) -> Image {
    let text = format!(
        "[databases]\n* = host=127.0.0.1 user=postgres password=postgres\n[pgbouncer]\nlisten_addr = *\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n\
         ignore_startup_parameters = {ignored}\nlogfile = /tmp/{port}.log\npidfile = /tmp/{port}.pid\n"
    );
    image.port(port).file(&file(port), text)
}

/// A server, the poolers beside it, and a job over two full partitions.
async fn world() -> (Server, World) {
    let server = Server::start(POOLERS.into_iter().fold(postgres(), settings)).await;
    for (port, ..) in POOLERS {
        server.run(&["pgbouncer", "-q", "-d", &file(port)]).await.unwrap();
    }
    let world = World::on(Database::create(&server.address(5432)).await, 2).await;
    world.produce(0, 0..EACH).await;
    world.produce(1, 0..EACH).await;
    (server, world)
}

/// The setting that leads the job through a pooler.
fn through(server: &Server, world: &World, port: u16) -> String {
    let url = world.database.as_ref().unwrap().url();
    format!("store.url={}", url.replace(&server.address(5432), &server.address(port)))
}

#[tokio::test]
async fn a_job_behind_a_pooler_with_sessions_works_through_kills_and_ended_sessions() {
    let (server, world) = world().await;
    let url = through(&server, &world, SESSION);
    let arguments = ["--set", SLOWLY, "--set", &url];
    let mut running = world.start(&arguments);
    for fault in 1..=6 {
        world.committed(TOTAL * fault / 8).await;
        if fault % 2 == 0 {
            assert!(running.kill());
            running = world.start(&arguments);
        } else {
            let before = world.number(EPOCH.to_owned()).await;
            world.execute("SELECT pg_terminate_backend(backend_pid) FROM directstream.applications").await;
            wait_until("the job settles it", LIMIT, async || world.number(EPOCH.to_owned()).await > before).await;
        }
    }
    world.committed(TOTAL).await;
    running.signal("TERM");
    let (code, told) = running.ended().await;
    assert_eq!(code, 143, "{told}");
    assert_eq!(world.sums().await, [TOTAL; 3]);
    assert_eq!(world.json(&["verify", "job.toml", "--set", &url])["found"], 0);
    // One that keeps the parameter to itself is as good.
    let url = through(&server, &world, SESSION_IGNORING);
    let ran = world.run(&["run", "job.toml", "--until-latest", "--set", &url]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

/// What a person runs by hand writes as well.
#[tokio::test]
async fn commands_that_write_refuse_a_pooler_that_gives_sessions_away_between_transactions() {
    let (server, world) = world().await;
    world.kafka.produce(&world.topic, vec![crate::support::record("no JSON").partition(0)]).await;
    assert_eq!(world.run(&["run", "job.toml", "--until-latest"]).code, 0);
    let commands: [&[&str]; 5] = [
        &["dead-letters", "replay", "job.toml", "--all", "--execute"],
        &["dead-letters", "discard", "job.toml", "--all", "--execute"],
        &["offsets", "reset", "job.toml", "--to-earliest", "--execute"],
        &["migrate", "up", "job.toml"],
        &["migrate", "down", "job.toml", "--to", "3"],
    ];
    for port in [TRANSACTION, TRANSACTION_IGNORING, STATEMENT] {
        let url = through(&server, &world, port);
        for command in commands {
            let ran = world.run(&[command, &["--set", &url]].concat());
            assert_eq!((ran.code, &*ran.stdout), (2, ""), "{port} {command:?}: {}", ran.stderr);
            let errors: Vec<_> = ran.stderr.lines().filter(|line| line.contains("error: ")).collect();
            assert!(matches!(errors[..], [line] if line.contains("pool_mode = session")), "{port}: {}", ran.stderr);
        }
    }
    // Nothing was changed; and through a pooler that leaves the session alone everything can be.
    assert_eq!(world.number("SELECT count(*) FROM directstream.dead_letters".to_owned()).await, Some(1));
    for port in [SESSION, SESSION_IGNORING] {
        let url = through(&server, &world, port);
        for command in commands {
            let ran = world.run(&[command, &["--set", &url]].concat());
            assert_eq!(ran.code, 0, "{port} {command:?}: {}", ran.stderr);
        }
        let up = world.run(&["migrate", "up", "job.toml", "--set", &url]);
        assert_eq!(up.code, 0, "{port}: {}", up.stderr);
    }
}

#[tokio::test]
async fn a_pooler_that_gives_sessions_away_between_transactions_is_refused_at_start() {
    let (server, world) = world().await;
    for port in [TRANSACTION, TRANSACTION_IGNORING, STATEMENT] {
        // Twice: what one process left in the pooler's sessions must not blind the next one.
        for _ in 0..2 {
            let ran = world.run(&["run", "job.toml", "--until-latest", "--set", &through(&server, &world, port)]);
            assert_eq!(ran.code, 2, "{port}: {}", ran.stderr);
            let errors: Vec<_> = ran.stderr.lines().filter(|line| line.contains("error: ")).collect();
            assert!(matches!(errors[..], [line] if line.contains("pool_mode = session")), "{port}: {}", ran.stderr);
        }
    }
}
