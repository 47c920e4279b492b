//! A broker to test against: topics, records, and an independent recount.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
        TopicResult,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    metadata::{MetadataPartition, MetadataTopic},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
    util::Timeout,
};
use tokio::{sync::OnceCell, task::spawn_blocking};

use super::{
    image::{self, Image, KAFKA_PORT},
    server::Server,
    unique, wait_until,
};

/// How long a broker may take for anything, on a machine that is busy with other tests.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// How often the same is asked.
const ASKED_MAX: usize = 10;

/// A broker: the shared one, or one of the test's own.
#[derive(Clone)]
pub(crate) struct Kafka {
    brokers: String,
    /// In brokers' order; none if the broker was given by `TEST_KAFKA`.
    servers: Vec<Arc<Server>>,
}

/// Partition and offset of a record.
pub(crate) type Place = (i32, i64);

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Commit,
    Abort,
}

/// A record to produce; make it with [`record`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp: Option<i64>,
    partition: Option<i32>,
}

/// A record with this value, and no key, header, timestamp or partition of its own.
pub(crate) fn record(value: impl Into<Vec<u8>>) -> Record {
    Record { value: Some(value.into()), ..Record::default() }
}

/// A record with a key and no value.
pub(crate) fn tombstone(key: impl Into<Vec<u8>>) -> Record {
    Record::default().key(key)
}

impl Record {
    pub(crate) fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    pub(crate) fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: Option<&[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
        self
    }

    /// Milliseconds since 1970; else the producer's clock.
    pub(crate) fn timestamp(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }

    /// Else by the key, or at random without one.
    pub(crate) fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// The broker that all tests share. Do not break it: others use it.
pub(crate) async fn shared_kafka() -> Kafka {
    static SHARED: OnceCell<Kafka> = OnceCell::const_new();
    let start = async || match std::env::var("TEST_KAFKA") {
        Ok(brokers) => Kafka { brokers, servers: Vec::new() },
        Err(_) => Kafka::start(image::kafka()).await,
    };
    SHARED.get_or_init(start).await.clone()
}

impl Kafka {
    /// A broker of the test's own, to be broken: `Kafka::start(kafka())`.
    pub(crate) async fn start(image: Image) -> Self {
        let server = Server::start(image).await;
        Self { brokers: server.address(KAFKA_PORT), servers: vec![Arc::new(server)] }
    }

    /// A cluster of the test's own. Its topics have a replica on each broker, and take records while a majority lives.
    pub(crate) async fn start_cluster(brokers: u32) -> Self {
        let images = image::kafka_cluster(&unique("kafka"), brokers);
        let servers: Vec<_> = join_all(images.into_iter().map(Server::start)).await.into_iter().map(Arc::new).collect();
        let addresses: Vec<_> = servers.iter().map(|server| server.address(KAFKA_PORT)).collect();
        for address in &addresses {
            let one = Self { brokers: address.clone(), servers: Vec::new() };
            wait_until("a broker knows all others", LIMIT, async || one.known_brokers().await == servers.len()).await;
        }
        Self { brokers: addresses.join(","), servers }
    }

    /// How many brokers the cluster has in this one's eyes. Until it knows them all, each answer of another broker may take
    /// away one that a client has learned of, and with it what the client has asked of that.
    async fn known_brokers(&self) -> usize {
        let client = self.client();
        let known = move || {
            // A broker that has just come gives parts of an answer.
            let told = client.create::<BaseConsumer>().unwrap().fetch_metadata(None, LIMIT);
            told.map_or(0, |metadata| metadata.brokers().len())
        };
        spawn_blocking(known).await.unwrap()
    }

    /// What goes into `bootstrap.servers`.
    pub(crate) fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Its container, the first one of a cluster. Panics if the broker was given by `TEST_KAFKA`.
    pub(crate) fn server(&self) -> &Server {
        self.servers().first().expect("a broker in a container; TEST_KAFKA names another one")
    }

    /// Its containers; broker `n` of a cluster has index `n - 1`.
    pub(crate) fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// The broker that leads a partition.
    pub(crate) async fn leader(&self, topic: &str, partition: i32) -> i32 {
        let led = move |topic: &MetadataTopic| {
            topic.partitions().iter().find(|p| p.id() == partition).map(MetadataPartition::leader)
        };
        self.metadata(topic, led).await.expect("a partition of the topic")
    }

    /// A client's settings: the address only.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("reconnect.backoff.max.ms", "500");
        config
    }

