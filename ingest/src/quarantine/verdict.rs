//! What today's configuration says of a request that was kept.
//!
//! It takes the way that a received request takes: address, verification, handshake, event. Only the
//! moment is not today's: it is the one at which it was received.

use ipnet::IpNet;

use super::record::Request;
use crate::accept::{Accepted, accept};
use crate::address::is_allowed;
use crate::rejection::Rejection;
use crate::source::{Source, Sources};
use crate::verify::explain::Silent;
use crate::verify::request::UnverifiedRequest;
use crate::verify::{VerifiedRequest, shake_hands};

/// What holds for all requests.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'b> {
    /// The longest body.
    pub max_body_bytes: usize,
    /// Who may name the client.
    pub trusted_proxies: &'b [IpNet],
}

/// Why a request is not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It still does not verify, or is no event.
    Rejected(Rejection),
    /// It only asked whether the address is ours.
    Handshake,
    /// Its source is not configured.
    SourceRemoved,
    /// Its source vouches for whatever comes, so nothing about an old request can be told.
    Unprovable,
    /// The same event was released already.
    Duplicate,
    /// It cannot be read.
    Damaged,
}

impl Obstacle {
    /// The stable word.
    pub fn label(self) -> &'static str {
        match self {
            Obstacle::Rejected(rejection) => rejection.label(),
            Obstacle::Handshake => "handshake",
            Obstacle::SourceRemoved => "source_removed",
            Obstacle::Unprovable => "unprovable",
            Obstacle::Duplicate => "duplicate",
            Obstacle::Damaged => "damaged",
        }
    }
}

