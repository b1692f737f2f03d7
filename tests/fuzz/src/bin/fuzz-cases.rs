//! Writes the well-formed cases of every target, for libFuzzer to begin with.
//! Usage: fuzz-cases FOLDER

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use hookwell_fuzz::TARGETS;

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("usage: fuzz-cases FOLDER")?);
    for target in TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder)?;
        for (number, case) in (target.cases)().into_iter().enumerate() {
            fs::write(folder.join(format!("case-{number}")), case)?;
        }
    }
    Ok(())
}
