//! What would make a request that does not verify fit: tried offline, for people who look for the
//! cause. Says what, and shows neither a secret nor a signature.

use std::borrow::Cow;

use serde_json::Value;

use crate::rejection::Rejection;
use crate::source::Source;
use crate::verify::explain::Silent;
use crate::verify::key::SigningKey;
use crate::verify::request::UnverifiedRequest;
use crate::verify::{verify, verify_at, verify_by};

/// Another source, whose secret or whose sender may have been meant.
#[derive(Debug)]
pub struct Other<'s> {
    /// Itself.
    pub source: &'s Source,
    /// Its secrets, as the sender that is looked at would compute with them.
    pub keys: Vec<SigningKey>,
}

/// All that is found to try, given why `request` to `source` was refused.
pub fn hints(
    request: UnverifiedRequest<'_>,
    source: &Source,
    others: &[Other<'_>],
    rejection: Rejection,
) -> Vec<String> {
    if !matches!(
        rejection,
        Rejection::SignatureMissing | Rejection::SignatureMismatch | Rejection::Unreadable
    ) {
        return Vec::new();
    }
    let mut hints = Vec::new();
    for (what, body) in other_bodies(request.body) {
        if fits(UnverifiedRequest { body: &body, ..request }, source) {
            hints.push(format!("{what}: something on its way changed it"));
        }
    }
    for (what, url) in other_urls(&source.signed_url(request.query)) {
        if fits_at(request, source, &url) {
            hints.push(format!("{what}: set public_url to what the sender was given"));
        }
    }
    for other in others {
        let name = other.source.name.as_str();
        if is_genuine(verify_by(&request, source, &other.keys, &mut Silent).map(drop)) {
            hints.push(format!("it fits with a secret of source {name:?}: were two secrets mixed up?"));
        } else if fits(request, other.source) {
            hints.push(format!(
                "it fits as a request to source {name:?}: does the sender know the wrong URL?"
            ));
        }
    }
    hints
}

/// Whether it would, but for the time at which it was signed.
fn fits(request: UnverifiedRequest<'_>, source: &Source) -> bool {
    is_genuine(verify(request, source, &mut Silent).map(drop))
}

fn fits_at(request: UnverifiedRequest<'_>, source: &Source, url: &str) -> bool {
    is_genuine(verify_at(&request, source, url, &mut Silent).map(drop))
}

/// Time is looked at last.
fn is_genuine(verdict: Result<(), Rejection>) -> bool {
    matches!(verdict, Ok(()) | Err(Rejection::TimestampOutsideWindow))
}

/// The body as it may have been when it was signed, and what that would mean.
fn other_bodies(body: &[u8]) -> Vec<(&'static str, Cow<'_, [u8]>)> {
    let mut others: Vec<(_, Cow<'_, [u8]>)> = Vec::new();
    if let Some(shorter) = body.strip_suffix(b"\n") {
        let shorter = shorter.strip_suffix(b"\r").unwrap_or(shorter);
        others.push(("it fits without the line end after the body", shorter.into()));
    } else {
        others.push(("it fits with a line end after the body", [body, b"\n"].concat().into()));
    }
    let unix = String::from_utf8_lossy(body).replace("\r\n", "\n").into_bytes();
    others.push(("it fits with each CR LF of the body as LF", unix.into()));
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        let compact = json.to_string().into_bytes();
        others.push(("it fits with the body as JSON without spaces and sorted", compact.into()));
    }
    if let Some(compact) = without_spaces(body) {
        others.push(("it fits with the body as JSON without spaces", compact.into()));
    }
    others.retain(|(_, other)| other.as_ref() != body);
    others.dedup_by(|one, other| one.1 == other.1);
    others
}

/// JSON without what stands between its tokens, and otherwise as it is; `None` where it is none.
fn without_spaces(body: &[u8]) -> Option<Vec<u8>> {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).ok()?;
    let (mut is_text, mut is_escaped) = (false, false);
    let mut compact = Vec::with_capacity(body.len());
    for &byte in body {
        if is_text || !byte.is_ascii_whitespace() {
            compact.push(byte);
        }
        is_text ^= byte == b'"' && !is_escaped;
        is_escaped = is_text && byte == b'\\' && !is_escaped;
    }
    Some(compact)
}

