//! Senders that sign nothing and show what only they know: a token, or a name and a password. It
//! proves who sends, and not that nobody has altered the body on its way.

use std::borrow::Cow;

use ring::digest::{SHA256, digest};
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::draft::Draft;
use super::explain::{Step, Trace};
use super::facts::Facts;
use super::header::{after, missing_header};
use super::json::unambiguous;
use super::key::{Key, Keys, MatchedKey, SigningKey};
use super::request::UnverifiedRequest;
use super::signature::Encoding;
use super::value::{EACH, Place, Pointers, find, is_repeated};
use crate::rejection::Rejection;

/// What a sender shows in each request.
#[derive(Clone, Debug)]
pub struct Credential {
    place: Place,
    form: Form,
    pointers: Pointers,
}

/// How it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Token,
    /// After a prefix: `Bearer …`.
    After(String),
    /// As a name and a password of HTTP's basic authentication; the secret is `NAME:PASSWORD`.
    Basic,
}

impl Credential {
    /// One that lies at `place`.
    /// Where it is a pointer with `*` in it, each item of that list must show one.
    pub fn new(place: Place, form: Form) -> Self {
        let pointers = Pointers::of([&place].into_iter());
        Self { place, form, pointers }
    }

    /// Name and password of basic authentication.
    pub fn basic() -> Self {
        Self::new(Place::Header("authorization".to_owned()), Form::Basic)
    }

    /// Makes a key of `secret`; `None` where it is not written as it must be.
    pub(super) fn key(&self, secret: &[u8]) -> Option<Key> {
        let has_form = match self.form {
            Form::Token | Form::After(_) => true,
            Form::Basic => secret.contains(&b':'),
        };
        has_form.then(|| Key::Secret(secret.to_vec()))
    }

    /// What is known of it without any request.
    pub(super) fn facts(&self) -> Facts {
        let header = match &self.place {
            Place::Header(name) => Some(name.clone()),
            Place::Field(_) | Place::Json(_) | Place::Form(_) | Place::Query(_) | Place::BodyHash => None,
        };
        let key_words = match self.form {
            Form::Token | Form::After(_) => "a token",
            Form::Basic => "NAME:PASSWORD",
        };
        let secret_places = vec![self.place.clone()];
        Facts { header, secret_places, key_words: key_words.to_owned(), ..Facts::default() }
    }

    /// Whether something is shown.
    pub(super) fn is_taken_by(&self, request: &UnverifiedRequest<'_>) -> bool {
        self.values(request).is_some_and(|values| values.iter().any(Option::is_some))
    }

    /// What is shown, one for each that must be, `None` where nothing is; nothing at all where the body
    /// cannot be read.
    fn values<'r>(&self, request: &UnverifiedRequest<'r>) -> Option<Vec<Option<Cow<'r, [u8]>>>> {
        if let Place::Json(pointer) = &self.place
            && let Some(list) = pointer.iter().position(|token| token == EACH)
        {
            let mut json = unambiguous(request.body)?;
            let items = at(&mut json, &pointer[..list]).and_then(Value::as_array_mut).map(std::mem::take);
            let shown = |mut item: Value| match at(&mut item, &pointer[list + 1..])? {
                Value::String(text) => Some(Cow::Owned(std::mem::take(text).into_bytes())),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
            };
            return Some(items.unwrap_or_default().into_iter().map(shown).collect());
        }
        let found = self.pointers.look_up(request.body);
        Some(vec![find(request, &self.place, &found)])
    }

    /// Tells whether `request` shows one of `keys`, wherever it must show one. Each key is compared in
    /// constant time, and none is left out once another fits.
    pub fn verify(
        &self,
        request: &UnverifiedRequest<'_>,
        keys: Keys<'_>,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let all = self.shown(request, trace)?;
        let fitting = |shown: &[u8]| {
            // Hashed, so that a comparison does not tell how long a secret is.
            let shown = digest(&SHA256, shown);
            let fits = |_: &SigningKey, key: &Key| {
                let Key::Secret(secret) = key else { return false };
                bool::from(digest(&SHA256, secret).as_ref().ct_eq(shown.as_ref()))
            };
            keys.first_fitting(fits)
        };
        // Of several the one that is listed last: as long as one item shows it, it is in use.
        let (mut matched, mut item) = (None, String::new());
        for (number, shown) in all.iter().enumerate() {
            let Some(MatchedKey(key)) = fitting(shown) else {
                if 1 < all.len() {
                    item = format!("item {} of {} ", number + 1, all.len());
                }
                matched = None;
                break;
            };
            matched = matched.max(Some(key));
        }
        let none = |count| format!("{item}is none of {count} secrets");
        keys.verdict(matched.map(MatchedKey), "is secret", none, trace)
    }

    /// All that is shown, in order: one at least.
    fn shown(
        &self,
        request: &UnverifiedRequest<'_>,
        trace: &mut impl Trace,
    ) -> Result<Vec<Vec<u8>>, Rejection> {
        let step = Step::SignatureHeader;
        if is_repeated(request, &self.place) {
            let words = || format!("{} is there more than once", self.place);
            return Err(trace.failed(step, Rejection::Unreadable, words));
        }
        let Some(values) = self.values(request) else {
            let words = || "the body is no JSON, has a name twice, or has too many values".to_owned();
            return Err(trace.failed(step, Rejection::Unreadable, words));
        };
        let is_shown =
            |value: Option<Cow<'_, [u8]>>| value.filter(|value| !value.is_empty()).map(Cow::into_owned);
        let values: Option<Vec<_>> = values.into_iter().map(is_shown).collect();
        let Some(values) = values.filter(|values| !values.is_empty()) else {
            let words = || {
                if let Place::Header(name) = &self.place {
                    missing_header(name, request)
                } else {
                    format!("{} is missing or empty; does the sender know a secret?", self.place)
                }
            };
            return Err(trace.failed(step, Rejection::SignatureMissing, words));
        };
        let texts: Result<Vec<_>, _> = values.iter().map(|value| std::str::from_utf8(value)).collect();
        let Ok(texts) = texts else {
            return Err(trace.failed(step, Rejection::Unreadable, || format!("{} is not text", self.place)));
        };
        trace.passed(step, || format!("{} is there, {} bytes", self.place, values[0].len()));
        let shown: Option<Vec<_>> = texts.into_iter().map(|text| self.form.read(text)).collect();
        match shown {
            Some(shown) => {
                trace.passed(Step::SignatureForm, || format!("{} bytes", shown[0].len()));
                Ok(shown)
            }
            None => Err(trace.failed(Step::SignatureForm, Rejection::Unreadable, || {
                format!("{} is not of the form {:?}", self.place, self.form.words())
            })),
        }
    }

    /// Shows `key` as the sender would.
    pub(super) fn sign(&self, draft: &mut Draft, key: &Key) -> Option<()> {
        let Key::Secret(secret) = key else { return None };
        let text = std::str::from_utf8(secret).ok()?;
        let shown = match &self.form {
            Form::Token => text.to_owned(),
            Form::After(prefix) => format!("{prefix}{text}"),
            Form::Basic => format!("Basic {}", Encoding::Base64.encode(secret)),
        };
        draft.embed(&self.place, &shown);
        Some(())
    }
}

