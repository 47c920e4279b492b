//! Receivers: what is pushed to this process, or fetched from where nothing can be read again.
//!
//! A range of offsets can only be read twice where it lies somewhere. So what a receiver stores goes into a log on this machine's
//! disk first, and the stream reads the log: a topic of one partition, whose offsets count the records since ever.

mod frame;
mod log;
mod segments;
mod supervisor;
#[cfg(test)]
mod tests;
mod wal;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;

use self::{log::Log, supervisor::Supervision, wal::Wal};
use super::{Source, chunks::Chunks};
use crate::{
    clock::Clock,
    commit::StoredPosition,
    config::{OnDataLoss, Subscription},
    error::{Error, ErrorKind, Result, Stage},
    kafka::TopicAnswer,
    plan::{Answers, TopicFilter},
    read::ReadRanges,
    report::Reporter,
    types::{Chunk, Flow, MemoryRecord, Offset, OffsetRange, RangeCounts, Stop, TopicPartition},
};

pub use self::supervisor::{Receiver, ReceiverSupervisor};

/// How much of a log may be unread, in bytes.
const UNREAD_BYTES_MAX_DEFAULT: u64 = 1024 * 1024 * 1024;
/// At how many bytes a segment is followed by the next one.
const SEGMENT_BYTES_MAX_DEFAULT: u64 = 64 * 1024 * 1024;
/// So long the process before may take to let go of the log, after it lost the application.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
const LOCK_AGAIN: Duration = Duration::from_millis(100);
/// How often a receiver that was stopped is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// A receiver's name is a folder's name and part of a topic's.
const NAME_BYTES_MAX: usize = 100;

/// Where a receiver's records lie until they are committed: `FOLDER/APPLICATION/RECEIVER/`. Spark:
/// `spark.streaming.receiver.writeAheadLog.enable`, always on here; its files lie in the checkpoint directory.
///
/// The folder must be on a disk of this machine that outlives the process, and the next process must find it: a container needs
/// a volume for it.
///
/// ```
/// use directstream::stream::ReceiverLog;
///
/// let log = ReceiverLog::in_folder("/var/lib/orders/wal").unread_bytes_max(4 * 1024 * 1024 * 1024);
/// ```
#[derive(Debug, Clone)]
pub struct ReceiverLog {
    folder: PathBuf,
    unread_bytes_max: u64,
    segment_bytes_max: u64,
    on_data_loss: OnDataLoss,
}

impl ReceiverLog {
    /// Logs below this folder, which is made if it is missing.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            unread_bytes_max: UNREAD_BYTES_MAX_DEFAULT,
            segment_bytes_max: SEGMENT_BYTES_MAX_DEFAULT,
            on_data_loss: OnDataLoss::Fail,
        }
    }

    /// The most bytes that are not committed yet, or that a window still looks back on: beyond, [`ReceiverSupervisor::store`]
    /// waits. Default: 1 GiB. Spark's receivers slow down by a rate instead: `spark.streaming.receiver.maxRate`.
    #[must_use]
    pub fn unread_bytes_max(mut self, bytes: u64) -> Self {
        self.unread_bytes_max = bytes;
        self
    }

    /// At how many bytes a file of the log is followed by the next one; a file is deleted once all of it is committed. Default:
    /// 64 MiB. Spark: `spark.streaming.receiver.writeAheadLog.rollingIntervalSecs`, 60 s.
    #[must_use]
    pub fn segment_bytes_max(mut self, bytes: u64) -> Self {
        self.segment_bytes_max = bytes.max(1);
        self
    }

    /// What happens when the log was deleted, or ends before what is committed. Default: the stream ends with an error. With
    /// [`OnDataLoss::Skip`] it goes on with the log that is there.
    #[must_use]
    pub fn on_data_loss(mut self, on_data_loss: OnDataLoss) -> Self {
        self.on_data_loss = on_data_loss;
        self
    }
}

impl<P: Into<PathBuf>> From<P> for ReceiverLog {
    fn from(folder: P) -> Self {
        Self::in_folder(folder)
    }
}

/// A receiver and its log as a source.
#[derive(Debug)]
pub(in crate::stream) struct ReceiverSource {
    name: String,
    receiver: Arc<dyn Receiver>,
    settings: ReceiverLog,
    topic_partition: TopicPartition,
    filter: TopicFilter,
    clock: Arc<dyn Clock>,
    log: Arc<Log>,
    supervision: Arc<Supervision>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ReceiverSource {
    pub(in crate::stream) fn new(
        receiver: Arc<dyn Receiver>,
        settings: ReceiverLog,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let name = receiver.name().to_owned();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(Error::config(format!(
                "a receiver's name has up to {NAME_BYTES_MAX} letters, digits, dots, - and _, and begins with no dot name={name:?}"
            )));
        }
        let topic_partition = TopicPartition::new(format!("receiver:{name}"), 0);
        let filter = TopicFilter::new(&Subscription::Topics(vec![topic_partition.topic.to_string()]))?;
        let log = Arc::new(Log::new(settings.unread_bytes_max, Arc::clone(&clock)));
        let supervision = Arc::new(Supervision::new(Arc::clone(&log)));
        let thread = Mutex::new(None);
        Ok(Self { name, receiver, settings, topic_partition, filter, clock, log, supervision, thread })
    }

