//! How a sender proves that a request is its own: one way, or several of which each request takes
//! one. Each way is a file, and this tells them apart.

use std::borrow::Cow;
use std::sync::Arc;

use super::adyen::Adyen;
use super::braintree::Braintree;
use super::credential::Credential;
use super::draft::{Draft, Signing};
use super::ebay::Ebay;
use super::explain::{Step, Trace};
use super::facts::Facts;
use super::jwt::Jwt;
use super::key::{Algorithm, Key, Keys, MatchedKey, SigningKey};
use super::plivo::Plivo;
use super::public_key::Kind;
use super::published::{KeyName, KeySource, PublishedKey, Signs};
use super::recipe::Recipe;
use super::request::UnverifiedRequest;
use super::sns::Sns;
use super::twilio::Twilio;
use super::value::Place;
use crate::rejection::Rejection;

/// How a sender proves that a request is its own.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// Tried in this order; there is one at least.
    ways: Vec<Way>,
    /// Where the sender publishes its keys, if we know that.
    published: Option<Arc<KeySource>>,
}

/// One way of proving it.
#[derive(Clone, Debug)]
pub enum Way {
    /// It signs, in a way that words describe.
    Recipe(Box<Recipe>),
    /// It shows a secret.
    Credential(Credential),
    /// It signs the URL and the fields of a form.
    Twilio(Twilio),
    /// It signs fields of each item in the body.
    Adyen(Adyen),
    /// It signs a token that names the body's hash.
    Jwt(Box<Jwt>),
    /// It signs fields of the body with a certificate's key.
    Sns(Sns),
    /// It signs with SHA-1 and names its key in JSON.
    Ebay(Ebay),
    /// It signs a field of a form.
    Braintree(Braintree),
    /// It signs the URL and the fields of a form, sorted.
    Plivo(Plivo),
    /// It proves nothing, and the user has said that this is meant.
    Unsigned,
}

impl Way {
    fn facts(&self) -> Facts {
        match self {
            Way::Recipe(recipe) => recipe.facts(),
            Way::Credential(credential) => credential.facts(),
            Way::Twilio(twilio) => twilio.facts(),
            Way::Adyen(adyen) => adyen.facts(),
            Way::Jwt(jwt) => jwt.facts(),
            Way::Sns(sns) => sns.facts(),
            Way::Ebay(ebay) => ebay.facts(),
            Way::Braintree(braintree) => braintree.facts(),
            Way::Plivo(plivo) => plivo.facts(),
            Way::Unsigned => Facts::default(),
        }
    }

    fn key(&self, secret: &[u8]) -> Option<Key> {
        match self {
            Way::Recipe(recipe) => recipe.key(secret),
            Way::Credential(credential) => credential.key(secret),
            Way::Twilio(twilio) => twilio.key(secret),
            Way::Adyen(adyen) => adyen.key(secret),
            Way::Jwt(jwt) => jwt.key(secret),
            Way::Sns(sns) => sns.key(secret),
            Way::Ebay(ebay) => ebay.key(secret),
            Way::Braintree(braintree) => braintree.key(secret),
            Way::Plivo(plivo) => plivo.key(secret),
            Way::Unsigned => None,
        }
    }

    fn private_key(&self, pem: &[u8]) -> Option<Key> {
        match self {
            Way::Recipe(recipe) => recipe.algorithm.private_key(pem),
            Way::Jwt(jwt) => jwt.private_key(pem),
            Way::Sns(sns) => sns.private_key(pem),
            Way::Ebay(ebay) => ebay.private_key(pem),
            Way::Credential(_)
            | Way::Twilio(_)
            | Way::Adyen(_)
            | Way::Braintree(_)
            | Way::Plivo(_)
            | Way::Unsigned => None,
        }
    }

    /// How it signs, where it has a pair of keys of which it could publish one.
    pub(super) fn signs(&self) -> Option<Signs> {
        match self {
            Way::Recipe(recipe) => match recipe.algorithm {
                Algorithm::Public(kind) => Some(Signs::As(kind)),
                Algorithm::Hmac(_) | Algorithm::Digest(_) => None,
            },
            Way::Sns(_) => Some(Signs::As(Kind::RsaSha256)),
            Way::Jwt(jwt) => Some(Signs::Tokens(jwt.algorithms.clone())),
            Way::Credential(_)
            | Way::Twilio(_)
            | Way::Adyen(_)
            | Way::Ebay(_)
            | Way::Braintree(_)
            | Way::Plivo(_)
            | Way::Unsigned => None,
        }
    }

    /// Whether `request` was sent this way, as far as can be told without a secret.
    fn is_taken_by(&self, request: &UnverifiedRequest<'_>) -> bool {
        match self {
            Way::Recipe(recipe) => recipe.is_taken_by(request),
            Way::Credential(credential) => credential.is_taken_by(request),
            Way::Twilio(_) | Way::Jwt(_) | Way::Ebay(_) => {
                self.facts().header.is_some_and(|name| request.headers.first(&name).is_some())
            }
            Way::Adyen(adyen) => adyen.is_taken_by(request),
            Way::Sns(sns) => sns.is_taken_by(request),
            Way::Braintree(braintree) => braintree.is_taken_by(request),
            Way::Plivo(plivo) => plivo.is_taken_by(request),
            Way::Unsigned => true,
        }
    }

