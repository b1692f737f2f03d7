//! One target under libFuzzer: `FUZZ_TARGET` names it.
#![no_main]

use std::sync::LazyLock;

use hookwell_common::config::Environment;
use hookwell_fuzz::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;

#[expect(clippy::panic, reason = "libFuzzer has the command line, and the end of this process is its own")]
static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let environment = Environment::of_this_process();
    target(environment.get("FUZZ_TARGET").unwrap_or_default()).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        panic!("FUZZ_TARGET is none of {names:?}")
    })
});

fuzz_target!(|data: &[u8]| (CHOSEN.read)(data));
