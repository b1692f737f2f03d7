//! A lane at work: what comes in goes through the window, and what comes out is called and
//! committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hookwell_common::failpoint;
use hookwell_common::time::Now;
use rdkafka::consumer::Consumer;
use thiserror::Error;

use super::batch::Commit;
use super::ledger::LedgerError;
use super::mail::{Loads, Ownership};
use super::proof::{Proof, Unproven};
use super::recall::Recollection;
use super::take_over::{REMEMBER, Restored};
use super::transaction::{CommitError, Transactor};
use super::window::{Completion, Window};
use crate::board::DeadCounts;
use crate::delivery::Arrival;
use crate::pace::{self, Pending};
use crate::report;
use crate::setup::Setup;
use crate::shared::{Remembered, Shared, lock};

/// After a commit that was aborted, before it is made again.
const ABORTED_PAUSE: Duration = Duration::from_millis(100);

/// Commits of one batch that may be aborted before the producer is given up.
const MAX_ABORTED: u32 = 30;

/// How long a partition that is handed back waits for its last transaction to be decided.
const PROOF_AT_END: Duration = Duration::from_secs(1);

/// How often all offsets are committed again: brokers forget those of topics to which no member
/// subscribes.
const TELL_ALL: Duration = Duration::from_secs(6 * 3600);

/// The same for the first time after a take-over: partitions may move often.
const TELL_ALL_FIRST: Duration = Duration::from_secs(600);

/// How often states are looked through, and in how many rounds all of them are.
const SWEEP: Duration = Duration::from_secs(1);
const SWEEP_ROUNDS: u32 = 3600;

/// How often dead letters are counted for the metrics.
const COUNT_DEAD: Duration = Duration::from_secs(2);

/// Why a lane cannot go on with its producer.
#[derive(Debug, Error)]
pub(crate) enum LaneError {
    /// The producer is lost.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The marker of its last transaction does not come.
    #[error("Kafka answers, and has not written how the last transaction ended")]
    Undecided,
    /// A record was settled that cannot be: a fault of ours, and taking over anew mends it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A lane at work.
#[derive(Debug)]
pub(crate) struct Active {
    transactor: Transactor,
    window: Window,
    state_end: i64,
    /// A commit that was aborted, to be made again before anything else.
    unsent: Option<Unsent>,
    /// The last transaction: until it is decided, none begins.
    unproven: Option<Unproven>,
    /// Whether a stranger's transaction hides how ours end.
    is_blind: bool,
    last_commit: Option<Duration>,
    told_all_at: Duration,
    tell_all_after: Duration,
    swept_at: Duration,
    counted_at: Duration,
    dead: DeadCounts,
    busy: Busy,
    /// What this take-over's retries weigh, for the follower.
    loads: Arc<Loads>,
    /// Set once the partition is to be handed back: until when open calls may end.
    draining: Option<Duration>,
}

#[derive(Debug)]
struct Unsent {
    commit: Commit,
    aborted: u32,
    again_at: Duration,
}

impl Active {
    /// A lane that begins its work at `now`.
    pub(crate) fn new(restored: Restored, shared: &Shared, now: Duration) -> Self {
        Self {
            transactor: restored.transactor,
            window: restored.window,
            state_end: restored.state_end,
            unsent: None,
            unproven: None,
            is_blind: false,
            last_commit: None,
            told_all_at: now,
            tell_all_after: TELL_ALL_FIRST,
            swept_at: now,
            counted_at: Duration::ZERO,
            dead: DeadCounts::new(),
            busy: Busy { lanes: Arc::clone(&shared.busy_lanes), is_counted: false },
            loads: Arc::new(Loads::default()),
            draining: None,
        }
    }

    /// What it shows of itself.
    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// What its retries weigh.
    pub(crate) fn loads(&self) -> &Arc<Loads> {
        &self.loads
    }

