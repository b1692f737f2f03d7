//! The flood guard: if almost everything fails, lag grows instead of the whole topic moving into
//! the dead letter topic.
//!
//! Each destination has a purse. A dead letter costs one token; a success earns nine, so that a
//! purse only empties where more than nine in ten fail; and a little comes with time, so that one
//! poisonous event does not hold its partition for ever.

use std::collections::HashMap;
use std::time::Duration;

use bytestring::ByteString;

/// What a success earns.
const EARNED: f64 = 9.0;

/// The time in which an empty purse fills by itself.
const REFILL: Duration = Duration::from_secs(1000);

/// The purses of one partition.
#[derive(Clone, Debug)]
pub struct FloodGuard {
    /// What a purse holds; 0: no guard.
    capacity: f64,
    purses: HashMap<ByteString, Purse>,
}

#[derive(Clone, Copy, Debug)]
struct Purse {
    tokens: f64,
    counted_at: Duration,
}

impl FloodGuard {
    /// A guard whose purses hold `capacity` each; 0 for none.
    pub fn new(capacity: u32) -> Self {
        Self { capacity: f64::from(capacity), purses: HashMap::new() }
    }

    /// A delivery to `destination` succeeded.
    pub fn earn(&mut self, destination: &ByteString) {
        // A full purse is as good as none, so that nothing is kept for those that never fail.
        if let Some(purse) = self.purses.get_mut(destination) {
            purse.tokens = (purse.tokens + EARNED).min(self.capacity);
        }
    }

    /// Whether `destination` may have one more dead letter at `now` (monotonic), which it then has.
    pub fn spend(&mut self, destination: &ByteString, now: Duration) -> bool {
        if self.capacity == 0.0 {
            return true;
        }
        let capacity = self.capacity;
        let purse =
            self.purses.entry(destination.clone()).or_insert(Purse { tokens: capacity, counted_at: now });
        let passed = now.saturating_sub(purse.counted_at).as_secs_f64();
        purse.tokens = (purse.tokens + capacity * passed / REFILL.as_secs_f64()).min(capacity);
        purse.counted_at = now;
        if purse.tokens < 1.0 {
            return false;
        }
        purse.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(guard: &mut FloodGuard, destination: &'static str, times: usize, now: Duration) -> usize {
        (0..times).filter(|_| guard.spend(&ByteString::from_static(destination), now)).count()
    }

    #[test]
    fn a_destination_at_which_everything_fails_gets_so_many_dead_letters_and_no_more() {
        let mut guard = FloodGuard::new(100);
        assert_eq!(spend(&mut guard, "a", 1000, Duration::ZERO), 100);
        assert_eq!(spend(&mut guard, "b", 10, Duration::ZERO), 10, "another one is not held back");
    }

    #[test]
    fn one_success_in_ten_is_enough() {
        let mut guard = FloodGuard::new(100);
        for _ in 0..1000 {
            guard.earn(&"a".into());
            assert_eq!(spend(&mut guard, "a", 9, Duration::ZERO), 9);
        }
    }

    #[test]
    fn one_poisonous_event_gets_out_in_time() {
        let mut guard = FloodGuard::new(100);
        spend(&mut guard, "a", 1000, Duration::ZERO);
        assert_eq!(spend(&mut guard, "a", 10, Duration::from_secs(10)), 1);
    }

    #[test]
    fn zero_means_no_guard() {
        assert_eq!(spend(&mut FloodGuard::new(0), "a", 100_000, Duration::ZERO), 100_000);
    }
}
