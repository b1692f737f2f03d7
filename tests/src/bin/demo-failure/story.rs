//! The story, scene by scene. All that it shows comes from Kafka, the handler's book and the programs.

use std::fs::File;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use hookwell_tests::handler::{Call, Reply};
use rustix::process::Signal;

use crate::say;
use crate::scene::Scene;

/// Whose handling fails for a while, whose is refused, and whom no route names.
const FAILING: &str = "github";
const REFUSED: &str = "stripe";
const FORGOTTEN: &str = "shopify";

/// Begins a scene: what happens, in a sentence.
fn scene(number: usize, title: &str, words: &str) {
    say(&format!("\n{number}. {title}\n   {words}"));
}

/// Tells it from the first failure to the empty list.
pub(crate) fn tell(play: &Scene) -> Result<()> {
    play.handler.answer(broken);
    send(play)?;
    let first = watch_retries(play)?;
    list(play)?;
    mend(play)?;
    replay(play)?;
    show_deliveries(play, first)?;
    show_empty_list(play)
}

/// The handler before it is mended.
fn broken(call: &Call) -> Reply {
    if call.header("hookwell-source") == REFUSED { 422.into() } else { 503.into() }
}

fn send(play: &Scene) -> Result<()> {
    scene(
        1,
        "Three webhooks arrive",
        "Their handler is broken: it answers 503 to what GitHub sends and 422 to Stripe, and no route \
         names Shopify. The senders hear 200 all the same, for the events are on Kafka.",
    );
    for source in [FAILING, REFUSED, FORGOTTEN] {
        play.type_in("ingest", &["--send-test", source])?;
    }
    Ok(())
}

fn calls_of(play: &Scene, source: &str) -> Vec<Call> {
    play.handler.calls().into_iter().filter(|call| call.header("hookwell-source") == source).collect()
}

fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1000.0
}

/// Tells each attempt as it happens. Returns how many calls there were before the handler is mended.
fn watch_retries(play: &Scene) -> Result<usize> {
    scene(
        2,
        "Retries, with growing delays",
        "A 503 may pass, so the event waits in a retry topic, as long as that tier says. Seconds count \
         from the first attempt; this takes about seven of them.",
    );
    let attempts = play.config.retry.limits.max_attempts;
    let mut first = None;
    for attempt in 0..attempts {
        let index = usize::from(attempt);
        let call = play.until("an attempt", || Ok(calls_of(play, FAILING).into_iter().nth(index)))?;
        let begin = *first.get_or_insert(call.at);
        let next = if attempt + 1 < attempts {
            let (tier, due) = next_attempt(play, &call, attempt + 1)?;
            format!("the next is due at {:.1} s and waits in {tier}", seconds(begin, due))
        } else {
            "it was the last".to_owned()
        };
        say(&format!(
            "   {:>5.1} s   {FAILING}, attempt {attempt}: {}; {next}",
            seconds(begin, call.at),
            call.status
        ));
    }
    let call = play.until("the refused one", || Ok(calls_of(play, REFUSED).pop()))?;
    say(&format!(
        "             {REFUSED}, attempt 0: {}; trying again is useless, so nobody does",
        call.status
    ));
    Ok(play.handler.count())
}

/// The topic in which `call`'s next attempt waits, and when it is due.
fn next_attempt(play: &Scene, call: &Call, attempt: u16) -> Result<(String, u64)> {
    let topic = format!("{}.retry.{attempt}", play.config.kafka.topic_prefix);
    let due = play.until("a retry", || {
        let records = play.reader.read(&topic)?;
        let record = records.iter().find(|record| record.event().1 == call.event());
        record.map(|record| record.header("hookwell-not-before").parse().context("no due time")).transpose()
    })?;
    Ok((topic, due))
}

fn list(play: &Scene) -> Result<()> {
    scene(
        3,
        "Dead letters, by reason",
        "What cannot be delivered is kept with its reason: no attempt was left, the handler said never, \
         and nobody was named to handle it.",
    );
    play.until("three dead letters", || {
        Ok((play.reader.read(&format!("{}.dlq", play.config.kafka.topic_prefix))?.len() == 3).then_some(()))
    })?;
    play.type_in("processor", &["--list-dlq"])?;
    play.type_in("processor", &["--list-dlq", "--records", "--reason", "exhausted"])
}

fn mend(play: &Scene) -> Result<()> {
    scene(
        4,
        "The handler is mended",
        "It answers 200 now. Shopify gets its route, and the processor reads its file again without \
         dropping anything.",
    );
    play.handler.answer(|_| 200.into());
    let route = format!("\n[[routes]]\nsource = \"{FORGOTTEN}\"\nto = [\"orders\"]\n");
    let file = play.file.display();
    say(&format!(
        "  $ printf '\\n[[routes]]\\nsource = \"{FORGOTTEN}\"\\nto = [\"orders\"]\\n' >> {file}\n  $ kill -HUP {}",
        play.processor.id()
    ));
    File::options().append(true).open(&play.file)?.write_all(route.as_bytes())?;
    play.processor.signal(Signal::HUP)
}

fn replay(play: &Scene) -> Result<()> {
    scene(5, "What would a replay do?", "A dry run says it, and changes nothing.");
    play.type_in("processor", &["--replay-dlq", "--dry-run"])?;
    scene(
        6,
        "The replay",
        "Now for real. It may be run twice, or by two people at once: each event is handled once more.",
    );
    play.type_in("processor", &["--replay-dlq"])
}

fn show_deliveries(play: &Scene, before: usize) -> Result<()> {
    scene(
        7,
        "The deliveries",
        "The handler gets each event as the next generation, with a webhook-id of its own.",
    );
    let calls = play.until("three deliveries", || {
        Ok(Some(play.handler.calls().split_off(before)).filter(|calls| 3 <= calls.len()))
    })?;
    for call in calls {
        say(&format!(
            "   {:>8}   generation {}, webhook-id {}: {}",
            call.header("hookwell-source"),
            call.header("hookwell-generation"),
            call.key(),
            call.status
        ));
    }
    Ok(())
}

fn show_empty_list(play: &Scene) -> Result<()> {
    scene(
        8,
        "Nothing is dead any more",
        "The dead letters still lie on their topic, and none of them is open.",
    );
    play.until("no dead letter to be open", || {
        let listed = play.ask("processor", &["--list-dlq", "--output", "json"])?;
        Ok((listed.status == Some(0) && listed.out.is_empty()).then_some(()))
    })?;
    play.type_in("processor", &["--list-dlq"])?;
    play.type_in("processor", &["--list-dlq", "--all"])?;
    say("\nThat is all. Stopping what was started ...");
    Ok(())
}
