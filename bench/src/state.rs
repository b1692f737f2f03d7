//! What a remembered id weighs, and how long it takes to restore them.

use anyhow::{Result, ensure};
use clap::Args;
use hookwell_common::lifecycle::Clock;
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;

use crate::broker::{Broker, More};
use crate::cost::{Meter, Process};
use crate::floor::Running;
use crate::processor::until_settled;
use crate::record::Backlog;
use crate::report::{Series, complain, say, table};

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// How many ids are remembered, step by step
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 500_000, 1_000_000, 2_000_000])]
    ids: Vec<u64>,
    /// How often each takes its turn, with the most ids
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// The partitions of each topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
}

/// A processor that has just restored its state.
#[derive(Clone, Copy, Debug)]
struct Restored {
    ids: f64,
    resident: f64,
    peak: f64,
    table: f64,
    /// From an assignment to a lane at work, the mean of all lanes.
    lane_seconds: f64,
    /// From the start of the process until it is ready.
    ready_seconds: f64,
    cpu: f64,
}

/// The topic, drained by a bare consumer.
#[derive(Clone, Copy, Debug)]
struct Drained {
    seconds: f64,
    cpu: f64,
}

impl Plan {
    /// Measures, and prints the figures.
    pub(crate) fn run(&self) -> Result<()> {
        let sorted = self.ids.is_sorted_by(|fewer, more| fewer < more);
        ensure!(!self.ids.is_empty() && sorted, "--ids must grow");
        ensure!(self.ids.iter().all(|ids| (1000..=10_000_000).contains(ids)), "--ids from 1000 to 10000000");
        let broker = Broker::start()?;
        let stage = broker.stage(self.partitions, &More::default())?;
        let mut steps = Vec::new();
        let mut before = 0;
        for ids in &self.ids {
            complain(&format!("{ids} ids"));
            self.remember(&stage, before, *ids)?;
            steps.push((self.restore(&stage, *ids)?, self.drain(&broker, &stage, *ids)?));
            before = *ids;
        }
        let mut most = Vec::new();
        for round in 0..self.rounds {
            complain(&format!("round {} of {}", round + 1, self.rounds));
            most.push(if round % 2 == 0 {
                let first = self.restore(&stage, before)?;
                (first, self.drain(&broker, &stage, before)?)
            } else {
                let first = self.drain(&broker, &stage, before)?;
                (self.restore(&stage, before)?, first)
            });
        }
        show_memory(&steps);
        self.show_restores(&most);
        Ok(())
    }

    /// Has a processor settle events until it knows `ids` of them.
    fn remember(&self, stage: &Stage, before: u64, ids: u64) -> Result<()> {
        let backlog = Backlog {
            run: stage.prefix.clone(),
            first: before,
            records: ids - before,
            repeat: 0,
            bytes: 64,
            partitions: i32::try_from(self.partitions)?,
        };
        backlog.write(&stage.reader, &stage.topic("events"))?;
        let processor = stage.start_processor("")?;
        until_settled(&processor, ids - before)?;
        ensure!(processor.stop()?.success(), "the processor did not end well");
        Ok(())
    }

    fn restore(&self, stage: &Stage, ids: u64) -> Result<Restored> {
        let clock = Clock::start();
        let processor = stage.processor()?;
        let ready_seconds = clock.mono().as_secs_f64();
        let process = Process(processor.id());
        let cpu = process.cpu()?.as_secs_f64();
        let metric = |name: &str| processor.metric(&format!("hookwell_processor_{name}"), &[]);
        // What lanes show of themselves lags a little behind.
        let restored = Restored {
            ids: wait::until("all ids to be there", || {
                Ok(Some(metric("state_ids")?).filter(|known| *known as u64 == ids))
            })?,
            resident: process.memory("VmRSS")? as f64,
            peak: process.memory("VmHWM")? as f64,
            table: metric("state_bytes")?,
            lane_seconds: metric("restore_seconds_sum")? / metric("restore_seconds_count")?,
            ready_seconds,
            cpu,
        };
        ensure!(processor.stop()?.success(), "the processor did not end well");
        Ok(restored)
    }

    fn drain(&self, broker: &Broker, stage: &Stage, ids: u64) -> Result<Drained> {
        let mut floor = Running::start("drain", &[&broker.bootstrap_servers(), &stage.topic("state")])?;
        floor.until("begin")?;
        let meter = Meter::begin(floor.process(), broker.process()?)?;
        let records = floor.until("end")?;
        let cost = meter.end(records)?;
        ensure!(ids <= records, "{records} records for {ids} ids");
        Ok(Drained { seconds: cost.seconds, cpu: cost.own })
    }

    fn show_restores(&self, most: &[(Restored, Drained)]) {
        let ids = most[0].0.ids;
        let of = |what: fn(&(Restored, Drained)) -> f64| most.iter().map(what).collect::<Series>();
        say(&format!(
            "\n{ids} ids, {} partitions, {} turns each; median (least to most)\n",
            self.partitions, self.rounds
        ));
        let lanes = of(|(restored, _)| restored.ids / restored.lane_seconds);
        let ready = of(|(restored, _)| restored.ids / restored.ready_seconds);
        let drains = of(|(restored, drained)| restored.ids / drained.seconds);
        let cpu = of(|(restored, _)| restored.cpu * 1e6 / restored.ids);
        let drain_cpu = of(|(restored, drained)| drained.cpu * 1e6 / restored.ids);
        let rows = [
            ("processor, from an assignment to a lane at work", lanes.show(0), cpu.show(2)),
            ("processor, from its start until it is ready", ready.show(0), cpu.show(2)),
            ("floor: a consumer that reads the topic to its end", drains.show(0), drain_cpu.show(2)),
        ];
        let rows = rows.map(|(name, rate, cpu)| vec![name.to_owned(), rate, cpu]);
        table(&["", "ids/s", "CPU us an id"], rows.into());
        say("");
        let rows = [
            ("ids/s, restored / drained", lanes.over(&drains).show(2)),
            ("CPU, restored / drained", cpu.over(&drain_cpu).show(2)),
        ];
        table(&["ratio, round by round", ""], rows.map(|(name, ratio)| vec![name.to_owned(), ratio]).into());
    }
}

fn show_memory(steps: &[(Restored, Drained)]) {
    let row = |(restored, drained): &(Restored, Drained)| {
        vec![
            format!("{}", restored.ids),
            format!("{:.1}", restored.resident / 1e6),
            format!("{:.1}", restored.peak / 1e6),
            format!("{:.1}", restored.table / 1e6),
            format!("{:.1}", restored.table / restored.ids),
            format!("{:.2}", restored.lane_seconds),
            format!("{:.2}", drained.seconds),
        ]
    };
    let head = [
        "ids",
        "resident MB",
        "at most",
        "the table itself MB",
        "its bytes an id",
        "restored in s",
        "drained in s",
    ];
    table(&head, steps.iter().map(row).collect());
    if let [(first, _), .., (last, _)] = steps {
        let ids = last.ids - first.ids;
        say(&format!(
            "\nfrom {} to {} ids each takes {:.1} bytes of resident memory, {:.1} of the table",
            first.ids,
            last.ids,
            (last.resident - first.resident) / ids,
            (last.table - first.table) / ids
        ));
        say(&format!(
            "and {:.2} us to restore, {:.2} us to drain",
            (last.lane_seconds - first.lane_seconds) * 1e6 / ids,
            (steps[steps.len() - 1].1.seconds - steps[0].1.seconds) * 1e6 / ids
        ));
    }
}
