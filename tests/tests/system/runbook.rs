//! `docs/runbook.md`: every command of it is typed here, word for word, in the situation that its
//! entry is about.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_tests::handler::Reply;
use hookwell_tests::reader::Record;
use hookwell_tests::sender::{Sender, post, post_until_accepted};
use hookwell_tests::stage::{Stage, destination};
use hookwell_tests::wait;
use rustix::process::Signal;

use super::operator::{Operator, entries, toml_blocks};
use super::quarantine::{RIGHT, set_secret, signed, until_kept, with_quarantine};
use super::spool::{event, with_spool};
use crate::{Common, tests};

tests![
    every_entry_of_the_runbook_is_rehearsed,
    lag_grows,
    dead_letters_rise_and_are_replayed_safely,
    a_bad_deploy_dead_lettered_many_events,
    a_handler_is_down_for_hours,
    a_partition_stands_still,
    kafka_is_away,
    events_wait_in_the_spool,
    a_secret_is_rotated,
    a_senders_secret_was_wrong,
    more_partitions_are_needed,
    the_state_topic_was_lost,
    hookwell_is_taken_down_and_up,
];

const LAG: &str = "Lag grows";
const DEAD_LETTERS: &str = "Dead letters rise";
const REPLAY: &str = "Replay safely";
const BAD_DEPLOY: &str = "A bad deploy dead-lettered ten thousand events";
const HANDLER_DOWN: &str = "A handler is down for hours";
const STANDS_STILL: &str = "A partition stands still";
const KAFKA_AWAY: &str = "Kafka is away";
const SPOOL: &str = "Events wait in the spool";
const SECRET: &str = "A secret is rotated";
const SECRET_WRONG: &str = "A sender's secret was wrong";
const PARTITIONS: &str = "More partitions are needed";
const STATE_LOST: &str = "The state topic was lost";
const DOWN_AND_UP: &str = "Take Hookwell down and up";

fn every_entry_of_the_runbook_is_rehearsed(_: &Common) -> Result<()> {
    let rehearsed = [
        LAG,
        DEAD_LETTERS,
        REPLAY,
        BAD_DEPLOY,
        HANDLER_DOWN,
        STANDS_STILL,
        KAFKA_AWAY,
        SPOOL,
        SECRET,
        SECRET_WRONG,
        PARTITIONS,
        STATE_LOST,
        DOWN_AND_UP,
    ];
    let (written, rehearsed): (BTreeSet<_>, BTreeSet<_>) =
        (entries()?.into_iter().collect(), rehearsed.map(str::to_owned).into());
    ensure!(written == rehearsed, "{:?}", written.symmetric_difference(&rehearsed).collect::<Vec<_>>());
    // What runs no command here would be no check of one.
    let source = fs::read_to_string(hookwell_tests::kafka::project().join("tests/tests/system/runbook.rs"))?;
    for name in
        source.split("const ").skip(1).filter_map(|rest| rest.split_once(": &str = \"").map(|(name, _)| name))
    {
        ensure!(source.contains(&format!("turn_to({name})")), "{name} is rehearsed by no test");
    }
    Ok(())
}

/// How often the event was answered 200.
fn deliveries(stage: &Stage, event: &str) -> usize {
    stage.handler.calls_for(event).iter().filter(|call| call.status == 200).count()
}

