//! The thread on which lanes live: most hosts have one, and beyond `max_lanes` they share.
//!
//! Librdkafka's transaction calls block, so lanes have threads of their own and tokio none of
//! those calls. A host that is blocked for good is given up by the member, which starts another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select};
use hookwell_common::failpoint;
use hookwell_common::lifecycle::{Failure, spawn_thread};

use super::active::{Active, LaneError};
use super::mail::{Epoch, FollowOrder, Followed, News, Order, Ownership, Report, Session};
use super::recall::Recollection;
use super::take_over::{LOOK_AGAIN, Restoring, Steadying, TakeOverError};
use crate::board::{LaneState, LaneView, Pulse};
use crate::setup::Setup;
use crate::shared::{Shared, lock};

/// The longest that a host sleeps: its pulse must show.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// How often a lane shows its gauges.
const SHOW: Duration = Duration::from_millis(500);

/// Before a take-over that failed begins anew.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Messages of each kind that are taken before lanes may commit again.
const ROUND: usize = 256;

/// A running host.
#[derive(Debug)]
pub(crate) struct Host {
    /// Orders for it.
    pub(crate) orders: crossbeam_channel::Sender<Order>,
    given_up: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Host {
    /// Starts the thread of host number `number`.
    pub(crate) fn start(number: usize, shared: Arc<Shared>) -> std::io::Result<Self> {
        let (orders, receiver) = crossbeam_channel::bounded(1024);
        let given_up = Arc::new(AtomicBool::new(false));
        let pulse = shared.board.host_pulse(number);
        let running = Running {
            shared,
            orders: receiver,
            lanes: BTreeMap::new(),
            given_up: Arc::clone(&given_up),
            pulse,
        };
        let thread = spawn_thread(format!("lane-{number}"), move || running.run())?;
        Ok(Self { orders, given_up, thread })
    }

    /// Leaves it to itself: what it does from now on counts for nothing, and it ends once what blocks
    /// it has.
    pub(crate) fn give_up(self) -> JoinHandle<()> {
        self.given_up.store(true, Ordering::Relaxed);
        self.thread
    }

    /// Closes its orders: it ends once it has no lane any more.
    pub(crate) fn end(self) -> JoinHandle<()> {
        self.thread
    }
}

struct Running {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    lanes: BTreeMap<i32, Lane>,
    given_up: Arc<AtomicBool>,
    pulse: Arc<Pulse>,
}

/// One owned partition.
struct Lane {
    ownership: Ownership,
    /// By this the board knows who shows it.
    host: Arc<Pulse>,
    session: Session,
    phase: Phase,
    recollection: Recollection,
    pause: Duration,
    shown_at: Duration,
    /// Set once it lost its producer while it drained: there is nothing left to finish.
    is_finished: bool,
}

/// Where a lane is in its life.
enum Phase {
    /// Its take-over begins at this moment.
    Waiting(Duration),
    /// Fenced; its states may be hidden until somebody's transaction ends.
    Steadying(Box<Steadying>, Duration),
    /// Reading states.
    Restoring(Box<Restoring>),
    /// At work, or finishing.
    Active(Box<Active>),
}

impl Running {
    fn run(mut self) {
        let mut has_orders = true;
        while (has_orders || !self.lanes.is_empty()) && !self.given_up.load(Ordering::Relaxed) {
            has_orders &= self.wait(has_orders);
            self.pulse.beat(self.shared.clock.mono());
            let setup = self.shared.setup.load_full();
            let mut gone = Vec::new();
            for (partition, lane) in &mut self.lanes {
                if self.given_up.load(Ordering::Relaxed) {
                    return;
                }
                if lane.step(&self.shared, &setup) {
                    gone.push(*partition);
                }
            }
            for partition in gone {
                if let Some(lane) = self.lanes.remove(&partition) {
                    lane.let_go(&self.shared);
                }
            }
        }
    }

