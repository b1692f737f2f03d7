//! Check 6: whatever lies below a committed offset has left its state.

use crate::names::DeliveryKey;
use crate::record::{Content, Event, Role};
use crate::state::{State, Status};
use crate::verdict::{Breach, Report, Violation};
use crate::world::{World, is_replay};

pub(crate) fn check(world: &World<'_>) -> Report {
    let mut report = Report::new(6, "what is committed has its state");
    let read = |role| matches!(role, Role::Events | Role::Retry(_));
    for ends in world.ends(read) {
        let Some(committed) = ends.committed else { continue };
        report.expect(committed <= ends.high, || {
            let expected = format!("at most the end, {}, not {committed}", ends.high);
            Violation::new(Breach::BeyondEnd, expected).on(&ends.topic, ends.partition, None)
        });
        let records = world.evidence.topics.get(&ends.topic).map_or(&[][..], Vec::as_slice);
        let begin = records.partition_point(|record| record.partition < ends.partition);
        let mine = records[begin..].iter().take_while(|record| record.partition == ends.partition);
        for record in mine.take_while(|record| record.offset < committed) {
            let missing = match (&record.content, Role::of(&ends.topic, &world.evidence.run.prefix)) {
                (Content::Event(event), Role::Retry(_)) => is_passed(world, event),
                (Content::Event(event), _) => is_settled(world, event),
                (Content::Unreadable(_), role) => is_buried(world, role, record.partition, record.offset),
                (Content::State(..) | Content::Aside, _) => None,
            };
            report.expect(missing.is_none(), || {
                let violation =
                    Violation::new(Breach::Unsettled, missing.unwrap_or_default()).at(&ends.topic, record);
                match &record.content {
                    Content::Event(event) => violation.of_event(event),
                    Content::Unreadable(_) | Content::State(..) | Content::Aside => violation,
                }
            });
        }
    }
    report
}

/// What a record of the events topic has not left; `None` where it has.
fn is_settled(world: &World<'_>, event: &Event) -> Option<String> {
    if is_replay(event) && !event.destination().is_empty() {
        let generation = event.generation();
        let state = world.state(&event.delivery());
        // What is dead is replayed, and what is done if that is forced; else nothing is left.
        let is_forced = event.passage().is_some_and(|passage| passage.forced);
        let is_passed_over = |state: &State| {
            let would_be_accepted = match state.status {
                Status::Dead => true,
                Status::Done => is_forced,
                Status::Retrying(_) => false,
            };
            would_be_accepted && state.generation.checked_add(1) == Some(generation)
        };
        let is_settled = state.is_some_and(|state| !is_passed_over(state));
        return (!is_settled).then(|| format!("a state of generation {generation}, not {state:?}"));
    }
    let key = |name: &str| DeliveryKey::of(&event.source, &event.id, name);
    let missing = world.owed(&event.source).find(|name| world.state(&key(name)).is_none())?;
    Some(format!("a state for the destination {missing:?}"))
}

/// What a retry has not left.
fn is_passed(world: &World<'_>, event: &Event) -> Option<String> {
    let state = world.state(&event.delivery());
    let is_passed = state.is_some_and(|state| {
        let is_beyond = match state.status {
            Status::Retrying(next) => event.attempt() < next,
            Status::Done | Status::Dead => true,
        };
        event.generation() < state.generation || (event.generation() == state.generation && is_beyond)
    });
    (!is_passed).then(|| format!("a state beyond that attempt, not {state:?}"))
}

/// What a record that cannot be read has not left.
fn is_buried(world: &World<'_>, role: Role, partition: i32, offset: i64) -> Option<String> {
    let tier = if let Role::Retry(tier) = role { tier } else { 0 };
    let state = world.state(&DeliveryKey::of_unreadable(tier, partition, offset));
    let is_buried = state.is_some_and(|state| state.status == Status::Dead);
    (!is_buried).then(|| format!("a state that says dead, not {state:?}"))
}
