//! A network between a client and a server on this machine, as bad as a test wants it: a TCP proxy
//! whose faults are switched while connections run through it.
//!
//! Bytes are never lost and never change places, as TCP promises. What cannot pass waits, and
//! passes when the fault is over, if both ends still hold the connection: that is what TCP does
//! after a partition, and how requests arrive late that their sender has long given up.

use std::io;
use std::net::{Ipv4Addr, TcpListener as Bound};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use hookwell_common::lifecycle::{Clock, spawn};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::kafka::free_port;

/// What a network is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Everything passes at once.
    Fine,
    /// Connections are accepted and kept, and nothing passes either way.
    BlackHole,
    /// Nothing passes from client to server. Answers do.
    RequestsStay,
    /// Requests arrive, and nothing passes from server to client.
    AnswersStay,
    /// New connections are refused; those that are there go on.
    Refusing,
    /// Everything arrives that much later, each way, and as much of it as before.
    Slow(Duration),
    /// So many packets in a thousand are lost. On TCP a lost packet is one that is sent again: it
    /// arrives 200 to 300 ms late, which is Linux's shortest time to try again and a little more,
    /// and all that was sent behind it with it. Which ones, the seed decides, for each connection
    /// by its number.
    Lossy {
        /// Packets in a thousand.
        per_mille: u16,
        /// Decides which.
        seed: u64,
    },
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As requests do.
    ToServer,
    /// As answers do.
    ToClient,
}

impl Way {
    /// One and the other, without end.
    pub fn in_turn() -> impl Iterator<Item = Way> {
        [Way::ToClient, Way::ToServer].into_iter().cycle()
    }
}

impl Network {
    fn lets_pass(self, way: Way) -> bool {
        match self {
            Network::BlackHole => false,
            Network::RequestsStay => way != Way::ToServer,
            Network::AnswersStay => way != Way::ToClient,
            Network::Fine | Network::Refusing | Network::Slow(_) | Network::Lossy { .. } => true,
        }
    }

    fn refuses(self) -> bool {
        self == Network::Refusing
    }
}

#[derive(Clone, Copy, Debug)]
struct Orders {
    network: Network,
    /// How often all connections were reset.
    resets: u64,
    /// How often that way was closed on all connections, by [`Way`].
    ends: [u64; 2],
}

/// A port that leads to another. Gone, with every connection, when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    orders: watch::Sender<Orders>,
    connections: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Proxy {
    /// Leads from a free port to `server`.
    pub fn start(server: u16) -> Result<Self> {
        Self::start_at(free_port()?, server)
    }

    /// Leads from `port` to `server`.
    pub fn start_at(port: u16, server: u16) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (orders, heard) = watch::channel(Orders { network: Network::Fine, resets: 0, ends: [0; 2] });
        let connections = Arc::new(AtomicU64::new(0));
        let door = Door {
            port,
            server,
            orders: heard,
            connections: Arc::clone(&connections),
            runtime: runtime.handle().clone(),
        };
        let listener = {
            let _within = runtime.enter();
            listen(port)?
        };
        spawn(runtime.handle(), "proxy", door.stand(listener));
        Ok(Self { port, orders, connections, _runtime: runtime })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What the network is like from now on, for connections that are there as well.
    pub fn set(&self, network: Network) {
        self.orders.send_modify(|orders| orders.network = network);
    }

    /// Resets every connection that is there, at both ends.
    pub fn reset(&self) {
        self.orders.send_modify(|orders| orders.resets += 1);
    }

    /// Half-closes every connection that is there: who reads what goes `way` sees its end, and what is
    /// still said that way is never heard. What goes the other way does so as before.
    pub fn half_close(&self, way: Way) {
        self.orders.send_modify(|orders| orders.ends[way as usize] += 1);
    }

    /// How many connections there have been.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = Bound::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Who lets clients in.
struct Door {
    port: u16,
    server: u16,
    orders: watch::Receiver<Orders>,
    connections: Arc<AtomicU64>,
    runtime: Handle,
}

impl Door {
    /// Until the proxy is dropped. Nobody listens while new connections are refused.
    async fn stand(mut self, first: TcpListener) {
        let mut listener = Some(first);
        loop {
            let refuses = self.orders.borrow_and_update().network.refuses();
            listener = match listener {
                Some(_) if refuses => None,
                None if !refuses => listen(self.port).ok(),
                Some(_) | None => listener,
            };
            let Some(listener) = &listener else {
                // The port may be taken for a moment; nobody else wants it for long.
                tokio::select! {
                    told = self.orders.changed() => if told.is_err() { return },
                    () = sleep(Duration::from_millis(10)), if !refuses => {}
                }
                continue;
            };
            tokio::select! {
                told = self.orders.changed() => if told.is_err() { return },
                client = listener.accept() => if let Ok((client, _)) = client { self.welcome(client) },
            }
        }
    }

    fn welcome(&self, client: TcpStream) {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let orders = self.orders.clone();
        spawn(&self.runtime, "connection", connect(client, self.server, number, orders));
    }
}

/// One connection, from its first byte to its last. What breaks at one end breaks at the other.
async fn connect(mut client: TcpStream, server: u16, number: u64, mut orders: watch::Receiver<Orders>) {
    let resets = orders.borrow().resets;
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
        client.set_zero_linger().ok();
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let broken = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = Lane::new(Way::ToServer, number, &orders).carry(from_client, to_server);
        let back = Lane::new(Way::ToClient, number, &orders).carry(from_server, to_client);
        tokio::select! {
            biased;
            _ = orders.wait_for(|orders| orders.resets != resets) => true,
            ended = async { tokio::try_join!(there, back) } => ended.is_err(),
        }
    };
    if broken {
        client.set_zero_linger().ok();
        server.set_zero_linger().ok();
    }
}

