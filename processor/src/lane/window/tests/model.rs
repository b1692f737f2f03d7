//! An exhaustive model: everything that can happen to a few events on one partition number, in any
//! order, with faults between any two steps.
//!
//! What decides is the real code: the window with its ledgers, its batch and its recollection, the
//! acceptance rule, states as records and in memory, `settle`, the retry policy, the records that a
//! transaction writes, and what a replay makes of a dead letter. What is modelled is what they
//! stand in: Kafka ([`kafka`]), the order in which the shell does things ([`lane`]), and a world in
//! which processes die, freeze and wake up, requests are not answered, senders send twice, and
//! operators replay (here). What must hold is asked of every state ([`judge`]).
//!
//! Each [`Guard`] can be lifted; [`guards`] tells that the model misses
//! each of them, but for three that it says.

mod guards;
mod judge;
mod kafka;
mod lane;
mod search;
mod whole;
mod world;

use smallvec::SmallVec;

use self::kafka::{Kafka, Log, Record, STRANGER, STREAMS};
use self::world::{Committing, Fault, Phase, Process, World};
use super::{
    Arrival, Batch, Beginning, Commit, Completion, Copied, Duration, EXPIRY, Event, Frontier, LedgerError,
    Now, Open, Outcome, OutputTopic, Passage, Place, Plan, RawRecord, Recollection, StateKey, StateTable,
    Stream, Tier, Timestamp, Window, all_outputs, decode, event, plan_of, raw, status, written,
};
use crate::lane::ledger::Offset;
use crate::lane::output::outputs;
use crate::replay::letter::DeadLetter;
use crate::replay::standing::{Action as Replaying, Standing, action};
use crate::state::{Acceptance, Claim, DeliveryState, END_KEY, Status, accept};

const PREFIX: &str = "webhooks";

/// Days that pass at once: longer than a state may go without being written again where it must
/// outlive a dead letter, shorter than the window.
const DAYS: u64 = 3 * 86_400;

/// What is done so that nothing is lost, doubled or made up. Each can be lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// What is not due, not new and not a replay is not called for.
    Acceptance,
    /// The acceptance rule counts generations.
    GenerationInRule,
    /// A copy whose first is being called for waits.
    CopiesWait,
    /// A retry waits until it is due.
    NotBefore,
    /// What is committed is the frontier, not what was read.
    Frontier,
    /// Offsets are committed in the transaction of the states that belong to them, not before.
    OneTransaction,
    /// A commit is asked for once every record is reported.
    DeliveryReports,
    /// A record that librdkafka refuses aborts the transaction.
    RefusedAborts,
    /// After a result that is not clear the producer is thrown away.
    ThrownAway,
    /// What calls came to is not forgotten with the producer.
    Recollection,
    /// `init_transactions` with a stable id fences earlier producers, and aborts what they left.
    ProducerEpoch,
    /// The group refuses offsets of whoever has an older generation.
    Generation,
    /// States are read once earlier owners are fenced.
    FenceBeforeRestore,
    /// States are read to the true end.
    TrueEnd,
    /// Offsets are read once states are.
    OffsetsAfterRestore,
    /// States of an earlier ownership are completed by what was written since.
    Delta,
    /// Records that were read for an earlier take-over are dropped.
    SessionOfRecords,
    /// Calls of an earlier ownership end unheard.
    EpochOfCompletions,
    /// What has a dead letter is written again before it expires.
    Refresh,
    /// No transaction begins before the last one is decided.
    Proof,
    /// A transaction whose marker is missing is ended as it was decided, not just aborted.
    EndedAsDecided,
}

/// What a model is about: a few events, and how much may go wrong.
#[derive(Clone, Debug)]
struct Scope {
    name: &'static str,
    /// What is sent, in this order: ids, each as often as it is sent; the type decides where to.
    events: Vec<(&'static str, &'static str)>,
    max_attempts: u16,
    processes: usize,
    /// How handlers may answer.
    answers: Vec<Answer>,
    /// Each fault as often as it may happen.
    faults: Vec<(Fault, u8)>,
    /// All faults together.
    at_most: u8,
    /// Whether records wait between the thread that reads and the lane.
    has_mail: bool,
    /// How often [`DAYS`] may pass.
    days: u8,
    /// Guards that are lifted.
    lifted: Vec<Guard>,
}

