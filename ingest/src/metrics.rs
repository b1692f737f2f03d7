//! What ingest counts. Names are a published contract (`docs/metrics.md`); labels come from the
//! configuration only, and every counter is there from the start, at zero.

mod quarantine;

use std::collections::HashMap;

use hookwell_common::config::UNKNOWN_NAME;
use hookwell_common::kafka::Figures;
use hookwell_common::time::Timestamp;
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry,
};

use crate::keyring::fetch::Outcome;
use crate::rejection::Rejection;
use crate::source::Source;

use quarantine::Quarantine;

pub use quarantine::{Dropped, QuarantineMeters};

/// Requests by what became of them. Labels: `source`, `outcome`.
pub const REQUESTS_TOTAL: &str = "hookwell_ingest_requests_total";
/// Seconds from the first byte of a request to its answer. Labels: `source`.
pub const REQUEST_SECONDS: &str = "hookwell_ingest_request_seconds";
/// Seconds from handing an event to Kafka to its acknowledgement.
pub const PUBLISH_SECONDS: &str = "hookwell_ingest_publish_seconds";
/// Requests that are being answered.
pub const IN_FLIGHT: &str = "hookwell_ingest_in_flight";
/// Verified requests by the secret that fitted. Labels: `source`, `secret` (its id or place).
pub const SECRET_MATCHES_TOTAL: &str = "hookwell_ingest_secret_matches_total";
/// When a secret fitted last, seconds since the epoch; 0 for never. Labels: `source`, `secret`.
pub const SECRET_LAST_MATCH_TIMESTAMP_SECONDS: &str = "hookwell_ingest_secret_last_match_timestamp_seconds";
/// Reloads, ordered or because the files of secrets changed. Labels: `outcome`.
pub const CONFIG_RELOADS_TOTAL: &str = "hookwell_ingest_config_reloads_total";
/// 1, or 0 from a reload that was refused until the next that is not.
pub const CONFIG_LAST_RELOAD_SUCCESSFUL: &str = "hookwell_ingest_config_last_reload_successful";
/// When what counts was read, seconds since the epoch.
pub const CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS: &str =
    "hookwell_ingest_config_last_reload_success_timestamp_seconds";
/// When the newest event was accepted, seconds since the epoch; 0 for none yet. Labels: `source`.
pub const LAST_EVENT_TIMESTAMP_SECONDS: &str = "hookwell_ingest_last_event_timestamp_seconds";
/// Events that wait in the local spool.
pub const SPOOL_EVENTS: &str = "hookwell_ingest_spool_events";
/// Bytes that the spool takes of its disk.
pub const SPOOL_BYTES: &str = "hookwell_ingest_spool_bytes";
/// When the oldest event in the spool was received, seconds since the epoch; 0 where it is empty.
pub const SPOOL_OLDEST_TIMESTAMP_SECONDS: &str = "hookwell_ingest_spool_oldest_timestamp_seconds";
/// Events that came from the spool onto Kafka.
pub const SPOOL_DRAINED_TOTAL: &str = "hookwell_ingest_spool_drained_total";
/// What went wrong with the spool. Labels: `reason`.
pub const SPOOL_FAULTS_TOTAL: &str = "hookwell_ingest_spool_faults_total";
/// Public keys that were asked for at their senders' hosts, by what came of it. Labels: `outcome`.
pub const KEY_FETCHES_TOTAL: &str = "hookwell_ingest_key_fetches_total";
/// Requests kept in quarantine. Labels: `source`.
pub const QUARANTINED_TOTAL: &str = "hookwell_ingest_quarantined_total";
/// Requests that failed verification and could not be kept. Labels: `source`, `reason`.
pub const QUARANTINE_DROPPED_TOTAL: &str = "hookwell_ingest_quarantine_dropped_total";
/// Bytes of bodies that are being received or published.
pub const BUFFERED_BYTES: &str = "hookwell_ingest_buffered_bytes";
/// Records that wait in librdkafka for Kafka.
pub const KAFKA_QUEUE_RECORDS: &str = "hookwell_ingest_kafka_queue_records";
/// Bytes of those records.
pub const KAFKA_QUEUE_BYTES: &str = "hookwell_ingest_kafka_queue_bytes";
/// Brokers with which a connection stands.
pub const KAFKA_BROKERS_UP: &str = "hookwell_ingest_kafka_brokers_up";

