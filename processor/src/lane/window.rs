//! The open deliveries of one partition: the pure heart of a lane.
//!
//! Records, completed calls and moments go in; calls to make and settlements to commit come out.
//! States are applied when a settlement is decided, before it is committed: whoever owns the
//! window commits what it gives, in the order in which it gives it, or throws the window away.

mod admission;
mod settlement;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytestring::ByteString;
use hookwell_common::time::{Now, Timestamp};
use hookwell_common::topics::Topic;

use super::batch::{Batch, Commit};
use super::ledger::{Frontier, Ledger, LedgerError};
use super::recall::Recollection;
use super::waiting::Waiting;
use crate::delivery::{Arrival, Delivery, Place, Stream};
use crate::flood_guard::FloodGuard;
use crate::outcome::Outcome;
use crate::pace;
use crate::retry::due;
use crate::route::Plan;
use crate::state::{Claim, END_KEY, StateKey, StateTable};

/// Calls that may be open at once in one partition.
pub const MAX_OPEN: usize = 2_000;

/// Bytes that open calls may hold in one partition.
pub const MAX_OPEN_BYTES: usize = 16 * 1024 * 1024;

/// Offsets that may be delivered beyond the frontier.
const MAX_SPAN: usize = 200_000;

/// Open deliveries, and what they lead to.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Window {
    partition: i32,
    topic_prefix: ByteString,
    events_topic: ByteString,
    table: StateTable,
    ledgers: BTreeMap<Stream, Ledger>,
    open: HashMap<StateKey, Open>,
    open_bytes: usize,
    waiting: Waiting<Arrival>,
    /// What waiting retries weigh, by the topic that they came from.
    loads: BTreeMap<Stream, usize>,
    held: Waiting<StateKey>,
    guard: FloodGuard,
    recollection: Recollection,
    calls: Vec<Delivery>,
    batch: Batch,
    told: BTreeMap<Stream, Frontier>,
    birth: bool,
}

/// A call that ended.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Which delivery.
    pub key: StateKey,
    /// Which attempt of which generation.
    pub claim: Claim,
    /// What happened; `None` where the call was not made, for the partition was given back first.
    pub outcome: Option<Outcome>,
    /// How long it took.
    pub took: Duration,
}

/// What a window is made of at take-over.
#[derive(Debug)]
pub struct Beginning {
    /// The partition.
    pub partition: i32,
    /// What all topics begin with.
    pub topic_prefix: ByteString,
    /// The restored states.
    pub table: StateTable,
    /// How far each topic was read.
    pub frontiers: BTreeMap<Stream, Frontier>,
    /// Whether the state partition was found empty.
    pub birth: bool,
    /// Dead letters that one destination may have while almost nothing succeeds.
    pub flood_guard: u32,
    /// What calls of an earlier life of this lane came to.
    pub recollection: Recollection,
}

/// What people watch of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Deliveries whose handler is being called, or held back.
    pub open: usize,
    /// Retries that are not due.
    pub waiting: usize,
    /// Ids that are remembered.
    pub ids: usize,
    /// What the states take of memory, in bytes.
    pub state_bytes: usize,
    /// When the oldest record that is not settled was written.
    pub oldest_unsettled: Option<Timestamp>,
    /// How far each topic was read.
    pub frontiers: BTreeMap<Stream, Frontier>,
    /// The topics of which something that was read is not settled.
    pub unsettled: BTreeSet<Stream>,
}

/// A delivery whose handler is being called, or that is held back.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Open {
    delivery: Delivery,
    copies: Vec<Copied>,
}

/// A copy that came while the first was open, to be settled with it.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
enum Copied {
    /// Of the same attempt: a duplicate whatever becomes of the first. Its content is dropped.
    Same(Place, ByteString),
    /// Of another: to be judged anew.
    Other(Delivery),
}

impl Window {
    /// A window that goes on where the last owner stopped.
    pub fn new(beginning: Beginning) -> Self {
        let ledgers =
            beginning.frontiers.iter().map(|(stream, start)| (*stream, Ledger::new(*start))).collect();
        Self {
            partition: beginning.partition,
            events_topic: Topic::Events.name(&beginning.topic_prefix).into(),
            topic_prefix: beginning.topic_prefix,
            table: beginning.table,
            ledgers,
            open: HashMap::new(),
            open_bytes: 0,
            waiting: Waiting::default(),
            loads: BTreeMap::new(),
            held: Waiting::default(),
            guard: FloodGuard::new(beginning.flood_guard),
            recollection: beginning.recollection,
            calls: Vec::new(),
            batch: Batch::default(),
            told: beginning.frontiers,
            birth: beginning.birth,
        }
    }

