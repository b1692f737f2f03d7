//! The auditor, as the system tests start it.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookwell_auditor::cli::main()
}
