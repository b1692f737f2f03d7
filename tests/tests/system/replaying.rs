//! Dead letters: listed, replayed, skipped, and replayed by two people in a hurry.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::program::{Answer, Program};
use hookwell_tests::reader::Record;
use hookwell_tests::sender::{Sender, post};
use hookwell_tests::stage::{Stage, destination};
use hookwell_tests::wait;
use rustix::process::Signal;
use serde_json::Value;

use crate::{Common, tests};

tests![
    a_dead_letter_is_listed_replayed_delivered_and_then_no_longer_listed,
    a_replay_that_fails_again_is_retried_and_dies_as_any_event,
    a_replay_run_twice_is_handled_once_more_and_no_more,
    two_operators_at_once_have_each_event_handled_once_more,
    a_replay_that_is_killed_is_run_again_and_repeats_nothing,
    an_interrupted_replay_says_what_is_left,
    what_cannot_be_replayed_is_skipped_with_the_reason,
    what_no_route_named_goes_where_routes_say_now,
    a_dry_run_tells_what_a_run_then_does,
    filters_choose_and_a_limit_ends_it,
    only_force_replays_what_was_delivered,
    force_without_a_filter_is_refused_where_nobody_can_be_asked,
    a_body_of_exactly_the_limit_is_replayed,
    many_at_once_are_replayed_where_topics_take_small_batches_only,
    wrong_flags_are_told_with_what_is_right,
    a_dead_letter_topic_that_is_missing_or_empty_is_told,
    a_kafka_that_goes_away_in_the_middle_ends_the_replay_and_loses_nothing,
];

/// Has these events refused for good, and the processor stopped.
fn let_die(stage: &Stage, ids: &[&str]) -> Result<()> {
    stage.handler.answer(|_| 400.into());
    let processor = stage.processor()?;
    stage.accept(ids)?;
    stage.until_settled(ids)?;
    ensure!(processor.stop()?.success());
    stage.handler.answer(|_| 200.into());
    Ok(())
}

/// Starts a processor, has it handle all that there is, and stops it.
fn handle_all(stage: &Stage) -> Result<()> {
    let processor = stage.processor()?;
    stage.until_caught_up()?;
    ensure!(processor.stop()?.success());
    Ok(())
}

/// How often each event was answered 200.
fn deliveries(stage: &Stage) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in stage.handler.calls().iter().filter(|call| call.status == 200) {
        *counts.entry(call.event().to_owned()).or_default() += 1;
    }
    counts
}

/// Lines of JSON.
fn lines(answer: &Answer) -> Result<Vec<Value>> {
    ensure!(answer.status == Some(0), "{answer:?}");
    answer.out.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
}

fn list(stage: &Stage, arguments: &[&str]) -> Result<Vec<Value>> {
    lines(&stage.processor_answers(&[&["--list-dlq", "--output", "json"], arguments].concat())?)
}

fn replay(stage: &Stage, arguments: &[&str]) -> Result<Answer> {
    stage.processor_answers(&[&["--replay-dlq", "--output", "json"], arguments].concat())
}

/// Selected, replayed, skipped, failed.
fn sums(answer: &Answer) -> Result<[u64; 4]> {
    let last = answer.out.lines().last().with_context(|| format!("{answer:?}"))?;
    let summary: Value = serde_json::from_str(last)?;
    Ok(["selected", "replayed", "skipped", "failed"].map(|key| summary[key].as_u64().unwrap_or(u64::MAX)))
}

