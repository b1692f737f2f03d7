//! What lies on Kafka, written into a folder of evidence or taken as it is.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::cluster::{self, ALONE, Topics};
use crate::evidence::{Ends, Evidence, Run};
use crate::folder;
use crate::names::Names;
use crate::record::{Line, Role};

/// Adds to a folder what lies on the topics and where they end; what was collected before is
/// replaced.
pub fn collect(path: &Path) -> Result<()> {
    let run = folder::read_run(path)?;
    let topics = path.join(folder::TOPICS);
    if topics.exists() {
        fs::remove_dir_all(&topics)?;
    }
    fs::create_dir_all(&topics)?;
    let mut files: HashMap<String, BufWriter<File>> = HashMap::new();
    let ends = gather(&run, |topic, line| {
        let Some(line) = line else {
            let file = File::create(topics.join(format!("{topic}.jsonl")))?;
            files.insert(topic.to_owned(), BufWriter::new(file));
            return Ok(());
        };
        let file = files.get_mut(topic).with_context(|| format!("{topic} was not asked for"))?;
        serde_json::to_writer(&mut *file, &line)?;
        Ok(file.write_all(b"\n")?)
    })?;
    files.values_mut().try_for_each(BufWriter::flush)?;
    let offsets = path.join(folder::OFFSETS);
    fs::write(&offsets, serde_json::to_vec_pretty(&ends)?).with_context(|| offsets.display().to_string())
}

/// What lies on the topics of a run, without any ledger.
pub fn look(run: Run) -> Result<Evidence> {
    let mut names = Names::default();
    let mut evidence = Evidence::of(run);
    let topics = &mut evidence.topics;
    evidence.ends = gather(&evidence.run, |topic, line| {
        let role = Role::of(topic, &evidence.run.prefix);
        let records = topics.entry(names.get(topic)).or_default();
        records.extend(line.map(|line| line.read(role, &mut names)));
        Ok(())
    })?;
    for records in evidence.topics.values_mut() {
        records.sort_by_key(|record| (record.partition, record.offset));
    }
    Ok(evidence)
}

/// Hands each topic to `take`, once without a line and then with each of its lines, and gives the
/// ends. Committed offsets are read first and ends last: what is committed meanwhile is not held
/// against records that were read before.
fn gather(run: &Run, mut take: impl FnMut(&str, Option<Line>) -> Result<()>) -> Result<Vec<Ends>> {
    let client = cluster::consumer(run, ALONE, "read_committed")?;
    let topics: Topics = cluster::all_topics(&client, run)?;
    let committed = cluster::committed(run, &topics)?;
    topics.keys().try_for_each(|topic| take(topic, None))?;
    for (topic, partitions) in &topics {
        let is_whole = Role::of(topic, &run.prefix) == Role::State;
        cluster::read(&client, (topic, *partitions), |message| {
            take(topic, Some(cluster::line(message, is_whole)))
        })?;
    }
    cluster::ends(run, &topics, &committed)
}
