//! `processor` at a backlog, beside a loop of bare transactions at the same backlog.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use hookwell_tests::program::Program;
use hookwell_tests::reader::Reader;
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;

use crate::broker::{Broker, More, create_topic, drain, forward_topic};
use crate::cost::{Cost, Meter, Process};
use crate::floor::Running;
use crate::record::{Backlog, event_number};
use crate::report::{Series, complain, say, table};

/// A transaction of the floor holds as much as one of ours at most.
const EACH: u64 = 10_000;

/// How often the processor is asked how far it is: each question costs it about half a millisecond.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// How often each takes its turn
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// The records of the backlog, of which every tenth is a copy
    #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u64).range(20_000..=5_000_000))]
    records: u64,
    /// The length of a body
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(64..=100_000))]
    bytes: u64,
    /// The partitions of each topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
}

impl Plan {
    /// Measures, and prints the figures.
    pub(crate) fn run(&self) -> Result<()> {
        let broker = Broker::start()?;
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        // The first round is for the broker, which is slow until its code is compiled.
        for round in 0..=self.rounds {
            complain(&format!(
                "round {round} of {}{}",
                self.rounds,
                if round == 0 { ", warm-up" } else { "" }
            ));
            let stage = broker.stage(self.partitions, &More::default())?;
            let backlog = self.backlog(&stage)?;
            backlog.write(&stage.reader, &stage.topic("events"))?;
            let pair = if round % 2 == 1 {
                let first = self.ours(&broker, &stage, &backlog)?;
                (first, self.floor(&broker, &stage)?)
            } else {
                let first = self.floor(&broker, &stage)?;
                (self.ours(&broker, &stage, &backlog)?, first)
            };
            if 0 < round {
                ours.push(pair.0);
                floor.push(pair.1);
            }
        }
        self.show(&ours, &floor);
        Ok(())
    }

    fn backlog(&self, stage: &Stage) -> Result<Backlog> {
        Ok(Backlog {
            run: stage.prefix.clone(),
            first: 0,
            records: self.records,
            repeat: 10,
            bytes: usize::try_from(self.bytes)?,
            partitions: i32::try_from(self.partitions)?,
        })
    }

    fn ours(&self, broker: &Broker, stage: &Stage, backlog: &Backlog) -> Result<Cost> {
        let processor = stage.start_processor("")?;
        let first = until_settled(&processor, 1)?;
        let meter = Meter::begin(Process(processor.id()), broker.process()?)?;
        let last = until_settled(&processor, self.records)?;
        let cost = meter.end(last - first)?;
        ensure!(processor.stop()?.success(), "the processor did not end well");
        check_forwarded(stage, backlog.distinct())?;
        Ok(cost)
    }

    fn floor(&self, broker: &Broker, stage: &Stage) -> Result<Cost> {
        let reader = Reader::new(&broker.bootstrap_servers());
        let [to, state, group] = ["floor.out", "floor.state", "floor"].map(|name| stage.topic(name));
        create_topic(&reader, &to, self.partitions)?;
        create_topic(&reader, &state, self.partitions)?;
        let (servers, events) = (broker.bootstrap_servers(), stage.topic("events"));
        let (records, each) = (self.records.to_string(), EACH.to_string());
        let arguments = [&servers, &events, &to, &state, &group, &records, &each].map(String::as_str);
        Running::start("transactions", &arguments)?.measure(broker.process()?)
    }

    fn show(&self, ours: &[Cost], floor: &[Cost]) {
        say(&format!(
            "a backlog of {} records, every tenth a copy, {} bytes, {} partitions, {} turns each; median (least to most)\n",
            self.records, self.bytes, self.partitions, self.rounds
        ));
        let row = |(name, costs): (&str, &[Cost])| {
            let of = |what: fn(&Cost) -> f64| costs.iter().map(what).collect::<Series>();
            vec![
                name.to_owned(),
                of(Cost::rate).show(0),
                of(Cost::own_micros).show(2),
                of(Cost::broker_micros).show(2),
            ]
        };
        let rows = [("processor", ours), ("floor: bare transactions of 10,000", floor)];
        table(&["", "events/s", "CPU us an event", "of Kafka"], rows.into_iter().map(row).collect());
        say("");
        let ratio = |what: fn(&Cost) -> f64| {
            let of = |costs: &[Cost]| costs.iter().map(what).collect::<Series>();
            of(ours).over(&of(floor)).show(2)
        };
        let rows = [("events/s", ratio(Cost::rate)), ("CPU", ratio(Cost::own_micros))];
        let rows = rows.into_iter().map(|(name, ratio)| vec![format!("{name}, processor / floor"), ratio]);
        table(&["ratio, round by round", ""], rows.collect());
    }
}

/// Waits until the processor has settled `count` records, and gives how many it really has.
pub(crate) fn until_settled(processor: &Program, count: u64) -> Result<u64> {
    for _ in 0..600_000 / LOOK_AGAIN.as_millis() {
        ensure!(processor.ended()?.is_none(), "the processor has ended: {}", processor.logged());
        let settled = settled(processor).unwrap_or(0);
        if count <= settled {
            return Ok(settled);
        }
        wait::pause(LOOK_AGAIN);
    }
    anyhow::bail!("{count} records are not settled after ten minutes: {}", processor.logged())
}

/// All settlements and dropped copies so far, with one question.
pub(crate) fn settled(processor: &Program) -> Result<u64> {
    let text = processor.metrics()?;
    let of_both = |line: &&str| {
        ["hookwell_processor_settlements_total{", "hookwell_processor_duplicates_total{"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    let values = text.lines().filter(of_both).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| Ok(value.parse::<f64>()? as u64)).sum()
}

/// Each event was forwarded, once.
fn check_forwarded(stage: &Stage, expected: u64) -> Result<()> {
    let mut events = HashSet::new();
    let records = drain(&stage.reader, &forward_topic(stage), |message| {
        events.extend(event_number(message));
    })?;
    let distinct = events.len() as u64;
    ensure!(
        (distinct, records) == (expected, expected),
        "{records} records of {distinct} events, not {expected}"
    );
    Ok(())
}
