//! How fast one, two or more processors work off a backlog together.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_common::lifecycle::Clock;
use hookwell_tests::audit::Audit;
use hookwell_tests::handler::Reply;
use hookwell_tests::wait;
use rustix::process::Signal;

use super::{Group, Plan, judge, verdict};
use crate::broker::Broker;
use crate::cost::Process;
use crate::processor::settled;
use crate::record::{Backlog, SOURCE, event_id};
use crate::report::{Series, complain, say, table};

/// How long the slow handler takes for each call.
const SLOW: Duration = Duration::from_millis(50);

/// How often members are asked how far they are.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Who takes the events.
#[derive(Clone, Copy, Debug)]
enum Taker {
    /// Nobody: a destination of kind `log`.
    Log,
    /// A handler that takes its time.
    Slow,
}

/// One backlog, worked off.
#[derive(Clone, Debug)]
struct Run {
    events_a_second: f64,
    /// Cores that each processor kept busy.
    members: Vec<f64>,
    kafka: f64,
    /// This process, with the handler in it.
    here: f64,
}

/// Measures, and prints the figures.
pub(super) fn measure(plan: &Plan, broker: &Broker) -> Result<()> {
    for (taker, records) in [(Taker::Log, plan.records), (Taker::Slow, plan.slow_records)] {
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); plan.processors.len()];
        let mut audits = Vec::new();
        // The first turn is for the broker, which is slow until its code is compiled.
        for turn in 0..=plan.turns {
            for (runs, count) in runs.iter_mut().zip(&plan.processors) {
                complain(&format!("{taker:?}: {count} processors, turn {turn} of {}", plan.turns));
                let (run, audit) = work_off(plan, broker, taker, records, *count)?;
                audits.push(audit);
                if 0 < turn {
                    runs.push(run);
                }
            }
        }
        show(plan, taker, records, &runs, &audits);
        ensure!(audits.iter().all(Audit::is_clean), "a promise was broken: {}", verdict(&audits));
    }
    Ok(())
}

fn work_off(plan: &Plan, broker: &Broker, taker: Taker, records: u64, count: usize) -> Result<(Run, Audit)> {
    let stage = broker.set(plan.settings(|settings| {
        // Members are frozen while the backlog is written.
        settings.kafka_properties = "\"session.timeout.ms\" = 300000".to_owned();
        settings.routes += "\n[log]\nlevel = \"warn\"";
        if let Taker::Log = taker {
            settings.destinations = "[[destinations]]\nname = \"orders\"\nkind = \"log\"\n".to_owned();
        }
    }))?;
    stage.handler.answer(|_| Reply { after: SLOW, ..Reply::from(200) });
    let backlog = Backlog {
        run: stage.prefix.clone(),
        first: 0,
        records,
        repeat: 0,
        bytes: 1024,
        partitions: i32::try_from(plan.partitions)?,
    };
    let group = Group::start(&stage, plan.partitions, count)?;
    // Everybody begins at the same moment, with its share.
    group.members.iter().try_for_each(|member| member.signal(Signal::STOP))?;
    backlog.write(&stage.reader, &stage.topic("events"))?;
    let run = time(&group, broker, records)?;
    let accepted: BTreeSet<_> =
        (0..records).map(|n| (SOURCE.to_owned(), event_id(&backlog.run, n))).collect();
    let audit = judge(&stage, &accepted)?;
    group.stop()?;
    Ok((run, audit))
}

/// From the moment at which all members wake up until all is settled.
fn time(group: &Group<'_>, broker: &Broker, records: u64) -> Result<Run> {
    let mut processes: Vec<_> = group.members.iter().map(|member| Process(member.id())).collect();
    processes.extend([broker.process()?, Process::own()]);
    let used = || processes.iter().map(|process| process.cpu()).collect::<Result<Vec<_>>>();
    let before = used()?;
    let clock = Clock::start();
    group.members.iter().try_for_each(|member| member.signal(Signal::CONT))?;
    while settled_by_all(group)? < records {
        wait::pause(LOOK_AGAIN);
    }
    let seconds = clock.mono().as_secs_f64();
    let cores =
        |(before, after): (&Duration, Duration)| after.saturating_sub(*before).as_secs_f64() / seconds;
    let mut cores: Vec<_> = before.iter().zip(used()?).map(cores).collect();
    let here = cores.pop().unwrap_or_default();
    let kafka = cores.pop().unwrap_or_default();
    Ok(Run { events_a_second: records as f64 / seconds, members: cores, kafka, here })
}

fn settled_by_all(group: &Group<'_>) -> Result<u64> {
    let each = group.members.iter().map(|member| {
        ensure!(member.ended()?.is_none(), "a processor has ended: {}", member.logged());
        // One that was frozen may have closed its connection; it is asked again.
        Ok(settled(member).unwrap_or(0))
    });
    each.sum()
}

fn show(plan: &Plan, taker: Taker, records: u64, runs: &[Vec<Run>], audits: &[Audit]) {
    let who = match taker {
        Taker::Log => "a destination of kind log".to_owned(),
        Taker::Slow => {
            format!("a handler that takes {} ms, 64 calls at once in each processor", SLOW.as_millis())
        }
    };
    say(&format!(
        "a backlog of {records} events of 1 KB, {} partitions, {who}, {} turns; median (least to most)\n",
        plan.partitions, plan.turns
    ));
    let row = |(count, runs): (&usize, &Vec<Run>)| {
        let of = |what: &dyn Fn(&Run) -> f64| runs.iter().map(what).collect::<Series>();
        let each: Vec<_> =
            (0..*count).map(|at| format!("{:.2}", of(&|run| run.members[at]).median())).collect();
        vec![
            count.to_string(),
            of(&|run| run.events_a_second).show(0),
            each.join(", "),
            of(&|run| run.kafka).show(2),
            of(&|run| run.here).show(2),
        ]
    };
    table(
        &["processors", "events/s", "cores, each", "cores, Kafka", "cores, this program"],
        plan.processors.iter().zip(runs).map(row).collect(),
    );
    say(&format!("\n{}\n", verdict(audits)));
}
