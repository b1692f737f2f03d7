//! What all threads of a processor use.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use hookwell_common::kafka::{ClientSettings, LoggingContext};
use hookwell_common::lifecycle::{Clock, Failure};
use rdkafka::consumer::BaseConsumer;

use crate::board::Board;
use crate::lane::mail::{FollowOrder, Report, Session};
use crate::lane::recall::Recollection;
use crate::metrics::Metrics;
use crate::poll::MemberContext;
use crate::setup::Setup;
use crate::state::{Expiry, StateTable};

/// What all threads of a processor use.
pub(crate) struct Shared {
    /// What all Kafka clients have in common.
    pub(crate) clients: ClientSettings,
    /// What does not change while the process lives.
    pub(crate) settings: Settings,
    /// What a reload changes, together.
    pub(crate) setup: ArcSwap<Setup>,
    /// The group member, for its metadata and for committed offsets.
    pub(crate) member: Arc<BaseConsumer<MemberContext>>,
    /// A client that sees the true end of a partition.
    pub(crate) watermarks: BaseConsumer<LoggingContext>,
    /// A client that sees up to where a partition is decided.
    pub(crate) stable_watermarks: BaseConsumer<LoggingContext>,
    /// The way to the member.
    pub(crate) to_member: Sender<Report>,
    /// The way to the follower.
    pub(crate) to_follower: Sender<FollowOrder>,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// What lanes show of themselves.
    pub(crate) board: Board,
    /// The clocks.
    pub(crate) clock: Clock,
    /// Lanes that have something to commit.
    pub(crate) busy_lanes: Arc<AtomicUsize>,
    /// States of partitions that were handed back, for when they return.
    pub(crate) remembered: Mutex<HashMap<i32, Remembered>>,
    /// What calls came to whose partitions were lost before it could be committed, as in an outage of
    /// Kafka that was longer than the member's session.
    pub(crate) recollections: Mutex<HashMap<i32, Recollection>>,
    /// Why the process must end, once it must.
    pub(crate) downfall: Downfall,
    sessions: AtomicU64,
}

/// What does not change while the process lives.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The consumer group.
    pub(crate) group_id: String,
    /// What all topics' names begin with.
    pub(crate) topic_prefix: String,
    /// The delays of the retry tiers, each with its topic.
    pub(crate) tiers: Vec<Duration>,
    /// For how long states are kept.
    pub(crate) expiry: Expiry,
    /// The least time between two commits of a busy lane.
    pub(crate) commit_interval: Duration,
    /// How long open deliveries may take before a partition is handed back.
    pub(crate) drain_timeout: Duration,
    /// Dead letters that one destination may have in one partition while almost nothing succeeds.
    pub(crate) flood_guard: u32,
    /// Threads for lanes.
    pub(crate) max_lanes: usize,
    /// Cores of this machine.
    pub(crate) cores: usize,
}

/// The states of a partition that was handed back in order.
#[derive(Debug)]
pub(crate) struct Remembered {
    /// The states.
    pub(crate) table: StateTable,
    /// The state topic's offset up to which they are complete.
    pub(crate) next_offset: i64,
    /// When the partition was handed back, on the monotonic clock.
    pub(crate) since: Duration,
}

/// Why the process must end.
#[derive(Debug, Default)]
pub(crate) struct Downfall {
    cause: Mutex<Option<Failure>>,
}

impl Downfall {
    /// Has the process end because of `failure`; the first cause counts.
    pub(crate) fn cause(&self, failure: Failure) {
        tracing::error!("{failure}");
        lock(&self.cause).get_or_insert(failure);
    }

    /// The cause, if there is one.
    pub(crate) fn take(&self) -> Option<Failure> {
        lock(&self.cause).take()
    }

    /// Whether there is one.
    pub(crate) fn has_come(&self) -> bool {
        lock(&self.cause).is_some()
    }
}

/// The parts of [`Shared`] that are given to it.
pub(crate) struct Parts {
    /// See [`Shared::clients`].
    pub(crate) clients: ClientSettings,
    /// See [`Shared::settings`].
    pub(crate) settings: Settings,
    /// See [`Shared::setup`].
    pub(crate) setup: Setup,
    /// See [`Shared::member`].
    pub(crate) member: Arc<BaseConsumer<MemberContext>>,
    /// See [`Shared::watermarks`].
    pub(crate) watermarks: BaseConsumer<LoggingContext>,
    /// See [`Shared::stable_watermarks`].
    pub(crate) stable_watermarks: BaseConsumer<LoggingContext>,
    /// See [`Shared::to_member`].
    pub(crate) to_member: Sender<Report>,
    /// See [`Shared::to_follower`].
    pub(crate) to_follower: Sender<FollowOrder>,
    /// See [`Shared::metrics`].
    pub(crate) metrics: Metrics,
    /// See [`Shared::clock`].
    pub(crate) clock: Clock,
}

impl Shared {
    /// Of its parts.
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            clients: parts.clients,
            settings: parts.settings,
            setup: ArcSwap::from_pointee(parts.setup),
            member: parts.member,
            watermarks: parts.watermarks,
            stable_watermarks: parts.stable_watermarks,
            to_member: parts.to_member,
            to_follower: parts.to_follower,
            metrics: parts.metrics,
            board: Board::default(),
            clock: parts.clock,
            busy_lanes: Arc::default(),
            remembered: Mutex::default(),
            recollections: Mutex::default(),
            downfall: Downfall::default(),
            sessions: AtomicU64::new(1),
        }
    }

    /// The number of the host on which the lane of `partition` lives.
    pub(crate) fn host_of(&self, partition: i32) -> usize {
        usize::try_from(partition).unwrap_or_default() % self.settings.max_lanes
    }

    /// A session that no lane has had.
    pub(crate) fn next_session(&self) -> Session {
        Session(self.sessions.fetch_add(1, Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Locks; a thread that panicked while it held the lock leaves data that is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
