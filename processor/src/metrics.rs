//! What the processor counts. Names are a published contract (`docs/metrics.md`); labels come from
//! the configuration only, and every counter is there from the start, at zero.

use std::collections::HashSet;

use bytestring::ByteString;
use hookwell_common::config::{Config, UNKNOWN_NAME};
use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::board::LaneState;
use crate::dead_letter::DeadLetterReason;
use crate::outcome::Outcome;
use crate::settle::Settlement;

/// Calls by what came of them. Labels: `source`, `destination`, `outcome`.
pub const ATTEMPTS_TOTAL: &str = "hookwell_processor_attempts_total";
/// Seconds that calls took. Labels: `destination`.
pub const ATTEMPT_SECONDS: &str = "hookwell_processor_attempt_seconds";
/// Committed settlements. Labels: `source`, `destination`, `settlement`.
pub const SETTLEMENTS_TOTAL: &str = "hookwell_processor_settlements_total";
/// Copies that were dropped. Labels: `source`.
pub const DUPLICATES_TOTAL: &str = "hookwell_processor_duplicates_total";
/// Retries that something newer had overtaken.
pub const STALE_TOTAL: &str = "hookwell_processor_stale_total";
/// Retries written. Labels: `destination`, `tier`.
pub const RETRIES_TOTAL: &str = "hookwell_processor_retries_total";
/// Seconds by which retries were called later than they were due.
pub const RETRY_LATENESS_SECONDS: &str = "hookwell_processor_retry_lateness_seconds";
/// Dead letters written. Labels: `source`, `destination`, `reason`.
pub const DEAD_LETTERS_TOTAL: &str = "hookwell_processor_dead_letters_total";
/// Dead letters that no replay has settled. Labels: `source`, `destination`, `reason`.
pub const DLQ_OPEN: &str = "hookwell_processor_dlq_open";
/// When the oldest of those was written, seconds since the epoch; 0 for none. Labels: `destination`.
pub const DLQ_OLDEST_TIMESTAMP_SECONDS: &str = "hookwell_processor_dlq_oldest_timestamp_seconds";
/// Log end minus what is settled. Labels: `topic`, `partition`.
pub const LAG_RECORDS: &str = "hookwell_processor_lag_records";
/// When the oldest record that is read and not settled was written, seconds since the epoch; 0 for
/// none.
pub const OLDEST_UNSETTLED_TIMESTAMP_SECONDS: &str = "hookwell_processor_oldest_unsettled_timestamp_seconds";
/// Deliveries whose handler is being called or that wait for their turn, and those that the flood
/// guard holds back.
pub const OPEN_DELIVERIES: &str = "hookwell_processor_open_deliveries";
/// Lanes by where they are in their life. Labels: `state`.
pub const LANES: &str = "hookwell_processor_lanes";
/// Seconds from an assignment to a lane at work.
pub const RESTORE_SECONDS: &str = "hookwell_processor_restore_seconds";
/// Ids that are remembered.
pub const STATE_IDS: &str = "hookwell_processor_state_ids";
/// What they take of memory, in bytes.
pub const STATE_BYTES: &str = "hookwell_processor_state_bytes";
/// Transactions. Labels: `result`.
pub const TRANSACTIONS_TOTAL: &str = "hookwell_processor_transactions_total";
/// Seconds that transactions took.
pub const TRANSACTION_SECONDS: &str = "hookwell_processor_transaction_seconds";
/// Partitions that the group gave this process.
pub const ASSIGNED_PARTITIONS: &str = "hookwell_processor_assigned_partitions";
/// Retries that wait in memory for their time.
pub const WAITING_RETRIES: &str = "hookwell_processor_waiting_retries";
/// Brokers with which the group member has a connection.
pub const KAFKA_BROKERS_UP: &str = "hookwell_processor_kafka_brokers_up";
/// Rebalances that the group member took part in.
pub const KAFKA_REBALANCES: &str = "hookwell_processor_kafka_rebalances";