    /// Sleeps until something comes or is due, and takes the orders. `false` once nobody can give
    /// any more.
    fn wait(&mut self, has_orders: bool) -> bool {
        let now = self.shared.clock.mono();
        let due = self.lanes.values().map(|lane| lane.next_step(&self.shared, now)).min();
        let sleep = due.map_or(LONGEST_SLEEP, |due| due.saturating_sub(now)).min(LONGEST_SLEEP);
        let mut select = Select::new();
        if has_orders {
            select.recv(&self.orders);
        }
        for lane in self.lanes.values() {
            lane.listen(&mut select);
        }
        // What came is found by trying: the answer would only name one of several.
        select.ready_timeout(sleep).ok();
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.obey(order),
                Err(crossbeam_channel::TryRecvError::Empty) => return true,
                Err(crossbeam_channel::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Own(ownership) => {
                let lane = Lane::new(ownership, &self.shared, Arc::clone(&self.pulse));
                lane.show(&self.shared, LaneState::Restoring);
                self.lanes.insert(lane.ownership.partition, lane);
            }
            Order::Drain { partition, epoch, deadline } => {
                let owned = self.lanes.get_mut(&partition).filter(|lane| lane.ownership.epoch == epoch);
                match owned.map(|lane| lane.drain(deadline)) {
                    Some(true) => {}
                    Some(false) => {
                        if let Some(lane) = self.lanes.remove(&partition) {
                            lane.let_go(&self.shared);
                        }
                    }
                    None => drop(self.shared.to_member.send(Report::Drained { partition, epoch })),
                }
            }
            Order::Abandon { partition, epoch } => {
                if self.lanes.get(&partition).is_some_and(|lane| lane.ownership.epoch == epoch)
                    && let Some(lane) = self.lanes.remove(&partition)
                {
                    lane.abandon(&self.shared);
                }
            }
        }
    }
}

impl Lane {
    fn new(ownership: Ownership, shared: &Shared, host: Arc<Pulse>) -> Self {
        let now = shared.clock.mono();
        tracing::info!(partition = ownership.partition, epoch = ownership.epoch.0, "taking over");
        Self {
            session: shared.next_session(),
            phase: Phase::Waiting(now),
            recollection: lock(&shared.recollections).remove(&ownership.partition).unwrap_or_default(),
            ownership,
            host,
            pause: FIRST_PAUSE,
            shown_at: Duration::ZERO,
            is_finished: false,
        }
    }

    fn names(&self) -> (i32, Epoch) {
        (self.ownership.partition, self.ownership.epoch)
    }

    fn listen<'l>(&'l self, select: &mut Select<'l>) {
        select.recv(&self.ownership.ears.follow);
        select.recv(&self.ownership.ears.completions);
        if let Phase::Active(active) = &self.phase
            && active.wants_events()
        {
            select.recv(&self.ownership.ears.events);
        }
    }

    fn next_step(&self, shared: &Shared, now: Duration) -> Duration {
        match &self.phase {
            Phase::Waiting(until) | Phase::Steadying(_, until) => *until,
            Phase::Restoring(_) => now + LONGEST_SLEEP,
            Phase::Active(active) => active.next_step(shared, now),
        }
    }

    /// Does what can be done now. `true` once the partition is to be let go.
    fn step(&mut self, shared: &Shared, setup: &Setup) -> bool {
        let now = shared.clock.mono();
        if !matches!(self.phase, Phase::Active(_)) {
            self.hear_of_earlier_calls();
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Waiting(now));
        let next = match phase {
            Phase::Waiting(until) if now < until => Ok(Phase::Waiting(until)),
            Phase::Waiting(_) => self.begin(shared),
            Phase::Steadying(steadying, look_at) => self.steady(steadying, look_at, shared),
            Phase::Restoring(restoring) => self.restore(restoring, shared),
            Phase::Active(active) => Ok(self.work(active, shared, setup)),
        };
        match next {
            Ok(phase) => self.phase = phase,
            Err(error) => self.fail(&error, shared),
        }
        match &self.phase {
            Phase::Active(active) => active.is_drained(shared.clock.mono()),
            Phase::Waiting(_) | Phase::Steadying(..) | Phase::Restoring(_) => self.is_finished,
        }
    }

