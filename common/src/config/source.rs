//! `[[sources]]`: the configured senders.
//!
//! How a sender signs is judged by ingest, which alone knows the schemes; here the words are
//! only kept with their places.

use ipnet::IpNet;

use super::fault::Place;
use super::ingest::parse_network;
use super::key_material::KeyMaterial;
use super::section::{Placed, Section};
use crate::event::Name;

/// `[[sources]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceConfig {
    /// Where the table stands.
    pub place: Place,
    /// The table as a path: `sources[0]`.
    pub path: String,
    /// What stands in the URL, the records and the metrics.
    pub name: Name,
    /// A sender that ingest knows.
    pub preset: Option<Placed<String>>,
    /// A sender of one's own.
    pub hmac: Option<HmacConfig>,
    /// Where a sender that signs nothing shows a token.
    pub token: Option<Placed<String>>,
    /// A sender that proves nothing.
    pub unsigned: Option<Placed<bool>>,
    /// The header, in lower case, in which a trusted proxy names the sender's certificate.
    pub client_certificate: Option<Placed<String>>,
    /// Key material, several while one is rotated.
    pub secrets: Vec<KeyMaterial>,
    /// Who is asked for keys that are fetched, where it is not the sender itself.
    pub keys_url: Option<Placed<String>>,
    /// Who may send; empty: anybody.
    pub allow_from: Vec<IpNet>,
    /// The word that the sender was told, for senders that ask whether the address is ours.
    pub handshake_token: Option<KeyMaterial>,
    /// The URL that the sender was given, for schemes that sign it.
    pub public_url: Option<Placed<String>>,
    /// Where the event id lies.
    pub event_id: Option<Placed<String>>,
    /// What to do with an event that has none.
    pub event_id_missing: EventIdMissing,
    /// Where the event type lies.
    pub event_type: Option<Placed<String>>,
    /// The sender's headers that are kept, in lower case; `None`: those that the preset names.
    pub keep_headers: Option<Vec<String>>,
    /// The most verified events a second; more are answered with 429. `None`: no bound.
    pub rate_limit: Option<u32>,
    /// What to do with an event that Kafka cannot take.
    pub on_enqueue_failure: EnqueueFailure,
    /// Whether what fails verification is kept.
    pub quarantine: bool,
    /// The most that is kept of it in a second.
    pub quarantine_rate_limit: u32,
}

/// What is kept in a second of what fails verification, where nothing else is said.
const QUARANTINE_RATE_LIMIT: u32 = 10;

/// What to do with an event that Kafka cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnqueueFailure {
    /// 503: the sender keeps it and sends it again.
    Reject,
    /// It is kept on the local disk until Kafka can.
    Spool,
}

/// What to do with an event whose sender gives it no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventIdMissing {
    /// The hash of the body is the id.
    Hash,
    /// Each is an event of its own, duplicates included.
    Accept,
    /// 400.
    Reject,
}

/// `[sources.hmac]`: words that ingest turns into a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HmacConfig {
    /// Where the table stands.
    pub place: Place,
    /// The table as a path: `sources[0].hmac`.
    pub path: String,
    /// `sha1`, `sha256`, `sha384` or `sha512`.
    pub algorithm: Option<Placed<String>>,
    /// The header that holds the signature.
    pub header: Option<Placed<String>>,
    /// How signatures are taken out of the header.
    pub parse: Option<Placed<String>>,
    /// How a signature is written.
    pub encoding: Option<Placed<String>>,
    /// How the secret becomes the key.
    pub key: Option<Placed<String>>,
    /// What is signed.
    pub content: Option<Placed<String>>,
    /// Where the time of signing lies.
    pub timestamp: Option<Placed<String>>,
    /// How the time is written.
    pub timestamp_unit: Option<Placed<String>>,
    /// How far the time may lie from ours.
    pub tolerance: Option<Placed<std::time::Duration>>,
}

impl SourceConfig {
    pub(super) fn read(section: Section<'_>) -> Self {
        let missing = [
            ("hash", EventIdMissing::Hash),
            ("accept", EventIdMissing::Accept),
            ("reject", EventIdMissing::Reject),
        ];
        let failures = [("reject", EnqueueFailure::Reject), ("spool", EnqueueFailure::Spool)];
        let source = Self {
            place: section.place().clone(),
            path: section.path().to_owned(),
            name: section.name("name"),
            preset: section.placed_text("preset"),
            hmac: section.has("hmac").then(|| HmacConfig::read(section.section("hmac"))),
            token: section.placed_text("token"),
            unsigned: Some(section.boolean("unsigned", false))
                .filter(|unsigned| *unsigned)
                .map(|value| Placed { place: section.place_of("unsigned"), value }),
            client_certificate: section.placed_text("client_certificate"),
            secrets: section.key_materials("secrets"),
            keys_url: section.placed_text("keys_url"),
            allow_from: section.parsed("allow_from", "networks such as \"10.0.0.0/8\"", parse_network),
            handshake_token: section.key_material("handshake_token"),
            public_url: section.placed_text("public_url"),
            event_id: section.placed_text("event_id"),
            event_id_missing: section.choice("event_id_missing", &missing, EventIdMissing::Hash),
            event_type: section.placed_text("event_type"),
            keep_headers: section.texts("keep_headers").map(lower_case),
            rate_limit: read_rate_limit(&section),
            on_enqueue_failure: section.choice("on_enqueue_failure", &failures, EnqueueFailure::Reject),
            quarantine: section.boolean("quarantine", false),
            quarantine_rate_limit: section.integer(
                "quarantine_rate_limit",
                1..=u32::MAX,
                QUARANTINE_RATE_LIMIT,
            ),
        };
        source.refuse_idle_quarantine(&section);
        section.finish();
        source
    }

    /// What is kept is verified again later, from what was sent: where nothing of that proves
    /// anything, nothing could ever be released.
    fn refuse_idle_quarantine(&self, section: &Section<'_>) {
        if !self.quarantine {
            return;
        }
        if self.unsigned.is_some() {
            section.fault(
                "quarantine",
                "is of no use to a source that is unsigned: nothing is verified; use false",
            );
        }
        if self.client_certificate.is_some() {
            let what = "is of no use beside client_certificate: a proxy's word cannot be verified again later; use false";
            section.fault("quarantine", what);
        }
    }
}

impl HmacConfig {
    fn read(section: Section<'_>) -> Self {
        let tolerance = section
            .duration(
                "tolerance",
                std::time::Duration::from_secs(1)..=std::time::Duration::from_secs(30 * 86_400),
            )
            .map(|value| Placed { place: section.place_of("tolerance"), value });
        let hmac = Self {
            place: section.place().clone(),
            path: section.path().to_owned(),
            algorithm: section.placed_text("algorithm"),
            header: section.placed_text("header"),
            parse: section.placed_text("parse"),
            encoding: section.placed_text("encoding"),
            key: section.placed_text("key"),
            content: section.placed_text("content"),
            timestamp: section.placed_text("timestamp"),
            timestamp_unit: section.placed_text("timestamp_unit"),
            tolerance,
        };
        section.finish();
        hmac
    }
}

/// Asked for also where it is absent, for a key that is never asked for is not a known one.
fn read_rate_limit(section: &Section<'_>) -> Option<u32> {
    let rate = section.integer("rate_limit", 1..=u32::MAX, u32::MAX);
    section.has("rate_limit").then_some(rate)
}

fn lower_case(names: Vec<String>) -> Vec<String> {
    names.into_iter().map(|name| name.to_ascii_lowercase()).collect()
}
