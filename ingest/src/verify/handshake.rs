//! How a sender makes sure that an address is its receiver's, and what it wants to hear: a challenge
//! that comes back, as it is or signed, or any answer at all.
//!
//! Where a sender signs its challenge, only a signed one is answered. What is signed for somebody who
//! has proved nothing must look like no body of an event: else we would sign a forger's.

use std::collections::BTreeMap;

use hookwell_common::secret::Secret;
use serde::Deserialize;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use super::braintree;
use super::ebay;
use super::explain::{Step, Trace};
use super::key::{MatchedKey, SigningKey};
use super::published::Pattern;
use super::request::UnverifiedRequest;
use super::signature::Encoding;
use super::value::{Found, Place, Pointers, find};
use crate::rejection::Rejection;

/// The longest challenge that comes back, in bytes.
const LONGEST: usize = 1024;

/// The words of a preset.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// The method of the request.
    #[serde(default = "post")]
    pub method: String,
    /// What must be there for it to be one: `PLACE`, or `PLACE = VALUE`.
    pub when: Option<String>,
    /// What must not be there.
    pub unless: Option<String>,
    /// Whether the sender signs it: only a POST can be.
    #[serde(default)]
    pub is_signed: bool,
    /// Where the word lies that the user told the sender: the source's `handshake_token`.
    pub token: Option<String>,
    /// The status of the answer.
    #[serde(default = "ok")]
    pub status: u16,
    /// An answer in plain text.
    pub text: Option<String>,
    /// An answer in JSON, its values templates.
    #[serde(default)]
    pub json: BTreeMap<String, String>,
    /// An answer in JSON that is always the same.
    pub fixed_json: Option<String>,
    /// The headers of the answer.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// An address that the sender wants visited before it is answered.
    pub visit: Option<VisitWords>,
}

/// The words of an address that is visited.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisitWords {
    /// Where the request names it.
    pub named_by: String,
    /// Patterns of what it may name.
    pub addresses: Vec<String>,
    /// Where the request says whose it is: the `id` of one of the source's secrets.
    pub secret_id: String,
}

fn post() -> String {
    "POST".to_owned()
}

fn ok() -> u16 {
    200
}

/// What a sender asks before it sends events, and what it wants to hear.
#[derive(Clone, Debug)]
pub struct Handshake {
    method: String,
    when: Option<(Place, Option<String>)>,
    unless: Option<Place>,
    is_signed: bool,
    token: Option<Place>,
    status: u16,
    body: Body,
    headers: Vec<(String, Template)>,
    visit: Option<Visit>,
    pointers: Pointers,
}

#[derive(Clone, Debug)]
struct Visit {
    place: Place,
    addresses: Vec<Pattern>,
    secret_id: Place,
}

#[derive(Clone, Debug)]
enum Body {
    Empty,
    Text(Template),
    Json(Vec<(String, Template)>),
    Fixed(String),
}

/// Text with values of the request in it.
#[derive(Clone, Debug)]
struct Template(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Literal(String),
    Value(Place),
    /// The HMAC of a value by the source's first secret.
    Signed(Encoding, Place),
    /// As eBay wants it.
    Ebay(Place),
    /// As Braintree wants it.
    Braintree(Place),
}

/// What the sender hears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The kind of the body; `None` where there is none.
    pub content_type: Option<&'static str>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// The address that is to be visited first, which is the sender's.
    pub visit: Option<String>,
}

/// What is known when a request is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'s> {
    /// With which of the secrets the request was signed, where it is known to be the sender's.
    pub signed_by: Option<MatchedKey>,
    /// The source's secrets.
    pub keys: &'s [SigningKey],
    /// The word that the user told the sender.
    pub token: Option<&'s Secret>,
    /// The URL that the sender was given.
    pub url: &'s str,
}

impl<'s> Standing<'s> {
    /// The secret that the sender has: the one that it signed with, and where nothing is signed the
    /// first.
    fn key(&self) -> Option<&'s SigningKey> {
        match self.signed_by {
            Some(MatchedKey(place)) => self.keys.get(place),
            None => self.keys.first(),
        }
    }
}

