//! Outcome to Settlement: the retry behaviour of the product is one pure function.

use std::time::Duration;

use hookwell_common::time::Timestamp;

use crate::dead_letter::DeadLetterReason;
use crate::outcome::{FailureClass, Outcome};
use crate::retry::{RetryPolicy, Tier};

/// What is done about a delivery. A decision: it has not happened yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a settlement must be committed before its offset is"]
pub enum Settlement {
    /// It is delivered.
    Done,
    /// It is tried again.
    Retry {
        /// Where it waits.
        tier: Tier,
        /// Until when at least.
        not_before: Timestamp,
    },
    /// It is given up.
    DeadLetter(DeadLetterReason),
}

impl Settlement {
    /// The words of the label `settlement`, in the order of their documentation.
    pub const LABELS: [&'static str; 3] = ["done", "retry", "dead_letter"];

    /// A stable word for metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Settlement::Done => "done",
            Settlement::Retry { .. } => "retry",
            Settlement::DeadLetter(_) => "dead_letter",
        }
    }
}

/// The attempt that ended, as far as the decision needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempted {
    /// Its number, from 0.
    pub attempt: u16,
    /// When the first attempt of this generation failed; `None` if this is the first.
    pub first_failed_at: Option<Timestamp>,
    /// When it ended.
    pub now: Timestamp,
}

/// Decides. `jitter` is a number from 0 to 1 that spreads deliveries.
pub fn settle(outcome: &Outcome, attempted: Attempted, policy: &RetryPolicy, jitter: f64) -> Settlement {
    let error = match outcome {
        Outcome::Done => return Settlement::Done,
        Outcome::Failed(error) => error,
    };
    match error.class() {
        FailureClass::Permanent => Settlement::DeadLetter(DeadLetterReason::Permanent),
        FailureClass::Transient if policy.is_last(attempted.attempt) => {
            Settlement::DeadLetter(DeadLetterReason::Exhausted)
        }
        FailureClass::Transient => {
            let delay = policy.delay_after(attempted.attempt, error.retry_after(), jitter);
            let not_before = attempted.now.plus(round_up(delay.wait));
            let age = not_before.since(attempted.first_failed_at.unwrap_or(attempted.now));
            if policy.limits.max_age < age {
                Settlement::DeadLetter(DeadLetterReason::TooOld)
            } else {
                Settlement::Retry { tier: delay.tier, not_before }
            }
        }
    }
}

/// Records carry whole milliseconds; what lies between two of them is waited for.
fn round_up(wait: Duration) -> Duration {
    wait + Duration::from_micros(999)
}

#[cfg(test)]
mod tests {
    use hookwell_common::config::RetryLimits;
    use rstest::rstest;

    use super::*;
    use crate::outcome::HandlerError;

    const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);

    fn policy() -> RetryPolicy {
        let tiers = [5, 30].map(Duration::from_secs).to_vec();
        RetryPolicy {
            tiers,
            limits: RetryLimits { max_attempts: 4, max_age: Duration::from_secs(60), jitter: 0.1 },
        }
    }

    fn failed(status: u16, retry_after: Option<u64>) -> Outcome {
        Outcome::Failed(HandlerError::Status { status, retry_after: retry_after.map(Duration::from_secs) })
    }

    fn retry(tier: u16, seconds: u64) -> Settlement {
        Settlement::Retry { tier: Tier(tier), not_before: NOW.plus(Duration::from_secs(seconds)) }
    }

    fn dead(reason: DeadLetterReason) -> Settlement {
        Settlement::DeadLetter(reason)
    }

    #[rstest]
    #[case::success(Outcome::Done, 3, Some(999), Settlement::Done)]
    #[case::the_first_failure_waits_in_the_first_tier(failed(500, None), 0, None, retry(1, 5))]
    #[case::the_second_in_the_second(failed(500, None), 1, Some(10), retry(2, 30))]
    #[case::the_tier_that_retry_after_needs(failed(429, Some(6)), 0, None, retry(2, 30))]
    #[case::a_permanent_failure_never_waits(failed(400, None), 0, None, dead(DeadLetterReason::Permanent))]
    #[case::a_redirect_is_permanent(failed(302, None), 0, None, dead(DeadLetterReason::Permanent))]
    #[case::the_last_attempt_is_the_last(failed(500, None), 3, Some(1), dead(DeadLetterReason::Exhausted))]
    #[case::what_would_wait_too_long_is_not_tried_again(
        failed(500, None),
        1,
        Some(31),
        dead(DeadLetterReason::TooOld)
    )]
    #[case::the_last_attempt_is_exhausted_however_old(
        failed(500, None),
        3,
        Some(999),
        dead(DeadLetterReason::Exhausted)
    )]
    fn settlement(
        #[case] outcome: Outcome,
        #[case] attempt: u16,
        #[case] failing_for: Option<u64>,
        #[case] expected: Settlement,
    ) {
        let first_failed_at = failing_for.map(|seconds| NOW.minus(Duration::from_secs(seconds)));
        let attempted = Attempted { attempt, first_failed_at, now: NOW };
        assert_eq!(settle(&outcome, attempted, &policy(), 0.0), expected);
    }

    #[test]
    fn a_retry_is_never_due_before_its_tier_whatever_the_jitter() {
        for jitter in [0.0, 0.3, 1.0] {
            let attempted = Attempted { attempt: 0, first_failed_at: None, now: NOW };
            let settlement = settle(&failed(503, None), attempted, &policy(), jitter);
            let Settlement::Retry { not_before, .. } = settlement else { panic!("{settlement:?}") };
            assert!(
                NOW.plus(Duration::from_secs(5)) <= not_before
                    && not_before <= NOW.plus(Duration::from_millis(5501))
            );
        }
    }
}
