//! The Kafka of one partition number: logs with transactions that are open, committed or aborted,
//! committed offsets, epochs of producers, and the generation of the group. What the documents of
//! Kafka promise is modelled, and nothing kinder: requests and records may be under way for as long
//! as they like, and arrive, or not, when nobody waits for them any more. One thing is worse than
//! the documents say, and measured: a partition without a leader gets no marker
//! (`docs/adr/0016-a-kafka-that-forgets-a-marker.md`).

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::{
    Claim, DeliveryState, Destinations, RawRecord, StateKey, Stream, Tier, Timestamp, decode, destinations,
};

/// A topic, and in it the one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Log {
    Events,
    Retry(Tier),
    Dead,
    State,
}

impl Log {
    pub(super) const ALL: [Log; 5] =
        [Log::Events, Log::Retry(Tier(1)), Log::Retry(Tier(2)), Log::Dead, Log::State];

    pub(super) fn of(stream: Stream) -> Self {
        match stream {
            Stream::Events => Log::Events,
            Stream::Retry(tier) => Log::Retry(tier),
        }
    }

    fn index(self) -> usize {
        match self {
            Log::Events => 0,
            Log::Retry(tier) => usize::from(tier.0),
            Log::Dead => 3,
            Log::State => 4,
        }
    }
}

pub(super) const STREAMS: [Stream; 3] = [Stream::Events, Stream::Retry(Tier(1)), Stream::Retry(Tier(2))];

/// Who writes in a transaction: the epoch of a lane's producer, or somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Writer(pub(super) u32);

/// Somebody whose transaction is not ours.
pub(super) const STRANGER: Writer = Writer(0);

/// A record, with what it says as the judge reads it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) raw: RawRecord,
    pub(super) at: Timestamp,
    pub(super) says: Says,
    fingerprint: u64,
}

#[derive(Debug)]
pub(super) enum Says {
    /// What is owed, to whom, and when at the earliest; and a number that tells bodies apart.
    Owed { keys: Destinations, claim: Claim, not_before: Option<Timestamp>, body: u64 },
    /// How far a delivery has come, and whether that was decided here or is only written again.
    State { key: StateKey, state: DeliveryState, is_decided: bool },
    /// Nothing to us.
    Nothing,
}

impl Record {
    pub(super) fn owed(raw: RawRecord, at: Timestamp) -> Arc<Self> {
        let (event, passage) = raw.decode().expect("the model writes events that can be read");
        let claim =
            Claim { generation: passage.generation, attempt: passage.attempt, forced: passage.forced };
        let keys = destinations(&event, passage.destination.as_deref());
        let says = Says::Owed { keys, claim, not_before: passage.not_before, body: of(&event.body) };
        Self::new(raw, at, says)
    }

    pub(super) fn state(raw: RawRecord, at: Timestamp, is_decided: bool) -> Arc<Self> {
        let says = match decode(&raw.key().unwrap_or_default(), &raw.value()) {
            Ok((key, Some(state))) => Says::State { key, state, is_decided },
            Ok((_, None)) | Err(_) => Says::Nothing,
        };
        Self::new(raw, at, says)
    }

    fn new(raw: RawRecord, at: Timestamp, says: Says) -> Arc<Self> {
        let headers: Vec<_> = raw.headers().collect();
        let is_decided = matches!(says, Says::State { is_decided: true, .. });
        let fingerprint = of(&(raw.key(), raw.value(), headers, at, is_decided));
        Arc::new(Self { raw, at, says, fingerprint })
    }
}

fn of(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

impl Hash for Record {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.fingerprint.hash(hasher);
    }
}

/// What lies at an offset.
#[derive(Clone, Debug, Hash)]
pub(super) enum Slot {
    /// A record of a transaction that has not ended.
    Open(Writer, Arc<Record>),
    /// A record of a lane's transaction that has ended, and whose marker Kafka has forgotten.
    Hanging(Arc<Record>, Ended),
    /// A record that everybody sees.
    Visible(Arc<Record>),
    /// A marker, or a record that was aborted: nobody is shown either.
    Gone,
}

/// Tells a lane's transactions apart: they are counted.
pub(super) type Name = u32;

/// How a transaction was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ended {
    pub(super) name: Name,
    pub(super) is_committed: bool,
}

/// Where a transaction gets a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Spot {
    Log(Log),
    Offsets,
}

