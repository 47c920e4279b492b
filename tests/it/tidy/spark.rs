//! The page for people who come from Spark: no name of Spark's is left out, and no name of ours is made up.

use super::{code::code_only, rules::SourceFile};

/// Spark's public names, by what they belong to: Spark 3 and 4, Scala, the DStream API and the Kafka 0.10 integration.
const SPARK: &[(&str, &str)] = &[
    ("", "StreamingContext MapWithStateDStream BatchInfo OutputOperationInfo StreamInputInfo ReceiverInfo"),
    ("", "StatsReportListener Duration Durations Milliseconds Seconds Minutes Time"),
    ("StreamingContext", "start stop awaitTermination awaitTerminationOrTimeout getState union transform"),
    ("StreamingContext", "addStreamingListener removeStreamingListener checkpoint remember sparkContext"),
    ("StreamingContext", "getOrCreate getActiveOrCreate getActive jarOfClass queueStream fileStream textFileStream"),
    ("StreamingContext", "binaryRecordsStream receiverStream socketTextStream socketStream rawSocketStream"),
    ("StreamingContextState", "INITIALIZED ACTIVE STOPPED"),
    ("DStream", "map flatMap filter glom repartition mapPartitions reduce count countByValue union transform"),
    ("DStream", "transformWith foreachRDD print saveAsTextFiles saveAsObjectFiles window reduceByWindow"),
    ("DStream", "countByWindow countByValueAndWindow persist cache checkpoint slice slideDuration dependencies"),
    ("DStream", "compute context toPairDStreamFunctions"),
    ("PairDStreamFunctions", "groupByKey reduceByKey combineByKey groupByKeyAndWindow reduceByKeyAndWindow"),
    ("PairDStreamFunctions", "mapWithState updateStateByKey mapValues flatMapValues cogroup join leftOuterJoin"),
    ("PairDStreamFunctions", "rightOuterJoin fullOuterJoin saveAsHadoopFiles saveAsNewAPIHadoopFiles"),
    ("StateSpec", "function initialState numPartitions partitioner timeout"),
    ("State", "exists get getOption update remove isTimingOut"),
    ("MapWithStateDStream", "stateSnapshots"),
    ("KafkaUtils", "createDirectStream createRDD"),
    ("ConsumerStrategies", "Subscribe SubscribePattern Assign"),
    ("ConsumerStrategy", "executorKafkaParams onStart"),
    ("LocationStrategies", "PreferBrokers PreferConsistent PreferFixed"),
    ("OffsetRange", "create apply topic partition topicPartition fromOffset untilOffset count"),
    ("HasOffsetRanges", "offsetRanges"),
    ("CanCommitOffsets", "commitAsync"),
    ("PerPartitionConfig", "maxRatePerPartition minRatePerPartition"),
    ("StreamingListener", "onStreamingStarted onBatchSubmitted onBatchStarted onBatchCompleted"),
    ("StreamingListener", "onOutputOperationStarted onOutputOperationCompleted"),
    ("StreamingListener", "onReceiverStarted onReceiverError onReceiverStopped"),
    ("", "StreamingListenerStreamingStarted StreamingListenerBatchSubmitted StreamingListenerBatchStarted"),
    ("", "StreamingListenerBatchCompleted StreamingListenerOutputOperationStarted"),
    ("", "StreamingListenerOutputOperationCompleted StreamingListenerReceiverStarted"),
    ("", "StreamingListenerReceiverError StreamingListenerReceiverStopped"),
    ("BatchInfo", "batchTime streamIdToInputInfo submissionTime processingStartTime processingEndTime"),
    ("BatchInfo", "outputOperationInfos schedulingDelay processingDelay totalDelay numRecords"),
    ("OutputOperationInfo", "batchTime id name description startTime endTime failureReason duration"),
    ("StreamInputInfo", "inputStreamId numRecords metadata metadataDescription"),
    ("Time", "milliseconds less lessEq greater greaterEq min max plus minus floor isMultipleOf until to"),
    ("spark.streaming", "blockInterval checkpoint.directory clock concurrentJobs gracefulStopTimeout"),
    ("spark.streaming", "manualClock.jump sessionByKey.deltaChainThreshold stopGracefullyOnShutdown"),
    ("spark.streaming", "stopSparkContextByDefault ui.retainedBatches unpersist receiver.maxRate"),
    ("spark.streaming.backpressure", "enabled initialRate rateEstimator pid.proportional pid.integral"),
    ("spark.streaming.backpressure", "pid.derived pid.minRate"),
    ("spark.streaming.receiver.writeAheadLog", "enable class rollingIntervalSecs maxFailures closeFileAfterWrite"),
    ("spark.streaming.driver.writeAheadLog", "class rollingIntervalSecs maxFailures closeFileAfterWrite"),
    ("spark.streaming.driver.writeAheadLog", "allowBatching batchingTimeout"),
    ("spark.streaming.dynamicAllocation", "enabled testing minExecutors maxExecutors scalingInterval"),
    ("spark.streaming.dynamicAllocation", "scalingUpRatio scalingDownRatio"),
    ("spark.streaming.kafka", "maxRatePerPartition minRatePerPartition allowNonConsecutiveOffsets"),
    ("spark.streaming.kafka.consumer", "poll.ms cache.enabled cache.initialCapacity cache.maxCapacity"),
    ("spark.streaming.kafka.consumer", "cache.loadFactor"),
];

