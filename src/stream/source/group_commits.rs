//! Offsets on their way into a consumer group: on a thread of its own, so that no batch waits for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    error::Result,
    kafka::{GroupCommitter, KafkaProperties},
    types::{Offset, TopicPartition},
};

/// How often the end of the thread is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What one stream commits to its group.
#[derive(Debug)]
pub(super) struct GroupCommits {
    properties: KafkaProperties,
    group: String,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What is to be committed next: of each partition the latest, so it grows no further than there are partitions.
    wanted: BTreeMap<TopicPartition, Offset>,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GroupCommits {
    pub(super) fn new(properties: KafkaProperties, group: String) -> Self {
        Self { properties, group, shared: Arc::default(), thread: Mutex::default() }
    }

    /// Has offsets committed. Returns at once. The first call starts the thread and its client.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if no client can be made.
    pub(super) fn commit(&self, offsets: BTreeMap<TopicPartition, Offset>) -> Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let committer = GroupCommitter::new(&self.properties, &self.group)?;
            let shared = Arc::clone(&self.shared);
            let spawned = thread::Builder::new()
                .name("group commits".to_owned())
                .spawn(move || shared.run(&committer))
                .map_err(|error| crate::Error::internal("a thread cannot be started").caused_by(error))?;
            *thread = Some(spawned);
        }
        lock(&self.shared.state).wanted.extend(offsets);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Waits until what was asked for is done.
    pub(super) async fn close(&self) {
        self.end();
        let thread = lock(&self.thread).take();
        while thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn end(&self) {
        lock(&self.shared.state).closed = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for GroupCommits {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn run(&self, committer: &GroupCommitter) {
        loop {
            let nothing = |state: &mut State| state.wanted.is_empty() && !state.closed;
            let mut state = self.changed.wait_while(lock(&self.state), nothing).unwrap_or_else(PoisonError::into_inner);
            let wanted = std::mem::take(&mut state.wanted);
            drop(state);
            if wanted.is_empty() {
                return;
            }
            // Not tried again: the next batch's offsets are higher anyway.
            if let Err(error) = committer.commit(&wanted) {
                tracing::warn!(partitions = wanted.len(), "{}", error.chain());
            }
        }
    }
}
