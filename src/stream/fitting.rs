//! Whether a job's outputs fit its store: said before anything is connected.

use super::{
    context::Parts,
    source::{SourceSpec, kafka_properties},
};
use crate::{
    commit::Committer,
    config::{KafkaConfig, StoreKind},
    error::{Error, Result},
    kafka::KafkaProperties,
    report::Reporter,
    transform::{KafkaOutput, Output, ToKafka},
};

/// Refuses what the store cannot put into one transaction with the offsets.
pub(super) fn refuse_unfit_outputs(parts: &Parts) -> Result<()> {
    let (kind, graph) = (parts.store.url.kind(), &parts.graph);
    for output in &graph.outputs() {
        let Output::Transactional(transactional) = output else { continue };
        if let Some(why) = unfit(kind, transactional.to_kafka()) {
            return Err(Error::config(format!("{why} output={output:?}")));
        }
    }
    outbox_of(parts)?;
    cluster_of(parts)?;
    if kind == StoreKind::Kafka && !(graph.histories().is_empty() && graph.states().is_empty()) {
        return Err(Error::config(
            "a kafka: store keeps offsets and nothing else: windows and state need a postgres:, sqlite: or checkpoint: store",
        ));
    }
    Ok(())
}

/// The cluster of a `kafka:` store, which is the one that every stream reads: a transaction has offsets and records of one cluster.
/// `None`: the store is another one.
pub(super) fn cluster_of(parts: &Parts) -> Result<Option<KafkaProperties>> {
    if parts.store.url.kind() != StoreKind::Kafka {
        return Ok(None);
    }
    if !parts.graph.queues().is_empty() {
        return Err(not_of_kafka());
    }
    let mut first: Option<&KafkaConfig> = None;
    for spec in &parts.specs {
        let SourceSpec::Kafka { kafka, .. } = spec else {
            return Err(Error::config(
                "a kafka: store keeps offsets of Kafka's topics: other streams need another store",
            ));
        };
        let known: &KafkaConfig = first.get_or_insert(kafka);
        if (&known.bootstrap_servers, &known.properties) != (&kafka.bootstrap_servers, &kafka.properties) {
            return Err(Error::config(
                "with a kafka: store every stream reads the same cluster: give all the same servers and properties",
            ));
        }
    }
    Ok(first.map(|kafka| kafka_properties(kafka, &parts.application)))
}

fn not_of_kafka() -> Error {
    Error::config("a kafka: store keeps offsets of Kafka's topics: other streams need another store")
}

/// Where the job's outbox is sent to; `None` if it has none. There is one table and one relay, so there is one cluster.
pub(super) fn outbox_of(parts: &Parts) -> Result<Option<KafkaOutput>> {
    let outputs = parts.graph.outputs();
    let mut outboxes = outputs.iter().filter_map(|output| match output {
        Output::Transactional(output) => match output.to_kafka() {
            Some(ToKafka::Outbox(to)) => Some(to),
            Some(ToKafka::Transaction) | None => None,
        },
        Output::SideEffect(_) => None,
    });
    let first = outboxes.next();
    if outboxes.any(|other| Some(other) != first) {
        return Err(Error::config(
            "the outputs with an outbox name different clusters or limits: a job has one outbox",
        ));
    }
    Ok(first.cloned())
}