struct Model {
    scope: Scope,
    plan: Plan,
    max_attempts: u16,
    keys: Vec<StateKey>,
}

/// How a handler answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Well,
    Transient,
    Permanent,
}

/// How the records of a transaction are sent; numbers count from its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Well,
    /// Librdkafka does not take one.
    Refused(u8),
    /// One is under way for long.
    Late(u8),
}

/// One step. Numbers are those of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The sender sends what is next.
    Send,
    /// The next retry falls due.
    FallDue,
    /// [`DAYS`] pass.
    DaysPass,
    /// The operator begins, and what is done is meant too or not.
    Look {
        forced: bool,
    },
    /// The operator replays.
    Replay,
    /// A stranger begins a transaction on the state topic, or ends it.
    Stranger,
    OffsetsForgotten,
    TransactionTimesOut,
    /// What was under way arrives.
    RecordArrives,
    CommitArrives,
    /// A partition loses its leader, and misses the next marker.
    LeaderLost(kafka::Spot),
    /// The group gives the partition to this process.
    Assign(usize),
    Die(usize),
    Start(usize),
    Join(usize),
    Abandon(usize),
    HandBack(usize),
    Peek(usize),
    Fence(usize),
    /// Ends what hangs on one log.
    Mend(usize),
    Restore(usize),
    Resume(usize),
    Fetch(usize, Stream),
    Take(usize),
    Wake(usize),
    Sweep(usize),
    CallEnds(usize, usize, Answer),
    TellAll(usize),
    Write(usize, Sending),
    SendOffsets(usize),
    AskToCommit(usize),
    HearCommit(usize),
    GiveUp(usize),
    /// The last transaction is not decided, and will not be: the lane takes over anew.
    Undecided(usize),
}

impl Answer {
    fn outcome(self) -> Outcome {
        match self {
            Answer::Well => Outcome::Done,
            Answer::Transient => status(503),
            Answer::Permanent => status(400),
        }
    }
}

impl Scope {
    /// One event, sent once, that succeeds, and nothing that goes wrong.
    fn new(name: &'static str) -> Self {
        Self {
            name,
            events: vec![("1", "push")],
            max_attempts: 2,
            processes: 1,
            answers: vec![Answer::Well],
            faults: Vec::new(),
            at_most: u8::MAX,
            has_mail: false,
            days: 0,
            lifted: Vec::new(),
        }
    }

    fn allows(&self, fault: Fault) -> u8 {
        self.faults.iter().find(|(of, _)| *of == fault).map_or(0, |(_, times)| *times)
    }
}

impl Model {
    fn new(scope: Scope) -> Self {
        let config = super::CONFIG
            .replace("max_attempts = 3", &format!("max_attempts = {}", scope.max_attempts))
            .replace("jitter = 0.5", "jitter = 0.0");
        let mut keys: Vec<_> =
            scope.events.iter().flat_map(|(id, kind)| destinations(&event(id, kind), None)).collect();
        keys.sort_unstable();
        keys.dedup();
        Self { plan: plan_of(&config), max_attempts: scope.max_attempts, keys, scope }
    }

    fn lifts(&self, guard: Guard) -> bool {
        self.scope.lifted.contains(&guard)
    }

    fn may(&self, world: &World, fault: Fault) -> bool {
        world.has_spent(fault) < self.scope.allows(fault)
            && world.spent.iter().sum::<u8>() - world.has_spent(Fault::Days) < self.scope.at_most
    }

    /// Whether `p` is the owner, and knows it.
    fn is_current(&self, world: &World, p: usize) -> bool {
        world.kafka.owner == p && world.processes[p].generation == world.kafka.generation
    }

    /// The group gives the partition to `p`.
    fn assign(&self, world: &mut World, p: usize) {
        world.kafka.generation += 1;
        world.kafka.owner = p;
    }

    /// When the next retry is due that is not due yet.
    fn next_due(&self, world: &World) -> Option<Timestamp> {
        let retries = [Tier(1), Tier(2)].into_iter().flat_map(|tier| world.kafka.visible(Log::Retry(tier)));
        let due = retries.filter_map(|(_, record)| match &record.says {
            kafka::Says::Owed { not_before, .. } => *not_before,
            kafka::Says::State { .. } | kafka::Says::Nothing => None,
        });
        due.filter(|due| world.now().wall < *due).min()
    }

