//! The one header that proves a request.

use super::explain::{Step, Trace};
use super::request::UnverifiedRequest;
use crate::rejection::Rejection;

/// The value of header `name`, which must be there once, and be text.
pub(super) fn header_text<'r>(
    request: &UnverifiedRequest<'r>,
    name: &str,
    trace: &mut impl Trace,
) -> Result<&'r str, Rejection> {
    let step = Step::SignatureHeader;
    if request.headers.is_repeated(name) {
        let words = || format!("{name} is there more than once");
        return Err(trace.failed(step, Rejection::Unreadable, words));
    }
    let Some(value) = request.headers.first(name).filter(|value| !value.is_empty()) else {
        return Err(trace.failed(step, Rejection::SignatureMissing, || missing_header(name, request)));
    };
    match std::str::from_utf8(value) {
        Ok(text) => {
            trace.passed(step, || format!("{name} is there, {} bytes", text.len()));
            Ok(text)
        }
        Err(_) => Err(trace.failed(step, Rejection::Unreadable, || format!("{name} is not text"))),
    }
}

/// What headers have in their names that prove something.
const LIKE_A_PROOF: [&str; 8] =
    ["signature", "hmac", "token", "-sig", "hash", "-mac", "secret", "authorization"];

/// Names the header that is missing, and one that is like it.
pub(super) fn missing_header(name: &str, request: &UnverifiedRequest<'_>) -> String {
    let others = request.headers.names();
    let is_like = |other: &&String| LIKE_A_PROOF.iter().any(|part| other.contains(part));
    let similar = others.iter().find(is_like);
    match similar {
        Some(other) => {
            format!("{name} is missing or empty; {other} is there: is this another sender's request?")
        }
        None => format!("{name} is missing or empty; does the sender know a secret?"),
    }
}

/// What stands after `prefix`. Names of schemes of authentication have no case (RFC 9110, 11.1).
pub(super) fn after<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (begin, rest) = text.split_at_checked(prefix.len())?;
    begin.eq_ignore_ascii_case(prefix).then_some(rest)
}
