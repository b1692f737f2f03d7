//! The programs of a run: struck, and started again as a supervisor would.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::program::Program;
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;
use rustix::process::Signal;

use crate::brokers::Brokers;
use crate::evidence;
use crate::schedule::{Blow, Fault, PROCESSORS, Who, who_passes};

/// How long a program may take to come by the fail-point at which it is to die.
const FAIL_POINT_PATIENCE: Duration = Duration::from_secs(8);

/// How long ingest is kept from Kafka, so that it has something to spool and to drain.
const CUT_OFF: Duration = Duration::from_secs(4);

/// What a program says that ends for want of Kafka before it has begun.
const COULD_NOT_START: &str = "could not be asked";

/// One ingest, and the processors.
#[derive(Debug)]
pub(crate) struct Crew<'a> {
    stage: &'a Stage,
    brokers: &'a Brokers,
    ingest: Program,
    processors: Vec<Program>,
    /// What programs said that could not start, for Kafka did not answer.
    pub(crate) gave_up: Vec<String>,
    /// What programs said that ended otherwise, although nobody had told them to.
    pub(crate) ended: Vec<String>,
}

impl<'a> Crew<'a> {
    /// Starts everybody and waits until they are ready.
    pub(crate) fn muster(stage: &'a Stage, brokers: &'a Brokers) -> Result<Self> {
        let ingest = stage.start_ingest("")?;
        let processors = (0..PROCESSORS).map(|_| stage.start_processor("")).collect::<Result<Vec<_>>>()?;
        let processors = processors.into_iter().map(Program::ready).collect::<Result<_>>()?;
        let (gave_up, ended) = (Vec::new(), Vec::new());
        Ok(Self { stage, brokers, ingest: ingest.ready()?, processors, gave_up, ended })
    }

