//! Check 4: no retry is early, attempts follow each other from 0, and there are no more than may be.

use crate::evidence::Call;
use crate::record::{Event, Passage, Role};
use crate::verdict::{Breach, Report, Violation};
use crate::world::{Delivery, Placed, World};

pub(crate) fn check(world: &World<'_>) -> Report {
    let mut report = Report::new(4, "never early, and attempts follow each other");
    let mut count = 0;
    for (key, retries) in world.retries.groups() {
        let Some(delivery) = world.delivery(&key) else { continue };
        let retries: Vec<_> = retries.iter().map(|(_, retry)| *retry).collect();
        count += retries.len() as u64;
        for (index, retry) in retries.iter().enumerate() {
            let is_second = retries[..index].iter().any(|earlier| is_same(earlier.event, retry.event));
            report.expect(!is_second, || tell(Breach::RetriedTwice, retry, "one retry of an attempt".into()));
            follows(world, &delivery, &retries, retry, &mut report);
            is_due_late_enough(world, &delivery, retry, &mut report);
        }
    }
    report.count("retries", count);
    for (_, letter) in world.dead_letters.all() {
        let Some(delivery) = world.delivery(&letter.event.delivery()) else { continue };
        given_up(world, &delivery, letter, &mut report);
    }
    for (key, call) in world.calls.all() {
        if let Some(delivery) = world.delivery(key) {
            is_in_time(world, &delivery, call, &mut report);
        }
    }
    report
}

fn is_same(one: &Event, other: &Event) -> bool {
    (one.generation(), one.attempt()) == (other.generation(), other.attempt())
}

fn tell(breach: Breach, placed: &Placed<'_>, expected: String) -> Violation {
    Violation::new(breach, expected).of_event(placed.event).at(placed.topic, placed.record)
}

fn is_beyond(delivery: &Delivery<'_>, attempt: u16) -> bool {
    delivery.destination.is_some_and(|destination| destination.max_attempts <= attempt)
}

