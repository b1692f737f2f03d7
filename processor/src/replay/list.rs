//! What is printed: groups, records, and the sums of a replay.

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use hookwell_common::lifecycle::{Failure, print};
use serde::Serialize;
use serde_json::json;

use super::arguments::Output;
use super::letter::DeadLetter;
use super::standing::{SkipReason, Standing};
use super::tally::{GroupLine, Groups, RecordLine, Selection, Summary};

/// Rows of one table: more are the next table's, for a table is built in memory.
const PAGE: usize = 1_000;

/// Prints groups.
pub(crate) fn print_groups(groups: &Groups, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => groups.lines().try_for_each(|line| print_json(&line)),
        Output::Table => {
            let mut table = table(&["SOURCE", "DESTINATION", "REASON", "COUNT", "OLDEST", "NEWEST"]);
            for line in groups.lines() {
                table.add_row(group_cells(&line));
            }
            print(&table.to_string())
        }
    }
}

/// Prints what a replay does, in groups.
pub(crate) fn print_selection(selection: &Selection, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => selection.lines().try_for_each(|(obstacle, line)| {
            print_json(&json!({
                "action": if obstacle.is_some() { "skip" } else { "replay" },
                "because": obstacle.map(SkipReason::words),
                "source": line.source,
                "destination": line.destination,
                "reason": line.reason,
                "count": line.count,
            }))
        }),
        Output::Table => {
            let mut table =
                table(&["SOURCE", "DESTINATION", "REASON", "COUNT", "OLDEST", "NEWEST", "ACTION"]);
            for (obstacle, line) in selection.lines() {
                let action = match obstacle {
                    None => "replay".to_owned(),
                    Some(reason) => format!("skip: {}", reason.words()),
                };
                table.add_row(group_cells(&line).into_iter().chain([action]));
            }
            print(&table.to_string())
        }
    }
}

/// Prints how a replay ended.
pub(crate) fn print_summary(summary: &Summary, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => print_json(summary),
        Output::Table => {
            let Summary { selected, replayed, skipped, failed, left, dry_run } = summary;
            let words = if *dry_run { "a dry run: nothing was replayed" } else { "" };
            let text = format!(
                "selected {selected}, replayed {replayed}, skipped {skipped}, failed {failed}, left {left}"
            );
            print(&if words.is_empty() { text } else { format!("{text} ({words})") })
        }
    }
}

/// Prints records as they come.
#[derive(Debug)]
pub(crate) struct Records {
    output: Output,
    /// Whether a column shows where deliveries stand.
    with_standing: bool,
    page: Vec<Vec<String>>,
}

impl Records {
    /// Nothing is printed yet.
    pub(crate) fn new(output: Output, with_standing: bool) -> Self {
        Self { output, with_standing, page: Vec::new() }
    }

    /// Prints one, or remembers it for the page on which it stands.
    pub(crate) fn add(&mut self, letter: &DeadLetter, standing: Standing) -> Result<(), Failure> {
        let line = RecordLine::of(letter);
        if self.output == Output::Json {
            return print_json(&line);
        }
        let mut cells = vec![
            format!("{}/{}", line.partition, line.offset),
            line.dead_at,
            or_dash(line.source),
            or_dash(line.destination),
            line.reason.to_owned(),
            or_dash(line.event_type),
            or_dash(line.event_id),
            line.attempts.to_string(),
            line.generation.to_string(),
        ];
        if self.with_standing {
            cells.push(standing_words(standing).to_owned());
        }
        cells.push(line.error.to_owned());
        self.page.push(cells);
        if self.page.len() < PAGE { Ok(()) } else { self.end() }
    }

    /// Prints what is still remembered.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        if self.page.is_empty() {
            return Ok(());
        }
        let mut heads = vec![
            "AT",
            "DIED",
            "SOURCE",
            "DESTINATION",
            "REASON",
            "TYPE",
            "EVENT ID",
            "ATTEMPTS",
            "GENERATION",
        ];
        if self.with_standing {
            heads.push("NOW");
        }
        heads.push("ERROR");
        let mut table = table(&heads);
        table.add_rows(self.page.drain(..));
        print(&table.to_string())
    }
}

fn standing_words(standing: Standing) -> &'static str {
    match standing {
        Standing::Dead => "dead",
        Standing::Replaying => "replaying",
        Standing::DiedAgain => "died again",
        Standing::Done { .. } => "done",
    }
}

fn group_cells(line: &GroupLine) -> Vec<String> {
    vec![
        or_dash(&line.source),
        or_dash(&line.destination),
        line.reason.to_owned(),
        line.count.to_string(),
        line.oldest.clone(),
        line.newest.clone(),
    ]
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
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
