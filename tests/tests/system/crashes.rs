//! The crash table of `docs/delivery.md`, a row a test: the program is killed with SIGKILL exactly
//! there, and an auditor counts.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use hookwell_tests::handler::{Call, Reply};
use hookwell_tests::sender::{Sender, post, post_until_accepted};
use hookwell_tests::stage::Stage;

use crate::{Common, tests};

tests![
    killed_after_verifying_ingest_leaves_nothing_and_the_sender_sends_again,
    killed_before_the_200_ingest_leaves_a_record_and_state_absorbs_its_copy,
    killed_after_polling_the_event_is_read_again,
    killed_after_the_handler_the_event_is_handled_again_with_the_same_key,
    killed_with_records_in_an_open_transaction_they_stay_invisible,
    killed_with_offsets_in_an_open_transaction_they_do_not_count,
    killed_before_the_commit_is_sent_nothing_counts,
    killed_while_the_commit_is_under_way_it_counts_once_or_not_at_all,
    killed_after_the_commit_nothing_is_handled_again,
    killed_in_the_middle_of_a_restore_nothing_is_forgotten,
    killed_while_handing_over_a_partition_its_next_owner_loses_nothing,
];

fn killed_after_verifying_ingest_leaves_nothing_and_the_sender_sends_again(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let event = Sender::GitHub.event("one");
    let ingest = stage.start_ingest("ingest-verified=return")?.ready()?;
    ensure!(post(stage.port, &event).is_err(), "a dead ingest answered");
    ingest.die()?;
    ensure!(stage.reader.read(&stage.topic("events"))?.is_empty());

    let _ingest = stage.ingest()?;
    post_until_accepted(stage.port, &event)?;
    ensure!(stage.reader.read(&stage.topic("events"))?.len() == 1);
    Ok(())
}

fn killed_before_the_200_ingest_leaves_a_record_and_state_absorbs_its_copy(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let event = Sender::GitHub.event("one");
    let ingest = stage.start_ingest("ingest-acknowledged=return")?.ready()?;
    ensure!(post(stage.port, &event).is_err(), "a dead ingest answered");
    ingest.die()?;
    ensure!(stage.reader.read(&stage.topic("events"))?.len() == 1);

    let _ingest = stage.ingest()?;
    post_until_accepted(stage.port, &event)?;
    let records = stage.reader.read(&stage.topic("events"))?;
    ensure!(records.len() == 2 && records[0].event() == records[1].event(), "{records:?}");
    ensure!(records[0].partition == records[1].partition);
    let _processor = stage.processor()?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 1, "called {} times", stage.handler.count());
    ensure!(stage.until_settled(&["one"])?.is_clean());
    Ok(())
}

fn killed_after_polling_the_event_is_read_again(common: &Common) -> Result<()> {
    dies_at(common, "lane-polled=return", &[1])
}

fn killed_after_the_handler_the_event_is_handled_again_with_the_same_key(common: &Common) -> Result<()> {
    dies_at(common, "handler-returned=return", &[2])
}

fn killed_with_records_in_an_open_transaction_they_stay_invisible(common: &Common) -> Result<()> {
    dies_at(common, "transaction-produced=return", &[2])
}

fn killed_with_offsets_in_an_open_transaction_they_do_not_count(common: &Common) -> Result<()> {
    dies_at(common, "transaction-offsets-sent=return", &[2])
}

fn killed_before_the_commit_is_sent_nothing_counts(common: &Common) -> Result<()> {
    dies_at(common, "transaction-committing=return", &[2])
}

fn killed_while_the_commit_is_under_way_it_counts_once_or_not_at_all(common: &Common) -> Result<()> {
    // Whether Kafka has the commit by then, only Kafka knows.
    [200, 700, 1_500, 4_000]
        .iter()
        .try_for_each(|micros| dies_at(common, &format!("transaction-committing=return({micros})"), &[1, 2]))
}

fn killed_after_the_commit_nothing_is_handled_again(common: &Common) -> Result<()> {
    dies_at(common, "transaction-committed=return", &[1])
}

