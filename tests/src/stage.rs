//! One test's stage: topics of its own, a configuration, a handler, and the programs on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::audit::{self, Audit, Events};
use crate::handler::HttpHandler;
use crate::kafka::{Kafka, free_port};
use crate::program::{Answer, Program, answer};
use crate::reader::{Reader, Record};
use crate::sender::{Sender, Signed, post};
use crate::wait;

/// Where the two programs lie.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The receiving one.
    pub ingest: PathBuf,
    /// The delivering one.
    pub processor: PathBuf,
}

/// What a test changes of the configuration: lines of TOML.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The partitions of each topic.
    pub partitions: u32,
    /// More of `[kafka.properties]`.
    pub kafka_properties: String,
    /// Where ingest begins, if not where everybody does: a [`Detour`](crate::detour::Detour).
    pub ingest_begins_at: Option<String>,
    /// Where processors begin, if not where everybody does.
    pub processor_begins_at: Option<String>,
    /// More of `[ingest]`.
    pub ingest: String,
    /// More of `[processor]`.
    pub processor: String,
    /// All of `[retry]`.
    pub retry: String,
    /// Whose events ingest keeps on its disk where Kafka cannot take them; needs an `[ingest.spool]`.
    pub spooling: Vec<Sender>,
    /// More sources, beside one of each [`Sender`].
    pub sources: String,
    /// All `[[destinations]]`; `HANDLER` stands for the handler's address, and `FOLDER`
    /// for the folder in which each sender's secret lies under its name.
    pub destinations: String,
    /// All `[[routes]]`.
    pub routes: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            partitions: 3,
            // After a SIGKILL nobody gets the partitions earlier.
            kafka_properties: "\"session.timeout.ms\" = 3000".to_owned(),
            ingest_begins_at: None,
            processor_begins_at: None,
            ingest: String::new(),
            processor: String::new(),
            retry: "tiers = [\"300ms\", \"1s\"]\nmax_attempts = 3\njitter = 0.0".to_owned(),
            spooling: Vec::new(),
            sources: String::new(),
            destinations: destination("orders", ""),
            routes: "[[routes]]\nsource = \"*\"\nto = [\"orders\"]".to_owned(),
        }
    }
}

/// A destination of kind `http` that the stage's handler serves, with `more` lines.
pub fn destination(name: &str, more: &str) -> String {
    format!("[[destinations]]\nname = \"{name}\"\nkind = \"http\"\nurl = \"HANDLER/{name}\"\n{more}\n")
}

/// One test's stage. Its programs must be dropped before it.
#[derive(Debug)]
pub struct Stage {
    /// The cluster.
    pub kafka: Arc<Kafka>,
    /// A look from outside.
    pub reader: Reader,
    /// The handler of every `http` destination.
    pub handler: HttpHandler,
    /// Where ingest listens.
    pub port: u16,
    /// What all topics begin with, and the group's id.
    pub prefix: String,
    settings: Settings,
    binaries: Binaries,
    folder: TempDir,
    admin_port: u16,
    started: AtomicUsize,
}

impl Stage {
    /// A stage with its topics created.
    pub fn set(kafka: &Arc<Kafka>, binaries: &Binaries, settings: Settings) -> Result<Self> {
        let stage = Self::bare(kafka, binaries, settings)?;
        let created = stage.processor_answers(&["--create-topics"])?;
        ensure!(created.status == Some(0), "the topics could not be created: {created:?}");
        Ok(stage)
    }

    /// A stage without topics.
    pub fn bare(kafka: &Arc<Kafka>, binaries: &Binaries, settings: Settings) -> Result<Self> {
        static STAGES: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("stage-{}-{}", std::process::id(), STAGES.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::Builder::new().prefix("hookwell-").tempdir()?;
        for sender in Sender::ALL {
            fs::write(folder.path().join(sender.name()), sender.secret())?;
        }
        let stage = Self {
            kafka: Arc::clone(kafka),
            reader: Reader::new(&kafka.bootstrap_servers()),
            handler: HttpHandler::start()?,
            port: free_port()?,
            prefix,
            settings,
            binaries: binaries.clone(),
            folder,
            admin_port: free_port()?,
            started: AtomicUsize::new(0),
        };
        stage.write(&stage.settings)?;
        Ok(stage)
    }

    /// The directory that is gone with the stage.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("hookwell.toml")
    }

    /// The full name of one of its topics.
    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Writes the configuration anew, changed; running programs hear of it with SIGHUP.
    pub fn rewrite(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        self.write(&settings)
    }

