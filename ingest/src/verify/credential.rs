//! Senders that sign nothing and show what only they know: a token, or a name and a password. It
//! proves who sends, and not that nobody has altered the body on its way.

use std::convert::Infallible;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use super::explain::{Step, Trace};
use super::key::{Key, MatchedKey, SigningKey, first_fitting};
use super::request::UnverifiedRequest;
use super::signature::Encoding;
use super::value::{Place, Pointers, find};
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

    /// Where it lies.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Makes a key of `secret`; `None` where it is not written as it must be.
    pub(super) fn key(&self, secret: &[u8]) -> Option<Key> {
        let has_form = match self.form {
            Form::Token | Form::After(_) => true,
            Form::Basic => secret.contains(&b':'),
        };
        has_form.then(|| Key::Secret(secret.to_vec()))
    }

    /// How the secret must be written, for messages.
    pub fn key_words(&self) -> &'static str {
        match self.form {
            Form::Token | Form::After(_) => "a token",
            Form::Basic => "NAME:PASSWORD",
        }
    }

    /// Tells whether `request` shows one of `keys`. Each is compared in constant time, and none is
    /// left out once another fits.
    pub fn verify(
        &self,
        request: &UnverifiedRequest<'_>,
        keys: &[SigningKey],
        trace: &mut impl Trace,
    ) -> Result<MatchedKey, Rejection> {
        let shown = self.shown(request, trace)?;
        // Hashed, so that a comparison does not tell how long a secret is.
        let shown = digest(&SHA256, &shown);
        let fits = |key: &SigningKey| {
            let Key::Secret(secret) = &key.key else { return Ok(false) };
            Ok(bool::from(digest(&SHA256, secret).as_ref().ct_eq(shown.as_ref())))
        };
        let Ok(matched) = first_fitting::<Infallible>(keys, fits);
        match matched {
            Some(MatchedKey(index)) => {
                trace.passed(Step::Signature, || format!("is secret {}", keys[index].label));
                Ok(MatchedKey(index))
            }
            None => Err(trace.failed(Step::Signature, Rejection::SignatureMismatch, || {
                format!("is none of {} secrets", keys.len())
            })),
        }
    }

    fn shown(&self, request: &UnverifiedRequest<'_>, trace: &mut impl Trace) -> Result<Vec<u8>, Rejection> {
        let step = Step::SignatureHeader;
        if let Place::Header(name) = &self.place
            && request.headers.is_repeated(name)
        {
            let words = || format!("{name} is there more than once");
            return Err(trace.failed(step, Rejection::Unreadable, words));
        }
        let found = self.pointers.look_up(request.body);
        let Some(value) = find(request, &self.place, &found).filter(|value| !value.is_empty()) else {
            let words = || format!("{:?} is missing or empty; does the sender know a secret?", self.place);
            return Err(trace.failed(step, Rejection::SignatureMissing, words));
        };
        if std::str::from_utf8(&value).is_err() {
            return Err(trace.failed(step, Rejection::Unreadable, || format!("{:?} is not text", self.place)));
        }
        trace.passed(step, || format!("{:?} is there, {} bytes", self.place, value.len()));
        match self.form.read(&value) {
            Some(shown) => {
                trace.passed(Step::SignatureForm, || format!("{} bytes", shown.len()));
                Ok(shown)
            }
            None => Err(trace.failed(Step::SignatureForm, Rejection::Unreadable, || {
                format!("{:?} is not of the form {:?}", self.place, self.form)
            })),
        }
    }

    /// What the sender would show of `key`.
    pub(super) fn show(&self, key: &Key) -> Option<Vec<u8>> {
        let Key::Secret(secret) = key else { return None };
        Some(match &self.form {
            Form::Token => secret.clone(),
            Form::After(prefix) => [prefix.as_bytes(), secret].concat(),
            Form::Basic => format!("Basic {}", Encoding::Base64.encode(secret)).into_bytes(),
        })
    }
}

impl Form {
    fn read(&self, value: &[u8]) -> Option<Vec<u8>> {
        match self {
            Form::Token => Some(value.to_vec()),
            Form::After(prefix) => after(value, prefix).map(<[u8]>::to_vec),
            Form::Basic => {
                let text = std::str::from_utf8(after(value, "Basic ")?).ok()?;
                Encoding::Base64.decode(text.trim())
            }
        }
    }
}

/// Names of schemes of authentication have no case (RFC 9110, 11.1).
fn after<'v>(value: &'v [u8], prefix: &str) -> Option<&'v [u8]> {
    let (begin, rest) = value.split_at_checked(prefix.len())?;
    begin.eq_ignore_ascii_case(prefix.as_bytes()).then_some(rest)
}