/// Spark's names, whole.
fn spark() -> Vec<String> {
    let of = |(owner, names): &(&str, &str)| -> Vec<String> {
        let whole = |name: &str| if owner.is_empty() { name.to_owned() } else { format!("{owner}.{name}") };
        names.split(' ').map(whole).collect()
    };
    SPARK.iter().flat_map(of).collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What is wrong with the page: `sources` are ours, `keys` the page of all settings.
pub(super) fn spark_page(page: &str, sources: &[SourceFile], keys: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let (mut named, ours) = (Vec::new(), Ours::of(sources, keys));
    let rows = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    for row in rows.filter(|row| !row.starts_with("| Spark |")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [spark, here, note] = cells[..] else {
            complaints.push(format!("not three cells: {row}"));
            continue;
        };
        named.extend(quoted(spark).into_iter().map(str::to_owned));
        let names = quoted(here);
        let told = match here {
            "none" => note.starts_with("because "),
            "not yet" => !note.is_empty(),
            _ => !names.is_empty(),
        };
        if !told {
            complaints.push(format!("neither a name of ours nor a reason: {row}"));
        }
        complaints.extend(names.into_iter().filter(|name| !ours.has(name)).map(|name| format!("there is no {name}")));
    }
    let expected = spark();
    for name in &expected {
        match named.iter().filter(|known| *known == name).count() {
            1 => {}
            0 => complaints.push(format!("Spark's {name} is left out")),
            _ => complaints.push(format!("Spark's {name} is there twice")),
        }
    }
    let unknown = named.iter().filter(|name| !expected.contains(name));
    complaints.extend(unknown.map(|name| format!("Spark has no {name}, or the list of its names has not")));
    complaints
}

/// Names that the sources define.
struct Ours {
    /// `Type::function` of every block of an `impl` or a trait, and functions of their own.
    functions: Vec<String>,
    types: Vec<String>,
    keys: Vec<String>,
}

impl Ours {
    fn of(sources: &[SourceFile], keys: &str) -> Self {
        let (mut functions, mut types) = (Vec::new(), Vec::new());
        for file in sources {
            let code = code_only(&file.text);
            let (mut owner, mut in_trait) = (String::new(), false);
            for line in code.lines() {
                let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
                let after = |word: &str| {
                    let at = words.iter().position(|known| *known == word)?;
                    words.get(at + 1).map(|name| (*name).to_owned())
                };
                let begins = |starts: &[&str]| starts.iter().any(|start| line.trim_start().starts_with(start));
                if line.starts_with("pub ") {
                    types.extend(["struct", "enum", "trait"].into_iter().find_map(after));
                }
                if line.starts_with("pub trait ") {
                    (owner, in_trait) = (after("trait").unwrap_or_default(), true);
                } else if line.starts_with("impl") {
                    (owner, in_trait) = (implemented(line), false);
                } else if line.starts_with('}') {
                    owner.clear();
                }
                if begins(&["pub fn ", "pub const fn ", "pub async fn "]) || (in_trait && begins(&["fn "])) {
                    let name = after("fn").unwrap_or_default();
                    functions.push(if owner.is_empty() { name } else { format!("{owner}::{name}") });
                }
            }
        }
        let keys = keys.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
        Self { functions, types, keys: keys.map(str::to_owned).collect() }
    }

    fn has(&self, name: &str) -> bool {
        [&self.functions, &self.types, &self.keys].into_iter().any(|names| names.iter().any(|known| known == name))
    }
}

/// The type of an `impl` line: `DStream` of `impl<T: Ord> DStream<T> {`.
fn implemented(line: &str) -> String {
    let (mut depth, mut rest) = (0_usize, "");
    // Past the parameters of the `impl` itself.
    for (at, c) in line.char_indices().skip("impl".len()) {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 => {
                rest = &line[at + 1..];
                break;
            }
            _ => {}
        }
    }
    let of = rest.split_once(" for ").map_or(rest, |(_, of)| of);
    of.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn what_is_wrong_with_a_page_is_found() {
    let source = "pub struct Stream;\nimpl<T: Ord> Stream<T> {\n    pub fn map(&self) {}\n    fn hidden(&self) {}\n}\n\
                  pub trait Listens {\n    fn on_start(&self);\n}\npub async fn alone() {}\n";
    let sources = [SourceFile { path: "src/a.rs".to_owned(), text: source.to_owned() }];
    let ours = Ours::of(&sources, "### `a.key`\ntext\n");
    for name in ["Stream", "Stream::map", "Listens::on_start", "alone", "a.key"] {
        assert!(ours.has(name), "{name}");
    }
    for name in ["Stream::hidden", "map", "Listens::map", "text", "a"] {
        assert!(!ours.has(name), "{name}");
    }
    let rows: Vec<String> = spark().iter().map(|name| format!("| `{name}` | `Stream::map` | |")).collect();
    let complaints = |rows: &[String]| spark_page(&rows.join("\n"), &sources, "");
    assert_eq!(complaints(&rows), [""; 0]);
    assert_eq!(complaints(&rows[1..]), ["Spark's StreamingContext is left out"]);
    let twice = [rows.clone(), vec![rows[3].clone()]].concat();
    assert_eq!(complaints(&twice).len(), 1);
    let bad = [
        "| `DStream.nothing` | `Stream::map` | |",
        "| `X` | none | it is not |",
        "| `X` | `Stream::gone` | |",
        "| `X` |",
    ];
    for row in bad {
        assert!(!complaints(&[rows.clone(), vec![row.to_owned()]].concat()).is_empty(), "{row}");
    }
}
