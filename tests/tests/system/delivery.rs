//! What becomes of an event: deduplicated, retried, dead-lettered, routed.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_tests::handler::{Call, Reply};
use hookwell_tests::sender::{Sender, post};
use hookwell_tests::stage::destination;
use hookwell_tests::wait;
use rustix::process::Signal;

use crate::{Common, tests};

tests![
    an_event_reaches_its_destination_byte_for_byte_with_everything_that_it_needs,
    copies_of_an_event_are_handled_once_before_and_after_a_restart,
    copies_that_arrive_while_the_first_is_handled_wait_for_it,
    one_id_from_two_sources_is_two_events,
    a_missing_event_id_never_becomes_an_equal_event_id,
    retries_are_never_early_and_attempts_are_numbered,
    retry_after_is_rounded_up_to_a_tier,
    the_last_failure_is_a_dead_letter_with_its_whole_story,
    what_is_too_old_is_not_tried_again,
    a_body_of_exactly_the_limit_passes_through_retries_into_the_dead_letters,
    each_destination_has_its_own_fate,
    what_no_route_names_is_a_dead_letter_or_ignored_as_configured,
    a_retry_whose_destination_is_gone_is_a_dead_letter,
    a_tier_that_is_gone_from_the_configuration_is_followed_until_it_is_empty,
    a_kafka_destination_gets_each_event_exactly_once,
    what_was_accepted_under_a_higher_limit_is_still_passed_on,
    routes_change_without_a_restart,
    a_reload_keeps_the_tiers_of_the_start,
    a_kafka_destination_that_a_reload_brings_uses_all_partitions_of_its_topic,
    forgotten_offsets_repeat_no_work,
    offsets_beyond_the_end_of_the_log_are_not_believed,
    partitions_beyond_max_lanes_share_threads_and_lose_nothing,
];

fn an_event_reaches_its_destination_byte_for_byte_with_everything_that_it_needs(
    common: &Common,
) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.destinations =
            destination("orders", "signing_secret = { file = \"FOLDER/standard-webhooks\" }");
    })?;
    let _ingest = stage.ingest()?;
    let _processor = stage.processor()?;
    let body = "{ \"id\" : \"é\",\r\n\t\"action\":\"opened\" }\u{0}";
    let signed = Sender::GitHub.sign("d-1", body);
    ensure!(post(stage.port, &signed)?.0 == 200);
    stage.handler.until_called(1)?;

    let call = &stage.handler.calls()[0];
    ensure!(call.body == body.as_bytes(), "{:?}", call.body);
    let headers = [
        ("content-type", "application/json"),
        ("hookwell-source", "github"),
        ("hookwell-event-id", "d-1"),
        ("hookwell-event-type", "push.opened"),
        ("hookwell-attempt", "0"),
        ("hookwell-generation", "0"),
        ("x-github-event", "push"),
    ];
    for (name, value) in headers {
        ensure!(call.header(name) == value, "{name}: {:?}", call.header(name));
    }
    ensure!(call.header("webhook-signature").starts_with("v1,"), "{call:?}");
    ensure!(!call.key().is_empty() && !call.header("webhook-timestamp").is_empty(), "{call:?}");
    ensure!(call.header("traceparent").len() == 55, "{call:?}");

    let record = &stage.reader.read(&stage.topic("events"))?[0];
    ensure!(record.value == body.as_bytes());
    ensure!(
        record.header("ce_specversion") == "1.0" && record.header("ce_type") == "push.opened",
        "{record:?}"
    );
    Ok(())
}

fn copies_of_an_event_are_handled_once_before_and_after_a_restart(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let processor = stage.processor()?;
    stage.accept(&["one", "two", "one"])?;
    stage.until_settled(&["one", "two"])?;
    stage.until_caught_up()?;
    ensure!(processor.stop()?.success());

    let processor = stage.processor()?;
    stage.accept(&["two", "one", "two"])?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 2, "{:?}", stage.handler.calls());
    wait::until("copies to be counted", || {
        let copies = processor.metric("hookwell_processor_duplicates_total", &["source=\"github\""])?;
        Ok((copies == 3.0).then_some(()))
    })?;
    ensure!(stage.until_settled(&["one", "two"])?.is_clean());
    Ok(())
}

fn copies_that_arrive_while_the_first_is_handled_wait_for_it(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.handler.answer(|_| Reply { after: Duration::from_millis(500), ..Reply::from(200) });
    stage.accept(&["one", "one", "one", "one"])?;
    let _processor = stage.processor()?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 1, "{:?}", stage.handler.calls());
    ensure!(stage.until_settled(&["one"])?.is_clean());
    Ok(())
}

