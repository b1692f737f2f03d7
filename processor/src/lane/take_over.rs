//! From an assignment to a lane at work: fence, wait, restore, and go on where the last owner
//! stopped, in this order.
//!
//! 1. `init_transactions` fences the last owner and aborts what it left open: from here on nobody
//!    else decides anything on this partition.
//! 2. The true ends of the lane's own topics are asked for. An open transaction may hide what lies
//!    before them, so nothing is read until the last stable offsets have come so far; and one of ours
//!    whose end Kafka has forgotten is ended here.
//! 3. State is read to the first end that the follower meets, which is no earlier than that.
//! 4. Only then the committed offsets are read: they are those that belong to the restored state.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hookwell_common::failpoint;
use hookwell_common::kafka::{partition_counts, retry_tiers};
use hookwell_common::topics::Topic;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use thiserror::Error;

use super::ledger::Frontier;
use super::mail::{FollowOrder, Ownership, Session};
use super::mend::{Hidden, mend, mend_offsets};
use super::proof::ends;
use super::recall::Recollection;
use super::transaction::{TopicNames, Transactor};
use super::window::{Beginning, Window};
use crate::delivery::{Place, Stream};
use crate::lane::ledger::Offset;
use crate::retry::Tier;
use crate::shared::{Shared, lock};
use crate::state::{StateError, StateTable, decode};

/// How long one question to Kafka may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a restore may go without progress before it begins anew.
pub(crate) const NO_PROGRESS: Duration = Duration::from_secs(90);

/// How long a take-over waits for somebody's transaction before it says so, and ends it if it is
/// ours.
const TELL_AFTER: Duration = Duration::from_secs(10);

/// Between two looks for the last stable offset.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// For how long the states of a partition that was handed back are remembered. Longer, and
/// deletion may have passed over what an incremental restore would have to see.
pub(crate) const REMEMBER: Duration = Duration::from_secs(600);

/// Why a take-over has to begin anew, or cannot be.
#[derive(Debug, Error)]
pub(crate) enum TakeOverError {
    /// Kafka did not do what was asked; it will.
    #[error("{what}: {error}")]
    Kafka {
        /// What was asked.
        what: &'static str,
        /// What it said.
        error: KafkaError,
    },
    /// The group has asked for the partition meanwhile.
    #[error("the partition is not ours any more")]
    NotOurs,
    /// An open transaction hides states, retries or dead letters.
    #[error(
        "the last stable offset of {} stays at {} of {}: an open transaction hides what lies between. If it does not end, it hangs: `kafka-transactions.sh find-hanging` names it, and docs/adr/0016-a-kafka-that-forgets-a-marker.md says what that means", .0.topic, .0.stable, .0.end
    )]
    Hidden(Hidden),
    /// Nothing more of the state partition came, and its end neither.
    #[error("nothing of the state topic was read for {} s", NO_PROGRESS.as_secs())]
    NoProgress,
    /// A state record that must not be passed over.
    #[error("the state record at {topic}[{partition}]@{offset} cannot be read: {error}")]
    State {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// Why.
        error: StateError,
    },
    /// The group has read on, and the states that belong to that are gone.
    #[error(
        "{topic}[{partition}] holds no state, but the group has read {events}[{partition}] up to {offset}: the state topic was deleted or emptied. Starting from nothing would repeat work and forget retries; restore the topic, or choose another processor.group_id to begin anew on purpose"
    )]
    StateGone {
        /// The state topic.
        topic: String,
        /// The events topic.
        events: String,
        /// The partition.
        partition: i32,
        /// How far the group has read.
        offset: i64,
    },
}

impl TakeOverError {
    /// Whether trying again cannot help.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            TakeOverError::Kafka { .. }
            | TakeOverError::NotOurs
            | TakeOverError::Hidden(_)
            | TakeOverError::NoProgress => false,
            TakeOverError::State { .. } | TakeOverError::StateGone { .. } => true,
        }
    }
}

