//! The recipe engine: one description by configuration covers most senders.

use std::borrow::Cow;

use hookwell_common::time::Timestamp;
use ring::{digest, hmac};
use smallvec::SmallVec;

use super::content::{Content, Given, MissingPart};
use super::explain::{Step, Trace};
use super::facts::Facts;
use super::header::{header_text, missing_header};
use super::key::{Algorithm, Key, KeyForm, Keys, MatchedKey, SigningKey, fits_any};
use super::multipart::part;
use super::public_key::{Kind, PublicKey};
use super::request::UnverifiedRequest;
use super::signature::{Encoding, ParseRule};
use super::timestamp::TimestampRule;
use super::value::{Found, Place, Pointers, find, header_name, is_repeated};
use crate::rejection::Rejection;

/// The most numbered headers that are looked at.
const MAX_NUMBERED: usize = 100;

/// How one sender signs.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub(super) algorithm: Algorithm,
    pub(super) signature: SignaturePlace,
    pub(super) parse: ParseRule,
    /// The same for Ed25519, where the sender has that as well.
    pub(super) ed25519: Option<ParseRule>,
    pub(super) encoding: Encoding,
    pub(super) key_form: KeyForm,
    pub(super) content: Content,
    pub(super) timestamp: Option<TimestampRule>,
    /// Where the sender names the key that it signed with.
    pub(super) key_id: Option<Place>,
    /// Headers, in lower case, that must have a value.
    pub(super) requires: Vec<(String, String)>,
    /// What of the body is looked at before its signature fits: nothing, for most senders.
    pub(super) pointers: Pointers,
    /// The part of a multipart body that holds the JSON.
    pub(super) part: Option<String>,
}

/// Where signatures lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignaturePlace {
    /// In headers, in lower case: one is enough.
    Headers(Vec<String>),
    /// In headers that end with a number, from 1 on.
    Numbered(String),
    /// Elsewhere.
    Value(Place),
}

/// The texts in which signatures lie.
type Texts<'r> = SmallVec<[Cow<'r, str>; 1]>;

/// The signatures of one request, decoded.
#[derive(Debug, Default)]
struct Signatures {
    plain: Vec<Vec<u8>>,
    ed25519: Vec<Vec<u8>>,
}

/// A request on its way through a recipe.
struct Pass<'p, 'r> {
    recipe: &'p Recipe,
    request: &'p UnverifiedRequest<'r>,
    url: &'p str,
    found: Found<'p>,
    texts: Texts<'r>,
}

impl SignaturePlace {
    /// Reads it from a preset's words.
    pub fn from_words(words: &str) -> Option<Self> {
        if let Some(prefix) = words.strip_suffix('*') {
            return header_name(prefix).map(SignaturePlace::Numbered);
        }
        if words.starts_with("json:") || words.starts_with("form:") || words.starts_with("query:") {
            return Place::from_words(words).map(SignaturePlace::Value);
        }
        let names: Option<Vec<_>> = words.split('|').map(|name| header_name(name.trim())).collect();
        names.map(SignaturePlace::Headers)
    }

    /// The first place, as people call it.
    pub fn name(&self) -> String {
        match self {
            SignaturePlace::Headers(names) => names.join(" or "),
            SignaturePlace::Numbered(prefix) => format!("{prefix}1"),
            SignaturePlace::Value(place) => format!("{place}"),
        }
    }

    /// The first header.
    pub fn header(&self) -> Option<String> {
        self.headers().next().map(Cow::into_owned)
    }

    /// The names of the headers that may hold a signature.
    fn headers(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let (names, prefix) = match self {
            SignaturePlace::Headers(names) => (names.as_slice(), None),
            SignaturePlace::Numbered(prefix) => (&[][..], Some(prefix)),
            SignaturePlace::Value(_) => (&[][..], None),
        };
        let numbered = prefix
            .into_iter()
            .flat_map(|prefix| (1..=MAX_NUMBERED).map(move |number| Cow::Owned(format!("{prefix}{number}"))));
        names.iter().map(|name| Cow::Borrowed(name.as_str())).chain(numbered)
    }
}

/// What signatures look like that are not as they should be: another encoding, or another hash.
fn other_form(candidates: &[&str], encoding: Encoding, algorithm: Algorithm) -> Option<String> {
    const HASHES: [(usize, &str); 4] = [(20, "SHA-1"), (32, "SHA-256"), (48, "SHA-384"), (64, "SHA-512")];
    let wanted = algorithm.signature_bytes()?;
    let length = |encoding: Encoding| {
        candidates
            .iter()
            .filter_map(|text| encoding.decode(text))
            .map(|bytes| bytes.len())
            .collect::<Vec<_>>()
    };
    let own = length(encoding);
    if own.contains(&wanted) {
        return None;
    }
    let others = [Encoding::Hex, Encoding::Base64, Encoding::Base64Url];
    if let Some(other) = others.into_iter().find(|other| length(*other).contains(&wanted)) {
        return Some(format!("; as {other:?} it would be that long: is another encoding meant?"));
    }
    let (_, hash) = HASHES.into_iter().find(|(bytes, _)| own.contains(bytes))?;
    Some(format!("; it is as long as one of {hash}: does the sender use another hash?"))
}

