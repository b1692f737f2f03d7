//! Keys that a sender publishes: where, as its preset names it, which of them a request may name, and
//! what stands there.
//!
//! A request chooses among the addresses that the preset's pattern leaves open, and never a host: a
//! forger would otherwise name its own, and so sign for anybody.

use std::sync::Arc;
use std::time::Duration;

use hookwell_common::time::Timestamp;
use serde::Deserialize;
use url::Url;

use super::key::{Algorithm, Key, TokenAlgorithm};
use super::public_key::{Kind, PublicKey, Validity};
use super::request::UnverifiedRequest;
use super::value::{Place, Pointers, find};

/// How long a request waits for its key at most.
pub const KEY_PATIENCE: Duration = Duration::from_secs(5);

/// The longest name of a key, in bytes.
const LONGEST_ID: usize = 128;

/// The longest query of an address that is visited, in bytes.
const LONGEST_QUERY: usize = 2048;

/// The most keys of one document that are looked at.
const MAX_KEYS: usize = 32;

/// The words of a preset.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// Patterns of the addresses of certificates.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// Where a request names the address of its certificate.
    pub named_by: Option<String>,
    /// The address of a set of keys (RFC 7517), of which a token names one.
    pub jwks: Option<String>,
    /// What the `id` of such a secret is.
    pub id: String,
}

/// Where a sender publishes its keys.
#[derive(Clone, Debug)]
pub struct KeySource {
    format: Format,
    /// What the id of a secret is, in words.
    pub id: String,
}

#[derive(Clone, Debug)]
enum Format {
    Certificates { addresses: Vec<Pattern>, kind: Kind, place: Place, pointers: Pointers },
    Jwks { address: String, algorithms: Vec<TokenAlgorithm> },
}

/// How the sender signs, which decides what its keys must be.
#[derive(Clone, Debug)]
pub(super) enum Signs {
    /// With the key of a certificate.
    As(Kind),
    /// Tokens.
    Tokens(Vec<TokenAlgorithm>),
}

/// A key as a request names it. Its address is one that the preset allows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyName {
    address: String,
    id: Option<String>,
}

/// A key that was read at its address.
#[derive(Clone, Debug)]
pub struct PublishedKey(pub(super) Arc<Key>);

/// What stands at one address.
#[derive(Clone, Debug)]
pub struct Document {
    keys: Vec<(Option<String>, PublishedKey)>,
    /// When it holds, which only a certificate says.
    validity: Option<Validity>,
}

impl KeySource {
    /// Reads the words of a sender that signs so; `None` where one means nothing.
    pub(super) fn from_words(words: &Words, signs: Signs) -> Option<Self> {
        let format = match (signs, &words.jwks) {
            (Signs::As(kind), None) => {
                let addresses: Option<Vec<_>> =
                    words.certificates.iter().map(|text| Pattern::from_words(text)).collect();
                let place = Place::from_words(words.named_by.as_deref()?)?;
                let pointers = Pointers::of([&place].into_iter());
                Format::Certificates { addresses: addresses?, kind, place, pointers }
            }
            (Signs::Tokens(algorithms), Some(address)) => {
                Format::Jwks { address: Some(address.clone()).filter(|_| is_https(address))?, algorithms }
            }
            (Signs::As(_), Some(_)) | (Signs::Tokens(_), None) => return None,
        };
        Some(Self { format, id: words.id.clone() })
    }

    /// Where keys are read, in words.
    pub fn hosts(&self) -> String {
        match &self.format {
            Format::Certificates { addresses, .. } => {
                addresses.iter().map(Pattern::host).collect::<Vec<_>>().join(" or ")
            }
            Format::Jwks { address, .. } => host(address).to_owned(),
        }
    }

