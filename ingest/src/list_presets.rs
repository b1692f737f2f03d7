//! `--list-presets`: the senders that are known by name.

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use hookwell_common::lifecycle::{Failure, print};
use serde::Serialize;

use crate::cli::Output;
use crate::verify::preset::{self, Preset};

/// One line of JSON: the keys in the order of the fields, the name first.
#[derive(Debug, Serialize)]
struct Line<'p> {
    name: &'p str,
    sender: &'p str,
    scheme: &'p str,
    header: &'p str,
    content: Option<&'p str>,
    tolerance: Option<&'p str>,
    event_id: &'p str,
    event_type: Option<&'p str>,
    timeout: Option<&'p str>,
    retries_for: Option<&'p str>,
    vector: bool,
    documentation: &'p str,
}

impl<'p> Line<'p> {
    fn of(name: &'p str, preset: &'p Preset) -> Self {
        Self {
            name,
            sender: &preset.sender,
            scheme: &preset.scheme,
            header: preset.header(),
            content: preset.content(),
            tolerance: preset.window(),
            event_id: preset.event_id(),
            event_type: preset.event_type.as_deref(),
            timeout: preset.timeout.as_deref(),
            retries_for: preset.retries_for.as_deref(),
            vector: preset.vector,
            documentation: &preset.documentation,
        }
    }
}

/// Prints them: a table, or one object a line.
pub fn list(output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => {
            for (name, preset) in preset::all() {
                print(&serde_json::to_string(&Line::of(name, preset)).unwrap_or_default())?;
            }
            Ok(())
        }
        Output::Text => {
            let mut table = Table::new();
            table.load_style(NOTHING).set_header(["NAME", "SENDER", "PROVED BY", "WINDOW", "EVENT ID"]);
            for (name, preset) in preset::all() {
                let proof = format!("{} in {}", preset.proof(), preset.header());
                let window = preset.window().unwrap_or("-");
                table.add_row([name, &*preset.sender, &proof, window, preset.event_id()]);
            }
            print(&table.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_json_begins_with_the_name() {
        for (name, preset) in preset::all() {
            let line = serde_json::to_string(&Line::of(name, preset)).unwrap();
            assert!(line.starts_with(&format!("{{\"name\":{name:?},")), "{line}");
        }
    }
}
