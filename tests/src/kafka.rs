//! A real Apache Kafka on this machine, in KRaft mode: one node or a cluster of three, its jars
//! from Maven.

mod node;
mod roles;

use std::fs;
use std::io::{self, Write as _};
use std::mem;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hookwell_common::lifecycle::Clock;

use crate::reader::Reader;
use node::Ports;

pub use node::Node;

/// The project's directory.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A port that nobody listens on, and that nobody is given by chance before it is used, nor while who
/// uses it is dead for a moment: it lies below those that the system hands out to clients and to
/// listeners without a port of their own, among those that this process has for itself, and comes
/// again only after all others of them.
pub fn free_port() -> Result<u16> {
    static OURS: LazyLock<Option<Block>> = LazyLock::new(Block::claim);
    OURS.as_ref().context("too many processes of the tests run at once")?.next()
}

/// Ports of one process. It holds the first of them for as long as it lives, so that no other process
/// of the tests takes the same.
#[derive(Debug)]
struct Block {
    first: u16,
    given: AtomicU16,
    _claim: TcpListener,
}

impl Block {
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 2_000;
    const BLOCKS: u16 = 11;

    fn claim() -> Option<Self> {
        let mut firsts = (0..Self::BLOCKS).map(|number| Self::FIRST + number * Self::PORTS);
        let claim = |first| {
            let _claim = TcpListener::bind(("127.0.0.1", first)).ok()?;
            Some(Self { first, given: AtomicU16::new(0), _claim })
        };
        firsts.find_map(claim)
    }

    fn next(&self) -> Result<u16> {
        let next = || 1 + self.given.fetch_add(1, Ordering::Relaxed) % (Self::PORTS - 1);
        let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let mut ports = (0..Self::PORTS).map(|_| self.first + next());
        ports.find(is_free).context("every port is taken")
    }
}

/// What a Kafka is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many nodes: one, or three with three copies of everything, of which two must be there.
    pub nodes: usize,
    /// How many programs may have a [`Detour`](crate::detour::Detour) at the same time.
    pub doors: usize,
}

/// One node or three, ended when dropped.
#[derive(Debug)]
pub struct Kafka {
    nodes: Vec<Node>,
    /// The doors that nobody uses.
    doors: Mutex<Vec<usize>>,
    /// What the topics begin with that nobody uses any more.
    left: Mutex<Vec<String>>,
}

impl Kafka {
    /// Starts a node whose data lies under `home`; what lies there already is used again.
    pub fn start(home: &Path) -> Result<Self> {
        Self::start_as(home, Shape { nodes: 1, doors: 0 })
    }

    /// [`Kafka::start`], on chosen ports.
    pub fn start_at(home: &Path, port: u16, controller_port: u16) -> Result<Self> {
        let ports = Ports { broker: port, controller: controller_port, doors: Vec::new() };
        Self::of_one(home, ports, MACHINE_OF_ONE)
    }

    /// [`Kafka::start`], with the compiler that Kafka has in production: for whoever measures.
    pub fn start_to_measure(home: &Path) -> Result<Self> {
        Self::of_one(home, Ports::free(0)?, MACHINE_TO_MEASURE)
    }

    /// Starts nodes whose data lies under `home`, on free ports.
    pub fn start_as(home: &Path, shape: Shape) -> Result<Self> {
        archive_classes();
        match shape.nodes {
            1 => Self::of_one(home, Ports::free(shape.doors)?, MACHINE_OF_ONE),
            _ => Self::of_many(home, shape),
        }
    }

    fn of_one(home: &Path, ports: Ports, machine: &[&str]) -> Result<Self> {
        let controller = format!("controller.quorum.bootstrap.servers=127.0.0.1:{}", ports.controller);
        let doors = ports.doors.len();
        let node = Node::new(1, ports, home.to_owned(), machine)?;
        node.configure(&[&controller, SETTINGS_OF_ONE, SETTINGS].join("\n"))?;
        node.format(&["--standalone"], &cluster_name(home))?;
        node.revive()?;
        Ok(Self::of(vec![node], doors))
    }