fn a_dead_letter_is_listed_replayed_delivered_and_then_no_longer_listed(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let body = "{ \"id\" : \"é\",\r\n\t\"action\":\"opened\" }\u{0}";
    stage.handler.answer(|_| 400.into());
    let processor = stage.processor()?;
    let ingest = stage.ingest()?;
    ensure!(post(stage.port, &Sender::GitHub.sign("one", body))?.0 == 200);
    stage.until_settled(&["one"])?;

    let groups = list(&stage, &[])?;
    ensure!(groups.len() == 1 && groups[0]["count"] == 1 && groups[0]["reason"] == "permanent", "{groups:?}");
    let records = list(&stage, &["--records"])?;
    let record = &records[0];
    ensure!(record["event_id"] == "one" && record["event_type"] == "push.opened", "{record}");
    ensure!(record["attempts"] == 1 && record["generation"] == 0, "{record}");
    ensure!(record["error"].as_str().is_some_and(|error| error.contains("400")), "{record}");
    let table = stage.processor_answers(&["--list-dlq"])?;
    ensure!(table.out.contains("DESTINATION") && table.out.contains("orders"), "{table:?}");

    stage.handler.answer(|_| 200.into());
    ensure!(sums(&replay(&stage, &[])?)? == [1, 1, 0, 0]);
    stage.handler.until_called(2)?;
    let calls = stage.handler.calls();
    ensure!(calls[1].body == body.as_bytes() && calls[1].header("hookwell-generation") == "1", "{calls:?}");
    ensure!(calls[1].attempt() == "0" && calls[0].key() != calls[1].key(), "{calls:?}");
    wait::until("the dead letter to be settled", || Ok(list(&stage, &[])?.is_empty().then_some(())))?;
    wait::until("no dead letter to be shown as open", || {
        Ok((processor.metric("hookwell_processor_dlq_open", &[])? == 0.0).then_some(()))
    })?;
    let all = list(&stage, &["--all", "--records"])?;
    ensure!(all.len() == 1, "{all:?}");
    ensure!(sums(&replay(&stage, &[])?)? == [0, 0, 0, 0]);
    ensure!(ingest.stop()?.success() && processor.stop()?.success());
    Ok(())
}

fn a_replay_that_fails_again_is_retried_and_dies_as_any_event(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let_die(&stage, &["one"])?;
    stage.handler.answer(|_| 503.into());
    ensure!(sums(&replay(&stage, &[])?)? == [1, 1, 0, 0]);
    let _processor = stage.processor()?;
    let records = wait::until("it to die again", || {
        Ok(Some(list(&stage, &["--records"])?)
            .filter(|records| records.first().is_some_and(|record| record["generation"] == 1)))
    })?;
    ensure!(records.len() == 1 && records[0]["reason"] == "exhausted", "{records:?}");
    ensure!(records[0]["attempts"] == 3, "{records:?}");
    let all = list(&stage, &["--all", "--records"])?;
    ensure!(all.len() == 2, "the first dead letter still lies there: {all:?}");
    stage.handler.answer(|_| 200.into());
    ensure!(sums(&replay(&stage, &[])?)? == [1, 1, 0, 0]);
    wait::until("it to be delivered", || Ok((deliveries(&stage).get("one") == Some(&1)).then_some(())))
}

fn a_replay_run_twice_is_handled_once_more_and_no_more(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ids = ["one", "two", "three"];
    let_die(&stage, &ids)?;
    for _ in 0..2 {
        ensure!(sums(&replay(&stage, &[])?)? == [3, 3, 0, 0]);
    }
    handle_all(&stage)?;
    ensure!(deliveries(&stage) == ids.map(|id| (id.to_owned(), 1)).into(), "{:?}", deliveries(&stage));
    Ok(())
}

