//! What the story is played with: a Kafka, both programs, a handler, and the commands that are typed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use hookwell_common::config::{Config, DestinationKind, Environment, Faults};
use hookwell_tests::handler::HttpHandler;
use hookwell_tests::kafka::Kafka;
use hookwell_tests::program::{Answer, Program, answer};
use hookwell_tests::reader::Reader;
use hookwell_tests::sender::Sender;
use hookwell_tests::wait;

use crate::{cluster, say};

/// All of it; what it started ends with it, the programs first.
pub(crate) struct Scene {
    ingest: Program,
    /// The one that delivers.
    pub(crate) processor: Program,
    /// What the destination calls.
    pub(crate) handler: HttpHandler,
    /// A look at the topics.
    pub(crate) reader: Reader,
    /// As the copy of the file says.
    pub(crate) config: Config,
    /// The copy.
    pub(crate) file: PathBuf,
    home: PathBuf,
    programs: PathBuf,
    told_to_stop: Arc<AtomicBool>,
    _kafka: Kafka,
}

impl Scene {
    /// Starts everything.
    pub(crate) fn set(original: &Path, home: &Path, told_to_stop: Arc<AtomicBool>) -> Result<Self> {
        cluster::check_java()?;
        fs::create_dir_all(home.join("secrets"))?;
        // Everybody knows them: nothing here listens beyond this machine.
        for sender in Sender::ALL {
            fs::write(home.join("secrets").join(sender.name()), sender.secret())?;
        }
        let file = home.join("hookwell.toml");
        fs::copy(original, &file).with_context(|| original.display().to_string())?;
        let config = read(&file)?;
        let port = handler_port(&config)?;
        cluster::check_ports(&config, port)?;

        let kafka = cluster::start(&config, home)?;
        let handler = HttpHandler::start_at(port)?;
        let programs = std::env::current_exe()?.parent().context("a program lies in a folder")?.to_owned();
        let created = answer(&programs.join("processor"), &arguments(&file, &["--create-topics"]), &[])?;
        ensure!(created.status == Some(0), "the topics could not be created: {}", created.err);
        let start = |name: &str, admin: String| {
            let log = home.join(format!("{name}.log"));
            fs::write(&log, "")?;
            Program::start(&programs.join(name), &arguments(&file, &[]), &[], &log, &admin)
        };
        say("Starting ingest and processor ...");
        let ingest = start("ingest", config.ingest.admin_listen.to_string())?;
        let processor = start("processor", config.processor.admin_listen.to_string())?;
        Ok(Self {
            ingest: ingest.ready()?,
            processor: processor.ready()?,
            handler,
            reader: Reader::new(&kafka.bootstrap_servers()),
            config,
            file,
            home: home.to_owned(),
            programs,
            told_to_stop,
            _kafka: kafka,
        })
    }

    /// Ends the programs in order.
    pub(crate) fn strike(self) -> Result<()> {
        for (name, program) in [("ingest", &self.ingest), ("processor", &self.processor)] {
            let log = self.home.join(format!("{name}.log"));
            ensure!(program.stop()?.success(), "{name} did not end well; its log is in {}", log.display());
        }
        Ok(())
    }

    /// Shows what one would type, does it, and shows what it says.
    pub(crate) fn type_in(&self, program: &str, words: &[&str]) -> Result<()> {
        let words_in_full = arguments(&self.file, words).join(" ");
        say(&format!("  $ {} {words_in_full}", self.shown(program)));
        let Answer { status, out, err } = self.ask(program, words)?;
        for line in out.lines().chain(err.lines()) {
            say(&format!("    {}", line.trim_end()));
        }
        ensure!(status == Some(0), "that should not be: {program} ended with {status:?}");
        Ok(())
    }

    /// What `program` answers.
    pub(crate) fn ask(&self, program: &str, words: &[&str]) -> Result<Answer> {
        answer(&self.programs.join(program), &arguments(&self.file, words), &[])
    }

    /// Waits for a condition, and no longer when told to stop.
    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let found = wait::until(what, || {
            if self.told_to_stop.load(Ordering::Relaxed) || self.processor.ended()?.is_some() {
                return Ok(Some(None));
            }
            Ok(look()?.map(Some))
        })?;
        let log = self.home.join("processor.log");
        found.with_context(|| format!("told to stop before the end; the log is in {}", log.display()))
    }

    /// The program as one would type it from the project's directory.
    fn shown(&self, program: &str) -> String {
        let path = self.programs.join(program);
        let here = std::env::current_dir().and_then(|here| here.canonicalize()).unwrap_or_default();
        path.strip_prefix(here).unwrap_or(&path).display().to_string()
    }
}

fn arguments<'a>(file: &'a Path, words: &[&'a str]) -> Vec<&'a str> {
    let config = file.to_str().unwrap_or_default();
    [&["--config", config], words].concat()
}

/// What the file says, after the variables of this process.
pub(crate) fn read(file: &Path) -> Result<Config> {
    let mut faults = Faults::default();
    let config = Config::load(file, &Environment::of_this_process(), &mut faults);
    Ok(faults.into_result(config)?)
}

fn handler_port(config: &Config) -> Result<u16> {
    let port = config.destinations.iter().find_map(|destination| match &destination.kind {
        DestinationKind::Http { url, .. } => url.port(),
        DestinationKind::Kafka { .. } | DestinationKind::Log | DestinationKind::Custom => None,
    });
    port.context("no destination of kind http names a port")
}
