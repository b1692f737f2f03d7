//! What every row does around its fault.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hookwell_auditor::evidence::{self, Destination, Kind, Run};
use hookwell_common::lifecycle::Clock;
use hookwell_tests::audit;
use hookwell_tests::handler::{Call, Reply};
use hookwell_tests::kafka::{Kafka, project};
use hookwell_tests::ledger;
use hookwell_tests::load::{Load, Plan};
use hookwell_tests::program::Program;
use hookwell_tests::proxy::Way;
use hookwell_tests::recovery::{self, Fault, Recovery};
use hookwell_tests::sender::{Signed, client};
use hookwell_tests::stage::{Settings, Stage};
use hookwell_tests::wait;

use crate::Common;

/// Load under way, on a stage with one ingest and two processors.
#[derive(Debug)]
pub(crate) struct Drill {
    pub(crate) ingest: Program,
    pub(crate) processors: Vec<Program>,
    pub(crate) load: Load,
    pub(crate) stage: Stage,
    faults: Vec<Fault>,
    clock: Clock,
}

/// Topics that transactions write to, and that on which events lie.
pub(crate) const TOPICS: [&str; 5] = ["events", "state", "dlq", "retry.1", "retry.2"];

/// What the load is unless a row wants another.
pub(crate) const PLAN: Plan = steady(1);

/// Twenty events a second, on so many connections of each sender: more only take what a machine has.
pub(crate) const fn steady(connections: u16) -> Plan {
    let pause = Duration::from_millis(150 * connections as u64);
    Plan { events: usize::MAX, connections: connections as usize, pause }
}

/// How often in CI a row kills amid commits. `ROUNDS=100 cargo test -p hookwell-tests --test faults --
/// hanging` is what ADR 0016 was measured with.
pub(crate) const ROUNDS: &str = match option_env!("ROUNDS") {
    Some(rounds) => rounds,
    None => "1",
};

/// The delays of the retry tiers, in milliseconds, and the calls at most.
const TIERS: [u64; 2] = [300, 1_000];
const MAX_ATTEMPTS: u16 = 100;

/// No fault begins before so many events were accepted, nor does a row end earlier after it.
pub(crate) const SOME: usize = 60;

