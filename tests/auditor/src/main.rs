//! The auditor as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookwell_auditor::cli::main()
}
