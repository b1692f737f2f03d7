//! Check 5: at rest no transaction is open, nothing is left to be read, and processors remember
//! what the state topic holds.

use std::collections::HashMap;

use crate::evidence::DAY;
use crate::names::{DeliveryKey, Name};
use crate::record::Role;
use crate::state::{State, Status};
use crate::verdict::{Breach, Report, Violation};
use crate::world::World;

pub(crate) fn check(world: &World<'_>) -> Report {
    let mut report = Report::new(5, "at rest nothing is open");
    for ends in world.ends(|_| true) {
        report.expect(ends.stable == ends.high, || {
            let expected = format!("stable to the end, {}, not to {}", ends.high, ends.stable);
            Violation::new(Breach::OpenTransaction, expected).on(&ends.topic, ends.partition, None)
        });
    }
    report.count("partitions", world.evidence.ends.len() as u64);
    lag(world, &mut report);
    restored(world, &mut report);
    report
}

/// A committed offset may lie below the end by the markers of transactions: only records count.
fn lag(world: &World<'_>, report: &mut Report) {
    let mut left: HashMap<(&Name, i32), (u64, i64)> = HashMap::new();
    let read = |role| matches!(role, Role::Events | Role::Retry(_));
    let committed: HashMap<_, _> =
        world.ends(read).map(|ends| ((&ends.topic, ends.partition), ends.committed.unwrap_or(0))).collect();
    for (topic, role, record) in world.records() {
        let frontier = committed.get(&(topic, record.partition)).copied().unwrap_or(i64::MAX);
        if read(role) && frontier <= record.offset {
            let (count, first) = left.entry((topic, record.partition)).or_insert((0, record.offset));
            (*count, *first) = (*count + 1, record.offset.min(*first));
        }
    }
    for ends in world.ends(read) {
        let left = left.get(&(&ends.topic, ends.partition));
        report.expect(left.is_none(), || {
            let (count, first) = left.copied().unwrap_or_default();
            let expected = format!("all committed; {count} records are not, of {:?}", ends.committed);
            Violation::new(Breach::Lag, expected).on(&ends.topic, ends.partition, Some(first))
        });
    }
}

/// What one state adds to the digest of all.
fn digest(key: &DeliveryKey, state: &State) -> u64 {
    let (status, next_attempt) = match state.status {
        Status::Retrying(attempt) => (1, attempt),
        Status::Done => (2, 0),
        Status::Dead => (3, 0),
    };
    let mut text = key.0.to_vec();
    text.push(status);
    text.extend(state.generation.to_be_bytes());
    text.extend(next_attempt.to_be_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(&text).as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn restored(world: &World<'_>, report: &mut Report) {
    let now = world.records().map(|(_, _, record)| record.at).max().unwrap_or(0);
    let window = world.evidence.run.dedupe_window_ms;
    let is_kept = |state: &State| {
        let kept_for = match state.status {
            Status::Done => window,
            Status::Retrying(_) | Status::Dead => window.saturating_add(DAY),
        };
        now < state.updated.saturating_add(kept_for)
    };
    let keys = world.states.groups().filter_map(|(key, _)| Some((key, world.state(&key)?)));
    let kept = keys.filter(|(_, state)| is_kept(state));
    let add = |(count, sum): (u64, u64), (key, state)| (count + 1, sum.wrapping_add(digest(&key, state)));
    let (held, digest) = kept.fold((0, 0), add);
    report.count("ids on the state topic", held);
    if let Some(rest) = &world.evidence.rest {
        report.expect(rest.state_digest.is_none_or(|told| told == digest), || {
            Violation::new(Breach::OtherStates, "the states that the topic holds, each as it is there")
        });
        report.expect(rest.state_ids == held, || {
            let expected = format!("{held} ids, as the state topic holds, not {}", rest.state_ids);
            Violation::new(Breach::OtherIds, expected)
        });
    }
}
