//! Records between the codec and librdkafka.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};

use crate::event::Event;
use crate::record::{Passage, RawRecord, encode_headers};

/// The headers of the record for `event`.
pub fn headers_of(event: &Event, passage: &Passage) -> OwnedHeaders {
    collect_headers(24 + event.kept_headers.len(), |write| encode_headers(event, passage, write))
}

/// The headers that `encode` writes, of which there are about `capacity`.
pub fn collect_headers(capacity: usize, encode: impl FnOnce(&mut dyn FnMut(&str, &[u8]))) -> OwnedHeaders {
    // `insert` takes the headers and gives them back, and a default would be allocated anew.
    let mut headers = Some(OwnedHeaders::new_with_capacity(capacity));
    encode(&mut |key, value| {
        headers = headers.take().map(|headers| headers.insert(Header { key, value: Some(value) }));
    });
    headers.unwrap_or_default()
}

/// Copies what librdkafka lent us.
pub fn copy_record(message: &BorrowedMessage<'_>) -> RawRecord {
    let value = message.payload().unwrap_or_default();
    match message.headers() {
        None => RawRecord::copy(message.key(), value, std::iter::empty()),
        Some(headers) => {
            let headers = headers.iter().map(|header| (header.key, header.value.unwrap_or_default()));
            RawRecord::copy(message.key(), value, headers)
        }
    }
}
