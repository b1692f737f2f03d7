//! How every file is written: its name, its first line, and what it may switch off.

use std::collections::BTreeMap;
use std::fs;

use hookwell_tests::kafka::project;

use super::source::sources;

/// Names that say nothing.
const EMPTY_NAMES: &[&str] =
    &["mod", "utils", "util", "helpers", "misc", "types", "manager", "service", "impl"];

/// Where each banned method is called after all: the file, and the methods, one `expect` each
/// unless they stand in one function.
const EXPECTED: &[(&str, usize, &[&str])] = &[
    ("common/src/config/document.rs", 1, &["std::env::vars_os"]),
    ("common/src/kafka/client.rs", 1, &["rdkafka::config::ClientConfig::new"]),
    ("common/src/lifecycle.rs", 2, &["std::time::Instant::now", "std::time::SystemTime::now"]),
    ("processor/src/lane/window/tests/model/whole.rs", 1, &["std::env::var"]),
    ("tests/auditor/src/cluster.rs", 1, &["rdkafka::config::ClientConfig::new"]),
    ("tests/tests/system/spool.rs", 1, &["std::env::var"]),
    ("tests/src/reader.rs", 1, &["rdkafka::config::ClientConfig::new"]),
];

#[test]
fn file_names_say_what_a_file_is() {
    for source in sources() {
        let name = source.path.rsplit('/').next().unwrap().trim_end_matches(".rs");
        assert!(!EMPTY_NAMES.contains(&name), "{}: name it after what it holds", source.path);
    }
}

#[test]
fn every_file_says_what_it_is() {
    // A file of tests beside the file that they test says it there.
    for source in sources().iter().filter(|source| !source.path.ends_with("_tests.rs")) {
        assert!(source.text.starts_with("//! "), "{} must begin with its documentation", source.path);
    }
}

#[test]
fn nothing_is_exported_wholesale() {
    for source in sources() {
        let globs: usize = source.all().iter().map(|facts| facts.glob_exports).sum();
        assert_eq!(globs, 0, "{}: name what is exported", source.path);
    }
}

#[test]
fn nothing_is_switched_off_without_a_reason() {
    for source in sources() {
        for (name, says) in source.all().iter().flat_map(|facts| &facts.attributes) {
            let path = &source.path;
            assert!(name != "ignore", "{path}: a test runs always");
            assert!(name != "should_panic", "{path}: assert what went wrong");
            let allows = name == "allow" || (name == "cfg_attr" && says.contains("allow"));
            assert!(!allows, "{path}: #[expect(…, reason = \"…\")] instead of allow({says})");
            assert!(name != "expect" || says.contains("reason"), "{path}: expect({says}) gives no reason");
        }
    }
}

#[test]
fn banned_methods_are_called_in_one_place_each() {
    let mut found = BTreeMap::new();
    for source in sources() {
        let expects = source.all().into_iter().flat_map(|facts| &facts.attributes);
        let count = expects.filter(|(name, says)| name == "expect" && says.contains("disallowed")).count();
        if 0 < count {
            found.insert(source.path.as_str(), count);
        }
    }
    let expected: BTreeMap<_, _> = EXPECTED.iter().map(|(path, count, _)| (*path, *count)).collect();
    assert_eq!(found, expected, "each needs a line in EXPECTED");
}

#[test]
fn what_is_expected_is_banned_and_called() {
    let clippy: toml::Table = fs::read_to_string(project().join("clippy.toml")).unwrap().parse().unwrap();
    let banned = clippy["disallowed-methods"].as_array().unwrap();
    for (path, _, methods) in EXPECTED {
        let source = sources().iter().find(|source| source.path == *path).unwrap();
        for method in *methods {
            assert!(banned.iter().any(|ban| ban["path"].as_str() == Some(method)), "{method} is not banned");
            let call: Vec<_> = method.rsplit("::").take(2).collect();
            let is_call = |path: &Vec<String>| path.iter().rev().take(2).eq(&call);
            let called = source.all().iter().any(|facts| facts.paths.iter().any(is_call));
            assert!(called, "{path} no longer calls {method}");
        }
    }
}

#[test]
fn every_ban_names_the_alternative() {
    let clippy: toml::Table = fs::read_to_string(project().join("clippy.toml")).unwrap().parse().unwrap();
    for (key, bans) in &clippy {
        for ban in bans.as_array().into_iter().flatten() {
            assert!(ban.get("reason").is_some(), "{key}: {ban:?} gives no reason");
        }
    }
}
