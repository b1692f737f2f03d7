//! The only codec between a request that failed verification and a record on the quarantine topic,
//! and of the record that tells that one was released.
//!
//! All that verification may look at is there, so that it can be done again. The value is the body,
//! byte for byte.

use std::net::IpAddr;

use bytes::Bytes;
use bytestring::ByteString;
use hookwell_common::headers as names;
use hookwell_common::record::RawRecord;
use hookwell_common::time::Timestamp;
use thiserror::Error;

use crate::rejection::Rejection;
use crate::verify::request::UnverifiedRequest;

/// The most that the headers and the query of a request may weigh together, in bytes.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Headers of the connection, and credentials with which no sender of webhooks proves anything.
const LEFT_OUT: [&str; 9] = [
    "connection",
    "cookie",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A request that is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'r> {
    /// The source to which it was sent.
    pub source: &'r str,
    /// Why it failed.
    pub reason: Rejection,
    /// What was sent.
    pub request: UnverifiedRequest<'r>,
    /// Who was connected.
    pub peer: Option<IpAddr>,
    /// An event id that nothing else has.
    pub unique: &'r str,
}

/// A request as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The source to which it was sent.
    pub source: ByteString,
    /// Why it failed.
    pub reason: Rejection,
    /// When ingest received it.
    pub received_at: Timestamp,
    /// An event id that nothing else has.
    pub unique: ByteString,
    /// In upper case.
    pub method: ByteString,
    /// What follows `?` in its target.
    pub query: Option<ByteString>,
    /// Who was connected.
    pub peer: Option<IpAddr>,
    /// Names in lower case, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// Tells that a request was released, from the same partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The offset of the request.
    pub offset: i64,
    /// Which event it was, by the first half of its hash.
    pub event: [u8; 16],
}

/// What a record on the quarantine topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A request.
    Request(Box<Request>),
    /// Tells of a release.
    Release(Release),
}

/// Why a record can be neither. Holds nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("header {0} is missing or cannot be read")]
pub struct Damage(pub &'static str);

impl Kept<'_> {
    /// What its headers and its query weigh, in bytes.
    pub fn weight(&self) -> usize {
        let query = self.request.query.map_or(0, str::len);
        let mut weight = query + self.request.method.len();
        self.each_header(|name, value| weight += name.len() + value.len());
        weight
    }

    /// Hands each header of its record to `write`.
    pub fn encode(&self, write: &mut dyn FnMut(&str, &[u8])) {
        let request = &self.request;
        write(names::REQUEST_SOURCE, self.source.as_bytes());
        write(names::REQUEST_REASON, self.reason.label().as_bytes());
        write(names::REQUEST_RECEIVED_AT, request.received_at.as_millis().to_string().as_bytes());
        write(names::REQUEST_UNIQUE, self.unique.as_bytes());
        write(names::REQUEST_METHOD, request.method.as_bytes());
        if let Some(query) = request.query {
            write(names::REQUEST_QUERY, query.as_bytes());
        }
        if let Some(peer) = self.peer {
            write(names::REQUEST_PEER, peer.to_string().as_bytes());
        }
        self.each_header(|name, value| write(&[names::HTTP_PREFIX, name].concat(), value));
    }

    fn each_header(&self, mut take: impl FnMut(&str, &[u8])) {
        let mut all = self.request.headers.names();
        all.sort_unstable();
        all.dedup();
        for name in all.iter().filter(|name| !LEFT_OUT.contains(&name.as_str())) {
            for value in (0..).map_while(|n| self.request.headers.nth(name, n)) {
                take(name, value);
            }
        }
    }
}

impl Request {
    /// The request, for those who verify it.
    pub fn unverified(&self) -> UnverifiedRequest<'_> {
        UnverifiedRequest {
            method: &self.method,
            query: self.query.as_deref(),
            headers: &self.headers,
            body: &self.body,
            received_at: self.received_at,
        }
    }
}

impl Release {
    /// Hands each header of its record to `write`.
    pub fn encode(&self, write: &mut dyn FnMut(&str, &[u8])) {
        write(names::RELEASED_OFFSET, self.offset.to_string().as_bytes());
        write(names::RELEASED_EVENT, hex::encode(self.event).as_bytes());
    }
}

