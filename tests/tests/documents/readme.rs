//! What people copy out of the README: it must work.

use std::fs;
use std::path::Path;

use hookwell_common::config::{Config, Environment, Faults};
use hookwell_ingest::source::resolve_all;

use super::page::{Page, all_pages, files_of, project};

/// The secrets that a configuration names, each with a value that suits every form of key.
fn secrets_in(text: &str) -> Vec<String> {
    let names = text.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next());
    names.map(str::to_owned).collect()
}

fn assert_runs(name: &Path, text: &str) {
    // A file of somebody else's machine is as good as a variable here.
    let text = text.replace("{ file = \"", "{ env = \"");
    let names = secrets_in(&text);
    let environment: Environment = names.iter().map(|name| (name.as_str(), "abcdef0123456789")).collect();
    let mut faults = Faults::default();
    let config = Config::parse(name, &text, &environment, &mut faults);
    resolve_all(&config, &environment, &mut faults);
    config.kafka.resolved_properties(&environment, &mut faults);
    faults.into_result(()).unwrap_or_else(|error| panic!("{}: {error}\n{text}", name.display()));
}

#[test]
fn every_configuration_of_the_pages_is_without_a_fault() {
    let mut count = 0;
    for page in all_pages() {
        for block in page.blocks("toml").iter().filter(|block| !block.contains("[dependencies]")) {
            assert_runs(&page.path, block);
            count += 1;
        }
    }
    assert!(count >= 3, "only {count} blocks were found");
}

#[test]
fn every_configuration_to_deploy_is_without_a_fault() {
    let is_one = |path: &Path| path.file_name().is_some_and(|name| name == "hookwell.toml");
    for path in files_of(&project().join("deploy")).into_iter().filter(|path| is_one(path)) {
        assert_runs(&path, &fs::read_to_string(&path).unwrap());
    }
}

#[test]
fn the_handler_of_the_readme_is_the_example_that_is_built() {
    let example = fs::read_to_string(project().join("processor/examples/own_handler.rs")).unwrap();
    let code: Vec<_> = example.lines().filter(|line| !line.starts_with("//!")).collect();
    let blocks = Page::read("README.md").blocks("rust");
    assert_eq!(blocks, [format!("{}\n", code.join("\n").trim_start())]);
}

#[test]
fn the_readme_names_the_two_commands_first() {
    let text = Page::read("README.md").text;
    let place = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words} is not there"));
    assert!(place("make run") < place("## ") && place("make test") < place("## "), "not at the top");
}

#[test]
fn nobody_is_promised_exactly_once_delivery() {
    for page in all_pages() {
        let text = page.text.to_lowercase();
        for (at, words) in text.match_indices("exactly-once delivery") {
            let before: Vec<_> = text[..at].split_whitespace().rev().take(4).collect();
            assert!(
                before.iter().any(|word| ["never", "not", "nobody"].contains(word)),
                "{} promises {words}",
                page.path.display()
            );
        }
    }
}
