//! Twilio: an HMAC over the URL and the fields of a form, or over a URL that holds the hash of any
//! other body.
//!
//! It signs the URL with its port or without it, whichever it likes, so both are tried, as its own
//! libraries do.

use std::borrow::Cow;

use ring::{digest, hmac};
use subtle::ConstantTimeEq;

use super::content::feed_form;
use super::draft::{Draft, Signing};
use super::explain::{Step, Trace};
use super::facts::Facts;
use super::header::header_text;
use super::key::{Algorithm, Key, KeyForm, Keys, MatchedKey, SigningKey};
use super::request::UnverifiedRequest;
use super::signature::Encoding;
use super::value::{Place, parameter};
use crate::rejection::Rejection;

/// The parameter of the URL that holds the hash of a body that is no form.
const BODY_HASH: &str = "bodySHA256";

/// A sender that signs as Twilio does.
#[derive(Clone, Debug)]
pub struct Twilio {
    header: String,
}

impl Twilio {
    /// One whose signature lies in `header`, in lower case.
    pub fn new(header: String) -> Self {
        Self { header }
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            header: Some(self.header.clone()),
            covers_body: true,
            covers_url: true,
            key_words: "text".to_owned(),
            ..Facts::default()
        }
    }

    pub(super) fn key(&self, secret: &[u8]) -> Option<Key> {
        Algorithm::Hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY).key(KeyForm::Text, secret)
    }

    pub(super) fn verify(
        &self,
        request: &UnverifiedRequest<'_>,
        url: &str,
        keys: Keys<'_>,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let text = header_text(request, &self.header, trace)?;
        let signature = Encoding::Base64.decode(text).unwrap_or_default();
        trace.find(Step::SignatureForm, !signature.is_empty(), || format!("{} bytes", signature.len()));
        let hash = body_hash(request);
        let urls = [with_port(url), without_port(url)];
        let fits = |_: &SigningKey, key: &Key| {
            let Key::Hmac(key) = key else { return false };
            // Both are always tried, so that the time tells nothing.
            let tried = urls.iter().map(|url| sign(key, url, request.body, hash.is_some()));
            tried.fold(false, |fits, tag| fits | bool::from(tag.as_ref().ct_eq(&signature)))
        };
        let Some(matched) = keys.first_fitting(fits) else {
            return Err(trace.failed(Step::Signature, Rejection::SignatureMismatch, || {
                format!(
                    "fits with none of {} secrets; is this the auth token, and public_url the URL that Twilio was given?",
                    keys.count()
                )
            }));
        };
        if hash.is_some_and(|hash| !is_hash_of(&hash, request.body)) {
            let words = || format!("the body is not that of which {BODY_HASH} is the hash");
            return Err(trace.failed(Step::Signature, Rejection::SignatureMismatch, words));
        }
        trace.passed(Step::Signature, || format!("fits with secret {}", keys.label(matched)));
        Ok(matched)
    }

    pub(super) fn sign(&self, draft: &mut Draft, key: &Key, signing: &Signing<'_>) -> Option<()> {
        let Key::Hmac(key) = key else { return None };
        let has_hash = body_hash(&draft.request(signing)).is_some();
        let tag = sign(key, signing.url, &draft.body, has_hash);
        draft.put(&Place::Header(self.header.clone()), &Encoding::Base64.encode(tag.as_ref()));
        Some(())
    }
}

fn body_hash<'r>(request: &UnverifiedRequest<'r>) -> Option<Cow<'r, [u8]>> {
    parameter(request.query.unwrap_or_default().as_bytes(), BODY_HASH)
}

fn is_hash_of(hash: &[u8], body: &[u8]) -> bool {
    let wanted = std::str::from_utf8(hash).ok().and_then(|text| Encoding::Hex.decode(text));
    wanted.is_some_and(|wanted| wanted == digest::digest(&digest::SHA256, body).as_ref())
}

fn sign(key: &hmac::Key, url: &str, body: &[u8], is_hashed: bool) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(url.as_bytes());
    if !is_hashed {
        feed_form(body, |bytes| context.update(bytes));
    }
    context.sign()
}

/// What stands before the host, its name, its port with the colon, and the rest.
fn split(url: &str) -> Option<(&str, &str, &str, &str)> {
    let host_at = url.find("://")? + 3;
    let end = url[host_at..].find(['/', '?', '#']).map_or(url.len(), |length| host_at + length);
    let name_at = url[host_at..end].rfind('@').map_or(host_at, |length| host_at + length + 1);
    let digits = url[name_at..end].rfind(':').map(|length| name_at + length);
    let port_at = digits.filter(|at| url[at + 1..end].bytes().all(|byte| byte.is_ascii_digit()));
    let port_at = port_at.unwrap_or(end);
    Some((&url[..name_at], &url[name_at..port_at], &url[port_at..end], &url[end..]))
}

fn with_port(url: &str) -> Cow<'_, str> {
    match split(url) {
        Some((before, name, "", rest)) => {
            let port = if before.starts_with("http:") { 80 } else { 443 };
            format!("{before}{name}:{port}{rest}").into()
        }
        Some(_) | None => url.into(),
    }
}

fn without_port(url: &str) -> Cow<'_, str> {
    match split(url) {
        Some((_, _, "", _)) | None => url.into(),
        Some((before, name, _, rest)) => format!("{before}{name}{rest}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_tried_with_its_port_and_without() {
        for (url, with, without) in [
            ("https://a.example/x?b=c:d", "https://a.example:443/x?b=c:d", "https://a.example/x?b=c:d"),
            ("http://a.example", "http://a.example:80", "http://a.example"),
            ("https://u:p@a.example:1234/x", "https://u:p@a.example:1234/x", "https://u:p@a.example/x"),
            ("https://u:7@a.example?x", "https://u:7@a.example:443?x", "https://u:7@a.example?x"),
            ("https://[::1]:8443/", "https://[::1]:8443/", "https://[::1]/"),
            ("no url", "no url", "no url"),
        ] {
            assert_eq!((&*with_port(url), &*without_port(url)), (with, without), "{url}");
        }
    }
}