/// Bytes that were read together, and when they are due. Without bytes: the end.
type Chunk = (Duration, Vec<u8>);

/// As much as is read at once.
const CHUNK: usize = 16 * 1024;

/// Chunks on their way. At 200 ms this is 20 MB a second, more than the tests ever send.
const ON_THE_WAY: usize = 256;

/// What a packet carries on an ordinary network.
const PACKET: usize = 1448;

/// One way of one connection.
struct Lane {
    gate: Gate,
    connection: u64,
    clock: Clock,
    packets: u64,
    /// Nothing overtakes what was sent before it.
    last_due: Duration,
}

impl Lane {
    fn new(way: Way, connection: u64, orders: &watch::Receiver<Orders>) -> Self {
        let (gate, clock) = (Gate::new(way, orders), Clock::start());
        Self { gate, connection, clock, packets: 0, last_due: Duration::ZERO }
    }

    /// Until the end of what `from` says, or an error at either end.
    async fn carry(self, from: ReadHalf<'_>, to: WriteHalf<'_>) -> io::Result<()> {
        let (put, take) = mpsc::channel(ON_THE_WAY);
        let write = write(take, to, self.gate.clone(), self.clock);
        tokio::try_join!(self.read(from, put), write).map(|_| ())
    }

    async fn read(mut self, mut from: ReadHalf<'_>, put: mpsc::Sender<Chunk>) -> io::Result<()> {
        loop {
            self.gate.open().await?;
            let mut bytes = vec![0; CHUNK];
            let length = from.read(&mut bytes).await?;
            bytes.truncate(length);
            let due = self.due(length);
            if put.send((due, bytes)).await.is_err() || length == 0 {
                return Ok(());
            }
        }
    }

    fn due(&mut self, length: usize) -> Duration {
        let network = self.gate.orders.borrow().network;
        let late = match network {
            Network::Slow(late) => late,
            Network::Lossy { per_mille, seed } => self.late_by_loss(length, per_mille, seed),
            Network::Fine
            | Network::BlackHole
            | Network::RequestsStay
            | Network::AnswersStay
            | Network::Refusing => Duration::ZERO,
        };
        self.last_due = self.last_due.max(self.clock.mono() + late);
        self.last_due
    }

    fn late_by_loss(&mut self, length: usize, per_mille: u16, seed: u64) -> Duration {
        let mut late = Duration::ZERO;
        for _ in 0..length.div_ceil(PACKET) {
            self.packets += 1;
            let of_connection = scramble(seed ^ scramble(self.connection * 2 + self.gate.way as u64));
            let drawn = scramble(of_connection ^ self.packets);
            if drawn % 1000 < u64::from(per_mille) {
                late = late.max(Duration::from_millis(200 + drawn / 1000 % 100));
            }
        }
        late
    }
}

/// Passes on what comes, until its end, or until this way is closed.
async fn write(
    mut take: mpsc::Receiver<Chunk>,
    mut to: WriteHalf<'_>,
    gate: Gate,
    clock: Clock,
) -> io::Result<()> {
    let mut end = gate.clone();
    tokio::select! {
        biased;
        closed = end.closed() => closed?,
        passed = pass_on(&mut take, &mut to, gate, clock) => return passed,
    }
    to.shutdown().await?;
    while take.recv().await.is_some() {}
    Ok(())
}

async fn pass_on(
    take: &mut mpsc::Receiver<Chunk>,
    to: &mut WriteHalf<'_>,
    mut gate: Gate,
    clock: Clock,
) -> io::Result<()> {
    while let Some((due, bytes)) = take.recv().await {
        if let Some(early) = due.checked_sub(clock.mono()).filter(|early| !early.is_zero()) {
            sleep(early).await;
        }
        gate.open().await?;
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&bytes).await?;
    }
    Ok(())
}

/// Shut while nothing passes that way.
#[derive(Clone)]
struct Gate {
    way: Way,
    orders: watch::Receiver<Orders>,
    /// How often that way had been closed before.
    ends: u64,
}

impl Gate {
    fn new(way: Way, orders: &watch::Receiver<Orders>) -> Self {
        let ends = orders.borrow().ends[way as usize];
        Self { way, orders: orders.clone(), ends }
    }

    async fn open(&mut self) -> io::Result<()> {
        let way = self.way;
        self.until(|orders| orders.network.lets_pass(way)).await
    }

    /// When this way is closed on all connections that are there.
    async fn closed(&mut self) -> io::Result<()> {
        let (way, ends) = (self.way, self.ends);
        self.until(|orders| orders.ends[way as usize] != ends).await
    }

    async fn until(&mut self, comes: impl FnMut(&Orders) -> bool) -> io::Result<()> {
        let told = self.orders.wait_for(comes).await;
        told.map(|_| ()).map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))
    }
}

/// SplitMix64: each number becomes another that looks drawn by lot.
fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
