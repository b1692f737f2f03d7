//! Records of the topics, read as `docs/topics.md` says.

use serde::{Deserialize, Serialize};

use crate::names::{DeliveryKey, Digest, EventKey, Name, Names};
use crate::state::State;

/// A record, as far as a judgement needs it.
#[derive(Clone, Debug)]
pub struct Record {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When it was appended, milliseconds since the epoch.
    pub at: u64,
    /// Over key, headers and value.
    pub digest: Digest,
    /// Over the value.
    pub body: Digest,
    /// What it says.
    pub content: Content,
}

/// What a record says.
#[derive(Clone, Debug)]
pub enum Content {
    /// An event, or a delivery of one.
    Event(Event),
    /// Nothing that can be read as an event; what its headers still say.
    Unreadable(Box<Passage>),
    /// A state.
    State(DeliveryKey, Value),
    /// Something on the state topic that says nothing about a delivery, or the record with which a
    /// transaction was ended on any topic.
    Aside,
}

/// An event as a record carries it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The configured source.
    pub source: Name,
    /// The event id.
    pub id: Name,
    /// How far a delivery of it has come; `None` for an event just accepted.
    pub passage: Option<Box<Passage>>,
}

/// How far a delivery has come: what the headers called `hookwell-…` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// The attempt that the record asks for, or the last one of a dead letter.
    pub attempt: u16,
    /// How often it was replayed.
    pub generation: u16,
    /// The one destination.
    pub destination: Option<Name>,
    /// When a retry is due, milliseconds since the epoch.
    pub not_before: Option<u64>,
    /// When the first attempt of the generation failed, milliseconds since the epoch.
    pub first_failed_at: Option<u64>,
    /// Where the event was accepted.
    pub origin: Option<Origin>,
    /// `transient`, or the reason of a dead letter.
    pub class: Option<Name>,
    /// Whether a replay is accepted although the delivery is done.
    pub forced: bool,
}

/// Where an event was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The topic.
    pub topic: Name,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// The value of a state record.
#[derive(Clone, Debug)]
pub enum Value {
    /// How far the delivery has come.
    State(State),
    /// What was known is ended.
    Ended,
    /// It cannot be read; why.
    Unreadable(Box<str>),
}

/// What a topic is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepted events and replays.
    Events,
    /// Deliveries that wait, of that tier.
    Retry(u16),
    /// Dead letters.
    Dead,
    /// States.
    State,
    /// Of a `kafka` destination.
    Forward,
}

impl Role {
    /// What `topic` is there for, where all but those of destinations begin with `prefix`.
    pub fn of(topic: &str, prefix: &str) -> Self {
        let within = topic.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
        match within {
            Some("events") => Role::Events,
            Some("dlq") => Role::Dead,
            Some("state") => Role::State,
            Some(name) => {
                let tier = name.strip_prefix("retry.").and_then(|tier| tier.parse().ok());
                tier.map_or(Role::Forward, Role::Retry)
            }
            None => Role::Forward,
        }
    }
}

impl Event {
    /// How far it has come.
    pub fn passage(&self) -> Option<&Passage> {
        self.passage.as_deref()
    }

    /// How often it was replayed.
    pub fn generation(&self) -> u16 {
        self.passage().map_or(0, |passage| passage.generation)
    }

    /// The attempt that it names.
    pub fn attempt(&self) -> u16 {
        self.passage().map_or(0, |passage| passage.attempt)
    }

    /// The one destination that it names; empty where it names none.
    pub fn destination(&self) -> &str {
        self.passage().and_then(|passage| passage.destination.as_deref()).unwrap_or("")
    }

    /// The hash of source and id.
    pub fn key(&self) -> EventKey {
        EventKey::of(&self.source, &self.id)
    }

    /// The hash of the delivery that it names.
    pub fn delivery(&self) -> DeliveryKey {
        DeliveryKey::of(&self.source, &self.id, self.destination())
    }
}

/// A line of `topics/NAME.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When it was appended, milliseconds since the epoch.
    pub at: u64,
    /// The key in hexadecimal.
    pub key: String,
    /// Names and values, in order.
    pub headers: Vec<(String, Text)>,
    /// Over key, headers and value.
    pub digest: Digest,
    /// Over the value.
    pub body: Digest,
    /// The length of the value in bytes.
    pub length: u64,
    /// The value in hexadecimal; on the state topic only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// The value of a header: text, or an array of bytes where it is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// UTF-8.
    Readable(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Text::Readable(text.to_owned()),
            Err(_) => Text::Bytes(bytes.to_vec()),
        }
    }
}

