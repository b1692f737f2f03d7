//! What delivering means for destinations that are called: the trait, and who calls it.
//!
//! Handlers run on tokio, bounded by destination and over all. A call that panics or takes too
//! long is an outcome like any other.

pub mod http;

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytestring::ByteString;
use futures_util::FutureExt;
use futures_util::future::select;
use hookwell_common::config::CallLimits;
use hookwell_common::event::Event;
use hookwell_common::failpoint;
use hookwell_common::lifecycle::{Clock, spawn};
use tokio::runtime;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::delivery::{Content, Delivery};
use crate::lane::window::Completion;
use crate::outcome::{HandlerError, Outcome};

/// One call of a handler.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is delivered.
    pub event: Arc<Event>,
    /// Which call this is for this delivery, from 0.
    pub attempt: u16,
    /// How often the delivery was replayed.
    pub generation: u16,
    /// The same for every attempt of this delivery in this generation, so that a receiver can tell
    /// a call that is repeated after a crash.
    pub idempotency_key: String,
}

/// How a call ends.
pub type Handled = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

/// Delivers events. May be called again for the same delivery only after a crash between a call
/// and its commit, and then with the same [`Request::idempotency_key`].
pub trait Handler: Send + Sync + 'static {
    /// Delivers one.
    fn handle(&self, request: Request) -> Handled;
}

/// An async function is a handler.
impl<F, R> Handler for F
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    fn handle(&self, request: Request) -> Handled {
        Box::pin(self(request))
    }
}

/// Handlers by the name of their destination.
pub type Handlers = HashMap<String, Arc<dyn Handler>>;

/// Makes the calls.
pub struct Dispatcher {
    runtime: runtime::Handle,
    clock: Clock,
    all: Arc<Semaphore>,
    board: Arc<Switchboard>,
}

/// The lines to all destinations, as one configuration has them.
#[derive(Clone, Default)]
struct Switchboard {
    lines: HashMap<ByteString, Line>,
    /// Of the next configuration.
    successor: OnceLock<Arc<Switchboard>>,
}

/// What calls of one destination need.
#[derive(Clone)]
struct Line {
    handler: Arc<dyn Handler>,
    limits: CallLimits,
    permits: Arc<Semaphore>,
    /// Its own part of what may be called at once over all destinations.
    own: Arc<Semaphore>,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("destinations", &self.board.lines.keys()).finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// Calls on `runtime`, at most as many at once as `all` permits beside what each destination has
    /// of its own.
    pub fn new(runtime: runtime::Handle, clock: Clock, all: Arc<Semaphore>) -> Self {
        Self { runtime, clock, all, board: Arc::default() }
    }

    /// Lets `handler` be called for `destination`, `own` times at once whatever the others do.
    pub fn add(&mut self, destination: &str, handler: Arc<dyn Handler>, limits: CallLimits, own: usize) {
        let permits = Arc::new(Semaphore::new(limits.concurrency));
        let line = Line { handler, limits, permits, own: Arc::new(Semaphore::new(own)) };
        Arc::make_mut(&mut self.board).lines.insert(ByteString::from(destination), line);
    }

    /// From now on what waits here for its turn is called as `successor` says.
    pub fn give_way_to(&self, successor: &Dispatcher) {
        if self.board.successor.set(Arc::clone(&successor.board)).is_ok() {
            self.board.lines.values().for_each(|line| line.permits.close());
        }
    }

    /// Calls the handler of `delivery` once there is room, and tells `report` how that ended. The
    /// call is not made if its partition is not `ours` any more by then: the next owner makes it.
    pub fn call<R>(
        &self,
        delivery: &Delivery,
        ours: Arc<AtomicBool>,
        report: impl FnOnce(Completion) -> R + Send + 'static,
    ) where
        R: Future<Output = ()> + Send,
    {
        let (key, claim) = (delivery.key, delivery.claim);
        let (board, destination) = (Arc::clone(&self.board), delivery.target.name());
        let Content::Event(event) = &delivery.content else { return };
        let request = Request {
            event: Arc::clone(event),
            attempt: claim.attempt,
            generation: claim.generation,
            idempotency_key: delivery.idempotency_key(),
        };
        let (all, clock) = (Arc::clone(&self.all), self.clock);
        spawn(&self.runtime, "call", async move {
            let (outcome, took) = match connect(board, &destination).await {
                None => (Some(unknown_destination()), Duration::ZERO),
                Some((line, _permit)) => {
                    // Lives as long as somebody may wait for it.
                    let _turn = turn(&line.own, &all).await;
                    if ours.load(Ordering::Relaxed) {
                        let begun = clock.mono();
                        (Some(line.attempt(request).await), clock.mono().saturating_sub(begun))
                    } else {
                        (None, Duration::ZERO)
                    }
                }
            };
            failpoint::hit("handler-returned");
            report(Completion { key, claim, outcome, took }).await;
        });
    }
}