fn one_id_from_two_sources_is_two_events(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let _ingest = stage.ingest()?;
    let _processor = stage.processor()?;
    for sender in Sender::ALL {
        stage.send(sender, "same")?;
    }
    let accepted = Sender::ALL.iter().map(|sender| (sender.name().to_owned(), "same".to_owned())).collect();
    let audit = stage.until_all_settled(&accepted)?;
    ensure!(audit.is_clean() && audit.done == 4, "{audit}");
    ensure!(stage.handler.count() == 4);
    Ok(())
}

fn a_missing_event_id_never_becomes_an_equal_event_id(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let _ingest = stage.ingest()?;
    let _processor = stage.processor()?;
    // Stripe's id lies in the body; these have none, or one that names nothing.
    for body in ["{}", "{\"a\":1}", "not json", "{\"id\":null}", "{\"id\":\"\"}", "{}"] {
        let (status, text) = post(stage.port, &Sender::Stripe.sign("", body))?;
        ensure!(status == 200, "{body}: {status} {text}");
    }
    stage.until_caught_up()?;
    let handled: BTreeSet<_> = stage.handler.calls().into_iter().map(|call| call.body).collect();
    ensure!(handled.len() == 5 && stage.handler.count() == 5, "{:?}", stage.handler.calls());
    Ok(())
}

fn retries_are_never_early_and_attempts_are_numbered(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.handler.answer(|call| Reply::from(if call.attempt() == "2" { 200 } else { 503 }));
    stage.accept(&["one"])?;
    let _processor = stage.processor()?;
    ensure!(stage.until_settled(&["one"])?.is_clean());
    let calls = stage.handler.calls();
    let attempts: Vec<_> = calls.iter().map(Call::attempt).collect();
    ensure!(attempts == ["0", "1", "2"], "{attempts:?}");
    ensure!(calls.iter().all(|call| call.key() == calls[0].key()), "the key changed: {calls:?}");
    ensure!(calls[1].at - calls[0].at >= 300 && calls[2].at - calls[1].at >= 1000, "early: {calls:?}");
    Ok(())
}

fn retry_after_is_rounded_up_to_a_tier(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.retry = "tiers = [\"100ms\", \"2s\", \"1h\"]\nmax_attempts = 3\njitter = 0.0".to_owned();
    })?;
    stage.handler.answer(|call| match call.attempt() {
        "0" => Reply { retry_after: Some("1".to_owned()), ..Reply::from(429) },
        _ => Reply::from(200),
    });
    stage.accept(&["one"])?;
    let _processor = stage.processor()?;
    ensure!(stage.until_settled(&["one"])?.is_clean());
    ensure!(stage.reader.read(&stage.topic("retry.1"))?.is_empty());
    ensure!(stage.reader.read(&stage.topic("retry.2"))?.len() == 1);
    let calls = stage.handler.calls();
    ensure!(calls[1].at - calls[0].at >= 1000, "early: {calls:?}");
    Ok(())
}

fn the_last_failure_is_a_dead_letter_with_its_whole_story(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.handler.answer(|_| Reply::from(500));
    stage.accept(&["one"])?;
    let _processor = stage.processor()?;
    let audit = stage.until_settled(&["one"])?;
    ensure!(audit.is_clean() && audit.dead == 1, "{audit}");
    ensure!(stage.handler.count() == 3, "max_attempts counts the first: {:?}", stage.handler.calls());

    let event = &stage.reader.read(&stage.topic("events"))?[0];
    let letter = &stage.dead_letters()?[0];
    ensure!(letter.value == event.value && letter.key == event.key && letter.partition == event.partition);
    let story = [
        ("ce_id", "one".to_owned()),
        ("hookwell-destination", "orders".to_owned()),
        ("hookwell-generation", "0".to_owned()),
        ("hookwell-error-class", "exhausted".to_owned()),
        ("hookwell-original-topic", stage.topic("events")),
        ("hookwell-original-partition", event.partition.to_string()),
        ("hookwell-original-offset", event.offset.to_string()),
        ("http-x-github-event", "push".to_owned()),
    ];
    for (name, value) in story {
        ensure!(letter.header(name) == value, "{name}: {:?} in {letter:?}", letter.header(name));
    }
    ensure!(letter.header("hookwell-error").contains("500"), "{letter:?}");
    let names: BTreeSet<_> = letter.headers.iter().map(|(name, _)| name).collect();
    ensure!(names.len() == letter.headers.len(), "headers were appended: {letter:?}");
    Ok(())
}

