//! What ingest answers, and what lies on Kafka afterwards: the contract of `docs/http.md`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::program::Program;
use hookwell_tests::sender::{SECRET, Sender, Signed, now_in_seconds, post};
use hookwell_tests::socket::{Answered, Socket, head, request};
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;
use rustix::process::Signal;

use crate::{Common, tests};

tests![
    each_refusal_has_its_status_its_problem_and_its_count,
    who_is_too_slow_hears_408,
    more_than_a_source_may_send_hears_429,
    what_does_not_fit_into_memory_is_shed_with_503_while_the_rest_waits_for_kafka,
    only_allowed_addresses_may_send_and_only_proxies_may_name_them,
    an_accepted_event_lies_on_the_topic_byte_for_byte_with_its_headers,
    an_order_to_reload_that_comes_during_the_start_is_followed_and_not_fatal,
    a_faulty_configuration_is_not_taken_over_and_the_old_one_still_counts,
    what_was_acknowledged_when_ingest_ended_lies_on_the_topic,
    a_request_that_is_under_way_when_ingest_is_told_to_end_is_still_answered,
    every_series_is_there_from_the_start_and_strangers_add_none,
    each_request_is_one_line_of_the_log_without_secrets_and_bodies,
    ingest_is_ready_only_while_its_topic_is_right,
];

/// A custom source called `acme`, whose secret is GitHub's, with `more` lines.
fn acme(stage: &Stage, more: &str) -> String {
    format!(
        "[[sources]]\nname = \"acme\"\nsecrets = [{{ file = {:?} }}]\n{more}\n[sources.hmac]\nheader = \"x-acme-signature\"
parse = \"prefix:sha256=\"\ncontent = \"{{header:x-acme-timestamp}}.{{body}}\"\ntimestamp = \"header:x-acme-timestamp\"\n",
        stage.folder().join("github")
    )
}

/// A source called `name` that signs as GitHub does, with `more` lines.
fn like_github(stage: &Stage, name: &str, more: &str) -> String {
    let secret = stage.folder().join("github");
    format!(
        "[[sources]]\nname = \"{name}\"\npreset = \"github\"\nsecrets = [{{ file = {secret:?} }}]\n{more}\n"
    )
}

/// Sends `bytes` on a connection of their own.
fn answer_to(stage: &Stage, bytes: impl AsRef<[u8]>) -> Result<Answered> {
    Socket::sending(stage.port, bytes)?.answer()
}

fn without(signed: Signed, name: &str) -> Signed {
    let headers = signed.headers.into_iter().filter(|(known, _)| known != name).collect();
    Signed { headers, ..signed }
}