    /// Days only pass while somebody is at work and has done all that there was: a processor that
    /// is away for half of the window is not promised anything.
    fn may_pass(&self, world: &World) -> bool {
        let is_idle = |process: &Process| {
            process.active().is_some_and(|active| {
                matches!(active.commit, Committing::Not) && active.window.pending().0 == 0
            })
        };
        self.is_rest(world)
            && world.processes.iter().any(is_idle)
            && (0..world.processes.len()).all(|p| !self.must_sweep(world, p))
    }

    fn must_sweep(&self, world: &World, p: usize) -> bool {
        let Some(active) = world.processes[p].active() else { return false };
        if self.lifts(Guard::Refresh) || world.clock < DAYS || !matches!(active.commit, Committing::Not) {
            return false;
        }
        let swept = active.window.table.clone().sweep(world.now().wall, 100);
        swept.forgotten > 0 || !swept.refresh.is_empty()
    }

    fn actions_of_others(&self, world: &World, steps: &mut Vec<Step>) {
        let mut when = |is_possible: bool, step| steps.extend(is_possible.then_some(step));
        when(world.sent < self.scope.events.len(), Step::Send);
        when(self.next_due(world).is_some(), Step::FallDue);
        when(world.has_spent(Fault::Days) < self.scope.days && self.may_pass(world), Step::DaysPass);
        let has_dead = world.kafka.end(Log::Dead) > 0 && world.looked.is_none();
        when(has_dead && self.may(world, Fault::Replay), Step::Look { forced: false });
        when(has_dead && self.may(world, Fault::Forced), Step::Look { forced: true });
        when(world.looked.is_some(), Step::Replay);
        let is_open = world.kafka.has_open(STRANGER);
        when(is_open || self.may(world, Fault::Stranger), Step::Stranger);
        let has_offsets = !world.kafka.offsets.is_empty();
        when(has_offsets && self.may(world, Fault::Forgotten), Step::OffsetsForgotten);
        let newest = world.kafka.epoch;
        when(world.kafka.has_open(newest) && self.may(world, Fault::TimedOut), Step::TransactionTimesOut);
        when(world.kafka.is_any_flying(), Step::RecordArrives);
        when(world.kafka.is_any_asked_to_commit(), Step::CommitArrives);
        let spots = world.kafka.spots().into_iter().filter(|_| self.may(world, Fault::NoMarker));
        steps.extend(spots.map(Step::LeaderLost));
    }

    fn actions_of(&self, world: &World, p: usize, steps: &mut Vec<Step>) {
        let process = &world.processes[p];
        let mut when = |is_possible: bool, step| steps.extend(is_possible.then_some(step));
        if !process.is_up {
            return when(true, Step::Start(p));
        }
        when(self.may(world, Fault::Crash), Step::Die(p));
        when(world.kafka.owner != p && self.may(world, Fault::Move), Step::Assign(p));
        when(process.generation != world.kafka.generation, Step::Join(p));
        when(!process.ours && !matches!(process.phase, Phase::Away), Step::Abandon(p));
        for (index, running) in process.running.iter().enumerate() {
            // Equal calls end in the same ways.
            let is_first = !process.running[..index].contains(running);
            let is_heard = process.active().is_none_or(|active| active.commit.is_free());
            for answer in self.scope.answers.iter().filter(|_| is_first && is_heard) {
                when(true, Step::CallEnds(p, index, *answer));
            }
        }
        when(
            !process.mail.is_empty() && process.active().is_some_and(|active| active.commit.is_free()),
            Step::Take(p),
        );
        let may_fence = process.ours && (self.is_current(world, p) || self.may(world, Fault::StaleFence));
        match &process.phase {
            Phase::Away => {}
            Phase::Waiting => {
                let peeks = self.lifts(Guard::OffsetsAfterRestore);
                when(peeks && process.early.is_none(), Step::Peek(p));
                let is_first = !self.lifts(Guard::FenceBeforeRestore);
                when(may_fence && is_first && (!peeks || process.early.is_some()), Step::Fence(p));
                when(self.may_restore(world, p), Step::Restore(p));
            }
            Phase::Steadying(..) => {
                when(self.may_mend(world, p), Step::Mend(p));
                when(self.may_restore(world, p), Step::Restore(p));
            }
            Phase::Restored(None, ..) => when(may_fence, Step::Fence(p)),
            Phase::Restored(Some(_), ..) => when(process.ours, Step::Resume(p)),
            Phase::Active(active) => self.actions_at_work(world, p, active, steps),
        }
    }

