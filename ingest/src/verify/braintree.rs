//! Braintree: a form with XML in base64, and beside it pairs of a public key and a signature. The id
//! of a secret is that public key, and the secret the private one, of whose hash the HMAC's key is
//! made.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ring::hmac;
use subtle::ConstantTimeEq;

use super::draft::Draft;
use super::explain::{Step, Trace};
use super::facts::Facts;
use super::key::{Key, Keys, MatchedKey, SigningKey};
use super::request::UnverifiedRequest;
use super::signature::Encoding;
use super::value::only_parameter;
use crate::rejection::Rejection;

const SIGNATURE: &str = "bt_signature";
const PAYLOAD: &str = "bt_payload";

/// The most pairs that are looked at.
const MAX_PAIRS: usize = 16;

/// A sender that signs as Braintree does.
#[derive(Clone, Copy, Debug)]
pub struct Braintree;

impl Braintree {
    pub(super) fn facts(self) -> Facts {
        Facts {
            // What stands beside the payload is not signed.
            covers_body: false,
            needs_ids: true,
            key_words: "the private key, as text".to_owned(),
            ..Facts::default()
        }
    }

    pub(super) fn key(self, secret: &[u8]) -> Option<Key> {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, secret);
        Some(Key::Hmac(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, hash.as_ref())))
    }

    pub(super) fn is_taken_by(self, request: &UnverifiedRequest<'_>) -> bool {
        matches!(only_parameter(request.body, SIGNATURE), Ok(Some(_)))
    }

    pub(super) fn verify(
        self,
        request: &UnverifiedRequest<'_>,
        keys: Keys<'_>,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let pairs = field(request, SIGNATURE, Rejection::SignatureMissing, trace)?;
        let payload = field(request, PAYLOAD, Rejection::SignedPartMissing, trace)?;
        // What is signed for a stranger who sends a challenge is no XML.
        let lines: String = payload.chars().filter(|c| *c != '\n').collect();
        if Encoding::Base64.decode(&lines).is_none_or(|xml| xml.first() != Some(&b'<')) {
            let words = || format!("{PAYLOAD} is no XML in base64");
            return Err(trace.failed(Step::SignatureForm, Rejection::Unreadable, words));
        }
        let pairs: Vec<_> = pairs
            .split('&')
            .filter_map(|pair| pair.split_once('|'))
            .take(MAX_PAIRS)
            .filter_map(|(public, signature)| Some((public, Encoding::Hex.decode(signature)?)))
            .collect();
        trace.find(Step::SignatureForm, !pairs.is_empty(), || {
            format!("{} pairs of key and signature", pairs.len())
        });
        let fits = |secret: &SigningKey, key: &Key| {
            let Key::Hmac(key) = key else { return false };
            // Some of its libraries sign a last line end that does not arrive.
            let tags = ["", "\n"].map(|end| hmac::sign(key, [payload.as_str(), end].concat().as_bytes()));
            let meant = pairs.iter().filter(|(public, _)| secret.id.as_deref() == Some(*public));
            meant.fold(false, |fits, (_, signature)| {
                tags.iter().fold(fits, |fits, tag| fits | bool::from(tag.as_ref().ct_eq(signature)))
            })
        };
        let none = |count| format!("fits with none of {count} secrets; is its id the public key?");
        keys.verdict(keys.first_fitting(fits), "fits with secret", none, trace)
    }

    /// A body that is given is taken for the XML.
    pub(super) fn sign(self, draft: &mut Draft, secret: &SigningKey) -> Option<()> {
        let xml = if draft.is_body_given { draft.body.as_slice() } else { b"<notification></notification>" };
        let payload = format!("{}\n", Encoding::Base64.encode(xml));
        let tag = Encoding::Hex.encode(&secret.sign(payload.as_bytes())?);
        let pair = format!("{}|{tag}", secret.id.as_deref().unwrap_or_default());
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair(SIGNATURE, &pair).append_pair(PAYLOAD, &payload);
        draft.body = form.finish().into_bytes();
        Some(())
    }
}

/// The answer to Braintree's challenge, which is 20 to 32 hexadecimal digits: the public key and the
/// HMAC of it.
pub(super) fn challenge_response(challenge: &str, secret: &SigningKey) -> Option<String> {
    let is_hex = challenge.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !is_hex || !(20..=32).contains(&challenge.len()) {
        return None;
    }
    let tag = Encoding::Hex.encode(&secret.sign(challenge.as_bytes())?);
    Some(format!("{}|{tag}", secret.id.as_deref()?))
}

/// The field called `name`, which must be there once.
fn field(
    request: &UnverifiedRequest<'_>,
    name: &str,
    missing: Rejection,
    trace: &mut impl Trace,
) -> Result<String, Rejection> {
    let step = Step::SignatureHeader;
    let Ok(value) = only_parameter(request.body, name) else {
        return Err(trace.failed(step, Rejection::Unreadable, || format!("{name} is there more than once")));
    };
    let value = value.map(|value| String::from_utf8_lossy(&value).into_owned());
    value
        .filter(|value| !value.is_empty())
        .ok_or_else(|| trace.failed(step, missing, || format!("the form has no {name}")))
}