/// Makes an event of `request` if it is genuine by what is configured today; `verify` vouches for it.
pub fn judge<'r>(
    request: &'r Request,
    sources: &'r Sources,
    bounds: Bounds<'_>,
    verify: impl FnOnce(UnverifiedRequest<'r>, &'r Source) -> Result<VerifiedRequest<'r>, Rejection>,
) -> Result<Accepted, Obstacle> {
    let source = sources.get(&*request.source).ok_or(Obstacle::SourceRemoved)?;
    if !source.is_provable() {
        return Err(Obstacle::Unprovable);
    }
    if bounds.max_body_bytes < request.body.len() {
        return Err(Obstacle::Rejected(Rejection::BodyTooLarge));
    }
    if !is_allowed(source, request.peer, &request.headers, bounds.trusted_proxies) {
        return Err(Obstacle::Rejected(Rejection::AddressNotAllowed));
    }
    let unverified = request.unverified();
    if shake_hands(&unverified, source, None, &mut Silent).is_some() {
        return Err(Obstacle::Handshake);
    }
    let verified = verify(unverified, source).map_err(Obstacle::Rejected)?;
    if shake_hands(&unverified, source, Some(verified.key()), &mut Silent).is_some() {
        return Err(Obstacle::Handshake);
    }
    let unique = || request.unique.to_string();
    accept(&verified, request.body.clone(), unique, &mut Silent).map_err(Obstacle::Rejected)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use hookwell_common::config::{Config, Environment, Faults};
    use hookwell_common::time::Timestamp;

    use super::*;
    use crate::source::resolve_all;
    use crate::verify::draft::{Draft, Signing};
    use crate::verify::verify;

    const BODY: &[u8] = b"{\"id\":\"evt_1\",\"type\":\"paid\"}";
    const THEN: Timestamp = Timestamp::from_seconds(1_795_000_000);

    fn sources(table: &str, secret: &str) -> Sources {
        let text = format!("[[sources]]\nname = 'acme'\n{table}\n");
        let environment = Environment::from([("S", secret)]);
        let mut faults = Faults::default();
        let config = Config::parse(Path::new("x"), &text, &environment, &mut faults);
        let sources = resolve_all(&config, &environment, &mut faults);
        faults.into_result(sources).unwrap()
    }

    fn stripe(secret: &str) -> Sources {
        sources("preset = 'stripe'\nsecrets = [{ env = 'S' }]", secret)
    }

    /// A request that Stripe signed with `secret` at `signed_at`, received at [`THEN`].
    fn signed(secret: &str, signed_at: Timestamp) -> Request {
        let sources = stripe(secret);
        let source = &sources["acme"];
        let mut draft = Draft::of_body(BODY);
        let signing = Signing { url: "", now: signed_at, filler: "x" };
        source.scheme.sign(&mut draft, &source.keys[0], &signing).unwrap();
        Request {
            source: "acme".into(),
            reason: Rejection::SignatureMismatch,
            received_at: THEN,
            unique: "unique:1".into(),
            method: "POST".into(),
            query: None,
            peer: Some("192.0.2.1".parse().unwrap()),
            headers: draft.headers,
            body: Bytes::from(draft.body),
        }
    }

    fn judged(request: &Request, sources: &Sources, max_body_bytes: usize) -> Result<Accepted, Obstacle> {
        let bounds = Bounds { max_body_bytes, trusted_proxies: &[] };
        judge(request, sources, bounds, |request, source| verify(request, source, &mut Silent))
    }

    fn told(request: &Request, sources: &Sources) -> String {
        match judged(request, sources, 1000) {
            Ok(accepted) => accepted.event.id.to_string(),
            Err(obstacle) => obstacle.label().to_owned(),
        }
    }

    #[test]
    fn what_fits_a_secret_of_today_is_the_event_that_it_would_have_been() {
        let request = signed("today", THEN);
        assert_eq!(told(&request, &stripe("today")), "evt_1");
        assert_eq!(told(&request, &stripe("another")), "signature_mismatch");
        let accepted = judged(&request, &stripe("today"), 1000).unwrap();
        assert_eq!(accepted.event.time, THEN.to_string());
        assert_eq!((accepted.event.kind.as_ref(), &*accepted.event.body), ("paid", BODY));
    }

    #[test]
    fn the_window_is_that_of_the_moment_at_which_it_was_received() {
        let late = signed("today", THEN.minus(std::time::Duration::from_secs(3600)));
        assert_eq!(told(&late, &stripe("today")), "timestamp_outside_window");
    }

    #[test]
    fn a_source_that_vouches_for_anything_releases_nothing() {
        let forged = signed("forged", THEN);
        assert_eq!(told(&forged, &sources("unsigned = true", "")), "unprovable");
        let by_proxy = "client_certificate = 'x-cert'\nsecrets = [{ env = 'S' }]";
        assert_eq!(told(&forged, &sources(by_proxy, "fingerprint")), "unprovable");
        assert_eq!(told(&forged, &Sources::new()), "source_removed");
    }

    #[test]
    fn addresses_and_lengths_are_those_of_today() {
        let request = signed("today", THEN);
        let table = |from: &str| {
            let table = format!("preset = 'stripe'\nsecrets = [{{ env = 'S' }}]\nallow_from = ['{from}']");
            sources(&table, "today")
        };
        assert_eq!(told(&request, &table("192.0.2.0/24")), "evt_1");
        assert_eq!(told(&request, &table("198.51.100.0/24")), "address_not_allowed");
        assert_eq!(
            told(&Request { peer: None, ..request.clone() }, &table("192.0.2.0/24")),
            "address_not_allowed"
        );
        let longer = judged(&request, &stripe("today"), 3).map(|accepted| accepted.event.id);
        assert_eq!(longer, Err(Obstacle::Rejected(Rejection::BodyTooLarge)));
    }

    #[test]
    fn one_altered_byte_keeps_it_back() {
        let request = signed("today", THEN);
        let mut body = request.body.to_vec();
        body[9] ^= 1;
        assert_eq!(told(&Request { body: body.into(), ..request }, &stripe("today")), "signature_mismatch");
    }
}
