//! The crash table of `docs/delivery.md`, a row a test: the program is killed with SIGKILL exactly
//! there, and an auditor counts.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::handler::{Call, Reply};
use hookwell_tests::program::Program;
use hookwell_tests::sender::{Sender, post, post_until_accepted};
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;

use super::quarantine::{list, release, sums, with_quarantine, wrongly_refused};
use super::spool::{event as spooled, with_spool};
use crate::{Common, tests};

tests![
    killed_after_verifying_ingest_leaves_nothing_and_the_sender_sends_again,
    killed_before_the_200_ingest_leaves_a_record_and_state_absorbs_its_copy,
    killed_before_the_sync_of_the_spool_nobody_heard_200_and_nothing_is_torn,
    killed_after_the_sync_of_the_spool_the_event_is_drained_at_the_next_start,
    killed_with_the_spool_drained_and_its_file_there_state_absorbs_the_copies,
    killed_after_polling_the_event_is_read_again,
    killed_after_the_handler_the_event_is_handled_again_with_the_same_key,
    killed_with_records_in_an_open_transaction_they_stay_invisible,
    killed_with_a_dead_letter_sent_and_its_state_not_neither_counts,
    killed_with_a_retry_sent_and_its_state_not_neither_counts,
    killed_with_a_state_sent_and_the_next_dead_letter_not_neither_counts,
    killed_with_offsets_in_an_open_transaction_they_do_not_count,
    killed_before_the_commit_is_sent_nothing_counts,
    killed_while_the_commit_is_under_way_it_counts_once_or_not_at_all,
    killed_after_the_commit_nothing_is_handled_again,
    killed_before_the_first_state_is_restored_nothing_is_forgotten,
    killed_in_the_middle_of_a_restore_nothing_is_forgotten,
    killed_after_the_last_state_is_restored_nothing_is_forgotten,
    killed_while_open_calls_finish_before_a_hand_over_they_are_made_again,
    killed_while_handing_over_a_partition_its_next_owner_loses_nothing,
    killed_between_two_replays_the_same_command_goes_on,
    killed_when_a_replay_is_acknowledged_the_same_command_repeats_nothing,
    killed_with_a_released_event_sent_and_its_note_not_neither_counts,
    killed_before_the_commit_of_a_release_is_sent_nothing_counts,
    killed_after_the_commit_of_a_release_nothing_is_released_twice,
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

fn killed_before_the_sync_of_the_spool_nobody_heard_200_and_nothing_is_torn(common: &Common) -> Result<()> {
    dies_while_it_spools(common, "spool-written=return")
}

fn killed_after_the_sync_of_the_spool_the_event_is_drained_at_the_next_start(common: &Common) -> Result<()> {
    dies_while_it_spools(common, "spool-synced=return")
}

/// Ingest dies with the second event of an outage on the disk, whose sender hears nothing; the
/// kernel goes on, so what was written is there.
fn dies_while_it_spools(common: &Common, failpoint: &str) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(with_spool)?;
    own.kafka.kill()?;
    let ingest = stage.start_ingest(&failpoint.replace('=', "=1*off->"))?.ready()?;
    ensure!(post(stage.port, &spooled("one"))?.0 == 200);
    ensure!(post(stage.port, &spooled("two")).is_err(), "a dead ingest answered");
    ingest.die()?;
    own.kafka.revive()?;
    let ingest = stage.ingest()?;
    ensure!(ingest.metric("hookwell_ingest_spool_faults_total", &[])? == 0.0, "{}", ingest.logged());
    spooled_events_are_settled_once(&stage, &ingest)
}

fn killed_with_the_spool_drained_and_its_file_there_state_absorbs_the_copies(common: &Common) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(with_spool)?;
    own.kafka.kill()?;
    let ingest = stage.start_ingest("spool-drained=return")?.ready()?;
    for id in ["one", "two"] {
        ensure!(post(stage.port, &spooled(id))?.0 == 200);
    }
    own.kafka.revive()?;
    ingest.die()?;
    // Two, or more where Kafka was so slow that one was published again.
    let before = stage.reader.read(&stage.topic("events"))?.len();
    ensure!(2 <= before);
    let ingest = stage.ingest()?;
    spooled_events_are_settled_once(&stage, &ingest)?;
    // Both by the spool, and both by their sender.
    let after = stage.reader.read(&stage.topic("events"))?.len();
    ensure!(before + 4 <= after, "it was not drained again: {before} and then {after}");
    Ok(())
}

/// The spool is drained, both events are on Kafka and each is handled once, though sent again.
fn spooled_events_are_settled_once(stage: &Stage, ingest: &Program) -> Result<()> {
    wait::until("the spool to be drained", || {
        Ok((ingest.metric("hookwell_ingest_spool_events", &[])? == 0.0).then_some(()))
    })?;
    for id in ["one", "two"] {
        post_until_accepted(stage.port, &spooled(id))?;
    }
    let _processor = stage.processor()?;
    let both = ["one", "two"].map(|id| ("acme".to_owned(), id.to_owned())).into();
    let audit = stage.until_all_settled(&both)?;
    ensure!(audit.is_clean() && audit.done == 2, "{audit}");
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 2, "called {} times", stage.handler.count());
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

