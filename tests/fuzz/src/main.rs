//! One target under libFuzzer: `FUZZ_TARGET` names it, and `FUZZ_CASES` the folder that is to hold what
//! is well formed, to begin with.
#![no_main]

use std::fs;
use std::io::Result;
use std::path::Path;
use std::sync::LazyLock;

use hookwell_common::config::Environment;
use hookwell_fuzz::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(Environment::of_this_process);

#[expect(clippy::panic, reason = "libFuzzer has the command line, and the end of this process is its own")]
static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    target(ENVIRONMENT.get("FUZZ_TARGET").unwrap_or_default()).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        panic!("FUZZ_TARGET is none of {names:?}")
    })
});

fn write_cases() -> Result<()> {
    let Some(folder) = ENVIRONMENT.get("FUZZ_CASES").map(Path::new) else { return Ok(()) };
    fs::create_dir_all(folder)?;
    let mut cases = (CHOSEN.cases)().into_iter().enumerate();
    cases.try_for_each(|(number, case)| fs::write(folder.join(format!("case-{number}")), case))
}

fuzz_target!(
    init: write_cases().expect("FUZZ_CASES can be written"),
    |data: &[u8]| (CHOSEN.read)(data)
);
