//! The receiving program. All of it is in the library; see `cli.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookwell_ingest::cli::main()
}
