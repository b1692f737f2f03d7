//! Programs killed at random and frozen, under load.

use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_tests::handler::{Call, Reply};
use hookwell_tests::load::{Load, Plan};
use hookwell_tests::program::Program;
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;
use rustix::process::Signal;

use crate::{Common, tests};

tests![
    programs_killed_at_random_under_load_lose_nothing_and_settle_everything_once,
    an_ingest_that_freezes_for_long_and_thaws_loses_nothing_that_it_acknowledged,
    what_was_aborted_at_the_end_of_a_retry_topic_is_no_lag,
];

const STEADY: Plan = Plan { events: usize::MAX, connections: 2, pause: Duration::from_millis(15) };

/// The same throws each time, so that a failure is repeated.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn throw(&mut self, sides: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap_or_default()
    }
}

fn fails_at_first_now_and_then(call: &Call) -> Reply {
    let fails = call.attempt() == "0" && call.event().ends_with('7');
    Reply { after: Duration::from_millis(5), ..Reply::from(if fails { 500 } else { 200 }) }
}

fn loaded(common: &Common) -> Result<(Stage, Program, Load)> {
    let stage = common.stage_with(|settings| {
        settings.partitions = 6;
        settings.ingest = "publish_timeout = \"2500ms\"".to_owned();
    })?;
    stage.handler.answer(fails_at_first_now_and_then);
    let ingest = stage.ingest()?;
    let load = Load::start(stage.port, STEADY)?;
    load.go();
    Ok((stage, ingest, load))
}

fn judge(stage: &Stage, load: &Load) -> Result<()> {
    let accepted = load.stop()?;
    let audit = stage.until_all_settled(&accepted)?;
    // What heard no answer may be there as well.
    ensure!(audit.is_clean() && audit.dead == 0 && accepted.len() <= audit.done, "{audit}");
    stage.until_caught_up()
}

fn programs_killed_at_random_under_load_lose_nothing_and_settle_everything_once(
    common: &Common,
) -> Result<()> {
    const SEED: u64 = 6;
    let (stage, mut ingest, load) = loaded(common)?;
    let mut processors: Vec<_> = (0..3).map(|_| stage.start_processor("")).collect::<Result<_>>()?;
    let mut dice = Dice(SEED);
    for _ in 0..12 {
        load.until_sent(20 + dice.throw(60))?;
        match dice.throw(4) {
            3 => {
                ingest.kill()?;
                ingest = stage.start_ingest("")?;
            }
            number => {
                processors[number].kill()?;
                processors[number] = stage.start_processor("")?;
            }
        }
    }
    judge(&stage, &load)
}

fn an_ingest_that_freezes_for_long_and_thaws_loses_nothing_that_it_acknowledged(
    common: &Common,
) -> Result<()> {
    let (stage, ingest, load) = loaded(common)?;
    let processor = stage.processor()?;
    for _ in 0..2 {
        load.until_sent(50)?;
        ingest.signal(Signal::STOP)?;
        // Longer than Kafka may take to acknowledge before a sender hears 503.
        wait::pause(Duration::from_secs(4));
        ingest.signal(Signal::CONT)?;
    }
    load.until_sent(50)?;
    judge(&stage, &load)?;
    ensure!(ingest.stop()?.success() && processor.stop()?.success());
    Ok(())
}

fn what_was_aborted_at_the_end_of_a_retry_topic_is_no_lag(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    stage.handler.answer(|_| Reply::from(500));
    stage.accept(&["one"])?;
    let processor = stage.start_processor("transaction-record-sent=sleep(60000)")?;
    let retries = stage.topic("retry.1");
    wait::until("a retry", || Ok((stage.reader.read_uncommitted(&retries)?.len() == 1).then_some(())))?;
    processor.kill()?;

    stage.handler.answer(|_| Reply::from(200));
    let processor = stage.processor()?;
    ensure!(stage.until_settled(&["one"])?.is_clean());
    ensure!(stage.reader.read(&retries)?.is_empty() && stage.reader.ends(&retries)?[&0].1 > 0);
    let lag = |topic: &str| processor.metric("hookwell_processor_lag_records", &[topic]);
    wait::until("no lag", || {
        let is_known = processor.metrics()?.contains(&format!("topic=\"{retries}\""));
        Ok((is_known && lag("retry.1\"")? == 0.0 && lag("events\"")? == 0.0).then_some(()))
    })
}
