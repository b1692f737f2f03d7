//! Events as they lie in a segment of the spool: bytes, and what can still be read of them.
//!
//! ```text
//! segment  head 56 bytes: "hwspool1", key 32, checksum 16; then frames
//! frame    mark 4, length of the record 4, checksum 16, record
//! record   length 4, body; for each header length 4, name, length 4, value
//! ```
//!
//! Lengths are little-endian. Marks and checksums are made with the segment's key, which is random:
//! where a place is damaged the next frame is searched for, and no body that a sender chose may be
//! mistaken for one.

use hookwell_common::event::Event;
use hookwell_common::record::{Passage, RawRecord, encode_headers};
use hookwell_common::time::Timestamp;

/// The length of a segment's head.
pub(super) const HEAD_BYTES: usize = 56;

const MAGIC: &[u8; 8] = b"hwspool1";
const FRAME_HEAD_BYTES: usize = 24;

/// What the marks and checksums of one segment are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    key: [u8; 32],
    mark: [u8; 4],
}

impl Key {
    /// The key of `random` bytes.
    pub(super) fn new(random: [u8; 32]) -> Self {
        let [a, b, c, d, ..] = *blake3::keyed_hash(&random, b"mark").as_bytes();
        Self { key: random, mark: [a, b, c, d] }
    }

    /// The head of the key's segment.
    pub(super) fn head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(MAGIC);
        head[8..40].copy_from_slice(&self.key);
        head[40..].copy_from_slice(&self.checksum(&[MAGIC]));
        head
    }

    /// The key in the head of `segment`; `None` where there is none that is whole.
    pub(super) fn of_segment(segment: &[u8]) -> Option<Self> {
        let head = segment.first_chunk::<HEAD_BYTES>()?;
        let key = Self::new(*head[8..].first_chunk::<32>()?);
        (key.head() == *head).then_some(key)
    }

    fn checksum(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in parts {
            hasher.update(part);
        }
        let mut checksum = [0; 16];
        hasher.finalize_xof().fill(&mut checksum);
        checksum
    }
}

/// Appends the frame of `event` to `segment`.
pub(super) fn append(key: &Key, event: &Event, segment: &mut Vec<u8>) {
    let start = segment.len();
    segment.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
    append_part(&event.body, segment);
    encode_headers(event, &Passage::default(), |name, value| {
        append_part(name.as_bytes(), segment);
        append_part(value, segment);
    });
    let (head, record) = segment[start..].split_at_mut(FRAME_HEAD_BYTES);
    let length = length_of(record);
    head[..4].copy_from_slice(&key.mark);
    head[4..8].copy_from_slice(&length);
    head[8..].copy_from_slice(&key.checksum(&[&length, record]));
}

/// Whether `bytes` begin like a frame that ends where they do.
pub(super) fn is_as_long_as_it_says(key: &Key, bytes: &[u8]) -> bool {
    let Some(length) = bytes.strip_prefix(&key.mark).and_then(|rest| rest.first_chunk::<4>()) else {
        return false;
    };
    let length = usize::try_from(u32::from_le_bytes(*length)).ok();
    length.and_then(|length| length.checked_add(FRAME_HEAD_BYTES)) == Some(bytes.len())
}

fn append_part(part: &[u8], segment: &mut Vec<u8>) {
    segment.extend_from_slice(&length_of(part));
    segment.extend_from_slice(part);
}

/// A record is a little longer than a body, and no body is longer than 64 MiB.
fn length_of(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// When `event` was received; the epoch where it does not say.
pub(super) fn received_at(event: &Event) -> Timestamp {
    Timestamp::parse_rfc3339(&event.time).unwrap_or_default()
}

/// What lies between two places of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A frame, and its event.
    Event {
        /// Where the frame begins.
        start: usize,
        /// Where it ends.
        end: usize,
        /// The event.
        event: Box<Event>,
    },
    /// Nothing that can be read.
    Unreadable {
        /// Where it begins.
        start: usize,
        /// Where the next frame begins, or all ends.
        end: usize,
    },
}

/// The pieces of a segment, or of a part of one that begins where a frame does.
#[derive(Clone, Debug)]
pub(super) struct Pieces<'b> {
    key: Key,
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Pieces<'b> {
    /// The pieces of `bytes` from `at` on.
    pub(super) fn new(key: Key, bytes: &'b [u8], at: usize) -> Self {
        Self { key, bytes, at }
    }

    /// The record of the frame at `start`, and where it ends.
    fn record(&self, start: usize) -> Option<(&'b [u8], usize)> {
        let rest = self.bytes.get(start..)?;
        let (head, rest) = rest.split_first_chunk::<FRAME_HEAD_BYTES>()?;
        if head[..4] != self.key.mark {
            return None;
        }
        let length = *head[4..].first_chunk::<4>()?;
        let record = rest.get(..usize::try_from(u32::from_le_bytes(length)).ok()?)?;
        let is_whole = self.key.checksum(&[&length, record]) == head[8..];
        is_whole.then_some((record, start + FRAME_HEAD_BYTES + record.len()))
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let start = self.at;
        if self.bytes.len() <= start {
            return None;
        }
        let (piece, end) = match self.record(start) {
            Some((record, end)) => match decode(record) {
                Some(event) => (Piece::Event { start, end, event: Box::new(event) }, end),
                None => (Piece::Unreadable { start, end }, end),
            },
            None => {
                let next = (start + 1..self.bytes.len()).find(|at| self.record(*at).is_some());
                let end = next.unwrap_or(self.bytes.len());
                (Piece::Unreadable { start, end }, end)
            }
        };
        self.at = end;
        Some(piece)
    }
}

fn decode(record: &[u8]) -> Option<Event> {
    let (body, mut rest) = split_part(record)?;
    let mut headers = Vec::with_capacity(16);
    while !rest.is_empty() {
        let (name, after) = split_part(rest)?;
        let (value, after) = split_part(after)?;
        headers.push((std::str::from_utf8(name).ok()?, value));
        rest = after;
    }
    RawRecord::copy(None, body, headers.into_iter()).decode().ok().map(|(event, _)| event)
}

fn split_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
