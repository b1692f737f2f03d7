//! Events to the disk: all that wait are written together, one fsync for all of them, and only then
//! is any of them answered.
//!
//! What a failed write or fsync leaves behind nobody knows: the kernel may have dropped the pages and
//! say yes to the next fsync. So nothing is ever added to such a segment, and its end is cut off.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use hookwell_common::event::Event;
use hookwell_common::failpoint;
use tokio::sync::oneshot;

use super::folder::{Folder, is_linked};
use super::frame::{Key, append, received_at};
use super::ledger::Target;
use super::{Shared, SpoolError, Spooled};
use crate::body::Share;

/// The most that is written with one fsync.
const MAX_BATCH_EVENTS: usize = 1024;
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// An event that waits for the disk, and who waits for it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) event: Event,
    pub(super) answer: oneshot::Sender<Result<Spooled, SpoolError>>,
    /// Its body's part of the memory, taken for as long as it waits.
    pub(super) _share: Option<Arc<Share>>,
}

impl Entry {
    /// A request that no longer waits was answered 503, or its client is gone.
    fn answer(self, result: Result<Spooled, SpoolError>) {
        self.answer.send(result).ok();
    }
}

/// What the writer asks of a disk: one file at a time.
pub(super) trait Disk {
    /// Goes on with a new file.
    fn create(&mut self, sequence: u64) -> io::Result<()>;
    /// Appends to the file.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// What was written is there for good, under the file's name.
    fn sync(&mut self) -> io::Result<()>;
    /// Leaves the file, of which `length` bytes count.
    fn leave(&mut self, sequence: u64, length: u64);
}

/// Files in a folder.
#[derive(Debug)]
pub(super) struct Files {
    folder: Folder,
    open: Option<File>,
    is_new: bool,
}

impl Files {
    pub(super) fn new(folder: Folder) -> Self {
        Self { folder, open: None, is_new: false }
    }

    fn open(&mut self) -> io::Result<&mut File> {
        self.open.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Disk for Files {
    fn create(&mut self, sequence: u64) -> io::Result<()> {
        self.open = None;
        self.open = Some(self.folder.create(sequence)?);
        self.is_new = true;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open()?.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let file = self.open()?;
        file.sync_data()?;
        if !is_linked(file)? {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the segment's file was removed"));
        }
        if std::mem::take(&mut self.is_new) { self.folder.sync() } else { Ok(()) }
    }

    fn leave(&mut self, sequence: u64, length: u64) {
        // A file that could not be made leaves nothing behind.
        if self.open.take().is_none() {
            return;
        }
        let cleaned =
            if length == 0 { self.folder.remove(sequence) } else { self.folder.cut(sequence, length) };
        // Where that fails too the next start finds a place that it cannot read, and says so.
        if let Err(error) = cleaned {
            tracing::warn!(%error, sequence, "the end of a segment of the spool could not be cut off");
        }
    }
}

/// Why events are not taken at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Full,
    Unwritable,
}

/// Writes what comes.
pub(super) struct Writer<D> {
    disk: D,
    shared: Arc<Shared>,
    trouble: Option<Trouble>,
}

impl<D: Disk> Writer<D> {
    pub(super) fn new(disk: D, shared: Arc<Shared>) -> Self {
        Self { disk, shared, trouble: None }
    }

    /// Writes until nobody is left to send anything.
    pub(super) fn run(mut self, entries: Receiver<Entry>) {
        while let Ok(first) = entries.recv() {
            let mut weight = first.event.body.len();
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH_EVENTS && weight < MAX_BATCH_BYTES {
                let Ok(next) = entries.try_recv() else { break };
                weight += next.event.body.len();
                batch.push(next);
            }
            self.commit(batch);
        }
    }

