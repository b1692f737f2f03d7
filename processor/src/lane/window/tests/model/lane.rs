//! A lane, step by step. What decides is the real code: this only does in the same order what the
//! shell does, so that anything may happen between two steps. Which lines of the shell each step
//! stands for:
//!
//! | step | the shell |
//! | --- | --- |
//! | [`Model::join`] | `poll.rs`: a rebalance; `Order::Own`, or `ours` is cleared |
//! | [`Model::abandon`] | `host.rs`, `Lane::abandon` |
//! | [`Model::hand_back`] | `host.rs`, `Lane::let_go`; `active.rs`, `hand_back`, with all committed |
//! | [`Model::fence`] | `take_over.rs`, `Steadying::begin`: `init_transactions`, then the true end |
//! | [`Model::mend`] | `take_over.rs`, `is_steady`; `mend.rs`, `mend`, one topic after the other |
//! | [`Model::restore`] | `take_over.rs`, `is_steady`, `Steadying::restore`, `Restoring::take` |
//! | [`Model::resume`] | `take_over.rs`, `Restoring::finish`; `host.rs`, `go_to_work` |
//! | [`Model::fetch`], [`Model::take`] | `poll.rs` and `follow.rs`; `host.rs`, `take_in`; `Active::arrive` |
//! | [`Model::wake`], [`Model::sweep`] | `active.rs`, `advance`, `look_after` |
//! | [`Model::hear_call`] | `Active::complete`; `host.rs`, `hear_of_earlier_calls` |
//! | [`Model::call`] | `active.rs`, `make_calls`; `handle.rs`, which looks at `ours` |
//! | [`Model::tell_all`] | `active.rs`, `commit_if_due`, where `tell_all` |
//! | [`Model::write`] | `active.rs`, `commit_if_due`; `transaction.rs`, `begin_transaction` and every `send` |
//! | [`Model::send_offsets`] | `transaction.rs`, `send_offsets_to_transaction` |
//! | [`Model::ask`] | `transaction.rs`, `await_reports`, then `commit_transaction` is sent |
//! | [`Model::hear_commit`] | `active.rs`, `commit_again`, `Ok` |
//! | [`Model::is_proven`] | `active.rs`, `is_proven`; `proof.rs` |
//! | [`Model::give_up`] | `CommitError::ProducerLost`; `host.rs`, `work`, `Err` |
//! | [`Model::put_off`] | `CommitError::Aborted`; `active.rs`, `unsent` |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::kafka::{Log, Record, STREAMS, Says, Slot, Writer};
use super::world::{Active, Committing, Fault, Phase, Remembered, Running, Unproven, World};
use super::{
    Acceptance, Answer, Arrival, Beginning, Claim, Commit, Completion, END_KEY, EXPIRY, Frontier, Guard,
    LedgerError, Model, Offset, OutputTopic, PREFIX, Place, RawRecord, Recollection, Sending, StateTable,
    Stream, Window, accept, all_outputs, without_due, written,
};
use crate::delivery::Delivery;
use crate::lane::output::Output;

/// Commits of one batch that may be aborted before the producer is given up: fewer than in
/// `active.rs`, where nothing happens at the second that does not at the thirtieth.
const MAX_ABORTED: u8 = 1;

/// `take_over.rs`, `REMEMBER`, in seconds.
const REMEMBER: u64 = 600;

impl Model {
    /// The member learns what the group has decided.
    pub(super) fn join(&self, world: &mut World, p: usize) {
        let is_owner = world.kafka.owner == p;
        if !matches!(world.processes[p].phase, Phase::Away) && is_owner {
            // It was taken and given back meanwhile: an ownership of its own.
            self.abandon(world, p);
        }
        let process = &mut world.processes[p];
        process.generation = world.kafka.generation;
        process.ours = is_owner;
        if is_owner {
            process.phase = Phase::Waiting;
        }
    }

    pub(super) fn abandon(&self, world: &mut World, p: usize) {
        let process = &mut world.processes[p];
        let phase = std::mem::replace(&mut process.phase, Phase::Away);
        if let Phase::Active(active) = phase {
            world.kafka.end_answer(active.writer);
            process.recollection.extend(into_recollection(active));
        }
        process.recollection = std::mem::take(&mut process.recollection).into_known();
        process.made.clear();
        process.mail.clear();
        process.early = None;
        if !self.lifts(Guard::EpochOfCompletions) {
            process.running.clear();
        }
    }

