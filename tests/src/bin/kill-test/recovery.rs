//! How long each fault kept events from being settled, by the broker's own clock.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use hookwell_tests::reader::Reader;

/// What was done to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// In words.
    pub(crate) what: &'static str,
    /// When, milliseconds since the epoch.
    pub(crate) at: u64,
}

/// From a fault to the next settlement, in milliseconds; `None` where none followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    /// On any partition.
    pub(crate) first: Option<u64>,
    /// On the partition that took longest.
    pub(crate) slowest: Option<u64>,
}

/// Measures, from the times at which states were appended to `topic`.
pub(crate) fn measure(reader: &Reader, topic: &str, faults: &[Fault]) -> Result<Vec<Recovery>> {
    let mut times: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    for record in reader.read(topic)? {
        times.entry(record.partition).or_default().push(u64::try_from(record.at).unwrap_or_default());
    }
    let recovery = |fault: &Fault| {
        let next = |times: &Vec<u64>| times.iter().find(|at| fault.at < **at).map(|at| at - fault.at);
        let all: Vec<_> = times.values().filter_map(next).collect();
        Recovery { first: all.iter().min().copied(), slowest: all.iter().max().copied() }
    };
    Ok(faults.iter().map(recovery).collect())
}

/// A row a fault.
pub(crate) fn table(faults: &[Fault], recoveries: &[Recovery]) -> Table {
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
        table.add_row([fault.what.to_owned(), seconds(recovery.first), seconds(recovery.slowest)]);
    }
    table
}