    pub(super) fn commit(&mut self, batch: Vec<Entry>) {
        let (target, room) = {
            let mut ledger = self.shared.ledger();
            (ledger.begin_write(), ledger.room())
        };
        let key = match target {
            Target::Last(last) => Ok(last.key),
            Target::New(_) => new_key(),
        };
        let key = match key {
            Ok(key) => key,
            Err(error) => return self.fail(target, batch, &error),
        };
        let mut bytes = match target {
            Target::Last(_) => Vec::new(),
            Target::New(_) => key.head().to_vec(),
        };
        let (stored, refused) = fill(batch, &key, &mut bytes, room);
        if stored.is_empty() {
            self.shared.ledger().abandon_write();
        } else if let Err(error) = self.write(target, &bytes) {
            self.refuse(refused);
            return self.fail(target, stored, &error);
        } else {
            self.succeed(target, key, bytes.len(), stored);
        }
        self.refuse(refused);
    }

    fn write(&mut self, target: Target, bytes: &[u8]) -> io::Result<()> {
        if let Target::New(sequence) = target {
            self.disk.create(sequence)?;
        }
        self.disk.write(bytes)?;
        failpoint::hit("spool-written");
        self.disk.sync()?;
        failpoint::hit("spool-synced");
        Ok(())
    }

    fn succeed(&mut self, target: Target, key: Key, written: usize, stored: Vec<Entry>) {
        let (sequence, length) = match target {
            Target::Last(last) => (last.sequence, last.length),
            Target::New(sequence) => (sequence, 0),
        };
        let length = length + written as u64;
        let oldest = stored.first().map(|entry| received_at(&entry.event)).unwrap_or_default();
        let has_room = {
            let mut ledger = self.shared.ledger();
            ledger.end_write(sequence, key, length, stored.len() as u64, oldest);
            ledger.has_plenty()
        };
        self.shared.notify();
        // At the brink of being full it is not full and not full a moment later.
        if self.trouble.is_none_or(|trouble| trouble == Trouble::Unwritable || has_room) {
            self.trouble = None;
            if self.shared.is_refusing.swap(false, Ordering::Relaxed) {
                tracing::info!("the spool takes events again");
            }
        }
        for entry in stored {
            entry.answer(Ok(Spooled::proof()));
        }
    }

    fn fail(&mut self, target: Target, batch: Vec<Entry>, error: &io::Error) {
        let (sequence, length) = match target {
            Target::Last(last) => (last.sequence, last.length),
            Target::New(sequence) => (sequence, 0),
        };
        self.disk.leave(sequence, length);
        self.shared.ledger().fail_write();
        if self.is_news(Trouble::Unwritable) {
            tracing::error!(%error, "the spool cannot be written; events that Kafka cannot take are answered 503 until it can");
        }
        self.shared.meters.unwritable.inc_by(batch.len() as u64);
        for entry in batch {
            entry.answer(Err(SpoolError::Unwritable));
        }
    }

    /// Each trouble is told once, and not with every event.
    fn is_news(&mut self, trouble: Trouble) -> bool {
        self.shared.is_refusing.store(true, Ordering::Relaxed);
        self.trouble.replace(trouble) != Some(trouble)
    }

    fn refuse(&mut self, refused: Vec<Entry>) {
        if refused.is_empty() {
            return;
        }
        if self.is_news(Trouble::Full) {
            let bytes = self.shared.ledger().bytes();
            tracing::error!(
                bytes,
                "the spool is full (ingest.spool.max_bytes); events that Kafka cannot take are answered 503 until it is drained"
            );
        }
        self.shared.meters.full.inc_by(refused.len() as u64);
        for entry in refused {
            entry.answer(Err(SpoolError::Full));
        }
    }
}

/// Appends to `bytes` what of `batch` fits into `room`; gives what does and what does not.
fn fill(batch: Vec<Entry>, key: &Key, bytes: &mut Vec<u8>, room: u64) -> (Vec<Entry>, Vec<Entry>) {
    let (mut stored, mut refused) = (Vec::with_capacity(batch.len()), Vec::new());
    for entry in batch {
        let end = bytes.len();
        append(key, &entry.event, bytes);
        if bytes.len() as u64 <= room {
            stored.push(entry);
        } else {
            bytes.truncate(end);
            refused.push(entry);
        }
    }
    (stored, refused)
}

fn new_key() -> io::Result<Key> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Key::new(random))
}
