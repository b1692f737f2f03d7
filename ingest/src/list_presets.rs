//! `--list-presets`: the senders that are known by name.

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use hookwell_common::lifecycle::Failure;
use serde_json::json;

use crate::cli::{Output, print};
use crate::verify::preset;

/// Prints them: a table, or one object a line.
pub fn list(output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => {
            for (name, preset) in preset::all() {
                let line = json!({
                    "name": name,
                    "header": preset.header,
                    "algorithm": preset.algorithm,
                    "content": preset.content,
                    "tolerance": preset.tolerance,
                    "event_id": preset.event_id,
                    "event_type": preset.event_type,
                    "documentation": preset.documentation,
                });
                print(&line.to_string())?;
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
