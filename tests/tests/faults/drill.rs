//! What every row does around its fault.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hookwell_common::lifecycle::Clock;
use hookwell_tests::handler::{Call, Reply};
use hookwell_tests::kafka::Kafka;
use hookwell_tests::load::{Load, Plan};
use hookwell_tests::program::Program;
use hookwell_tests::recovery::{self, Fault};
use hookwell_tests::stage::{Settings, Stage};
use std::sync::Arc;

use crate::Common;

/// Load under way, on a stage with one ingest and two processors.
#[derive(Debug)]
pub(crate) struct Drill {
    pub(crate) ingest: Program,
    pub(crate) processors: [Program; 2],
    pub(crate) load: Load,
    pub(crate) stage: Stage,
    faults: Vec<Fault>,
    clock: Clock,
}

/// Topics that transactions write to, and that on which events lie.
const TOPICS: [&str; 5] = ["events", "state", "dlq", "retry.1", "retry.2"];

/// No fault begins before so many events were accepted, nor does a row end earlier after it.
const SOME: usize = 60;

impl Drill {
    /// Begins, and waits until events are settled.
    pub(crate) fn begin(
        common: &Common,
        kafka: &Arc<Kafka>,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Self> {
        let mut settings = Settings { ingest: "publish_timeout = \"1s\"".to_owned(), ..Settings::default() };
        change(&mut settings);
        let stage = Stage::set(kafka, &common.binaries, settings)?;
        stage.handler.answer(by_fate);
        let (ingest, processors) = (stage.ingest()?, [stage.processor()?, stage.processor()?]);
        let plan = Plan { events: usize::MAX, connections: 1, pause: Duration::from_millis(15) };
        let load = Load::start(stage.port, plan)?;
        load.go();
        load.until_sent(SOME)?;
        stage.handler.until_called(SOME)?;
        Ok(Self { ingest, processors, load, stage, faults: Vec::new(), clock: Clock::start() })
    }

    /// Has `strike` happen, which ends when the fault is over, and notes how long it took.
    pub(crate) fn during<T>(&mut self, what: &str, strike: impl FnOnce(&Drill) -> Result<T>) -> Result<T> {
        let now = |clock: &Clock| clock.now().wall.as_millis();
        let began = now(&self.clock);
        let outcome = strike(self).context(what.to_owned())?;
        let ended = now(&self.clock);
        self.faults.push(Fault { what: what.to_owned(), began, ended });
        Ok(outcome)
    }

    /// Sends some more, waits until all is settled, and judges.
    pub(crate) fn end(self, row: &str) -> Result<()> {
        let Self { ingest, processors, load, stage, faults, clock: _ } = self;
        load.until_sent(SOME)?;
        let accepted = load.stop()?;
        let audit = stage.until_all_settled(&accepted)?;
        ensure!(audit.is_clean(), "{audit}");
        ensure!(0 < audit.dead && 0 < audit.done, "{audit}: a fate is missing");
        stage.until_caught_up()?;
        for topic in TOPICS {
            let ends = stage.reader.ends(&stage.topic(topic))?;
            let is_open = ends.values().any(|(stable, end)| stable != end);
            ensure!(!is_open, "a transaction is open on {topic}: {ends:?}");
        }
        for program in processors.iter().chain([&ingest]) {
            ensure!(program.ended()?.is_none(), "a program ended: {}", program.logged());
            ensure!(program.stop()?.success(), "a program did not end well: {}", program.logged());
        }
        let recoveries = recovery::measure(&stage.reader, &stage.topic("state"), &faults)?;
        recovery::keep(row, &faults, &recoveries)
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
