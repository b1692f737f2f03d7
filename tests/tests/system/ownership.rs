//! Who owns a partition: members that come, go, freeze and thaw, and transactions of strangers.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_tests::handler::Reply;
use hookwell_tests::program::Program;
use hookwell_tests::reader::Record;
use hookwell_tests::sender::Sender;
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;
use rdkafka::producer::{BaseProducer, Producer};
use rustix::process::Signal;

use crate::{Common, tests};

tests![
    the_late_commit_of_a_frozen_owner_does_not_count,
    a_frozen_owner_that_was_about_to_commit_is_fenced,
    a_restore_does_not_end_early_because_a_strangers_transaction_hides_states,
    without_the_true_end_a_restore_misses_states_and_the_auditor_tells,
    members_come_and_go_under_load_and_nothing_is_lost_or_settled_twice,
    a_processor_told_to_stop_finishes_what_is_open,
    readiness_tells_the_truth,
    a_lane_whose_call_of_librdkafka_never_returns_is_taken_over_within_its_process,
    a_member_shows_nothing_of_a_lane_that_never_returned_once_another_has_its_partition,
    a_member_that_gives_up_many_threads_at_once_goes_on_for_they_come_back,
    retries_that_librdkafka_stops_reading_are_read_on_by_a_consumer_that_is_new,
    a_processor_told_to_stop_while_a_call_of_librdkafka_never_returns_ends_and_its_heir_goes_on,
    a_processor_that_lost_a_partition_while_a_call_of_librdkafka_never_returns_ends_well_when_told_to_stop,
];

fn the_late_commit_of_a_frozen_owner_does_not_count(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    let frozen = stage.processor()?;
    // The owner is frozen while its handler works, and thawed when another has long settled it.
    stage.handler.answer(|_| Reply { after: Duration::from_secs(5), ..Reply::from(200) });
    stage.accept(&["one"])?;
    stage.handler.until_called(1)?;
    frozen.signal(Signal::STOP)?;
    let heir = stage.processor()?;
    ensure!(stage.until_settled(&["one"])?.is_clean());
    stage.until_caught_up()?;
    frozen.signal(Signal::CONT)?;

    both_go_on(&stage, &frozen)?;
    let calls = stage.handler.calls_for("one");
    ensure!(calls.len() == 2 && calls[0].key() == calls[1].key(), "{calls:?}");
    ensure!(heir.stop()?.success() && frozen.stop()?.success());
    Ok(())
}

fn a_frozen_owner_that_was_about_to_commit_is_fenced(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    let frozen = stage.start_processor("transaction-committing=1*sleep(10000)")?.ready()?;
    stage.accept(&["one"])?;
    until_transactions_are_open(&stage, 1)?;
    frozen.signal(Signal::STOP)?;
    let _heir = stage.processor()?;
    ensure!(stage.until_settled(&["one"])?.is_clean());
    frozen.signal(Signal::CONT)?;
    both_go_on(&stage, &frozen)
}

/// Waits until so many partitions have states that are not committed.
fn until_transactions_are_open(stage: &Stage, partitions: usize) -> Result<()> {
    let state = stage.topic("state");
    wait::until("open transactions", || {
        let place = |record: Record| (record.partition, record.offset);
        // In this order: what is committed meanwhile must not count as open.
        let all = stage.reader.read_uncommitted(&state)?.into_iter().map(place);
        let committed: BTreeSet<_> = stage.reader.read(&state)?.into_iter().map(place).collect();
        let open = all.filter(|place| !committed.contains(place)).map(|(partition, _)| partition);
        Ok((partitions <= open.collect::<BTreeSet<_>>().len()).then_some(()))
    })
}

/// The thawed owner is a member again and owns nothing that its heir has; what comes now, and a copy
/// of what the heir has settled, is settled once.
fn both_go_on(stage: &Stage, thawed: &Program) -> Result<()> {
    wait::until("the thawed owner to be a member again", || Ok(thawed.is_ready()?.then_some(())))?;
    stage.accept(&["two", "one"])?;
    stage.until_caught_up()?;
    let audit = stage.until_settled(&["one", "two"])?;
    ensure!(audit.is_clean() && audit.done == 2, "{audit}");
    Ok(())
}

fn a_restore_does_not_end_early_because_a_strangers_transaction_hides_states(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    let stranger = hide_states(&stage)?;
    let heir = stage.start_processor("")?;
    wait::until("the heir to restore", || {
        Ok((heir.metric("hookwell_processor_lanes", &["state=\"restoring\""])? == 1.0).then_some(()))
    })?;
    stage.accept(&["one", "two", "three"])?;
    ensure!(!heir.is_ready()?, "ready with states hidden");
    stranger.abort_transaction(Duration::from_secs(30))?;
    let _heir = heir.ready()?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 3, "states were missed: {:?}", stage.handler.calls());
    ensure!(stage.until_settled(&["one", "two", "three"])?.is_clean());
    Ok(())
}

