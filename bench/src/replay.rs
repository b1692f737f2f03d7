//! What it costs to list dead letters and to replay them.

use anyhow::{Context as _, Result, ensure};
use bytestring::ByteString;
use clap::Args;
use hookwell_common::identity::Identity;
use hookwell_common::kafka::headers_of;
use hookwell_common::lifecycle::Clock;
use hookwell_common::record::{Failure, Origin, Passage, record_key};
use hookwell_common::time::Timestamp;
use hookwell_processor::dead_letter::DeadLetterReason;
use hookwell_processor::state::{Burial, DeliveryState, StateKey, Status, encode};
use hookwell_tests::program::Program;
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;
use rdkafka::producer::BaseRecord;

use crate::broker::{Broker, More, drain};
use crate::cost::{Cost, Meter, Process};
use crate::floor::Running;
use crate::record::{Bulk, SOURCE, body, event, event_id};
use crate::report::{complain, say, table};

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// How many dead letters there are
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    dead_letters: u64,
    /// The partitions of each topic
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
    /// The length of a body
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    bytes: u32,
}

impl Plan {
    /// Measures, and prints the figures.
    pub(crate) fn run(&self) -> Result<()> {
        let broker = Broker::start()?;
        let stage = broker.stage(self.partitions, &More::default())?;
        complain(&format!("writing {} dead letters", self.dead_letters));
        self.bury(&stage)?;
        let mut rows = vec![self.floor(&broker, &stage)?];
        for arguments in [
            &["--list-dlq", "--output", "json"][..],
            &["--list-dlq", "--records", "--output", "json"],
            &["--replay-dlq", "--dry-run", "--output", "json"],
            &["--replay-dlq", "--output", "json"],
        ] {
            complain(&arguments.join(" "));
            rows.push(self.command(&broker, &stage, arguments)?);
        }
        let mut replayed = 0;
        drain(&stage.reader, &stage.topic("events"), |_| replayed += 1)?;
        ensure!(replayed == self.dead_letters, "{replayed} of {} were replayed", self.dead_letters);
        say(&format!(
            "\n{} dead letters of {} bytes, {} partitions\n",
            self.dead_letters, self.bytes, self.partitions
        ));
        table(&["", "s", "dead letters/s", "CPU us each", "of Kafka", "memory at most MB"], rows);
        Ok(())
    }

    /// Writes dead letters and their states as a lane does.
    fn bury(&self, stage: &Stage) -> Result<()> {
        let bulk = Bulk::begin(&stage.reader)?;
        let topics = [stage.topic("dlq"), stage.topic("state")];
        let now = Clock::start().now().wall;
        let partitions = i32::try_from(self.partitions)?;
        for number in 0..self.dead_letters {
            let id = event_id(&stage.prefix, number);
            let partition = Identity::of(SOURCE, &id).partition(partitions);
            let (key, value) = (record_key(SOURCE, &id), body(&id, usize::try_from(self.bytes)?));
            let headers = headers_of(&event(&id), &passage(stage, partition, number, now));
            let record = BaseRecord::to(&topics[0]).partition(partition).key(&key).payload(&value);
            bulk.put(record.headers(headers))?;
            let (key, value) = (StateKey::of(SOURCE, &id, DESTINATION).0.to_vec(), encode(&state(now)));
            bulk.put(BaseRecord::to(&topics[1]).partition(partition).key(&key).payload(&value))?;
        }
        bulk.end(self.dead_letters * 2)
    }

    fn floor(&self, broker: &Broker, stage: &Stage) -> Result<Vec<String>> {
        let mut floor = Running::start("drain", &[&broker.bootstrap_servers(), &stage.topic("dlq")])?;
        floor.until("begin")?;
        let meter = Meter::begin(floor.process(), broker.process()?)?;
        let records = floor.until("end")?;
        let cost = meter.end(records)?;
        Ok(row("floor: a consumer that reads the dead letter topic to its end", &cost, None))
    }

    fn command(&self, broker: &Broker, stage: &Stage, arguments: &[&str]) -> Result<Vec<String>> {
        let program = stage.start_command(arguments)?;
        let process = Process(program.id());
        let meter = Meter::begin(process, broker.process()?)?;
        let (mut peak, mut last) = (0, Cost::default());
        let status = wait::until_within(PATIENCE, "the command to end", || {
            // A process that has ended is no longer told of; what was seen last counts.
            peak = process.memory("VmHWM").unwrap_or(peak);
            last = meter.end(self.dead_letters).unwrap_or(last);
            program.ended()
        })?;
        ensure!(status.success(), "{}", program.logged());
        self.answer_is_whole(&program, arguments)?;
        Ok(row(&arguments[..arguments.len() - 2].join(" "), &last, Some(peak)))
    }

    fn answer_is_whole(&self, program: &Program, arguments: &[&str]) -> Result<()> {
        let answer = program.logged();
        if arguments.contains(&"--records") {
            let lines = answer.lines().filter(|line| line.starts_with("{\"event_id\"")).count();
            ensure!(lines as u64 == self.dead_letters, "{lines} lines");
            return Ok(());
        }
        let counted = format!(":{}", self.dead_letters);
        let last = answer.lines().rfind(|line| line.starts_with('{')).context("no answer")?;
        ensure!(last.contains(&counted), "{last}");
        Ok(())
    }
}

const DESTINATION: &str = "out";

/// How long one command may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1800);

fn row(name: &str, cost: &Cost, peak: Option<u64>) -> Vec<String> {
    vec![
        name.to_owned(),
        format!("{:.1}", cost.seconds),
        format!("{:.0}", cost.rate()),
        format!("{:.1}", cost.own_micros()),
        format!("{:.1}", cost.broker_micros()),
        peak.map(|bytes| format!("{:.0}", bytes as f64 / 1e6)).unwrap_or_default(),
    ]
}

fn passage(stage: &Stage, partition: i32, number: u64, now: Timestamp) -> Passage {
    Passage {
        destination: Some(ByteString::from_static(DESTINATION)),
        attempt: 11,
        first_failed_at: Some(now),
        origin: Some(Origin {
            topic: stage.topic("events").into(),
            partition,
            offset: i64::try_from(number).unwrap_or_default(),
        }),
        failure: Some(Failure {
            class: ByteString::from_static(DeadLetterReason::Exhausted.label()),
            detail: ByteString::from_static("status 503"),
        }),
        ..Passage::default()
    }
}

fn state(now: Timestamp) -> DeliveryState {
    let burial = Burial {
        reason: DeadLetterReason::Exhausted,
        source: ByteString::from_static(SOURCE),
        destination: ByteString::from_static(DESTINATION),
        at: now,
    };
    DeliveryState { status: Status::Dead, generation: 0, first_seen: now, updated: now, burial: Some(burial) }
}