/// What is refused, and how: a request, its status, and its problem.
fn refusals() -> Vec<(Vec<u8>, u16, &'static str)> {
    let github = || Sender::GitHub.event("refused");
    let altered = Signed { body: "{}".into(), ..github() };
    let long = Sender::GitHub.sign("refused", "x".repeat(10_001));
    let stripe_at = |time| Sender::Stripe.sign_as(SECRET, time, "refused", "{\"id\":\"refused\"}");
    let now = now_in_seconds();
    let nobodys = Sender::GitHub.sign_as("another secret", now, "refused", "{}");
    let doubled = github().with("x-github-delivery", "another");
    let signed_twice = github().with("x-hub-signature-256", "sha256=00");
    let other_form = without(github(), "x-hub-signature-256").with("x-hub-signature-256", "sha1=00");
    let not_hex = without(github(), "x-hub-signature-256").with("x-hub-signature-256", "sha256=grüße");
    let mut no_text = request(&github(), "");
    no_text.iter_mut().filter(|byte| **byte == b'=').for_each(|byte| *byte = 0xfe);
    let acme = || without(github(), "x-hub-signature-256").to("acme").with("x-acme-signature", "sha256=00");
    vec![
        (request(&Sender::GitHub.sign("refused", ""), ""), 400, "body_missing"),
        (request(&doubled, ""), 400, "unreadable"),
        (request(&signed_twice, ""), 400, "unreadable"),
        (request(&other_form, ""), 400, "unreadable"),
        (no_text, 400, "unreadable"),
        (request(&not_hex, ""), 403, "signature_mismatch"),
        (request(&without(github(), "x-hub-signature-256"), ""), 401, "signature_missing"),
        (request(&acme(), ""), 401, "timestamp_missing"),
        (request(&without(Sender::Standard.event("refused"), "webhook-id"), ""), 401, "signed_part_missing"),
        (request(&altered, ""), 403, "signature_mismatch"),
        (request(&nobodys, ""), 403, "signature_mismatch"),
        (request(&stripe_at(now - 600), ""), 403, "timestamp_outside_window"),
        (request(&stripe_at(now + 600), ""), 403, "timestamp_outside_window"),
        (request(&github().to("elsewhere"), ""), 403, "address_not_allowed"),
        (request(&github().to("nobody"), ""), 404, "unknown_source"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}".to_vec(), 404, "unknown_source"),
        (b"GET /webhooks/github HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 405, "method_not_allowed"),
        (b"PUT /webhooks/github HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 405, "method_not_allowed"),
        (request(&long, ""), 413, "body_too_large"),
        (request(&without(github(), "x-github-delivery").to("strict"), ""), 400, "event_id_missing"),
        (request(&github().to("keeps").with("x-large", "x".repeat(40_000)), ""), 400, "headers_too_large"),
    ]
}

fn each_refusal_has_its_status_its_problem_and_its_count(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.rewrite(|settings| {
        settings.ingest = "max_body_bytes = 10000".to_owned();
        settings.sources = acme(&stage, "")
            + &like_github(&stage, "elsewhere", "allow_from = [\"192.0.2.0/24\"]")
            + &like_github(&stage, "strict", "event_id_missing = \"reject\"")
            + &like_github(&stage, "keeps", "keep_headers = [\"x-large\"]");
    })?;
    let ingest = stage.ingest()?;
    let mut problems = BTreeSet::new();
    for (bytes, status, problem) in refusals() {
        let answer = answer_to(&stage, &bytes).with_context(|| problem)?;
        ensure!(answer.status == status, "{problem}: {answer:?}");
        ensure!(answer.head.contains("content-type: application/problem+json"), "{problem}: {answer:?}");
        let told: serde_json::Value = serde_json::from_str(&answer.body)?;
        ensure!(told["type"] == format!("urn:hookwell:problem:{problem}"), "{problem}: {answer:?}");
        ensure!(told["status"] == status, "{problem}: {answer:?}");
        ensure!(status != 405 || answer.head.contains("allow: post"), "{answer:?}");
        problems.insert(problem);
    }
    for problem in problems {
        let expected = refusals().iter().filter(|(_, _, known)| *known == problem).count();
        let outcome = format!("outcome=\"{problem}\"");
        let counted = ingest.metric("hookwell_ingest_requests_total", &[&outcome])?;
        ensure!(counted == expected as f64, "{problem} counts {counted}, not {expected}");
    }
    ensure!(stage.reader.read(&stage.topic("events"))?.is_empty());
    Ok(())
}

fn who_is_too_slow_hears_408(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.ingest = "read_timeout = \"1s\"".to_owned())?;
    let ingest = stage.ingest()?;
    let event = Sender::GitHub.event("one");
    let half_a_body = [head(&event, "content-length: 1000\r\n").as_bytes(), b"{"].concat();
    let answer = answer_to(&stage, half_a_body)?;
    ensure!(answer.status == 408 && answer.body.contains("too_slow"), "{answer:?}");
    ensure!(ingest.metric("hookwell_ingest_requests_total", &["outcome=\"too_slow\""])? == 1.0);
    ensure!(answer_to(&stage, "POST /webhooks/github HTTP/1.1\r\nhost")?.status == 408);
    Ok(())
}

fn more_than_a_source_may_send_hears_429(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.rewrite(|settings| settings.sources = like_github(&stage, "limited", "rate_limit = 1"))?;
    let _ingest = stage.ingest()?;
    let forged = Sender::GitHub.sign_as("another secret", 0, "forged", "{}").to("limited");
    // Whoever cannot sign uses up nothing of what a sender may send.
    for _ in 0..5 {
        ensure!(post(stage.port, &forged)?.0 == 403);
    }
    let event = Sender::GitHub.event("one").to("limited");
    ensure!(post(stage.port, &event)?.0 == 200);
    let refused = wait::until("a 429", || {
        let answer = answer_to(&stage, request(&event, ""))?;
        Ok((answer.status != 200).then_some(answer))
    })?;
    ensure!(refused.status == 429 && refused.head.contains("retry-after: 1"), "{refused:?}");
    Ok(())
}

fn what_does_not_fit_into_memory_is_shed_with_503_while_the_rest_waits_for_kafka(
    common: &Common,
) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(|settings| {
        settings.ingest =
            "max_body_bytes = 1000\nmax_buffered_bytes = 1500\npublish_timeout = \"5m\"".to_owned();
    })?;
    let ingest = stage.ingest()?;
    own.kafka.freeze()?;
    let first = Sender::GitHub.sign("first", "x".repeat(1000));
    let mut waiting = Socket::sending(stage.port, request(&first, ""))?;
    wait::until("the first to wait for Kafka", || {
        Ok((ingest.metric("hookwell_ingest_buffered_bytes", &[])? == 1000.0).then_some(()))
    })?;
    let second = Sender::GitHub.sign("second", "x".repeat(1000));
    let shed = answer_to(&stage, request(&second, ""))?;
    ensure!(shed.status == 503 && shed.body.contains("overloaded"), "{shed:?}");
    ensure!(shed.head.contains("retry-after: "), "{shed:?}");
    own.kafka.thaw()?;
    ensure!(waiting.answer()?.status == 200);
    ensure!(post(stage.port, &second)?.0 == 200);
    ensure!(ingest.metric("hookwell_ingest_buffered_bytes", &[])? == 0.0);
    Ok(())
}

