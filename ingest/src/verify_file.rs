//! `--verify`: explains, offline, what ingest would say to a request, and why.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use hookwell_common::lifecycle::{Clock, Failure};
use hookwell_common::time::Timestamp;
use serde_json::json;

use crate::accept::{Accepted, accept};
use crate::cli::{Loaded, Output, print};
use crate::rejection::Rejection;
use crate::source::Source;
use crate::verify::explain::{Explanation, Finding};
use crate::verify::request::UnverifiedRequest;
use crate::verify::verify;

/// The most headers of a request that are read.
const MAX_HEADERS: usize = 256;

/// Where the request is, and when it was received.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The file; "-" is standard input.
    pub file: Option<&'r Path>,
    /// RFC 3339 or Unix seconds; `None` for now.
    pub at: Option<&'r str>,
}

/// A request as it was sent.
#[derive(Debug)]
struct Sent {
    method: String,
    query: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    body: Bytes,
}

/// Prints the verdict on the request to source `name`. The answer is no where ingest would not
/// accept it.
pub fn explain(loaded: &Loaded, name: &str, request: &Request<'_>, output: Output) -> Result<(), Failure> {
    let source = loaded.source(name)?;
    let file = request.file.unwrap_or(Path::new("-"));
    let bytes =
        read(file).map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", file.display())))?;
    let sent = parse(&bytes)
        .map_err(|why| Failure::Usage(format!("{} is not one HTTP/1.1 request: {why}", file.display())))?;
    let received_at = match request.at {
        None => Clock::start().now().wall,
        Some(text) => Timestamp::parse(text)
            .ok_or_else(|| Failure::Usage(format!("--at {text:?} is neither RFC 3339 nor Unix seconds")))?,
    };
    let mut explanation = Explanation::default();
    let verdict = judge(&sent, source, received_at, loaded.config.ingest.max_body_bytes, &mut explanation);
    print(&render(&verdict, &explanation.0, output))?;
    // The answer is already printed; only the status is left to say.
    verdict.map(|_| ()).map_err(|_| Failure::No(String::new()))
}

fn judge(
    sent: &Sent,
    source: &Source,
    received_at: Timestamp,
    max_body_bytes: usize,
    explanation: &mut Explanation,
) -> Result<Accepted, Rejection> {
    if sent.body.len() > max_body_bytes {
        return Err(Rejection::BodyTooLarge);
    }
    let unverified = UnverifiedRequest {
        method: &sent.method,
        query: sent.query.as_deref(),
        headers: &sent.headers,
        body: &sent.body,
        received_at,
    };
    let verified = verify(unverified, source, explanation)?;
    accept(&verified, sent.body.clone(), || "unique".to_owned(), explanation)
}

fn render(verdict: &Result<Accepted, Rejection>, findings: &[Finding], output: Output) -> String {
    let (status, reason) = match verdict {
        Ok(_) => (200, "accepted"),
        Err(rejection) => rejection.contract(),
    };
    let word = if verdict.is_ok() { "accept" } else { "reject" };
    let event = verdict.as_ref().ok().map(|accepted| &accepted.event);
    match output {
        Output::Json => json!({
            "verdict": word,
            "status": status,
            "reason": reason,
            "event_id": event.map(|event| event.id.to_string()),
            "event_type": event.map(|event| event.kind.to_string()),
            "steps": findings,
        })
        .to_string(),
        Output::Text => {
            let mark = |finding: &Finding| if finding.passed { "ok  " } else { "FAIL" };
            let mut lines: Vec<_> = findings
                .iter()
                .map(|finding| {
                    let step = serde_json::to_value(finding.step).unwrap_or_default();
                    format!("{} {:<17} {}", mark(finding), step.as_str().unwrap_or_default(), finding.detail)
                })
                .collect();
            lines.push(format!("{word}: {status} {reason}"));
            lines.join("\n")
        }
    }
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    if file != Path::new("-") {
        return std::fs::read(file);
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
}

fn parse(bytes: &[u8]) -> Result<Sent, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Err("the empty line after the headers is missing".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let headers: Vec<_> = request
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec()))
        .collect();
    let announced = headers.iter().find(|(name, _)| name == "content-length");
    let announced =
        announced.and_then(|(_, value)| std::str::from_utf8(value).ok()?.trim().parse::<usize>().ok());
    let body = &bytes[head..];
    // A file often ends with a line end that was not sent.
    let body = announced.and_then(|length| body.get(..length)).unwrap_or(body);
    Ok(Sent {
        method: request.method.unwrap_or_default().to_owned(),
        query: request.path.and_then(|path| path.split_once('?')).map(|(_, query)| query.to_owned()),
        headers,
        body: Bytes::copy_from_slice(body),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_sent() {
        let sent =
            parse(b"POST /webhooks/x?a=b HTTP/1.1\r\nHost: h\r\nX-Sig: 1\r\ncontent-length: 4\r\n\r\nbody\n")
                .unwrap();
        assert_eq!((sent.method.as_str(), sent.query.as_deref()), ("POST", Some("a=b")));
        assert_eq!(sent.headers[1], ("x-sig".to_owned(), b"1".to_vec()));
        assert_eq!(sent.body, "body");
    }

    #[test]
    fn without_a_length_the_body_is_the_rest() {
        assert_eq!(parse(b"POST / HTTP/1.1\n\nbody\n").unwrap().body, "body\n");
    }

    #[test]
    fn half_a_request_is_told_apart() {
        assert!(parse(b"POST / HTTP/1.1\r\nHost: h\r\n").unwrap_err().contains("empty line"));
        parse(b"\x00\x01").unwrap_err();
    }
}