    /// A consumer that has joined `group`, by a topic of its own: nobody else can commit there then. It is a member until it is
    /// dropped.
    pub(crate) async fn member_of(&self, group: &str) -> BaseConsumer {
        let member: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        member.subscribe(&[&self.topic(1).await]).unwrap();
        wait_until("it has joined", LIMIT, async || {
            let polled = member.poll(Duration::from_millis(100));
            assert!(polled.is_none_or(|polled| polled.is_err()));
            member.assignment().unwrap().count() == 1
        })
        .await;
        member
    }

    /// A new topic with a name of its own, default settings.
    pub(crate) async fn topic(&self, partitions: i32) -> String {
        let name = unique("topic");
        self.create_topic(&name, partitions, &[]).await;
        name
    }

    /// Makes a topic, and waits until each partition has a leader.
    pub(crate) async fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let replicas = i32::try_from(self.servers.len().max(1)).unwrap();
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let done = asked(async || self.admin().create_topics([&topic], &options()).await).await;
        // The name is the test's own: who asked twice may hear that the first time was heard.
        let made = |topic: TopicResult| matches!(topic, Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)));
        assert!(done.into_iter().all(made));
        self.wait_for_partitions(name, partitions).await;
    }

    /// Deletes a topic, and waits until the broker knows it no more.
    pub(crate) async fn delete_topic(&self, name: &str) {
        let done = asked(async || self.admin().delete_topics(&[name], &options()).await).await;
        done.into_iter().for_each(|topic| drop(topic.unwrap()));
        wait_until("the topic is gone", LIMIT, async || self.partitions(name).await == 0).await;
    }

    /// Gives a topic more partitions: `total` in all.
    pub(crate) async fn create_partitions(&self, name: &str, total: i32) {
        let partitions = NewPartitions::new(name, usize::try_from(total).unwrap());
        let done = asked(async || self.admin().create_partitions([&partitions], &options()).await).await;
        done.into_iter().for_each(|topic| drop(topic.unwrap()));
        self.wait_for_partitions(name, total).await;
    }

    /// Replaces all of a topic's own settings.
    pub(crate) async fn alter_topic(&self, name: &str, settings: &[(&str, &str)]) {
        let config = AlterConfig::new(ResourceSpecifier::Topic(name));
        let config = settings.iter().fold(config, |config, (key, value)| config.set(key, value));
        let done = asked(async || self.admin().alter_configs([&config], &options()).await).await;
        done.into_iter().for_each(|topic| drop(topic.unwrap()));
    }

    /// Deletes the records below an offset, as retention does: `(partition, first offset that stays)`.
    pub(crate) async fn delete_records(&self, topic: &str, below: &[Place]) {
        let mut list = TopicPartitionList::new();
        for &(partition, offset) in below {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        }
        let done = asked(async || self.admin().delete_records(&list, &options()).await).await;
        done.elements().iter().for_each(|partition| partition.error().unwrap());
    }

    /// The first offset and the one after the last stable one (read_committed), by a client of its own.
    pub(crate) async fn offsets(&self, topic: &str, partition: i32) -> (i64, i64) {
        let (client, topic) = (self.client(), topic.to_owned());
        spawn_blocking(move || {
            let consumer: BaseConsumer = client.create().unwrap();
            consumer.fetch_watermarks(&topic, partition, LIMIT).unwrap()
        })
        .await
        .unwrap()
    }

    /// How many partitions the broker's metadata shows, each with a leader; 0 if it does not know the topic.
    pub(crate) async fn partitions(&self, topic: &str) -> usize {
        let led = |partition: &&MetadataPartition| partition.error().is_none() && partition.leader() >= 0;
        self.metadata(topic, move |topic| topic.partitions().iter().filter(led).count()).await
    }

    /// Asks a broker for a topic's metadata, by a client of its own.
    async fn metadata<T: Send + 'static>(
        &self,
        topic: &str,
        look: impl FnOnce(&MetadataTopic) -> T + Send + 'static,
    ) -> T {
        let (client, topic) = (self.client(), topic.to_owned());
        spawn_blocking(move || {
            let consumer: BaseConsumer = client.create().unwrap();
            look(&consumer.fetch_metadata(Some(&topic), LIMIT).unwrap().topics()[0])
        })
        .await
        .unwrap()
    }

    /// Produces all records with one idempotent producer, in batches; where each came to lie, in the same order.
    pub(crate) async fn produce(&self, topic: &str, records: Vec<Record>) -> Vec<Place> {
        let (producer, topic) = (self.producer(None), topic.to_owned());
        spawn_blocking(move || send_all(&producer, &topic, &records)).await.unwrap()
    }

    /// One transaction after the other by one transactional producer; where the records came to lie. Waits until readers may see
    /// the last one: its marker may come a moment later than the answer.
    pub(crate) async fn transactions(&self, topic: &str, transactions: Vec<(End, Vec<Record>)>) -> Vec<Vec<Place>> {
        let places = self.transact(topic.to_owned(), transactions).await;
        let last: BTreeMap<i32, i64> = places.iter().flatten().copied().collect();
        for (partition, last) in last {
            let ended = async || self.offsets(topic, partition).await.1 > last + 1;
            wait_until("the marker is written", LIMIT, ended).await;
        }
        places
    }

    async fn transact(&self, topic: String, transactions: Vec<(End, Vec<Record>)>) -> Vec<Vec<Place>> {
        let producer = self.producer(Some(&unique("tx")));
        spawn_blocking(move || {
            producer.init_transactions(LIMIT).unwrap();
            let transact = |(end, records): (End, Vec<Record>)| {
                producer.begin_transaction().unwrap();
                let places = send_all(&producer, &topic, &records);
                match end {
                    End::Commit => producer.commit_transaction(LIMIT).unwrap(),
                    End::Abort => producer.abort_transaction(LIMIT).unwrap(),
                }
                places
            };
            transactions.into_iter().map(transact).collect()
        })
        .await
        .unwrap()
    }

    /// A producer that acknowledges only what all replicas have: idempotent, and transactional with an id.
    pub(crate) fn producer(&self, transactional_id: Option<&str>) -> BaseProducer<Places> {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("message.timeout.ms", "60000");
        config.set("queue.buffering.max.messages", "1000000").set("compression.type", "lz4");
        if let Some(id) = transactional_id {
            config.set("transactional.id", id).set("transaction.timeout.ms", "60000");
        }
        config.create_with_context(Places::default()).unwrap()
    }

    async fn wait_for_partitions(&self, topic: &str, count: i32) {
        let count = usize::try_from(count).unwrap();
        wait_until("all partitions have leaders", LIMIT, async || self.partitions(topic).await == count).await;
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }
}

