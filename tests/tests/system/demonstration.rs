//! `make run`, on the mock broker, and `make demo-failure`: what they print is true, and what they say
//! to type works.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::kafka::{free_port, project};
use hookwell_tests::program::{Program, answer};
use hookwell_tests::wait;
use rustix::process::Signal;

use crate::{Common, tests};

tests![
    the_demonstration_tells_each_fate_takes_a_webhook_of_ones_own_and_ends_with_ctrl_c,
    the_story_of_a_failure_goes_from_the_first_attempt_to_an_empty_list,
    the_story_of_a_failure_says_what_it_needs,
];

/// The demonstrations start the programs that lie beside them, as users have them.
fn build() -> Result<()> {
    let built =
        Command::new(env!("CARGO")).args(["build", "--locked", "--quiet"]).current_dir(project()).status()?;
    ensure!(built.success(), "the programs could not be built");
    Ok(())
}

fn the_demonstration_tells_each_fate_takes_a_webhook_of_ones_own_and_ends_with_ctrl_c(
    _: &Common,
) -> Result<()> {
    build()?;
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

/// `make demo-failure` with a file and a folder of its own, on ports that nobody uses.
struct Failure {
    folder: tempfile::TempDir,
    ports: Vec<u16>,
}

impl Failure {
    fn prepare() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut text = fs::read_to_string(project().join("deploy/demo/failure.toml"))?;
        let home = folder.path().to_string_lossy().into_owned();
        text = text.replace("target/demo-failure", &home);
        // Kafka takes the port after its own too.
        let pair = wait::until("two ports in a row", || {
            let (port, next) = (free_port()?, free_port()?);
            Ok((port + 1 == next).then_some(port))
        })?;
        let mut ports = vec![pair];
        text = text.replace("127.0.0.1:9192", &format!("127.0.0.1:{pair}"));
        for known in [8180, 9201, 9202, 8190] {
            let port = free_port()?;
            ensure!(text.contains(&format!("127.0.0.1:{known}")), "{known} is not there");
            text = text.replace(&format!("127.0.0.1:{known}"), &format!("127.0.0.1:{port}"));
            ports.push(port);
        }
        fs::write(folder.path().join("failure.toml"), text)?;
        Ok(Self { folder, ports })
    }

    /// Its status and all that it tells.
    fn told(&self, environment: &[(&str, &str)]) -> Result<(Option<i32>, String)> {
        let (home, file) = (self.folder.path(), self.folder.path().join("failure.toml"));
        let arguments = ["--config", &file.to_string_lossy(), "--home", &home.to_string_lossy()];
        let told = answer(Path::new(env!("CARGO_BIN_EXE_demo-failure")), &arguments, environment)?;
        Ok((told.status, format!("{}{}", told.out, told.err)))
    }
}

fn the_story_of_a_failure_goes_from_the_first_attempt_to_an_empty_list(_: &Common) -> Result<()> {
    build()?;
    let failure = Failure::prepare()?;
    let (status, told) = failure.told(&[])?;
    ensure!(status == Some(0), "{status:?}: {told}");
    let in_order = [
        "1. Three webhooks arrive",
        "--send-test github",
        "2. Retries, with growing delays",
        "0.0 s   github, attempt 0: 503; the next is due at",
        "github, attempt 1: 503; the next is due at",
        "github, attempt 2: 503; the next is due at",
        "github, attempt 3: 503; it was the last",
        "stripe, attempt 0: 422",
        "3. Dead letters, by reason",
        "--list-dlq",
        "exhausted",
        "unroutable",
        "permanent",
        "4. The handler is mended",
        "kill -HUP",
        "--replay-dlq --dry-run",
        "selected 3, replayed 0, skipped 0, failed 0, left 3",
        "6. The replay",
        "selected 3, replayed 3, skipped 0, failed 0, left 0",
        "7. The deliveries",
        "generation 1, webhook-id",
        "8. Nothing is dead any more",
        "there is no dead letter that is still open",
        "That is all.",
    ];
    let mut rest = told.as_str();
    for words in in_order {
        let found = rest.split_once(words);
        rest = found.with_context(|| format!("{words:?} does not come in its turn: {told}"))?.1;
    }
    ensure!(told.matches("generation 1, webhook-id").count() == 3, "{told}");
    for port in &failure.ports {
        ensure!(TcpListener::bind(("127.0.0.1", *port)).is_ok(), "something still listens on {port}");
    }
    Ok(())
}

fn the_story_of_a_failure_says_what_it_needs(_: &Common) -> Result<()> {
    let failure = Failure::prepare()?;
    let nowhere = failure.folder.path().to_string_lossy().into_owned();
    let (status, told) = failure.told(&[("PATH", &nowhere)])?;
    ensure!(status == Some(1) && told.contains("this needs Java 17 and Maven"), "{status:?}: {told}");

    let _taken = TcpListener::bind(("127.0.0.1", failure.ports[1]))?;
    let (status, told) = failure.told(&[])?;
    let sentence = format!("127.0.0.1:{} is taken: end what listens there", failure.ports[1]);
    ensure!(status == Some(1) && told.contains(&sentence), "{status:?}: {told}");
    Ok(())
}
