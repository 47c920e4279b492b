//! Streams of what is not in Kafka: how a program asks for them.

use std::sync::Arc;

use super::{
    StreamingContext,
    source::{Receiver, ReceiverLog, ReceiverSource, SocketReceiver, TextFileSource, TextFiles},
};
use crate::{
    clock::SystemClock,
    error::Result,
    transform::{DStream, DirectKafkaInputDStream, text_of},
    types::Record,
};

impl StreamingContext {
    /// The lines of the text files that are moved into a folder, each exactly once. Bytes that are not UTF-8 become `U+FFFD`.
    /// What is there at the first start is read, unless it is asked for [new files only](TextFiles::new_files_only); Spark passes
    /// over it. Spark: `textFileStream`.
    ///
    /// ```
    /// # use directstream::stream::StreamingContext;
    /// # fn example(context: &StreamingContext) -> directstream::Result<()> {
    /// let words = context.text_file_stream("incoming")?.flat_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    /// words.count().print();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) once the context was started or stopped, or for an empty path. A folder
    /// that is not there is found at the start.
    pub fn text_file_stream(&self, files: impl Into<TextFiles>) -> Result<DStream<String>> {
        Ok(lines(&self.text_file_records(files)?))
    }

    /// The same as records: the value is the line as it is in the file, the offset the byte that it begins at, the topic
    /// `file:FOLDER/NAME`, and the timestamp that of the file's last modification. Spark: `fileStream`.
    ///
    /// ```
    /// # use directstream::stream::{StreamingContext, TextFiles};
    /// # fn example(context: &StreamingContext) -> directstream::Result<()> {
    /// let lines = context.text_file_records(TextFiles::in_folder("incoming").new_files_only())?;
    /// lines.map(|line| format!("{} {}", line.topic(), line.offset())).print();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`text_file_stream`](Self::text_file_stream).
    pub fn text_file_records(&self, files: impl Into<TextFiles>) -> Result<DirectKafkaInputDStream> {
        self.add_source(Arc::new(TextFileSource::new(files.into())?))
    }

    /// What a receiver stores, each record exactly once from then on: see [`Receiver`] for what that means to its sender. A
    /// record's value is what was stored, its topic `receiver:NAME`, its offset its number since ever, and its timestamp when it
    /// was stored. When the stream stops the receiver is stopped; what it stored and no batch had is the next start's. Spark:
    /// `receiverStream`.
    ///
    /// ```
    /// # use directstream::stream::{Receiver, StreamingContext};
    /// # fn example(context: &StreamingContext, orders: impl Receiver) -> directstream::Result<()> {
    /// let orders = context.receiver_stream(orders, "/var/lib/orders/wal")?;
    /// orders.count().print();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) once the context was started or stopped, or if the receiver's name cannot be
    /// one. What is wrong with the log is found at the start.
    pub fn receiver_stream(
        &self,
        receiver: impl Receiver,
        log: impl Into<ReceiverLog>,
    ) -> Result<DirectKafkaInputDStream> {
        let source = ReceiverSource::new(Arc::new(receiver), log.into(), SystemClock::shared())?;
        self.add_source(Arc::new(source))
    }

    /// The lines that somebody sends who listens at `host` and `port`: connected to, and again when the connection is lost, after
    /// 2 s at first, then twice as long each time up to 60 s. Bytes that are not UTF-8 become `U+FFFD`; a line has at most
    /// 16 MiB. Spark: `socketTextStream`.
    ///
    /// A line that is in the log counts exactly once. One that was still on its way when the process died or the connection broke is
    /// lost, for nobody tells the sender; a [`Receiver`] of your own can.
    ///
    /// ```
    /// # use directstream::stream::StreamingContext;
    /// # fn example(context: &StreamingContext) -> directstream::Result<()> {
    /// let lines = context.socket_text_stream("localhost", 9999, "/var/lib/words/wal")?;
    /// lines.count().print();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`receiver_stream`](Self::receiver_stream).
    pub fn socket_text_stream(&self, host: &str, port: u16, log: impl Into<ReceiverLog>) -> Result<DStream<String>> {
        Ok(lines(&self.receiver_stream(SocketReceiver::new(host, port), log)?))
    }
}

/// The values of records as text.
fn lines(records: &DirectKafkaInputDStream) -> DStream<String> {
    records.map(|line: Record| text_of(line.value().unwrap_or_default()))
}