/// A transaction that has not ended.
#[derive(Clone, Debug, Hash)]
struct Open {
    writer: Writer,
    name: Name,
    wrote: BTreeSet<Log>,
    offsets: BTreeMap<Stream, i64>,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Kafka {
    logs: [Arc<Vec<Slot>>; 5],
    /// Committed offsets of the group; none where they were never committed, or forgotten.
    pub(super) offsets: BTreeMap<Stream, i64>,
    /// Offsets of a transaction that has ended, and whose marker Kafka has forgotten.
    pending: Option<BTreeMap<Stream, i64>>,
    /// What has no leader, and misses the next marker.
    headless: Option<Spot>,
    /// How many transactions have begun, where names are kept: nobody asks for them where no marker
    /// is forgotten.
    begun: Option<Name>,
    /// The transaction that committed last on each log, and the one that lies beside the offsets.
    names: BTreeMap<Log, Name>,
    name_beside_offsets: Option<Name>,
    open: Vec<Open>,
    /// The newest producer of the lane's transactional id: all earlier ones are fenced.
    pub(super) epoch: Writer,
    /// Whether there is such a fence at all.
    has_fence: bool,
    /// Requests to commit that are under way.
    ends: Vec<Writer>,
    /// Answers that a transaction is committed, which nobody has heard yet.
    answers: Vec<Writer>,
    /// Records that are under way.
    flying: Vec<(Writer, Log, Arc<Record>)>,
    /// Counts the group's assignments, and to whom the newest gave the partition.
    pub(super) generation: u32,
    pub(super) owner: usize,
}

impl Kafka {
    pub(super) fn new(has_fence: bool, keeps_names: bool) -> Self {
        Self {
            logs: Default::default(),
            offsets: BTreeMap::new(),
            pending: None,
            headless: None,
            begun: keeps_names.then_some(0),
            names: BTreeMap::new(),
            name_beside_offsets: None,
            open: Vec::new(),
            epoch: Writer(0),
            has_fence,
            ends: Vec::new(),
            answers: Vec::new(),
            flying: Vec::new(),
            generation: 1,
            owner: 0,
        }
    }

    pub(super) fn log(&self, log: Log) -> &[Slot] {
        &self.logs[log.index()]
    }

    fn log_mut(&mut self, log: Log) -> &mut Vec<Slot> {
        Arc::make_mut(&mut self.logs[log.index()])
    }

    /// The true end.
    pub(super) fn end(&self, log: Log) -> i64 {
        offset(self.log(log).len())
    }

    /// Up to where a reader of committed records reads.
    pub(super) fn last_stable(&self, log: Log) -> i64 {
        let is_undecided = |slot: &Slot| matches!(slot, Slot::Open(..) | Slot::Hanging(..));
        let first = self.log(log).iter().position(is_undecided);
        first.map_or_else(|| self.end(log), offset)
    }

    /// What is committed, whoever may see it yet.
    pub(super) fn visible(&self, log: Log) -> impl DoubleEndedIterator<Item = (i64, &Arc<Record>)> {
        self.log(log).iter().enumerate().filter_map(|(at, slot)| match slot {
            Slot::Visible(record) | Slot::Hanging(record, Ended { is_committed: true, .. }) => {
                Some((offset(at), record))
            }
            Slot::Open(..) | Slot::Hanging(..) | Slot::Gone => None,
        })
    }

    /// Whether what lies at `at` is decided, as far as readers can see.
    pub(super) fn is_decided(&self, log: Log, at: i64) -> bool {
        at < self.last_stable(log)
    }

    /// The last transaction of a lane whose marker `log` misses.
    pub(super) fn hanging(&self, log: Log) -> Option<Ended> {
        let ended = |slot: &Slot| match slot {
            Slot::Hanging(_, ended) => Some(*ended),
            Slot::Open(..) | Slot::Visible(_) | Slot::Gone => None,
        };
        self.log(log).iter().rev().find_map(ended)
    }

    /// Whether a marker is missing anywhere.
    pub(super) fn hangs(&self) -> bool {
        self.hanging_log().is_some() || self.pending.is_some()
    }

    /// A log that misses a marker.
    pub(super) fn hanging_log(&self) -> Option<Log> {
        Log::ALL.into_iter().find(|log| self.hanging(*log).is_some())
    }

    /// Whether committed offsets cannot be read, for some are undecided.
    pub(super) fn has_pending_offsets(&self) -> bool {
        self.pending.is_some()
    }

    /// Where the newest lane's open transaction would get a marker.
    pub(super) fn spots(&self) -> Vec<Spot> {
        let open = self.open.iter().find(|open| open.writer == self.epoch && open.writer != STRANGER);
        let Some(open) = open.filter(|_| self.headless.is_none()) else { return Vec::new() };
        let offsets = (!open.offsets.is_empty()).then_some(Spot::Offsets);
        open.wrote.iter().copied().map(Spot::Log).chain(offsets).collect()
    }

