//! Each guard is missed where it is lifted: a search finds what breaks, and prints a shortest way to
//! it. The same scope with the guard in place is clean, so what breaks is the guard's.
//!
//! Three are not missed alone, and their tests say what stands behind each.

use super::whole::{clean, run};
use super::*;

/// What breaks in `scope` without `guards`, and in how many steps.
fn broken_without(guards: &[Guard], scope: Scope) -> (String, Vec<Step>) {
    clean(scope.clone());
    println!("without {guards:?}:");
    let found = run(Scope { lifted: guards.to_vec(), ..scope });
    found.breach.expect("nobody misses this guard")
}

fn scope(name: &'static str, faults: &[(Fault, u8)]) -> Scope {
    Scope { faults: faults.to_vec(), ..Scope::new(name) }
}

fn copies(scope: Scope) -> Scope {
    Scope { events: vec![("1", "push"), ("1", "push")], ..scope }
}

fn two_members(scope: Scope) -> Scope {
    Scope { processes: 2, ..scope }
}

#[test]
fn without_the_acceptance_rule_a_copy_is_handled() {
    let (what, _) = broken_without(&[Guard::Acceptance], copies(scope("a copy", &[])));
    assert_eq!(what, "one owner makes a call twice, and has not died in between");
    let lost = copies(scope("offsets are forgotten", &[(Fault::Forgotten, 1), (Fault::Crash, 1)]));
    let lost = Scope { events: vec![("1", "push")], ..lost };
    let (what, _) = broken_without(&[Guard::Acceptance], lost);
    assert_eq!(what, "the owner calls for what the committed states do not let in");
}

#[test]
fn without_generations_in_the_rule_a_replay_that_is_run_twice_is_handled_twice() {
    let replays = Scope {
        max_attempts: 1,
        answers: vec![Answer::Permanent],
        ..scope("a replay run twice", &[(Fault::Replay, 2)])
    };
    let (what, _) = broken_without(&[Guard::GenerationInRule], replays);
    assert_eq!(what, "one owner makes a call twice, and has not died in between");
}

#[test]
fn where_copies_do_not_wait_both_are_handled() {
    let (what, _) = broken_without(&[Guard::CopiesWait], copies(scope("a copy in flight", &[])));
    assert_eq!(what, "one owner makes a call twice, and has not died in between");
}

#[test]
fn where_retries_do_not_wait_they_are_early() {
    let retries = Scope { answers: vec![Answer::Well, Answer::Transient], ..scope("a retry", &[]) };
    let (what, _) = broken_without(&[Guard::NotBefore], retries);
    assert_eq!(what, "a retry is called for early");
}

#[test]
fn where_what_was_read_is_committed_and_not_the_frontier_open_records_are_read_over() {
    let events = Scope { events: vec![("1", "push"), ("2", "push")], ..scope("two events", &[]) };
    let (what, _) = broken_without(&[Guard::Frontier], events);
    assert_eq!(what, "an offset is committed beyond a record that is not settled");
}

#[test]
fn where_offsets_are_committed_before_their_states_a_crash_between_them_loses() {
    let crash = scope("a crash between two commits", &[(Fault::Crash, 1)]);
    let (what, _) = broken_without(&[Guard::OneTransaction], crash);
    assert_eq!(what, "an offset is committed beyond a record that is not settled");
}

#[test]
fn where_reports_are_not_awaited_a_late_record_is_missing_from_its_commit() {
    let fates = Scope { answers: vec![Answer::Transient], ..scope("a late record", &[(Fault::Late, 1)]) };
    let (what, _) = broken_without(&[Guard::DeliveryReports], fates);
    assert_eq!(what, "a delivery waits for a retry that nothing will bring");
}

#[test]
fn where_a_refused_record_does_not_abort_it_is_missing_from_its_commit() {
    for answer in [Answer::Well, Answer::Transient, Answer::Permanent] {
        let fates = Scope { answers: vec![answer], ..scope("a refused record", &[(Fault::Refused, 1)]) };
        broken_without(&[Guard::RefusedAborts], fates);
    }
}

#[test]
fn where_a_producer_is_kept_after_an_unclear_result_something_counts_twice() {
    let commit = Scope {
        max_attempts: 1,
        answers: vec![Answer::Transient],
        ..scope("a commit is not answered", &[(Fault::Unanswered, 1)])
    };
    let (what, _) = broken_without(&[Guard::ThrownAway], commit.clone());
    assert_eq!(what, "a delivery is settled after it has ended, in the same generation");
    let record = Scope {
        events: vec![("1", "push"), ("2", "push")],
        faults: vec![(Fault::Late, 1), (Fault::Unanswered, 1)],
        name: "a record is not reported",
        ..commit
    };
    broken_without(&[Guard::ThrownAway], record);
}

