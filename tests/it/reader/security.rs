//! Credentials and rights, on a broker that asks for them.

use std::time::Instant;

use directstream::{
    ErrorKind,
    kafka::{ClientErrorClass, TopicAnswer},
};

use super::*;
use crate::support::kafka as broker;

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

/// A broker whose clients log in; inside its container nobody has to.
async fn guarded() -> Kafka {
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

#[tokio::test]
async fn missing_rights_and_wrong_passwords_are_told_apart() {
    let kafka = guarded().await;
    kafka.tool("kafka-topics", &["--create", "--topic", "t", "--partitions", "1"]).await.unwrap();
    kafka
        .server()
        .run(&[
            "sh",
            "-c",
            "seq 1 10 | /opt/kafka/bin/kafka-console-producer.sh --bootstrap-server localhost:9093 --topic t",
        ])
        .await
        .unwrap();
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