    /// `spot` loses its leader until the next marker has passed it by.
    pub(super) fn behead(&mut self, spot: Spot) {
        self.headless = Some(spot);
    }

    fn passes_by(&mut self, spot: Spot, writer: Writer) -> bool {
        let is_missed = writer != STRANGER && self.headless == Some(spot);
        if is_missed {
            self.headless = None;
        }
        is_missed
    }

    /// The next record from `from` on that a reader of committed records is shown.
    pub(super) fn next(&self, log: Log, from: i64) -> Option<(i64, &Arc<Record>)> {
        let stable = self.last_stable(log);
        self.visible(log).find(|(at, _)| from <= *at).filter(|(at, _)| *at < stable)
    }

    /// A record outside of any transaction.
    pub(super) fn publish(&mut self, record: Arc<Record>) {
        self.log_mut(Log::Events).push(Slot::Visible(record));
    }

    pub(super) fn is_fenced(&self, writer: Writer) -> bool {
        self.has_fence && writer != STRANGER && writer < self.epoch
    }

    pub(super) fn has_open(&self, writer: Writer) -> bool {
        self.open.iter().any(|open| open.writer == writer)
    }

    /// `init_transactions`: fences every earlier producer, and aborts what it left.
    pub(super) fn fence(&mut self) -> Writer {
        let newest = Writer(self.epoch.0 + 1);
        self.epoch = newest;
        if self.has_fence {
            for writer in (1..newest.0).map(Writer) {
                self.abort(writer);
            }
        }
        newest
    }

    pub(super) fn begin(&mut self, writer: Writer) {
        self.begun = self.begun.map(|begun| begun + 1);
        self.begin_as(writer, self.begun.unwrap_or_default());
    }

    fn begin_as(&mut self, writer: Writer, name: Name) {
        if !self.has_open(writer) {
            self.open.push(Open { writer, name, wrote: BTreeSet::new(), offsets: BTreeMap::new() });
            self.open.sort_by_key(|open| open.writer);
        }
    }

    pub(super) fn write(&mut self, writer: Writer, log: Log, record: Arc<Record>) {
        if let Some(open) = self.open.iter_mut().find(|open| open.writer == writer) {
            open.wrote.insert(log);
            self.log_mut(log).push(Slot::Open(writer, record));
        }
    }

    /// `mend.rs`: ends what hangs on `log` with a transaction that holds an end record, committed if
    /// its name can be seen anywhere. Offsets that are undecided are dropped, for nobody can read what
    /// lies beside them.
    pub(super) fn mend(&mut self, writer: Writer, log: Log, end: Arc<Record>, is_committed: Option<bool>) {
        let Some(hanging) = self.hanging(log) else { return };
        self.drop_pending_offsets(writer);
        let is_seen = is_committed.unwrap_or_else(|| self.sees(hanging.name));
        self.begin_as(writer, hanging.name);
        self.write(writer, log, end);
        self.end_open(writer, is_seen);
    }

    fn sees(&self, name: Name) -> bool {
        let decided = self.names.iter().filter(|(log, _)| self.last_stable(**log) == self.end(**log));
        decided.map(|(_, name)| *name).chain(self.name_beside_offsets).any(|seen| seen == name)
    }

    /// `mend.rs`, `mend_offsets`: a transaction that sends offsets is aborted.
    pub(super) fn drop_pending_offsets(&mut self, writer: Writer) {
        if self.has_pending_offsets() {
            self.begin(writer);
            self.send_offsets(writer, &[(Stream::Events, 0)]);
            self.end_open(writer, false);
        }
    }

    /// A record is under way, and nobody knows when it arrives.
    pub(super) fn launch(&mut self, writer: Writer, log: Log, record: Arc<Record>) {
        self.flying.push((writer, log, record));
    }

    pub(super) fn flies(&self, writer: Writer) -> bool {
        self.flying.iter().any(|(of, ..)| *of == writer)
    }

    /// The oldest record that is under way arrives.
    pub(super) fn land(&mut self) {
        let (writer, log, record) = self.flying.remove(0);
        if self.has_open(writer) {
            self.write(writer, log, record);
        }
    }

    pub(super) fn is_any_flying(&self) -> bool {
        !self.flying.is_empty()
    }

    pub(super) fn send_offsets(&mut self, writer: Writer, offsets: &[(Stream, i64)]) {
        if let Some(open) = self.open.iter_mut().find(|open| open.writer == writer) {
            open.offsets.extend(offsets.iter().copied());
        }
    }

