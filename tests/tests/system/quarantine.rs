//! Requests that failed verification: kept, listed, released once their secret is mended, each once
//! and none that is forged.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hookwell_common::lifecycle::Clock as Stopwatch;
use hookwell_tests::clock::Clock;
use hookwell_tests::program::{Answer, Program};
use hookwell_tests::reader::Record;
use hookwell_tests::sender::{Sender, Signed, now_in_seconds, post, post_until_accepted};
use hookwell_tests::stage::{Settings, Stage};
use hookwell_tests::wait;
use rdkafka::producer::{BaseProducer, Producer as _};
use rustix::process::Signal;
use serde_json::Value;

use crate::{Common, tests};

tests![
    what_a_wrong_secret_refused_is_released_and_delivered_once,
    an_operator_whom_another_overtakes_gives_way_and_each_event_is_released_once,
    two_operators_at_once_release_each_event_once,
    what_kafka_refuses_of_a_release_takes_all_of_it_back_and_it_can_be_run_again,
    an_event_that_its_sender_sent_again_is_released_once,
    what_was_forged_stays_whatever_the_source_has_become,
    a_signed_time_is_judged_when_the_request_was_received,
    a_flood_of_forged_requests_is_bounded_and_genuine_events_go_on,
    without_kafka_senders_hear_the_same_and_what_waited_is_kept_afterwards,
    a_dry_run_a_limit_and_filters_choose,
    a_record_that_cannot_be_read_is_told_and_passed_over,
    a_topic_that_is_missing_is_told_and_a_reload_cannot_begin_to_keep,
    an_open_transaction_that_hides_what_was_released_ends_the_command,
    a_release_does_not_begin_while_something_is_undecided_on_the_events,
];

pub(crate) const RIGHT: &str = "the right secret";
const HOUR: i64 = 3600;

/// How long what failed verification waits for Kafka.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Two sources that keep what fails verification.
pub(crate) fn with_quarantine(settings: &mut Settings) {
    let source = |name: &str, preset: &str| {
        format!(
            "[[sources]]\nname = {name:?}\npreset = {preset:?}\nquarantine = true\nquarantine_rate_limit = 1000\nsecrets = [{{ file = \"FOLDER/{name}\" }}]\n"
        )
    };
    settings.sources = source("acme", "github") + &source("billing", "stripe");
}

/// The secret of both sources from here on.
pub(crate) fn set_secret(stage: &Stage, secret: &str) -> Result<()> {
    for name in ["acme", "billing"] {
        fs::write(stage.folder().join(name), secret)?;
    }
    Ok(())
}

