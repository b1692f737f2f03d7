//! What the model consists of beside Kafka: processes with their lanes, a clock, a sender, an
//! operator, and what has happened so far as far as promises speak of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::kafka::{Kafka, Log, Writer};
use super::{
    Claim, Commit, Now, Open, Recollection, StateKey, StateTable, Stream, Timestamp, Window, duration,
};

/// All there is at one moment.
#[derive(Clone)]
pub(super) struct World {
    pub(super) kafka: Kafka,
    pub(super) processes: Vec<Process>,
    /// Seconds since the beginning.
    pub(super) clock: u64,
    /// How many of its events the sender has sent.
    pub(super) sent: usize,
    /// How often each fault has happened, by its number.
    pub(super) spent: [u8; Fault::ALL.len()],
    /// The operator has begun: how far the dead letters reached, when it was, and whether what is
    /// done is meant too.
    pub(super) looked: Option<(i64, u64, bool)>,
    /// Calls so far, by delivery and generation: the attempts as bits, and the first body.
    pub(super) called: BTreeMap<(StateKey, u16), (u32, u64)>,
    /// What a step has broken.
    pub(super) breach: Option<String>,
}

/// What may go wrong, or be done out of turn; each as often as a scope allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A process dies.
    Crash,
    /// The group gives the partition to another member.
    Move,
    /// Nobody hears what became of a request.
    Unanswered,
    /// Librdkafka does not take a record.
    Refused,
    /// A record is under way for longer than it should.
    Late,
    /// Kafka forgets the group's offsets.
    Forgotten,
    /// Somebody opens a transaction on the state topic.
    Stranger,
    /// A process fences the owner, for it does not know yet that it is not the owner itself.
    StaleFence,
    /// The coordinator aborts a transaction that takes too long.
    TimedOut,
    /// Kafka leaves a transaction's marker out on a partition without a leader.
    NoMarker,
    /// Three days pass.
    Days,
    /// The operator replays what is dead.
    Replay,
    /// The operator replays what is done as well.
    Forced,
}

impl Fault {
    pub(super) const ALL: [Fault; 13] = [
        Fault::Crash,
        Fault::Move,
        Fault::Unanswered,
        Fault::Refused,
        Fault::Late,
        Fault::Forgotten,
        Fault::Stranger,
        Fault::StaleFence,
        Fault::TimedOut,
        Fault::NoMarker,
        Fault::Days,
        Fault::Replay,
        Fault::Forced,
    ];
}