    /// The key that `request` names, whose token names `id`; `None` where it names none, or one that
    /// is not the sender's.
    pub(super) fn name(&self, request: &UnverifiedRequest<'_>, id: Option<String>) -> Option<KeyName> {
        match &self.format {
            Format::Certificates { addresses, place, pointers, .. } => {
                if let Place::Header(name) = place
                    && request.headers.is_repeated(name)
                {
                    return None;
                }
                let found = pointers.look_up(request.body);
                let address = String::from_utf8(find(request, place, &found)?.into_owned()).ok()?;
                let is_allowed = addresses.iter().any(|pattern| pattern.fits(&address));
                is_allowed.then_some(KeyName { address, id: None })
            }
            Format::Jwks { address, .. } => {
                let id = id.filter(|id| id.len() <= LONGEST_ID);
                Some(KeyName { address: address.clone(), id: Some(id?) })
            }
        }
    }

    /// Reads what stands at an address; `None` where it holds no key with which this sender could sign.
    pub fn read(&self, bytes: &[u8]) -> Option<Document> {
        match &self.format {
            Format::Certificates { kind, .. } => {
                let (key, validity) = PublicKey::of_certificate(*kind, bytes)?;
                let key = PublishedKey(Arc::new(Key::Public(key)));
                Some(Document { keys: vec![(None, key)], validity: Some(validity) })
            }
            Format::Jwks { algorithms, .. } => {
                let set: Set = serde_json::from_slice(bytes).ok()?;
                let keys = set.keys.iter().take(MAX_KEYS);
                let keys: Vec<_> = keys.filter_map(|key| key.read(algorithms)).collect();
                (!keys.is_empty()).then_some(Document { keys, validity: None })
            }
        }
    }
}

impl KeyName {
    /// The address, as the sender publishes it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The same, at what stands in for the sender's hosts.
    pub fn at(self, stand_in: Option<&str>) -> Self {
        Self { address: asked_at(&self.address, stand_in), ..self }
    }

    /// Which of the keys there.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// One for tests of what holds keys.
    #[cfg(test)]
    pub(crate) fn of(address: &str, id: Option<&str>) -> Self {
        Self { address: address.to_owned(), id: id.map(str::to_owned) }
    }
}

impl Document {
    /// The key called `id`.
    pub fn key(&self, id: Option<&str>) -> Option<&PublishedKey> {
        self.keys.iter().find(|(known, _)| known.as_deref() == id).map(|(_, key)| key)
    }

    /// Whether it holds at `now`.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.validity.is_none_or(|validity| validity.from <= now && now < validity.until)
    }

    /// One for tests of what holds keys.
    #[cfg(test)]
    pub(crate) fn of(ids: &[Option<&str>], validity: Option<Validity>) -> Self {
        let key =
            |id: &Option<&str>| (id.map(str::to_owned), PublishedKey(Arc::new(Key::Secret(b"key".to_vec()))));
        Self { keys: ids.iter().map(key).collect(), validity }
    }
}

/// `address` as it is asked for: at the sender's own host, or at one that stands in for all of them,
/// where the host is the first part of the path.
pub fn asked_at(address: &str, stand_in: Option<&str>) -> String {
    match stand_in {
        None => address.to_owned(),
        Some(base) => {
            format!("{}/{}", base.trim_end_matches('/'), address.trim_start_matches("https://"))
        }
    }
}

/// Addresses under one host, or under one host a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// A region of Amazon's: `eu-west-1`. Not `s3-eu-west-1`, under which anybody's bucket lies.
    Region,
    /// Letters, digits, `-` and `_`.
    Id,
    /// Parameters.
    Query,
}

