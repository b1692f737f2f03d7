//! What a piece of work cost: time, and the processor time of everybody who took part.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hookwell_common::lifecycle::Clock;

/// Linux tells processor time in hundredths of a second, whatever its own clock ticks at.
const TICK: Duration = Duration::from_millis(10);

/// A process on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// This one.
    pub(crate) fn own() -> Self {
        Self(std::process::id())
    }

    /// The processor time of all its threads so far, also of those that have ended.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name, in parentheses, may hold anything; user and system time are 12th and 13th after it.
        let (_, fields) = text.rsplit_once(')').context("a strange /proc/PID/stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u32 = ticks.map(|field| field.parse::<u32>().unwrap_or(0)).sum();
        Ok(TICK * ticks)
    }

    /// A line of its `/proc/PID/status` in bytes: `VmRSS`, `VmHWM`.
    pub(crate) fn memory(self, what: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kilobytes.with_context(|| format!("no {what}"))? * 1024)
    }
}

/// What happened between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// How many events.
    pub(crate) events: f64,
    /// How long, in seconds.
    pub(crate) seconds: f64,
    /// Processor seconds of what is measured.
    pub(crate) own: f64,
    /// Processor seconds of Kafka.
    pub(crate) broker: f64,
    /// Processor seconds of this process, which makes the load.
    pub(crate) load: f64,
}

impl Cost {
    /// Events a second.
    pub(crate) fn rate(&self) -> f64 {
        self.events / self.seconds
    }

    /// Processor microseconds an event.
    pub(crate) fn own_micros(&self) -> f64 {
        self.own * 1e6 / self.events
    }

    /// Kafka's processor microseconds an event.
    pub(crate) fn broker_micros(&self) -> f64 {
        self.broker * 1e6 / self.events
    }

    /// This process's microseconds an event.
    pub(crate) fn load_micros(&self) -> f64 {
        self.load * 1e6 / self.events
    }
}

/// The beginning of a piece of work.
#[derive(Debug)]
pub(crate) struct Meter {
    clock: Clock,
    measured: Process,
    broker: Process,
    before: [Duration; 3],
}

impl Meter {
    /// From now on.
    pub(crate) fn begin(measured: Process, broker: Process) -> Result<Self> {
        let before = [measured.cpu()?, broker.cpu()?, Process::own().cpu()?];
        Ok(Self { clock: Clock::start(), measured, broker, before })
    }

    /// Up to now, with `events` in it.
    pub(crate) fn end(&self, events: u64) -> Result<Cost> {
        let seconds = self.clock.mono().as_secs_f64();
        let since = |at: usize, process: Process| -> Result<f64> {
            Ok(process.cpu()?.saturating_sub(self.before[at]).as_secs_f64())
        };
        Ok(Cost {
            events: events as f64,
            seconds,
            own: since(0, self.measured)?,
            broker: since(1, self.broker)?,
            load: since(2, Process::own())?,
        })
    }
}
