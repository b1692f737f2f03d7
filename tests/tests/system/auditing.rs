//! A run of both programs with every fate, judged by the auditor as a program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use hookwell_auditor::evidence::Answer;
use hookwell_tests::handler::{Call, Reply};
use hookwell_tests::kafka::Kafka;
use hookwell_tests::ledger;
use hookwell_tests::program::{Program, answer};
use hookwell_tests::reader::Record;
use hookwell_tests::sender::{Sender, Signed, now_in_seconds, post};
use hookwell_tests::stage::{Settings, Stage, destination};
use hookwell_tests::wait;
use serde_json::json;

use crate::{Common, tests};

tests![
    a_run_is_judged_clean_and_refused_when_a_state_record_is_missing,
    who_watches_outlives_kafka_and_is_there_before_the_topics,
];

fn a_run_is_judged_clean_and_refused_when_a_state_record_is_missing(common: &Common) -> Result<()> {
    let other = common.stage()?;
    // The events topic of another stage serves as a topic that exists.
    let mirror = other.topic("events");
    let stage = common.stage_with(|settings| {
        settings.destinations = destination("orders", "")
            + &format!("[[destinations]]\nname = \"mirror\"\nkind = \"kafka\"\ntopic = \"{mirror}\"\n")
            + "[[destinations]]\nname = \"diary\"\nkind = \"log\"\n";
        settings.routes = "[[routes]]\nsource = \"*\"\nto = [\"orders\"]\n
            [[routes]]\nsource = \"github\"\nto = [\"mirror\", \"diary\"]"
            .to_owned();
    })?;
    let evidence = stage.folder().join("evidence");
    fs::create_dir_all(&evidence)?;
    describe(&stage, &mirror, &evidence)?;
    let log = stage.folder().join("watch.log");
    let watch = Program::start(&auditor(), &["watch", &evidence.to_string_lossy()], &[], &log, "")?;

    let answers = make_a_run(&stage)?;
    ledger::write(&evidence.join("answers.jsonl"), answers)?;
    ledger::write(&evidence.join("calls.jsonl"), stage.handler.calls().iter().map(ledger::call))?;
    until_all_is_seen(&stage, &mirror, &evidence)?;
    ensure!(watch.stop()?.success(), "{}", watch.logged());

    let collected = answer(&auditor(), &["collect", &evidence.to_string_lossy()], &[])?;
    ensure!(collected.status == Some(0), "{collected:?}");
    let judged = answer(&auditor(), &["judge", &evidence.to_string_lossy()], &[])?;
    ensure!(judged.status == Some(0), "{}\n{}", judged.out, judged.err);
    ensure!(!judged.out.contains("looked at nothing"), "{}", judged.out);

    let states = evidence.join("topics").join(format!("{}.jsonl", stage.topic("state")));
    let text = fs::read_to_string(&states)?;
    // The only state of its delivery: of a replay the one before would be left.
    let key = |line: &str| -> Option<String> {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["key"].as_str().filter(|key| key.len() == 32).map(str::to_owned)
    };
    let keys: Vec<_> = text.lines().map(key).collect();
    let is_only = |one: &Option<String>| one.is_some() && keys.iter().filter(|key| *key == one).count() == 1;
    let gone = keys.iter().rposition(is_only).context("no delivery has one state")?;
    let left = text.lines().enumerate().filter(|(at, _)| *at != gone);
    let kept = left.fold(String::new(), |kept, (_, line)| kept + line + "\n");
    fs::write(&states, kept)?;
    let judged = answer(&auditor(), &["judge", &evidence.to_string_lossy(), "--output", "json"], &[])?;
    let verdict: serde_json::Value = serde_json::from_str(&judged.out).context(judged.err)?;
    ensure!(judged.status == Some(1) && verdict["kept"] == false, "{verdict}");
    ensure!(verdict["checks"][0]["breaches"]["no-end"] == 1, "{verdict}");
    ensure!(verdict["checks"][6]["breaches"]["gone"] == 1, "{verdict}");
    Ok(())
}

fn who_watches_outlives_kafka_and_is_there_before_the_topics(common: &Common) -> Result<()> {
    let home = tempfile::Builder::new().prefix("hookwell-kafka-").tempdir()?;
    let kafka = Arc::new(Kafka::start(home.path())?);
    let stage = Stage::bare(&kafka, &common.binaries, Settings::default())?;
    let evidence = stage.folder().join("evidence");
    fs::create_dir_all(&evidence)?;
    describe(&stage, "none", &evidence)?;
    let log = stage.folder().join("watch.log");
    let watch = || Program::start(&auditor(), &["watch", &evidence.to_string_lossy()], &[], &log, "");

    let first = watch()?;
    wait::until("it to look", || Ok(evidence.join("seen.jsonl").exists().then_some(())))?;
    let created = stage.processor_answers(&["--create-topics"])?;
    ensure!(created.status == Some(0), "{created:?}");
    stage.accept(&["one", "two"])?;
    until_seen(&evidence, 2)?;
    kafka.kill()?;
    kafka.revive()?;
    stage.accept(&["three"])?;
    until_seen(&evidence, 3)?;
    ensure!(first.stop()?.success(), "{}", first.logged());

    // Another one goes on where the first has ended, also in the middle of a line.
    let seen = evidence.join("seen.jsonl");
    let text = fs::read_to_string(&seen)?;
    fs::write(&seen, &text[..text.len() - 9])?;
    let second = watch()?;
    stage.accept(&["four"])?;
    until_seen(&evidence, 4)?;
    ensure!(second.stop()?.success(), "{}", second.logged());
    let again = fs::read_to_string(&seen)?;
    let places: BTreeSet<_> = again.lines().collect();
    ensure!(places.len() == 4 && text.lines().all(|line| places.contains(line)), "{again}");
    Ok(())
}

