//! Records of any of the topics, as events, as retries and as dead letters.

use bytes::Bytes;
use bytestring::ByteString;
use hookwell_common::event::Event;
use hookwell_common::record::{Failure, Origin, Passage, RawRecord, encode_headers};
use hookwell_common::time::Timestamp;
use hookwell_processor::replay::letter::DeadLetter;

use crate::input::{Input, Output};

/// An event that was accepted, one that is retried, and one that is dead.
pub(crate) fn cases() -> Vec<Vec<u8>> {
    let event = Event {
        source: ByteString::from("github"),
        id: ByteString::from("evt_1"),
        kind: ByteString::from("push"),
        time: ByteString::from("2026-11-27T00:00:00.000Z"),
        content_type: Some(ByteString::from("application/json")),
        traceparent: Some(ByteString::from("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
        kept_headers: vec![(ByteString::from("x-github-event"), Bytes::from_static(b"push"))],
        body: Bytes::from_static(b"{}"),
    };
    let origin = Origin { topic: ByteString::from("webhooks.events"), partition: 3, offset: 17 };
    let failure = Failure { class: ByteString::from("transient"), detail: ByteString::from("500") };
    let retried = Passage {
        destination: Some(ByteString::from("orders")),
        attempt: 2,
        not_before: Some(Timestamp::from_millis(1_795_000_000_000)),
        first_failed_at: Some(Timestamp::from_millis(1_794_000_000_000)),
        origin: Some(origin),
        failure: Some(failure),
        ..Passage::default()
    };
    let failure = Failure { class: ByteString::from("exhausted"), detail: ByteString::from("500") };
    let dead = Passage { failure: Some(failure), generation: 1, forced: true, ..retried.clone() };
    [Passage::default(), retried, dead].iter().map(|passage| case(&event, passage)).collect()
}

fn case(event: &Event, passage: &Passage) -> Vec<u8> {
    let (mut head, mut headers, mut count) = (Output::default(), Output::default(), 0);
    encode_headers(event, passage, |name, value| {
        let place = NAMES.iter().position(|known| *known == name);
        headers.0.push(place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX));
        if place.is_none() {
            headers.bytes(name.as_bytes());
        }
        headers.bytes(value);
        count += 1;
    });
    head.bytes(&[7; 16]);
    head.bytes(&event.body);
    head.0.push(count);
    [head.0, headers.0].concat()
}

/// Names that mean something, and one that does not.
const NAMES: &[&str] = hookwell_common::headers::ALL;

pub(crate) fn read(data: &[u8]) {
    let input = Input::new(data);
    let (key, value) = (input.bytes(), input.bytes());
    let mut headers = Vec::new();
    for _ in 0..input.byte() {
        let name = NAMES.get(usize::from(input.byte())).copied().unwrap_or_else(|| input.text());
        headers.push((name, input.bytes()));
    }
    let raw = RawRecord::copy(Some(key), value, headers.into_iter());
    let passage = raw.passage();
    let letter = DeadLetter::read(&raw, 0, 0, Timestamp::from_millis(1));
    assert_eq!(letter.passage, passage);
    let Ok((event, of_event)) = raw.decode() else { return };
    assert_eq!(passage, of_event);
    let mut written: Vec<(String, Bytes)> = Vec::new();
    encode_headers(&event, &of_event, |name, value| {
        written.push((name.to_owned(), Bytes::copy_from_slice(value)));
    });
    let headers = written.iter().map(|(name, value)| (name.as_str(), &**value));
    let again = RawRecord::copy(Some(key), &event.body, headers).decode();
    assert_eq!(again, Ok((event, of_event)));
}