#[test]
fn where_what_calls_came_to_is_forgotten_an_outage_of_kafka_becomes_a_second_call() {
    let commit = scope("a commit is not answered", &[(Fault::Unanswered, 1)]);
    let (what, _) = broken_without(&[Guard::Recollection], commit);
    assert_eq!(what, "one owner makes a call twice, and has not died in between");
}

#[test]
fn without_the_epoch_of_producers_a_late_owner_commits_beside_the_new_one() {
    let moves = two_members(scope("an owner that is overtaken", &[(Fault::Move, 1)]));
    let (what, way) = broken_without(&[Guard::ProducerEpoch], moves);
    assert_eq!(what, "the owner calls for what the committed states do not let in");
    // It is a member again, so the group lets it: generations do not say who owns what.
    assert!(way.contains(&Step::Join(0)), "{way:?}");
}

#[test]
fn without_the_groups_generation_no_more_than_a_stale_member_is_needed() {
    let moves = two_members(scope("an owner that is overtaken", &[(Fault::Move, 1)]));
    clean(Scope { lifted: vec![Guard::Generation], ..moves.clone() });
    let (what, way) = broken_without(&[Guard::Generation, Guard::ProducerEpoch], moves);
    assert_eq!(what, "the owner calls for what the committed states do not let in");
    assert!(!way.contains(&Step::Join(0)), "{way:?}");
}

#[test]
fn where_states_are_read_before_earlier_owners_are_fenced_some_are_missed() {
    let moves = copies(two_members(scope("an owner that is overtaken", &[(Fault::Move, 1)])));
    let (what, _) = broken_without(&[Guard::FenceBeforeRestore], moves);
    assert_eq!(what, "the owner calls for what the committed states do not let in");
}

#[test]
fn where_states_are_read_to_the_last_stable_offset_some_are_missed() {
    let hidden = copies(scope("a stranger's transaction", &[(Fault::Stranger, 1), (Fault::Crash, 1)]));
    let (what, _) = broken_without(&[Guard::TrueEnd], hidden);
    assert_eq!(what, "the owner calls for what the committed states do not let in");
}

#[test]
fn where_offsets_are_read_first_states_still_know() {
    let moves = two_members(scope("an owner that is overtaken", &[(Fault::Move, 1)]));
    let early = Scope { lifted: vec![Guard::OffsetsAfterRestore], ..moves.clone() };
    clean(copies(early));
    // It is the fence that has to come first.
    let both = [Guard::OffsetsAfterRestore, Guard::FenceBeforeRestore];
    broken_without(&both, copies(moves));
}

#[test]
fn where_remembered_states_are_not_completed_what_another_owner_did_is_missed() {
    let moves = Scope {
        events: vec![("1", "push"), ("1", "push")],
        ..two_members(scope("there and back", &[(Fault::Move, 2)]))
    };
    let (what, _) = broken_without(&[Guard::Delta], moves);
    assert_eq!(what, "the owner calls for what the committed states do not let in");
}

#[test]
fn where_records_of_an_earlier_take_over_are_taken_others_are_read_over() {
    let mail = Scope {
        events: vec![("1", "push"), ("2", "push")],
        has_mail: true,
        ..scope("records wait for a lane", &[(Fault::Unanswered, 1)])
    };
    let (what, _) = broken_without(&[Guard::SessionOfRecords], mail);
    assert_eq!(what, "an offset is committed beyond a record that is not settled");
}

#[test]
fn a_call_of_an_earlier_ownership_is_known_by_its_attempt() {
    let moves = Scope {
        max_attempts: 1,
        answers: vec![Answer::Well, Answer::Transient],
        lifted: vec![Guard::EpochOfCompletions],
        ..two_members(scope("there and back", &[(Fault::Move, 2)]))
    };
    clean(moves);
}

#[test]
fn where_states_of_the_dead_are_not_written_again_a_replay_run_twice_is_handled_twice() {
    let days = Scope {
        max_attempts: 1,
        answers: vec![Answer::Well, Answer::Permanent],
        days: 3,
        ..scope("days pass", &[(Fault::Replay, 2)])
    };
    let (what, _) = broken_without(&[Guard::Refresh], days);
    assert_eq!(what, "one owner makes a call twice, and has not died in between");
}

#[test]
fn where_a_transaction_begins_before_the_last_is_decided_its_abort_takes_the_last_one_back() {
    let hanging = Scope {
        events: vec![("1", "push"), ("2", "push")],
        ..scope("a marker is left out", &[(Fault::NoMarker, 1), (Fault::Crash, 1)])
    };
    let (what, _) = broken_without(&[Guard::Proof], hanging);
    assert_eq!(what, "an offset is committed beyond a record that is not settled");
}

#[test]
fn where_what_hangs_is_aborted_whatever_was_decided_it_is_lost() {
    let hanging = scope("a marker is left out", &[(Fault::NoMarker, 1)]);
    let (what, _) = broken_without(&[Guard::EndedAsDecided], hanging);
    assert_eq!(what, "an offset is committed beyond a record that is not settled");
}
