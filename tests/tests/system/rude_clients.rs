//! Clients that no sender would be: they send garbage, half of a request, too much of it, or nothing
//! for a long time. None of them harms another.

use std::os::unix::fs::PermissionsExt as _;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use hookwell_common::lifecycle::raise_open_files;
use hookwell_tests::program::Program;
use hookwell_tests::sender::{Sender, Signed, post};
use hookwell_tests::socket::{Socket, chunked, head, request};
use hookwell_tests::stage::{Binaries, Settings, Stage};
use hookwell_tests::wait;

use crate::{Common, tests};

tests![
    garbage_is_refused_and_harms_nobody,
    a_request_that_is_cut_off_leaves_nothing_behind,
    who_goes_away_while_kafka_is_asked_is_counted_all_the_same,
    a_thousand_slow_clients_keep_no_good_one_away_and_take_little_memory,
    who_trickles_is_let_go_whatever_it_trickles,
    headers_that_are_too_many_or_too_long_are_refused,
    a_body_in_chunks_is_put_together_and_bounded,
    a_length_that_lies_is_found_out,
    a_length_that_can_be_read_in_two_ways_is_refused,
    a_body_far_beyond_the_limit_is_refused_before_it_is_there,
    a_compressed_body_is_passed_on_as_it_is,
    requests_one_after_the_other_are_answered_in_order_until_garbage_follows,
];

/// Half of nothing, or of something else.
const GARBAGE: &[&[u8]] = &[
    b"\r\n\r\n\r\n\r\n garbage \r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00\x00\x00\x00\x00\x00\x00\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /webhooks/github HTTP/9.9\r\n\r\n",
    b"POST /webhooks/github\r\n\r\n",
    b"POST /webhooks/github HTTP/1.1\r\nno colon\r\n\r\n",
    b"POST /webhooks/github HTTP/1.1\r\nname with space: x\r\n\r\n",
    b"POST /webhooks/github HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    b"POST /webhooks/github HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
    b"POST /webhooks/github HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}}",
    b"POST /webhooks/github HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
    b"POST /webhooks/github HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n{}",
    b"POST /webhooks/\xff\xfe HTTP/1.1\r\n\r\n",
];

fn count(ingest: &Program, outcome: &str) -> Result<f64> {
    ingest.metric("hookwell_ingest_requests_total", &[&format!("outcome=\"{outcome}\"")])
}

/// Good senders are served, and nothing of what came before is held.
fn is_unharmed(stage: &Stage, ingest: &Program) -> Result<()> {
    stage.send(Sender::GitHub, "good")?;
    wait::until("everything to be let go", || {
        let in_flight = ingest.metric("hookwell_ingest_in_flight", &[])?;
        let buffered = ingest.metric("hookwell_ingest_buffered_bytes", &[])?;
        Ok((in_flight == 0.0 && buffered == 0.0).then_some(()))
    })?;
    let records = stage.reader.read(&stage.topic("events"))?;
    ensure!(records.iter().all(|record| record.header("ce_id") == "good"), "{records:?}");
    let log = ingest.logged();
    ensure!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    Ok(())
}

fn garbage_is_refused_and_harms_nobody(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    for garbage in GARBAGE {
        let mut socket = Socket::sending(stage.port, garbage)?;
        socket.finish()?;
        // Whether there is an answer or just an end, it is never a yes.
        while let Ok(answer) = socket.answer() {
            ensure!(
                (400..500).contains(&answer.status),
                "{:?}: {answer:?}",
                String::from_utf8_lossy(garbage)
            );
        }
    }
    // Bodies may be anything: only the signature decides.
    for (number, body) in GARBAGE.iter().chain(&[&[0xff; 5000][..]]).enumerate() {
        let forged = Signed { body: body.to_vec().into(), ..Sender::Stripe.sign("forged", "{}") };
        ensure!(post(stage.port, &forged)?.0 == 403, "body {number}");
    }
    is_unharmed(&stage, &ingest)
}

