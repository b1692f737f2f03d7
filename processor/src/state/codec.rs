//! State records: 16 bytes of key, and a small versioned value.
//!
//! Version 1, numbers big-endian: version u8, status u8 (1 retrying, 2 done, 3 dead), generation
//! u16, next attempt u16, first seen u64, updated u64 (milliseconds since the epoch); then, where
//! a dead letter lies on the topic: written at u64, reason u8, source and destination, each with
//! its length u16 before it.

use bytes::{Buf, BufMut};
use bytestring::ByteString;
use hookwell_common::time::Timestamp;
use thiserror::Error;

use super::{Burial, DeliveryState, StateKey, Status};
use crate::dead_letter::DeadLetterReason;

/// The key of the record with which a state partition begins. It is no delivery's: those have 16
/// bytes.
pub const BIRTH_KEY: &[u8] = b"hookwell-birth";

/// The key of an end record: on any topic that a lane writes to, what ends a transaction there whose
/// end Kafka has forgotten. It says nothing about any delivery.
pub const END_KEY: &[u8] = b"hookwell-end";

const VERSION: u8 = 1;
const RETRYING: u8 = 1;
const DONE: u8 = 2;
const DEAD: u8 = 3;

/// Why a state record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StateError {
    /// A birth or an end record, which says nothing about any delivery.
    #[error("it is a birth record or an end record")]
    NoDelivery,
    /// Not one of ours.
    #[error("its key is not 16 bytes long")]
    ForeignKey,
    /// One of a later Hookwell's.
    #[error(
        "it has version {0}, and this program knows version {VERSION}; run the newer Hookwell that wrote it"
    )]
    UnknownVersion(u8),
    /// One of ours, and damaged.
    #[error("its value is damaged")]
    Damaged,
}

/// The value of the state record for `state`.
pub fn encode(state: &DeliveryState) -> Vec<u8> {
    let (status, next_attempt) = match state.status {
        Status::Retrying { next_attempt } => (RETRYING, next_attempt),
        Status::Done => (DONE, 0),
        Status::Dead => (DEAD, 0),
    };
    let mut value = Vec::with_capacity(22);
    value.put_u8(VERSION);
    value.put_u8(status);
    value.put_u16(state.generation);
    value.put_u16(next_attempt);
    value.put_u64(state.first_seen.as_millis());
    value.put_u64(state.updated.as_millis());
    if let Some(burial) = &state.burial {
        value.put_u64(burial.at.as_millis());
        value.put_u8(burial.reason.code());
        put_text(&mut value, &burial.source);
        put_text(&mut value, &burial.destination);
    }
    value
}

/// Reads a state record; an empty value is the end of what was known, as a null one is.
pub fn decode(key: &[u8], value: &[u8]) -> Result<(StateKey, Option<DeliveryState>), StateError> {
    if key == BIRTH_KEY || key == END_KEY {
        return Err(StateError::NoDelivery);
    }
    let key = StateKey(key.try_into().map_err(|_| StateError::ForeignKey)?);
    if value.is_empty() {
        return Ok((key, None));
    }
    match value[0] {
        VERSION => decode_value(&value[1..]).map(|state| (key, Some(state))).ok_or(StateError::Damaged),
        version => Err(StateError::UnknownVersion(version)),
    }
}

fn decode_value(mut value: &[u8]) -> Option<DeliveryState> {
    let status = value.try_get_u8().ok()?;
    let generation = value.try_get_u16().ok()?;
    let next_attempt = value.try_get_u16().ok()?;
    let first_seen = get_moment(&mut value)?;
    let updated = get_moment(&mut value)?;
    let status = match status {
        RETRYING => Status::Retrying { next_attempt },
        DONE => Status::Done,
        DEAD => Status::Dead,
        _ => return None,
    };
    let burial = if value.is_empty() { None } else { Some(decode_burial(&mut value)?) };
    value.is_empty().then_some(DeliveryState { status, generation, first_seen, updated, burial })
}

fn decode_burial(value: &mut &[u8]) -> Option<Burial> {
    let at = get_moment(value)?;
    let reason = DeadLetterReason::from_code(value.try_get_u8().ok()?)?;
    Some(Burial { at, reason, source: get_text(value)?, destination: get_text(value)? })
}

fn get_moment(value: &mut &[u8]) -> Option<Timestamp> {
    value.try_get_u64().ok().map(Timestamp::from_millis)
}

fn put_text(value: &mut Vec<u8>, text: &str) {
    let length = text.len().min(usize::from(u16::MAX));
    value.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
    value.put_slice(&text.as_bytes()[..length]);
}

fn get_text(value: &mut &[u8]) -> Option<ByteString> {
    let length = usize::from(value.try_get_u16().ok()?);
    let (text, rest) = value.split_at_checked(length)?;
    *value = rest;
    std::str::from_utf8(text).ok().map(ByteString::from)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::state) fn any_state() -> impl Strategy<Value = DeliveryState> {
        let status = prop_oneof![
            any::<u16>().prop_map(|next_attempt| Status::Retrying { next_attempt }),
            Just(Status::Done),
            Just(Status::Dead),
        ];
        let reason = proptest::sample::select(DeadLetterReason::ALL.to_vec());
        let burial = (reason, "[a-z]{0,9}", "[a-z]{0,9}", any::<u64>()).prop_map(
            |(reason, source, destination, at)| Burial {
                reason,
                source: source.into(),
                destination: destination.into(),
                at: Timestamp::from_millis(at),
            },
        );
        (status, any::<u16>(), any::<u64>(), any::<u64>(), proptest::option::of(burial)).prop_map(
            |(status, generation, first_seen, updated, burial)| DeliveryState {
                status,
                generation,
                first_seen: Timestamp::from_millis(first_seen),
                updated: Timestamp::from_millis(updated),
                burial,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(key in any::<[u8; 16]>(), state in any_state()) {
            prop_assert_eq!(decode(&key, &encode(&state)), Ok((StateKey(key), Some(state))));
        }

        #[test]
        fn strange_values_are_refused_and_never_crash(key in any::<Vec<u8>>(), value in any::<Vec<u8>>()) {
            decode(&key, &value).ok();
        }

        #[test]
        fn a_value_that_was_cut_is_never_taken_for_a_whole_one(state in any_state(), cut in 1usize..60) {
            let value = encode(&state);
            let cut = value.len().saturating_sub(cut).max(1);
            let read = decode(&[0; 16], &value[..cut]).map(|(_, state)| state);
            // What is left may be a whole record without a burial, and nothing else.
            let without_burial = DeliveryState { burial: None, ..state };
            prop_assert!(read.is_err() || read == Ok(Some(without_burial)));
        }
    }

    #[test]
    fn versions_of_later_programs_are_told_apart_from_damage() {
        assert_eq!(decode(&[0; 16], &[9, 9, 9]), Err(StateError::UnknownVersion(9)));
        assert_eq!(decode(&[0; 16], &[1, 9]), Err(StateError::Damaged));
        assert_eq!(decode(b"topology", &[1]), Err(StateError::ForeignKey));
    }

    #[test]
    fn a_tombstone_ends_what_was_known() {
        assert_eq!(decode(&[7; 16], &[]), Ok((StateKey([7; 16]), None)));
    }

    #[test]
    fn a_settled_delivery_takes_22_bytes() {
        let moment = Timestamp::from_millis(1_795_510_799_123);
        let state = DeliveryState {
            status: Status::Done,
            generation: 0,
            first_seen: moment,
            updated: moment,
            burial: None,
        };
        assert_eq!(encode(&state).len(), 22);
    }
}