/// The URL as the sender may know it, and what that would mean.
fn other_urls(url: &str) -> Vec<(&'static str, String)> {
    if url.is_empty() {
        return Vec::new();
    }
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let with_query = |path: &str| query.map_or(path.to_owned(), |query| format!("{path}?{query}"));
    let mut others = Vec::new();
    match path.strip_suffix('/') {
        Some(shorter) => others.push(("it fits without the last / of the URL", with_query(shorter))),
        None => others.push(("it fits with a / at the end of the URL", with_query(&format!("{path}/")))),
    }
    if let Some(rest) = url.strip_prefix("https:") {
        others.push(("it fits with http: instead of https:", format!("http:{rest}")));
    } else if let Some(rest) = url.strip_prefix("http:") {
        others.push(("it fits with https: instead of http:", format!("https:{rest}")));
    }
    if query.is_some() {
        others.push(("it fits with the URL without its query", path.to_owned()));
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::tests::{header, signed, source};
    use hookwell_common::event::Name;
    use hookwell_common::time::Timestamp;

    const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);

    /// What is said of `sent`, where `signed_body` was signed for a source of `sender`.
    fn told(table: &str, sender: &str, signed_body: &str, sent: &str) -> Vec<String> {
        let headers = signed(&source(sender, &["s3cret"]), signed_body.as_bytes(), NOW);
        let request = UnverifiedRequest {
            method: "POST",
            query: None,
            headers: &headers,
            body: sent.as_bytes(),
            received_at: NOW,
        };
        let source = source(table, &["s3cret"]);
        let rejection = verify(request, &source, &mut Silent).unwrap_err();
        hints(request, &source, &[], rejection)
    }

    #[test]
    fn a_body_that_was_changed_on_its_way_is_recognised() {
        let github = "preset = \"github\"";
        for (signed_body, sent, words) in [
            ("{}", "{}\n", "without the line end"),
            ("{}\n", "{}", "with a line end"),
            (
                "{\"b\":1,\"a\":\"x y\\\" z\"}",
                "{\n  \"b\": 1,\n  \"a\": \"x y\\\" z\"\n}",
                "JSON without spaces:",
            ),
            ("a\nb", "a\r\nb", "as LF"),
        ] {
            let told = told(github, github, signed_body, sent);
            assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
        }
        assert!(told(github, github, "{}", "{\"forged\":1}").is_empty());
    }

    #[test]
    fn a_url_that_is_known_by_another_name_is_recognised() {
        let square = |url: &str| format!("public_url = {url:?}\npreset = \"square\"");
        for (ours, theirs, words) in [
            ("https://a.example/x", "https://a.example/x/", "/ at the end"),
            ("https://a.example/x", "http://a.example/x", "http: instead"),
            ("https://a.example/x?y=z", "https://a.example/x", "without its query"),
        ] {
            let told = told(&square(ours), &square(theirs), "{}", "{}");
            assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
        }
    }

    /// `theirs`, which has this secret, as the sender of `ours` would compute with it.
    fn other<'s>(ours: &Source, theirs: &'s Source, secret: &str) -> Other<'s> {
        Other {
            source: theirs,
            keys: ours.scheme.key("0".to_owned(), None, secret.as_bytes()).into_iter().collect(),
        }
    }

    #[test]
    fn a_secret_of_a_source_with_another_scheme_is_recognised_however_that_computes_with_it() {
        for (table, secret) in [("preset = \"stripe\"", "other"), ("preset = \"svix\"", "whsec_b3RoZXI=")] {
            let (ours, mut theirs) = (source("preset = \"github\"", &["one"]), source(table, &[secret]));
            theirs.name = Name::new("theirs").unwrap();
            let headers = signed(&source("preset = \"github\"", &[secret]), b"{}", NOW);
            let request = UnverifiedRequest {
                method: "POST",
                query: None,
                headers: &headers,
                body: b"{}",
                received_at: NOW,
            };
            let told = hints(request, &ours, &[other(&ours, &theirs, secret)], Rejection::SignatureMismatch);
            assert!(told.len() == 1 && told[0].contains("mixed up"), "{told:?}");
        }
    }

    #[test]
    fn another_source_whose_secret_fits_is_named_and_a_late_request_is_not_taken_for_forged() {
        let (one, mut two) =
            (source("preset = \"slack\"", &["one"]), source("preset = \"slack\"", &["other"]));
        two.name = Name::new("b").unwrap();
        let headers = signed(&two, b"{}", NOW);
        let later = NOW.plus(std::time::Duration::from_secs(3600));
        let request = UnverifiedRequest {
            method: "POST",
            query: None,
            headers: &headers,
            body: b"{}",
            received_at: later,
        };
        let all = [other(&one, &two, "other")];
        let told = hints(request, &one, &all, Rejection::SignatureMismatch);
        assert!(told.len() == 1 && told[0].contains("source \"b\""), "{told:?}");
        let nothing = hints(request, &one, &all, Rejection::TimestampOutsideWindow);
        assert!(nothing.is_empty());
        let headers = vec![header("x-other", "1")];
        let unsigned = UnverifiedRequest { headers: &headers, ..request };
        assert!(hints(unsigned, &one, &all, Rejection::SignatureMissing).is_empty());
    }
}