pub(crate) fn signed(secret: &str, id: &str) -> Signed {
    let body = format!(r#"{{"id":"{id}","note":"a body nobody shows"}}"#);
    Sender::GitHub.sign_as(secret, 0, id, body).to("acme")
}

fn kept(ingest: &Program) -> Result<f64> {
    ingest.metric("hookwell_ingest_quarantined_total", &[])
}

pub(crate) fn until_kept(ingest: &Program, count: f64) -> Result<()> {
    wait::until("requests to be kept", || Ok((kept(ingest)? == count).then_some(())))
}

/// Genuine events with these ids were refused, for the secret was wrong; now it is right.
pub(crate) fn wrongly_refused(stage: &Stage, ids: &[&str]) -> Result<()> {
    set_secret(stage, "a wrong secret")?;
    let ingest = stage.ingest()?;
    for id in ids {
        ensure!(post(stage.port, &signed(RIGHT, id))?.0 == 403);
    }
    until_kept(&ingest, ids.len() as f64)?;
    ensure!(ingest.stop()?.success(), "{}", ingest.logged());
    set_secret(stage, RIGHT)
}

fn lines(answer: &Answer) -> Result<Vec<Value>> {
    ensure!(answer.status == Some(0), "{answer:?}");
    answer.out.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
}

pub(crate) fn list(stage: &Stage, arguments: &[&str]) -> Result<Vec<Value>> {
    lines(&stage.ingest_answers(&[&["--list-quarantine", "--output", "json"], arguments].concat())?)
}

pub(crate) fn release(stage: &Stage, arguments: &[&str]) -> Result<Answer> {
    stage.ingest_answers(&[&["--release-quarantine", "--output", "json"], arguments].concat())
}

/// Selected, released, skipped, left.
pub(crate) fn sums(answer: &Answer) -> Result<[u64; 4]> {
    ensure!(answer.status == Some(0), "{answer:?}");
    let last = answer.out.lines().last().with_context(|| format!("{answer:?}"))?;
    let summary: Value = serde_json::from_str(last)?;
    Ok(["selected", "released", "skipped", "left"].map(|key| summary[key].as_u64().unwrap_or(u64::MAX)))
}

/// The events on Kafka, each of which is there once.
fn events(stage: &Stage) -> Result<BTreeSet<String>> {
    let records = stage.reader.read(&stage.topic("events"))?;
    let ids: BTreeSet<_> = records.iter().map(|record| record.event().1).collect();
    ensure!(ids.len() == records.len(), "an event is there twice: {records:?}");
    Ok(ids)
}

fn what_a_wrong_secret_refused_is_released_and_delivered_once(common: &Common) -> Result<()> {
    let stage = common.stage_with(with_quarantine)?;
    set_secret(&stage, "a wrong secret")?;
    let ingest = stage.ingest()?;
    let genuine = signed(RIGHT, "one").with("cookie", "session=1").with("x-extra", "kept whole");
    let (status, text) = post(stage.port, &genuine)?;
    ensure!(status == 403 && text.contains("signature_mismatch"), "{status} {text}");
    let bare = Signed { headers: Vec::new(), ..genuine.clone() };
    let (status, text) = post(stage.port, &bare)?;
    ensure!(status == 401 && text.contains("signature_missing"), "{status} {text}");
    until_kept(&ingest, 2.0)?;

    let groups = list(&stage, &[])?;
    let group = |line: &Value| (line["source"].clone(), line["reason"].clone(), line["count"].clone());
    let expected =
        ["signature_mismatch", "signature_missing"].map(|reason| ("acme".into(), reason.into(), 1.into()));
    ensure!(groups.iter().map(group).collect::<Vec<_>>() == expected, "{groups:?}");
    for shown in [&["--list-quarantine"][..], &["--list-quarantine", "--records"]] {
        let shown = stage.ingest_answers(shown)?;
        ensure!(shown.out.contains("REASON") && shown.out.contains("signature_mismatch"), "{shown:?}");
        let told = [shown.out, shown.err, ingest.logged()].concat();
        ensure!(!told.contains("sha256=") && !told.contains("nobody shows"), "{told}");
    }
    ensure!(sums(&release(&stage, &[])?)? == [2, 0, 2, 0], "the secret is still wrong");
    ensure!(events(&stage)?.is_empty());

    set_secret(&stage, RIGHT)?;
    let released = release(&stage, &[])?;
    ensure!(
        sums(&released)? == [2, 1, 1, 0] && released.out.contains("\"because\":\"signature_missing\""),
        "{released:?}"
    );
    let _processor = stage.processor()?;
    stage.handler.until_called(1)?;
    let call = &stage.handler.calls()[0];
    ensure!(call.event() == "one" && call.body == genuine.body, "{call:?}");
    ensure!(list(&stage, &[])?.len() == 1 && list(&stage, &["--records", "--all"])?.len() == 2);
    ensure!(sums(&release(&stage, &[])?)? == [1, 0, 1, 0]);
    ensure!(events(&stage)? == ["one".to_owned()].into());
    wait::until("no lag behind the end of a transaction", || {
        let lag = _processor.metric("hookwell_processor_lag_records", &[])?;
        Ok((lag == 0.0).then_some(()))
    })
}

fn an_operator_whom_another_overtakes_gives_way_and_each_event_is_released_once(
    common: &Common,
) -> Result<()> {
    let stage = common.stage_with(with_quarantine)?;
    let ids: Vec<_> = (0..40).map(|number| format!("evt-{number}")).collect();
    wrongly_refused(&stage, &ids.iter().map(String::as_str).collect::<Vec<_>>())?;
    let overtaken =
        stage.start_armed_ingest_command("release-committing=1*sleep(10000)", &["--release-quarantine"])?;
    let topic = stage.topic("events");
    wait::until("the first to be about to commit", || {
        Ok((!stage.reader.read_uncommitted(&topic)?.is_empty()).then_some(()))
    })?;
    overtaken.signal(Signal::STOP)?;
    ensure!(events(&stage)?.is_empty());
    ensure!(sums(&release(&stage, &[])?)? == [40, 40, 0, 0]);
    overtaken.signal(Signal::CONT)?;
    let end = overtaken.end()?;
    let log = overtaken.logged();
    ensure!(end.code() == Some(1) && log.contains("another --release-quarantine"), "{end:?}: {log}");
    ensure!(events(&stage)?.len() == 40);
    ensure!(sums(&release(&stage, &[])?)? == [0; 4]);
    Ok(())
}

fn two_operators_at_once_release_each_event_once(common: &Common) -> Result<()> {
    let stage = common.stage_with(with_quarantine)?;
    let ids: Vec<_> = (0..40).map(|number| format!("evt-{number}")).collect();
    wrongly_refused(&stage, &ids.iter().map(String::as_str).collect::<Vec<_>>())?;
    let operator = || stage.start_armed_ingest_command("", &["--release-quarantine", "--rate", "20/s"]);
    let operators = [operator()?, operator()?];
    let ends = [operators[0].end()?, operators[1].end()?];
    let logs = operators.each_ref().map(Program::logged);
    ensure!(ends.iter().any(std::process::ExitStatus::success), "{logs:?}");
    for (end, log) in ends.iter().zip(&logs) {
        let gave_way = end.code() == Some(1) && log.contains("another --release-quarantine");
        ensure!(end.success() || gave_way, "{end:?}: {log}");
    }
    ensure!(events(&stage)?.len() == 40, "{logs:?}");
    ensure!(sums(&release(&stage, &[])?)? == [0; 4]);
    Ok(())
}

/// A release that is frozen where it comes to `point`, with an event on its way that nobody sees yet.
fn caught_in_a_transaction(stage: &Stage, point: &str) -> Result<Program> {
    let slow = format!("{point}=1*sleep(10000)");
    let release = stage.start_armed_ingest_command(&slow, &["--release-quarantine"])?;
    let topic = stage.topic("events");
    wait::until("an event in an open transaction", || {
        Ok((!stage.reader.read_uncommitted(&topic)?.is_empty()).then_some(()))
    })?;
    release.signal(Signal::STOP)?;
    Ok(release)
}

fn what_kafka_refuses_of_a_release_takes_all_of_it_back_and_it_can_be_run_again(
    common: &Common,
) -> Result<()> {
    let stage = common.stage_with(|settings| {
        with_quarantine(settings);
        settings.partitions = 1;
    })?;
    set_secret(&stage, "a wrong secret")?;
    let ingest = stage.ingest()?;
    let body = format!("{{\"note\":\"{}\"}}", noise(400_000));
    for event in [signed(RIGHT, "one"), Sender::GitHub.sign_as(RIGHT, 0, "two", body).to("acme")] {
        ensure!(post(stage.port, &event)?.0 == 403);
    }
    until_kept(&ingest, 2.0)?;
    ensure!(ingest.stop()?.success());
    set_secret(&stage, RIGHT)?;
    let topic = stage.topic("events");
    let refused = caught_in_a_transaction(&stage, "release-event-sent")?;
    stage.reader.limit_records(&topic, 100_000)?;
    refused.signal(Signal::CONT)?;
    let end = refused.end()?;
    let log = refused.logged();
    ensure!(end.code() == Some(3) && log.contains("Message size too large"), "{end:?}: {log}");
    stage.reader.limit_records(&topic, 4_194_304)?;
    // Nor does what it began hold back what comes now.
    let _ingest = stage.ingest()?;
    ensure!(post(stage.port, &signed(RIGHT, "three"))?.0 == 200);
    ensure!(events(&stage)? == ["three".to_owned()].into());
    ensure!(sums(&release(&stage, &[])?)? == [2, 2, 0, 0]);
    ensure!(events(&stage)?.len() == 3);
    Ok(())
}

/// Letters that hardly get shorter when they are compressed.
fn noise(letters: usize) -> String {
    let next = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    let states = std::iter::successors(Some(1_u64), next);
    states.take(letters).map(|state| char::from(b'a' + (state >> 60) as u8)).collect()
}

fn an_event_that_its_sender_sent_again_is_released_once(common: &Common) -> Result<()> {
    let stage = common.stage_with(with_quarantine)?;
    wrongly_refused(&stage, &["one", "two", "one", "one"])?;
    let released = release(&stage, &["--limit", "1"])?;
    ensure!(sums(&released)?[1] == 1, "{released:?}");
    let released = release(&stage, &[])?;
    ensure!(sums(&released)?[1] == 1 && released.out.contains("\"because\":\"duplicate\""), "{released:?}");
    ensure!(events(&stage)? == ["one".to_owned(), "two".to_owned()].into());
    ensure!(list(&stage, &[])?.is_empty(), "copies are settled with their first");
    Ok(())
}

fn what_was_forged_stays_whatever_the_source_has_become(common: &Common) -> Result<()> {
    let stage = common.stage_with(with_quarantine)?;
    set_secret(&stage, RIGHT)?;
    let ingest = stage.ingest()?;
    let genuine = signed(RIGHT, "one");
    let altered = Signed { body: "{\"id\":\"one\",\"amount\":1000000}".into(), ..genuine.clone() };
    let of_another = signed("the forger's own", "two");
    let mut truncated = genuine.clone();
    truncated.headers[0].1.pop();
    let headers = [genuine.headers.clone(), genuine.headers.clone()].concat();
    let doubled = Signed { headers, body: altered.body.clone(), ..genuine };
    for forged in [&altered, &of_another, &truncated, &doubled] {
        ensure!((400..404).contains(&post(stage.port, forged)?.0));
    }
    until_kept(&ingest, 4.0)?;
    ensure!(sums(&release(&stage, &[])?)? == [4, 0, 4, 0]);
    let becomes = |table: &str| {
        let source = format!("[[sources]]\nname = \"acme\"\n{table}\n");
        stage.rewrite(|settings| settings.sources = source)
    };
    becomes("unsigned = true")?;
    let weaker = release(&stage, &[])?;
    ensure!(sums(&weaker)? == [4, 0, 4, 0] && weaker.out.contains("unprovable"), "{weaker:?}");
    becomes("client_certificate = \"x-github-event\"\nsecrets = [{ file = \"FOLDER/acme\" }]")?;
    fs::write(stage.folder().join("acme"), "push")?;
    let by_proxy = release(&stage, &[])?;
    ensure!(sums(&by_proxy)? == [4, 0, 4, 0] && by_proxy.out.contains("unprovable"), "{by_proxy:?}");
    stage.rewrite(|settings| settings.sources = String::new())?;
    let removed = release(&stage, &[])?;
    ensure!(sums(&removed)? == [4, 0, 4, 0] && removed.out.contains("source_removed"), "{removed:?}");
    ensure!(events(&stage)?.is_empty());
    Ok(())
}

fn a_signed_time_is_judged_when_the_request_was_received(common: &Common) -> Result<()> {
    let stage = common.stage_with(with_quarantine)?;
    set_secret(&stage, "a wrong secret")?;
    // Five hours ago.
    let clock = Clock::right(stage.folder(), "ingest")?;
    clock.step_to(-5 * HOUR)?;
    let ingest = stage.start_ingest_in(&clock.environment())?.ready()?;
    for (id, ago) in [("timely", 5 * 3600), ("late-by-then", 10 * 3600), ("ahead-of-then", 0)] {
        let body = format!(r#"{{"id":"{id}","type":"paid"}}"#);
        let event = Sender::Stripe.sign_as(RIGHT, now_in_seconds() - ago, id, body).to("billing");
        ensure!(post(stage.port, &event)?.0 == 403);
    }
    until_kept(&ingest, 3.0)?;
    ensure!(ingest.stop()?.success());
    set_secret(&stage, RIGHT)?;
    let released = release(&stage, &[])?;
    ensure!(sums(&released)? == [3, 1, 2, 0], "{released:?}");
    ensure!(released.out.contains("\"because\":\"timestamp_outside_window\""), "{released:?}");
    ensure!(events(&stage)? == ["timely".to_owned()].into());
    Ok(())
}

fn a_flood_of_forged_requests_is_bounded_and_genuine_events_go_on(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        with_quarantine(settings);
        // However busy the machine is: what is tried is the bound.
        settings.ingest = "publish_timeout = \"25s\"".to_owned();
        settings.sources = settings.sources.replace("rate_limit = 1000", "rate_limit = 5");
    })?;
    set_secret(&stage, RIGHT)?;
    let ingest = stage.ingest()?;
    let (threads, each) = (4_usize, 100_usize);
    std::thread::scope(|scope| -> Result<()> {
        let port = stage.port;
        let flood = |thread: usize| {
            move || -> Result<()> {
                for number in 0..each {
                    let forged = signed("the forger's own", &format!("forged-{thread}-{number}"));
                    ensure!(post(port, &forged)?.0 == 403);
                }
                Ok(())
            }
        };
        let floods: Vec<_> = (0..threads).map(|thread| scope.spawn(flood(thread))).collect();
        for number in 0..50 {
            let (status, text) = post(port, &signed(RIGHT, &format!("genuine-{number}")))?;
            ensure!(status == 200, "{status} {text}");
        }
        floods.into_iter().try_for_each(|flood| flood.join().unwrap_or_else(|_| Ok(())))
    })?;
    let forged = (threads * each) as f64;
    wait::until("each to be kept or dropped", || {
        let dropped = ingest.metric("hookwell_ingest_quarantine_dropped_total", &["reason=\"rate\""])?;
        Ok((kept(&ingest)? + dropped == forged).then_some(()))
    })?;
    let mut moments: Vec<i64> = stage
        .reader
        .read(&stage.topic("quarantine"))?
        .iter()
        .map(|record| record.header("hookwell-request-received-at").parse().unwrap_or(0))
        .collect();
    moments.sort_unstable();
    // So many a second, and a second's worth at once.
    let seconds = (moments[moments.len() - 1] - moments[0]) / 1000 + 1;
    let bound = usize::try_from(5 * (seconds + 2))?;
    ensure!(moments.len() <= bound, "{} were kept in {seconds} s", moments.len());
    ensure!(events(&stage)?.len() == 50);
    Ok(())
}