/// Every name.
pub const ALL: &[&str] = &[
    REQUESTS_TOTAL,
    REQUEST_SECONDS,
    PUBLISH_SECONDS,
    IN_FLIGHT,
    SECRET_MATCHES_TOTAL,
    SECRET_LAST_MATCH_TIMESTAMP_SECONDS,
    CONFIG_RELOADS_TOTAL,
    CONFIG_LAST_RELOAD_SUCCESSFUL,
    CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS,
    LAST_EVENT_TIMESTAMP_SECONDS,
    SPOOL_EVENTS,
    SPOOL_BYTES,
    SPOOL_OLDEST_TIMESTAMP_SECONDS,
    SPOOL_DRAINED_TOTAL,
    SPOOL_FAULTS_TOTAL,
    KEY_FETCHES_TOTAL,
    QUARANTINED_TOTAL,
    QUARANTINE_DROPPED_TOTAL,
    BUFFERED_BYTES,
    KAFKA_QUEUE_RECORDS,
    KAFKA_QUEUE_BYTES,
    KAFKA_BROKERS_UP,
];

/// The outcome label of a request whose event is on Kafka.
pub const ACCEPTED: &str = "accepted";
/// The same, of one that asked whether the address is ours, and was answered.
pub const HANDSHAKE: &str = "handshake";
/// The outcome label of a request whose event is in the spool.
pub const SPOOLED: &str = "spooled";

/// From a fraction of a millisecond to longer than any sender waits.
const SECONDS_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Everything that ingest counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    secrets: SecretMeters,
    last_event: GaugeVec,
    quarantine: Quarantine,
    /// [`PUBLISH_SECONDS`].
    pub publish_seconds: Histogram,
    /// [`IN_FLIGHT`].
    pub in_flight: IntGauge,
    /// [`BUFFERED_BYTES`].
    pub buffered_bytes: IntGauge,
    kafka_queue_records: IntGauge,
    kafka_queue_bytes: IntGauge,
    kafka_brokers_up: IntGauge,
    /// What the spool counts.
    pub spool: SpoolMeters,
    /// What the keyring counts.
    pub keys: KeyMeters,
    /// What reloads count.
    pub reloads: ReloadMeters,
    /// What counts for no source of the configuration.
    pub unknown: SourceMeters,
}

/// What the spool counts.
#[derive(Clone, Debug)]
pub struct SpoolMeters {
    /// [`SPOOL_EVENTS`].
    pub events: IntGauge,
    /// [`SPOOL_BYTES`].
    pub bytes: IntGauge,
    /// [`SPOOL_OLDEST_TIMESTAMP_SECONDS`].
    pub oldest: Gauge,
    /// [`SPOOL_DRAINED_TOTAL`].
    pub drained: IntCounter,
    /// [`SPOOL_FAULTS_TOTAL`] `full`: events that did not fit.
    pub full: IntCounter,
    /// [`SPOOL_FAULTS_TOTAL`] `unwritable`: events that could not be written.
    pub unwritable: IntCounter,
    /// [`SPOOL_FAULTS_TOTAL`] `damaged`: places of segments that cannot be read.
    pub damaged: IntCounter,
    /// [`SPOOL_FAULTS_TOTAL`] `refused`: events that Kafka will never take.
    pub refused: IntCounter,
}

/// What the keyring counts: [`KEY_FETCHES_TOTAL`].
#[derive(Clone, Debug)]
pub struct KeyMeters(HashMap<Outcome, IntCounter>);

/// What reloads count.
#[derive(Clone, Debug)]
pub struct ReloadMeters {
    /// [`CONFIG_RELOADS_TOTAL`] `succeeded`.
    pub succeeded: IntCounter,
    /// [`CONFIG_RELOADS_TOTAL`] `refused`.
    pub refused: IntCounter,
    /// [`CONFIG_LAST_RELOAD_SUCCESSFUL`].
    pub last_successful: IntGauge,
    /// [`CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS`].
    pub last_success: Gauge,
}

/// Which secrets fit, of all sources.
#[derive(Clone, Debug)]
struct SecretMeters {
    matches: IntCounterVec,
    last_match: GaugeVec,
}

/// The counters of one source, looked up once.
#[derive(Clone, Debug)]
pub struct SourceMeters {
    accepted: IntCounter,
    spooled: IntCounter,
    handshakes: IntCounter,
    rejected: HashMap<Rejection, IntCounter>,
    secrets: Vec<(IntCounter, Gauge)>,
    /// [`REQUEST_SECONDS`].
    pub request_seconds: Histogram,
    /// [`LAST_EVENT_TIMESTAMP_SECONDS`].
    pub last_event: Gauge,
    /// What is kept of what fails verification.
    pub quarantine: QuarantineMeters,
}

