//! `ARCHITECTURE.md`.

use std::collections::BTreeSet;
use std::fs;

use super::page::{Page, codes_in, files_of, project};

#[test]
fn the_code_map_names_every_file_and_no_other() {
    let section = Page::read("ARCHITECTURE.md").section("The code map");
    let named: BTreeSet<_> = codes_in(&section).into_iter().filter(|code| code.ends_with(".rs")).collect();
    let mut known = BTreeSet::new();
    for part in
        ["common/src", "ingest/src", "processor/src", "tests/src", "tests/auditor/src", "tests/fuzz/src"]
    {
        let folder = project().join(part);
        for path in files_of(&folder) {
            let name = path.strip_prefix(project()).unwrap().to_string_lossy().into_owned();
            // Unit tests in files of their own belong to what they test.
            let is_tests =
                name.ends_with("_tests.rs") || name.contains("/tests/") || name.ends_with("/tests.rs");
            if name.ends_with(".rs") && !is_tests {
                known.insert(name);
            }
        }
    }
    let missing: Vec<_> = known.difference(&named).collect();
    let invented: Vec<_> = named.difference(&known).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing: {missing:#?}, invented: {invented:#?}");
}

#[test]
fn files_that_are_called_pure_import_nothing_that_acts() {
    let section = Page::read("ARCHITECTURE.md").section("The code map");
    let pure = section.lines().filter(|line| line.contains("**[pure]**")).flat_map(codes_in);
    let pure: Vec<_> = pure.filter(|code| code.ends_with(".rs")).collect();
    assert!(pure.len() > 30, "{pure:?}");
    let acting =
        ["rdkafka", "tokio", "actix_web", "prometheus", "tracing", "reqwest", "std::fs", "std::thread"];
    for name in pure {
        let text = fs::read_to_string(project().join(&name)).unwrap();
        let is_import = |line: &&str| line.contains("::") && !line.trim_start().starts_with("//");
        for line in text.lines().filter(is_import) {
            let found = acting.iter().find(|part| line.contains(&format!("{part}::")));
            assert!(found.is_none(), "{name}: {line}");
        }
    }
}

#[test]
fn the_architecture_can_be_read_in_one_sitting() {
    let lines = Page::read("ARCHITECTURE.md").text.lines().count();
    assert!(lines <= 300, "{lines} lines");
}
