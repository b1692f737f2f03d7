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
    header: &'p str,
    algorithm: &'p str,
    content: &'p str,
    tolerance: Option<&'p str>,
    event_id: &'p str,
    event_type: &'p str,
    documentation: &'p str,
}

impl<'p> Line<'p> {
    fn of(name: &'p str, preset: &'p Preset) -> Self {
        Self {
            name,
            header: &preset.header,
            algorithm: &preset.algorithm,
            content: &preset.content,
            tolerance: preset.tolerance.as_deref(),
            event_id: &preset.event_id,
            event_type: &preset.event_type,
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
            table.load_style(NOTHING).set_header([
                "NAME",
                "HEADER",
                "EVENT ID",
                "EVENT TYPE",
                "WINDOW",
                "DOCUMENTATION",
            ]);
            for (name, preset) in preset::all() {
                let window = preset.tolerance.as_deref().unwrap_or("-");
                table.add_row([
                    name.as_str(),
                    &preset.header,
                    &preset.event_id,
                    &preset.event_type,
                    window,
                    &preset.documentation,
                ]);
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
