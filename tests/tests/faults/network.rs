//! The network between one of our programs and Kafka is spoilt, and mended; everybody else's is well.

use anyhow::{Result, ensure};
use hookwell_tests::detour::Detour;
use hookwell_tests::proxy::Network;
use hookwell_tests::wait;

use super::drill::Drill;
use crate::{Common, tests};

tests![ingest_in_a_black_hole_refuses_and_loses_nothing,];

fn ingest_in_a_black_hole_refuses_and_loses_nothing(common: &Common) -> Result<()> {
    let kafka = common.node()?;
    let detour = Detour::open(&kafka)?;
    let mut drill = Drill::begin(common, &kafka, |settings| {
        settings.ingest_begins_at = Some(detour.bootstrap_servers());
    })?;
    ensure!(0 < detour.connections(), "nobody takes the detour");
    drill.during("ingest in a black hole", |drill| {
        detour.set(Network::BlackHole);
        wait::until("ingest to be not ready", || Ok((!drill.ingest.is_ready()?).then_some(())))?;
        detour.set(Network::Fine);
        Ok(())
    })?;
    drill.end("ingest_in_a_black_hole_refuses_and_loses_nothing")
}