fn without_kafka_senders_hear_the_same_and_what_waited_is_kept_afterwards(common: &Common) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(|settings| {
        with_quarantine(settings);
        settings.ingest = "publish_timeout = \"1s\"".to_owned();
    })?;
    set_secret(&stage, RIGHT)?;
    let ingest = stage.ingest()?;
    post_until_accepted(stage.port, &signed(RIGHT, "before"))?;
    own.kafka.kill()?;
    let outage = Stopwatch::start();
    for number in 0..20 {
        let (status, text) = post(stage.port, &signed("the forger's own", &format!("forged-{number}")))?;
        ensure!(status == 403 && text.contains("signature_mismatch"), "{status} {text}");
    }
    ensure!(post(stage.port, &signed(RIGHT, "meanwhile"))?.0 == 503);
    own.kafka.revive()?;
    post_until_accepted(stage.port, &signed(RIGHT, "after"))?;
    let dropped = wait::until("each to be kept or dropped", || {
        let dropped = ingest.metric("hookwell_ingest_quarantine_dropped_total", &[])?;
        Ok((kept(&ingest)? + dropped == 20.0).then_some(dropped))
    })?;
    ensure!(dropped == 0.0 || KEPT_FOR < outage.mono(), "{dropped} were dropped before their time");
    // What was given up may have arrived all the same.
    ensure!(20 - dropped as usize <= list(&stage, &["--records"])?.len());
    ensure!(ingest.metric("hookwell_ingest_in_flight", &[])? == 0.0);
    Ok(())
}

