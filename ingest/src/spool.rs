//! The spool: where events of senders that never send again wait on the local disk while Kafka
//! cannot take them.
//!
//! An event is on the disk for good before its sender hears 200, and leaves it once Kafka has
//! acknowledged it. It may lie on Kafka twice: under one event id, so state recognises the copy, for
//! as long as it remembers.

mod drain;
mod folder;
mod frame;
mod ledger;
mod recovery;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hookwell_common::event::Event;
use hookwell_common::lifecycle::{Clock, Failure, spawn_thread};
use thiserror::Error;
use tokio::sync::oneshot;

use self::drain::{Drain, Published};
use self::folder::Folder;
use self::ledger::Ledger;
use self::recovery::{Found, recover};
use self::writer::{Entry, Files, Writer};
use crate::body::Share;
use crate::metrics::SpoolMeters;
use crate::publish::Publisher;

/// Events that may wait for the disk; their bodies count among those under way.
const MAX_ENTRIES: usize = 4096;

/// The length of a segment: the unit in which room becomes free, and what a crash publishes again.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// How many looks for Kafka a failure of the disk counts: some ten seconds.
const LOOKS_WHILE_REFUSING: u32 = 5;

/// How often the end looks whether the draining has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// An event is in the spool, on the disk for good.
///
/// Invariant: made after an fsync alone, so holding one is the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spooled(());

impl Spooled {
    fn proof() -> Self {
        Self(())
    }
}

/// Why an event is not in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SpoolError {
    /// It would hold more than it may.
    #[error("the spool is full")]
    Full,
    /// Too much waits for the disk already.
    #[error("too much waits for the spool's disk")]
    Busy,
    /// The disk refused, or did not answer in time.
    #[error("the spool cannot be written")]
    Unwritable,
}

/// What the spool's threads and its users share.
#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    changed: Condvar,
    is_away: AtomicBool,
    is_stopping: AtomicBool,
    /// Set while events have to be refused.
    is_refusing: AtomicBool,
    /// How often it was asked for Kafka since.
    refusing_looks: AtomicU32,
    meters: SpoolMeters,
}

impl Shared {
    fn new(ledger: Ledger, meters: SpoolMeters) -> Self {
        // Until somebody has asked.
        let (is_away, is_stopping) = (AtomicBool::new(true), AtomicBool::new(false));
        let (ledger, is_refusing) = (Mutex::new(ledger), AtomicBool::new(false));
        let (changed, refusing_looks) = (Condvar::new(), AtomicU32::new(0));
        Self { ledger, changed, is_away, is_stopping, is_refusing, refusing_looks, meters }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    fn notify(&self) {
        self.changed.notify_all();
    }

    /// Waits until something changes, or `patience` has passed.
    fn wait(&self, patience: Duration) {
        drop(self.changed.wait_timeout(self.ledger(), patience));
    }
}

/// The spool of this process.
#[derive(Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    entries: SyncSender<Entry>,
    patience: Duration,
    drain: JoinHandle<()>,
}