/// The line to `destination` once it has room: that of the newest configuration by then.
async fn connect(
    mut board: Arc<Switchboard>,
    destination: &ByteString,
) -> Option<(Line, OwnedSemaphorePermit)> {
    loop {
        while let Some(successor) = board.successor.get().cloned() {
            board = successor;
        }
        let line = board.lines.get(destination)?.clone();
        // What was closed has a successor by then.
        if let Ok(permit) = Arc::clone(&line.permits).acquire_owned().await {
            return Some((line, permit));
        }
    }
}

impl Line {
    async fn attempt(&self, request: Request) -> Outcome {
        // A handler may panic before it has a future to give.
        let call = AssertUnwindSafe(async { self.handler.handle(request).await }).catch_unwind();
        match tokio::time::timeout(self.limits.timeout, call).await {
            Ok(Ok(Ok(()))) => Outcome::Done,
            Ok(Ok(Err(error))) => Outcome::Failed(error),
            Ok(Err(_panic)) => Outcome::Failed(HandlerError::Panicked),
            Err(_elapsed) => Outcome::Failed(HandlerError::TimedOut(self.limits.timeout)),
        }
    }
}

/// A destination that was removed between the decision and the call: tried again, and then found
/// to be gone.
fn unknown_destination() -> Outcome {
    Outcome::Failed(HandlerError::Unreachable(ByteString::from_static(
        "the destination is not configured any more",
    )))
}

