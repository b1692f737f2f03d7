//! Whoever decides about transactions and members dies, in a cluster of three.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;

use super::drill::{Drill, ROUNDS, SOME, many_commits, settings, steady};
use crate::{Common, tests};

tests![
    the_group_coordinator_is_killed,
    the_transaction_coordinator_is_killed,
    a_coordinator_killed_while_lanes_commit_leaves_nothing_hanging,
];

fn the_group_coordinator_is_killed(common: &Common) -> Result<()> {
    let turn = common.cluster()?;
    let mut drill = Drill::begin(common, &turn.kafka, |_| ())?;
    let group = drill.stage.prefix.clone();
    let tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    let arguments = ["--describe", "--state", "--group", &group, "--timeout", "60000"];
    let coordinator = reckoned_and_told(|| {
        let coordinator = turn.kafka.group_coordinator(&group)?;
        let told = turn.kafka.ask(tool, &arguments)?;
        let address = turn.kafka.node(coordinator)?.address();
        ensure!(told.contains(&format!("{address} ")), "it is not node {coordinator}: {told}");
        Ok(coordinator)
    })?;
    drill.during("the group coordinator is killed", |drill| {
        turn.kafka.node(coordinator)?.kill()?;
        drill.load.until_sent(SOME)?;
        drill.until_settled_more(2 * SOME)
    })?;
    until_another(coordinator, || turn.kafka.group_coordinator(&group))?;
    turn.kafka.revive()?;
    drill.end()
}

fn the_transaction_coordinator_is_killed(common: &Common) -> Result<()> {
    let turn = common.cluster()?;
    let mut drill = Drill::begin(common, &turn.kafka, |_| ())?;
    let lane = format!("{}-0", drill.stage.prefix);
    let tool = "org.apache.kafka.tools.TransactionsCommand";
    let coordinator = reckoned_and_told(|| {
        let coordinator = turn.kafka.transaction_coordinator(&lane)?;
        let told = turn.kafka.ask(tool, &["describe", "--transactional-id", &lane])?;
        let row = told.lines().find(|line| line.contains(&lane)).unwrap_or_default();
        let told_id = row.split_whitespace().next().unwrap_or_default();
        ensure!(told_id == coordinator.to_string(), "it is not node {coordinator}: {told}");
        Ok(coordinator)
    })?;
    drill.during("the transaction coordinator is killed", |drill| {
        turn.kafka.node(coordinator)?.kill()?;
        drill.load.until_sent(SOME)?;
        drill.until_all_go_on()?;
        drill.until_settled_more(2 * SOME)
    })?;
    until_another(coordinator, || turn.kafka.transaction_coordinator(&lane))?;
    turn.kafka.revive()?;
    drill.end()
}

/// The node that the tests reckon and Kafka's own tool tells. They are asked one after the other, and
/// a node that came back a while ago is given back what it led whenever Kafka likes.
fn reckoned_and_told(look: impl Fn() -> Result<i32>) -> Result<i32> {
    wait::until("the same coordinator, reckoned and told", || look().map(Some))
}

fn until_another(coordinator: i32, look: impl Fn() -> Result<i32>) -> Result<()> {
    wait::until("another coordinator", || Ok((look()? != coordinator).then_some(())))
}

/// Each lane in turn loses the coordinator of its transactions while all lanes commit as often as
/// they can. On one node this leaves a transaction without its marker now and then: ADR 0016.
fn a_coordinator_killed_while_lanes_commit_leaves_nothing_hanging(common: &Common) -> Result<()> {
    let turn = common.cluster()?;
    let kafka = &turn.kafka;
    let stage = Stage::set(kafka, &common.binaries, settings(many_commits(6)))?;
    let mut drill = Drill::on(stage, steady(2))?;
    for round in 0..ROUNDS.parse()? {
        let lane = format!("{}-{}", drill.stage.prefix, round % 6);
        let coordinator = kafka.node(kafka.transaction_coordinator(&lane)?)?;
        drill.during("a coordinator is killed while lanes commit", |drill| {
            drill.amid_commits(|| {
                wait::pause(Duration::from_millis(round * 37 % 100));
                coordinator.kill()
            })?;
            drill.until_all_go_on().with_context(|| format!("in round {round}"))
        })?;
        coordinator.revive()?;
        kafka.until_healthy()?;
    }
    drill.until_all_go_on()?;
    drill.end()
}
