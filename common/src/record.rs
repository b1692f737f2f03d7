//! The only codec between an [`Event`] with its [`Passage`] and the bytes of a Kafka record.
//!
//! Decoding copies nothing: all fields of an event are slices of the one buffer into which the
//! record was copied. Headers are written anew on each hop from the typed values, never appended.

use bytes::Bytes;
use bytestring::ByteString;
use thiserror::Error;

use crate::event::Event;
use crate::headers as names;
use crate::time::Timestamp;

/// A record's key, value and headers as they lie on Kafka, in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRecord {
    buffer: Bytes,
    key: Option<Span>,
    value: Span,
    headers: Vec<(Span, Span)>,
}

/// How far a delivery has come: what retries and dead letters carry beside their event. The
/// default is that of an event just accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// The one destination that this record is for; `None`: routes decide.
    pub destination: Option<ByteString>,
    /// How often the delivery was replayed.
    pub generation: u16,
    /// Which call of the handler this record asks for, from 0.
    pub attempt: u16,
    /// A replay that is accepted although the delivery was done.
    pub forced: bool,
    /// When a retry is due.
    pub not_before: Option<Timestamp>,
    /// When the first attempt of this generation failed.
    pub first_failed_at: Option<Timestamp>,
    /// Where the event was accepted.
    pub origin: Option<Origin>,
    /// Why the last attempt failed.
    pub failure: Option<Failure>,
}

/// The place at which an event was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The topic's full name.
    pub topic: ByteString,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// Why a delivery is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `transient` on a retry, the reason on a dead letter.
    pub class: ByteString,
    /// In words; cut at [`names::MAX_ERROR_BYTES`] when written.
    pub detail: ByteString,
}

/// Why a record is not one of ours. No variant holds anything of the record's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A header without which there is no event.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A header that is not printable UTF-8.
    #[error("header {0} is not printable text")]
    NotText(&'static str),
    /// A header that does not hold what it should.
    #[error("header {0} cannot be read")]
    Malformed(&'static str),
}

impl RawRecord {
    /// Copies a record's parts into one buffer.
    pub fn copy<'a>(
        key: Option<&[u8]>,
        value: &[u8],
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let mut buffer = Vec::with_capacity(key.map_or(0, <[u8]>::len) + value.len() + USUAL_HEADER_BYTES);
        let key = key.map(|key| Span::append(&mut buffer, key));
        let value = Span::append(&mut buffer, value);
        let headers = headers
            .map(|(name, value)| {
                (Span::append(&mut buffer, name.as_bytes()), Span::append(&mut buffer, value))
            })
            .collect();
        Self { buffer: Bytes::from(buffer), key, value, headers }
    }

    /// The record's key.
    pub fn key(&self) -> Option<Bytes> {
        self.key.map(|key| key.of(&self.buffer))
    }

    /// The record's value.
    pub fn value(&self) -> Bytes {
        self.value.of(&self.buffer)
    }

    /// All headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        self.headers.iter().map(|(name, value)| (name.of(&self.buffer), value.of(&self.buffer)))
    }

    /// What the record weighs in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.buffer.len() + self.headers.len() * size_of::<(Span, Span)>()
    }

    /// Reads the record as an event and how far it has come.
    pub fn decode(&self) -> Result<(Event, Passage), DecodeError> {
        let mut draft = Draft::default();
        for (name, value) in &self.headers {
            draft.take(name.bytes(&self.buffer), value, &self.buffer)?;
        }
        draft.finish(self.value())
    }

    /// How far a record has come, whether or not it can be read as an event; of what cannot be read
    /// the default.
    pub fn passage(&self) -> Passage {
        let mut draft = Draft::default();
        for (name, value) in &self.headers {
            draft.take_passage(name.bytes(&self.buffer), value, &self.buffer).ok();
        }
        draft.passage()
    }
}

/// What the headers of most records weigh together; more only costs a second allocation.
const USUAL_HEADER_BYTES: usize = 768;

/// The record key of an event: what keeps its copies, retries and dead letters together.
pub fn record_key(source: &str, event_id: &str) -> Vec<u8> {
    [source.as_bytes(), b":", event_id.as_bytes()].concat()
}

