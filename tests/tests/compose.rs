//! `docker-compose.yml` itself on a Docker engine: the machine's, or one that is started for this.
//!
//! The tests run one after the other, for each has the machine's cores and memory in mind.

mod compose {
    pub(crate) mod refusals;
    pub(crate) mod survival;
    pub(crate) mod without_rust;
}

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use hookwell_tests::docker::{Engine, NOT_PROVED, is_to_be_left_out};
use hookwell_tests::kafka::free_port;
use libtest_mimic::{Arguments, Failed, Trial};

/// A test: its name is a sentence.
type Test = (&'static str, fn(&Arc<Engine>) -> Result<()>);

const TESTS: &[Test] = &[
    (
        "a_stack_without_a_secret_says_which_file_to_write",
        compose::refusals::a_stack_without_a_secret_says_which_file_to_write,
    ),
    ("a_port_that_is_taken_is_named", compose::refusals::a_port_that_is_taken_is_named),
    (
        "nothing_is_lost_or_settled_twice_while_containers_of_each_kind_are_killed",
        compose::survival::nothing_is_lost_or_settled_twice_while_containers_of_each_kind_are_killed,
    ),
    (
        "make_run_needs_docker_and_no_rust_to_tell_each_fate",
        compose::without_rust::make_run_needs_docker_and_no_rust_to_tell_each_fate,
    ),
    (
        "make_run_takes_its_kafka_from_docker_where_rust_is_there",
        compose::without_rust::make_run_takes_its_kafka_from_docker_where_rust_is_there,
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let engine = if arguments.list || is_to_be_left_out() {
        Err("HOOKWELL_WITHOUT_DOCKER=1".to_owned())
    } else {
        Engine::find_or_start().map(Arc::new).map_err(|error| format!("{error:#}"))
    };
    if let (Err(reason), false) = (&engine, arguments.list) {
        tell_that_nothing_is_proved(reason);
    }
    let trial = |(name, test): &Test| {
        let (engine, test) = (engine.clone(), *test);
        // Where there is no engine none of this runs: each test is told as left out.
        let left_out = engine.is_err();
        let run = move || {
            let engine = engine.map_err(Failed::from)?;
            test(&engine).map_err(|error| Failed::from(format!("{error:#}")))
        };
        Trial::test(*name, run).with_ignored_flag(left_out)
    };
    libtest_mimic::run(&arguments, TESTS.iter().map(trial).collect()).exit_code()
}

/// Here, and in a file that `make test` shows as its last word.
fn tell_that_nothing_is_proved(reason: &str) {
    let stars = "*".repeat(72);
    let words = format!(
        "\n{stars}\n*** docker-compose.yml, the images and `make run` on Docker were NOT tested.\n*** No Docker engine could be had: {reason}\n*** Everything else was tested.\n{stars}"
    );
    say(&words);
    if let Err(error) = std::fs::write(hookwell_tests::kafka::project().join(NOT_PROVED), words) {
        say(&format!("{NOT_PROVED} cannot be written: {error}"));
    }
}

/// The variables of a stack that shares no port with anything else here.
pub(crate) fn ports() -> Result<Vec<(&'static str, String)>> {
    let names = ["HOOKWELL_PORT", "HOOKWELL_KAFKA_PORT", "HOOKWELL_PROMETHEUS_PORT"];
    let mut ports =
        names.iter().map(|name| Ok((*name, free_port()?.to_string()))).collect::<Result<Vec<_>>>()?;
    // The debug build of what the engine's Rust has compiled already.
    ports.push(("HOOKWELL_BUILD_PROFILE", "dev".to_owned()));
    Ok(ports)
}

/// Tells whoever watches.
#[expect(clippy::print_stdout, reason = "figures, and what was not run, are for people")]
pub(crate) fn say(words: &str) {
    println!("{words}");
}
