//! ZooKeeper as a mirror: the nodes of Kafka's old high-level consumer, which its tools still read.
//!
//! ```text
//! [chroot]/consumers/GROUP/offsets/TOPIC/PARTITION   the next offset, in decimal digits
//! [chroot]/consumers/GROUP/ids/CONSUMER              goes with the session; which topics are read
//! [chroot]/consumers/GROUP/owners/TOPIC/PARTITION    goes with the session; whose the partition is
//! ```
//!
//! An offset's node is created with its offset in it and never without: readers take an empty node for damage. After that it is
//! set, only in the version that this session wrote or found: where it is another one, another process has written, and whose
//! the application is has to be asked first. The offset itself is never read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use serde::Serialize;
use uuid::Uuid;
use zookeeper_client::{Acl, Acls, Client, CreateMode, CreateOptions, Error as ZkError, Permission};

use super::{MirrorTarget, Offsets};
use crate::{
    clock::Clock,
    config::{Secret, ZookeeperMirror},
    error::{Error, ErrorKind, Result},
    types::{Offset, TopicPartition},
};

/// How long the server keeps what goes with the session of a process that is gone: Kafka's own `zookeeper.session.timeout.ms`.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// How long connecting may take,
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// one write of all that is due, the session being there,
const WRITE_TIME_MAX: Duration = Duration::from_secs(4);
/// and saying goodbye.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);
/// Requests that are on their way at once.
const REQUESTS_MAX: usize = 64;
/// A node that others create and delete at the same time is given up after so many turns.
const TURNS_MAX: u32 = 5;

/// Whoever may read at all reads; who has the digest does the rest. So are Kafka's own nodes with `zookeeper.set.acl`.
static OF_THE_DIGEST: [Acl; 2] =
    [Acl::new_const(Permission::ALL, "auth", ""), Acl::new_const(Permission::READ, "world", "anyone")];

/// The nodes of one group.
pub(crate) struct ZookeeperTarget {
    servers: String,
    /// `/chroot/consumers/GROUP`
    root: String,
    group: String,
    digest: Option<Secret>,
    /// Whether it is shown that somebody reads the topics: not by a command that is gone in a moment.
    present: bool,
    clock: Arc<dyn Clock>,
    session: Option<Session>,
}

/// What is known of one session's nodes.
struct Session {
    client: Client,
    consumer: String,
    /// The versions of the offsets' nodes.
    versions: BTreeMap<TopicPartition, i32>,
    owned: BTreeSet<TopicPartition>,
    /// The topics in the node under `ids`.
    subscribed: BTreeSet<Arc<str>>,
}

/// What the node under `ids` says. Everything in it is text that Kafka's old consumer wrote and its tools parse.
#[derive(Debug, Serialize)]
struct Registration<'t> {
    version: u8,
    subscription: BTreeMap<&'t str, u8>,
    pattern: &'static str,
    timestamp: String,
}

impl ZookeeperTarget {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for settings that cannot be used.
    pub(crate) fn new(mirror: &ZookeeperMirror, clock: Arc<dyn Clock>) -> Result<Self> {
        let (servers, chroot) = mirror.check().map_err(Error::config)?;
        Ok(Self {
            servers: servers.to_owned(),
            root: format!("{chroot}/consumers/{}", mirror.group),
            group: mirror.group.clone(),
            digest: mirror.digest.clone(),
            present: true,
            clock,
            session: None,
        })
    }

    /// Writes offsets and nothing else.
    pub(crate) fn without_presence(self) -> Self {
        Self { present: false, ..self }
    }

    async fn connect(&self) -> Result<Session> {
        let mut connector =
            Client::connector().with_session_timeout(SESSION_TIMEOUT).with_connection_timeout(SESSION_TIMEOUT / 3);
        if let Some(digest) = &self.digest {
            connector = connector.with_auth("digest", digest.expose().as_bytes());
        }
        let servers = &self.servers;
        let away = || Error::unavailable(format!("cannot connect to zookeeper servers={servers}"));
        let client = match tokio::time::timeout(CONNECT_TIME_MAX, connector.connect(servers)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(away().caused_by(error)),
            Err(_elapsed) => return Err(away()),
        };
        let (id, _) = Uuid::new_v4().as_u64_pair();
        let host = gethostname::gethostname().to_string_lossy().replace('/', "_");
        Ok(Session {
            client,
            consumer: format!("{}_{host}-{}-{:08x}", self.group, self.clock.now_ms(), id >> 32),
            versions: BTreeMap::new(),
            owned: BTreeSet::new(),
            subscribed: BTreeSet::new(),
        })
    }

