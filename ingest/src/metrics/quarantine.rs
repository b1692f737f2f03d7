//! What is counted of requests that failed verification.

use std::collections::HashMap;

use hookwell_common::telemetry::Registry;
use prometheus::{IntCounter, IntCounterVec};

use super::{QUARANTINE_DROPPED_TOTAL, QUARANTINED_TOTAL, opts, register};

/// What counts requests that failed verification, of all sources.
#[derive(Clone, Debug)]
pub(super) struct Quarantine {
    kept: IntCounterVec,
    dropped: IntCounterVec,
}

/// What counts requests of one source that failed verification.
#[derive(Clone, Debug)]
pub struct QuarantineMeters {
    kept: IntCounter,
    dropped: HashMap<Dropped, IntCounter>,
}

/// Why a request that failed verification could not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// There were more in this second than are kept.
    Rate,
    /// Its headers are too long.
    TooLarge,
    /// Too many wait for Kafka already.
    QueueFull,
    /// Kafka is away, or did not take it.
    Unavailable,
}

impl Dropped {
    const ALL: [Dropped; 4] = [Dropped::Rate, Dropped::TooLarge, Dropped::QueueFull, Dropped::Unavailable];

    fn label(self) -> &'static str {
        match self {
            Dropped::Rate => "rate",
            Dropped::TooLarge => "too_large",
            Dropped::QueueFull => "queue_full",
            Dropped::Unavailable => "unavailable",
        }
    }
}

impl Quarantine {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let kept = opts(QUARANTINED_TOTAL, "Requests kept in quarantine.");
        let dropped = opts(QUARANTINE_DROPPED_TOTAL, "Requests that could not be kept in quarantine.");
        Ok(Self {
            kept: register(registry, IntCounterVec::new(kept, &["source"])?)?,
            dropped: register(registry, IntCounterVec::new(dropped, &["source", "reason"])?)?,
        })
    }

    pub(super) fn of(&self, source: &str) -> QuarantineMeters {
        let dropped = |reason: Dropped| (reason, self.dropped.with_label_values(&[source, reason.label()]));
        QuarantineMeters {
            kept: self.kept.with_label_values(&[source]),
            dropped: Dropped::ALL.into_iter().map(dropped).collect(),
        }
    }
}

impl QuarantineMeters {
    /// Counts a request that Kafka has.
    pub fn count_kept(&self) {
        self.kept.inc();
    }

    /// Counts a request that is not kept.
    pub fn count_dropped(&self, reason: Dropped) {
        if let Some(counter) = self.dropped.get(&reason) {
            counter.inc();
        }
    }
}
