//! The states of one partition in memory: 28 bytes an id and a few for finding it.
//!
//! Entries lie densely in chunks; an index of 32-bit numbers finds them, in shards of their own, so
//! that growing moves a sixty-fourth of the index at a time and never an entry. Moments are kept
//! in whole seconds, rounded so that no state expires early. Of dead letters, which are few,
//! everything is kept.

use std::collections::HashMap;
use std::time::Duration;

use hashbrown::HashTable;
use hookwell_common::time::Timestamp;

use super::{Burial, DeliveryState, StateKey, Status};

const SHARDS: usize = 64;
/// Entries in a chunk; few in tests, so that they cross its borders, and the model can copy tables.
const CHUNK: usize = if cfg!(test) { 32 } else { 4096 };

/// For how long states are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// What is done is forgotten this long after.
    pub dedupe_window: Duration,
    /// A dead letter lies on its topic this long.
    pub dead_letter_retention: Duration,
}

/// The states of one partition.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct StateTable {
    expiry: Expiry,
    chunks: Vec<Box<[Entry]>>,
    len: usize,
    index: Vec<HashTable<u32>>,
    burials: HashMap<StateKey, Burial>,
    /// Where the next sweep goes on.
    cursor: usize,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many states were forgotten.
    pub forgotten: usize,
    /// States that must be written again, for they must outlive their dead letter.
    pub refresh: Vec<(StateKey, DeliveryState)>,
}

/// One state, packed.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: [u8; 16],
    first_seen: u32,
    updated: u32,
    generation: u16,
    status: PackedStatus,
}

/// The attempt that is due next, or one of two numbers that are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PackedStatus(u16);

/// The highest attempt that can be told from the two numbers that are none.
pub(crate) const MAX_ATTEMPT: u16 = u16::MAX - 2;

impl PackedStatus {
    const DONE: Self = Self(u16::MAX);
    const DEAD: Self = Self(u16::MAX - 1);

    fn pack(status: Status) -> Self {
        match status {
            Status::Retrying { next_attempt } => Self(next_attempt.min(MAX_ATTEMPT)),
            Status::Done => Self::DONE,
            Status::Dead => Self::DEAD,
        }
    }

    fn unpack(self) -> Status {
        match self {
            Self::DONE => Status::Done,
            Self::DEAD => Status::Dead,
            Self(next_attempt) => Status::Retrying { next_attempt },
        }
    }
}