    /// Calls that an earlier life of this lane made end while it takes over anew.
    fn hear_of_earlier_calls(&mut self) {
        for completion in self.ownership.ears.completions.try_iter() {
            if let Some(outcome) = completion.outcome {
                self.recollection.know(completion.key, completion.claim, outcome);
            }
        }
        if !matches!(self.phase, Phase::Restoring(_)) {
            // What the follower read for an earlier session.
            self.ownership.ears.follow.try_iter().for_each(drop);
        }
    }

    fn begin(&mut self, shared: &Shared) -> Result<Phase, TakeOverError> {
        self.session = shared.next_session();
        let steadying = Steadying::begin(shared, &self.ownership)?;
        Ok(Phase::Steadying(Box::new(steadying), Duration::ZERO))
    }

    fn steady(
        &mut self,
        mut steadying: Box<Steadying>,
        look_at: Duration,
        shared: &Shared,
    ) -> Result<Phase, TakeOverError> {
        let now = shared.clock.mono();
        if now < look_at {
            return Ok(Phase::Steadying(steadying, look_at));
        }
        if steadying.is_steady(shared, self.ownership.partition)? {
            Ok(Phase::Restoring(Box::new(steadying.restore(shared, &self.ownership, self.session))))
        } else {
            Ok(Phase::Steadying(steadying, now + LOOK_AGAIN))
        }
    }

    fn restore(&mut self, mut restoring: Box<Restoring>, shared: &Shared) -> Result<Phase, TakeOverError> {
        for _ in 0..ROUND {
            let Ok(Followed { session, news }) = self.ownership.ears.follow.try_recv() else { break };
            match news {
                News::States(states) if session == self.session => {
                    restoring.take(states, self.ownership.partition, shared.clock.mono())?;
                }
                News::StatesEnd if session == self.session => {
                    // Kept until it is handed on: a take-over that fails here must not forget it.
                    let recollection = self.recollection.clone();
                    let restored = restoring.finish(shared, &self.ownership, recollection)?;
                    self.recollection = Recollection::default();
                    return Ok(self.go_to_work(restored, shared));
                }
                News::States(_) | News::StatesEnd | News::Retries(_) => {}
            }
        }
        if restoring.is_stuck(shared.clock.mono()) {
            return Err(TakeOverError::NoProgress);
        }
        Ok(Phase::Restoring(restoring))
    }

    fn go_to_work(&mut self, restored: super::take_over::Restored, shared: &Shared) -> Phase {
        let (partition, epoch) = self.names();
        let ids = restored.window.table().len();
        let millis = restored.took.as_secs_f64() * 1000.0;
        let digest = failpoint::IS_FOR_TESTS.then(|| format!("{:016x}", restored.window.table().digest()));
        tracing::info!(
            partition,
            epoch = epoch.0,
            ids,
            start = restored.start,
            millis,
            digest,
            "restored and at work"
        );
        shared.metrics.restore_seconds.observe(restored.took.as_secs_f64());
        let (starts, start) = (restored.retry_starts.clone(), restored.start);
        let active = Active::new(restored, shared, shared.clock.mono());
        let follow = FollowOrder::Follow {
            partition,
            session: self.session,
            starts,
            lane: self.ownership.follow.clone(),
            loads: Arc::clone(active.loads()),
        };
        shared.to_follower.send(follow).ok();
        shared.to_member.send(Report::Ready { partition, epoch, session: self.session, start }).ok();
        self.pause = FIRST_PAUSE;
        Phase::Active(Box::new(active))
    }

    fn work(&mut self, mut active: Box<Active>, shared: &Shared, setup: &Setup) -> Phase {
        match self.take_in(&mut active, shared, setup) {
            Ok(()) => {
                let now = shared.clock.mono();
                if SHOW <= now.saturating_sub(self.shown_at) {
                    self.shown_at = now;
                    let state = if active.is_draining() { LaneState::Draining } else { LaneState::Active };
                    let (gauges, dead) = (active.window().gauges(), active.dead().clone());
                    shared.board.show(
                        &self.host,
                        self.ownership.partition,
                        LaneView { state, takes_events: active.wants_events(), gauges, dead },
                    );
                }
                Phase::Active(active)
            }
            Err(error) => {
                let (partition, epoch) = self.names();
                if active.is_draining() {
                    tracing::warn!(partition, %error, "not everything was committed before handing back; the next owner repeats it");
                    self.is_finished = true;
                    return Phase::Waiting(Duration::MAX);
                }
                tracing::warn!(partition, %error, "taking over anew");
                shared.to_member.send(Report::Lost { partition, epoch }).ok();
                self.leave(shared);
                self.recollection = active.into_recollection();
                self.show(shared, LaneState::Restoring);
                Phase::Waiting(shared.clock.mono() + self.next_pause())
            }
        }
    }

