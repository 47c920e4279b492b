//! The dashboard and the alerts ask for metrics that are there, and leave none out unnoticed.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use crate::report::{METRICS, MetricKind, compatible::compatible_metrics};

const DASHBOARD: &str = "docker/grafana/directstream.json";
const RULES: &str = "docker/prometheus/directstream.rules.yml";
const RULE_TESTS: &str = "docker/prometheus/directstream.rules.test.yml";

/// Metrics that no panel shows, each with its reason.
const NOT_SHOWN: [(&str, &str); 1] =
    [("directstream_fenced_total", "a program that ends with its stream is not scraped then")];

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// All texts under the key `expr`, however deep; of variables the text of the query.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::String(text) if key == "expr" || key == "query" => found.push(text.clone()),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

/// The names of metrics in a text, those of a histogram's series without their ending.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let metrics = words.filter(|word| word.starts_with("directstream_") || word.starts_with("kafka_"));
    let histogram =
        |name: &str| METRICS.iter().any(|metric| metric.name == name && metric.kind == MetricKind::Histogram);
    let of = |word: &str| {
        let series = ["_bucket", "_sum", "_count"].into_iter().find_map(|ending| word.strip_suffix(ending));
        series.filter(|name| histogram(name)).unwrap_or(word).to_owned()
    };
    metrics.map(of).collect()
}

fn known() -> BTreeSet<String> {
    let own = METRICS.iter().map(|metric| metric.name.to_owned());
    let foreign = compatible_metrics().map(|(_, metric)| metric.name.to_owned());
    own.chain(foreign).collect()
}

fn shown() -> BTreeSet<String> {
    let mut asked = Vec::new();
    expressions(&serde_json::from_str(&file(DASHBOARD)).unwrap(), &mut asked);
    assert!(asked.len() > 40, "the panels were not found");
    asked.iter().flat_map(|expression| metrics_in(expression)).collect()
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_metrics_that_are_there() {
    let known = known();
    for (path, asked) in
        [(DASHBOARD, shown()), (RULES, metrics_in(&file(RULES))), (RULE_TESTS, metrics_in(&file(RULE_TESTS)))]
    {
        assert!(asked.len() > 5, "{path}");
        let unknown: Vec<_> = asked.difference(&known).collect();
        assert!(unknown.is_empty(), "{path} asks for what nobody tells: {unknown:?}");
    }
}

#[test]
fn a_metric_that_is_not_there_would_be_found() {
    let asked =
        metrics_in("rate(directstream_batch_total_delay_seconds_bucket{le=\"1\"}[5m]) > directstream_lagg_records");
    let unknown: Vec<String> = asked.difference(&known()).cloned().collect();
    assert_eq!(unknown, ["directstream_lagg_records"]);
}

#[test]
fn every_metric_is_on_the_dashboard_or_left_out_for_a_reason() {
    let shown = shown();
    for metric in METRICS {
        let left_out = NOT_SHOWN.iter().any(|(name, _)| *name == metric.name);
        assert!(shown.contains(metric.name) != left_out, "{}: shown, or in NOT_SHOWN with a reason", metric.name);
    }
}

/// The names of the alerts in a text.
fn alerts_in<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    text.lines().filter_map(|line| line.trim().strip_prefix(before)).map(str::trim).collect()
}

#[test]
fn every_alert_is_tested_and_has_a_section_that_says_what_to_do() {
    let (rules, tests, page) = (file(RULES), file(RULE_TESTS), file("docs/operating.md"));
    let alerts = alerts_in(&rules, "- alert:");
    assert!(alerts.len() > 10, "{alerts:?}");
    assert_eq!(alerts, alerts_in(&tests, "alertname:"));
    let fires = tests.split("alertname:").skip(1).filter(|test| test.contains("exp_labels"));
    let fires: BTreeSet<&str> = fires.filter_map(|test| test.lines().next()).map(str::trim).collect();
    assert_eq!(alerts, fires, "each fires in a test");
    // As Markdown makes an anchor of a heading.
    let headings: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|heading| heading.to_lowercase().replace(' ', "-").replace(':', ""))
        .collect();
    let links = alerts_in(&rules, "runbook_url: 'docs/operating.md#");
    assert_eq!(links.len(), alerts.len(), "each links to a section of its own");
    for link in links {
        assert!(headings.contains(link.trim_end_matches('\'')), "docs/operating.md has no heading for {link}");
    }
}
