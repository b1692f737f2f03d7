//! How far each delivery has come: what decides whether a record is a first sight, the attempt
//! that is due, a replay, or something that was settled before.

mod codec;
mod table;

use bytestring::ByteString;
use hookwell_common::identity::length_prefixed;
use hookwell_common::time::Timestamp;

pub use codec::{BIRTH_KEY, END_KEY, StateError, decode, encode};
pub use table::{Expiry, StateTable, Swept};

use crate::dead_letter::DeadLetterReason;

/// Names one delivery: BLAKE3-128 of the length-prefixed source, event id and destination. Ids are
/// chosen by strangers, so a weak hash would let one suppress another's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateKey(pub [u8; 16]);

impl StateKey {
    /// The key of the delivery of event `id` of `source` to `destination`.
    pub fn of(source: &str, id: &str, destination: &str) -> Self {
        let mut key = [0; 16];
        length_prefixed(&[source, id, destination]).finalize_xof().fill(&mut key);
        Self(key)
    }
}

/// How far one delivery has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryState {
    /// What was decided last.
    pub status: Status,
    /// How often the delivery was replayed.
    pub generation: u16,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When this was written.
    pub updated: Timestamp,
    /// Its newest dead letter, for as long as that lies on the topic.
    pub burial: Option<Burial>,
}

/// What was decided last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The attempt that is due next.
    Retrying {
        /// Counted from 0.
        next_attempt: u16,
    },
    /// Delivered.
    Done,
    /// In the dead letter topic.
    Dead,
}

/// A dead letter, as far as it must be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burial {
    /// Why.
    pub reason: DeadLetterReason,
    /// The event's source.
    pub source: ByteString,
    /// The destination; empty where no route named one.
    pub destination: ByteString,
    /// When it was written.
    pub at: Timestamp,
}

/// What a record asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// How often the delivery was replayed.
    pub generation: u16,
    /// Which attempt, from 0.
    pub attempt: u16,
    /// Whether a replay is accepted although the delivery was done.
    pub forced: bool,
}

/// What a claim is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// To be handled.
    Fresh,
    /// A copy of what was accepted before: counted and dropped.
    Duplicate,
    /// A retry that something newer has overtaken: counted and dropped.
    Stale,
}

/// The acceptance rule. It alone makes redelivery, retries, reordering inside a partition and a
/// replay run twice idempotent.
pub fn accept(state: Option<&DeliveryState>, claim: Claim) -> Acceptance {
    // No state: a first sight, or its state has expired, and repeating is better than losing.
    let Some(state) = state else { return Acceptance::Fresh };
    let is_replay = state.generation.checked_add(1) == Some(claim.generation) && claim.attempt == 0;
    let is_due = match state.status {
        Status::Retrying { next_attempt } => {
            claim.generation == state.generation && claim.attempt == next_attempt
        }
        Status::Dead => is_replay,
        Status::Done => is_replay && claim.forced,
    };
    if is_due {
        Acceptance::Fresh
    } else if claim.attempt == 0 {
        Acceptance::Duplicate
    } else {
        Acceptance::Stale
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn state(status: Status, generation: u16) -> DeliveryState {
        let moment = Timestamp::from_millis(1000);
        DeliveryState { status, generation, first_seen: moment, updated: moment, burial: None }
    }

    fn claim(generation: u16, attempt: u16, forced: bool) -> Claim {
        Claim { generation, attempt, forced }
    }

    #[rstest]
    #[case::a_first_sight(None, claim(0, 0, false), Acceptance::Fresh)]
    #[case::a_retry_whose_state_has_expired(None, claim(3, 7, false), Acceptance::Fresh)]
    #[case::a_copy_while_retrying(Some(state(Status::Retrying { next_attempt: 1 }, 0)), claim(0, 0, false), Acceptance::Duplicate)]
    #[case::the_attempt_that_is_due(Some(state(Status::Retrying { next_attempt: 1 }, 0)), claim(0, 1, false), Acceptance::Fresh)]
    #[case::an_attempt_already_made(Some(state(Status::Retrying { next_attempt: 2 }, 0)), claim(0, 1, false), Acceptance::Stale)]
    #[case::an_attempt_of_an_older_generation(Some(state(Status::Retrying { next_attempt: 1 }, 1)), claim(0, 1, false), Acceptance::Stale)]
    #[case::a_replay_of_what_is_not_dead(Some(state(Status::Retrying { next_attempt: 1 }, 0)), claim(1, 0, false), Acceptance::Duplicate)]
    #[case::a_forced_replay_of_what_is_not_done(Some(state(Status::Retrying { next_attempt: 1 }, 0)), claim(1, 0, true), Acceptance::Duplicate)]
    #[case::a_replay(Some(state(Status::Dead, 0)), claim(1, 0, false), Acceptance::Fresh)]
    #[case::a_replay_run_twice(Some(state(Status::Done, 1)), claim(1, 0, false), Acceptance::Duplicate)]
    #[case::a_replay_that_skips_a_generation(
        Some(state(Status::Dead, 0)),
        claim(2, 0, false),
        Acceptance::Duplicate
    )]
    #[case::a_copy_of_the_dead(Some(state(Status::Dead, 0)), claim(0, 0, false), Acceptance::Duplicate)]
    #[case::a_late_retry_of_the_dead(Some(state(Status::Dead, 0)), claim(0, 4, false), Acceptance::Stale)]
    #[case::a_copy_of_the_done(Some(state(Status::Done, 0)), claim(0, 0, false), Acceptance::Duplicate)]
    #[case::a_replay_of_the_done(Some(state(Status::Done, 0)), claim(1, 0, false), Acceptance::Duplicate)]
    #[case::a_forced_replay_of_the_done(Some(state(Status::Done, 0)), claim(1, 0, true), Acceptance::Fresh)]
    #[case::a_forced_replay_run_twice(Some(state(Status::Done, 1)), claim(1, 0, true), Acceptance::Duplicate)]
    #[case::the_last_generation_has_no_next(
        Some(state(Status::Dead, u16::MAX)),
        claim(0, 0, false),
        Acceptance::Duplicate
    )]
    fn acceptance(#[case] state: Option<DeliveryState>, #[case] claim: Claim, #[case] expected: Acceptance) {
        assert_eq!(accept(state.as_ref(), claim), expected);
    }

    #[test]
    fn no_two_deliveries_run_together() {
        let keys = [
            StateKey::of("a", "bc", "d"),
            StateKey::of("ab", "c", "d"),
            StateKey::of("a", "b", "cd"),
            StateKey::of("a", "bcd", ""),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