fn what_is_too_old_is_not_tried_again(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.retry = "tiers = [\"600ms\"]\nmax_attempts = 100\nmax_age = \"1s\"\njitter = 0.0".to_owned();
    })?;
    stage.handler.answer(|_| Reply::from(500));
    stage.accept(&["one"])?;
    let _processor = stage.processor()?;
    ensure!(stage.until_settled(&["one"])?.dead == 1);
    ensure!(stage.dead_letters()?[0].header("hookwell-error-class") == "too_old");
    ensure!(stage.handler.count() < 5, "{:?}", stage.handler.calls());
    Ok(())
}

fn a_body_of_exactly_the_limit_passes_through_retries_into_the_dead_letters(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.ingest = "max_body_bytes = 1500000".to_owned())?;
    stage.handler.answer(|_| Reply::from(500));
    let _ingest = stage.ingest()?;
    let _processor = stage.processor()?;
    // Noise, for what compresses well is no proof.
    let noise: Vec<u8> = (0..1_500_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let over = [noise.as_slice(), b"x"].concat();
    ensure!(post(stage.port, &Sender::GitHub.sign("over", over))?.0 == 413);
    ensure!(post(stage.port, &Sender::GitHub.sign("full", noise.clone()))?.0 == 200);
    let audit = stage.until_settled(&["full"])?;
    ensure!(audit.is_clean() && audit.dead == 1, "{audit}");
    ensure!(stage.dead_letters()?[0].value == noise);
    ensure!(stage.handler.calls().iter().all(|call| call.body == noise));
    Ok(())
}

fn each_destination_has_its_own_fate(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.destinations =
            destination("orders", "") + &destination("billing", "[destinations.retry]\nmax_attempts = 1");
        settings.routes = "[[routes]]\nsource = \"*\"\nto = [\"orders\", \"billing\"]".to_owned();
    })?;
    stage.handler.answer(|call| Reply::from(if call.path == "/billing" { 500 } else { 200 }));
    stage.accept(&["one"])?;
    let processor = stage.processor()?;
    ensure!(stage.until_settled(&["one"])?.done == 1);
    let letter = &stage.reader.until_holds(&stage.topic("dlq"), 1)?[0];
    ensure!(letter.header("hookwell-destination") == "billing");
    stage.until_caught_up()?;
    let calls = stage.handler.calls();
    ensure!(calls.len() == 2 && calls[0].key() != calls[1].key(), "{calls:?}");
    let of_billing = ["destination=\"billing\"", "reason=\"exhausted\""];
    wait::until("the dead letter to be counted", || {
        let letters = processor.metric("hookwell_processor_dead_letters_total", &of_billing)?;
        Ok((letters == 1.0).then_some(()))
    })?;
    Ok(())
}

fn what_no_route_names_is_a_dead_letter_or_ignored_as_configured(common: &Common) -> Result<()> {
    let routes =
        "[[routes]]\nsource = \"github\"\ntypes = [\"pull_request.*\"]\nto = [\"orders\"]".to_owned();
    let stage = common.stage_with(|settings| settings.routes = routes.clone())?;
    stage.accept(&["one"])?;
    let _processor = stage.processor()?;
    let letter = &stage.reader.until_holds(&stage.topic("dlq"), 1)?[0];
    ensure!(letter.header("hookwell-error-class") == "unroutable", "{letter:?}");

    let stage = common.stage_with(|settings| {
        settings.routes = routes;
        settings.processor = "unrouted = \"ignore\"".to_owned();
    })?;
    stage.accept(&["one"])?;
    let _processor = stage.processor()?;
    stage.until_caught_up()?;
    ensure!(stage.dead_letters()?.is_empty() && stage.handler.count() == 0);
    Ok(())
}