/// Every name.
pub const ALL: &[&str] = &[
    ATTEMPTS_TOTAL,
    ATTEMPT_SECONDS,
    SETTLEMENTS_TOTAL,
    DUPLICATES_TOTAL,
    STALE_TOTAL,
    RETRIES_TOTAL,
    RETRY_LATENESS_SECONDS,
    DEAD_LETTERS_TOTAL,
    DLQ_OPEN,
    DLQ_OLDEST_TIMESTAMP_SECONDS,
    LAG_RECORDS,
    OLDEST_UNSETTLED_TIMESTAMP_SECONDS,
    OPEN_DELIVERIES,
    LANES,
    RESTORE_SECONDS,
    STATE_IDS,
    STATE_BYTES,
    TRANSACTIONS_TOTAL,
    TRANSACTION_SECONDS,
    ASSIGNED_PARTITIONS,
    WAITING_RETRIES,
    KAFKA_BROKERS_UP,
    KAFKA_REBALANCES,
];

/// The words of the label `result`, in the order of their documentation.
pub const TRANSACTION_RESULTS: [&str; 3] = ["committed", "aborted", "lost"];

const CALL_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const RESTORE_BUCKETS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0];

/// Everything that the processor counts.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    attempts: IntCounterVec,
    attempt_seconds: HistogramVec,
    settlements: IntCounterVec,
    duplicates: IntCounterVec,
    /// [`STALE_TOTAL`].
    pub(crate) stale: IntCounter,
    retries: IntCounterVec,
    /// [`RETRY_LATENESS_SECONDS`].
    pub(crate) retry_lateness: Histogram,
    dead_letters: IntCounterVec,
    /// [`DLQ_OPEN`].
    pub(crate) dlq_open: IntGaugeVec,
    /// [`DLQ_OLDEST_TIMESTAMP_SECONDS`].
    pub(crate) dlq_oldest: GaugeVec,
    /// [`LAG_RECORDS`].
    pub(crate) lag: IntGaugeVec,
    /// [`OLDEST_UNSETTLED_TIMESTAMP_SECONDS`].
    pub(crate) oldest_unsettled: prometheus::Gauge,
    /// [`OPEN_DELIVERIES`].
    pub(crate) open: IntGauge,
    /// [`LANES`].
    pub(crate) lanes: IntGaugeVec,
    /// [`RESTORE_SECONDS`].
    pub(crate) restore_seconds: Histogram,
    /// [`STATE_IDS`].
    pub(crate) state_ids: IntGauge,
    /// [`STATE_BYTES`].
    pub(crate) state_bytes: IntGauge,
    /// [`TRANSACTIONS_TOTAL`].
    pub(crate) transactions: IntCounterVec,
    /// [`TRANSACTION_SECONDS`].
    pub(crate) transaction_seconds: Histogram,
    /// [`ASSIGNED_PARTITIONS`].
    pub(crate) assigned_partitions: IntGauge,
    /// [`WAITING_RETRIES`].
    pub(crate) waiting: IntGauge,
    /// [`KAFKA_BROKERS_UP`].
    pub(crate) brokers_up: IntGauge,
    /// [`KAFKA_REBALANCES`].
    pub(crate) rebalances: IntGauge,
}

