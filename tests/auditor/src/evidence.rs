//! What a judgement is made of, as values. The crate's page says how each lies in a folder.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{DeliveryKey, Digest, Name};
use crate::record::Record;

/// All that is known of a run.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What was run.
    pub run: Run,
    /// What senders heard; `None` where nobody kept a ledger, and nothing is asked of it.
    pub answers: Option<Vec<Answer>>,
    /// What handlers were asked; `None` where nobody kept a ledger, and nothing is asked of it.
    pub calls: Option<Vec<Call>>,
    /// What was done to whom.
    pub faults: Vec<Fault>,
    /// What a reader saw during the run, in the order in which it did.
    pub seen: Vec<Seen>,
    /// What restarted processors say at rest.
    pub rest: Option<Rest>,
    /// What lies on each topic, by partition and offset.
    pub topics: BTreeMap<Name, Vec<Record>>,
    /// Where each partition begins and ends.
    pub ends: Vec<Ends>,
}

impl Evidence {
    /// Nothing but what was run.
    pub fn of(run: Run) -> Self {
        Self {
            run,
            answers: None,
            calls: None,
            faults: Vec::new(),
            seen: Vec::new(),
            rest: None,
            topics: BTreeMap::new(),
            ends: Vec::new(),
        }
    }
}

/// What was run: `run.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Where clients begin.
    pub bootstrap_servers: String,
    /// What topics begin with.
    pub prefix: String,
    /// The processors' consumer group.
    pub group: String,
    /// The delay of each retry tier, milliseconds.
    pub tiers: Vec<u64>,
    /// How far two clocks may lie apart, milliseconds.
    #[serde(default = "default_skew")]
    pub skew_ms: u64,
    /// Added to the end of each fault's window, milliseconds.
    #[serde(default)]
    pub grace_ms: u64,
    /// How long what is done is remembered, milliseconds.
    #[serde(default = "default_dedupe_window")]
    pub dedupe_window_ms: u64,
    /// Where events may go.
    pub destinations: Vec<Destination>,
    /// Where events go.
    pub routes: Vec<Route>,
}

fn default_skew() -> u64 {
    50
}

fn default_dedupe_window() -> u64 {
    7 * DAY
}

/// Milliseconds.
pub(crate) const DAY: u64 = 24 * 3600 * 1000;

/// Where events may go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Destination {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// The topic of one of kind `kafka`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<Name>,
    /// Calls of the handler at most.
    pub max_attempts: u16,
}

/// What a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A handler behind HTTP, which keeps a ledger.
    Http,
    /// A topic.
    Kafka,
    /// A line in a log.
    Log,
}

/// Which events go where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Route {
    /// Of which source; `*` for all.
    pub source: Name,
    /// To which destinations.
    pub to: Vec<Name>,
    /// Whether it was there for a part of the run only: a delivery may be there, and if it is it must
    /// end.
    #[serde(default)]
    pub sometimes: bool,
}

/// What a sender heard: a line of `answers.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The configured source.
    pub source: Name,
    /// The event id.
    pub id: Name,
    /// When it was sent, milliseconds since the epoch.
    pub sent: u64,
    /// When it was answered, milliseconds since the epoch; absent where it was not.
    #[serde(default)]
    pub answered: Option<u64>,
    /// The status; 0 where no answer was heard.
    pub status: u16,
    /// BLAKE3 of the body that was sent.
    pub body: Digest,
}

/// What a handler was asked: a line of `calls.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Which handler.
    pub destination: Name,
    /// The event's source.
    pub source: Name,
    /// The event's id.
    pub id: Name,
    /// The generation that the call named.
    pub generation: u16,
    /// The attempt that the call named.
    pub attempt: u16,
    /// The idempotency key.
    pub key: String,
    /// The answer; 0 where none was sent whole and in time.
    pub status: u16,
    /// When the call came, milliseconds since the epoch.
    pub at: u64,
    /// The second in which the caller says that it made it, if it says so: its end.
    #[serde(default)]
    pub made: Option<u64>,
    /// BLAKE3 of its body.
    pub body: Digest,
}

impl Call {
    /// Since when its caller waited for an answer: a network may have held it back.
    pub fn since(&self) -> u64 {
        self.made.map_or(self.at, |made| made.min(self.at))
    }

    /// Whether the caller was told that it succeeded.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// What was done to whom: a line of `faults.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// What was done.
    pub kind: String,
    /// To whom.
    pub target: String,
    /// Since when, milliseconds since the epoch.
    pub begin: u64,
    /// Until when.
    pub end: u64,
    /// When all was well again, if that was later.
    #[serde(default)]
    pub recovered: Option<u64>,
    /// How far it put a clock wrong, milliseconds: the skew that is allowed within its window.
    #[serde(default)]
    pub skew_ms: u64,
    /// Whether it may have a call made, or answered, that nothing else explains.
    #[serde(default = "yes")]
    pub disturbs_calls: bool,
}

fn yes() -> bool {
    true
}

/// What a reader saw while faults were under way: a line of `seen.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The topic.
    pub topic: Name,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's digest.
    pub digest: Digest,
    /// The record's key, on the state topic, where compaction may take the record away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<DeliveryKey>,
}

/// What restarted processors say at rest: `rest.json`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Rest {
    /// The sum of `hookwell_processor_state_ids`.
    pub state_ids: u64,
    /// What they logged as the digest of each partition when they had restored it, summed up.
    #[serde(default)]
    pub state_digest: Option<u64>,
}

/// Where a partition begins and ends: an entry of `offsets.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ends {
    /// The topic.
    pub topic: Name,
    /// The partition.
    pub partition: i32,
    /// The lowest offset.
    pub low: i64,
    /// The last stable offset.
    pub stable: i64,
    /// The high watermark.
    pub high: i64,
    /// What the group has committed; absent where it has not.
    pub committed: Option<i64>,
}
