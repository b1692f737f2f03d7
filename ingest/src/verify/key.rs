//! What a source's secrets become: keys that signatures are held against.

use std::convert::Infallible;
use std::sync::Arc;

use ring::{digest, hmac};
use subtle::ConstantTimeEq;
use unicode_normalization::UnicodeNormalization;

use super::explain::{Step, Trace};
use super::private_key::PrivateKey;
use super::public_key::{Kind, PublicKey};
use super::signature::Encoding;
use crate::rejection::Rejection;

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
    /// Its text in Unicode's normal form KD.
    Nfkd,
    /// A public key in base64 DER or PEM.
    Spki,
}

/// A secret of a source, ready to compute with.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// What metrics call it: its id, or its place in the list.
    pub label: String,
    /// What its sender calls it, where it does.
    pub id: Option<String>,
    /// As each of the ways of its source's scheme computes with it.
    pub(super) keys: Vec<Key>,
}

/// A source's secrets, as one way of its scheme computes with them.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'k> {
    pub(super) all: &'k [SigningKey],
    pub(super) way: usize,
    /// The one that the request names, where it has been read.
    pub(super) published: Option<&'k Key>,
}

/// What a secret is computed with.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Hmac(hmac::Key),
    /// Stands in what is hashed.
    Secret(Vec<u8>),
    Public(PublicKey),
    /// The other half of a public one, made to try a source.
    Private(Arc<PrivateKey>),
    /// Of each algorithm that a token may be signed with.
    Tokens(Vec<(TokenAlgorithm, Key)>),
    /// Stands for one that the sender publishes and the request names.
    Published,
}

/// Which of a source's keys signed a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchedKey(pub usize);

/// How a signature is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// An HMAC.
    Hmac(hmac::Algorithm),
    /// The hash of a text that holds the secret.
    Digest(&'static digest::Algorithm),
    /// By a pair of keys.
    Public(Kind),
}

/// How a token may be signed, as RFC 7518 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA with PKCS #1 v1.5 and SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl TokenAlgorithm {
    /// All of them.
    const ALL: [TokenAlgorithm; 5] = [
        TokenAlgorithm::Hs256,
        TokenAlgorithm::Hs384,
        TokenAlgorithm::Hs512,
        TokenAlgorithm::Rs256,
        TokenAlgorithm::Es256,
    ];

    /// As a token names it.
    pub fn name(self) -> &'static str {
        match self {
            TokenAlgorithm::Hs256 => "HS256",
            TokenAlgorithm::Hs384 => "HS384",
            TokenAlgorithm::Hs512 => "HS512",
            TokenAlgorithm::Rs256 => "RS256",
            TokenAlgorithm::Es256 => "ES256",
        }
    }

    /// Reads the names of some, with `|` between.
    pub fn from_words(words: &str) -> Option<Vec<Self>> {
        let one = |word: &str| {
            let mut all = Self::ALL.into_iter();
            all.find(|algorithm| algorithm.name().eq_ignore_ascii_case(word.trim()))
        };
        words.split('|').map(one).collect()
    }

    /// How it is computed.
    pub fn algorithm(self) -> Algorithm {
        match self {
            TokenAlgorithm::Hs256 => Algorithm::Hmac(hmac::HMAC_SHA256),
            TokenAlgorithm::Hs384 => Algorithm::Hmac(hmac::HMAC_SHA384),
            TokenAlgorithm::Hs512 => Algorithm::Hmac(hmac::HMAC_SHA512),
            TokenAlgorithm::Rs256 => Algorithm::Public(Kind::RsaSha256),
            TokenAlgorithm::Es256 => Algorithm::Public(Kind::EcdsaP256Fixed),
        }
    }
}

impl Algorithm {
    /// How many bytes a signature has, where that is fixed.
    pub fn signature_bytes(self) -> Option<usize> {
        match self {
            Algorithm::Hmac(algorithm) => Some(algorithm.digest_algorithm().output_len()),
            Algorithm::Digest(algorithm) => Some(algorithm.output_len()),
            Algorithm::Public(Kind::Ed25519 | Kind::EcdsaP256Fixed) => Some(64),
            Algorithm::Public(Kind::EcdsaP256 | Kind::EcdsaP256Sha1 | Kind::RsaSha1 | Kind::RsaSha256) => {
                None
            }
        }
    }

    /// Makes a key of the private half of a pair, in PEM; `None` where the sender has no pair.
    pub(super) fn private_key(self, pem: &[u8]) -> Option<Key> {
        match self {
            Algorithm::Public(kind) => PrivateKey::read(kind, pem).map(Arc::new).map(Key::Private),
            Algorithm::Hmac(_) | Algorithm::Digest(_) => None,
        }
    }