/// The guard against it is lifted: what it prevents happens, and is found.
fn without_the_true_end_a_restore_misses_states_and_the_auditor_tells(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    let stranger = hide_states(&stage)?;
    let _heir = stage.start_processor("restore-to-the-true-end=return")?.ready()?;
    stage.accept(&["two", "three"])?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 5, "nothing was missed: {:?}", stage.handler.calls());
    stranger.abort_transaction(Duration::from_secs(30))?;
    let audit = stage.until_settled(&["one", "two", "three"])?;
    ensure!(audit.doubled == 2, "{audit}");
    Ok(())
}

/// One event is settled, then a stranger opens a transaction on the state topic, and the states of
/// two more are committed behind it. Nobody owns the partition thereafter.
fn hide_states(stage: &Stage) -> Result<BaseProducer> {
    let owner = stage.processor()?;
    stage.accept(&["one"])?;
    stage.until_settled(&["one"])?;
    let nothing = Record {
        partition: 0,
        offset: 0,
        key: b"a stranger's".to_vec(),
        value: b"never committed".to_vec(),
        headers: Vec::new(),
        at: 0,
    };
    let stranger = stage.reader.open_transaction(
        &format!("{}-stranger", stage.prefix),
        &stage.topic("state"),
        &nothing,
    )?;
    // These states are committed, and hidden behind the open transaction.
    stage.accept(&["two", "three"])?;
    stage.until_caught_up()?;
    ensure!(owner.stop()?.success());
    Ok(stranger)
}

fn members_come_and_go_under_load_and_nothing_is_lost_or_settled_twice(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 6)?;
    stage.handler.answer(|call| Reply {
        after: Duration::from_millis(5),
        ..Reply::from(if call.attempt() == "0" && call.event().ends_with('7') { 500 } else { 200 })
    });
    let _ingest = stage.ingest()?;
    let mut accepted = BTreeSet::new();
    let mut send = |from: usize| -> Result<()> {
        for n in from..from + 150 {
            let sender = Sender::ALL[n % 4];
            let id = format!("id-{n}");
            stage.send(sender, &id)?;
            if n % 10 == 0 {
                stage.send(sender, &id)?;
            }
            accepted.insert((sender.name().to_owned(), id));
        }
        Ok(())
    };
    let first = stage.processor()?;
    send(0)?;
    let second = stage.start_processor("")?;
    send(150)?;
    let second = second.ready()?;
    send(300)?;
    first.kill()?;
    send(450)?;
    let third = stage.processor()?;
    send(600)?;
    ensure!(second.stop()?.success(), "it did not end well");
    send(750)?;
    let audit = stage.until_all_settled(&accepted)?;
    ensure!(audit.is_clean() && audit.done == 900, "{audit}");
    stage.until_caught_up()?;
    ensure!(third.stop()?.success());
    Ok(())
}

fn a_processor_told_to_stop_finishes_what_is_open(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.handler.answer(|_| Reply { after: Duration::from_secs(1), ..Reply::from(200) });
    let processor = stage.processor()?;
    stage.accept(&["one", "two", "three"])?;
    stage.handler.until_called(3)?;
    ensure!(processor.stop()?.success());
    ensure!(processor.logged().contains("left=true"), "the group waits for it: {}", processor.logged());
    let audit = stage.audit(&Default::default())?;
    ensure!(audit.done == 3 && audit.is_clean(), "{audit}");
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 3);
    Ok(())
}

fn readiness_tells_the_truth(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let processor = stage.processor()?;
    let spare: Vec<_> = (0..3).map(|_| stage.processor()).collect::<Result<_>>()?;
    // Three partitions, four members: whoever has nothing to do is ready too.
    wait::until("partitions to be shared out", || {
        let all = spare.iter().chain([&processor]);
        let owned: Vec<f64> = all
            .map(|member| member.metric("hookwell_processor_assigned_partitions", &[]))
            .collect::<Result<_>>()?;
        Ok((owned.iter().sum::<f64>() == 3.0 && owned.iter().all(|count| *count <= 1.0)).then_some(()))
    })?;
    for member in spare.iter().chain([&processor]) {
        wait::until("a member to be ready", || Ok(member.is_ready()?.then_some(())))?;
    }
    ensure!(processor.metric("hookwell_build_info", &[])? == 1.0);
    Ok(())
}

fn a_lane_whose_call_of_librdkafka_never_returns_is_taken_over_within_its_process(
    common: &Common,
) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    // The first passage waits for ever, in an open transaction, as librdkafka does now and then when
    // a coordinator goes away.
    let processor = stage.start_processor("transaction-produced=1*pause")?.ready()?;
    stage.accept(&["one"])?;
    ensure!(stage.until_settled(&["one"])?.is_clean());
    stage.accept(&["one", "two"])?;
    ensure!(stage.until_settled(&["one", "two"])?.is_clean());
    stage.until_caught_up()?;
    let calls = stage.handler.calls_for("one");
    ensure!(calls.len() == 2 && calls[0].key() == calls[1].key(), "{calls:?}");
    ensure!(processor.logged().contains("a lane's thread is blocked and is given up"));
    ensure!(processor.stop()?.success());
    Ok(())
}

