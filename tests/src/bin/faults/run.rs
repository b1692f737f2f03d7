//! One run: load under the faults of a seed, then rest, then the auditor's verdict.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use hookwell_common::lifecycle::Clock;
use hookwell_tests::detour::Detour;
use hookwell_tests::kafka::{Kafka, free_port};
use hookwell_tests::ledger::{self, Ledger};
use hookwell_tests::load::{Load, Plan};
use hookwell_tests::proxy::Proxy;
use hookwell_tests::reader::Reader;
use hookwell_tests::sender::{Sender, post, until_accepted};
use hookwell_tests::stage::{Binaries, Settings, Stage};
use hookwell_tests::wait;

use crate::brokers::{Brokers, Ways};
use crate::crew::Crew;
use crate::evidence::{self, Auditor, Verdict};
use crate::operator;
use crate::schedule::{Fault, Planned, Schedule};
use crate::temper::Temper;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// What the faults are drawn from.
    pub(crate) seed: u64,
    /// How long faults are made.
    pub(crate) length: Duration,
    /// How long a sender waits between two events.
    pub(crate) pause: Duration,
}

/// Source and id of each event that heard a 200.
type Accepted = BTreeSet<(String, String)>;

/// A fault that was made. Times are milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Struck {
    pub(crate) fault: Fault,
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report {
    /// What was made, by the time at which it began.
    pub(crate) recovered: Vec<evidence::Recovered>,
    /// What the auditor says.
    pub(crate) verdict: Verdict,
    /// What programs said that could not start, for Kafka did not answer.
    pub(crate) gave_up: Vec<String>,
    /// What programs said that ended otherwise by themselves: a promise is broken then, too.
    pub(crate) ended: Vec<String>,
    /// Bytes in memory at rest: processors, then ingest.
    pub(crate) resident: Vec<u64>,
}

/// A stage on which everything can be broken, with the evidence of all that happens on it.
#[derive(Debug)]
pub(crate) struct Theatre {
    stage: Stage,
    brokers: Brokers,
    temper: Temper,
    ledger: Arc<Ledger>,
    auditor: Auditor,
    clock: Clock,
}

impl Report {
    /// Whether everything came out as it should.
    pub(crate) fn is_kept(&self) -> bool {
        self.verdict.is_kept && self.ended.is_empty()
    }
}

impl Theatre {
    /// Topics and ways of its own on `kafka`, and evidence in `home`, which is begun anew.
    pub(crate) fn open(kafka: &Arc<Kafka>, programs: &Path, home: &Path) -> Result<Self> {
        if home.exists() {
            fs::remove_dir_all(home)?;
        }
        let (ingest, processors) = (Detour::open(kafka)?, Detour::open(kafka)?);
        let front = free_port()?;
        let copies = format!("copies-{}-{front}", std::process::id());
        let settings = Settings {
            ingest_begins_at: Some(ingest.bootstrap_servers()),
            processor_begins_at: Some(processors.bootstrap_servers()),
            ..evidence::settings(front, &copies)
        };
        let binaries = Binaries {
            ingest: programs.join("ingest-under-test"),
            processor: programs.join("processor-under-test"),
        };
        let reader = Reader::new(&kafka.bootstrap_servers());
        reader.create_topic(&copies, evidence::PARTITIONS, kafka.copies())?;
        let stage = Stage::set(kafka, &binaries, settings)?;
        let handler = Proxy::start_at(front, stage.handler.port())?;
        let ledger = Arc::new(Ledger::begin(home)?);
        evidence::write_run(home, &stage, &copies)?;
        let temper = Temper::default();
        let answers = temper.clone();
        stage.handler.write_into(&ledger);
        stage.handler.answer(move |call| answers.answer(call));
        let brokers = Brokers::new(kafka, Ways { ingest, processors, handler }, &stage.prefix);
        let auditor = Auditor::watch(programs, home)?;
        Ok(Self { stage, brokers, temper, ledger, auditor, clock: Clock::start() })
    }

    /// Load under the faults of each order in turn, each with rest and verdict; ends with the first
    /// that is not kept. What was judged before is judged again with what follows.
    pub(crate) fn play(
        mut self,
        orders: &[Order],
        announce: impl Fn(&Order),
        tell: impl FnMut(&Order, &Report),
    ) -> Result<bool> {
        let outcome = self.play_all(orders, announce, tell);
        self.keep_logs()?;
        outcome
    }

