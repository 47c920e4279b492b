//! The JSON API: Spark's fields, our own, and that the document describes what is answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use super::{START_MS, batch, completed, range, reporter};
use crate::{
    report::{
        BatchCounts, BatchOutcome, BatchProgress, CompletedBatch, CountedRange, GraphNode, GraphOutput, GraphStream,
        InputInfo, JobGraph, OutputOperationInfo, PartitionPosition, Reporter, Status,
        api::{Asked, OPENAPI, ROUTES, Refused},
    },
    types::{DeadLetterStage, LostRangeReason, Offset, TopicPartition},
};

/// Asks a route by its path as it is written in the table, with the parts of the path and the query.
fn ask(reporter: &Reporter, route: &str, parts: &[(&str, &str)], query: &str) -> Result<Value, Refused> {
    let (_, answer) = ROUTES.iter().find(|(path, _)| *path == route).unwrap_or_else(|| panic!("no route {route}"));
    let parts = parts.iter().map(|(name, part)| ((*name).to_owned(), (*part).to_owned()));
    answer(reporter, &Asked::new(parts, query)).map(|text| serde_json::from_str(&text).unwrap())
}

/// One of Spark's paths, of this application.
fn spark(reporter: &Reporter, path: &str, parts: &[(&str, &str)], query: &str) -> Result<Value, Refused> {
    let parts = [&[("app", "orders")], parts].concat();
    ask(reporter, &format!("/api/v1/applications/{{app}}/streaming/{path}"), &parts, query)
}

fn ours(reporter: &Reporter, path: &str, query: &str) -> Value {
    ask(reporter, &format!("/api/v1/{path}"), &[], query).unwrap()
}

fn id(batch_seq: i64) -> String {
    (START_MS + 1_000 * batch_seq).to_string()
}

/// Two streams, a window over the first, and a table.
fn graph() -> JobGraph {
    JobGraph {
        streams: ["orders", "returns"].map(|name| GraphStream { name: name.into() }).into(),
        operators: vec![
            GraphNode { id: 1, name: "direct_stream".into(), stream: Some(0), ..GraphNode::default() },
            GraphNode { id: 2, name: "window".into(), inputs: vec![1], slide_ms: Some(2_000), ..GraphNode::default() },
        ],
        outputs: vec![GraphOutput {
            name: "save_to_table".into(),
            inputs: vec![2],
            transactional: true,
            tables: vec!["t".into()],
            slide_ms: Some(2_000),
        }],
    }
}

