//! Check 2: one outcome in each generation, of states, dead letters, and records for destinations.

use std::collections::HashMap;

use crate::evidence::Kind;
use crate::names::{DeliveryKey, EventKey, Name};
use crate::record::{Content, Origin, Record, Role, Value};
use crate::state::{State, Status};
use crate::verdict::{Breach, Report, Violation};
use crate::world::{Placed, World};

pub(crate) fn check(world: &World<'_>) -> Report {
    let mut report = Report::new(2, "one outcome in each generation");
    histories(world, &mut report);
    dead_letters(world, &mut report);
    unreadable_letters(world, &mut report);
    forwards(world, &mut report);
    report
}

fn histories(world: &World<'_>, report: &mut Report) {
    let topic = format!("{}.state", world.evidence.run.prefix);
    let mut count = 0;
    for (key, group) in world.states.groups() {
        let mut before: Option<&State> = None;
        for (_, (record, value)) in group {
            count += 1;
            let tell = |breach, expected: String| {
                let violation =
                    Violation::new(breach, expected).on(&topic, record.partition, Some(record.offset));
                world.delivery(&key).map_or(violation.clone(), |delivery| delivery.name(violation))
            };
            match value {
                Value::State(state) => {
                    let breach = breach_between(world, &key, before, state);
                    report.expect(breach.is_none(), || {
                        let breach = breach.unwrap_or(Breach::SettledTwice);
                        let violation = tell(breach, format!("may not follow {before:?}: {state:?}"));
                        violation.in_generation(state.generation)
                    });
                    before = Some(state);
                }
                Value::Ended => before = None,
                Value::Unreadable(why) => {
                    report.expect(false, || tell(Breach::UnreadableState, why.to_string()));
                }
            }
        }
    }
    report.count("state records", count);
}

/// What is wrong with `after` as the state that follows `before`.
fn breach_between(
    world: &World<'_>,
    key: &DeliveryKey,
    before: Option<&State>,
    after: &State,
) -> Option<Breach> {
    let Some(before) = before else {
        let is_begun = after.generation == 0 || is_replayed(world, key, after.generation, false);
        return (!is_begun).then_some(Breach::NoReplay);
    };
    if after.generation < before.generation {
        return Some(Breach::GenerationFell);
    }
    if before.generation < after.generation {
        let is_next = before.generation.checked_add(1) == Some(after.generation);
        let is_asked_for = match before.status {
            Status::Retrying(_) => false,
            Status::Dead => is_replayed(world, key, after.generation, false),
            Status::Done => is_replayed(world, key, after.generation, true),
        };
        return (!is_next || !is_asked_for).then_some(Breach::NoReplay);
    }
    let is_well = match (before.status, after.status) {
        (Status::Retrying(next), Status::Retrying(then)) => next < then,
        (Status::Retrying(_), Status::Done | Status::Dead) => true,
        (Status::Done | Status::Dead, _) => before.is_refreshed_by(after),
    };
    (!is_well).then_some(Breach::SettledTwice)
}

/// Whether a replay asks for that generation of a delivery, or of its event as a whole.
fn is_replayed(world: &World<'_>, key: &DeliveryKey, generation: u16, forced: bool) -> bool {
    let asks = |placed: &Placed<'_>| {
        placed.event.generation() == generation
            && (!forced || placed.event.passage().is_some_and(|passage| passage.forced))
    };
    let Some(delivery) = world.delivery(key) else { return false };
    let event = delivery.accepted.event;
    world.replays.of(key).any(asks)
        || world.replays.of(&DeliveryKey::of(&event.source, &event.id, "")).any(asks)
}

fn dead_letters(world: &World<'_>, report: &mut Report) {
    let mut count = 0;
    for (key, letters) in world.dead_letters.groups() {
        let dead = world.generations(&key, Status::Dead);
        // What compaction has taken away is told by what is left.
        let first = world.history(&key).next().map_or(0, |state| state.generation);
        for (index, (_, letter)) in letters.iter().enumerate() {
            count += 1;
            let generation = letter.event.generation();
            let tell = |breach, expected: &str| {
                Violation::new(breach, expected)
                    .of_event(letter.event)
                    .to(letter.event.destination())
                    .in_generation(generation)
                    .at(letter.topic, letter.record)
            };
            let is_second =
                letters[..index].iter().any(|(_, earlier)| earlier.event.generation() == generation);
            report.expect(!is_second, || tell(Breach::BuriedTwice, "one dead letter in a generation"));
            report.expect(dead.contains(&generation) || generation < first, || {
                tell(Breach::NotDead, "a state that says dead in that generation")
            });
        }
    }
    report.count("dead letters", count);
    for delivery in &world.deliveries {
        for generation in world.generations(&delivery.key, Status::Dead) {
            let lies_there =
                world.dead_letters.of(&delivery.key).any(|letter| letter.event.generation() == generation);
            report.expect(lies_there, || {
                let violation = Violation::new(Breach::NoDeadLetter, "one dead letter in that generation");
                delivery.name(violation).in_generation(generation)
            });
        }
    }
}

