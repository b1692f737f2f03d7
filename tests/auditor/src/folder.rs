//! A folder of evidence: how it is read. What it holds is on the crate's page.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;

use crate::evidence::{Answer, Call, Evidence, Kind, Run, Seen};
use crate::names::{Name, Names};
use crate::record::{Line, Record, Role};

/// What was run.
pub const RUN: &str = "run.json";
/// The senders' ledger.
pub const ANSWERS: &str = "answers.jsonl";
/// The handlers' ledger.
pub const CALLS: &str = "calls.jsonl";
/// What was done to whom.
pub const FAULTS: &str = "faults.jsonl";
/// What the reader saw.
pub const SEEN: &str = "seen.jsonl";
/// What restarted processors say.
pub const REST: &str = "rest.json";
/// Where partitions begin and end.
pub const OFFSETS: &str = "offsets.json";
/// The folder of what lies on topics.
pub const TOPICS: &str = "topics";

/// Reads all of a folder. Faults, what was seen, and what processors said at rest may be missing.
pub fn read(folder: &Path) -> Result<Evidence> {
    let mut names = Names::default();
    let mut evidence = Evidence::of(read_run(folder)?);
    evidence.answers = Some(lines(&folder.join(ANSWERS), |mut answer: Answer| {
        [&mut answer.source, &mut answer.id].into_iter().for_each(|name| names.share(name));
        answer
    })?);
    evidence.calls = Some(lines(&folder.join(CALLS), |mut call: Call| {
        let texts = [&mut call.destination, &mut call.source, &mut call.id];
        texts.into_iter().for_each(|name| names.share(name));
        call
    })?);
    evidence.faults = optional(&folder.join(FAULTS), |path| lines(path, |fault| fault))?.unwrap_or_default();
    let seen = optional(&folder.join(SEEN), |path| {
        lines(path, |mut seen: Seen| {
            names.share(&mut seen.topic);
            seen
        })
    })?;
    evidence.seen = seen.unwrap_or_default();
    evidence.rest = optional(&folder.join(REST), value)?;
    evidence.ends = value(&folder.join(OFFSETS))?;
    evidence.topics = topics(folder, &evidence.run.prefix, &mut names)?;
    for (topic, records) in &evidence.topics {
        let last = records.iter().map(|record| record.partition).max().unwrap_or(0);
        let is_known = evidence.ends.iter().any(|ends| ends.topic == *topic && ends.partition == last);
        ensure!(records.is_empty() || is_known, "{OFFSETS} does not know partition {last} of {topic}");
    }
    Ok(evidence)
}

/// Reads what was run.
pub fn read_run(folder: &Path) -> Result<Run> {
    let run: Run = value(&folder.join(RUN))?;
    let known = |name: &Name| run.destinations.iter().any(|destination| destination.name == *name);
    if let Some(stranger) = run.routes.iter().flat_map(|route| &route.to).find(|name| !known(name)) {
        bail!("{RUN}: a route names the destination {stranger:?}, which is not there");
    }
    let nowhere = run.destinations.iter().find(|one| one.kind == Kind::Kafka && one.topic.is_none());
    ensure!(nowhere.is_none(), "{RUN}: {nowhere:?} has no topic");
    Ok(run)
}

fn topics(folder: &Path, prefix: &str, names: &mut Names) -> Result<BTreeMap<Name, Vec<Record>>> {
    let mut topics = BTreeMap::new();
    let path = folder.join(TOPICS);
    for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(topic) = file.strip_suffix(".jsonl") else { continue };
        let role = Role::of(topic, prefix);
        let mut records = lines(&path, |line: Line| line.read(role, names))?;
        records.sort_by_key(|record| (record.partition, record.offset));
        topics.insert(names.get(topic), records);
    }
    let events = format!("{prefix}.events");
    ensure!(topics.contains_key(&*events), "{}/{events}.jsonl is missing", path.display());
    Ok(topics)
}

fn value<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

fn optional<T>(path: &Path, read: impl FnOnce(&Path) -> Result<T>) -> Result<Option<T>> {
    if path.exists() { read(path).map(Some) } else { Ok(None) }
}

/// Each line of a file, read and kept as `keep` says; empty ones are passed over.
pub(crate) fn lines<T: DeserializeOwned, K>(path: &Path, mut keep: impl FnMut(T) -> K) -> Result<Vec<K>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let (mut reader, mut line, mut kept) = (BufReader::with_capacity(1 << 16, file), Vec::new(), Vec::new());
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).with_context(|| path.display().to_string())? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let read = serde_json::from_slice(&line);
        kept.push(keep(read.with_context(|| format!("{}, line {number}", path.display()))?));
    }
    kept.shrink_to_fit();
    Ok(kept)
}
