//! Records of the state topic.

use bytestring::ByteString;
use hookwell_common::time::Timestamp;
use hookwell_processor::dead_letter::DeadLetterReason;
use hookwell_processor::state::{Burial, DeliveryState, Status, decode, encode};

use crate::input::Input;

/// A delivery that is retried, one that is done, and one that is dead.
pub(crate) fn cases() -> Vec<Vec<u8>> {
    let burial = Burial {
        reason: DeadLetterReason::Exhausted,
        source: ByteString::from("github"),
        destination: ByteString::from("orders"),
        at: Timestamp::from_millis(1_795_000_000_000),
    };
    let state = |status, burial| DeliveryState {
        status,
        generation: 1,
        first_seen: Timestamp::from_millis(1_794_000_000_000),
        updated: Timestamp::from_millis(1_795_000_000_000),
        burial,
    };
    let states = [
        state(Status::Retrying { next_attempt: 2 }, None),
        state(Status::Done, None),
        state(Status::Dead, Some(burial)),
    ];
    states.iter().map(|state| [vec![1], encode(state)].concat()).collect()
}

pub(crate) fn read(data: &[u8]) {
    let input = Input::new(data);
    let key = if input.byte() == 0 { input.bytes() } else { &[7; 16] };
    let value = input.rest();
    if let Ok((state_key, Some(state))) = decode(key, value) {
        assert_eq!(state_key.0, key);
        assert_eq!(decode(key, &encode(&state)), Ok((state_key, Some(state))));
    }
}