/// What a broker answers. A client lets go of a broker that the others do not name for a moment, and of what was asked of it:
/// then it is asked again, by another client.
async fn asked<T>(ask: impl AsyncFn() -> KafkaResult<T>) -> T {
    for _ in 0..ASKED_MAX {
        match ask().await {
            Err(KafkaError::AdminOp(RDKafkaErrorCode::DestroyBroker)) => {}
            answer => return answer.unwrap(),
        }
    }
    panic!("a client let go of its broker {ASKED_MAX} times");
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Timeout::After(LIMIT)))
}

/// Sends all records and waits until each is acknowledged; panics if one is not.
pub(crate) fn send_all(producer: &BaseProducer<Places>, topic: &str, records: &[Record]) -> Vec<Place> {
    *producer.context().0.lock().unwrap() = vec![None; records.len()];
    for (number, record) in records.iter().enumerate() {
        let mut next = Some(base_record(topic, record, number));
        while let Some(record) = next.take() {
            match producer.send(record) {
                Ok(()) => {}
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                    producer.poll(Duration::from_millis(50));
                    next = Some(record);
                }
                Err((error, _)) => panic!("cannot produce: {error}"),
            }
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(LIMIT).unwrap();
    let places = std::mem::take(&mut *producer.context().0.lock().unwrap());
    places.into_iter().map(|place| place.expect("flush waits for every acknowledgement")).collect()
}

fn base_record<'a>(topic: &'a str, record: &'a Record, number: usize) -> BaseRecord<'a, [u8], [u8], usize> {
    let mut base = BaseRecord::with_opaque_to(topic, number);
    (base.key, base.payload) = (record.key.as_deref(), record.value.as_deref());
    (base.partition, base.timestamp) = (record.partition, record.timestamp);
    if !record.headers.is_empty() {
        let insert = |all: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
            all.insert(Header { key, value: value.as_deref() })
        };
        base.headers = Some(record.headers.iter().fold(OwnedHeaders::new(), insert));
    }
    base
}

/// Where the records of one [`send_all`] came to lie, by number.
#[derive(Default)]
pub(crate) struct Places(Mutex<Vec<Option<Place>>>);

impl ClientContext for Places {}

impl ProducerContext for Places {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(message) => self.0.lock().unwrap()[number] = Some((message.partition(), message.offset())),
            // The hole that stays is what `send_all` panics about: this runs inside a callback from C.
            Err((error, _)) => eprintln!("record {number} was not delivered: {error}"),
        }
    }
}
