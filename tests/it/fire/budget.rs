//! Batches that fail, each of which would pass: `stream.max_failures`.

use super::field::{Field, LIMIT};

/// Four batches whose first try fails, each with batches between them that do not.
const FOUR: &str = "commit::after_lock=4*off->1*return(error)->3*off->1*return(error)->3*off->1*return(error)->3*off->\
                    1*return(error)->off";

#[tokio::test]
async fn one_batch_more_than_may_fail_ends_the_job_and_nothing_is_lost_or_doubled() {
    for store in ["postgres", "sqlite"] {
        let field = Field::on(store).await;
        assert_eq!(field.run_with(&["stream.max_failures=3"], FOUR).end(LIMIT).await.code(), Some(3));
        let said = field.said();
        assert_eq!(said.matches("failpoint commit::after_lock: error").count(), 4, "{said}");
        assert!(said.contains("max_failures=3 failures_validity_interval=3600s"), "{said}");
        let left = field.records() - field.committed().await;
        assert!(left >= field.records() / 5, "only {left} records were left to do");
        field.finish().await;
        field.compare().await;
    }
}

#[tokio::test]
async fn as_many_as_may_fail_are_outlived_and_old_ones_do_not_count() {
    for settings in
        [vec!["stream.max_failures=4"], vec!["stream.max_failures=1", "stream.failures_validity_interval=1ms"]]
    {
        let field = Field::on("sqlite").await;
        assert_eq!(field.run_with(&settings, FOUR).end(LIMIT).await.code(), Some(0), "{}", field.said());
        assert_eq!(field.said().matches("failpoint commit::after_lock: error").count(), 4);
        field.compare().await;
    }
}