fn only_allowed_addresses_may_send_and_only_proxies_may_name_them(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let with_proxies = |proxies: &'static str| {
        stage.rewrite(|settings| {
            settings.ingest = format!("trusted_proxies = [{proxies}]");
            settings.sources =
                like_github(&stage, "guarded", "allow_from = [\"198.51.100.0/24\", \"2001:db8::/32\"]");
        })
    };
    let status_for = |forwarded: &[&str]| {
        let headers: String = forwarded.iter().map(|value| format!("x-forwarded-for: {value}\r\n")).collect();
        let event = Sender::GitHub.event("one").to("guarded");
        answer_to(&stage, request(&event, &headers)).map(|answer| answer.status)
    };
    with_proxies("\"127.0.0.1\", \"10.0.0.0/8\"")?;
    let ingest = stage.ingest()?;
    let cases: &[(&[&str], u16)] = &[
        (&[], 403),
        (&["198.51.100.7"], 200),
        (&["198.51.100.7, 10.1.2.3"], 200),
        (&["198.51.100.7", "10.1.2.3"], 200),
        (&["::ffff:198.51.100.7"], 200),
        (&["[2001:db8::7]:4711"], 200),
        (&["198.51.100.7, 203.0.113.9"], 403),
        (&["198.51.100.7", "203.0.113.9"], 403),
        (&["203.0.113.9, 198.51.100.7"], 200),
        (&["198.51.100.7, unknown"], 403),
        (&["10.1.2.3"], 403),
    ];
    for (forwarded, expected) in cases {
        let status = status_for(forwarded)?;
        ensure!(status == *expected, "{forwarded:?}: {status}");
    }
    ensure!(ingest.stop()?.success());
    with_proxies("")?;
    let _ingest = stage.ingest()?;
    ensure!(status_for(&["198.51.100.7"])? == 403, "a stranger named another client");
    Ok(())
}

