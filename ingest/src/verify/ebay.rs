//! eBay: a header that is base64 of JSON, with the id of the key and a signature by ECDSA on P-256
//! with SHA-1.

use ring::digest::{SHA256, digest};
use serde::Deserialize;

use super::draft::Draft;
use super::explain::{Step, Trace};
use super::facts::Facts;
use super::header::header_text;
use super::key::{Algorithm, Key, KeyForm, Keys, MatchedKey, SigningKey};
use super::public_key::Kind;
use super::request::UnverifiedRequest;
use super::signature::Encoding;
use super::value::Place;
use crate::rejection::Rejection;

/// The header.
const HEADER: &str = "x-ebay-signature";

/// A sender that signs as eBay does.
#[derive(Clone, Copy, Debug)]
pub struct Ebay;

/// What the header holds.
#[derive(Debug, Deserialize)]
struct Signature {
    kid: String,
    signature: String,
}

impl Ebay {
    pub(super) fn facts(self) -> Facts {
        Facts {
            header: Some(HEADER.to_owned()),
            covers_body: true,
            needs_ids: true,
            key_words: "a public key in PEM".to_owned(),
            ..Facts::default()
        }
    }

    pub(super) fn key(self, secret: &[u8]) -> Option<Key> {
        Algorithm::Public(Kind::EcdsaP256Sha1).key(KeyForm::Spki, secret)
    }

    pub(super) fn private_key(self, pem: &[u8]) -> Option<Key> {
        Algorithm::Public(Kind::EcdsaP256Sha1).private_key(pem)
    }

    pub(super) fn verify(
        self,
        request: &UnverifiedRequest<'_>,
        keys: Keys<'_>,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let text = header_text(request, HEADER, trace)?;
        let read = |text| serde_json::from_slice(&Encoding::Base64.decode(text)?).ok();
        let Some(Signature { kid, signature }) = read(text) else {
            let words = || format!("{HEADER} is no JSON in base64 with kid and signature");
            return Err(trace.failed(Step::SignatureForm, Rejection::Unreadable, words));
        };
        let signatures = [Encoding::Base64.decode(&signature).unwrap_or_default()];
        trace
            .passed(Step::SignatureForm, || format!("{} bytes, by a key that is named", signatures[0].len()));
        let fits = |secret: &SigningKey, key: &Key| {
            let Key::Public(key) = key else { return false };
            secret.id.as_deref() == Some(&*kid) && key.signed(request.body, &signatures)
        };
        let none = |count| format!("fits with none of {count} keys; is the one that it names among them?");
        keys.verdict(keys.first_fitting(fits), "fits with key", none, trace)
    }

    pub(super) fn sign(self, draft: &mut Draft, secret: &SigningKey) -> Option<()> {
        let Some(Key::Private(key)) = secret.keys.first() else { return None };
        let signature = Encoding::Base64.encode(&key.sign(&draft.body)?);
        let json = serde_json::json!({
            "alg": "ecdsa",
            "kid": secret.id.as_deref().unwrap_or_default(),
            "signature": signature,
            "digest": "SHA1",
        });
        let text = Encoding::Base64.encode(json.to_string().as_bytes());
        draft.put(&Place::Header(HEADER.to_owned()), &text);
        Some(())
    }
}

/// The answer to eBay's challenge: the hash of it, of the word that eBay was told, and of the URL.
pub(super) fn challenge_response(challenge: &str, token: &[u8], url: &str) -> String {
    let hash = digest(&SHA256, &[challenge.as_bytes(), token, url.as_bytes()].concat());
    Encoding::Hex.encode(hash.as_ref())
}
