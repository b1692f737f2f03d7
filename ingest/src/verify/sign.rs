//! Signs a request as the sender of a recipe would.

use std::borrow::Cow;

use ring::{digest, hmac};

use super::content::{Given, Part};
use super::draft::{Draft, Signing};
use super::key::{Algorithm, Key, SigningKey};
use super::recipe::{Recipe, SignaturePlace};
use super::value::{Place, find};

impl Recipe {
    /// Adds to `draft` the signature of `secret`, and each part that is signed with it; `None` where
    /// only the sender can.
    pub(super) fn sign(&self, draft: &mut Draft, secret: &SigningKey, signing: &Signing<'_>) -> Option<()> {
        let mut fields = Vec::new();
        if let Some(rule) = &self.timestamp {
            let text = rule.unit.write(signing.now);
            match &rule.place {
                Place::Field(name) => fields.push((name.clone(), text)),
                place @ (Place::Header(_)
                | Place::Json(_)
                | Place::Form(_)
                | Place::Query(_)
                | Place::BodyHash) => draft.put(place, &text),
            }
        }
        if let (Some(place), Some(id)) = (&self.key_id, &secret.id) {
            draft.put(place, id);
        }
        self.requires.iter().for_each(|(name, value)| draft.put(&Place::Header(name.clone()), value));
        for part in self.content.parts() {
            match part {
                Part::Value(Place::Field(name)) => {
                    if !fields.iter().any(|(known, _)| known == name) {
                        fields.push((name.clone(), signing.filler.to_owned()));
                    }
                }
                Part::Value(place) => draft.put(place, signing.filler),
                Part::SignedHeaders(names) => {
                    let mut sorted = names.clone();
                    sorted.sort();
                    draft.put(&Place::Header(names.first()?.clone()), &sorted.join(","));
                    names.iter().for_each(|name| draft.put(&Place::Header(name.clone()), signing.filler));
                }
                Part::Optional(_)
                | Part::Literal(_)
                | Part::Body
                | Part::Url
                | Part::BareUrl
                | Part::EncodedPath
                | Part::Method
                | Part::Secret
                | Part::SecretId
                | Part::Form
                | Part::PhpForm(_)
                | Part::Checksum
                | Part::Quoted => {}
            }
        }
        let key = secret.keys.first()?;
        let signature = self.signature_of(draft, key, secret.id.as_deref(), signing, &fields)?;
        let text = self.parse.write(&self.encoding.encode(&signature), &fields);
        match &self.signature {
            SignaturePlace::Value(place) => draft.embed(place, &text),
            SignaturePlace::Headers(_) | SignaturePlace::Numbered(_) => {
                draft.put(&Place::Header(self.signature.header()?), &text);
            }
        }
        Some(())
    }

    fn signature_of(
        &self,
        draft: &Draft,
        key: &Key,
        id: Option<&str>,
        signing: &Signing<'_>,
        fields: &[(String, String)],
    ) -> Option<Vec<u8>> {
        let request = draft.request(signing);
        let found = self.pointers.look_up(&draft.body);
        let look = |place: &Place| {
            let Place::Field(name) = place else { return find(&request, place, &found) };
            let value = fields.iter().find(|(known, _)| known == name);
            value.map(|(_, value)| Cow::Owned(value.clone().into_bytes()))
        };
        let feed = |secret: &[u8], take: &mut dyn FnMut(&[u8])| {
            let given = Given { url: signing.url, secret, secret_id: id.unwrap_or_default() };
            self.content.feed(&request, given, look, take).ok()
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
            (Key::Private(key), _) => {
                let mut content = Vec::new();
                feed(b"", &mut |bytes| content.extend_from_slice(bytes))?;
                key.sign(&content)
            }
            (Key::Secret(_) | Key::Public(_) | Key::Tokens(_) | Key::Published, _) => None,
        }
    }
}