fn a_retry_whose_destination_is_gone_is_a_dead_letter(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.retry = "tiers = [\"300ms\", \"1s\"]\nmax_attempts = 1000\njitter = 0.0".to_owned();
    })?;
    stage.handler.answer(|_| Reply::from(500));
    stage.accept(&["one"])?;
    let processor = stage.processor()?;
    stage.reader.until_holds(&stage.topic("retry.1"), 1)?;
    ensure!(processor.stop()?.success());
    let calls = stage.handler.count();
    stage.rewrite(|settings| {
        settings.destinations = destination("other", "");
        settings.routes = "[[routes]]\nsource = \"*\"\nto = [\"other\"]".to_owned();
    })?;
    let _processor = stage.processor()?;
    let letter = &stage.reader.until_holds(&stage.topic("dlq"), 1)?[0];
    ensure!(letter.header("hookwell-error-class") == "destination_removed", "{letter:?}");
    ensure!(letter.header("hookwell-destination") == "orders");
    ensure!(stage.handler.count() == calls);
    Ok(())
}

fn a_tier_that_is_gone_from_the_configuration_is_followed_until_it_is_empty(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.retry = "tiers = [\"100ms\", \"200ms\", \"2s\"]\nmax_attempts = 9\njitter = 0.0".to_owned();
    })?;
    stage.handler.answer(|call| Reply::from(if call.attempt() == "3" { 200 } else { 500 }));
    stage.accept(&["one"])?;
    let processor = stage.processor()?;
    stage.reader.until_holds(&stage.topic("retry.3"), 1)?;
    ensure!(processor.stop()?.success());
    stage.rewrite(|settings| settings.retry = "tiers = [\"100ms\"]\nmax_attempts = 9".to_owned())?;
    let processor = stage.processor()?;
    let audit = stage.until_settled(&["one"])?;
    ensure!(audit.is_clean() && audit.done == 1, "{audit}");
    for topic in ["retry.2", "retry.3"] {
        ensure!(processor.logged().contains(&stage.topic(topic)), "it did not say that it follows {topic}");
    }
    Ok(())
}

fn a_kafka_destination_gets_each_event_exactly_once(common: &Common) -> Result<()> {
    let other = common.stage()?;
    // The events topic of another stage serves as a topic that exists.
    let topic = other.topic("events");
    let stage = common.stage_with(|settings| {
        settings.destinations =
            format!("[[destinations]]\nname = \"orders\"\nkind = \"kafka\"\ntopic = \"{topic}\"");
    })?;
    let ids: Vec<_> = (0..30).map(|n| format!("id-{n}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    stage.accept(&ids)?;
    stage.start_processor("transaction-offsets-sent=return")?.die()?;
    stage.start_processor("transaction-committed=return")?.die()?;
    let _processor = stage.processor()?;
    stage.accept(&ids)?;
    ensure!(stage.until_settled(&ids)?.is_clean());
    stage.until_caught_up()?;
    let records = stage.reader.read(&topic)?;
    let distinct: BTreeSet<_> = records.iter().map(|record| record.header("ce_id")).collect();
    ensure!(records.len() == 30 && distinct.len() == 30, "{} records of {}", records.len(), distinct.len());
    ensure!(records[0].header("ce_source") == "github" && !records[0].key.is_empty());
    Ok(())
}

fn routes_change_without_a_restart(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let _ingest = stage.ingest()?;
    let processor = stage.processor()?;
    stage.send(Sender::GitHub, "one")?;
    stage.handler.until_called(1)?;
    stage.rewrite(|settings| {
        settings.destinations = destination("orders", "") + &destination("billing", "");
        settings.routes = "[[routes]]\nsource = \"*\"\nto = [\"billing\"]".to_owned();
    })?;
    processor.signal(Signal::HUP)?;
    wait::until("the reload", || Ok(processor.logged().contains("reload").then_some(())))?;
    stage.send(Sender::GitHub, "two")?;
    stage.handler.until_called(2)?;
    let paths: Vec<_> = stage.handler.calls().iter().map(|call| call.path.clone()).collect();
    ensure!(paths == ["/orders", "/billing"], "{paths:?}");

    stage.rewrite(|settings| settings.routes = "[[routes]]\nsource = \"*\"\nto = [\"nobody\"]".to_owned())?;
    processor.signal(Signal::HUP)?;
    wait::until("the refusal", || Ok(processor.logged().contains("nobody").then_some(())))?;
    stage.send(Sender::GitHub, "three")?;
    stage.handler.until_called(3)?;
    ensure!(stage.handler.calls()[2].path == "/billing", "a faulty configuration was taken");
    Ok(())
}

fn what_was_accepted_under_a_higher_limit_is_still_passed_on(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.ingest = "max_body_bytes = 1500000".to_owned())?;
    stage.handler.answer(|_| Reply::from(400));
    let body = vec![b'x'; 1_500_000];
    let ingest = stage.ingest()?;
    ensure!(post(stage.port, &Sender::GitHub.sign("large", body.clone()))?.0 == 200);
    ensure!(ingest.stop()?.success());
    stage.rewrite(|settings| settings.ingest = "max_body_bytes = 10000".to_owned())?;
    let _processor = stage.processor()?;
    let letter = &stage.reader.until_holds(&stage.topic("dlq"), 1)?[0];
    ensure!(letter.value == body && letter.header("ce_id") == "large");
    Ok(())
}

fn a_reload_keeps_the_tiers_of_the_start(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.retry = "tiers = [\"200ms\"]\nmax_attempts = 3\njitter = 0.0".to_owned();
    })?;
    stage.handler.answer(|call| Reply::from(if call.attempt() == "2" { 200 } else { 500 }));
    let processor = stage.processor()?;
    stage.rewrite(|settings| {
        settings.retry = "tiers = [\"200ms\", \"300ms\"]\nmax_attempts = 3\njitter = 0.0".to_owned();
    })?;
    processor.signal(Signal::HUP)?;
    wait::until("the reload", || Ok(processor.logged().contains("reloaded").then_some(())))?;
    stage.accept(&["one"])?;
    let audit = stage.until_settled(&["one"])?;
    ensure!(audit.is_clean() && audit.done == 1, "{audit}");
    Ok(())
}

