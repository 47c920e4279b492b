//! `save_to_kafka` and `save_to_kafka_outbox`: records of the job's own into Kafka, in the transaction that moves the offsets, or out
//! of a table that it writes.

use std::sync::Arc;

use super::{BatchScope, DStream, Output, Prepared, ToKafka, TransactionalOutput};
use crate::{
    error::Result,
    kafka::KafkaOutput,
    types::{ColumnShape, Flow, KafkaRecord, TableSpec},
};

struct SaveToKafka {
    stream: DStream<KafkaRecord>,
    /// Where the outbox is sent to; `None`: without one.
    outbox: Option<KafkaOutput>,
}

impl TransactionalOutput for SaveToKafka {
    fn name(&self) -> &'static str {
        if self.outbox.is_some() { "save_to_kafka_outbox" } else { "save_to_kafka" }
    }

    fn tables(&self) -> &[TableSpec] {
        &[]
    }

    fn reads_once(&self) -> bool {
        true
    }

    fn to_kafka(&self) -> Option<ToKafka<'_>> {
        Some(self.outbox.as_ref().map_or(ToKafka::Transaction, ToKafka::Outbox))
    }

    fn slide_ms(&self) -> Option<i64> {
        self.stream.slide_ms()
    }

    fn prepare(&self, scope: &BatchScope, _tables: &[Vec<ColumnShape>]) -> Result<Prepared> {
        let each = |records: &mut Vec<KafkaRecord>, record| {
            records.push(record);
            Flow::Continue(())
        };
        let records = self.stream.rdd(scope)?.run(|_| Vec::new(), each)?;
        Ok(Prepared { records: records.into_iter().flatten().collect(), ..Prepared::default() })
    }
}

impl DStream<KafkaRecord> {
    /// Writes each record to its topic, in one transaction of Kafka with the offsets that were read: exactly once for
    /// readers with `isolation.level=read_committed`, from one cluster into the same one. Needs a `kafka:` store
    /// ([`store`](crate::stream::StreamingContextBuilder::store)). Records of one batch keep their order within a partition.
    ///
    /// A record that Kafka cannot take (too large, a topic or partition that is not there) ends the stream, and nothing of its
    /// batch is seen. Kafka: `sendOffsetsToTransaction`.
    ///
    /// ```
    /// # use directstream::{transform::DStream, types::KafkaRecord};
    /// # fn example(words: DStream<(String, i64)>) -> directstream::Result<()> {
    /// words.map(|(word, count)| KafkaRecord::to("counts").key(word).value(count.to_string())).save_to_kafka()
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the context was started or stopped. With another store, and in a job with
    /// windows or state, [`start`](crate::stream::StreamingContext::start) refuses it.
    pub fn save_to_kafka(&self) -> Result<()> {
        self.add_kafka_output(None)
    }

    /// Writes each record into the outbox, a table of the store, in the batch's own transaction, from where it is sent to its topic
    /// after the commit: none is lost, none of a batch that was not committed is sent, and those of one partition come in their
    /// order. At least once: after a crash, the records that were just being sent come again. Needs a `postgres:` or `sqlite:`
    /// store; any cluster will do.
    ///
    /// Batches do not wait for Kafka, unless more records wait than [`KafkaOutput::waiting_max`] says. A record that Kafka cannot
    /// take (too large, a topic or partition that is not there) ends the stream and stays in the outbox, with all after it.
    ///
    /// ```
    /// # use directstream::{transform::{DStream, KafkaOutput}, types::KafkaRecord};
    /// # fn example(words: DStream<(String, i64)>) -> directstream::Result<()> {
    /// words
    ///     .map(|(word, count)| KafkaRecord::to("counts").key(word).value(count.to_string()))
    ///     .save_to_kafka_outbox(KafkaOutput::bootstrap_servers("localhost:9092"))
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the context was started or stopped. With another store, and where two
    /// outputs of a job name different clusters, [`start`](crate::stream::StreamingContext::start) refuses it.
    pub fn save_to_kafka_outbox(&self, output: KafkaOutput) -> Result<()> {
        self.add_kafka_output(Some(output))
    }

    fn add_kafka_output(&self, outbox: Option<KafkaOutput>) -> Result<()> {
        self.graph().check_open()?;
        let output = SaveToKafka { stream: self.used(), outbox };
        self.graph().add_output(Output::Transactional(Arc::new(output)));
        Ok(())
    }
}