/// Reads a record.
pub fn decode(record: &RawRecord) -> Result<Entry, Damage> {
    let mut draft = Draft::default();
    record.headers().for_each(|(name, value)| draft.take(&name, value));
    if draft.released_offset.is_some() || draft.released_event.is_some() {
        return draft.release().map(Entry::Release);
    }
    draft.request(record.value()).map(|request| Entry::Request(Box::new(request)))
}

/// What was read of a record so far.
#[derive(Default)]
struct Draft {
    source: Option<Bytes>,
    reason: Option<Bytes>,
    received_at: Option<Bytes>,
    unique: Option<Bytes>,
    method: Option<Bytes>,
    query: Option<Bytes>,
    peer: Option<Bytes>,
    released_offset: Option<Bytes>,
    released_event: Option<Bytes>,
    headers: Vec<(Bytes, Bytes)>,
}

impl Draft {
    fn take(&mut self, name: &Bytes, value: Bytes) {
        let fields = [
            (names::REQUEST_SOURCE, &mut self.source),
            (names::REQUEST_REASON, &mut self.reason),
            (names::REQUEST_RECEIVED_AT, &mut self.received_at),
            (names::REQUEST_UNIQUE, &mut self.unique),
            (names::REQUEST_METHOD, &mut self.method),
            (names::REQUEST_QUERY, &mut self.query),
            (names::REQUEST_PEER, &mut self.peer),
            (names::RELEASED_OFFSET, &mut self.released_offset),
            (names::RELEASED_EVENT, &mut self.released_event),
        ];
        if name.starts_with(names::HTTP_PREFIX.as_bytes()) {
            self.headers.push((name.slice(names::HTTP_PREFIX.len()..), value));
        } else if let Some((_, field)) = fields.into_iter().find(|(known, _)| known.as_bytes() == name) {
            *field = Some(value);
        }
    }

    fn release(self) -> Result<Release, Damage> {
        let mut event = [0; 16];
        let hex = self.released_event.ok_or(Damage(names::RELEASED_EVENT))?;
        hex::decode_to_slice(&hex, &mut event).map_err(|_| Damage(names::RELEASED_EVENT))?;
        Ok(Release { offset: parsed(self.released_offset.as_ref(), names::RELEASED_OFFSET)?, event })
    }

    fn request(self, body: Bytes) -> Result<Request, Damage> {
        let reason = text(self.reason, names::REQUEST_REASON)?;
        let millis = parsed(self.received_at.as_ref(), names::REQUEST_RECEIVED_AT)?;
        let peer = self.peer.map(|peer| parsed(Some(&peer), names::REQUEST_PEER)).transpose()?;
        let header = |(name, value): (Bytes, Bytes)| {
            let name = String::from_utf8(name.to_vec()).map_err(|_| Damage("http-…"))?;
            Ok((name, value.to_vec()))
        };
        Ok(Request {
            source: text(self.source, names::REQUEST_SOURCE)?,
            reason: Rejection::from_label(&reason).ok_or(Damage(names::REQUEST_REASON))?,
            received_at: Timestamp::from_millis(millis),
            unique: text(self.unique, names::REQUEST_UNIQUE)?,
            method: text(self.method, names::REQUEST_METHOD)?,
            query: self.query.map(|query| text(Some(query), names::REQUEST_QUERY)).transpose()?,
            peer,
            headers: self.headers.into_iter().map(header).collect::<Result<_, _>>()?,
            body,
        })
    }
}

fn text(value: Option<Bytes>, name: &'static str) -> Result<ByteString, Damage> {
    let text = ByteString::try_from(value.ok_or(Damage(name))?).map_err(|_| Damage(name))?;
    if text.bytes().any(|byte| byte.is_ascii_control()) { Err(Damage(name)) } else { Ok(text) }
}

