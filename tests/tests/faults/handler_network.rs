//! The network between processors and their handler is spoilt, and mended. How long a call may
//! take decides what becomes of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_tests::kafka::free_port;
use hookwell_tests::proxy::{Network, Proxy};
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;

use super::drill::{Drill, PLAN, SOME, half_close_in_turn, settings};
use crate::{Common, tests};

tests![
    a_handler_in_a_black_hole_is_called_again_until_it_answers,
    a_handler_that_hears_nothing_is_called_again_until_it_answers,
    a_handler_whose_answers_stay_away_is_called_again_with_the_same_key,
    a_handler_far_away_is_called_as_ever,
    a_handler_on_a_network_that_loses_packets_is_called_as_ever,
    a_handler_whose_connections_are_reset_is_called_again,
    a_handler_whose_connections_are_half_closed_is_called_again,
    a_handler_that_refuses_connections_is_called_again,
];

fn a_handler_in_a_black_hole_is_called_again_until_it_answers(common: &Common) -> Result<()> {
    calls_time_out(common, "processors and handler: black hole", Network::BlackHole)
}

fn a_handler_that_hears_nothing_is_called_again_until_it_answers(common: &Common) -> Result<()> {
    calls_time_out(common, "processors and handler: requests stay away", Network::RequestsStay)
}

fn a_handler_whose_answers_stay_away_is_called_again_with_the_same_key(common: &Common) -> Result<()> {
    calls_time_out(common, "processors and handler: answers stay away", Network::AnswersStay)
}

fn a_handler_far_away_is_called_as_ever(common: &Common) -> Result<()> {
    let far = Network::Slow(Duration::from_millis(200));
    calls_go_on(common, "processors and handler: 200 ms late each way", far)
}

fn a_handler_on_a_network_that_loses_packets_is_called_as_ever(common: &Common) -> Result<()> {
    let lossy = Network::Lossy { per_mille: 10, seed: 6 };
    calls_go_on(common, "processors and handler: 1 % loss", lossy)
}

fn a_handler_whose_connections_are_reset_is_called_again(common: &Common) -> Result<()> {
    with_a_proxy(common, "processors and handler: resets", |drill, proxy| {
        (0..20).try_for_each(|_| {
            proxy.reset();
            drill.until_settled_more(5)
        })
    })
}

/// What was asked when the handler's half ends is handled, and nobody hears of it.
fn a_handler_whose_connections_are_half_closed_is_called_again(common: &Common) -> Result<()> {
    with_a_proxy(common, "processors and handler: connections half-closed", |drill, proxy| {
        let gone_on = || drill.until_settled_more(5);
        half_close_in_turn(|| proxy.connections(), |way| proxy.half_close(way), gone_on)
    })
}

fn a_handler_that_refuses_connections_is_called_again(common: &Common) -> Result<()> {
    with_a_proxy(common, "processors and handler: connections refused", |drill, proxy| {
        proxy.set(Network::Refusing);
        proxy.reset();
        until_attempts_fail(drill, "unreachable")
    })
}

fn calls_time_out(common: &Common, what: &str, network: Network) -> Result<()> {
    with_a_proxy(common, what, |drill, proxy| {
        proxy.set(network);
        until_attempts_fail(drill, "timed_out")
    })
}

fn until_attempts_fail(drill: &Drill, outcome: &str) -> Result<()> {
    let label = format!("outcome=\"{outcome}\"");
    wait::until("attempts to fail", || {
        let name = "hookwell_processor_attempts_total";
        let failed = drill.processors.iter().map(|program| program.metric(name, &[&label]));
        Ok((SOME as f64 <= failed.sum::<Result<f64>>()?).then_some(()))
    })
}

fn calls_go_on(common: &Common, what: &str, network: Network) -> Result<()> {
    with_a_proxy(common, what, |drill, proxy| {
        proxy.set(network);
        drill.until_settled_more(3 * SOME)
    })
}

fn with_a_proxy(
    common: &Common,
    what: &str,
    strike: impl FnOnce(&Drill, &Proxy) -> Result<()>,
) -> Result<()> {
    let front = free_port()?;
    let settings = settings(|settings| {
        settings.destinations = format!(
            "[[destinations]]\nname = \"orders\"\nkind = \"http\"\nurl = \"http://127.0.0.1:{front}/orders\"\ntimeout = \"1s\"\n"
        );
    });
    let stage = Stage::set(&common.node()?, &common.binaries, settings)?;
    let proxy = Proxy::start_at(front, stage.handler.port())?;
    let mut drill = Drill::on(stage, PLAN)?;
    ensure!(0 < proxy.connections(), "nobody comes through the proxy");
    drill.during(what, |drill| {
        strike(drill, &proxy)?;
        proxy.set(Network::Fine);
        Ok(())
    })?;
    drill.end()
}
