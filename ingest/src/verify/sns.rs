//! Amazon SNS: signs fields of the body with the key of a certificate.
//!
//! Any customer of Amazon can have a message signed and sent here, so the topic counts too: the id of
//! a secret is the topic's ARN.

use serde_json::{Map, Value};

use super::draft::{Draft, Signing};
use super::explain::{Step, Trace};
use super::facts::Facts;
use super::key::{Algorithm, Key, KeyForm, Keys, MatchedKey, SigningKey};
use super::public_key::Kind;
use super::request::UnverifiedRequest;
use super::signature::Encoding;
use super::value::Place;
use crate::rejection::Rejection;

/// What is signed of a message, where it is there.
const OF_NOTIFICATION: [&str; 6] = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];

/// The same, of the messages that begin and end a subscription.
const OF_SUBSCRIPTION: [&str; 7] =
    ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];

/// A sender that signs as Amazon SNS does.
#[derive(Clone, Copy, Debug)]
pub struct Sns;

impl Sns {
    pub(super) fn facts(self) -> Facts {
        Facts { key_words: "a certificate or public key in PEM".to_owned(), ..Facts::default() }
    }

    pub(super) fn key(self, secret: &[u8]) -> Option<Key> {
        Algorithm::Public(Kind::RsaSha256).key(KeyForm::Spki, secret)
    }

    pub(super) fn private_key(self, pem: &[u8]) -> Option<Key> {
        Algorithm::Public(Kind::RsaSha256).private_key(pem)
    }

    pub(super) fn is_taken_by(self, request: &UnverifiedRequest<'_>) -> bool {
        message(request.body).is_some_and(|message| message.contains_key("Signature"))
    }

    pub(super) fn verify(
        self,
        request: &UnverifiedRequest<'_>,
        keys: Keys<'_>,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let message = message(request.body).ok_or_else(|| {
            let words = || "the body is no message of SNS; is raw message delivery on?".to_owned();
            trace.failed(Step::SignatureHeader, Rejection::Unreadable, words)
        })?;
        let signature = message.get("Signature").and_then(Value::as_str).ok_or_else(|| {
            let words = || "the body has no Signature".to_owned();
            trace.failed(Step::SignatureHeader, Rejection::SignatureMissing, words)
        })?;
        let kind = match message.get("SignatureVersion").and_then(Value::as_str) {
            Some("1") => Kind::RsaSha1,
            Some("2") => Kind::RsaSha256,
            Some(_) | None => {
                let words = || "SignatureVersion is neither 1 nor 2".to_owned();
                return Err(trace.failed(Step::SignatureForm, Rejection::Unreadable, words));
            }
        };
        let signatures = [Encoding::Base64.decode(signature).unwrap_or_default()];
        trace.passed(Step::SignatureForm, || format!("{kind:?}, {} bytes", signatures[0].len()));
        let content = content(&message);
        let topic = message.get("TopicArn").and_then(Value::as_str);
        let is_of_topic = |secret: &SigningKey| secret.id.is_none() || secret.id.as_deref() == topic;
        if !keys.any(is_of_topic) {
            let words = || "TopicArn is none of the ids of the source's secrets".to_owned();
            return Err(trace.failed(Step::Signature, Rejection::SignatureMismatch, words));
        }
        let fits = |secret: &SigningKey, key: &Key| {
            let Key::Public(key) = key else { return false };
            is_of_topic(secret) && key.signed_as(kind, content.as_bytes(), &signatures)
        };
        let none = |count| format!("fits with none of {count} certificates, or is of another topic");
        keys.verdict(keys.first_fitting(fits), "fits with certificate", none, trace)
    }

    /// Signs as SNS would with `key`, which is not Amazon's.
    pub(super) fn sign(self, draft: &mut Draft, key: &Key, signing: &Signing<'_>) -> Option<()> {
        let Key::Private(key) = key else { return None };
        let time = signing.now.to_string();
        for (name, value) in [
            ("Type", "Notification"),
            ("MessageId", signing.filler),
            ("TopicArn", "arn:aws:sns:eu-west-1:000000000000:hookwell"),
            ("Message", "{}"),
            ("Timestamp", &time),
            ("SignatureVersion", "2"),
        ] {
            draft.put(&Place::Json(vec![name.to_owned()]), value);
        }
        let signature = key.sign(content(&message(&draft.body)?).as_bytes())?;
        draft.embed(&Place::Json(vec!["Signature".to_owned()]), &Encoding::Base64.encode(&signature));
        Some(())
    }
}

fn message(body: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(body).ok()
}

/// A line with the name and one with the value of each field that is signed.
fn content(message: &Map<String, Value>) -> String {
    let is_notification = message.get("Type").and_then(Value::as_str) == Some("Notification");
    let names = if is_notification { &OF_NOTIFICATION[..] } else { &OF_SUBSCRIPTION[..] };
    let line = |name: &&str| Some(format!("{name}\n{}\n", message.get(*name)?.as_str()?));
    names.iter().filter_map(line).collect()
}