impl Text {
    /// What may stand in a header or a log line.
    fn printable(&self) -> Option<&str> {
        match self {
            Text::Readable(text) => Some(&**text).filter(|text| !text.bytes().any(|b| b.is_ascii_control())),
            Text::Bytes(_) => None,
        }
    }
}

impl Line {
    /// The line of a record. `whole` keeps its value.
    pub fn new(
        (partition, offset, at): (i32, i64, u64),
        key: Option<&[u8]>,
        headers: &[(&str, &[u8])],
        value: Option<&[u8]>,
        whole: bool,
    ) -> Self {
        Self {
            partition,
            offset,
            at,
            key: hex::encode(key.unwrap_or_default()),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Text::from(*value))).collect(),
            digest: digest(key, headers, value),
            body: Digest::of(value.unwrap_or_default()),
            length: value.map_or(0, <[u8]>::len) as u64,
            value: whole.then(|| hex::encode(value.unwrap_or_default())),
        }
    }

    /// What it says, on a topic that is there for `role`.
    pub fn read(&self, role: Role, names: &mut Names) -> Record {
        let content = match role {
            _ if self.key == hex::encode("hookwell-end") => Content::Aside,
            Role::State => self.read_state(),
            Role::Events | Role::Retry(_) | Role::Dead | Role::Forward => self.read_event(names),
        };
        let Line { partition, offset, at, digest, body, .. } = *self;
        Record { partition, offset, at, digest, body, content }
    }

    fn read_state(&self) -> Content {
        let mut key = DeliveryKey([0; 16]);
        if hex::decode_to_slice(&self.key, &mut key.0).is_err() {
            return Content::Aside;
        }
        let value = hex::decode(self.value.as_deref().unwrap_or_default())
            .map_err(anyhow::Error::from)
            .and_then(|value| State::read(&value));
        let value = match value {
            Ok(Some(state)) => Value::State(state),
            Ok(None) => Value::Ended,
            Err(error) => Value::Unreadable(error.to_string().into()),
        };
        Content::State(key, value)
    }

    fn read_event(&self, names: &mut Names) -> Content {
        let (passage, is_readable) = self.read_passage(names);
        let is_given_up = passage.class.as_deref() == Some("undecodable");
        let event = self.read_names(names).filter(|_| is_readable && !is_given_up);
        match event {
            Some((source, id)) => {
                let is_any = passage != Passage::default();
                Content::Event(Event { source, id, passage: is_any.then(|| Box::new(passage)) })
            }
            None => Content::Unreadable(Box::new(passage)),
        }
    }

    /// Source and id, if there is all that makes an event.
    fn read_names(&self, names: &mut Names) -> Option<(Name, Name)> {
        let texts = ["content-type", "traceparent"].map(|name| self.header(name));
        if !texts.into_iter().flatten().all(|text| text.printable().is_some()) {
            return None;
        }
        let required = |name| self.header(name)?.printable().filter(|text| !text.is_empty());
        required("ce_type")?;
        required("ce_time")?;
        let (source, id) = (required("ce_source")?, required("ce_id")?);
        (required("ce_specversion")? == "1.0").then(|| (names.get(source), names.get(id)))
    }

    /// What the headers called `hookwell-…` say, and whether all of them could be read.
    fn read_passage(&self, names: &mut Names) -> (Passage, bool) {
        let mut passage = Passage::default();
        let mut origin = (None, None, None);
        let mut is_readable = true;
        for (header, value) in &self.headers {
            let Some(name) = header.strip_prefix("hookwell-") else { continue };
            let text = value.printable();
            let number = text.and_then(|text| text.parse::<u64>().ok());
            let short = number.and_then(|number| u16::try_from(number).ok());
            let understood = match name {
                "attempt" => short.map(|number| passage.attempt = number),
                "generation" => short.map(|number| passage.generation = number),
                "destination" => text.map(|text| passage.destination = Some(names.get(text))),
                "not-before" => number.map(|number| passage.not_before = Some(number)),
                "first-failed-at" => number.map(|number| passage.first_failed_at = Some(number)),
                "original-topic" => text.map(|text| origin.0 = Some(names.get(text))),
                "original-partition" => {
                    text.and_then(|text| text.parse().ok()).map(|number| origin.1 = Some(number))
                }
                "original-offset" => {
                    text.and_then(|text| text.parse().ok()).map(|number| origin.2 = Some(number))
                }
                "error-class" => text.map(|text| passage.class = Some(names.get(text))),
                "error" => text.map(drop),
                "forced" => {
                    passage.forced = text == Some("true");
                    Some(())
                }
                _ => Some(()),
            };
            is_readable &= understood.is_some();
        }
        if let (Some(topic), Some(partition), Some(offset)) = origin {
            passage.origin = Some(Origin { topic, partition, offset });
        }
        (passage, is_readable)
    }

    fn header(&self, name: &str) -> Option<&Text> {
        // Of a header that stands there twice the last counts.
        self.headers.iter().rfind(|(known, _)| known == name).map(|(_, value)| value)
    }
}

