//! Check 1: what was accepted is there, byte for byte, and ends; nothing else does.

use std::collections::HashSet;

use crate::names::{Digest, EventKey};
use crate::record::{Content, Event, Origin, Record, Role};
use crate::state::Status;
use crate::verdict::{Breach, Report, Violation};
use crate::world::{Accepted, World, is_replay};

pub(crate) fn check(world: &World<'_>) -> Report {
    let mut report = Report::new(1, "every accepted event ends, byte for byte");
    let sent = Sent::of(world);
    acknowledged(world, &mut report);
    ends(world, &mut report);
    nothing_else_ends(world, &mut report);
    for (topic, role, record) in world.records() {
        let Content::Event(event) = &record.content else { continue };
        let tell =
            |breach, expected: String| Violation::new(breach, expected).of_event(event).at(topic, record);
        let Some(accepted) = world.accepted_of(&event.key()) else {
            let is_ours = role != Role::Forward;
            let expected = || "the events topic holds an event with that id".to_owned();
            report.expect(!is_ours, || tell(Breach::Stray, expected()));
            continue;
        };
        if role == Role::Events && !is_replay(event) {
            was_sent(&sent, world, event, record, &mut report, &tell);
        } else {
            is_true_to(accepted, world, role, event, record, &mut report, &tell);
        }
    }
    bodies_of_calls(world, &mut report);
    report
}

fn acknowledged(world: &World<'_>, report: &mut Report) {
    let mut known = HashSet::new();
    let heard = world.evidence.answers.iter().flatten().filter(|answer| answer.status == 200);
    for answer in heard {
        let key = EventKey::of(&answer.source, &answer.id);
        if known.insert(key) {
            report.expect(world.accepted_of(&key).is_some(), || {
                let expected =
                    format!("it heard a 200 at {:?} and lies on the events topic", answer.answered);
                Violation::new(Breach::Lost, expected).of(&answer.source, &answer.id)
            });
        }
    }
    report.count("acknowledged", known.len() as u64);
    report.count("events", world.accepted.len() as u64);
}

fn ends(world: &World<'_>, report: &mut Report) {
    let (mut done, mut dead) = (0, 0);
    for delivery in &world.deliveries {
        let state = world.state(&delivery.key);
        if state.is_none() && !delivery.is_owed {
            continue;
        }
        match state.map(|state| state.status) {
            Some(Status::Done) => done += 1,
            Some(Status::Dead) => dead += 1,
            Some(Status::Retrying(_)) | None => {}
        }
        report.expect(state.is_some_and(|state| state.is_terminal()), || {
            let violation = Violation::new(Breach::NoEnd, format!("done or dead, not {state:?}"));
            delivery.name(violation).on(
                &format!("{}.state", world.evidence.run.prefix),
                delivery.accepted.first.partition,
                None,
            )
        });
    }
    report.count("done", done);
    report.count("dead", dead);
}

fn nothing_else_ends(world: &World<'_>, report: &mut Report) {
    let unreadable: HashSet<_> = world.unreadable.iter().map(|unreadable| unreadable.key).collect();
    let topic = format!("{}.state", world.evidence.run.prefix);
    for (key, group) in world.states.groups() {
        let (_, (record, _)) = group[0];
        let place = |violation: Violation| violation.on(&topic, record.partition, Some(record.offset));
        match world.delivery(&key) {
            Some(delivery) => {
                let partition = delivery.accepted.first.partition;
                let stranger = group.iter().find(|(_, (record, _))| record.partition != partition);
                report.expect(stranger.is_none(), || {
                    let expected = format!("on partition {partition}, as its event");
                    place(delivery.name(Violation::new(Breach::WrongPartition, expected)))
                });
            }
            None => report.expect(unreadable.contains(&key), || {
                let expected = format!("a record on the events topic for the state {key:?}");
                place(Violation::new(Breach::Stray, expected))
            }),
        }
    }
}

/// Bodies that were sent, by the event that they were sent for.
struct Sent(Vec<(EventKey, Digest)>);

impl Sent {
    fn of(world: &World<'_>) -> Self {
        let answers = world.evidence.answers.iter().flatten();
        let mut sent: Vec<_> =
            answers.map(|answer| (EventKey::of(&answer.source, &answer.id), answer.body)).collect();
        sent.sort_unstable();
        sent.dedup();
        Self(sent)
    }

    fn holds(&self, event: EventKey, body: Digest) -> bool {
        self.0.binary_search(&(event, body)).is_ok()
    }
}

/// An event as ingest put it on the topic.
fn was_sent(
    sent: &Sent,
    world: &World<'_>,
    event: &Event,
    record: &Record,
    report: &mut Report,
    tell: &impl Fn(Breach, String) -> Violation,
) {
    if world.evidence.answers.is_none() {
        return;
    }
    report.expect(sent.holds(event.key(), record.body), || {
        tell(Breach::NeverSent, format!("a body that was sent under that id, not {:?}", record.body))
    });
    let partitions = world.ends(|role| role == Role::Events).count();
    let partition = event.key().partition(i32::try_from(partitions).unwrap_or(0));
    report.expect(partitions == 0 || record.partition == partition, || {
        tell(Breach::WrongPartition, format!("on partition {partition} of {partitions}"))
    });
}

/// A record that a processor or a replay made of an event.
fn is_true_to(
    accepted: Accepted<'_>,
    world: &World<'_>,
    role: Role,
    event: &Event,
    record: &Record,
    report: &mut Report,
    tell: &impl Fn(Breach, String) -> Violation,
) {
    let first = accepted.first;
    report.expect(record.body == first.body, || {
        let expected =
            format!("the body of offset {}, {:?}, not {:?}", first.offset, first.body, record.body);
        tell(Breach::OtherBody, expected)
    });
    if role == Role::Forward {
        return;
    }
    report.expect(record.partition == first.partition, || {
        tell(Breach::WrongPartition, format!("on partition {}, as its event", first.partition))
    });
    let origin = event.passage().and_then(|passage| passage.origin.as_ref());
    let is_first = |origin: &Origin| {
        *origin.topic == format!("{}.events", world.evidence.run.prefix)
            && (origin.partition, origin.offset) == (first.partition, first.offset)
    };
    report.expect(origin.is_some_and(is_first) || is_forgotten(world, origin), || {
        let expected = format!("accepted at {}/{}, not {origin:?}", first.partition, first.offset);
        tell(Breach::WrongOrigin, expected)
    });
}

/// Whether Kafka no longer keeps what lay there.
fn is_forgotten(world: &World<'_>, origin: Option<&Origin>) -> bool {
    let Some(origin) = origin else { return false };
    world
        .ends(|role| role == Role::Events)
        .any(|ends| ends.partition == origin.partition && origin.offset < ends.low)
}

fn bodies_of_calls(world: &World<'_>, report: &mut Report) {
    for (key, call) in world.calls.all() {
        let Some(delivery) = world.delivery(key) else { continue };
        let first = delivery.accepted.first;
        report.expect(call.body == first.body, || {
            let expected =
                format!("the body of offset {}, {:?}, not {:?}", first.offset, first.body, call.body);
            delivery
                .name(Violation::new(Breach::OtherBody, expected))
                .in_generation(call.generation)
                .at_attempt(call.attempt)
        });
    }
}