fn a_request_that_is_cut_off_leaves_nothing_behind(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    let event = Sender::GitHub.event("cut off");
    let whole = request(&event, "");
    let begin = whole.len() - event.body.len();
    for length in [10, begin - 2, begin, begin + 1, whole.len() - 1] {
        let socket = Socket::sending(stage.port, &whole[..length])?;
        if length >= begin {
            wait::until("the request to be under way", || {
                Ok((ingest.metric("hookwell_ingest_in_flight", &[])? == 1.0).then_some(()))
            })?;
        }
        drop(socket);
        wait::until("it to be over", || {
            Ok((ingest.metric("hookwell_ingest_in_flight", &[])? == 0.0).then_some(()))
        })?;
    }
    ensure!(count(&ingest, "aborted")? == 3.0, "{}", ingest.metrics()?);
    is_unharmed(&stage, &ingest)
}

fn who_goes_away_while_kafka_is_asked_is_counted_all_the_same(common: &Common) -> Result<()> {
    let (own, stage) =
        common.stage_on_own_kafka(|settings| settings.ingest = "publish_timeout = \"5m\"".to_owned())?;
    let ingest = stage.ingest()?;
    own.kafka.freeze()?;
    // With an answer that it has not read, its end is a reset.
    let mut socket = Socket::sending(stage.port, b"GET /webhooks/github HTTP/1.1\r\nhost: x\r\n\r\n")?;
    wait::until("the first answer", || Ok((count(&ingest, "method_not_allowed")? == 1.0).then_some(())))?;
    socket.send(request(&Sender::GitHub.event("good"), ""))?;
    wait::until("Kafka to be asked", || {
        Ok((ingest.metric("hookwell_ingest_buffered_bytes", &[])? > 0.0).then_some(()))
    })?;
    drop(socket);
    wait::until("it to be counted", || Ok((count(&ingest, "aborted")? == 1.0).then_some(())))?;
    own.kafka.thaw()?;
    is_unharmed(&stage, &ingest)?;
    let log = ingest.logged();
    let line = log.lines().find(|line| line.contains("\"aborted\"")).context("no line")?;
    ensure!(line.contains("event_id=\"good\""), "{line}");
    Ok(())
}

/// A stage whose ingest begins with few open files, as a service often does.
fn stage_with_few_files(common: &Common, settings: &str) -> Result<(Stage, tempfile::TempDir)> {
    let folder = tempfile::Builder::new().prefix("hookwell-ulimit-").tempdir()?;
    let script = folder.path().join("ingest");
    let lines = format!("#!/bin/sh\nulimit -Sn 512\nexec '{}' \"$@\"\n", common.binaries.ingest.display());
    std::fs::write(&script, lines)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let binaries = Binaries { ingest: script, ..common.binaries.clone() };
    let settings = Settings { ingest: settings.to_owned(), ..Settings::default() };
    Ok((Stage::set(&common.kafka, &binaries, settings)?, folder))
}

fn a_thousand_slow_clients_keep_no_good_one_away_and_take_little_memory(common: &Common) -> Result<()> {
    const CLIENTS: usize = 1000;
    raise_open_files();
    let (stage, _folder) = stage_with_few_files(common, "read_timeout = \"10m\"")?;
    let ingest = stage.ingest()?;
    stage.send(Sender::GitHub, "good")?;
    let before = ingest.resident_bytes()?;
    let promised = head(&Sender::GitHub.event("slow"), "content-length: 1000000\r\n");
    let (body, half_a_head) = ([b'x'; 10_000], &promised.as_bytes()[..promised.len() / 2]);
    let slow = |number: usize| match number % 2 {
        0 => Socket::sending(stage.port, half_a_head),
        _ => Socket::sending(stage.port, [promised.as_bytes(), &body].concat()),
    };
    let clients: Vec<_> = (0..CLIENTS).map(slow).collect::<Result<_>>()?;
    wait::until("all of them to be under way", || {
        let in_flight = ingest.metric("hookwell_ingest_in_flight", &[])?;
        Ok((in_flight == (CLIENTS / 2) as f64).then_some(()))
    })?;
    for _ in 0..20 {
        stage.send(Sender::GitHub, "good")?;
    }
    let taken = ingest.resident_bytes()?.saturating_sub(before);
    ensure!(taken < 150 * 1024 * 1024, "{CLIENTS} slow clients take {taken} bytes");
    drop(clients);
    is_unharmed(&stage, &ingest)
}

