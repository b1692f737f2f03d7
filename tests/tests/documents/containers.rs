//! What container files say against what the rest of the project says.

use std::fs;
use std::time::Duration;

use hookwell_common::config::{Config, Environment, Faults};

use super::page::project;

fn read(name: &str) -> String {
    fs::read_to_string(project().join(name)).unwrap()
}

/// What stands in `text` between `before` and the end of its line.
fn after<'t>(text: &'t str, before: &str) -> &'t str {
    let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("no {before}"));
    rest.lines().next().unwrap().trim().trim_matches('"')
}

#[test]
fn the_images_are_built_with_the_rust_of_the_toolchain_file() {
    let toolchain = read("rust-toolchain.toml");
    assert_eq!(after(&read("deploy/Dockerfile"), "ARG RUST="), after(&toolchain, "channel = "));
}

#[test]
fn the_images_begin_with_the_manifest_of_every_crate() {
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let dockerfile = read("deploy/Dockerfile");
    let made = after(&dockerfile, "RUN for crate in ");
    let made: Vec<_> = made.split("; do").next().unwrap().split(' ').collect();
    for member in workspace["workspace"]["members"].as_array().unwrap() {
        let member = member.as_str().unwrap();
        assert!(dockerfile.contains(&format!("COPY {member}/Cargo.toml {member}/\n")), "{member}");
        assert!(made.contains(&member), "{member} is not among {made:?}");
    }
}

#[test]
fn the_stack_runs_the_kafka_that_the_tests_run_on() {
    let image = after(&read("docker-compose.yml"), "image: apache/kafka:").to_owned();
    assert!(read("deploy/kafka/pom.xml").contains(&format!(">{image}<")), "{image} is not that of pom.xml");
}

#[test]
fn no_container_is_killed_while_its_program_may_still_finish() {
    let mut faults = Faults::default();
    let path = project().join("deploy/compose/hookwell.toml");
    let config = Config::load(&path, &Environment::default(), &mut faults);
    faults.into_result(()).unwrap();
    let compose = read("docker-compose.yml");
    let grace = |service: &str| {
        let text = compose.split(&format!("\n  {service}:\n")).nth(1).unwrap();
        Duration::from_secs(after(text, "stop_grace_period: ").trim_end_matches('s').parse().unwrap())
    };
    assert!(config.ingest.shutdown_timeout + config.ingest.publish_timeout < grace("ingest"));
    assert!(config.processor.drain_timeout * 2 < grace("processor"));
}