fn until_seen(evidence: &Path, count: usize) -> Result<()> {
    wait::until("the reader to have seen all", || {
        let seen = fs::read_to_string(evidence.join("seen.jsonl"))?;
        Ok((seen.lines().count() == count && seen.ends_with('\n')).then_some(()))
    })
}

fn auditor() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_auditor-under-test"))
}

fn describe(stage: &Stage, mirror: &str, evidence: &Path) -> Result<()> {
    let run = json!({
        "bootstrap_servers": stage.kafka.bootstrap_servers(),
        "prefix": stage.prefix,
        "group": stage.prefix,
        "tiers": [300, 1000],
        "destinations": [
            { "name": "orders", "kind": "http", "max_attempts": 3 },
            { "name": "mirror", "kind": "kafka", "topic": mirror, "max_attempts": 3 },
            { "name": "diary", "kind": "log", "max_attempts": 3 },
        ],
        "routes": [
            { "source": "*", "to": ["orders"] },
            { "source": "github", "to": ["mirror", "diary"] },
        ],
    });
    Ok(fs::write(evidence.join("run.json"), run.to_string())?)
}

/// Events that are delivered at once, at the second attempt, and never; copies, one of them with
/// another body; a record that nobody can read; and a replay of what died.
fn make_a_run(stage: &Stage) -> Result<Vec<Answer>> {
    stage.handler.answer(|call| match call.event().split('-').next() {
        Some("flaky") if call.attempt() == "0" => Reply::from(503),
        Some("broken") => Reply::from(400),
        Some("weak") => Reply::from(500),
        _ => Reply::from(200),
    });
    let mut answers = Vec::new();
    let mut send = |signed: &Signed| -> Result<()> {
        let sent = now_in_seconds() * 1000;
        let status = post(stage.port, signed)?.0;
        answers.push(ledger::answer(signed, sent, Some(now_in_seconds() * 1000), status));
        Ok(())
    };
    let ingest = stage.ingest()?;
    let processor = stage.processor()?;
    for number in 0..5 {
        for fate in ["fine", "flaky", "broken", "weak"] {
            let sender = [Sender::GitHub, Sender::Shopify][number % 2];
            send(&sender.event(&format!("{fate}-{number}")))?;
        }
    }
    send(&Sender::GitHub.sign("fine-0", "another body"))?;
    send(&Sender::Shopify.event("flaky-1"))?;
    stage.reader.write(
        &stage.topic("events"),
        &Record { partition: 1, offset: 0, key: vec![], value: b"?".to_vec(), headers: vec![], at: 0 },
    )?;
    ensure!(ingest.stop()?.success());
    until_ended(stage, 11)?;
    stage.handler.answer(|_: &Call| Reply::from(200));
    let replayed =
        stage.processor_answers(&["--replay-dlq", "--source", "github", "--reason", "permanent"])?;
    ensure!(replayed.status == Some(0), "{replayed:?}");
    wait::until("the replays", || {
        Ok((stage.handler.calls().iter().filter(|call| call.header("hookwell-generation") == "1").count()
            == 3)
            .then_some(()))
    })?;
    ensure!(processor.stop()?.success());
    let restarted = stage.processor()?;
    stage.until_caught_up()?;
    let ids = restarted.metric("hookwell_processor_state_ids", &[])?;
    let rest = json!({ "state_ids": ids as u64 });
    fs::write(stage.folder().join("evidence/rest.json"), rest.to_string())?;
    ensure!(restarted.stop()?.success());
    Ok(answers)
}

/// Waits until so many lie among the dead, and the group has read all.
fn until_ended(stage: &Stage, dead: usize) -> Result<()> {
    wait::until("all to end", || Ok((stage.dead_letters()?.len() == dead).then_some(())))?;
    stage.until_caught_up()
}

/// Waits until the reader has noted every record.
fn until_all_is_seen(stage: &Stage, mirror: &str, evidence: &Path) -> Result<()> {
    let own = ["events", "retry.1", "retry.2", "dlq", "state"].map(|name| stage.topic(name));
    let topics = own.iter().map(String::as_str).chain([mirror]);
    let there = topics.map(|topic| Ok(stage.reader.read(topic)?.len())).sum::<Result<usize>>()?;
    until_seen(evidence, there)
}
