//! Plivo's third way to sign: an HMAC over the URL with its parameters sorted, the fields of a form
//! sorted, and a nonce.

use ring::hmac;
use subtle::ConstantTimeEq;

use super::draft::{Draft, Signing};
use super::explain::{Step, Trace};
use super::facts::Facts;
use super::header::header_text;
use super::key::{Algorithm, Key, KeyForm, Keys, MatchedKey, SigningKey};
use super::request::UnverifiedRequest;
use super::signature::Encoding;
use super::value::Place;
use crate::rejection::Rejection;

/// The signature with the token of the account that sends, or of the account above it.
const SIGNATURES: [&str; 2] = ["x-plivo-signature-v3", "x-plivo-signature-ma-v3"];
const NONCE: &str = "x-plivo-signature-v3-nonce";

/// The most signatures of one header that are looked at.
const MAX_SIGNATURES: usize = 16;

/// A sender that signs as Plivo does.
#[derive(Clone, Copy, Debug)]
pub struct Plivo;

impl Plivo {
    pub(super) fn facts(self) -> Facts {
        Facts {
            header: Some(SIGNATURES[0].to_owned()),
            covers_body: true,
            covers_url: true,
            key_words: "text".to_owned(),
            ..Facts::default()
        }
    }

    pub(super) fn key(self, secret: &[u8]) -> Option<Key> {
        Algorithm::Hmac(hmac::HMAC_SHA256).key(KeyForm::Text, secret)
    }

    pub(super) fn is_taken_by(self, request: &UnverifiedRequest<'_>) -> bool {
        SIGNATURES.iter().any(|name| request.headers.first(name).is_some())
    }

    pub(super) fn verify(
        self,
        request: &UnverifiedRequest<'_>,
        url: &str,
        keys: Keys<'_>,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let is_there = |name: &&&str| request.headers.first(name).is_some_and(|value| !value.is_empty());
        let mut named: Vec<_> = SIGNATURES.iter().filter(is_there).collect();
        if named.is_empty() {
            named.push(&SIGNATURES[0]);
        }
        let mut signatures = Vec::new();
        for name in named {
            let text = header_text(request, name, trace)?;
            let decoded =
                text.split(',').take(MAX_SIGNATURES).filter_map(|one| Encoding::Base64.decode(one.trim()));
            signatures.extend(decoded);
        }
        trace
            .find(Step::SignatureForm, !signatures.is_empty(), || format!("{} signatures", signatures.len()));
        if request.headers.is_repeated(NONCE) {
            let words = || format!("{NONCE} is there more than once");
            return Err(trace.failed(Step::Signature, Rejection::Unreadable, words));
        }
        let nonce = request.headers.first(NONCE).ok_or_else(|| {
            trace.failed(Step::Signature, Rejection::SignedPartMissing, || format!("{NONCE} is missing"))
        })?;
        let content = content(request, url, nonce);
        let fits = |_: &SigningKey, key: &Key| {
            let Key::Hmac(key) = key else { return false };
            let tag = hmac::sign(key, &content);
            signatures.iter().fold(false, |fits, signature| fits | bool::from(tag.as_ref().ct_eq(signature)))
        };
        let none = |count| {
            format!(
                "fits with none of {count} secrets; is this the auth token, and public_url the URL that Plivo was given?"
            )
        };
        keys.verdict(keys.first_fitting(fits), "fits with secret", none, trace)
    }

    pub(super) fn sign(self, draft: &mut Draft, key: &Key, signing: &Signing<'_>) -> Option<()> {
        let Key::Hmac(key) = key else { return None };
        draft.put(&Place::Header(NONCE.to_owned()), signing.filler);
        let content = content(&draft.request(signing), signing.url, signing.filler.as_bytes());
        let signature = Encoding::Base64.encode(hmac::sign(key, &content).as_ref());
        draft.put(&Place::Header(SIGNATURES[0].to_owned()), &signature);
        Some(())
    }
}

fn content(request: &UnverifiedRequest<'_>, url: &str, nonce: &[u8]) -> Vec<u8> {
    let (bare, query) = url.split_once('?').unwrap_or((url, ""));
    let query = sorted(query.as_bytes(), "=", "&");
    let fields = sorted(request.body, "", "");
    let mark = if query.is_empty() && fields.is_empty() { "" } else { "?" };
    let between = if query.is_empty() || fields.is_empty() { "" } else { "." };
    [format!("{bare}{mark}{query}{between}{fields}.").as_bytes(), nonce].concat()
}

/// The fields of a form, sorted by name and then by value.
fn sorted(form: &[u8], in_pair: &str, between: &str) -> String {
    let mut fields: Vec<_> = url::form_urlencoded::parse(form).collect();
    fields.sort();
    let pairs: Vec<_> = fields.iter().map(|(name, value)| format!("{name}{in_pair}{value}")).collect();
    pairs.join(between)
}
