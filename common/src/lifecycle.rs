//! The life of a process: its clock, its signals, its named threads and tasks, and how it ends.

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;

use crate::config::ConfigError;
use crate::kafka::TopologyError;
use crate::time::{Now, Timestamp};

/// The clocks of this process, read in one place.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clocks")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The present on both clocks.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clocks")]
    pub fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Now { wall: Timestamp::from_millis(millis), mono: self.mono() }
    }

    /// Time since the clock was started; never goes back.
    pub fn mono(&self) -> Duration {
        self.start.elapsed()
    }
}

/// What somebody outside asks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: finish what is open, and end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Notes a SIGHUP that comes before [`on_signals`] reacts to it: by default it would end the process.
pub fn note_early_reload() -> io::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGHUP, Arc::clone(&asked))?;
    Ok(asked)
}

/// Calls `react` for each signal, on a thread of its own, for as long as the process lives. A
/// second signal to stop ends the process at once, for the first may hang.
pub fn on_signals(mut react: impl FnMut(Signal) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let watch = move || {
        let mut stopping = false;
        for signal in &mut signals {
            match signal {
                SIGHUP => react(Signal::Reload),
                _ if stopping => {
                    tracing::warn!("told to stop a second time; ending at once");
                    signal_hook::low_level::exit(1);
                }
                _ => {
                    stopping = true;
                    react(Signal::Stop);
                }
            }
        }
    };
    spawn_thread("signals", watch).map(drop)
}

/// Lets the process hold as many open files and connections as the system allows it at all: what
/// it is given to begin with is often 1,024, which a handful of slow clients uses up.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    match raised {
        Ok(()) => tracing::debug!(files = limit.maximum, "the limit on open files is raised"),
        Err(error) => tracing::warn!(files = limit.current, %error, "the limit on open files stays"),
    }
}

/// Starts a thread with a name.
pub fn spawn_thread<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.into()).spawn(body)
}

/// Starts a task on `runtime`; `name` is the span of all that it logs.
pub fn spawn<T: Send + 'static>(
    runtime: &tokio::runtime::Handle,
    name: &'static str,
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    use tracing::Instrument;
    runtime.spawn(task.instrument(tracing::debug_span!("task", name)))
}

/// Why a program ends without having done what it was asked; decides its exit status.
#[derive(Debug, Error)]
pub enum Failure {
    /// The answer is no: a request that does not verify, a replay with failures.
    #[error("{0}")]
    No(String),
    /// Wrong usage.
    #[error("{0}")]
    Usage(String),
    /// A configuration that cannot be run.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Kafka is not reachable, or not as configured.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// Kafka went away, or a promise could not be kept with what lies on it.
    #[error("{0}")]
    Kafka(String),
}

impl Failure {
    /// The published exit status: 1 the answer is no, 2 usage or configuration, 3 Kafka.
    pub fn status(&self) -> u8 {
        match self {
            Failure::No(_) => 1,
            Failure::Usage(_) | Failure::Config(_) => 2,
            Failure::Topology(_) | Failure::Kafka(_) => 3,
        }
    }
}

/// Prints an answer to standard output. Whoever closes it early, as `head` does, has seen enough.
pub fn print(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Usage(format!("the answer cannot be printed: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Tells something beside the answer, on standard error. Whoever closes it does not want to know.
pub fn warn(program: &str, text: impl Display) {
    writeln!(io::stderr(), "{program}: warning: {text}").ok();
}

/// Ends `main`: prints the failure, if there is one, to standard error, and gives its status.
#[expect(clippy::print_stderr, reason = "the last word of a program, also where no log is set up")]
pub fn conclude(program: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let words = failure.to_string();
            if !words.is_empty() {
                eprintln!("{program}: {words}");
            }
            ExitCode::from(failure.status())
        }
    }
}
