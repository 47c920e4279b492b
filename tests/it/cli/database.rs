//! What a PostgreSQL does to a running job: it goes away, comes back, is full, refuses sessions, is read-only, cannot serialize.
//! The job waits, goes on by itself, and nothing is lost or doubled.

use super::world::{LIMIT, World};
use crate::support::{Database, Process, Server, fresh_database, postgres, wait_until};

const EACH: u32 = 1000;
const TOTAL: i64 = 2 * EACH as i64;
const MORE: u32 = 200;
/// Some fifty batches, so that a fault falls into the middle.
const SLOWLY: [&str; 2] = ["--set", "stream.max_rate_per_partition=400"];

/// A job on `database`, two partitions filled.
async fn filled(database: Database) -> World {
    let world = World::on(database, 2).await;
    world.produce(0, 0..EACH).await;
    world.produce(1, 0..EACH).await;
    world
}

/// The job has committed something.
async fn in_the_middle(world: &World) {
    world.committed(TOTAL / 10).await;
}

/// More work, for the time of a fault: however quick the job was before, it meets the fault with something to do.
async fn more_work(world: &World) {
    world.produce(0, 0..MORE).await;
}

async fn tells(running: &Process, words: &str) {
    wait_until("the job tells of the fault", LIMIT, async || running.told().contains(words)).await;
}

/// It commits all that was produced: so many records.
async fn ends_whole(world: &World, running: Process, total: i64) {
    world.committed(total).await;
    running.signal("TERM");
    let (code, told) = running.ended().await;
    assert_eq!(code, 143, "{told}");
    assert_eq!(world.sums().await, [total; 3]);
    assert_eq!(world.json(&["verify", "job.toml"])["found"], 0);
}

/// A role of its own, whose password is `app`.
async fn role_on(owner: &Database) -> String {
    let role = crate::support::unique("role").replace('-', "_");
    owner.execute(format!("CREATE ROLE {role} LOGIN PASSWORD 'app'")).await;
    owner
        .execute(format!(
            "DO $$ BEGIN EXECUTE format('GRANT ALL ON DATABASE %I TO {role}', current_database()); END $$"
        ))
        .await;
    owner.execute(format!("GRANT ALL ON SCHEMA public TO {role}")).await;
    role
}

