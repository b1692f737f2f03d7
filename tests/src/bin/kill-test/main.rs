//! The kill test: load from three senders while programs and Kafka are killed and frozen, and then
//! the count of what was lost, doubled or called twice.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use hookwell_common::lifecycle::Clock;
use hookwell_tests::auditor::Audit;
use hookwell_tests::handler::{Call, HttpHandler, Reply};
use hookwell_tests::kafka::{Kafka, project};
use hookwell_tests::load::{Load, Plan};
use hookwell_tests::program::Program;
use hookwell_tests::recovery::{self, Fault};
use hookwell_tests::stage::{Binaries, Settings, Stage};
use hookwell_tests::wait;
use rustix::process::Signal;

/// Kills programs under load, and counts.
#[derive(Debug, Parser)]
struct Arguments {
    /// Events to be sent, copies not counted.
    #[arg(long, default_value_t = 20_000)]
    events: usize,

    /// Seconds between two faults.
    #[arg(long, default_value_t = 4)]
    every: u64,
}

/// Where logs go after a failure.
const KEPT: &str = "target/kill-test";

/// Longer than the session time-out of the stage's group, which is three seconds.
const FROZEN: Duration = Duration::from_secs(8);

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let home = tempfile::Builder::new().prefix("hookwell-kill-test-").tempdir()?;
    let folder = std::env::current_exe()?.parent().context("a program lies in a folder")?.to_owned();
    let kafka = Arc::new(Kafka::start(home.path())?);
    let stage = Stage::set(&kafka, &binaries(folder), settings())?;
    stage.handler.answer(answer);

    let plan = Plan { events: arguments.events, connections: 2, pause: Duration::from_millis(12) };
    let load = Load::start(stage.port, plan)?;
    let faults = strike(&stage, &load, Duration::from_secs(arguments.every))?;
    let accepted = load.accepted();
    say("everything is sent; waiting until all is settled");
    // The programs that strike left running have ended with it; these finish what is open.
    let _processors = [stage.processor()?, stage.processor()?];
    if let Err(error) = stage.until_all_settled(&accepted).and_then(|_| stage.until_caught_up()) {
        say(&format!("{error:#}; the logs are kept in {KEPT}"));
        keep_logs(&stage)?;
    }
    let audit = stage.audit(&accepted)?;
    report(&stage, &accepted, &audit, &faults)?;
    Ok(if audit.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is looked at after a failure.
fn keep_logs(stage: &Stage) -> Result<()> {
    let kept = project().join(KEPT);
    fs::create_dir_all(&kept)?;
    for entry in fs::read_dir(stage.folder())? {
        let entry = entry?;
        fs::copy(entry.path(), kept.join(entry.file_name()))?;
    }
    fs::copy(stage.kafka.log(), kept.join("kafka.log"))?;
    Ok(())
}

fn binaries(folder: PathBuf) -> Binaries {
    Binaries { ingest: folder.join("ingest"), processor: folder.join("processor") }
}

fn settings() -> Settings {
    Settings {
        partitions: 6,
        retry: "tiers = [\"500ms\", \"2s\"]\nmax_attempts = 8\njitter = 0.1".to_owned(),
        ingest: "publish_timeout = \"1s\"".to_owned(),
        ..Settings::default()
    }
}

/// Fails one call in ten, and one event in a hundred for good.
fn answer(call: &Call) -> Reply {
    let hash = |salt: &str| {
        let digest = blake3::hash([call.event(), salt].concat().as_bytes());
        u32::from(digest.as_bytes()[0]) * 256 + u32::from(digest.as_bytes()[1])
    };
    let fails_for_good = hash("") % 100 == 0;
    let fails_now = hash(call.attempt()) % 10 == 0;
    Reply {
        after: Duration::from_millis(2),
        ..Reply::from(if fails_for_good {
            422
        } else if fails_now {
            500
        } else {
            200
        })
    }
}

/// Faults in turn until the load is through: processors and ingest are killed, one processor is
/// frozen for longer than its session, and Kafka is killed.
fn strike(stage: &Stage, load: &Load, every: Duration) -> Result<Vec<Fault>> {
    let clock = Clock::start();
    let mut ingest = stage.ingest()?;
    let mut processors = [stage.processor()?, stage.processor()?];
    let mut faults = Vec::new();
    load.go();
    for round in 0.. {
        wait::pause(every);
        if load.is_through() {
            break;
        }
        let mut note = |what: &'static str| {
            let at = clock.now().wall.as_millis();
            say(&format!("{} accepted: {what}", load.sent()));
            faults.push(Fault { what: what.to_owned(), began: at, ended: at });
        };
        match round % 8 {
            3 if round < 8 => {
                note("a processor is frozen beyond its session, and thawed");
                processors[0].signal(Signal::STOP)?;
                wait::pause(FROZEN);
                processors[0].signal(Signal::CONT)?;
            }
            6 if round < 8 => {
                note("Kafka is killed");
                stage.kafka.kill()?;
                stage.kafka.revive()?;
            }
            1 | 5 => {
                note("ingest is killed");
                ingest.kill()?;
                ingest = started(stage.start_ingest(""))?;
            }
            number => {
                note("a processor is killed");
                let which = number % 2;
                processors[which].kill()?;
                processors[which] = started(stage.start_processor(""))?;
            }
        }
    }
    load.join()?;
    for program in processors.iter().chain([&ingest]) {
        ensure!(program.stop()?.success(), "a program did not end well: {}", program.logged());
    }
    Ok(faults)
}

fn started(program: Result<Program>) -> Result<Program> {
    program.context("a program could not be started again")
}

fn report(
    stage: &Stage,
    accepted: &BTreeSet<(String, String)>,
    audit: &Audit,
    faults: &[Fault],
) -> Result<()> {
    let recoveries = recovery::measure(&stage.reader, &stage.topic("state"), faults)?;
    say(&format!("\n{}\n", recovery::table(faults, &recoveries)));
    say(&audit.to_string());
    let (calls, extra) = calls(&stage.handler);
    say(&format!(
        "events acknowledged {}, settled done {}, settled dead {}, lost {}, settled twice {}, without an end {}\nhandler calls {calls}, of which beyond one success a delivery {extra}",
        accepted.len(),
        audit.done,
        audit.dead,
        audit.lost.len(),
        audit.doubled.len(),
        audit.untold.len(),
    ));
    Ok(())
}

/// All calls, and those that succeeded for a delivery for which another had.
fn calls(handler: &HttpHandler) -> (usize, usize) {
    let calls = handler.calls();
    let succeeded: Vec<_> = calls.iter().filter(|call| call.status == 200).map(Call::key).collect();
    let distinct: BTreeSet<_> = succeeded.iter().collect();
    (calls.len(), succeeded.len() - distinct.len())
}

#[expect(clippy::print_stdout, reason = "the test's answer")]
fn say(words: &str) {
    println!("{words}");
}
