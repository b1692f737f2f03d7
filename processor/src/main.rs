//! The delivering program. All of it is in the library; see `cli.rs`.

use std::process::ExitCode;

use hookwell_processor::Processor;

fn main() -> ExitCode {
    Processor::new().main()
}
