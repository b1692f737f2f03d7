//! How a sender proves that a request is its own: each way is a file, and this tells them apart.

use hookwell_common::time::Timestamp;

use super::credential::Credential;
use super::explain::Trace;
use super::key::{MatchedKey, SigningKey};
use super::recipe::Recipe;
use super::request::UnverifiedRequest;
use super::value::Place;
use crate::rejection::Rejection;

/// How a sender proves that a request is its own.
#[derive(Clone, Debug)]
pub enum Scheme {
    /// It signs, in a way that words describe.
    Recipe(Box<Recipe>),
    /// It shows a secret.
    Credential(Credential),
}

/// What a sender adds to a request that it signs.
#[derive(Clone, Copy, Debug)]
pub struct Signing<'s> {
    /// The body, byte for byte.
    pub body: &'s [u8],
    /// The URL that the sender was given.
    pub url: &'s str,
    /// When it signs.
    pub now: Timestamp,
    /// The value of a signed header that means nothing to us.
    pub filler: &'s str,
}

impl Scheme {
    /// Makes a key of `secret`; `None` where it is not written as its sender shows it.
    pub fn key(&self, label: String, id: Option<String>, secret: &[u8]) -> Option<SigningKey> {
        let key = match self {
            Scheme::Recipe(recipe) => recipe.key(secret),
            Scheme::Credential(credential) => credential.key(secret),
        }?;
        Some(SigningKey { label, id, key })
    }

    /// How secrets are written, for messages.
    pub fn key_words(&self) -> String {
        match self {
            Scheme::Recipe(recipe) => recipe.key_words(),
            Scheme::Credential(credential) => credential.key_words().to_owned(),
        }
    }

    /// Whether the URL is signed, which must then be configured.
    pub fn covers_url(&self) -> bool {
        match self {
            Scheme::Recipe(recipe) => recipe.covers_url(),
            Scheme::Credential(_) => false,
        }
    }

    /// Whether an altered body is noticed.
    pub fn covers_body(&self) -> bool {
        match self {
            Scheme::Recipe(recipe) => recipe.covers_body(),
            Scheme::Credential(_) => false,
        }
    }

    /// The first header that holds what proves a request; `None` where it lies in the body.
    pub fn header(&self) -> Option<String> {
        match self {
            Scheme::Recipe(recipe) => recipe.signature().header(),
            Scheme::Credential(credential) => match credential.place() {
                Place::Header(name) => Some(name.clone()),
                Place::Field(_) | Place::Json(_) | Place::Form(_) | Place::Query(_) | Place::BodyHash => None,
            },
        }
    }

    /// Whether each key must have the id by which its sender names it.
    pub fn names_keys(&self) -> bool {
        self.recipe().is_some_and(Recipe::names_keys)
    }

    /// The recipe, where it is one.
    pub fn recipe(&self) -> Option<&Recipe> {
        match self {
            Scheme::Recipe(recipe) => Some(recipe),
            Scheme::Credential(_) => None,
        }
    }

    /// What the sender puts into the body to prove that it is its own, and where.
    pub fn shown_in_body(&self, key: &SigningKey) -> Option<(&Place, String)> {
        match self {
            Scheme::Recipe(_) => None,
            Scheme::Credential(credential) => {
                let is_in_body = matches!(credential.place(), Place::Json(_));
                let shown = credential.show(&key.key).filter(|_| is_in_body)?;
                Some((credential.place(), String::from_utf8(shown).ok()?))
            }
        }
    }

    /// Tells which of `keys` vouches for `request`.
    pub fn verify(
        &self,
        request: &UnverifiedRequest<'_>,
        url: &str,
        keys: &[SigningKey],
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        match self {
            Scheme::Recipe(recipe) => recipe.verify(request, url, keys, trace),
            Scheme::Credential(credential) => credential.verify(request, keys, trace),
        }
    }
}