fn who_trickles_is_let_go_whatever_it_trickles(common: &Common) -> Result<()> {
    let stage = common
        .stage_with(|settings| settings.ingest = "read_timeout = \"1s\"\nkeep_alive = \"1s\"".to_owned())?;
    let ingest = stage.ingest()?;
    let (port, event) = (stage.port, Sender::GitHub.event("slow"));
    let in_chunks = "transfer-encoding: chunked\r\n";
    let trickles: [(&str, Vec<u8>, &[u8]); 6] = [
        ("nothing at all", Vec::new(), b""),
        ("a head", b"POST / HTTP/1.1\r\n".to_vec(), b"x: y\r\n"),
        ("a body", head(&event, "content-length: 9999\r\n").into(), b"x"),
        ("chunks", head(&event, in_chunks).into(), b"1\r\nx\r\n"),
        ("chunks that nobody reads", head(&event.clone().to("nobody"), in_chunks).into(), b"1\r\nx\r\n"),
        ("a second head", request(&Sender::GitHub.event("good"), ""), b"x"),
    ];
    thread::scope(|scope| {
        let trickle = |(what, begin, drop): (&'static str, Vec<u8>, &'static [u8])| {
            scope.spawn(move || -> Result<()> {
                Socket::sending(port, begin)?.trickle_until_closed(drop).with_context(|| what)
            })
        };
        let clients: Vec<_> = trickles.into_iter().map(trickle).collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a panic"))?)
    })?;
    is_unharmed(&stage, &ingest)
}

fn headers_that_are_too_many_or_too_long_are_refused(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    let event = Sender::GitHub.event("refused");
    let many = "x-many: x\r\n".repeat(1000);
    let long = format!("x-long: {}\r\n", "x".repeat(300_000));
    for (what, more) in [("many", many), ("long", long)] {
        let mut socket = Socket::connect(stage.port)?;
        // It may be refused before it is whole.
        let sent = socket.send(request(&event, &more));
        match socket.answer() {
            Ok(answer) => ensure!(answer.status == 400 || answer.status == 431, "{what}: {answer:?}"),
            Err(error) => ensure!(sent.is_err() || what == "long", "{what}: {error:#}"),
        }
    }
    is_unharmed(&stage, &ingest)
}

fn a_body_in_chunks_is_put_together_and_bounded(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.ingest = "max_body_bytes = 5000".to_owned())?;
    let ingest = stage.ingest()?;
    let in_chunks = |event: &Signed, size: usize| {
        let bytes =
            [head(event, "transfer-encoding: chunked\r\n").as_bytes(), &chunked(&event.body, size)].concat();
        Socket::sending(stage.port, bytes)?.answer()
    };
    let body: Vec<u8> = (0..=255).cycle().take(5000).collect();
    for size in [1, 7, 5000] {
        let answer = in_chunks(&Sender::GitHub.sign("good", body.clone()), size)?;
        ensure!(answer.status == 200, "{size}: {answer:?}");
    }
    let records = stage.reader.read(&stage.topic("events"))?;
    ensure!(records.len() == 3 && records.iter().all(|record| record.value == body));
    let refused = in_chunks(&Sender::GitHub.sign("refused", [&body, &body[..1]].concat()), 1000)?;
    ensure!(refused.status == 413, "{refused:?}");
    let event = Sender::GitHub.event("refused");
    let broken = head(&event, "transfer-encoding: chunked\r\n") + "zz\r\n{}\r\n0\r\n\r\n";
    ensure!(Socket::sending(stage.port, broken)?.answer()?.status == 400);
    is_unharmed(&stage, &ingest)
}

