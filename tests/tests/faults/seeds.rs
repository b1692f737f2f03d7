//! Runs of `make faults`, short: three seeds that are always the same, and one that never is.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::kafka::project;

use crate::Common;

crate::tests![
    a_seed_that_breaks_programs_and_networks_keeps_every_promise,
    another_seed_that_breaks_programs_and_networks_keeps_every_promise,
    a_seed_that_breaks_brokers_too_keeps_every_promise,
    a_seed_that_nobody_has_tried_keeps_every_promise,
];

fn a_seed_that_breaks_programs_and_networks_keeps_every_promise(common: &Common) -> Result<()> {
    keeps_every_promise(common, &["--brokers", "1", "--seed", "1"])
}

fn another_seed_that_breaks_programs_and_networks_keeps_every_promise(common: &Common) -> Result<()> {
    keeps_every_promise(common, &["--brokers", "1", "--seed", "2"])
}

fn a_seed_that_breaks_brokers_too_keeps_every_promise(common: &Common) -> Result<()> {
    keeps_every_promise(common, &["--brokers", "3", "--seed", "3"])
}

/// What it finds is found again with the seed that it prints.
fn a_seed_that_nobody_has_tried_keeps_every_promise(common: &Common) -> Result<()> {
    keeps_every_promise(common, &["--brokers", "1"])
}

/// A run of seconds: what lasts longer is drawn by `make faults` and `make soak`.
fn keeps_every_promise(common: &Common, arguments: &[&str]) -> Result<()> {
    let _turn = common.own_kafka();
    let mut command = Command::new(env!("CARGO_BIN_EXE_faults"));
    command.args(["--minutes", "0.3", "--pause", "200"]).args(arguments);
    // What it leaves behind lies in the project's folder.
    command.current_dir(project()).stdin(Stdio::null());
    let output = command.output().context("make faults could not be started")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let is_kept = output.status.success() && said.contains("every promise was kept");
    ensure!(is_kept, "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
