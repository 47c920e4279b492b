//! A consumer group of Kafka as a mirror. The group is not joined: it shows offsets and no members.

use std::sync::Arc;

use async_trait::async_trait;

use super::{MirrorTarget, Offsets};
use crate::{
    error::{Error, Result},
    kafka::{GroupCommitter, KafkaProperties},
};

/// The group, in one cluster.
pub(crate) struct ConsumerGroupTarget {
    /// `None` only while it is dropped.
    committer: Option<Arc<GroupCommitter>>,
}

impl ConsumerGroupTarget {
    /// With a client of its own. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a property that cannot be used.
    pub(crate) fn new(properties: &KafkaProperties, group: &str) -> Result<Self> {
        Ok(Self { committer: Some(Arc::new(GroupCommitter::new(properties, group)?)) })
    }
}

#[async_trait]
impl MirrorTarget for ConsumerGroupTarget {
    async fn write(&mut self, offsets: &Offsets) -> Result<()> {
        let Some(committer) = self.committer.clone() else { return Ok(()) };
        let offsets = offsets.clone();
        let committing = tokio::task::spawn_blocking(move || committer.commit(&offsets));
        committing.await.map_err(|error| Error::internal("the mirror's thread failed").caused_by(error))?
    }
}

impl Drop for ConsumerGroupTarget {
    /// A client that waits for its coordinator takes its time to go, and nobody waits for that.
    fn drop(&mut self) {
        let committer = self.committer.take();
        let away = std::thread::Builder::new().name("mirror ends".to_owned());
        // Without a thread the client ends here: the closure, and the client with it, is dropped.
        drop(away.spawn(move || drop(committer)));
    }
}