impl Handshake {
    /// Reads one; `None` where a word means nothing.
    pub fn from_words(words: &Words) -> Option<Self> {
        let condition = |text: &String| {
            let (place, value) = text.split_once(" = ").map_or((text.as_str(), None), |(p, v)| (p, Some(v)));
            Some((Place::from_words(place)?, value.map(str::to_owned)))
        };
        let templates = |all: &BTreeMap<String, String>| -> Option<Vec<_>> {
            all.iter().map(|(name, text)| Some((name.clone(), Template::from_words(text)?))).collect()
        };
        let place = |words: &Option<String>| match words {
            None => Some(None),
            Some(words) => Place::from_words(words).map(Some),
        };
        let body = match (&words.text, &words.fixed_json) {
            (Some(text), _) => Body::Text(Template::from_words(text)?),
            (None, Some(json)) => Body::Fixed(json.clone()),
            (None, None) if words.json.is_empty() => Body::Empty,
            (None, None) => Body::Json(templates(&words.json)?),
        };
        let when = match &words.when {
            None => None,
            Some(text) => Some(condition(text)?),
        };
        let (unless, token) = (place(&words.unless)?, place(&words.token)?);
        let headers = templates(&words.headers)?;
        let in_templates = match &body {
            Body::Text(template) => template.places().collect::<Vec<_>>(),
            Body::Json(fields) => fields.iter().flat_map(|(_, template)| template.places()).collect(),
            Body::Empty | Body::Fixed(_) => Vec::new(),
        };
        let visit = match &words.visit {
            None => None,
            Some(words) => Some(Visit::from_words(words)?),
        };
        let visited = visit.iter().flat_map(|visit| [&visit.place, &visit.secret_id]);
        let conditions = when.iter().map(|(place, _)| place).chain(&unless);
        let pointers = Pointers::of(in_templates.into_iter().chain(conditions).chain(visited));
        Some(Self {
            method: words.method.clone(),
            when,
            unless,
            is_signed: words.is_signed,
            token,
            status: words.status,
            body,
            headers,
            visit,
            pointers,
        })
    }

    /// The method of such a request.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Whether the URL that the sender was given is part of the answer.
    pub fn tells_url(&self) -> bool {
        let tells = |template: &Template| template.0.iter().any(|piece| matches!(piece, Piece::Ebay(_)));
        match &self.body {
            Body::Empty | Body::Fixed(_) => false,
            Body::Text(template) => tells(template),
            Body::Json(entries) => entries.iter().any(|(_, template)| tells(template)),
        }
    }

    /// Whether a word is needed that the user told the sender.
    pub fn needs_token(&self) -> bool {
        self.token.is_some() || self.tells_url()
    }

    /// Whether `body` may be a challenge that was signed for a stranger, and is no event.
    pub fn may_have_signed(&self, body: &[u8]) -> bool {
        let signs = |template: &Template| template.0.iter().any(|piece| matches!(piece, Piece::Signed(..)));
        let signs_any = match &self.body {
            Body::Empty | Body::Fixed(_) => false,
            Body::Text(template) => signs(template),
            Body::Json(entries) => entries.iter().any(|(_, template)| signs(template)),
        };
        signs_any && !self.is_signed && std::str::from_utf8(body).is_ok_and(is_word)
    }

    /// What to answer to `request`; `None` where it is no handshake of this kind, or not yet known to
    /// be the sender's where it must be.
    pub fn answer(
        &self,
        request: &UnverifiedRequest<'_>,
        standing: Standing<'_>,
        trace: &mut impl Trace,
    ) -> Option<Result<Reply, Rejection>> {
        if self.method != request.method || self.is_signed != standing.signed_by.is_some() {
            return None;
        }
        let found = self.pointers.look_up(request.body);
        let may_visit = self.visit.as_ref().is_none_or(|visit| visit.is_ours(request, &found, standing.keys));
        (self.is_meant(request, &found) && may_visit).then(|| self.reply(request, &found, standing, trace))
    }

    /// What to tell the user of a verified `request` that wants an address visited for somebody whom no
    /// secret names.
    pub fn advice(&self, request: &UnverifiedRequest<'_>, keys: &[SigningKey]) -> Option<String> {
        let visit = self.visit.as_ref()?;
        let found = self.pointers.look_up(request.body);
        if !self.is_meant(request, &found) || visit.is_ours(request, &found, keys) {
            return None;
        }
        let id = find(request, &visit.secret_id, &found)?;
        let id: String = String::from_utf8_lossy(&id).chars().filter(|c| !c.is_control()).take(256).collect();
        Some(format!(
            "the sender wants a subscription confirmed, and no secret of this source names its topic: it is not, and the request is an event. If it is yours, add id = {id:?} to the secret and have the sender ask again"
        ))
    }

