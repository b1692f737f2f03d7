//! What senders heard, what handlers were asked and which faults were made, as the auditor wants to
//! be told: a line of JSON each.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use hookwell_auditor::evidence::{Answer, Call, Fault};
use hookwell_auditor::names::{Digest, Name};
use serde::Serialize;

use crate::handler;
use crate::sender::Signed;

/// A call, as it came. Its `path` is the destination.
pub fn call(call: &handler::Call) -> Call {
    let number = |header: &str| header.parse().unwrap_or(u16::MAX);
    Call {
        destination: Name::from(call.path.trim_start_matches('/')),
        source: Name::from(call.header("hookwell-source")),
        id: Name::from(call.event()),
        generation: number(call.header("hookwell-generation")),
        attempt: number(call.attempt()),
        key: call.key().to_owned(),
        status: call.status,
        at: call.at,
        made: call.header("webhook-timestamp").parse().ok().map(|seconds: u64| seconds * 1000 + 999),
        body: Digest::of(&call.body),
    }
}

/// What `signed` heard: `status`, or 0 where it heard nothing. `sent` and `answered` are
/// milliseconds since the epoch.
pub fn answer(signed: &Signed, sent: u64, answered: Option<u64>, status: u16) -> Answer {
    let (source, id) = (Name::from(&*signed.source), Name::from(&*signed.id));
    Answer { source, id, sent, answered, status, body: Digest::of(&signed.body) }
}

/// Writes a ledger: a line for each entry.
pub fn write<T: Serialize>(path: &Path, entries: impl IntoIterator<Item = T>) -> Result<()> {
    let mut text = String::new();
    for entry in entries {
        text += &serde_json::to_string(&entry)?;
        text.push('\n');
    }
    Ok(fs::write(path, text)?)
}

/// A folder of ledgers that many threads write.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    open: BTreeMap<&'static str, BufWriter<File>>,
    broken: Option<anyhow::Error>,
}

impl Ledger {
    /// Begins ledgers in `folder`, which is made where it is missing.
    pub fn begin(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), pages: Mutex::default() })
    }

    /// Where they lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Somebody heard an answer, or none.
    pub fn answered(&self, answer: &Answer) {
        self.write("answers.jsonl", answer);
    }

    /// The handler took a call.
    pub fn called(&self, call: &Call) {
        self.write("calls.jsonl", call);
    }

    /// A fault was made.
    pub fn struck(&self, fault: &Fault) {
        self.write("faults.jsonl", fault);
    }

    /// Puts all lines on disk. Fails if any of them could not be written.
    pub fn flush(&self) -> Result<()> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = pages.broken.take() {
            return Err(error.context("a ledger could not be written"));
        }
        pages.open.values_mut().try_for_each(|page| page.flush()).context("a ledger could not be written")
    }

    fn write(&self, page: &'static str, line: &impl Serialize) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = pages.write(&self.folder, page, line) {
            pages.broken.get_or_insert(error);
        }
    }
}

impl Pages {
    fn write(&mut self, folder: &Path, page: &'static str, line: &impl Serialize) -> Result<()> {
        if !self.open.contains_key(page) {
            let file = File::options().create(true).append(true).open(folder.join(page))?;
            self.open.insert(page, BufWriter::new(file));
        }
        let open = self.open.get_mut(page).context("it was opened above")?;
        serde_json::to_writer(&mut *open, line)?;
        Ok(open.write_all(b"\n")?)
    }
}
