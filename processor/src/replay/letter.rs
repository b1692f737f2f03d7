//! A record of the dead letter topic.

use hookwell_common::event::Event;
use hookwell_common::record::{Passage, RawRecord};
use hookwell_common::time::Timestamp;

use crate::dead_letter::DeadLetterReason;
use crate::state::StateKey;

/// A dead letter, as it lies on its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The partition, which is that of the event too.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When it was written, by the broker's clock.
    pub dead_at: Timestamp,
    /// Why the delivery was given up.
    pub reason: DeadLetterReason,
    /// What was to be delivered; `None` where it cannot be read.
    pub event: Option<Event>,
    /// How far it had come.
    pub passage: Passage,
}

impl DeadLetter {
    /// Reads a record. What nobody of ours has written is a dead letter all the same, an undecodable
    /// one: it shows up in lists, and no replay touches it.
    pub fn read(raw: &RawRecord, partition: i32, offset: i64, dead_at: Timestamp) -> Self {
        let (event, passage) = match raw.decode() {
            Ok((event, passage)) => (Some(event), passage),
            Err(_) => (None, raw.passage()),
        };
        let class = passage.failure.as_ref().and_then(|failure| DeadLetterReason::from_label(&failure.class));
        let reason = class.filter(|_| event.is_some()).unwrap_or(DeadLetterReason::Undecodable);
        // The headers that would name it may be those that could not be read.
        let event = event.filter(|_| reason != DeadLetterReason::Undecodable);
        Self { partition, offset, dead_at, reason, event, passage }
    }

    /// The event's source; empty where it cannot be read.
    pub fn source(&self) -> &str {
        self.event.as_ref().map_or("", |event| &event.source)
    }

    /// The event's id; empty where it cannot be read.
    pub fn event_id(&self) -> &str {
        self.event.as_ref().map_or("", |event| &event.id)
    }

    /// The event's type; empty where it cannot be read.
    pub fn event_type(&self) -> &str {
        self.event.as_ref().map_or("", |event| &event.kind)
    }

    /// Where it was to go; empty where no route named a destination.
    pub fn destination(&self) -> &str {
        self.passage.destination.as_deref().unwrap_or("")
    }

    /// The name of its state; `None` where it cannot be read.
    pub fn key(&self) -> Option<StateKey> {
        self.event.as_ref().map(|event| StateKey::of(&event.source, &event.id, self.destination()))
    }

    /// How often its handler was called, in this generation.
    pub fn attempts(&self) -> u16 {
        match self.reason {
            DeadLetterReason::Permanent | DeadLetterReason::Exhausted | DeadLetterReason::TooOld => {
                self.passage.attempt.saturating_add(1)
            }
            // The attempt that is named was due and not made.
            DeadLetterReason::Undecodable
            | DeadLetterReason::Unroutable
            | DeadLetterReason::DestinationRemoved => self.passage.attempt,
        }
    }

    /// What went wrong, in words.
    pub fn error(&self) -> &str {
        self.passage.failure.as_ref().map_or("", |failure| &failure.detail)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use hookwell_common::record::{Failure, encode_headers};

    use super::*;

    pub(crate) fn letter(id: &str, destination: &str, reason: DeadLetterReason) -> DeadLetter {
        let event = Event {
            source: "acme".into(),
            id: id.into(),
            kind: "order.paid".into(),
            time: "2026-11-24T09:00:00Z".into(),
            content_type: None,
            traceparent: None,
            kept_headers: Vec::new(),
            body: "{}".into(),
        };
        let failure = Failure { class: reason.label().into(), detail: "it said no".into() };
        let passage = Passage {
            destination: (!destination.is_empty()).then(|| destination.into()),
            attempt: 2,
            failure: Some(failure),
            ..Passage::default()
        };
        let mut headers = Vec::new();
        encode_headers(&event, &passage, |name, value| headers.push((name.to_owned(), value.to_vec())));
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let raw = RawRecord::copy(None, &event.body, headers);
        DeadLetter::read(&raw, 3, 17, Timestamp::from_seconds(1_795_000_000))
    }

    #[test]
    fn a_dead_letter_is_read_with_all_that_lists_show() {
        let letter = letter("1", "orders", DeadLetterReason::Exhausted);
        assert_eq!((letter.source(), letter.event_id(), letter.event_type()), ("acme", "1", "order.paid"));
        assert_eq!((letter.destination(), letter.error(), letter.attempts()), ("orders", "it said no", 3));
        assert_eq!(letter.key(), Some(StateKey::of("acme", "1", "orders")));
    }

    #[test]
    fn an_attempt_that_was_not_made_is_not_counted() {
        assert_eq!(letter("1", "gone", DeadLetterReason::DestinationRemoved).attempts(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_shown_with_the_error_that_it_carries() {
        let undecodable = letter("1", "", DeadLetterReason::Undecodable);
        assert_eq!((undecodable.event.as_ref(), undecodable.error()), (None, "it said no"));
        let headers = [("hookwell-error-class", b"permanent".as_slice()), ("hookwell-error", b"why")];
        let raw = RawRecord::copy(None, b"x", headers.into_iter());
        let stranger = DeadLetter::read(&raw, 0, 0, Timestamp::default());
        assert_eq!(
            (stranger.reason, stranger.error(), stranger.key()),
            (DeadLetterReason::Undecodable, "why", None)
        );
    }
}
