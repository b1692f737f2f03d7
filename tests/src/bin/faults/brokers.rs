//! Kafka and the ways to it and to the handler: broken, and mended.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hookwell_common::lifecycle::Clock;
use hookwell_tests::detour::Detour;
use hookwell_tests::kafka::{Kafka, Node};
use hookwell_tests::proxy::{Network, Proxy, Way};
use hookwell_tests::wait;

use crate::schedule::{Blow, Link, Role, Trouble};

/// Kafka, and a proxy in the middle of each connection.
#[derive(Debug)]
pub(crate) struct Brokers {
    pub(crate) kafka: Arc<Kafka>,
    ingest: Detour,
    processors: Detour,
    handler: Proxy,
    prefix: String,
}

impl Brokers {
    /// With the ways that the programs of the stage whose topics begin with `prefix` take.
    pub(crate) fn new(kafka: &Arc<Kafka>, ways: Ways, prefix: &str) -> Self {
        let Ways { ingest, processors, handler } = ways;
        Self { kafka: Arc::clone(kafka), ingest, processors, handler, prefix: prefix.to_owned() }
    }

    /// One connection is in trouble for `lasts`.
    pub(crate) fn trouble(&self, link: Link, trouble: Trouble, lasts: Duration) {
        let network = match trouble {
            Trouble::BlackHole => Network::BlackHole,
            Trouble::NoAnswers => Network::AnswersStay,
            Trouble::NoRequests => Network::RequestsStay,
            Trouble::Reset => Network::Refusing,
            Trouble::HalfClosed => return self.half_close_for(link, lasts),
            Trouble::Latency => Network::Slow(Duration::from_millis(200)),
            Trouble::Loss => Network::Lossy { per_mille: 10, seed: 1 },
        };
        if trouble == Trouble::Reset {
            self.proxies(link).iter().for_each(Proxy::reset);
        }
        self.set(link, network);
        wait::pause(lasts);
        self.set(link, Network::Fine);
    }

    /// Closes one half and the other in turn, for `lasts`.
    fn half_close_for(&self, link: Link, lasts: Duration) {
        let clock = Clock::start();
        for way in Way::in_turn() {
            self.proxies(link).iter().for_each(|proxy| proxy.half_close(way));
            let Some(left) = lasts.checked_sub(clock.mono()) else { return };
            wait::pause(left.min(Duration::from_secs(1)));
        }
    }

    /// Ingest does not reach Kafka for as long as `meanwhile` takes.
    pub(crate) fn cut_off_ingest<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        self.set(Link::IngestToKafka, Network::Refusing);
        self.ingest.reset();
        let outcome = meanwhile();
        self.set(Link::IngestToKafka, Network::Fine);
        outcome
    }

    fn set(&self, link: Link, network: Network) {
        self.proxies(link).iter().for_each(|proxy| proxy.set(network));
    }

    /// Those in the middle of `link`.
    fn proxies(&self, link: Link) -> &[Proxy] {
        match link {
            Link::IngestToKafka => self.ingest.proxies(),
            Link::ProcessorsToKafka => self.processors.proxies(),
            Link::ProcessorsToHandler => slice::from_ref(&self.handler),
        }
    }

    /// The broker that plays `role` is struck and is back after `lasts`.
    pub(crate) fn strike(&self, role: Role, blow: Blow, lasts: Duration) -> Result<()> {
        let node = self.playing(role)?;
        match blow {
            Blow::Freeze => {
                node.freeze()?;
                wait::pause(lasts);
                return node.thaw();
            }
            Blow::Kill => node.kill()?,
            Blow::Restart => node.stop()?,
        }
        wait::pause(lasts);
        self.mend()
    }

    fn playing(&self, role: Role) -> Result<&Node> {
        // One of the many lanes and partitions is as good as another.
        let id = match role {
            Role::Leader => self.kafka.leader_of(&format!("{}.events", self.prefix), 0)?,
            Role::GroupCoordinator => self.kafka.group_coordinator(&self.prefix)?,
            Role::TransactionCoordinator => {
                self.kafka.transaction_coordinator(&format!("{}-0", self.prefix))?
            }
        };
        self.kafka.node(id)
    }

    /// So many brokers are killed, and back after `lasts`.
    pub(crate) fn kill(&self, count: usize, lasts: Duration) -> Result<()> {
        self.kafka.nodes().iter().rev().take(count).try_for_each(Node::kill)?;
        wait::pause(lasts);
        self.mend()
    }

    fn mend(&self) -> Result<()> {
        self.kafka.revive()?;
        self.kafka.until_healthy()
    }
}

/// The ways that programs take while they are being set up.
#[derive(Debug)]
pub(crate) struct Ways {
    pub(crate) ingest: Detour,
    pub(crate) processors: Detour,
    pub(crate) handler: Proxy,
}
