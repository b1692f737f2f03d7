//! What one transaction of a lane holds: settlements with their states, and how far each topic was
//! read.

use std::time::Duration;

use bytestring::ByteString;
use hookwell_common::time::Timestamp;

use super::ledger::Frontier;
use crate::delivery::{Delivery, Stream};
use crate::outcome::Outcome;
use crate::settle::Settlement;
use crate::state::{DeliveryState, StateKey};

/// Settlements that are decided and not yet committed.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub struct Batch {
    /// Each with the state that it leaves.
    pub entries: Vec<Entry>,
    /// States that are written without a settlement: so that they do not expire, or because what
    /// they stand for was handed over.
    pub refreshed: Vec<(StateKey, DeliveryState)>,
    /// The sources of copies that were dropped.
    pub duplicates: Vec<ByteString>,
    /// Retries that were overtaken.
    pub stale: usize,
    /// Events that no route names, where such are ignored.
    pub ignored: usize,
    /// What the contents of all entries weigh, in bytes.
    pub bytes: usize,
}

/// One settlement.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Entry {
    /// What was settled.
    pub delivery: Delivery,
    /// What happened; `None` where no handler was called.
    pub outcome: Option<Outcome>,
    /// What is done about it.
    pub settlement: Settlement,
    /// The state that it leaves.
    pub state: DeliveryState,
    /// When it was decided.
    pub at: Timestamp,
    /// How long the call took.
    pub took: Duration,
}

/// One transaction.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Commit {
    /// The settlements.
    pub batch: Batch,
    /// How far each topic was read; those that moved, or that are due to be told again.
    pub offsets: Vec<(Stream, Frontier)>,
    /// Whether this is the first commit on an empty state partition, which then gets its birth
    /// record: where the group has read on, the state partition is never empty again.
    pub birth: bool,
}

impl Batch {
    /// Adds a settlement.
    pub fn push(&mut self, entry: Entry) {
        self.bytes += entry.delivery.content.weight();
        self.entries.push(entry);
    }

    /// How many settlements wait, and whatever else moves offsets.
    pub fn settled(&self) -> usize {
        self.entries.len() + self.refreshed.len() + self.duplicates.len() + self.stale + self.ignored
    }
}
