//! How long a partition stands still while it changes hands, by the broker's own clock.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_common::lifecycle::Clock;
use hookwell_tests::audit::Audit;
use hookwell_tests::handler::Reply;
use hookwell_tests::load::{self, Load};
use hookwell_tests::program::Program;
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;
use rustix::process::Signal;

use super::{Group, Plan, judge, verdict};
use crate::broker::Broker;
use crate::report::{Series, complain, say, table};

/// Members before each change.
const MEMBERS: usize = 3;

/// What three senders send, each of whose two connections waits between two events.
const LOAD: load::Plan = load::Plan { events: usize::MAX, connections: 2, pause: Duration::from_millis(12) };

/// How long the handler takes.
const CALL: Duration = Duration::from_millis(5);

/// After partitions are shared again, so that each of them is seen at work on that footing.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// A change of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    None,
    Added,
    Stopped,
    Killed,
    Frozen,
    Thawed,
    Restarted,
}

impl Change {
    fn words(self) -> &'static str {
        match self {
            Change::None => "nothing happens",
            Change::Added => "a member is added",
            Change::Stopped => "a member is told to stop (SIGTERM)",
            Change::Killed => "a member is killed (SIGKILL)",
            Change::Frozen => "a member is frozen (SIGSTOP)",
            Change::Thawed => "it is thawed (SIGCONT)",
            Change::Restarted => "all three are restarted, one by one",
        }
    }
}

/// When a change was made and when partitions were shared evenly again, in milliseconds since the
/// epoch.
#[derive(Clone, Copy, Debug)]
struct Span {
    change: Change,
    begun: u64,
    even: u64,
}

/// What a change brought, in seconds.
#[derive(Debug, Default)]
struct Figures {
    /// The longest stand-still of the partition that stood still longest.
    slowest: Vec<f64>,
    /// The same, of the partition in the middle.
    middle: Vec<f64>,
    /// Until partitions were shared evenly again.
    even: Vec<f64>,
}

/// Measures, and prints the figures.
pub(super) fn measure(plan: &Plan, broker: &Broker) -> Result<()> {
    let mut figures: BTreeMap<Change, Figures> = BTreeMap::new();
    let mut audits = Vec::new();
    for round in 1..=plan.rounds {
        complain(&format!("changes of the group, round {round} of {}", plan.rounds));
        let stage = broker.set(plan.settings(|_| ()))?;
        stage.handler.answer(|_| Reply { after: CALL, ..Reply::from(200) });
        let (spans, audit) = change(plan, &stage)?;
        audits.push(audit);
        let times = settlements(&stage)?;
        for span in spans {
            let gaps = gaps(&times, span);
            let figures = figures.entry(span.change).or_default();
            figures.slowest.push(gaps.last().copied().unwrap_or_default());
            figures.middle.push(gaps.get(gaps.len() / 2).copied().unwrap_or_default());
            figures.even.push((span.even - span.begun) as f64 / 1000.0);
        }
    }
    show(plan, &figures, &audits);
    ensure!(audits.iter().all(Audit::is_clean), "a promise was broken: {}", verdict(&audits));
    Ok(())
}

/// One round of changes, under load.
fn change(plan: &Plan, stage: &Stage) -> Result<(Vec<Span>, Audit)> {
    let ingest = stage.ingest()?;
    let load = Load::start(stage.port, LOAD)?;
    let mut group = Group::start(stage, plan.partitions, MEMBERS)?;
    load.go();
    wait::pause(AFTERWARDS);
    let mut watch = Watch { clock: Clock::start(), spans: Vec::new() };
    watch.see(Change::None, &mut group, |_| {
        wait::pause(AFTERWARDS);
        Ok(())
    })?;
    watch.see(Change::Added, &mut group, add)?;
    watch.see(Change::Stopped, &mut group, |group| {
        let member = group.members.remove(0);
        ensure!(member.stop()?.success(), "it did not end well: {}", member.logged());
        Ok(())
    })?;
    watch.see(Change::Killed, &mut group, |group| group.members.remove(0).kill())?;
    add(&mut group)?;
    group.until_shared()?;
    let mut frozen: Option<Program> = None;
    watch.see(Change::Frozen, &mut group, |group| {
        let member = group.members.remove(0);
        member.signal(Signal::STOP)?;
        frozen = Some(member);
        Ok(())
    })?;
    watch.see(Change::Thawed, &mut group, |group| {
        if let Some(member) = frozen.take() {
            member.signal(Signal::CONT)?;
            group.members.push(member);
        }
        Ok(())
    })?;
    watch.see(Change::Restarted, &mut group, |group| {
        for _ in 0..MEMBERS {
            let member = group.members.remove(0);
            ensure!(member.stop()?.success(), "it did not end well: {}", member.logged());
            add(group)?;
            group.until_shared()?;
        }
        Ok(())
    })?;
    let accepted = load.stop()?;
    let audit = judge(stage, &accepted)?;
    group.stop()?;
    ensure!(ingest.stop()?.success(), "ingest did not end well");
    Ok((watch.spans, audit))
}

fn add(group: &mut Group<'_>) -> Result<()> {
    group.members.push(group.stage.start_processor("")?);
    Ok(())
}

/// Notes when things happen.
struct Watch {
    clock: Clock,
    spans: Vec<Span>,
}

impl Watch {
    fn see(
        &mut self,
        change: Change,
        group: &mut Group<'_>,
        make: impl FnOnce(&mut Group<'_>) -> Result<()>,
    ) -> Result<()> {
        let now = || self.clock.now().wall.as_millis();
        let begun = now();
        make(group)?;
        group.until_shared()?;
        let even = now();
        self.spans.push(Span { change, begun, even });
        wait::pause(AFTERWARDS);
        Ok(())
    }
}

/// When states were appended, by partition.
fn settlements(stage: &Stage) -> Result<BTreeMap<i32, Vec<u64>>> {
    let mut times: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    for record in stage.reader.read(&stage.topic("state"))? {
        times.entry(record.partition).or_default().push(u64::try_from(record.at)?);
    }
    Ok(times)
}

/// The longest time without a settlement on each partition, in seconds, the shortest first. It begins
/// before partitions are shared again, and ends after the change was begun.
fn gaps(times: &BTreeMap<i32, Vec<u64>>, span: Span) -> Vec<f64> {
    let longest = |times: &Vec<u64>| {
        let pairs = times.iter().zip(times.iter().skip(1));
        let within = pairs.filter(|(before, after)| **before < span.even && span.begun < **after);
        within.map(|(before, after)| after - before).max()
    };
    let mut gaps: Vec<_> = times.values().filter_map(longest).collect();
    gaps.sort_unstable();
    gaps.into_iter().map(|millis| millis as f64 / 1000.0).collect()
}

fn show(plan: &Plan, figures: &BTreeMap<Change, Figures>, audits: &[Audit]) {
    say(&format!(
        "{MEMBERS} members, {} partitions, {} rounds; seconds, median (least to most)\n",
        plan.partitions, plan.rounds
    ));
    let row = |(change, figures): (&Change, &Figures)| {
        let series = |values: &[f64]| values.iter().copied().collect::<Series>().show(2);
        vec![
            change.words().to_owned(),
            series(&figures.slowest),
            series(&figures.middle),
            series(&figures.even),
        ]
    };
    table(
        &["", "without a settlement, slowest partition", "partition in the middle", "until shared evenly"],
        figures.iter().map(row).collect(),
    );
    say(&format!("\n{}\n", verdict(audits)));
}