    fn actions_at_work(&self, world: &World, p: usize, active: &world::Active, steps: &mut Vec<Step>) {
        let mut when = |is_possible: bool, step| steps.extend(is_possible.then_some(step));
        for stream in STREAMS {
            when(self.readable(world, p, stream).is_some(), Step::Fetch(p, stream));
        }
        let is_free = active.commit.is_free();
        let now = world.now();
        when(is_free && active.window.next_due().is_some_and(|due| due <= now.mono), Step::Wake(p));
        when(self.must_sweep(world, p), Step::Sweep(p));
        if is_free && !self.is_proven(world, active) {
            return when(true, Step::Undecided(p));
        }
        match &active.commit {
            Committing::Not => {
                let has_something = active.window.pending().0 > 0;
                when(has_something, Step::Write(p, Sending::Well));
                let is_forgotten = world.kafka.has_pending_offsets()
                    || world.has_spent(Fault::Forgotten) > 0 && world.kafka.offsets.len() < STREAMS.len();
                when(!has_something && is_forgotten, Step::TellAll(p));
                self.actions_of_sending(world, p, &active.window, steps);
                let mut when = |is_possible: bool, step| steps.extend(is_possible.then_some(step));
                let is_idle = !has_something && active.window.calling() == 0 && self.scope.processes > 1;
                when(is_idle && self.is_current(world, p) && self.may(world, Fault::Move), Step::HandBack(p));
            }
            Committing::Unsent(_) => when(true, Step::Write(p, Sending::Well)),
            Committing::Written(_) => when(true, Step::SendOffsets(p)),
            Committing::Filled(_) => {
                let flies = world.kafka.flies(active.writer);
                when(self.may_ask(world, active.writer), Step::AskToCommit(p));
                when(flies && self.may(world, Fault::Unanswered), Step::GiveUp(p));
            }
            Committing::Asked(..) => {
                when(world.kafka.has_answered(active.writer), Step::HearCommit(p));
                let is_refused = was_refused(world, active.writer);
                when(is_refused || self.may(world, Fault::Unanswered), Step::GiveUp(p));
            }
        }
    }

    fn actions_of_sending(&self, world: &World, p: usize, window: &Window, steps: &mut Vec<Step>) {
        let of_entries: usize = window.batch.entries.iter().map(|entry| outputs(entry).len()).sum();
        let records = of_entries + window.batch.refreshed.len() + usize::from(window.birth);
        for number in 0..u8::try_from(records).unwrap_or(u8::MAX) {
            let refused = self.may(world, Fault::Refused).then_some(Sending::Refused(number));
            let late = self.may(world, Fault::Late).then_some(Sending::Late(number));
            steps.extend([refused, late].into_iter().flatten().map(|sending| Step::Write(p, sending)));
        }
    }