    pub(super) fn hand_back(&self, world: &mut World, p: usize) {
        let since = world.clock;
        let process = &mut world.processes[p];
        if let Phase::Active(active) = std::mem::replace(&mut process.phase, Phase::Away) {
            let next_offset = active.state_end;
            let is_proven = active.unproven.is_none();
            let table = Arc::unwrap_or_clone(active.window).into_table().filter(|_| is_proven);
            process.remembered = table.map(|table| Remembered { table: Arc::new(table), next_offset, since });
        }
        process.ours = false;
        process.made.clear();
        process.mail.clear();
        self.assign(world, 1 - p);
        world.processes[p].generation = world.kafka.generation;
    }

    /// Where the guard is lifted: offsets are read before anything else.
    pub(super) fn peek(&self, world: &mut World, p: usize) {
        world.processes[p].early = Some(world.kafka.offsets.clone());
    }

    pub(super) fn fence(&self, world: &mut World, p: usize) {
        if !self.is_current(world, p) {
            world.spent[Fault::StaleFence as usize] += 1;
        }
        let writer = world.kafka.fence();
        let end = world.kafka.end(Log::State);
        let phase = &mut world.processes[p].phase;
        *phase = match std::mem::replace(phase, Phase::Away) {
            // The guard is lifted: states were read already.
            Phase::Restored(None, table, end) => Phase::Restored(Some(writer), table, end),
            Phase::Away | Phase::Waiting | Phase::Steadying(..) | Phase::Restored(..) | Phase::Active(_) => {
                Phase::Steadying(writer, end)
            }
        };
    }

    /// Whether a transaction that hangs is to be ended.
    pub(super) fn may_mend(&self, world: &World, p: usize) -> bool {
        let is_steadying = matches!(world.processes[p].phase, Phase::Steadying(..));
        is_steadying && world.kafka.hanging_log().is_some() && !self.lifts(Guard::TrueEnd)
    }

    pub(super) fn mend(&self, world: &mut World, p: usize) {
        let Phase::Steadying(writer, _) = world.processes[p].phase else { return };
        let Some(log) = world.kafka.hanging_log() else { return };
        if world.kafka.is_fenced(writer) {
            return self.lose(world, p);
        }
        let end = RawRecord::copy(Some(END_KEY), b"", std::iter::empty());
        let end = Record::state(end, world.now().wall, false);
        let is_committed = self.lifts(Guard::EndedAsDecided).then_some(false);
        world.kafka.mend(writer, log, end, is_committed);
    }

    pub(super) fn may_restore(&self, world: &World, p: usize) -> bool {
        match &world.processes[p].phase {
            Phase::Steadying(_, end) => {
                let is_steady =
                    *end <= world.kafka.last_stable(Log::State) && world.kafka.hanging_log().is_none();
                is_steady || self.lifts(Guard::TrueEnd)
            }
            Phase::Waiting => self.lifts(Guard::FenceBeforeRestore) && world.processes[p].ours,
            Phase::Away | Phase::Restored(..) | Phase::Active(_) => false,
        }
    }

    pub(super) fn restore(&self, world: &mut World, p: usize) {
        let now = world.now().wall;
        let process = &mut world.processes[p];
        let (writer, end) = match &process.phase {
            Phase::Steadying(writer, end) => (Some(*writer), *end),
            Phase::Away | Phase::Waiting | Phase::Restored(..) | Phase::Active(_) => {
                (None, world.kafka.end(Log::State))
            }
        };
        let usable = process
            .remembered
            .take()
            .filter(|known| world.clock - known.since < REMEMBER && known.next_offset <= end);
        let is_remembered = usable.is_some();
        let (mut table, from) = match usable {
            Some(known) => (Arc::unwrap_or_clone(known.table), known.next_offset),
            None => (StateTable::new(EXPIRY), 0),
        };
        let stable = world.kafka.last_stable(Log::State);
        let mut next_offset = from;
        let records = world.kafka.visible(Log::State).filter(|(at, _)| (from..stable).contains(at));
        for (at, record) in records {
            // What is older than the topic keeps has been deleted.
            let is_kept = now < record.at.plus(EXPIRY.dedupe_window + DAY);
            if is_remembered && self.lifts(Guard::Delta) || !is_kept {
                continue;
            }
            next_offset = at + 1;
            match super::decode(&record.raw.key().unwrap_or_default(), &record.raw.value()) {
                Ok((key, Some(state))) => table.put(key, state),
                Ok((key, None)) => table.remove(&key),
                Err(_) => {}
            }
        }
        process.phase = Phase::Restored(writer, Arc::new(table), next_offset.max(end));
    }