impl StateTable {
    /// An empty table.
    pub fn new(expiry: Expiry) -> Self {
        Self {
            expiry,
            chunks: Vec::new(),
            len: 0,
            index: (0..SHARDS).map(|_| HashTable::new()).collect(),
            burials: HashMap::new(),
            cursor: 0,
        }
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the table takes of memory, in bytes; burials by estimate.
    pub fn bytes(&self) -> usize {
        // A slot of the index takes its number and one byte, at most 7/8 of them used.
        let slots: usize = self.index.iter().map(|shard| shard.capacity() * 8 / 7).sum();
        let burial = size_of::<StateKey>() + size_of::<Burial>() + 64;
        self.chunks.len() * CHUNK * size_of::<Entry>()
            + slots * (size_of::<u32>() + 1)
            + self.burials.len() * burial
    }

    /// A number that tells tables apart which hold other ids, or the same in other states: the sum of
    /// the first eight bytes of the BLAKE3 hash of each key, status, generation and next attempt, as
    /// state records write them. Takes a while, for tests.
    pub fn digest(&self) -> u64 {
        let one = |entry: &Entry| {
            let (status, next_attempt) = match entry.status.unpack() {
                Status::Retrying { next_attempt } => (1, next_attempt),
                Status::Done => (2, 0),
                Status::Dead => (3, 0),
            };
            let mut hasher = blake3::Hasher::new();
            hasher.update(&entry.key).update(&[status]);
            hasher.update(&entry.generation.to_be_bytes()).update(&next_attempt.to_be_bytes());
            let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
            u64::from_be_bytes([a, b, c, d, e, f, g, h])
        };
        (0..self.len).map(|at| one(self.entry(at))).fold(0, u64::wrapping_add)
    }

    /// Dead letters that are remembered, with whether the delivery is still dead.
    pub fn burials(&self) -> impl Iterator<Item = (&Burial, bool)> {
        self.burials.iter().map(|(key, burial)| {
            let is_dead = self.position(key).is_some_and(|at| self.entry(at).status == PackedStatus::DEAD);
            (burial, is_dead)
        })
    }

    /// The state of `key`, unless it has expired by `now`.
    pub fn get(&self, key: &StateKey, now: Timestamp) -> Option<DeliveryState> {
        let entry = self.entry(self.position(key)?);
        (!self.is_expired(entry, now)).then(|| self.unpack(entry))
    }

    /// Remembers `state` for `key`.
    pub fn put(&mut self, key: StateKey, state: DeliveryState) {
        let packed = Entry {
            key: key.0,
            first_seen: seconds_up(state.first_seen),
            updated: seconds_up(state.updated),
            generation: state.generation,
            status: PackedStatus::pack(state.status),
        };
        match state.burial {
            Some(burial) => drop(self.burials.insert(key, burial)),
            None => drop(self.burials.remove(&key)),
        }
        if let Some(at) = self.position(&key) {
            *self.entry_mut(at) = packed;
            return;
        }
        let at = self.len;
        if at == self.chunks.len() * CHUNK {
            self.chunks.push(vec![Entry::default(); CHUNK].into_boxed_slice());
        }
        self.len += 1;
        *self.entry_mut(at) = packed;
        let chunks = &self.chunks;
        let number = u32::try_from(at).expect("a partition does not hold four billion ids");
        self.index[shard_of(&key)].insert_unique(hash_of(&key), number, |at| {
            hash_of(&StateKey(chunks[*at as usize / CHUNK][*at as usize % CHUNK].key))
        });
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: &StateKey) {
        let Some(at) = self.position(key) else { return };
        self.burials.remove(key);
        self.unlink(key, at);
        // The last entry moves into the gap, so that entries stay dense.
        let last = self.len - 1;
        if at != last {
            let moved = *self.entry(last);
            let moved_key = StateKey(moved.key);
            *self.entry_mut(at) = moved;
            let wanted = u32::try_from(last).unwrap_or(u32::MAX);
            let slot = self.index[shard_of(&moved_key)].find_mut(hash_of(&moved_key), |slot| *slot == wanted);
            *slot.expect("every entry is in the index") = u32::try_from(at).unwrap_or(u32::MAX);
        }
        self.len = last;
        if self.len + CHUNK <= (self.chunks.len() - 1) * CHUNK {
            self.chunks.pop();
        }
    }

    /// Looks at the next `count` entries: forgets what has expired by `now`, and tells what must be
    /// written again. Round after round this sees every entry.
    pub fn sweep(&mut self, now: Timestamp, count: usize) -> Swept {
        let mut swept = Swept::default();
        for _ in 0..count.min(self.len) {
            if self.cursor >= self.len {
                self.cursor = 0;
            }
            let entry = *self.entry(self.cursor);
            let key = StateKey(entry.key);
            if self.is_expired(&entry, now) {
                self.remove(&key);
                swept.forgotten += 1;
                continue;
            }
            if self.must_refresh(&entry, now) {
                let state = DeliveryState { updated: now, ..self.unpack(&entry) };
                self.put(key, state.clone());
                swept.refresh.push((key, state));
            }
            self.cursor += 1;
        }
        swept
    }

    fn is_expired(&self, entry: &Entry, now: Timestamp) -> bool {
        let window = match entry.status.unpack() {
            Status::Done => self.expiry.dedupe_window,
            // Refreshed by each attempt or by a sweep; what is older than its record on Kafka can
            // be has lost that.
            Status::Retrying { .. } | Status::Dead => {
                self.expiry.dedupe_window.saturating_add(Duration::from_secs(86_400))
            }
        };
        Timestamp::from_seconds(u64::from(entry.updated)).plus(window) <= now
    }

    /// What has a dead letter must outlive it: written again before half the window has passed.
    fn must_refresh(&self, entry: &Entry, now: Timestamp) -> bool {
        let age = now.since(Timestamp::from_seconds(u64::from(entry.updated)));
        age > self.expiry.dedupe_window * 2 / 5
            && self
                .burials
                .get(&StateKey(entry.key))
                .is_some_and(|burial| now <= burial.at.plus(self.expiry.dead_letter_retention))
    }

    fn unpack(&self, entry: &Entry) -> DeliveryState {
        DeliveryState {
            status: entry.status.unpack(),
            generation: entry.generation,
            first_seen: Timestamp::from_seconds(u64::from(entry.first_seen)),
            updated: Timestamp::from_seconds(u64::from(entry.updated)),
            burial: self.burials.get(&StateKey(entry.key)).cloned(),
        }
    }

    fn position(&self, key: &StateKey) -> Option<usize> {
        let found = self.index[shard_of(key)].find(hash_of(key), |at| self.entry(*at as usize).key == key.0);
        found.map(|at| *at as usize)
    }

    fn unlink(&mut self, key: &StateKey, at: usize) {
        let found = self.index[shard_of(key)].find_entry(hash_of(key), |slot| *slot as usize == at);
        if let Ok(slot) = found {
            slot.remove();
        }
    }

    fn entry(&self, at: usize) -> &Entry {
        &self.chunks[at / CHUNK][at % CHUNK]
    }

    fn entry_mut(&mut self, at: usize) -> &mut Entry {
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }
}

/// Keys are hashes already.
fn hash_of(key: &StateKey) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = key.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn shard_of(key: &StateKey) -> usize {
    usize::from(key.0[15]) % SHARDS
}

/// The next whole second, so that nothing expires early.
fn seconds_up(moment: Timestamp) -> u32 {
    u32::try_from(moment.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