fn two_operators_at_once_have_each_event_handled_once_more(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ids: Vec<_> = (0..30).map(|number| format!("evt-{number}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let_die(&stage, &ids)?;
    let processor = stage.processor()?;
    let operators = [stage.start_command(&["--replay-dlq"])?, stage.start_command(&["--replay-dlq"])?];
    operators.iter().try_for_each(succeeds)?;
    stage.until_caught_up()?;
    let counts = deliveries(&stage);
    ensure!(counts.len() == 30 && counts.values().all(|count| *count == 1), "{counts:?}");
    ensure!(processor.stop()?.success());
    Ok(())
}

fn succeeds(command: &Program) -> Result<()> {
    ensure!(command.end()?.success(), "{}", command.logged());
    Ok(())
}

/// Starts a slow replay of thirty dead letters, and waits until it is in the middle.
fn in_the_middle(stage: &Stage) -> Result<(Vec<String>, Program)> {
    let ids: Vec<_> = (0..30).map(|number| format!("evt-{number}")).collect();
    let_die(stage, &ids.iter().map(String::as_str).collect::<Vec<_>>())?;
    let replay = stage.start_command(&["--replay-dlq", "--rate", "1/s"])?;
    stage.reader.until_holds(&stage.topic("events"), 32)?;
    Ok((ids, replay))
}

fn all_are_delivered_once(stage: &Stage, ids: &[String]) -> Result<()> {
    handle_all(stage)?;
    let counts = deliveries(stage);
    ensure!(counts.len() == ids.len() && counts.values().all(|count| *count == 1), "{counts:?}");
    let left = list(stage, &[])?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

fn a_replay_that_is_killed_is_run_again_and_repeats_nothing(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let (ids, replay_in_the_middle) = in_the_middle(&stage)?;
    replay_in_the_middle.kill()?;
    let replayed = stage.reader.read(&stage.topic("events"))?.len() - ids.len();
    ensure!((2..30).contains(&replayed), "{replayed} were replayed before the kill");
    ensure!(sums(&replay(&stage, &[])?)? == [30, 30, 0, 0]);
    all_are_delivered_once(&stage, &ids)
}

fn an_interrupted_replay_says_what_is_left(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let (ids, interrupted) = in_the_middle(&stage)?;
    interrupted.signal(Signal::INT)?;
    let status = interrupted.end()?;
    let replayed = stage.reader.read(&stage.topic("events"))?.len() - ids.len();
    let left = ids.len() - replayed;
    ensure!(status.code() == Some(1) && 0 < left, "{status:?}: {}", interrupted.logged());
    let log = interrupted.logged();
    ensure!(
        log.contains(&format!("selected 30, replayed {replayed}, skipped 0, failed 0, left {left}")),
        "{log}"
    );
    ensure!(log.contains(&format!("interrupted; {left} are left; run the same command again")), "{log}");
    // The first part is handled before the second is replayed.
    handle_all(&stage)?;
    ensure!(sums(&replay(&stage, &[])?)? == [left as u64, left as u64, 0, 0]);
    all_are_delivered_once(&stage, &ids)
}

fn what_cannot_be_replayed_is_skipped_with_the_reason(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.partitions = 1;
        settings.destinations = [destination("orders", ""), destination("mirror", "")].concat();
        settings.routes = "[[routes]]\nsource = \"github\"\nto = [\"orders\", \"mirror\"]".to_owned();
    })?;
    stage.reader.write(
        &stage.topic("events"),
        &Record { partition: 0, offset: 0, key: vec![], value: b"?".to_vec(), headers: vec![], at: 0 },
    )?;
    stage.handler.answer(|_| 400.into());
    let ingest = stage.ingest()?;
    stage.send(Sender::Stripe, "evt_lost")?;
    stage.send(Sender::GitHub, "one")?;
    ensure!(ingest.stop()?.success());
    let processor = stage.processor()?;
    stage.reader.until_holds(&stage.topic("dlq"), 4)?;
    ensure!(processor.stop()?.success());
    stage.handler.answer(|_| 200.into());
    stage.rewrite(|settings| {
        settings.destinations = destination("orders", "");
        settings.routes = "[[routes]]\nsource = \"github\"\nto = [\"orders\"]".to_owned();
    })?;
    let answer = replay(&stage, &[])?;
    ensure!(sums(&answer)? == [4, 1, 3, 0], "{answer:?}");
    for reason in
        ["it cannot be read as an event", "its destination is not configured", "no route names a destination"]
    {
        ensure!(answer.out.contains(reason), "{reason}: {answer:?}");
    }
    let still = list(&stage, &["--destination", "mirror"])?;
    ensure!(still.len() == 1, "what a removed destination left can be asked for by its name: {still:?}");
    handle_all(&stage)?;
    ensure!(list(&stage, &[])?.len() == 3);
    Ok(())
}

fn what_no_route_named_goes_where_routes_say_now(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.routes = "[[routes]]\nsource = \"stripe\"\nto = [\"orders\"]".to_owned();
    })?;
    stage.accept(&["one"])?;
    let processor = stage.processor()?;
    stage.reader.until_holds(&stage.topic("dlq"), 1)?;
    ensure!(processor.stop()?.success() && stage.handler.count() == 0);
    stage.rewrite(|settings| {
        settings.routes = "[[routes]]\nsource = \"github\"\nto = [\"orders\"]".to_owned();
    })?;
    for _ in 0..2 {
        ensure!(sums(&replay(&stage, &["--reason", "unroutable"])?)? == [1, 1, 0, 0]);
    }
    handle_all(&stage)?;
    ensure!(stage.handler.count() == 1 && list(&stage, &[])?.is_empty());
    Ok(())
}

