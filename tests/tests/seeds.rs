//! Runs of `make faults`, short: three seeds that are always the same, and one that never is.

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs of seconds: what lasts longer is drawn by `make faults` and `make soak`.
const SECONDS: [&str; 2] = ["--minutes", "0.3"];

/// Breaks what the arguments say and fails with all that was said unless every promise was kept.
fn keeps_every_promise(arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faults"));
    // What it leaves behind lies in the project's folder.
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).stdin(Stdio::null());
    let output = command.args(SECONDS).args(arguments).output().expect("the program was built");
    let said = String::from_utf8_lossy(&output.stdout);
    let is_kept = output.status.success() && said.contains("every promise was kept");
    assert!(is_kept, "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn seed_1_breaks_programs_and_networks_and_every_promise_is_kept() {
    keeps_every_promise(&["--brokers", "1", "--seed", "1"]);
}

#[test]
fn seed_2_breaks_programs_and_networks_and_every_promise_is_kept() {
    keeps_every_promise(&["--brokers", "1", "--seed", "2"]);
}

#[test]
fn seed_3_breaks_brokers_too_and_every_promise_is_kept() {
    keeps_every_promise(&["--brokers", "3", "--seed", "3"]);
}

/// The seed is printed: what it finds is found again with it.
#[test]
fn a_fresh_seed_breaks_brokers_too_and_every_promise_is_kept() {
    keeps_every_promise(&["--brokers", "3"]);
}
