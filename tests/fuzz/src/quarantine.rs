//! Records of the quarantine topic: what senders wrote, kept as it came, and what was released.

use bytes::Bytes;
use hookwell_common::headers::{HTTP_PREFIX, QUARANTINE};
use hookwell_common::record::RawRecord;
use hookwell_common::time::Timestamp;
use hookwell_ingest::quarantine::record::{Entry, Kept, Release, Request, decode};
use hookwell_ingest::rejection::Rejection;
use hookwell_ingest::verify::request::UnverifiedRequest;

use crate::input::{Input, Output};

type Headers = Vec<(String, Vec<u8>)>;

/// A request that was kept, and a release.
pub(crate) fn cases() -> Vec<Vec<u8>> {
    let headers: Headers = vec![("x-a".to_owned(), vec![0xff]), ("x-b".to_owned(), Vec::new())];
    let request = UnverifiedRequest {
        method: "POST",
        query: Some("a=b"),
        headers: &headers,
        body: b"{}",
        received_at: Timestamp::from_millis(1_795_000_000_000),
    };
    let (peer, reason) = ("2001:db8::1".parse().ok(), Rejection::SignatureMismatch);
    let kept = Kept { source: "github", reason, request, peer, unique: "unique:1" };
    let release = Release { offset: 17, event: [0xab; 16] };
    vec![case(|write| kept.encode(write), request.body), case(|write| release.encode(write), b"")]
}

fn written(encode: impl FnOnce(&mut dyn FnMut(&str, &[u8]))) -> Headers {
    let mut headers = Vec::new();
    encode(&mut |name, value| headers.push((name.to_owned(), value.to_vec())));
    headers
}

fn case(encode: impl FnOnce(&mut dyn FnMut(&str, &[u8])), body: &[u8]) -> Vec<u8> {
    let headers = written(encode);
    let mut output = Output::default();
    output.bytes(body);
    output.0.extend(u8::try_from(headers.len()));
    for (name, value) in &headers {
        let place = QUARANTINE.iter().position(|known| known == name);
        output.0.push(place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX));
        if let Some(own) = name.strip_prefix(HTTP_PREFIX) {
            output.bytes(own.as_bytes());
        }
        output.bytes(value);
    }
    output.0
}

pub(crate) fn read(data: &[u8]) {
    let input = Input::new(data);
    let body = input.bytes();
    let mut headers: Headers = Vec::new();
    for _ in 0..input.byte() {
        let known = QUARANTINE.get(usize::from(input.byte()));
        let name = known.map_or_else(|| [HTTP_PREFIX, input.text()].concat(), |known| (*known).to_owned());
        headers.push((name, input.bytes().to_vec()));
    }
    match read_record(&headers, body) {
        Some(Entry::Request(request)) => {
            let (once, body) = written_again(&request);
            let Some(Entry::Request(again)) = read_record(&once, &body) else {
                unreachable!("what was a request is one still")
            };
            assert_eq!(written_again(&again), (once, body));
        }
        Some(Entry::Release(release)) => {
            let again = read_record(&written(|write| release.encode(write)), b"");
            assert_eq!(again, Some(Entry::Release(release)));
        }
        None => {}
    }
}

fn read_record(headers: &Headers, body: &[u8]) -> Option<Entry> {
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    decode(&RawRecord::copy(None, body, headers)).ok()
}

fn written_again(request: &Request) -> (Headers, Bytes) {
    let kept = Kept {
        source: &request.source,
        reason: request.reason,
        request: request.unverified(),
        peer: request.peer,
        unique: &request.unique,
    };
    let headers = written(|write| kept.encode(write));
    let weight: usize = headers
        .iter()
        .filter_map(|(name, value)| Some(name.strip_prefix(HTTP_PREFIX)?.len() + value.len()))
        .sum();
    let line = request.method.len() + request.query.as_ref().map_or(0, |query| query.len());
    assert_eq!(kept.weight(), weight + line);
    (headers, request.body.clone())
}
