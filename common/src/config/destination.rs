//! `[[destinations]]` and `[[routes]]`: where events go.

use std::time::Duration;

use url::Url;

use super::fault::Place;
use super::key_material::KeyMaterial;
use super::processor::RetryLimits;
use super::section::{Placed, Section};
use crate::event::Name;

const MILLISECOND: Duration = Duration::from_millis(1);

/// `[[destinations]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationConfig {
    /// Where the table stands.
    pub place: Place,
    /// What routes call it.
    pub name: Name,
    /// What delivering means here.
    pub kind: DestinationKind,
    /// How often a delivery is tried.
    pub limits: RetryLimits,
    /// The bounds on handler calls.
    pub calls: CallLimits,
}

/// What delivering means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationKind {
    /// `POST` to a URL.
    Http {
        /// The URL.
        url: Url,
        /// Signs each call as Standard Webhooks does.
        signing_secret: Option<KeyMaterial>,
    },
    /// Onto another topic, inside the transaction.
    Kafka {
        /// The topic's full name.
        topic: String,
    },
    /// A log line, and nothing else.
    Log,
    /// A handler that the program brings along (`processor` as a library).
    Custom,
}

impl DestinationKind {
    /// Whether a handler is called, which takes time and may fail.
    pub fn is_called(&self) -> bool {
        match self {
            DestinationKind::Http { .. } | DestinationKind::Custom => true,
            DestinationKind::Kafka { .. } | DestinationKind::Log => false,
        }
    }
}

/// The bounds on calls of one destination's handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// How long one call may take.
    pub timeout: Duration,
    /// Calls at once, over all partitions of one process.
    pub concurrency: usize,
}

/// `[[routes]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// The source; `None` for all.
    pub source: Option<Name>,
    /// Patterns of event types, of which one must match; `None` for all.
    pub types: Option<Vec<String>>,
    /// The destinations.
    pub to: Vec<Name>,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(15), concurrency: 64 }
    }
}

impl DestinationConfig {
    pub(super) fn read(section: Section<'_>, limits: RetryLimits) -> Self {
        let name = section.name("name");
        let kind = read_kind(&section);
        let calls = CallLimits {
            timeout: section
                .duration("timeout", 10 * MILLISECOND..=Duration::from_secs(3600))
                .unwrap_or(CallLimits::default().timeout),
            concurrency: section.integer("concurrency", 1..=100_000, CallLimits::default().concurrency),
        };
        let retry = section.section("retry");
        let limits = RetryLimits::read(&retry, limits);
        retry.finish();
        let place = section.place().clone();
        section.finish();
        // A kind that could not be read is a fault already, and nothing runs with faults.
        Self { place, name, kind: kind.unwrap_or(DestinationKind::Log), limits, calls }
    }
}

fn read_kind(section: &Section<'_>) -> Option<DestinationKind> {
    #[derive(Clone, Copy)]
    enum Kind {
        Http,
        Kafka,
        Log,
        Custom,
    }
    let kinds = [
        ("http", Some(Kind::Http)),
        ("kafka", Some(Kind::Kafka)),
        ("log", Some(Kind::Log)),
        ("custom", Some(Kind::Custom)),
    ];
    if !section.has("kind") {
        section.missing(
            "kind",
            "set \"http\", \"kafka\", \"log\", or \"custom\" for a handler of your own program",
        );
    }
    let kind = section.choice("kind", &kinds, None);
    let url = section.placed_text("url");
    let signing_secret = section.key_material("signing_secret");
    let topic = section.text("topic");
    let unused: &[&str] = match kind? {
        Kind::Http => &["topic"],
        Kind::Custom => &["url", "topic", "signing_secret"],
        Kind::Kafka => &["url", "signing_secret", "timeout", "concurrency", "retry"],
        Kind::Log => &["url", "topic", "signing_secret", "timeout", "concurrency", "retry"],
    };
    for key in unused.iter().filter(|key| section.has(key)) {
        section.fault(key, "means nothing for a destination of this kind; remove it, or change the kind");
    }
    match kind? {
        Kind::Http => Some(DestinationKind::Http { url: read_url(section, url)?, signing_secret }),
        Kind::Kafka => {
            if topic.as_ref().is_none_or(String::is_empty) {
                section.missing("topic", "a kafka destination needs the topic's name");
            }
            Some(DestinationKind::Kafka { topic: topic? })
        }
        Kind::Log => Some(DestinationKind::Log),
        Kind::Custom => Some(DestinationKind::Custom),
    }
}

fn read_url(section: &Section<'_>, url: Option<Placed<String>>) -> Option<Url> {
    let Some(url) = url else {
        section.missing("url", "an http destination needs one");
        return None;
    };
    match Url::parse(&url.value) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Some(parsed),
        Ok(_) | Err(_) => {
            section.fault("url", "must be an http:// or https:// URL");
            None
        }
    }
}

impl RouteConfig {
    pub(super) fn read(section: Section<'_>, sources: &[Name], destinations: &[Name]) -> Self {
        let any = section.text("source");
        let source = match any.as_deref() {
            Some("*") => None,
            Some(_) => Some(section.name("source")),
            None => {
                section.missing("source", "name one, or \"*\" for all");
                None
            }
        };
        if let Some(unknown) =
            source.as_ref().filter(|name| !sources.contains(name) && **name != Name::unreadable())
        {
            section.fault(
                "source",
                format!("there is no source {:?}; known: {}", unknown.as_str(), listed(sources)),
            );
        }
        let types = section.texts("types");
        let to = section.parsed("to", "names of destinations", Name::new);
        if to.is_empty() {
            section.fault("to", "must name at least one destination");
        }
        for unknown in to.iter().filter(|name| !destinations.contains(name)) {
            let what =
                format!("there is no destination {:?}; known: {}", unknown.as_str(), listed(destinations));
            section.fault("to", what);
        }
        section.finish();
        Self { source, types, to }
    }
}

fn listed(names: &[Name]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
    }
}