    fn is_meant(&self, request: &UnverifiedRequest<'_>, found: &Found<'_>) -> bool {
        let is_there = |place: &Place| find(request, place, found).filter(|value| !value.is_empty());
        let is_meant = self.when.as_ref().is_none_or(|(place, wanted)| {
            is_there(place)
                .is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted.as_bytes() == value.as_ref()))
        });
        is_meant && self.unless.as_ref().is_none_or(|place| is_there(place).is_none())
    }

    fn reply(
        &self,
        request: &UnverifiedRequest<'_>,
        found: &Found<'_>,
        standing: Standing<'_>,
        trace: &mut impl Trace,
    ) -> Result<Reply, Rejection> {
        if let Some(place) = &self.token {
            let shown = find(request, place, found).unwrap_or_default();
            let is_right = standing.token.is_some_and(|token| bool::from(token.reveal().ct_eq(&shown)));
            if !is_right {
                return Err(trace.failed(Step::Handshake, Rejection::SignatureMismatch, || {
                    format!("{place} is not the source's handshake_token; set it to what the sender was told")
                }));
            }
        }
        let visit = self.visit.as_ref().map(|visit| visit.address(request, found));
        if visit == Some(None) {
            let words = || "the address that is to be visited is not the sender's".to_owned();
            return Err(trace.failed(Step::Handshake, Rejection::Unreadable, words));
        }
        let fill = |template: &Template| template.fill(request, found, standing);
        let json = |fields: &[(String, Template)]| -> Option<String> {
            let fields =
                fields.iter().map(|(name, template)| Some((name.clone(), Value::String(fill(template)?))));
            Some(Value::Object(fields.collect::<Option<Map<_, _>>>()?).to_string())
        };
        let body = match &self.body {
            Body::Empty => Some((None, String::new())),
            Body::Text(template) => fill(template).map(|text| (Some("text/plain"), text)),
            Body::Json(fields) => json(fields).map(|json| (Some("application/json"), json)),
            Body::Fixed(json) => Some((Some("application/json"), json.clone())),
        };
        let headers = self.headers.iter().map(|(name, template)| Some((name.clone(), fill(template)?)));
        let (Some((content_type, body)), Some(headers)) = (body, headers.collect()) else {
            let words =
                || "the challenge is missing, too long, or not of a form that may come back".to_owned();
            return Err(trace.failed(Step::Handshake, Rejection::Unreadable, words));
        };
        trace.passed(Step::Handshake, || {
            "the sender asks whether this address is yours; it is told".to_owned()
        });
        Ok(Reply { status: self.status, content_type, headers, body, visit: visit.flatten() })
    }
}

impl Visit {
    fn from_words(words: &VisitWords) -> Option<Self> {
        let addresses =
            words.addresses.iter().map(|text| Pattern::from_words(text)).collect::<Option<_>>()?;
        let place = Place::from_words(&words.named_by)?;
        Some(Self { place, addresses, secret_id: Place::from_words(&words.secret_id)? })
    }

    fn is_ours(&self, request: &UnverifiedRequest<'_>, found: &Found<'_>, keys: &[SigningKey]) -> bool {
        let id = find(request, &self.secret_id, found);
        id.is_some_and(|id| keys.iter().any(|key| key.id.as_deref().map(str::as_bytes) == Some(&*id)))
    }

    fn address(&self, request: &UnverifiedRequest<'_>, found: &Found<'_>) -> Option<String> {
        let address = String::from_utf8(find(request, &self.place, found)?.into_owned()).ok()?;
        self.addresses.iter().any(|pattern| pattern.fits(&address)).then_some(address)
    }
}

impl Template {
    fn from_words(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}')?;
            pieces.push(Piece::Literal(literal.to_owned()));
            pieces.push(match name.split_once(':')? {
                ("hmac-hex", place) => Piece::Signed(Encoding::Hex, Place::from_words(place)?),
                ("braintree", place) => Piece::Braintree(Place::from_words(place)?),
                ("ebay", place) => Piece::Ebay(Place::from_words(place)?),
                ("hmac-base64", place) => Piece::Signed(Encoding::Base64, Place::from_words(place)?),
                _ => Piece::Value(Place::from_words(name)?),
            });
            rest = after;
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        Some(Self(pieces))
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Value(place) | Piece::Signed(_, place) | Piece::Ebay(place) | Piece::Braintree(place) => {
                Some(place)
            }
        })
    }

    fn fill(
        &self,
        request: &UnverifiedRequest<'_>,
        found: &Found<'_>,
        standing: Standing<'_>,
    ) -> Option<String> {
        let value = |place: &Place| {
            let value = find(request, place, found)?;
            let is_short = !value.is_empty() && value.len() <= LONGEST;
            let text = String::from_utf8(value.into_owned()).ok().filter(|_| is_short)?;
            (!text.chars().any(char::is_control)).then_some(text)
        };
        let one = |piece: &Piece| match piece {
            Piece::Literal(text) => Some(text.clone()),
            Piece::Value(place) => value(place),
            Piece::Signed(encoding, place) => {
                let challenge = value(place).filter(|text| is_word(text))?;
                Some(encoding.encode(&standing.key()?.sign(challenge.as_bytes())?))
            }
            Piece::Ebay(place) => {
                Some(ebay::challenge_response(&value(place)?, standing.token?.reveal(), standing.url))
            }
            Piece::Braintree(place) => braintree::challenge_response(&value(place)?, standing.key()?),
        };
        self.0.iter().map(one).collect()
    }
}

/// Whether `text` can be signed for anybody: no JSON, no form, nothing with a time before a colon.
fn is_word(text: &str) -> bool {
    text.trim_end_matches('=').bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+/".contains(&byte))
}