impl Recipe {
    /// What is known of it without any request.
    pub(super) fn facts(&self) -> Facts {
        Facts {
            header: self.signature.header(),
            covers_body: self.content.covers_body(),
            covers_url: self.content.covers_url(),
            needs_ids: self.key_id.is_some() || self.content.names_secret(),
            key_words: match self.algorithm {
                Algorithm::Public(_) => "a public key, or a certificate in PEM".to_owned(),
                Algorithm::Hmac(_) | Algorithm::Digest(_) => {
                    format!("{:?}", self.key_form).to_ascii_lowercase()
                }
            },
            ..Facts::default()
        }
    }

    /// Whether what lies at `place` is signed.
    pub(super) fn signs(&self, place: &Place) -> bool {
        self.content.covers(place)
    }

    /// Whether a signature of this kind is there.
    pub(super) fn is_taken_by(&self, request: &UnverifiedRequest<'_>) -> bool {
        let has_signature = match &self.signature {
            SignaturePlace::Value(place) => {
                let found = self.pointers.look_up(&self.document(request));
                find(request, place, &found).is_some()
            }
            SignaturePlace::Headers(_) | SignaturePlace::Numbered(_) => self.has_candidate(request, |_| true),
        };
        let has = |(name, wanted): &(String, String)| {
            request.headers.first(name).is_some_and(|value| value.eq_ignore_ascii_case(wanted.as_bytes()))
        };
        has_signature && self.requires.iter().all(has)
    }

    /// Whether one is there in a header that is as long as it should be.
    pub(super) fn has_whole_signature(&self, request: &UnverifiedRequest<'_>) -> bool {
        let length = self.algorithm.signature_bytes();
        self.has_candidate(request, |text| {
            self.encoding.decode(text).is_some_and(|bytes| length.is_none_or(|length| bytes.len() == length))
        })
    }

    fn has_candidate(&self, request: &UnverifiedRequest<'_>, is_one: impl Fn(&str) -> bool) -> bool {
        self.signature.headers().any(|name| {
            let text = request.headers.first(&name).and_then(|text| std::str::from_utf8(text).ok());
            text.is_some_and(|text| self.parse.candidates(text).into_iter().any(&is_one))
        })
    }

    /// The value of another pair of the signature header.
    pub fn field<'r>(&self, request: &UnverifiedRequest<'r>, name: &str) -> Option<&'r [u8]> {
        let mut texts = self.signature.headers().filter_map(|header| {
            let value = request.headers.first(&header)?;
            std::str::from_utf8(value).ok()
        });
        texts.find_map(|text| self.parse.field(text, name)).map(str::as_bytes)
    }

    /// The JSON of a request: its body, or a part of it.
    pub(super) fn document<'r>(&self, request: &UnverifiedRequest<'r>) -> Cow<'r, [u8]> {
        let part = self.part.as_deref().and_then(|name| part(request, name));
        part.map_or(Cow::Borrowed(request.body), Cow::Owned)
    }

    /// Makes a key of `secret`; `None` where it is not written as the recipe says.
    pub(super) fn key(&self, secret: &[u8]) -> Option<Key> {
        if self.ed25519.is_some() && PublicKey::is_meant(secret) {
            return PublicKey::read(Kind::Ed25519, Encoding::Base64, secret).map(Key::Public);
        }
        self.algorithm.key(self.key_form, secret)
    }

    /// Tells whether one of `keys` signed `request`, and when. Each key and each signature is
    /// compared in constant time, and none is left out once another fits.
    pub fn verify(
        &self,
        request: &UnverifiedRequest<'_>,
        url: &str,
        keys: Keys<'_>,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let found = self.pointers.look_up(&self.document(request));
        let texts = self.texts(request, &found, trace)?;
        let pass = Pass { recipe: self, request, url, found, texts };
        pass.check_requirements(trace)?;
        let rule = self.timestamp.as_ref();
        let outside = rule.filter(|rule| !rule.is_in_body());
        let signed_at = outside.map(|rule| pass.signed_at(rule, trace)).transpose()?;
        let signatures = pass.signatures(trace)?;
        let matched = pass.matching_key(keys, &signatures, trace)?;
        if let Some(rule) = rule {
            // Nobody's body is parsed before its signature fits, unless the signature lies in it.
            let signed_at = match signed_at {
                Some(signed_at) => signed_at,
                None => pass.signed_at(rule, trace)?,
            };
            rule.check_window(signed_at, request.received_at, trace)?;
        }
        Ok(matched)
    }

    fn texts<'r>(
        &self,
        request: &UnverifiedRequest<'r>,
        found: &Found<'_>,
        trace: &mut impl Trace,
    ) -> Result<Texts<'r>, Rejection> {
        let step = Step::SignatureHeader;
        let mut texts = Texts::new();
        if let SignaturePlace::Value(place) = &self.signature {
            if is_repeated(request, place) {
                let words = || format!("{place} is there more than once");
                return Err(trace.failed(step, Rejection::Unreadable, words));
            }
            let text =
                find(request, place, found).and_then(|value| String::from_utf8(value.into_owned()).ok());
            texts.extend(text.filter(|text| !text.is_empty()).map(Cow::Owned));
        }
        for name in self.signature.headers() {
            if request.headers.first(&name).is_some_and(|value| !value.is_empty()) {
                texts.push(Cow::Borrowed(header_text(request, &name, trace)?));
            }
        }
        if texts.is_empty() {
            let words = || missing_header(&self.signature.name(), request);
            return Err(trace.failed(step, Rejection::SignatureMissing, words));
        }
        Ok(texts)
    }
}