fn a_dry_run_a_limit_and_filters_choose(common: &Common) -> Result<()> {
    let stage = common.stage_with(with_quarantine)?;
    wrongly_refused(&stage, &["one", "two", "three"])?;
    let dry = release(&stage, &["--dry-run"])?;
    ensure!(sums(&dry)? == [3, 0, 0, 3] && dry.out.contains("\"action\":\"release\""), "{dry:?}");
    ensure!(events(&stage)?.is_empty(), "a dry run passes nothing on");
    let chosen = [
        (&["--source", "acme"][..], 3),
        (&["--source", "billing"], 0),
        (&["--reason", "signature_mismatch"], 3),
        (&["--reason", "signature_missing"], 0),
        (&["--since", "1h"], 3),
        (&["--until", "2026-01-01T00:00:00Z"], 0),
    ];
    for (filter, expected) in chosen {
        let count = list(&stage, &[filter, &["--records"]].concat())?.len();
        ensure!(count == expected, "{filter:?}: {count}");
    }
    let nothing = release(&stage, &["--source", "billing"])?;
    ensure!(sums(&nothing)? == [0; 4] && nothing.err.contains("fits these filters"), "{nothing:?}");
    ensure!(sums(&release(&stage, &["--limit", "2"])?)? == [2, 2, 0, 0]);
    ensure!(events(&stage)?.len() == 2 && list(&stage, &["--records"])?.len() == 1);
    let words = stage.ingest_answers(&["--release-quarantine"])?;
    ensure!(words.out.contains("selected 1, released 1, skipped 0, left 0"), "{words:?}");
    ensure!(words.out.contains("ACTION"), "{words:?}");

    for (arguments, told) in [
        (&["--list-quarantine", "--source", "acem"][..], "\"acem\" is unknown; known: acme, billing"),
        (&["--release-quarantine", "--source", "acem"], "\"acem\" is unknown; known: acme, billing"),
        (&["--list-quarantine", "--dry-run"], "cannot be used with"),
        (&["--release-quarantine", "--reason", "too_many"], "signature_mismatch"),
        (&["--list-quarantine", "--since", "1h", "--until", "2h"], "does not lie before"),
        (&["--source", "acme"], "--list-quarantine"),
    ] {
        let refused = stage.ingest_answers(arguments)?;
        ensure!(refused.status == Some(2) && refused.err.contains(told), "{arguments:?}: {refused:?}");
    }
    Ok(())
}

