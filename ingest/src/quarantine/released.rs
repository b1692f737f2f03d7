//! What was released before, as the quarantine topic itself tells.

use std::collections::HashSet;

use super::record::Release;

/// Where a record lies on the quarantine topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// What was released before.
#[derive(Clone, Debug, Default)]
pub struct Released {
    places: HashSet<Place>,
    events: HashSet<[u8; 16]>,
}

impl Released {
    /// Notes what a record on `partition` tells.
    pub fn add(&mut self, partition: i32, release: Release) {
        self.places.insert(Place { partition, offset: release.offset });
        self.events.insert(release.event);
    }

    /// Whether the request at `place` was released.
    pub fn has(&self, place: Place) -> bool {
        self.places.contains(&place)
    }

    /// Whether a request that was the same event was released: a sender that was refused sends again.
    pub fn has_event(&self, event: [u8; 16]) -> bool {
        self.events.contains(&event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_of_one_place_and_of_one_event() {
        let mut released = Released::default();
        released.add(3, Release { offset: 17, event: [1; 16] });
        assert!(released.has(Place { partition: 3, offset: 17 }) && released.has_event([1; 16]));
        assert!(!released.has(Place { partition: 2, offset: 17 }) && !released.has_event([2; 16]));
    }
}
