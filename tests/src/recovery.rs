//! How long each fault kept events from being settled, by the broker's own clock.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::json;

use crate::kafka::project;
use crate::reader::Reader;

/// What was done to whom.
#[derive(Clone, Debug)]
pub struct Fault {
    /// In words.
    pub what: String,
    /// When it began, milliseconds since the epoch.
    pub began: u64,
    /// When it was over, milliseconds since the epoch.
    pub ended: u64,
}

/// From a moment to the next settlement, in milliseconds; `None` where none followed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Next {
    /// On any partition.
    pub first: Option<u64>,
    /// On the partition that took longest.
    pub slowest: Option<u64>,
}

/// What a fault cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    /// From its beginning.
    pub from_begin: Next,
    /// From its end.
    pub from_end: Next,
    /// The longest time, in milliseconds, that a partition stood still between the settlement
    /// before the fault and the first one after it. Where less than all partitions have load all
    /// the time this says nothing.
    pub standstill: Option<u64>,
}

/// Measures, from the times at which states were appended to `topic`.
pub fn measure(reader: &Reader, topic: &str, faults: &[Fault]) -> Result<Vec<Recovery>> {
    let mut times: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    for record in reader.read(topic)? {
        times.entry(record.partition).or_default().push(u64::try_from(record.at).unwrap_or_default());
    }
    Ok(faults.iter().map(|fault| recovery(&times, fault)).collect())
}

fn recovery(times: &BTreeMap<i32, Vec<u64>>, fault: &Fault) -> Recovery {
    let next = |moment: u64| {
        let on =
            |times: &Vec<u64>| times.get(times.partition_point(|at| *at <= moment)).map(|at| at - moment);
        let all: Vec<_> = times.values().filter_map(on).collect();
        Next { first: all.iter().min().copied(), slowest: all.iter().max().copied() }
    };
    let standstill = |times: &Vec<u64>| {
        let last_before = times.iter().rposition(|at| *at <= fault.began).unwrap_or(0);
        let first_after = times.iter().position(|at| fault.ended < *at)?;
        let pauses = times.get(last_before..=first_after)?.windows(2);
        pauses.map(|pair| pair[1].saturating_sub(pair[0])).max()
    };
    Recovery {
        from_begin: next(fault.began),
        from_end: next(fault.ended),
        standstill: times.values().filter_map(standstill).max(),
    }
}

/// A row a fault.
pub fn table(faults: &[Fault], recoveries: &[Recovery]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "Fault",
        "Next settlement after, s",
        "On the slowest partition, s",
    ]);
    let seconds = |millis: Option<u64>| {
        millis.map_or("-".to_owned(), |millis| format!("{:.1}", millis as f64 / 1000.0))
    };
    for (fault, recovery) in faults.iter().zip(recoveries) {
        let Next { first, slowest } = recovery.from_begin;
        table.add_row([fault.what.clone(), seconds(first), seconds(slowest)]);
    }
    table
}

/// Adds a line a fault to `target/faults/recovery.jsonl`, in seconds, as information.
pub fn keep(faults: &[Fault], recoveries: &[Recovery]) -> Result<()> {
    let folder = project().join("target/faults");
    fs::create_dir_all(&folder)?;
    let mut file = File::options().create(true).append(true).open(folder.join("recovery.jsonl"))?;
    let seconds = |millis: Option<u64>| millis.map(|millis| millis as f64 / 1000.0);
    let next = |next: Next| json!({ "first": seconds(next.first), "slowest": seconds(next.slowest) });
    for (fault, recovery) in faults.iter().zip(recoveries) {
        let line = json!({
            "fault": fault.what,
            "at": fault.began,
            "lasted": seconds(Some(fault.ended.saturating_sub(fault.began))),
            "from_begin": next(recovery.from_begin),
            "from_end": next(recovery.from_end),
            "standstill": seconds(recovery.standstill),
        });
        writeln!(file, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Fault, recovery};

    #[test]
    fn the_slowest_partition_counts() {
        let times = BTreeMap::from([(0, vec![10, 90, 160, 170]), (1, vec![20, 60, 300, 310])]);
        let fault = Fault { what: String::new(), began: 50, ended: 150 };
        let found = recovery(&times, &fault);
        assert_eq!((found.from_begin.first, found.from_begin.slowest), (Some(10), Some(40)));
        assert_eq!((found.from_end.first, found.from_end.slowest), (Some(10), Some(150)));
        assert_eq!(found.standstill, Some(240));
    }

    #[test]
    fn what_never_settled_again_has_no_time() {
        let fault = Fault { what: String::new(), began: 50, ended: 150 };
        let found = recovery(&BTreeMap::from([(0, vec![10])]), &fault);
        assert_eq!((found.from_end.first, found.standstill), (None, None));
    }
}
