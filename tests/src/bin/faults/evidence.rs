//! What the auditor judges by, and the auditor itself, which is a program of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use hookwell_auditor::evidence::Fault;
use hookwell_tests::ledger::Ledger;
use hookwell_tests::program::{Answer, Program, answer};
use hookwell_tests::recovery;
use hookwell_tests::sender::Sender;
use hookwell_tests::stage::{Settings, Stage};
use hookwell_tests::wait;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::run::Struck;

/// The partitions of each topic.
pub(crate) const PARTITIONS: u32 = 6;

/// The delays of the retry tiers, in milliseconds.
pub(crate) const TIERS: [u64; 2] = [500, 2_000];
const MAX_ATTEMPTS: u32 = 8;

/// The stage's settings: the handler is reached at the port `front`, and every event is copied to
/// the topic `copies` as well.
pub(crate) fn settings(front: u16, copies: &str) -> Settings {
    Settings {
        partitions: PARTITIONS,
        retry: format!(
            "tiers = [\"{}ms\", \"{}ms\"]\nmax_attempts = {MAX_ATTEMPTS}\njitter = 0.1",
            TIERS[0], TIERS[1]
        ),
        ingest: "publish_timeout = \"2s\"\n[ingest.spool]\npath = \"FOLDER/spool\"".to_owned(),
        spooling: vec![Sender::Shopify],
        destinations: format!(
            "[[destinations]]\nname = \"orders\"\nkind = \"http\"\nurl = \"http://127.0.0.1:{front}/orders\"\ntimeout = \"2s\"\n\
             [[destinations]]\nname = \"copies\"\nkind = \"kafka\"\ntopic = \"{copies}\"\n"
        ),
        routes: "[[routes]]\nsource = \"*\"\nto = [\"orders\", \"copies\"]".to_owned(),
        ..Settings::default()
    }
}

/// Writes what was to be, for the auditor to hold against what was.
pub(crate) fn write_run(home: &Path, stage: &Stage, copies: &str) -> Result<()> {
    let run = json!({
        "bootstrap_servers": stage.kafka.bootstrap_servers(), "prefix": stage.prefix, "group": stage.prefix,
        "tiers": TIERS, "skew_ms": 50, "grace_ms": 0,
        "destinations": [
            { "name": "orders", "kind": "http", "max_attempts": MAX_ATTEMPTS },
            { "name": "copies", "kind": "kafka", "topic": copies, "max_attempts": MAX_ATTEMPTS },
        ],
        "routes": [{ "source": "*", "to": ["orders", "copies"] }],
    });
    write(&home.join("run.json"), &run)
}

/// Writes how many ids processors remember that have just restored them all, and their digest, where
/// nothing was decided since.
pub(crate) fn write_rest(home: &Path, ids: f64, digest: Option<u64>) -> Result<()> {
    write(&home.join("rest.json"), &json!({ "state_ids": ids as u64, "state_digest": digest }))
}

fn write(file: &Path, value: &Value) -> Result<()> {
    fs::write(file, serde_json::to_vec_pretty(value)?).with_context(|| file.display().to_string())
}

/// A fault, and how long it took from its end until every partition that had something to settle
/// had done so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovered {
    pub(crate) struck: Struck,
    pub(crate) after: Option<Duration>,
}

/// Measures by the times at which the broker appended states, and writes the faults down.
pub(crate) fn recoveries(stage: &Stage, ledger: &Ledger, struck: &[Struck]) -> Result<Vec<Recovered>> {
    let name = |struck: &Struck| recovery::Fault {
        what: struck.fault.kind().to_owned(),
        began: struck.begin,
        ended: struck.end,
    };
    let faults: Vec<_> = struck.iter().map(name).collect();
    let measured = recovery::measure(&stage.reader, &stage.topic("state"), &faults)?;
    let told = |(struck, recovery): (&Struck, recovery::Recovery)| {
        let after = recovery.from_end.slowest;
        note_one(ledger, struck, after.map(|after| struck.end + after));
        Recovered { struck: *struck, after: after.map(Duration::from_millis) }
    };
    Ok(struck.iter().zip(measured).map(told).collect())
}

/// Writes down faults from which nothing recovered that could be seen.
pub(crate) fn note(ledger: &Ledger, struck: &[Struck]) {
    struck.iter().for_each(|struck| note_one(ledger, struck, None));
}

fn note_one(ledger: &Ledger, struck: &Struck, recovered: Option<u64>) {
    ledger.struck(&Fault {
        kind: struck.fault.kind().to_owned(),
        target: struck.fault.target(),
        begin: struck.begin,
        end: struck.end,
        recovered,
        skew_ms: 0,
        disturbs_calls: struck.fault.disturbs_calls(),
    });
}

/// What the auditor says.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Whether every promise was kept.
    pub(crate) is_kept: bool,
    /// What it counted, and how many violations of each kind it found.
    pub(crate) counts: BTreeMap<String, u64>,
    /// In its own words.
    pub(crate) words: String,
}

/// The auditor at work: it reads along while faults are made, and judges at rest.
#[derive(Debug)]
pub(crate) struct Auditor {
    program: PathBuf,
    home: PathBuf,
    watch: Program,
}

impl Auditor {
    /// Begins to read along.
    pub(crate) fn watch(programs: &Path, home: &Path) -> Result<Self> {
        let program = programs.join("auditor-under-test");
        let watch = reader(&program, home)?;
        Ok(Self { program, home: home.to_owned(), watch })
    }

    /// The verdict on all that has happened so far.
    pub(crate) fn judge(&mut self, ledger: &Ledger) -> Result<Verdict> {
        self.collect(ledger)?;
        let judged = self.ask(&["judge", "--output", "json"])?;
        let words = self.ask(&["judge"])?.out;
        self.watch = reader(&self.program, &self.home)?;
        match judged.status {
            Some(0 | 1) => Verdict::read(&judged.out, words),
            status => bail!("the auditor ended with {status:?}: {}", judged.err),
        }
    }

    /// Ends reading along, and dumps all topics.
    pub(crate) fn collect(&mut self, ledger: &Ledger) -> Result<()> {
        ledger.flush()?;
        self.watch.signal(Signal::TERM)?;
        let ended = wait::until("the auditor to stop reading", || self.watch.ended())?;
        ensure!(ended.success(), "the auditor could not read along: {}", self.watch.logged());
        let collected = self.ask(&["collect"])?;
        ensure!(collected.status == Some(0), "the topics could not be collected: {}", collected.err);
        Ok(())
    }

    fn ask(&self, arguments: &[&str]) -> Result<Answer> {
        answer(&self.program, &[arguments, &[&*self.home.to_string_lossy()]].concat(), &[])
    }
}

impl Verdict {
    fn read(json: &str, words: String) -> Result<Self> {
        let judged: Value = serde_json::from_str(json).context("the auditor's JSON")?;
        let mut counts = BTreeMap::new();
        for check in judged["checks"].as_array().context("the auditor names no checks")? {
            let named = check["counts"].as_array().into_iter().flatten();
            let named = named.filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_u64()?)));
            let breaches = check["breaches"].as_object().into_iter().flatten();
            let breaches = breaches.filter_map(|(name, count)| Some((name.as_str(), count.as_u64()?)));
            counts.extend(named.chain(breaches).map(|(name, count)| (name.to_owned(), count)));
        }
        Ok(Self { is_kept: judged["kept"] == true, counts, words })
    }
}

fn reader(program: &Path, home: &Path) -> Result<Program> {
    Program::start(program, &["watch", &home.to_string_lossy()], &[], &home.join("watch.log"), "")
}
