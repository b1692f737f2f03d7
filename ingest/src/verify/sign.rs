//! Signs a request as its sender would: the inverse of verification, for `--send-test` and tests.

use hookwell_common::time::Timestamp;
use ring::hmac;

use super::content::Part;
use super::recipe::Recipe;
use super::request::UnverifiedRequest;
use super::value::Place;

impl Recipe {
    /// Adds to `headers` what the sender would: the signature of `key` over `body` at `now`, and
    /// each header that is signed with it. A signed header that means nothing to us gets `filler`.
    ///
    /// A timestamp inside the body cannot be added; the body must have it.
    pub fn sign(
        &self,
        headers: &mut Vec<(String, Vec<u8>)>,
        body: &[u8],
        url: &str,
        key: &hmac::Key,
        now: Timestamp,
        filler: &str,
    ) {
        let mut fields = Vec::new();
        if let Some(rule) = &self.timestamp {
            let text = rule.unit.write(now);
            match &rule.place {
                Place::Header(name) => headers.push((name.clone(), text.into_bytes())),
                Place::Field(name) => fields.push((name.clone(), text)),
                Place::Json(_) | Place::BodyHash => {}
            }
        }
        for part in self.content.parts() {
            match part {
                Part::Header(name) if !headers.iter().any(|(known, _)| known == name) => {
                    headers.push((name.clone(), filler.as_bytes().to_vec()));
                }
                Part::Field(name) if !fields.iter().any(|(known, _)| known == name) => {
                    fields.push((name.clone(), filler.to_owned()));
                }
                Part::Header(_)
                | Part::Field(_)
                | Part::Literal(_)
                | Part::Body
                | Part::Url
                | Part::Method => {}
            }
        }
        let mut context = hmac::Context::with_key(key);
        let request =
            UnverifiedRequest { method: "POST", query: None, headers: &*headers, body, received_at: now };
        let field =
            |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let fed = self.content.feed(&request, url, field, |bytes| context.update(bytes));
        debug_assert!(fed.is_ok(), "every signed part was added above");
        let signature = self.encoding.encode(context.sign().as_ref());
        headers.push((self.header.clone(), self.parse.write(&signature, &fields).into_bytes()));
    }

    /// Whether the URL is signed, which must then be configured.
    pub fn covers_url(&self) -> bool {
        self.content.covers_url()
    }

    /// How secrets are written, for messages.
    pub fn key_words(&self) -> String {
        format!("{:?}", self.key_form).to_ascii_lowercase()
    }
}