    fn play_all(
        &mut self,
        orders: &[Order],
        announce: impl Fn(&Order),
        mut tell: impl FnMut(&Order, &Report),
    ) -> Result<bool> {
        let mut crew = Crew::muster(&self.stage, &self.brokers)?;
        for order in orders {
            announce(order);
            let mut struck = Vec::new();
            if let Err(error) = self.load_break_and_rest(order, &mut crew, &mut struck) {
                crew.note_metrics();
                let lost = keep_what_there_is(&self.ledger, &mut self.auditor, &struck);
                return Err(error.context(format!("ended by themselves: {:?}{lost}", crew.ended)));
            }
            let recovered = evidence::recoveries(&self.stage, &self.ledger, &struck)?;
            let verdict = self.auditor.judge(&self.ledger)?;
            let (gave_up, ended) = (std::mem::take(&mut crew.gave_up), std::mem::take(&mut crew.ended));
            let report = Report { recovered, verdict, gave_up, ended, resident: crew.resident_bytes()? };
            tell(order, &report);
            if !report.is_kept() {
                return Ok(false);
            }
        }
        crew.dismiss()?;
        Ok(true)
    }

    fn load_break_and_rest(
        &self,
        order: &Order,
        crew: &mut Crew<'_>,
        struck: &mut Vec<Struck>,
    ) -> Result<()> {
        let (faults, accepted) = self.load_and_break(order, crew)?;
        *struck = faults;
        self.rest(crew, &accepted)
    }

    fn load_and_break(&self, order: &Order, crew: &mut Crew<'_>) -> Result<(Vec<Struck>, Accepted)> {
        let schedule = Schedule::draw(order.seed, order.length, self.brokers.kafka.nodes().len());
        let plan = Plan { events: usize::MAX, connections: 2, pause: order.pause };
        let name = format!("event-{:x}", order.seed);
        let load = Load::start_noting(self.stage.port, plan, &name, &self.ledger)?;
        load.go();
        let start = Clock::start();
        let [programs, others @ ..] = &schedule.tracks;
        let struck = thread::scope(|scope| {
            let others: Vec<_> = others
                .iter()
                .map(|track| scope.spawn(|| perform(track, (&start, order.length), &mut Outside(self))))
                .collect();
            let mut struck = perform(programs, (&start, order.length), crew)?;
            crew.wait(order.length.saturating_sub(start.mono()))?;
            for other in others {
                struck.extend(other.join().map_err(|_| anyhow!("a track panicked"))??);
            }
            anyhow::Ok(struck)
        });
        let accepted = load.stop();
        let mut struck = struck?;
        struck.sort_by_key(|struck| struck.begin);
        Ok((struck, accepted?))
    }

    /// Until all that was accepted is settled; then everybody is replaced, so that all states are
    /// restored, and copies are sent that must not be handled.
    fn rest(&self, crew: &mut Crew<'_>, accepted: &Accepted) -> Result<()> {
        self.brokers.kafka.until_healthy()?;
        crew.until_ready()?;
        let states = self.stage.topic("state");
        for is_last in [false, false, true] {
            self.until_settled(crew)?;
            let ends = self.stage.reader.ends(&states)?;
            crew.replace_processors()?;
            let ids = wait::until("every partition to be restored", || crew.sums(["state_ids"]))?[0];
            let digest = crew.restored()?;
            self.send_copies(accepted)?;
            self.until_settled(crew)?;
            // Figures are a second old: a retry that was just written may still have waited.
            let is_at_rest = self.stage.reader.ends(&states)? == ends;
            if is_at_rest || is_last {
                evidence::write_rest(self.ledger.folder(), ids, is_at_rest.then_some(digest))?;
                break;
            }
        }
        Ok(())
    }

    fn until_settled(&self, crew: &Crew<'_>) -> Result<()> {
        crew.until_drained()?;
        self.stage.until_caught_up()?;
        wait::until("everything to be settled", || {
            let sums = crew.sums(["lag_records", "open_deliveries", "oldest_unsettled_timestamp_seconds"])?;
            Ok(sums.filter(|sums| sums.iter().all(|sum| *sum == 0.0)).map(drop))
        })
    }

