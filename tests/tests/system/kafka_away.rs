//! Kafka dies or freezes: nobody hears a 200 for nothing, and no event pays for it.

use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_tests::handler::Reply;
use hookwell_tests::sender::{Sender, client, post, post_until_accepted};
use hookwell_tests::wait;

use crate::{Common, tests};

tests![
    an_outage_of_kafka_spends_no_attempt_and_writes_no_dead_letter,
    retries_that_waited_when_kafka_went_away_are_still_made,
    without_kafka_ingest_says_503_with_retry_after_and_is_not_ready,
    a_kafka_that_answers_nothing_makes_503_and_never_a_hang,
];

fn an_outage_of_kafka_spends_no_attempt_and_writes_no_dead_letter(common: &Common) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(|settings| {
        settings.retry = "tiers = [\"300ms\"]\nmax_attempts = 1".to_owned();
    })?;
    stage.handler.answer(|_| Reply { after: Duration::from_millis(800), ..Reply::from(200) });
    let _processor = stage.processor()?;
    let ids = ["one", "two", "three", "four", "five"];
    stage.accept(&ids)?;
    stage.handler.until_called(3)?;
    own.kafka.kill()?;
    // Every handler has answered when Kafka is back.
    wait::pause(Duration::from_secs(2));
    own.kafka.revive()?;
    let audit = stage.until_settled(&ids)?;
    ensure!(audit.is_clean() && (audit.done, audit.dead) == (5, 0), "{audit}");
    let calls = stage.handler.calls();
    ensure!(calls.iter().all(|call| call.attempt() == "0"), "an attempt was spent: {calls:?}");
    ensure!(stage.reader.read(&stage.topic("retry.1"))?.is_empty());
    Ok(())
}

fn retries_that_waited_when_kafka_went_away_are_still_made(common: &Common) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(|settings| {
        settings.partitions = 1;
        settings.retry = "tiers = [\"3s\"]\nmax_attempts = 2\njitter = 0.0".to_owned();
    })?;
    stage.handler.answer(|call| match (call.event(), call.attempt()) {
        ("slow", _) => Reply { after: Duration::from_secs(1), ..Reply::from(200) },
        (_, "0") => Reply::from(500),
        _ => Reply::from(200),
    });
    let ingest = stage.ingest()?;
    let processor = stage.processor()?;
    // Together they weigh more than a lane lets wait in memory.
    for id in ["one", "two"] {
        let signed = Sender::GitHub.sign(id, vec![b'x'; 300_000]);
        ensure!(post(stage.port, &signed)?.0 == 200);
    }
    stage.reader.until_holds(&stage.topic("retry.1"), 2)?;
    stage.send(Sender::GitHub, "slow")?;
    stage.handler.until_called(3)?;
    own.kafka.kill()?;
    wait::until("the producer to be lost", || {
        Ok(processor.logged().contains("taking over anew").then_some(()))
    })?;
    own.kafka.revive()?;
    let ids = ["one", "two", "slow"];
    let audit = stage.until_settled(&ids)?;
    ensure!(audit.is_clean() && audit.done == 3, "{audit}");
    ensure!(stage.handler.count() == 5, "{:?}", stage.handler.calls());
    drop(ingest);
    Ok(())
}

fn without_kafka_ingest_says_503_with_retry_after_and_is_not_ready(common: &Common) -> Result<()> {
    let (own, stage) =
        common.stage_on_own_kafka(|settings| settings.ingest = "publish_timeout = \"1s\"".to_owned())?;
    let ingest = stage.ingest()?;
    post_until_accepted(stage.port, &Sender::GitHub.event("before"))?;
    own.kafka.kill()?;
    let signed = Sender::GitHub.event("during");
    let url = format!("http://127.0.0.1:{}/webhooks/github", stage.port);
    let mut request = client().post(url).body(signed.body.clone());
    for (name, value) in &signed.headers {
        request = request.header(name, value);
    }
    let response = request.send()?;
    ensure!(response.status() == 503 && response.headers().contains_key("retry-after"), "{response:?}");
    ensure!(response.headers()["content-type"] == "application/problem+json", "{response:?}");
    wait::until("ingest to be not ready", || Ok((!ingest.is_ready()?).then_some(())))?;
    own.kafka.revive()?;
    wait::until("ingest to be ready again", || Ok(ingest.is_ready()?.then_some(())))?;
    post_until_accepted(stage.port, &signed)?;
    let accepted = [("github".to_owned(), "before".to_owned()), ("github".to_owned(), "during".to_owned())];
    ensure!(stage.audit(&accepted.into())?.lost.is_empty());
    Ok(())
}

fn a_kafka_that_answers_nothing_makes_503_and_never_a_hang(common: &Common) -> Result<()> {
    let (own, stage) =
        common.stage_on_own_kafka(|settings| settings.ingest = "publish_timeout = \"1s\"".to_owned())?;
    let ingest = stage.ingest()?;
    own.kafka.freeze()?;
    // Many at once: what does not fit is shed, what fits runs into its time-out.
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let port = stage.port;
        let send = |n: usize| scope.spawn(move || post(port, &Sender::GitHub.event(&format!("id-{n}"))));
        let all: Vec<_> = (0..32).map(send).collect();
        all.into_iter()
            .map(|thread| thread.join().map_or(0, |answer| answer.map_or(0, |(status, _)| status)))
            .collect()
    });
    ensure!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    ensure!(ingest.metric("hookwell_ingest_requests_total", &["outcome=\"accepted\""])? == 0.0);
    own.kafka.thaw()?;
    post_until_accepted(stage.port, &Sender::GitHub.event("after"))?;
    ensure!(ingest.metric("hookwell_ingest_in_flight", &[])? == 0.0);
    Ok(())
}
