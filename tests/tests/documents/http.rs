//! `docs/http.md`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hookwell_common::event::Event;
use hookwell_common::lifecycle::Clock;
use hookwell_common::secret::Secret;
use hookwell_ingest::rejection::Rejection;
use hookwell_ingest::respond::PROBLEM_TYPE_PREFIX;
use hookwell_processor::handle::http::HttpHandler;
use hookwell_processor::outcome::{FailureClass, Outcome};
use hookwell_processor::{Handler, HandlerError, Request};
use hookwell_tests::handler::Call;

use super::page::{Page, Row};

fn page() -> Page {
    Page::read("docs/http.md")
}

#[test]
fn every_rejection_is_documented_as_it_is_answered() {
    let yes = |is: bool| if is { "yes" } else { "no" };
    let documented: Vec<_> = page()
        .table("What a sender hears")
        .rows
        .iter()
        .filter(|row| row.code(0) != "200")
        .map(|row| (row.code(0), row.code(1), row.code(2), row.cell(3).to_owned()))
        .collect();
    let known = Rejection::ALL.map(|rejection| {
        let after = rejection.retry_after_seconds().map(|seconds| seconds.to_string()).unwrap_or_default();
        let closes = yes(rejection.closes_connection()).to_owned();
        (rejection.status().to_string(), rejection.label().to_owned(), after, closes)
    });
    assert_eq!(documented, known);
}

#[test]
fn the_title_of_every_problem_is_documented() {
    let text = page().text;
    assert!(text.contains(&format!("`{PROBLEM_TYPE_PREFIX}")), "{PROBLEM_TYPE_PREFIX} is not there");
    let (rejection, titles) = (Rejection::SignatureMismatch, text.matches("\"title\": \"").count());
    assert_eq!(titles, 1);
    assert!(text.contains(&format!("\"title\": \"{rejection}\"")), "the example does not say {rejection}");
}

/// What a destination receives for an event with everything, `kept` among its kept headers.
fn received(kept: &[&str]) -> Call {
    let destination = hookwell_tests::handler::HttpHandler::start().unwrap();
    let event = Event {
        source: "github".into(),
        id: "1".into(),
        kind: "push".into(),
        time: "2026-11-24T08:59:59.123Z".into(),
        content_type: Some("application/json".into()),
        traceparent: Some("00-0-0-01".into()),
        kept_headers: kept.iter().map(|name| ((*name).into(), "kept".into())).collect(),
        body: "{}".into(),
    };
    let request =
        Request { event: Arc::new(event), attempt: 0, generation: 0, idempotency_key: "key".to_owned() };
    let url = destination.url("orders").parse().unwrap();
    let secret = Secret::new(b"secret".to_vec());
    let client = HttpHandler::client().unwrap();
    let handler =
        HttpHandler::new(client, url, Some(&secret), Duration::from_secs(1), Clock::start()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { handler.handle(request).await }).unwrap();
    destination.calls().remove(0)
}

#[test]
fn every_header_that_a_destination_receives_is_documented_and_no_other_is() {
    let of_the_connection = ["host", "content-length", "accept"];
    let received = received(&[]);
    let received: BTreeSet<_> =
        received.headers.into_keys().filter(|name| !of_the_connection.contains(&name.as_str())).collect();
    let rows = page().table("What an HTTP destination receives").rows;
    let documented: BTreeSet<_> = rows.iter().map(|row| row.code(0)).collect();
    assert_eq!(documented, received);
}

#[test]
fn the_documented_headers_of_a_connection_are_not_handed_on_and_others_are() {
    let section = page().section("Headers that are not handed on");
    let names = super::page::codes_in(&section);
    assert!(names.len() > 3, "{names:?}");
    let mut kept: Vec<_> = names.iter().map(String::as_str).collect();
    kept.push("x-github-event");
    let received = received(&kept);
    for name in &names {
        assert_ne!(received.header(name), "kept", "{name} was handed on");
    }
    assert_eq!(received.header("x-github-event"), "kept");
}

/// Whether the first cell of `row` covers `status`: codes and ranges of codes.
fn covers(row: &Row, status: u16) -> bool {
    row.codes(0).iter().any(|code| match code.split_once('-') {
        Some((first, last)) => {
            first.parse().is_ok_and(|first: u16| first <= status)
                && last.parse().is_ok_and(|last: u16| status <= last)
        }
        None => code.parse() == Ok(status),
    })
}

fn word(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Transient => "transient",
        FailureClass::Permanent => "permanent",
    }
}

#[test]
fn every_answer_of_a_destination_is_classified_as_documented() {
    let rows = page().table("How its answers are classified").rows;
    for status in 300..=599 {
        let row = rows.iter().find(|row| covers(row, status)).unwrap_or_else(|| panic!("{status}"));
        let error = HandlerError::Status { status, retry_after: None };
        assert_eq!(row.cell(2), word(error.class()), "{status}");
        assert_eq!(row.code(1), Outcome::Failed(error).label(), "{status}");
    }
    let without_status = [
        HandlerError::TimedOut(Duration::ZERO),
        HandlerError::Unreachable("".into()),
        HandlerError::Transient("".into()),
        HandlerError::Permanent("".into()),
        HandlerError::Panicked,
    ];
    for error in without_status {
        let (class, outcome) = (word(error.class()), Outcome::Failed(error));
        let row = rows.iter().find(|row| row.code(1) == outcome.label());
        let row = row.unwrap_or_else(|| panic!("{} is not there", outcome.label()));
        assert_eq!(row.cell(2), class, "{}", outcome.label());
    }
    let documented: BTreeSet<_> = rows.iter().map(|row| row.code(1)).collect();
    assert_eq!(documented, Outcome::LABELS.iter().map(|label| (*label).to_owned()).collect());
}
