//! Event to Ack, on the broker's word: the only thing that ingest does with Kafka.
//!
//! [`Publisher::publish`] resolves on the delivery report, whose own error is the answer; a
//! record that was merely enqueued is nothing yet. A full queue sheds at once, and nothing waits
//! for longer than the sender would.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hookwell_common::event::Event;
use hookwell_common::failpoint;
use hookwell_common::identity::Identity;
use hookwell_common::kafka::{
    ClientSettings, Figures, Statistics, has_place, headers_of, log_client_error, log_client_line,
};
use hookwell_common::record::{Passage, record_key};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use thiserror::Error;
use tokio::sync::oneshot;

/// Where an event lies on Kafka, which has acknowledged it with `acks=all`.
///
/// Invariant: made of a delivery report alone, so holding one is the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    partition: i32,
    offset: i64,
}

impl Ack {
    /// The partition.
    pub fn partition(self) -> i32 {
        self.partition
    }

    /// The offset.
    pub fn offset(self) -> i64 {
        self.offset
    }
}

/// Why there is no [`Ack`]. The event may lie on Kafka all the same: the sender sends it again,
/// and state absorbs the copy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    /// Too much waits for Kafka already.
    #[error("the queue to Kafka is full")]
    QueueFull,
    /// Kafka did not acknowledge in time.
    #[error("Kafka did not acknowledge in time")]
    TimedOut,
    /// Only a later record was acknowledged.
    #[error("Kafka acknowledged a later record, and may not have this one")]
    Unproven,
    /// Kafka refused.
    #[error("Kafka refused the event: {0}")]
    Refused(KafkaError),
    /// Nobody has seen yet whether Kafka is as configured.
    #[error("Kafka has not answered since the start")]
    Unverified,
    /// Kafka refused, and will as long as its topic is as it is: because of the event itself.
    #[error("Kafka will not take the event: {0}")]
    Unfit(KafkaError),
}

impl PublishError {
    /// Judges what Kafka, or librdkafka in its place, said of one record.
    fn of(error: KafkaError) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "not our enums, and the default is to try again")]
        match &error {
            KafkaError::MessageProduction(code) => match code {
                RDKafkaErrorCode::QueueFull => Self::QueueFull,
                RDKafkaErrorCode::MessageTimedOut => Self::TimedOut,
                RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::MessageBatchTooLarge
                | RDKafkaErrorCode::InvalidRecord => Self::Unfit(error),
                _ => Self::Refused(error),
            },
            _ => Self::Refused(error),
        }
    }
}

/// Puts events on Kafka.
pub struct Publisher {
    producer: ArcSwap<ThreadedProducer<Reports>>,
    config: ClientConfig,
    figures: Figures,
    topic: String,
    partitions: i32,
    timeout: Duration,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("topic", &self.topic).finish()
    }
}

impl Publisher {
    /// A producer for `topic`, which has `partitions`. An event that is not acknowledged within
    /// `timeout` is given up.
    pub fn new(
        settings: &ClientSettings,
        topic: String,
        partitions: i32,
        timeout: Duration,
        figures: Figures,
    ) -> Result<Self, KafkaError> {
        let config = settings.ingest_producer(timeout);
        let producer = ArcSwap::from_pointee(start(&config, &figures)?);
        Ok(Self { producer, config, figures, topic, partitions, timeout })
    }