fn an_accepted_event_lies_on_the_topic_byte_for_byte_with_its_headers(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.rewrite(|settings| {
        settings.sources = like_github(&stage, "keeps", "keep_headers = [\"X-Shop\", \"x-absent\"]");
    })?;
    let _ingest = stage.ingest()?;
    let body: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let event = Sender::GitHub.sign("id-1", body.clone()).to("keeps");
    let more = "Content-Type: image/x-all-bytes\r\nX-Shop: Caf\u{e9}\r\nAuthorization: Basic secret\r\n";
    ensure!(answer_to(&stage, request(&event, more))?.status == 200);

    let records = stage.reader.read(&stage.topic("events"))?;
    ensure!(records.len() == 1 && records[0].value == body, "{records:?}");
    let record = &records[0];
    ensure!(record.key == b"keeps:id-1", "{record:?}");
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "id-1"),
        ("ce_source", "keeps"),
        ("ce_type", "push"),
        ("content-type", "image/x-all-bytes"),
        ("http-x-shop", "Caf\u{e9}"),
    ];
    for (name, value) in expected {
        ensure!(record.header(name) == value, "{name}: {:?}", record.header(name));
    }
    ensure!(
        record.header("ce_time").ends_with('Z') && record.header("traceparent").len() == 55,
        "{record:?}"
    );
    let names: Vec<_> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(names.len() == 8, "{names:?}");
    Ok(())
}

fn reload(ingest: &Program, times: usize, word: &str) -> Result<()> {
    ingest.signal(Signal::HUP)?;
    wait::until(word, || Ok((ingest.logged().matches(word).count() == times).then_some(())))
}

fn an_order_to_reload_that_comes_during_the_start_is_followed_and_not_fatal(common: &Common) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(|_| ())?;
    // It cannot be ready before Kafka answers.
    own.kafka.freeze()?;
    let ingest = stage.start_ingest("")?;
    wait::until("it to listen to signals", || Ok(catches_hangup(&ingest)?.then_some(())))?;
    stage.rewrite(|settings| settings.sources = like_github(&stage, "late", ""))?;
    ingest.signal(Signal::HUP)?;
    own.kafka.thaw()?;
    let _ingest = ingest.ready()?;
    wait::until("the late source to be known", || {
        let (status, _) = post(stage.port, &Sender::GitHub.event("one").to("late"))?;
        Ok((status == 200).then_some(()))
    })
}

/// Whether a SIGHUP would reach it, rather than end it.
fn catches_hangup(program: &Program) -> Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id()))?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).context("no SigCgt")?;
    Ok(u64::from_str_radix(caught.trim(), 16)? & 1 == 1)
}

fn a_faulty_configuration_is_not_taken_over_and_the_old_one_still_counts(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    stage.rewrite(|settings| {
        settings.sources = "[[sources]]\nname = \"open\"\nsecrets = []\n".to_owned();
        settings.ingest = "max_body_bites = 1".to_owned();
    })?;
    reload(&ingest, 1, "not reloaded")?;
    let log = ingest.logged();
    ensure!(log.contains("max_body_bites") && log.contains("nothing unsigned is accepted"), "{log}");
    stage.send(Sender::GitHub, "one")?;
    std::fs::remove_file(stage.folder().join("github"))?;
    stage.rewrite(|_| ())?;
    reload(&ingest, 2, "not reloaded")?;
    stage.send(Sender::GitHub, "two")?;
    ensure!(post(stage.port, &Sender::GitHub.event("one").to("open"))?.0 == 404);
    std::fs::write(stage.folder().join("github"), SECRET)?;
    reload(&ingest, 1, "reloaded sources")?;
    stage.send(Sender::GitHub, "three").map(drop)
}

