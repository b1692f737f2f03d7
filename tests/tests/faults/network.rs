//! The network between one of our programs and Kafka is spoilt, and mended; everybody else's is
//! well.

use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_tests::detour::Detour;
use hookwell_tests::program::Program;
use hookwell_tests::proxy::Network;
use hookwell_tests::sender::Sender;
use hookwell_tests::wait;

use super::drill::{Drill, SOME, half_close_in_turn};
use crate::{Common, tests};

tests![
    ingest_in_a_black_hole_refuses_and_loses_nothing,
    ingest_whose_requests_do_not_arrive_refuses_and_loses_nothing,
    ingest_that_hears_no_answer_refuses_what_kafka_has_and_nothing_is_handled_twice,
    ingest_far_from_kafka_goes_on,
    ingest_on_a_network_that_loses_packets_goes_on,
    ingest_whose_connections_are_reset_goes_on,
    ingest_whose_connections_are_half_closed_goes_on,
    processors_in_a_black_hole_settle_nothing_and_later_everything,
    processors_whose_requests_do_not_arrive_settle_everything_later,
    processors_that_hear_no_answer_settle_nothing_twice,
    a_processor_cut_off_with_an_heir_settles_nothing_twice,
    processors_far_from_kafka_go_on,
    processors_on_a_network_that_loses_packets_go_on,
    processors_whose_connections_are_reset_go_on,
    processors_whose_connections_are_half_closed_go_on,
];

const FAR: Network = Network::Slow(Duration::from_millis(200));
const LOSSY: Network = Network::Lossy { per_mille: 10, seed: 6 };

/// Longer than a member's session (8 s in these rows), a record's delivery (14 s) and a transaction
/// (15 s): what was under way has been given up by everybody when the network is mended.
const LONG: Duration = Duration::from_secs(18);

/// What was on its way when the network failed has come to Kafka.
const SOON: Duration = Duration::from_secs(3);

fn ingest_in_a_black_hole_refuses_and_loses_nothing(common: &Common) -> Result<()> {
    ingest_refuses(common, "ingest and Kafka: black hole", Network::BlackHole)
}

fn ingest_whose_requests_do_not_arrive_refuses_and_loses_nothing(common: &Common) -> Result<()> {
    ingest_refuses(common, "ingest and Kafka: requests stay away", Network::RequestsStay)
}

fn ingest_that_hears_no_answer_refuses_what_kafka_has_and_nothing_is_handled_twice(
    common: &Common,
) -> Result<()> {
    with_ingest_on_a_detour(common, "ingest and Kafka: answers stay away", |drill, detour| {
        detour.set(Network::AnswersStay);
        drill.until_refused(&Sender::Shopify.event("refused"))?;
        let events = drill.stage.topic("events");
        wait::until("Kafka to have what was refused", || {
            let there = drill.stage.reader.read(&events)?;
            Ok(there.iter().any(|record| record.key == b"shopify:refused").then_some(()))
        })
    })
}

fn ingest_far_from_kafka_goes_on(common: &Common) -> Result<()> {
    ingest_goes_on(common, "ingest and Kafka: 200 ms late each way", FAR)
}

fn ingest_on_a_network_that_loses_packets_goes_on(common: &Common) -> Result<()> {
    ingest_goes_on(common, "ingest and Kafka: 1 % loss", LOSSY)
}

fn ingest_whose_connections_are_reset_goes_on(common: &Common) -> Result<()> {
    with_ingest_on_a_detour(common, "ingest and Kafka: resets", |drill, detour| {
        (0..20).try_for_each(|_| {
            detour.reset();
            drill.load.until_sent(5)
        })
    })
}

/// Kafka closes, and what ingest still says arrives; then it is Kafka that sees an end, while ingest
/// hears its answers.
fn ingest_whose_connections_are_half_closed_goes_on(common: &Common) -> Result<()> {
    with_ingest_on_a_detour(common, "ingest and Kafka: connections half-closed", |drill, detour| {
        let gone_on = || drill.load.until_sent(5);
        half_close_in_turn(|| detour.connections(), |way| detour.half_close(way), gone_on)
    })
}

fn ingest_refuses(common: &Common, what: &str, network: Network) -> Result<()> {
    with_ingest_on_a_detour(common, what, |drill, detour| {
        detour.set(network);
        drill.until_refused(&Sender::Shopify.event("refused"))?;
        wait::until("ingest to be not ready", || Ok((!drill.ingest.is_ready()?).then_some(())))
    })
}

fn ingest_goes_on(common: &Common, what: &str, network: Network) -> Result<()> {
    with_ingest_on_a_detour(common, what, |drill, detour| {
        detour.set(network);
        drill.load.until_sent(3 * SOME)
    })
}

