//! Text files that are moved into a folder: each file is a topic of one partition, and its offsets are its bytes.
//!
//! What holds for an offset range of Kafka holds for one of a file: it is planned before it is read, and committed with what was
//! made of it, so that every line counts exactly once, whatever dies in between.

mod folder;
mod known;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;

use self::{
    folder::{Identity, escaped, files_in, identity, unescaped},
    known::{Known, bytes},
};
use super::{
    Source,
    chunks::Chunks,
    lines::{Ended, lines_of},
};
use crate::{
    commit::StoredPosition,
    config::{OnDataLoss, Subscription},
    error::{Error, ErrorKind, Result, Stage},
    kafka::TopicAnswer,
    plan::{Answers, TopicFilter},
    read::ReadRanges,
    types::{Chunk, Flow, MemoryRecord, Offset, OffsetRange, RangeCounts, Stop, TopicPartition},
};

/// How many files that are not yet read whole are told at a time.
const FILES_MAX_DEFAULT: usize = 1_000;
/// The most bytes of a line.
const LINE_BYTES_MAX_DEFAULT: usize = 16 * 1024 * 1024;
/// What a byte of a file takes in memory: itself, and its share of what a record costs beside its bytes, which is about 130
/// bytes. That is right for lines of 45 bytes; shorter ones take more. They are given in chunks that pass, and a batch that is
/// kept whole is measured while it is read.
const BYTES_PER_OFFSET: u64 = 4;

/// Text files that are moved into a folder. Spark: `fileStream`, with `newFilesOnly`.
///
/// A file is moved there whole, by a rename within one file system, and never changed afterwards. Names that begin with `.` or
/// `_`, or end in `.tmp` or `._COPYING_`, are passed over, and so are folders; a symbolic link is the file that it leads to.
///
/// ```
/// use directstream::stream::TextFiles;
///
/// let files = TextFiles::in_folder("incoming").new_files_only().line_bytes_max(1024 * 1024);
/// ```
#[derive(Debug, Clone)]
pub struct TextFiles {
    folder: PathBuf,
    new_files_only: bool,
    files_max: usize,
    line_bytes_max: usize,
    bytes_per_second_max: Option<u64>,
    on_data_loss: OnDataLoss,
}

impl TextFiles {
    /// The files of this folder. Its path, as it is given here, is part of the names that offsets are stored under:
    /// `file:FOLDER/NAME`. By another path they are other files.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            new_files_only: false,
            files_max: FILES_MAX_DEFAULT,
            line_bytes_max: LINE_BYTES_MAX_DEFAULT,
            bytes_per_second_max: None,
            on_data_loss: OnDataLoss::Fail,
        }
    }

    /// The very first start of the application passes over what is in the folder then. Default: it is read. Spark passes over it
    /// by default, and again at each start without a checkpoint; here a file that came while no process ran is read in any
    /// case. As long as no offsets are stored, each start is the first one. Spark: `newFilesOnly`.
    #[must_use]
    pub fn new_files_only(mut self) -> Self {
        self.new_files_only = true;
        self
    }

    /// How many files that are not yet read whole the stream has at a time, at least 1; the others wait, the oldest come first.
    /// Default: 1,000. A run that ends at what is latest at its start ends with these.
    #[must_use]
    pub fn files_max(mut self, files: usize) -> Self {
        self.files_max = files.max(1);
        self
    }

    /// The most bytes of one line, at least 1. A longer one ends the stream. Default: 16 MiB.
    #[must_use]
    pub fn line_bytes_max(mut self, bytes: usize) -> Self {
        self.line_bytes_max = bytes.max(1);
        self
    }

    /// The most bytes a second of one file. Default: no limit; that of the context is for records, and does not hold here.
    #[must_use]
    pub fn bytes_per_second_max(mut self, bytes: u64) -> Self {
        self.bytes_per_second_max = Some(bytes);
        self
    }

    /// What happens when a file was changed or replaced after it was begun. Default: the stream ends with an error. With
    /// [`OnDataLoss::Skip`] it is read as a new file. Spark reads what it finds, or nothing.
    #[must_use]
    pub fn on_data_loss(mut self, on_data_loss: OnDataLoss) -> Self {
        self.on_data_loss = on_data_loss;
        self
    }
}

impl<P: Into<PathBuf>> From<P> for TextFiles {
    fn from(folder: P) -> Self {
        Self::in_folder(folder)
    }
}

