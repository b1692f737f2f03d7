//! Records from a consumer to lanes, without ever waiting for one of them.
//!
//! A lane that is full has its partition paused, and what was polled for it before is kept aside;
//! a poll thread that waited instead would starve all other lanes (measured,
//! `docs/adr/0003-librdkafka.md`).

use std::collections::VecDeque;

use crossbeam_channel::TrySendError;

use crate::delivery::Arrival;
use crate::lane::mail::Session;

/// Records and bytes that one message to a lane holds at most.
const MAX_BATCH: usize = 512;
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Batches that a lane's ear holds.
pub(crate) const EAR_DEPTH: usize = 16;

/// The way from one partition of one topic to its lane.
#[derive(Debug)]
pub(crate) struct Feed {
    session: Session,
    batch: Vec<Arrival>,
    batch_bytes: usize,
    aside: VecDeque<Vec<Arrival>>,
    paused: bool,
}

/// What is to be done about a partition's consumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Nothing.
    Unchanged,
    /// The lane is full: nothing more should be polled.
    Pause,
    /// The lane has room again.
    Resume,
}

impl Feed {
    /// A feed for one take-over of a lane.
    pub(crate) fn new(session: Session) -> Self {
        Self { session, batch: Vec::new(), batch_bytes: 0, aside: VecDeque::new(), paused: false }
    }

    /// A record was polled.
    pub(crate) fn add(&mut self, arrival: Arrival) {
        self.batch_bytes += arrival.raw.weight();
        self.batch.push(arrival);
        if MAX_BATCH <= self.batch.len() || MAX_BATCH_BYTES <= self.batch_bytes {
            self.close_batch();
        }
    }

    /// Hands on what there is, as far as `send` takes it. `wants` says whether the lane wants more
    /// beside what it has room for.
    pub(crate) fn flush(
        &mut self,
        wants: bool,
        mut send: impl FnMut(Session, Vec<Arrival>) -> Result<(), TrySendError<Vec<Arrival>>>,
    ) -> Flow {
        if !self.batch.is_empty() {
            self.close_batch();
        }
        while let Some(batch) = self.aside.pop_front() {
            match send(self.session, batch) {
                Ok(()) => {}
                Err(TrySendError::Full(batch)) => {
                    self.aside.push_front(batch);
                    break;
                }
                // The lane is gone; whoever owns the partition next reads it again.
                Err(TrySendError::Disconnected(_)) => self.aside.clear(),
            }
        }
        let should_pause = !self.aside.is_empty() || !wants;
        match (self.paused, should_pause) {
            (false, true) => {
                self.paused = true;
                Flow::Pause
            }
            (true, false) => {
                self.paused = false;
                Flow::Resume
            }
            (false, false) | (true, true) => Flow::Unchanged,
        }
    }

    /// Whether nothing is polled for now.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    fn close_batch(&mut self) {
        self.batch_bytes = 0;
        self.aside.push_back(std::mem::take(&mut self.batch));
    }
}

#[cfg(test)]
mod tests {
    use hookwell_common::record::RawRecord;
    use hookwell_common::time::Timestamp;

    use super::*;
    use crate::delivery::{Place, Stream};
    use crate::lane::ledger::Offset;

    fn arrival(offset: i64) -> Arrival {
        Arrival {
            place: Place { stream: Stream::Events, offset: Offset(offset) },
            appended_at: Timestamp::default(),
            raw: RawRecord::default(),
        }
    }

    #[test]
    fn a_full_lane_is_paused_loses_nothing_and_keeps_its_order() {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let mut feed = Feed::new(Session(1));
        let total = 3 * MAX_BATCH as i64;
        for offset in 0..total {
            feed.add(arrival(offset));
        }
        let mut send = |_: Session, batch| sender.try_send(batch);
        assert_eq!(feed.flush(true, &mut send), Flow::Pause);
        let mut got: Vec<_> = receiver.try_iter().flatten().collect();
        assert_eq!(feed.flush(true, &mut send), Flow::Unchanged);
        got.extend(receiver.try_iter().flatten());
        assert_eq!(feed.flush(true, &mut send), Flow::Resume);
        got.extend(receiver.try_iter().flatten());
        let offsets: Vec<_> = got.iter().map(|arrival: &Arrival| arrival.place.offset.0).collect();
        assert_eq!(offsets, (0..total).collect::<Vec<_>>());
    }

    #[test]
    fn a_lane_that_wants_no_more_is_paused_though_it_has_room() {
        let mut feed = Feed::new(Session(1));
        assert_eq!(feed.flush(false, |_, _| Ok(())), Flow::Pause);
        assert_eq!(feed.flush(true, |_, _| Ok(())), Flow::Resume);
    }

    #[test]
    fn what_is_for_a_lane_that_is_gone_is_dropped() {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        drop(receiver);
        let mut feed = Feed::new(Session(1));
        feed.add(arrival(0));
        assert_eq!(feed.flush(true, |_, batch| sender.try_send(batch)), Flow::Unchanged);
    }
}
