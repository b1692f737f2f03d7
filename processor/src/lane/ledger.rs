//! Which offsets of one partition of one topic are settled, in one assignment.
//!
//! Every polled record is delivered into the ledger, also those that nobody handles: an offset
//! that never was is taken for a gap in the log, and the frontier walks over it.

use std::collections::{BTreeSet, VecDeque};

use hookwell_common::time::Timestamp;
use thiserror::Error;

/// The offset of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

/// The next offset to read: everything below it is settled. This, never an [`Offset`], is what is
/// committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontier(pub i64);

/// Offsets of one partition, delivered and not all settled.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
pub struct Ledger {
    open: VecDeque<Slot>,
    /// One past the last offset that was delivered.
    next: i64,
    /// Offsets at which there is no record but the marker of a transaction.
    markers: BTreeSet<i64>,
}

#[derive(Clone, Copy, Debug, Hash)]
struct Slot {
    offset: i64,
    appended_at: Timestamp,
    /// Settlements that the record still owes.
    owes: u32,
}

/// A ledger that was told what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LedgerError {
    /// An offset at or below one that was delivered before.
    #[error("offset {0:?} was delivered after a later one")]
    DeliveredTwice(Offset),
    /// An offset that owes nothing.
    #[error("offset {0:?} was settled once more than it owed")]
    SettledTwice(Offset),
}

impl Ledger {
    /// A ledger that begins at `start`.
    pub fn new(start: Frontier) -> Self {
        Self { open: VecDeque::new(), next: start.0, markers: BTreeSet::new() }
    }

    /// A record was polled that owes `owes` settlements.
    pub fn deliver(&mut self, offset: Offset, appended_at: Timestamp, owes: u32) -> Result<(), LedgerError> {
        if offset.0 < self.next {
            return Err(LedgerError::DeliveredTwice(offset));
        }
        self.next = offset.0 + 1;
        self.open.push_back(Slot { offset: offset.0, appended_at, owes });
        self.drop_settled();
        Ok(())
    }

    /// The record owes `more` settlements than it was delivered with.
    pub fn owe(&mut self, offset: Offset, more: u32) -> Result<(), LedgerError> {
        self.slot(offset).map(|slot| slot.owes += more)
    }

    /// One settlement of the record was decided.
    pub fn settle(&mut self, offset: Offset) -> Result<(), LedgerError> {
        let slot = self.slot(offset)?;
        slot.owes = slot.owes.checked_sub(1).ok_or(LedgerError::SettledTwice(offset))?;
        self.drop_settled();
        Ok(())
    }

    /// At `offset` lies the marker of a transaction, which is never polled.
    pub fn mark(&mut self, offset: i64) {
        if self.frontier().0 <= offset {
            self.markers.insert(offset);
        }
    }

    /// The next offset to read.
    pub fn frontier(&self) -> Frontier {
        if let Some(slot) = self.open.front() {
            return Frontier(slot.offset);
        }
        let mut next = self.next;
        while self.markers.contains(&next) {
            next += 1;
        }
        Frontier(next)
    }

    /// How many offsets lie between the frontier and the last that was delivered.
    pub fn span(&self) -> usize {
        self.open.len()
    }

