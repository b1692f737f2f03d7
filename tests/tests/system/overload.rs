//! Load beyond capacity: memory stays within its bound, nobody starves, and what was accepted is
//! settled afterwards.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_common::lifecycle::raise_open_files;
use hookwell_tests::overload::{
    Beside, Flood, Gate, Opened, crowd, gated, most_of_a_processor, most_of_an_ingest,
};
use hookwell_tests::raw_handler::RawHandler;
use hookwell_tests::sender::{Sender, post};
use hookwell_tests::stage::destination;
use hookwell_tests::wait;

use crate::{Common, tests};

tests![
    more_than_the_handler_can_take_is_accepted_and_settled_when_it_can,
    a_backlog_of_large_events_stays_within_the_bound_of_memory,
    thousands_of_connections_are_held_and_those_that_send_are_served,
    a_fast_destination_is_served_while_all_others_hang,
];

fn more_than_the_handler_can_take_is_accepted_and_settled_when_it_can(common: &Common) -> Result<()> {
    let stage = common.stage_with(Flood::settings)?;
    let (pause, time, call) = (Duration::ZERO, Duration::ZERO, Duration::from_millis(250));
    let flood = Flood { connections: 4, pause, events: 1_500, time, call };
    flood.play(&stage, 3).map(drop)
}

fn a_backlog_of_large_events_stays_within_the_bound_of_memory(common: &Common) -> Result<()> {
    const EVENTS: usize = 400;
    let gate = Gate::default();
    let _opened = Opened(&gate);
    let (closed, passed) =
        (gate.clone(), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let handler = RawHandler::start(move |caller| {
        let call = caller.read()?;
        closed.wait();
        // Some come again, by way of a retry topic.
        let fails = call.attempt == "0" && call.event.ends_with('3');
        caller.send(if fails { passed.replace("200", "503") } else { passed.to_owned() })
    })?;
    let stage = common.stage_with(|settings| {
        settings.partitions = 1;
        settings.destinations =
            destination("orders", "timeout = \"10m\"").replace("HANDLER/", &handler.url());
    })?;
    let ingest = stage.ingest()?;
    let mut accepted = BTreeSet::new();
    for n in 0..EVENTS {
        let event = Sender::GitHub.sign(&format!("id-{n}"), vec![b'x'; 1_000_000]);
        ensure!(post(stage.port, &event)?.0 == 200);
        accepted.insert((event.source, event.id));
    }
    let peak = ingest.peak_bytes()?;
    ensure!(peak < most_of_an_ingest(1, 2_000_000), "ingest took {peak} bytes");
    let processor = stage.processor()?;
    wait::until("the window to be full", || {
        Ok((16.0 <= processor.metric("hookwell_processor_open_deliveries", &[])?).then_some(()))
    })?;
    ensure!(handler.calls().len() < 40, "{} calls at once", handler.calls().len());
    gate.open();
    let audit = stage.until_all_settled(&accepted)?;
    ensure!(audit.is_clean() && audit.done == EVENTS, "{audit}");
    let peak = processor.peak_bytes()?;
    ensure!(peak < most_of_a_processor(1), "the processor took {peak} bytes");
    Ok(())
}

fn thousands_of_connections_are_held_and_those_that_send_are_served(common: &Common) -> Result<()> {
    const COUNT: usize = 3_000;
    raise_open_files();
    let stage = common.stage_with(|settings| settings.ingest = "read_timeout = \"10m\"".to_owned())?;
    let peak = crowd(&stage, COUNT, 50)?;
    ensure!(peak < most_of_an_ingest(COUNT as u64, 0), "ingest took {peak} bytes");
    Ok(())
}

fn a_fast_destination_is_served_while_all_others_hang(common: &Common) -> Result<()> {
    let beside = Beside { slow: 25, events: 12, fast: 200 };
    let gate = Gate::default();
    let _opened = Opened(&gate);
    let slow = gated(&gate)?;
    let stage = common.stage_with(|settings| beside.settings(settings, &slow.url()))?;
    beside.play(&stage, 3, &slow, &gate).map(drop)
}
