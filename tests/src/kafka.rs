//! A real Apache Kafka on this machine: one node in KRaft mode, its jars from Maven.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::program::child;
use crate::wait;

/// The project's directory.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A port that nobody listens on, and that nobody is given by chance before it is used: it lies
/// below those that the system hands out to clients and to listeners without a port of their own,
/// and this process gives it out once. Other processes begin elsewhere.
pub fn free_port() -> Result<u16> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(0x9E37_79B1);
    let next = || begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT + FIRST;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports = (0..COUNT).filter_map(|_| u16::try_from(next()).ok());
    ports.into_iter().find(is_free).context("every port is taken")
}

/// One node, ended when dropped.
#[derive(Debug)]
pub struct Kafka {
    port: u16,
    home: PathBuf,
    jars: PathBuf,
    node: Mutex<Option<Child>>,
}

impl Kafka {
    /// Starts a node whose data lies under `home`; what lies there already is used again.
    pub fn start(home: &Path) -> Result<Self> {
        Self::start_at(home, free_port()?, free_port()?)
    }

    /// [`Kafka::start`], on chosen ports.
    pub fn start_at(home: &Path, port: u16, controller_port: u16) -> Result<Self> {
        let jars = jars()?;
        fs::create_dir_all(home)?;
        let kafka = Self { port, home: home.to_owned(), jars, node: Mutex::new(None) };
        fs::write(kafka.properties(), kafka.settings(controller_port))?;
        if !home.join("data/meta.properties").exists() {
            kafka.format()?;
        }
        kafka.revive()?;
        Ok(kafka)
    }

    /// Where clients begin.
    pub fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Child::id)
    }

    /// Where its log lies.
    pub fn log(&self) -> PathBuf {
        self.home.join("kafka.log")
    }

    /// Starts the node again after [`Kafka::kill`].
    pub fn revive(&self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let node = self
            .java()
            .args(["-Xms256m", "-Xmx768m", "-XX:+UseSerialGC", "kafka.Kafka"])
            .arg(self.properties())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("java could not be started")?;
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
        wait::until("Kafka to listen", || {
            let mut node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(status) = node.as_mut().map(Child::try_wait).transpose()?.flatten() {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(5).collect();
                return Ok(Some(Err(anyhow::anyhow!("Kafka ended with {status}: {tail:?}"))));
            }
            Ok(TcpStream::connect(("127.0.0.1", self.port)).ok().map(|_| Ok(())))
        })?
    }

    /// Kills the node; what it has not synced lies in the page cache and survives.
    pub fn kill(&self) -> Result<()> {
        if let Some(mut node) = self.node.lock().unwrap_or_else(PoisonError::into_inner).take() {
            node.kill()?;
            node.wait()?;
        }
        Ok(())
    }

    /// Freezes the node: it answers nothing, and keeps its connections.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Ends [`Kafka::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        let node = node.as_ref().context("Kafka is not running")?;
        Ok(kill_process(Pid::from_child(node), signal)?)
    }

    /// Gives the node a moment to close its files, then ends it.
    fn stop(&self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let ended = wait::until_within(std::time::Duration::from_secs(20), "Kafka to end", || {
            let mut node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(node.as_mut().map(Child::try_wait).transpose()?.flatten())
        });
        match ended {
            Ok(_) => Ok(()),
            Err(_) => self.kill(),
        }
    }

    fn properties(&self) -> PathBuf {
        self.home.join("server.properties")
    }

    fn java(&self) -> Command {
        let mut java = child("java");
        java.arg("-cp").arg(self.jars.join("*"));
        java
    }

    fn format(&self) -> Result<()> {
        let tool = "kafka.tools.StorageTool";
        let id = self.java().args([tool, "random-uuid"]).output().context("java could not be started")?;
        let id = String::from_utf8(id.stdout)?;
        let id = id.lines().last().context("Kafka's storage tool gave no id")?;
        let output = self
            .java()
            .args([tool, "format", "--standalone", "-t", id, "-c"])
            .arg(self.properties())
            .output()
            .context("java could not be started")?;
        ensure!(
            output.status.success(),
            "Kafka's storage could not be formatted: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn settings(&self, controller_port: u16) -> String {
        let (port, data) = (self.port, self.home.join("data"));
        format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
",
            data.display()
        )
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // Frozen nodes cannot be told to end.
        self.thaw().and_then(|()| self.stop()).ok();
    }
}

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
