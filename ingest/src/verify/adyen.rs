//! Adyen's standard notifications: each item in the body carries a signature over eight of its
//! fields. The rest of the body is not signed.

use ring::hmac;
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::draft::Draft;
use super::explain::{Step, Trace};
use super::facts::Facts;
use super::json::unambiguous;
use super::key::{Algorithm, Key, KeyForm, Keys, MatchedKey, SigningKey};
use super::request::UnverifiedRequest;
use super::signature::Encoding;
use super::value::Place;
use crate::rejection::Rejection;

/// The fields that are signed, in this order, with colons between.
const SIGNED: [&str; 8] = [
    "/pspReference",
    "/originalReference",
    "/merchantAccountCode",
    "/merchantReference",
    "/amount/value",
    "/amount/currency",
    "/eventCode",
    "/success",
];

/// Where the signature of an item lies.
const SIGNATURE: &str = "/additionalData/hmacSignature";

/// Where the first item lies, for the sake of what we send ourselves.
const FIRST_ITEM: &str = "json:/notificationItems/0/NotificationRequestItem";

/// A sender that signs as Adyen's standard notifications are signed.
#[derive(Clone, Copy, Debug)]
pub struct Adyen;

impl Adyen {
    pub(super) fn facts(self) -> Facts {
        Facts { key_words: "hex".to_owned(), ..Facts::default() }
    }

    pub(super) fn key(self, secret: &[u8]) -> Option<Key> {
        Algorithm::Hmac(hmac::HMAC_SHA256).key(KeyForm::Hex, secret)
    }

    pub(super) fn is_taken_by(self, request: &UnverifiedRequest<'_>) -> bool {
        items(request.body).is_some_and(|items| items.iter().any(|item| item.pointer(SIGNATURE).is_some()))
    }

    pub(super) fn verify(
        self,
        request: &UnverifiedRequest<'_>,
        keys: Keys<'_>,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let items = items(request.body).filter(|items| !items.is_empty()).ok_or_else(|| {
            let words = || "the body holds no notificationItems".to_owned();
            trace.failed(Step::SignatureHeader, Rejection::Unreadable, words)
        })?;
        // An item without a signature beside a signed one would be a forger's.
        let signatures: Option<Vec<_>> = items.iter().map(signature).collect();
        let signatures = signatures.ok_or_else(|| {
            let words = || format!("an item has no {SIGNATURE}; does the sender know a key?");
            trace.failed(Step::SignatureHeader, Rejection::SignatureMissing, words)
        })?;
        trace.passed(Step::SignatureHeader, || format!("{} items are signed", items.len()));
        let fits = |_: &SigningKey, key: &Key| {
            let Key::Hmac(key) = key else { return false };
            items.iter().zip(&signatures).fold(true, |fits, (item, signature)| {
                let tag = hmac::sign(key, signed_text(item).as_bytes());
                fits & bool::from(tag.as_ref().ct_eq(signature))
            })
        };
        let none = |count| format!("fits with none of {count} secrets");
        keys.verdict(keys.first_fitting(fits), "fits with secret", none, trace)
    }

    pub(super) fn sign(self, draft: &mut Draft, key: &Key) -> Option<()> {
        let Key::Hmac(key) = key else { return None };
        draft.put(&Place::from_words(&format!("{FIRST_ITEM}/success"))?, "true");
        let items = items(&draft.body)?;
        let tag = hmac::sign(key, signed_text(items.first()?).as_bytes());
        let place = Place::from_words(&format!("{FIRST_ITEM}{SIGNATURE}"))?;
        draft.embed(&place, &Encoding::Base64.encode(tag.as_ref()));
        Some(())
    }
}

fn items(body: &[u8]) -> Option<Vec<Value>> {
    let mut body = unambiguous(body)?;
    let items = body.get_mut("notificationItems")?.as_array_mut()?;
    items.iter_mut().map(|item| item.get_mut("NotificationRequestItem").map(Value::take)).collect()
}

fn signature(item: &Value) -> Option<Vec<u8>> {
    let text = item.pointer(SIGNATURE)?.as_str().filter(|text| !text.is_empty())?;
    // What is no base64 is a signature all the same, and fits with nothing.
    Some(Encoding::Base64.decode(text).unwrap_or_default())
}

fn signed_text(item: &Value) -> String {
    let text = |pointer: &&str| match item.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => String::new(),
    };
    SIGNED.iter().map(text).collect::<Vec<_>>().join(":")
}
