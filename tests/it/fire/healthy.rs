//! An owner that is slow and healthy is left alone: a rival waits for it to leave, and then says whose the application is.

use std::time::Duration;

use super::field::{Field, LIMIT};
use crate::support::wait_until;

/// Longer than any sign of life may be old, many times over.
const BATCH: Duration = Duration::from_secs(60);
/// A statement that the database works on for so long.
const STATEMENT: Duration = Duration::from_secs(25);

/// A rival waits for ten seconds, and ends with exit code 5.
async fn rivals_leave_it_alone(field: &Field, count: usize, until: &str) {
    for _ in 0..count {
        assert_eq!(field.rival().end(LIMIT).await.code(), Some(5), "{}", field.rival_said());
        let line = field.rival_said();
        assert!(line.contains("process_id="), "{line}");
    }
    assert!(!field.said().contains(until), "the owner was through before the rivals were: {}", field.said());
}

async fn a_batch_of_a_minute_keeps_its_owner(store: &str) {
    let field = Field::on(store).await;
    let slow = format!("transform::done=7*off->1*return(delay:{})->off", BATCH.as_millis());
    let owner = field.run(&format!("{slow};stream::hand_over=7*off->1*return(delay:0)->off"));
    wait_until("the slow batch is at work", LIMIT, async || field.said().contains("failpoint transform::done")).await;
    rivals_leave_it_alone(&field, 4, "failpoint stream::hand_over").await;
    assert_eq!(owner.end(LIMIT).await.code(), Some(0), "{}", field.said());
    assert_eq!(field.tables().epoch().await, 1);
    field.compare().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_minute_keeps_its_owner_in_postgres() {
    a_batch_of_a_minute_keeps_its_owner("postgres").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_minute_keeps_its_owner_in_sqlite() {
    a_batch_of_a_minute_keeps_its_owner("sqlite").await;
}

/// Inside its transaction an owner gives no sign of life: the server tells that it works.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_long_keeps_its_owner() {
    let field = Field::on("postgres").await;
    field.run("plan::done=3*off->1*return(kill)->off").end(LIMIT).await;
    let trigger = format!(
        "CREATE SEQUENCE statements; CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF nextval('statements') = 3 THEN PERFORM pg_sleep({}); END IF; RETURN NULL; END $$; \
         CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION slow()",
        STATEMENT.as_secs()
    );
    field.tables().execute(&trigger).await;
    let epoch = field.tables().epoch().await;
    let owner = field.run("commit::after_write=3*off->1*return(delay:0)->off");
    wait_until("the third statement is at work", LIMIT, async || field.tables().sleeps().await).await;
    rivals_leave_it_alone(&field, 1, "failpoint commit::after_write").await;
    assert_eq!(owner.end(LIMIT).await.code(), Some(0), "{}", field.said());
    assert_eq!(field.tables().epoch().await, epoch + 1);
    field.compare().await;
}