fn a_kafka_destination_that_a_reload_brings_uses_all_partitions_of_its_topic(common: &Common) -> Result<()> {
    let other = common.stage()?;
    let topic = other.topic("events");
    let stage = common.stage()?;
    let processor = stage.processor()?;
    stage.rewrite(|settings| {
        settings.destinations =
            format!("[[destinations]]\nname = \"orders\"\nkind = \"kafka\"\ntopic = \"{topic}\"");
    })?;
    processor.signal(Signal::HUP)?;
    wait::until("the reload", || Ok(processor.logged().contains("reloaded").then_some(())))?;
    let ids: Vec<_> = (0..30).map(|n| format!("id-{n}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    stage.accept(&ids)?;
    ensure!(stage.until_settled(&ids)?.is_clean());
    let partitions: BTreeSet<_> = other.reader.read(&topic)?.iter().map(|record| record.partition).collect();
    ensure!(partitions.len() == 3, "{partitions:?}");
    Ok(())
}

fn forgotten_offsets_repeat_no_work(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.handler.answer(|call| Reply::from(if call.event() == "bad" { 400 } else { 200 }));
    stage.accept(&["one", "two", "bad"])?;
    let processor = stage.processor()?;
    stage.until_settled(&["one", "two", "bad"])?;
    stage.until_caught_up()?;
    ensure!(processor.stop()?.success());
    stage.reader.forget_offsets(&stage.prefix)?;

    let _processor = stage.processor()?;
    stage.accept(&["three"])?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 4, "{:?}", stage.handler.calls());
    ensure!(stage.until_settled(&["one", "two", "three", "bad"])?.is_clean());
    Ok(())
}

fn offsets_beyond_the_end_of_the_log_are_not_believed(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    stage.accept(&["one", "two"])?;
    let processor = stage.processor()?;
    stage.until_settled(&["one", "two"])?;
    stage.until_caught_up()?;
    ensure!(processor.stop()?.success());
    // As if Kafka had lost the end of its log after it was read.
    stage.reader.commit(&stage.prefix, &stage.topic("events"), 0, 1000)?;
    stage.accept(&["three"])?;
    let processor = stage.processor()?;
    let audit = stage.until_settled(&["one", "two", "three"])?;
    ensure!(audit.is_clean() && audit.done == 3, "{audit}");
    ensure!(stage.handler.count() == 3, "{:?}", stage.handler.calls());
    ensure!(processor.logged().contains("Kafka has lost records"), "{}", processor.logged());
    stage.until_caught_up()
}

fn partitions_beyond_max_lanes_share_threads_and_lose_nothing(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.partitions = 8;
        settings.processor = "max_lanes = 2".to_owned();
    })?;
    let ids: Vec<_> = (0..60).map(|n| format!("id-{n}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    stage.handler.answer(|call| {
        Reply::from(if call.attempt() == "0" && call.event().ends_with('3') { 500 } else { 200 })
    });
    stage.accept(&ids)?;
    let _processor = stage.processor()?;
    let audit = stage.until_settled(&ids)?;
    ensure!(audit.is_clean() && audit.done == 60, "{audit}");
    Ok(())
}