    /// Its dead letters, as they were last counted.
    pub(crate) fn dead(&self) -> &DeadCounts {
        &self.dead
    }

    /// Whether it is finishing what is open.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Whether records of the events topic should come for now.
    pub(crate) fn wants_events(&self) -> bool {
        self.draining.is_none() && self.unsent.is_none() && !self.window.is_full()
    }

    /// The group asks for the partition: nothing new is begun.
    pub(crate) fn drain(&mut self, deadline: Duration) {
        self.draining = Some(deadline);
        failpoint::hit("revoke-begun");
    }

    /// Records were read.
    pub(crate) fn arrive(
        &mut self,
        arrivals: Vec<Arrival>,
        now: Now,
        setup: &Setup,
    ) -> Result<(), LedgerError> {
        if self.draining.is_some() {
            return Ok(());
        }
        failpoint::hit("lane-polled");
        // An offset that goes back means that Kafka's log was cut: taking over anew finds out.
        arrivals.into_iter().try_for_each(|arrival| self.window.arrive(arrival, now, &setup.plan))
    }

    /// A call ended.
    pub(crate) fn complete(
        &mut self,
        completion: Completion,
        now: Now,
        setup: &Setup,
    ) -> Result<(), LedgerError> {
        self.window.complete(completion, now, &setup.plan)
    }

    /// Takes up what is due, makes calls, and commits if it is time.
    pub(crate) fn advance(
        &mut self,
        shared: &Shared,
        setup: &Setup,
        ownership: &Ownership,
    ) -> Result<(), LaneError> {
        let now = shared.clock.now();
        if self.draining.is_none() {
            self.window.wake(now, &setup.plan)?;
            self.look_after(now);
        }
        self.make_calls(shared, setup, ownership, now);
        self.loads.show(self.window.loads());
        self.transactor.poll();
        self.commit_if_due(shared, ownership.partition, now.mono)
    }

    /// When [`Active::advance`] should be called next at the latest, on the monotonic clock.
    pub(crate) fn next_step(&self, shared: &Shared, now: Duration) -> Duration {
        let commit = match &self.unsent {
            Some(unsent) => Some(unsent.again_at),
            None => pace::commit_at(self.pending(), self.interval(shared), now),
        };
        let commit = match &self.unproven {
            Some(unproven) => Some(commit.map_or(unproven.look_at(), |at| at.max(unproven.look_at()))),
            None => commit,
        };
        let idle = now + SWEEP;
        [commit, self.window.next_due(), self.draining].into_iter().flatten().min().unwrap_or(idle).min(idle)
    }

    /// Whether a draining lane has nothing left to wait for.
    pub(crate) fn is_drained(&self, now: Duration) -> bool {
        let Some(deadline) = self.draining else { return false };
        // What is held back is not waited for: its next owner asks its handler again.
        let is_done = self.window.calling() == 0 && self.unsent.is_none() && self.window.pending().0 == 0;
        is_done || deadline <= now
    }

    /// Hands the partition back: commits what is left, and keeps the states for the next time.
    pub(crate) fn hand_back(mut self, shared: &Shared, partition: i32) {
        let clean = loop {
            // What is not decided may yet be taken back, and is not to be remembered.
            if !self.is_proven_soon(shared, partition) {
                tracing::warn!(
                    partition,
                    "handed back before Kafka has written how the last transaction ended"
                );
                break false;
            }
            let commit =
                self.unsent.take().map(|unsent| unsent.commit).or_else(|| self.window.take_commit(false));
            let Some(commit) = commit else { break true };
            if let Err(error) = self.commit(shared, commit) {
                tracing::warn!(partition, %error, "the last commit before handing back was not made; the next owner repeats it");
                break false;
            }
            if self.unsent.is_some() {
                break false;
            }
        };
        failpoint::hit("revoke-drained");
        if let Some(table) = self.window.into_table().filter(|_| clean) {
            let now = shared.clock.mono();
            let mut known = lock(&shared.remembered);
            known.retain(|_, remembered| now.saturating_sub(remembered.since) < REMEMBER);
            known.insert(partition, Remembered { table, next_offset: self.state_end, since: now });
        }
    }

