//! `make demo-failure`: a handler fails, events are retried and die; it is mended, and they are replayed.

mod cluster;
mod scene;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use clap::Parser;
use hookwell_tests::kafka::project;
use hookwell_tests::program::keep_apart;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use scene::Scene;

/// Tells in a minute what becomes of events whose handler fails, on a real Kafka.
#[derive(Debug, Parser)]
struct Arguments {
    /// The configuration; the story is played with a copy of it.
    #[arg(long, value_name = "FILE", default_value = "deploy/demo/failure.toml")]
    config: PathBuf,

    /// What a run leaves behind; the next begins anew.
    #[arg(long, value_name = "FOLDER", default_value = "target/demo-failure")]
    home: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("make demo-failure: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    std::env::set_current_dir(project())?;
    keep_apart();
    let told_to_stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&told_to_stop))?;
    }
    let scene = Scene::set(&arguments.config, &arguments.home, told_to_stop)?;
    story::tell(&scene)?;
    scene.strike()
}

/// Tells whoever watches.
#[expect(clippy::print_stdout, reason = "the story is what it prints")]
fn say(words: &str) {
    println!("{words}");
}