/// The digest of a record: of its parts, each after its length.
pub fn digest(key: Option<&[u8]>, headers: &[(&str, &[u8])], value: Option<&[u8]>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: Option<&[u8]>| {
        // What is absent is not what is empty.
        hasher.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        hasher.update(part.unwrap_or_default());
    };
    add(key);
    for (name, value) in headers {
        add(Some(name.as_bytes()));
        add(Some(value));
    }
    add(value);
    Digest::first_half(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &[(&str, &[u8])] = &[
        ("ce_specversion", b"1.0"),
        ("ce_id", b"one"),
        ("ce_source", b"github"),
        ("ce_type", b"push"),
        ("ce_time", b"2026-01-01T00:00:00.000Z"),
    ];

    fn read(headers: &[(&str, &[u8])]) -> Content {
        let line = Line::new((0, 0, 0), Some(b"github:one"), headers, Some(b"body"), false);
        line.read(Role::Events, &mut Names::default()).content
    }

    fn read_with(header: (&str, &[u8])) -> Content {
        read(&[EVENT, &[header]].concat())
    }

    #[test]
    fn an_event_is_read_with_how_far_it_has_come() {
        let Content::Event(event) = read(EVENT) else { panic!("it is an event") };
        assert_eq!((&*event.source, &*event.id, event.passage), ("github", "one", None));
        let more: [(&str, &[u8]); 3] =
            [("hookwell-attempt", b"2"), ("hookwell-generation", b"1"), ("hookwell-destination", b"orders")];
        let Content::Event(event) = read(&[EVENT, &more].concat()) else { panic!("it is an event") };
        assert_eq!((event.attempt(), event.generation(), event.destination()), (2, 1, "orders"));
    }

    #[test]
    fn what_lacks_a_header_or_has_one_that_cannot_be_read_is_no_event() {
        for (index, left_out) in EVENT.iter().enumerate() {
            let mut headers = EVENT.to_vec();
            headers.remove(index);
            assert!(matches!(read(&headers), Content::Unreadable(_)), "without {left_out:?}");
        }
        let strange: [(&str, &[u8]); 5] = [
            ("ce_id", b""),
            ("ce_id", b"\xff"),
            ("content-type", b"a\nb"),
            ("hookwell-attempt", b"many"),
            ("hookwell-not-before", b"-1"),
        ];
        for header in strange {
            assert!(matches!(read_with(header), Content::Unreadable(_)), "{header:?}");
        }
        assert!(matches!(read_with(("http-x", b"\xff")), Content::Event(_)));
    }

    #[test]
    fn topics_are_known_by_their_names() {
        let roles = ["p.events", "p.retry.12", "p.dlq", "p.state", "p.out", "q.events"];
        let roles = roles.map(|topic| Role::of(topic, "p"));
        use Role::{Dead, Events, Forward, Retry, State};
        assert_eq!(roles, [Events, Retry(12), Dead, State, Forward, Forward]);
    }

    #[test]
    fn a_line_is_written_and_read_alike() {
        let line = Line::new((1, 2, 3), None, &[("a", b"\xff"), ("b", "é".as_bytes())], None, true);
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
    }

    #[test]
    fn a_digest_tells_where_parts_end_and_what_is_absent() {
        let digests = [
            digest(Some(b"ab"), &[], Some(b"")),
            digest(Some(b"a"), &[], Some(b"b")),
            digest(Some(b"ab"), &[], None),
            digest(Some(b"ab"), &[("a", b"b")], Some(b"")),
        ];
        assert_eq!(digests.iter().collect::<std::collections::HashSet<_>>().len(), 4);
    }
}
