//! `--list-presets`: the senders that are known by name, and what each wants of a configuration.

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use hookwell_common::lifecycle::{Failure, print};
use serde::Serialize;

use crate::cli::Output;
use crate::rejection::Rejection;
use crate::verify::handshake::Handshake;
use crate::verify::preset::{self, Preset};
use crate::verify::scheme::Scheme;

/// One line of JSON: the keys in the order of the fields, the name first.
#[derive(Debug, Serialize)]
struct Line<'p> {
    name: &'p str,
    sender: &'p str,
    scheme: &'p str,
    /// What proves a request, in words.
    proof: String,
    header: &'p str,
    content: Option<&'p str>,
    tolerance: Option<&'p str>,
    event_id: &'p str,
    event_type: Option<&'p str>,
    methods: &'p [String],
    /// How its secrets are written.
    secret: String,
    /// Whether each secret needs the id by which the sender knows it.
    secret_id: bool,
    /// The hosts at which the sender publishes its keys, which ingest can fetch there.
    keys_from: Option<String>,
    /// What the id of such a secret is.
    keys_id: Option<&'p str>,
    /// Whether the URL is signed, or part of an answer, and must be configured.
    public_url: bool,
    /// Whether it asks first whether the address is ours.
    asks_first: bool,
    /// Whether it then shows a word that must be configured, or wants one proved.
    handshake_token: bool,
    /// The statuses that it hears: of an accepted event, and of a signature that does not fit.
    success_status: u16,
    mismatch_status: u16,
    /// What it reads when an event was accepted.
    success_text: Option<&'p str>,
    /// Whether an altered body is noticed.
    covers_body: bool,
    timeout: Option<&'p str>,
    retries_for: Option<&'p str>,
    /// What else one must know to set it up.
    note: Option<&'p str>,
    vector: bool,
    documentation: &'p str,
}

impl<'p> Line<'p> {
    fn of(name: &'p str, preset: &'static Preset) -> Self {
        let scheme = Scheme::of_preset(preset);
        let (facts, handshakes) = (scheme.facts(), preset.handshakes());
        Self {
            name,
            sender: &preset.sender,
            scheme: &preset.scheme,
            proof: preset.proof(),
            header: preset.header(),
            content: preset.content(),
            tolerance: preset.window(),
            event_id: preset.event_id(),
            event_type: preset.event_type.as_deref(),
            methods: &preset.methods,
            secret: facts.key_words,
            secret_id: facts.needs_ids || preset.signs_for_all(),
            keys_from: scheme.published().map(|published| published.hosts()),
            keys_id: preset.keys.as_ref().map(|keys| keys.id.as_str()),
            public_url: scheme.may_cover_url() || handshakes.iter().any(Handshake::tells_url),
            asks_first: !handshakes.is_empty(),
            handshake_token: handshakes.iter().any(Handshake::needs_token),
            success_status: preset.success_status.unwrap_or(200),
            mismatch_status: preset.mismatch_status.unwrap_or_else(|| Rejection::SignatureMismatch.status()),
            success_text: preset.success_text.as_deref(),
            covers_body: facts.covers_body,
            timeout: preset.timeout.as_deref(),
            retries_for: preset.retries_for.as_deref(),
            note: preset.note.as_deref(),
            vector: preset.vector,
            documentation: &preset.documentation,
        }
    }
}

/// Prints one of them, or all: a table, or one object a line.
pub fn list(name: Option<&str>, output: Output) -> Result<(), Failure> {
    if let Some(name) = name {
        let found = preset::all().get_key_value(name);
        let (name, preset) = found.ok_or_else(|| {
            Failure::Usage(format!("there is no preset {name:?}; `ingest --list-presets` names all"))
        })?;
        let line = Line::of(name, preset);
        return print(&match output {
            Output::Json => serde_json::to_string(&line).unwrap_or_default(),
            Output::Text => describe(&line),
        });
    }
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

/// What there is to know, and a table to begin with.
fn describe(line: &Line<'_>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut row = |name: &str, value: &str| {
        table.add_row([name, value]);
    };
    row("sender", line.sender);
    row("proved by", &format!("{} in {}", line.proof, line.header));
    row("signed", line.content.unwrap_or(if line.covers_body { "the body" } else { "not the body" }));
    row("window", line.tolerance.unwrap_or("none"));
    row("event id", line.event_id);
    row("event type", line.event_type.unwrap_or("none"));
    row("methods", &line.methods.join(", "));
    let text = line.success_text.map_or(String::new(), |text| format!(" with {text:?}"));
    row("hears", &format!("{}{text}; {} where it does not fit", line.success_status, line.mismatch_status));
    if line.asks_first {
        row("asks first", "whether the address is yours; it is answered");
    }
    row("waits", line.timeout.unwrap_or("unknown"));
    row("tries for", line.retries_for.unwrap_or("unknown"));
    row("test vector", if line.vector { "yes" } else { "none published" });
    if let Some(hosts) = &line.keys_from {
        row("keys", &format!("can be fetched from {hosts}"));
    }
    row("page", line.documentation);
    let name = line.name;
    let variable = name.to_ascii_uppercase().replace('-', "_");
    let mut text = format!("{table}\n\n[[sources]]\nname = {name:?}\npreset = {name:?}\n");
    if line.public_url {
        text += &format!(
            "public_url = \"https://hooks.example.com/webhooks/{name}\"    # as the sender knows it\n"
        );
    }
    let id = if line.secret_id { ", id = \"…\"" } else { "" };
    text += &format!("secrets = [{{ env = \"{variable}_SECRET\"{id} }}]    # {}", line.secret);
    if line.secret_id {
        text += ", and the id by which the sender knows it";
    }
    if line.handshake_token {
        text += &format!(
            "\nhandshake_token = {{ env = \"{variable}_TOKEN\" }}    # the word that you told the sender, which it shows or wants proved when it asks whether the address is yours"
        );
    }
    if let Some(id) = line.keys_id {
        text += &format!(
            "\n# Or have its keys fetched: secrets = [{{ fetched = true, id = \"…\" }}], where the id is {id}."
        );
    }
    if let Some(note) = line.note {
        text += &format!("\n# {note}");
    }
    if !line.covers_body {
        text += "\n# The body is not signed: who sees a request can send it again with another body. Use TLS only.";
    }
    text
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
