//! `docs/topics.md`.

use std::collections::BTreeMap;
use std::path::Path;

use hookwell_common::config::{Config, Environment, Faults};
use hookwell_common::headers;
use hookwell_common::identity::Identity;
use hookwell_common::record::record_key;
use hookwell_common::time::Timestamp;
use hookwell_processor::dead_letter::DeadLetterReason;
use hookwell_processor::delivery::idempotency_key;
use hookwell_processor::state::{
    BIRTH_KEY, Burial, DeliveryState, END_KEY, StateKey, Status, decode, encode,
};

use super::page::{Page, Row, blocks_in};

fn page() -> Page {
    Page::read("docs/topics.md")
}

fn defaults() -> Config {
    let mut faults = Faults::default();
    let text = "[retry]\ntiers = ['5s']\n[[sources]]\nname = 'a'\nquarantine = true";
    Config::parse(Path::new("x.toml"), text, &Environment::default(), &mut faults)
}

#[test]
fn every_topic_is_documented_with_its_settings() {
    let page = page();
    let table = page.table("The topics");
    let names: Vec<_> = table.head[1..8].iter().map(|name| name.trim_matches('`').to_owned()).collect();
    let settings_of = |row: &Row| -> BTreeMap<String, String> {
        let settings = names.iter().enumerate().map(|(n, name)| (name.clone(), row.code(n + 1)));
        settings.filter(|(_, value)| !value.is_empty()).collect()
    };
    let documented: Vec<_> = table.rows.iter().map(|row| (row.code(0), settings_of(row))).collect();
    let common: BTreeMap<String, String> =
        page.table("Settings of every topic").rows.iter().map(|row| (row.code(0), row.code(1))).collect();

    let config = defaults();
    let specs = config.topic_plan().specs();
    assert_eq!(documented.len(), specs.len());
    for ((name, own), spec) in documented.into_iter().zip(specs) {
        assert_eq!(name.replace("{prefix}", "webhooks").replace('N', "1"), spec.name);
        let known: BTreeMap<_, _> =
            spec.settings().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(own.into_iter().chain(common.clone()).collect::<BTreeMap<_, _>>(), known, "{name}");
    }
}

#[test]
fn every_header_is_documented_in_the_order_of_a_record() {
    let documented: Vec<_> = page().table("Headers").rows.iter().map(|row| row.code(0)).collect();
    let mut known: Vec<_> = headers::ALL.iter().map(|name| (*name).to_owned()).collect();
    let kept = known.iter().position(|name| name == headers::ATTEMPT).unwrap();
    known.insert(kept, format!("{}NAME", headers::HTTP_PREFIX));
    assert_eq!(documented, known);
    assert!(page().text.contains(&format!("{} bytes", headers::MAX_ERROR_BYTES)));
}

#[test]
fn every_header_of_the_quarantine_is_documented_in_the_order_of_a_record() {
    let documented: Vec<_> =
        page().table("Headers in quarantine").rows.iter().map(|row| row.code(0)).collect();
    assert_eq!(documented, headers::QUARANTINE);
}

fn example() -> (StateKey, DeliveryState) {
    let key = StateKey::of("github", "72d3162e-cc78-11e3-81ab-4c9367dc0958", "orders");
    let burial = Burial {
        reason: DeadLetterReason::Exhausted,
        source: "github".into(),
        destination: "orders".into(),
        at: Timestamp::from_millis(1_795_510_799_200),
    };
    let state = DeliveryState {
        status: Status::Dead,
        generation: 1,
        first_seen: Timestamp::from_millis(1_795_510_799_123),
        updated: Timestamp::from_millis(1_795_510_799_200),
        burial: Some(burial),
    };
    (key, state)
}

fn bytes_of(block: &str) -> Vec<u8> {
    let digits: String = block.lines().filter_map(|line| line.split('#').next()).collect();
    hex::decode(digits.split_whitespace().collect::<String>()).unwrap()
}

#[test]
fn the_example_of_a_state_record_is_one() {
    let blocks = blocks_in(&page().section("An example"), "text");
    let (key, state) = example();
    assert_eq!(bytes_of(&blocks[0]), key.0);
    assert_eq!(bytes_of(&blocks[1]), encode(&state));
    assert_eq!(decode(&key.0, &bytes_of(&blocks[1])).unwrap(), (key, Some(state)));
}

#[test]
fn the_fields_of_a_state_record_lie_where_the_table_says() {
    let rows = page().table("The value").rows;
    let number = |text: String| text.parse::<usize>().unwrap();
    let mut next = 0;
    for row in rows.iter().filter(|row| !row.code(1).is_empty()) {
        assert_eq!(number(row.code(0)), next, "a gap before {row:?}");
        next += number(row.code(1));
    }
    let (_, state) = example();
    let value = encode(&DeliveryState { status: Status::Retrying { next_attempt: 7 }, ..state.clone() });
    assert_eq!(next, encode(&DeliveryState { burial: None, ..state }).len() + 9);
    let field = |name: &str| {
        let row =
            rows.iter().find(|row| row.code(2) == name).unwrap_or_else(|| panic!("{name} is not there"));
        let start = number(row.code(0));
        value[start..start + number(row.code(1))].to_vec()
    };
    assert_eq!(field("version"), [1]);
    assert_eq!(field("status"), [1]);
    assert_eq!(field("generation"), [0, 1]);
    assert_eq!(field("next attempt"), [0, 7]);
    assert_eq!(field("first seen"), 1_795_510_799_123_u64.to_be_bytes());
    assert_eq!(field("updated"), 1_795_510_799_200_u64.to_be_bytes());
    assert_eq!(field("written at"), 1_795_510_799_200_u64.to_be_bytes());
    assert_eq!(field("reason"), [DeadLetterReason::Exhausted.code()]);
}

#[test]
fn the_numbers_of_statuses_and_reasons_are_documented() {
    let numbers = |heading: &str| -> Vec<(String, String)> {
        page().table(heading).rows.iter().map(|row| (row.code(0), row.code(1))).collect()
    };
    let (_, state) = example();
    let statuses = [Status::Retrying { next_attempt: 0 }, Status::Done, Status::Dead];
    let codes = statuses.map(|status| encode(&DeliveryState { status, ..state.clone() })[1].to_string());
    let words = ["retrying", "done", "dead"].map(str::to_owned);
    assert_eq!(numbers("Statuses"), codes.into_iter().zip(words).collect::<Vec<_>>());
    let reasons = DeadLetterReason::ALL.map(|reason| (reason.code().to_string(), reason.label().to_owned()));
    assert_eq!(numbers("Reasons"), reasons);
}

#[test]
fn the_birth_and_the_end_record_the_key_the_partition_and_the_idempotency_key_are_as_documented() {
    let text = page().text;
    let (key, _) = example();
    let id = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
    for words in [
        format!("`{}`", std::str::from_utf8(BIRTH_KEY).unwrap()),
        format!("`{}`", std::str::from_utf8(END_KEY).unwrap()),
        format!("`{}`", headers::TRANSACTION),
        format!("`{}`", String::from_utf8(record_key("github", id)).unwrap()),
        format!("on partition {} of 12", Identity::of("github", id).partition(12)),
        format!("`{}`", idempotency_key(&key, 1)),
    ] {
        assert!(text.contains(&words), "{words} is not there");
    }
}