/// A reporter that was told of two completed batches, one of which failed, one that runs and one that waits.
fn told_everything() -> Reporter {
    let (reporter, clock) = reporter();
    reporter.owned(3, 0);
    reporter.status(Status::Running);
    reporter.streaming_started(Duration::from_secs(1));
    clock.advance(Duration::from_secs(60));
    reporter.memory(1 << 20, 1 << 29);
    reporter.rate_limit(Some(1_500.5));
    reporter.job_graph(graph());
    reporter.positions(
        (0..3)
            .map(|partition| PartitionPosition {
                topic_partition: TopicPartition::new("orders", partition),
                committed: Offset::new(10),
                latest: Offset::new(10 + [7, 0, 30][usize::try_from(partition).unwrap()]),
                earliest: Offset::new(1),
            })
            .collect(),
    );
    let of_streams = |batch_seq, from| {
        let ranges = [range("orders", 0, from, from + 10), range("returns", 0, from, from + 5)];
        let input =
            |stream_id: usize| InputInfo { stream_id, ranges: [ranges[stream_id].clone()].into(), records: None };
        BatchProgress { inputs: vec![input(0), input(1)], ..batch(batch_seq, ranges.to_vec()) }
    };
    let first = of_streams(1, 0);
    let counts = BatchCounts {
        records: 14,
        gaps: 1,
        bytes: 1_400,
        rows: 12,
        dead_letters: vec![(DeadLetterStage::Convert, 2), (DeadLetterStage::Write, 0)],
        late_records: 3,
        lost_ranges: vec![(LostRangeReason::Retention, Some(100))],
        ranges: first
            .batch
            .ranges
            .iter()
            .map(|range| CountedRange { range: range.clone(), records: 9, gaps: 1 })
            .collect(),
    };
    let done = completed(first.clone(), counts);
    reporter.batch_submitted(&first);
    reporter.batch_started(&first);
    reporter.batch_completed(&CompletedBatch { commit_time: Some(Duration::from_millis(12)), ..done.clone() });
    let mut second = of_streams(2, 10);
    second.output_operations[0].failure_reason = Some("the database is away".to_owned());
    let failed = CompletedBatch { outcome: BatchOutcome::Failed, ..completed(second, BatchCounts::default()) };
    reporter.batch_completed(&CompletedBatch { failure: Some("it failed".to_owned()), ..failed.clone() });
    reporter.batch_completed(&CompletedBatch { outcome: BatchOutcome::Dropped, ..failed });
    let running = BatchProgress { processing_end_time_ms: None, output_operations: Vec::new(), ..of_streams(3, 15) };
    reporter.batch_submitted(&running);
    reporter.batch_started(&running);
    let operation = batch(3, Vec::new()).output_operations[0].clone();
    reporter.output_operation_started(&OutputOperationInfo { end_time_ms: None, ..operation });
    let waiting = BatchProgress {
        processing_start_time_ms: None,
        ..BatchProgress { output_operations: Vec::new(), ..of_streams(4, 20) }
    };
    reporter.batch_submitted(&BatchProgress { processing_end_time_ms: None, ..waiting });
    reporter
}

#[test]
fn ui_39_statistics_have_sparks_fields_and_counts() {
    let reporter = told_everything();
    let statistics = spark(&reporter, "statistics", &[], "").unwrap();
    let expected = json!({
        "startTime": "2023-11-14T22:13:20.000GMT",
        "batchDuration": 1_000,
        "numReceivers": 0,
        "numActiveReceivers": 0,
        "numInactiveReceivers": 0,
        "numTotalCompletedBatches": 2,
        "numRetainedCompletedBatches": 2,
        "numActiveBatches": 2,
        "numProcessedRecords": 14,
        "numReceivedRecords": 29,
        "avgInputRate": 15.0,
        "avgSchedulingDelay": 20,
        "avgProcessingTime": 130,
        "avgTotalDelay": 150,
    });
    assert_eq!(statistics, expected);
    assert_eq!(spark(&reporter, "receivers", &[], "").unwrap(), json!([]), "a direct stream has none");
    let applications = ours(&reporter, "applications", "");
    assert_eq!((&applications[0]["id"], &applications[0]["name"]), (&json!("orders"), &json!("orders")));
    assert_eq!(applications[0]["attempts"][0]["duration"], 60_000);
}

#[test]
fn ui_39_receivers_have_sparks_fields_and_are_counted() {
    let reporter = told_everything();
    reporter.receiver_started(1, "orders");
    reporter.receiver_started(0, "socket");
    reporter.receiver_error(0, "socket", "connection\nrefused");
    let expected = json!([
        {
            "streamId": 0, "streamName": "socket", "isActive": false, "lastErrorMessage": "connection\\nrefused",
            "lastErrorTime": "2023-11-14T22:14:20.000GMT",
            "avgEventRate": 10.0, "eventRates": [[1_700_000_001_000_i64, 10.0], [1_700_000_002_000_i64, 10.0]],
        },
        {
            "streamId": 1, "streamName": "orders", "isActive": true,
            "avgEventRate": 5.0, "eventRates": [[1_700_000_001_000_i64, 5.0], [1_700_000_002_000_i64, 5.0]],
        },
    ]);
    assert_eq!(spark(&reporter, "receivers", &[], "").unwrap(), expected);
    let one = spark(&reporter, "receivers/{streamId}", &[("streamId", "1")], "").unwrap();
    assert_eq!(one, expected[1]);
    assert!(spark(&reporter, "receivers/{streamId}", &[("streamId", "7")], "").is_err());
    let statistics = spark(&reporter, "statistics", &[], "").unwrap();
    let counted = ["numReceivers", "numActiveReceivers", "numInactiveReceivers"].map(|name| statistics[name].as_u64());
    assert_eq!(counted, [Some(2), Some(1), Some(1)]);
    let ours = ours(&reporter, "overview", "");
    assert_eq!((&ours["receivers"][0]["active"], &ours["receivers"][1]["name"]), (&json!(false), &json!("orders")));
    reporter.receiver_started(0, "socket");
    reporter.receiver_stopped(1, "orders");
    let active = |at: usize| spark(&reporter, "receivers", &[], "").unwrap()[at]["isActive"].clone();
    assert_eq!([active(0), active(1)], [json!(true), json!(false)]);
}