/// A process, alive or dead, with its one lane.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) is_up: bool,
    /// What its member knows of the group; 0 where it is none.
    pub(super) generation: u32,
    /// `Ownership::ours`.
    pub(super) ours: bool,
    pub(super) phase: Phase,
    /// Calls whose end its lane will hear of.
    pub(super) running: Vec<Running>,
    pub(super) recollection: Recollection,
    /// Calls that it made since it was given the partition.
    pub(super) made: BTreeSet<(StateKey, u16, u16)>,
    /// `Shared::remembered`.
    pub(super) remembered: Option<Remembered>,
    /// Offsets that were read before their time, where that guard is lifted.
    pub(super) early: Option<BTreeMap<Stream, i64>>,
    /// Records between the thread that polls and the lane, each of a session.
    pub(super) mail: VecDeque<(Writer, Stream, i64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Running {
    pub(super) key: StateKey,
    pub(super) claim: Claim,
}

#[derive(Clone)]
pub(super) struct Remembered {
    pub(super) table: Arc<StateTable>,
    pub(super) next_offset: i64,
    pub(super) since: u64,
}

/// Where a lane is in its life; the names are those of `host::Phase`.
#[derive(Clone)]
pub(super) enum Phase {
    /// It has no partition.
    Away,
    /// Its take-over is to begin.
    Waiting,
    /// The last owner is fenced; the true end of the states is known.
    Steadying(Writer, i64),
    /// States are read, up to this offset; offsets are not. `None`: nobody is fenced yet, where
    /// that guard is lifted.
    Restored(Option<Writer>, Arc<StateTable>, i64),
    /// At work.
    Active(Active),
}

/// See `active::Active`.
#[derive(Clone)]
pub(super) struct Active {
    pub(super) writer: Writer,
    pub(super) window: Arc<Window>,
    pub(super) state_end: i64,
    /// Where the next record of each topic is read from.
    pub(super) read: BTreeMap<Stream, i64>,
    pub(super) commit: Committing,
    /// See `active::Active`: the last transaction, where a marker of it is missing.
    pub(super) unproven: Option<Unproven>,
    pub(super) aborted: u8,
    /// Deliveries that were called beside a copy of theirs, where that guard is lifted.
    pub(super) beside: Vec<Arc<Open>>,
}

/// How far a transaction is; the thread of the lane does nothing else meanwhile.
#[derive(Clone)]
pub(super) enum Committing {
    /// There is none.
    Not,
    /// It was aborted, and is to be made again.
    Unsent(Arc<Commit>),
    /// Its records are handed over.
    Written(Arc<Commit>),
    /// Its offsets as well.
    Filled(Arc<Commit>),
    /// Its commit is asked for. Beside it where its last record on each log lies.
    Asked(Arc<Commit>, Vec<(Log, i64)>),
}

/// See `proof::Unproven`.
#[derive(Clone)]
pub(super) struct Unproven {
    /// What it held, if it was committed.
    pub(super) commit: Option<Arc<Commit>>,
    /// Where its last record on each log lies.
    pub(super) written: Vec<(Log, i64)>,
}

impl Committing {
    pub(super) fn commit(&self) -> Option<&Arc<Commit>> {
        match self {
            Committing::Not => None,
            Committing::Unsent(commit)
            | Committing::Written(commit)
            | Committing::Filled(commit)
            | Committing::Asked(commit, ..) => Some(commit),
        }
    }

    /// Whether the lane's thread is free for anything else.
    pub(super) fn is_free(&self) -> bool {
        matches!(self, Committing::Not | Committing::Unsent(_))
    }
}

impl Process {
    pub(super) fn new(is_up: bool) -> Self {
        Self {
            is_up,
            generation: 0,
            ours: false,
            phase: Phase::Away,
            running: Vec::new(),
            recollection: Recollection::default(),
            made: BTreeSet::new(),
            remembered: None,
            early: None,
            mail: VecDeque::new(),
        }
    }

    pub(super) fn active(&self) -> Option<&Active> {
        match &self.phase {
            Phase::Active(active) => Some(active),
            Phase::Away | Phase::Waiting | Phase::Steadying(..) | Phase::Restored(..) => None,
        }
    }

    pub(super) fn active_mut(&mut self) -> Option<&mut Active> {
        match &mut self.phase {
            Phase::Active(active) => Some(active),
            Phase::Away | Phase::Waiting | Phase::Steadying(..) | Phase::Restored(..) => None,
        }
    }

    /// A number for all that decides what it does next.
    fn print(&self, keys: &[StateKey], hasher: &mut impl Hasher) {
        (self.is_up, self.generation, self.ours, &self.running, &self.made).hash(hasher);
        (&self.early, &self.mail).hash(hasher);
        print_recollection(&self.recollection, hasher);
        if let Some(known) = &self.remembered {
            print_table(&known.table, keys, hasher);
            (known.next_offset, known.since).hash(hasher);
        }
        std::mem::discriminant(&self.phase).hash(hasher);
        match &self.phase {
            Phase::Away | Phase::Waiting => {}
            Phase::Steadying(writer, end) => (writer, end).hash(hasher),
            Phase::Restored(writer, table, end) => {
                (writer, end).hash(hasher);
                print_table(table, keys, hasher);
            }
            Phase::Active(active) => active.print(keys, hasher),
        }
    }
}

impl Active {
    fn print(&self, keys: &[StateKey], hasher: &mut impl Hasher) {
        (self.writer, self.state_end, &self.read, self.aborted).hash(hasher);
        print_window(&self.window, keys, hasher);
        self.beside.iter().for_each(|open| print_open(open, hasher));
        std::mem::discriminant(&self.commit).hash(hasher);
        let print_commit = |commit: &Arc<Commit>, hasher: &mut _| {
            (&commit.offsets, commit.birth).hash(hasher);
            print_batch(&commit.batch, hasher);
        };
        if let Some(commit) = self.commit.commit() {
            print_commit(commit, hasher);
        }
        if let Some(Unproven { commit, written }) = &self.unproven {
            written.hash(hasher);
            commit.iter().for_each(|commit| print_commit(commit, hasher));
        }
    }
}

impl World {
    pub(super) fn now(&self) -> Now {
        Now { wall: at(self.clock), mono: duration(self.clock) }
    }

    pub(super) fn has_spent(&self, fault: Fault) -> u8 {
        self.spent[fault as usize]
    }

    pub(super) fn fingerprint(&self, keys: &[StateKey]) -> u64 {
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        (&self.kafka, self.clock, self.sent, self.spent, self.looked, &self.called).hash(&mut hasher);
        self.breach.hash(&mut hasher);
        self.processes.iter().for_each(|process| process.print(keys, &mut hasher));
        hasher.finish()
    }
}

/// The moment so many seconds after the beginning.
pub(super) fn at(clock: u64) -> Timestamp {
    Timestamp::from_seconds(1_795_000_000 + clock)
}

/// Everything in a window that decides what it does next. What a delivery holds is known from where
/// it lies.
fn print_window(window: &Window, keys: &[StateKey], hasher: &mut impl Hasher) {
    print_table(&window.table, keys, hasher);
    (&window.ledgers, &window.told, window.birth, window.open.len()).hash(hasher);
    for key in keys {
        if let Some(open) = window.open.get(key) {
            print_open(open, hasher);
        }
    }
    let mut waiting: Vec<_> = window.waiting.iter().map(|arrival| arrival.place).collect();
    waiting.sort_by_key(|place| (place.stream, place.offset));
    (waiting, window.held.len(), window.calls.len()).hash(hasher);
    print_recollection(&window.recollection, hasher);
    print_batch(&window.batch, hasher);
}

fn print_open(open: &Open, hasher: &mut impl Hasher) {
    let delivery = &open.delivery;
    (delivery.key, delivery.claim, delivery.place, delivery.first_failed_at).hash(hasher);
    for copy in &open.copies {
        match copy {
            super::Copied::Same(place, _) => (0, place).hash(hasher),
            super::Copied::Other(delivery) => (1, delivery.place, delivery.claim).hash(hasher),
        }
    }
}

fn print_batch(batch: &super::Batch, hasher: &mut impl Hasher) {
    for entry in &batch.entries {
        (entry.delivery.key, entry.delivery.claim, entry.delivery.place, entry.at).hash(hasher);
        print_state(&entry.state, hasher);
    }
    for (key, state) in &batch.refreshed {
        key.hash(hasher);
        print_state(state, hasher);
    }
    (batch.duplicates.len(), batch.stale, batch.ignored).hash(hasher);
}

fn print_table(table: &StateTable, keys: &[StateKey], hasher: &mut impl Hasher) {
    for key in keys {
        // Those that have expired count as well, for they are still there.
        match table.get(key, Timestamp::default()) {
            Some(state) => print_state(&state, hasher),
            None => 0_u8.hash(hasher),
        }
    }
}

fn print_state(state: &super::DeliveryState, hasher: &mut impl Hasher) {
    use super::Status;
    let status = match state.status {
        Status::Retrying { next_attempt } => (1, next_attempt),
        Status::Done => (2, 0),
        Status::Dead => (3, 0),
    };
    (status, state.generation, state.first_seen, state.updated).hash(hasher);
    state.burial.as_ref().map(|burial| (burial.at, burial.reason)).hash(hasher);
}

fn print_recollection(recollection: &Recollection, hasher: &mut impl Hasher) {
    for (name, (place, recall)) in recollection.known() {
        (name, place, format!("{recall:?}")).hash(hasher);
    }
}
