//! The configuration of both programs: one TOML file, overridden by `HOOKWELL__TABLE__KEY`.
//!
//! Text is read into types here and the relations between them are checked here; nothing
//! downstream validates again, but for how senders sign, which only ingest knows. Every fault is
//! reported at once.

mod destination;
mod document;
mod fault;
mod ingest;
mod kafka;
mod key_material;
mod log;
mod processor;
mod section;
mod show;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use destination::{CallLimits, DestinationConfig, DestinationKind, RouteConfig};
pub use document::{Environment, VARIABLE_PREFIX};
pub use fault::{ConfigError, Fault, Faults, Place};
pub use ingest::{IngestConfig, SpoolConfig};
pub use kafka::{FIXED_PROPERTIES, KafkaConfig, Property, Retention};
pub use key_material::{KeyMaterial, KeyOrigin};
pub use log::{LogConfig, LogFormat, LogLevel};
pub use processor::{ProcessorConfig, RetryConfig, RetryLimits, Unrouted};
pub use section::Placed;
pub use source::{EnqueueFailure, EventIdMissing, HmacConfig, SourceConfig};

use crate::event::Name;
use crate::topics::{Topic, TopicPlan};
use section::{Reading, Section};

/// The name under which metrics count what belongs to no configured source or destination.
pub const UNKNOWN_NAME: &str = "unknown";

