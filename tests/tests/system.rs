//! The system tests: both programs on a real Kafka that these tests start themselves.
//!
//! One binary, one node for all tests but those that kill it, topics of their own for each.

mod system {
    pub(crate) mod auditing;
    pub(crate) mod clocks;
    pub(crate) mod commands;
    pub(crate) mod crashes;
    pub(crate) mod damaged_topics;
    pub(crate) mod delivery;
    pub(crate) mod demonstration;
    pub(crate) mod disk_full;
    pub(crate) mod kafka_away;
    pub(crate) mod keys;
    pub(crate) mod mishaps;
    pub(crate) mod operator;
    pub(crate) mod overload;
    pub(crate) mod ownership;
    pub(crate) mod quarantine;
    pub(crate) mod receiving;
    pub(crate) mod replaying;
    pub(crate) mod rotation;
    pub(crate) mod rude_clients;
    pub(crate) mod rude_handlers;
    pub(crate) mod runbook;
    pub(crate) mod scaling;
    pub(crate) mod senders;
    pub(crate) mod spool;
    pub(crate) mod strange_records;
}

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use hookwell_tests::kafka::Kafka;
use hookwell_tests::stage::{Binaries, Settings, Stage};
use libtest_mimic::{Arguments, Failed, Trial};

/// What all tests share.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    kafka: Arc<Kafka>,
    binaries: Binaries,
}

impl Common {
    /// A stage with the usual settings.
    pub(crate) fn stage(&self) -> Result<Stage> {
        self.stage_with(|_| ())
    }

    /// A stage with settings of its own.
    pub(crate) fn stage_with(&self, change: impl FnOnce(&mut Settings)) -> Result<Stage> {
        let mut settings = Settings::default();
        change(&mut settings);
        Stage::set(&self.kafka, &self.binaries, settings)
    }

    /// A stage without topics.
    pub(crate) fn bare_stage(&self, change: impl FnOnce(&mut Settings)) -> Result<Stage> {
        let mut settings = Settings::default();
        change(&mut settings);
        Stage::bare(&self.kafka, &self.binaries, settings)
    }

    /// A stage on a Kafka of its own, for tests that kill it.
    pub(crate) fn stage_on_own_kafka(&self, change: impl FnOnce(&mut Settings)) -> Result<(OwnKafka, Stage)> {
        let home = tempfile::Builder::new().prefix("hookwell-kafka-").tempdir()?;
        let kafka = Arc::new(Kafka::start(home.path())?);
        let mut settings = Settings::default();
        change(&mut settings);
        let stage = Stage::set(&kafka, &self.binaries, settings)?;
        Ok((OwnKafka { kafka, _home: home }, stage))
    }
}

/// A Kafka that one test may kill. To be kept longer than its stage.
#[derive(Debug)]
pub(crate) struct OwnKafka {
    pub(crate) kafka: Arc<Kafka>,
    _home: tempfile::TempDir,
}

/// A test: its name is a sentence.
type Test = (&'static str, fn(&Common) -> Result<()>);

/// The tests of a module, each under its own name.
macro_rules! tests {
    ($($test:ident),+ $(,)?) => {
        /// The tests of this file.
        pub(crate) const TESTS: &[crate::Test] = &[$((stringify!($test), $test)),+];
    };
}
pub(crate) use tests;

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    // Each test waits most of the time; what it waits for runs on two cores or more.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    let files = [
        ("auditing", system::auditing::TESTS),
        ("clocks", system::clocks::TESTS),
        ("commands", system::commands::TESTS),
        ("crashes", system::crashes::TESTS),
        ("damaged_topics", system::damaged_topics::TESTS),
        ("delivery", system::delivery::TESTS),
        ("demonstration", system::demonstration::TESTS),
        ("disk_full", system::disk_full::TESTS),
        ("kafka_away", system::kafka_away::TESTS),
        ("keys", system::keys::TESTS),
        ("mishaps", system::mishaps::TESTS),
        ("overload", system::overload::TESTS),
        ("ownership", system::ownership::TESTS),
        ("quarantine", system::quarantine::TESTS),
        ("receiving", system::receiving::TESTS),
        ("replaying", system::replaying::TESTS),
        ("rotation", system::rotation::TESTS),
        ("rude_clients", system::rude_clients::TESTS),
        ("rude_handlers", system::rude_handlers::TESTS),
        ("runbook", system::runbook::TESTS),
        ("scaling", system::scaling::TESTS),
        ("senders", system::senders::TESTS),
        ("spool", system::spool::TESTS),
        ("strange_records", system::strange_records::TESTS),
    ];
    if arguments.list {
        let names = files
            .iter()
            .flat_map(|(file, tests)| tests.iter().map(move |(name, _)| format!("{file}::{name}")));
        let nothing = names.map(|name| Trial::test(name, || Ok(()))).collect();
        return Ok(libtest_mimic::run(&arguments, nothing).exit_code());
    }
    let home = tempfile::Builder::new().prefix("hookwell-kafka-").tempdir()?;
    let common = Common {
        kafka: Arc::new(Kafka::start(home.path())?),
        binaries: Binaries {
            ingest: PathBuf::from(env!("CARGO_BIN_EXE_ingest-under-test")),
            processor: PathBuf::from(env!("CARGO_BIN_EXE_processor-under-test")),
        },
    };
    let trial = |file: &str, (name, test): Test| {
        let common = common.clone();
        Trial::test(format!("{file}::{name}"), move || {
            test(&common)
                .and_then(|()| common.kafka.sweep())
                .map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    let trials = files.iter().flat_map(|(file, tests)| tests.iter().map(|test| trial(file, *test))).collect();
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}
