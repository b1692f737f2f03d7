//! The senders that ingest knows, as data: `presets.toml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use toml::Table;

use super::handshake::{Handshake, Words};
use super::jwt::Claims;
use super::published;

/// The words of one sender. Those of the recipe are the words of `[sources.hmac]`, and what is left
/// out means the same as there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// As people call it.
    pub sender: String,
    /// How it proves that a request is its own.
    #[serde(default = "hmac")]
    pub scheme: String,
    /// Where signatures lie, or what else proves it.
    pub header: Option<String>,
    /// How signatures are taken out of it.
    pub parse: Option<String>,
    /// How a signature is written.
    pub encoding: Option<String>,
    /// How the secret becomes the key.
    pub key: Option<String>,
    /// The hash.
    pub algorithm: Option<String>,
    /// How Ed25519 signatures are taken out of the header, where the sender has those too.
    pub ed25519: Option<String>,
    /// What is signed.
    pub content: Option<String>,
    /// Where the time of signing lies.
    pub timestamp: Option<String>,
    /// How it is written.
    pub timestamp_unit: Option<String>,
    /// How far it may lie from ours.
    pub tolerance: Option<String>,
    /// Whether only what is too old is refused.
    #[serde(default)]
    pub past_only: bool,
    /// Where the sender names the key that it signed with.
    pub key_id: Option<String>,
    /// Headers that must have a value.
    #[serde(default)]
    pub requires: BTreeMap<String, String>,
    /// What a token must claim.
    pub claims: Option<Claims>,
    /// Where the sender publishes its keys.
    pub keys: Option<published::Words>,
    /// The part of a multipart body that holds the JSON.
    pub part: Option<String>,
    /// Another preset, as which a request counts that is signed the other way.
    pub otherwise: Option<String>,
    /// What the sender asks before it sends events.
    #[serde(default)]
    pub handshakes: Vec<Words>,
    /// The status of an accepted event, where the sender wants another than 200.
    pub success_status: Option<u16>,
    /// What it wants to read then.
    pub success_text: Option<String>,
    /// Whether it wants no body in the answer to what is refused.
    #[serde(default)]
    pub bare_refusals: bool,
    /// The status of a signature that does not fit, where the sender wants another than 403.
    pub mismatch_status: Option<u16>,
    /// The methods that the sender uses.
    #[serde(default = "post")]
    pub methods: Vec<String>,
    /// Where the event id lies; `None`: the sender gives none.
    pub event_id: Option<String>,
    /// Where the event type lies; `None`: all are of one type.
    pub event_type: Option<String>,
    /// The sender's headers that are kept.
    #[serde(default)]
    pub keep_headers: Vec<String>,
    /// How long the sender waits for an answer.
    pub timeout: Option<String>,
    /// For how long it sends again what was not answered with a 2xx.
    pub retries_for: Option<String>,
    /// What else one must know to set it up.
    pub note: Option<String>,
    /// Whether a published test vector passes.
    #[serde(default)]
    pub vector: bool,
    /// The sender's own page about it.
    pub documentation: String,
}

fn post() -> Vec<String> {
    vec!["POST".to_owned()]
}

fn hmac() -> String {
    "hmac".to_owned()
}

static PRESETS: LazyLock<BTreeMap<String, Preset>> =
    LazyLock::new(|| read(include_str!("presets.toml")).expect("it is data of ours, and a test reads it"));

fn read(text: &str) -> Result<BTreeMap<String, Preset>, toml::de::Error> {
    let tables: Table = text.parse()?;
    tables.keys().map(|name| Ok((name.clone(), whole(&tables, name).try_into()?))).collect()
}

/// The table called `name` with what it leaves out of the one that it is `like`. Who it is, and what
/// is proved of it, is its own.
fn whole(tables: &Table, name: &str) -> Table {
    const OWN: [&str; 4] = ["documentation", "note", "otherwise", "vector"];
    let mut table = tables.get(name).and_then(|table| table.as_table()).cloned().unwrap_or_default();
    if let Some(other) = table.remove("like") {
        for (key, value) in whole(tables, other.as_str().unwrap_or_default()) {
            if !OWN.contains(&key.as_str()) {
                table.entry(key).or_insert(value);
            }
        }
    }
    table
}

/// All presets, by name.
pub fn all() -> &'static BTreeMap<String, Preset> {
    &PRESETS
}

impl Preset {
    /// Where signatures lie, or what else proves that a request is the sender's own.
    pub fn header(&self) -> &str {
        match self.scheme.as_str() {
            "adyen" | "sns" | "braintree" => "the body",
            _ => self.header.as_deref().unwrap_or("authorization"),
        }
    }

    /// What is signed; `None` where nothing is, and where words do not say it.
    pub fn content(&self) -> Option<&str> {
        let has_words = matches!(
            self.scheme.as_str(),
            "hmac" | "digest" | "ed25519" | "ecdsa-p256" | "rsa-sha1" | "rsa-sha256"
        );
        has_words.then(|| self.content.as_deref().unwrap_or("{body}"))
    }

    /// How far the time of signing may lie from ours; `None` where none is signed.
    pub fn window(&self) -> Option<&str> {
        self.timestamp.as_ref().map(|_| self.tolerance.as_deref().unwrap_or("5m"))
    }

    /// Where the event id lies.
    pub fn event_id(&self) -> &str {
        self.event_id.as_deref().unwrap_or("body-hash")
    }

    /// What proves that a request is the sender's own, in words.
    pub fn proof(&self) -> String {
        let hash = self.algorithm.as_deref().unwrap_or("sha256").to_ascii_uppercase().replace("SHA", "SHA-");
        match self.scheme.as_str() {
            "hmac" => format!("HMAC {hash}"),
            "digest" => hash,
            "ed25519" => "Ed25519".to_owned(),
            "ecdsa-p256" => "ECDSA P-256".to_owned(),
            "rsa-sha1" => "RSA SHA-1".to_owned(),
            "rsa-sha256" => "RSA SHA-256".to_owned(),
            "basic" => "name and password".to_owned(),
            "twilio" => "HMAC SHA-1 of URL and form".to_owned(),
            "adyen" => "HMAC SHA-256 of fields".to_owned(),
            "sns" => "RSA of fields, by certificate".to_owned(),
            "braintree" => "HMAC SHA-1 of a field".to_owned(),
            "plivo-v3" => "HMAC SHA-256 of URL and form".to_owned(),
            "ebay" => "ECDSA P-256 with SHA-1".to_owned(),
            "jwt" => format!(
                "JWT {}",
                self.algorithm.as_deref().unwrap_or_default().replace('|', ", ").to_ascii_uppercase()
            ),
            other => other.to_owned(),
        }
    }

    /// What the sender asks before it sends events.
    pub fn handshakes(&self) -> Vec<Handshake> {
        let read = |words| Handshake::from_words(words).expect("it is data of ours, and a test reads it");
        self.handshakes.iter().map(read).collect()
    }

    /// Whether the sender signs with one key for all of its customers, and a secret's id says whose
    /// messages are meant.
    pub fn signs_for_all(&self) -> bool {
        self.scheme == "sns"
    }

    /// Whether the sender signs with a key that only it has.
    pub fn has_key_pair(&self) -> bool {
        let is_token_of_pair = self.scheme == "jwt"
            && !self
                .algorithm
                .as_deref()
                .is_some_and(|algorithm| algorithm.to_ascii_lowercase().starts_with("hs"));
        is_token_of_pair
            || matches!(
                self.scheme.as_str(),
                "ed25519" | "ecdsa-p256" | "rsa-sha1" | "rsa-sha256" | "sns" | "ebay"
            )
    }
}