    /// Ends after the producer was lost, and gives what calls came to.
    pub(crate) fn into_recollection(self) -> Recollection {
        let unproven = self.unproven.and_then(|unproven| unproven.commit);
        self.window.into_recollection(self.unsent.map(|unsent| unsent.commit).into_iter().chain(unproven))
    }

    /// Calls are made on tokio; what they come to comes back through the lane's own ear.
    fn make_calls(&mut self, shared: &Shared, setup: &Setup, ownership: &Ownership, now: Now) {
        for delivery in self.window.take_calls() {
            if let Some(due) = delivery.not_before {
                shared.metrics.retry_lateness.observe(now.wall.since(due).as_secs_f64());
            }
            let ear = ownership.completions.clone();
            setup.dispatcher.call(&delivery, Arc::clone(&ownership.ours), async move |completion| {
                let mut completion = completion;
                // The ear is wide enough for all that a window opens; it is only full for as long
                // as the lane commits. A lane that is gone hears nothing any more.
                while let Err(crossbeam_channel::TrySendError::Full(back)) = ear.try_send(completion) {
                    completion = back;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
    }

    /// What is done now and then: states are looked through, and dead letters counted.
    fn look_after(&mut self, now: Now) {
        if SWEEP <= now.mono.saturating_sub(self.swept_at) {
            self.swept_at = now.mono;
            let share = self.window.table().len() / SWEEP_ROUNDS as usize;
            self.window.sweep(now.wall, share + 100);
        }
        if COUNT_DEAD <= now.mono.saturating_sub(self.counted_at) {
            self.counted_at = now.mono;
            self.dead = count_dead(&self.window);
        }
    }

    /// Whether the last transaction is decided, so that another may begin.
    fn is_proven(&mut self, shared: &Shared, partition: i32, now: Duration) -> Result<bool, LaneError> {
        let Some(unproven) = &mut self.unproven else { return Ok(true) };
        if now < unproven.look_at() {
            return Ok(false);
        }
        match unproven.look(&shared.stable_watermarks, partition, self.is_blind, now) {
            Proof::NotYet => return Ok(false),
            Proof::Forgotten => return Err(LaneError::Undecided),
            Proof::Decided => self.is_blind = false,
            Proof::Hidden if self.is_blind => {}
            Proof::Hidden => {
                self.is_blind = true;
                tracing::warn!(
                    partition,
                    "a stranger's transaction is open on a topic of ours and hides how ours end"
                );
            }
        }
        self.unproven = None;
        Ok(true)
    }

    /// The same, after a while if need be.
    fn is_proven_soon(&mut self, shared: &Shared, partition: i32) -> bool {
        let deadline = shared.clock.mono() + PROOF_AT_END;
        loop {
            let now = shared.clock.mono();
            match self.is_proven(shared, partition, now) {
                Ok(true) => return true,
                Ok(false) if now < deadline => {
                    let look_at = self.unproven.as_ref().map_or(now, Unproven::look_at);
                    std::thread::sleep(look_at.saturating_sub(now));
                }
                Ok(false) | Err(_) => return false,
            }
        }
    }

    fn commit_if_due(&mut self, shared: &Shared, partition: i32, now: Duration) -> Result<(), LaneError> {
        if !self.is_proven(shared, partition, now)? {
            return Ok(());
        }
        if let Some(unsent) = self.unsent.take_if(|unsent| unsent.again_at <= now) {
            return Ok(self.commit_again(shared, unsent)?);
        }
        if self.unsent.is_some() {
            return Ok(());
        }
        let tell_all = self.tell_all_after <= now.saturating_sub(self.told_all_at);
        let pending = self.pending();
        self.busy.count(pending.settlements > 0);
        let is_due = pace::commit_at(pending, self.interval(shared), now).is_some_and(|at| at <= now);
        if !is_due && !tell_all {
            return Ok(());
        }
        if tell_all {
            self.told_all_at = now;
            self.tell_all_after = TELL_ALL;
        }
        match self.window.take_commit(tell_all) {
            Some(commit) => Ok(self.commit(shared, commit)?),
            None => Ok(()),
        }
    }

    fn commit(&mut self, shared: &Shared, commit: Commit) -> Result<(), CommitError> {
        self.commit_again(shared, Unsent { commit, aborted: 0, again_at: Duration::ZERO })
    }

    fn commit_again(&mut self, shared: &Shared, unsent: Unsent) -> Result<(), CommitError> {
        let begun = shared.clock.mono();
        let Some(group) = shared.member.group_metadata() else {
            self.unsent = Some(Unsent { again_at: begun + ABORTED_PAUSE, ..unsent });
            return Ok(());
        };
        let forwards = &shared.setup.load().forwards;
        let result = self.transactor.commit(&unsent.commit, &group, forwards, self.state_end);
        let now = shared.clock.mono();
        report::transaction(shared, &result, now.saturating_sub(begun));
        match result {
            Ok(receipt) => {
                self.window.committed(&unsent.commit, &receipt.markers);
                self.state_end = receipt.state_end.unwrap_or(self.state_end).max(self.state_end);
                self.last_commit = Some(now);
                report::settlements(shared, &unsent.commit);
                self.unproven = Unproven::new(Some(unsent.commit), self.transactor.written(), now);
                Ok(())
            }
            Err(CommitError::Aborted(error)) if unsent.aborted < MAX_ABORTED => {
                tracing::info!(%error, times = unsent.aborted + 1, "a transaction was aborted and is made again");
                self.unproven = Unproven::new(None, self.transactor.written(), now);
                self.unsent =
                    Some(Unsent { aborted: unsent.aborted + 1, again_at: now + ABORTED_PAUSE, ..unsent });
                Ok(())
            }
            Err(CommitError::Aborted(error) | CommitError::ProducerLost(error)) => {
                // Kept, so that what its calls came to is not forgotten.
                self.unsent = Some(unsent);
                Err(CommitError::ProducerLost(error))
            }
            Err(error @ CommitError::StateCut { .. }) => {
                self.unsent = Some(unsent);
                Err(error)
            }
        }
    }

    fn pending(&self) -> Pending {
        let (settlements, bytes) = self.window.pending();
        // A draining lane has nothing to wait for.
        let last_commit = if self.draining.is_some() { None } else { self.last_commit };
        Pending { settlements, bytes, last_commit }
    }

    fn interval(&self, shared: &Shared) -> Duration {
        let busy = shared.busy_lanes.load(Ordering::Relaxed);
        pace::interval(shared.settings.commit_interval, busy, shared.settings.cores)
    }
}

/// Whether a lane is counted among the busy; not any more once it is dropped.
#[derive(Debug)]
struct Busy {
    lanes: Arc<AtomicUsize>,
    is_counted: bool,
}

impl Busy {
    fn count(&mut self, is_busy: bool) {
        match (self.is_counted, is_busy) {
            (false, true) => drop(self.lanes.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.lanes.fetch_sub(1, Ordering::Relaxed)),
            (false, false) | (true, true) => {}
        }
        self.is_counted = is_busy;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.count(false);
    }
}

fn count_dead(window: &Window) -> DeadCounts {
    let mut counts: DeadCounts = BTreeMap::new();
    for (burial, is_dead) in window.table().burials() {
        if is_dead {
            let name = (burial.source.clone(), burial.destination.clone(), burial.reason);
            let (count, oldest) = counts.entry(name).or_insert((0, burial.at));
            *count += 1;
            *oldest = (*oldest).min(burial.at);
        }
    }
    counts
}
