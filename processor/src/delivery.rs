//! Record to delivery: what is owed to one destination, or to the dead letter topic.

use std::sync::Arc;

use bytestring::ByteString;
use hookwell_common::event::Event;
use hookwell_common::record::{DecodeError, Origin, Passage, RawRecord};
use hookwell_common::time::Timestamp;
use hookwell_common::topics::Topic;

use crate::dead_letter::DeadLetterReason;
use crate::lane::ledger::Offset;
use crate::retry::Tier;
use crate::route::Destination;
use crate::state::{Claim, StateKey};

/// A topic, of those that a lane reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Accepted events.
    Events,
    /// Retries of one tier.
    Retry(Tier),
}

impl Stream {
    /// Its name.
    pub fn topic(self, prefix: &str) -> String {
        let topic = match self {
            Stream::Events => Topic::Events,
            Stream::Retry(tier) => Topic::Retry(tier.0),
        };
        topic.name(prefix)
    }
}

/// Where a record lies, within a lane's partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The topic.
    pub stream: Stream,
    /// The offset.
    pub offset: Offset,
}

/// A record as it was polled.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Where it lies.
    pub place: Place,
    /// The broker's clock when it was written.
    pub appended_at: Timestamp,
    /// What it holds.
    pub raw: RawRecord,
}

/// What a record owes to one destination.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Names it, over all attempts and generations.
    pub key: StateKey,
    /// The record that owes it.
    pub place: Place,
    /// Which attempt of which generation.
    pub claim: Claim,
    /// What is delivered.
    pub content: Content,
    /// Where to.
    pub target: Target,
    /// When the first attempt of this generation failed.
    pub first_failed_at: Option<Timestamp>,
    /// When it was due, if it is a retry.
    pub not_before: Option<Timestamp>,
    /// Where the event was accepted.
    pub origin: Origin,
    /// Why it was given up before it was replayed.
    pub replayed_from: Option<DeadLetterReason>,
}

/// What is delivered.
#[derive(Clone, Debug)]
pub enum Content {
    /// An event.
    Event(Arc<Event>),
    /// Something that cannot be read as one; only ever a dead letter.
    Undecodable(Arc<RawRecord>, DecodeError),
}

/// Where a delivery goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// To a destination.
    Destination(Arc<Destination>),
    /// To one that is no longer configured.
    Removed(ByteString),
    /// Nowhere: no route names one.
    Nowhere,
}

impl Content {
    /// The event's source; empty where there is none.
    pub fn source(&self) -> ByteString {
        match self {
            Content::Event(event) => event.source.clone(),
            Content::Undecodable(..) => ByteString::new(),
        }
    }

    /// What it weighs in memory, in bytes, roughly.
    pub fn weight(&self) -> usize {
        match self {
            Content::Event(event) => event.body.len() + 512,
            Content::Undecodable(raw, _) => raw.weight(),
        }
    }
}

impl Target {
    /// The destination's name; empty for nowhere.
    pub fn name(&self) -> ByteString {
        match self {
            Target::Destination(destination) => destination.name.clone(),
            Target::Removed(name) => name.clone(),
            Target::Nowhere => ByteString::new(),
        }
    }
}

impl Delivery {
    /// How far it has come, as a record would tell it.
    pub fn passage(&self) -> Passage {
        let name = self.target.name();
        Passage {
            destination: (!name.is_empty()).then_some(name),
            generation: self.claim.generation,
            attempt: self.claim.attempt,
            forced: self.claim.forced,
            not_before: None,
            first_failed_at: self.first_failed_at,
            origin: Some(self.origin.clone()),
            failure: None,
        }
    }

    /// The key by which the receiver can tell a repeated call: the same for every attempt of this
    /// delivery in this generation.
    pub fn idempotency_key(&self) -> String {
        idempotency_key(&self.key, self.claim.generation)
    }
}

/// See [`Delivery::idempotency_key`].
pub fn idempotency_key(key: &StateKey, generation: u16) -> String {
    format!("{}-{generation}", hex::encode(key.0))
}
