//! What the spool holds: its segments from the oldest to the one that is written, and how far each
//! is drained.
//!
//! Only what is on the disk for good is in here. The last segment may be written to by one writer,
//! and leaves only while nothing is being written.

use std::collections::VecDeque;

use hookwell_common::time::Timestamp;

use super::frame::{HEAD_BYTES, Key};

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its place in the order.
    pub(super) sequence: u64,
    /// Its key.
    pub(super) key: Key,
    /// Up to where it is on the disk for good.
    pub(super) length: u64,
    /// Up to where Kafka has it.
    pub(super) drained: u64,
    /// The events in between.
    pub(super) events: u64,
    /// When the first of them was received.
    pub(super) oldest: Timestamp,
    /// Whether something in it cannot be read.
    pub(super) is_damaged: bool,
    /// Whether it cannot be read at all at the moment, and stays where it is for the next start.
    pub(super) is_left: bool,
    /// Whether nothing may be written to it any more.
    pub(super) is_sealed: bool,
}

/// Where the next events are to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// At the end of the last segment.
    Last(Segment),
    /// To a segment that is not there yet, with this sequence.
    New(u64),
}

/// All segments, in order.
#[derive(Debug)]
pub(super) struct Ledger {
    segments: VecDeque<Segment>,
    next_sequence: u64,
    max_bytes: u64,
    segment_bytes: u64,
    is_writing: bool,
}

impl Ledger {
    /// A ledger of what was found, in order, where `next_sequence` was never used. It holds
    /// `max_bytes`, in segments of about `segment_bytes`.
    pub(super) fn new(found: Vec<Segment>, next_sequence: u64, max_bytes: u64, segment_bytes: u64) -> Self {
        Self { segments: found.into(), next_sequence, max_bytes, segment_bytes, is_writing: false }
    }

    /// The bytes that all segments take.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// The events that wait.
    pub(super) fn events(&self) -> u64 {
        self.segments.iter().map(|segment| segment.events).sum()
    }

