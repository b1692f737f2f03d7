//! The topics: their names and how each must be configured. A published contract
//! (`docs/topics.md`).

use std::time::Duration;

use crate::config::KafkaConfig;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Room that a record's key, headers and batch need beside its body, in bytes.
pub const RECORD_OVERHEAD_BYTES: usize = 128 * 1024;

/// Room that a retry, a dead letter or a replay needs beside the record from which it was made, in
/// bytes: so that whatever ingest took can be passed on.
pub const HOP_OVERHEAD_BYTES: usize = 16 * 1024;

/// For how long deletion passes over records because their segment is open: records are then not
/// kept for much longer than the window in which they are recognised.
const DELETE_SEGMENT: Duration = Duration::from_secs(6 * 3600);

/// Kafka takes no shorter segment, and none longer than its own default makes sense.
const SMALLEST_SEGMENT: u64 = 1024 * 1024;
const LARGEST_SEGMENT: u64 = 1024 * 1024 * 1024;

/// A topic of ours, by what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Accepted events.
    Events,
    /// Deliveries that wait for the delay of this tier, counted from 1.
    Retry(u16),
    /// Dead letters.
    DeadLetters,
    /// One record per source, event id and destination.
    State,
    /// Requests that failed verification.
    Quarantine,
}

impl Topic {
    /// The full name under `prefix`.
    pub fn name(self, prefix: &str) -> String {
        match self {
            Topic::Events => format!("{prefix}.events"),
            Topic::Retry(tier) => format!("{prefix}.retry.{tier}"),
            Topic::DeadLetters => format!("{prefix}.dlq"),
            Topic::State => format!("{prefix}.state"),
            Topic::Quarantine => format!("{prefix}.quarantine"),
        }
    }

    /// Whether `name` is that of one of the topics under `prefix`.
    pub fn is_ours(name: &str, prefix: &str) -> bool {
        let single = [Topic::Events, Topic::DeadLetters, Topic::State, Topic::Quarantine];
        single.iter().any(|topic| topic.name(prefix) == name) || Self::retry_tier_of(name, prefix).is_some()
    }

    /// The tier whose retry topic `name` is.
    pub fn retry_tier_of(name: &str, prefix: &str) -> Option<u16> {
        let tier = name.strip_prefix(prefix)?.strip_prefix(".retry.")?;
        tier.parse().ok().filter(|number: &u16| *number > 0 && number.to_string() == tier)
    }
}

/// How old records of a topic go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// By age.
    Delete,
    /// All but the newest of each key, and those by age.
    CompactDelete,
}

impl Cleanup {
    /// The value of `cleanup.policy`.
    pub fn policy(self) -> &'static str {
        match self {
            Cleanup::Delete => "delete",
            Cleanup::CompactDelete => "compact,delete",
        }
    }
}

/// How a topic must be configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Which topic.
    pub topic: Topic,
    /// Its full name.
    pub name: String,
    /// The same for all topics, for an event's records share one partition number.
    pub partitions: i32,
    /// Copies of each partition.
    pub replication_factor: i32,
    /// How old records go.
    pub cleanup: Cleanup,
    /// How long records stay.
    pub retention: Duration,
    /// After what time a segment is closed, where that matters: compaction and deletion pass over
    /// the open one.
    pub segment: Option<Duration>,
    /// The largest batch that is taken, in bytes.
    pub max_message_bytes: usize,
    /// The length of a segment, and of what stays of a partition beside the segment that is written,
    /// for topics that are bounded in bytes.
    pub segment_bytes: Option<u64>,
}

impl TopicSpec {
    /// The settings with which the topic is created, by Kafka's names.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("cleanup.policy", self.cleanup.policy().to_owned()),
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("max.message.bytes", self.max_message_bytes.to_string()),
            ("retention.ms", self.retention.as_millis().to_string()),
            ("retention.bytes", self.segment_bytes.map_or("-1".to_owned(), |bytes| bytes.to_string())),
        ];
        if let Some(bytes) = self.segment_bytes {
            settings.push(("segment.bytes", bytes.to_string()));
        }
        if let Some(segment) = self.segment {
            settings.push(("segment.ms", segment.as_millis().to_string()));
        }
        if self.cleanup == Cleanup::CompactDelete {
            settings.push(("min.cleanable.dirty.ratio", "0.2".to_owned()));
        }
        settings
    }
}

/// What decides how the topics look.
#[derive(Clone, Debug)]
pub struct TopicPlan<'a> {
    /// Prefix, partitions, replication, retention.
    pub kafka: &'a KafkaConfig,
    /// The number of retry tiers.
    pub tiers: u16,
    /// The longest body that ingest takes, in bytes.
    pub max_body_bytes: usize,
    /// For how long duplicates are recognised.
    pub dedupe_window: Duration,
    /// Whether any source keeps what failed verification.
    pub quarantine: bool,
}