    fn of_many(home: &Path, shape: Shape) -> Result<Self> {
        let ids = 1..=i32::try_from(shape.nodes)?;
        let ports: Vec<_> = ids.clone().map(|_| Ports::free(shape.doors)).collect::<Result<_>>()?;
        let voter = |(id, ports): (i32, &Ports)| format!("{id}@127.0.0.1:{}", ports.controller);
        let voters: Vec<_> = ids.clone().zip(&ports).map(voter).collect();
        let voters = format!("controller.quorum.voters={}", voters.join(","));
        let nodes: Vec<_> = ids
            .zip(ports)
            .map(|(id, ports)| Node::new(id, ports, home.join(format!("node-{id}")), MACHINE_OF_MANY))
            .collect::<Result<_>>()?;
        let kafka = Self::of(nodes, shape.doors);
        let cluster = cluster_name(home);
        for node in &kafka.nodes {
            node.configure(&[&voters, SETTINGS_OF_MANY, SETTINGS].join("\n"))?;
            node.format(&[], &cluster)?;
        }
        kafka.revive()?;
        kafka.until_healthy()?;
        Ok(kafka)
    }

    fn of(nodes: Vec<Node>, doors: usize) -> Self {
        Self { nodes, doors: Mutex::new((0..doors).collect()), left: Mutex::default() }
    }

    /// Where clients begin.
    pub fn bootstrap_servers(&self) -> String {
        let all: Vec<_> = self.nodes.iter().map(Node::address).collect();
        all.join(",")
    }

    /// How many copies of each partition there are when all is well.
    pub fn copies(&self) -> usize {
        self.nodes.len()
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that Kafka calls `id`; the first is 1.
    pub fn node(&self, id: i32) -> Result<&Node> {
        self.nodes.iter().find(|node| node.id() == id).with_context(|| format!("there is no node {id}"))
    }

    /// The process id of the first node, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.nodes[0].process_id()
    }

    /// Where the log of the first node lies.
    pub fn log(&self) -> PathBuf {
        self.nodes[0].log()
    }

    /// Starts every node that does not run, and waits until all listen.
    pub fn revive(&self) -> Result<()> {
        // None of three listens before two of them are there.
        self.nodes.iter().try_for_each(Node::spawn)?;
        self.nodes.iter().try_for_each(Node::until_listening)
    }

    /// Kills all nodes; what they have not synced lies in the page cache and survives.
    pub fn kill(&self) -> Result<()> {
        self.nodes.iter().try_for_each(Node::kill)
    }

    /// Has every write beyond the first `bytes` of a file fail from now on, as on a disk that is full;
    /// `None` ends that. Needs no rights that others lack, and no file system of its own.
    pub fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.limit_files(bytes))
    }

    /// Waits until all nodes have ended.
    pub fn until_ended(&self) -> Result<()> {
        self.nodes.iter().try_for_each(Node::until_ended)
    }

    /// Freezes all nodes: they answer nothing, and keep their connections.
    pub fn freeze(&self) -> Result<()> {
        self.nodes.iter().try_for_each(Node::freeze)
    }

    /// Ends [`Kafka::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.nodes.iter().try_for_each(Node::thaw)
    }

    /// Notes that nobody uses the topics any more that begin with `prefix`.
    pub(crate) fn leave_topics(&self, prefix: String) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(prefix);
    }

    /// Deletes topics that nobody uses any more. For each fetch of a copy its leader looks at every
    /// partition that is copied, so what is left behind costs all tests to come.
    pub fn sweep(&self) -> Result<()> {
        let prefixes = mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        if prefixes.is_empty() {
            return Ok(());
        }
        let reader = Reader::new(&self.bootstrap_servers());
        let topics = reader.topics()?;
        let is_left = |topic: &&str| prefixes.iter().any(|prefix| topic.starts_with(prefix));
        let left: Vec<_> = topics.iter().map(String::as_str).filter(is_left).collect();
        // A stage may never have had topics, and Kafka is not asked for nothing.
        if left.is_empty() { Ok(()) } else { reader.delete_topics(&left) }
    }

    /// A door for one program, or nothing if all are in use.
    pub(crate) fn take_door(&self) -> Option<usize> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Ends [`Kafka::take_door`].
    pub(crate) fn give_back_door(&self, door: usize) {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).push(door);
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        match self.nodes.as_slice() {
            // Frozen nodes cannot be told to end.
            [node] => node.thaw().and_then(|()| node.stop()).ok(),
            // To end well each of several needs the others, and their data is of no more use.
            _ => self.kill().ok(),
        };
    }
}

const SETTINGS: &str = "group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
";

const SETTINGS_OF_ONE: &str = "offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1";

