//! `[kafka]`: where the cluster is and how its topics look.

use std::collections::BTreeMap;
use std::time::Duration;

use super::document::Environment;
use super::fault::Faults;
use super::key_material::KeyMaterial;
use super::section::Section;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// As `humantime` reads and writes "10years".
const TEN_YEARS: Duration = Duration::from_secs(315_576_000);

/// Properties that carry the promise; setting them otherwise would break it.
pub const FIXED_PROPERTIES: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "metadata.broker.list",
    "partitioner",
    "request.required.acks",
    "statistics.interval.ms",
    "transactional.id",
];

/// `[kafka]`.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaConfig {
    /// Brokers to begin with, `host:port` with commas between them.
    pub bootstrap_servers: String,
    /// What all topics' names begin with.
    pub topic_prefix: String,
    /// Partitions of each topic; frozen once the topics exist.
    pub partitions: i32,
    /// Copies of each partition.
    pub replication_factor: i32,
    /// How long records stay.
    pub retention: Retention,
    /// Properties of librdkafka that go to every client.
    pub properties: BTreeMap<String, Property>,
}

/// `[kafka.retention]`: how long records stay on the topics that `--create-topics` creates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Of accepted events; an outage of the processors may last as long.
    pub events: Duration,
    /// Of waiting retries.
    pub retry: Duration,
    /// Of dead letters.
    pub dead_letters: Duration,
    /// Of what failed verification.
    pub quarantine: Duration,
    /// The most that what failed verification may take, each copy: strangers fill it.
    pub quarantine_bytes: u64,
}

/// The value of a librdkafka property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// As it stands in the file or the environment.
    Plain(String),
    /// Held elsewhere, as a password should be.
    Secret(KeyMaterial),
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            events: 7 * DAY,
            retry: 7 * DAY,
            dead_letters: 30 * DAY,
            quarantine: 3 * DAY,
            quarantine_bytes: 1024 * 1024 * 1024,
        }
    }
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: "localhost:9092".to_owned(),
            topic_prefix: "webhooks".to_owned(),
            partitions: 12,
            replication_factor: 1,
            retention: Retention::default(),
            properties: BTreeMap::new(),
        }
    }
}

impl KafkaConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        Self {
            bootstrap_servers: section.text("bootstrap_servers").unwrap_or(default.bootstrap_servers),
            topic_prefix: read_prefix(section, default.topic_prefix),
            partitions: section.integer("partitions", 1..=10_000, default.partitions),
            replication_factor: section.integer("replication_factor", 1..=9, default.replication_factor),
            retention: Retention::read(section.section("retention")),
            properties: read_properties(section.section("properties")),
        }
    }

    /// The properties with their secrets fetched.
    pub fn resolved_properties(
        &self,
        environment: &Environment,
        faults: &mut Faults,
    ) -> Vec<(String, String)> {
        let mut resolved = Vec::with_capacity(self.properties.len());
        for (name, property) in &self.properties {
            let value = match property {
                Property::Plain(value) => Some(value.clone()),
                Property::Secret(material) => material
                    .resolve(environment, faults)
                    .map(|secret| String::from_utf8_lossy(secret.reveal()).into_owned()),
            };
            resolved.extend(value.map(|value| (name.clone(), value)));
        }
        resolved
    }
}

impl Retention {
    fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        let range = || Duration::from_secs(60)..=TEN_YEARS;
        let retention = Self {
            events: section.duration("events", range()).unwrap_or(default.events),
            retry: section.duration("retry", range()).unwrap_or(default.retry),
            dead_letters: section.duration("dlq", range()).unwrap_or(default.dead_letters),
            quarantine: section.duration("quarantine", range()).unwrap_or(default.quarantine),
            quarantine_bytes: section.integer(
                "quarantine_bytes",
                1..=u64::MAX >> 1,
                default.quarantine_bytes,
            ),
        };
        section.finish();
        retention
    }
}

fn read_prefix(section: &Section<'_>, default: String) -> String {
    let Some(prefix) = section.text("topic_prefix") else {
        return default;
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if prefix.is_empty() || prefix.len() > 200 || !prefix.chars().all(allowed) {
        section.fault(
            "topic_prefix",
            "must be 1 to 200 letters, digits, '.', '_' or '-', as Kafka wants topic names",
        );
    }
    prefix
}

fn read_properties(section: Section<'_>) -> BTreeMap<String, Property> {
    let mut properties = BTreeMap::new();
    for name in section.keys() {
        if FIXED_PROPERTIES.contains(&name) {
            section.fault(name, "is fixed by Hookwell, whose promises depend on it; remove it");
        }
        let property = if section.is_table(name) {
            section.key_material(name).map(Property::Secret)
        } else {
            section.anything(name).map(Property::Plain)
        };
        properties.extend(property.map(|property| (name.to_owned(), property)));
    }
    properties
}