fn killed_with_a_dead_letter_sent_and_its_state_not_neither_counts(common: &Common) -> Result<()> {
    dies_between_records(
        common,
        "transaction-record-sent=sleep(60000)",
        &["broken-1"],
        [("dlq", 1), ("state", 0)],
    )
}

fn killed_with_a_retry_sent_and_its_state_not_neither_counts(common: &Common) -> Result<()> {
    dies_between_records(
        common,
        "transaction-record-sent=sleep(60000)",
        &["flaky-1"],
        [("retry.1", 1), ("state", 0)],
    )
}

fn killed_with_a_state_sent_and_the_next_dead_letter_not_neither_counts(common: &Common) -> Result<()> {
    let failpoint = "transaction-record-sent=1*off->sleep(60000)";
    dies_between_records(common, failpoint, &["unroutable-1", "unroutable-2"], [("state", 1), ("dlq", 1)])
}

/// A processor stands still between two records of one transaction, with as many on each topic as
/// `lie` there, and is killed.
fn dies_between_records(
    common: &Common,
    failpoint: &str,
    ids: &[&str],
    lie: [(&str, usize); 2],
) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.partitions = 1;
        if ids.iter().all(|id| id.starts_with("unroutable")) {
            // No call is waited for, so that both lie in one transaction.
            settings.routes = "[[routes]]\nsource = \"stripe\"\nto = [\"orders\"]".to_owned();
        }
    })?;
    stage.handler.answer(by_fate);
    stage.accept(ids)?;
    let processor = stage.start_processor(failpoint)?;
    let on = |topic: &str| stage.reader.read_uncommitted(&stage.topic(topic)).map(|records| records.len());
    wait::until("the first records of a transaction", || Ok((on(lie[0].0)? == lie[0].1).then_some(())))?;
    ensure!(on(lie[1].0)? == lie[1].1, "it does not stand between the two");
    for (topic, _) in lie {
        ensure!(stage.reader.read(&stage.topic(topic))?.is_empty(), "what is on {topic} counts");
    }
    processor.kill()?;

    let processor = stage.processor()?;
    stage.until_caught_up()?;
    let (done, dead) = match ids[0] {
        "flaky-1" => (stage.until_settled(ids)?.done, 0),
        _ => (0, stage.dead_letters()?.len()),
    };
    ensure!(done + dead == ids.len(), "{done} done, {dead} dead");
    ensure!(processor.stop()?.success());
    let calls = stage.handler.calls();
    ensure!(calls.iter().all(|call| call.key() == calls[0].key()), "{calls:?}");
    let attempts: Vec<_> = calls.iter().map(Call::attempt).collect();
    let expected: &[&str] = match ids[0] {
        "flaky-1" => &["0", "0", "1"],
        "broken-1" => &["0", "0"],
        _ => &[],
    };
    ensure!(attempts == expected, "{calls:?}");
    stage.accept(ids)?;
    let _processor = stage.processor()?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == calls.len() && stage.dead_letters()?.len() == dead);
    Ok(())
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
        // The markers of the last one come to its partitions one after the other.
        wait::until("every transaction to end", || {
            let ends = stage.reader.ends(&stage.topic(topic))?;
            Ok(ends.values().all(|(stable, end)| stable == end).then_some(()))
        })
        .with_context(|| topic.to_owned())?;
    }
    for (source, id) in &accepted {
        let calls = stage.handler.calls_for(id);
        let keys: BTreeSet<_> = calls.iter().map(Call::key).collect();
        ensure!(keys.len() == 1, "{source} {id} was handled under several keys: {keys:?}");
        ensure!(calls.iter().filter(|call| call.status < 300).count() <= 2, "{calls:?}");
    }
    Ok(())
}

fn killed_before_the_first_state_is_restored_nothing_is_forgotten(common: &Common) -> Result<()> {
    dies_while_it_restores(common, "restore-begun=return")
}

fn killed_in_the_middle_of_a_restore_nothing_is_forgotten(common: &Common) -> Result<()> {
    dies_while_it_restores(common, "restore-midway=return")
}

fn killed_after_the_last_state_is_restored_nothing_is_forgotten(common: &Common) -> Result<()> {
    dies_while_it_restores(common, "restore-ended=return")
}