    /// Opens the log; the process that lost the application may need a moment to let go of it.
    async fn open_log(&self, application: &str) -> Result<Wal> {
        let folder = self.settings.folder.join(folder_name(application)).join(&self.name);
        let until = self.clock.monotonic().saturating_add(LOCK_PATIENCE);
        loop {
            let (folder, segment_bytes_max) = (folder.clone(), self.settings.segment_bytes_max);
            match blocking(move || Wal::open(&folder, segment_bytes_max)).await? {
                Err(error) if error.kind() == ErrorKind::Fenced && self.clock.monotonic() < until => {
                    tokio::time::sleep(LOCK_AGAIN).await;
                }
                opened => return opened,
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("a receiver's log could not be used").caused_by(error))
}

/// An application's name as a folder's: what is not a letter, digit, `-` or `_` is written as `%` and two hexadecimal digits.
fn folder_name(application: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let written = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") };
    application.bytes().map(written).collect()
}

#[async_trait]
impl Source for ReceiverSource {
    fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    async fn ask(&self) -> Result<Answers> {
        let log = Arc::clone(&self.log);
        let told = blocking(move || log.told()).await??;
        let mut answers = Answers::default();
        if let Some((id, earliest, latest)) = told {
            answers.earliest.insert(self.topic_partition.clone(), Offset::clamped(earliest));
            answers.latest.insert(self.topic_partition.clone(), Offset::clamped(latest));
            let topic = TopicAnswer::Topic { partitions: 1, id: Some(id) };
            answers.topics.insert(Arc::clone(&self.topic_partition.topic), topic);
        }
        Ok(answers)
    }

    fn reports_to(&self, stream_id: usize, reporter: &Reporter) {
        self.supervision.reports_to(stream_id, &self.name, reporter);
    }

    async fn open(&self, application: &str, positions: &[StoredPosition]) -> Result<()> {
        let wal = self.open_log(application).await.map_err(|error| error.at(Stage::Start))?;
        let own = positions.iter().find(|position| position.topic_partition == self.topic_partition);
        self.log.open(wal, own.map_or(0, |position| position.until_offset.get()));
        let thread = self.supervision.run(Arc::clone(&self.receiver))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    async fn close(&self) {
        self.supervision.stop();
        let log = Arc::clone(&self.log);
        // First the log: whatever the receiver does, a successor can open it.
        let _ = blocking(move || log.close()).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Not joined on a thread of the runtime: a receiver that does not end would keep the process from ending.
        while thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn on_data_loss(&self) -> OnDataLoss {
        self.settings.on_data_loss
    }

    fn forget_before(&self, ends: &BTreeMap<TopicPartition, Offset>) {
        if let Some(end) = ends.get(&self.topic_partition) {
            self.log.forget_before(end.get());
        }
    }
}

impl Drop for ReceiverSource {
    fn drop(&mut self) {
        // A start that failed does not end in `close`.
        self.supervision.stop();
        self.log.close();
    }
}

impl ReadRanges for ReceiverSource {
    fn read(
        &self,
        range: &OffsetRange,
        cancelled: &dyn Fn() -> bool,
        each: &mut dyn FnMut(Arc<Chunk>) -> Flow,
    ) -> Result<RangeCounts, Stop> {
        let failed = |error: Error| Stop::Failed(error.at(Stage::Read).in_range(range.clone()));
        let (from, until) = (range.from_offset.get(), range.until_offset.get());
        let segments = self.log.segments_of(from, until).map_err(failed)?;
        let mut chunks = Chunks::new(range, cancelled, each);
        let mut stopped = None;
        wal::blocks(&segments, from, until, |block| {
            let records = block.records.iter().zip(block.first_offset..);
            for (value, offset) in records.filter(|(_, offset)| (from..until).contains(offset)) {
                let taken = chunks.take(MemoryRecord {
                    offset: Offset::clamped(offset),
                    value: Some(value.to_vec()),
                    timestamp_ms: Some(block.received_ms),
                    ..MemoryRecord::default()
                });
                if let Flow::Break(stop) = taken {
                    stopped = Some(stop);
                    return false;
                }
            }
            true
        })
        .map_err(failed)?;
        if let Some(stop) = stopped {
            return Err(stop);
        }
        let counts = chunks.finish()?;
        // Every offset of a log has its record.
        if counts.gaps > 0 {
            let text = format!("records of a receiver's log are gone records={}", counts.records);
            return Err(failed(Error::offsets_lost(text)));
        }
        Ok(counts)
    }
}
