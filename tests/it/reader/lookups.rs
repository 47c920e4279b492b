//! What the brokers say, and what it means when they say nothing.

use std::time::Instant;

use directstream::kafka::{ClientErrorClass, PartitionOffset, TopicAnswer};
use rdkafka::mocking::MockCluster;

use super::*;
use crate::support::{kafka as broker, kafka::record, shared_kafka};

const COMMITTED: IsolationLevel = IsolationLevel::ReadCommitted;

fn outcomes(answers: &[PartitionOffset]) -> Vec<OffsetOutcome> {
    answers.iter().map(|answer| answer.outcome).collect()
}

fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

#[tokio::test]
async fn each_partition_gets_its_own_answer() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(2).await;
    let stamped = |n: i64| record(n.to_string()).timestamp(1_000 * n).partition(0);
    kafka.produce(&topic, (1..=5).map(stamped).collect()).await;
    let lookup = lookup(&kafka);
    blocking(move || {
        latest(&lookup, &topic, 0);
        // Twice the same, a partition that does not exist, a topic that does not.
        let asked = [tp(&topic, 0), tp(&topic, 1), tp(&topic, 0), tp(&topic, 9), tp("no-such-topic", 0)];
        let answers = lookup.latest(&asked, COMMITTED);
        assert_eq!(
            answers.iter().map(|answer| &answer.topic_partition).collect::<Vec<_>>(),
            asked.iter().collect::<Vec<_>>()
        );
        let offset = |value| OffsetOutcome::Offset { offset: Offset::clamped(value), leader_epoch: Some(0) };
        let unknown = OffsetOutcome::Unknown;
        assert_eq!(outcomes(&answers), [offset(5), offset(0), offset(5), unknown, unknown]);
        assert_eq!(outcomes(&lookup.latest(&[tp("no-such-topic", 0)], COMMITTED)), [unknown]);
        let times = [(tp(&topic, 0), 3_000), (tp(&topic, 1), 3_000)];
        let found = outcomes(&lookup.at_timestamp(&times, COMMITTED));
        assert_eq!((found[0].offset(), found[1]), (Offset::new(2), OffsetOutcome::NoneAfter));
        assert_eq!(outcomes(&lookup.at_timestamp(&[(tp(&topic, 0), 9_000)], COMMITTED)), [OffsetOutcome::NoneAfter]);
        assert_eq!(outcomes(&lookup.latest(&[], COMMITTED)), []);
    })
    .await;
}

#[tokio::test]
async fn topics_partitions_and_ids_are_known() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(3).await;
    let lookup = lookup(&kafka);
    blocking(move || {
        let three = |answer: &TopicAnswer| matches!(answer, TopicAnswer::Topic { partitions: 3, .. });
        assert!(lookup.topics().unwrap().iter().any(|(name, answer)| *name == topic && three(answer)));
        let counted = lookup.partitions(&[&topic, "no-such-topic"]);
        assert!(three(&counted[0]) && counted[1] == TopicAnswer::Unknown, "{counted:?}");
        let described = lookup.topic_ids(&["no-such-topic", &topic]);
        assert!(described[0] == TopicAnswer::Unknown && three(&described[1]), "{described:?}");
        let TopicAnswer::Topic { id: Some(id), .. } = &described[1] else { panic!("{described:?}") };
        assert_eq!(id.as_str().len(), 22);
        assert_eq!(lookup.cluster_id().as_deref(), Some("5L6g3nShT-eMCtK--X86sw"));
        assert_eq!(lookup.last_client_errors(), []);
    })
    .await;
}

#[tokio::test]
async fn new_partitions_and_new_topics_are_known_at_once() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    let late = crate::support::unique("late");
    let lookup = lookup(&kafka);
    let (asked, name, missing) = (Arc::clone(&lookup), topic.clone(), late.clone());
    blocking(move || {
        assert_eq!(latest(&asked, &name, 0), 0);
        let answers = asked.latest(&[tp(&name, 1), tp(&missing, 0)], COMMITTED);
        assert_eq!(outcomes(&answers), [OffsetOutcome::Unknown; 2]);
    })
    .await;
    kafka.create_partitions(&topic, 2).await;
    kafka.create_topic(&late, 1, &[]).await;
    blocking(move || {
        let answers = lookup.latest(&[tp(&topic, 0), tp(&topic, 1), tp(&late, 0)], COMMITTED);
        assert!(answers.iter().all(|answer| answer.outcome.offset() == Some(Offset::ZERO)), "{answers:?}");
    })
    .await;
}