    fn nodes(&self) -> Nodes<'_> {
        Nodes { root: &self.root, secured: self.digest.is_some() }
    }
}

#[async_trait]
impl MirrorTarget for ZookeeperTarget {
    async fn write(&mut self, offsets: &Offsets) -> Result<()> {
        // A session that is over, or in doubt, is dropped: what it still had to send goes with it.
        let usable = |session: &Session| !session.client.state().is_terminated();
        let mut session = match self.session.take().filter(usable) {
            Some(session) => session,
            None => self.connect().await?,
        };
        let nodes = self.nodes();
        let writing = async {
            let offsets = session.put_offsets(nodes, offsets).await;
            let presence = match self.present {
                true => session.show_presence(nodes, self.clock.now_ms()).await,
                false => Ok(()),
            };
            offsets.and(presence)
        };
        let written = tokio::time::timeout(WRITE_TIME_MAX, writing).await;
        let servers = &self.servers;
        match written {
            Ok(Ok(())) => {
                self.session = Some(session);
                Ok(())
            }
            Ok(Err((path, error))) => {
                let answered = is_answer(&error);
                if answered {
                    self.session = Some(session);
                }
                Err(failure(&path, error))
            }
            Err(_elapsed) => Err(Error::unavailable(format!("zookeeper does not answer servers={servers}"))),
        }
    }

    fn is_whole(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.client.state().is_terminated())
    }

    /// The session's own nodes are gone as soon as the server has heard of its end.
    async fn close(&mut self) {
        let Some(session) = self.session.take() else { return };
        let mut watcher = session.client.state_watcher();
        drop(session);
        let closed = async { while !watcher.changed().await.is_terminated() {} };
        // A server that does not hear it finds out by the session's own timeout.
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, closed).await;
    }
}

/// A failure, and the node it was about.
type Failed = (String, ZkError);

impl Session {
    async fn put_offsets(&mut self, nodes: Nodes<'_>, offsets: &Offsets) -> Result<(), Failed> {
        let all: Vec<(&TopicPartition, Offset)> = offsets.iter().map(|(known, offset)| (known, *offset)).collect();
        let mut failed = None;
        for some in all.chunks(REQUESTS_MAX) {
            let (client, versions) = (&self.client, &self.versions);
            let puts = some.iter().map(|(known, offset)| async move {
                let path = nodes.offset(known);
                let put = nodes.put(client, &path, &offset.to_string(), versions.get(*known).copied()).await;
                (*known, put.map_err(|error| (path, error)))
            });
            for (known, put) in join_all(puts).await {
                match put {
                    Ok(version) => drop(self.versions.insert(known.clone(), version)),
                    Err(error) => {
                        self.versions.remove(known);
                        // Whether the application is ours is the first question.
                        if failed.is_none() || error.1 == ZkError::BadVersion {
                            failed = Some(error);
                        }
                    }
                }
            }
            if let Some((_, error)) = &failed
                && !is_answer(error)
            {
                break;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// What tools show as the group's one consumer: made once, and with each new topic and partition.
    async fn show_presence(&mut self, nodes: Nodes<'_>, now_ms: i64) -> Result<(), Failed> {
        let topics: BTreeSet<Arc<str>> = self.versions.keys().map(|known| Arc::clone(&known.topic)).collect();
        if topics != self.subscribed {
            let registration = Registration {
                version: 1,
                subscription: topics.iter().map(|topic| (&**topic, 1)).collect(),
                pattern: "static",
                timestamp: now_ms.to_string(),
            };
            let text = serde_json::to_string(&registration).unwrap_or_default();
            let path = nodes.id(&self.consumer);
            nodes.claim(&self.client, &path, &text).await.map_err(|error| (path, error))?;
            self.subscribed = topics;
        }
        let new: Vec<TopicPartition> =
            self.versions.keys().filter(|known| !self.owned.contains(known)).cloned().collect();
        let owner = format!("{}-0", self.consumer);
        for some in new.chunks(REQUESTS_MAX) {
            let claims = some.iter().map(|known| async {
                let path = nodes.owner(known);
                let claimed = nodes.claim(&self.client, &path, &owner).await;
                claimed.map_err(|error| (path, error))
            });
            join_all(claims).await.into_iter().collect::<Result<Vec<()>, Failed>>()?;
            self.owned.extend(some.iter().cloned());
        }
        Ok(())
    }
}

/// The paths of a group, and how a node is written.
#[derive(Debug, Clone, Copy)]
struct Nodes<'r> {
    root: &'r str,
    secured: bool,
}

impl Nodes<'_> {
    fn offset(self, of: &TopicPartition) -> String {
        format!("{}/offsets/{}/{}", self.root, of.topic, of.partition)
    }

    fn owner(self, of: &TopicPartition) -> String {
        format!("{}/owners/{}/{}", self.root, of.topic, of.partition)
    }

    fn id(self, consumer: &str) -> String {
        format!("{}/ids/{consumer}", self.root)
    }

    fn options(self, mode: CreateMode) -> CreateOptions<'static> {
        mode.with_acls(if self.secured { Acls::new(&OF_THE_DIGEST) } else { Acls::anyone_all() })
    }