/// Hands each header of the record for `event` to `write`, in the order of [`names::ALL`].
pub fn encode_headers(event: &Event, passage: &Passage, mut write: impl FnMut(&str, &[u8])) {
    write(names::CE_SPECVERSION, names::SPEC_VERSION.as_bytes());
    write(names::CE_ID, event.id.as_bytes());
    write(names::CE_SOURCE, event.source.as_bytes());
    write(names::CE_TYPE, event.kind.as_bytes());
    write(names::CE_TIME, event.time.as_bytes());
    write_text(names::CONTENT_TYPE, event.content_type.as_ref(), &mut write);
    write_text(names::TRACEPARENT, event.traceparent.as_ref(), &mut write);
    for (name, value) in &event.kept_headers {
        write(&[names::HTTP_PREFIX, name].concat(), value);
    }
    encode_passage(passage, write);
}

/// Hands each header that tells how far a delivery has come to `write`; none for an event just
/// accepted.
pub fn encode_passage(passage: &Passage, mut write: impl FnMut(&str, &[u8])) {
    if *passage == Passage::default() {
        return;
    }
    write(names::ATTEMPT, passage.attempt.to_string().as_bytes());
    write(names::GENERATION, passage.generation.to_string().as_bytes());
    write_text(names::DESTINATION, passage.destination.as_ref(), &mut write);
    write_moment(names::NOT_BEFORE, passage.not_before, &mut write);
    write_moment(names::FIRST_FAILED_AT, passage.first_failed_at, &mut write);
    if let Some(origin) = &passage.origin {
        write(names::ORIGINAL_TOPIC, origin.topic.as_bytes());
        write(names::ORIGINAL_PARTITION, origin.partition.to_string().as_bytes());
        write(names::ORIGINAL_OFFSET, origin.offset.to_string().as_bytes());
    }
    if let Some(failure) = &passage.failure {
        write(names::ERROR_CLASS, failure.class.as_bytes());
        write(names::ERROR, cut(&failure.detail, names::MAX_ERROR_BYTES).as_bytes());
    }
    if passage.forced {
        write(names::FORCED, b"true");
    }
}

/// A part of a [`RawRecord`]'s buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    fn append(buffer: &mut Vec<u8>, bytes: &[u8]) -> Self {
        let start = buffer.len();
        buffer.extend_from_slice(bytes);
        Self { start, end: buffer.len() }
    }

    fn of(self, buffer: &Bytes) -> Bytes {
        buffer.slice(self.start..self.end)
    }

    fn bytes(self, buffer: &Bytes) -> &[u8] {
        &buffer[self.start..self.end]
    }

    /// The part as text that may stand in a header or a log line.
    fn text(self, name: &'static str, buffer: &Bytes) -> Result<ByteString, DecodeError> {
        let text = ByteString::try_from(self.of(buffer)).map_err(|_| DecodeError::NotText(name))?;
        if text.bytes().any(|b| b.is_ascii_control()) { Err(DecodeError::NotText(name)) } else { Ok(text) }
    }

    fn number<T: std::str::FromStr>(self, name: &'static str, buffer: &Bytes) -> Result<T, DecodeError> {
        std::str::from_utf8(self.bytes(buffer))
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(DecodeError::Malformed(name))
    }
}

/// What was read of a record so far.
#[derive(Default)]
struct Draft {
    spec_version: bool,
    id: Option<ByteString>,
    source: Option<ByteString>,
    kind: Option<ByteString>,
    time: Option<ByteString>,
    content_type: Option<ByteString>,
    traceparent: Option<ByteString>,
    kept_headers: Vec<(ByteString, Bytes)>,
    passage: Passage,
    original_topic: Option<ByteString>,
    original_partition: Option<i32>,
    original_offset: Option<i64>,
    error_class: Option<ByteString>,
    error: Option<ByteString>,
}