    pub(super) fn resume(&self, world: &mut World, p: usize) {
        let committed = world.processes[p].early.take().unwrap_or_else(|| world.kafka.offsets.clone());
        let Phase::Restored(Some(writer), table, state_end) = world.processes[p].phase.clone() else {
            return;
        };
        if world.kafka.has_pending_offsets() {
            if !world.kafka.is_fenced(writer) {
                world.kafka.drop_pending_offsets(writer);
            }
            return self.lose(world, p);
        }
        let mut frontiers = BTreeMap::new();
        let mut markers = Vec::new();
        for stream in STREAMS {
            let (low, end) = (self.low(world, stream), world.kafka.end(Log::of(stream)));
            let start = match committed.get(&stream) {
                Some(offset) if (low..=end).contains(offset) => *offset,
                Some(_) | None => low,
            };
            frontiers.insert(stream, Frontier(start));
            if stream != Stream::Events && start < end {
                markers.push(Place { stream, offset: Offset(end - 1) });
            }
        }
        let read = frontiers.iter().map(|(stream, frontier)| (*stream, frontier.0)).collect();
        let process = &mut world.processes[p];
        let mut window = Window::new(Beginning {
            partition: 0,
            topic_prefix: PREFIX.into(),
            table: Arc::unwrap_or_clone(table),
            frontiers,
            birth: state_end == 0,
            flood_guard: 0,
            recollection: std::mem::take(&mut process.recollection),
        });
        window.mark(&markers);
        process.phase = Phase::Active(Active {
            writer,
            window: Arc::new(window),
            state_end,
            read,
            commit: Committing::Not,
            unproven: None,
            aborted: 0,
            beside: Vec::new(),
        });
    }

    /// The oldest offset that is not deleted: records are kept for as long as what is done is
    /// remembered, the longest that a configuration may have it.
    fn low(&self, world: &World, stream: Stream) -> i64 {
        let kept = EXPIRY.dedupe_window;
        let log = world.kafka.log(Log::of(stream));
        let is_kept = |slot: &Slot| match slot {
            Slot::Open(_, record) | Slot::Hanging(record, _) | Slot::Visible(record) => {
                world.now().wall < record.at.plus(kept)
            }
            Slot::Gone => false,
        };
        log.iter().position(is_kept).map_or_else(|| world.kafka.end(Log::of(stream)), super::kafka::offset)
    }

    /// What `p` would read next of `stream`.
    pub(super) fn readable(&self, world: &World, p: usize, stream: Stream) -> Option<(i64, Arc<Record>)> {
        let active = world.processes[p].active()?;
        let is_open = match stream {
            Stream::Events => matches!(active.commit, Committing::Not),
            Stream::Retry(_) => active.commit.is_free(),
        };
        let (at, record) = world.kafka.next(Log::of(stream), active.read[&stream])?;
        is_open.then(|| (at, Arc::clone(record)))
    }

    /// A record is read, and put into the lane's mail.
    pub(super) fn fetch(&self, world: &mut World, p: usize, stream: Stream) {
        let Some((at, _)) = self.readable(world, p, stream) else { return };
        let process = &mut world.processes[p];
        if let Some(active) = process.active_mut() {
            active.read.insert(stream, at + 1);
            let session = active.writer;
            process.mail.push_back((session, stream, at));
        }
    }

    /// The lane takes what came first. What was read for an earlier take-over is dropped.
    pub(super) fn take(&self, world: &mut World, p: usize) {
        let Some((session, stream, offset)) = world.processes[p].mail.pop_front() else { return };
        let index = usize::try_from(offset).expect("an offset");
        let Some(Slot::Visible(record)) = world.kafka.log(Log::of(stream)).get(index).cloned() else {
            return;
        };
        let is_current = world.processes[p].active().is_some_and(|active| active.writer == session);
        if !is_current && !self.lifts(Guard::SessionOfRecords) {
            return;
        }
        let raw = if self.lifts(Guard::NotBefore) { without_due(&record.raw) } else { record.raw.clone() };
        let place = Place { stream, offset: Offset(offset) };
        let arrival = Arrival { place, appended_at: record.at, raw };
        if stream == Stream::Events {
            self.bend_rule(world, p, &record);
            self.set_beside(world, p, &record);
        }
        let now = world.now();
        self.with_window(world, p, |window, model| window.arrive(arrival, now, &model.plan));
    }