impl Drill {
    /// A stage, and load on it.
    pub(crate) fn begin(
        common: &Common,
        kafka: &Arc<Kafka>,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Self> {
        Self::on(Stage::set(kafka, &common.binaries, settings(change))?, PLAN)
    }

    /// Load on `stage`; waits until events are settled.
    pub(crate) fn on(stage: Stage, plan: Plan) -> Result<Self> {
        stage.handler.answer(by_fate);
        let ingest = stage.start_ingest("")?;
        let processors = [stage.start_processor("")?, stage.start_processor("")?];
        let processors = processors.into_iter().map(Program::ready).collect::<Result<_>>()?;
        let ingest = ingest.ready()?;
        let load = Load::start(stage.port, plan)?;
        load.go();
        let drill = Self { ingest, processors, load, stage, faults: Vec::new(), clock: Clock::start() };
        drill.load.until_sent(SOME)?;
        drill.until_settled_more(SOME)?;
        Ok(drill)
    }

    /// Has `strike` happen amid a burst of events, while each lane commits as often as it may. What is
    /// under way then is what counts; more would only take longer.
    pub(crate) fn amid_commits(&self, strike: impl FnOnce() -> Result<()>) -> Result<()> {
        self.load.hurry();
        self.load.until_sent(2 * SOME)?;
        let outcome = strike();
        self.load.ease();
        outcome
    }

    /// Has `strike` happen, which ends when the fault is over, and notes when that was.
    pub(crate) fn during(&mut self, what: &str, strike: impl FnOnce(&Drill) -> Result<()>) -> Result<()> {
        let began = self.clock.now().wall.as_millis();
        let outcome = strike(self).with_context(|| what.to_owned());
        let ended = self.clock.now().wall.as_millis();
        self.faults.push(Fault { what: what.to_owned(), began, ended });
        outcome.map_err(|error| self.keep_logs(error))
    }

    /// Waits until the processors have settled so many more.
    pub(crate) fn until_settled_more(&self, more: usize) -> Result<()> {
        let settled = || -> Result<f64> {
            let name = "hookwell_processor_settlements_total";
            self.processors.iter().map(|program| program.metric(name, &["settlement=\"done\""])).sum()
        };
        let goal = settled()? + more as f64;
        wait::until("events to be settled", || Ok((goal <= settled()?).then_some(())))
    }

    /// Waits until on every partition that transactions write to, the last stable offset is beyond
    /// what is its end now: no transaction that is open now, or whose end Kafka has forgotten, is
    /// still open.
    pub(crate) fn until_all_go_on(&self) -> Result<()> {
        let reader = &self.stage.reader;
        let topics: Vec<_> = TOPICS.iter().map(|topic| self.stage.topic(topic)).collect();
        let look = || reader.ends_of(topics.iter().map(String::as_str).chain(["__consumer_offsets"]));
        let goals = wait::until("the ends of all topics", || look().map(Some))?;
        let gone_on = wait::until("every open transaction to end", || {
            for (topic, ends) in look()? {
                let goals = &goals[topic];
                let behind: Vec<_> = ends.iter().filter(|(id, (stable, _))| *stable < goals[id].1).collect();
                ensure!(behind.is_empty(), "{topic}: {behind:?} of {goals:?}");
            }
            Ok(Some(()))
        });
        gone_on.with_context(|| format!("hanging: {:?}", self.stage.kafka.hanging_transactions()))
    }

    /// Waits until no transaction is open: the markers of the last one come to its partitions one
    /// after the other.
    fn until_none_is_open(&self) -> Result<()> {
        wait::until("every transaction to end", || {
            for topic in TOPICS {
                let ends = self.stage.reader.ends(&self.stage.topic(topic))?;
                let is_open = ends.values().any(|(stable, end)| stable != end);
                ensure!(!is_open, "a transaction is open on {topic}: {ends:?}");
            }
            Ok(Some(()))
        })
    }

    /// Waits until ingest refuses, as it has to: with 503, and `Retry-After`.
    pub(crate) fn until_refused(&self, signed: &Signed) -> Result<()> {
        wait::until("ingest to refuse", || {
            let url = format!("http://127.0.0.1:{}/webhooks/{}", self.stage.port, signed.source);
            let mut request = client().post(url).body(signed.body.clone());
            for (name, value) in &signed.headers {
                request = request.header(name, value);
            }
            let response = request.send()?;
            let is_refused = response.status() == 503;
            ensure!(!is_refused || response.headers().contains_key("retry-after"), "{response:?}");
            Ok(is_refused.then_some(()))
        })
    }

    /// Sends some more, waits until all is settled, and judges.
    pub(crate) fn end(self) -> Result<()> {
        self.judge().map_err(|error| self.keep_logs(error))
    }

    fn judge(&self) -> Result<()> {
        let Self { ingest, processors, load, stage, faults, clock: _ } = self;
        load.until_sent(SOME)?;
        let accepted = load.stop()?;
        let audit = stage.until_all_settled(&accepted)?;
        ensure!(audit.is_clean(), "{audit}");
        ensure!(0 < audit.dead && 0 < audit.done, "{audit}: a fate is missing");
        stage.until_caught_up()?;
        self.until_none_is_open()?;
        let letters = stage.dead_letters()?;
        let given_up = letters.iter().find(|letter| letter.header("hookwell-error-class") != "permanent");
        ensure!(given_up.is_none(), "an outage of ours cost an event its attempts: {given_up:?}");
        for program in processors.iter().chain([ingest]) {
            ensure!(program.ended()?.is_none(), "a program ended: {}", program.logged());
        }
        for program in processors.iter().chain([ingest]) {
            ensure!(program.stop()?.success(), "a program did not end well: {}", program.logged());
        }
        let recoveries = recovery::measure(&stage.reader, &stage.topic("state"), faults)?;
        recovery::keep(faults, &recoveries)?;
        self.judge_calls(&recoveries)
    }

    /// The auditor's judgement once more, with what the handler was asked and what was broken.
    fn judge_calls(&self, recoveries: &[Recovery]) -> Result<()> {
        let told = |(fault, recovery): (&Fault, &Recovery)| evidence::Fault {
            kind: fault.what.clone(),
            target: String::new(),
            begin: fault.began,
            end: fault.ended,
            recovered: recovery.from_end.slowest.map(|after| fault.ended + after),
            skew_ms: 0,
            disturbs_calls: true,
        };
        let faults = self.faults.iter().zip(recoveries).map(told).collect();
        let run = Run {
            tiers: TIERS.to_vec(),
            skew_ms: 50,
            // What a network or a machine held up comes a while after all is well again.
            grace_ms: 3_000,
            destinations: vec![Destination {
                name: "orders".into(),
                kind: Kind::Http,
                topic: None,
                max_attempts: MAX_ATTEMPTS,
            }],
            ..audit::run(&self.stage.reader, &self.stage.prefix, &self.stage.prefix, &["orders"])
        };
        let calls = self.stage.handler.calls();
        ensure!(calls.len() >= SOME, "{} calls", calls.len());
        let found = audit::with_ledgers(run, calls.iter().map(ledger::call).collect(), faults)?;
        ensure!(found.is_empty(), "{found:?}");
        Ok(())
    }

    /// For whoever looks for the cause.
    fn keep_logs(&self, error: anyhow::Error) -> anyhow::Error {
        let folder = project().join("target/faults").join(&self.stage.prefix);
        let copy = || -> Result<()> {
            fs::create_dir_all(&folder)?;
            for entry in fs::read_dir(self.stage.folder())? {
                let entry = entry?;
                fs::copy(entry.path(), folder.join(entry.file_name()))?;
            }
            for node in self.stage.kafka.nodes() {
                fs::copy(node.log(), folder.join(format!("kafka-{}.log", node.id())))?;
                node.keep_records(&folder.join(format!("kafka-{}", node.id())))?;
            }
            Ok(())
        };
        let faults: Vec<_> = self.faults.iter().map(|fault| fault.what.as_str()).collect();
        match copy() {
            Ok(()) => error.context(format!("after {faults:?}, logs in {}", folder.display())),
            Err(not_kept) => error.context(format!("after {faults:?}, and the logs are lost: {not_kept}")),
        }
    }
}

/// Half-closes every connection twenty times, now this way, now that, and each time waits for one that
/// is new, and until `gone_on`.
pub(crate) fn half_close_in_turn(
    connections: impl Fn() -> u64,
    half_close: impl Fn(Way),
    gone_on: impl Fn() -> Result<()>,
) -> Result<()> {
    for way in Way::in_turn().take(20) {
        let before = connections();
        half_close(way);
        wait::until("a new connection", || Ok((before < connections()).then_some(())))?;
        gone_on()?;
    }
    Ok(())
}

/// The usual settings of a row, and `change`.
pub(crate) fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings {
        ingest: "publish_timeout = \"1s\"".to_owned(),
        kafka_properties: [
            // Rows run beside each other, and while brokers start nobody may be heard for seconds: a
            // member that is lost for that alone calls again what no fault of the row excuses.
            "\"session.timeout.ms\" = 8000",
            // Transactions, and fetches of nothing, are most of what a Kafka of these rows does.
            "\"fetch.wait.max.ms\" = 250",
            "\"heartbeat.interval.ms\" = 1000",
        ]
        .join("\n"),
        // Rows that strike amid commits say so.
        processor: "commit_interval = \"1s\"".to_owned(),
        // A handler that cannot be reached for a while must not cost an event its last attempt.
        retry: format!(
            "tiers = [\"{}ms\", \"{}ms\"]\nmax_attempts = {MAX_ATTEMPTS}\njitter = 0.0",
            TIERS[0], TIERS[1]
        ),
        ..Settings::default()
    };
    change(&mut settings);
    settings
}

/// So many lanes, which commit all the time.
pub(crate) fn many_commits(partitions: u32) -> impl FnOnce(&mut Settings) {
    move |settings| {
        settings.partitions = partitions;
        settings.processor = "commit_interval = \"10ms\"".to_owned();
    }
}

/// One call in ten fails, and one event in fifty for good.
fn by_fate(call: &Call) -> Reply {
    let drawn = |salt: &str| blake3::hash([call.event(), salt].concat().as_bytes()).as_bytes()[0];
    let status = match (drawn(""), drawn(call.attempt())) {
        (0..5, _) => 422,
        (_, 0..25) => 500,
        (_, _) => 200,
    };
    Reply { after: Duration::from_millis(2), ..Reply::from(status) }
}
