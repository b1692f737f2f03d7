//! `make run` where Docker answers.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::docker::{Engine, Stack};
use hookwell_tests::kafka::{free_port, project};
use hookwell_tests::program::Program;
use hookwell_tests::wait;
use rustix::process::Signal;

use crate::ports;

/// All that `make run` may find.
const COMMANDS: &[&str] = &["sh", "docker", "grep", "sed", "expand", "id", "dirname", "env"];

const FATES: &[(&str, usize)] = &[
    ("delivered at attempt 2", 1),
    ("recognised as a copy, and dropped", 1),
    ("a dead letter: exhausted", 1),
    ("a dead letter: permanent", 1),
    ("refused; nothing reached Kafka", 3),
];

pub(crate) fn make_run_needs_docker_and_no_rust_to_tell_each_fate(engine: &Arc<Engine>) -> Result<()> {
    let machine = tempfile::tempdir()?;
    for name in COMMANDS {
        let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).output()?;
        symlink(String::from_utf8(found.stdout)?.trim(), machine.path().join(name))?;
    }
    let (path, home) = (machine.path().display().to_string(), "/nonexistent".to_owned());
    let variables = ports()?;
    // Whatever happens to `make run`, its containers end with this test.
    let stack = Stack::new(engine, "hookwell-demo", &variables);
    let mut environment: Vec<(&str, &str)> = engine.environment().collect();
    environment.extend(variables.iter().map(|(name, value)| (*name, value.as_str())));
    environment.extend([("PATH", path.as_str()), ("HOME", home.as_str())]);
    let log = machine.path().join("run.log");
    let folder = project().display().to_string();
    let script = format!("{folder}/deploy/run.sh");
    let run = Program::start(Path::new("/bin/sh"), &[&script], &environment, &log, "")?;
    let told = told_by(&run)?;
    check_fates(&told)?;

    let lines = told.split("Send one of your own:").nth(1).and_then(|rest| rest.split("Ctrl-C").next());
    let lines = lines.context("it says nothing to type")?;
    let answer = Command::new("sh").args(["-c", lines]).current_dir(project()).output()?;
    let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // Trapped like Ctrl-C, which no shell can trap where whoever started these tests ignores it, as
    // `nohup make test &` does.
    run.signal(Signal::TERM)?;
    // Containers end one after the other, and the compose file gives them two minutes in all.
    let ended = wait::until_within(Duration::from_secs(300), "the stack to end", || run.ended());
    let ended = ended.with_context(|| {
        let left = stack.compose(&["--profile", "*", "ps", "--all"]);
        format!("it said {}; of its containers there are {left:?}", run.logged())
    })?;
    ensure!(ended.success(), "{}", run.logged());
    let left = stack.compose(&["--profile", "*", "ps", "--all", "--quiet"])?;
    ensure!(left.trim().is_empty(), "containers are left: {left}");
    Ok(())
}

pub(crate) fn make_run_takes_its_kafka_from_docker_where_rust_is_there(engine: &Arc<Engine>) -> Result<()> {
    let built =
        Command::new(env!("CARGO")).args(["build", "--locked", "--quiet"]).current_dir(project()).status()?;
    ensure!(built.success(), "the programs could not be built");
    let folder = tempfile::tempdir()?;
    let address = || Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port()?));
    let (listen, ingest, processor, kafka) = (address()?, address()?, address()?, address()?);
    let mut environment: Vec<(&str, &str)> = engine.environment().collect();
    environment.extend([
        ("HOOKWELL__INGEST__LISTEN", listen.as_str()),
        ("HOOKWELL__INGEST__ADMIN_LISTEN", &ingest),
        ("HOOKWELL__PROCESSOR__ADMIN_LISTEN", &processor),
        ("HOOKWELL__KAFKA__BOOTSTRAP_SERVERS", &kafka),
    ]);
    let log = folder.path().join("demo.log");
    let demo = Program::start(Path::new(env!("CARGO_BIN_EXE_demo")), &[], &environment, &log, &ingest)?;
    let told = told_by(&demo)?;
    ensure!(told.contains(&format!("Apache Kafka 4.3.1 at {kafka}, in a container")), "{told}");
    check_fates(&told)?;
    demo.signal(Signal::INT)?;
    ensure!(demo.end()?.success(), "{}", demo.logged());
    Ok(())
}

fn told_by(demonstration: &Program) -> Result<String> {
    // The images are built on the way.
    wait::until_within(Duration::from_secs(900), "the demonstration", || {
        let told = demonstration.logged();
        if let Some(status) = demonstration.ended()? {
            return Ok(Some(Err(anyhow::anyhow!("it ended with {status}: {told}"))));
        }
        Ok(told.contains("Ctrl-C ends everything.").then_some(Ok(told)))
    })?
}

fn check_fates(told: &str) -> Result<()> {
    for (fate, times) in FATES {
        ensure!(told.matches(fate).count() == *times, "not {times} times {fate:?}: {told}");
    }
    Ok(())
}