fn parsed<T: std::str::FromStr>(value: Option<&Bytes>, name: &'static str) -> Result<T, Damage> {
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).ok_or(Damage(name))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    type Headers = Vec<(String, Vec<u8>)>;

    /// What lies on Kafka of `kept`.
    pub(crate) fn record_of(kept: &Kept<'_>) -> RawRecord {
        written(|write| kept.encode(write), kept.request.body)
    }

    fn written(encode: impl FnOnce(&mut dyn FnMut(&str, &[u8])), body: &[u8]) -> RawRecord {
        let mut headers: Headers = Vec::new();
        encode(&mut |name, value| headers.push((name.to_owned(), value.to_vec())));
        raw(&headers, body)
    }

    fn raw(headers: &Headers, body: &[u8]) -> RawRecord {
        RawRecord::copy(None, body, headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    }

    fn request(headers: &Headers) -> UnverifiedRequest<'_> {
        UnverifiedRequest {
            method: "POST",
            query: Some("a=b&a=%20"),
            headers,
            body: b"\0{\xff",
            received_at: Timestamp::from_millis(1_795_510_799_123),
        }
    }

    fn kept(headers: &Headers) -> Kept<'_> {
        Kept {
            source: "acme",
            reason: Rejection::SignatureMismatch,
            request: request(headers),
            peer: Some("2001:db8::1".parse().unwrap()),
            unique: "unique:1",
        }
    }

    fn header(name: &str, value: &[u8]) -> (String, Vec<u8>) {
        (name.to_owned(), value.to_vec())
    }

    #[test]
    fn a_request_comes_back_as_it_was_received() {
        let headers =
            vec![header("x-b", b"2"), header("x-a", b"\xff\0"), header("x-b", b""), header("x-b", b"1")];
        let Ok(Entry::Request(found)) = decode(&record_of(&kept(&headers))) else { panic!("not a request") };
        let expected = Request {
            source: "acme".into(),
            reason: Rejection::SignatureMismatch,
            received_at: Timestamp::from_millis(1_795_510_799_123),
            unique: "unique:1".into(),
            method: "POST".into(),
            query: Some("a=b&a=%20".into()),
            peer: Some("2001:db8::1".parse().unwrap()),
            headers: vec![
                header("x-a", b"\xff\0"),
                header("x-b", b"2"),
                header("x-b", b""),
                header("x-b", b"1"),
            ],
            body: Bytes::from_static(b"\0{\xff"),
        };
        assert_eq!(*found, expected);
    }

    #[test]
    fn what_is_no_proof_of_a_senders_is_not_kept() {
        let headers = vec![header("cookie", b"s"), header("authorization", b"t"), header("te", b"x")];
        let kept = kept(&headers);
        let Ok(Entry::Request(found)) = decode(&record_of(&kept)) else { panic!("not a request") };
        assert_eq!(found.headers, [header("authorization", b"t")]);
        assert_eq!(kept.weight(), "a=b&a=%20POSTauthorizationt".len());
    }

    #[test]
    fn a_request_cannot_be_sent_that_looks_like_a_release() {
        let headers = vec![header(names::RELEASED_OFFSET, b"0"), header(names::REQUEST_SOURCE, b"other")];
        let Ok(Entry::Request(found)) = decode(&record_of(&kept(&headers))) else { panic!("not a request") };
        assert_eq!(found.source, "acme");
    }

    #[test]
    fn a_release_comes_back() {
        let release = Release { offset: 17, event: [0xab; 16] };
        assert_eq!(decode(&written(|write| release.encode(write), b"")), Ok(Entry::Release(release)));
    }

    #[test]
    fn a_damaged_record_says_where() {
        let headers = vec![header("x-a", b"1")];
        let mut whole: Headers = Vec::new();
        kept(&headers).encode(&mut |name, value| whole.push((name.to_owned(), value.to_vec())));
        for name in [
            names::REQUEST_SOURCE,
            names::REQUEST_REASON,
            names::REQUEST_RECEIVED_AT,
            names::REQUEST_UNIQUE,
            names::REQUEST_METHOD,
        ] {
            let without: Headers = whole.iter().filter(|(known, _)| known != name).cloned().collect();
            assert_eq!(decode(&raw(&without, b"")), Err(Damage(name)));
            let spoilt = |(known, value): &(String, Vec<u8>)| {
                (known.clone(), if known == name { b"\n\xff".to_vec() } else { value.clone() })
            };
            assert_eq!(decode(&raw(&whole.iter().map(spoilt).collect(), b"")), Err(Damage(name)));
        }
        assert_eq!(decode(&raw(&vec![], b"")), Err(Damage(names::REQUEST_REASON)));
        let half = vec![header(names::RELEASED_OFFSET, b"1")];
        assert_eq!(decode(&raw(&half, b"")), Err(Damage(names::RELEASED_EVENT)));
    }

    proptest! {
        #[test]
        fn whatever_lies_there_is_read_without_a_panic(
            headers in prop::collection::vec(
                (prop::sample::select([names::QUARANTINE, &["http-a", "x"]].concat()), prop::collection::vec(any::<u8>(), 0..40)),
                0..12,
            ),
            body in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let headers: Headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let _found = decode(&raw(&headers, &body));
        }
    }
}
