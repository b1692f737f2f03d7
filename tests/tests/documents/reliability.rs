//! `docs/reliability.md`.

use std::collections::BTreeSet;
use std::fs;

use super::page::{Page, files_of, project};

/// The tests that the failure matrix names.
fn documented() -> BTreeSet<String> {
    let rows = Page::read("docs/reliability.md").table("The failure matrix").rows;
    rows.iter().flat_map(|row| row.codes(1)).collect()
}

/// All sources of tests under `folder`.
fn sources(folder: &str) -> Vec<String> {
    let files = files_of(&project().join("tests/tests").join(folder));
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn every_test_that_the_failure_matrix_names_is_there() {
    let all = [sources("system"), sources("faults")].concat();
    let names = documented();
    assert!(!names.is_empty());
    for name in names {
        let is_there = all.iter().any(|source| source.contains(&format!("\nfn {name}(")));
        assert!(is_there, "there is no test {name}");
    }
}

#[test]
fn every_test_of_brokers_and_networks_has_its_row() {
    let documented = documented();
    for source in sources("faults") {
        let lists = source.split("tests![").skip(1).filter_map(|rest| rest.split_once(']'));
        for name in lists.flat_map(|(list, _)| list.split(',')).map(str::trim).filter(|name| !name.is_empty())
        {
            assert!(documented.contains(name), "{name} has no row");
        }
    }
}