/// The partition is fenced; its states may not all be visible yet.
#[derive(Debug)]
pub(crate) struct Steadying {
    transactor: Transactor,
    /// The lowest offset of the state partition, and its true end.
    low: i64,
    end: i64,
    /// The true ends of all topics on whose partition only this lane writes.
    ends: BTreeMap<String, i64>,
    begun: Duration,
    has_mended: bool,
}

/// States are being read.
#[derive(Debug)]
pub(crate) struct Restoring {
    transactor: Transactor,
    table: StateTable,
    next_offset: i64,
    low: i64,
    end: i64,
    /// Whether any record was found, now or in an earlier ownership.
    found_any: bool,
    begun: Duration,
    progress_at: Duration,
}

/// A lane that can begin its work.
#[derive(Debug)]
pub(crate) struct Restored {
    /// The producer.
    pub(crate) transactor: Transactor,
    /// The open deliveries: none yet.
    pub(crate) window: Window,
    /// The state topic's offset up to which the window's states are complete.
    pub(crate) state_end: i64,
    /// Where to read events from; `None` for the earliest there is.
    pub(crate) start: Option<i64>,
    /// Where to read retries from.
    pub(crate) retry_starts: BTreeMap<Tier, Option<i64>>,
    /// How long it all took.
    pub(crate) took: Duration,
}

impl Steadying {
    /// Fences the last owner, and asks for the true end of the state partition.
    pub(crate) fn begin(shared: &Shared, ownership: &Ownership) -> Result<Self, TakeOverError> {
        let (begun, partition) = (shared.clock.mono(), ownership.partition);
        let names = topic_names(shared)?;
        // Whoever fences others must be the owner at this moment.
        still_ours(ownership)?;
        let transactor =
            Transactor::take_over(&shared.clients, &shared.settings.group_id, partition, names, PATIENCE)
                .map_err(|error| TakeOverError::Kafka {
                    what: "the last owner could not be fenced",
                    error,
                })?;
        still_ours(ownership)?;
        let (low, end) = true_end(shared, transactor.names().state(), partition)?;
        let ends = ends(&shared.watermarks, transactor.names().own(), partition, PATIENCE)
            .map_err(|error| TakeOverError::Kafka { what: "the ends of topics could not be read", error })?;
        Ok(Self { transactor, low, end, ends, begun, has_mended: false })
    }

    /// Whether all that earlier owners wrote is visible, that is whether states can be read now.
    pub(crate) fn is_steady(&mut self, shared: &Shared, partition: i32) -> Result<bool, TakeOverError> {
        let own = self.transactor.names().own();
        let stable = ends(&shared.stable_watermarks, own, partition, PATIENCE).map_err(|error| {
            TakeOverError::Kafka { what: "the last stable offset could not be read", error }
        })?;
        let hidden = hidden(&self.ends, &stable);
        let Some(first) = hidden.first() else { return Ok(true) };
        if failpoint::is_lifted("restore-to-the-true-end") {
            return Ok(true);
        }
        let waited = shared.clock.mono().saturating_sub(self.begun);
        if NO_PROGRESS < waited {
            return Err(TakeOverError::Hidden(first.clone()));
        }
        if TELL_AFTER < waited && !self.has_mended {
            self.has_mended = true;
            tracing::warn!(partition, "waiting: {}", TakeOverError::Hidden(first.clone()));
            mend(shared, &self.transactor, partition, &hidden).map_err(|error| TakeOverError::Kafka {
                what: "a transaction whose end Kafka has forgotten could not be ended",
                error,
            })?;
        }
        // What is still open elsewhere is a stranger's: retries come once it ends.
        Ok(self.has_mended && hidden.iter().all(|place| place.topic != self.transactor.names().state()))
    }