impl Pattern {
    /// Reads one: `https://`, a host, and a path, with `{region}`, `{id}` and `{query}` in it.
    pub fn from_words(words: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = words;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}')?;
            pieces.push(Piece::Literal(literal.to_owned()));
            pieces.push(match name {
                "region" => Piece::Region,
                "id" => Piece::Id,
                "query" => Piece::Query,
                _ => return None,
            });
            rest = after;
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        is_https(words).then_some(Self(pieces))
    }

    /// Whether `text` is one of them, letter for letter: what fits cannot be read in two ways.
    pub fn fits(&self, text: &str) -> bool {
        let mut rest = text;
        for piece in &self.0 {
            let after = match piece {
                Piece::Literal(literal) => rest.strip_prefix(literal.as_str()),
                Piece::Region => {
                    let (region, after) = split(rest, |byte| byte.is_ascii_alphanumeric() || byte == b'-');
                    is_region(region).then_some(after)
                }
                Piece::Id => {
                    let is_of_id = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                    let (id, after) = split(rest, is_of_id);
                    (!id.is_empty() && id.len() <= LONGEST_ID).then_some(after)
                }
                Piece::Query => {
                    let is_of_query = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%&=:+".contains(&byte);
                    let (query, after) = split(rest, is_of_query);
                    (!query.is_empty() && query.len() <= LONGEST_QUERY).then_some(after)
                }
            };
            match after {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }

    fn host(&self) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Region => "REGION".to_owned(),
            Piece::Id => "ID".to_owned(),
            Piece::Query => "QUERY".to_owned(),
        };
        host(&self.0.iter().map(text).collect::<String>()).to_owned()
    }
}

/// Whether it is an address under a host that is there, and may be followed by nothing of a stranger's.
fn is_https(words: &str) -> bool {
    let rest = words.strip_prefix("https://");
    rest.and_then(|rest| rest.split_once('/'))
        .is_some_and(|(host, _)| host.contains('.') && !host.contains("{id"))
}

fn host(address: &str) -> &str {
    let rest = address.trim_start_matches("https://");
    rest.split_once('/').map_or(rest, |(host, _)| host)
}

/// The longest beginning of bytes that `is_of`, and the rest.
fn split(text: &str, is_of: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !is_of(byte)).unwrap_or(text.len());
    text.split_at(end)
}

/// Two letters, words, and a digit: `us-gov-west-1`.
fn is_region(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let [first, words @ .., last] = parts.as_slice() else { return false };
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = last.len() == 1 && last.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 32
        && first.len() == 2
        && is_word(first)
        && !words.is_empty()
        && words.iter().all(is_word)
        && is_number
}

/// A base for addresses that stand in for the sender's: `https://HOST[:PORT][/PATH]`, or with `http`
/// on this machine.
pub fn is_stand_in(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    let is_here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return false,
    };
    let is_bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_here;
    is_safe && is_bare && url.password().is_none()
}

/// A set of keys, as RFC 7517 writes it.
#[derive(Debug, Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

#[derive(Debug, Deserialize)]
struct Jwk {
    kid: Option<String>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    crv: Option<String>,
}

impl Jwk {
    /// The key, for those of `algorithms` that it is for.
    fn read(&self, algorithms: &[TokenAlgorithm]) -> Option<(Option<String>, PublishedKey)> {
        let one = |algorithm: &TokenAlgorithm| {
            if self.alg.as_deref().is_some_and(|said| said != algorithm.name()) {
                return None;
            }
            let Algorithm::Public(kind) = algorithm.algorithm() else { return None };
            let key = match (&self.n, &self.e, &self.x, &self.y) {
                (Some(n), Some(e), _, _) => PublicKey::of_numbers(kind, n, e),
                (_, _, Some(x), Some(y)) if self.crv.as_deref() == Some("P-256") => {
                    PublicKey::of_point(kind, x, y)
                }
                _ => None,
            };
            Some((*algorithm, Key::Public(key?)))
        };
        let keys: Vec<_> = algorithms.iter().filter_map(one).collect();
        let kid = self.kid.clone().filter(|kid| kid.len() <= LONGEST_ID);
        (!keys.is_empty()).then(|| (kid, PublishedKey(Arc::new(Key::Tokens(keys)))))
    }
}
