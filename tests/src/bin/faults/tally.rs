//! What came of all runs together.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use crate::run::Report;

/// Sums over runs.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Runs that were judged.
    pub(crate) runs: usize,
    /// The seeds of those that were not kept, or that could not be judged.
    pub(crate) failed: Vec<u64>,
    /// Programs that could not start, for Kafka did not answer.
    pub(crate) gave_up: usize,
    /// Programs that ended otherwise by themselves.
    pub(crate) ended: usize,
    /// What the auditor counted.
    counts: BTreeMap<String, u64>,
    /// For each kind of fault, how often it was made, and the recoveries that could be measured.
    faults: BTreeMap<&'static str, (usize, Vec<Duration>)>,
}

impl Tally {
    /// Counts one run.
    pub(crate) fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.gave_up += report.gave_up.len();
        self.ended += report.ended.len();
        for (name, count) in &report.verdict.counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
        for recovered in &report.recovered {
            let (times, known) = self.faults.entry(recovered.struck.fault.kind()).or_default();
            *times += 1;
            known.extend(recovered.after);
        }
    }

    /// A row for each kind of fault.
    pub(crate) fn faults(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header([
            "Fault",
            "Times",
            "Recovered after, s: median",
            "longest",
        ]);
        for (kind, (times, recoveries)) in &self.faults {
            let mut sorted = recoveries.clone();
            sorted.sort();
            let seconds = |time: Option<&Duration>| {
                time.map_or("-".to_owned(), |time| format!("{:.1}", time.as_secs_f64()))
            };
            table.add_row([
                (*kind).to_owned(),
                times.to_string(),
                seconds(sorted.get(sorted.len() / 2)),
                seconds(sorted.last()),
            ]);
        }
        table
    }

    /// What was counted, in one line.
    pub(crate) fn counts(&self) -> String {
        let counts: Vec<_> = self.counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        counts.join(", ")
    }

    /// How many faults were made.
    pub(crate) fn made(&self) -> usize {
        self.faults.values().map(|(times, _)| times).sum()
    }
}
