//! Topics that somebody meddles with: records deleted, offsets forgotten, limits lowered, topics
//! deleted under a running program, and transactions that strangers leave open.

use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_tests::audit::{States, Status};
use hookwell_tests::handler::{Call, Reply};
use hookwell_tests::program::Program;
use hookwell_tests::reader::Record;
use hookwell_tests::sender::{Sender, post};
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;
use rdkafka::producer::Producer;
use rustix::process::Signal;

use crate::{Common, tests};

tests![
    a_retry_that_its_topic_no_longer_takes_waits_until_it_does_and_is_not_called_again,
    retries_of_which_the_offsets_were_forgotten_are_made_once,
    events_deleted_before_they_were_read_are_told_and_the_rest_is_delivered,
    events_deleted_under_a_processor_that_lags_are_passed_over,
    a_strangers_open_transaction_on_the_events_holds_back_what_is_behind_it_and_no_more,
    a_strangers_open_transaction_on_a_retry_topic_holds_back_retries_and_loses_none,
    a_state_topic_deleted_under_a_running_processor_stops_it,
    a_state_topic_created_anew_under_a_running_processor_is_refused,
];

fn one_partition(common: &Common) -> Result<Stage> {
    common.stage_with(|settings| settings.partitions = 1)
}

fn is_done_once(stage: &Stage, ids: &[&str]) -> Result<()> {
    let audit = stage.until_settled(ids)?;
    ensure!(audit.is_clean() && audit.done == ids.len(), "{audit}");
    for id in ids {
        let calls = stage.handler.calls_for(id);
        ensure!(calls.iter().filter(|call| call.status == 200).count() == 1, "{calls:?}");
    }
    Ok(())
}

fn fails_at_first(call: &Call) -> Reply {
    Reply::from(if call.attempt() == "0" { 500 } else { 200 })
}

fn a_retry_that_its_topic_no_longer_takes_waits_until_it_does_and_is_not_called_again(
    common: &Common,
) -> Result<()> {
    let stage = one_partition(common)?;
    stage.handler.answer(fails_at_first);
    let (ingest, processor) = (stage.ingest()?, stage.processor()?);
    stage.reader.limit_records(&stage.topic("retry.1"), 20_000)?;
    ensure!(post(stage.port, &Sender::GitHub.sign("large", vec![b'x'; 50_000]))?.0 == 200);
    // The producer is thrown away, and what the call came to is remembered.
    wait::until("a second take-over", || {
        Ok((processor.logged().matches("taking over anew").count() == 2).then_some(()))
    })?;
    ensure!(stage.handler.count() == 1, "{:?}", stage.handler.calls());
    ensure!(stage.reader.committed(&stage.prefix, &stage.topic("events"))?.get(&0).unwrap_or(&0) == &0);
    ensure!(processor.logged().contains("Kafka did not take a record"), "{}", processor.logged());

    stage.reader.limit_records(&stage.topic("retry.1"), 2_000_000)?;
    is_done_once(&stage, &["large"])?;
    ensure!(stage.handler.count() == 2, "{:?}", stage.handler.calls());
    drop(ingest);
    Ok(())
}

fn retries_of_which_the_offsets_were_forgotten_are_made_once(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.retry = "tiers = [\"2s\"]\nmax_attempts = 3\njitter = 0.0".to_owned();
    })?;
    stage.handler.answer(fails_at_first);
    let ids = ["one", "two", "three", "four"];
    stage.accept(&ids)?;
    let processor = stage.processor()?;
    is_done_once(&stage, &ids)?;
    stage.until_caught_up()?;
    stage.accept(&["five", "six"])?;
    stage.reader.until_holds(&stage.topic("retry.1"), 6)?;
    stage.until_caught_up()?;
    ensure!(processor.stop()?.success());
    stage.reader.forget_offsets(&stage.prefix)?;

    let _processor = stage.processor()?;
    is_done_once(&stage, &[ids.as_slice(), &["five", "six"]].concat())?;
    ensure!(stage.handler.count() == 12, "{:?}", stage.handler.calls());
    Ok(())
}

/// The auditor has nothing to say here: the events that states speak of are gone.
fn is_the_fifth_done_once(stage: &Stage) -> Result<()> {
    wait::until("the event that is left to be done", || {
        let states = States::read(&stage.reader, &stage.prefix)?;
        Ok((states.status("github", "five", "orders") == Some(Status::Done)).then_some(()))
    })?;
    ensure!(stage.handler.calls_for("five").len() == 1, "{:?}", stage.handler.calls());
    Ok(())
}

fn events_deleted_before_they_were_read_are_told_and_the_rest_is_delivered(common: &Common) -> Result<()> {
    let stage = one_partition(common)?;
    stage.accept(&["one"])?;
    let processor = stage.processor()?;
    stage.until_settled(&["one"])?;
    stage.until_caught_up()?;
    ensure!(processor.stop()?.success());
    stage.accept(&["two", "three", "four", "five"])?;
    stage.reader.delete_before(&stage.topic("events"), 0, 4)?;

    let processor = stage.processor()?;
    stage.until_caught_up()?;
    is_the_fifth_done_once(&stage)?;
    ensure!(stage.handler.count() == 2, "{:?}", stage.handler.calls());
    let log = processor.logged();
    ensure!(log.contains("records were deleted by retention") && log.contains("deleted=3"), "{log}");
    Ok(())
}

