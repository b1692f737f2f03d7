//! The loop that exactly-once processing cannot do without: consume, produce, wait for all
//! reports, send offsets, commit. It deduplicates nothing and remembers nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use hookwell_tests::reader::Reader;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::broker::{eager, next};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a state record of ours holds.
const STATE: [u8; 60] = [1; 60];

/// A bare loop of transactions.
#[derive(Clone, Debug, Args)]
pub(crate) struct Transactions {
    /// Where Kafka is
    bootstrap_servers: String,
    /// Where from
    from: String,
    /// Where to
    to: String,
    /// Where a small record goes for each
    state: String,
    /// The group, and the transactional id
    group: String,
    /// How many records
    records: u64,
    /// How many in one transaction
    each: u64,
}

impl Transactions {
    /// Runs through the whole topic.
    pub(crate) fn run(self) -> Result<()> {
        let reader = Reader::new(&self.bootstrap_servers);
        let consumer: BaseConsumer = eager(reader.config(), &self.group).create()?;
        consumer.subscribe(&[&self.from])?;
        let mut config = reader.config();
        config
            .set("transactional.id", &self.group)
            .set("linger.ms", "0")
            .set("queue.buffering.max.messages", "1000000")
            .set("batch.num.messages", "10000");
        let producer: BaseProducer<Reports> = config.create_with_context(Reports::default())?;
        producer.init_transactions(PATIENCE)?;
        let mut done = 0;
        while done < self.records {
            let first = done == 0;
            done += self.transaction(&consumer, &producer, self.each.min(self.records - done))?;
            if first {
                super::begin(done);
            }
        }
        super::end(done);
        super::stay();
        Ok(())
    }

    fn transaction(
        &self,
        consumer: &BaseConsumer,
        producer: &BaseProducer<Reports>,
        records: u64,
    ) -> Result<u64> {
        producer.begin_transaction()?;
        let mut offsets = TopicPartitionList::new();
        let mut ends = BTreeMap::new();
        let mut taken = 0;
        while taken < records {
            let Some(message) = next(consumer)? else { continue };
            let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
            let headers = message.headers().map(|headers| headers.detach()).unwrap_or_default();
            self.produce(producer, message.partition(), key, value, headers)?;
            ends.insert(message.partition(), message.offset() + 1);
            taken += 1;
        }
        for (partition, end) in ends {
            offsets.add_partition_offset(&self.from, partition, Offset::Offset(end))?;
        }
        producer.context().wait(producer)?;
        let group = consumer.group_metadata().context("no member of the group")?;
        producer.send_offsets_to_transaction(&offsets, &group, PATIENCE)?;
        producer.commit_transaction(PATIENCE)?;
        Ok(taken)
    }

    fn produce(
        &self,
        producer: &BaseProducer<Reports>,
        partition: i32,
        key: &[u8],
        value: &[u8],
        headers: OwnedHeaders,
    ) -> Result<()> {
        let forward = BaseRecord::to(&self.to).partition(partition).key(key).payload(value).headers(headers);
        producer.send(forward).map_err(|(error, _)| error)?;
        let state = BaseRecord::to(&self.state).partition(partition).key(&key[..key.len().min(16)]);
        producer.send(state.payload(&STATE[..])).map_err(|(error, _)| error)?;
        producer.context().open.fetch_add(2, Ordering::Relaxed);
        Ok(())
    }
}

/// Counts what is under way. Reports are served by this thread's own polls.
#[derive(Default)]
struct Reports {
    open: AtomicI64,
    failed: AtomicI64,
}

impl Reports {
    fn wait(&self, producer: &BaseProducer<Reports>) -> Result<()> {
        while 0 < self.open.load(Ordering::Relaxed) {
            // Short, for a poll stays for all of its time.
            producer.poll(Duration::from_millis(1));
        }
        ensure!(self.failed.load(Ordering::Relaxed) == 0, "Kafka refused a record");
        Ok(())
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.failed.fetch_add(i64::from(result.is_err()), Ordering::Relaxed);
    }
}