impl TopicPlan<'_> {
    /// Every topic that must exist, in the order in which they are created.
    pub fn specs(&self) -> Vec<TopicSpec> {
        let retention = &self.kafka.retention;
        let segment = Some(DELETE_SEGMENT);
        let mut specs = vec![self.spec(Topic::Events, Cleanup::Delete, retention.events, segment)];
        specs.extend(
            (1..=self.tiers)
                .map(|tier| self.spec(Topic::Retry(tier), Cleanup::Delete, retention.retry, segment)),
        );
        specs.push(self.spec(Topic::DeadLetters, Cleanup::Delete, retention.dead_letters, None));
        let state_retention = self.dedupe_window.saturating_add(DAY);
        specs.push(self.spec(Topic::State, Cleanup::CompactDelete, state_retention, Some(HOUR)));
        if self.quarantine {
            specs.push(self.quarantine_spec());
        }
        specs
    }

    /// How the topic of what failed verification must look. Strangers fill it, so it is bounded in
    /// bytes as well.
    pub fn quarantine_spec(&self) -> TopicSpec {
        let retention = &self.kafka.retention;
        let partitions = u64::try_from(self.kafka.partitions).unwrap_or(1).max(1);
        let half_a_share = retention.quarantine_bytes / partitions / 2;
        let segment = half_a_share.clamp(self.least_segment_bytes(), LARGEST_SEGMENT);
        let spec = self.spec(Topic::Quarantine, Cleanup::Delete, retention.quarantine, Some(HOUR));
        TopicSpec { segment_bytes: Some(segment), ..spec }
    }

    /// The least that the quarantine topic can be bounded to.
    pub fn least_quarantine_bytes(&self) -> u64 {
        let partitions = u64::try_from(self.kafka.partitions).unwrap_or(1).max(1);
        self.least_segment_bytes().saturating_mul(2 * partitions)
    }

    fn least_segment_bytes(&self) -> u64 {
        let record = u64::try_from(max_record_bytes(self.max_body_bytes)).unwrap_or(u64::MAX);
        record.max(SMALLEST_SEGMENT)
    }

    /// How the one topic must look.
    pub fn spec(
        &self,
        topic: Topic,
        cleanup: Cleanup,
        retention: Duration,
        segment: Option<Duration>,
    ) -> TopicSpec {
        let hop = match topic {
            Topic::Events | Topic::Retry(_) | Topic::DeadLetters => HOP_OVERHEAD_BYTES,
            Topic::State | Topic::Quarantine => 0,
        };
        TopicSpec {
            topic,
            name: topic.name(&self.kafka.topic_prefix),
            partitions: self.kafka.partitions,
            replication_factor: self.kafka.replication_factor,
            cleanup,
            retention,
            segment,
            max_message_bytes: max_record_bytes(self.max_body_bytes) + hop,
            segment_bytes: None,
        }
    }
}

/// The largest record that ingest makes of a body of at most `max_body_bytes`.
pub fn max_record_bytes(max_body_bytes: usize) -> usize {
    max_body_bytes.saturating_add(RECORD_OVERHEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_topic_is_known_by_its_name_alone() {
        assert_eq!(Topic::retry_tier_of("webhooks.retry.12", "webhooks"), Some(12));
        for other in
            ["webhooks.retry.0", "webhooks.retry.01", "webhooks.retry.x", "other.retry.1", "webhooks.dlq"]
        {
            assert_eq!(Topic::retry_tier_of(other, "webhooks"), None, "{other}");
        }
    }

    #[test]
    fn a_topic_of_somebody_elses_may_begin_with_the_same_word() {
        let ours = ["webhooks.events", "webhooks.retry.3", "webhooks.dlq", "webhooks.state"];
        assert!(ours.iter().all(|name| Topic::is_ours(name, "webhooks")));
        assert!(!Topic::is_ours("webhooks.out", "webhooks") && !Topic::is_ours("other.events", "webhooks"));
    }

    #[test]
    fn what_strangers_send_takes_no_more_than_its_bound() {
        let mut kafka = KafkaConfig { partitions: 12, ..KafkaConfig::default() };
        kafka.retention.quarantine_bytes = 240_000_000;
        let plan = TopicPlan {
            kafka: &kafka,
            tiers: 1,
            max_body_bytes: 1000,
            dedupe_window: 7 * DAY,
            quarantine: true,
        };
        // Deletion leaves the open segment alone, and what `retention.bytes` allows beside it.
        let spec = plan.quarantine_spec();
        let setting = |name: &str| {
            let found = spec.settings().into_iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value)
        };
        assert_eq!(setting("retention.bytes"), Some("10000000".to_owned()));
        assert_eq!(setting("segment.bytes"), Some("10000000".to_owned()));
        assert_eq!(plan.least_quarantine_bytes(), 2 * 12 * 1024 * 1024);
    }

    #[test]
    fn state_outlives_the_window_by_a_day() {
        let kafka = KafkaConfig::default();
        let plan = TopicPlan {
            kafka: &kafka,
            tiers: 2,
            max_body_bytes: 1000,
            dedupe_window: 7 * DAY,
            quarantine: true,
        };
        let specs = plan.specs();
        let state = specs.iter().find(|spec| spec.topic == Topic::State).unwrap();
        assert_eq!(state.retention, 8 * DAY);
        assert_eq!(state.cleanup, Cleanup::CompactDelete);
        let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "webhooks.events",
                "webhooks.retry.1",
                "webhooks.retry.2",
                "webhooks.dlq",
                "webhooks.state",
                "webhooks.quarantine"
            ]
        );
    }
}
