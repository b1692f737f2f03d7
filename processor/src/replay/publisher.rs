//! Puts replays on the events topic, and counts what Kafka acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hookwell_common::event::Event;
use hookwell_common::failpoint;
use hookwell_common::kafka::{ClientSettings, has_place, headers_of, log_client_error, log_client_line};
use hookwell_common::lifecycle::Failure;
use hookwell_common::record::{Passage, record_key};
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

/// How long a full queue is waited for before it is tried again.
const FULL: Duration = Duration::from_millis(10);

/// Longer than any record is tried: after it each was acknowledged or given up.
const FLUSH: Duration = Duration::from_secs(60);

/// Failures that are told one by one; of all others only the number is.
const TOLD: u64 = 20;

/// Puts replays on the events topic.
pub(crate) struct Publisher {
    producer: BaseProducer<Reports>,
    topic: String,
    tally: Arc<Tally>,
}

/// What became of the records so far.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: AtomicU64,
    failed: AtomicU64,
    /// Those for which Kafka was away.
    unanswered: AtomicU64,
}

/// Counts delivery reports, whose own error is what counts.
struct Reports(Arc<Tally>);

impl Publisher {
    /// A producer for `topic`.
    pub(crate) fn new(clients: &ClientSettings, topic: String) -> Result<Self, Failure> {
        let tally = Arc::new(Tally::default());
        let producer =
            BaseProducer::from_config_and_context(&clients.replay_producer(), Reports(Arc::clone(&tally)))
                .map_err(|error| Failure::Usage(format!("no Kafka client: {error}")))?;
        Ok(Self { producer, topic, tally })
    }

    /// Hands a replay over; waits where too many are under way, unless `is_stopping`.
    pub(crate) fn publish(
        &self,
        event: &Event,
        passage: &Passage,
        partition: i32,
        is_stopping: impl Fn() -> bool,
    ) {
        let key = record_key(&event.source, &event.id);
        let mut record = BaseRecord::to(&self.topic)
            .partition(partition)
            .key(&key)
            .payload(event.body.as_ref())
            .headers(headers_of(event, passage));
        while let Err((error, refused)) = self.producer.send(record) {
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            // An empty queue that is full has no room for this record at all.
            if !is_full || self.cut_off().is_some() || self.producer.in_flight_count() == 0 {
                self.tally.fail(&error);
                return;
            }
            if is_stopping() {
                return;
            }
            self.producer.poll(FULL);
            record = refused;
        }
        failpoint::hit("replay-published");
        self.producer.poll(Duration::ZERO);
    }

    /// Spends `wait` with what Kafka answers.
    pub(crate) fn listen(&self, wait: Duration) {
        self.producer.poll(wait);
    }

    /// Waits until each record was acknowledged or given up.
    pub(crate) fn finish(&self) {
        if let Err(error) = self.producer.flush(FLUSH) {
            tracing::warn!(%error, "not every replay was answered");
            self.tally.unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many Kafka has acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.tally.acknowledged.load(Ordering::Relaxed)
    }

    /// How many it has not, and will not.
    pub(crate) fn failed(&self) -> u64 {
        self.tally.failed.load(Ordering::Relaxed)
    }

    /// Why there is no use in going on: Kafka was away for as long as a record is tried, or the
    /// producer is lost.
    pub(crate) fn cut_off(&self) -> Option<String> {
        if let Some((code, why)) = self.producer.client().fatal_error() {
            return Some(format!("Kafka takes nothing more: {code}: {why}"));
        }
        (0 < self.tally.unanswered.load(Ordering::Relaxed)).then(|| "Kafka went away".to_owned())
    }
}

impl Tally {
    fn fail(&self, error: &KafkaError) {
        let before = self.failed.fetch_add(1, Ordering::Relaxed);
        if before < TOLD {
            tracing::error!(%error, "a replay was not acknowledged");
        }
        let is_away = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::MessageTimedOut
                    | RDKafkaErrorCode::PurgeInflight
                    | RDKafkaErrorCode::PurgeQueue
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
            )
        );
        self.unanswered.fetch_add(u64::from(is_away), Ordering::Relaxed);
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_client_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_client_error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(record) if has_place(record.offset()) => {
                failpoint::hit("replay-acknowledged");
                self.0.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            // Whether it was stored nobody knows; the same command, run again, sees to it.
            Ok(_) => self.0.fail(&KafkaError::MessageProduction(RDKafkaErrorCode::Unknown)),
            Err((error, _)) => self.0.fail(error),
        }
    }
}
