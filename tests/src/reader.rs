//! An independent client of Kafka: reads topics to their end, and writes what strangers would.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::wait;

const PATIENCE: Duration = Duration::from_secs(30);

/// One record, as it lies on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// Names and values, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// When it was appended, milliseconds since the epoch.
    pub at: i64,
}

impl Record {
    /// One header as text; empty where it is absent.
    pub fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }

    /// The event's source and id.
    pub fn event(&self) -> (String, String) {
        (self.header("ce_source"), self.header("ce_id"))
    }
}

/// Last stable offset and true end of each partition, by topic.
pub type Ends<'t> = BTreeMap<&'t str, BTreeMap<i32, (i64, i64)>>;

/// Who looks at Kafka from outside.
#[derive(Clone, Debug)]
pub struct Reader {
    bootstrap_servers: String,
}

impl Reader {
    /// Looks at that cluster.
    pub fn new(bootstrap_servers: &str) -> Self {
        Self { bootstrap_servers: bootstrap_servers.to_owned() }
    }

    /// Where clients begin.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Every committed record of `topic`, by partition and offset.
    pub fn read(&self, topic: &str) -> Result<Vec<Record>> {
        self.read_as("read_committed", topic)
    }

    /// Every record of `topic`, those of open and aborted transactions too.
    pub fn read_uncommitted(&self, topic: &str) -> Result<Vec<Record>> {
        self.read_as("read_uncommitted", topic)
    }

    fn read_as(&self, isolation: &str, topic: &str) -> Result<Vec<Record>> {
        let consumer: BaseConsumer = self
            .config()
            .set("group.id", "hookwell-tests-reader")
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10")
            .create()?;
        let partitions = self.partitions(&consumer, topic)?;
        let mut all = TopicPartitionList::new();
        for partition in 0..partitions {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let (mut records, mut open, mut lost) = (Vec::new(), partitions, 0);
        while 0 < open {
            match consumer.poll(PATIENCE).with_context(|| format!("{topic} does not end"))? {
                Ok(message) => records.push(into_record(&message)),
                Err(KafkaError::PartitionEOF(_)) => open -= 1,
                // A connection was lost on a busy machine; another is made.
                Err(error) if is_of_a_connection(&error) && lost < MAX_LOST => lost += 1,
                Err(error) => return Err(error.into()),
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        Ok(records)
    }

    /// The number of partitions of `topic`.
    fn partitions(&self, consumer: &BaseConsumer, topic: &str) -> Result<i32> {
        wait::until_within(PATIENCE, topic, || {
            let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
            let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            Ok(i32::try_from(count).ok().filter(|count| 0 < *count))
        })
    }

    /// Waits until `topic` holds at least `count` committed records, and gives them.
    pub fn until_holds(&self, topic: &str, count: usize) -> Result<Vec<Record>> {
        wait::until(&format!("{count} records on {topic}"), || {
            Ok(Some(self.read(topic)?).filter(|records| count <= records.len()))
        })
    }

    /// Puts a record on `topic` without asking anybody.
    pub fn write(&self, topic: &str, record: &Record) -> Result<()> {
        let producer: BaseProducer = self.config().set("acks", "all").create()?;
        send(&producer, topic, record)?;
        Ok(producer.flush(PATIENCE)?)
    }

    /// Puts a record without a value on a partition of `topic`.
    pub fn write_tombstone(&self, topic: &str, partition: i32, key: &[u8]) -> Result<()> {
        let producer: BaseProducer = self.config().set("acks", "all").create()?;
        let outgoing: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition).key(key);
        match producer.send(outgoing) {
            Ok(()) => Ok(producer.flush(PATIENCE)?),
            Err((error, _)) => Err(error.into()),
        }
    }

    /// Opens a transaction on `topic`, puts `record` into it, and leaves it open for as long as
    /// what is returned lives and is not committed.
    pub fn open_transaction(&self, id: &str, topic: &str, record: &Record) -> Result<BaseProducer> {
        let producer: BaseProducer =
            self.config().set("transactional.id", id).set("transaction.timeout.ms", "120000").create()?;
        producer.init_transactions(PATIENCE)?;
        producer.begin_transaction()?;
        send(&producer, topic, record)?;
        producer.flush(PATIENCE)?;
        Ok(producer)
    }

    /// What `group` has committed for each partition of `topic`; absent where it has not.
    pub fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let consumer: BaseConsumer = self.config().set("group.id", group).create()?;
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.partitions(&consumer, topic)? {
            asked.add_partition(topic, partition);
        }
        let known = consumer.committed_offsets(asked, PATIENCE)?;
        let offset = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            element
                .offset()
                .to_raw()
                .filter(|offset| 0 <= *offset)
                .map(|offset| (element.partition(), offset))
        };
        Ok(known.elements().into_iter().filter_map(offset).collect())
    }