    /// Puts `event` on Kafka, and waits for the acknowledgement.
    pub async fn publish(&self, event: &Event, identity: &Identity) -> Result<Ack, PublishError> {
        let answer = self.enqueue(event, identity)?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(report)) => {
                failpoint::hit("ingest-acknowledged");
                report
            }
            // The reports' thread is gone, or slower than the sender: either way nobody knows.
            Ok(Err(_)) | Err(_) => Err(PublishError::TimedOut),
        }
    }

    /// Puts `events` on Kafka in their order, and waits. How many of them, from the first on, are
    /// acknowledged, and why the next is not: those behind it may lie on Kafka all the same.
    pub async fn publish_in_order(&self, events: &[(Event, Identity)]) -> (usize, Option<PublishError>) {
        let mut under_way = Vec::with_capacity(events.len());
        let mut failure = None;
        for (event, identity) in events {
            match self.enqueue(event, identity) {
                Ok(answer) => under_way.push(answer),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let enqueued = under_way.len();
        for (acknowledged, answer) in under_way.into_iter().enumerate() {
            match tokio::time::timeout(self.timeout, answer).await {
                Ok(Ok(Ok(_))) => {}
                Ok(Ok(Err(error))) => return (acknowledged, Some(error)),
                Ok(Err(_)) | Err(_) => return (acknowledged, Some(PublishError::TimedOut)),
            }
        }
        (enqueued, failure)
    }

    /// Waits until nothing is under way any more, or `timeout` has passed.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.producer.load_full().flush(timeout)
    }

    /// What the producer cannot recover from, if that has happened: it refuses every event until it
    /// is [`Publisher::renew`]ed.
    pub fn fatal_error(&self) -> Option<String> {
        self.producer.load().client().fatal_error().map(|(code, why)| format!("{code}: {why}"))
    }

    /// Puts a new producer in the place of one that is lost. What the old one still holds is answered
    /// 503, and its senders send it again.
    pub fn renew(&self) -> Result<(), KafkaError> {
        self.producer.store(Arc::new(start(&self.config, &self.figures)?));
        Ok(())
    }

    /// Whether Kafka answers at all.
    pub fn answers(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.producer.load_full().client().fetch_metadata(Some(&self.topic), timeout).map(drop)
    }

    /// Whether Kafka answers and has the topic as it should be.
    pub fn probe(&self, timeout: Duration) -> Result<(), String> {
        let metadata = self.producer.load_full().client().fetch_metadata(Some(&self.topic), timeout);
        let metadata = metadata.map_err(|error| format!("Kafka does not answer: {error}"))?;
        let found = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        match found.filter(|topic| topic.error().is_none()).map(|topic| topic.partitions().len()) {
            None => {
                Err(format!("topic {} does not exist; `processor --create-topics` creates it", self.topic))
            }
            Some(count) if i32::try_from(count) != Ok(self.partitions) => Err(format!(
                "topic {} has {count} partitions, and kafka.partitions is {}",
                self.topic, self.partitions
            )),
            Some(_) => Ok(()),
        }
    }

    fn enqueue(&self, event: &Event, identity: &Identity) -> Result<oneshot::Receiver<Report>, PublishError> {
        let key = record_key(&event.source, &event.id);
        let (sender, receiver) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(sender))
            .partition(identity.partition(self.partitions))
            .key(&key)
            .payload(event.body.as_ref())
            .headers(headers_of(event, &Passage::default()));
        match self.producer.load().send(record) {
            Ok(()) => Ok(receiver),
            Err((error, _)) => Err(PublishError::of(error)),
        }
    }
}

fn start(config: &ClientConfig, figures: &Figures) -> Result<ThreadedProducer<Reports>, KafkaError> {
    ThreadedProducer::from_config_and_context(config, Reports { figures: figures.clone() })
}

type Report = Result<Ack, PublishError>;

