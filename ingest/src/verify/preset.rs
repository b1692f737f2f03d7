//! The senders that ingest knows, as data: `presets.toml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// The words of one sender; those of the recipe are the words of `[sources.hmac]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// The header that holds the signature.
    pub header: String,
    /// How signatures are taken out of it.
    pub parse: String,
    /// How a signature is written.
    pub encoding: String,
    /// How the secret becomes the key.
    #[serde(default = "text")]
    pub key: String,
    /// The hash.
    #[serde(default = "sha256")]
    pub algorithm: String,
    /// How Ed25519 signatures are taken out of the header, where the sender has those too.
    pub ed25519: Option<String>,
    /// What is signed.
    pub content: String,
    /// Where the time of signing lies.
    pub timestamp: Option<String>,
    /// How it is written.
    pub timestamp_unit: Option<String>,
    /// How far it may lie from ours.
    pub tolerance: Option<String>,
    /// Where the event id lies.
    pub event_id: String,
    /// Where the event type lies.
    pub event_type: String,
    /// The sender's headers that are kept.
    pub keep_headers: Vec<String>,
    /// The sender's own page about it.
    pub documentation: String,
}

fn text() -> String {
    "text".to_owned()
}

fn sha256() -> String {
    "sha256".to_owned()
}

static PRESETS: LazyLock<BTreeMap<String, Preset>> = LazyLock::new(|| {
    toml::from_str(include_str!("presets.toml")).expect("presets.toml is data of ours, and a test reads it")
});

/// All presets, by name.
pub fn all() -> &'static BTreeMap<String, Preset> {
    &PRESETS
}
