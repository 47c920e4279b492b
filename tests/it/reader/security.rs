//! Credentials and rights, on a broker that asks for them.

use std::time::Instant;

use tokio::sync::OnceCell;

use directstream::{
    ErrorKind,
    kafka::{ClientErrorClass, TopicAnswer},
};

use super::*;
use crate::{
    main_job::job::{Job, LIMIT},
    support::{kafka as broker, wait_until},
};

const PASSWORD: &str = "canary-password";

fn as_reader(kafka: &Kafka, password: &str) -> KafkaProperties {
    let sasl = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "reader"),
        ("sasl.password", password),
    ];
    properties(kafka, &sasl)
}

/// A broker whose clients log in; inside its container nobody has to. The tests of this file share it.
async fn guarded() -> Kafka {
    static GUARDED: OnceCell<Kafka> = OnceCell::const_new();
    GUARDED.get_or_init(start_guarded).await.clone()
}

async fn start_guarded() -> Kafka {
    let jaas = format!("org.apache.kafka.common.security.plain.PlainLoginModule required user_reader=\"{PASSWORD}\";");
    let image = broker()
        .env("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "CLIENT:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT")
        .env("KAFKA_LISTENER_NAME_CLIENT_SASL_ENABLED_MECHANISMS", "PLAIN")
        .env("KAFKA_LISTENER_NAME_CLIENT_PLAIN_SASL_JAAS_CONFIG", jaas)
        .env("KAFKA_AUTHORIZER_CLASS_NAME", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .env("KAFKA_SUPER_USERS", "User:ANONYMOUS");
    Kafka::start(image).await
}

async fn allow(kafka: &Kafka, operation: &str, topic: &str) {
    let grant = ["--add", "--allow-principal", "User:reader", "--operation", operation, "--topic", topic];
    kafka.tool("kafka-acls", &grant).await.unwrap();
}

async fn revoke(kafka: &Kafka, operation: &str, topic: &str) {
    let words = ["--remove", "--force", "--allow-principal", "User:reader", "--operation", operation, "--topic", topic];
    kafka.tool("kafka-acls", &words).await.unwrap();
}

/// A topic with the records 1 to 10. Made inside the container, where nobody has to log in.
async fn filled(kafka: &Kafka, topic: &str) {
    kafka.tool("kafka-topics", &["--create", "--topic", topic, "--partitions", "1"]).await.unwrap();
    produce_ten(kafka, topic).await;
}

async fn produce_ten(kafka: &Kafka, topic: &str) {
    let producer = "/opt/kafka/bin/kafka-console-producer.sh --bootstrap-server localhost:9093 --topic";
    kafka.server().run(&["sh", "-c", &format!("seq 1 10 | {producer} {topic}")]).await.unwrap();
}

#[tokio::test]
async fn missing_rights_and_wrong_passwords_are_told_apart() {
    let kafka = guarded().await;
    filled(&kafka, "t").await;
    let wrong = as_reader(&kafka, "another-canary");
    blocking(move || {
        let lookup = OffsetLookup::new(&wrong, SystemClock::shared()).unwrap();
        let answer = lookup.latest(&[TopicPartition::new("t", 0)], IsolationLevel::ReadCommitted);
        assert_eq!(answer[0].outcome, OffsetOutcome::NotAnswered);
        let errors = lookup.last_client_errors();
        assert_eq!(errors[0].class, ClientErrorClass::Authentication, "{errors:?}");
        assert!(!format!("{errors:?} {wrong:?}").contains("canary"), "{errors:?} {wrong:?}");
    })
    .await;

    let right = as_reader(&kafka, PASSWORD);
    let lookup = Arc::new(OffsetLookup::new(&right, SystemClock::shared()).unwrap());
    let settings = ReaderSettings { properties: right, ..settings(&kafka) };
    let reader = Arc::new(DirectReader::new(settings, SystemClock::shared()).unwrap());
    let asked = Arc::clone(&lookup);
    blocking(move || {
        // Without the right to describe it, the topic does not exist.
        let answer = asked.latest(&[TopicPartition::new("t", 0)], IsolationLevel::ReadCommitted);
        assert!(matches!(answer[0].outcome, OffsetOutcome::Unknown | OffsetOutcome::Unauthorized), "{answer:?}");
    })
    .await;
    allow(&kafka, "Describe", "t").await;
    let same = Arc::clone(&reader);
    blocking(move || {
        assert_eq!(latest(&lookup, "t", 0), 10);
        assert!(matches!(lookup.topic_ids(&["t"])[0], TopicAnswer::Topic { partitions: 1, .. }));
        let started = Instant::now();
        let error = read(&same, &range("t", 0, 0, 10)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("give it READ"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    })
    .await;
    allow(&kafka, "Read", "t").await;
    blocking(move || {
        let started = Instant::now();
        while let Err(error) = read(&reader, &range("t", 0, 0, 10)) {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(started.elapsed() < Duration::from_secs(30), "{error}");
        }
        // The group is not ours, and is not needed.
        let errors = reader.client_errors(Duration::ZERO);
        assert!(errors.iter().all(|error| error.class == ClientErrorClass::Authorization), "{errors:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_a_wrong_protocol_and_a_revoked_right_end_a_job_with_3_and_are_named() {
    let kafka = guarded().await;
    filled(&kafka, "job").await;
    allow(&kafka, "Describe", "job").await;
    allow(&kafka, "Read", "job").await;
    let keys = |password: &str| {
        format!(
            "properties = {{ \"security.protocol\" = \"SASL_PLAINTEXT\", \"sasl.mechanism\" = \"PLAIN\", \
             \"sasl.username\" = \"reader\", \"sasl.password\" = \"{password}\" }}"
        )
    };
    const SOON: &str = "stream.start_timeout=4s";
    let in_time = async |job: &Job, settings: &[&str]| {
        let started = Instant::now();
        let (code, told) = job.until_latest(settings).await;
        // The time-out is kept to the second; the rest is the process on a busy machine.
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}: {told}", started.elapsed());
        assert!(!told.contains("canary"), "{told}");
        (code, told)
    };
    let (code, told) = in_time(&Job::new(&kafka, "job", &keys("another-canary")), &[SOON]).await;
    assert!(code == 3 && told.contains("uthentication") && told.contains("SASL_PLAINTEXT"), "{code}: {told}");
    let (code, told) = in_time(&Job::new(&kafka, "job", ""), &[SOON]).await;
    assert!(code == 3 && told.contains("plaintext"), "{code}: {told}");
    let job = Job::new(&kafka, "job", &keys(PASSWORD));
    let (code, told) = in_time(&job, &["kafka.topics=[\"no-such-topic\"]", SOON]).await;
    assert!(code == 3 && told.contains("no-such-topic") && told.contains("may not describe"), "{code}: {told}");

    let running = job.start(&["stream.unavailable_max=5s"]);
    wait_until("the records are committed", LIMIT, async || job.tables.committed().await == Some(10)).await;
    revoke(&kafka, "Read", "job").await;
    produce_ten(&kafka, "job").await;
    let (code, told) = running.ended().await;
    assert!(code == 3 && told.contains("give it READ"), "{code}: {told}");
    allow(&kafka, "Read", "job").await;
    job.reads_all(&[]).await;
    assert_eq!(job.tables.places().await, (0..20).map(|offset| (0, offset)).collect::<Vec<_>>());
}