fn what_was_acknowledged_when_ingest_ended_lies_on_the_topic(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    let sent = AtomicUsize::new(0);
    // Each sends until it is refused for the first time, and tells what was acknowledged.
    let stream = || {
        let mut acknowledged = Vec::new();
        loop {
            let id = format!("id-{}", sent.fetch_add(1, Ordering::Relaxed));
            match post(stage.port, &Sender::GitHub.event(&id)) {
                Ok((200, _)) => acknowledged.push(id),
                refused => return (acknowledged, refused.map(|(status, _)| status)),
            }
        }
    };
    let acknowledged = thread::scope(|scope| -> Result<Vec<String>> {
        let streams: Vec<_> = (0..8).map(|_| scope.spawn(stream)).collect();
        let stopped = wait::until("many requests", || Ok((200 < sent.load(Ordering::Relaxed)).then_some(())))
            .and_then(|()| ingest.stop());
        let mut all = Vec::new();
        for stream in streams {
            let (acknowledged, refused) = stream.join().map_err(|_| anyhow::anyhow!("a panic"))?;
            ensure!(refused.as_ref().is_err() || matches!(refused, Ok(503)), "{refused:?}");
            all.extend(acknowledged);
        }
        ensure!(stopped?.success(), "ingest did not end well: {}", ingest.logged());
        Ok(all)
    })?;
    ensure!(acknowledged.len() > 100, "{}", acknowledged.len());
    let accepted = acknowledged.into_iter().map(|id| ("github".to_owned(), id)).collect();
    ensure!(stage.audit(&accepted)?.lost.is_empty());
    Ok(())
}

fn a_request_that_is_under_way_when_ingest_is_told_to_end_is_still_answered(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    let event = Sender::GitHub.event("one");
    let whole = request(&event, "");
    let (begin, rest) = whole.split_at(whole.len() - 5);
    let mut under_way = Socket::sending(stage.port, begin)?;
    // Also one that waits for its client's next request, which must not hold up the end.
    let mut idle = Socket::sending(stage.port, request(&Sender::GitHub.event("two"), ""))?;
    ensure!(idle.answer()?.status == 200);
    wait::until("the request to be under way", || {
        Ok((ingest.metric("hookwell_ingest_in_flight", &[])? == 1.0).then_some(()))
    })?;
    ingest.signal(Signal::TERM)?;
    wait::until("it to hear", || Ok(ingest.logged().contains("told to stop").then_some(())))?;
    under_way.send(rest)?;
    let answer = under_way.answer()?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(ingest.end()?.success());
    let accepted = ["one", "two"].map(|id| ("github".to_owned(), id.to_owned()));
    ensure!(stage.audit(&accepted.into())?.lost.is_empty());
    Ok(())
}

/// What stands before the value of each series.
fn series(ingest: &Program) -> Result<BTreeSet<String>> {
    let text = ingest.metrics()?;
    let lines = text.lines().filter(|line| line.starts_with("hookwell_"));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect())
}

fn every_series_is_there_from_the_start_and_strangers_add_none(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    let before = series(&ingest)?;
    let github = "source=\"github\"";
    for outcome in
        ["accepted", "signature_mismatch", "signature_missing", "body_too_large", "log_unavailable"]
    {
        let labels = format!("hookwell_ingest_requests_total{{outcome=\"{outcome}\",{github}}}");
        ensure!(before.contains(&labels), "{labels} is not in {before:#?}");
    }
    for name in [
        "hookwell_ingest_secret_matches_total{secret=\"0\",source=\"github\"}",
        "hookwell_ingest_last_event_timestamp_seconds{source=\"github\"}",
        "hookwell_ingest_quarantined_total{source=\"github\"}",
        "hookwell_ingest_request_seconds_count{source=\"github\"}",
        "hookwell_ingest_publish_seconds_count",
        "hookwell_ingest_in_flight",
        "hookwell_ingest_spool_events",
        "hookwell_ingest_spool_oldest_timestamp_seconds",
        "hookwell_ingest_spool_faults_total{reason=\"unwritable\"}",
    ] {
        ensure!(before.contains(name), "{name} is not in {before:#?}");
    }
    ensure!(ingest.metric("hookwell_ingest_requests_total", &[])? == 0.0);
    ensure!(ingest.metric("hookwell_build_info", &["program=\"ingest\""])? == 1.0);

    for stranger in ["POST /webhooks/stranger", "GET /", "POST /webhooks/a%22%7D", "BREW /webhooks/github"] {
        let answer =
            answer_to(&stage, format!("{stranger} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"))?;
        ensure!(answer.status == 404 || answer.status == 405, "{stranger}: {answer:?}");
    }
    let event = stage.send(Sender::GitHub, "one")?;
    ensure!(ingest.metric("hookwell_ingest_last_event_timestamp_seconds", &[github])? > 1.7e9);
    ensure!(post(stage.port, &event.with("x-stranger", "x"))?.0 == 200);
    let after = series(&ingest)?;
    ensure!(after == before, "{:?}", after.difference(&before).collect::<Vec<_>>());
    ensure!(ingest.metric("hookwell_ingest_requests_total", &["source=\"unknown\""])? == 3.0);
    Ok(())
}