/// A topic, a partition, an offset.
type Spot<'e> = (&'e Name, i32, i64);

/// Dead letters of what cannot be read are known by where that lies.
fn unreadable_letters(world: &World<'_>, report: &mut Report) {
    let mut letters: HashMap<Spot<'_>, Vec<(&Name, &Record)>> = HashMap::new();
    for (topic, role, record) in world.records() {
        let Content::Unreadable(passage) = &record.content else { continue };
        let Some(Origin { topic: from, partition, offset }) = &passage.origin else { continue };
        if role == Role::Dead {
            letters.entry((from, *partition, *offset)).or_default().push((topic, record));
        }
    }
    for unreadable in &world.unreadable {
        let record = unreadable.record;
        let place = (unreadable.topic, record.partition, record.offset);
        let found = letters.remove(&place).unwrap_or_default();
        let is_dead = world.state(&unreadable.key).is_some_and(|state| state.status == Status::Dead);
        let tell = |breach, expected| Violation::new(breach, expected).at(unreadable.topic, record);
        report.expect(!is_dead || !found.is_empty(), || {
            tell(Breach::NoDeadLetter, "one dead letter of what cannot be read")
        });
        report.expect(is_dead || found.is_empty(), || {
            tell(Breach::NotDead, "a state that says dead of what cannot be read")
        });
        report
            .expect(found.len() < 2, || tell(Breach::BuriedTwice, "one dead letter of what cannot be read"));
        let is_same = found.iter().all(|(_, letter)| letter.body == record.body);
        report.expect(is_same, || tell(Breach::NotDead, "a dead letter with the value of the record"));
    }
    for ((from, partition, offset), found) in letters {
        let forgotten = world
            .ends(|_| true)
            .any(|ends| ends.topic == *from && ends.partition == partition && offset < ends.low);
        for (topic, record) in found {
            report.expect(forgotten, || {
                let expected = format!("a record that cannot be read at {from}/{partition}/{offset}");
                Violation::new(Breach::NotDead, expected).at(topic, record)
            });
        }
    }
}

/// A `kafka` destination's topic holds one record for each generation that ended done.
fn forwards(world: &World<'_>, report: &mut Report) {
    let mut balance: HashMap<(&Name, EventKey), (usize, usize)> = HashMap::new();
    for delivery in &world.deliveries {
        let Some(destination) = delivery.destination else { continue };
        let (Kind::Kafka, Some(topic)) = (destination.kind, &destination.topic) else { continue };
        let done = world.generations(&delivery.key, Status::Done).len();
        balance.entry((topic, delivery.accepted.event.key())).or_default().0 += done;
    }
    let mut names = HashMap::new();
    for (topic, role, record) in world.records() {
        let (Role::Forward, Content::Event(event)) = (role, &record.content) else { continue };
        let key = (topic, event.key());
        balance.entry(key).or_default().1 += 1;
        names.entry(key).or_insert((event, record));
    }
    report.count("records forwarded", balance.values().map(|(_, there)| *there as u64).sum());
    let mut balance: Vec<_> = balance.into_iter().collect();
    balance.sort_unstable();
    for ((topic, event), (done, there)) in balance {
        report.expect(done == there, || {
            let expected = format!("{done} records, one for each generation that ended done, not {there}");
            let violation = Violation::new(Breach::Forwarded, expected).on(topic, 0, None);
            match (names.get(&(topic, event)), world.accepted_of(&event)) {
                (Some((event, record)), _) => violation.of(&event.source, &event.id).at(topic, record),
                (None, Some(accepted)) => violation.of(&accepted.event.source, &accepted.event.id),
                (None, None) => violation,
            }
        });
    }
}
