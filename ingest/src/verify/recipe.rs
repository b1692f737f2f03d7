//! The HMAC recipe engine: one description by configuration covers most senders.

use std::time::Duration;

use hookwell_common::time::Timestamp;
use ring::hmac;
use subtle::ConstantTimeEq;

use super::content::{Content, MissingPart, Part};
use super::ed25519::{self, PublicKey};
use super::explain::{Step, Trace};
use super::request::UnverifiedRequest;
use super::signature::{Encoding, ParseRule};
use super::value::{Place, Pointers};
use crate::rejection::Rejection;

/// How one sender signs.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub(super) algorithm: hmac::Algorithm,
    /// In lower case.
    pub(super) header: String,
    pub(super) parse: ParseRule,
    /// The same for Ed25519, where the sender has that as well.
    pub(super) ed25519: Option<ParseRule>,
    pub(super) encoding: Encoding,
    pub(super) key_form: KeyForm,
    pub(super) content: Content,
    pub(super) timestamp: Option<TimestampRule>,
}

/// Where the time of signing lies, and how far it may lie from ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampRule {
    pub(crate) place: Place,
    pub(crate) unit: TimestampUnit,
    pub(super) tolerance: Duration,
}

/// How a time of signing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampUnit {
    /// Seconds since the epoch.
    Seconds,
    /// Milliseconds since the epoch.
    Milliseconds,
    /// RFC 3339, with any offset.
    Rfc3339,
}

/// How a secret, as its sender shows it, becomes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// Its bytes as they are.
    Text,
    /// Base64.
    Base64,
    /// Hexadecimal.
    Hex,
    /// Base64 after `whsec_`, which may be missing, as Standard Webhooks has it.
    Whsec,
}

/// A secret of a source, ready to compute with.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// What metrics call it: its id, or its place in the list.
    pub label: String,
    key: Key,
}

/// What a secret is computed with.
#[derive(Clone, Debug)]
enum Key {
    Hmac(hmac::Key),
    Ed25519(PublicKey),
}

/// The signatures of one request, decoded.
#[derive(Debug, Default)]
struct Signatures {
    hmac: Vec<Vec<u8>>,
    ed25519: Vec<Vec<u8>>,
}

/// Which of a source's keys signed a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchedKey(pub usize);

impl Recipe {
    /// The header that holds the signature, in lower case.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Whether the time of signing is bounded.
    pub fn has_window(&self) -> bool {
        self.timestamp.is_some()
    }

