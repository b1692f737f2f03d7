//! How fast Hookwell is, measured beside the least that the same work can cost: each floor runs in
//! the same minutes on the same machine as what is compared with it, in turns, and what counts is
//! the ratio.
//!
//! Nothing here passes or fails by how long it took. What was accepted must be on Kafka, though,
//! and what was delivered must have been delivered once.

mod broker;
mod cost;
mod floor;
mod ingest;
mod load;
mod overload;
mod processor;
mod record;
mod replay;
mod report;
mod scale;
mod spool;
mod state;

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use hookwell_tests::kafka::project;

use crate::floor::Floor;

/// Measures Hookwell beside the least that the same work can cost.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Requests: ours, a handler that only answers, a producer that only produces
    Ingest(ingest::Plan),
    /// A backlog: ours, and a loop of bare transactions
    Processor(processor::Plan),
    /// Processors: what more of them bring, and how long partitions stand still when one comes or goes
    Scale(scale::Plan),
    /// Remembered ids: what they weigh, and how long it takes to restore them
    State(state::Plan),
    /// Dead letters: what it costs to list and to replay them
    Replay(replay::Plan),
    /// Load beyond capacity: what happens to memory, to senders and to a fast destination
    Overload(overload::Plan),
    /// Kafka away: how fast events are taken and synced, and drained afterwards
    Spool(spool::Plan),
    /// One of the floors, as a process of its own
    #[command(subcommand, hide = true)]
    Floor(Floor),
}

fn main() -> ExitCode {
    match run(Cli::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<()> {
    match what {
        What::Floor(floor) => floor.run(),
        What::Ingest(plan) => measured(|| plan.run()),
        What::Processor(plan) => measured(|| plan.run()),
        What::Scale(plan) => measured(|| plan.run()),
        What::State(plan) => measured(|| plan.run()),
        What::Replay(plan) => measured(|| plan.run()),
        What::Spool(plan) => measured(|| plan.run()),
        What::Overload(plan) => measured(|| plan.run()),
    }
}

/// Builds what is measured, as users get it: a build with this program in it would have the
/// fail-points that the tests switch on.
fn measured(run: impl FnOnce() -> Result<()>) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "measure with `cargo run --release -p hookwell-bench`");
    let build = Command::new(env!("CARGO"))
        .current_dir(project())
        .args(["build", "--release", "--locked", "-p", "hookwell-ingest", "-p", "hookwell-processor"])
        .status()
        .context("cargo could not be started")?;
    ensure!(build.success(), "ingest and processor could not be built");
    run()
}
