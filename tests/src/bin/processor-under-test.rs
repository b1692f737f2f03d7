//! The delivering program with its fail-points.

use std::process::ExitCode;

use hookwell_processor::Processor;

fn main() -> ExitCode {
    Processor::new().main()
}