/// Tells the reporter how the outbox is doing, for as long as there is one.
pub(super) fn report_outbox(committer: &Committer, reporter: Reporter) {
    let Some(mut told) = committer.outbox() else { return };
    tokio::spawn(async move {
        loop {
            let state = *told.borrow_and_update();
            reporter.outbox(state.waiting, state.sent, state.errors);
            if told.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Tells the reporter how the store is doing, for as long as there is one.
pub(super) fn report_store(committer: &Committer, reporter: Reporter) {
    let (mut health, counts) = (committer.health(), committer.counts());
    tokio::spawn(async move {
        loop {
            let up = health.borrow_and_update().is_up();
            reporter.store(up, counts.reconnects(), counts.errors());
            if health.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Why an output cannot commit with the store, if it cannot.
const fn unfit(kind: StoreKind, to_kafka: Option<ToKafka<'_>>) -> Option<&'static str> {
    match (kind, to_kafka) {
        (StoreKind::Checkpoint, _) => Some(
            "a checkpoint folder keeps offsets and has no tables: use foreach_rdd with an effect that may happen twice, or a \
             postgres: or sqlite: store",
        ),
        (StoreKind::Kafka, None) => {
            Some("a kafka: store commits with save_to_kafka alone: tables and SQL need a postgres: or sqlite: store")
        }
        (StoreKind::Kafka, Some(ToKafka::Outbox(_))) => {
            Some("a kafka: store needs no outbox, and has no table for one: use save_to_kafka")
        }
        (StoreKind::Kafka, Some(ToKafka::Transaction))
        | (StoreKind::Postgres | StoreKind::Sqlite, None | Some(ToKafka::Outbox(_))) => None,
        (StoreKind::Postgres | StoreKind::Sqlite, Some(ToKafka::Transaction)) => {
            Some("a database and Kafka share no transaction: use save_to_kafka_outbox, or a kafka: store")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        ErrorKind,
        stream::{DirectStream, StreamingContext},
        transform::{Append, DStream},
        types::KafkaRecord,
    };

    #[test]
    fn each_output_has_the_stores_that_can_commit_it() {
        let fits = |kind, way| unfit(kind, way).is_none();
        let transaction = Some(ToKafka::Transaction);
        assert!(
            fits(StoreKind::Kafka, transaction) && fits(StoreKind::Postgres, None) && fits(StoreKind::Sqlite, None)
        );
        let output = KafkaOutput::bootstrap_servers("a:9092");
        let outbox = Some(ToKafka::Outbox(&output));
        assert!(fits(StoreKind::Postgres, outbox) && fits(StoreKind::Sqlite, outbox));
        assert!(!fits(StoreKind::Kafka, outbox) && !fits(StoreKind::Checkpoint, outbox));
        assert!(!fits(StoreKind::Kafka, None) && !fits(StoreKind::Checkpoint, None));
        assert!(!fits(StoreKind::Postgres, transaction) && !fits(StoreKind::Sqlite, transaction));
    }

    fn context(store: &str) -> (StreamingContext, DStream<KafkaRecord>) {
        let context =
            StreamingContext::builder("fitting", Duration::from_secs(1)).store(store).unwrap().build().unwrap();
        let records = context.direct_stream(DirectStream::topics(["t"])).unwrap();
        let out = records.map(|record| KafkaRecord::to("out").value(record.value().unwrap_or_default()));
        (context, out)
    }

    async fn refused(context: &StreamingContext, text: &str) {
        let error = context.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }

    #[tokio::test]
    async fn what_does_not_fit_the_store_is_refused_before_anything_is_connected() {
        let output = || KafkaOutput::bootstrap_servers("a:9092");
        let (database, out) = context("sqlite:never.db");
        out.save_to_kafka().unwrap();
        refused(&database, "use save_to_kafka_outbox, or a kafka: store output=save_to_kafka").await;

        let (kafka, out) = context("kafka:");
        out.save_to_kafka_outbox(output()).unwrap();
        refused(&kafka, "a kafka: store needs no outbox").await;

        let (kafka, out) = context("kafka:group");
        out.map(|_| (1_i64,)).save_to_table(Append::into("t").column("a")).unwrap();
        refused(&kafka, "a kafka: store commits with save_to_kafka alone").await;

        let (kafka, out) = context("kafka:group");
        out.window(Duration::from_secs(2), Duration::from_secs(1)).unwrap().save_to_kafka().unwrap();
        refused(&kafka, "windows and state need a postgres:, sqlite: or checkpoint: store").await;

        let (folder, out) = context("checkpoint:never");
        out.save_to_kafka_outbox(output()).unwrap();
        refused(&folder, "a checkpoint folder keeps offsets and has no tables").await;
        assert!(!std::path::Path::new("never.db").exists() && !std::path::Path::new("never").exists());
    }

    #[tokio::test]
    async fn a_kafka_store_is_in_the_one_cluster_that_is_read() {
        let (context, out) = context("kafka:");
        let other = DirectStream::topics(["u"]).bootstrap_servers("elsewhere:9092");
        let other = context.direct_stream(other).unwrap().map(|_| KafkaRecord::to("out"));
        out.union(&other).save_to_kafka().unwrap();
        refused(&context, "with a kafka: store every stream reads the same cluster").await;
    }

    #[tokio::test]
    async fn a_job_has_one_outbox() {
        let (context, out) = context("sqlite:never.db");
        for servers in ["a:9092", "b:9092"] {
            out.save_to_kafka_outbox(KafkaOutput::bootstrap_servers(servers)).unwrap();
        }
        refused(&context, "a job has one outbox").await;
    }
}
