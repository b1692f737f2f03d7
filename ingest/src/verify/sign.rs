//! Signs a request as its sender would: the inverse of verification, for `--send-test` and tests.

use std::borrow::Cow;

use hookwell_common::time::Timestamp;
use ring::{digest, hmac};

use super::content::Part;
use super::key::{Algorithm, Key, SigningKey};
use super::recipe::Recipe;
use super::request::UnverifiedRequest;
use super::scheme::{Scheme, Signing};
use super::value::{Place, find};

/// The headers of a request, in lower case.
type Headers = Vec<(String, Vec<u8>)>;

impl Scheme {
    /// Adds to `headers` what the sender would with `key`; what it shows in its body must be there
    /// already. `false` where only the sender can, for
    /// `key` is a public one.
    pub fn sign(&self, headers: &mut Headers, key: &SigningKey, signing: Signing<'_>) -> bool {
        match self {
            Scheme::Recipe(recipe) => recipe.sign(headers, key, signing),
            Scheme::Credential(credential) => {
                let Some(shown) = credential.show(&key.key) else { return false };
                if let Place::Header(name) = credential.place() {
                    headers.push((name.clone(), shown));
                }
                true
            }
        }
    }
}

impl Recipe {
    /// Adds to `headers` the signature of `key`, and each header that is signed with it.
    ///
    /// A timestamp inside the body cannot be added; the body must have it.
    fn sign(&self, headers: &mut Headers, key: &SigningKey, signing: Signing<'_>) -> bool {
        let Signing { body, url, now, filler } = signing;
        let mut fields = Vec::new();
        if let Some(rule) = &self.timestamp {
            let text = rule.unit.write(now);
            match &rule.place {
                Place::Header(name) => headers.push((name.clone(), text.into_bytes())),
                Place::Field(name) => fields.push((name.clone(), text)),
                Place::Json(_) | Place::Form(_) | Place::Query(_) | Place::BodyHash => {}
            }
        }
        if let (Some(Place::Header(name)), Some(id)) = (&self.key_id, &key.id) {
            headers.push((name.clone(), id.clone().into_bytes()));
        }
        headers.extend(self.requires.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())));
        for part in self.content.parts() {
            match part {
                Part::Value(Place::Header(name)) if !headers.iter().any(|(known, _)| known == name) => {
                    headers.push((name.clone(), filler.as_bytes().to_vec()));
                }
                Part::Value(Place::Field(name)) if !fields.iter().any(|(known, _)| known == name) => {
                    fields.push((name.clone(), filler.to_owned()));
                }
                Part::Value(_)
                | Part::Optional(_)
                | Part::Literal(_)
                | Part::Body
                | Part::Url
                | Part::Method
                | Part::Secret => {}
            }
        }
        let Some(signature) = self.signature_of(headers, &key.key, (body, url), &fields) else {
            return false;
        };
        let text = self.parse.write(&self.encoding.encode(&signature), &fields).into_bytes();
        headers.extend(self.signature.header().map(|name| (name, text)));
        true
    }

    fn signature_of(
        &self,
        headers: &Headers,
        key: &Key,
        (body, url): (&[u8], &str),
        fields: &[(String, String)],
    ) -> Option<Vec<u8>> {
        let request = UnverifiedRequest {
            method: "POST",
            query: None,
            headers,
            body,
            received_at: Timestamp::default(),
        };
        let found = self.pointers.look_up(body);
        let look = |place: &Place| {
            let Place::Field(name) = place else { return find(&request, place, &found) };
            let value = fields.iter().find(|(known, _)| known == name);
            value.map(|(_, value)| Cow::Owned(value.clone().into_bytes()))
        };
        let feed = |secret: &[u8], take: &mut dyn FnMut(&[u8])| {
            self.content.feed(&request, url, secret, look, take).ok()
        };
        match (key, self.algorithm) {
            (Key::Hmac(key), _) => {
                let mut context = hmac::Context::with_key(key);
                feed(b"", &mut |bytes| context.update(bytes))?;
                Some(context.sign().as_ref().to_vec())
            }
            (Key::Secret(secret), Algorithm::Digest(algorithm)) => {
                let mut context = digest::Context::new(algorithm);
                feed(secret, &mut |bytes| context.update(bytes))?;
                Some(context.finish().as_ref().to_vec())
            }
            (Key::Secret(_) | Key::Public(_), _) => None,
        }
    }

    /// Whether the URL is signed, which must then be configured.
    pub fn covers_url(&self) -> bool {
        self.content.covers_url()
    }

    /// Whether the body is signed.
    pub fn covers_body(&self) -> bool {
        self.content.covers_body()
    }

    /// How secrets are written, for messages.
    pub fn key_words(&self) -> String {
        format!("{:?}", self.key_form).to_ascii_lowercase()
    }
}