impl Metrics {
    /// Registers everything with `registry`.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let r = Registrar(registry);
        let metrics = Self {
            attempts: r.counters(
                ATTEMPTS_TOTAL,
                "Calls by what came of them.",
                &["source", "destination", "outcome"],
            )?,
            attempt_seconds: r.histograms(
                ATTEMPT_SECONDS,
                "How long calls took.",
                CALL_BUCKETS,
                &["destination"],
            )?,
            settlements: r.counters(
                SETTLEMENTS_TOTAL,
                "Committed settlements.",
                &["source", "destination", "settlement"],
            )?,
            duplicates: r.counters(DUPLICATES_TOTAL, "Copies that were dropped.", &["source"])?,
            stale: r.counter(STALE_TOTAL, "Retries that something newer had overtaken.")?,
            retries: r.counters(RETRIES_TOTAL, "Retries written.", &["destination", "tier"])?,
            retry_lateness: r.histogram(
                RETRY_LATENESS_SECONDS,
                "By how much retries were called late.",
                CALL_BUCKETS,
            )?,
            dead_letters: r.counters(
                DEAD_LETTERS_TOTAL,
                "Dead letters written.",
                &["source", "destination", "reason"],
            )?,
            dlq_open: r.gauges(
                DLQ_OPEN,
                "Dead letters that no replay has settled.",
                &["source", "destination", "reason"],
            )?,
            dlq_oldest: r.float_gauges(
                DLQ_OLDEST_TIMESTAMP_SECONDS,
                "When the oldest open dead letter was written.",
                &["destination"],
            )?,
            lag: r.gauges(LAG_RECORDS, "Log end minus what is settled.", &["topic", "partition"])?,
            oldest_unsettled: r.float_gauge(
                OLDEST_UNSETTLED_TIMESTAMP_SECONDS,
                "When the oldest unsettled record was written.",
            )?,
            open: r.gauge(OPEN_DELIVERIES, "Deliveries that are being handled.")?,
            lanes: r.gauges(LANES, "Lanes by where they are in their life.", &["state"])?,
            restore_seconds: r.histogram(
                RESTORE_SECONDS,
                "From an assignment to a lane at work.",
                RESTORE_BUCKETS,
            )?,
            state_ids: r.gauge(STATE_IDS, "Ids that are remembered.")?,
            state_bytes: r.gauge(STATE_BYTES, "What remembered ids take of memory.")?,
            transactions: r.counters(TRANSACTIONS_TOTAL, "Transactions.", &["result"])?,
            transaction_seconds: r.histogram(
                TRANSACTION_SECONDS,
                "How long transactions took.",
                CALL_BUCKETS,
            )?,
            assigned_partitions: r
                .gauge(ASSIGNED_PARTITIONS, "Partitions that the group gave this process.")?,
            waiting: r.gauge(WAITING_RETRIES, "Retries that wait in memory for their time.")?,
            brokers_up: r.gauge(KAFKA_BROKERS_UP, "Brokers with which a connection stands.")?,
            rebalances: r.gauge(KAFKA_REBALANCES, "Rebalances that this process took part in.")?,
        };
        LaneState::ALL.iter().for_each(|state| metrics.lanes.with_label_values(&[state.label()]).set(0));
        TRANSACTION_RESULTS.iter().for_each(|result| drop(metrics.transactions.with_label_values(&[result])));
        Ok(metrics)
    }

    /// Has every counter that `config` can lead to there at zero.
    pub(crate) fn expect(&self, config: &Config) {
        let sources: Vec<_> =
            config.sources.iter().map(|source| source.name.as_str()).chain([UNKNOWN_NAME]).collect();
        let destinations: Vec<_> = config
            .destinations
            .iter()
            .map(|destination| destination.name.as_str())
            .chain([UNKNOWN_NAME])
            .collect();
        for source in &sources {
            self.duplicates.with_label_values(&[source]);
            for destination in &destinations {
                self.expect_pair(source, destination);
            }
        }
        for destination in &destinations {
            self.attempt_seconds.with_label_values(&[destination]);
            for tier in 1..=config.retry.tiers.len() {
                self.retries.with_label_values(&[destination, tier.to_string().as_str()]);
            }
        }
    }

    fn expect_pair(&self, source: &str, destination: &str) {
        for outcome in Outcome::LABELS {
            self.attempts.with_label_values(&[source, destination, outcome]);
        }
        for settlement in Settlement::LABELS {
            self.settlements.with_label_values(&[source, destination, settlement]);
        }
        for reason in DeadLetterReason::ALL {
            self.dead_letters.with_label_values(&[source, destination, reason.label()]);
        }
    }

    /// Has the gauges of dead letters there at zero, whatever they showed before.
    pub(crate) fn clear_dead(&self, names: &KnownNames) {
        self.dlq_open.reset();
        self.dlq_oldest.reset();
        let all = |names: &HashSet<ByteString>| -> Vec<ByteString> {
            names.iter().cloned().chain([ByteString::from_static(UNKNOWN_NAME)]).collect()
        };
        for destination in all(&names.destinations) {
            self.dlq_oldest.with_label_values(&[&*destination]);
            for source in all(&names.sources) {
                for reason in DeadLetterReason::ALL {
                    self.dlq_open.with_label_values(&[&*source, &*destination, reason.label()]);
                }
            }
        }
    }

    /// Counts a call.
    pub(crate) fn count_attempt(&self, labels: Pair<'_>, outcome: &Outcome, seconds: f64) {
        self.attempts.with_label_values(&[labels.source, labels.destination, outcome.label()]).inc();
        self.attempt_seconds.with_label_values(&[labels.destination]).observe(seconds);
    }

    /// Counts a settlement.
    pub(crate) fn count_settlement(&self, labels: Pair<'_>, settlement: Settlement) {
        let Pair { source, destination } = labels;
        self.settlements.with_label_values(&[source, destination, settlement.label()]).inc();
        match settlement {
            Settlement::Done => {}
            Settlement::Retry { tier, .. } => {
                self.retries.with_label_values(&[destination, tier.0.to_string().as_str()]).inc();
            }
            Settlement::DeadLetter(reason) => {
                self.dead_letters.with_label_values(&[source, destination, reason.label()]).inc();
            }
        }
    }

    /// Counts a copy that was dropped.
    pub(crate) fn count_duplicate(&self, source: &str) {
        self.duplicates.with_label_values(&[source]).inc();
    }
}