    /// A record was polled. One of a topic that this window does not read is passed over.
    pub fn arrive(&mut self, arrival: Arrival, now: Now, plan: &Plan) -> Result<(), LedgerError> {
        let place = arrival.place;
        let Some(ledger) = self.ledgers.get_mut(&place.stream) else { return Ok(()) };
        ledger.deliver(place.offset, arrival.appended_at, 1)?;
        match place.stream {
            Stream::Events => self.open_up(arrival, now, plan),
            Stream::Retry(_) if arrival.raw.key().as_deref() == Some(END_KEY) => self.settle_place(place),
            Stream::Retry(_) => {
                *self.loads.entry(place.stream).or_default() += weight(&arrival);
                self.waiting.add(due_at(&arrival, now, plan), arrival);
                Ok(())
            }
        }
    }

    /// Time has passed: what is due is taken up.
    pub fn wake(&mut self, now: Now, plan: &Plan) -> Result<(), LedgerError> {
        while let Some(key) = self.held.take_due(now.mono) {
            self.try_held(&key, now, plan)?;
        }
        while !self.is_full() {
            let Some(arrival) = self.waiting.take_due(now.mono) else { break };
            *self.loads.entry(arrival.place.stream).or_default() -= weight(&arrival);
            self.open_up(arrival, now, plan)?;
        }
        Ok(())
    }

    /// A call ended. One for which nothing is open is kept if an earlier life of this lane waits
    /// for it.
    pub fn complete(&mut self, completion: Completion, now: Now, plan: &Plan) -> Result<(), LedgerError> {
        let Completion { key, claim, outcome, took } = completion;
        let is_open = self.open.get(&key).is_some_and(|open| open.delivery.claim == claim);
        match outcome {
            // Its record stays unsettled, and is read again by the next owner.
            None if is_open => drop(self.close(&key)),
            None => {}
            Some(outcome) if is_open => {
                if let Some(open) = self.close(&key) {
                    self.settle_attempt(open, outcome, took, now, plan)?;
                }
            }
            Some(outcome) => self.recollection.know(key, claim, outcome),
        }
        Ok(())
    }

