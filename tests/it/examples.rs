//! Every program of `examples/` runs to its end against real servers and does what it says.
//!
//! A test has its example's name, runs it with [`run_example`], and checks what it left in the database.

use std::path::Path;

use crate::support::example_names;

// One test per example goes here:
//
//     #[tokio::test]
//     async fn wordcount() {
//         let (kafka, database) = (shared_kafka().await, fresh_database().await);
//         ...
//         let printed = run_example("wordcount", &kafka, &database, &[("TOPIC", &topic)]).await;
//     }

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