    /// The value of another pair of the signature header.
    pub fn field<'r>(&self, request: &UnverifiedRequest<'r>, name: &str) -> Option<&'r [u8]> {
        let header = std::str::from_utf8(request.headers.first(&self.header)?).ok()?;
        self.parse.field(header, name).map(str::as_bytes)
    }

    /// Makes a key of `secret`; `None` where it is not written as the recipe says, and where nothing
    /// but zero bytes is left of it, which to an HMAC is the same as no key at all.
    pub fn key(&self, label: String, secret: &[u8]) -> Option<SigningKey> {
        if self.ed25519.is_some() && PublicKey::is_meant(secret) {
            return Some(SigningKey { label, key: Key::Ed25519(PublicKey::read(secret)?) });
        }
        let bytes = self.key_form.key_bytes(secret)?;
        let is_key = bytes.iter().any(|byte| *byte != 0);
        is_key.then(|| SigningKey { label, key: Key::Hmac(hmac::Key::new(self.algorithm, &bytes)) })
    }

    /// Where the time of signing lies, if it is signed.
    pub fn timestamp(&self) -> Option<&TimestampRule> {
        self.timestamp.as_ref()
    }

    /// Tells whether one of `keys` signed `request`, and when. Each key and each signature is
    /// compared in constant time, and none is left out once another fits.
    pub fn verify(
        &self,
        request: &UnverifiedRequest<'_>,
        url: &str,
        keys: &[SigningKey],
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let header = self.signature_header(request, trace)?;
        let rule = self.timestamp.as_ref();
        let outside = rule.filter(|rule| !rule.is_in_body());
        let signed_at = outside.map(|rule| self.signed_at(rule, request, header, trace)).transpose()?;
        let signatures = self.signatures(header, trace)?;
        let matched = self.matching_key(request, url, header, keys, &signatures, trace)?;
        if let Some(rule) = rule {
            // Nobody's body is parsed before its signature fits.
            let signed_at = match signed_at {
                Some(signed_at) => signed_at,
                None => self.signed_at(rule, request, header, trace)?,
            };
            rule.check_window(signed_at, request.received_at, trace)?;
        }
        Ok(matched)
    }

    fn signature_header<'r>(
        &self,
        request: &UnverifiedRequest<'r>,
        trace: &mut impl Trace,
    ) -> Result<&'r str, Rejection> {
        let step = Step::SignatureHeader;
        let name = &self.header;
        let value = match request.headers.first(name) {
            None | Some(b"") => {
                return Err(trace.failed(step, Rejection::SignatureMissing, || missing_header(name, request)));
            }
            Some(_) if request.headers.is_repeated(name) => {
                return Err(
                    trace.failed(step, Rejection::Unreadable, || format!("{name} is there more than once"))
                );
            }
            Some(value) => value,
        };
        match std::str::from_utf8(value) {
            Ok(text) => {
                trace.passed(step, || format!("{name} is there, {} bytes", text.len()));
                Ok(text)
            }
            Err(_) => Err(trace.failed(step, Rejection::Unreadable, || format!("{name} is not text"))),
        }
    }

    fn signatures(&self, header: &str, trace: &mut impl Trace) -> Result<Signatures, Rejection> {
        let candidates = self.parse.candidates(header);
        let ed25519 = self.ed25519.as_ref().map(|parse| ed25519::signatures(parse, header));
        let ed25519 = ed25519.filter(|signatures| !signatures.is_empty());
        if let (Some(ed25519), true) = (&ed25519, candidates.is_empty()) {
            trace.passed(Step::SignatureForm, || format!("{} of Ed25519", ed25519.len()));
            return Ok(Signatures { ed25519: ed25519.clone(), ..Signatures::default() });
        }
        if candidates.is_empty() {
            return Err(trace.failed(Step::SignatureForm, Rejection::Unreadable, || {
                format!("{} holds no signature of the form {:?}", self.header, self.parse)
            }));
        }
        let decoded: Vec<_> = candidates.iter().filter_map(|text| self.encoding.decode(text)).collect();
        let wanted = self.algorithm.digest_algorithm().output_len();
        trace.find(Step::SignatureForm, !decoded.is_empty(), || {
            let lengths: Vec<_> = decoded.iter().map(|bytes| bytes.len().to_string()).collect();
            format!(
                "{} of {} signatures are {:?}, {} bytes long; {wanted} are expected",
                decoded.len(),
                candidates.len(),
                self.encoding,
                lengths.join(" and ")
            )
        });
        Ok(Signatures { hmac: decoded, ed25519: ed25519.unwrap_or_default() })
    }

    fn matching_key(
        &self,
        request: &UnverifiedRequest<'_>,
        url: &str,
        header: &str,
        keys: &[SigningKey],
        signatures: &Signatures,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        if self.content.covers_body() && request.body.is_empty() {
            return Err(
                trace.failed(Step::Signature, Rejection::BodyMissing, || "the body is empty".to_owned())
            );
        }
        self.refuse_repeated(request, trace)?;
        let mut matched = None;
        for (index, key) in keys.iter().enumerate() {
            let field = |name: &str| self.parse.field(header, name).map(str::to_owned);
            let feed = |take: &mut dyn FnMut(&[u8])| self.content.feed(request, url, field, take);
            let fits = key.fits(signatures, feed).map_err(|missing| {
                trace.failed(Step::Signature, missing.rejection(), || {
                    format!("{:?} is signed, and not there", missing.0)
                })
            })?;
            if fits && matched.is_none() {
                matched = Some(MatchedKey(index));
            }
        }
        match matched {
            Some(MatchedKey(index)) => {
                trace.passed(Step::Signature, || format!("fits with secret {}", keys[index].label));
                Ok(MatchedKey(index))
            }
            None => Err(trace.failed(Step::Signature, Rejection::SignatureMismatch, || {
                format!("fits with none of {} secrets; is this the secret of this endpoint, and the body as it was sent?", keys.len())
            })),
        }
    }

    /// A signed header that is there twice leaves it open which one was signed.
    fn refuse_repeated(
        &self,
        request: &UnverifiedRequest<'_>,
        trace: &mut impl Trace,
    ) -> Result<(), Rejection> {
        for part in self.content.parts() {
            if let Part::Header(name) = part
                && request.headers.is_repeated(name)
            {
                return Err(trace.failed(Step::Signature, Rejection::Unreadable, || {
                    format!("{name} is signed, and there more than once")
                }));
            }
        }
        Ok(())
    }

    fn signed_at(
        &self,
        rule: &TimestampRule,
        request: &UnverifiedRequest<'_>,
        header: &str,
        trace: &mut impl Trace,
    ) -> Result<Timestamp, Rejection> {
        let text = match &rule.place {
            Place::Header(name) => match request.headers.first(name) {
                Some(_) if request.headers.is_repeated(name) => {
                    return Err(trace.failed(Step::Timestamp, Rejection::Unreadable, || {
                        format!("{name} is there more than once")
                    }));
                }
                value => value.map(|value| String::from_utf8_lossy(value).into_owned()),
            },
            Place::Field(name) => self.parse.field(header, name).map(str::to_owned),
            Place::Json(pointer) => {
                Pointers::of([&rule.place].into_iter()).look_up(request.body).get(pointer)
            }
            Place::BodyHash => None,
        };
        match text.filter(|text| !text.is_empty()) {
            None => Err(trace.failed(Step::Timestamp, Rejection::TimestampMissing, || {
                format!("{:?} is missing", rule.place)
            })),
            Some(text) => match rule.unit.read(text.trim()) {
                Some(moment) => Ok(moment),
                None => Err(trace.failed(Step::Timestamp, Rejection::Unreadable, || {
                    format!("{:?} is not written in {:?}", rule.place, rule.unit)
                })),
            },
        }
    }
}

