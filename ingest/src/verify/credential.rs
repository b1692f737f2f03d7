//! Senders that sign nothing and show what only they know: a token, or a name and a password. It
//! proves who sends, and not that nobody has altered the body on its way.

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use super::draft::Draft;
use super::explain::{Step, Trace};
use super::facts::Facts;
use super::header::{after, missing_header};
use super::key::{Key, Keys, MatchedKey, SigningKey};
use super::request::UnverifiedRequest;
use super::signature::Encoding;
use super::value::{Place, Pointers, find, is_repeated};
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
        let found = self.pointers.look_up(request.body);
        find(request, &self.place, &found).is_some()
    }

    /// Tells whether `request` shows one of `keys`. Each is compared in constant time, and none is
    /// left out once another fits.
    pub fn verify(
        &self,
        request: &UnverifiedRequest<'_>,
        keys: Keys<'_>,
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let shown = self.shown(request, trace)?;
        // Hashed, so that a comparison does not tell how long a secret is.
        let shown = digest(&SHA256, &shown);
        let fits = |_: &SigningKey, key: &Key| {
            let Key::Secret(secret) = key else { return false };
            bool::from(digest(&SHA256, secret).as_ref().ct_eq(shown.as_ref()))
        };
        let none = |count| format!("is none of {count} secrets");
        keys.verdict(keys.first_fitting(fits), "is secret", none, trace)
    }

    fn shown(&self, request: &UnverifiedRequest<'_>, trace: &mut impl Trace) -> Result<Vec<u8>, Rejection> {
        let step = Step::SignatureHeader;
        if is_repeated(request, &self.place) {
            let words = || format!("{} is there more than once", self.place);
            return Err(trace.failed(step, Rejection::Unreadable, words));
        }
        let found = self.pointers.look_up(request.body);
        let Some(value) = find(request, &self.place, &found).filter(|value| !value.is_empty()) else {
            let words = || {
                if let Place::Header(name) = &self.place {
                    missing_header(name, request)
                } else {
                    format!("{} is missing or empty; does the sender know a secret?", self.place)
                }
            };
            return Err(trace.failed(step, Rejection::SignatureMissing, words));
        };
        let Ok(text) = std::str::from_utf8(&value) else {
            return Err(trace.failed(step, Rejection::Unreadable, || format!("{} is not text", self.place)));
        };
        trace.passed(step, || format!("{} is there, {} bytes", self.place, value.len()));
        match self.form.read(text) {
            Some(shown) => {
                trace.passed(Step::SignatureForm, || format!("{} bytes", shown.len()));
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