    pub(super) fn wake(&self, world: &mut World, p: usize) {
        let now = world.now();
        let waiting = world.processes[p].active().into_iter().flat_map(|active| active.window.waiting.iter());
        let due: Vec<_> =
            waiting.map(|arrival| Record::owed(arrival.raw.clone(), arrival.appended_at)).collect();
        due.iter().for_each(|record| self.bend_rule(world, p, record));
        self.with_window(world, p, |window, model| window.wake(now, &model.plan));
    }

    pub(super) fn sweep(&self, world: &mut World, p: usize) {
        let now = world.now();
        self.with_window(world, p, |window, _| {
            window.sweep(now.wall, 100);
            Ok(())
        });
    }

    /// Does something with a window, makes the calls that come of it, and takes over anew where it
    /// cannot be.
    fn with_window(
        &self,
        world: &mut World,
        p: usize,
        change: impl FnOnce(&mut Window, &Self) -> Result<(), LedgerError>,
    ) {
        let Some(active) = world.processes[p].active_mut() else { return };
        let window = Arc::make_mut(&mut active.window);
        match change(window, self) {
            Ok(()) => {
                let calls = window.take_calls();
                calls.iter().for_each(|delivery| self.call(world, p, delivery));
            }
            Err(_) => self.lose(world, p),
        }
    }

    fn call(&self, world: &mut World, p: usize, delivery: &Delivery) {
        let Delivery { key, claim, .. } = *delivery;
        if world.processes[p].ours {
            self.judge_call(world, p, delivery);
            world.processes[p].made.insert((key, claim.generation, claim.attempt));
            world.processes[p].running.push(Running { key, claim });
        } else {
            let completion = Completion { key, claim, outcome: None, took: Duration::ZERO };
            let now = world.now();
            self.with_window(world, p, |window, model| window.complete(completion, now, &model.plan));
        }
    }

    pub(super) fn hear_call(&self, world: &mut World, p: usize, index: usize, answer: Answer) {
        let Running { key, claim } = world.processes[p].running.remove(index);
        let outcome = answer.outcome();
        let now = world.now();
        if world.processes[p].active().is_none() {
            return world.processes[p].recollection.know(key, claim, outcome);
        }
        let beside = world.processes[p].active_mut().and_then(|active| {
            let at = active
                .beside
                .iter()
                .position(|open| (open.delivery.key, open.delivery.claim) == (key, claim));
            at.map(|at| active.beside.remove(at))
        });
        self.with_window(world, p, |window, model| match beside {
            Some(open) => {
                let open = Arc::unwrap_or_clone(open);
                window.settle_attempt(open, outcome, Duration::ZERO, now, &model.plan)
            }
            None => {
                let completion = Completion { key, claim, outcome: Some(outcome), took: Duration::ZERO };
                window.complete(completion, now, &model.plan)
            }
        });
    }

    /// `active.rs`, `TELL_ALL`: all offsets are committed again.
    pub(super) fn tell_all(&self, world: &mut World, p: usize) {
        if let Some(active) = world.processes[p].active_mut()
            && let Some(commit) = Arc::make_mut(&mut active.window).take_commit(true)
        {
            active.commit = Committing::Unsent(Arc::new(commit));
        }
    }

