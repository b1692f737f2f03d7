//! A wall clock that a test steps under one program. Its monotonic clock goes on as it is, as on a
//! machine whose clock is set.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// What is put between the program and the system's clock.
const SHIM: &str = include_str!("clock.c");

/// A clock that differs from everybody else's by as many seconds as it was told.
#[derive(Debug)]
pub struct Clock {
    library: String,
    skew: String,
}

impl Clock {
    /// A clock that is right so far, for one program; `folder` holds what steers it.
    pub fn right(folder: &Path, name: &str) -> Result<Self> {
        let place = |what: &str| folder.join(format!("clock-of-{name}{what}")).to_string_lossy().into_owned();
        let (source, library, skew) = (place(".c"), place(".so"), place(""));
        fs::write(&source, SHIM)?;
        let compile = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", &library, &source, "-ldl"];
        let output = Command::new("cc").args(compile).output().context("cc could not be started")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::write(&skew, [0; 8])?;
        Ok(Self { library, skew })
    }

    /// From now on it is ahead by `seconds`, or behind.
    pub fn step_to(&self, seconds: i64) -> Result<()> {
        let nanos = seconds * 1_000_000_000;
        Ok(File::options().write(true).open(&self.skew)?.write_all_at(&nanos.to_ne_bytes(), 0)?)
    }

    /// The environment of the program whose clock it is.
    pub fn environment(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", &self.library), ("HOOKWELL_TESTS_CLOCK", &self.skew)]
    }
}