    /// At most two hundred of the accepted events are sent once more.
    fn send_copies(&self, accepted: &Accepted) -> Result<()> {
        for (source, id) in accepted.iter().step_by(accepted.len() / 200 + 1) {
            let sender = Sender::ALL.into_iter().find(|sender| sender.name() == source);
            let signed = sender.context("an event of nobody was accepted")?.event(id);
            until_accepted(|| {
                let sent = self.clock.now().wall.as_millis();
                let (status, text) = post(self.stage.port, &signed)?;
                let answered = self.clock.now().wall.as_millis();
                self.ledger.answered(&ledger::answer(&signed, sent, Some(answered), status));
                Ok((status, text))
            })?;
        }
        Ok(())
    }

    fn keep_logs(&self) -> Result<()> {
        let logs = self.ledger.folder().join("logs");
        fs::create_dir_all(&logs)?;
        for entry in fs::read_dir(self.stage.folder())? {
            let entry = entry?;
            // Beside the logs lies the spool.
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), logs.join(entry.file_name()))?;
            }
        }
        for node in self.brokers.kafka.nodes() {
            fs::copy(node.log(), logs.join(format!("kafka-{}.log", node.id())))?;
        }
        Ok(())
    }
}

/// For whoever looks for the cause: a run that does not come to rest is the one whose topics are
/// wanted most.
fn keep_what_there_is(ledger: &Ledger, auditor: &mut Auditor, struck: &[Struck]) -> String {
    evidence::note(ledger, struck);
    match auditor.collect(ledger) {
        Ok(()) => String::new(),
        Err(error) => format!("; topics are missing: {error:#}"),
    }
}

/// Who makes the faults of a track.
trait Actor {
    /// Lets time pass.
    fn wait(&mut self, time: Duration) -> Result<()>;

    /// Makes one fault and mends it. Gives back the one that was made.
    fn strike(&mut self, planned: &Planned) -> Result<Fault>;
}

/// Strikes one fault after the other. What has not begun when the time is up is left out: a replay
/// takes as long as there is to read.
fn perform(
    track: &[Planned],
    (start, length): (&Clock, Duration),
    actor: &mut impl Actor,
) -> Result<Vec<Struck>> {
    let mut struck = Vec::new();
    for planned in track {
        if length <= start.mono() {
            break;
        }
        actor.wait(planned.begin.saturating_sub(start.mono()))?;
        let begin = start.now().wall.as_millis();
        let fault = actor.strike(planned).with_context(|| planned.to_string())?;
        struck.push(Struck { fault, begin, end: start.now().wall.as_millis() });
    }
    Ok(struck)
}

impl Actor for Crew<'_> {
    fn wait(&mut self, time: Duration) -> Result<()> {
        self.watch(time)
    }

    fn strike(&mut self, planned: &Planned) -> Result<Fault> {
        match planned.fault {
            Fault::Program(who, blow) => self.blow(who, blow, planned.lasts)?,
            Fault::DiesAt(point) => return self.die_at(point, planned.lasts),
            Fault::OneMore => self.one_more(planned.lasts)?,
            Fault::Rolling => self.roll()?,
            Fault::Reload => self.reload()?,
            Fault::Link(..)
            | Fault::Broker(..)
            | Fault::TwoBrokers
            | Fault::AllBrokers
            | Fault::Handler(_)
            | Fault::Replay(_) => {
                bail!("that is not a fault of programs")
            }
        }
        Ok(planned.fault)
    }
}

/// Who breaks what is not one of our programs.
struct Outside<'a>(&'a Theatre);

impl Actor for Outside<'_> {
    fn wait(&mut self, time: Duration) -> Result<()> {
        wait::pause(time);
        Ok(())
    }

    fn strike(&mut self, planned: &Planned) -> Result<Fault> {
        let Theatre { stage, brokers, temper, .. } = self.0;
        match planned.fault {
            Fault::Link(link, trouble) => brokers.trouble(link, trouble, planned.lasts),
            Fault::Broker(role, blow) => brokers.strike(role, blow, planned.lasts)?,
            Fault::TwoBrokers => brokers.kill(2, planned.lasts)?,
            Fault::AllBrokers => brokers.kill(3, planned.lasts)?,
            Fault::Handler(mood) => {
                temper.set(Some(mood));
                wait::pause(planned.lasts);
                temper.set(None);
            }
            Fault::Replay(replay) => operator::replay(stage, replay)?,
            Fault::Program(..) | Fault::DiesAt(_) | Fault::OneMore | Fault::Rolling | Fault::Reload => {
                bail!("that is a fault of programs")
            }
        }
        Ok(planned.fault)
    }
}