fn events_deleted_under_a_processor_that_lags_are_passed_over(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.partitions = 1;
        // It stays a member, however long it is frozen.
        settings.kafka_properties = "\"session.timeout.ms\" = 60000".to_owned();
    })?;
    let processor = stage.processor()?;
    stage.accept(&["one"])?;
    stage.until_caught_up()?;
    processor.signal(Signal::STOP)?;
    stage.accept(&["two", "three", "four", "five"])?;
    stage.reader.delete_before(&stage.topic("events"), 0, 4)?;
    processor.signal(Signal::CONT)?;

    stage.until_caught_up()?;
    is_the_fifth_done_once(&stage)?;
    ensure!(stage.handler.count() == 2, "{:?}", stage.handler.calls());
    ensure!(processor.logged().contains("Offset out of range"), "{}", processor.logged());
    Ok(())
}

fn strangers(stage: &Stage, topic: &str) -> Result<rdkafka::producer::BaseProducer> {
    let nothing = Record {
        partition: 0,
        offset: 0,
        key: b"a stranger's".to_vec(),
        value: b"never committed".to_vec(),
        headers: Vec::new(),
        at: 0,
    };
    stage.reader.open_transaction(&format!("{}-stranger", stage.prefix), &stage.topic(topic), &nothing)
}

fn a_strangers_open_transaction_on_the_events_holds_back_what_is_behind_it_and_no_more(
    common: &Common,
) -> Result<()> {
    let stage = one_partition(common)?;
    stage.accept(&["before"])?;
    let stranger = strangers(&stage, "events")?;
    stage.accept(&["behind"])?;
    let processor = stage.processor()?;
    stage.handler.until_called(1)?;
    stage.reader.until_holds(&stage.topic("state"), 2)?;
    wait::until("the lag to be seen", || {
        let lag = processor.metric("hookwell_processor_lag_records", &[".events\""])?;
        Ok((processor.is_ready()? && 0.0 < lag).then_some(()))
    })?;
    // Another owner waits for it no less, and takes over all the same.
    ensure!(processor.stop()?.success());
    let _processor = stage.processor()?;
    ensure!(stage.handler.count() == 1, "{:?}", stage.handler.calls());
    stranger.abort_transaction(Duration::from_secs(30))?;
    is_done_once(&stage, &["before", "behind"])?;
    // The end of the topic was the stranger's marker, which nobody reads; what comes next does.
    stage.accept(&["after"])?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 3 && stage.dead_letters()?.is_empty());
    Ok(())
}

fn a_strangers_open_transaction_on_a_retry_topic_holds_back_retries_and_loses_none(
    common: &Common,
) -> Result<()> {
    let stage = one_partition(common)?;
    stage.handler.answer(fails_at_first);
    let stranger = strangers(&stage, "retry.1")?;
    stage.accept(&["one", "two"])?;
    let processor = stage.processor()?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 2, "{:?}", stage.handler.calls());
    ensure!(processor.stop()?.success());
    let processor = stage.processor()?;
    stranger.abort_transaction(Duration::from_secs(30))?;
    is_done_once(&stage, &["one", "two"])?;
    ensure!(processor.stop()?.success());
    let _processor = stage.processor()?;
    stage.accept(&["one", "two"])?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 4, "{:?}", stage.handler.calls());
    Ok(())
}

/// A processor that has handled events, and whose state topic is deleted.
fn stateless(stage: &Stage) -> Result<Program> {
    stage.accept(&["one", "two"])?;
    let processor = stage.processor()?;
    stage.until_settled(&["one", "two"])?;
    stage.until_caught_up()?;
    stage.reader.delete_topic(&stage.topic("state"))?;
    Ok(processor)
}

fn a_state_topic_deleted_under_a_running_processor_stops_it(common: &Common) -> Result<()> {
    let stage = one_partition(common)?;
    let processor = stateless(&stage)?;
    stage.accept(&["one", "three"])?;
    wait::until("a take-over that fails", || {
        Ok(processor.logged().contains("the take-over failed").then_some(()))
    })?;
    ensure!(!processor.is_ready()?, "ready without states");
    let offset = stage.reader.committed(&stage.prefix, &stage.topic("events"))?;
    ensure!(offset.get(&0) <= Some(&3), "what was settled without a state counts: {offset:?}");

    // It begins to exist again, and the processor refuses to begin from nothing.
    ensure!(stage.processor_answers(&["--create-topics"])?.status == Some(0));
    refuses(&stage, &processor)
}

fn a_state_topic_created_anew_under_a_running_processor_is_refused(common: &Common) -> Result<()> {
    let stage = one_partition(common)?;
    let processor = stateless(&stage)?;
    ensure!(stage.processor_answers(&["--create-topics"])?.status == Some(0));
    stage.accept(&["three", "one"])?;
    refuses(&stage, &processor)?;
    ensure!(stage.reader.read(&stage.topic("state"))?.is_empty(), "it began anew");
    // What the first attempt left on the topic is no state, and does not look like one.
    refuses(&stage, &stage.start_processor("")?)
}

fn refuses(stage: &Stage, processor: &Program) -> Result<()> {
    ensure!(processor.end()?.code() == Some(3), "{}", processor.logged());
    let log = processor.logged();
    ensure!(log.contains("deleted or emptied") && log.contains("processor.group_id"), "{log}");
    ensure!(stage.handler.calls_for("one").len() == 1, "{:?}", stage.handler.calls());
    Ok(())
}
