//! The failure matrix, a row a test: steady load, a fault, its end, and then every accepted event
//! is settled, once.
//!
//! Two clusters of three nodes for all rows that strike brokers, each for one of them at a time; one
//! node that has detours for all rows that spoil the network, side by side; for each seed and for
//! whoever kills the only node a Kafka of its own, one at a time.

mod faults {
    pub(crate) mod brokers;
    pub(crate) mod coordinators;
    pub(crate) mod drill;
    pub(crate) mod handler_network;
    pub(crate) mod network;
    pub(crate) mod seeds;
}

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::Result;
use hookwell_tests::kafka::{Kafka, Shape};
use hookwell_tests::stage::Binaries;
use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

/// Rows at a time; each may want a way of its own to the one node.
const THREADS: usize = 6;

/// What all rows share.
#[derive(Debug)]
pub(crate) struct Common {
    binaries: Binaries,
    clusters: [Lazy; 2],
    /// The clusters that no row has for itself.
    free: Mutex<Vec<usize>>,
    freed: Condvar,
    node: Lazy,
    /// Held by whoever has a Kafka of its own.
    own_kafka: Mutex<()>,
}

/// A Kafka that is started when the first row needs it.
#[derive(Debug)]
struct Lazy {
    shape: Shape,
    home: TempDir,
    started: OnceLock<Arc<Kafka>>,
}

impl Lazy {
    fn new(shape: Shape) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("hookwell-kafka-").tempdir()?;
        Ok(Self { shape, home, started: OnceLock::new() })
    }

    fn get(&self) -> Result<Arc<Kafka>> {
        // One after the other: all at once would leave nothing of the machine to those that run.
        static STARTING: Mutex<()> = Mutex::new(());
        let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kafka) = self.started.get() {
            return Ok(Arc::clone(kafka));
        }
        let kafka = Arc::new(Kafka::start_as(self.home.path(), self.shape)?);
        Ok(Arc::clone(self.started.get_or_init(|| kafka)))
    }
}

/// A cluster, for as long as this row has it for itself. Ends with every node alive.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) kafka: Arc<Kafka>,
    _lease: Lease<'a>,
}

/// One of the clusters, by its number.
#[derive(Debug)]
struct Lease<'a> {
    common: &'a Common,
    number: usize,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.common.free().push(self.number);
        self.common.freed.notify_one();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // The next row waits until all is well, and says what is not.
        self.kafka.thaw().ok();
        self.kafka.revive().ok();
    }
}

impl Common {
    /// Three nodes that are well, for this row alone.
    pub(crate) fn cluster(&self) -> Result<Turn<'_>> {
        let lease = self.lease();
        let kafka = self.clusters[lease.number].get()?;
        kafka.until_healthy()?;
        kafka.sweep()?;
        Ok(Turn { kafka, _lease: lease })
    }

    fn lease(&self) -> Lease<'_> {
        let mut free = self.free();
        loop {
            if let Some(number) = free.pop() {
                return Lease { common: self, number };
            }
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn of one that starts a Kafka of its own.
    pub(crate) fn own_kafka(&self) -> MutexGuard<'_, ()> {
        self.own_kafka.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One node with detours, for all.
    pub(crate) fn node(&self) -> Result<Arc<Kafka>> {
        let kafka = self.node.get()?;
        kafka.sweep()?;
        Ok(kafka)
    }
}

/// A row: its name is a sentence.
type Test = (&'static str, fn(&Common) -> Result<()>);

/// The rows of a module, each under its own name.
macro_rules! tests {
    ($($test:ident),+ $(,)?) => {
        /// The rows of this file.
        pub(crate) const TESTS: &[crate::Test] = &[$((stringify!($test), $test)),+];
    };
}
pub(crate) use tests;

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    // Each row waits most of the time, some of them for each other; what they wait for runs on two
    // cores or more.
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let common = Arc::new(Common {
        binaries: Binaries {
            ingest: PathBuf::from(env!("CARGO_BIN_EXE_ingest-under-test")),
            processor: PathBuf::from(env!("CARGO_BIN_EXE_processor-under-test")),
        },
        clusters: [Lazy::new(Shape { nodes: 3, doors: 0 })?, Lazy::new(Shape { nodes: 3, doors: 0 })?],
        free: Mutex::new(vec![1, 0]),
        freed: Condvar::new(),
        node: Lazy::new(Shape { nodes: 1, doors: THREADS })?,
        own_kafka: Mutex::new(()),
    });
    let trial = |file: &str, (name, test): Test| {
        let common = Arc::clone(&common);
        Trial::test(format!("{file}::{name}"), move || {
            test(&common).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    let files = [
        ("brokers", faults::brokers::TESTS),
        ("coordinators", faults::coordinators::TESTS),
        ("handler_network", faults::handler_network::TESTS),
        ("network", faults::network::TESTS),
        ("seeds", faults::seeds::TESTS),
    ];
    // Evenly mixed: rows that strike a cluster wait for each other, and others run meanwhile.
    let mut trials: Vec<_> = files
        .iter()
        .flat_map(|(file, tests)| {
            tests.iter().enumerate().map(|(at, test)| (at * 1000 / tests.len(), trial(file, *test)))
        })
        .collect();
    trials.sort_by_key(|(place, _)| *place);
    let trials = trials.into_iter().map(|(_, trial)| trial).collect();
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}
