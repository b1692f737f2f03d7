//! UnverifiedRequest to VerifiedRequest: the door.

pub mod adyen;
pub mod braintree;
mod canonical;
pub mod content;
pub mod credential;
pub mod draft;
pub mod ebay;
pub mod explain;
pub mod facts;
pub mod handshake;
mod header;
mod json;
pub mod jwt;
pub mod key;
mod multipart;
pub mod plivo;
pub mod preset;
pub mod private_key;
pub mod public_key;
pub mod published;
pub mod recipe;
pub mod request;
pub mod scheme;
mod sign;
pub mod signature;
pub mod sns;
pub mod timestamp;
pub mod twilio;
pub mod value;
pub(crate) mod words;

use explain::{Step, Trace};
use handshake::{Reply, Standing};
use key::{MatchedKey, SigningKey};
use published::PublishedKey;
use request::UnverifiedRequest;

use crate::rejection::Rejection;
use crate::source::Source;

/// A request that one of its source's active keys signed, within its window.
///
/// Invariant: [`verify`] is the only constructor, so holding one is the proof.
///
/// ```compile_fail
/// use hookwell_ingest::source::Source;
/// use hookwell_ingest::verify::{VerifiedRequest, key::MatchedKey, request::UnverifiedRequest};
///
/// fn forge<'r>(request: UnverifiedRequest<'r>, source: &'r Source) -> VerifiedRequest<'r> {
///     VerifiedRequest { request, source, key: MatchedKey(0) }
/// }
/// ```
#[derive(Debug)]
pub struct VerifiedRequest<'r> {
    request: UnverifiedRequest<'r>,
    source: &'r Source,
    key: MatchedKey,
}

impl<'r> VerifiedRequest<'r> {
    /// What was signed, and the rest of the request.
    pub fn request(&self) -> &UnverifiedRequest<'r> {
        &self.request
    }

    /// Who signed it.
    pub fn source(&self) -> &'r Source {
        self.source
    }

    /// With which of the source's keys.
    pub fn key(&self) -> MatchedKey {
        self.key
    }
}

/// Vouches for `request` if `source` signed it. Pure: the time is the request's.
pub fn verify<'r>(
    request: UnverifiedRequest<'r>,
    source: &'r Source,
    trace: &mut impl Trace,
) -> Result<VerifiedRequest<'r>, Rejection> {
    verify_with(request, source, None, trace)
}

/// The same, where the key that `request` names has been read. Without it nothing is wrong with a
/// request that needs one: it cannot be judged yet ([`Rejection::KeyUnavailable`]).
pub fn verify_with<'r>(
    request: UnverifiedRequest<'r>,
    source: &'r Source,
    published: Option<&PublishedKey>,
    trace: &mut impl Trace,
) -> Result<VerifiedRequest<'r>, Rejection> {
    if !source.methods.iter().any(|method| method == request.method) {
        return Err(trace.failed(Step::Method, Rejection::MethodNotAllowed, || {
            format!("{} is not used by this source", request.method)
        }));
    }
    let url = source.signed_url(request.query);
    let key = source.scheme.verify(&request, &url, &source.keys, published, trace)?;
    let is_event = request.method != "GET" && !request.body.is_empty();
    if is_event && source.handshakes.iter().any(|handshake| handshake.may_have_signed(request.body)) {
        let words = || "the body is a word, as challenges are that are signed for anybody".to_owned();
        return Err(trace.failed(Step::Signature, Rejection::Unreadable, words));
    }
    Ok(VerifiedRequest { request, source, key })
}

/// What to say to `request` if it asks whether the address is ours: `signed_by` tells with which key,
/// where it is known to be the sender's.
pub fn shake_hands(
    request: &UnverifiedRequest<'_>,
    source: &Source,
    signed_by: Option<MatchedKey>,
    trace: &mut impl Trace,
) -> Option<Result<Reply, Rejection>> {
    let token = source.handshake_token.as_ref();
    let standing = Standing { signed_by, keys: &source.keys, token, url: &source.public_url };
    source.handshakes.iter().find_map(|handshake| handshake.answer(request, standing, trace))
}

/// What to tell the user of a verified `request` that asked for what nobody has allowed.
pub fn advice(request: &UnverifiedRequest<'_>, source: &Source) -> Option<String> {
    source.handshakes.iter().find_map(|handshake| handshake.advice(request, &source.keys))
}

/// Whether `request` is one that `source` signed for `url`: what [`verify`] asks of the URL that is
/// configured.
pub fn verify_at(
    request: &UnverifiedRequest<'_>,
    source: &Source,
    url: &str,
    trace: &mut impl Trace,
) -> Result<MatchedKey, Rejection> {
    source.scheme.verify(request, url, &source.keys, None, trace)
}

/// The same with other secrets, as if they were the source's.
pub fn verify_by(
    request: &UnverifiedRequest<'_>,
    source: &Source,
    keys: &[SigningKey],
    trace: &mut impl Trace,
) -> Result<MatchedKey, Rejection> {
    source.scheme.verify(request, &source.signed_url(request.query), keys, None, trace)
}

#[cfg(test)]
pub(crate) mod tests;