    fn write(&self, settings: &Settings) -> Result<()> {
        let Settings {
            partitions,
            kafka_properties,
            ingest_begins_at: _,
            processor_begins_at: _,
            ingest,
            processor,
            retry,
            spooling,
            sources,
            destinations,
            routes,
        } = settings;
        let senders: String = Sender::ALL
            .iter()
            .map(|sender| {
                let (name, file) = (sender.name(), self.folder.path().join(sender.name()));
                let more = if spooling.contains(sender) { "on_enqueue_failure = \"spool\"\n" } else { "" };
                format!(
                    "[[sources]]\nname = \"{name}\"\npreset = \"{name}\"\nsecrets = [{{ file = \"{}\" }}]\n{more}",
                    file.display()
                )
            })
            .collect();
        // A Kafka that takes its time on a busy machine is no fault of ingest's.
        let patience = if ingest.contains("publish_timeout") { "" } else { "publish_timeout = \"20s\"\n" };
        let text = format!(
            "[kafka]
bootstrap_servers = \"{}\"
topic_prefix = \"{}\"
partitions = {partitions}
replication_factor = {}
[kafka.properties]
{kafka_properties}
[ingest]
listen = \"127.0.0.1:{}\"
admin_listen = \"127.0.0.1:{}\"
{patience}{ingest}
[processor]
group_id = \"{}\"
{processor}
[retry]
{retry}
{senders}
{sources}
{}
{routes}
",
            self.kafka.bootstrap_servers(),
            self.prefix,
            self.kafka.copies(),
            self.port,
            self.admin_port,
            self.prefix,
            destinations,
        );
        let text = text
            .replace("HANDLER", self.handler.url("").trim_end_matches('/'))
            .replace("FOLDER", &self.folder.path().to_string_lossy());
        Ok(fs::write(self.config(), text)?)
    }

    /// Starts ingest and waits until it is ready.
    pub fn ingest(&self) -> Result<Program> {
        self.start_ingest("")?.ready()
    }

    /// Starts ingest with `failpoints` armed.
    pub fn start_ingest(&self, failpoints: &str) -> Result<Program> {
        self.start_ingest_in(&[("FAILPOINTS", failpoints)])
    }

    /// Starts ingest with these variables in its environment.
    pub fn start_ingest_in(&self, environment: &[(&str, &str)]) -> Result<Program> {
        let admin = format!("127.0.0.1:{}", self.admin_port);
        let environment = [environment, &begins_at(self.settings.ingest_begins_at.as_deref())[..]].concat();
        self.start(&self.binaries.ingest, "ingest", &environment, &admin)
    }

    /// Starts ingest, which outlives a file that may not grow: see [`Program::limit_files`].
    pub fn ingest_on_a_small_disk(&self) -> Result<Program> {
        let admin = format!("127.0.0.1:{}", self.admin_port);
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let log = self.folder.path().join(format!("ingest-{number}.log"));
        let (binary, config) = (self.binaries.ingest.to_string_lossy(), self.config());
        // Whoever is not told otherwise dies of the signal that comes before the error.
        let words = "trap '' XFSZ; exec \"$0\" --config \"$1\"";
        let arguments = ["-c", words, &binary, &config.to_string_lossy()];
        Program::start(Path::new("sh"), &arguments, &[], &log, &admin)?.ready()
    }

    /// Starts a processor and waits until all its lanes are restored.
    pub fn processor(&self) -> Result<Program> {
        self.start_processor("")?.ready()
    }

    /// Starts a processor with `failpoints` armed.
    pub fn start_processor(&self, failpoints: &str) -> Result<Program> {
        self.start_processor_at(self.settings.processor_begins_at.as_deref(), failpoints)
    }

    /// [`Stage::start_processor`], one that begins at `servers`, or where everybody does.
    pub fn start_processor_at(&self, servers: Option<&str>, failpoints: &str) -> Result<Program> {
        self.start_processor_in(&[&begins_at(servers)[..], &[("FAILPOINTS", failpoints)]].concat())
    }

    /// Starts a processor with these variables in its environment.
    pub fn start_processor_in(&self, environment: &[(&str, &str)]) -> Result<Program> {
        let admin = format!("127.0.0.1:{}", free_port()?);
        let environment = [environment, &[("HOOKWELL__PROCESSOR__ADMIN_LISTEN", &admin)]].concat();
        self.start(&self.binaries.processor, "processor", &environment, &admin)
    }

    /// Starts the processor with `arguments` that have it do something else and end by itself. What
    /// it prints is in its log.
    pub fn start_command(&self, arguments: &[&str]) -> Result<Program> {
        self.start_armed_command("", arguments)
    }

    /// [`Stage::start_command`], with `failpoints` armed.
    pub fn start_armed_command(&self, failpoints: &str, arguments: &[&str]) -> Result<Program> {
        self.start_command_of(&self.binaries.processor, failpoints, arguments)
    }

