//! Steady load: senders that each send until they are heard. A 503, a refused connection and a broken
//! one make them send the same event again. One event in ten is sent twice although it was accepted.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use hookwell_common::lifecycle::{Clock, spawn_thread};

use crate::ledger::{self, Ledger};
use crate::sender::{Sender, Signed, post, until_accepted};
use crate::wait;

const SENDERS: [Sender; 3] = [Sender::GitHub, Sender::Stripe, Sender::Shopify];

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Events to be sent at most, copies not counted.
    pub events: usize,
    /// Connections of each of the three senders.
    pub connections: usize,
    /// How long a connection waits between two events, but between [`Load::hurry`] and [`Load::ease`].
    pub pause: Duration,
}

/// The load under way.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<Result<()>>>>,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    plan: Plan,
    name: String,
    ledger: Option<Arc<Ledger>>,
    clock: Clock,
    is_hurried: AtomicBool,
    go: AtomicBool,
    stop: AtomicBool,
    next: AtomicUsize,
    accepted: Mutex<BTreeSet<(String, String)>>,
}

impl Load {
    /// Senders to the ingest on `port` that wait for [`Load::go`].
    pub fn start(port: u16, plan: Plan) -> Result<Self> {
        Self::start_with(port, plan, "event", None)
    }

    /// [`Load::start`], with ids that begin with `name`, and a ledger of every answer.
    pub fn start_noting(port: u16, plan: Plan, name: &str, ledger: &Arc<Ledger>) -> Result<Self> {
        Self::start_with(port, plan, name, Some(Arc::clone(ledger)))
    }

    fn start_with(port: u16, plan: Plan, name: &str, ledger: Option<Arc<Ledger>>) -> Result<Self> {
        let shared = Arc::new(Shared {
            port,
            plan,
            name: name.to_owned(),
            ledger,
            clock: Clock::start(),
            is_hurried: AtomicBool::new(false),
            go: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            accepted: Mutex::default(),
        });
        let thread = |number| {
            let shared = Arc::clone(&shared);
            spawn_thread(format!("sender-{number}"), move || shared.send())
        };
        let threads = (0..SENDERS.len() * plan.connections).map(thread).collect::<std::io::Result<_>>()?;
        Ok(Self { shared, threads: Mutex::new(threads) })
    }

    /// Has the senders begin.
    pub fn go(&self) {
        self.shared.go.store(true, Ordering::Relaxed);
    }

    /// Has each connection send an event every ten milliseconds.
    pub fn hurry(&self) {
        self.shared.is_hurried.store(true, Ordering::Relaxed);
    }

    /// Ends [`Load::hurry`].
    pub fn ease(&self) {
        self.shared.is_hurried.store(false, Ordering::Relaxed);
    }

    /// Whether everything is sent.
    pub fn is_through(&self) -> bool {
        self.shared.plan.events <= self.sent()
    }

    /// How many events heard a 200.
    pub fn sent(&self) -> usize {
        self.shared.accepted.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until so many more events heard a 200.
    pub fn until_sent(&self, more: usize) -> Result<()> {
        let enough = self.sent() + more;
        wait::until("events to be accepted", || Ok((enough <= self.sent()).then_some(())))
    }

    /// Every event that heard a 200.
    pub fn accepted(&self) -> BTreeSet<(String, String)> {
        self.shared.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the senders.
    pub fn join(&self) -> Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.drain(..).try_for_each(|thread| thread.join().map_err(|_| anyhow!("a sender panicked"))?)
    }

    /// Ends it once what is under way is accepted, and gives every event that heard a 200.
    pub fn stop(&self) -> Result<BTreeSet<(String, String)>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.go();
        self.join()?;
        Ok(self.accepted())
    }
}

/// A test that failed must not leave senders behind that wait for nobody.
impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.go();
    }
}

impl Shared {
    fn send(&self) -> Result<()> {
        while !self.go.load(Ordering::Relaxed) {
            self.pause();
        }
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if self.plan.events <= number {
                break;
            }
            let sender = SENDERS[number % SENDERS.len()];
            let event = sender.event(&format!("{}-{number}", self.name));
            let times = if number.is_multiple_of(10) { 2 } else { 1 };
            for _ in 0..times {
                self.post_until_accepted(&event)?;
            }
            let name = (event.source, event.id);
            self.accepted.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
            self.pause();
        }
        Ok(())
    }

    fn pause(&self) {
        let is_hurried = self.is_hurried.load(Ordering::Relaxed);
        wait::pause(if is_hurried { Duration::from_millis(10) } else { self.plan.pause });
    }

    /// Posts until it is heard, and notes each answer.
    fn post_until_accepted(&self, event: &Signed) -> Result<()> {
        let now = || self.clock.now().wall.as_millis();
        until_accepted(|| {
            let sent = now();
            let answer = post(self.port, event);
            if let Some(ledger) = &self.ledger {
                let status = answer.as_ref().map_or(0, |(status, _)| *status);
                ledger.answered(&ledger::answer(event, sent, Some(now()), status));
            }
            answer
        })
    }
}