    fn step_of_others(&self, world: &mut World, step: Step) {
        match step {
            Step::Send => {
                let (id, kind) = self.scope.events[world.sent];
                world.sent += 1;
                let event = Event { body: format!("body {}", world.sent).into(), ..event(id, kind) };
                world.kafka.publish(Record::owed(raw(&event, &Passage::default()), world.now().wall));
            }
            Step::FallDue => {
                if let Some(due) = self.next_due(world) {
                    world.clock = due.since(world::at(0)).as_millis().div_ceil(1000) as u64;
                }
            }
            Step::DaysPass => {
                world.clock += DAYS;
                spend(world, Fault::Days);
            }
            Step::Look { forced } => {
                world.looked = Some((world.kafka.end(Log::Dead), world.clock, forced));
                spend(world, if forced { Fault::Forced } else { Fault::Replay });
            }
            Step::Replay => self.replay(world),
            Step::Stranger if world.kafka.has_open(STRANGER) => world.kafka.abort(STRANGER),
            Step::Stranger => {
                let nothing = RawRecord::copy(Some(b"a stranger's"), b"never", std::iter::empty());
                world.kafka.begin(STRANGER);
                world.kafka.write(STRANGER, Log::State, Record::state(nothing, world.now().wall, false));
                spend(world, Fault::Stranger);
            }
            Step::OffsetsForgotten => {
                world.kafka.offsets.clear();
                spend(world, Fault::Forgotten);
            }
            Step::TransactionTimesOut => {
                world.kafka.abort(world.kafka.epoch);
                spend(world, Fault::TimedOut);
            }
            Step::RecordArrives => world.kafka.land(),
            Step::CommitArrives => world.kafka.obey(),
            Step::LeaderLost(spot) => {
                world.kafka.behead(spot);
                spend(world, Fault::NoMarker);
            }
            Step::Assign(_)
            | Step::Die(_)
            | Step::Start(_)
            | Step::Join(_)
            | Step::Abandon(_)
            | Step::HandBack(_)
            | Step::Peek(_)
            | Step::Fence(_)
            | Step::Mend(_)
            | Step::Restore(_)
            | Step::Resume(_)
            | Step::Fetch(..)
            | Step::Take(_)
            | Step::Wake(_)
            | Step::Sweep(_)
            | Step::CallEnds(..)
            | Step::TellAll(_)
            | Step::Write(..)
            | Step::SendOffsets(_)
            | Step::AskToCommit(_)
            | Step::HearCommit(_)
            | Step::GiveUp(_)
            | Step::Undecided(_) => unreachable!("{step:?} is a process's"),
        }
    }

    /// `replay.rs`, `publish`: what a replay makes of each dead letter that lay there when it began.
    fn replay(&self, world: &mut World) {
        let Some((end, begun, forced)) = world.looked.take() else { return };
        let stable = world.kafka.last_stable(Log::Dead).min(end);
        let mut taken = Vec::new();
        let mut records = Vec::new();
        for (offset, record) in world.kafka.visible(Log::Dead).filter(|(offset, _)| *offset < stable) {
            let letter = DeadLetter::read(&record.raw, 0, offset, record.at);
            let Some(key) = letter.key() else { continue };
            let is_kept = |state: &&DeliveryState| {
                world.now().wall < state.updated.plus(EXPIRY.dedupe_window + lane::DAY)
            };
            let standing = Standing::of(&letter, world.kafka.state(&key).filter(is_kept));
            let force = forced.then(|| world::at(begun));
            if let Some(Replaying::Replay { generation, forced }) =
                action(&letter, standing, &self.plan, force)
                && !taken.contains(&key)
                && let Some(event) = &letter.event
            {
                taken.push(key);
                let passage = Passage {
                    generation,
                    attempt: 0,
                    forced,
                    not_before: None,
                    first_failed_at: None,
                    ..letter.passage.clone()
                };
                records.push(Record::owed(raw(event, &passage), world.now().wall));
            }
        }
        records.into_iter().for_each(|record| world.kafka.publish(record));
    }