impl Spool {
    /// Opens the directory at `path`, which may hold `max_bytes`, and begins to drain what is left
    /// there by way of `publisher`. Nobody waits longer than `patience` for the disk.
    pub fn open(
        path: &Path,
        max_bytes: u64,
        patience: Duration,
        publisher: Arc<Publisher>,
        meters: SpoolMeters,
    ) -> Result<Self, Failure> {
        let cannot = |why: String| Failure::Usage(format!("ingest.spool.path = {path:?} {why}"));
        let folder = Folder::open(path).map_err(cannot)?;
        let found = recover(&folder).map_err(|error| cannot(format!("cannot be read: {error}")))?;
        meters.damaged.inc_by(found.damage);
        let ledger = begin(found, max_bytes);
        let shared = Arc::new(Shared::new(ledger, meters));
        let (entries, waiting) = sync_channel(MAX_ENTRIES);
        let writer = Writer::new(Files::new(folder.clone()), Arc::clone(&shared));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| cannot(format!("has no runtime: {error}")))?;
        let publish = move |events: &[_]| {
            let (acknowledged, failure) = runtime.block_on(publisher.publish_in_order(events));
            Published { acknowledged, failure }
        };
        let drain = Drain::new(folder, Arc::clone(&shared), publish);
        let no_thread = |error| cannot(format!("has no thread: {error}"));
        spawn_thread("spool-write", move || writer.run(waiting)).map_err(no_thread)?;
        let drain = spawn_thread("spool-drain", move || drain.run()).map_err(no_thread)?;
        Ok(Self { shared, entries, patience, drain })
    }

    /// Puts `event` on the disk, and waits until it is there for good. `share` is its body's part of the
    /// memory, for as long as it waits, also where nobody waits for it any more.
    pub async fn put(&self, event: Event, share: &Arc<Share>) -> Result<Spooled, SpoolError> {
        let (answer, answered) = oneshot::channel();
        let entry = Entry { event, answer, _share: Some(Arc::clone(share)) };
        self.entries.try_send(entry).map_err(|error| match error {
            TrySendError::Full(_) => self.too_slow(SpoolError::Busy),
            TrySendError::Disconnected(_) => self.too_slow(SpoolError::Unwritable),
        })?;
        match tokio::time::timeout(self.patience, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(self.too_slow(SpoolError::Unwritable)),
        }
    }

    /// The disk does not answer in time, which its writer cannot tell.
    fn too_slow(&self, error: SpoolError) -> SpoolError {
        self.shared.meters.unwritable.inc();
        if !self.shared.is_refusing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "the spool's disk does not answer in time; events that Kafka cannot take are answered 503 until it does"
            );
        }
        error
    }

    /// Whether events wait here, or Kafka is known to be away: then the next one belongs behind them,
    /// and to ask Kafka first would cost its sender the time-out.
    pub fn goes_first(&self) -> bool {
        self.shared.is_away() || 0 < self.shared.ledger().events()
    }

    /// Whether Kafka is known to be away.
    pub fn knows_kafka_is_away(&self) -> bool {
        self.shared.is_away()
    }

    /// Whether the last event that came was taken.
    pub fn takes(&self) -> bool {
        !self.shared.is_refusing.load(Ordering::Relaxed)
    }

    /// Says whether Kafka answers.
    pub fn set_away(&self, is_away: bool) {
        let shared = &self.shared;
        shared.is_away.store(is_away, Ordering::Relaxed);
        let looks = if self.takes() { 0 } else { shared.refusing_looks.fetch_add(1, Ordering::Relaxed) + 1 };
        // It is tried anew now and then: nobody would send anything to one that is not ready.
        if !is_away || LOOKS_WHILE_REFUSING <= looks && shared.ledger().has_plenty() {
            shared.is_refusing.store(false, Ordering::Relaxed);
            shared.refusing_looks.store(0, Ordering::Relaxed);
        }
        shared.notify();
    }

    /// Brings the gauges up to date.
    pub fn refresh(&self) {
        let ledger = self.shared.ledger();
        let meters = &self.shared.meters;
        meters.events.set(i64::try_from(ledger.events()).unwrap_or(i64::MAX));
        meters.bytes.set(i64::try_from(ledger.bytes()).unwrap_or(i64::MAX));
        meters.oldest.set(ledger.oldest().unwrap_or_default().as_seconds_f64());
    }

    /// Ends the draining, for which nobody waits longer than `patience`. What waits stays where it
    /// is, for the next start.
    pub fn stop(&self, patience: Duration) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        self.shared.notify();
        let clock = Clock::start();
        while !self.drain.is_finished() && clock.mono() < patience {
            std::thread::sleep(LOOK_AGAIN);
        }
        let events = self.shared.ledger().events();
        if 0 < events {
            tracing::warn!(events, "events stay in the spool until the next start");
        }
    }
}

fn begin(found: Found, max_bytes: u64) -> Ledger {
    if 0 < found.set_aside {
        let files = found.set_aside;
        tracing::warn!(
            files,
            "the spool's directory holds files that were set aside, for somebody to look at"
        );
    }
    // Room becomes free by the segment: several must fit.
    let segment_bytes = SEGMENT_BYTES.min(max_bytes / 4);
    let ledger = Ledger::new(found.segments, found.next_sequence, max_bytes, segment_bytes);
    if 0 < ledger.events() {
        let (events, bytes) = (ledger.events(), ledger.bytes());
        tracing::info!(events, bytes, "events wait in the spool");
    }
    ledger
}

#[cfg(test)]
#[path = "spool/spool_tests.rs"]
mod tests;
