//! Brokers die, freeze, are restarted, or are too few, in a cluster of three.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hookwell_tests::kafka::{Kafka, Shape};
use hookwell_tests::program::Program;
use hookwell_tests::sender::Sender;
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;

use super::drill::{Drill, PLAN, ROUNDS, SOME, TOPICS, many_commits, settings, steady};
use crate::{Common, tests};

tests![
    the_leader_of_an_events_partition_is_killed,
    a_broker_freezes_for_longer_than_its_session_and_thaws,
    brokers_are_restarted_one_after_the_other,
    all_brokers_are_down_for_a_minute,
    with_one_broker_of_three_ingest_refuses_and_nothing_is_lost,
    with_too_few_copies_in_sync_ingest_refuses_and_nothing_is_settled_twice,
    a_lone_broker_that_dies_amid_commits_forgets_none_of_them,
];

fn the_leader_of_an_events_partition_is_killed(common: &Common) -> Result<()> {
    let turn = common.cluster()?;
    let mut drill = Drill::begin(common, &turn.kafka, |_| ())?;
    let leader = turn.kafka.leader_of(&drill.stage.topic("events"), 0)?;
    drill.during("the leader of an events partition is killed", |drill| {
        turn.kafka.node(leader)?.kill()?;
        until_led_by_another(&turn.kafka, &drill.stage.topic("events"), leader)?;
        drill.load.until_sent(SOME)?;
        drill.until_settled_more(SOME)
    })?;
    turn.kafka.revive()?;
    drill.end()
}

fn a_broker_freezes_for_longer_than_its_session_and_thaws(common: &Common) -> Result<()> {
    let turn = common.cluster()?;
    let mut drill = Drill::begin(common, &turn.kafka, |_| ())?;
    let leader = turn.kafka.leader_of(&drill.stage.topic("state"), 0)?;
    drill.during("a broker is frozen beyond its session, and thawed", |drill| {
        turn.kafka.node(leader)?.freeze()?;
        until_led_by_another(&turn.kafka, &drill.stage.topic("state"), leader)?;
        drill.load.until_sent(SOME)?;
        drill.until_settled_more(SOME)?;
        turn.kafka.node(leader)?.thaw()
    })?;
    drill.end()
}

fn until_led_by_another(kafka: &Kafka, topic: &str, leader: i32) -> Result<()> {
    wait::until("another leader", || Ok((kafka.leader_of(topic, 0)? != leader).then_some(())))
}

fn brokers_are_restarted_one_after_the_other(common: &Common) -> Result<()> {
    let turn = common.cluster()?;
    let mut drill = Drill::begin(common, &turn.kafka, |_| ())?;
    drill.during("brokers are restarted one after the other", |drill| {
        for node in turn.kafka.nodes() {
            node.stop()?;
            drill.load.until_sent(SOME)?;
            drill.until_settled_more(SOME)?;
            node.revive()?;
            turn.kafka.until_healthy()?;
        }
        Ok(())
    })?;
    drill.end()
}

/// The minute is the condition: sessions, deliveries and transactions have all timed out by then.
fn all_brokers_are_down_for_a_minute(common: &Common) -> Result<()> {
    let turn = common.cluster()?;
    let mut drill = Drill::begin(common, &turn.kafka, |_| ())?;
    drill.during("all brokers are down for a minute", |drill| {
        turn.kafka.kill()?;
        drill.until_refused(&Sender::Shopify.event("refused"))?;
        wait::pause(Duration::from_secs(60));
        turn.kafka.revive()
    })?;
    drill.end()
}

/// Many lanes that commit all the time, so that some have offsets on their way to a coordinator when
/// it dies: librdkafka alone might wait for good for one that has come back since.
fn with_one_broker_of_three_ingest_refuses_and_nothing_is_lost(common: &Common) -> Result<()> {
    let turn = common.cluster()?;
    let stage = Stage::set(&turn.kafka, &common.binaries, settings(many_commits(12)))?;
    let mut drill = Drill::on(stage, PLAN)?;
    for round in 0..ROUNDS.parse()? {
        let next = |step: i32| turn.kafka.node((round + step) % 3 + 1);
        drill.during("two of three brokers are down", |drill| {
            drill.amid_commits(|| {
                next(0)?.kill()?;
                next(1)?.kill()
            })?;
            drill.until_refused(&Sender::Shopify.event("refused"))?;
            turn.kafka.revive()
        })?;
        turn.kafka.until_healthy()?;
        // A second death while they mend what the first one cost is not survived (docs/adr/0016).
        drill.until_all_go_on()?;
    }
    drill.end()
}

/// Every topic wants three copies, and one broker is down: the others go on, and refuse each record.
fn with_too_few_copies_in_sync_ingest_refuses_and_nothing_is_settled_twice(common: &Common) -> Result<()> {
    let turn = common.cluster()?;
    let mut drill = Drill::begin(common, &turn.kafka, |_| ())?;
    for topic in TOPICS {
        drill.stage.reader.configure_topic(&drill.stage.topic(topic), "min.insync.replicas", "3")?;
    }
    drill.during("one copy of three is missing, and two are too few", |drill| {
        turn.kafka.node(2)?.kill()?;
        drill.until_refused(&Sender::Shopify.event("refused"))?;
        // Not before their records have timed out: until then librdkafka asks again.
        wait::until("a lane to give its producer up", || {
            let lost = |program: &Program| program.logged().contains("taking over anew");
            Ok(drill.processors.iter().any(lost).then_some(()))
        })?;
        turn.kafka.revive()
    })?;
    drill.end()
}

/// Many lanes that commit all the time: some have been told that they committed, and have no marker
/// yet, when the broker dies. Kafka itself forgets such markers (docs/adr/0016).
fn a_lone_broker_that_dies_amid_commits_forgets_none_of_them(common: &Common) -> Result<()> {
    let _turn = common.own_kafka();
    let home = tempfile::Builder::new().prefix("hookwell-kafka-").tempdir()?;
    let kafka = Arc::new(Kafka::start_as(home.path(), Shape { nodes: 1, doors: 0 })?);
    let stage = Stage::set(&kafka, &common.binaries, settings(many_commits(12)))?;
    let mut drill = Drill::on(stage, steady(4))?;
    for _ in 0..ROUNDS.parse::<u32>()? {
        drill.during("the only broker is killed", |drill| {
            drill.amid_commits(|| kafka.kill())?;
            kafka.revive()
        })?;
        drill.until_all_go_on()?;
    }
    drill.end()
}