    /// The words that describe it, if words do.
    fn recipe(&self) -> Option<&Recipe> {
        match self {
            Way::Recipe(recipe) => Some(recipe),
            Way::Credential(_)
            | Way::Twilio(_)
            | Way::Adyen(_)
            | Way::Jwt(_)
            | Way::Sns(_)
            | Way::Ebay(_)
            | Way::Braintree(_)
            | Way::Plivo(_)
            | Way::Unsigned => None,
        }
    }

    fn verify(
        &self,
        request: &UnverifiedRequest<'_>,
        url: &str,
        keys: Keys<'_>,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        match self {
            Way::Recipe(recipe) => recipe.verify(request, url, keys, trace),
            Way::Credential(credential) => credential.verify(request, keys, trace),
            Way::Twilio(twilio) => twilio.verify(request, url, keys, trace),
            Way::Adyen(adyen) => adyen.verify(request, keys, trace),
            Way::Jwt(jwt) => jwt.verify(request, url, keys, trace),
            Way::Sns(sns) => sns.verify(request, keys, trace),
            Way::Ebay(ebay) => ebay.verify(request, keys, trace),
            Way::Braintree(braintree) => braintree.verify(request, keys, trace),
            Way::Plivo(plivo) => plivo.verify(request, url, keys, trace),
            Way::Unsigned => {
                trace.passed(Step::Signature, || "nothing is signed: anybody may have sent this".to_owned());
                Ok(MatchedKey(0))
            }
        }
    }

    fn field<'r>(&self, request: &UnverifiedRequest<'r>, name: &str) -> Option<Cow<'r, [u8]>> {
        match self {
            Way::Recipe(recipe) => recipe.field(request, name).map(Cow::Borrowed),
            Way::Jwt(jwt) => jwt.claim(request, name).map(|claim| Cow::Owned(claim.into_bytes())),
            Way::Credential(_)
            | Way::Twilio(_)
            | Way::Adyen(_)
            | Way::Sns(_)
            | Way::Ebay(_)
            | Way::Braintree(_)
            | Way::Plivo(_)
            | Way::Unsigned => None,
        }
    }

    fn sign(&self, draft: &mut Draft, key: &SigningKey, signing: &Signing<'_>) -> Option<()> {
        let computed = key.keys.first()?;
        match self {
            Way::Recipe(recipe) => recipe.sign(draft, key, signing),
            Way::Credential(credential) => credential.sign(draft, computed),
            Way::Twilio(twilio) => twilio.sign(draft, computed, signing),
            Way::Adyen(adyen) => adyen.sign(draft, computed),
            Way::Jwt(jwt) => jwt.sign(draft, key, signing),
            Way::Sns(sns) => sns.sign(draft, key, signing),
            Way::Ebay(ebay) => ebay.sign(draft, key),
            Way::Braintree(braintree) => braintree.sign(draft, key),
            Way::Plivo(plivo) => plivo.sign(draft, computed, signing),
            Way::Unsigned => None,
        }
    }
}

impl Scheme {
    /// One of several ways, the first of which counts where none is taken.
    pub fn new(first: Way, others: impl IntoIterator<Item = Way>) -> Self {
        Self { ways: std::iter::once(first).chain(others).collect(), published: None }
    }

    /// The same, of a sender that publishes its keys there.
    pub(super) fn with_published(self, published: Option<KeySource>) -> Self {
        Self { published: published.map(Arc::new), ..self }
    }

    /// Where its sender publishes its keys, if we know that.
    pub fn published(&self) -> Option<&Arc<KeySource>> {
        self.published.as_ref()
    }

    /// The published key that `request` names, which is to be read before it can be verified.
    pub fn key_name(&self, request: &UnverifiedRequest<'_>) -> Option<KeyName> {
        let id = match self.ways.first() {
            Some(Way::Jwt(jwt)) => jwt.key_id(request),
            Some(
                Way::Recipe(_)
                | Way::Credential(_)
                | Way::Twilio(_)
                | Way::Adyen(_)
                | Way::Sns(_)
                | Way::Ebay(_)
                | Way::Braintree(_)
                | Way::Plivo(_)
                | Way::Unsigned,
            )
            | None => None,
        };
        self.published.as_ref()?.name(request, id)
    }

    /// What stands for a key that is read when a request names it.
    pub fn published_key(&self, label: String, id: Option<String>) -> SigningKey {
        SigningKey { label, id, keys: self.ways.iter().map(|_| Key::Published).collect() }
    }