fn a_dry_run_tells_what_a_run_then_does(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let_die(&stage, &["one", "two", "three"])?;
    let events = stage.reader.read(&stage.topic("events"))?.len();
    let dry = replay(&stage, &["--dry-run", "--limit", "2"])?;
    ensure!(sums(&dry)? == [2, 0, 0, 0] && dry.out.contains("\"left\":2"), "{dry:?}");
    ensure!(stage.reader.read(&stage.topic("events"))?.len() == events, "a dry run publishes nothing");
    let run = replay(&stage, &["--limit", "2"])?;
    ensure!(sums(&run)? == [2, 2, 0, 0], "{run:?}");
    let groups = |answer: &Answer| {
        answer.out.lines().filter(|line| line.contains("\"action\"")).map(str::to_owned).collect::<Vec<_>>()
    };
    ensure!(groups(&dry) == groups(&run) && !groups(&dry).is_empty(), "{dry:?}\n{run:?}");
    let words = stage.processor_answers(&["--replay-dlq", "--dry-run"])?;
    ensure!(words.out.contains("ACTION") && words.out.contains("a dry run"), "{words:?}");
    Ok(())
}

fn filters_choose_and_a_limit_ends_it(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let_die(&stage, &["one", "two", "three"])?;
    let chosen = [
        (&["--id", "one", "--id", "three"][..], 2),
        (&["--id", "four"], 0),
        (&["--source", "github"], 3),
        (&["--source", "stripe"], 0),
        (&["--destination", "orders", "--type", "push*"], 3),
        (&["--type", "pull_request"], 0),
        (&["--reason", "permanent"], 3),
        (&["--reason", "exhausted", "--reason", "too_old"], 0),
        (&["--since", "1h"], 3),
        (&["--until", "2026-01-01T00:00:00Z"], 0),
    ];
    for (filter, expected) in chosen {
        let count = list(&stage, &[filter, &["--records"]].concat())?.len();
        ensure!(count == expected, "{filter:?}: {count}");
    }
    let nothing = stage.processor_answers(&["--replay-dlq", "--id", "four"])?;
    ensure!(nothing.status == Some(0) && nothing.err.contains("fits these filters"), "{nothing:?}");
    ensure!(sums(&replay(&stage, &["--id", "two"])?)? == [1, 1, 0, 0]);
    handle_all(&stage)?;
    ensure!(deliveries(&stage) == [("two".to_owned(), 1)].into(), "{:?}", deliveries(&stage));
    ensure!(sums(&replay(&stage, &["--limit", "1"])?)? == [1, 1, 0, 0]);
    handle_all(&stage)?;
    ensure!(list(&stage, &["--records"])?.len() == 1);
    Ok(())
}

fn only_force_replays_what_was_delivered(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let_die(&stage, &["one"])?;
    ensure!(sums(&replay(&stage, &[])?)? == [1, 1, 0, 0]);
    handle_all(&stage)?;
    ensure!(sums(&replay(&stage, &["--id", "one"])?)? == [0, 0, 0, 0]);
    for _ in 0..2 {
        ensure!(sums(&replay(&stage, &["--id", "one", "--force"])?)? == [1, 1, 0, 0]);
    }
    handle_all(&stage)?;
    ensure!(deliveries(&stage) == [("one".to_owned(), 2)].into(), "{:?}", deliveries(&stage));
    Ok(())
}

fn force_without_a_filter_is_refused_where_nobody_can_be_asked(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let_die(&stage, &["one"])?;
    let refused = replay(&stage, &["--force"])?;
    ensure!(refused.status == Some(2) && refused.err.contains("--yes"), "{refused:?}");
    ensure!(stage.reader.read(&stage.topic("events"))?.len() == 1);
    let dry = replay(&stage, &["--force", "--dry-run"])?;
    ensure!(dry.status == Some(0), "{dry:?}");
    ensure!(sums(&replay(&stage, &["--force", "--yes"])?)? == [1, 1, 0, 0]);
    Ok(())
}