impl Draft {
    fn take(&mut self, name: &[u8], value: &Span, buffer: &Bytes) -> Result<(), DecodeError> {
        match name {
            b"ce_specversion" => self.spec_version = value.bytes(buffer) == names::SPEC_VERSION.as_bytes(),
            b"ce_id" => self.id = Some(value.text(names::CE_ID, buffer)?),
            b"ce_source" => self.source = Some(value.text(names::CE_SOURCE, buffer)?),
            b"ce_type" => self.kind = Some(value.text(names::CE_TYPE, buffer)?),
            b"ce_time" => self.time = Some(value.text(names::CE_TIME, buffer)?),
            b"content-type" => self.content_type = Some(value.text(names::CONTENT_TYPE, buffer)?),
            b"traceparent" => self.traceparent = Some(value.text(names::TRACEPARENT, buffer)?),
            _ => {
                if let Some(kept) = name.strip_prefix(names::HTTP_PREFIX.as_bytes()) {
                    let kept = ByteString::try_from(kept).map_err(|_| DecodeError::NotText("http-…"))?;
                    self.kept_headers.push((kept, value.of(buffer)));
                } else if name.starts_with(b"hookwell-") {
                    return self.take_passage(name, value, buffer);
                }
            }
        }
        Ok(())
    }

    fn take_passage(&mut self, name: &[u8], value: &Span, buffer: &Bytes) -> Result<(), DecodeError> {
        let passage = &mut self.passage;
        match name {
            b"hookwell-attempt" => passage.attempt = value.number(names::ATTEMPT, buffer)?,
            b"hookwell-generation" => passage.generation = value.number(names::GENERATION, buffer)?,
            b"hookwell-destination" => {
                passage.destination = Some(value.text(names::DESTINATION, buffer)?);
            }
            b"hookwell-not-before" => {
                passage.not_before =
                    Some(value.number(names::NOT_BEFORE, buffer).map(Timestamp::from_millis)?);
            }
            b"hookwell-first-failed-at" => {
                passage.first_failed_at =
                    Some(value.number(names::FIRST_FAILED_AT, buffer).map(Timestamp::from_millis)?);
            }
            b"hookwell-original-topic" => {
                self.original_topic = Some(value.text(names::ORIGINAL_TOPIC, buffer)?);
            }
            b"hookwell-original-partition" => {
                self.original_partition = Some(value.number(names::ORIGINAL_PARTITION, buffer)?);
            }
            b"hookwell-original-offset" => {
                self.original_offset = Some(value.number(names::ORIGINAL_OFFSET, buffer)?);
            }
            b"hookwell-error-class" => self.error_class = Some(value.text(names::ERROR_CLASS, buffer)?),
            b"hookwell-error" => self.error = Some(value.text(names::ERROR, buffer)?),
            b"hookwell-forced" => passage.forced = value.bytes(buffer) == b"true",
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self, body: Bytes) -> Result<(Event, Passage), DecodeError> {
        if !self.spec_version {
            return Err(DecodeError::Missing(names::CE_SPECVERSION));
        }
        let event = Event {
            source: required(self.source.take(), names::CE_SOURCE)?,
            id: required(self.id.take(), names::CE_ID)?,
            kind: required(self.kind.take(), names::CE_TYPE)?,
            time: required(self.time.take(), names::CE_TIME)?,
            content_type: self.content_type.take(),
            traceparent: self.traceparent.take(),
            kept_headers: std::mem::take(&mut self.kept_headers),
            body,
        };
        Ok((event, self.passage()))
    }

    fn passage(self) -> Passage {
        let origin = match (self.original_topic, self.original_partition, self.original_offset) {
            (Some(topic), Some(partition), Some(offset)) => Some(Origin { topic, partition, offset }),
            _ => None,
        };
        let failure = self.error_class.map(|class| Failure { class, detail: self.error.unwrap_or_default() });
        Passage { origin, failure, ..self.passage }
    }
}

fn required(value: Option<ByteString>, name: &'static str) -> Result<ByteString, DecodeError> {
    value.filter(|text| !text.is_empty()).ok_or(DecodeError::Missing(name))
}

fn write_text(name: &str, value: Option<&ByteString>, write: &mut impl FnMut(&str, &[u8])) {
    if let Some(value) = value {
        write(name, value.as_bytes());
    }
}

fn write_moment(name: &str, value: Option<Timestamp>, write: &mut impl FnMut(&str, &[u8])) {
    if let Some(value) = value {
        write(name, value.as_millis().to_string().as_bytes());
    }
}

fn cut(text: &str, max_bytes: usize) -> &str {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
