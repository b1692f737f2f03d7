//! Verification as senders and forgers meet it: published vectors, every preset signed and
//! tampered with, and requests that no sender would send.

mod bad_input;
mod bad_values;
mod forms;
mod handshakes;
mod published;
mod vectors;
mod ways;

use std::path::Path;

use hookwell_common::config::{Config, Environment, Faults};
use hookwell_common::time::Timestamp;

use super::draft::{Draft, Signing};
use super::explain::{Explanation, Silent};
use super::preset::{self, Preset};
use super::request::UnverifiedRequest;
use super::scheme::Scheme;
use super::verify;
use crate::rejection::Rejection;
use crate::source::{Source, resolve_all};

pub(crate) type Headers = Vec<(String, Vec<u8>)>;

/// The source that a `[[sources]]` table describes, its secrets given as `S0`, `S1`, ….
pub(crate) fn source(table: &str, secrets: &[&str]) -> Source {
    try_source(table, secrets).unwrap_or_else(|faults| panic!("{faults:?}"))
}

pub(crate) fn try_source(table: &str, secrets: &[&str]) -> Result<Source, Vec<String>> {
    let id =
        preset_of(table).filter(|preset| Scheme::of_preset(preset).facts().needs_ids).map(|_| "k".to_owned());
    let secrets: Vec<_> = secrets.iter().map(|secret| ((*secret).to_owned(), id.clone())).collect();
    try_source_with(table, &secrets)
}

/// The same, with the ids of secrets.
fn try_source_with(table: &str, secrets: &[(String, Option<String>)]) -> Result<Source, Vec<String>> {
    let variable = |index: usize| format!("S{index}");
    let listed = secrets.iter().enumerate().map(|(index, (_, id))| {
        let id = id.as_ref().map_or(String::new(), |id| format!(", id = {id:?}"));
        format!("{{ env = {:?}{id} }}", variable(index))
    });
    let listed = listed.collect::<Vec<_>>().join(", ");
    let text = format!("[[sources]]\nname = \"x\"\nsecrets = [{listed}]\n{table}");
    let mut faults = Faults::default();
    let config = Config::parse(Path::new("test.toml"), &text, &Environment::default(), &mut faults);
    let named = secrets.iter().enumerate().map(|(index, (secret, _))| (variable(index), secret.clone()));
    let named: Vec<_> = named.collect();
    let token = [("T", "t0ken")];
    let named = named.iter().map(|(name, secret)| (&**name, &**secret));
    let environment = named.chain(token).collect::<Environment>();
    let mut sources = resolve_all(&config, &environment, &mut faults);
    let faults: Vec<_> = faults.into_sorted().iter().map(ToString::to_string).collect();
    if faults.is_empty() { Ok(sources.remove("x").unwrap()) } else { Err(faults) }
}

/// A table with everything that any preset may want but secrets.
fn table(preset: &str) -> String {
    format!("public_url = \"https://hooks.example.com/x\"\npreset = {preset:?}")
}

fn preset_of(table: &str) -> Option<&'static Preset> {
    let mut all = preset::all().iter();
    all.find(|(name, _)| table.contains(&format!("preset = {name:?}"))).map(|(_, preset)| preset)
}

/// A secret as the sender of `table` shows it.
pub(crate) fn secret_for(table: &str) -> &'static str {
    match preset_of(table).map(|preset| (preset.scheme.as_str(), preset.key.as_deref())) {
        Some(("basic", _)) => "hookwell:secret",
        Some((_, Some("hex"))) => "736563726574",
        Some(_) | None => "c2VjcmV0",
    }
}

pub(crate) fn header(name: &str, value: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    (name.to_owned(), value.as_ref().to_vec())
}

pub(crate) fn check(
    source: &Source,
    headers: &Headers,
    body: &[u8],
    now: Timestamp,
) -> Result<usize, Rejection> {
    judge(source, UnverifiedRequest { method: "POST", query: None, headers, body, received_at: now })
}

/// The verdict on `request`, which is the same whether somebody wants to know why or not.
fn judge(source: &Source, request: UnverifiedRequest<'_>) -> Result<usize, Rejection> {
    let quiet = verify(request, source, &mut Silent).map(|verified| verified.key().0);
    let mut explanation = Explanation::default();
    let explained = verify(request, source, &mut explanation).map(|verified| verified.key().0);
    assert_eq!(quiet, explained, "explaining must not change the verdict");
    assert_eq!(explanation.0.iter().all(|finding| finding.passed), quiet.is_ok(), "{explanation:?}");
    quiet
}

/// A body and headers as the sender of `source` would send them.
pub(crate) fn signed(source: &Source, body: &[u8], now: Timestamp) -> Headers {
    let mut draft = Draft::of_body(body);
    let signing = Signing { url: &source.public_url, now, filler: "filler" };
    source.scheme.sign(&mut draft, &source.keys[0], &signing).unwrap();
    assert_eq!(draft.body, body, "what is signed in its body needs one of its own");
    draft.headers
}
