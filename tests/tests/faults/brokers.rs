//! Brokers die, freeze and are restarted, one or all, in a cluster of three.

use anyhow::{Result, ensure};

use super::drill::Drill;
use crate::{Common, tests};

tests![the_leader_of_an_events_partition_is_killed,];

fn the_leader_of_an_events_partition_is_killed(common: &Common) -> Result<()> {
    let turn = common.cluster()?;
    let mut drill = Drill::begin(common, &turn.kafka, |_| ())?;
    let topic = drill.stage.topic("events");
    let leader = turn.kafka.leader_of(&topic, 0)?;
    drill.during("the leader of an events partition is killed", |drill| {
        turn.kafka.node(leader)?.kill()?;
        drill.load.until_sent(200)
    })?;
    ensure!(turn.kafka.leader_of(&topic, 0)? != leader);
    turn.kafka.revive()?;
    drill.end("the_leader_of_an_events_partition_is_killed")
}