    /// Begins to read states: those that are not remembered from an earlier ownership.
    pub(crate) fn restore(self, shared: &Shared, ownership: &Ownership, session: Session) -> Restoring {
        let now = shared.clock.mono();
        let remembered = lock(&shared.remembered).remove(&ownership.partition);
        let usable = remembered
            .filter(|known| now.saturating_sub(known.since) < REMEMBER && known.next_offset <= self.end);
        let (table, from) = match usable {
            Some(known) => (known.table, Some(known.next_offset)),
            None => (StateTable::new(shared.settings.expiry), None),
        };
        let order = FollowOrder::Restore {
            partition: ownership.partition,
            session,
            from,
            lane: ownership.follow.clone(),
        };
        failpoint::hit("restore-begun");
        // A follower that is gone is found by the watchdog.
        shared.to_follower.send(order).ok();
        Restoring {
            transactor: self.transactor,
            table,
            next_offset: from.unwrap_or_default(),
            low: self.low,
            end: self.end,
            found_any: from.is_some(),
            begun: self.begun,
            progress_at: now,
        }
    }
}

impl Restoring {
    /// State records were read.
    pub(crate) fn take(
        &mut self,
        states: Vec<(i64, Vec<u8>, Vec<u8>)>,
        partition: i32,
        now: Duration,
    ) -> Result<(), TakeOverError> {
        self.progress_at = now;
        self.found_any |= !states.is_empty();
        for (offset, key, value) in states {
            self.next_offset = offset + 1;
            match decode(&key, &value) {
                Ok((key, Some(state))) => self.table.put(key, state),
                Ok((key, None)) => self.table.remove(&key),
                Err(StateError::NoDelivery) => {}
                Err(error @ StateError::ForeignKey) => {
                    tracing::warn!(
                        partition,
                        offset,
                        "a record on the state topic is not ours and is passed over: {error}"
                    );
                }
                Err(error @ (StateError::UnknownVersion(_) | StateError::Damaged)) => {
                    let topic = self.transactor.names().state().to_owned();
                    return Err(TakeOverError::State { topic, partition, offset, error });
                }
            }
            failpoint::hit("restore-midway");
        }
        Ok(())
    }

    /// Whether reading has stopped for longer than it should.
    pub(crate) fn is_stuck(&self, now: Duration) -> bool {
        NO_PROGRESS < now.saturating_sub(self.progress_at)
    }

    /// All states are read: reads the offsets that belong to them.
    pub(crate) fn finish(
        self,
        shared: &Shared,
        ownership: &Ownership,
        recollection: Recollection,
    ) -> Result<Restored, TakeOverError> {
        let partition = ownership.partition;
        let names = self.transactor.names();
        let committed = committed_offsets(shared, names, partition).map_err(|error| {
            mend_offsets(shared, &self.transactor, &error);
            TakeOverError::Kafka { what: "the committed offsets could not be read", error }
        })?;
        let read = committed.get(&Stream::Events).copied().flatten();
        // Records that were aborted or deleted in place move the one end or the other.
        let is_blank = self.low == 0 && !self.found_any;
        if let (Some(offset @ 1..), true) = (read, is_blank) {
            return Err(TakeOverError::StateGone {
                topic: names.state().to_owned(),
                events: names.events().to_owned(),
                partition,
                offset,
            });
        }
        let mut frontiers = BTreeMap::new();
        let mut retry_starts = BTreeMap::new();
        let mut markers = Vec::new();
        for (stream, offset) in committed {
            still_ours(ownership)?;
            let topic = names.stream(stream);
            let (low, end) = true_end(shared, &topic, partition)?;
            let start = start_of(offset, low, end, &topic, partition);
            frontiers.insert(stream, Frontier(start));
            if let Stream::Retry(tier) = stream {
                retry_starts.insert(tier, Some(start));
                // Retry topics are only ever written in transactions, so the last offset is the
                // marker of one.
                if start < end {
                    markers.push(Place { stream, offset: Offset(end - 1) });
                }
            }
        }
        let start = frontiers.get(&Stream::Events).map(|frontier| frontier.0);
        let mut window = Window::new(Beginning {
            partition,
            topic_prefix: shared.settings.topic_prefix.as_str().into(),
            table: self.table,
            frontiers,
            birth: is_blank,
            flood_guard: shared.settings.flood_guard,
            recollection,
        });
        window.mark(&markers);
        failpoint::hit("restore-ended");
        let took = shared.clock.mono().saturating_sub(self.begun);
        let state_end = self.next_offset.max(self.end);
        Ok(Restored { transactor: self.transactor, window, state_end, start, retry_starts, took })
    }
}