/// A retry of attempt n follows one of n - 1, and a call that was made as such.
fn follows(
    world: &World<'_>,
    delivery: &Delivery<'_>,
    retries: &[Placed<'_>],
    retry: &Placed<'_>,
    report: &mut Report,
) {
    let (generation, attempt) = (retry.event.generation(), retry.event.attempt());
    report.expect(!is_beyond(delivery, attempt), || {
        tell(Breach::TooMany, retry, "an attempt below the maximum".into())
    });
    let has = |wanted: u16| {
        let is_wanted = |event: &Event| (event.generation(), event.attempt()) == (generation, wanted);
        retries.iter().any(|earlier| is_wanted(earlier.event))
    };
    let follows = match attempt {
        0 => false,
        1 => true,
        attempt => has(attempt - 1),
    };
    report.expect(follows, || tell(Breach::Skipped, retry, "a retry of the attempt before".into()));
    if let Some(before) = attempt.checked_sub(1) {
        was_called(world, delivery, (generation, before), retry, report);
    }
}

/// That attempt was made before `after` was written, or a fault kept it from the handler's ledger.
fn was_called(
    world: &World<'_>,
    delivery: &Delivery<'_>,
    (generation, attempt): (u16, u16),
    after: &Placed<'_>,
    report: &mut Report,
) {
    if world.evidence.calls.is_none() || !delivery.is_called() {
        return;
    }
    let mut calls = world.calls.of(&delivery.key);
    let is_there = calls.any(|call| (call.generation, call.attempt) == (generation, attempt));
    let asked_for = match attempt {
        0 => world.replays.of(&delivery.key).find(|replay| replay.event.generation() == generation),
        _ => world
            .retries
            .of(&delivery.key)
            .find(|retry| (retry.event.generation(), retry.event.attempt()) == (generation, attempt)),
    };
    let since = asked_for.map_or(delivery.accepted.first.at, |placed| placed.record.at);
    report.expect(is_there || world.is_fault_between(since, after.record.at), || {
        let expected =
            format!("a call of attempt {attempt}, or a fault between {since} and {}", after.record.at);
        tell(Breach::Skipped, after, expected)
    });
}

/// What is independent of how a delay was found: it is at least that of the tier, counted from a
/// failure that cannot have been earlier than the call, nor than the first failure.
fn is_due_late_enough(world: &World<'_>, delivery: &Delivery<'_>, retry: &Placed<'_>, report: &mut Report) {
    let run = &world.evidence.run;
    let Role::Retry(tier) = Role::of(retry.topic, &run.prefix) else { return };
    let Some(delay) = tier.checked_sub(1).and_then(|index| run.tiers.get(usize::from(index))) else { return };
    let own_tier = usize::from(retry.event.attempt()).min(run.tiers.len());
    report.expect(own_tier <= usize::from(tier), || {
        tell(Breach::DueTooSoon, retry, format!("in tier {own_tier} or a longer one"))
    });
    let default = Passage::default();
    let passage = retry.event.passage().unwrap_or(&default);
    let before = (passage.generation, passage.attempt.saturating_sub(1));
    let called = world
        .calls
        .of(&delivery.key)
        .filter(|call| (call.generation, call.attempt) == before)
        // A network that holds a call up delivers it after its caller has given it up: that it came
        // says nothing of when it failed.
        .filter(|call| call.at <= retry.record.at && !world.is_fault_between(call.since(), call.at))
        .map(|call| call.at)
        .min();
    let due = passage.not_before.unwrap_or(0);
    let earliest = |since: u64, skew: u64| since.saturating_add(*delay) <= due.saturating_add(skew);
    let is_late_enough = passage
        .first_failed_at
        .is_some_and(|failed| earliest(failed, world.skew_between(failed, retry.record.at) - run.skew_ms))
        && called.is_none_or(|at| earliest(at, world.skew_between(at, retry.record.at)));
    report.expect(is_late_enough, || {
        let expected = format!(
            "{delay} ms after the failure (first at {:?}; called at {called:?}), not at {:?}",
            passage.first_failed_at, passage.not_before
        );
        tell(Breach::DueTooSoon, retry, expected)
    });
}

/// A dead letter names its last attempt.
fn given_up(world: &World<'_>, delivery: &Delivery<'_>, letter: &Placed<'_>, report: &mut Report) {
    let attempt = letter.event.attempt();
    report.expect(!is_beyond(delivery, attempt), || {
        tell(Breach::TooMany, letter, "an attempt below the maximum".into())
    });
    let class = letter.event.passage().and_then(|passage| passage.class.as_deref()).unwrap_or("");
    let is_last = delivery.destination.is_none() || is_beyond(delivery, attempt.saturating_add(1));
    report.expect(class != "exhausted" || is_last, || {
        tell(Breach::GivenUpEarly, letter, "the last attempt that may be made".into())
    });
    if ["permanent", "exhausted", "too_old"].contains(&class) {
        was_called(world, delivery, (letter.event.generation(), attempt), letter, report);
    }
}

fn is_in_time(world: &World<'_>, delivery: &Delivery<'_>, call: &Call, report: &mut Report) {
    let tell = |breach, expected: String| {
        delivery
            .name(Violation::new(breach, expected))
            .in_generation(call.generation)
            .at_attempt(call.attempt)
    };
    report.expect(!is_beyond(delivery, call.attempt), || {
        tell(Breach::TooMany, "an attempt below the maximum".into())
    });
    if call.attempt == 0 {
        return;
    }
    let retries = world.retries.of(&delivery.key);
    let asked_for = (call.generation, call.attempt);
    let retry = retries.clone().find(|retry| (retry.event.generation(), retry.event.attempt()) == asked_for);
    let Some(retry) = retry else {
        report.expect(false, || tell(Breach::NoRetry, format!("a retry record for the call at {}", call.at)));
        return;
    };
    let due = retry.event.passage().and_then(|passage| passage.not_before).unwrap_or(0);
    let skew = world.skew_between(retry.record.at, call.at);
    report.expect(due <= call.at.saturating_add(skew), || {
        let late = due.saturating_sub(call.at);
        tell(Breach::Early, format!("not before {due}; it came {late} ms early, at {}", call.at))
            .at(retry.topic, retry.record)
    });
}
