//! What more processors bring, and what it costs when one comes, goes, dies or freezes.

mod backlog;
mod hand_over;

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use clap::Args;
use hookwell_tests::audit::Audit;
use hookwell_tests::program::Program;
use hookwell_tests::stage::{Settings, Stage};
use hookwell_tests::wait;

use crate::broker::Broker;
use crate::report::complain;

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// How often each change of the group is made
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=100))]
    rounds: u64,
    /// How often each number of processors takes its turn at a backlog
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=100))]
    turns: u64,
    /// The numbers of processors that share a backlog
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    processors: Vec<usize>,
    /// The records of a backlog whose events are only noted
    #[arg(long, default_value_t = 300_000)]
    records: u64,
    /// The records of a backlog whose events a handler takes its time for
    #[arg(long, default_value_t = 20_000)]
    slow_records: u64,
    /// The partitions of each topic
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
    /// More of [kafka.properties] while the group changes
    #[arg(long, default_value = "")]
    kafka: String,
}

impl Plan {
    /// Measures, and prints the figures.
    pub(crate) fn run(&self) -> Result<()> {
        let broker = Broker::start()?;
        if 0 < self.rounds {
            hand_over::measure(self, &broker)?;
        }
        if 0 < self.turns {
            backlog::measure(self, &broker)?;
        }
        Ok(())
    }

    fn settings(&self, change: impl FnOnce(&mut Settings)) -> Settings {
        let mut settings = Settings {
            partitions: self.partitions,
            kafka_properties: self.kafka.clone(),
            ..Settings::default()
        };
        change(&mut settings);
        settings
    }
}

/// Processors that share the partitions of their stage.
struct Group<'s> {
    stage: &'s Stage,
    partitions: u32,
    members: Vec<Program>,
}

impl<'s> Group<'s> {
    /// So many members, each with its share.
    fn start(stage: &'s Stage, partitions: u32, count: usize) -> Result<Self> {
        let mut group = Self { stage, partitions, members: Vec::new() };
        for _ in 0..count {
            group.members.push(stage.start_processor("")?);
        }
        group.until_shared()?;
        Ok(group)
    }

    /// Waits until nobody has two partitions more than another, and all are at work.
    fn until_shared(&self) -> Result<()> {
        wait::until("partitions to be shared evenly", || {
            let mut owned = Vec::new();
            for member in &self.members {
                ensure!(member.ended()?.is_none(), "a processor has ended: {}", member.logged());
                owned.push(member.metric("hookwell_processor_assigned_partitions", &[])? as u32);
                let at_work = member.metric("hookwell_processor_lanes", &["state=\"active\""])? as u32;
                if owned.last() != Some(&at_work) {
                    return Ok(None);
                }
            }
            let (least, most) = (owned.iter().min().unwrap_or(&0), owned.iter().max().unwrap_or(&0));
            Ok((owned.iter().sum::<u32>() == self.partitions && most - least <= 1).then_some(()))
        })
    }

    fn stop(self) -> Result<()> {
        for member in &self.members {
            ensure!(member.stop()?.success(), "a processor did not end well: {}", member.logged());
        }
        Ok(())
    }
}

/// Waits until every event has ended, and counts.
fn judge(stage: &Stage, accepted: &BTreeSet<(String, String)>) -> Result<Audit> {
    stage.until_caught_up()?;
    let audit = stage.until_all_settled(accepted)?;
    complain(&audit.to_string());
    Ok(audit)
}

/// What was lost and what was settled twice, in words.
fn verdict(audits: &[Audit]) -> String {
    let count = |of: fn(&Audit) -> usize| audits.iter().map(of).sum::<usize>();
    format!(
        "{} events, lost {}, settled twice {}",
        count(|audit| audit.events),
        count(|audit| audit.lost.len() + audit.untold),
        count(|audit| audit.doubled)
    )
}