fn a_member_shows_nothing_of_a_lane_that_never_returned_once_another_has_its_partition(
    common: &Common,
) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.partitions = 2;
        settings.processor = "drain_timeout = \"1s\"".to_owned();
    })?;
    let ids = ["one", "two", "three", "four", "five", "six"];
    // The first passage of each partition waits for ever, whichever of them is taken away.
    let first = stage.start_processor("transaction-produced=2*pause")?.ready()?;
    stage.accept(&ids)?;
    until_transactions_are_open(&stage, 2)?;
    let second = stage.processor()?;
    let audit = stage.until_settled(&ids)?;
    ensure!(audit.is_clean() && audit.done == ids.len(), "{audit}");
    stage.until_caught_up()?;
    for member in [&first, &second] {
        wait::until("a member to show its own partition and no other", || {
            let lanes = |state: &str| member.metric("hookwell_processor_lanes", &[state]);
            let active = lanes("state=\"active\"")?;
            let others = lanes("state=\"restoring\"")? + lanes("state=\"draining\"")?;
            let open = member.metric("hookwell_processor_open_deliveries", &[])?;
            Ok((active == 1.0 && others + open == 0.0).then_some(()))
        })?;
    }
    ensure!(first.stop()?.success() && second.stop()?.success());
    Ok(())
}

fn a_member_that_gives_up_many_threads_at_once_goes_on_for_they_come_back(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.partitions = 12;
        settings.processor = "drain_timeout = \"1s\"".to_owned();
    })?;
    let ids: Vec<_> = (0..120).map(|n| format!("id-{n}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    // As in an outage: each lane's call comes back, far later than the group can wait for it.
    stage.accept(&ids)?;
    let first = stage.start_processor("transaction-produced=12*sleep(100000)")?.ready()?;
    until_transactions_are_open(&stage, 12)?;
    let second = stage.processor()?;
    let audit = stage.until_settled(&ids)?;
    ensure!(audit.is_clean() && audit.done == ids.len(), "{audit}");
    stage.until_caught_up()?;
    let given_up = first.logged().matches("a lane's thread is blocked and is given up").count();
    ensure!(5 < given_up, "{given_up} of 12: {}", first.logged());
    ensure!(first.stop()?.success() && second.stop()?.success());
    Ok(())
}

fn retries_that_librdkafka_stops_reading_are_read_on_by_a_consumer_that_is_new(
    common: &Common,
) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.partitions = 1;
        settings.retry = "tiers = [\"100ms\", \"200ms\"]\nmax_attempts = 3\njitter = 0.0".to_owned();
    })?;
    stage.handler.answer(|call| Reply::from(if call.attempt() == "2" { 200 } else { 500 }));
    let processor = stage.start_processor("retries-are-read=1*return")?.ready()?;
    stage.accept(&["one"])?;
    stage.handler.until_called(1)?;
    let audit = stage.until_settled(&["one"])?;
    ensure!(audit.is_clean() && audit.done == 1, "{audit}");
    ensure!(stage.handler.count() == 3, "{:?}", stage.handler.calls());
    ensure!(processor.logged().contains("read on with a new consumer"), "{}", processor.logged());
    stage.accept(&["two"])?;
    ensure!(stage.until_settled(&["one", "two"])?.is_clean());
    ensure!(processor.stop()?.success());
    Ok(())
}

fn a_processor_told_to_stop_while_a_call_of_librdkafka_never_returns_ends_and_its_heir_goes_on(
    common: &Common,
) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.partitions = 1;
        settings.processor = "drain_timeout = \"1s\"".to_owned();
    })?;
    let blocked = stage.start_processor("transaction-produced=1*pause")?.ready()?;
    stage.accept(&["one"])?;
    stage.handler.until_called(1)?;
    until_transactions_are_open(&stage, 1)?;
    ensure!(blocked.stop()?.success());
    ensure!(blocked.logged().contains("left=true"), "the group waits for it: {}", blocked.logged());
    let _heir = stage.processor()?;
    ensure!(stage.until_settled(&["one"])?.is_clean());
    stage.until_caught_up()?;
    let calls = stage.handler.calls_for("one");
    ensure!(calls.len() == 2 && calls[0].key() == calls[1].key(), "{calls:?}");
    Ok(())
}

fn a_processor_that_lost_a_partition_while_a_call_of_librdkafka_never_returns_ends_well_when_told_to_stop(
    common: &Common,
) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    let blocked = stage.start_processor("transaction-produced=1*pause")?.ready()?;
    stage.accept(&["one"])?;
    until_transactions_are_open(&stage, 1)?;
    blocked.signal(Signal::STOP)?;
    let _heir = stage.processor()?;
    ensure!(stage.until_settled(&["one"])?.is_clean());
    blocked.signal(Signal::CONT)?;
    wait::until("the group's word that the partition is lost", || {
        Ok(blocked.logged().contains("lost=true").then_some(()))
    })?;
    ensure!(blocked.stop()?.success(), "{}", blocked.logged());
    let is_told = |words: &str| blocked.logged().contains(words);
    // On a machine that is very slow it was given up before.
    ensure!(is_told("are left behind") || is_told("is given up"), "{}", blocked.logged());
    stage.until_caught_up()?;
    Ok(())
}
