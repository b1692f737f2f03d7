//! What lanes show of themselves, for metrics, health and the watchdog.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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

/// Threads of lanes that may be blocked for good before the process had better begin anew.
const MAX_BLOCKED: usize = 4;

/// Dead letters of one source, destination and reason that are still dead.
pub(crate) type DeadCounts = BTreeMap<(ByteString, ByteString, DeadLetterReason), (usize, Timestamp)>;

/// What one lane shows.
#[derive(Clone, Debug)]
pub(crate) struct LaneView {
    /// Where it is in its life.
    pub(crate) state: LaneState,
    /// Whether it has room for events.
    pub(crate) takes_events: bool,
    /// What its window shows.
    pub(crate) gauges: Gauges,
    /// Its dead letters, by source, destination and reason: how many, and when the oldest was
    /// written.
    pub(crate) dead: DeadCounts,
}

/// What lanes show of themselves.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// With the pulse of the host that shows it.
    lanes: Mutex<BTreeMap<i32, (Arc<Pulse>, LaneView)>>,
    hosts: Mutex<BTreeMap<usize, Arc<Pulse>>>,
    /// Hosts that were given up, and are blocked for good.
    blocked: AtomicUsize,
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
    /// Shows a lane of the host with this pulse; nothing, where that was given up.
    pub(crate) fn show(&self, host: &Arc<Pulse>, partition: i32, view: LaneView) {
        let hosts = lock(&self.hosts);
        if hosts.values().any(|known| Arc::ptr_eq(known, host)) {
            lock(&self.lanes).insert(partition, (Arc::clone(host), view));
        }
    }

    /// Takes a lane down, where it is this host that shows it.
    pub(crate) fn take_down(&self, host: &Arc<Pulse>, partition: i32) {
        let mut lanes = lock(&self.lanes);
        if lanes.get(&partition).is_some_and(|(shown_by, _)| Arc::ptr_eq(shown_by, host)) {
            lanes.remove(&partition);
        }
    }

    /// All lanes.
    pub(crate) fn lanes(&self) -> BTreeMap<i32, LaneView> {
        lock(&self.lanes).iter().map(|(partition, (_, view))| (*partition, view.clone())).collect()
    }

    /// The pulse of a host's thread.
    pub(crate) fn host_pulse(&self, host: usize) -> Arc<Pulse> {
        Arc::clone(lock(&self.hosts).entry(host).or_default())
    }

    /// Forgets a host that was given up, and all that it shows: its partitions are others' by now.
    pub(crate) fn forget_host(&self, host: usize) {
        let mut hosts = lock(&self.hosts);
        if let Some(host) = hosts.remove(&host) {
            lock(&self.lanes).retain(|_, (shown_by, _)| !Arc::ptr_eq(shown_by, &host));
        }
    }

    /// Shows how many of the hosts that were given up are blocked for good.
    pub(crate) fn set_blocked(&self, blocked: usize) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// The hosts whose threads were not seen for longer than `patience`.
    pub(crate) fn standing_hosts(&self, now: Duration, patience: Duration) -> Vec<usize> {
        let hosts = lock(&self.hosts);
        let standing = hosts.iter().filter(|(_, pulse)| patience < pulse.age(now));
        standing.map(|(number, _)| *number).collect()
    }

    /// A thread that was not seen for longer than `patience`. One that was given up is none, unless
    /// too many were.
    pub(crate) fn stalled(&self, now: Duration, patience: Duration) -> Option<&'static str> {
        if MAX_BLOCKED < self.blocked.load(Ordering::Relaxed) {
            return Some("lane");
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(board: &Board) -> Vec<i32> {
        board.lanes().into_keys().collect()
    }

    #[test]
    fn what_a_host_shows_that_was_given_up_is_gone_and_stays_gone_and_its_heirs_is_there() {
        let view = || LaneView {
            state: LaneState::Active,
            takes_events: true,
            gauges: Gauges::default(),
            dead: BTreeMap::new(),
        };
        let board = Board::default();
        let (blocked, other) = (board.host_pulse(0), board.host_pulse(1));
        board.show(&blocked, 0, view());
        board.show(&blocked, 2, view());
        board.show(&other, 1, view());
        board.forget_host(0);
        assert_eq!(shown(&board), [1]);
        board.show(&blocked, 0, view());
        assert_eq!(shown(&board), [1]);
        let heir = board.host_pulse(0);
        board.show(&heir, 0, view());
        board.take_down(&blocked, 0);
        assert_eq!(shown(&board), [0, 1]);
        board.take_down(&heir, 0);
        assert_eq!(shown(&board), [1]);
    }

    #[test]
    fn a_few_threads_that_are_blocked_for_good_are_borne_and_many_are_not() {
        let board = Board::default();
        let stalled = || board.stalled(Duration::from_secs(1), Duration::from_secs(1));
        board.set_blocked(MAX_BLOCKED);
        assert_eq!(stalled(), None);
        board.set_blocked(MAX_BLOCKED + 1);
        assert_eq!(stalled(), Some("lane"));
    }
}