/// For processes that live seconds or minutes the second compiler costs more than it brings: of 60 s
/// of Kafka's in seven rows of the failure matrix it took 22.
const QUICK_COMPILER: &str = "-XX:TieredStopAtLevel=1";

const MACHINE_OF_ONE: &[&str] = &["-Xms256m", "-Xmx768m", QUICK_COMPILER];
const MACHINE_TO_MEASURE: &[&str] = &["-Xms256m", "-Xmx768m"];
/// Three processes on a small machine.
const MACHINE_OF_MANY: &[&str] = &["-Xms128m", "-Xmx512m", QUICK_COMPILER];

/// A name for the cluster whose data lies under `home`, as Kafka writes them: another each time, and
/// none begins with a dash, which Kafka's tools would take for an option.
fn cluster_name(home: &Path) -> String {
    let what = format!("{} {} {:?}", home.display(), std::process::id(), Clock::start().now().wall);
    let mut id = *blake3::hash(what.as_bytes()).as_bytes();
    id[0] &= 0x7f;
    URL_SAFE_NO_PAD.encode(&id[..16])
}

/// A dead or frozen node is missed after four seconds instead of nine, and a copy that stands
/// still after three instead of thirty. On a machine that is busy less would miss the living. Controllers
/// that have nothing to say do so every five seconds instead of twice in one.
const SETTINGS_OF_MANY: &str = "default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
unclean.leader.election.enable=false
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
replica.lag.time.max.ms=3000
metadata.max.idle.interval.ms=5000
num.network.threads=2
num.io.threads=4";

/// Whether a Kafka can be started here: there is Java, and its jars are here or Maven can fetch them.
pub fn can_start() -> bool {
    let answers = |program: &str| {
        let mut command = Command::new(program);
        command.arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    answers("java") && (are_jars_there() || answers("mvn"))
}

/// Whether Kafka's jars are here already.
pub fn are_jars_there() -> bool {
    jar_folder().is_dir()
}

/// Kafka's classes as Java maps them, beside the jars that they are of.
fn class_archive(jars: &Path) -> PathBuf {
    jars.join("classes.jsa")
}

/// Makes [`class_archive`], unless it is there. A node that maps its classes starts in half the time, and
/// with half the work: measured, 1.7 s instead of 3.2, and 2.2 s of a processor's time instead of 4.1.
/// Where Java makes none, nodes start as ever.
fn archive_classes() {
    static TRIED: OnceLock<()> = OnceLock::new();
    TRIED.get_or_init(|| {
        if let Err(error) = try_archive_classes() {
            writeln!(io::stderr(), "Kafka's classes are not archived, and it starts slowly: {error:#}").ok();
        }
    });
}

fn try_archive_classes() -> Result<()> {
    let archive = class_archive(&jars()?);
    if archive.exists() {
        return Ok(());
    }
    let home = tempfile::Builder::new().prefix("hookwell-kafka-").tempdir()?;
    // On the same disk, but not among the jars: a process that dies here leaves it.
    let partial = project().join(format!("target/kafka/classes.{}", std::process::id()));
    let at_exit = format!("-XX:ArchiveClassesAtExit={}", partial.display());
    let kafka = Kafka::of_one(home.path(), Ports::free(0)?, &[MACHINE_OF_ONE, &[&at_exit]].concat())?;
    kafka.nodes[0].end()?;
    fs::rename(partial, archive).context("Java made no archive")
}

fn jar_folder() -> PathBuf {
    project().join("target/kafka/jars")
}

/// Kafka's jars, resolved by Maven once and kept under `target/`.
pub(crate) fn jars() -> Result<PathBuf> {
    let jars = jar_folder();
    if are_jars_there() {
        return Ok(jars.canonicalize()?);
    }
    let partial = project().join(format!("target/kafka/jars.{}", std::process::id()));
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(project().join("deploy/kafka/pom.xml"))
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", partial.display()))
        .output()
        .context("mvn could not be started; install Maven")?;
    ensure!(
        output.status.success(),
        "Maven could not resolve Kafka: {}",
        String::from_utf8_lossy(&output.stdout).trim()
    );
    // Whole or not at all, also where two processes do this at once.
    if fs::rename(&partial, &jars).is_err() {
        fs::remove_dir_all(&partial).ok();
    }
    Ok(jars.canonicalize()?)
}
