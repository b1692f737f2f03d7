//! The receiving program with its fail-points.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookwell_ingest::cli::main()
}
