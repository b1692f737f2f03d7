//! What a lane holds until a moment comes: retries that are not due, and deliveries that the flood
//! guard holds back.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

/// Things that wait, the earliest first; among equals the one that came first.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Waiting<T> {
    heap: BinaryHeap<Reverse<Item<T>>>,
    count: u64,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Item<T> {
    due: Duration,
    number: u64,
    value: T,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), count: 0 }
    }
}

impl<T> Waiting<T> {
    /// `value` waits until `due`, on the monotonic clock.
    pub fn add(&mut self, due: Duration, value: T) {
        self.count += 1;
        self.heap.push(Reverse(Item { due, number: self.count, value }));
    }

    /// The next that is due at `now`.
    pub fn take_due(&mut self, now: Duration) -> Option<T> {
        if self.next_due()? <= now { self.heap.pop().map(|Reverse(item)| item.value) } else { None }
    }

    /// When the next is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(item)| item.due)
    }

    /// All that wait, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.heap.iter().map(|Reverse(item)| &item.value)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<T> Item<T> {
    fn rank(&self) -> (Duration, u64) {
        (self.due, self.number)
    }
}

impl<T> PartialEq for Item<T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl<T> Eq for Item<T> {}

impl<T> PartialOrd for Item<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Item<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_nothing_comes_early() {
        let mut waiting = Waiting::default();
        for (due, name) in [(30, "c"), (10, "a"), (20, "b"), (10, "a2")] {
            waiting.add(Duration::from_secs(due), name);
        }
        assert_eq!(waiting.take_due(Duration::from_millis(9_999)), None);
        let now = Duration::from_secs(20);
        let order: Vec<_> = std::iter::from_fn(|| waiting.take_due(now)).collect();
        assert_eq!(order, ["a", "a2", "b"]);
        assert_eq!((waiting.len(), waiting.next_due()), (1, Some(Duration::from_secs(30))));
    }
}
