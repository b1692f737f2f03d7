//! With every guard in place nothing is ever broken, and rest can be reached from everywhere.
//!
//! `make model` searches larger scopes than `cargo test` does.

use super::search::{search, told};
use super::*;

/// A search that grows beyond this many states is a fault of its scope.
const LIMIT: usize = 30_000_000;

/// Searches `scope` and tells what was found.
pub(super) fn run(scope: Scope) -> search::Found<Step> {
    let name = scope.name;
    let found = search(&Model::new(scope), LIMIT);
    let search::Found { states, steps, depth, .. } = &found;
    println!("{name}: {states} states, {steps} steps, depth {depth}");
    if let Some((what, way)) = &found.breach {
        println!("{what}, after {} steps:\n{}", way.len(), told(way));
    }
    found
}

/// Nothing is broken in `scope`.
pub(super) fn clean(scope: Scope) {
    let found = run(scope);
    assert!(found.breach.is_none(), "{:?}", found.breach);
}

/// Whether the larger scopes are asked for.
#[expect(clippy::disallowed_methods, reason = "it is no configuration: it says how long a test may take")]
fn is_large() -> bool {
    std::env::var("HOOKWELL_MODEL").is_ok_and(|size| size == "large")
}

/// The second of two where the larger scopes are asked for.
fn sized<T>(small: T, large: T) -> T {
    if is_large() { large } else { small }
}

const EVERY_ANSWER: [Answer; 3] = [Answer::Well, Answer::Transient, Answer::Permanent];

const OF_ONE: [(Fault, u8); 7] = [
    (Fault::Crash, 2),
    (Fault::Unanswered, 2),
    (Fault::Refused, 1),
    (Fault::Late, 1),
    (Fault::Forgotten, 1),
    (Fault::TimedOut, 1),
    (Fault::Stranger, 1),
];

const OF_TWO: [(Fault, u8); 5] = [
    (Fault::Move, 2),
    (Fault::StaleFence, 1),
    (Fault::Crash, 2),
    (Fault::Unanswered, 1),
    (Fault::TimedOut, 1),
];

fn copy() -> Vec<(&'static str, &'static str)> {
    vec![("1", "push"), ("1", "push")]
}

#[test]
fn every_fate_of_an_event_and_its_copy_with_one_fault_anywhere() {
    clean(Scope {
        events: copy(),
        max_attempts: sized(2, 3),
        answers: EVERY_ANSWER.to_vec(),
        faults: OF_ONE.to_vec(),
        at_most: sized(1, 2),
        ..Scope::new("every fate, a copy, one fault")
    });
}

#[test]
fn every_fate_of_an_event_with_two_faults_anywhere() {
    clean(Scope {
        answers: EVERY_ANSWER.to_vec(),
        faults: OF_ONE.to_vec(),
        at_most: sized(2, 3),
        ..Scope::new("every fate, two faults")
    });
}

#[test]
fn records_wait_between_two_threads() {
    clean(Scope {
        events: sized(copy(), vec![("1", "push"), ("2", "push"), ("1", "push")]),
        has_mail: true,
        faults: OF_ONE.to_vec(),
        at_most: sized(1, 2),
        ..Scope::new("records wait for the lane")
    });
}

#[test]
fn two_members_one_of_them_late() {
    clean(Scope {
        processes: 2,
        answers: sized(vec![Answer::Well], vec![Answer::Well, Answer::Transient]),
        faults: OF_TWO.to_vec(),
        at_most: 2,
        ..Scope::new("two members")
    });
}

#[test]
fn two_members_an_event_that_fails_and_its_copy() {
    clean(Scope {
        events: copy(),
        processes: 2,
        max_attempts: 1,
        answers: vec![Answer::Well, Answer::Transient],
        faults: OF_TWO.to_vec(),
        at_most: sized(1, 2),
        ..Scope::new("two members, a copy")
    });
}

#[test]
fn two_destinations_are_settled_apart() {
    clean(Scope {
        events: vec![("1", "both")],
        answers: sized(vec![Answer::Well, Answer::Permanent], vec![Answer::Well, Answer::Transient]),
        faults: OF_ONE.to_vec(),
        at_most: 1,
        ..Scope::new("two destinations")
    });
}

#[test]
fn two_events_in_one_window() {
    clean(Scope {
        events: sized(vec![("1", "push"), ("2", "push")], vec![("1", "push"), ("2", "push"), ("1", "push")]),
        answers: sized(vec![Answer::Well, Answer::Permanent], vec![Answer::Well, Answer::Transient]),
        faults: OF_ONE.to_vec(),
        at_most: 1,
        ..Scope::new("two events")
    });
}

#[test]
fn replays_run_twice_and_forced() {
    clean(Scope {
        max_attempts: 1,
        answers: vec![Answer::Well, Answer::Transient],
        faults: vec![
            (Fault::Replay, 2),
            (Fault::Forced, 1),
            (Fault::Crash, 1),
            (Fault::Unanswered, 1),
            (Fault::Forgotten, 1),
        ],
        at_most: sized(3, 4),
        ..Scope::new("replays")
    });
}

#[test]
fn a_replay_and_a_copy() {
    clean(Scope {
        events: copy(),
        max_attempts: sized(1, 2),
        answers: vec![Answer::Well, Answer::Transient],
        faults: vec![(Fault::Replay, 2), (Fault::Crash, 1)],
        at_most: sized(2, 3),
        ..Scope::new("a replay and a copy")
    });
}

#[test]
fn days_pass_and_states_expire() {
    clean(Scope {
        events: copy(),
        max_attempts: 1,
        answers: vec![Answer::Well, Answer::Permanent],
        faults: vec![(Fault::Replay, 2), (Fault::Forgotten, 1), (Fault::Crash, sized(0, 1))],
        at_most: sized(2, 3),
        days: 3,
        ..Scope::new("days pass")
    });
}

#[test]
fn two_members_and_more_that_goes_wrong() {
    clean(Scope {
        processes: 2,
        faults: OF_TWO.to_vec(),
        at_most: sized(1, 3),
        ..Scope::new("two members, three faults")
    });
}

const MARKERS: [(Fault, u8); 5] = [
    (Fault::NoMarker, 2),
    (Fault::Crash, 1),
    (Fault::Unanswered, 1),
    (Fault::Refused, 1),
    (Fault::TimedOut, 1),
];

#[test]
fn markers_are_left_out_anywhere() {
    clean(Scope {
        answers: EVERY_ANSWER.to_vec(),
        faults: MARKERS.to_vec(),
        at_most: sized(2, 3),
        ..Scope::new("markers are left out")
    });
}

#[test]
fn a_marker_is_left_out_while_others_come_and_go() {
    clean(Scope {
        events: sized(vec![("1", "push")], vec![("1", "push"), ("2", "push")]),
        processes: 2,
        max_attempts: 1,
        answers: vec![Answer::Well, Answer::Permanent],
        faults: [&[(Fault::NoMarker, 1)], &OF_TWO[..]].concat(),
        at_most: 2,
        ..Scope::new("two members, a marker is left out")
    });
}
