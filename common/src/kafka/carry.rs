//! Records between the codec and librdkafka.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};

use crate::event::Event;
use crate::record::{Passage, RawRecord, encode_headers};
use crate::time::Timestamp;

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

/// Copies what librdkafka lent us. Headers of which one has a name that is not UTF-8 are left out,
/// all of them: rdkafka panics where it should tell, and such a record is not one of ours.
pub fn copy_record(message: &BorrowedMessage<'_>) -> RawRecord {
    let value = message.payload().unwrap_or_default();
    let bare = || RawRecord::copy(message.key(), value, std::iter::empty());
    let Some(headers) = message.headers() else { return bare() };
    let whole = || {
        let headers = headers.iter().map(|header| (header.key, header.value.unwrap_or_default()));
        RawRecord::copy(message.key(), value, headers)
    };
    catch_unwind(AssertUnwindSafe(whole)).unwrap_or_else(|_| bare())
}

/// When the broker wrote the record, by its clock.
pub fn appended_at(message: &BorrowedMessage<'_>) -> Timestamp {
    let millis = message.timestamp().to_millis().and_then(|millis| u64::try_from(millis).ok());
    Timestamp::from_millis(millis.unwrap_or_default())
}