impl TimestampRule {
    fn is_in_body(&self) -> bool {
        matches!(self.place, Place::Json(_))
    }

    fn check_window(
        &self,
        signed_at: Timestamp,
        now: Timestamp,
        trace: &mut impl Trace,
    ) -> Result<(), Rejection> {
        let distance = now.distance(signed_at);
        let side = if signed_at <= now { "old" } else { "ahead" };
        let words = || format!("{} s {side}; {} s are allowed", distance.as_secs(), self.tolerance.as_secs());
        if distance <= self.tolerance {
            trace.passed(Step::Timestamp, words);
            return Ok(());
        }
        Err(trace.failed(Step::Timestamp, Rejection::TimestampOutsideWindow, words))
    }
}

impl SigningKey {
    /// The key to sign with; `None` where it is a public one.
    pub fn hmac(&self) -> Option<&hmac::Key> {
        match &self.key {
            Key::Hmac(key) => Some(key),
            Key::Ed25519(_) => None,
        }
    }

    /// Whether one of `signatures` was made with it over what `feed` gives.
    fn fits<'c>(
        &self,
        signatures: &Signatures,
        feed: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), MissingPart<'c>>,
    ) -> Result<bool, MissingPart<'c>> {
        match &self.key {
            Key::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                feed(&mut |bytes| context.update(bytes))?;
                let tag = context.sign();
                // Each is compared to its end, and none is left out once another fits.
                let compare = |fits, signature: &Vec<u8>| fits | bool::from(tag.as_ref().ct_eq(signature));
                Ok(signatures.hmac.iter().fold(false, compare))
            }
            Key::Ed25519(key) => {
                let mut content = Vec::new();
                feed(&mut |bytes| content.extend_from_slice(bytes))?;
                Ok(key.signed(&content, &signatures.ed25519))
            }
        }
    }
}

impl MissingPart<'_> {
    fn rejection(&self) -> Rejection {
        match self.0 {
            Part::Header(_) | Part::Field(_) => Rejection::SignedPartMissing,
            Part::Literal(_) | Part::Body | Part::Url | Part::Method => Rejection::Unreadable,
        }
    }
}

impl KeyForm {
    /// Reads the form from a configuration's word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "text" => Some(KeyForm::Text),
            "base64" => Some(KeyForm::Base64),
            "hex" => Some(KeyForm::Hex),
            "whsec" => Some(KeyForm::Whsec),
            _ => None,
        }
    }

    fn key_bytes(self, secret: &[u8]) -> Option<Vec<u8>> {
        let text = || std::str::from_utf8(secret).ok().map(str::trim);
        match self {
            KeyForm::Text => Some(secret.to_vec()),
            KeyForm::Base64 => Encoding::Base64.decode(text()?),
            KeyForm::Hex => Encoding::Hex.decode(text()?),
            KeyForm::Whsec => {
                let text = text()?;
                Encoding::Base64.decode(text.strip_prefix("whsec_").unwrap_or(text))
            }
        }
    }
}

impl TimestampUnit {
    /// Reads the unit from a configuration's word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "s" => Some(TimestampUnit::Seconds),
            "ms" => Some(TimestampUnit::Milliseconds),
            "rfc3339" => Some(TimestampUnit::Rfc3339),
            _ => None,
        }
    }

    fn read(self, text: &str) -> Option<Timestamp> {
        match self {
            TimestampUnit::Seconds => text.parse().ok().map(Timestamp::from_seconds),
            TimestampUnit::Milliseconds => text.parse().ok().map(Timestamp::from_millis),
            TimestampUnit::Rfc3339 => Timestamp::parse_rfc3339(text),
        }
    }

    pub(crate) fn write(self, moment: Timestamp) -> String {
        match self {
            TimestampUnit::Seconds => (moment.as_millis() / 1000).to_string(),
            TimestampUnit::Milliseconds => moment.as_millis().to_string(),
            TimestampUnit::Rfc3339 => moment.to_string(),
        }
    }
}

/// Names the header that is missing, and one that is like it.
fn missing_header(name: &str, request: &UnverifiedRequest<'_>) -> String {
    let others = request.headers.names();
    let similar = others.iter().find(|other| other.contains("signature") || other.contains("hmac"));
    match similar {
        Some(other) => {
            format!("{name} is missing or empty; {other} is there: is this another sender's request?")
        }
        None => format!("{name} is missing or empty; does the sender know a secret?"),
    }
}
