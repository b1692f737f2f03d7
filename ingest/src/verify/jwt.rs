//! Senders that sign a token (RFC 7519) which names the hash of the body, and often that of the URL.
//!
//! The algorithm is the source's and never the token's choice: a token of any other one, `none` above
//! all, fits with nothing.

use std::time::Duration;

use hookwell_common::time::Timestamp;
use ring::digest::{SHA256, digest};
use ring::hmac;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use super::draft::{Draft, Signing};
use super::explain::{Step, Trace};
use super::facts::Facts;
use super::header::{after, header_text};
use super::key::{Algorithm, Key, KeyForm, Keys, MatchedKey, SigningKey, TokenAlgorithm};
use super::request::UnverifiedRequest;
use super::signature::Encoding;
use super::value::Place;
use crate::rejection::Rejection;

/// For how long a token that we sign ourselves holds.
const LIFE: u64 = 60;

/// A sender that signs tokens.
#[derive(Clone, Debug)]
pub struct Jwt {
    /// The header with the token, in lower case.
    pub header: String,
    /// What stands before the token, without regard to case: `Bearer `.
    pub prefix: String,
    /// Those that may have signed it.
    pub algorithms: Vec<TokenAlgorithm>,
    /// What it must claim.
    pub claims: Claims,
}

/// What a token must claim beside a time that is not over.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Who issued it; `a | b` where it is one of two.
    pub issuer: Option<String>,
    /// The claim with the id of the secret.
    pub secret_id: Option<String>,
    /// The claim that must be true.
    pub is_true: Option<String>,
    /// The claim with the SHA-256 of the URL, in hexadecimal.
    pub url_hash: Option<String>,
    /// The claim with the URL itself.
    pub url: Option<String>,
    /// The claim with the SHA-256 of the body.
    pub body_hash: Option<String>,
    /// How that is written.
    #[serde(default = "hex")]
    pub encoding: String,
    /// Whether a token without that claim is taken, for some of the sender's have none.
    #[serde(default)]
    pub may_lack_body_hash: bool,
    /// Whether a token must have it also where the body is empty, for the same key signs other tokens.
    #[serde(default)]
    pub always_body_hash: bool,
    /// By how many seconds the sender's clock may be ahead of ours.
    #[serde(default)]
    pub leeway: u64,
    /// How long ago it may have been issued, where it does not say when it ends: seconds.
    pub max_age: Option<u64>,
}

fn hex() -> String {
    "hex".to_owned()
}

/// A token, not yet believed.
struct Token<'t> {
    algorithm: String,
    /// The key that it says it is signed with.
    kid: Option<String>,
    /// What is signed.
    content: &'t str,
    signature: Vec<u8>,
    claims: Map<String, Value>,
}

impl Jwt {
    pub(super) fn facts(&self) -> Facts {
        Facts {
            header: Some(self.header.clone()),
            covers_body: self.claims.body_hash.is_some() && !self.claims.may_lack_body_hash,
            covers_url: self.claims.url_hash.is_some() || self.claims.url.is_some(),
            needs_ids: self.claims.secret_id.is_some(),
            key_words: if self.is_secret() { "text" } else { "a public key" }.to_owned(),
            ..Facts::default()
        }
    }

    /// Whether it is signed with a secret that both sides know.
    fn is_secret(&self) -> bool {
        self.algorithms.iter().any(|algorithm| algorithm.hmac().is_some())
    }

    pub(super) fn key(&self, secret: &[u8]) -> Option<Key> {
        let keys = self.algorithms.iter().map(|algorithm| {
            let form = if algorithm.hmac().is_some() { KeyForm::Text } else { KeyForm::Spki };
            Some((*algorithm, algorithm.algorithm().key(form, secret)?))
        });
        keys.collect::<Option<_>>().map(Key::Tokens)
    }

    /// The private half of a pair of keys, in PEM.
    pub(super) fn private_key(&self, pem: &[u8]) -> Option<Key> {
        let algorithm = self.algorithms.first()?;
        algorithm.algorithm().private_key(pem).map(|key| Key::Tokens(vec![(*algorithm, key)]))
    }