    /// Begins a transaction and hands its records over.
    pub(super) fn write(&self, world: &mut World, p: usize, sending: Sending) {
        let wall = world.now().wall;
        let Some(active) = world.processes[p].active_mut() else { return };
        let commit = match std::mem::replace(&mut active.commit, Committing::Not) {
            Committing::Unsent(commit) => Some(commit),
            Committing::Not | Committing::Written(_) | Committing::Filled(_) | Committing::Asked(..) => {
                Arc::make_mut(&mut active.window).take_commit(false).map(Arc::new)
            }
        };
        let Some(mut commit) = commit else { return };
        active.unproven = None;
        let writer = active.writer;
        if self.lifts(Guard::Frontier) {
            let offsets = active.read.iter().map(|(stream, next)| (*stream, Frontier(*next)));
            Arc::make_mut(&mut commit).offsets = offsets.collect();
        }
        active.commit = Committing::Written(Arc::clone(&commit));
        if world.kafka.is_fenced(writer) {
            return self.lose(world, p);
        }
        if self.lifts(Guard::OneTransaction) {
            world.kafka.offsets.extend(commit.offsets.iter().map(|(stream, next)| (*stream, next.0)));
        }
        world.kafka.begin(writer);
        for (number, (log, record)) in (0..).zip(records(&commit, wall)) {
            match sending {
                Sending::Late(late) if late == number => world.kafka.launch(writer, log, record),
                Sending::Refused(refused) if refused == number => {
                    if !self.lifts(Guard::RefusedAborts) {
                        return self.put_off(world, p);
                    }
                }
                Sending::Well | Sending::Late(_) | Sending::Refused(_) => {
                    world.kafka.write(writer, log, record);
                }
            }
        }
    }

    pub(super) fn send_offsets(&self, world: &mut World, p: usize) {
        let is_member = world.processes[p].generation == world.kafka.generation;
        let Some(active) = world.processes[p].active_mut() else { return };
        let Committing::Written(commit) = &active.commit else { return };
        let (commit, writer) = (Arc::clone(commit), active.writer);
        active.commit = Committing::Filled(Arc::clone(&commit));
        if world.kafka.is_fenced(writer) || !world.kafka.has_open(writer) {
            return self.lose(world, p);
        }
        if commit.offsets.is_empty() || self.lifts(Guard::OneTransaction) {
            return;
        }
        if is_member || self.lifts(Guard::Generation) {
            let offsets: Vec<_> = commit.offsets.iter().map(|(stream, next)| (*stream, next.0)).collect();
            world.kafka.send_offsets(writer, &offsets);
        } else {
            self.put_off(world, p);
        }
    }

    /// Whether all is reported, so that the commit may be asked for.
    pub(super) fn may_ask(&self, world: &World, writer: Writer) -> bool {
        !world.kafka.flies(writer) || self.lifts(Guard::DeliveryReports)
    }

    pub(super) fn ask(&self, world: &mut World, p: usize) {
        let Some(active) = world.processes[p].active_mut() else { return };
        let Committing::Filled(commit) = &active.commit else { return };
        let (commit, writer) = (Arc::clone(commit), active.writer);
        if world.kafka.is_fenced(writer) || !world.kafka.has_open(writer) {
            return self.lose(world, p);
        }
        active.commit = Committing::Asked(commit, world.kafka.written(writer));
        world.kafka.ask_to_commit(writer);
    }

    /// Kafka has answered that the transaction is committed.
    pub(super) fn hear_commit(&self, world: &mut World, p: usize) {
        let Some(active) = world.processes[p].active_mut() else { return };
        let Committing::Asked(commit, written) = std::mem::replace(&mut active.commit, Committing::Not)
        else {
            return;
        };
        let marker = |(log, last): &(Log, i64)| match log {
            Log::Retry(tier) => Some(Place { stream: Stream::Retry(*tier), offset: Offset(last + 1) }),
            Log::Events | Log::Dead | Log::State => None,
        };
        let markers: Vec<_> = written.iter().filter_map(marker).collect();
        Arc::make_mut(&mut active.window).committed(&commit, &markers);
        world.kafka.end_answer(active.writer);
        if let Some((_, last)) = written.iter().find(|(log, _)| *log == Log::State) {
            active.state_end = active.state_end.max(last + 2);
        }
        active.aborted = 0;
        self.prove(world, p, Unproven { commit: Some(commit), written });
    }

    /// The last transaction has ended. Where all markers are there, that is seen at once.
    fn prove(&self, world: &mut World, p: usize, unproven: Unproven) {
        let Some(active) = world.processes[p].active_mut() else { return };
        let is_hidden = |(log, last): &(Log, i64)| !world.kafka.is_decided(*log, *last);
        active.unproven = Some(unproven).filter(|unproven| unproven.written.iter().any(is_hidden));
    }

    /// Whether another transaction may begin: the last one is decided, or a stranger keeps that from
    /// being seen.
    pub(super) fn is_proven(&self, world: &World, active: &Active) -> bool {
        let hangs = |(log, _): &(Log, i64)| world.kafka.hanging(*log).is_some();
        let is_decided = |unproven: &Unproven| !unproven.written.iter().any(hangs);
        active.unproven.as_ref().is_none_or(is_decided) || self.lifts(Guard::Proof)
    }

