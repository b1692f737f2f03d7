//! `[processor]` and `[retry]`: the delivering program.

use std::net::SocketAddr;
use std::time::Duration;

use super::ingest::read_address;
use super::section::Section;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// As `humantime` reads and writes "1year".
const YEAR: Duration = Duration::from_secs(31_557_600);

/// `[processor]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessorConfig {
    /// The consumer group; also what the transactional ids begin with.
    pub group_id: String,
    /// Where metrics and health are shown.
    pub admin_listen: SocketAddr,
    /// For how long duplicates are recognised after an event is done. No shorter than events and
    /// retries stay on Kafka, or a lost offset would repeat work.
    pub dedupe_window: Duration,
    /// What becomes of an event that no route names.
    pub unrouted: Unrouted,
    /// The least time between two commits of one busy partition.
    pub commit_interval: Duration,
    /// How long open deliveries may take to finish before a partition is handed back.
    pub drain_timeout: Duration,
    /// Partitions beyond this number share threads.
    pub max_lanes: usize,
    /// Handler calls at once, over all destinations.
    pub max_concurrency: usize,
    /// How many dead letters one destination may write while almost nothing succeeds there;
    /// beyond, lag grows instead. 0: no bound.
    pub flood_guard: u32,
}

/// What becomes of an event that no route names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrouted {
    /// A dead letter with the reason `unroutable`.
    DeadLetter,
    /// Nothing; its offset is committed.
    Ignore,
}

/// `[retry]`, and `[destinations.retry]` but for the tiers, of which there is one set.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryConfig {
    /// The delays, one topic each, from the shortest to the longest.
    pub tiers: Vec<Duration>,
    /// How often a handler is called, and for how long.
    pub limits: RetryLimits,
}

/// How often a handler is called for one delivery, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryLimits {
    /// Calls, the first included.
    pub max_attempts: u16,
    /// The time from the first failure after which nothing is tried again.
    pub max_age: Duration,
    /// Up to this share of a delay is added to it.
    pub jitter: f64,
}

impl Default for ProcessorConfig {
    fn default() -> Self {
        Self {
            group_id: "hookwell".to_owned(),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9102)),
            dedupe_window: 7 * DAY,
            unrouted: Unrouted::DeadLetter,
            commit_interval: 100 * MILLISECOND,
            drain_timeout: 10 * SECOND,
            max_lanes: 32,
            max_concurrency: 4096,
            flood_guard: 10_000,
        }
    }
}

impl Default for RetryLimits {
    fn default() -> Self {
        Self { max_attempts: 12, max_age: 3 * DAY, jitter: 0.1 }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        let tiers = [5, 30, 120, 600, 3600, 6 * 3600].map(Duration::from_secs);
        Self { tiers: tiers.to_vec(), limits: RetryLimits::default() }
    }
}

impl ProcessorConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let group_id = section.text("group_id").unwrap_or(default.group_id);
        if group_id.is_empty() {
            section.fault("group_id", "must not be empty");
        }
        let choices = [("dead-letter", Unrouted::DeadLetter), ("ignore", Unrouted::Ignore)];
        Self {
            group_id,
            admin_listen: read_address(section, "admin_listen", default.admin_listen),
            dedupe_window: section
                .duration("dedupe_window", 60 * SECOND..=YEAR)
                .unwrap_or(default.dedupe_window),
            unrouted: section.choice("unrouted", &choices, default.unrouted),
            commit_interval: section
                .duration("commit_interval", MILLISECOND..=60 * SECOND)
                .unwrap_or(default.commit_interval),
            drain_timeout: section
                .duration("drain_timeout", SECOND..=240 * SECOND)
                .unwrap_or(default.drain_timeout),
            max_lanes: section.integer("max_lanes", 1..=1024, default.max_lanes),
            max_concurrency: section.integer("max_concurrency", 1..=100_000, default.max_concurrency),
            flood_guard: section.integer("flood_guard", 0..=u32::MAX, default.flood_guard),
        }
    }
}

impl RetryConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let tiers = section.durations("tiers").unwrap_or(default.tiers);
        if tiers.is_empty() || tiers.len() > 100 {
            section.fault("tiers", "must hold 1 to 100 delays, one topic each");
        }
        if tiers.iter().any(|tier| !(100 * MILLISECOND..=30 * DAY).contains(tier)) {
            section.fault("tiers", "must hold delays from 100ms to 30days");
        }
        if !tiers.is_sorted_by(|shorter, longer| shorter < longer) {
            section.fault("tiers", "must grow from one delay to the next; the last is used again and again");
        }
        Self { tiers, limits: RetryLimits::read(section, default.limits) }
    }
}

impl RetryLimits {
    pub(super) fn read(section: &Section<'_>, default: RetryLimits) -> Self {
        Self {
            max_attempts: section.integer("max_attempts", 1..=1000, default.max_attempts),
            max_age: section.duration("max_age", SECOND..=YEAR).unwrap_or(default.max_age),
            jitter: section.share("jitter").unwrap_or(default.jitter),
        }
    }
}