impl Metrics {
    /// Registers everything with `registry`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = register(
            registry,
            IntCounterVec::new(
                opts(REQUESTS_TOTAL, "Requests by what became of them."),
                &["source", "outcome"],
            )?,
        )?;
        let seconds = HistogramOpts::new(REQUEST_SECONDS, "From the first byte of a request to its answer.");
        let request_seconds =
            register(registry, HistogramVec::new(seconds.buckets(SECONDS_BUCKETS.to_vec()), &["source"])?)?;
        let secrets = SecretMeters::register(registry)?;
        let last_event = register(
            registry,
            GaugeVec::new(
                opts(LAST_EVENT_TIMESTAMP_SECONDS, "When the newest event was accepted."),
                &["source"],
            )?,
        )?;
        let quarantine = Quarantine::register(registry)?;
        let seconds =
            HistogramOpts::new(PUBLISH_SECONDS, "From handing an event to Kafka to its acknowledgement.");
        let publish_seconds =
            register(registry, Histogram::with_opts(seconds.buckets(SECONDS_BUCKETS.to_vec()))?)?;
        let unknown = SourceMeters::new(
            UNKNOWN_NAME,
            &[],
            &requests,
            &request_seconds,
            &secrets,
            &last_event,
            &quarantine,
        );
        Ok(Self {
            publish_seconds,
            in_flight: register(
                registry,
                IntGauge::with_opts(opts(IN_FLIGHT, "Requests that are being answered."))?,
            )?,
            buffered_bytes: register(
                registry,
                IntGauge::with_opts(opts(BUFFERED_BYTES, "Bytes of bodies in memory."))?,
            )?,
            kafka_queue_records: register(
                registry,
                IntGauge::with_opts(opts(KAFKA_QUEUE_RECORDS, "Records that wait for Kafka."))?,
            )?,
            kafka_queue_bytes: register(
                registry,
                IntGauge::with_opts(opts(KAFKA_QUEUE_BYTES, "Bytes of records that wait for Kafka."))?,
            )?,
            kafka_brokers_up: register(
                registry,
                IntGauge::with_opts(opts(KAFKA_BROKERS_UP, "Brokers with which a connection stands."))?,
            )?,
            spool: SpoolMeters::register(registry)?,
            keys: KeyMeters::register(registry)?,
            reloads: ReloadMeters::register(registry)?,
            requests,
            request_seconds,
            secrets,
            last_event,
            quarantine,
            unknown,
        })
    }

    /// The counters of `source`, from now on there at zero.
    pub fn of_source(&self, source: &Source) -> SourceMeters {
        let name = source.name.as_str();
        let labels: Vec<_> = source.keys.iter().map(|key| key.label.as_str()).collect();
        SourceMeters::new(
            name,
            &labels,
            &self.requests,
            &self.request_seconds,
            &self.secrets,
            &self.last_event,
            &self.quarantine,
        )
    }

    /// Takes over librdkafka's own figures.
    pub fn show_figures(&self, figures: &Figures) {
        for client in figures.all() {
            self.kafka_queue_records.set(i64::try_from(client.msg_cnt).unwrap_or(i64::MAX));
            self.kafka_queue_bytes.set(i64::try_from(client.msg_size).unwrap_or(i64::MAX));
            let up =
                client.brokers.values().filter(|broker| broker.nodeid >= 0 && broker.state == "UP").count();
            self.kafka_brokers_up.set(i64::try_from(up).unwrap_or(i64::MAX));
        }
    }
}

impl SpoolMeters {
    /// Registers everything with `registry`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| register(registry, IntGauge::with_opts(opts(name, help))?);
        let oldest = opts(SPOOL_OLDEST_TIMESTAMP_SECONDS, "When the oldest event in the spool was received.");
        let drained = opts(SPOOL_DRAINED_TOTAL, "Events that came from the spool onto Kafka.");
        let faults = opts(SPOOL_FAULTS_TOTAL, "What went wrong with the spool.");
        let faults = register(registry, IntCounterVec::new(faults, &["reason"])?)?;
        Ok(Self {
            events: gauge(SPOOL_EVENTS, "Events that wait in the local spool.")?,
            bytes: gauge(SPOOL_BYTES, "Bytes that the spool takes of its disk.")?,
            oldest: register(registry, Gauge::with_opts(oldest)?)?,
            drained: register(registry, IntCounter::with_opts(drained)?)?,
            full: faults.with_label_values(&["full"]),
            unwritable: faults.with_label_values(&["unwritable"]),
            damaged: faults.with_label_values(&["damaged"]),
            refused: faults.with_label_values(&["refused"]),
        })
    }
}

