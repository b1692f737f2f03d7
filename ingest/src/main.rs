//! The receiving program. All of it is in the library; see `cli.rs`.

use std::process::ExitCode;

use clap::Parser;
use hookwell_common::{failpoint, lifecycle};
use hookwell_ingest::cli;

fn main() -> ExitCode {
    let _armed = failpoint::arm();
    lifecycle::conclude("ingest", cli::execute(cli::Arguments::parse()))
}
