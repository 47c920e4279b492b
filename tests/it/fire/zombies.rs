//! A process stands still in the middle of a batch, another one takes over and does the work, and the first goes on: it must notice,
//! end with exit code 5, and have written nothing.

use std::time::Duration;

use super::field::{Field, LIMIT};
use crate::support::Process;

async fn outlived(store: &str, point: &str) {
    let field = Field::on(store).await;
    let zombie = field.run(&format!("{point}=8*off->1*return(stop)->off"));
    zombie.stopped(LIMIT).await;
    let successor = Process::run(&field.job, &["--until-latest", "--take-over"]);
    assert_eq!(successor.code(LIMIT).await, 0);
    field.compare().await;
    zombie.signal("CONT");
    assert_eq!(zombie.code(LIMIT).await, 5, "{}", field.said());
    field.compare().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_before_its_transaction_in_postgres_is_fenced() {
    outlived("postgres", "commit::before_begin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_before_its_transaction_in_sqlite_is_fenced() {
    outlived("sqlite", "commit::before_begin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_between_begin_and_lock_is_fenced() {
    outlived("postgres", "commit::before_lock").await;
}

/// It holds the row: its session is ended, and its successor goes on after seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_holds_the_row_is_fenced() {
    outlived("postgres", "commit::after_advance").await;
}

/// Nobody can end a process that is stopped inside its SQLite transaction: the successor says who it is, and ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_still_inside_its_sqlite_transaction_is_named() {
    let field = Field::on("sqlite").await;
    let still = field.run("commit::after_write=8*off->1*return(stop)->off");
    still.stopped(LIMIT).await;
    let (code, said) = Process::run(&field.job, &["--until-latest", "--take-over"]).ended().await;
    assert_eq!(code, 5, "{said}{}", field.said());
    assert!(said.contains(&format!("process_id={}", still.id())), "{said}");
    still.signal("CONT");
    assert_eq!(still.end(Duration::from_secs(30)).await.code(), Some(0), "{}", field.said());
    field.compare().await;
}