    /// The last offset on each log that `writer` has written in its open transaction.
    pub(super) fn written(&self, writer: Writer) -> Vec<(Log, i64)> {
        let last = |log: Log| {
            let is_its = |slot: &Slot| matches!(slot, Slot::Open(of, _) if *of == writer);
            Some((log, offset(self.log(log).iter().rposition(is_its)?)))
        };
        Log::ALL.into_iter().filter_map(last).collect()
    }

    /// Somebody asks for `writer`'s transaction to be committed.
    pub(super) fn ask_to_commit(&mut self, writer: Writer) {
        self.ends.push(writer);
    }

    pub(super) fn is_asked_to_commit(&self, writer: Writer) -> bool {
        self.ends.contains(&writer)
    }

    pub(super) fn is_any_asked_to_commit(&self) -> bool {
        !self.ends.is_empty()
    }

    /// Kafka has answered `writer` that its transaction is committed.
    pub(super) fn has_answered(&self, writer: Writer) -> bool {
        self.answers.contains(&writer)
    }

    /// The answer was heard, or nobody listens any more.
    pub(super) fn end_answer(&mut self, writer: Writer) {
        self.answers.retain(|of| *of != writer);
    }

    /// The oldest request to commit arrives.
    pub(super) fn obey(&mut self) {
        let writer = self.ends.remove(0);
        if self.has_open(writer) {
            self.end_open(writer, true);
            self.answers.push(writer);
            self.answers.sort_unstable();
        }
    }

    /// Ends a transaction without effect. What is still under way for it is refused from now on.
    pub(super) fn abort(&mut self, writer: Writer) {
        self.ends.retain(|of| *of != writer);
        self.flying.retain(|(of, ..)| *of != writer);
        self.abort_blindly(writer);
    }

    /// The same while requests and records may still be under way: librdkafka has no epochs of
    /// transactions, and so they arrive in the next transaction of the same producer.
    pub(super) fn abort_blindly(&mut self, writer: Writer) {
        self.end_open(writer, false);
    }

    /// Each log on which `writer` wrote gets a marker, and so do the offsets. It closes whatever an
    /// earlier transaction of the lane has left open there.
    fn end_open(&mut self, writer: Writer, is_committed: bool) {
        let Some(at) = self.open.iter().position(|open| open.writer == writer) else { return };
        let Open { name, wrote, offsets, .. } = self.open.remove(at);
        let ended = Ended { name, is_committed };
        for log in wrote {
            let is_missed = self.passes_by(Spot::Log(log), writer);
            let slots = self.log_mut(log);
            for slot in slots.iter_mut() {
                let record = match slot {
                    Slot::Open(of, record) if *of == writer => Arc::clone(record),
                    Slot::Hanging(record, _) if !is_missed && writer != STRANGER => Arc::clone(record),
                    Slot::Open(..) | Slot::Hanging(..) | Slot::Visible(_) | Slot::Gone => continue,
                };
                *slot = match (is_missed, is_committed) {
                    (true, _) => Slot::Hanging(record, ended),
                    (false, true) => Slot::Visible(record),
                    (false, false) => Slot::Gone,
                };
            }
            if !is_missed {
                slots.push(Slot::Gone);
            }
            if !is_missed && is_committed && self.begun.is_some() {
                self.names.insert(log, name);
            }
        }
        if offsets.is_empty() {
            return;
        }
        let mut undecided = self.pending.take().unwrap_or_default();
        undecided.extend(offsets);
        if self.passes_by(Spot::Offsets, writer) {
            self.pending = Some(undecided);
        } else if is_committed {
            self.offsets.extend(undecided);
            self.name_beside_offsets = self.begun.map(|_| name);
        }
    }

    /// The newest committed state of `key`, whether or not everybody may see it yet.
    pub(super) fn state(&self, key: &StateKey) -> Option<&DeliveryState> {
        self.states().rev().find(|(of, ..)| *of == key).map(|(_, state, _)| state)
    }

    /// All committed states: whose, what, and whether decided here.
    pub(super) fn states(&self) -> impl DoubleEndedIterator<Item = (&StateKey, &DeliveryState, bool)> {
        self.visible(Log::State).filter_map(|(_, record)| match &record.says {
            Says::State { key, state, is_decided } => Some((key, state, *is_decided)),
            Says::Owed { .. } | Says::Nothing => None,
        })
    }

    /// All committed records that owe something, with their offsets.
    pub(super) fn owed(&self, log: Log) -> impl Iterator<Item = (i64, &Destinations, Claim, &Record)> {
        self.visible(log).filter_map(|(at, record)| match &record.says {
            Says::Owed { keys, claim, .. } => Some((at, keys, *claim, &**record)),
            Says::State { .. } | Says::Nothing => None,
        })
    }
}

pub(super) fn offset(index: usize) -> i64 {
    i64::try_from(index).expect("logs of the model are short")
}
