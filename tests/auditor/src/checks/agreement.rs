//! Check 7: who read during the faults and who reads now agree.

use std::collections::{BTreeMap, HashMap};

use crate::evidence::Seen;
use crate::names::{DeliveryKey, Name};
use crate::record::{Content, Record};
use crate::verdict::{Breach, Report, Violation};
use crate::world::World;

type Partition<'e> = (&'e Name, i32);

pub(crate) fn check(world: &World<'_>) -> Report {
    let mut report = Report::new(7, "readers during and after agree");
    offsets_rise(world, &mut report);
    let mut seen: BTreeMap<Partition<'_>, Vec<&Seen>> = BTreeMap::new();
    for one in &world.evidence.seen {
        seen.entry((&one.topic, one.partition)).or_default().push(one);
    }
    report.count("seen", world.evidence.seen.len() as u64);
    let low: HashMap<Partition<'_>, i64> =
        world.ends(|_| true).map(|ends| ((&ends.topic, ends.partition), ends.low)).collect();
    let latest = latest(world);
    for (partition, mut seen) in seen {
        seen.sort_by_key(|one| one.offset);
        let there = records(world, partition);
        let low = low.get(&partition).copied().unwrap_or(0);
        let is_compacted = |one: &Seen| {
            let newer = one.key.and_then(|key| latest.get(&(partition.1, key)));
            newer.is_some_and(|offset| one.offset < *offset)
        };
        still_there(partition, &seen, there, low, is_compacted, &mut report);
        none_passed_over(partition, &seen, there, &mut report);
    }
    report
}

fn records<'e>(world: &World<'e>, (topic, partition): Partition<'_>) -> &'e [Record] {
    let records = world.evidence.topics.get(topic).map_or(&[][..], Vec::as_slice);
    let begin = records.partition_point(|record| record.partition < partition);
    let end = records.partition_point(|record| record.partition <= partition);
    &records[begin..end]
}

/// The newest record of each state.
fn latest(world: &World<'_>) -> HashMap<(i32, DeliveryKey), i64> {
    let mut latest = HashMap::new();
    if world.evidence.seen.is_empty() {
        return latest;
    }
    for (_, _, record) in world.records() {
        if let Content::State(key, _) = &record.content {
            latest.insert((record.partition, *key), record.offset);
        }
    }
    latest
}

fn offsets_rise(world: &World<'_>, report: &mut Report) {
    let mut last: HashMap<Partition<'_>, i64> = HashMap::new();
    let seen = world.evidence.seen.iter().map(|one| ((&one.topic, one.partition), one.offset));
    rise(&mut last, seen, report);
    last.clear();
    let there = world.records().map(|(topic, _, record)| ((topic, record.partition), record.offset));
    rise(&mut last, there, report);
}

fn rise<'e>(
    last: &mut HashMap<Partition<'e>, i64>,
    offsets: impl Iterator<Item = (Partition<'e>, i64)>,
    report: &mut Report,
) {
    for ((topic, partition), offset) in offsets {
        let before = last.insert((topic, partition), offset);
        report.expect(before.is_none_or(|before| before < offset), || {
            let expected = format!("an offset above {before:?}");
            Violation::new(Breach::OutOfOrder, expected).on(topic, partition, Some(offset))
        });
    }
}

fn still_there(
    (topic, partition): Partition<'_>,
    seen: &[&Seen],
    there: &[Record],
    low: i64,
    is_compacted: impl Fn(&Seen) -> bool,
    report: &mut Report,
) {
    let mut rest = there.iter().peekable();
    for one in seen {
        while rest.next_if(|record| record.offset < one.offset).is_some() {}
        let tell = |breach, expected: String| {
            Violation::new(breach, expected).on(topic, partition, Some(one.offset))
        };
        match rest.peek().filter(|record| record.offset == one.offset) {
            Some(record) => report.expect(record.digest == one.digest, || {
                tell(Breach::Changed, format!("the record {:?}, not {:?}", one.digest, record.digest))
            }),
            None => report.expect(one.offset < low || is_compacted(one), || {
                tell(Breach::Gone, format!("the record {:?}; the lowest offset is {low}", one.digest))
            }),
        }
    }
}

/// Whatever lies at or below the last offset that was seen was seen.
fn none_passed_over(
    (topic, partition): Partition<'_>,
    seen: &[&Seen],
    there: &[Record],
    report: &mut Report,
) {
    let last = seen.last().map_or(-1, |one| one.offset);
    let mut rest = seen.iter().peekable();
    for record in there.iter().take_while(|record| record.offset <= last) {
        while rest.next_if(|one| one.offset < record.offset).is_some() {}
        let was_seen = rest.peek().is_some_and(|one| one.offset == record.offset);
        report.expect(was_seen, || {
            let expected = format!("seen before offset {last}");
            Violation::new(Breach::Unseen, expected).on(topic, partition, Some(record.offset))
        });
    }
}
