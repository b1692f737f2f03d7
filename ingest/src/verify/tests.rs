//! Verification as senders and forgers meet it: published vectors, every preset signed and
//! tampered with, and requests that no sender would send.

mod bad_input;
mod vectors;

use std::path::Path;

use hookwell_common::config::{Config, Environment, Faults};
use hookwell_common::time::Timestamp;

use super::explain::{Explanation, Silent};
use super::request::UnverifiedRequest;
use super::verify;
use crate::rejection::Rejection;
use crate::source::{Source, resolve_all};

pub(crate) type Headers = Vec<(String, Vec<u8>)>;

/// The source that a `[[sources]]` table describes, its secrets given as `S0`, `S1`, ….
pub(crate) fn source(table: &str, secrets: &[&str]) -> Source {
    try_source(table, secrets).unwrap_or_else(|faults| panic!("{faults:?}"))
}

pub(crate) fn try_source(table: &str, secrets: &[&str]) -> Result<Source, Vec<String>> {
    let names: Vec<_> = (0..secrets.len()).map(|index| format!("S{index}")).collect();
    let listed: Vec<_> = names.iter().map(|name| format!("{{ env = {name:?} }}")).collect();
    let text = format!("[[sources]]\nname = \"x\"\nsecrets = [{}]\n{table}", listed.join(", "));
    let mut faults = Faults::default();
    let config = Config::parse(Path::new("test.toml"), &text, &Environment::default(), &mut faults);
    let environment = names.iter().map(String::as_str).zip(secrets.iter().copied()).collect::<Environment>();
    let mut sources = resolve_all(&config, &environment, &mut faults);
    let faults: Vec<_> = faults.into_sorted().iter().map(ToString::to_string).collect();
    if faults.is_empty() { Ok(sources.remove("x").unwrap()) } else { Err(faults) }
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
    let request = UnverifiedRequest { method: "POST", query: None, headers, body, received_at: now };
    let quiet = verify(request, source, &mut Silent).map(|verified| verified.key().0);
    let mut explanation = Explanation::default();
    let explained = verify(request, source, &mut explanation).map(|verified| verified.key().0);
    assert_eq!(quiet, explained, "explaining must not change the verdict");
    assert_eq!(explanation.0.iter().all(|finding| finding.passed), quiet.is_ok(), "{explanation:?}");
    quiet
}

/// A body and headers as the sender of `source` would send them.
pub(crate) fn signed(source: &Source, body: &[u8], now: Timestamp) -> Headers {
    let mut headers = Headers::new();
    source.recipe.sign(&mut headers, body, &source.public_url, source.keys[0].hmac().unwrap(), now, "filler");
    headers
}
