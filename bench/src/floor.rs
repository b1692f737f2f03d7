//! The floors: the least that each kind of work can cost, as processes of their own. They say on
//! standard output when the piece that counts begins and ends, and with how many events.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;

use crate::cost::{Cost, Meter, Process};
use crate::report::say;

mod drain;
mod http;
mod produce;
mod transactions;

/// One of them.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Floor {
    /// Answers 200 after the body.
    Http(http::Http),
    /// Produces, and waits for acknowledgements.
    Produce(produce::Produce),
    /// Consumes, produces and commits, in transactions.
    Transactions(transactions::Transactions),
    /// Reads a topic to its end.
    Drain(drain::Drain),
}

impl Floor {
    /// Runs it in this process.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Floor::Http(floor) => floor.run(),
            Floor::Produce(floor) => floor.run(),
            Floor::Transactions(floor) => floor.run(),
            Floor::Drain(floor) => floor.run(),
        }
    }
}

/// Says that the piece that counts begins, with `events` behind it already.
fn begin(events: u64) {
    say(&format!("begin {events}"));
}

/// Says that it ends, with `events` behind it altogether.
fn end(events: u64) {
    say(&format!("end {events}"));
}

/// A floor in a process of its own, ended when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    words: BufReader<ChildStdout>,
}

impl Running {
    /// Starts `floor` with `arguments`.
    pub(crate) fn start(floor: &str, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["floor", floor])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let words = BufReader::new(child.stdout.take().context("a pipe was asked for")?);
        Ok(Self { child, words })
    }

    /// Its process.
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Waits until it says `word`, and gives the number beside it.
    pub(crate) fn until(&mut self, word: &str) -> Result<u64> {
        let mut line = String::new();
        ensure!(0 < self.words.read_line(&mut line)?, "a floor ended before it said {word}");
        match line.trim().split_once(' ') {
            Some((said, number)) if said == word => Ok(number.parse()?),
            _ => bail!("a floor said {line:?} instead of {word}"),
        }
    }

    /// Measures the piece that counts.
    pub(crate) fn measure(mut self, broker: Process) -> Result<Cost> {
        let before = self.until("begin")?;
        let meter = Meter::begin(self.process(), broker)?;
        let after = self.until("end")?;
        // It waits to be ended, so that its time can still be asked for.
        meter.end(after - before)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// Waits for the end, which whoever measures brings.
fn stay() {
    loop {
        std::thread::park();
    }
}
