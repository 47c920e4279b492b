//! What a log line looks like, and what is kept out of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;
use tracing_subscriber::layer::SubscriberExt;

use super::{START_MS, reporter};
use crate::{
    clock::ManualClock,
    error::{Error, ErrorKind, Stage},
    report::{LogFormat, LogSettings, log::LogLines},
};

/// What `work` logs.
fn logged(format: LogFormat, colours: bool, work: impl FnOnce(&ManualClock)) -> String {
    let written = Arc::new(Mutex::new(String::new()));
    let clock = Arc::new(ManualClock::at(START_MS));
    let out = Arc::clone(&written);
    let lines = LogLines::new(format, colours, Arc::clone(&clock) as _, move |line| out.lock().unwrap().push_str(line));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || work(&clock));
    written.lock().unwrap().clone()
}

#[test]
fn a_line_for_people_says_when_what_and_with_which_values() {
    let text = logged(LogFormat::Human, false, |_| {
        tracing::info!(target: "directstream::stream", batch_seq = 7, address = %"127.0.0.1:9464", said = "no such \"x\"", "batch committed");
    });
    let expected = "2023-11-14T22:13:20.000Z  INFO directstream::stream: batch committed batch_seq=7 \
                    address=127.0.0.1:9464 said=\"no such \\\"x\\\"\"\n";
    assert_eq!(text, expected);
}

#[test]
fn a_json_line_is_one_flat_object_in_a_fixed_order() {
    let text = logged(LogFormat::Json, true, |_| {
        tracing::warn!(target: "t", batch_seq = 7, ratio = 0.5, done = true, lag = -1_i64, said = "a\"b", "late");
    });
    let expected = r#"{"time":"2023-11-14T22:13:20.000Z","level":"warn","target":"t","message":"late","batch_seq":7,"ratio":0.5,"done":true,"lag":-1,"said":"a\"b"}"#;
    assert_eq!(text.trim_end(), expected);
}

#[test]
fn spans_lend_their_fields_and_the_inner_one_wins() {
    let text = logged(LogFormat::Human, false, |_| {
        let outer = tracing::info_span!("stream", application = "orders", batch_seq = 1);
        let _outer = outer.enter();
        let inner = tracing::info_span!("batch", batch_seq = tracing::field::Empty);
        inner.record("batch_seq", 2);
        let _inner = inner.enter();
        tracing::info!(target: "t", records = 3, "read");
    });
    assert!(text.ends_with(" t: read records=3 batch_seq=2 application=orders\n"), "{text}");
}

#[test]
fn colours_are_for_terminals_only() {
    let work = |_: &ManualClock| tracing::error!(target: "t", "x");
    assert!(!logged(LogFormat::Human, false, work).contains('\x1b'));
    assert!(logged(LogFormat::Human, true, work).contains("\x1b[31mERROR\x1b[0m"));
}

#[test]
fn an_error_is_logged_with_its_causes() {
    let error = Error::unavailable("cannot ask for offsets").caused_by(Error::internal("connection refused"));
    let text = logged(LogFormat::Human, false, |_| {
        tracing::warn!(target: "t", error = &error as &(dyn std::error::Error + 'static), "x");
    });
    assert!(text.contains("error=\"cannot ask for offsets: connection refused\""), "{text}");
}

#[test]
fn a_long_text_is_cut() {
    let text = logged(LogFormat::Human, false, |_| tracing::info!(target: "t", sql = "x".repeat(100_000), "y"));
    assert!(text.len() < 3_000 && text.ends_with("...\n"), "{}", text.len());
}

#[test]
fn the_client_library_is_heard_once_in_a_while() {
    let text = logged(LogFormat::Human, false, |clock| {
        for count in 0..50 {
            tracing::error!(target: "librdkafka", "broker 127.0.0.1:{count} is down after {count} ms");
            tracing::error!(target: "directstream::kafka", "ours {count}");
        }
        clock.advance(Duration::from_secs(30));
        tracing::error!(target: "librdkafka", "broker 127.0.0.1:9092 is down after 7 ms");
    });
    let theirs: Vec<&str> = text.lines().filter(|line| line.contains(" librdkafka: ")).collect();
    assert_eq!(theirs.len(), 2, "{theirs:?}");
    assert!(theirs[1].ends_with("held_back=49"), "{theirs:?}");
    assert_eq!(text.lines().filter(|line| line.contains("ours")).count(), 50);
}

#[test]
fn errors_of_one_kind_and_stage_are_logged_once_in_a_while_and_all_counted() {
    let text = logged(LogFormat::Human, false, |_| {
        let (reporter, clock) = reporter();
        for _ in 0..20 {
            reporter.error(&Error::unavailable("broker away").at(Stage::Plan));
            reporter.error(&Error::unavailable("database away").at(Stage::Commit));
        }
        clock.advance(Duration::from_secs(31));
        reporter.error(&Error::unavailable("broker away").at(Stage::Plan));
        assert!(reporter.render_metrics().contains("directstream_errors_total{kind=\"unavailable\"} 41\n"));
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains("kind=unavailable stage=plan error=\"broker away\""), "{text}");
    assert!(lines[2].contains("held_back=19"), "{text}");
}

#[test]
fn settings_come_from_our_variables_first() {
    let read = |variables: &[(&'static str, &'static str)], terminal| {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        LogSettings::read(|name| variables.get(name).map(|value| (*value).to_owned()), terminal)
    };
    let shown = |variables: &[(&'static str, &'static str)]| format!("{:?}", read(variables, true).unwrap());
    assert!(shown(&[]).contains("colours: true"));
    assert!(shown(&[("NO_COLOR", "1")]).contains("colours: false"));
    assert!(shown(&[("NO_COLOR", "")]).contains("colours: true"));
    assert!(shown(&[("DIRECTSTREAM_LOG_FORMAT", "json")]).contains("format: Json, colours: false"));
    assert!(format!("{:?}", read(&[], false).unwrap()).contains("colours: false"));
    assert_ne!(shown(&[("RUST_LOG", "debug")]), shown(&[("RUST_LOG", "debug"), ("DIRECTSTREAM_LOG", "error")]));
    for wrong in [("DIRECTSTREAM_LOG_FORMAT", "xml"), ("DIRECTSTREAM_LOG", "directstream=loud")] {
        let error = read(&[wrong], true).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(wrong.0), "{error}");
    }
    assert!(read(&[("RUST_LOG", "somebody's own=thing")], true).is_ok());
}

proptest! {
    /// Whatever is logged, it is one line, it steers nothing, and as JSON it reads back.
    #[test]
    fn nothing_forges_a_line(message in any::<String>(), value in r"(\PC|[\x00-\x1f\x7f-\x9f]|\u{202e}|\u{2028}){0,30}") {
        for format in [LogFormat::Human, LogFormat::Json] {
            let text = logged(format, false, |_| tracing::info!(target: "t", value, "{message}"));
            let line = text.strip_suffix('\n').unwrap();
            prop_assert!(!line.chars().any(|char| char.is_control() || matches!(char, '\u{2028}' | '\u{202e}')), "{line:?}");
            if format == LogFormat::Json {
                let read: serde_json::Value = serde_json::from_str(line).unwrap();
                prop_assert_eq!(read["value"].as_str().unwrap(), value.as_str());
                prop_assert_eq!(read["message"].as_str().unwrap(), message.as_str());
            }
        }
    }
}
