//! A producer that keeps a fixed number of records under way, each acknowledged by all.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use crossbeam_channel::{Receiver, Sender, bounded};
use hookwell_common::lifecycle::Clock;
use hookwell_tests::reader::Reader;
use rdkafka::ClientContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};

use crate::record::{body, event_id, headers};

/// Long enough for connections, and for the broker to know the producer.
const WARM_UP: Duration = Duration::from_secs(1);

/// A bare producer.
#[derive(Clone, Debug, Args)]
pub(crate) struct Produce {
    /// Where Kafka is
    bootstrap_servers: String,
    /// Where to
    topic: String,
    /// Its partitions
    partitions: i32,
    /// How many records are under way
    outstanding: usize,
    /// The length of a value
    bytes: usize,
    /// For how many seconds it counts
    seconds: u64,
}

impl Produce {
    /// Produces.
    pub(crate) fn run(self) -> Result<()> {
        let mut config = Reader::new(&self.bootstrap_servers).config();
        config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "0");
        let (give, take) = bounded(self.outstanding);
        (0..self.outstanding).try_for_each(|_| give.send(true))?;
        let producer: ThreadedProducer<Permits> = config.create_with_context(Permits(give))?;
        let clock = Clock::start();
        let mut sent = self.send(&producer, &take, &clock, WARM_UP, 0)?;
        super::begin(sent);
        sent = self.send(&producer, &take, &clock, WARM_UP + Duration::from_secs(self.seconds), sent)?;
        super::end(sent);
        super::stay();
        Ok(())
    }

    /// Sends record after record until `end`, and gives their number so far.
    fn send(
        &self,
        producer: &ThreadedProducer<Permits>,
        permits: &Receiver<bool>,
        clock: &Clock,
        end: Duration,
        mut sent: u64,
    ) -> Result<u64> {
        let id = event_id("floor", 0);
        let (value, headers) = (body(&id, self.bytes), headers(&id));
        while clock.mono() < end {
            let stored = permits.recv_timeout(Duration::from_secs(30)).context("Kafka is silent")?;
            anyhow::ensure!(stored, "Kafka refused a record");
            let partition = i32::try_from(sent % u64::try_from(self.partitions)?)?;
            let record = BaseRecord::to(&self.topic).partition(partition).key(&id).payload(&value);
            producer.send(record.headers(headers.clone())).map_err(|(error, _)| error)?;
            sent += 1;
        }
        Ok(sent)
    }
}

/// Each report permits one more record.
struct Permits(Sender<bool>);

impl ClientContext for Permits {}

impl ProducerContext for Permits {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        // Nobody waits any more once it has ended.
        self.0.send(result.is_ok()).ok();
    }
}
