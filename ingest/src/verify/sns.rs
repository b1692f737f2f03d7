//! Amazon SNS: signs fields of the body with the key of a certificate.
//!
//! Any customer of Amazon can have a message signed and sent here, so the topic counts too: the id of
//! a secret is the topic's ARN.

use serde_json::{Map, Value};

use super::draft::{Draft, Signing};
use super::explain::{Step, Trace};
use super::facts::Facts;
use super::json::unambiguous;
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

/// What a message may be.
const TYPES: [&str; 3] = ["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"];

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

    /// Signs as SNS would with a key that is not Amazon's, for the topic that is the secret's id.
    pub(super) fn sign(self, draft: &mut Draft, secret: &SigningKey, signing: &Signing<'_>) -> Option<()> {
        let Some(Key::Private(key)) = secret.keys.first() else { return None };
        let topic = secret.id.as_deref().unwrap_or("arn:aws:sns:eu-west-1:000000000000:hookwell");
        // A test calls its events as it likes, and Amazon has three words for all of them.
        if !draft.is_body_given
            && let Ok(Value::Object(mut message)) = serde_json::from_slice(&draft.body)
        {
            message.remove("Type");
            draft.body = Value::Object(message).to_string().into_bytes();
        }
        let time = signing.now.to_string();
        for (name, value) in [
            ("Type", "Notification"),
            ("MessageId", signing.filler),
            ("TopicArn", topic),
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

/// The message, if it is one whose signed text can be read in one way only: each field is there once,
/// it is of a kind that Amazon sends, and no line ends within what stands on a line of its own.
/// Otherwise the text that Amazon signs for one customer could be cut into another's message.
fn message(body: &[u8]) -> Option<Map<String, Value>> {
    let Value::Object(message) = unambiguous(body)? else { return None };
    let text = |name: &str| message.get(name).and_then(Value::as_str);
    let is_known = text("Type").is_some_and(|kind| TYPES.contains(&kind));
    let is_line = |name: &&str| *name == "Message" || text(name).is_none_or(|text| !text.contains('\n'));
    let are_lines = OF_NOTIFICATION.iter().chain(&OF_SUBSCRIPTION).all(is_line);
    (is_known && are_lines).then_some(message)
}

/// A line with the name and one with the value of each field that is signed.
fn content(message: &Map<String, Value>) -> String {
    let is_notification = message.get("Type").and_then(Value::as_str) == Some("Notification");
    let names = if is_notification { &OF_NOTIFICATION[..] } else { &OF_SUBSCRIPTION[..] };
    let line = |name: &&str| Some(format!("{name}\n{}\n", message.get(*name)?.as_str()?));
    names.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_amazon_signs_for_one_customer_cannot_be_cut_into_anothers_message() {
        let own = json!({
            "Type": "Notification", "MessageId": "real", "TopicArn": "own", "Timestamp": "now",
            "Message": "evil\nMessageId\nfake\nTimestamp\nthen\nTopicArn\nvictim\nType\nx",
        });
        let forged = json!({
            "Message": "evil", "MessageId": "fake", "Timestamp": "then", "TopicArn": "victim",
            "Type": "x\nMessageId\nreal\nTimestamp\nnow\nTopicArn\nown\nType\nNotification",
        });
        let text = |message: &Value| content(message.as_object().unwrap());
        assert_eq!(text(&own), text(&forged));
        assert!(message(own.to_string().as_bytes()).is_some());
        assert!(message(forged.to_string().as_bytes()).is_none());
    }

    #[test]
    fn a_message_that_can_be_read_in_two_ways_is_none() {
        let rest = r#""TopicArn":"t","Message":"a\nb","Timestamp":"now","#;
        for (fields, is_one) in [
            (r#""Type":"Notification","MessageId":"1""#, true),
            (r#""Type":"Notification","MessageId":"2","MessageId":"1""#, false),
            (r#""Type":"SubscriptionConfirmation","Type":"Notification","MessageId":"1""#, false),
            (r#""Type":"Notification","MessageId":"1","Subject":"a\nb""#, false),
            (r#""Type":"notification","MessageId":"1""#, false),
            (r#""MessageId":"1""#, false),
        ] {
            assert_eq!(message(format!("{{{rest}{fields}}}").as_bytes()).is_some(), is_one, "{fields}");
        }
    }
}
