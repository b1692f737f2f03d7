//! What every client does with librdkafka's own lines, errors and figures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
pub use rdkafka::statistics::Statistics;

/// Logs, and keeps the newest figures.
#[derive(Clone, Debug, Default)]
pub struct LoggingContext {
    /// Where the figures go.
    pub figures: Figures,
}

impl ClientContext for LoggingContext {
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

impl ConsumerContext for LoggingContext {}

/// The newest figures of each client of a process, by its name.
#[derive(Clone, Debug, Default)]
pub struct Figures(Arc<Mutex<BTreeMap<String, Arc<Statistics>>>>);

impl Figures {
    /// Keeps `statistics` in place of what the same client gave before.
    pub fn put(&self, statistics: Statistics) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        newest.insert(statistics.client_id.clone(), Arc::new(statistics));
    }

    /// The newest figures of all clients.
    pub fn all(&self) -> Vec<Arc<Statistics>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// One line of librdkafka's own log, at our level.
pub fn log_client_line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "kafka", facility, "{line}");
        }
        // A connection that fails is tried again: unexpected, and recovered from.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if !is_noise(facility) => {
            tracing::warn!(target: "kafka", facility, "{line}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::debug!(target: "kafka", facility, "{line}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "kafka", facility, "{line}");
        }
    }
}

/// Properties that another kind of client takes, and calls that are made again at once: no news.
fn is_noise(facility: &str) -> bool {
    matches!(facility, "CONFWARN" | "GETPID")
}

/// An error that librdkafka reports outside of any call. The end of a partition, which it calls an
/// error as well, is none; and of a broker that is away its own line tells already, once.
pub fn log_client_error(error: &KafkaError, reason: &str) {
    let code = error.rdkafka_error_code();
    let is_away =
        matches!(code, Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown));
    if is_away {
        tracing::debug!(target: "kafka", "{error}: {reason}");
    } else if code != Some(RDKafkaErrorCode::PartitionEOF) {
        tracing::warn!(target: "kafka", "{error}: {reason}");
    }
}