fn a_body_of_exactly_the_limit_is_replayed(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.ingest = "max_body_bytes = 300000".to_owned())?;
    stage.handler.answer(|_| 400.into());
    let ingest = stage.ingest()?;
    let body = "x".repeat(300_000);
    let mut signed = Sender::GitHub.sign("large", body.clone());
    // As much in kept headers as there is room for.
    signed.headers.push(("user-agent".to_owned(), "y".repeat(4_000)));
    ensure!(post(stage.port, &signed)?.0 == 200);
    ensure!(ingest.stop()?.success());
    let processor = stage.processor()?;
    stage.until_settled(&["large"])?;
    ensure!(processor.stop()?.success());
    stage.handler.answer(|_| 200.into());
    ensure!(sums(&replay(&stage, &[])?)? == [1, 1, 0, 0]);
    handle_all(&stage)?;
    let calls = stage.handler.calls();
    ensure!(calls.last().is_some_and(|call| call.status == 200 && call.body == body), "{calls:?}");
    Ok(())
}

fn many_at_once_are_replayed_where_topics_take_small_batches_only(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.partitions = 1;
        settings.ingest = "max_body_bytes = 20000".to_owned();
    })?;
    stage.handler.answer(|_| 400.into());
    let ingest = stage.ingest()?;
    for number in 0..80 {
        let signed = Sender::GitHub.sign(&format!("large-{number}"), "x".repeat(20_000));
        ensure!(post(stage.port, &signed)?.0 == 200);
    }
    ensure!(ingest.stop()?.success());
    let processor = stage.processor()?;
    stage.reader.until_holds(&stage.topic("dlq"), 80)?;
    ensure!(processor.stop()?.success());
    let answer = replay(&stage, &[])?;
    ensure!(sums(&answer)? == [80, 80, 0, 0], "{answer:?}");
    Ok(())
}

fn wrong_flags_are_told_with_what_is_right(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let wrong = [
        (&["--list-dlq", "--reason", "bad_luck"][..], "destination_removed"),
        (&["--list-dlq", "--since", "yesterday"], "2026-11-24T09:00:00Z"),
        (&["--list-dlq", "--since", "1h", "--until", "2h"], "does not lie before"),
        (&["--replay-dlq", "--rate", "-5/s"], "50/s"),
        (&["--replay-dlq", "--limit", "-1"], "invalid value"),
        (&["--replay-dlq", "--records"], "'--records'"),
        (&["--list-dlq", "--force"], "'--force'"),
        (&["--list-dlq", "--replay-dlq"], "cannot be used with"),
        (&["--source", "github"], "--list-dlq"),
        (&["--list-dlq", "--destination", "odrers"], "known: orders"),
        (&["--replay-dlq", "--source", "gihtub"], "known: github, shopify, standard-webhooks, stripe"),
    ];
    for (arguments, words) in wrong {
        let answer = stage.processor_answers(arguments)?;
        ensure!(answer.status == Some(2) && answer.err.contains(words), "{arguments:?}: {answer:?}");
    }
    Ok(())
}

fn a_dead_letter_topic_that_is_missing_or_empty_is_told(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    for command in ["--list-dlq", "--replay-dlq"] {
        let empty = stage.processor_answers(&[command])?;
        ensure!(empty.status == Some(0) && empty.err.contains("there is no dead letter"), "{empty:?}");
    }
    let bare = common.bare_stage(|_| ())?;
    for command in ["--list-dlq", "--replay-dlq"] {
        let missing = bare.processor_answers(&[command])?;
        ensure!(missing.status == Some(3) && missing.err.contains("--create-topics"), "{missing:?}");
    }
    Ok(())
}

fn a_kafka_that_goes_away_in_the_middle_ends_the_replay_and_loses_nothing(common: &Common) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(|settings| {
        // What is not acknowledged for so long is given up.
        settings.kafka_properties =
            "\"session.timeout.ms\" = 3000\n\"message.timeout.ms\" = 10000".to_owned();
    })?;
    let (ids, cut_off) = in_the_middle(&stage)?;
    own.kafka.kill()?;
    ensure!(cut_off.end()?.code() == Some(3), "{}", cut_off.logged());
    let log = cut_off.logged();
    ensure!(log.contains("selected 30") && log.contains("run the same command again"), "{log}");
    own.kafka.revive()?;
    let again = replay(&stage, &[])?;
    ensure!(again.status == Some(0), "{again:?}");
    all_are_delivered_once(&stage, &ids)
}