    /// Lets `time` pass; who ends by itself meanwhile is started again.
    pub(crate) fn watch(&mut self, time: Duration) -> Result<()> {
        const LOOK: Duration = Duration::from_millis(200);
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(LOOK);
            wait::pause(step);
            left -= step;
            self.revive()?;
        }
        Ok(())
    }

    fn revive(&mut self) -> Result<()> {
        for who in everybody() {
            if let Some(status) = self.program(who).ended()? {
                let said = last_lines(&self.program(who).logged());
                let words = format!("{who:?} ended by itself with {status}:\n{said}");
                if status.code() == Some(3) && said.contains(COULD_NOT_START) {
                    self.gave_up.push(words);
                } else {
                    self.ended.push(words);
                }
                self.start(who, "")?;
            }
        }
        Ok(())
    }

    fn program(&self, who: Who) -> &Program {
        match who {
            Who::Ingest => &self.ingest,
            Who::Processor(number) => &self.processors[number],
        }
    }

    fn start(&mut self, who: Who, failpoint: &str) -> Result<()> {
        match who {
            Who::Ingest => self.ingest = self.stage.start_ingest(failpoint)?,
            Who::Processor(number) => self.processors[number] = self.stage.start_processor(failpoint)?,
        }
        Ok(())
    }

    /// Strikes one, and mends it after `lasts`.
    pub(crate) fn blow(&mut self, who: Who, blow: Blow, lasts: Duration) -> Result<()> {
        match blow {
            Blow::Freeze => {
                self.program(who).signal(Signal::STOP)?;
                wait::pause(lasts);
                self.program(who).signal(Signal::CONT)
            }
            Blow::Kill => {
                self.program(who).kill()?;
                wait::pause(lasts);
                self.start(who, "")
            }
            Blow::Restart => {
                self.end_well(who)?;
                wait::pause(lasts);
                self.start(who, "")
            }
        }
    }

    /// Tells one to end. It may be killed, as supervisors do, where Kafka keeps it from ending.
    fn end_well(&mut self, who: Who) -> Result<()> {
        let program = self.program(who);
        program.signal(Signal::TERM)?;
        let grace = Duration::from_secs(30);
        match wait::until_within(grace, "a program to end", || program.ended()) {
            Ok(_) => Ok(()),
            Err(_) => program.kill(),
        }
    }

    /// Has the program that comes by `point` die there, after a few passages, and starts it again
    /// after `lasts`. Gives back what happened: one that does not come by is killed where it is.
    pub(crate) fn die_at(&mut self, point: &'static str, lasts: Duration) -> Result<Fault> {
        let who = who_passes(point);
        let passages = if point.starts_with("restore") || point.starts_with("revoke") { 0 } else { 3 };
        self.end_well(who)?;
        self.start(who, &format!("{point}={passages}*off->return"))?;
        let is_ready = || Ok(self.program(who).is_ready()?.then_some(()));
        let until_ready = || wait::until_within(FAIL_POINT_PATIENCE, "a program to be ready", is_ready).ok();
        let is_dead = || self.program(who).ended();
        if point.starts_with("revoke") {
            // It hands back what it has when it is told to end.
            until_ready();
            self.program(who).signal(Signal::TERM)?;
        } else if point.starts_with("spool") {
            until_ready();
            self.brokers.cut_off_ingest(|| wait::until_within(CUT_OFF, "a death", is_dead).map(drop).ok());
        }
        // Its end is what is waited for.
        if wait::until_within(FAIL_POINT_PATIENCE, "a death", is_dead).is_err() {
            self.program(who).kill()?;
        }
        let is_there = self.program(who).logged().contains("dying here, as the environment asked");
        wait::pause(lasts);
        self.start(who, "")?;
        Ok(if is_there { Fault::DiesAt(point) } else { Fault::Program(who, Blow::Kill) })
    }

    /// One more processor works for `lasts`.
    pub(crate) fn one_more(&mut self, lasts: Duration) -> Result<()> {
        let more = self.stage.start_processor("")?;
        self.watch(lasts)?;
        more.signal(Signal::TERM)?;
        wait::until_within(Duration::from_secs(30), "a program to end", || more.ended())
            .map(drop)
            .or_else(|_| more.kill())
    }

    /// All processors are restarted, one after the other.
    pub(crate) fn roll(&mut self) -> Result<()> {
        for who in (0..PROCESSORS).map(Who::Processor) {
            self.blow(who, Blow::Restart, Duration::ZERO)?;
        }
        Ok(())
    }

    /// Everybody reads the configuration again.
    pub(crate) fn reload(&mut self) -> Result<()> {
        // One that is gone is started again at the next look.
        everybody().try_for_each(|who| match self.program(who).ended()? {
            None => self.program(who).signal(Signal::HUP),
            Some(_) => Ok(()),
        })
    }

    /// Waits until everybody is ready.
    pub(crate) fn until_ready(&mut self) -> Result<()> {
        self.revive()?;
        for who in everybody() {
            wait::until("a program to be ready", || Ok(self.program(who).is_ready()?.then_some(())))?;
        }
        Ok(())
    }

    /// Waits until nothing that was acknowledged waits on the disk of ingest.
    pub(crate) fn until_drained(&self) -> Result<()> {
        wait::until("the spool to be drained", || {
            Ok((self.ingest.metric("hookwell_ingest_spool_events", &[])? == 0.0).then_some(()))
        })
    }

    /// The sums over all processors of metrics, without `hookwell_processor_`; `None` where a
    /// partition is on its way from one to another, for then it is in nobody's figures.
    pub(crate) fn sums<const N: usize>(&self, names: [&str; N]) -> Result<Option<[f64; N]>> {
        if !self.is_everything_owned()? {
            return Ok(None);
        }
        let mut sums = [0.0; N];
        for (sum, name) in sums.iter_mut().zip(names) {
            *sum = self.sum(name, &[])?;
        }
        Ok(self.is_everything_owned()?.then_some(sums))
    }

    /// Whether every partition has a lane at work, and the ends of all that it reads are known.
    fn is_everything_owned(&self) -> Result<bool> {
        let mut lags = 0;
        for processor in &self.processors {
            let metrics = processor.metrics()?;
            lags +=
                metrics.lines().filter(|line| line.starts_with("hookwell_processor_lag_records{")).count();
        }
        let partitions = usize::try_from(evidence::PARTITIONS)?;
        let active = self.sum("lanes", &["state=\"active\""])?;
        Ok(active == f64::from(evidence::PARTITIONS) && lags == partitions * (1 + evidence::TIERS.len()))
    }

    fn sum(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let name = format!("hookwell_processor_{name}");
        self.processors.iter().map(|processor| processor.metric(&name, labels)).sum()
    }

    /// Writes the figures of all processors beside their logs, for whoever looks at a run that failed.
    pub(crate) fn note_metrics(&self) {
        for (number, processor) in self.processors.iter().enumerate() {
            let file = self.stage.folder().join(format!("metrics-of-processor-{}", number + 1));
            processor.metrics().and_then(|metrics| Ok(fs::write(file, metrics)?)).ok();
        }
    }

    /// Puts new processors in the place of all, so that everything they know is restored.
    pub(crate) fn replace_processors(&mut self) -> Result<()> {
        for who in (0..PROCESSORS).map(Who::Processor) {
            self.end_well(who)?;
        }
        for who in (0..PROCESSORS).map(Who::Processor) {
            self.start(who, "")?;
        }
        self.until_ready()
    }

    /// The sum of the digests of all partitions, as whoever restored each of them last has logged it.
    pub(crate) fn restored(&self) -> Result<u64> {
        let mut digests = BTreeMap::new();
        for log in self.processors.iter().map(Program::logged) {
            for line in log.lines().filter(|line| line.contains("restored and at work")) {
                let field = |name: &str| {
                    let (_, rest) = line.split_once(&format!(" {name}="))?;
                    rest.split(' ').next().map(|value| value.trim_matches('"').to_owned())
                };
                let (partition, digest) =
                    field("partition").zip(field("digest")).context("no digest is logged")?;
                digests.insert(partition, u64::from_str_radix(&digest, 16)?);
            }
        }
        ensure!(digests.len() == usize::try_from(evidence::PARTITIONS)?, "restored: {digests:?}");
        Ok(digests.into_values().fold(0, u64::wrapping_add))
    }

    /// The bytes that each has in memory: ingest, then the processors.
    pub(crate) fn resident_bytes(&self) -> Result<Vec<u64>> {
        everybody().map(|who| self.program(who).resident_bytes()).collect()
    }

    /// Ends everybody, who must end well.
    pub(crate) fn dismiss(self) -> Result<()> {
        for program in self.processors.iter().chain([&self.ingest]) {
            ensure!(
                program.stop()?.success(),
                "a program did not end well: {}",
                last_lines(&program.logged())
            );
        }
        Ok(())
    }
}

fn everybody() -> impl Iterator<Item = Who> {
    (0..PROCESSORS).map(Who::Processor).chain([Who::Ingest])
}

fn last_lines(log: &str) -> String {
    let mut lines: Vec<_> = log.lines().rev().take(5).collect();
    lines.reverse();
    lines.join("\n")
}