    /// When the oldest record that is not settled was written.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.open.front().map(|slot| slot.appended_at)
    }

    fn slot(&mut self, offset: Offset) -> Result<&mut Slot, LedgerError> {
        let found = self.open.binary_search_by_key(&offset.0, |slot| slot.offset);
        found.map(|at| &mut self.open[at]).map_err(|_| LedgerError::SettledTwice(offset))
    }

    fn drop_settled(&mut self) {
        while self.open.front().is_some_and(|slot| slot.owes == 0) {
            self.open.pop_front();
        }
        if self.markers.first().is_some_and(|first| *first < self.next) {
            self.markers = self.markers.split_off(&self.next);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THEN: Timestamp = Timestamp::from_seconds(1);

    fn ledger(offsets: &[i64]) -> Ledger {
        let mut ledger = Ledger::new(Frontier(offsets[0]));
        for offset in offsets {
            ledger.deliver(Offset(*offset), THEN, 1).unwrap();
        }
        ledger
    }

    #[test]
    fn the_frontier_never_passes_an_open_offset() {
        let mut ledger = ledger(&[10, 11, 12]);
        ledger.settle(Offset(12)).unwrap();
        assert_eq!(ledger.frontier(), Frontier(10));
        ledger.settle(Offset(10)).unwrap();
        assert_eq!(ledger.frontier(), Frontier(11));
        ledger.settle(Offset(11)).unwrap();
        assert_eq!(ledger.frontier(), Frontier(13));
    }

    #[test]
    fn an_offset_with_several_destinations_owes_each_of_them() {
        let mut ledger = Ledger::new(Frontier(5));
        ledger.deliver(Offset(5), THEN, 2).unwrap();
        ledger.settle(Offset(5)).unwrap();
        assert_eq!(ledger.frontier(), Frontier(5));
        ledger.owe(Offset(5), 1).unwrap();
        ledger.settle(Offset(5)).unwrap();
        ledger.settle(Offset(5)).unwrap();
        assert_eq!(ledger.frontier(), Frontier(6));
    }

    #[test]
    fn gaps_in_the_log_are_walked_over() {
        let mut ledger = ledger(&[3, 7]);
        ledger.settle(Offset(3)).unwrap();
        assert_eq!(ledger.frontier(), Frontier(7));
        ledger.settle(Offset(7)).unwrap();
        assert_eq!(ledger.frontier(), Frontier(8));
    }

    #[test]
    fn known_markers_at_the_end_are_walked_over_and_never_a_record() {
        let mut ledger = ledger(&[3]);
        ledger.mark(4);
        ledger.mark(6);
        assert_eq!(ledger.frontier(), Frontier(3));
        ledger.settle(Offset(3)).unwrap();
        assert_eq!(ledger.frontier(), Frontier(5));
        ledger.deliver(Offset(5), THEN, 1).unwrap();
        assert_eq!(ledger.frontier(), Frontier(5));
        ledger.settle(Offset(5)).unwrap();
        assert_eq!(ledger.frontier(), Frontier(7));
        ledger.mark(2);
        assert_eq!(ledger.frontier(), Frontier(7));
    }

    #[test]
    fn what_cannot_be_is_told() {
        let mut ledger = ledger(&[3, 4]);
        assert_eq!(ledger.deliver(Offset(4), THEN, 1), Err(LedgerError::DeliveredTwice(Offset(4))));
        ledger.settle(Offset(4)).unwrap();
        assert_eq!(ledger.settle(Offset(4)), Err(LedgerError::SettledTwice(Offset(4))));
        assert_eq!(ledger.settle(Offset(9)), Err(LedgerError::SettledTwice(Offset(9))));
    }

    proptest! {
        /// Any schedule of delivering and settling keeps the frontier at the lowest open offset,
        /// and brings it past everything once everything is settled.
        #[test]
        fn the_frontier_is_the_lowest_open_offset(
            steps in proptest::collection::vec((1i64..4, 0u32..3), 1..60),
            order in any::<proptest::sample::Index>(),
        ) {
            let mut ledger = Ledger::new(Frontier(0));
            let mut owed: Vec<(i64, u32)> = Vec::new();
            let mut next = 0;
            for (gap, owes) in steps {
                next += gap;
                ledger.deliver(Offset(next), THEN, owes).unwrap();
                owed.push((next, owes));
            }
            loop {
                owed.retain(|(_, owes)| *owes > 0);
                let lowest = owed.first().map_or(next + 1, |(offset, _)| *offset);
                prop_assert_eq!(ledger.frontier(), Frontier(lowest));
                if owed.is_empty() {
                    break;
                }
                let at = order.index(owed.len());
                ledger.settle(Offset(owed[at].0)).unwrap();
                owed[at].1 -= 1;
            }
            prop_assert_eq!(ledger.span(), 0);
        }
    }
}