    /// The calls that are to be made.
    pub fn take_calls(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.calls)
    }

    /// What is to be committed, with the offsets that moved, or those of all topics where `all`
    /// says so. `None` where there is nothing. The events topic's is always among them: with it each
    /// transaction leaves its name.
    pub fn take_commit(&mut self, all: bool) -> Option<Commit> {
        let frontiers = self.ledgers.iter().map(|(stream, ledger)| (*stream, ledger.frontier()));
        let has_moved = |(stream, frontier): &(Stream, Frontier)| self.told.get(stream) != Some(frontier);
        if !all && self.batch.settled() == 0 && !frontiers.clone().any(|frontier| has_moved(&frontier)) {
            return None;
        }
        let is_told = |frontier: &(Stream, Frontier)| {
            all || matches!(frontier.0, Stream::Events) || has_moved(frontier)
        };
        let offsets = frontiers.filter(is_told).collect();
        Some(Commit { batch: std::mem::take(&mut self.batch), offsets, birth: self.birth })
    }

    /// A commit has taken effect. `markers` are the places at which it left its marker.
    pub fn committed(&mut self, commit: &Commit, markers: &[Place]) {
        self.told.extend(commit.offsets.iter().copied());
        self.birth &= !commit.birth;
        self.mark(markers);
    }

    /// At these places lie the markers of transactions, which are never polled.
    pub fn mark(&mut self, markers: &[Place]) {
        for place in markers {
            if let Some(ledger) = self.ledgers.get_mut(&place.stream) {
                ledger.mark(place.offset.0);
            }
        }
    }

    /// Forgets what has expired, and notes what must be written again, among `count` states.
    pub fn sweep(&mut self, now: Timestamp, count: usize) {
        let ledgers = &self.ledgers;
        let is_open = |place: Place| {
            ledgers.get(&place.stream).is_some_and(|ledger| ledger.frontier().0 <= place.offset.0)
        };
        self.recollection.retain(is_open);
        self.batch.refreshed.extend(self.table.sweep(now, count).refresh);
    }

    /// Whether no further record should come for now.
    pub fn is_full(&self) -> bool {
        MAX_OPEN <= self.open.len()
            || MAX_OPEN_BYTES <= self.open_bytes
            || pace::MAX_SETTLEMENTS <= self.batch.settled()
            || pace::MAX_BYTES <= self.batch.bytes
            || self.ledgers.values().any(|ledger| MAX_SPAN <= ledger.span())
    }

    /// What the retries that are not due weigh, by topic, in bytes.
    pub fn loads(&self) -> impl Iterator<Item = (Stream, usize)> + '_ {
        self.loads.iter().map(|(stream, load)| (*stream, *load))
    }

    /// What waits to be committed: settlements, and what they weigh in bytes. An offset that moved
    /// without one, over a marker, counts as one.
    pub fn pending(&self) -> (usize, usize) {
        let has_moved =
            self.ledgers.iter().any(|(stream, ledger)| self.told.get(stream) != Some(&ledger.frontier()));
        (self.batch.settled().max(usize::from(has_moved)), self.batch.bytes)
    }

    /// Deliveries whose handler is being called.
    pub fn calling(&self) -> usize {
        self.open.len().saturating_sub(self.held.len())
    }

    /// When [`Window::wake`] should be called next, on the monotonic clock.
    pub fn next_due(&self) -> Option<Duration> {
        let waiting = if self.is_full() { None } else { self.waiting.next_due() };
        [waiting, self.held.next_due()].into_iter().flatten().min()
    }

    /// What people watch.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            open: self.open.len(),
            waiting: self.waiting.len(),
            ids: self.table.len(),
            state_bytes: self.table.bytes(),
            oldest_unsettled: self.ledgers.values().filter_map(Ledger::oldest).min(),
            frontiers: self.ledgers.iter().map(|(stream, ledger)| (*stream, ledger.frontier())).collect(),
            unsettled: self.unsettled().collect(),
        }
    }

    fn unsettled(&self) -> impl Iterator<Item = Stream> {
        self.ledgers.iter().filter(|(_, ledger)| ledger.span() > 0).map(|(stream, _)| *stream)
    }

    /// The states, for those who count dead letters.
    pub fn table(&self) -> &StateTable {
        &self.table
    }

    /// Ends the window after a clean last commit, and gives its states back for the next time that
    /// this process owns the partition. `None` where something was decided and not committed.
    pub fn into_table(self) -> Option<StateTable> {
        (self.batch.settled() == 0).then_some(self.table)
    }

    /// Ends the window after `lost` could not be committed, and gives what its calls came to.
    pub fn into_recollection(self, lost: impl IntoIterator<Item = Commit>) -> Recollection {
        let mut recollection = self.recollection;
        let lost = lost.into_iter().map(|commit| commit.batch);
        for entry in lost.chain([self.batch]).flat_map(|batch| batch.entries) {
            if let Some(outcome) = entry.outcome {
                recollection.remember(&entry.delivery, outcome);
            }
        }
        // Of what was not called yet, or is held back, no call is running.
        let unmade = self.calls.iter().map(|delivery| &delivery.key).chain(self.held.iter());
        let unmade: std::collections::HashSet<_> = unmade.collect();
        for open in self.open.values().filter(|open| !unmade.contains(&open.delivery.key)) {
            recollection.expect(&open.delivery);
        }
        recollection
    }

    fn close(&mut self, key: &StateKey) -> Option<Open> {
        let open = self.open.remove(key)?;
        self.open_bytes -= open.delivery.content.weight();
        Some(open)
    }

    fn settle_place(&mut self, place: Place) -> Result<(), LedgerError> {
        self.ledgers.get_mut(&place.stream).map_or(Ok(()), |ledger| ledger.settle(place.offset))
    }
}

/// What an arrival takes of memory, in bytes, roughly.
fn weight(arrival: &Arrival) -> usize {
    arrival.raw.weight() + size_of::<Arrival>()
}

/// When a retry is due, on the monotonic clock; one that cannot be read is due at once.
fn due_at(arrival: &Arrival, now: Now, plan: &Plan) -> Duration {
    let not_before = arrival.raw.decode().ok().and_then(|(_, passage)| passage.not_before);
    not_before.map_or(now.mono, |not_before| due(not_before, arrival.appended_at, plan.longest_tier(), now))
}