fn lag_grows(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.partitions = 2;
        settings.destinations = destination("orders", "concurrency = 1");
    })?;
    stage.handler.answer(|_| Reply { after: Duration::from_secs(2), ..Reply::from(200) });
    let mut operator = Operator::hired(&stage)?;
    let processor = operator.processor()?;
    let ids: Vec<_> = (0..12).map(|number| format!("evt-{number}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    stage.accept(&ids)?;

    operator.turn_to(LAG)?;
    let events =
        format!("hookwell_processor_lag_records{{partition=\"0\",topic=\"{}\"}}", stage.topic("events"));
    let told = operator.types_until("open_deliveries", |told| {
        let open = told.lines().find_map(|line| line.strip_prefix("hookwell_processor_open_deliveries "));
        told.contains(&events) && open.is_some_and(|open| 1 < open.parse().unwrap_or(0))
    })?;
    ensure!(told.contains("hookwell_processor_attempts_total"), "{told}");
    let told = operator.types("kafka-consumer-groups.sh")?;
    ensure!(told.contains("LAG") && told.contains(&stage.topic("events")), "{told}");
    stage.rewrite(|settings| settings.destinations = destination("orders", "concurrency = 16"))?;
    operator.types("kill -HUP")?;
    operator.types("processor &")?;
    wait::until("the work to be shared", || {
        let own = processor.metric("hookwell_processor_assigned_partitions", &[])?;
        Ok((own == 1.0).then_some(()))
    })?;
    stage.until_caught_up()?;
    ensure!(processor.logged().contains("reloaded"), "{}", processor.logged());
    operator.closes()?;
    ensure!(processor.stop()?.success());
    Ok(())
}

fn dead_letters_rise_and_are_replayed_safely(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.handler.answer(|_| 400.into());
    let mut operator = Operator::hired(&stage)?;
    let _processor = operator.processor()?;
    let ids = ["one", "two", "three"];
    stage.accept(&ids)?;
    stage.until_settled(&ids)?;

    operator.turn_to(DEAD_LETTERS)?;
    let told = operator.types("--list-dlq")?;
    ensure!(told.contains("permanent") && told.matches("answered 400").count() == 3, "{told}");
    operator.closes()?;

    stage.handler.answer(|_| 200.into());
    operator.turn_to(REPLAY)?;
    let told = operator.types("--limit 1")?;
    ensure!(told.contains("left 3 (a dry run") && told.contains("selected 1, replayed 1"), "{told}");
    operator.types_until("--records", |told| told.matches("answered 400").count() == 2)?;
    let told = operator.types("--rate 50/s")?;
    ensure!(told.contains("selected 2, replayed 2"), "{told}");
    operator.closes()?;
    wait::until("each to be delivered", || Ok(ids.iter().all(|id| deliveries(&stage, id) == 1).then_some(())))
}

fn a_bad_deploy_dead_lettered_many_events(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.handler.answer(|_| 422.into());
    let mut operator = Operator::hired(&stage)?;
    let _processor = operator.processor()?;
    let ids: Vec<_> = (0..60).map(|number| format!("evt-{number}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    stage.accept(&ids)?;
    stage.until_settled(&ids)?;
    stage.handler.answer(|_| 200.into());

    operator.turn_to(BAD_DEPLOY)?;
    let told = operator.types("--dry-run")?;
    ensure!(told.contains("selected 60, replayed 0"), "{told}");
    let told = operator.types("--limit 10")?;
    ensure!(told.contains("selected 10, replayed 10"), "{told}");
    operator.types_until("--since 2m", |told| told.contains(" permanent  50 "))?;
    let told = operator.types("--rate 50/s")?;
    ensure!(told.contains("selected 50, replayed 50"), "{told}");
    operator.closes()?;
    wait::until("each to be delivered once", || {
        Ok(ids.iter().all(|id| deliveries(&stage, id) == 1).then_some(()))
    })
}

fn a_handler_is_down_for_hours(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.handler.answer(|_| 503.into());
    let mut operator = Operator::hired(&stage)?;
    let processor = operator.processor()?;
    stage.accept(&["early"])?;
    stage.until_settled(&["early"])?;

    operator.turn_to(HANDLER_DOWN)?;
    let told = operator.types("waiting_retries")?;
    ensure!(told.contains("reason=\"exhausted\"") && told.contains("tier=\"2\""), "{told}");
    // The table of the page, of which only the address is somebody else's.
    let longer =
        toml_blocks(HANDLER_DOWN)?.concat().replace("http://orders.internal/hooks", "HANDLER/orders");
    stage.rewrite(|settings| settings.destinations = longer)?;
    operator.types("kill -HUP")?;
    wait::until("the reload", || Ok(processor.logged().contains("reloaded").then_some(())))?;
    stage.accept(&["late"])?;
    wait::until("more attempts than there were before", || {
        Ok((3 < stage.handler.calls_for("late").len()).then_some(()))
    })?;
    stage.handler.answer(|_| 200.into());
    wait::until("the waiting one", || Ok((deliveries(&stage, "late") == 1).then_some(())))?;
    let told = operator.types("--reason exhausted")?;
    ensure!(told.contains("selected 1, replayed 1"), "{told}");
    operator.closes()?;
    wait::until("the dead one", || Ok((deliveries(&stage, "early") == 1).then_some(())))
}

fn a_partition_stands_still(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    let mut operator = Operator::hired(&stage)?;
    let owner = operator.processor()?;
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
    let id = format!("{}-stranger", stage.prefix);
    let _stranger = stage.reader.open_transaction(&id, &stage.topic("state"), &nothing)?;
    ensure!(owner.stop()?.success());
    let heir = operator.starting_processor()?;
    stage.accept(&["two"])?;

    operator.turn_to(STANDS_STILL)?;
    operator.types_until("oldest_unsettled", |told| {
        told.contains("hookwell_processor_lanes{state=\"restoring\"} 1") && told.contains("restor")
    })?;
    let told = operator.types("find-hanging")?;
    ensure!(told.contains("CurrentTransactionStartOffset"), "{told}");
    ensure!(!heir.is_ready()?, "it went on with states hidden");
    operator.types("abort")?;
    operator.types_until("readyz", |told| told.trim() == "ok")?;
    operator.closes()?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 2, "{:?}", stage.handler.calls());
    Ok(())
}

fn kafka_is_away(common: &Common) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(|_| ())?;
    let mut operator = Operator::hired(&stage)?;
    let (_ingest, _processor) = (operator.ingest()?, operator.processor()?);
    own.kafka.kill()?;

    operator.turn_to(KAFKA_AWAY)?;
    operator.types_until("readyz", |told| told.contains("503"))?;
    let sent = Sender::GitHub.event("meanwhile");
    ensure!(post(stage.port, &sent)?.0 == 503);
    own.kafka.revive()?;
    post_until_accepted(stage.port, &sent)?;
    let told = operator.types("--create-topics")?;
    ensure!(told.contains("exists") && !told.contains("created"), "{told}");
    ensure!(!told.contains("Partition:"), "partitions without a leader: {told}");
    operator.closes()?;
    wait::until("the event", || Ok((deliveries(&stage, "meanwhile") == 1).then_some(())))
}

fn events_wait_in_the_spool(common: &Common) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(with_spool)?;
    let mut operator = Operator::hired(&stage)?;
    let (ingest, _processor) = (operator.ingest()?, operator.processor()?);
    own.kafka.kill()?;
    ensure!(post(stage.port, &event("meanwhile"))?.0 == 200);

    operator.turn_to(SPOOL)?;
    operator.types_until("hookwell_ingest_spool_faults_total", |told| {
        told.contains("hookwell_ingest_spool_events 1")
            && told.contains("hookwell_ingest_spool_faults_total{reason=\"full\"} 0")
            && told.contains("hookwell_ingest_kafka_brokers_up 0")
    })?;
    operator.types("kill -TERM")?;
    ensure!(ingest.end()?.success(), "{}", ingest.logged());
    own.kafka.revive()?;
    operator.types("ingest &")?;
    operator.types_until("spool_events 0", |told| told.contains("spool_events 0"))?;
    operator.closes()?;
    wait::until("the event", || Ok((!stage.handler.calls_for("meanwhile").is_empty()).then_some(())))?;
    ensure!(deliveries(&stage, "meanwhile") == 1, "{:?}", stage.handler.calls());
    Ok(())
}

