//! What lanes show of themselves, for metrics, health and the watchdog.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use hookwell_common::time::Timestamp;

use crate::dead_letter::DeadLetterReason;
use crate::lane::window::Gauges;
use crate::shared::lock;

/// Where a lane is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LaneState {
    /// Taking over: nothing is handled yet.
    Restoring,
    /// At work.
    Active,
    /// Finishing what is open.
    Draining,
}

impl LaneState {
    /// All of them, in the order of their documentation.
    pub(crate) const ALL: [LaneState; 3] = [LaneState::Restoring, LaneState::Active, LaneState::Draining];

    /// The word in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            LaneState::Restoring => "restoring",
            LaneState::Active => "active",
            LaneState::Draining => "draining",
        }
    }
}

/// Dead letters of one source, destination and reason that are still dead.
pub(crate) type DeadCounts = BTreeMap<(ByteString, ByteString, DeadLetterReason), (usize, Timestamp)>;

/// What one lane shows.
#[derive(Clone, Debug)]
pub(crate) struct LaneView {
    /// Where it is in its life.
    pub(crate) state: LaneState,
    /// What its window shows.
    pub(crate) gauges: Gauges,
    /// Its dead letters, by source, destination and reason: how many, and when the oldest was
    /// written.
    pub(crate) dead: DeadCounts,
}

/// What lanes show of themselves.
#[derive(Debug, Default)]
pub(crate) struct Board {
    lanes: Mutex<BTreeMap<i32, LaneView>>,
    hosts: Mutex<BTreeMap<usize, std::sync::Arc<Pulse>>>,
    /// The member's join state, as librdkafka tells it.
    joined: Mutex<bool>,
    member: Pulse,
    follower: Pulse,
}

/// When a thread was last seen between two steps of its loop, in milliseconds on the monotonic
/// clock.
#[derive(Debug, Default)]
pub(crate) struct Pulse(AtomicU64);

impl Pulse {
    /// The thread is alive at `now`.
    pub(crate) fn beat(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long ago the last beat was; zero where there was none yet.
    pub(crate) fn age(&self, now: Duration) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            last => now.saturating_sub(Duration::from_millis(last)),
        }
    }
}

impl Board {
    /// Shows a lane.
    pub(crate) fn show(&self, partition: i32, view: LaneView) {
        lock(&self.lanes).insert(partition, view);
    }

    /// Takes a lane down.
    pub(crate) fn take_down(&self, partition: i32) {
        lock(&self.lanes).remove(&partition);
    }

    /// All lanes.
    pub(crate) fn lanes(&self) -> BTreeMap<i32, LaneView> {
        lock(&self.lanes).clone()
    }

    /// The pulse of a host's thread.
    pub(crate) fn host_pulse(&self, host: usize) -> std::sync::Arc<Pulse> {
        std::sync::Arc::clone(lock(&self.hosts).entry(host).or_default())
    }

    /// Forgets the thread of a host that was given up.
    pub(crate) fn forget_host(&self, host: usize) {
        lock(&self.hosts).remove(&host);
    }

    /// The hosts whose threads were not seen for longer than `patience`.
    pub(crate) fn standing_hosts(&self, now: Duration, patience: Duration) -> Vec<usize> {
        let hosts = lock(&self.hosts);
        let standing = hosts.iter().filter(|(_, pulse)| patience < pulse.age(now));
        standing.map(|(number, _)| *number).collect()
    }

    /// A thread that was not seen for longer than `patience`.
    pub(crate) fn stalled(&self, now: Duration, patience: Duration) -> Option<&'static str> {
        let slowest_host = lock(&self.hosts).values().map(|pulse| pulse.age(now)).max().unwrap_or_default();
        let threads =
            [("poll", self.member.age(now)), ("follow", self.follower.age(now)), ("lane", slowest_host)];
        threads.into_iter().find(|(_, age)| patience < *age).map(|(name, _)| name)
    }

    /// The member's pulse.
    pub(crate) fn member(&self) -> &Pulse {
        &self.member
    }

    /// The follower's pulse.
    pub(crate) fn follower(&self) -> &Pulse {
        &self.follower
    }

    /// Whether the member has its place in the group.
    pub(crate) fn has_joined(&self) -> bool {
        *lock(&self.joined)
    }

    /// Tells whether the member has its place in the group.
    pub(crate) fn set_joined(&self, joined: bool) {
        *lock(&self.joined) = joined;
    }
}