    /// Nobody answered, whether a record arrived or whether the commit counts.
    pub(super) fn give_up(&self, world: &mut World, p: usize) {
        if let Some(active) = world.processes[p].active() {
            world.kafka.end_answer(active.writer);
        }
        if !self.lifts(Guard::ThrownAway) {
            return self.lose(world, p);
        }
        // Taken for aborted, and made again with the same producer.
        let Some(active) = world.processes[p].active_mut() else { return };
        if let Some(commit) = active.commit.commit().cloned() {
            active.commit = Committing::Unsent(commit);
        }
        world.kafka.abort_blindly(active.writer);
    }

    /// A transaction is aborted whole, and will be made again, unless that was tried before.
    fn put_off(&self, world: &mut World, p: usize) {
        let Some(active) = world.processes[p].active_mut() else { return };
        if MAX_ABORTED <= active.aborted {
            return self.lose(world, p);
        }
        active.aborted += 1;
        if let Some(commit) = active.commit.commit().cloned() {
            active.commit = Committing::Unsent(commit);
        }
        let written = world.kafka.written(active.writer);
        world.kafka.abort(active.writer);
        self.prove(world, p, Unproven { commit: None, written });
    }

    /// The producer is lost: the lane takes over anew, and remembers what its calls came to.
    pub(super) fn lose(&self, world: &mut World, p: usize) {
        let process = &mut world.processes[p];
        if let Phase::Active(active) = std::mem::replace(&mut process.phase, Phase::Waiting) {
            process.recollection = if self.lifts(Guard::Recollection) {
                Recollection::default()
            } else {
                into_recollection(active)
            };
        }
    }

    /// Where the acceptance rule is bent, states are changed so that the real one decides as the
    /// bent one would.
    fn bend_rule(&self, world: &mut World, p: usize, record: &Record) {
        let now = world.now().wall;
        let (Says::Owed { keys, claim, .. }, Some(active)) = (&record.says, world.processes[p].active_mut())
        else {
            return;
        };
        for key in keys {
            let state = active.window.table.get(key, now);
            let would = |claim| accept(state.as_ref(), claim) == Acceptance::Fresh;
            let is_let_in = if self.lifts(Guard::Acceptance) {
                true
            } else if self.lifts(Guard::GenerationInRule) {
                (0..4).any(|generation| would(Claim { generation, ..*claim }))
            } else {
                false
            };
            if is_let_in {
                Arc::make_mut(&mut active.window).table.remove(key);
            }
        }
    }

    /// Where copies do not wait: the first is set aside, so that nothing seems to be open.
    fn set_beside(&self, world: &mut World, p: usize, record: &Record) {
        let (Says::Owed { keys, .. }, Some(active)) = (&record.says, world.processes[p].active_mut()) else {
            return;
        };
        if self.lifts(Guard::CopiesWait) {
            for key in keys {
                active.beside.extend(Arc::make_mut(&mut active.window).close(key).map(Arc::new));
            }
        }
    }
}

/// For how much longer than the window Kafka keeps states.
pub(super) const DAY: Duration = Duration::from_secs(86_400);

fn into_recollection(active: Active) -> Recollection {
    let undecided = active.unproven.as_ref().and_then(|unproven| unproven.commit.as_ref());
    let lost: Vec<_> =
        active.commit.commit().into_iter().chain(undecided).map(|commit| Commit::clone(commit)).collect();
    Arc::unwrap_or_clone(active.window).into_recollection(lost)
}

/// The records of a transaction, in their order.
pub(super) fn records(commit: &Commit, at: super::Timestamp) -> Vec<(Log, Arc<Record>)> {
    let again = commit.batch.refreshed.len();
    let outputs = all_outputs(commit).enumerate();
    outputs.map(|(number, output)| record(&output, at, again <= number)).collect()
}

fn record(output: &Output<'_>, at: super::Timestamp, is_decided: bool) -> (Log, Arc<Record>) {
    match output.topic {
        OutputTopic::Retry(tier) => (Log::Retry(tier), Record::owed(written(output), at)),
        OutputTopic::DeadLetters => (Log::Dead, Record::owed(written(output), at)),
        OutputTopic::State => (Log::State, Record::state(written(output), at, is_decided)),
        OutputTopic::Forward(_) => unreachable!("the model has no kafka destinations"),
    }
}
