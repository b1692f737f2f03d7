//! One program's wall clock is stepped by an hour, while it runs and before it starts. Delays are
//! measured on a clock that never jumps, and what is signed with a time is refused while the time
//! is wrong.

use anyhow::{Result, ensure};
use hookwell_tests::clock::Clock;
use hookwell_tests::handler::{Call, Reply};
use hookwell_tests::sender::{Sender, post};
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;

use crate::{Common, tests};

tests![
    a_processor_whose_clock_is_stepped_keeps_its_delays_and_forgets_nothing,
    a_processor_that_starts_ahead_of_time_forgets_nothing_and_gives_nothing_up,
    a_processor_that_starts_behind_the_time_is_late_by_the_difference_and_forgets_nothing,
    an_ingest_whose_clock_is_stepped_refuses_what_is_signed_with_a_time_and_accepts_it_afterwards,
    an_ingest_that_starts_with_a_wrong_clock_refuses_what_is_signed_with_a_time,
];

const HOUR: i64 = 3600;

/// What a retry waits for, milliseconds.
const DELAY: u64 = 6_000;

fn stage(common: &Common) -> Result<Stage> {
    let stage = common.stage_with(|settings| {
        settings.retry = "tiers = [\"6s\"]\nmax_attempts = 3\njitter = 0.0".to_owned();
    })?;
    stage.handler.answer(|call| Reply::from(if call.attempt() == "0" { 500 } else { 200 }));
    Ok(stage)
}

fn calls_of(stage: &Stage, id: &str) -> Result<[Call; 2]> {
    let calls = stage.handler.calls_for(id);
    let two: [Call; 2] = calls.try_into().map_err(|calls| anyhow::anyhow!("{id}: {calls:?}"))?;
    ensure!(two[0].key() == two[1].key() && two[1].attempt() == "1", "{two:?}");
    Ok(two)
}

fn is_not_early(stage: &Stage, id: &str) -> Result<()> {
    let [first, second] = calls_of(stage, id)?;
    ensure!(first.at + DELAY <= second.at, "{id} was early: {first:?} {second:?}");
    Ok(())
}

fn a_processor_whose_clock_is_stepped_keeps_its_delays_and_forgets_nothing(common: &Common) -> Result<()> {
    let stage = stage(common)?;
    let clock = Clock::right(stage.folder(), "processor")?;
    let processor = stage.start_processor_in(&clock.environment())?.ready()?;
    let mut ids = Vec::new();
    // Ahead, right, behind, right: the clock jumps while a retry waits, and another event comes after it.
    for (step, waiting, after) in
        [(HOUR, "1-waits", "1"), (0, "2-waits", "2"), (-HOUR, "3-waits", "3"), (0, "4-waits", "4")]
    {
        stage.accept(&[waiting])?;
        wait::until("a retry to wait", || {
            Ok((processor.metric("hookwell_processor_waiting_retries", &[])? == 1.0).then_some(()))
        })?;
        clock.step_to(step)?;
        stage.accept(&[after])?;
        ids.extend([waiting, after]);
        let audit = stage.until_settled(&ids)?;
        ensure!(audit.is_clean() && audit.done == ids.len(), "{audit}");
        is_not_early(&stage, waiting)?;
        is_not_early(&stage, after)?;
        // Copies are recognised whatever the time.
        stage.accept(&ids)?;
        stage.until_caught_up()?;
        ensure!(stage.handler.count() == 2 * ids.len(), "{:?}", stage.handler.calls());
        ensure!(processor.is_ready()?);
    }
    ensure!(processor.stop()?.success());
    Ok(())
}

/// An event is done and another waits for its retry, both by a processor whose clock is right.
fn before(stage: &Stage) -> Result<()> {
    stage.accept(&["done"])?;
    let processor = stage.processor()?;
    stage.until_settled(&["done"])?;
    stage.accept(&["waits"])?;
    stage.reader.until_holds(&stage.topic("retry.1"), 2)?;
    stage.until_caught_up()?;
    ensure!(processor.stop()?.success());
    Ok(())
}