/// A processor dies at `failpoint` with one event, whose handler is called one of `calls` times in
/// all; and again with a mixture of fates, at the second passage.
fn dies_at(common: &Common, failpoint: &str, calls: &[usize]) -> Result<()> {
    let stage = common.stage()?;
    stage.accept(&["one"])?;
    stage.start_processor(failpoint)?.die()?;
    let processor = stage.processor()?;
    ensure!(stage.until_settled(&["one"])?.is_clean());
    ensure!(processor.stop()?.success());
    let made = stage.handler.calls();
    ensure!(calls.contains(&made.len()), "handled {} times: {made:?}", made.len());
    ensure!(made.iter().all(|call| call.key() == made[0].key() && call.attempt() == "0"), "{made:?}");

    dies_among_several(common, &failpoint.replace('=', "=1*off->"))
}

const FATES: [&str; 6] = ["fine-1", "flaky-1", "broken-1", "fine-2", "flaky-2", "broken-2"];

/// One partition, events that succeed, events that succeed at their second attempt, and events that
/// never will; sent again afterwards.
fn dies_among_several(common: &Common, failpoint: &str) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    stage.handler.answer(by_fate);
    stage.accept(&FATES)?;
    stage.start_processor(failpoint)?.die()?;
    let processor = stage.processor()?;
    let audit = stage.until_settled(&FATES)?;
    ensure!(audit.is_clean() && (audit.done, audit.dead) == (4, 2), "after {failpoint}: {audit}");

    let calls = stage.handler.count();
    stage.accept(&FATES)?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == calls, "after {failpoint} a copy was handled");
    ensure!(processor.stop()?.success());
    is_well_kept(&stage, &FATES)
}

fn by_fate(call: &Call) -> Reply {
    match call.event().split('-').next() {
        Some("flaky") if call.attempt() == "0" => Reply::from(500),
        Some("broken") => Reply::from(400),
        _ => Reply::from(200),
    }
}

/// What must hold at rest, whatever died: see `docs/delivery.md`.
fn is_well_kept(stage: &Stage, accepted: &[&str]) -> Result<()> {
    let accepted: BTreeSet<_> = accepted.iter().map(|id| ("github".to_owned(), (*id).to_owned())).collect();
    let audit = stage.audit(&accepted)?;
    ensure!(audit.is_clean(), "{audit}");
    for topic in ["events", "state", "dlq", "retry.1", "retry.2"] {
        let ends = stage.reader.ends(&stage.topic(topic))?;
        ensure!(
            ends.values().all(|(stable, end)| stable == end),
            "a transaction is open on {topic}: {ends:?}"
        );
    }
    for (source, id) in &accepted {
        let calls = stage.handler.calls_for(id);
        let keys: BTreeSet<_> = calls.iter().map(Call::key).collect();
        ensure!(keys.len() == 1, "{source} {id} was handled under several keys: {keys:?}");
        ensure!(calls.iter().filter(|call| call.status < 300).count() <= 2, "{calls:?}");
    }
    Ok(())
}

fn killed_in_the_middle_of_a_restore_nothing_is_forgotten(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.handler.answer(by_fate);
    stage.accept(&FATES)?;
    let processor = stage.processor()?;
    stage.until_settled(&FATES)?;
    ensure!(processor.stop()?.success());
    let calls = stage.handler.count();

    stage.start_processor("restore-midway=return")?.die()?;
    let processor = stage.processor()?;
    stage.accept(&FATES)?;
    stage.until_caught_up()?;
    ensure!(processor.stop()?.success());
    ensure!(stage.handler.count() == calls, "a copy was handled after a restore that was cut short");
    is_well_kept(&stage, &FATES)
}

fn killed_while_handing_over_a_partition_its_next_owner_loses_nothing(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.handler.answer(by_fate);
    let first = stage.start_processor("revoke-drained=return")?.ready()?;
    stage.accept(&FATES)?;
    let second = stage.start_processor("")?;
    first.die()?;
    let second = second.ready()?;
    let audit = stage.until_settled(&FATES)?;
    ensure!((audit.done, audit.dead) == (4, 2), "{audit}");
    ensure!(second.stop()?.success());
    is_well_kept(&stage, &FATES)
}
