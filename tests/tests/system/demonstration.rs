//! `make run`, on the mock broker: what it prints is true, and what it says to type works.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::kafka::{free_port, project};
use hookwell_tests::program::Program;
use hookwell_tests::wait;
use rustix::process::Signal;

use crate::{Common, tests};

tests![the_demonstration_tells_each_fate_takes_a_webhook_of_ones_own_and_ends_with_ctrl_c];

fn the_demonstration_tells_each_fate_takes_a_webhook_of_ones_own_and_ends_with_ctrl_c(
    _: &Common,
) -> Result<()> {
    // The demonstration starts the programs that lie beside it, as users have them.
    let built =
        Command::new(env!("CARGO")).args(["build", "--locked", "--quiet"]).current_dir(project()).status()?;
    ensure!(built.success(), "the programs could not be built");
    let folder = tempfile::tempdir()?;
    let address = || Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port()?));
    let (listen, ingest, processor) = (address()?, address()?, address()?);
    let demo = Program::start(
        Path::new(env!("CARGO_BIN_EXE_demo")),
        &["--mock"],
        &[
            ("HOOKWELL__INGEST__LISTEN", &listen),
            ("HOOKWELL__INGEST__ADMIN_LISTEN", &ingest),
            ("HOOKWELL__PROCESSOR__ADMIN_LISTEN", &processor),
        ],
        &folder.path().join("demo.log"),
        &ingest,
    )?;
    let told = wait::until("the demonstration", || {
        ensure!(demo.ended()?.is_none(), "it ended: {}", demo.logged());
        Ok(Some(demo.logged()).filter(|told| told.contains("Ctrl-C ends everything.")))
    })?;
    ensure!(told.contains("mock broker: it cannot show transactions"), "{told}");
    let fates = [
        ("delivered at attempt 2", 1),
        ("recognised as a copy, and dropped", 1),
        ("a dead letter: exhausted", 1),
        ("a dead letter: permanent", 1),
        ("refused; nothing reached Kafka", 3),
    ];
    for (fate, times) in fates {
        ensure!(told.matches(fate).count() == times, "not {times} times {fate:?}: {told}");
    }

    let lines = told.split("Send one of your own:").nth(1).and_then(|rest| rest.split("or have").next());
    let lines = lines.context("it says nothing to type")?;
    let answer = Command::new("sh").args(["-c", lines]).current_dir(project()).output()?;
    let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    demo.signal(Signal::INT)?;
    ensure!(demo.end()?.success(), "{}", demo.logged());
    Ok(())
}
