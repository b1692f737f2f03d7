//! What the threads of a processor say to each other.
//!
//! The member owns the assignment, a host owns its lanes, the follower reads for them. Every
//! message names the assignment's epoch or the lane's session, so that what belongs to an old one
//! dies with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::window::Completion;
use crate::delivery::{Arrival, Stream};
use crate::retry::Tier;

/// Counts the assignments of a process. What is stamped with an older one means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(pub u64);

/// Counts the take-overs of a lane within one assignment, and over all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Session(pub u64);

/// The member to a host.
#[derive(Debug)]
pub(crate) enum Order {
    /// The group gave us this partition.
    Own(Ownership),
    /// The group asks for it: finish what is open until `deadline` (monotonic), commit, let go.
    Drain {
        /// Which.
        partition: i32,
        /// Of which assignment.
        epoch: Epoch,
        /// Until when.
        deadline: Duration,
    },
    /// It is gone already: let go at once.
    Abandon {
        /// Which.
        partition: i32,
        /// Of which assignment.
        epoch: Epoch,
    },
}

/// A partition that the group gave us, with the ways to its lane.
#[derive(Debug)]
pub(crate) struct Ownership {
    /// Which.
    pub(crate) partition: i32,
    /// Of which assignment.
    pub(crate) epoch: Epoch,
    /// The ends at which the lane listens.
    pub(crate) ears: Ears,
    /// The end for the follower.
    pub(crate) follow: Sender<Followed>,
    /// The end for handlers.
    pub(crate) completions: Sender<Completion>,
    /// Cleared once the group has asked for the partition, or taken it.
    pub(crate) ours: Arc<AtomicBool>,
}

/// The ends at which a lane listens.
#[derive(Debug)]
pub(crate) struct Ears {
    /// Records of the events topic.
    pub(crate) events: Receiver<(Session, Vec<Arrival>)>,
    /// Records of the state topic while it restores, of retry topics thereafter.
    pub(crate) follow: Receiver<Followed>,
    /// Calls that ended.
    pub(crate) completions: Receiver<Completion>,
}

/// The follower to a lane.
#[derive(Debug)]
pub(crate) struct Followed {
    /// For which take-over.
    pub(crate) session: Session,
    /// What.
    pub(crate) news: News,
}

/// What the follower read.
#[derive(Debug)]
pub(crate) enum News {
    /// State records: offset, key, value.
    States(Vec<(i64, Vec<u8>, Vec<u8>)>),
    /// The state partition is read to its end.
    StatesEnd,
    /// Retries.
    Retries(Vec<Arrival>),
}

/// A host to the member.
#[derive(Debug)]
pub(crate) enum Report {
    /// The lane is restored: records may come, from `start` on.
    Ready {
        /// Which.
        partition: i32,
        /// Of which assignment.
        epoch: Epoch,
        /// Which take-over.
        session: Session,
        /// The first offset that is not settled; `None` for the earliest there is.
        start: Option<i64>,
    },
    /// The lane lost its producer and takes over anew: no records until it is ready.
    Lost {
        /// Which.
        partition: i32,
        /// Of which assignment.
        epoch: Epoch,
    },
    /// The lane has let go.
    Drained {
        /// Which.
        partition: i32,
        /// Of which assignment.
        epoch: Epoch,
    },
    /// The thread of a host waits for a call that will not come back.
    Blocked {
        /// The number of the host.
        host: usize,
    },
}

/// A host to the follower.
#[derive(Debug)]
pub(crate) enum FollowOrder {
    /// Read the state partition, from `from` on or from its beginning, to its end.
    Restore {
        /// Which.
        partition: i32,
        /// For which take-over.
        session: Session,
        /// Where to begin.
        from: Option<i64>,
        /// Whom to tell.
        lane: Sender<Followed>,
    },
    /// Follow the retry partitions, each from where it was read to or from its beginning.
    Follow {
        /// Which.
        partition: i32,
        /// For which take-over.
        session: Session,
        /// Where to begin.
        starts: BTreeMap<Tier, Option<i64>>,
        /// Whom to tell.
        lane: Sender<Followed>,
        /// How much of what was told still waits.
        loads: Arc<Loads>,
    },
    /// Read nothing of this partition any more.
    Leave {
        /// Which.
        partition: i32,
        /// For which take-over; a later one is not left.
        session: Session,
    },
    /// Read on with a consumer that is new: this one stands still somewhere.
    Renew,
}

impl FollowOrder {
    /// The partition and the take-over that it is about, if it is about one.
    pub(crate) fn about(&self) -> Option<(i32, Session)> {
        match self {
            FollowOrder::Restore { partition, session, .. }
            | FollowOrder::Follow { partition, session, .. }
            | FollowOrder::Leave { partition, session } => Some((*partition, *session)),
            FollowOrder::Renew => None,
        }
    }
}

/// What the retries that wait in a lane weigh, by tier, so that the follower knows when to pause.
#[derive(Debug)]
pub(crate) struct Loads(Vec<AtomicUsize>);

/// Tiers beyond this number share their load.
const TIERS: usize = 128;

impl Default for Loads {
    fn default() -> Self {
        Self((0..TIERS).map(|_| AtomicUsize::new(0)).collect())
    }
}

impl Loads {
    /// What waits of `tier`, in bytes.
    pub(crate) fn of(&self, tier: Tier) -> usize {
        self.0[usize::from(tier.0) % TIERS].load(Ordering::Relaxed)
    }

    /// Shows what waits in a lane.
    pub(crate) fn show(&self, loads: impl Iterator<Item = (Stream, usize)>) {
        for (stream, bytes) in loads {
            if let Stream::Retry(tier) = stream {
                self.0[usize::from(tier.0) % TIERS].store(bytes, Ordering::Relaxed);
            }
        }
    }
}
