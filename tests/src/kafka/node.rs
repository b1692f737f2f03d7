//! One process of Apache Kafka: broker and controller in one.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{QUICK_COMPILER, class_archive, free_port, jars};
use crate::program::{child, limit_files};
use crate::wait;

/// A listener beside the usual one. Whoever begins there is sent on to `front`, on every node, so
/// that a proxy which listens on `front` has all that this client says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    /// The port that clients are told to use.
    pub(crate) front: u16,
    /// The port on which the node listens.
    pub(crate) behind: u16,
}

/// The ports of a node.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    pub(super) broker: u16,
    pub(super) controller: u16,
    pub(super) doors: Vec<Door>,
}

impl Ports {
    /// Free ones, with so many doors.
    pub(super) fn free(doors: usize) -> Result<Self> {
        let door = |_| Ok(Door { front: free_port()?, behind: free_port()? });
        let doors = (0..doors).map(door).collect::<Result<_>>()?;
        Ok(Self { broker: free_port()?, controller: free_port()?, doors })
    }
}

/// One process. It dies with this value, unless somebody ends it before.
#[derive(Debug)]
pub struct Node {
    id: i32,
    ports: Ports,
    home: PathBuf,
    jars: PathBuf,
    /// Kafka's classes, ready to be mapped.
    classes: Option<PathBuf>,
    machine: Vec<String>,
    process: Mutex<Option<Child>>,
}

impl Node {
    /// A node that does not run yet, its data under `home`.
    pub(super) fn new(id: i32, ports: Ports, home: PathBuf, machine: &[&str]) -> Result<Self> {
        let jars = jars()?;
        let classes = Some(class_archive(&jars)).filter(|archive| archive.exists());
        let machine = machine.iter().map(|&argument| argument.to_owned()).collect();
        fs::create_dir_all(&home)?;
        Ok(Self { id, ports, home, jars, classes, machine, process: Mutex::new(None) })
    }

    /// Its number, as Kafka has it.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Where clients begin that want to ask this node first.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.broker)
    }

    pub(crate) fn doors(&self) -> &[Door] {
        &self.ports.doors
    }

    /// The process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process().as_ref().map(Child::id)
    }

    /// Where its log lies.
    pub fn log(&self) -> PathBuf {
        self.home.join("kafka.log")
    }

    /// Where its topics lie.
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Copies what lies on its topics to `folder`, a folder a partition, for `DumpLogSegments`.
    pub fn keep_records(&self, folder: &Path) -> Result<()> {
        for partition in fs::read_dir(self.data())? {
            let partition = partition?;
            let segments = fs::read_dir(partition.path()).into_iter().flatten().flatten();
            let segments = segments.filter(|file| file.path().extension().is_some_and(|kind| kind == "log"));
            for segment in segments.filter(|file| file.metadata().is_ok_and(|file| 0 < file.len())) {
                let to = folder.join(partition.file_name());
                fs::create_dir_all(&to)?;
                fs::copy(segment.path(), to.join(segment.file_name()))?;
            }
        }
        Ok(())
    }

    /// Starts it, unless it runs, and waits until it listens.
    pub fn revive(&self) -> Result<()> {
        self.spawn()?;
        self.until_listening()
    }

    /// Starts it, unless it runs.
    pub(super) fn spawn(&self) -> Result<()> {
        let mut process = self.process();
        if process.is_none() {
            let log = File::options().create(true).append(true).open(self.log())?;
            let child = self
                .java()
                .args(&self.machine)
                .arg("kafka.Kafka")
                .arg(self.properties())
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .context("java could not be started")?;
            *process = Some(child);
        }
        Ok(())
    }

    pub(super) fn until_listening(&self) -> Result<()> {
        wait::until("Kafka to listen", || {
            if let Some(status) = self.process().as_mut().map(Child::try_wait).transpose()?.flatten() {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(5).collect();
                return Ok(Some(Err(anyhow::anyhow!("Kafka ended with {status}: {tail:?}"))));
            }
            Ok(TcpStream::connect(("127.0.0.1", self.ports.broker)).ok().map(|_| Ok(())))
        })?
    }

    /// Kills it; what it has not synced lies in the page cache and survives.
    pub fn kill(&self) -> Result<()> {
        if let Some(mut process) = self.process().take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// See [`Kafka::limit_files`](super::Kafka::limit_files).
    pub(super) fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        let process = self.process();
        limit_files(process.as_ref().context("Kafka is not running")?, bytes)
    }

    /// Waits for its end.
    pub(super) fn until_ended(&self) -> Result<()> {
        wait::until("Kafka to end", || {
            let mut process = self.process();
            let has_ended = process.as_mut().map(Child::try_wait).transpose()?.flatten().is_some();
            // Whoever starts it again begins anew.
            Ok(process.take_if(|_| has_ended).map(drop))
        })
    }

    /// Freezes it: it answers nothing, and keeps its connections.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Ends [`Node::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Has it hand over what it leads and close its files, and waits for its end.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let ended = wait::until_within(Duration::from_secs(20), "Kafka to end", || {
            Ok(self.process().as_mut().map(Child::try_wait).transpose()?.flatten())
        });
        match ended {
            Ok(_) => {
                self.process().take();
                Ok(())
            }
            Err(_) => self.kill(),
        }
    }

    /// Has it end by itself, however long that takes it.
    pub(super) fn end(&self) -> Result<()> {
        self.signal(Signal::TERM)?;
        self.until_ended()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process();
        let process = process.as_ref().context("Kafka is not running")?;
        Ok(kill_process(Pid::from_child(process), signal)?)
    }

    /// Writes its settings, those that differ from node to node before `more`.
    pub(super) fn configure(&self, more: &str) -> Result<()> {
        let Ports { broker, controller, doors } = &self.ports;
        let listeners = |port: fn(&Door) -> u16| -> String {
            let all = doors.iter().enumerate();
            all.map(|(number, door)| format!(",DOOR{number}://127.0.0.1:{}", port(door))).collect()
        };
        let protocols: String = (0..doors.len()).map(|door| format!(",DOOR{door}:PLAINTEXT")).collect();
        let text = format!(
            "process.roles=broker,controller
node.id={}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}{}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}{}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={}
{more}",
            self.id,
            listeners(|door| door.behind),
            listeners(|door| door.front),
            self.data().display(),
        );
        Ok(fs::write(self.properties(), text)?)
    }

    /// Prepares its storage for a cluster, unless that is done.
    pub(super) fn format(&self, how: &[&str], cluster: &str) -> Result<()> {
        if self.data().join("meta.properties").exists() {
            return Ok(());
        }
        let output = self
            .tool(STORAGE_TOOL)
            .arg("format")
            .args(how)
            .args(["-t", cluster, "-c"])
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

    fn properties(&self) -> PathBuf {
        self.home.join("server.properties")
    }

    fn java(&self) -> Command {
        let mut java = child("java");
        java.arg("-XX:+UseSerialGC").arg("-cp").arg(self.jars.join("*"));
        if let Some(classes) = &self.classes {
            java.arg(format!("-XX:SharedArchiveFile={}", classes.display()));
        }
        java
    }

    /// One of Kafka's own tools.
    pub(super) fn tool(&self, name: &str) -> Command {
        let mut tool = self.java();
        tool.args([QUICK_COMPILER, name]);
        tool
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const STORAGE_TOOL: &str = "kafka.tools.StorageTool";