    /// Commits `offset` for a partition in the name of `group`, which must have no member.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let consumer: BaseConsumer = self.config().set("group.id", group).create()?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        wait::until("the offset to be committed", || Ok(Some(consumer.commit(&offsets, CommitMode::Sync)?)))
    }

    /// Has Kafka forget all that `group` has committed, once its last member has left.
    pub fn forget_offsets(&self, group: &str) -> Result<()> {
        let admin = self.admin()?;
        wait::until("the offsets to be forgotten", || {
            let answers = block_on(admin.delete_groups(&[group], &AdminOptions::new()))??;
            answers.into_iter().try_for_each(|answer| match answer {
                Ok(_) => Ok(()),
                Err((group, code)) => Err(anyhow!("{group}: {code}")),
            })?;
            Ok(Some(()))
        })
    }

    /// Creates a topic that takes whatever ours do, with so many partitions, each in so many copies.
    pub fn create_topic(&self, topic: &str, partitions: u32, copies: usize) -> Result<()> {
        let (partitions, copies) = (i32::try_from(partitions)?, i32::try_from(copies)?);
        let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(copies))
            .set("max.message.bytes", "4194304");
        let created = block_on(self.admin()?.create_topics([&topic], &AdminOptions::new()))??;
        created
            .into_iter()
            .try_for_each(|answer| answer.map(drop).map_err(|(topic, code)| anyhow!("{topic}: {code}")))
    }

    /// Deletes a topic, and waits until it is gone.
    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        self.delete_topics(&[topic])
    }

    /// Deletes topics, and waits until they are gone.
    pub fn delete_topics(&self, topics: &[&str]) -> Result<()> {
        for answer in block_on(self.admin()?.delete_topics(topics, &AdminOptions::new()))?? {
            answer.map_err(|(topic, code)| anyhow!("{topic}: {code}"))?;
        }
        wait::until("topics to be gone", || {
            let left = self.topics()?;
            Ok(left.iter().all(|known| !topics.contains(&known.as_str())).then_some(()))
        })
    }

    /// The names of all topics.
    pub fn topics(&self) -> Result<Vec<String>> {
        let metadata = self.admin()?.inner().fetch_metadata(None, PATIENCE)?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Deletes what lies before `offset` in a partition of `topic`, as retention would.
    pub fn delete_before(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        let answers = block_on(self.admin()?.delete_records(&list, &AdminOptions::new()))??;
        Ok(answers.elements().iter().try_for_each(|answer| answer.error())?)
    }

    /// Sets the largest record that `topic` takes.
    pub fn limit_records(&self, topic: &str, bytes: usize) -> Result<()> {
        self.configure_topic(topic, "max.message.bytes", &bytes.to_string())
    }

    /// Sets one property of `topic`, and nothing else.
    pub fn configure_topic(&self, topic: &str, name: &str, value: &str) -> Result<()> {
        let admin = self.admin()?;
        let resource = ResourceSpecifier::Topic(topic);
        let described = block_on(admin.describe_configs([&resource], &AdminOptions::new()))??;
        let known = described.into_iter().next().context("no answer")?;
        let known = known.map_err(|code| anyhow!("{topic}: {code}"))?;
        // This request sets what it names and resets everything else.
        let own = known.entries.iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
        let others = own.filter(|entry| entry.name != name);
        let settings = others.filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)));
        let altered = settings.fold(AlterConfig::new(resource).set(name, value), |altered, (name, value)| {
            altered.set(name, value)
        });
        for answer in block_on(admin.alter_configs([&altered], &AdminOptions::new()))?? {
            answer.map_err(|(resource, code)| anyhow!("{resource:?}: {code}"))?;
        }
        Ok(())
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.config().create()?)
    }

    /// Last stable offset and true end of each partition of `topic`.
    pub fn ends(&self, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>> {
        Ok(self.ends_of([topic])?.remove(topic).unwrap_or_default())
    }

    /// [`Reader::ends`] of several topics.
    pub fn ends_of<'t>(&self, topics: impl IntoIterator<Item = &'t str>) -> Result<Ends<'t>> {
        let client_as = |isolation: &str| -> Result<BaseConsumer> {
            let mut config = self.config();
            Ok(config.set("group.id", "hookwell-tests-reader").set("isolation.level", isolation).create()?)
        };
        let (committed, all) = (client_as("read_committed")?, client_as("read_uncommitted")?);
        let mut ends = Ends::new();
        for topic in topics {
            for partition in 0..self.partitions(&all, topic)? {
                let end_as = |client: &BaseConsumer| client.fetch_watermarks(topic, partition, PATIENCE);
                let (stable, end) = (end_as(&committed)?.1, end_as(&all)?.1);
                ends.entry(topic).or_default().insert(partition, (stable, end));
            }
        }
        Ok(ends)
    }

    /// A client's settings: the tests' own, for they judge those of the programs.
    pub fn config(&self) -> ClientConfig {
        #[expect(
            clippy::disallowed_methods,
            reason = "an independent client, with the defaults of everybody"
        )]
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

fn send(producer: &BaseProducer, topic: &str, record: &Record) -> Result<()> {
    let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
        headers.insert(Header { key: name, value: Some(value) })
    });
    let outgoing = BaseRecord::to(topic)
        .partition(record.partition)
        .key(&record.key)
        .payload(&record.value)
        .headers(headers);
    match producer.send(outgoing) {
        Ok(()) => Ok(()),
        Err((error, _)) => Err(error.into()),
    }
}

fn into_record(message: &impl Message) -> Record {
    let headers = message.headers().map(|headers| {
        let owned =
            |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.unwrap_or_default().to_vec());
        headers.iter().map(owned).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().unwrap_or_default().to_vec(),
        value: message.payload().unwrap_or_default().to_vec(),
        headers: headers.unwrap_or_default(),
        at: message.timestamp().to_millis().unwrap_or_default(),
    }
}

/// How many lost connections one reading outlives.
const MAX_LOST: usize = 20;

fn is_of_a_connection(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure)
    )
}