    /// Makes a key of `secret`; `None` where it is not written as its sender shows it.
    pub fn key(&self, label: String, id: Option<String>, secret: &[u8]) -> Option<SigningKey> {
        let keys: Option<Vec<_>> = self.ways.iter().map(|way| way.key(secret)).collect();
        Some(SigningKey { label, id, keys: keys? })
    }

    /// Makes a key to sign with of the private half of a pair, in PEM; `None` where the sender has no
    /// pair, or this is none of its kind.
    pub fn private_key(&self, id: Option<String>, pem: &[u8]) -> Option<SigningKey> {
        let key = self.ways.first()?.private_key(pem)?;
        Some(SigningKey { label: String::new(), id, keys: vec![key] })
    }

    /// Whether its sender proves nothing.
    pub fn is_unsigned(&self) -> bool {
        self.ways.iter().any(|way| matches!(way, Way::Unsigned))
    }

    /// Whether the URL is signed in one way at least, if not in all.
    pub fn may_cover_url(&self) -> bool {
        self.ways.iter().any(|way| way.facts().covers_url)
    }

    /// What is known of it without any request: of several ways, the first names the header, and only
    /// what all of them need must be there; a secret may lie where any of them has it.
    pub fn facts(&self) -> Facts {
        let all = self.ways.iter().map(Way::facts);
        let both = |one: Facts, other: Facts| Facts {
            covers_body: one.covers_body && other.covers_body,
            covers_url: one.covers_url && other.covers_url,
            needs_ids: one.needs_ids && other.needs_ids,
            secret_places: [one.secret_places, other.secret_places].concat(),
            ..one
        };
        all.reduce(both).unwrap_or_default()
    }

    /// The value of another pair of the signature header, or of a claim of the token in it.
    pub fn field<'r>(&self, request: &UnverifiedRequest<'r>, name: &str) -> Option<Cow<'r, [u8]>> {
        self.ways.get(self.way_of(request))?.field(request, name)
    }

    /// The JSON of a request: its body, or a part of it.
    pub fn document<'r>(&self, request: &UnverifiedRequest<'r>) -> Cow<'r, [u8]> {
        match self.ways.first() {
            Some(Way::Recipe(recipe)) => recipe.document(request),
            Some(
                Way::Credential(_)
                | Way::Twilio(_)
                | Way::Adyen(_)
                | Way::Jwt(_)
                | Way::Sns(_)
                | Way::Ebay(_)
                | Way::Braintree(_)
                | Way::Plivo(_)
                | Way::Unsigned,
            )
            | None => Cow::Borrowed(request.body),
        }
    }

    /// Adds to `draft` what the sender would with `key`, the first way; `None` where only the sender
    /// can, for `key` is a public one.
    pub fn sign(&self, draft: &mut Draft, key: &SigningKey, signing: &Signing<'_>) -> Option<()> {
        self.ways.first()?.sign(draft, key, signing)
    }

    /// Tells which of `secrets` vouches for `request`; `published` is the key that it names, where that
    /// has been read.
    pub fn verify(
        &self,
        request: &UnverifiedRequest<'_>,
        url: &str,
        secrets: &[SigningKey],
        published: Option<&PublishedKey>,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let way = self.way_of(request);
        let keys = Keys { all: secrets, way, published: published.map(|key| &*key.0) };
        let verdict = self.ways[way].verify(request, url, keys, trace);
        if verdict != Err(Rejection::KeyUnavailable) {
            return verdict;
        }
        let step = Step::Signature;
        Err(match self.key_name(request) {
            Some(name) => trace.failed(step, Rejection::KeyUnavailable, || {
                let id = name.id().map_or(String::new(), |id| format!(" ({id:?})"));
                format!(
                    "the key stands at {}{id} and was not fetched; offline, save it and name it in secrets as {{ file = \"…\" }}",
                    name.address()
                )
            }),
            None => trace.failed(step, Rejection::SignatureMismatch, || {
                let hosts = self.published.as_ref().map_or(String::new(), |published| published.hosts());
                format!("names no key at {hosts}, and none is fetched from elsewhere")
            }),
        })
    }

    /// Whether the way that `request` takes signs what lies at `place`.
    pub fn signs(&self, request: &UnverifiedRequest<'_>, place: &Place) -> bool {
        let recipe = self.ways.get(self.way_of(request)).and_then(Way::recipe);
        recipe.is_some_and(|recipe| recipe.signs(place))
    }

    fn way_of(&self, request: &UnverifiedRequest<'_>) -> usize {
        if self.ways.len() == 1 {
            return 0;
        }
        let first = self.ways.iter().position(|way| way.is_taken_by(request)).unwrap_or(0);
        // Ways of one header differ in how long their signatures are.
        let header = self.ways[first].facts().header;
        let fits = |way: &Way| {
            way.facts().header == header
                && way.recipe().is_some_and(|recipe| recipe.has_whole_signature(request))
        };
        self.ways.iter().skip(first).position(fits).map_or(first, |after| first + after)
    }
}