    /// What the token of a request that is verified says of `name`.
    pub(super) fn claim(&self, request: &UnverifiedRequest<'_>, name: &str) -> Option<String> {
        let text = std::str::from_utf8(request.headers.first(&self.header)?).ok()?;
        let token = Token::read(after(text, &self.prefix)?)?;
        token.claims.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    /// The id of the key that the token of a request names.
    pub(super) fn key_id(&self, request: &UnverifiedRequest<'_>) -> Option<String> {
        let text = std::str::from_utf8(request.headers.first(&self.header)?).ok()?;
        Token::read(after(text, &self.prefix)?)?.kid
    }

    pub(super) fn verify(
        &self,
        request: &UnverifiedRequest<'_>,
        url: &str,
        keys: Keys<'_>,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let text = header_text(request, &self.header, trace)?;
        let token = after(text, &self.prefix).and_then(Token::read).ok_or_else(|| {
            let words = || format!("{} holds no token after {:?}", self.header, self.prefix);
            trace.failed(Step::SignatureForm, Rejection::Unreadable, words)
        })?;
        trace.passed(Step::SignatureForm, || format!("a token signed with {}", token.algorithm));
        let is_meant = |secret: &SigningKey| match &self.claims.secret_id {
            None => true,
            Some(claim) => secret.id.is_some() && secret.id.as_deref() == token.text(claim),
        };
        let fits = |secret: &SigningKey, key: &Key| is_meant(secret) && token.is_signed_with(key);
        let Some(matched) = keys.first_fitting(fits) else {
            // No key is read for a token that would be refused all the same.
            if keys.awaits() && keys.any(is_meant) {
                self.check_claims(&token, request, url, trace)?;
                self.check_times(&token, request.received_at, trace)?;
                return Err(Rejection::KeyUnavailable);
            }
            return Err(trace.failed(Step::Signature, Rejection::SignatureMismatch, || {
                let claim = self.claims.secret_id.as_ref();
                let others = claim.map_or(String::new(), |claim| format!(", or {claim} is the id of none"));
                format!("the token fits with none of {} secrets{others}", keys.count())
            }));
        };
        self.check_claims(&token, request, url, trace)?;
        trace.passed(Step::Signature, || format!("fits with secret {}", keys.label(matched)));
        self.check_times(&token, request.received_at, trace)?;
        Ok(matched)
    }

    fn check_claims(
        &self,
        token: &Token<'_>,
        request: &UnverifiedRequest<'_>,
        url: &str,
        trace: &mut impl Trace,
    ) -> Result<(), Rejection> {
        let Claims { issuer, is_true, url_hash, url: whole_url, body_hash, .. } = &self.claims;
        let mut wrong = None;
        let is_issuer = |issuers: &str| issuers.split(" | ").any(|one| token.text("iss") == Some(one));
        if issuer.as_deref().is_some_and(|issuers| !is_issuer(issuers)) {
            wrong = Some("iss is not this sender");
        }
        if is_true.as_ref().is_some_and(|claim| token.claims.get(claim) != Some(&Value::Bool(true))) {
            wrong = Some("a claim that must be true is not");
        }
        if let Some(claim) = url_hash
            && !is_hash(token.text(claim), Encoding::Hex, url.as_bytes())
        {
            wrong = Some("the URL is another one than public_url");
        }
        if whole_url.as_deref().is_some_and(|claim| token.text(claim) != Some(url)) {
            wrong = Some("the URL is another one than public_url");
        }
        if let Some(claim) = body_hash {
            let has_nothing = request.body.is_empty() && !self.claims.always_body_hash;
            let may_lack = has_nothing || self.claims.may_lack_body_hash;
            let is_right = match token.text(claim) {
                None => may_lack && !token.claims.contains_key(claim),
                text @ Some(_) => is_hash(text, self.encoding(), request.body),
            };
            if !is_right {
                wrong = Some("the body is not that of which the token holds the hash");
            }
        }
        match wrong {
            None => Ok(()),
            Some(what) => {
                Err(trace.failed(Step::Signature, Rejection::SignatureMismatch, || what.to_owned()))
            }
        }
    }

    fn check_times(
        &self,
        token: &Token<'_>,
        now: Timestamp,
        trace: &mut impl Trace,
    ) -> Result<(), Rejection> {
        let outside = |trace: &mut _, words: &str| {
            let words = words.to_owned();
            Err(Trace::failed(trace, Step::Timestamp, Rejection::TimestampOutsideWindow, || words))
        };
        let leeway = Duration::from_secs(self.claims.leeway);
        if let Some(begin) = token.time("nbf").filter(|begin| now < *begin && leeway < now.distance(*begin)) {
            let seconds = now.distance(begin).as_secs();
            return outside(trace, &format!("the token does not hold for another {seconds} s (nbf)"));
        }
        if let Some(end) = token.time("exp").filter(|end| *end <= now) {
            let seconds = now.distance(end).as_secs();
            return outside(trace, &format!("the token has not held for {seconds} s (exp)"));
        }
        if let Some(seconds) = self.claims.max_age {
            let Some(issued) = token.time("iat") else {
                let words = || "iat is missing".to_owned();
                return Err(trace.failed(Step::Timestamp, Rejection::TimestampMissing, words));
            };
            let age = now.distance(issued);
            if Duration::from_secs(seconds) < age {
                let words = format!("issued {} s ago (iat); {seconds} s are allowed", age.as_secs());
                return outside(trace, &words);
            }
        }
        trace.passed(Step::Timestamp, || "the token holds".to_owned());
        Ok(())
    }

    fn encoding(&self) -> Encoding {
        Encoding::from_word(&self.claims.encoding).unwrap_or(Encoding::Hex)
    }

    pub(super) fn sign(&self, draft: &mut Draft, secret: &SigningKey, signing: &Signing<'_>) -> Option<()> {
        let Some(Key::Tokens(keys)) = secret.keys.first() else { return None };
        let (algorithm, key) = keys.first()?;
        let now = signing.now.as_millis() / 1000;
        let mut claims = json!({ "iat": now, "nbf": now, "exp": now + LIFE, "jti": signing.filler });
        let mut claim = |name: &Option<String>, value: String| {
            if let (Some(name), Some(claims)) = (name, claims.as_object_mut()) {
                claims.insert(name.clone(), json!(value));
            }
        };
        let Claims { issuer, secret_id, is_true, url_hash, url, body_hash, .. } = &self.claims;
        let issuer = issuer.as_deref().and_then(|issuers| issuers.split(" | ").next());
        claim(&issuer.map(|_| "iss".to_owned()), issuer.unwrap_or_default().to_owned());
        claim(secret_id, secret.id.clone().unwrap_or_default());
        claim(url_hash, Encoding::Hex.encode(digest(&SHA256, signing.url.as_bytes()).as_ref()));
        claim(url, signing.url.to_owned());
        claim(body_hash, self.encoding().encode(digest(&SHA256, &draft.body).as_ref()));
        if let Some(name) = is_true {
            claims[name.as_str()] = Value::Bool(true);
        }
        let header = json!({ "alg": algorithm.name(), "typ": "JWT" });
        let encode = |value: &Value| Encoding::Base64Url.encode(value.to_string().as_bytes());
        let content = format!("{}.{}", encode(&header), encode(&claims));
        let signature = match key {
            Key::Hmac(key) => hmac::sign(key, content.as_bytes()).as_ref().to_vec(),
            Key::Private(key) => key.sign(content.as_bytes())?,
            Key::Secret(_) | Key::Public(_) | Key::Tokens(_) | Key::Published => return None,
        };
        let token = format!("{}{content}.{}", self.prefix, Encoding::Base64Url.encode(&signature));
        draft.put(&Place::Header(self.header.clone()), &token);
        Some(())
    }
}

impl<'t> Token<'t> {
    fn read(text: &'t str) -> Option<Self> {
        let (content, signature) = text.trim().rsplit_once('.')?;
        let (header, claims) = content.split_once('.').filter(|(_, claims)| !claims.contains('.'))?;
        let decode = |text: &str| -> Option<Map<String, Value>> {
            serde_json::from_slice(&Encoding::Base64Url.decode(text)?).ok()
        };
        let header = decode(header)?;
        let text = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            algorithm: text("alg")?,
            kid: text("kid"),
            content,
            signature: Encoding::Base64Url.decode(signature)?,
            claims: decode(claims)?,
        })
    }

    fn is_signed_with(&self, key: &Key) -> bool {
        let Key::Tokens(keys) = key else { return false };
        match keys.iter().find(|(algorithm, _)| algorithm.name() == self.algorithm) {
            Some((_, Key::Hmac(key))) => {
                let tag = hmac::sign(key, self.content.as_bytes());
                bool::from(tag.as_ref().ct_eq(&self.signature))
            }
            Some((_, Key::Public(key))) => {
                key.signed(self.content.as_bytes(), std::slice::from_ref(&self.signature))
            }
            Some((_, Key::Secret(_) | Key::Private(_) | Key::Tokens(_) | Key::Published)) | None => false,
        }
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// A NumericDate: seconds, which may have a fraction.
    fn time(&self, claim: &str) -> Option<Timestamp> {
        let seconds = self.claims.get(claim)?.as_f64().filter(|seconds| 0.0 <= *seconds)?;
        Some(Timestamp::from_seconds(0).plus(Duration::try_from_secs_f64(seconds).ok()?))
    }
}

impl TokenAlgorithm {
    fn hmac(self) -> Option<hmac::Algorithm> {
        match self.algorithm() {
            Algorithm::Hmac(algorithm) => Some(algorithm),
            Algorithm::Digest(_) | Algorithm::Public(_) => None,
        }
    }
}

fn is_hash(text: Option<&str>, encoding: Encoding, of: &[u8]) -> bool {
    let hash = text.and_then(|text| encoding.decode(text));
    hash.is_some_and(|hash| hash == digest(&SHA256, of).as_ref())
}