#[tokio::test]
async fn a_password_that_is_changed_in_its_file_is_taken_at_the_next_connection() {
    let owner = fresh_database().await;
    let role = role_on(&owner).await;
    let world = filled(owner.clone()).await;
    let (job, file) = (world.folder.path().join("job.toml"), world.folder.path().join("url"));
    let write = |password: &str| {
        let url = owner.url().replace("postgres:postgres@", &format!("{role}:{password}@"));
        std::fs::write(&file, url).unwrap();
    };
    write("app");
    let text = std::fs::read_to_string(&job).unwrap();
    std::fs::write(&job, text.replace(&format!("url = \"{}\"", owner.url()), "url_file = \"url\"")).unwrap();
    let running = world.start(&SLOWLY);
    in_the_middle(&world).await;
    owner.execute(format!("ALTER ROLE {role} PASSWORD 'changed'")).await;
    owner.execute(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")).await;
    more_work(&world).await;
    tells(&running, "28P01").await;
    // Between two steps of whoever changes it.
    std::fs::remove_file(&file).unwrap();
    tells(&running, "cannot read the store's url again").await;
    write("changed");
    ends_whole(&world, running, TOTAL + i64::from(MORE)).await;
}

#[tokio::test]
async fn a_database_that_is_killed_five_times_is_gone_on_with() {
    let server = Server::start(postgres()).await;
    let world = filled(Database::create(&server.address(5432)).await).await;
    let running = world.start(&SLOWLY);
    for kill in 1..=5 {
        world.committed(TOTAL * kill / 8).await;
        server.kill().await;
        more_work(&world).await;
        server.start_again().await;
    }
    ends_whole(&world, running, TOTAL + 5 * i64::from(MORE)).await;
}

#[tokio::test]
async fn a_database_that_takes_no_more_connections_is_waited_for() {
    let owner = fresh_database().await;
    let role = role_on(&owner).await;
    let world = filled(owner.clone()).await;
    let url = format!("store.url={}", owner.url().replace("postgres:postgres@", &format!("{role}:app@")));
    let running = world.start(&[&SLOWLY[..], &["--set", &url]].concat());
    in_the_middle(&world).await;
    owner.execute(format!("ALTER ROLE {role} CONNECTION LIMIT 0")).await;
    owner.execute(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")).await;
    more_work(&world).await;
    tells(&running, "53300").await;
    owner.execute(format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await;
    ends_whole(&world, running, TOTAL + i64::from(MORE)).await;
}

#[tokio::test]
async fn a_database_that_becomes_read_only_is_waited_for() {
    let database = fresh_database().await;
    let world = filled(database.clone()).await;
    let running = world.start(&SLOWLY);
    in_the_middle(&world).await;
    // From elsewhere: a session of this database could not turn it back.
    let elsewhere = fresh_database().await;
    let name = database.url().rsplit('/').next().unwrap().to_owned();
    let read_only = |on: &str| format!("ALTER DATABASE {name} SET default_transaction_read_only = {on}");
    elsewhere.execute(read_only("on")).await;
    elsewhere.execute(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")).await;
    more_work(&world).await;
    tells(&running, "read-only").await;
    elsewhere.execute(read_only("off")).await;
    ends_whole(&world, running, TOTAL + i64::from(MORE)).await;
}

#[tokio::test]
async fn a_deadlock_with_somebody_else_is_gone_on_from() {
    let database = fresh_database().await;
    let world = filled(database.clone()).await;
    let job = world.folder.path().join("job.toml");
    let sums = "\n[[output]]\ntable = \"sums\"\nmode = \"upsert\"\nkey = [\"part\"]\ncreate = true\n\
        columns.part = { from = \"partition\", type = \"integer\" }\n\
        columns.n = { from = \"one\", type = \"bigint\", merge = \"add\" }\n";
    std::fs::write(&job, std::fs::read_to_string(&job).unwrap() + sums).unwrap();
    // The job looks for a deadlock once, when it has waited so long: by then it must be there.
    let name = database.url().rsplit('/').next().unwrap();
    database.execute(format!("ALTER DATABASE {name} SET deadlock_timeout = '3s'")).await;
    let running = world.start(&SLOWLY);
    let both = "SELECT count(*) FROM sums".to_owned();
    wait_until("both rows are there", LIMIT, async || world.number(both.clone()).await == Some(2)).await;
    // The job locks rows in the order of their keys, this one the other way round; and it lets the job find the deadlock.
    let mut other = database.connect().await;
    let first = "BEGIN; SET LOCAL deadlock_timeout = '1h'; UPDATE sums SET n = n WHERE part = 1";
    sqlx::raw_sql(first).execute(&mut other).await.unwrap();
    let waiting = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    wait_until("the job waits for the second row", LIMIT, async || database.count(waiting).await > 0).await;
    sqlx::raw_sql("UPDATE sums SET n = n WHERE part = 0; COMMIT").execute(&mut other).await.unwrap();
    tells(&running, "40P01").await;
    ends_whole(&world, running, TOTAL).await;
}

#[tokio::test]
async fn a_full_disk_is_waited_for() {
    const DISK_BYTES: i64 = 16 << 20;
    let server = Server::start(postgres().small_disk("/small", DISK_BYTES)).await;
    let database = Database::create(&server.address(5432)).await;
    let shell = |command: &str| format!("COPY (SELECT 1) TO PROGRAM '{command}'");
    database.execute(shell("mkdir /small/tables")).await;
    database.execute("CREATE TABLESPACE small LOCATION '/small/tables'").await;
    // Wide rows, so that the table soon needs another page.
    let table = "CREATE TABLE records (id bigint, filler text DEFAULT repeat('x', 1000)) TABLESPACE small";
    database.execute(table).await;
    let world = filled(database.clone()).await;
    let running = world.start(&SLOWLY);
    in_the_middle(&world).await;
    database.execute(shell("head -c 32M /dev/zero > /small/ballast 2> /dev/null || true")).await;
    more_work(&world).await;
    tells(&running, "53100").await;
    database.execute(shell("rm /small/ballast")).await;
    ends_whole(&world, running, TOTAL + i64::from(MORE)).await;
}