#[tokio::test]
async fn an_open_transaction_ends_what_is_stable() {
    use rdkafka::producer::Producer as _;
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, vec![record("a"), record("b"), record("c")]).await;
    let (lookup, producer) = (lookup(&kafka), kafka.producer(Some(&topic)));
    blocking(move || {
        producer.init_transactions(Duration::from_secs(60)).unwrap();
        producer.begin_transaction().unwrap();
        crate::support::kafka::send_all(&producer, &topic, &[record("d"), record("e")]);
        let latest = |isolation| lookup.latest(&[tp(&topic, 0)], isolation)[0].outcome.offset();
        assert_eq!(latest(COMMITTED), Offset::new(3));
        assert_eq!(latest(IsolationLevel::ReadUncommitted), Offset::new(5));
        producer.abort_transaction(Duration::from_secs(60)).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_no_evidence() {
    let kafka = Kafka::start(broker()).await;
    let topic = kafka.topic(1).await;
    let lookup = lookup(&kafka);
    let (same, name) = (Arc::clone(&lookup), topic.clone());
    blocking(move || latest(&same, &name, 0)).await;
    kafka.server().pause().await;
    blocking(move || {
        let started = Instant::now();
        assert_eq!(outcomes(&lookup.latest(&[tp(&topic, 0)], COMMITTED)), [OffsetOutcome::NotAnswered]);
        assert_eq!(lookup.topic_ids(&[&topic]), [TopicAnswer::NotAnswered]);
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    })
    .await;
    kafka.server().unpause().await;
}

/// The most telling error after a lookup in vain.
fn class_of(brokers: &str, more: &[(&str, &str)]) -> (ClientErrorClass, String) {
    let more = more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let properties = KafkaProperties::new(brokers, "reader-tests", more);
    let lookup = OffsetLookup::new(&properties, SystemClock::shared()).unwrap();
    assert_eq!(outcomes(&lookup.latest(&[tp("t", 0)], COMMITTED)), [OffsetOutcome::NotAnswered]);
    let errors = lookup.last_client_errors();
    (errors[0].class, errors[0].to_string())
}

#[tokio::test]
async fn a_failed_connection_tells_its_class_and_no_secret() {
    let kafka = shared_kafka().await;
    blocking(move || {
        let sasl = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "user"),
            ("sasl.password", "canary-password"),
        ];
        let (class, text) = class_of(kafka.brokers(), &sasl);
        assert_eq!(class, ClientErrorClass::Authentication, "{text}");
        assert!(!text.contains("canary"), "{text}");
        let (class, text) = class_of(kafka.brokers(), &[("security.protocol", "SSL")]);
        // The client says "connecting to a PLAINTEXT broker listener?" or "SSL connection closed by peer", by timing.
        assert!(class == ClientErrorClass::Transport && text.contains("security.protocol"), "{text}");
        let (class, text) = class_of("127.0.0.1:1", &[]);
        assert!(matches!(class, ClientErrorClass::Transport | ClientErrorClass::AllBrokersDown), "{text}");
    })
    .await;
}

#[tokio::test]
async fn a_refused_property_names_its_reason_and_a_bad_value_is_not_printed() {
    let make = |settings: &[(&str, &str)]| {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let properties = KafkaProperties::new("127.0.0.1:1", "t", settings);
        OffsetLookup::new(&properties, SystemClock::shared()).unwrap_err().to_string()
    };
    assert!(make(&[("isolation.level", "read_uncommitted")]).contains("kafka.isolation_level"));
    assert!(make(&[("plugin.library.paths", "/tmp/x.so")]).contains("it loads code"));
    let text = make(&[("no.such.key", "canary")]);
    assert!(text.contains("no.such.key") && !text.contains("canary"), "{text}");
    let text = make(&[("security.protocol", "SSL"), ("ssl.key.pem", "canary")]);
    assert!(text.contains("ssl.key.pem") && !text.contains("canary"), "{text}");
}

#[tokio::test]
async fn the_mock_cluster_answers_all_but_topic_ids() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 4, 1).unwrap();
    let properties = KafkaProperties::new(cluster.bootstrap_servers(), "reader-tests", BTreeMap::new());
    blocking(move || {
        let lookup = OffsetLookup::new(&properties, SystemClock::shared()).unwrap();
        assert_eq!(latest(&lookup, "t", 3), 0);
        assert!(matches!(lookup.partitions(&["t"])[0], TopicAnswer::Topic { partitions: 4, id: None }));
        assert_eq!(lookup.topic_ids(&["t"]), [TopicAnswer::NotAnswered]);
    })
    .await;
    drop(cluster);
}
