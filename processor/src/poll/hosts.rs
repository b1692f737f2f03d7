//! The threads on which this process's lanes live, as the member sees them.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hookwell_common::lifecycle::Failure;

use crate::lane::host::Host;
use crate::lane::mail::Order;
use crate::shared::Shared;

/// A thread that was given up so long ago does not come back: what a lane asks of Kafka in one step
/// ends well within this, answer or none.
const FOR_GOOD: Duration = Duration::from_secs(120);

/// How long stopping waits for threads on which no lane is left to finish.
const END_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The hosts, by number; each is started with its first order.
pub(super) struct Hosts {
    shared: Arc<Shared>,
    hosts: HashMap<usize, Host>,
    given_up: GivenUp,
}

impl Hosts {
    /// None yet.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, hosts: HashMap::new(), given_up: GivenUp::default() }
    }

    /// The number of the host of `partition`.
    pub(super) fn number_of(&self, partition: i32) -> usize {
        self.shared.host_of(partition)
    }

    /// Gives an order to the host of `partition`. `false` if that does not take orders any more.
    pub(super) fn order(&mut self, partition: i32, order: Order) -> bool {
        let number = self.number_of(partition);
        if !self.hosts.contains_key(&number) {
            match Host::start(number, Arc::clone(&self.shared)) {
                Ok(host) => drop(self.hosts.insert(number, host)),
                Err(error) => {
                    let words = format!("a thread could not be started: {error}");
                    self.shared.downfall.cause(Failure::Kafka(words));
                    return true;
                }
            }
        }
        self.hosts.get(&number).is_some_and(|host| host.orders.try_send(order).is_ok())
    }

    /// A host that does not answer is left to itself: its producers are fenced by whoever owns its
    /// partitions next.
    pub(super) fn give_up(&mut self, number: usize) {
        let Some(host) = self.hosts.remove(&number) else { return };
        tracing::error!(number, "a lane's thread is blocked and is given up");
        self.shared.board.forget_host(number);
        self.given_up.add(host.give_up(), self.shared.clock.mono());
    }

    /// Shows how many of those given up are blocked for good.
    pub(super) fn show_blocked(&mut self) {
        let now = self.shared.clock.mono();
        self.shared.board.set_blocked(self.given_up.blocked_for_good(now));
    }

    /// Ends all of them, once no partition is theirs any more, and waits for that; but not for long:
    /// one may still be blocked by a call for a partition that was lost, and what that would write
    /// counts for nothing.
    pub(super) fn end(&mut self) {
        let threads = self.hosts.drain().map(|(_, host)| host.end()).collect();
        let clock = self.shared.clock;
        let left = until_ended(threads, || clock.mono(), END_WITHIN);
        if 0 < left {
            tracing::warn!(left, "lanes' threads are blocked, and are left behind");
        }
    }
}

/// Waits for the end of `threads`, and tells how many have not ended in time.
fn until_ended(
    mut threads: Vec<JoinHandle<()>>,
    mut now: impl FnMut() -> Duration,
    within: Duration,
) -> usize {
    let deadline = now() + within;
    loop {
        for thread in threads.extract_if(.., |thread| thread.is_finished()) {
            if thread.join().is_err() {
                tracing::error!("the thread of a lane panicked");
            }
        }
        if threads.is_empty() || deadline <= now() {
            return threads.len();
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Threads that were given up and have not ended, and since when.
#[derive(Debug, Default)]
struct GivenUp(Vec<(Duration, JoinHandle<()>)>);

impl GivenUp {
    fn add(&mut self, thread: JoinHandle<()>, now: Duration) {
        self.0.push((now, thread));
    }

    fn blocked_for_good(&mut self, now: Duration) -> usize {
        self.0.retain(|(_, thread)| !thread.is_finished());
        self.0.iter().filter(|(since, _)| FOR_GOOD <= now.saturating_sub(*since)).count()
    }
}

#[cfg(test)]
mod tests {
    use hookwell_common::lifecycle::spawn_thread;

    use super::*;

    /// A thread that ends when what is returned beside it is dropped.
    fn blocked() -> (crossbeam_channel::Sender<()>, JoinHandle<()>) {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let wait = move || {
            receiver.recv().ok();
        };
        (sender, spawn_thread("blocked".to_owned(), wait).unwrap())
    }

    fn until_all_ended(given_up: &GivenUp) {
        while given_up.0.iter().any(|(_, thread)| !thread.is_finished()) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn at_the_end_threads_that_are_blocked_are_left_behind_after_a_while() {
        let (_block, blocked) = blocked();
        let mut looks = 0;
        let now = || {
            looks += 1;
            END_WITHIN * (looks / 3)
        };
        assert_eq!(until_ended(vec![blocked], now, END_WITHIN), 1);
    }

    #[test]
    fn at_the_end_threads_that_end_are_waited_for() {
        let (release, going) = blocked();
        let (mut release, mut looks) = (Some(release), 0);
        let now = || {
            looks += 1;
            release.take_if(|_| looks == 3);
            Duration::ZERO
        };
        assert_eq!(until_ended(vec![going], now, END_WITHIN), 0);
    }

    #[test]
    fn threads_that_an_outage_blocks_count_only_if_they_do_not_come_back_in_time() {
        let mut given_up = GivenUp::default();
        let (ends, threads): (Vec<_>, Vec<_>) = (0..6).map(|_| blocked()).unzip();
        for thread in threads {
            given_up.add(thread, Duration::from_secs(10));
        }
        assert_eq!(given_up.blocked_for_good(Duration::from_secs(10) + FOR_GOOD - Duration::from_secs(1)), 0);
        assert_eq!(given_up.blocked_for_good(Duration::from_secs(10) + FOR_GOOD), 6);
        drop(ends);
        until_all_ended(&given_up);
        assert_eq!(given_up.blocked_for_good(Duration::from_secs(10) + FOR_GOOD), 0);
    }
}