fn each_request_is_one_line_of_the_log_without_secrets_and_bodies(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    let accepted = Sender::GitHub.sign("delivery-1", "{\"private\":\"of the body\"}");
    ensure!(post(stage.port, &accepted)?.0 == 200);
    let refused = Signed { body: "{\"private\":\"forged\"}".into(), ..Sender::GitHub.event("delivery-2") };
    ensure!(post(stage.port, &refused.clone().with("authorization", "hunter2"))?.0 == 403);
    ensure!(answer_to(&stage, "POST /elsewhere HTTP/1.1\r\nhost: x\r\n\r\n")?.status == 404);
    ensure!(ingest.stop()?.success());
    let log = ingest.logged();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("outcome=")).collect();
    ensure!(lines.len() == 3, "{log}");
    let expected: [&[&str]; 3] = [
        &[
            "source=\"github\"",
            "status=200",
            "\"accepted\"",
            "delivery-1",
            "event_type=\"push\"",
            "partition=",
            "offset=",
        ],
        &["source=\"github\"", "status=403", "\"signature_mismatch\""],
        &["status=404", "\"unknown_source\""],
    ];
    for (line, words) in lines.iter().zip(expected) {
        ensure!(words.iter().all(|word| line.contains(word)), "{words:?} in {line}");
    }
    let signatures =
        accepted.headers.iter().chain(&refused.headers).filter(|(name, _)| name.contains("signature"));
    let signatures: Vec<_> = signatures.map(|(_, value)| value.trim_start_matches("sha256=")).collect();
    are_lines_of_json(&stage)?;
    for secret in [SECRET, "of the body", "forged", "hunter2"].iter().chain(&signatures) {
        ensure!(!log.contains(secret), "{secret} is in {log}");
    }
    Ok(())
}

fn are_lines_of_json(stage: &Stage) -> Result<()> {
    stage.rewrite(|settings| settings.routes += "\n[log]\nformat = \"json\"\n")?;
    let ingest = stage.ingest()?;
    stage.send(Sender::GitHub, "delivery-3")?;
    ensure!(ingest.stop()?.success());
    let log = ingest.logged();
    let lines = log.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
    let lines: Vec<serde_json::Value> = lines.collect::<Result<_>>()?;
    let mut requests = lines.iter().filter(|line| line["target"] == "request");
    let line = requests.next().context("no line for the request")?;
    ensure!(
        line["event_id"] == "delivery-3" && line["status"] == 200 && line["outcome"] == "accepted",
        "{line}"
    );
    ensure!(requests.next().is_none(), "{log}");
    Ok(())
}

fn ingest_is_ready_only_while_its_topic_is_right(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    let events = stage.topic("events");
    stage.reader.delete_topic(&events)?;
    wait::until("ingest to miss its topic", || {
        let (status, words) = ingest.readiness()?;
        Ok((status == 503 && words.contains(&events)).then_some(()))
    })?;
    let (status, _) = hookwell_tests::program::get(&ingest.admin("livez"))?;
    ensure!(status == 200, "a missing topic is no reason to be killed: {status}");
    let answer = answer_to(&stage, request(&Sender::GitHub.event("one"), ""))?;
    ensure!(answer.status == 503 && answer.head.contains("retry-after"), "{answer:?}");
    ensure!(stage.processor_answers(&["--create-topics"])?.status == Some(0));
    wait::until("ingest to be ready again", || Ok(ingest.is_ready()?.then_some(())))?;
    hookwell_tests::sender::post_until_accepted(stage.port, &Sender::GitHub.event("two"))
}
