//! Which files were told, and how far each was planned and committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    sync::Arc,
};

use super::folder::Identity;
use crate::{
    kafka::TopicAnswer,
    plan::Answers,
    types::{Offset, TopicId, TopicPartition},
};

/// A file that was told, and is told from then on.
#[derive(Debug, Clone)]
pub(super) struct KnownFile {
    /// Its topic.
    pub(super) topic: Arc<str>,
    /// What it was when it was told last, and the same as its topic's id.
    pub(super) identity: Identity,
    id: TopicId,
    /// The end of what was planned or is stored.
    reached: u64,
    /// The end of what is committed, as far as that was told.
    committed: u64,
}

impl KnownFile {
    fn new(topic: Arc<str>, identity: Identity) -> Self {
        Self { topic, identity, id: identity.topic_id(), reached: 0, committed: 0 }
    }

    /// A file is a topic of one partition, from byte 0 to its size, and will never be another one.
    fn tell(&self, answers: &mut Answers) {
        let topic_partition = TopicPartition::new(Arc::clone(&self.topic), 0);
        let size = Offset::clamped(i64::try_from(self.identity.size).unwrap_or(i64::MAX));
        answers.earliest.insert(topic_partition.clone(), Offset::ZERO);
        answers.latest.insert(topic_partition, size);
        answers.closed.insert(Arc::clone(&self.topic));
        let topic = TopicAnswer::Topic { partitions: 1, id: Some(self.id.clone()) };
        answers.topics.insert(Arc::clone(&self.topic), topic);
    }

    /// Whether its end was planned or is stored: it may go then.
    fn is_read_whole(&self) -> bool {
        self.reached >= self.identity.size
    }

    /// Whether some of it was planned, and not all is known to be committed.
    fn is_begun(&self) -> bool {
        self.reached > 0 && self.committed < self.identity.size
    }
}

/// All files of one folder that were ever told, by their names on the disk.
#[derive(Debug, Default)]
pub(super) struct Known {
    files: BTreeMap<OsString, KnownFile>,
}

impl Known {
    pub(super) fn get(&self, name: &OsStr) -> Option<&KnownFile> {
        self.files.get(name)
    }

    /// Takes in what is stored of a file.
    pub(super) fn stored(&mut self, name: OsString, topic: Arc<str>, identity: Identity, end: Offset) {
        let mut file = KnownFile::new(topic, identity);
        (file.reached, file.committed) = (bytes(end), bytes(end));
        self.files.insert(name, file);
    }

    /// Takes in that a file's bytes before `end` are planned.
    pub(super) fn reached(&mut self, name: &OsStr, end: Offset) {
        if let Some(file) = self.files.get_mut(name) {
            file.reached = file.reached.max(bytes(end));
        }
    }

    /// Takes in that a file's bytes before `end` are committed.
    pub(super) fn committed(&mut self, name: &OsStr, end: Offset) {
        self.reached(name, end);
        if let Some(file) = self.files.get_mut(name) {
            file.committed = file.committed.max(bytes(end));
        }
    }

    /// Files that are being read: begun, and not known to be committed whole.
    pub(super) fn begun(&self) -> impl Iterator<Item = (&OsString, &KnownFile)> {
        self.files.iter().filter(|(_, file)| file.is_begun())
    }

    /// Compares with what is in the folder now, and tells all files that are known. Files that are new become known, the oldest
    /// first, as long as fewer than `files_max` are unfinished.
    pub(super) fn take_in(
        &mut self,
        mut found: BTreeMap<OsString, Identity>,
        files_max: usize,
        topic_of: impl Fn(&OsStr) -> Arc<str>,
    ) -> Answers {
        let mut answers = Answers::default();
        for (name, file) in &mut self.files {
            let found = found.remove(name);
            if let Some(identity) = found.filter(|identity| *identity != file.identity) {
                // Another file, of which nothing is read. Whether that is a loss the plan decides.
                *file = KnownFile::new(Arc::clone(&file.topic), identity);
            }
            if found.is_some() || file.is_read_whole() {
                // One that was read may go. It is told as it was, for its offset is still stored.
                file.tell(&mut answers);
            } else {
                answers.topics.insert(Arc::clone(&file.topic), TopicAnswer::Unknown);
            }
        }
        let unfinished = self.files.values().filter(|file| !file.is_read_whole()).count();
        let room = files_max.saturating_sub(unfinished);
        let order: BTreeSet<(Identity, OsString)> =
            found.into_iter().map(|(name, identity)| (identity, name)).collect();
        for (identity, name) in order.into_iter().take(room) {
            let file = KnownFile::new(topic_of(&name), identity);
            file.tell(&mut answers);
            self.files.insert(name, file);
        }
        answers
    }
}

/// An offset of a file as a number of bytes.
pub(super) fn bytes(offset: Offset) -> u64 {
    u64::try_from(offset.get()).unwrap_or(0)
}