    fn step_of(&self, world: &mut World, step: Step) {
        match step {
            Step::Assign(p) => {
                self.assign(world, p);
                spend(world, Fault::Move);
            }
            Step::Die(p) => {
                if let Some(active) = world.processes[p].active() {
                    world.kafka.end_answer(active.writer);
                }
                world.processes[p] = Process::new(false);
                spend(world, Fault::Crash);
            }
            Step::Start(p) => {
                world.processes[p].is_up = true;
                if world.kafka.owner == p {
                    // It is another member than before.
                    self.assign(world, p);
                }
                self.join(world, p);
            }
            Step::Join(p) => self.join(world, p),
            Step::Abandon(p) => self.abandon(world, p),
            Step::HandBack(p) => {
                self.hand_back(world, p);
                spend(world, Fault::Move);
            }
            Step::Peek(p) => self.peek(world, p),
            Step::Fence(p) => self.fence(world, p),
            Step::Mend(p) => self.mend(world, p),
            Step::Restore(p) => self.restore(world, p),
            Step::Resume(p) => self.resume(world, p),
            Step::Fetch(p, stream) => {
                self.fetch(world, p, stream);
                if !self.scope.has_mail {
                    self.take(world, p);
                }
            }
            Step::Take(p) => self.take(world, p),
            Step::Wake(p) => self.wake(world, p),
            Step::Sweep(p) => self.sweep(world, p),
            Step::CallEnds(p, index, answer) => self.hear_call(world, p, index, answer),
            Step::TellAll(p) => self.tell_all(world, p),
            Step::Write(p, sending) => {
                match sending {
                    Sending::Well => {}
                    Sending::Refused(_) => spend(world, Fault::Refused),
                    Sending::Late(_) => spend(world, Fault::Late),
                }
                self.write(world, p, sending);
            }
            Step::SendOffsets(p) => self.send_offsets(world, p),
            Step::AskToCommit(p) => self.ask(world, p),
            Step::HearCommit(p) => self.hear_commit(world, p),
            Step::GiveUp(p) => {
                let asks = |active: &&world::Active| matches!(active.commit, Committing::Asked(..));
                let asked = world.processes[p].active().filter(asks).map(|active| active.writer);
                if asked.is_none_or(|writer| !was_refused(world, writer)) {
                    spend(world, Fault::Unanswered);
                }
                self.give_up(world, p);
            }
            Step::Undecided(p) => self.lose(world, p),
            Step::Send
            | Step::FallDue
            | Step::DaysPass
            | Step::Look { .. }
            | Step::Replay
            | Step::Stranger
            | Step::OffsetsForgotten
            | Step::TransactionTimesOut
            | Step::RecordArrives
            | Step::CommitArrives
            | Step::LeaderLost(_) => self.step_of_others(world, step),
        }
    }
}

/// Whether Kafka has answered a request to commit with a refusal.
fn was_refused(world: &World, writer: kafka::Writer) -> bool {
    !world.kafka.is_asked_to_commit(writer) && !world.kafka.has_answered(writer)
}

fn spend(world: &mut World, fault: Fault) {
    world.spent[fault as usize] += 1;
}

impl search::Model for Model {
    type State = World;
    type Action = Step;

    fn initial(&self) -> World {
        let mut world = World {
            kafka: Kafka::new(!self.lifts(Guard::ProducerEpoch), self.scope.allows(Fault::NoMarker) > 0),
            processes: (0..self.scope.processes).map(|_| Process::new(true)).collect(),
            clock: 0,
            sent: 0,
            spent: Default::default(),
            looked: None,
            called: Default::default(),
            breach: None,
        };
        self.join(&mut world, 0);
        world
    }

    fn actions(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        self.actions_of_others(world, &mut steps);
        for p in 0..world.processes.len() {
            self.actions_of(world, p, &mut steps);
        }
        steps
    }

    fn step(&self, world: &World, step: Step) -> World {
        let mut next = world.clone();
        self.step_of(&mut next, step);
        next
    }

    fn fingerprint(&self, world: &World) -> u64 {
        world.fingerprint(&self.keys)
    }

    fn breach(&self, world: &World) -> Option<String> {
        world.breach.clone().or_else(|| self.commit_breach(world))
    }

    fn is_at_rest(&self, world: &World) -> bool {
        self.is_rest(world)
    }
}

type Destinations = SmallVec<[StateKey; 2]>;

/// What an event owes to whom: what the routes of the tests' configuration say, said again.
fn destinations(event: &Event, named: Option<&str>) -> Destinations {
    let names: &[&str] = match (named, &*event.kind) {
        (Some(name), _) => &[name],
        (None, "both") => &["orders", "billing"],
        (None, _) => &["orders"],
    };
    names.iter().map(|name| StateKey::of(&event.source, &event.id, name)).collect()
}

/// The same record without the moment at which it is due.
fn without_due(record: &RawRecord) -> RawRecord {
    let headers: Vec<_> =
        record.headers().filter(|(name, _)| name != hookwell_common::headers::NOT_BEFORE).collect();
    let headers = headers.iter().map(|(name, value)| (std::str::from_utf8(name).unwrap(), value.as_ref()));
    RawRecord::copy(record.key().as_deref(), &record.value(), headers)
}

fn duration(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