    fn take_in(&mut self, active: &mut Active, shared: &Shared, setup: &Setup) -> Result<(), LaneError> {
        let ears = &self.ownership.ears;
        for completion in ears.completions.try_iter().take(ROUND * 8) {
            active.complete(completion, shared.clock.now(), setup)?;
        }
        for Followed { session, news } in ears.follow.try_iter().take(ROUND) {
            if let News::Retries(arrivals) = news
                && session == self.session
            {
                active.arrive(arrivals, shared.clock.now(), setup)?;
            }
        }
        while active.wants_events() {
            let Ok((session, arrivals)) = ears.events.try_recv() else { break };
            if session == self.session {
                active.arrive(arrivals, shared.clock.now(), setup)?;
            }
        }
        active.advance(shared, setup, &self.ownership)
    }

    /// Begins to finish what is open. `false` where nothing was begun, and the partition can go at
    /// once.
    fn drain(&mut self, deadline: Duration) -> bool {
        tracing::info!(partition = self.ownership.partition, "asked to hand back");
        let Phase::Active(active) = &mut self.phase else { return false };
        active.drain(deadline);
        self.shown_at = Duration::ZERO;
        true
    }

    /// The lane is drained.
    fn let_go(self, shared: &Shared) {
        let (partition, epoch) = self.names();
        self.leave(shared);
        if let Phase::Active(active) = self.phase {
            active.hand_back(shared, partition);
        }
        shared.board.take_down(&self.host, partition);
        tracing::info!(partition, epoch = epoch.0, "handed back");
        shared.to_member.send(Report::Drained { partition, epoch }).ok();
    }

    /// The partition is gone already. Should it come back, what its calls came to is not forgotten.
    fn abandon(self, shared: &Shared) {
        let partition = self.ownership.partition;
        self.leave(shared);
        shared.board.take_down(&self.host, partition);
        let mut recollection = self.recollection;
        if let Phase::Active(active) = self.phase {
            recollection.extend(active.into_recollection());
        }
        for completion in self.ownership.ears.completions.try_iter() {
            if let Some(outcome) = completion.outcome {
                recollection.know(completion.key, completion.claim, outcome);
            }
        }
        lock(&shared.recollections).insert(partition, recollection.into_known());
    }

    /// The take-over failed; it begins anew, unless that cannot help.
    fn fail(&mut self, error: &TakeOverError, shared: &Shared) {
        let partition = self.ownership.partition;
        self.leave(shared);
        if error.is_final() {
            shared.downfall.cause(Failure::Kafka(error.to_string()));
            self.phase = Phase::Waiting(Duration::MAX);
            return;
        }
        if matches!(error, TakeOverError::NoProgress) {
            shared.to_follower.send(FollowOrder::Renew).ok();
        }
        let pause = self.next_pause();
        tracing::warn!(partition, %error, again_in_ms = pause.as_millis(), "the take-over failed");
        self.phase = Phase::Waiting(shared.clock.mono() + pause);
    }

    /// Nothing more is to be read for this take-over.
    fn leave(&self, shared: &Shared) {
        let order = FollowOrder::Leave { partition: self.ownership.partition, session: self.session };
        shared.to_follower.send(order).ok();
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    fn show(&self, shared: &Shared, state: LaneState) {
        let gauges = crate::lane::window::Gauges::default();
        let view = LaneView { state, takes_events: false, gauges, dead: BTreeMap::new() };
        shared.board.show(&self.host, self.ownership.partition, view);
    }
}