/// UI-14, UI-39: the start is one millisecond before 1970 there, and what has no value is left out.
#[test]
fn ui_39_statistics_before_the_start_leave_averages_out() {
    let statistics = spark(&reporter().0, "statistics", &[], "").unwrap();
    assert_eq!(statistics["startTime"], "1969-12-31T23:59:59.999GMT");
    assert_eq!(statistics.as_object().unwrap().keys().filter(|name| name.starts_with("avg")).count(), 0);
}

#[test]
fn ui_40_batches_have_sparks_fields_newest_first_and_can_be_filtered() {
    let reporter = told_everything();
    let ids = |query: &str| -> Vec<(String, String)> {
        let batches = spark(&reporter, "batches", &[], query).unwrap();
        let told = |batch: &Value| (batch["batchId"].to_string(), batch["status"].as_str().unwrap().to_owned());
        batches.as_array().unwrap().iter().map(told).collect()
    };
    let of = |batch_seq, status: &str| (id(batch_seq), status.to_owned());
    let all = [of(4, "QUEUED"), of(3, "PROCESSING"), of(2, "COMPLETED"), of(1, "COMPLETED")];
    assert_eq!(ids(""), all);
    assert_eq!(ids("status=COMPLETED"), all[2..]);
    assert_eq!(ids("status=QUEUED&status=PROCESSING"), all[..2]);
    let refused = spark(&reporter, "batches", &[], "status=done").unwrap_err();
    assert!(matches!(refused, Refused::Invalid(text) if text.ends_with("status=done")));

    let one = |batch_seq| spark(&reporter, "batches/{batchId}", &[("batchId", &*id(batch_seq))], "").unwrap();
    let expected = json!({
        "batchId": START_MS + 1_000,
        "batchTime": "2023-11-14T22:13:21.000GMT",
        "status": "COMPLETED",
        "batchDuration": 1_000,
        "inputSize": 15,
        "schedulingDelay": 20,
        "processingTime": 130,
        "totalDelay": 150,
        "numActiveOutputOps": 0,
        "numCompletedOutputOps": 1,
        "numFailedOutputOps": 0,
        "numTotalOutputOps": 1,
    });
    assert_eq!(one(1), expected);
    let failed = one(2);
    assert_eq!((&failed["numFailedOutputOps"], &failed["firstFailureReason"]), (&json!(1), &json!("it failed")));
    assert_eq!((&one(3)["numActiveOutputOps"], one(4).get("schedulingDelay")), (&json!(1), None));
}

#[test]
fn ui_40_operations_have_sparks_fields() {
    let reporter = told_everything();
    let operations = "batches/{batchId}/operations";
    let first = spark(&reporter, operations, &[("batchId", &*id(1))], "").unwrap();
    let expected = json!([{
        "outputOpId": 0,
        "name": "save_to_table orders",
        "description": "Streaming job from [output operation 0, batch time 22:13:21]",
        "startTime": "2023-11-14T22:13:21.030GMT",
        "endTime": "2023-11-14T22:13:21.140GMT",
        "duration": 110,
        "jobIds": [],
    }]);
    assert_eq!(first, expected);
    let one = format!("{operations}/{{outputOpId}}");
    let of =
        |batch_seq, operation| spark(&reporter, &one, &[("batchId", &*id(batch_seq)), ("outputOpId", operation)], "");
    assert_eq!(of(2, "0").unwrap()["failureReason"], "the database is away");
    assert_eq!(of(2, "7"), Err(Refused::NotFound("unknown output operation: 7".to_owned())));
}