fn a_record_that_cannot_be_read_is_told_and_passed_over(common: &Common) -> Result<()> {
    let stage = common.stage_with(with_quarantine)?;
    wrongly_refused(&stage, &["one"])?;
    let broken = [
        Vec::new(),
        vec![("hookwell-request-source".to_owned(), b"acme".to_vec())],
        vec![("hookwell-released-offset".to_owned(), b"0".to_vec())],
    ];
    for headers in broken {
        let value = b"somebody's secret".to_vec();
        let record = Record { partition: 0, offset: 0, key: vec![], value, headers, at: 0 };
        stage.reader.write(&stage.topic("quarantine"), &record)?;
    }
    let groups = list(&stage, &[])?;
    ensure!(groups[0]["reason"] == "damaged" && groups[0]["count"] == 3, "{groups:?}");
    let released = release(&stage, &[])?;
    ensure!(sums(&released)? == [4, 1, 3, 0] && !released.err.contains("somebody"), "{released:?}");
    ensure!(events(&stage)? == ["one".to_owned()].into());
    Ok(())
}

fn a_topic_that_is_missing_is_told_and_a_reload_cannot_begin_to_keep(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        with_quarantine(settings);
        settings.sources = settings.sources.replace("quarantine = true", "quarantine = false");
    })?;
    set_secret(&stage, RIGHT)?;
    let ingest = stage.ingest()?;
    stage.rewrite(with_quarantine)?;
    ingest.signal(Signal::HUP)?;
    wait::until("the reload to be refused", || {
        Ok(ingest.logged().contains("a source has quarantine = true").then_some(()))
    })?;
    ensure!(post(stage.port, &signed(RIGHT, "one"))?.0 == 200);
    ensure!(ingest.stop()?.success());

    let refusing = stage.start_ingest("")?;
    ensure!(refusing.end()?.code() == Some(3), "{}", refusing.logged());
    let log = refusing.logged();
    ensure!(log.contains(&stage.topic("quarantine")) && log.contains("--create-topics"), "{log}");
    for command in ["--list-quarantine", "--release-quarantine"] {
        let missing = stage.ingest_answers(&[command])?;
        ensure!(missing.status == Some(3) && missing.err.contains("--create-topics"), "{missing:?}");
    }
    ensure!(stage.processor_answers(&["--create-topics"])?.status == Some(0));
    let empty = stage.ingest_answers(&["--list-quarantine"])?;
    ensure!(empty.status == Some(0) && empty.err.contains("there is no request in quarantine"), "{empty:?}");
    Ok(())
}

