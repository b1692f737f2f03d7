//! A reader of committed records that runs while faults do, and notes what it sees.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cluster::{self, ALONE};
use crate::evidence::{Run, Seen};
use crate::folder;
use crate::names::{DeliveryKey, Names};
use crate::record::Role;

/// How long one look for a record takes at most.
const LOOK: Duration = Duration::from_millis(100);

/// After so many looks that found nothing, or so many records, it is asked for new partitions.
const IDLE_LOOKS: u32 = 10;
const BUSY_RECORDS: u32 = 10_000;

/// Watches until SIGTERM or SIGINT, and adds to what an earlier watch has noted.
pub fn watch(path: &Path) -> Result<()> {
    let told_to_stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&told_to_stop))?;
    }
    Watch::begin(path)?.until(&told_to_stop)
}

struct Watch {
    run: Run,
    client: BaseConsumer,
    /// The next offset of each partition that is followed.
    next: HashMap<(String, i32), i64>,
    /// What an earlier watch has come to.
    noted: HashMap<(String, i32), i64>,
    seen: BufWriter<File>,
    names: Names,
}

impl Watch {
    fn begin(path: &Path) -> Result<Self> {
        let run = folder::read_run(path)?;
        let path = path.join(folder::SEEN);
        let noted = earlier(&path)?;
        let seen = File::options().create(true).append(true).open(&path);
        let seen = BufWriter::new(seen.with_context(|| path.display().to_string())?);
        let client = cluster::consumer(&run, ALONE, "read_committed")?;
        Ok(Self { run, client, next: HashMap::new(), noted, seen, names: Names::default() })
    }

    fn until(mut self, told_to_stop: &AtomicBool) -> Result<()> {
        let (mut idle, mut busy) = (IDLE_LOOKS, 0);
        while !told_to_stop.load(Ordering::Relaxed) {
            if IDLE_LOOKS <= idle || BUSY_RECORDS <= busy {
                (idle, busy) = (0, 0);
                self.seen.flush()?;
                // While brokers are away nothing new can be found; it is asked again soon.
                self.follow_new().ok();
            }
            match self.client.poll(LOOK) {
                Some(Ok(message)) => {
                    let is_state = Role::of(message.topic(), &self.run.prefix) == Role::State;
                    let key = message.key().filter(|_| is_state).and_then(|key| key.try_into().ok());
                    let line = cluster::line(&message, false);
                    let seen = Seen {
                        topic: self.names.get(message.topic()),
                        partition: line.partition,
                        offset: line.offset,
                        digest: line.digest,
                        key: key.map(DeliveryKey),
                    };
                    serde_json::to_writer(&mut self.seen, &seen)?;
                    self.seen.write_all(b"\n")?;
                    busy += 1;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(_)) => {
                    idle += 1;
                    thread::sleep(LOOK);
                }
                None => idle += 1,
            }
        }
        Ok(self.seen.flush()?)
    }

    /// Takes up partitions that have come into being.
    fn follow_new(&mut self) -> Result<()> {
        let mut new = TopicPartitionList::new();
        for (topic, partitions) in cluster::topics(&self.client, &self.run)? {
            for partition in 0..partitions {
                let place = (topic.clone(), partition);
                if self.next.contains_key(&place) {
                    continue;
                }
                let from = self.noted.get(&place).map_or(Offset::Beginning, |last| Offset::Offset(last + 1));
                new.add_partition_offset(&topic, partition, from)?;
            }
        }
        if 0 < new.count() {
            self.client.incremental_assign(&new)?;
            let places = new.elements();
            self.next.extend(places.iter().map(|place| ((place.topic().to_owned(), place.partition()), 0)));
        }
        Ok(())
    }
}

/// How far an earlier watch has come, of which a last line that was not written whole is cut off.
fn earlier(path: &PathBuf) -> Result<HashMap<(String, i32), i64>> {
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        File::options().write(true).open(path)?.set_len(whole as u64)?;
    }
    drop(text);
    let seen = folder::lines(path, |seen: Seen| ((seen.topic.to_string(), seen.partition), seen.offset))?;
    Ok(seen.into_iter().collect())
}