fn a_processor_that_starts_ahead_of_time_forgets_nothing_and_gives_nothing_up(common: &Common) -> Result<()> {
    let stage = stage(common)?;
    before(&stage)?;
    let clock = Clock::right(stage.folder(), "processor")?;
    clock.step_to(HOUR)?;
    let _processor = stage.start_processor_in(&clock.environment())?.ready()?;
    stage.accept(&["done", "waits", "new"])?;
    let audit = stage.until_settled(&["done", "waits", "new"])?;
    ensure!(audit.is_clean() && audit.done == 3, "{audit}");
    stage.until_caught_up()?;
    // What waited may be early by the difference; what begins now is not.
    calls_of(&stage, "done")?;
    calls_of(&stage, "waits")?;
    is_not_early(&stage, "new")
}

fn a_processor_that_starts_behind_the_time_is_late_by_the_difference_and_forgets_nothing(
    common: &Common,
) -> Result<()> {
    let stage = stage(common)?;
    before(&stage)?;
    let clock = Clock::right(stage.folder(), "processor")?;
    clock.step_to(-HOUR)?;
    let processor = stage.start_processor_in(&clock.environment())?.ready()?;
    stage.accept(&["done", "new"])?;
    wait::until("the new event to be retried", || {
        Ok((stage.handler.calls_for("new").len() == 2).then_some(()))
    })?;
    is_not_early(&stage, "new")?;
    calls_of(&stage, "done")?;
    // It waits for a moment that has not come by this clock, and is made as soon as one is right.
    ensure!(stage.handler.calls_for("waits").len() == 1, "{:?}", stage.handler.calls());
    ensure!(processor.stop()?.success());
    let _processor = stage.processor()?;
    let audit = stage.until_settled(&["done", "waits", "new"])?;
    ensure!(audit.is_clean() && audit.done == 3, "{audit}");
    is_not_early(&stage, "waits")
}

/// What senders hear: those that sign a time, and one that does not.
fn hear(stage: &Stage, id: &str, timely: u16) -> Result<()> {
    for (sender, expected) in [(Sender::Standard, timely), (Sender::Stripe, timely), (Sender::GitHub, 200)] {
        let (status, text) = post(stage.port, &sender.event(id))?;
        ensure!(status == expected, "{}: {status} {text}", sender.name());
        ensure!(status == 200 || text.contains("outside"), "{text}");
    }
    Ok(())
}

fn an_ingest_whose_clock_is_stepped_refuses_what_is_signed_with_a_time_and_accepts_it_afterwards(
    common: &Common,
) -> Result<()> {
    let stage = common.stage()?;
    let clock = Clock::right(stage.folder(), "ingest")?;
    let ingest = stage.start_ingest_in(&clock.environment())?.ready()?;
    for (id, step, expected) in
        [("1", 0, 200), ("2", HOUR, 403), ("3", 0, 200), ("4", -HOUR, 403), ("5", 0, 200)]
    {
        clock.step_to(step)?;
        hear(&stage, id, expected)?;
        ensure!(ingest.is_ready()?);
    }
    // Three times from all, and twice from the one that signs no time: what heard a 200 is there.
    ensure!(stage.reader.read(&stage.topic("events"))?.len() == 3 * 3 + 2);
    ensure!(ingest.stop()?.success());
    Ok(())
}

fn an_ingest_that_starts_with_a_wrong_clock_refuses_what_is_signed_with_a_time(
    common: &Common,
) -> Result<()> {
    let stage = common.stage()?;
    for (id, step) in [("1", HOUR), ("2", -HOUR)] {
        let clock = Clock::right(stage.folder(), id)?;
        clock.step_to(step)?;
        let ingest = stage.start_ingest_in(&clock.environment())?.ready()?;
        hear(&stage, id, 403)?;
        clock.step_to(0)?;
        hear(&stage, &format!("{id} again"), 200)?;
        ensure!(ingest.stop()?.success());
    }
    ensure!(stage.reader.read(&stage.topic("events"))?.len() == 2 * (1 + 3));
    Ok(())
}
