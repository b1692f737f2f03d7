//! The Kafka of one run, the stages on it, and topics read to their end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use hookwell_common::lifecycle::Clock;
use hookwell_tests::kafka::Kafka;
use hookwell_tests::reader::Reader;
use hookwell_tests::stage::{Binaries, Settings, Stage};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::cost::Process;

const PATIENCE: Duration = Duration::from_secs(60);

/// A Kafka of its own, gone with this.
#[derive(Debug)]
pub(crate) struct Broker {
    kafka: Arc<Kafka>,
    binaries: Binaries,
    _home: TempDir,
}

impl Broker {
    /// Starts it.
    pub(crate) fn start() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("hookwell-bench-").tempdir()?;
        let kafka = Arc::new(Kafka::start_to_measure(home.path())?);
        let here = std::env::current_exe()?;
        let folder = here.parent().context("this program lies in a directory")?;
        let binaries = Binaries { ingest: folder.join("ingest"), processor: folder.join("processor") };
        Ok(Self { kafka, binaries, _home: home })
    }

    /// Its process.
    pub(crate) fn process(&self) -> Result<Process> {
        Ok(Process(self.kafka.id().context("Kafka is not running")?))
    }

    /// Kafka is away.
    pub(crate) fn kill(&self) -> Result<()> {
        self.kafka.kill()
    }

    /// Kafka is back.
    pub(crate) fn revive(&self) -> Result<()> {
        self.kafka.revive()
    }

    /// Where clients begin.
    pub(crate) fn bootstrap_servers(&self) -> String {
        self.kafka.bootstrap_servers()
    }

    /// Topics, a configuration and the two programs, as `settings` say.
    pub(crate) fn set(&self, settings: Settings) -> Result<Stage> {
        Stage::set(&self.kafka, &self.binaries, settings)
    }

    /// Topics, a configuration and the two programs, for one source called `github`. Its events are
    /// forwarded to the topic that [`forward_topic`] names, which is created.
    pub(crate) fn stage(&self, partitions: u32, more: &More) -> Result<Stage> {
        let mut settings = Settings {
            partitions,
            ingest: more.ingest.clone(),
            destinations: String::new(),
            routes: format!("[log]\nlevel = \"{}\"", more.log_level),
            ..Settings::default()
        };
        settings.kafka_properties += &format!("\n{}", more.kafka_properties);
        let stage = Stage::bare(&self.kafka, &self.binaries, settings)?;
        let topic = forward_topic(&stage);
        stage.rewrite(|settings| {
            settings.destinations =
                format!("[[destinations]]\nname = \"out\"\nkind = \"kafka\"\ntopic = \"{topic}\"\n");
            settings.routes += "\n[[routes]]\nsource = \"*\"\nto = [\"out\"]";
        })?;
        create_topic(&stage.reader, &topic, partitions)?;
        let created = stage.processor_answers(&["--create-topics"])?;
        ensure!(created.status == Some(0), "the topics could not be created: {created:?}");
        Ok(stage)
    }
}

/// What differs from the defaults: lines of TOML.
#[derive(Clone, Debug)]
pub(crate) struct More {
    /// `[log]`.
    pub(crate) log_level: String,
    /// More of `[ingest]`.
    pub(crate) ingest: String,
    /// More of `[kafka.properties]`.
    pub(crate) kafka_properties: String,
}

impl Default for More {
    fn default() -> Self {
        Self { log_level: "info".to_owned(), ingest: String::new(), kafka_properties: String::new() }
    }
}

/// Where the stage's processor forwards events to.
pub(crate) fn forward_topic(stage: &Stage) -> String {
    stage.topic("out")
}

/// Creates a topic.
pub(crate) fn create_topic(reader: &Reader, name: &str, partitions: u32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = reader.config().create()?;
    let topic = NewTopic::new(name, i32::try_from(partitions)?, TopicReplication::Fixed(1))
        // The longest event with its headers fits, as the processor demands of what it forwards to.
        .set("max.message.bytes", "2097152");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for answer in runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()))? {
        answer.map_err(|(topic, code)| anyhow!("{topic} could not be created: {code}"))?;
    }
    Ok(())
}

/// A consumer that fetches as fast as it can.
pub(crate) fn eager(mut config: ClientConfig, group: &str) -> ClientConfig {
    config
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("queued.min.messages", "100000")
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "10");
    config
}

/// Reads every committed record of `topic`.
pub(crate) fn drain(reader: &Reader, topic: &str, each: impl FnMut(&BorrowedMessage<'_>)) -> Result<u64> {
    Drain::begin(reader, topic)?.read(each)
}

/// A topic that is being read.
pub(crate) struct Drain {
    consumer: BaseConsumer,
    partitions: usize,
}

impl Drain {
    /// From the beginning of each partition.
    pub(crate) fn begin(reader: &Reader, topic: &str) -> Result<Self> {
        let consumer: BaseConsumer = eager(reader.config(), "hookwell-bench").create()?;
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        ensure!(0 < partitions, "{topic} is not there");
        let mut all = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions)? {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        Ok(Self { consumer, partitions })
    }

    /// To the end of each partition; gives the number of records.
    pub(crate) fn read(self, mut each: impl FnMut(&BorrowedMessage<'_>)) -> Result<u64> {
        let (mut open, mut records) = (self.partitions, 0);
        while 0 < open {
            match next(&self.consumer)? {
                Some(message) => {
                    each(&message);
                    records += 1;
                }
                None => open -= 1,
            }
        }
        Ok(records)
    }
}

/// The next record; `None` at the end of a partition.
pub(crate) fn next(consumer: &BaseConsumer) -> Result<Option<BorrowedMessage<'_>>> {
    let clock = Clock::start();
    while clock.mono() < PATIENCE {
        // A poll may return without a record before its time, after a rebalance for instance.
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => return Ok(Some(message)),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) => return Err(error.into()),
            None => {}
        }
    }
    bail!("nothing came for {} s", PATIENCE.as_secs())
}
