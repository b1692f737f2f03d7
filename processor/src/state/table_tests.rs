use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::dead_letter::DeadLetterReason;

const DAY: Duration = Duration::from_secs(86_400);
const EXPIRY: Expiry = Expiry {
    dedupe_window: Duration::from_secs(7 * 86_400),
    dead_letter_retention: Duration::from_secs(30 * 86_400),
};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(1_795_000_000 + seconds)
}

fn state(status: Status, updated: Timestamp) -> DeliveryState {
    DeliveryState { status, generation: 0, first_seen: updated, updated, burial: None }
}

fn buried(status: Status, generation: u16, updated: Timestamp, buried_at: Timestamp) -> DeliveryState {
    let burial = Burial {
        reason: DeadLetterReason::Exhausted,
        source: "s".into(),
        destination: "d".into(),
        at: buried_at,
    };
    DeliveryState { status, generation, first_seen: updated, updated, burial: Some(burial) }
}

fn key(number: u32) -> StateKey {
    StateKey::of("source", &number.to_string(), "destination")
}

proptest! {
    /// Any history of putting and removing leaves the table equal to an ordinary map.
    #[test]
    fn it_remembers_what_a_map_would(steps in proptest::collection::vec((any::<bool>(), 0u32..300, 0u16..40), 1..1500)) {
        let mut table = StateTable::new(EXPIRY);
        let mut map = HashMap::new();
        for (puts, number, next_attempt) in steps {
            if puts {
                let state = state(Status::Retrying { next_attempt }, at(0));
                table.put(key(number), state.clone());
                map.insert(key(number), state);
            } else {
                table.remove(&key(number));
                map.remove(&key(number));
            }
            prop_assert_eq!(table.len(), map.len());
        }
        for number in 0..300 {
            prop_assert_eq!(table.get(&key(number), at(0)), map.get(&key(number)).cloned());
        }
    }
}

#[test]
fn every_status_is_kept_with_its_dead_letter() {
    let mut table = StateTable::new(EXPIRY);
    for status in [Status::Done, Status::Dead, Status::Retrying { next_attempt: MAX_ATTEMPT }] {
        let written = buried(status, 3, at(0), at(0));
        table.put(key(1), written.clone());
        assert_eq!(table.get(&key(1), at(1)), Some(written));
    }
    table.put(key(1), state(Status::Done, at(0)));
    assert_eq!(table.get(&key(1), at(1)).unwrap().burial, None);
}

#[test]
fn what_is_done_is_forgotten_after_the_window_and_never_before() {
    let mut table = StateTable::new(EXPIRY);
    let updated = Timestamp::from_millis(at(0).as_millis() + 1);
    table.put(key(1), state(Status::Done, updated));
    assert!(table.get(&key(1), updated.plus(EXPIRY.dedupe_window).minus(Duration::from_millis(1))).is_some());
    assert!(table.get(&key(1), updated.plus(EXPIRY.dedupe_window + Duration::from_secs(1))).is_none());
}

#[test]
fn a_sweep_forgets_what_has_expired_and_gives_its_memory_back() {
    let mut table = StateTable::new(EXPIRY);
    for number in 0..20_000 {
        table.put(key(number), state(Status::Done, at(u64::from(number % 2) * 3600)));
    }
    let full = table.bytes();
    let later = at(1).plus(EXPIRY.dedupe_window);
    let mut forgotten = 0;
    for _ in 0..40 {
        forgotten += table.sweep(later, 1000).forgotten;
    }
    assert_eq!((forgotten, table.len()), (10_000, 10_000));
    assert!(table.bytes() < full);
    assert!((0..20_000).all(|number| table.get(&key(number), at(0)).is_some() == (number % 2 == 1)));
}

#[test]
fn what_has_a_dead_letter_is_written_again_until_that_is_gone() {
    let mut table = StateTable::new(EXPIRY);
    table.put(key(1), buried(Status::Dead, 0, at(0), at(0)));
    table.put(key(2), buried(Status::Done, 1, at(0), at(0)));
    table.put(key(3), state(Status::Done, at(0)));
    let mut now = at(0);
    let mut written = 0;
    while now < at(0).plus(EXPIRY.dead_letter_retention) {
        written += table.sweep(now, 10).refresh.len();
        assert!(table.get(&key(1), now).is_some() && table.get(&key(2), now).is_some(), "forgotten at {now}");
        now = now.plus(Duration::from_secs(3600));
    }
    assert!((20..40).contains(&written), "written {written} times");
    table.sweep(now.plus(20 * DAY), 10);
    assert!(table.is_empty());
}

#[test]
fn dead_letters_are_told_apart_from_those_replayed_since() {
    let mut table = StateTable::new(EXPIRY);
    table.put(key(1), buried(Status::Dead, 0, at(0), at(0)));
    table.put(key(2), buried(Status::Done, 1, at(0), at(0)));
    let mut dead: Vec<_> = table.burials().map(|(_, is_dead)| is_dead).collect();
    dead.sort_unstable();
    assert_eq!(dead, [false, true]);
}

#[test]
fn an_id_takes_no_more_than_48_bytes_however_many_there_are() {
    let mut table = StateTable::new(EXPIRY);
    let mut number = 0;
    for count in [100_000, 150_000, 200_000, 300_000, 400_000] {
        while number < count {
            table.put(key(number), state(Status::Done, at(0)));
            number += 1;
        }
        let per_id = table.bytes() / table.len();
        assert!(per_id <= 48, "{per_id} bytes an id at {count}");
    }
}

#[test]
fn a_digest_tells_states_apart_and_not_the_order_in_which_they_came() {
    let of = |states: &[(u32, Status)]| {
        let mut table = StateTable::new(EXPIRY);
        states.iter().for_each(|(number, status)| table.put(key(*number), state(*status, at(0))));
        table.digest()
    };
    let retrying = |next_attempt| Status::Retrying { next_attempt };
    let whole = of(&[(1, Status::Done), (2, retrying(1))]);
    assert_eq!(whole, of(&[(2, Status::Dead), (2, retrying(1)), (1, Status::Done)]));
    for other in [
        of(&[(1, Status::Done)]),
        of(&[(1, Status::Done), (3, retrying(1))]),
        of(&[(1, Status::Done), (2, retrying(2))]),
        of(&[(1, Status::Dead), (2, retrying(1))]),
    ] {
        assert_ne!(whole, other);
    }
}
