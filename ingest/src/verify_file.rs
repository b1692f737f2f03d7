//! `--verify`: explains, offline, what ingest would say to a request, and why.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use hookwell_common::config::{Environment, Faults, SourceConfig};
use hookwell_common::lifecycle::{Clock, Failure, print};
use hookwell_common::time::Timestamp;
use serde_json::json;

use crate::accept::{Accepted, accept};
use crate::cli::{Loaded, Output};
use crate::hints::{Other, hints};
use crate::metrics::{ACCEPTED, HANDSHAKE};
use crate::rejection::Rejection;
use crate::source::Source;
use crate::verify::explain::{Explanation, Finding, Step, Trace};
use crate::verify::handshake::Reply;
use crate::verify::request::UnverifiedRequest;
use crate::verify::{shake_hands, verify};

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

/// What a request is that is not refused.
#[derive(Debug)]
enum Judged {
    Event(Box<Accepted>),
    Handshake(Reply),
}

/// A request as it was sent.
#[derive(Debug)]
struct Sent {
    method: String,
    query: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    body: Bytes,
    /// How long the body was to be, where it ends before.
    missing_from: Option<usize>,
}

impl Sent {
    fn unverified(&self, received_at: Timestamp) -> UnverifiedRequest<'_> {
        UnverifiedRequest {
            method: &self.method,
            query: self.query.as_deref(),
            headers: &self.headers,
            body: &self.body,
            received_at,
        }
    }
}

/// Prints the verdict on the request to source `name`. The answer is no where ingest would not
/// accept it.
pub fn explain(
    loaded: &Loaded,
    environment: &Environment,
    name: &str,
    request: &Request<'_>,
    output: Output,
) -> Result<(), Failure> {
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
    if let (Err(rejection), Some(failed)) = (&verdict, explanation.0.last_mut()) {
        let others = others(loaded, environment, source);
        for hint in hints(sent.unverified(received_at), source, &others, *rejection) {
            failed.detail += "; ";
            failed.detail += &hint;
        }
    }
    print(&render(&verdict, source, &explanation.0, output))?;
    // The answer is already printed; only the status is left to say.
    verdict.map(|_| ()).map_err(|_| Failure::No(String::new()))
}

/// All sources but `source`.
fn others<'l>(loaded: &'l Loaded, environment: &Environment, source: &Source) -> Vec<Other<'l>> {
    let another = |config: &SourceConfig| {
        let other = loaded.sources.get(config.name.as_str()).filter(|other| other.name != source.name)?;
        // What cannot be read is a fault of that source, and was told when the configuration was read.
        let secrets = config.secrets.iter().filter_map(|material| {
            let secret = material.resolve(environment, &mut Faults::default())?;
            source.scheme.key(material.key.clone(), material.id.clone(), secret.reveal())
        });
        Some(Other { source: other, keys: secrets.collect() })
    };
    loaded.config.sources.iter().filter_map(another).collect()
}

fn judge(
    sent: &Sent,
    source: &Source,
    received_at: Timestamp,
    max_body_bytes: usize,
    explanation: &mut Explanation,
) -> Result<Judged, Rejection> {
    check_body(sent, max_body_bytes, explanation)?;
    let request = sent.unverified(received_at);
    if let Some(reply) = shake_hands(&request, source, None, explanation) {
        return reply.map(Judged::Handshake);
    }
    let verified = verify(request, source, explanation)?;
    if let Some(reply) = shake_hands(&request, source, Some(verified.key()), explanation) {
        return reply.map(Judged::Handshake);
    }
    accept(&verified, sent.body.clone(), || "unique".to_owned(), explanation).map(Box::new).map(Judged::Event)
}

fn check_body(sent: &Sent, max_bytes: usize, explanation: &mut Explanation) -> Result<(), Rejection> {
    let length = sent.body.len();
    if let Some(announced) = sent.missing_from {
        return Err(explanation
            .failed(Step::Body, Rejection::Aborted, || format!("ends after {length} of {announced} bytes")));
    }
    if length > max_bytes {
        return Err(explanation.failed(Step::Body, Rejection::BodyTooLarge, || {
            format!("{length} bytes; ingest.max_body_bytes is {max_bytes}")
        }));
    }
    explanation.passed(Step::Body, || format!("whole, {length} bytes"));
    Ok(())
}