fn with_ingest_on_a_detour(
    common: &Common,
    what: &str,
    strike: impl FnOnce(&Drill, &Detour) -> Result<()>,
) -> Result<()> {
    let kafka = common.node()?;
    let detour = Detour::open(&kafka)?;
    let servers = detour.bootstrap_servers();
    let mut drill = Drill::begin(common, &kafka, |settings| settings.ingest_begins_at = Some(servers))?;
    ensure!(0 < detour.connections(), "nobody takes the detour");
    drill.during(what, |drill| {
        strike(drill, &detour)?;
        detour.set(Network::Fine);
        Ok(())
    })?;
    drill.end()
}

fn processors_in_a_black_hole_settle_nothing_and_later_everything(common: &Common) -> Result<()> {
    processors_are_cut_off(common, "processors and Kafka: black hole", Network::BlackHole)
}

fn processors_whose_requests_do_not_arrive_settle_everything_later(common: &Common) -> Result<()> {
    processors_are_cut_off(common, "processors and Kafka: requests stay away", Network::RequestsStay)
}

fn processors_that_hear_no_answer_settle_nothing_twice(common: &Common) -> Result<()> {
    processors_are_cut_off(common, "processors and Kafka: answers stay away", Network::AnswersStay)
}

/// Those that are cut off have an heir. When the network is mended, all that they had under way
/// arrives at once, late.
fn a_processor_cut_off_with_an_heir_settles_nothing_twice(common: &Common) -> Result<()> {
    let kafka = common.node()?;
    let detour = Detour::open(&kafka)?;
    let servers = detour.bootstrap_servers();
    let mut drill = Drill::begin(common, &kafka, |settings| settings.processor_begins_at = Some(servers))?;
    let heir = drill.stage.start_processor_at(None, "")?.ready()?;
    drill.processors.push(heir);
    drill.during("some processors and Kafka: black hole, while another goes on", |drill| {
        detour.set(Network::BlackHole);
        drill.until_settled_more(5 * SOME)?;
        let owned = |program: &Program| program.metric("hookwell_processor_assigned_partitions", &[]);
        wait::until("the heir to own every partition", || {
            Ok((owned(&drill.processors[2])? == 3.0).then_some(()))
        })?;
        drill.until_settled_more(5 * SOME)?;
        detour.set(Network::Fine);
        // Until each knows what has become of its own, it may still call for what it has lost.
        wait::until("each to own a partition, and no other", || {
            let all: Vec<_> = drill.processors.iter().map(owned).collect::<Result<_>>()?;
            Ok((all == [1.0; 3]).then_some(()))
        })
    })?;
    drill.end()
}

fn processors_far_from_kafka_go_on(common: &Common) -> Result<()> {
    processors_go_on(common, "processors and Kafka: 200 ms late each way", FAR)
}

fn processors_on_a_network_that_loses_packets_go_on(common: &Common) -> Result<()> {
    processors_go_on(common, "processors and Kafka: 1 % loss", LOSSY)
}

fn processors_whose_connections_are_reset_go_on(common: &Common) -> Result<()> {
    with_processors_on_a_detour(common, "processors and Kafka: resets", |drill, detour| {
        (0..20).try_for_each(|_| {
            detour.reset();
            drill.until_settled_more(1)
        })
    })
}

fn processors_whose_connections_are_half_closed_go_on(common: &Common) -> Result<()> {
    with_processors_on_a_detour(common, "processors and Kafka: connections half-closed", |drill, detour| {
        let gone_on = || drill.until_settled_more(1);
        half_close_in_turn(|| detour.connections(), |way| detour.half_close(way), gone_on)
    })
}

fn processors_are_cut_off(common: &Common, what: &str, network: Network) -> Result<()> {
    with_processors_on_a_detour(common, what, |drill, detour| {
        detour.set(network);
        wait::pause(SOON);
        let states = drill.stage.topic("state");
        let settled = drill.stage.reader.read(&states)?.len();
        wait::pause(LONG);
        let later = drill.stage.reader.read(&states)?.len();
        ensure!(settled == later, "{} states were committed meanwhile", later - settled);
        Ok(())
    })
}

fn processors_go_on(common: &Common, what: &str, network: Network) -> Result<()> {
    with_processors_on_a_detour(common, what, |drill, detour| {
        detour.set(network);
        drill.until_settled_more(3 * SOME)
    })
}

fn with_processors_on_a_detour(
    common: &Common,
    what: &str,
    strike: impl FnOnce(&Drill, &Detour) -> Result<()>,
) -> Result<()> {
    let kafka = common.node()?;
    let detour = Detour::open(&kafka)?;
    let servers = detour.bootstrap_servers();
    let mut drill = Drill::begin(common, &kafka, |settings| settings.processor_begins_at = Some(servers))?;
    ensure!(0 < detour.connections(), "nobody takes the detour");
    drill.during(what, |drill| {
        strike(drill, &detour)?;
        detour.set(Network::Fine);
        Ok(())
    })?;
    drill.end()
}