/// A permit of one of two kinds, whichever comes first. The wait for the other ends with it: one that
/// went on could be given a permit for a call that has one.
async fn turn<'p>(own: &'p Semaphore, all: &'p Semaphore) -> Result<SemaphorePermit<'p>, AcquireError> {
    select(pin!(own.acquire()), pin!(all.acquire())).await.factor_first().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Place, Stream, Target};
    use crate::lane::ledger::Offset;
    use crate::route::tests::plan;
    use crate::state::{Claim, StateKey};
    use hookwell_common::record::Origin;

    fn delivery() -> Delivery {
        let plan = plan("[[destinations]]\nname = 'd'\nkind = 'custom'");
        let event = Event {
            source: "s".into(),
            id: "1".into(),
            kind: "k".into(),
            time: "t".into(),
            content_type: None,
            traceparent: None,
            kept_headers: vec![],
            body: "b".into(),
        };
        Delivery {
            key: StateKey::of("s", "1", "d"),
            place: Place { stream: Stream::Events, offset: Offset(0) },
            claim: Claim { generation: 0, attempt: 2, forced: false },
            content: Content::Event(Arc::new(event)),
            target: Target::Destination(Arc::clone(plan.destination("d").unwrap())),
            first_failed_at: None,
            not_before: None,
            origin: Origin { topic: "t".into(), partition: 0, offset: 0 },
            replayed_from: None,
        }
    }

    fn outcome_of(handler: impl Handler, limits: CallLimits) -> Completion {
        completion_of(handler, limits, true)
    }

    fn completion_of(handler: impl Handler, limits: CallLimits, is_ours: bool) -> Completion {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut dispatcher =
            Dispatcher::new(runtime.handle().clone(), Clock::start(), Arc::new(Semaphore::new(1)));
        dispatcher.add("d", Arc::new(handler), limits, 0);
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let ours = Arc::new(AtomicBool::new(is_ours));
        dispatcher.call(&delivery(), ours, async move |completion| sender.send(completion).unwrap());
        receiver.recv().unwrap()
    }

    #[test]
    fn a_handler_is_told_what_it_needs_and_its_answer_is_the_outcome() {
        let handler = async |request: Request| {
            assert_eq!((request.attempt, request.generation), (2, 0));
            assert_eq!(
                request.idempotency_key,
                crate::delivery::idempotency_key(&StateKey::of("s", "1", "d"), 0)
            );
            Err(HandlerError::Transient("busy".into()))
        };
        let completion = outcome_of(handler, CallLimits::default());
        assert_eq!(completion.outcome, Some(Outcome::Failed(HandlerError::Transient("busy".into()))));
        assert_eq!(completion.claim.attempt, 2);
    }

    #[test]
    fn a_handler_that_panics_or_hangs_is_an_outcome_like_any_other() {
        let completion = outcome_of(|_| async { panic!("poison") }, CallLimits::default());
        assert_eq!(completion.outcome, Some(Outcome::Failed(HandlerError::Panicked)));
        let at_once = |_: Request| -> std::future::Ready<Result<(), HandlerError>> { panic!("poison") };
        let completion = outcome_of(at_once, CallLimits::default());
        assert_eq!(completion.outcome, Some(Outcome::Failed(HandlerError::Panicked)));
        let limits = CallLimits { timeout: Duration::from_millis(20), concurrency: 1 };
        let completion = outcome_of(|_| std::future::pending(), limits);
        assert_eq!(completion.outcome, Some(Outcome::Failed(HandlerError::TimedOut(limits.timeout))));
    }

    #[test]
    fn a_call_that_waits_is_not_made_once_the_partition_is_given_back() {
        let completion = completion_of(|_| async { panic!("it was called") }, CallLimits::default(), false);
        assert_eq!(completion.outcome, None);
    }

    #[test]
    fn a_destination_is_not_kept_waiting_by_others_that_hang() {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut dispatcher =
            Dispatcher::new(runtime.handle().clone(), Clock::start(), Arc::new(Semaphore::new(1)));
        let limits = CallLimits { timeout: Duration::from_secs(60), concurrency: 9 };
        let (begin, begun) = std::sync::mpsc::sync_channel(9);
        let hangs = move |_| {
            begin.send(()).unwrap();
            std::future::pending()
        };
        dispatcher.add("slow", Arc::new(hangs), limits, 1);
        dispatcher.add("d", Arc::new(async |_| Ok(())), limits, 1);
        let mut slow = delivery();
        let plan = plan("[[destinations]]\nname = 'slow'\nkind = 'custom'");
        slow.target = Target::Destination(Arc::clone(plan.destination("slow").unwrap()));
        let (sender, receiver) = std::sync::mpsc::sync_channel(9);
        let call = |delivery: &Delivery| {
            let (sender, ours) = (sender.clone(), Arc::new(AtomicBool::new(true)));
            dispatcher.call(delivery, ours, async move |completion| sender.send(completion.outcome).unwrap());
        };
        (0..5).for_each(|_| call(&slow));
        // Its own and the one that is anybody's; the others wait for their turn.
        (0..2).for_each(|_| begun.recv().unwrap());
        call(&delivery());
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)).unwrap(), Some(Outcome::Done));
        assert!(begun.try_recv().is_err(), "more calls at once than are allowed");
    }

    #[test]
    fn a_call_that_waits_is_made_as_the_newest_configuration_says() {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dispatcher =
            || Dispatcher::new(runtime.handle().clone(), Clock::start(), Arc::new(Semaphore::new(9)));
        let limits = CallLimits { timeout: Duration::from_secs(60), concurrency: 1 };
        let (mut old, mut new, newest) = (dispatcher(), dispatcher(), dispatcher());
        let (begin, begun) = std::sync::mpsc::sync_channel(1);
        let hangs = move |_| {
            begin.send(()).unwrap();
            std::future::pending()
        };
        old.add("d", Arc::new(hangs), limits, 0);
        new.add("d", Arc::new(async |_| Ok(())), limits, 0);
        let (sender, receiver) = std::sync::mpsc::sync_channel(9);
        let call = |dispatcher: &Dispatcher| {
            let (sender, ours) = (sender.clone(), Arc::new(AtomicBool::new(true)));
            dispatcher
                .call(&delivery(), ours, async move |completion| sender.send(completion.outcome).unwrap());
        };
        call(&old);
        begun.recv().unwrap();
        call(&old);
        old.give_way_to(&new);
        assert_eq!(receiver.recv().unwrap(), Some(Outcome::Done), "the second of the two");
        call(&old);
        assert_eq!(receiver.recv().unwrap(), Some(Outcome::Done), "one that was decided before");
        new.give_way_to(&newest);
        call(&old);
        assert_eq!(receiver.recv().unwrap(), Some(unknown_destination()), "it is gone by now");
    }
}
