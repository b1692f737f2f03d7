//! When a failed delivery is tried again: tiers of fixed delays, one topic each.
//!
//! A delay is never shortened: jitter is added, `Retry-After` is rounded up to a tier, and what
//! the clock of another process wrote is only bounded from above.

use std::time::Duration;

use hookwell_common::config::RetryLimits;
use hookwell_common::time::{Now, Timestamp};

/// A retry topic, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tier(pub u16);

/// The delays, and how often and how long one destination is tried.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// From the shortest to the longest; never empty.
    pub tiers: Vec<Duration>,
    /// The bounds.
    pub limits: RetryLimits,
}

/// When a delivery is tried again, and where it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// The topic.
    pub tier: Tier,
    /// How long at least.
    pub wait: Duration,
}

/// Longer than any delay that somebody plausibly configured: what a handler or a record asks for
/// beyond it is a mistake, a skewed clock or a forged header, and must not hold its place for ever.
const CEILING: Duration = Duration::from_secs(24 * 3600);

impl RetryPolicy {
    /// The delay after attempt number `attempt` failed. `retry_after` is what the handler asked
    /// for, `jitter` a number from 0 to 1 that spreads deliveries.
    pub fn delay_after(&self, attempt: u16, retry_after: Option<Duration>, jitter: f64) -> Delay {
        let last = self.tiers.len() - 1;
        let by_attempt = usize::from(attempt).min(last);
        let by_request = retry_after
            .map_or(0, |wanted| self.tiers.iter().position(|tier| wanted <= *tier).unwrap_or(last));
        let index = by_attempt.max(by_request);
        // Who asks for longer than any tier waits in the last one for as long as was asked.
        let base = self.tiers[index].max(retry_after.unwrap_or_default().min(CEILING));
        let wait = base.mul_f64(1.0 + self.limits.jitter * jitter.clamp(0.0, 1.0));
        Delay { tier: Tier(u16::try_from(index + 1).unwrap_or(u16::MAX)), wait }
    }

    /// Whether attempt number `attempt` was the last.
    pub fn is_last(&self, attempt: u16) -> bool {
        attempt.saturating_add(1) >= self.limits.max_attempts
    }
}

/// The moment, on the monotonic clock, at which a waiting record is due. `not_before` is what it
/// carries and `appended_at` the broker's clock when it was written, from which no delay reaches
/// further than `longest` allows.
pub fn due(not_before: Timestamp, appended_at: Timestamp, longest: Duration, now: Now) -> Duration {
    let ceiling = appended_at.plus(longest.saturating_mul(2).max(CEILING));
    now.mono + not_before.min(ceiling).since(now.wall)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(jitter: f64) -> RetryPolicy {
        let tiers = [5, 30, 120].map(Duration::from_secs).to_vec();
        RetryPolicy {
            tiers,
            limits: RetryLimits { max_attempts: 5, max_age: Duration::from_secs(3600), jitter },
        }
    }

    #[test]
    fn delays_grow_and_the_last_repeats() {
        let tiers: Vec<_> =
            (0..5).map(|attempt| policy(0.0).delay_after(attempt, None, 0.5).tier.0).collect();
        assert_eq!(tiers, [1, 2, 3, 3, 3]);
    }

    #[test]
    fn retry_after_is_rounded_up_to_a_tier_and_never_down() {
        let tier = |seconds| policy(0.0).delay_after(0, Some(Duration::from_secs(seconds)), 0.0).tier.0;
        assert_eq!([tier(0), tier(5), tier(6), tier(30), tier(31), tier(9999)], [1, 1, 2, 2, 3, 3]);
        assert_eq!(policy(0.0).delay_after(2, Some(Duration::ZERO), 0.0).tier, Tier(3));
    }

    #[test]
    fn who_asks_for_longer_than_any_tier_is_left_alone_as_long_but_not_for_ever() {
        let wait = |seconds| policy(0.0).delay_after(0, Some(Duration::from_secs(seconds)), 0.0);
        assert_eq!(wait(600), Delay { tier: Tier(3), wait: Duration::from_secs(600) });
        assert_eq!(wait(u64::MAX).wait, CEILING);
    }

    #[test]
    fn attempts_are_counted_with_the_first() {
        let last: Vec<_> = (0..6).map(|attempt| policy(0.0).is_last(attempt)).collect();
        assert_eq!(last, [false, false, false, false, true, true]);
    }

    #[test]
    fn a_forged_moment_does_not_hold_its_place_for_ever() {
        let now = Now { wall: Timestamp::from_seconds(1_000_000), mono: Duration::from_secs(10) };
        let forged = Timestamp::from_millis(u64::MAX);
        let longest = Duration::from_secs(120);
        assert_eq!(due(forged, now.wall, longest, now), Duration::from_secs(10) + CEILING);
        let longest = Duration::from_secs(30 * 86_400);
        assert_eq!(due(forged, now.wall, longest, now), Duration::from_secs(10) + 2 * longest);
    }

    proptest! {
        #[test]
        fn jitter_is_only_ever_added(attempt in 0u16..20, share in 0.0f64..1.0, jitter in 0.0f64..1.0) {
            let plain = policy(0.0).delay_after(attempt, None, share);
            let spread = policy(jitter).delay_after(attempt, None, share);
            prop_assert_eq!(plain.tier, spread.tier);
            prop_assert!(plain.wait <= spread.wait && spread.wait <= plain.wait.mul_f64(1.0 + jitter));
        }

        #[test]
        fn a_record_is_never_due_early(delay in 0u64..86_400, passed in 0u64..200_000, mono in 0u64..1_000_000) {
            let written = Timestamp::from_seconds(1_000_000);
            let now = Now { wall: written.plus(Duration::from_secs(passed)), mono: Duration::from_secs(mono) };
            let not_before = written.plus(Duration::from_secs(delay));
            let wait = due(not_before, written, Duration::from_secs(60), now) - now.mono;
            prop_assert_eq!(wait, Duration::from_secs(delay.saturating_sub(passed)));
        }
    }
}