/// The files of one folder as a source.
#[derive(Debug)]
pub(in crate::stream) struct TextFileSource {
    /// What the topics' names begin with.
    prefix: String,
    filter: TopicFilter,
    files: Arc<Files>,
}

#[derive(Debug)]
struct Files {
    settings: TextFiles,
    known: Mutex<Known>,
    /// Whether the folder could not be read when it was last listed.
    unreadable: AtomicBool,
}

impl TextFileSource {
    pub(in crate::stream) fn new(settings: TextFiles) -> Result<Self> {
        let folder = escaped(settings.folder.as_os_str());
        let name = folder.trim_end_matches('/');
        if folder.is_empty() {
            return Err(Error::config("a stream of text files needs a folder: its path is empty"));
        }
        let prefix = format!("file:{name}/");
        let pattern = format!("{}[^/]+", regex::escape(&prefix));
        Ok(Self {
            prefix,
            filter: TopicFilter::new(&Subscription::Pattern(pattern))?,
            files: Arc::new(Files { settings, known: Mutex::default(), unreadable: AtomicBool::new(false) }),
        })
    }

    /// The name of a topic's file, if it is one of these.
    fn name_of(&self, topic_partition: &TopicPartition) -> Option<OsString> {
        topic_partition.topic.strip_prefix(&self.prefix).and_then(unescaped)
    }

    async fn asking<T: Send + 'static>(&self, ask: impl FnOnce(&Files, &str) -> T + Send + 'static) -> Result<T> {
        let (files, prefix) = (Arc::clone(&self.files), self.prefix.clone());
        let answer = tokio::task::spawn_blocking(move || ask(&files, &prefix)).await;
        answer.map_err(|error| Error::internal("a folder could not be listed").caused_by(error))
    }
}

impl Files {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is now. A folder that cannot be read for the moment tells nothing.
    fn look(&self, prefix: &str, files_max: usize) -> Answers {
        let folder = &self.settings.folder;
        match files_in(folder) {
            Ok(found) => {
                if self.unreadable.swap(false, Ordering::Relaxed) {
                    tracing::info!(path = %folder.display(), "the folder can be read again");
                }
                self.known().take_in(found, files_max, |name| Arc::from(format!("{prefix}{}", escaped(name))))
            }
            Err(error) => {
                if !self.unreadable.swap(true, Ordering::Relaxed) {
                    tracing::warn!(path = %folder.display(), "cannot read the folder: {error}");
                }
                Answers::default()
            }
        }
    }

    /// The files that are begun, once more: was one changed since the plan?
    fn topics(&self) -> BTreeMap<Arc<str>, TopicAnswer> {
        let begun: Vec<_> = self.known().begun().map(|(name, file)| (name.clone(), Arc::clone(&file.topic))).collect();
        let answer = |(name, topic)| {
            let answer = match identity(&self.settings.folder.join::<OsString>(name)) {
                Ok(Some(identity)) => TopicAnswer::Topic { partitions: 1, id: Some(identity.topic_id()) },
                Ok(None) => TopicAnswer::Unknown,
                Err(_) => TopicAnswer::NotAnswered,
            };
            (topic, answer)
        };
        begun.into_iter().map(answer).collect()
    }
}

#[async_trait]
impl Source for TextFileSource {
    fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    async fn ask(&self) -> Result<Answers> {
        self.asking(|files, prefix| files.look(prefix, files.settings.files_max)).await
    }

    async fn first_positions(&self) -> Result<Option<Vec<StoredPosition>>> {
        if !self.files.settings.new_files_only {
            // What is there joins as it is listed.
            return Ok(Some(Vec::new()));
        }
        let answers = self.asking(|files, prefix| files.look(prefix, usize::MAX)).await?;
        if self.files.unreadable.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut known = self.files.known();
        let position = |(topic_partition, topic_id)| {
            let until_offset = *answers.latest.get(&topic_partition)?;
            known.reached(&self.name_of(&topic_partition)?, until_offset);
            Some(StoredPosition { topic_partition, topic_id, until_offset, leader_epoch: None })
        };
        Ok(answers.partitions(&self.filter).into_iter().map(position).collect())
    }