    /// The same, of ingest.
    pub fn start_armed_ingest_command(&self, failpoints: &str, arguments: &[&str]) -> Result<Program> {
        self.start_command_of(&self.binaries.ingest, failpoints, arguments)
    }

    fn start_command_of(&self, binary: &Path, failpoints: &str, arguments: &[&str]) -> Result<Program> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let (log, config) = (self.folder.path().join(format!("command-{number}.log")), self.config());
        let config = config.to_string_lossy();
        let arguments = [&["--config", &*config], arguments].concat();
        Program::start(binary, &arguments, &[("FAILPOINTS", failpoints)], &log, "")
    }

    fn start(&self, binary: &Path, name: &str, environment: &[(&str, &str)], admin: &str) -> Result<Program> {
        let log =
            self.folder.path().join(format!("{name}-{}.log", self.started.fetch_add(1, Ordering::Relaxed)));
        let config = self.config();
        Program::start(binary, &["--config", &config.to_string_lossy()], environment, &log, admin)
    }

    /// What ingest prints when called with `arguments`.
    pub fn ingest_answers(&self, arguments: &[&str]) -> Result<Answer> {
        self.answers(&self.binaries.ingest, arguments)
    }

    /// What the processor prints when called with `arguments`.
    pub fn processor_answers(&self, arguments: &[&str]) -> Result<Answer> {
        self.answers(&self.binaries.processor, arguments)
    }

    fn answers(&self, binary: &Path, arguments: &[&str]) -> Result<Answer> {
        let config = self.config();
        let mut all = vec!["--config"];
        let config = config.to_string_lossy();
        all.push(&config);
        all.extend_from_slice(arguments);
        answer(binary, &all, &[])
    }

    /// Sends an event of `sender` that must be accepted.
    pub fn send(&self, sender: Sender, id: &str) -> Result<Signed> {
        let signed = sender.event(id);
        let (status, text) = post(self.port, &signed)?;
        ensure!(status == 200, "{status}: {text}");
        Ok(signed)
    }

    /// Puts GitHub events with these ids on the topic by way of an ingest of its own.
    pub fn accept(&self, ids: &[&str]) -> Result<()> {
        let ingest = self.ingest()?;
        ids.iter().try_for_each(|id| self.send(Sender::GitHub, id).map(drop))?;
        ensure!(ingest.stop()?.success(), "ingest did not end well");
        Ok(())
    }

    /// Waits until every event on the topic has its terminal state at the destination `orders`, and
    /// gives the judgement.
    pub fn until_settled(&self, accepted: &[&str]) -> Result<Audit> {
        let accepted: Events = accepted.iter().map(|id| ("github".to_owned(), (*id).to_owned())).collect();
        self.until_all_settled(&accepted)
    }

    /// [`Stage::until_settled`], with sources and ids.
    pub fn until_all_settled(&self, accepted: &Events) -> Result<Audit> {
        wait::until("all events to be settled", || Ok(self.audit(accepted)?.is_settled().then_some(())))?;
        // Topics are read one after the other: only what no longer moves can be judged.
        self.audit(accepted)
    }

    /// Waits until all of `accepted` has its terminal state at each of `destinations`, and gives the
    /// judgement.
    pub fn until_settled_at(&self, destinations: &[&str], accepted: &Events) -> Result<Audit> {
        let audit =
            || Audit::of(audit::run(&self.reader, &self.prefix, &self.prefix, destinations), accepted);
        wait::until("all events to be settled", || Ok(audit()?.is_settled().then_some(())))?;
        audit()
    }

    /// The judgement as things stand.
    pub fn audit(&self, accepted: &Events) -> Result<Audit> {
        Audit::of(audit::run(&self.reader, &self.prefix, &self.prefix, &["orders"]), accepted)
    }

    /// The committed dead letters.
    pub fn dead_letters(&self) -> Result<Vec<Record>> {
        self.reader.read(&self.topic("dlq"))
    }

    /// Waits until the group has committed each partition of the events topic up to its end.
    pub fn until_caught_up(&self) -> Result<()> {
        let topic = self.topic("events");
        wait::until("the group to reach the end", || {
            let ends = self.reader.ends(&topic)?;
            let committed = self.reader.committed(&self.prefix, &topic)?;
            let reached =
                ends.iter().all(|(partition, (_, end))| committed.get(partition).unwrap_or(&0) == end);
            Ok(reached.then_some(()))
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kafka.leave_topics(self.topic(""));
    }
}

/// The variable that has a program begin at `servers`.
fn begins_at(servers: Option<&str>) -> Vec<(&str, &str)> {
    servers.map(|servers| ("HOOKWELL__KAFKA__BOOTSTRAP_SERVERS", servers)).into_iter().collect()
}
