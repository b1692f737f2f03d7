//! The threads on which this process's lanes live, as the member sees them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hookwell_common::lifecycle::Failure;

use crate::lane::host::Host;
use crate::lane::mail::Order;
use crate::shared::Shared;

/// Hosts that may be given up before the process had better begin anew.
const MAX_GIVEN_UP: usize = 4;

/// The hosts, by number; each is started with its first order.
pub(super) struct Hosts {
    shared: Arc<Shared>,
    hosts: HashMap<usize, Host>,
    given_up: usize,
}

impl Hosts {
    /// None yet.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, hosts: HashMap::new(), given_up: 0 }
    }

    /// The number of the host of `partition`.
    pub(super) fn number_of(&self, partition: i32) -> usize {
        usize::try_from(partition).unwrap_or_default() % self.shared.settings.max_lanes
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
    /// partitions next. A process that has left several had better begin anew.
    pub(super) fn give_up(&mut self, number: usize) {
        let Some(host) = self.hosts.remove(&number) else { return };
        host.given_up.store(true, Ordering::Relaxed);
        self.shared.board.forget_host(number);
        self.given_up += 1;
        tracing::error!(number, given_up = self.given_up, "a lane's thread is blocked and is given up");
        if MAX_GIVEN_UP < self.given_up {
            let words = "too many of librdkafka's calls never came back; the process had better begin anew";
            self.shared.downfall.cause(Failure::Kafka(words.to_owned()));
        }
    }

    /// Ends all of them, and waits for that.
    pub(super) fn join(&mut self) {
        for (_, host) in self.hosts.drain() {
            host.join();
        }
    }
}