    /// When the oldest event that waits was received.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.segments.iter().find(|segment| 0 < segment.events).map(|segment| segment.oldest)
    }

    /// How many bytes more may be written.
    pub(super) fn room(&self) -> u64 {
        self.max_bytes.saturating_sub(self.bytes())
    }

    /// Whether there is room for a whole segment.
    pub(super) fn has_plenty(&self) -> bool {
        self.segment_bytes <= self.room()
    }

    /// Begins a write: until [`Ledger::end_write`] or [`Ledger::fail_write`] the last segment stays.
    pub(super) fn begin_write(&mut self) -> Target {
        self.is_writing = true;
        let open = self.segments.back_mut().filter(|last| !last.is_sealed);
        if let Some(last) = open {
            if last.length < self.segment_bytes {
                return Target::Last(*last);
            }
            last.is_sealed = true;
        }
        Target::New(self.claim())
    }

    /// `events` more, the first of them received at `oldest`, are on the disk for good: the segment
    /// `sequence` is now `length` long.
    pub(super) fn end_write(&mut self, sequence: u64, key: Key, length: u64, events: u64, oldest: Timestamp) {
        self.is_writing = false;
        match self.segments.back_mut().filter(|last| last.sequence == sequence) {
            Some(last) => {
                if last.events == 0 {
                    last.oldest = oldest;
                }
                last.length = length;
                last.events += events;
            }
            None => self.segments.push_back(Segment {
                sequence,
                key,
                length,
                drained: HEAD_BYTES as u64,
                events,
                oldest,
                is_damaged: false,
                is_left: false,
                is_sealed: false,
            }),
        }
    }

    /// Nothing was written, and nothing was tried.
    pub(super) fn abandon_write(&mut self) {
        self.is_writing = false;
    }

    /// A write failed: nobody knows what lies behind the end of the last segment, so nothing may be
    /// added there.
    pub(super) fn fail_write(&mut self) {
        self.is_writing = false;
        if let Some(last) = self.segments.back_mut() {
            last.is_sealed = true;
        }
    }

    /// The oldest segment.
    pub(super) fn first(&self) -> Option<Segment> {
        self.segments.front().copied()
    }

    /// Kafka has the oldest segment up to `place`, `events` more than before; the next was received
    /// at `oldest`, where that is known.
    pub(super) fn drain(&mut self, place: u64, events: u64, oldest: Option<Timestamp>) {
        if let Some(first) = self.segments.front_mut() {
            first.drained = place.min(first.length);
            first.events = first.events.saturating_sub(events);
            first.oldest = oldest.unwrap_or(first.oldest);
        }
    }

    /// Something in the oldest segment cannot be read. Whether that is news.
    pub(super) fn damage(&mut self) -> bool {
        self.segments.front_mut().is_some_and(|first| !std::mem::replace(&mut first.is_damaged, true))
    }

    /// The oldest segment cannot be read at all: nothing more is expected of it before the next start.
    pub(super) fn leave_first(&mut self) {
        if let Some(first) = self.segments.front_mut() {
            (first.drained, first.events) = (first.length, 0);
            (first.is_left, first.is_sealed) = (true, true);
        }
    }

    /// The oldest segment ends at `length`: what was behind that is gone.
    pub(super) fn shorten_first(&mut self, length: u64) {
        if let Some(first) = self.segments.front_mut() {
            first.length = length.min(first.length);
            (first.is_damaged, first.is_sealed) = (true, true);
        }
    }

    /// A sequence that no file has, nor will have.
    pub(super) fn claim(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    /// Takes the oldest segment out where Kafka has all of it and nothing is being written to it.
    pub(super) fn take_drained(&mut self) -> Option<Segment> {
        let first = self.segments.front()?;
        let is_written_to = self.is_writing && self.segments.len() == 1;
        if first.drained < first.length || is_written_to {
            return None;
        }
        self.segments.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: fn() -> Key = || Key::new([1; 32]);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn ledger() -> Ledger {
        Ledger::new(Vec::new(), 1, 1_000, 200)
    }

    fn write(ledger: &mut Ledger, bytes: u64, events: u64, oldest: u64) -> u64 {
        let (sequence, length) = match ledger.begin_write() {
            Target::Last(last) => (last.sequence, last.length),
            Target::New(sequence) => (sequence, HEAD_BYTES as u64),
        };
        ledger.end_write(sequence, KEY(), length + bytes, events, at(oldest));
        sequence
    }

    #[test]
    fn events_are_counted_from_the_disk_to_kafka() {
        let mut ledger = ledger();
        assert_eq!((ledger.bytes(), ledger.events(), ledger.oldest()), (0, 0, None));
        write(&mut ledger, 100, 2, 10);
        write(&mut ledger, 40, 1, 30);
        assert_eq!((ledger.bytes(), ledger.events(), ledger.oldest()), (196, 3, Some(at(10))));
        ledger.drain(106, 1, Some(at(20)));
        assert_eq!((ledger.events(), ledger.oldest(), ledger.room()), (2, Some(at(20)), 804));
        assert_eq!(ledger.take_drained(), None);
        ledger.drain(196, 2, None);
        assert_eq!(ledger.take_drained().map(|segment| segment.sequence), Some(1));
        assert_eq!((ledger.bytes(), ledger.events(), ledger.oldest()), (0, 0, None));
    }

    #[test]
    fn a_segment_that_is_long_enough_is_followed_by_another() {
        let mut ledger = ledger();
        assert_eq!(write(&mut ledger, 150, 1, 1), 1);
        assert_eq!(write(&mut ledger, 10, 1, 2), 2);
        assert_eq!(write(&mut ledger, 10, 1, 3), 2);
    }

    #[test]
    fn a_segment_does_not_leave_while_it_is_written_to() {
        let mut ledger = ledger();
        write(&mut ledger, 10, 1, 1);
        ledger.drain(u64::MAX, 1, None);
        let Target::Last(last) = ledger.begin_write() else { unreachable!("there is room in it") };
        assert_eq!(ledger.take_drained(), None);
        ledger.end_write(last.sequence, KEY(), last.length + 10, 1, at(2));
        assert_eq!(ledger.take_drained(), None);
        assert_eq!((ledger.events(), ledger.oldest()), (1, Some(at(2))));
        ledger.drain(u64::MAX, 1, None);
        assert!(ledger.take_drained().is_some());
        assert_eq!(ledger.begin_write(), Target::New(2));
    }

    #[test]
    fn nothing_is_added_behind_a_write_that_failed() {
        let mut ledger = ledger();
        write(&mut ledger, 10, 1, 1);
        ledger.begin_write();
        ledger.fail_write();
        assert_eq!(ledger.first().map(|segment| (segment.length, segment.events)), Some((66, 1)));
        assert_eq!(ledger.begin_write(), Target::New(2));
        ledger.fail_write();
        assert_eq!(ledger.begin_write(), Target::New(3));
    }

    #[test]
    fn what_cannot_be_read_is_news_once() {
        let mut ledger = ledger();
        write(&mut ledger, 10, 1, 1);
        assert!(ledger.damage());
        assert!(!ledger.damage());
        assert!(ledger.first().is_some_and(|first| first.is_damaged));
    }
}
