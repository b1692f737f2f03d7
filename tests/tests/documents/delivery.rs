//! `docs/delivery.md`.

use std::collections::BTreeSet;
use std::fs;

use hookwell_common::failpoint;
use hookwell_common::time::Timestamp;
use hookwell_processor::dead_letter::DeadLetterReason;
use hookwell_processor::state::{Acceptance, Claim, DeliveryState, Status, accept};

use super::page::{Page, Row, project};

fn page() -> Page {
    Page::read("docs/delivery.md")
}

fn crashes() -> String {
    fs::read_to_string(project().join("tests/tests/system/crashes.rs")).unwrap()
}

/// The names in `tests![…]`, in order.
fn crash_tests() -> Vec<String> {
    let source = crashes();
    let list = source.split_once("tests![").unwrap().1.split_once("];").unwrap().0.to_owned();
    list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn body_of(test: &str) -> String {
    let source = crashes();
    let (_, rest) = source.split_once(&format!("\nfn {test}(")).unwrap_or_else(|| panic!("no test {test}"));
    rest.split("\n}\n").next().unwrap().to_owned()
}

#[test]
fn every_row_of_the_crash_table_has_its_test_and_every_test_its_row() {
    let rows = page().table("When a program dies").rows;
    let documented: Vec<_> = rows.iter().map(|row| row.code(5)).collect();
    assert_eq!(documented, crash_tests());
}

#[test]
fn every_crash_test_dies_at_the_fail_point_of_its_row_and_no_fail_point_is_left_out() {
    let rows = page().table("When a program dies").rows;
    for row in &rows {
        let (failpoint, test) = (row.code(1), row.code(5));
        assert!(body_of(&test).contains(&format!("\"{failpoint}=")), "{test} does not die at {failpoint}");
    }
    let documented: BTreeSet<_> = rows.iter().map(|row| row.code(1)).collect();
    assert_eq!(documented, failpoint::ALL.iter().map(|name| (*name).to_owned()).collect());
}

/// Whether the row of the acceptance table lets `claim` in. `generation` is the state's.
fn lets_in(row: &Row, generation: u16, next: Option<u16>, claim: Claim) -> bool {
    let generation_fits = match row.code(1).as_str() {
        "any" => true,
        "g" => claim.generation == generation,
        "g + 1" => claim.generation == generation + 1,
        other => panic!("{other} is no generation"),
    };
    let attempt_fits = match row.code(2).as_str() {
        "any" => true,
        "next" => Some(claim.attempt) == next,
        "0" => claim.attempt == 0,
        other => panic!("{other} is no attempt"),
    };
    generation_fits && attempt_fits && (row.cell(3) == "no" || claim.forced)
}

#[test]
fn the_acceptance_table_is_the_acceptance_rule() {
    let rows = page().table("What is accepted").rows;
    let row = |state: &str| rows.iter().find(|row| row.code(0) == state).unwrap_or_else(|| panic!("{state}"));
    assert_eq!(rows.len(), 4);
    let statuses = [
        ("none", None),
        ("retrying", Some(Status::Retrying { next_attempt: 2 })),
        ("dead", Some(Status::Dead)),
        ("done", Some(Status::Done)),
    ];
    for (name, status) in statuses {
        let at = Timestamp::from_millis(1);
        let generation = 3;
        let state = status.map(|status| DeliveryState {
            status,
            generation,
            first_seen: at,
            updated: at,
            burial: None,
        });
        for n in 0..6 * 5 * 2 {
            let claim = Claim { generation: n % 6, attempt: n / 6 % 5, forced: n / 30 == 1 };
            let is_in = accept(state.as_ref(), claim) == Acceptance::Fresh;
            assert_eq!(lets_in(row(name), generation, Some(2), claim), is_in, "{name}: {claim:?}");
        }
    }
}

#[test]
fn every_reason_of_a_dead_letter_is_documented() {
    let rows = page().table("Reasons").rows;
    let documented: Vec<_> = rows.iter().map(|row| row.code(0)).collect();
    assert_eq!(documented, DeadLetterReason::ALL.map(DeadLetterReason::label));
}
