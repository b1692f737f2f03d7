//! The flags and the exit statuses of `docs/configuration.md`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use hookwell_common::config::ConfigError;
use hookwell_common::kafka::TopologyError;
use hookwell_common::lifecycle::Failure;

use super::page::Page;

/// The flags that `--help` of `binary` shows, with what they take.
fn flags_of(binary: &str) -> Vec<String> {
    let help = Command::new(Path::new(binary)).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let options =
        help.lines().map(str::trim_start).filter(|line| line.starts_with('-') && !line.starts_with("- "));
    let flag = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| !word.starts_with("--"));
        let name = words.next().unwrap().to_owned();
        match words.next().and_then(|word| word.strip_prefix('<')?.strip_suffix('>')) {
            Some(value) => format!("{name} {value}"),
            None => name,
        }
    };
    options.map(flag).collect()
}

fn documented(program: &str) -> Vec<String> {
    let table = Page::read("docs/configuration.md").table(&format!("Flags of `{program}`"));
    table.rows.iter().map(|row| row.code(0)).collect()
}

#[test]
fn every_flag_of_ingest_is_documented_in_the_order_of_its_help() {
    assert_eq!(documented("ingest"), flags_of(env!("CARGO_BIN_EXE_ingest-under-test")));
}

#[test]
fn every_flag_of_the_processor_is_documented_in_the_order_of_its_help() {
    assert_eq!(documented("processor"), flags_of(env!("CARGO_BIN_EXE_processor-under-test")));
}

#[test]
fn every_exit_status_is_documented() {
    let failures = [
        Failure::No(String::new()),
        Failure::Usage(String::new()),
        Failure::Config(ConfigError(Vec::new())),
        Failure::Topology(TopologyError::Unfit(Vec::new())),
        Failure::Kafka(String::new()),
    ];
    let known: BTreeSet<_> = failures.iter().map(Failure::status).chain([0]).collect();
    let table = Page::read("docs/configuration.md").table("Exit statuses");
    let documented: Vec<u8> = table.rows.iter().map(|row| row.code(0).parse().unwrap()).collect();
    assert_eq!(documented, known.into_iter().collect::<Vec<_>>());
}
