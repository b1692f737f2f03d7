//! When a lane commits.
//!
//! A transaction costs about as much as a hundred records, whatever it holds (measured, see
//! `docs/adr/0004-pace-of-commits.md`): an idle event is settled at once, and a busy process makes
//! few and large ones.

use std::time::Duration;

/// Settlements after which a lane commits without waiting.
pub const MAX_SETTLEMENTS: usize = 10_000;

/// Bytes of records to be written after which a lane commits without waiting.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The transactions a second that one core is spared for.
const TRANSACTIONS_PER_CORE: u32 = 50;

/// The least time between two commits of one lane.
pub fn interval(configured: Duration, busy_lanes: usize, cores: usize) -> Duration {
    let lanes = u32::try_from(busy_lanes).unwrap_or(u32::MAX);
    let cores = u32::try_from(cores.max(1)).unwrap_or(u32::MAX);
    configured.max(Duration::from_secs(1) * lanes / (TRANSACTIONS_PER_CORE.saturating_mul(cores)))
}

/// What a lane has to commit, and since when it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Settlements that wait.
    pub settlements: usize,
    /// Bytes of records that wait to be written.
    pub bytes: usize,
    /// When the last commit ended, on the monotonic clock; `None` for never.
    pub last_commit: Option<Duration>,
}

/// When the lane should commit, on the monotonic clock; `None` while there is nothing.
pub fn commit_at(pending: Pending, interval: Duration, now: Duration) -> Option<Duration> {
    if pending.settlements == 0 {
        return None;
    }
    if MAX_SETTLEMENTS <= pending.settlements || MAX_BYTES <= pending.bytes {
        return Some(now);
    }
    Some(pending.last_commit.map_or(now, |last| last + interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_millis(100);

    fn at(settlements: usize, bytes: usize, last_commit: Option<Duration>) -> Option<Duration> {
        commit_at(Pending { settlements, bytes, last_commit }, INTERVAL, 10 * SECOND)
    }

    #[test]
    fn nothing_is_never_committed() {
        assert_eq!(at(0, 0, None), None);
    }

    #[test]
    fn an_idle_lane_commits_at_once() {
        assert!(at(1, 100, None) <= Some(10 * SECOND));
        assert!(at(1, 100, Some(5 * SECOND)) <= Some(10 * SECOND));
    }

    #[test]
    fn a_busy_lane_waits_out_its_interval() {
        assert_eq!(
            at(1, 100, Some(10 * SECOND - Duration::from_millis(40))),
            Some(10 * SECOND + Duration::from_millis(60))
        );
    }

    #[test]
    fn a_full_lane_does_not_wait() {
        assert_eq!(at(MAX_SETTLEMENTS, 100, Some(10 * SECOND)), Some(10 * SECOND));
        assert_eq!(at(1, MAX_BYTES, Some(10 * SECOND)), Some(10 * SECOND));
    }

    #[test]
    fn the_interval_grows_with_the_number_of_busy_lanes() {
        assert_eq!(interval(INTERVAL, 1, 2), INTERVAL);
        assert_eq!(interval(INTERVAL, 12, 2), Duration::from_millis(120));
        assert_eq!(interval(INTERVAL, 64, 2), Duration::from_millis(640));
    }
}
