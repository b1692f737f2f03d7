//! What is printed: groups, requests one by one, and the sums of a release. Never a header's value,
//! and never a body.

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use hookwell_common::lifecycle::{Failure, print};
use serde::Serialize;
use serde_json::json;

use super::tally::{GroupLine, Groups, RecordLine, Selection, Summary};
use crate::cli::Output;

/// Rows of one table: more are the next table's, for a table is built in memory.
const PAGE: usize = 1_000;

/// Prints groups.
pub(crate) fn print_groups(groups: &Groups, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => groups.lines().try_for_each(|line| print_json(&line)),
        Output::Text => {
            let mut table = table(&["SOURCE", "REASON", "COUNT", "OLDEST", "NEWEST"]);
            for line in groups.lines() {
                table.add_row(group_cells(&line));
            }
            print(&table.to_string())
        }
    }
}

/// Prints what a release does, in groups.
pub(crate) fn print_selection(selection: &Selection, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => selection.lines().try_for_each(|(because, line)| {
            print_json(&json!({
                "action": if because.is_some() { "skip" } else { "release" },
                "because": because,
                "source": line.source,
                "reason": line.reason,
                "count": line.count,
            }))
        }),
        Output::Text => {
            let mut table = table(&["SOURCE", "REASON", "COUNT", "OLDEST", "NEWEST", "ACTION"]);
            for (because, line) in selection.lines() {
                let action = because.map_or("release".to_owned(), |because| format!("skip: {because}"));
                table.add_row(group_cells(&line).into_iter().chain([action]));
            }
            print(&table.to_string())
        }
    }
}

/// Prints how a release ended.
pub(crate) fn print_summary(summary: &Summary, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => print_json(summary),
        Output::Text => {
            let Summary { selected, released, skipped, left, dry_run } = summary;
            let text = format!("selected {selected}, released {released}, skipped {skipped}, left {left}");
            print(&if *dry_run { format!("{text} (a dry run: nothing was released)") } else { text })
        }
    }
}

/// Prints requests as they come.
#[derive(Debug)]
pub(crate) struct Records {
    output: Output,
    page: Vec<Vec<String>>,
}

impl Records {
    /// Nothing is printed yet.
    pub(crate) fn new(output: Output) -> Self {
        Self { output, page: Vec::new() }
    }

    /// Prints one, or remembers it for the page on which it stands.
    pub(crate) fn add(&mut self, line: &RecordLine<'_>) -> Result<(), Failure> {
        if self.output == Output::Json {
            return print_json(line);
        }
        self.page.push(vec![
            format!("{}/{}", line.partition, line.offset),
            or_dash(line.received_at.as_deref()),
            or_dash(Some(line.source)),
            line.reason.to_owned(),
            or_dash(Some(line.method)),
            or_dash(line.body_bytes.map(|bytes| bytes.to_string()).as_deref()),
            or_dash(line.peer.as_deref()),
            if line.released { "released" } else { "kept" }.to_owned(),
        ]);
        if self.page.len() < PAGE { Ok(()) } else { self.end() }
    }

    /// Prints what is still remembered.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        if self.page.is_empty() {
            return Ok(());
        }
        let mut table = table(&["AT", "RECEIVED", "SOURCE", "REASON", "METHOD", "BYTES", "PEER", "NOW"]);
        table.add_rows(self.page.drain(..));
        print(&table.to_string())
    }
}

fn group_cells(line: &GroupLine) -> Vec<String> {
    vec![
        or_dash(Some(&line.source)),
        line.reason.to_owned(),
        line.count.to_string(),
        or_dash(line.oldest.as_deref()),
        or_dash(line.newest.as_deref()),
    ]
}

fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(heads.iter().copied());
    table
}

fn print_json(line: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(line);
    print(&text.map_err(|error| Failure::Usage(format!("the answer cannot be printed: {error}")))?)
}