    /// Writes a node that stays; its new version. `version` is the one that it must have, where one is known.
    async fn put(self, client: &Client, path: &str, text: &str, mut version: Option<i32>) -> Result<i32, ZkError> {
        for _ in 0..TURNS_MAX {
            let found = match version.take() {
                Some(version) => Some(version),
                None => client.check_stat(path).await?.map(|stat| stat.version),
            };
            let done = match found {
                Some(version) => client.set_data(path, text.as_bytes(), Some(version)).await.map(|stat| stat.version),
                None => {
                    let options = self.options(CreateMode::Persistent);
                    client.create(path, text.as_bytes(), &options).await.map(|(stat, _)| stat.version)
                }
            };
            match done {
                Err(ZkError::NoNode) if found.is_none() => self.make_parent(client, path).await?,
                // Deleted or made by somebody since it was looked at.
                Err(ZkError::NoNode | ZkError::NodeExists) => {}
                done => return done,
            }
        }
        Err(ZkError::NodeExists)
    }

    /// Makes a node that goes with the session, in the place of whatever another session left there: that one is of a process
    /// that does not own the application any more, or of this one before it lost its session.
    async fn claim(self, client: &Client, path: &str, text: &str) -> Result<(), ZkError> {
        for _ in 0..TURNS_MAX {
            match client.create(path, text.as_bytes(), &self.options(CreateMode::Ephemeral)).await {
                Ok(_) => return Ok(()),
                Err(ZkError::NoNode) => self.make_parent(client, path).await?,
                Err(ZkError::NodeExists) => match client.delete(path, None).await {
                    Ok(()) | Err(ZkError::NoNode) => {}
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        Err(ZkError::NodeExists)
    }

    async fn make_parent(self, client: &Client, path: &str) -> Result<(), ZkError> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        client.mkdir(parent, &self.options(CreateMode::Persistent)).await
    }
}

/// Whether the server has said no, so that nothing is on its way any more.
fn is_answer(error: &ZkError) -> bool {
    matches!(
        error,
        ZkError::BadVersion
            | ZkError::NoAuth
            | ZkError::NodeExists
            | ZkError::NoNode
            | ZkError::InvalidAcl
            | ZkError::QuotaExceeded
            | ZkError::NoChildrenForEphemerals
    )
}

fn failure(path: &str, error: ZkError) -> Error {
    match error {
        ZkError::BadVersion => {
            Error::new(ErrorKind::Conflict, format!("somebody else has written into zookeeper path={path}"))
        }
        ZkError::NoAuth => Error::unavailable(format!("zookeeper does not let these nodes be written path={path}")),
        error => Error::unavailable(format!("zookeeper was not written path={path}")).caused_by(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_lie_where_kafka_s_old_consumer_had_them() {
        let mirror =
            ZookeeperMirror { connect: "a:2181,b:2181/kafka".to_owned(), group: "orders".to_owned(), digest: None };
        let target = ZookeeperTarget::new(&mirror, crate::clock::SystemClock::shared()).unwrap();
        assert_eq!(target.servers, "a:2181,b:2181");
        let (nodes, known) = (target.nodes(), TopicPartition::new("t", 3));
        assert_eq!(nodes.offset(&known), "/kafka/consumers/orders/offsets/t/3");
        assert_eq!(nodes.owner(&known), "/kafka/consumers/orders/owners/t/3");
        assert_eq!(nodes.id("c"), "/kafka/consumers/orders/ids/c");
    }

    #[test]
    fn a_registration_is_what_kafka_s_old_consumer_wrote() {
        let subscription = BTreeMap::from([("a", 1), ("b", 1)]);
        let registration = Registration { version: 1, subscription, pattern: "static", timestamp: "12".to_owned() };
        let text = r#"{"version":1,"subscription":{"a":1,"b":1},"pattern":"static","timestamp":"12"}"#;
        assert_eq!(serde_json::to_string(&registration).unwrap(), text);
    }
}