impl KeyMeters {
    /// Registers everything with `registry`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let fetches = opts(KEY_FETCHES_TOTAL, "Public keys that were asked for at their senders' hosts.");
        let fetches = register(registry, IntCounterVec::new(fetches, &["outcome"])?)?;
        let one = |outcome: Outcome| (outcome, fetches.with_label_values(&[outcome.label()]));
        Ok(Self(Outcome::ALL.into_iter().map(one).collect()))
    }

    /// Counts what came of one question.
    pub fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.0.get(&outcome) {
            counter.inc();
        }
    }
}

impl ReloadMeters {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let reloads = opts(CONFIG_RELOADS_TOTAL, "Reloads, ordered or because files of secrets changed.");
        let reloads = register(registry, IntCounterVec::new(reloads, &["outcome"])?)?;
        let successful = opts(CONFIG_LAST_RELOAD_SUCCESSFUL, "0 from a refused reload until the next.");
        let success = opts(CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS, "When what counts was read.");
        Ok(Self {
            succeeded: reloads.with_label_values(&["succeeded"]),
            refused: reloads.with_label_values(&["refused"]),
            last_successful: register(registry, IntGauge::with_opts(successful)?)?,
            last_success: register(registry, Gauge::with_opts(success)?)?,
        })
    }
}

impl SecretMeters {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let labels = &["source", "secret"];
        let matches = opts(SECRET_MATCHES_TOTAL, "Verified requests by the secret that fitted.");
        let last_match = opts(SECRET_LAST_MATCH_TIMESTAMP_SECONDS, "When a secret fitted last.");
        Ok(Self {
            matches: register(registry, IntCounterVec::new(matches, labels)?)?,
            last_match: register(registry, GaugeVec::new(last_match, labels)?)?,
        })
    }
}

impl SourceMeters {
    fn new(
        source: &str,
        labels: &[&str],
        requests: &IntCounterVec,
        request_seconds: &HistogramVec,
        secrets: &SecretMeters,
        last_event: &GaugeVec,
        quarantine: &Quarantine,
    ) -> Self {
        let rejected =
            |rejection: Rejection| (rejection, requests.with_label_values(&[source, rejection.label()]));
        let secret = |label: &&str| {
            let values = &[source, *label];
            (secrets.matches.with_label_values(values), secrets.last_match.with_label_values(values))
        };
        Self {
            accepted: requests.with_label_values(&[source, ACCEPTED]),
            handshakes: requests.with_label_values(&[source, HANDSHAKE]),
            spooled: requests.with_label_values(&[source, SPOOLED]),
            rejected: Rejection::ALL.into_iter().map(rejected).collect(),
            secrets: labels.iter().map(secret).collect(),
            request_seconds: request_seconds.with_label_values(&[source]),
            last_event: last_event.with_label_values(&[source]),
            quarantine: quarantine.of(source),
        }
    }

    /// Counts a request whose event is on Kafka.
    pub fn count_accepted(&self) {
        self.accepted.inc();
    }

    /// Counts a request whose event is in the spool.
    pub fn count_spooled(&self) {
        self.spooled.inc();
    }

    /// Counts a question that was answered.
    pub fn count_handshake(&self) {
        self.handshakes.inc();
    }

    /// Counts a request that was not accepted.
    pub fn count_rejected(&self, rejection: Rejection) {
        if let Some(counter) = self.rejected.get(&rejection) {
            counter.inc();
        }
    }

    /// Counts which secret fitted, and notes when.
    pub fn count_secret(&self, index: usize, now: Timestamp) {
        if let Some((matches, last_match)) = self.secrets.get(index) {
            matches.inc();
            last_match.set(now.as_seconds_f64());
        }
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Change this list only with the dashboards and `docs/metrics.md` in hand.
    #[test]
    fn metric_names_are_a_published_contract() {
        assert!(ALL.iter().all(|name| name.starts_with("hookwell_ingest_")));
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.secrets.matches.with_label_values(&["x", "0"]);
        metrics.secrets.last_match.with_label_values(&["x", "0"]);
        let mut registered: Vec<_> =
            registry.gather().iter().map(|family| family.name().to_owned()).collect();
        let mut all = ALL.to_vec();
        registered.sort();
        all.sort_unstable();
        assert_eq!(registered, all);
    }

    #[test]
    fn every_outcome_is_there_at_zero_from_the_start() {
        let registry = Registry::new();
        Metrics::register(&registry).unwrap();
        let families = registry.gather();
        let requests = families.iter().find(|family| family.name() == REQUESTS_TOTAL).unwrap();
        assert_eq!(requests.get_metric().len(), Rejection::ALL.len() + 3);
    }
}