fn a_secret_is_rotated(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.sources =
            "[[sources]]\nname = \"acme\"\npreset = \"github\"\nsecrets = [{ file = \"FOLDER/github\" }]\n"
                .to_owned();
    })?;
    let folder = stage.folder().to_string_lossy().into_owned();
    fs::write(stage.folder().join("acme-old"), "the old one")?;
    fs::write(stage.folder().join("acme-new"), "the new one")?;
    let table = toml_blocks(SECRET)?.concat().replace("/run/secrets", &folder);
    let only_old = table.replace(&format!("{{ file = \"{folder}/acme-new\", id = \"new\" }}, "), "");
    ensure!(only_old != table, "{table}");
    stage.rewrite(|settings| settings.sources = only_old)?;
    let mut operator = Operator::hired(&stage)?;
    let ingest = operator.ingest()?;
    let signed = |secret: &str, id: &str| Sender::GitHub.sign_as(secret, 0, id, "{}").to("acme");
    ensure!(post(stage.port, &signed("the old one", "1"))?.0 == 200);
    ensure!(post(stage.port, &signed("the new one", "2"))?.0 == 403);

    operator.turn_to(SECRET)?;
    stage.rewrite(|settings| settings.sources = table.clone())?;
    operator.types("kill -HUP")?;
    operator.types_until("--send-test acme", |told| told.contains(" 200 "))?;
    ensure!(post(stage.port, &signed("the old one", "3"))?.0 == 200);
    let told = operator.types("secret_matches_total")?;
    ensure!(told.contains("secret=\"new\",source=\"acme\"} 1"), "{told}");
    ensure!(told.contains("secret=\"old\",source=\"acme\"}"), "{told}");

    fs::write(stage.folder().join("acme-old"), "the new one")?;
    fs::write(stage.folder().join("acme-new"), "the newest one")?;
    wait::until("the newest one to be known", || {
        Ok((post(stage.port, &signed("the newest one", "6"))?.0 == 200).then_some(()))
    })?;
    ensure!(post(stage.port, &signed("the new one", "7"))?.0 == 200);
    let told = operator.types("hookwell_ingest_config_reloads_total")?;
    ensure!(told.contains("hookwell_ingest_config_last_reload_successful 1"), "{told}");
    operator.closes()?;

    let only_new = table.replace(&format!(", {{ file = \"{folder}/acme-old\", id = \"old\" }}"), "");
    stage.rewrite(|settings| settings.sources = only_new)?;
    ingest.signal(Signal::HUP)?;
    wait::until("the old one to be refused", || {
        Ok((post(stage.port, &signed("the new one", "4"))?.0 == 403).then_some(()))
    })?;
    ensure!(post(stage.port, &signed("the newest one", "5"))?.0 == 200);
    Ok(())
}