impl<'p> Pass<'p, '_> {
    fn find(&self, place: &Place) -> Option<Cow<'p, [u8]>> {
        let Place::Field(name) = place else { return find(self.request, place, &self.found) };
        let field = self.texts.iter().find_map(|text| self.recipe.parse.field(text, name));
        field.map(|value| Cow::Owned(value.as_bytes().to_vec()))
    }

    fn check_requirements(&self, trace: &mut impl Trace) -> Result<(), Rejection> {
        for (name, wanted) in &self.recipe.requires {
            let rejection = match self.request.headers.first(name) {
                Some(_) if self.request.headers.is_repeated(name) => Rejection::Unreadable,
                Some(value) if value.eq_ignore_ascii_case(wanted.as_bytes()) => continue,
                Some(_) => Rejection::Unreadable,
                None => Rejection::SignedPartMissing,
            };
            return Err(
                trace.failed(Step::SignatureHeader, rejection, || format!("{name} must be {wanted}, once"))
            );
        }
        Ok(())
    }

    fn signatures(&self, trace: &mut impl Trace) -> Result<Signatures, Rejection> {
        let Recipe { parse, encoding, algorithm, .. } = self.recipe;
        let candidates: Vec<_> = self.texts.iter().flat_map(|text| parse.candidates(text)).collect();
        let seconds = self.recipe.ed25519.iter();
        let seconds = seconds.flat_map(|parse| self.texts.iter().flat_map(|text| parse.candidates(text)));
        let ed25519: Vec<_> = seconds.filter_map(|text| Encoding::Base64.decode(text)).collect();
        if candidates.is_empty() && !ed25519.is_empty() {
            trace.passed(Step::SignatureForm, || format!("{} of Ed25519", ed25519.len()));
            return Ok(Signatures { ed25519, ..Signatures::default() });
        }
        if candidates.is_empty() {
            return Err(trace.failed(Step::SignatureForm, Rejection::Unreadable, || {
                format!("{} holds no signature of the form \"{parse}\"", self.recipe.signature.name())
            }));
        }
        let plain: Vec<_> = candidates.iter().filter_map(|text| encoding.decode(text)).collect();
        trace.find(Step::SignatureForm, !plain.is_empty(), || {
            let lengths: Vec<_> = plain.iter().map(|bytes| bytes.len().to_string()).collect();
            let wanted =
                algorithm.signature_bytes().map_or(String::new(), |bytes| format!("; {bytes} are expected"));
            let long = match lengths.as_slice() {
                [] => String::new(),
                lengths => format!(", {} bytes long", lengths.join(" and ")),
            };
            let count = (plain.len(), candidates.len());
            let other = other_form(&candidates, *encoding, *algorithm).unwrap_or_default();
            format!("{} of {} signatures are {encoding:?}{long}{wanted}{other}", count.0, count.1)
        });
        Ok(Signatures { plain, ed25519 })
    }

    fn matching_key(
        &self,
        keys: Keys<'_>,
        signatures: &Signatures,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let content = &self.recipe.content;
        if content.covers_body() && self.request.body.is_empty() && self.request.method == "POST" {
            return Err(
                trace.failed(Step::Signature, Rejection::BodyMissing, || "the body is empty".to_owned())
            );
        }
        // Whoever knows a hash that begins with the secret can continue it, but only with the padding
        // of the hash between, which is no text.
        if content.begins_with_secret() && std::str::from_utf8(self.request.body).is_err() {
            let words = || "the body is no text, as this sender's always is".to_owned();
            return Err(trace.failed(Step::Signature, Rejection::Unreadable, words));
        }
        self.refuse_repeated(trace)?;
        if let Some(why) = content.unclear(self.request) {
            let words = || format!("the form can be read in more ways than one: {why}");
            return Err(trace.failed(Step::Signature, Rejection::Unreadable, words));
        }
        let named = self.named_key(trace)?;
        let is_meant =
            |key: &SigningKey| named.is_none() || key.id.as_deref().map(str::as_bytes) == named.as_deref();
        let fits = |secret: &SigningKey, key: &Key| {
            if is_meant(secret) { self.fits(secret, key, signatures) } else { Ok(false) }
        };
        let matched = keys.try_first_fitting(fits).map_err(|MissingPart(place)| {
            let words = || format!("{place} is signed, and not there");
            trace.failed(Step::Signature, Rejection::SignedPartMissing, words)
        })?;
        let none = |count| {
            format!(
                "fits with none of {count} secrets; is this the secret of this endpoint, and the body as it was sent?"
            )
        };
        keys.verdict(matched, "fits with secret", none, trace)
    }

    /// The id of the key that the request names, where its sender names one.
    fn named_key(&self, trace: &mut impl Trace) -> Result<Option<Cow<'p, [u8]>>, Rejection> {
        let Some(place) = &self.recipe.key_id else { return Ok(None) };
        let named = self.find(place);
        let words = || format!("{place} names the key, and is missing");
        named.map(Some).ok_or_else(|| trace.failed(Step::Signature, Rejection::SignedPartMissing, words))
    }

    /// Whether one of `signatures` was made with `key`.
    fn fits(&self, secret: &SigningKey, key: &Key, signatures: &Signatures) -> Result<bool, MissingPart> {
        let secret_id = secret.id.as_deref().unwrap_or_default();
        let feed = |secret: &[u8], take: &mut dyn FnMut(&[u8])| {
            let given = Given { url: self.url, secret, secret_id };
            self.recipe.content.feed(self.request, given, |place| self.find(place), take)
        };
        match (key, self.recipe.algorithm) {
            (Key::Hmac(key), _) => {
                let mut context = hmac::Context::with_key(key);
                feed(b"", &mut |bytes| context.update(bytes))?;
                Ok(fits_any(context.sign().as_ref(), &signatures.plain))
            }
            (Key::Secret(secret), Algorithm::Digest(algorithm)) => {
                let mut context = digest::Context::new(algorithm);
                feed(secret, &mut |bytes| context.update(bytes))?;
                Ok(fits_any(context.finish().as_ref(), &signatures.plain))
            }
            (Key::Secret(_), Algorithm::Hmac(_) | Algorithm::Public(_))
            | (Key::Private(_) | Key::Tokens(_) | Key::Published, _) => Ok(false),
            (Key::Public(key), algorithm) => {
                let mut content = Vec::new();
                feed(b"", &mut |bytes| content.extend_from_slice(bytes))?;
                let is_second = !matches!(algorithm, Algorithm::Public(_));
                Ok(key.signed(&content, if is_second { &signatures.ed25519 } else { &signatures.plain }))
            }
        }
    }

    /// A signed header that is there twice leaves it open which one was signed.
    fn refuse_repeated(&self, trace: &mut impl Trace) -> Result<(), Rejection> {
        let named = self.recipe.key_id.as_ref().filter(|place| is_repeated(self.request, place));
        match self.recipe.content.repeated(self.request).as_ref().or(named) {
            None => Ok(()),
            Some(place) => Err(trace.failed(Step::Signature, Rejection::Unreadable, || {
                format!("{place} is signed, and there more than once")
            })),
        }
    }

    fn signed_at(&self, rule: &TimestampRule, trace: &mut impl Trace) -> Result<Timestamp, Rejection> {
        if is_repeated(self.request, &rule.place) {
            let words = || format!("{} is there more than once", rule.place);
            return Err(trace.failed(Step::Timestamp, Rejection::Unreadable, words));
        }
        let text = if let Place::Json(pointer) = &rule.place {
            let found = Pointers::of([&rule.place].into_iter())
                .look_up(&self.recipe.document(self.request))
                .get(pointer);
            found.map(|text| Cow::Owned(text.into_bytes()))
        } else {
            self.find(&rule.place)
        };
        match text.filter(|text| !text.is_empty()) {
            None => Err(trace.failed(Step::Timestamp, Rejection::TimestampMissing, || {
                format!("{} is missing", rule.place)
            })),
            Some(text) => match rule.unit.read(String::from_utf8_lossy(&text).trim()) {
                Some(moment) => Ok(moment),
                None => Err(trace.failed(Step::Timestamp, Rejection::Unreadable, || {
                    format!("{} is not written in {:?}", rule.place, rule.unit)
                })),
            },
        }
    }
}