/// UI-38, and the words are Spark's.
#[test]
fn ui_38_what_is_unknown_is_not_found() {
    let reporter = told_everything();
    let not_found = |text: &str| Err(Refused::NotFound(text.to_owned()));
    assert_eq!(spark(&reporter, "batches/{batchId}", &[("batchId", "12345")], ""), not_found("unknown batch: 12345"));
    assert_eq!(spark(&reporter, "batches/{batchId}", &[("batchId", "a\nb")], ""), not_found("unknown batch: a\\nb"));
    assert_eq!(ask(&reporter, "/api/v1/batches/{batchSeq}", &[("batchSeq", "99")], ""), not_found("unknown batch: 99"));
    let statistics = "/api/v1/applications/{app}/streaming/statistics";
    assert_eq!(ask(&reporter, statistics, &[("app", "returns")], ""), not_found("unknown app: returns"));
}

#[test]
fn partitions_are_sorted_filtered_and_told_page_by_page() {
    let (reporter, _) = reporter();
    let position = |topic: &str, partition: i32| PartitionPosition {
        topic_partition: TopicPartition::new(topic, partition),
        committed: Offset::new(i64::from(partition)),
        latest: (partition != 7).then(|| Offset::clamped(i64::from(2 * partition))),
        earliest: Offset::new(0),
    };
    reporter
        .positions((0..1_500).map(|partition| position("orders", partition)).chain([position("returns", 3)]).collect());
    let numbers = |query: &str| -> Vec<i64> {
        let page = ours(&reporter, "partitions", query);
        page["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|partition| partition["partition"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(numbers(""), (0..100).collect::<Vec<_>>());
    assert_eq!(numbers("from=1498&count=5"), [1_498, 1_499, 3]);
    assert_eq!(numbers("sort=lag&order=desc&count=2"), [1_499, 1_498]);
    // What is not known comes first, and last in the other order.
    assert_eq!(numbers("sort=lag&count=2"), [7, 0]);
    assert_eq!(numbers("topic=TURN"), [3]);
    assert_eq!(numbers("count=1000000").len(), 1_000);
    let page = ours(&reporter, "partitions", "topic=returns");
    assert_eq!((&page["total"], &page["matching"]), (&json!(1_501), &json!(1)));
    for query in ["sort=speed", "order=up", "from=-1", "count=x"] {
        let refused = ask(&reporter, "/api/v1/partitions", &[], query).unwrap_err();
        assert!(matches!(refused, Refused::Invalid(_)), "{query}");
    }
}

#[test]
fn the_overview_gives_all_points_or_those_that_are_new() {
    let reporter = told_everything();
    let points = |query: &str| ours(&reporter, "overview", query)["points"].clone();
    assert_eq!(points("")["batchSeq"], json!([1, 2]));
    assert_eq!(points("")["streamRecords"], json!([[10, 10], [5, 5]]));
    assert_eq!(points("after=1")["failed"], json!([true]));
    assert_eq!(points("after=2")["batchSeq"], json!([]));
    let overview = ours(&reporter, "overview", "");
    assert_eq!(
        (&overview["lag"], &overview["rateLimit"], &overview["startTimeMs"]),
        (&json!(37), &json!(1_500.5), &json!(START_MS))
    );
    assert_eq!(ours(&super::reporter().0, "overview", "")["startTimeMs"], -1);
}

/// Every place of a JSON document that has a name, as the schema knows it, checked against that schema on the way.
fn walk(value: &Value, schema: &Value, document: &Value, seen: &mut BTreeSet<String>, complaints: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches("#/components/schemas/");
        let schema = &document["components"]["schemas"][name];
        let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else {
            complaints.push(format!("{name}: {value}"));
            return;
        };
        let required = schema["required"].as_array().unwrap().iter().filter_map(Value::as_str);
        complaints
            .extend(required.filter(|field| !fields.contains_key(*field)).map(|field| format!("{name} lacks {field}")));
        for (field, value) in fields {
            match properties.get(field) {
                Some(schema) => {
                    seen.insert(format!("{name}.{field}"));
                    walk(value, schema, document, seen, complaints);
                }
                None => complaints.push(format!("{name}.{field} is not described")),
            }
        }
        return;
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = types.contains(&is) || (is == "integer" && types.contains(&"number"));
    let listed = schema["enum"].as_array().is_none_or(|words| words.contains(value));
    if !fits || !listed {
        complaints.push(format!("{value} is none of {schema}"));
    }
    for item in value.as_array().into_iter().flatten() {
        walk(item, &schema["items"], document, seen, complaints);
    }
}

#[test]
fn the_document_describes_every_route_and_every_field_and_nothing_else() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let described: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let routes: BTreeSet<&str> = ROUTES.iter().map(|(path, _)| *path).collect();
    assert_eq!(described, routes);

    let (reporter, mut seen, mut complaints) = (told_everything(), BTreeSet::new(), Vec::new());
    reporter.receiver_error(0, "socket", "connection refused");
    for (path, answer) in ROUTES {
        for batch_seq in 1..=4 {
            let parts = [
                ("app", "orders".to_owned()),
                ("batchId", id(batch_seq)),
                ("batchSeq", batch_seq.to_string()),
                ("outputOpId", "0".to_owned()),
                ("streamId", "0".to_owned()),
            ];
            let asked = Asked::new(parts.map(|(name, part)| (name.to_owned(), part)), "");
            let Ok(text) = answer(&reporter, &asked) else { continue };
            let value = serde_json::from_str(&text).unwrap();
            let get = &document["paths"][path]["get"];
            let schema = &get["responses"]["200"]["content"]["application/json"]["schema"];
            walk(&value, schema, &document, &mut seen, &mut complaints);
            // Every part of the path is a parameter that is described.
            let parameters = get["parameters"].as_array().cloned().unwrap_or_default();
            let named =
                |name: &str| parameters.iter().any(|parameter| parameter["name"] == name && parameter["in"] == "path");
            let parts = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            complaints.extend(parts.filter(|part| !named(part)).map(|part| format!("{path}: {part} is not described")));
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let fields = |(name, schema): (&String, &Value)| -> Vec<String> {
        schema["properties"].as_object().unwrap().keys().map(|field| format!("{name}.{field}")).collect()
    };
    let all: BTreeSet<String> = schemas.iter().flat_map(fields).collect();
    assert_eq!(all.difference(&seen).collect::<Vec<_>>(), Vec::<&String>::new(), "described, and never answered");
}

#[test]
fn what_differs_from_the_document_is_found() {
    let document = json!({"components": {"schemas": {"A": {
        "required": ["a"], "properties": {"a": {"type": "integer"}, "b": {"type": ["string", "null"], "enum": ["x"]}},
    }}}});
    let complaints = |value: Value| {
        let (mut seen, mut complaints) = (BTreeSet::new(), Vec::new());
        walk(&value, &json!({"$ref": "#/components/schemas/A"}), &document, &mut seen, &mut complaints);
        complaints.len()
    };
    let found: BTreeMap<&str, usize> = BTreeMap::from([
        ("fits", complaints(json!({"a": 1, "b": "x"}))),
        ("lacks", complaints(json!({"b": "x"}))),
        ("more", complaints(json!({"a": 1, "c": 2}))),
        ("type", complaints(json!({"a": "1"}))),
        ("word", complaints(json!({"a": 1, "b": "y"}))),
        ("none", complaints(json!([1]))),
    ]);
    assert_eq!(found.into_values().collect::<Vec<_>>(), [0, 1, 1, 1, 1, 1]);
}
