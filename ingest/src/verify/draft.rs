//! A request as its sender would make it, for `--send-test` and tests: the inverse of verification.

use std::borrow::Cow;

use hookwell_common::time::Timestamp;
use serde_json::{Value, json};

use super::request::UnverifiedRequest;
use super::value::{EACH, Place};

/// A request on its way to being signed.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Names in lower case, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
    /// Names and values that the query holds beside what stands in the URL.
    pub query: Vec<(String, String)>,
    /// Whether the body is somebody else's, and stays as it is but for a signature inside it.
    pub is_body_given: bool,
}

/// What a sender knows when it signs.
#[derive(Clone, Copy, Debug)]
pub struct Signing<'s> {
    /// The URL that the sender was given.
    pub url: &'s str,
    /// When it signs.
    pub now: Timestamp,
    /// The value of a signed part that means nothing to us.
    pub filler: &'s str,
}

impl Draft {
    /// One with a body that is given, and nothing else.
    pub fn of_body(body: &[u8]) -> Self {
        Self { body: body.to_vec(), is_body_given: true, ..Self::default() }
    }

    /// Puts `value` at `place`, if nothing is there: one place may hold both the id and the type.
    pub fn put(&mut self, place: &Place, value: &str) {
        if !self.is_body_given || matches!(place, Place::Header(_) | Place::Query(_)) {
            self.embed(place, value);
        }
    }

    /// The same, into a body that is given too. One that is none yet becomes JSON or a form, as the
    /// first place in it wants. A hash is not written.
    pub fn embed(&mut self, place: &Place, value: &str) {
        match place {
            Place::Header(name) => {
                if !self.headers.iter().any(|(known, _)| known == name) {
                    self.headers.push((name.clone(), value.as_bytes().to_vec()));
                }
            }
            Place::Json(pointer) => {
                let body = if self.body.is_empty() { b"{}" } else { self.body.as_slice() };
                if let Ok(mut json) = serde_json::from_slice(body) {
                    put_json(&mut json, pointer, value);
                    self.body = json.to_string().into_bytes();
                }
            }
            Place::Form(name) => {
                let mut fields: Vec<_> = url::form_urlencoded::parse(&self.body).into_owned().collect();
                if !fields.iter().any(|(known, _)| known == name) && !self.is_json() {
                    fields.push((name.clone(), value.to_owned()));
                    let form =
                        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                    self.body = form.into_bytes();
                }
            }
            Place::Query(name) => {
                if !self.query.iter().any(|(known, _)| known == name) {
                    self.query.push((name.clone(), value.to_owned()));
                }
            }
            Place::Field(_) | Place::BodyHash => {}
        }
    }

    /// `url` with the query of this; what `url` holds already stays.
    pub fn url<'u>(&self, url: &'u str) -> Cow<'u, str> {
        let (_, held) = url.split_once('?').unwrap_or_default();
        let is_held =
            |name: &str| url::form_urlencoded::parse(held.as_bytes()).any(|(known, _)| known == name);
        let mut missing = self.query.iter().filter(|(name, _)| !is_held(name)).peekable();
        if missing.peek().is_none() {
            return Cow::Borrowed(url);
        }
        let added = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(missing).finish();
        let between = if url.contains('?') { '&' } else { '?' };
        format!("{url}{between}{added}").into()
    }

    /// Whether the body is JSON.
    pub fn is_json(&self) -> bool {
        matches!(self.body.first(), Some(b'{' | b'['))
    }

    /// The request as its receiver sees it.
    pub fn request<'d>(&'d self, signing: &Signing<'d>) -> UnverifiedRequest<'d> {
        UnverifiedRequest {
            method: "POST",
            query: signing.url.split_once('?').map(|(_, query)| query),
            headers: &self.headers,
            body: &self.body,
            received_at: signing.now,
        }
    }
}

/// Makes what is missing on the way there: objects, and a list where the next step is its first item.
fn put_json(json: &mut Value, pointer: &[String], value: &str) {
    let Some((key, rest)) = pointer.split_first() else {
        if json.is_null() {
            *json = json!(value);
        }
        return;
    };
    let is_new = match json.as_object() {
        Some(object) => key == EACH && object.is_empty(),
        None => key == "0" || key == EACH,
    };
    let is_list = is_new || json.is_array();
    if is_list {
        if !json.is_array() {
            *json = json!([Value::Null]);
        }
        let count = if key == EACH { usize::MAX } else { 1 };
        for item in json.as_array_mut().into_iter().flatten().take(count) {
            put_json(item, rest, value);
        }
        return;
    }
    if !json.is_object() {
        *json = json!({});
    }
    if let Some(object) = json.as_object_mut() {
        put_json(object.entry(key.clone()).or_insert(Value::Null), rest, value);
    }
}
