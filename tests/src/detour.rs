//! A way to Kafka for one program alone, through proxies: its network can fail while everybody
//! else's is well.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::kafka::{Kafka, Node};
use crate::proxy::{Network, Proxy, Way};

/// A proxy in front of every node. Whoever begins at [`Detour::bootstrap_servers`] is sent by Kafka
/// to these proxies for everything else as well. Closed when dropped.
#[derive(Debug)]
pub struct Detour {
    proxies: Vec<Proxy>,
    door: usize,
    kafka: Arc<Kafka>,
}

impl Detour {
    /// Takes a door of `kafka` that nobody else uses.
    pub fn open(kafka: &Arc<Kafka>) -> Result<Self> {
        let door = kafka.take_door().context("every door of this Kafka is in use")?;
        let mut detour = Self { proxies: Vec::new(), door, kafka: Arc::clone(kafka) };
        for node in kafka.nodes() {
            let ports = node.doors()[door];
            detour.proxies.push(Proxy::start_at(ports.front, ports.behind)?);
        }
        Ok(detour)
    }

    /// Where the program begins.
    pub fn bootstrap_servers(&self) -> String {
        let all: Vec<_> = self.proxies.iter().map(Proxy::address).collect();
        all.join(",")
    }

    /// One in front of each node.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// What the network to every node is like from now on.
    pub fn set(&self, network: Network) {
        self.proxies.iter().for_each(|proxy| proxy.set(network));
    }

    /// Resets every connection there is; new ones are welcome.
    pub fn reset(&self) {
        self.proxies.iter().for_each(Proxy::reset);
    }

    /// Half-closes every connection there is, see [`Proxy::half_close`]; new ones are whole.
    pub fn half_close(&self, way: Way) {
        self.proxies.iter().for_each(|proxy| proxy.half_close(way));
    }

    /// How many connections there have been.
    pub fn connections(&self) -> u64 {
        self.proxies.iter().map(Proxy::connections).sum()
    }

    /// The proxy in front of one node.
    pub fn to(&self, node: &Node) -> Result<&Proxy> {
        let place = self.kafka.nodes().iter().position(|known| known.id() == node.id());
        place.and_then(|place| self.proxies.get(place)).context("a node of another Kafka")
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        // The ports must be free before somebody else takes the door.
        self.proxies.clear();
        self.kafka.give_back_door(self.door);
    }
}