    async fn open(&self, _application: &str, positions: &[StoredPosition]) -> Result<()> {
        let listed = self.asking(|files, _| files_in(&files.settings.folder)).await?;
        listed.map_err(|error| folder_error(&self.files.settings.folder, error))?;
        let mut known = self.files.known();
        for position in positions {
            let identity = position.topic_id.as_ref().and_then(Identity::parse);
            if let (Some(name), Some(identity)) = (self.name_of(&position.topic_partition), identity) {
                known.stored(name, Arc::clone(&position.topic_partition.topic), identity, position.until_offset);
            }
        }
        Ok(())
    }

    fn on_data_loss(&self) -> OnDataLoss {
        self.files.settings.on_data_loss
    }

    fn max_rate_per_partition(&self) -> Option<u64> {
        // The context's limit is one of records; bytes need one of their own, or none.
        Some(self.files.settings.bytes_per_second_max.unwrap_or(u64::MAX))
    }

    fn bytes_per_offset(&self) -> Option<u64> {
        Some(BYTES_PER_OFFSET)
    }

    fn prepare(&self, ranges: &[OffsetRange], _epochs: &dyn Fn(&TopicPartition) -> Option<i32>) -> Result<()> {
        let mut known = self.files.known();
        for range in ranges {
            if let Some(name) = self.name_of(&range.topic_partition) {
                known.reached(&name, range.until_offset);
            }
        }
        Ok(())
    }

    fn forget_before(&self, ends: &BTreeMap<TopicPartition, Offset>) {
        let mut known = self.files.known();
        for (topic_partition, end) in ends {
            if let Some(name) = self.name_of(topic_partition) {
                known.committed(&name, *end);
            }
        }
    }

    async fn ask_topics(&self) -> Result<Option<BTreeMap<Arc<str>, TopicAnswer>>> {
        self.asking(|files, _| files.topics()).await.map(Some)
    }
}

impl ReadRanges for TextFileSource {
    fn read(
        &self,
        range: &OffsetRange,
        cancelled: &dyn Fn() -> bool,
        each: &mut dyn FnMut(Arc<Chunk>) -> Flow,
    ) -> Result<RangeCounts, Stop> {
        let failed = |error: Error| Stop::Failed(error.at(Stage::Read).in_range(range.clone()));
        let settings = &self.files.settings;
        let name = self.name_of(&range.topic_partition).unwrap_or_default();
        let known = self.files.known().get(&name).cloned();
        let known = known.ok_or_else(|| failed(Error::unavailable("the file is not there")))?;
        let path = settings.folder.join(&name);
        let unreadable = |error: io::Error| {
            let text = format!("cannot read a text file path={}", path.display());
            failed(Error::unavailable(text).caused_by(error))
        };
        let file = File::open(&path).map_err(unreadable)?;
        let unchanged = || {
            let found = file.metadata().map(|metadata| Identity::of(&metadata)).map_err(unreadable)?;
            // Whether that is a loss the next plan finds.
            let changed = || failed(Error::unavailable("a text file was changed while it was read"));
            if found == known.identity { Ok(()) } else { Err(changed()) }
        };
        unchanged()?;
        let wanted = bytes(range.from_offset)..bytes(range.until_offset);
        let mut chunks = Chunks::new(range, cancelled, each);
        let ended = lines_of(&file, wanted, settings.line_bytes_max, |at, line| {
            chunks.take(MemoryRecord {
                offset: Offset::clamped(i64::try_from(at).unwrap_or(i64::MAX)),
                value: Some(line.to_vec()),
                timestamp_ms: Some(known.identity.modified_ms()),
                ..MemoryRecord::default()
            })
        });
        match ended.map_err(unreadable)? {
            Ended::AtTheEnd => {}
            Ended::Stopped(stop) => return Err(stop),
            Ended::TooLong { at } => {
                let most = settings.line_bytes_max;
                let text = format!("a line is longer than a line may be offset={at} line_bytes_max={most}");
                return Err(failed(Error::transform(text)));
            }
        }
        let counts = chunks.finish()?;
        unchanged()?;
        Ok(counts)
    }
}

/// What a folder's error means at the start: one that is not there, or is none, has to be mended.
fn folder_error(folder: &Path, error: io::Error) -> Error {
    use io::ErrorKind as Io;
    let wrong = matches!(error.kind(), Io::NotFound | Io::NotADirectory | Io::PermissionDenied | Io::InvalidFilename);
    let kind = if wrong { ErrorKind::Config } else { ErrorKind::Unavailable };
    let text = format!("cannot read the folder of text files path={}", folder.display());
    Error::new(kind, text).caused_by(error).at(Stage::Start)
}