    /// Makes a key of `secret`; `None` where it is not written as `form` says, and where nothing but
    /// zero bytes is left of it, which to an HMAC is the same as no key at all.
    pub(super) fn key(self, form: KeyForm, secret: &[u8]) -> Option<Key> {
        match self {
            Algorithm::Hmac(algorithm) => {
                let bytes = form.key_bytes(secret)?;
                bytes.iter().any(|byte| *byte != 0).then(|| Key::Hmac(hmac::Key::new(algorithm, &bytes)))
            }
            Algorithm::Digest(_) => form.key_bytes(secret).map(Key::Secret),
            Algorithm::Public(kind) => {
                let encoding = if form == KeyForm::Hex { Encoding::Hex } else { Encoding::Base64 };
                PublicKey::read(kind, encoding, secret).map(Key::Public)
            }
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
            "nfkd" => Some(KeyForm::Nfkd),
            "spki" => Some(KeyForm::Spki),
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
                // Some show it with the version of what it signs.
                let text = text.strip_prefix("v1,").unwrap_or(text);
                Encoding::Base64.decode(text.strip_prefix("whsec_").unwrap_or(text))
            }
            KeyForm::Nfkd => Some(text()?.nfkd().collect::<String>().into_bytes()),
            KeyForm::Spki => None,
        }
    }
}

/// Whether one of `signatures` equals `expected`. Each is compared to its end, and none is left out
/// once another fits.
pub(super) fn fits_any(expected: &[u8], signatures: &[Vec<u8>]) -> bool {
    signatures.iter().fold(false, |fits, signature| fits | bool::from(expected.ct_eq(signature)))
}

impl SigningKey {
    /// Whether it stands for keys that the sender publishes.
    pub fn is_published(&self) -> bool {
        self.keys.iter().any(|key| matches!(key, Key::Published))
    }

    /// The HMAC of `text`, where its sender signs with one.
    pub(super) fn sign(&self, text: &[u8]) -> Option<Vec<u8>> {
        match self.keys.first()? {
            Key::Hmac(key) => Some(hmac::sign(key, text).as_ref().to_vec()),
            Key::Secret(_) | Key::Public(_) | Key::Private(_) | Key::Tokens(_) | Key::Published => None,
        }
    }
}

impl Keys<'_> {
    /// The first that fits. None is left out once another has, so that the time does not tell which
    /// one it was.
    pub(super) fn first_fitting(self, mut fits: impl FnMut(&SigningKey, &Key) -> bool) -> Option<MatchedKey> {
        let Ok(matched) = self.try_first_fitting::<Infallible>(|secret, key| Ok(fits(secret, key)));
        matched
    }

    /// The same, where it may turn out that nothing can be computed.
    pub(super) fn try_first_fitting<E>(
        self,
        mut fits: impl FnMut(&SigningKey, &Key) -> Result<bool, E>,
    ) -> Result<Option<MatchedKey>, E> {
        let mut matched = None;
        for (index, secret) in self.all.iter().enumerate() {
            let fits = self.key_of(secret).map(|key| fits(secret, key)).transpose()?;
            if fits == Some(true) && matched.is_none() {
                matched = Some(MatchedKey(index));
            }
        }
        Ok(matched)
    }

    fn key_of<'s>(&'s self, secret: &'s SigningKey) -> Option<&'s Key> {
        let key = secret.keys.get(self.way)?;
        if matches!(key, Key::Published) { self.published } else { Some(key) }
    }

    /// Whether one that would have to be read first might fit.
    pub(super) fn awaits(&self) -> bool {
        let is_published = |secret: &SigningKey| matches!(secret.keys.get(self.way), Some(Key::Published));
        self.published.is_none() && self.all.iter().any(is_published)
    }

    /// Whether one of the secrets is such.
    pub(super) fn any(&self, is_such: impl Fn(&SigningKey) -> bool) -> bool {
        self.all.iter().any(is_such)
    }

    /// The verdict on the signature, of which `matched` was found: in words `fits` and the secret's
    /// label, or `none`.
    pub(super) fn verdict(
        self,
        matched: Option<MatchedKey>,
        fits: &str,
        none: impl FnOnce(usize) -> String,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        match matched {
            Some(matched) => {
                trace.passed(Step::Signature, || format!("{fits} {}", self.label(matched)));
                Ok(matched)
            }
            // The scheme tells which one, and from where.
            None if self.awaits() => Err(Rejection::KeyUnavailable),
            None => Err(trace.failed(Step::Signature, Rejection::SignatureMismatch, || none(self.count()))),
        }
    }

    /// What metrics call secret number `index`.
    pub(super) fn label(&self, MatchedKey(index): MatchedKey) -> &str {
        self.all.get(index).map_or("", |secret| secret.label.as_str())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }
}
