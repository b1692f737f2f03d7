//! Check 3: what is done was called, under one key, and no call is one too many.

use std::collections::BTreeSet;

use crate::evidence::Call;
use crate::state::Status;
use crate::verdict::{Breach, Report, Violation};
use crate::world::{Delivery, World};

/// How long the flood guard holds a delivery before its handler is asked again, milliseconds:
/// `docs/delivery.md`.
const HELD: u64 = 5000;

/// Calls that were not the first of their attempt, or came after one that succeeded.
#[derive(Default)]
struct Extra {
    inside: u64,
    guarded: u64,
    outside: u64,
}

pub(crate) fn check(world: &World<'_>) -> Report {
    let mut report = Report::new(3, "one key a delivery, and no call too many");
    let Some(calls) = &world.evidence.calls else { return report };
    let mut extra = Extra::default();
    for (key, group) in world.calls.groups() {
        let Some(delivery) = world.delivery(&key) else {
            for (_, call) in group {
                report.expect(false, || {
                    tell(Breach::CallForNothing, call, "an event on the events topic, and a route".into())
                });
            }
            continue;
        };
        for calls in group.chunk_by(|(_, one), (_, other)| one.generation == other.generation) {
            let calls: Vec<_> = calls.iter().map(|(_, call)| *call).collect();
            keys(&delivery, &calls, &mut report);
            is_of_a_generation(world, &delivery, calls[0], &mut report);
            extras(world, &calls, &mut extra, &mut report);
        }
    }
    for delivery in world.deliveries.iter().filter(|delivery| delivery.is_called()) {
        outcomes(world, delivery, &mut report);
    }
    report.count("calls", calls.len() as u64);
    report.count("extra within a fault", extra.inside);
    report.count("repeated by the flood guard", extra.guarded);
    report.count("extra outside every fault", extra.outside);
    report
}

fn tell(breach: Breach, call: &Call, expected: String) -> Violation {
    Violation::new(breach, expected)
        .of(&call.source, &call.id)
        .to(&call.destination)
        .in_generation(call.generation)
        .at_attempt(call.attempt)
}

/// All calls of a delivery in a generation carry the key that its names give, which no other has.
fn keys(delivery: &Delivery<'_>, calls: &[&Call], report: &mut Report) {
    for call in calls {
        let expected = delivery.key.idempotency_key(call.generation);
        report.expect(call.key == expected, || {
            tell(Breach::OtherKey, call, format!("{expected}, not {:?}", call.key))
        });
    }
}

/// A generation that was called is one that the states have come to.
fn is_of_a_generation(world: &World<'_>, delivery: &Delivery<'_>, call: &Call, report: &mut Report) {
    let state = world.state(&delivery.key);
    report.expect(state.is_none_or(|state| call.generation <= state.generation), || {
        tell(Breach::CallForNothing, call, format!("a state of that generation, not {state:?}"))
    });
}

fn extras(world: &World<'_>, calls: &[&Call], extra: &mut Extra, report: &mut Report) {
    let mut attempts = BTreeSet::new();
    let mut succeeded = false;
    for (index, call) in calls.iter().enumerate() {
        let goes_back = attempts.last().is_some_and(|last| call.attempt <= *last);
        if let Some(previous) = index.checked_sub(1).map(|index| calls[index])
            && (succeeded || goes_back)
        {
            // Whichever was held back on its way, but no earlier than the call before both.
            let since = previous.since().min(call.since());
            let before = index.checked_sub(2).map_or(0, |index| calls[index].since());
            if world.is_fault_between(since.max(before), call.at) {
                extra.inside += 1;
            } else if !succeeded && is_held(world, previous, call) {
                extra.guarded += 1;
            } else {
                extra.outside += 1;
                report.found(|| {
                    let expected = format!(
                        "none at {}, after attempt {} at {} was answered {}, without a fault between them",
                        call.at, previous.attempt, previous.at, previous.status
                    );
                    tell(Breach::ExtraCall, call, expected)
                });
            }
        }
        attempts.insert(call.attempt);
        // A success that nobody heard of is a failure, and what follows a failure is as it should be.
        succeeded = call.succeeded();
    }
}

/// Whether `call` may be what the flood guard made of a failure.
fn is_held(world: &World<'_>, previous: &Call, call: &Call) -> bool {
    let skew = world.evidence.run.skew_ms;
    call.attempt == previous.attempt
        && !previous.succeeded()
        && previous.at.saturating_add(HELD) <= call.at.saturating_add(skew)
}

fn outcomes(world: &World<'_>, delivery: &Delivery<'_>, report: &mut Report) {
    let succeeded = world.calls.of(&delivery.key).filter(|call| call.succeeded());
    for generation in world.generations(&delivery.key, Status::Done) {
        let was_called = succeeded.clone().any(|call| call.generation == generation);
        report.expect(was_called, || {
            let violation = Violation::new(Breach::DoneUncalled, "a call that was answered 2xx");
            delivery.name(violation).in_generation(generation)
        });
    }
    for state in world.history(&delivery.key).filter(|state| state.status == Status::Dead) {
        let is_unexplained = |call: &&&Call| {
            call.generation == state.generation && !world.is_fault_between(call.since(), state.updated)
        };
        let unexplained = succeeded.clone().find(is_unexplained);
        report.expect(unexplained.is_none(), || {
            let expected = format!("done, for a call succeeded at {:?}", unexplained.map(|call| call.at));
            let violation = Violation::new(Breach::DeadAfterSuccess, expected);
            delivery.name(violation).in_generation(state.generation)
        });
    }
}
