//! `docs/senders.md` is made of the presets: `HOOKWELL_WRITE=1 cargo test -p hookwell-tests --test
//! documents senders` writes it.

use std::fmt::Write as _;
use std::fs;

use hookwell_ingest::verify::preset::{self, Preset};

use super::page::project;

const HEAD: &str = "# Senders

The senders that ingest knows by name: `preset = \"NAME\"` in a [source](configuration.md#sources). This page is made of `ingest/src/verify/presets.toml`; `ingest --list-presets` prints the same.

- **Proved by**: what tells a request of the sender from a forged one, and where it lies. A *token* and a *name and password* prove who sends, and not that nobody altered the body on its way: use them over TLS only. *P* marks a scheme of which a published test vector passes here; the others are built after the sender's page.
- A signature that is no token is written in hex, but where it is *as* something else.
- **Keys fetched**: instead of the sender's public key or certificate `secrets = [{ fetched = true, id = \"…\" }]` may stand, and ingest [reads it](configuration.md#keys-that-are-fetched) at the sender's own host.
- **Window**: how far the signed time may lie from ours; without one a request that was seen can be sent again; it is recognised as a duplicate by its id, but for one that is not signed and was altered.
- **Event id** and **event type**: [where they lie](configuration.md#where-values-lie). `body-hash` stands where the sender gives no id: two events with the same body count as one within `processor.dedupe_window`.
- **Waits** and **tries for**: how long the sender waits for an answer, and for how long it sends again what heard no 2xx. Empty: it does not say, or we have not found it.
- **Asks and hears**: whether the sender asks first whether the address is ours ([answered](http.md#handshakes)), its methods where they are not POST alone, and what it hears where that is not 200 of an event and 403 of a signature that does not fit.

| preset | sender | proved by | signed | window | event id | event type | waits | tries for | asks and hears |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (name, preset) in preset::all() {
        writeln!(page, "{}", row(name, preset)).unwrap();
    }
    page += "\n## What else one must know\n\n";
    for (name, preset) in preset::all() {
        if let Some(note) = &preset.note {
            writeln!(page, "- `{name}`: {note}").unwrap();
        }
    }
    page
}

fn row(name: &str, preset: &Preset) -> String {
    let code = |text: &str| format!("`{}`", text.replace('|', "\\|").replace('\n', "\\n"));
    let optional = |text: Option<&str>| text.map_or(String::new(), code);
    let vector = if preset.vector { " *P*" } else { "" };
    let keys = if preset.keys.is_some() { ", keys fetched" } else { "" };
    let own = matches!(preset.scheme.as_str(), "twilio" | "plivo-v3" | "ebay" | "adyen" | "sns");
    let encoding = preset.encoding.as_deref().or(own.then_some("base64"));
    let encoding = encoding.map_or(String::new(), |encoding| format!(" as {encoding}"));
    let proof = format!("{}{vector} in {}{encoding}{keys}", preset.proof(), code(preset.header()));
    let cells = [
        code(name),
        format!("[{}]({})", preset.sender, preset.documentation),
        proof,
        optional(preset.content()),
        optional(preset.window()),
        code(preset.event_id()),
        optional(preset.event_type.as_deref()),
        optional(preset.timeout.as_deref()),
        optional(preset.retries_for.as_deref()),
        answers(preset, code),
    ];
    format!("| {} |", cells.join(" | ")).replace("|  |", "| |").replace("|  |", "| |")
}

fn answers(preset: &Preset, code: impl Fn(&str) -> String) -> String {
    let mut all = Vec::new();
    if !preset.handshakes.is_empty() {
        all.push("asks first".to_owned());
    }
    if preset.methods != ["POST"] {
        all.push(code(&preset.methods.join(", ")));
    }
    all.extend(preset.success_status.map(|status| status.to_string()));
    all.extend(preset.success_text.as_deref().map(code));
    all.extend(preset.mismatch_status.map(|status| format!("{status} where it does not fit")));
    all.join("; ")
}

#[test]
fn the_page_of_senders_is_made_of_the_presets() {
    let path = project().join("docs/senders.md");
    if std::env::var_os("HOOKWELL_WRITE").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/senders.md is not what presets.toml says; the top of this file says how to write it"
    );
}

#[test]
fn at_least_110_senders_are_known() {
    assert!(preset::all().len() >= 110, "{}", preset::all().len());
}

#[test]
fn every_duration_of_a_preset_is_one() {
    for (name, preset) in preset::all() {
        for text in [&preset.timeout, &preset.retries_for, &preset.tolerance].into_iter().flatten() {
            assert!(humantime::parse_duration(text).is_ok(), "{name}: {text}");
        }
    }
}