fn a_senders_secret_was_wrong(common: &Common) -> Result<()> {
    let stage = common.stage_with(with_quarantine)?;
    set_secret(&stage, "a wrong secret")?;
    let mut operator = Operator::hired(&stage)?;
    let (ingest, _processor) = (operator.ingest()?, operator.processor()?);
    for id in ["one", "two"] {
        ensure!(post(stage.port, &signed(RIGHT, id))?.0 == 403);
    }
    ensure!(post(stage.port, &signed("a forger's own", "forged"))?.0 == 403);
    until_kept(&ingest, 3.0)?;

    operator.turn_to(SECRET_WRONG)?;
    let told = operator.types("--list-quarantine")?;
    ensure!(told.contains("acme") && told.contains("signature_mismatch  3"), "{told}");
    set_secret(&stage, RIGHT)?;
    operator.types("kill -HUP")?;
    let told = operator.types("--dry-run")?;
    ensure!(told.contains("selected 3, released 0, skipped 1, left 2 (a dry run"), "{told}");
    let told = operator.types("--rate 50/s")?;
    ensure!(told.contains("selected 3, released 2, skipped 1, left 0"), "{told}");
    let told = operator.types("--list-quarantine")?;
    ensure!(told.contains("signature_mismatch  1"), "{told}");
    operator.closes()?;
    wait::until("both to be delivered", || {
        Ok(["one", "two"].iter().all(|id| deliveries(&stage, id) == 1).then_some(()))
    })?;
    ensure!(stage.handler.calls_for("forged").is_empty(), "a forged one was passed on");
    Ok(())
}