/// The topics that are not decided up to their true ends.
fn hidden(ends: &BTreeMap<String, i64>, stable: &BTreeMap<String, i64>) -> Vec<Hidden> {
    let place = |(topic, end): (&String, &i64)| {
        let stable = stable.get(topic).copied().unwrap_or_default();
        (stable < *end).then(|| Hidden { topic: topic.clone(), stable, end: *end })
    };
    ends.iter().filter_map(place).collect()
}

/// Where to read a partition from, which holds offsets from `low` up to `end`. A missing offset
/// means the earliest, and so does one that deletion has overtaken, or beyond which the log was cut.
fn start_of(committed: Option<i64>, low: i64, end: i64, topic: &str, partition: i32) -> i64 {
    match committed {
        Some(offset) if offset < low => {
            let deleted = low - offset;
            tracing::error!(
                topic,
                partition,
                deleted,
                "records were deleted by retention before they were read"
            );
            low
        }
        Some(offset) if end < offset => {
            let lost = offset - end;
            tracing::error!(
                topic,
                partition,
                lost,
                "Kafka has lost records that were read; what is left is read again, and state recognises it"
            );
            low
        }
        Some(offset) => offset,
        None => low,
    }
}

fn still_ours(ownership: &Ownership) -> Result<(), TakeOverError> {
    if ownership.ours.load(Ordering::Relaxed) { Ok(()) } else { Err(TakeOverError::NotOurs) }
}

/// The names of all topics, with every retry tier that exists, also above the configured number.
fn topic_names(shared: &Shared) -> Result<TopicNames, TakeOverError> {
    let settings = &shared.settings;
    let topics = partition_counts(shared.watermarks.client())
        .map_err(|error| TakeOverError::Kafka { what: "the topics could not be listed", error })?;
    let tiers = retry_tiers(&topics, &settings.topic_prefix);
    for extra in tiers.iter().filter(|tier| settings.tiers.len() < usize::from(**tier)) {
        tracing::info!(
            topic = Topic::Retry(*extra).name(&settings.topic_prefix),
            configured = settings.tiers.len(),
            "a retry topic above the configured number is followed until it is empty"
        );
    }
    Ok(TopicNames::new(&settings.topic_prefix, tiers.into_iter().map(Tier)))
}

fn true_end(shared: &Shared, topic: &str, partition: i32) -> Result<(i64, i64), TakeOverError> {
    shared
        .watermarks
        .fetch_watermarks(topic, partition, PATIENCE)
        .map_err(|error| TakeOverError::Kafka { what: "the end of a partition could not be read", error })
}

/// The committed offset of each topic that a lane reads; `None` where there is none.
fn committed_offsets(
    shared: &Shared,
    names: &TopicNames,
    partition: i32,
) -> Result<BTreeMap<Stream, Option<i64>>, KafkaError> {
    let streams: Vec<_> = [Stream::Events].into_iter().chain(names.tiers().map(Stream::Retry)).collect();
    let mut wanted = TopicPartitionList::with_capacity(streams.len());
    for stream in &streams {
        wanted.add_partition(&names.stream(*stream), partition);
    }
    let found = shared.member.committed_offsets(wanted, PATIENCE)?;
    let mut offsets = BTreeMap::new();
    for stream in streams {
        let element = found.find_partition(&names.stream(stream), partition);
        let offset = match element.as_ref().map(|element| (element.error(), element.offset())) {
            Some((Ok(()), KafkaOffset::Offset(offset))) => Some(offset),
            Some((Err(error), _)) => return Err(error),
            Some((Ok(()), _)) | None => None,
        };
        offsets.insert(stream, offset);
    }
    Ok(offsets)
}