fn dies_while_it_restores(common: &Common, failpoint: &str) -> Result<()> {
    let stage = common.stage()?;
    stage.handler.answer(by_fate);
    stage.accept(&FATES)?;
    let processor = stage.processor()?;
    stage.until_settled(&FATES)?;
    ensure!(processor.stop()?.success());
    let calls = stage.handler.count();

    stage.start_processor(failpoint)?.die()?;
    let processor = stage.processor()?;
    stage.accept(&FATES)?;
    stage.until_caught_up()?;
    ensure!(processor.stop()?.success());
    ensure!(stage.handler.count() == calls, "a copy was handled after a restore that was cut short");
    is_well_kept(&stage, &FATES)
}

fn killed_while_open_calls_finish_before_a_hand_over_they_are_made_again(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let slow = |call: &Call| Reply { after: Duration::from_secs(1), ..by_fate(call) };
    stage.handler.answer(slow);
    let first = stage.start_processor("revoke-begun=return")?.ready()?;
    stage.accept(&FATES)?;
    stage.handler.until_called(FATES.len())?;
    // It dies when the first partition is asked for; with calls open or not, as it comes.
    let second = stage.start_processor("")?;
    first.die()?;
    let second = second.ready()?;
    let audit = stage.until_settled(&FATES)?;
    ensure!((audit.done, audit.dead) == (4, 2), "{audit}");
    ensure!(second.stop()?.success());
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

fn killed_between_two_replays_the_same_command_goes_on(common: &Common) -> Result<()> {
    dies_while_it_replays(common, "replay-published=3*off->return")
}

fn killed_when_a_replay_is_acknowledged_the_same_command_repeats_nothing(common: &Common) -> Result<()> {
    dies_while_it_replays(common, "replay-acknowledged=1*off->return")
}

fn dies_while_it_replays(common: &Common, failpoint: &str) -> Result<()> {
    let stage = common.stage()?;
    let ids = ["1", "2", "3", "4", "5", "6", "7", "8"];
    stage
        .handler
        .answer(|call| Reply::from(if call.header("hookwell-generation") == "0" { 400 } else { 200 }));
    stage.accept(&ids)?;
    let processor = stage.processor()?;
    ensure!(stage.until_settled(&ids)?.dead == ids.len());
    ensure!(processor.stop()?.success());

    // Slowly, or all may be on their way before the first is acknowledged.
    stage.start_armed_command(failpoint, &["--replay-dlq", "--rate", "4/s"])?.die()?;
    let replayed = stage.reader.read(&stage.topic("events"))?.len() - ids.len();
    ensure!(replayed < ids.len(), "it died at its end");
    let again = stage.processor_answers(&["--replay-dlq"])?;
    ensure!(again.status == Some(0), "{again:?}");
    let processor = stage.processor()?;
    stage.until_caught_up()?;
    ensure!(processor.stop()?.success());
    for id in ids {
        let calls = stage.handler.calls_for(id);
        ensure!(calls.len() == 2, "{id} was delivered again other than once: {calls:?}");
    }
    let audit = stage.until_settled(&ids)?;
    ensure!(audit.is_clean() && audit.done == ids.len(), "{audit}");
    Ok(())
}

fn killed_with_a_released_event_sent_and_its_note_not_neither_counts(common: &Common) -> Result<()> {
    dies_while_it_releases(common, "release-event-sent=return", 0)
}

fn killed_before_the_commit_of_a_release_is_sent_nothing_counts(common: &Common) -> Result<()> {
    dies_while_it_releases(common, "release-committing=return", 0)
}

fn killed_after_the_commit_of_a_release_nothing_is_released_twice(common: &Common) -> Result<()> {
    dies_while_it_releases(common, "release-committed=return", 3)
}

/// A release of three requests dies with so many events on Kafka, and is run again.
fn dies_while_it_releases(common: &Common, failpoint: &str, passed_on: usize) -> Result<()> {
    let stage = common.stage_with(with_quarantine)?;
    let ids = ["one", "two", "three"];
    wrongly_refused(&stage, &ids)?;
    stage.start_armed_ingest_command(failpoint, &["--release-quarantine"])?.die()?;
    // The marker of a commit is written after its answer.
    let on_kafka = stage.reader.until_holds(&stage.topic("events"), passed_on)?.len();
    ensure!(on_kafka == passed_on, "{on_kafka} events are on Kafka");

    let left = 3 - u64::try_from(passed_on)?;
    ensure!(sums(&release(&stage, &[])?)? == [left, left, 0, 0]);
    ensure!(sums(&release(&stage, &[])?)? == [0; 4] && list(&stage, &[])?.is_empty());
    ensure!(stage.reader.read(&stage.topic("events"))?.len() == 3);
    let _processor = stage.processor()?;
    let accepted = ids.map(|id| ("acme".to_owned(), id.to_owned())).into();
    let audit = stage.until_all_settled(&accepted)?;
    ensure!(audit.is_clean() && audit.done == 3, "{audit}");
    ensure!(stage.handler.count() == 3, "{:?}", stage.handler.calls());
    Ok(())
}