/// Every series that `config` leads to, as it is before anything has happened: what dashboards and
/// documents are held against.
pub fn at_start(config: &Config) -> prometheus::Result<Registry> {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    metrics.expect(config);
    metrics.clear_dead(&KnownNames::of(config));
    // The one series whose labels only an assignment brings.
    metrics.lag.with_label_values(&["", ""]);
    Ok(registry)
}

/// The two labels that most counters have, as the configuration knows them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'l> {
    /// The source.
    pub(crate) source: &'l str,
    /// The destination.
    pub(crate) destination: &'l str,
}

/// The names that may stand in labels: those of the configuration. Everything else, for records
/// may come from anywhere, is counted as one.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownNames {
    sources: HashSet<ByteString>,
    destinations: HashSet<ByteString>,
}

impl KnownNames {
    /// Those of `config`.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            sources: config.sources.iter().map(|source| source.name.as_str().into()).collect(),
            destinations: config
                .destinations
                .iter()
                .map(|destination| destination.name.as_str().into())
                .collect(),
        }
    }

    /// The label for a source.
    pub(crate) fn source<'l>(&self, name: &'l str) -> &'l str {
        if self.sources.contains(name) { name } else { UNKNOWN_NAME }
    }

    /// The label for a destination.
    pub(crate) fn destination<'l>(&self, name: &'l str) -> &'l str {
        if self.destinations.contains(name) { name } else { UNKNOWN_NAME }
    }
}

/// Makes and registers.
struct Registrar<'r>(&'r Registry);

impl Registrar<'_> {
    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> prometheus::Result<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn float_gauge(&self, name: &str, help: &str) -> prometheus::Result<prometheus::Gauge> {
        self.register(prometheus::Gauge::new(name, help)?)
    }

    fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> prometheus::Result<HistogramVec> {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hookwell_common::config::{Environment, Faults};

    use super::*;

    fn config() -> Config {
        let text = "[[sources]]\nname = 'github'\n[[destinations]]\nname = 'orders'\nkind = 'log'\n";
        Config::parse(Path::new("test.toml"), text, &Environment::default(), &mut Faults::default())
    }

    /// Change this list only with the dashboards and `docs/metrics.md` in hand.
    #[test]
    fn metric_names_are_a_published_contract() {
        assert!(ALL.iter().all(|name| name.starts_with("hookwell_processor_")));
        let registry = at_start(&config()).unwrap();
        let mut registered: Vec<_> =
            registry.gather().iter().map(|family| family.name().to_owned()).collect();
        let mut all = ALL.to_vec();
        registered.sort();
        all.sort_unstable();
        assert_eq!(registered, all);
    }

    #[test]
    fn counters_are_there_at_zero_from_the_start() {
        let registry = Registry::new();
        Metrics::register(&registry).unwrap().expect(&config());
        let families = registry.gather();
        let count =
            |name: &str| families.iter().find(|family| family.name() == name).unwrap().get_metric().len();
        assert_eq!(count(ATTEMPTS_TOTAL), 2 * 2 * Outcome::LABELS.len());
        assert_eq!(count(DEAD_LETTERS_TOTAL), 2 * 2 * DeadLetterReason::ALL.len());
        assert_eq!(count(RETRIES_TOTAL), 2 * 6);
        assert_eq!(count(LANES), 3);
    }

    #[test]
    fn labels_come_from_the_configuration_only() {
        let names = KnownNames::of(&config());
        assert_eq!((names.source("github"), names.source("evil")), ("github", "unknown"));
        assert_eq!((names.destination("orders"), names.destination("")), ("orders", "unknown"));
    }
}