impl Form {
    /// What it looks like.
    fn words(&self) -> String {
        match self {
            Form::Token => "…".to_owned(),
            Form::After(prefix) => format!("{prefix}…"),
            Form::Basic => "Basic …".to_owned(),
        }
    }

    fn read(&self, text: &str) -> Option<Vec<u8>> {
        match self {
            Form::Token => Some(text.as_bytes().to_vec()),
            Form::After(prefix) => after(text, prefix).map(|rest| rest.as_bytes().to_vec()),
            Form::Basic => Encoding::Base64.decode(after(text, "Basic ")?.trim()),
        }
    }
}

/// What lies in `json` at `pointer`.
fn at<'v>(json: &'v mut Value, pointer: &[String]) -> Option<&'v mut Value> {
    pointer.iter().try_fold(json, |json, token| match json.as_array() {
        Some(_) => json.get_mut(token.parse::<usize>().ok()?),
        None => json.get_mut(token),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::draft::Signing;
    use crate::verify::explain::Silent;
    use crate::verify::tests::source;
    use crate::verify::verify;
    use hookwell_common::time::Timestamp;

    /// What is said of a notification of Graph with this body, to a source with the secrets `one` and `two`.
    fn told(body: &str) -> Result<usize, Rejection> {
        let source = source("preset = \"microsoft-graph\"", &["one", "two"]);
        let request = UnverifiedRequest {
            method: "POST",
            query: None,
            headers: &Vec::new(),
            body: body.as_bytes(),
            received_at: Timestamp::from_seconds(1_795_000_000),
        };
        verify(request, &source, &mut Silent).map(|verified| verified.key().0)
    }

    #[test]
    fn each_item_of_a_list_must_show_a_secret() {
        let item = |token: &str| format!("{{\"clientState\":{token}}}");
        let list = |items: &[String]| format!("{{\"value\":[{}]}}", items.join(","));
        let (one, two) = (item("\"one\""), item("\"two\""));
        assert_eq!(told(&list(std::slice::from_ref(&one))), Ok(0));
        assert_eq!(told(&list(&[two.clone(), one.clone(), two.clone()])), Ok(1));
        for forged in [item("\"three\""), item("\"on\"")] {
            assert_eq!(
                told(&list(&[one.clone(), forged.clone()])),
                Err(Rejection::SignatureMismatch),
                "{forged}"
            );
            assert_eq!(
                told(&list(&[forged.clone(), one.clone()])),
                Err(Rejection::SignatureMismatch),
                "{forged}"
            );
        }
        for bare in
            ["{}".to_owned(), item("null"), item("\"\""), item("1"), item("[\"one\"]"), "7".to_owned()]
        {
            assert_eq!(told(&list(&[one.clone(), bare.clone()])), Err(Rejection::SignatureMissing), "{bare}");
        }
        let twice = "{\"clientState\":\"three\",\"clientState\":\"one\"}".to_owned();
        for body in [list(&[]), "{\"value\":{}}".to_owned(), "{}".to_owned(), one] {
            assert_eq!(told(&body), Err(Rejection::SignatureMissing), "{body}");
        }
        for body in [list(&[twice]), "[".to_owned(), String::new()] {
            assert_eq!(told(&body), Err(Rejection::Unreadable), "{body}");
        }
    }

    #[test]
    fn a_list_that_is_made_to_try_a_source_shows_the_secret_where_it_is_looked_for() {
        for place in ["json:/*/t", "json:/value/*/t", "json:/a/0/*"] {
            let source = source(&format!("token = {place:?}"), &["one"]);
            for body in [&b""[..], b"{}"] {
                let mut draft = Draft { body: body.to_vec(), ..Draft::default() };
                let now = Timestamp::from_seconds(1_795_000_000);
                let signing = Signing { url: "", now, filler: "x" };
                source.scheme.sign(&mut draft, &source.keys[0], &signing).unwrap();
                assert!(verify(draft.request(&signing), &source, &mut Silent).is_ok(), "{place}: {draft:?}");
            }
        }
    }
}