/// Hands each delivery report to the request that waits for it.
struct Reports {
    figures: Figures,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_client_line(level, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        self.figures.put(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_client_error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<Report>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let report = match result {
            Ok(record) if has_place(record.offset()) => {
                Ok(Ack { partition: record.partition(), offset: record.offset() })
            }
            Ok(_) => Err(PublishError::Unproven),
            Err((error, _)) => Err(PublishError::of(error.clone())),
        };
        // A request that no longer waits was answered 503.
        waiting.send(report).ok();
    }
}

/// For tests of those who publish.
#[cfg(test)]
pub(crate) fn too_large() -> PublishError {
    PublishError::of(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use hookwell_common::config::{Config, Environment, Faults};
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    fn event() -> Event {
        Event {
            source: "github".into(),
            id: "one".into(),
            kind: "push".into(),
            time: "2026-11-24T09:00:00.000Z".into(),
            content_type: None,
            traceparent: None,
            kept_headers: Vec::new(),
            body: Bytes::from_static(b"{}"),
        }
    }

    fn publisher(servers: &str) -> Publisher {
        let text = format!("[kafka]\nbootstrap_servers = {servers:?}");
        let mut faults = Faults::default();
        let config = Config::parse(Path::new("x"), &text, &Environment::default(), &mut faults);
        let settings = ClientSettings::resolve(&config, &Environment::default(), &mut faults);
        let topic = "webhooks.events".to_owned();
        Publisher::new(&settings, topic, 1, Duration::from_secs(300), Figures::default()).unwrap()
    }

    /// The time-out is five minutes: an answer that had to wait for it would never come.
    #[tokio::test]
    async fn a_full_queue_sheds_at_once() {
        let publisher = publisher("127.0.0.1:1");
        let (event, identity) = (event(), Identity::of("github", "one"));
        let enqueued = (0..200_000).map_while(|_| publisher.enqueue(&event, &identity).ok()).count();
        assert_eq!(enqueued, 100_000);
        assert_eq!(publisher.publish(&event, &identity).await, Err(PublishError::QueueFull));
    }

    #[tokio::test]
    async fn what_kafka_will_never_take_is_told_from_what_it_cannot_take_now() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("webhooks.events", 1, 1).unwrap();
        let publisher = publisher(&cluster.bootstrap_servers());
        let (event, identity) = (event(), Identity::of("github", "one"));
        let too_long = Event { body: vec![b'x'; 2_000_000].into(), ..event.clone() };
        assert!(matches!(publisher.publish(&too_long, &identity).await, Err(PublishError::Unfit(_))));
        cluster
            .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
        assert!(matches!(publisher.publish(&event, &identity).await, Err(PublishError::Unfit(_))));
        let not_now = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED];
        cluster.request_errors(RDKafkaApiKey::Produce, &not_now);
        assert!(matches!(publisher.publish(&event, &identity).await, Err(PublishError::Refused(_))));
    }

    #[tokio::test]
    async fn events_in_order_are_counted_up_to_the_first_that_fails() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("webhooks.events", 1, 1).unwrap();
        let publisher = publisher(&cluster.bootstrap_servers());
        let entry = |bytes: usize| {
            (Event { body: vec![b'x'; bytes].into(), ..event() }, Identity::of("github", "one"))
        };
        assert_eq!(publisher.publish_in_order(&[entry(1), entry(2)]).await, (2, None));
        let (acknowledged, failure) =
            publisher.publish_in_order(&[entry(1), entry(2_000_000), entry(1)]).await;
        assert_eq!((acknowledged, failure), (1, Some(too_large())));
    }

    /// The first record is refused for now while the second, already under way, is taken.
    #[tokio::test]
    async fn what_a_later_acknowledgement_seems_to_imply_is_not_believed() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("webhooks.events", 1, 1).unwrap();
        let publisher = publisher(&cluster.bootstrap_servers());
        let (event, identity) = (event(), Identity::of("github", "one"));
        assert!(publisher.publish(&event, &identity).await.is_ok());
        cluster.broker_round_trip_time(1, Duration::from_millis(500)).unwrap();
        let not_now = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION];
        cluster.request_errors(RDKafkaApiKey::Produce, &not_now);
        let later = async {
            // For two requests, not one with both.
            tokio::time::sleep(Duration::from_millis(100)).await;
            publisher.publish(&event, &identity).await
        };
        let (first, later) = tokio::join!(publisher.publish(&event, &identity), later);
        assert_eq!(first, Err(PublishError::Unproven));
        assert!(later.is_ok());
    }

    #[tokio::test]
    async fn a_producer_that_is_lost_is_replaced_by_one_that_publishes() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("webhooks.events", 1, 1).unwrap();
        let publisher = publisher(&cluster.bootstrap_servers());
        let (event, identity) = (event(), Identity::of("github", "one"));
        assert!(publisher.publish(&event, &identity).await.is_ok());
        assert_eq!(publisher.fatal_error(), None);
        let lost = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER];
        cluster.request_errors(RDKafkaApiKey::Produce, &lost);
        assert!(publisher.publish(&event, &identity).await.is_err());
        assert!(publisher.fatal_error().is_some());
        assert!(
            publisher.publish(&event, &identity).await.is_err(),
            "it recovers by itself: what is renew for?"
        );
        publisher.renew().unwrap();
        assert_eq!(publisher.fatal_error(), None);
        assert!(publisher.publish(&event, &identity).await.is_ok());
    }
}