fn a_length_that_lies_is_found_out(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    let event = Sender::GitHub.event("refused");
    let with_length = |length: usize| {
        let head = head(&event, &format!("content-length: {length}\r\n"));
        Socket::sending(stage.port, [head.as_bytes(), &event.body].concat())
    };
    // Shorter: what is left is no request, and what is cut was not signed.
    let mut socket = with_length(event.body.len() - 4)?;
    ensure!(socket.answer()?.status == 403);
    ensure!(socket.answer().map_or(true, |answer| answer.status == 400));
    // Longer: the rest never comes.
    let mut socket = with_length(event.body.len() + 4)?;
    socket.finish()?;
    ensure!(socket.answer().map_or(true, |answer| answer.status == 400));
    wait::until("it to be counted", || Ok((count(&ingest, "aborted")? == 1.0).then_some(())))?;
    is_unharmed(&stage, &ingest)
}

fn a_length_that_can_be_read_in_two_ways_is_refused(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    let event = Sender::GitHub.event("refused");
    let length = format!("content-length: {}\r\n", event.body.len());
    let in_chunks = chunked(&event.body, 10);
    let ambiguous: [(String, &[u8]); 4] = [
        (format!("{length}transfer-encoding: chunked\r\n"), &in_chunks),
        (format!("{length}content-length: 1\r\n"), &event.body),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n".to_owned(), &in_chunks),
        (length.replace(": ", ": +"), &event.body),
    ];
    for (headers, body) in ambiguous {
        let mut socket = Socket::sending(stage.port, [head(&event, &headers).as_bytes(), body].concat())?;
        let answer = socket.answer()?;
        ensure!(answer.status == 400, "{headers}: {answer:?}");
        ensure!(socket.answer().is_err(), "{headers}: the rest was taken for a request");
    }
    is_unharmed(&stage, &ingest)
}

fn a_body_far_beyond_the_limit_is_refused_before_it_is_there(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    let event = Sender::GitHub.sign("refused", "x".repeat(1_100_000));
    let mut socket = Socket::sending(stage.port, head(&event, "content-length: 1100000\r\n"))?;
    ensure!(socket.answer()?.status == 413);
    // A sender that does not look before it has sent everything hears the same.
    ensure!(post(stage.port, &event)?.0 == 413);
    ensure!(count(&ingest, "body_too_large")? == 2.0);
    is_unharmed(&stage, &ingest)
}

fn a_compressed_body_is_passed_on_as_it_is(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let _ingest = stage.ingest()?;
    // `{}`, compressed, and something that says it is and is not.
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    let bodies = [gzip.to_vec(), b"not compressed at all".to_vec()];
    for body in &bodies {
        let event = Sender::GitHub.sign("good", body.clone()).with("content-encoding", "gzip");
        let (status, text) = post(stage.port, &event)?;
        ensure!(status == 200, "{status}: {text}");
    }
    let records = stage.reader.read(&stage.topic("events"))?;
    for (record, body) in records.iter().zip(&bodies) {
        ensure!(record.value == *body && record.header("http-content-encoding") == "gzip", "{record:?}");
    }
    ensure!(records.len() == 2);
    Ok(())
}

fn requests_one_after_the_other_are_answered_in_order_until_garbage_follows(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    let good = request(&Sender::GitHub.event("good"), "");
    let forged = request(&Signed { body: "{}".into(), ..Sender::GitHub.event("forged") }, "");
    let bytes = [&good[..], &forged, &good, b"garbage\r\n\r\n", &good].concat();
    let mut socket = Socket::sending(stage.port, bytes)?;
    for expected in [200, 403, 200] {
        let answer = socket.answer()?;
        ensure!(answer.status == expected, "{answer:?}");
    }
    ensure!(socket.answer().map_or(true, |answer| answer.status == 400));
    ensure!(socket.answer().is_err(), "what follows garbage was answered");
    ensure!(count(&ingest, "accepted")? == 2.0);
    is_unharmed(&stage, &ingest)
}