fn more_partitions_are_needed(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 2)?;
    stage.handler.answer(|call| if call.event() == "dead" { 400.into() } else { 200.into() });
    let mut operator = Operator::hired(&stage)?;
    let (ingest, old) = (operator.ingest()?, operator.processor()?);
    stage.send(Sender::GitHub, "one")?;
    stage.send(Sender::GitHub, "dead")?;
    stage.until_settled(&["one", "dead"])?;

    operator.turn_to(PARTITIONS)?;
    let told = operator.types("--create-topics")?;
    ensure!(told.contains("partitions = 24") && told.contains("created"), "{told}");
    operator.types("processor --config")?;
    operator.types_until("readyz", |told| told.trim() == "ok")?;
    operator.types("kill -TERM")?;
    ensure!(ingest.end()?.success());
    operator.types("ingest --config")?;
    wait::until("the new ingest", || Ok(Some(stage.send(Sender::GitHub, "fresh")?)))?;
    // A copy whose first was accepted before: the new topics do not know it, the receiver does.
    stage.send(Sender::GitHub, "one")?;
    let on_new = stage.reader.until_holds(&format!("{}-24.events", stage.prefix), 2)?;
    ensure!(on_new.len() == 2, "{on_new:?}");
    wait::until("both", || {
        Ok((deliveries(&stage, "fresh") == 1 && deliveries(&stage, "one") == 2).then_some(()))
    })?;
    let calls = stage.handler.calls_for("one");
    ensure!(calls[0].key() == calls[1].key(), "a receiver cannot tell that they are one: {calls:?}");

    // What died before is still the old ones' affair.
    stage.handler.answer(|_| 200.into());
    let replayed = stage.processor_answers(&["--replay-dlq"])?;
    ensure!(replayed.status == Some(0), "{replayed:?}");
    wait::until("the dead one", || Ok((deliveries(&stage, "dead") == 1).then_some(())))?;
    operator.types_until("lag_records", |told| told.trim() == "0")?;
    operator.types_until("wc -l", |told| told.lines().next().is_some_and(|line| line.trim() == "0"))?;
    operator.types("kill -TERM")?;
    ensure!(old.end()?.success());
    operator.closes()?;
    ensure!(stage.reader.read(&stage.topic("events"))?.len() == 3, "ingest went on with the old topics");
    stage.send(Sender::GitHub, "last")?;
    wait::until("the new ones to go on alone", || Ok((deliveries(&stage, "last") == 1).then_some(())))
}

fn the_state_topic_was_lost(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let mut operator = Operator::hired(&stage)?;
    let processor = operator.processor()?;
    stage.accept(&["one"])?;
    stage.until_settled(&["one"])?;
    stage.until_caught_up()?;
    ensure!(processor.stop()?.success());
    stage.reader.delete_topic(&stage.topic("state"))?;
    ensure!(stage.processor_answers(&["--create-topics"])?.status == Some(0));
    let refusing = stage.start_processor("")?;
    ensure!(refusing.end()?.code() == Some(3), "{}", refusing.logged());
    ensure!(refusing.logged().contains("the state topic was deleted"), "{}", refusing.logged());

    operator.turn_to(STATE_LOST)?;
    operator.types("--create-topics")?;
    operator.types("processor &")?;
    operator.closes()?;
    wait::until("the event to be handled again", || Ok((deliveries(&stage, "one") == 2).then_some(())))?;
    let calls = stage.handler.calls_for("one");
    ensure!(calls[0].key() == calls[1].key(), "{calls:?}");
    Ok(())
}

fn hookwell_is_taken_down_and_up(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let mut operator = Operator::hired(&stage)?;
    let (ingest, processor) = (operator.ingest()?, operator.processor()?);
    stage.send(Sender::GitHub, "before")?;

    operator.turn_to(DOWN_AND_UP)?;
    operator.types("pidof ingest")?;
    ensure!(ingest.end()?.success());
    operator.types("pidof processor")?;
    ensure!(processor.end()?.success());
    operator.types("--check-config")?;
    operator.types("ingest &")?;
    operator.types_until("readyz", |told| told.split_whitespace().eq(["ok", "ok"]))?;
    operator.closes()?;
    stage.send(Sender::GitHub, "after")?;
    let audit = stage.until_settled(&["before", "after"])?;
    ensure!(audit.is_clean() && audit.done == 2, "{audit}");
    Ok(())
}