/// A request waits to be released, and a stranger has a transaction open on this topic.
fn with_a_strangers_transaction(common: &Common, topic: &str) -> Result<(Stage, BaseProducer)> {
    let stage = common.stage_with(|settings| {
        with_quarantine(settings);
        settings.partitions = 1;
    })?;
    wrongly_refused(&stage, &["one"])?;
    let nothing = Record { partition: 0, offset: 0, key: vec![], value: vec![], headers: vec![], at: 0 };
    let id = format!("{}-stranger", stage.prefix);
    let stranger = stage.reader.open_transaction(&id, &stage.topic(topic), &nothing)?;
    Ok((stage, stranger))
}

fn an_open_transaction_that_hides_what_was_released_ends_the_command(common: &Common) -> Result<()> {
    let (stage, stranger) = with_a_strangers_transaction(common, "quarantine")?;
    let hidden = release(&stage, &[])?;
    ensure!(hidden.status == Some(3) && hidden.err.contains("is decided up to offset"), "{hidden:?}");
    ensure!(events(&stage)?.is_empty(), "released without knowing what was released before");
    drop(stranger);
    Ok(())
}

fn a_release_does_not_begin_while_something_is_undecided_on_the_events(common: &Common) -> Result<()> {
    let (stage, stranger) = with_a_strangers_transaction(common, "events")?;
    let topic = stage.topic("events");
    let waited = release(&stage, &[])?;
    ensure!(waited.status == Some(3) && waited.err.contains(&format!("{topic}/0")), "{waited:?}");
    ensure!(stage.reader.read_uncommitted(&topic)?.len() == 1, "it began all the same");
    stranger.abort_transaction(Duration::from_secs(30))?;
    ensure!(sums(&release(&stage, &[])?)? == [1, 1, 0, 0]);
    ensure!(events(&stage)? == ["one".to_owned()].into());
    Ok(())
}
