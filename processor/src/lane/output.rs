//! A settlement to the records that its transaction writes.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use hookwell_common::event::Event;
use hookwell_common::record::{Failure, Passage, RawRecord, encode_headers, encode_passage, record_key};
use smallvec::SmallVec;

use super::batch::{Commit, Entry};
use crate::dead_letter::DeadLetterReason;
use crate::delivery::{Content, Target};
use crate::outcome::{HandlerError, Outcome};
use crate::retry::Tier;
use crate::route::Kind;
use crate::settle::Settlement;
use crate::state::{BIRTH_KEY, DeliveryState, StateKey, encode};

/// The class that a retry's headers carry.
pub const TRANSIENT: &str = "transient";

/// A record to be written, on the lane's own partition number unless it goes to a topic of
/// somebody else's.
#[derive(Debug)]
pub struct Output<'e> {
    /// Where to.
    pub topic: OutputTopic<'e>,
    /// Its key.
    pub key: Cow<'e, [u8]>,
    /// Its value.
    pub value: Cow<'e, [u8]>,
    headers: Headers<'e>,
}

/// Where a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputTopic<'e> {
    /// A retry topic.
    Retry(Tier),
    /// The dead letter topic.
    DeadLetters,
    /// The state topic.
    State,
    /// The topic of a `kafka` destination.
    Forward(&'e str),
}

#[derive(Debug)]
enum Headers<'e> {
    None,
    Event(&'e Event, Box<Passage>),
    Raw(&'e RawRecord, Box<Passage>),
}

impl Output<'_> {
    /// Hands each header to `write`.
    pub fn encode_headers(&self, mut write: impl FnMut(&str, &[u8])) {
        match &self.headers {
            Headers::None => {}
            Headers::Event(event, passage) => encode_headers(event, passage, write),
            Headers::Raw(raw, passage) => {
                for (name, value) in raw.headers() {
                    if let Ok(name) = std::str::from_utf8(&name)
                        && !name.starts_with("hookwell-")
                    {
                        write(name, &value);
                    }
                }
                encode_passage(passage, write);
            }
        }
    }

    /// Whether there are headers at all.
    pub fn has_headers(&self) -> bool {
        !matches!(self.headers, Headers::None)
    }
}

/// All records of a transaction, in the order in which they are written: a state that is written
/// again comes first, for the end of the same delivery may have been decided since.
pub fn all_outputs(commit: &Commit) -> impl Iterator<Item = Output<'_>> {
    let again = commit.batch.refreshed.iter().map(|(key, state)| state_output(*key, state));
    again.chain(commit.batch.entries.iter().flat_map(outputs)).chain(commit.birth.then(birth_output))
}

/// The records that `entry` writes: where the delivery goes on, and its state.
pub fn outputs(entry: &Entry) -> SmallVec<[Output<'_>; 2]> {
    let mut outputs = SmallVec::new();
    match entry.settlement {
        Settlement::Done => outputs.extend(forward(entry)),
        Settlement::Retry { tier, not_before } => {
            let passage = Passage {
                attempt: entry.delivery.claim.attempt.saturating_add(1),
                forced: false,
                not_before: Some(not_before),
                failure: Some(Failure { class: ByteString::from_static(TRANSIENT), detail: detail(entry) }),
                ..entry.delivery.passage()
            };
            outputs.push(output(OutputTopic::Retry(tier), entry, passage));
        }
        Settlement::DeadLetter(reason) => {
            let failure = Failure { class: ByteString::from_static(reason.label()), detail: detail(entry) };
            let passage = Passage { forced: false, failure: Some(failure), ..entry.delivery.passage() };
            outputs.push(output(OutputTopic::DeadLetters, entry, passage));
        }
    }
    outputs.push(state_output(entry.delivery.key, &entry.state));
    outputs
}

/// The record with which a state partition begins.
pub fn birth_output() -> Output<'static> {
    Output {
        topic: OutputTopic::State,
        key: Cow::Borrowed(BIRTH_KEY),
        value: Cow::Borrowed(hookwell_common::telemetry::VERSION.as_bytes()),
        headers: Headers::None,
    }
}

/// The record of a state.
pub fn state_output(key: StateKey, state: &DeliveryState) -> Output<'static> {
    Output {
        topic: OutputTopic::State,
        key: Cow::Owned(key.0.to_vec()),
        value: Cow::Owned(encode(state)),
        headers: Headers::None,
    }
}

fn forward(entry: &Entry) -> Option<Output<'_>> {
    let Target::Destination(destination) = &entry.delivery.target else { return None };
    match &destination.kind {
        Kind::Kafka { topic } => Some(output(OutputTopic::Forward(topic), entry, Passage::default())),
        Kind::Call | Kind::Log => None,
    }
}

fn output<'e>(topic: OutputTopic<'e>, entry: &'e Entry, passage: Passage) -> Output<'e> {
    match &entry.delivery.content {
        Content::Event(event) => Output {
            topic,
            key: Cow::Owned(record_key(&event.source, &event.id)),
            value: Cow::Borrowed(&event.body),
            headers: Headers::Event(event, Box::new(passage)),
        },
        Content::Undecodable(raw, _) => Output {
            topic,
            key: Cow::Owned(raw.key().unwrap_or_else(Bytes::new).to_vec()),
            value: Cow::Owned(raw.value().to_vec()),
            headers: Headers::Raw(raw, Box::new(passage)),
        },
    }
}

/// What went wrong, in words.
fn detail(entry: &Entry) -> ByteString {
    if let Some(Outcome::Failed(error)) = &entry.outcome {
        return failure_words(error);
    }
    match (&entry.delivery.content, &entry.settlement) {
        (Content::Undecodable(_, error), _) => ByteString::from(error.to_string()),
        (_, Settlement::DeadLetter(DeadLetterReason::DestinationRemoved)) => {
            ByteString::from(format!("destination {} is not configured", entry.delivery.target.name()))
        }
        (_, Settlement::DeadLetter(DeadLetterReason::Unroutable)) => {
            ByteString::from_static("no route names this source and type")
        }
        (Content::Event(_), _) => ByteString::new(),
    }
}

fn failure_words(error: &HandlerError) -> ByteString {
    let words: String = error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    ByteString::from(words)
}