fn render(
    verdict: &Result<Judged, Rejection>,
    source: &Source,
    findings: &[Finding],
    output: Output,
) -> String {
    let (status, reason, event) = match verdict {
        Ok(Judged::Event(accepted)) => (source.success_status, ACCEPTED, Some(&accepted.event)),
        Ok(Judged::Handshake(reply)) => (reply.status, HANDSHAKE, None),
        Err(rejection) => (source.status_of(*rejection), rejection.label(), None),
    };
    let word = if verdict.is_ok() { "accept" } else { "reject" };
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
    let body = Body::of(&headers)?.cut(&bytes[head..])?;
    Ok(Sent {
        method: request.method.unwrap_or_default().to_owned(),
        query: request.path.and_then(|path| path.split_once('?')).map(|(_, query)| query.to_owned()),
        headers,
        body: body.0,
        missing_from: body.1,
    })
}

/// How a request says where its body ends.
enum Body {
    /// By `content-length`.
    Length(usize),
    /// In chunks.
    Chunked,
    /// Not at all: the file ends with it.
    Rest,
}

impl Body {
    fn of(headers: &[(String, Vec<u8>)]) -> Result<Self, String> {
        let value = |name: &str| {
            let found = headers.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| String::from_utf8_lossy(value).trim().to_ascii_lowercase())
        };
        match (value("transfer-encoding"), value("content-length")) {
            (Some(coding), None) if coding == "chunked" => Ok(Body::Chunked),
            (Some(coding), _) => {
                Err(format!("transfer-encoding is {coding:?}, and only \"chunked\" is read"))
            }
            (None, Some(length)) => {
                length.parse().map(Body::Length).map_err(|_| format!("content-length is {length:?}"))
            }
            (None, None) => Ok(Body::Rest),
        }
    }

    /// The body among `bytes`, and how long it was to be where it is cut off.
    fn cut(self, bytes: &[u8]) -> Result<(Bytes, Option<usize>), String> {
        let (body, rest) = match self {
            Body::Rest => return Ok((Bytes::copy_from_slice(bytes), None)),
            Body::Length(length) => match bytes.split_at_checked(length) {
                Some((body, rest)) => (Bytes::copy_from_slice(body), rest),
                None => return Ok((Bytes::copy_from_slice(bytes), Some(length))),
            },
            Body::Chunked => unchunk(bytes)?,
        };
        // A file often ends with a line end that was not sent.
        match rest {
            b"" | b"\n" | b"\r\n" => Ok((body, None)),
            _ => Err(format!("{} bytes follow its body of {}", rest.len(), body.len())),
        }
    }
}

/// The content of all chunks, and what follows the last.
fn unchunk(bytes: &[u8]) -> Result<(Bytes, &[u8]), String> {
    const BROKEN: &str = "its chunks cannot be read";
    let (mut body, mut rest) = (Vec::new(), bytes);
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest) else {
            return Err(BROKEN.to_owned());
        };
        rest = &rest[start..];
        if size == 0 {
            return Ok((body.into(), rest.strip_prefix(b"\r\n").unwrap_or(rest)));
        }
        let size = usize::try_from(size).map_err(|_| BROKEN)?;
        let (chunk, after) = rest.split_at_checked(size).ok_or(BROKEN)?;
        body.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r\n").ok_or(BROKEN)?;
    }
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
    fn chunks_are_put_together_as_they_are_when_received() {
        let sent = parse(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n\n");
        assert_eq!(sent.unwrap().body, "abc0123456789");
        for broken in ["3\r\nab", "x\r\n", "3\r\nabc0\r\n\r\n", "ffffffffffffffff\r\nabc", ""] {
            let request = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{broken}");
            assert!(parse(request.as_bytes()).unwrap_err().contains("chunks"), "{broken}");
        }
    }

    #[test]
    fn a_body_that_is_not_as_long_as_announced_is_told_apart() {
        let cut = parse(b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nbody").unwrap();
        assert_eq!(cut.missing_from, Some(9));
        let mut explanation = Explanation::default();
        assert_eq!(check_body(&cut, 100, &mut explanation), Err(Rejection::Aborted));
        assert_eq!(explanation.0[0].detail, "ends after 4 of 9 bytes");
        let more = parse(b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody and more");
        assert!(more.unwrap_err().contains("9 bytes follow its body"));
    }

    #[test]
    fn half_a_request_is_told_apart() {
        assert!(parse(b"POST / HTTP/1.1\r\nHost: h\r\n").unwrap_err().contains("empty line"));
        parse(b"\x00\x01").unwrap_err();
    }
}
