//! Puts what failed verification on its topic, as well as it can.
//!
//! Nobody waits for it: what does not fit into a small queue of its own, and what Kafka does not take,
//! is dropped and counted. No event shares anything with it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hookwell_common::config::KafkaConfig;
use hookwell_common::kafka::{ClientSettings, collect_headers, log_client_error, log_client_line};
use hookwell_common::topics::Topic;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::record::{Kept, MAX_HEADER_BYTES};
use crate::metrics::{Dropped, QuarantineMeters};

/// How long the end of the process waits for what is under way.
const FLUSH: Duration = Duration::from_secs(2);

/// Puts what failed verification on its topic.
pub struct Keeper {
    producer: ThreadedProducer<Reports>,
    topic: String,
    partitions: u32,
    next: AtomicU32,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Keeper {
    /// A producer of its own for the topic under the prefix of `kafka`.
    pub fn new(clients: &ClientSettings, kafka: &KafkaConfig) -> Result<Self, KafkaError> {
        let producer = ThreadedProducer::from_config_and_context(&clients.quarantine_producer(), Reports)?;
        let topic = Topic::Quarantine.name(&kafka.topic_prefix);
        let partitions = u32::try_from(kafka.partitions).unwrap_or(1).max(1);
        Ok(Self { producer, topic, partitions, next: AtomicU32::new(0) })
    }

    /// Hands `kept` over, and does not wait.
    pub fn keep(&self, kept: &Kept<'_>, meters: &QuarantineMeters) {
        if MAX_HEADER_BYTES < kept.weight() {
            return meters.count_dropped(Dropped::TooLarge);
        }
        // In turn: whoever sends must not choose where it comes to lie.
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.partitions;
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(meters.clone()))
            .partition(i32::try_from(turn).unwrap_or(0))
            .key(kept.source)
            .payload(kept.request.body)
            .headers(collect_headers(32, |write| kept.encode(write)));
        if let Err((error, _)) = self.producer.send(record) {
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            meters.count_dropped(if is_full { Dropped::QueueFull } else { Dropped::Unavailable });
        }
    }

    /// Gives what is under way a moment.
    pub fn flush(&self) {
        if let Err(error) = self.producer.flush(FLUSH) {
            tracing::warn!(%error, "not all that failed verification could be kept");
        }
    }
}

/// Counts what became of each record.
struct Reports;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_client_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_client_error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<QuarantineMeters>;

    fn delivery(&self, result: &DeliveryResult<'_>, meters: Self::DeliveryOpaque) {
        match result {
            Ok(_) => meters.count_kept(),
            Err((error, _)) => {
                tracing::debug!(%error, "a request that failed verification was not kept");
                meters.count_dropped(Dropped::Unavailable);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hookwell_common::config::{Config, Environment, Faults};
    use hookwell_common::time::Timestamp;
    use prometheus::Registry;

    use super::*;
    use crate::metrics::{Metrics, QUARANTINE_DROPPED_TOTAL};
    use crate::rejection::Rejection;
    use crate::verify::request::UnverifiedRequest;

    fn keeper(servers: &str) -> Keeper {
        let text = format!("[kafka]\nbootstrap_servers = {servers:?}\npartitions = 1");
        let mut faults = Faults::default();
        let config = Config::parse(Path::new("x"), &text, &Environment::default(), &mut faults);
        let settings = ClientSettings::resolve(&config, &Environment::default(), &mut faults);
        Keeper::new(&settings, &config.kafka).unwrap()
    }

    fn dropped(registry: &Registry, reason: &str) -> f64 {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == QUARANTINE_DROPPED_TOTAL).unwrap();
        let is_meant = |metric: &&prometheus::proto::Metric| {
            metric.get_label().iter().any(|label| label.value() == reason)
        };
        family.get_metric().iter().filter(is_meant).map(|metric| metric.get_counter().get_value()).sum()
    }

    #[test]
    fn what_does_not_fit_into_memory_is_dropped_at_once_and_counted() {
        let registry = Registry::new();
        let meters = Metrics::register(&registry).unwrap().unknown.quarantine;
        let keeper = keeper("127.0.0.1:1");
        let long = vec![b'x'; 600_000];
        let mut headers = vec![("x-a".to_owned(), b"1".to_vec())];
        let keep = |headers: &Vec<(String, Vec<u8>)>| {
            let request = UnverifiedRequest {
                method: "POST",
                query: None,
                headers,
                body: &long,
                received_at: Timestamp::from_seconds(1),
            };
            let reason = Rejection::SignatureMismatch;
            keeper.keep(&Kept { source: "acme", reason, request, peer: None, unique: "u" }, &meters);
        };
        // 16 MiB hold 27 of them.
        (0..40).for_each(|_| keep(&headers));
        assert_eq!(dropped(&registry, "queue_full"), 13.0);
        headers.push(("x-b".to_owned(), vec![b'x'; MAX_HEADER_BYTES]));
        keep(&headers);
        assert_eq!(dropped(&registry, "too_large"), 1.0);
    }
}