/// Everything the file and the environment say.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[kafka]`.
    pub kafka: KafkaConfig,
    /// `[ingest]`.
    pub ingest: IngestConfig,
    /// `[processor]`.
    pub processor: ProcessorConfig,
    /// `[retry]`.
    pub retry: RetryConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[[sources]]`.
    pub sources: Vec<SourceConfig>,
    /// `[[destinations]]`.
    pub destinations: Vec<DestinationConfig>,
    /// `[[routes]]`.
    pub routes: Vec<RouteConfig>,
}

impl Config {
    /// Reads the file at `path`. What is wrong goes to `faults`, and what could not be read is
    /// replaced by its default, so that the reader of the rest finds its faults as well: nothing
    /// may run on the answer before [`Faults::into_result`].
    pub fn load(path: &Path, environment: &Environment, faults: &mut Faults) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
            let place = Place::File(Arc::new(PathBuf::from(path)));
            faults.add(&place, "", format!("cannot be read: {error}; name the file with --config"));
            String::new()
        });
        Self::parse(path, &text, environment, faults)
    }

    /// Reads `text`, which stands in `path`, as [`Config::load`] does.
    pub fn parse(path: &Path, text: &str, environment: &Environment, faults: &mut Faults) -> Self {
        let reading = Reading::default();
        let config = Self::read(path, text, environment, &reading);
        faults.extend(reading.faults.into_inner());
        config
    }

    /// The files that hold what sources have of key material, each once.
    pub fn files_of_sources(&self) -> BTreeSet<&Path> {
        let materials =
            self.sources.iter().flat_map(|source| source.secrets.iter().chain(&source.handshake_token));
        let files = materials.filter_map(|material| match &material.origin {
            KeyOrigin::File(path) => Some(path.as_path()),
            KeyOrigin::Variable(_) | KeyOrigin::Published => None,
        });
        files.collect()
    }

    /// What decides how the topics must look.
    pub fn topic_plan(&self) -> TopicPlan<'_> {
        TopicPlan {
            kafka: &self.kafka,
            tiers: u16::try_from(self.retry.tiers.len()).unwrap_or(u16::MAX),
            max_body_bytes: self.ingest.max_body_bytes,
            dedupe_window: self.processor.dedupe_window,
            quarantine: self.sources.iter().any(|source| source.quarantine),
        }
    }

    fn read(path: &Path, text: &str, environment: &Environment, reading: &Reading) -> Self {
        let root = document::parse(path, text, environment, &mut reading.faults.borrow_mut());
        let root = Section::root(reading, &root);
        let retry = root.read_with("retry", RetryConfig::read);
        let sources: Vec<_> = root.sections("sources").into_iter().map(SourceConfig::read).collect();
        let destinations: Vec<_> = root
            .sections("destinations")
            .into_iter()
            .map(|section| DestinationConfig::read(section, retry.limits))
            .collect();
        let source_names: Vec<_> = sources.iter().map(|source| source.name.clone()).collect();
        let destination_names: Vec<_> =
            destinations.iter().map(|destination| destination.name.clone()).collect();
        let config = Self {
            kafka: root.read_with("kafka", KafkaConfig::read),
            ingest: root.read_with("ingest", IngestConfig::read),
            processor: root.read_with("processor", ProcessorConfig::read),
            retry,
            log: root.read_with("log", LogConfig::read),
            routes: root
                .sections("routes")
                .into_iter()
                .map(|section| RouteConfig::read(section, &source_names, &destination_names))
                .collect(),
            sources,
            destinations,
        };
        root.finish();
        config.check_relations(reading);
        config
    }

    /// What no table can know by itself.
    fn check_relations(&self, reading: &Reading) {
        let sources = self.sources.iter().map(|source| (&source.name, &source.place));
        refuse_names(sources, "sources", &mut reading.faults.borrow_mut());
        let destinations =
            self.destinations.iter().map(|destination| (&destination.name, &destination.place));
        refuse_names(destinations, "destinations", &mut reading.faults.borrow_mut());

        let refuse = |key: &str, what: String| {
            let place = reading.place_of(key).expect("every key is asked for before relations are checked");
            reading.faults.borrow_mut().add(&place, key, what);
        };
        for destination in &self.destinations {
            if let DestinationKind::Kafka { topic } = &destination.kind
                && Topic::is_ours(topic, &self.kafka.topic_prefix)
            {
                let what = format!("{topic:?} is one of Hookwell's own topics; name one of yours");
                reading.faults.borrow_mut().add(&destination.place, "destinations.topic", what);
            }
        }
        for source in &self.sources {
            if source.on_enqueue_failure == EnqueueFailure::Spool && self.ingest.spool.path.is_none() {
                let what = "is \"spool\", and nothing says where; set path in [ingest.spool] to a directory on a disk that outlives the process, or use \"reject\"";
                refuse(&format!("{}.on_enqueue_failure", source.path), what.to_owned());
            }
        }
        // What lies on disk is a record with its headers, a little longer than its body.
        let largest = u64::try_from(self.ingest.max_body_bytes).unwrap_or(u64::MAX);
        if self.ingest.spool.path.is_some() && self.ingest.spool.max_bytes < largest.saturating_mul(2) {
            let what = "must be at least twice max_body_bytes, or the largest event might never fit";
            refuse("ingest.spool.max_bytes", what.to_owned());
        }
        let plan = self.topic_plan();
        if plan.quarantine && self.kafka.retention.quarantine_bytes < plan.least_quarantine_bytes() {
            let what = format!(
                "must be at least {}, two segments of the largest request for each of kafka.partitions, or hardly anything would stay",
                plan.least_quarantine_bytes()
            );
            refuse("kafka.retention.quarantine_bytes", what);
        }
        let window = self.processor.dedupe_window;
        for (key, retention) in
            [("events", self.kafka.retention.events), ("retry", self.kafka.retention.retry)]
        {
            if window < retention {
                let what = format!(
                    "{} is shorter than kafka.retention.{key} ({}), so a lost offset would repeat work; lengthen it or shorten that",
                    humantime::format_duration(window),
                    humantime::format_duration(retention)
                );
                refuse("processor.dedupe_window", what);
            }
        }
        let longest = self.retry.tiers.last().copied().unwrap_or_default();
        if self.kafka.retention.retry < longest.saturating_mul(2) {
            let longest = humantime::format_duration(longest);
            let what = format!(
                "must be at least twice the longest tier ({longest}), or a waiting retry could be deleted"
            );
            refuse("kafka.retention.retry", what);
        }
    }
}

/// Every key that the reader asks for, as `docs/configuration.md` must list them; lists of tables
/// as `sources[].name`. A table whose keys are not ours to know is there by its own name.
pub fn known_keys() -> Vec<String> {
    let everything = "
        [[sources]]\nname = 'a'\nsecrets = [{ env = 'A' }]\nhandshake_token = { env = 'A' }\n[sources.hmac]\n
        [[destinations]]\nname = 'a'\nkind = 'log'\nsigning_secret = { env = 'A' }\n
        [[routes]]\nsource = '*'\nto = ['a']\n";
    let reading = Reading::default();
    let _ = Config::read(Path::new(""), everything, &Environment::default(), &reading);
    let asked = reading.asked.into_inner();
    let is_leaf = |key: &String| {
        let inside = [format!("{key}."), format!("{key}[].")];
        key == "kafka.properties"
            || !asked.iter().any(|other| inside.iter().any(|start| other.starts_with(start)))
    };
    asked.iter().filter(|key| is_leaf(key)).cloned().collect()
}

fn refuse_names<'a>(names: impl Iterator<Item = (&'a Name, &'a Place)>, table: &str, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (name, place) in names {
        if name.as_str() == UNKNOWN_NAME {
            faults.add(
                place,
                format!("{table}.name"),
                "\"unknown\" is what metrics call the rest; choose another",
            );
        }
        if !seen.insert(name) && *name != Name::unreadable() {
            faults.add(place, format!("{table}.name"), format!("{:?} is there twice", name.as_str()));
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
