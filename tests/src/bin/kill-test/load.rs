//! Three senders, each of which sends until it is heard: a 503, a refused connection and a broken
//! one make it send the same event again. One event in ten is sent twice although it was accepted.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use hookwell_common::lifecycle::spawn_thread;
use hookwell_tests::sender::{Sender, post_until_accepted};
use hookwell_tests::wait;

const SENDERS: [Sender; 3] = [Sender::GitHub, Sender::Stripe, Sender::Shopify];

/// Connections of each sender.
const CONNECTIONS: usize = 2;

/// The most that one connection sends a second.
const PACE: Duration = Duration::from_millis(12);

/// The load under way.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<Result<()>>>>,
}

struct Shared {
    port: u16,
    events: usize,
    go: AtomicBool,
    next: AtomicUsize,
    accepted: Mutex<BTreeSet<(String, String)>>,
}

impl Load {
    /// Senders that wait for [`Load::go`].
    pub(crate) fn start(port: u16, events: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            port,
            events,
            go: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            accepted: Mutex::default(),
        });
        let thread = |number| {
            let shared = Arc::clone(&shared);
            spawn_thread(format!("sender-{number}"), move || shared.send())
        };
        let threads = (0..SENDERS.len() * CONNECTIONS).map(thread).collect::<std::io::Result<_>>()?;
        Ok(Self { shared, threads: Mutex::new(threads) })
    }

    /// Has the senders begin.
    pub(crate) fn go(&self) {
        self.shared.go.store(true, Ordering::Relaxed);
    }

    /// Whether everything is sent.
    pub(crate) fn is_through(&self) -> bool {
        self.shared.events <= self.sent()
    }

    /// How many events heard a 200.
    pub(crate) fn sent(&self) -> usize {
        self.shared.accepted.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Every event that heard a 200.
    pub(crate) fn accepted(&self) -> BTreeSet<(String, String)> {
        self.shared.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the senders.
    pub(crate) fn join(&self) -> Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.drain(..).try_for_each(|thread| thread.join().map_err(|_| anyhow!("a sender panicked"))?)
    }
}

impl Shared {
    fn send(&self) -> Result<()> {
        while !self.go.load(Ordering::Relaxed) {
            wait::pause(PACE);
        }
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if self.events <= number {
                return Ok(());
            }
            let sender = SENDERS[number % SENDERS.len()];
            let event = sender.event(&format!("event-{number}"));
            let times = if number.is_multiple_of(10) { 2 } else { 1 };
            for _ in 0..times {
                post_until_accepted(self.port, &event)?;
            }
            let name = (event.source, event.id);
            self.accepted.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
            wait::pause(PACE);
        }
    }
}
