//! VerifiedRequest to Event: its id, its type, its partition.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use hookwell_common::config::EventIdMissing;
use hookwell_common::event::{
    Event, UNTYPED, event_id_from_body, event_id_from_sender, event_kind_from_sender,
};
use hookwell_common::identity::Identity;

use crate::rejection::Rejection;
use crate::verify::VerifiedRequest;
use crate::verify::explain::{Step, Trace};
use crate::verify::value::{Found, Place, ValueRule, join};

/// The most that the headers which are kept may weigh together, in bytes.
pub const MAX_KEPT_HEADER_BYTES: usize = 32 * 1024;

/// A verified event, and where it goes.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// What the record holds.
    pub event: Event,
    /// Who sent what, hashed.
    pub identity: Identity,
}

/// Makes an event of a verified request. `body` is the request's body, owned; `unique` is an id
/// that no other event has, for a source that wants no duplicates recognised where it gives none.
pub fn accept(
    verified: &VerifiedRequest<'_>,
    body: Bytes,
    unique: impl FnOnce() -> String,
    trace: &mut impl Trace,
) -> Result<Accepted, Rejection> {
    let source = verified.source();
    let found = source.pointers.look_up(&body);
    let id = event_id(verified, &found, &body, unique, trace)?;
    let kind = event_kind(verified, &found, trace)?;
    let kept_headers = kept_headers(verified)?;
    let identity = Identity::of(source.name.as_str(), &id);
    let event = Event {
        source: ByteString::from(source.name.as_str()),
        id,
        kind,
        time: ByteString::from(verified.request().received_at.to_string()),
        content_type: header_text(verified, "content-type"),
        traceparent: Some(traceparent(verified, &identity)),
        kept_headers,
        body,
    };
    Ok(Accepted { event, identity })
}

fn event_id(
    verified: &VerifiedRequest<'_>,
    found: &Found<'_>,
    body: &Bytes,
    unique: impl FnOnce() -> String,
    trace: &mut impl Trace,
) -> Result<ByteString, Rejection> {
    let source = verified.source();
    refuse_repeated(verified, &source.event_id, Step::EventId, trace)?;
    let given = source.event_id.alternatives().find_map(|places| match places {
        [Place::BodyHash] => Some(event_id_from_body(body)),
        places => {
            join(places, |place| value_at(verified, place, found)).and_then(|raw| event_id_from_sender(&raw))
        }
    });
    if let Some(id) = given {
        trace.passed(Step::EventId, || id.to_string());
        return Ok(id);
    }
    match source.event_id_missing {
        EventIdMissing::Hash => {
            let id = event_id_from_body(body);
            trace.passed(Step::EventId, || format!("none was given; the hash of the body stands in: {id}"));
            Ok(id)
        }
        EventIdMissing::Accept => {
            trace.passed(Step::EventId, || "none was given; each such event counts as new".to_owned());
            Ok(ByteString::from(unique()))
        }
        EventIdMissing::Reject => Err(trace.failed(Step::EventId, Rejection::EventIdMissing, || {
            "none was given, and event_id_missing is \"reject\"".to_owned()
        })),
    }
}

fn event_kind(
    verified: &VerifiedRequest<'_>,
    found: &Found<'_>,
    trace: &mut impl Trace,
) -> Result<ByteString, Rejection> {
    let Some(rule) = &verified.source().event_type else { return Ok(ByteString::from_static(UNTYPED)) };
    refuse_repeated(verified, rule, Step::EventType, trace)?;
    let given = rule.alternatives().find_map(|places| join(places, |place| value_at(verified, place, found)));
    let kind = event_kind_from_sender(&String::from_utf8_lossy(&given.unwrap_or_default()));
    trace.passed(Step::EventType, || kind.to_string());
    Ok(kind)
}

/// Of a header that is there twice nobody can say which one counts.
fn refuse_repeated(
    verified: &VerifiedRequest<'_>,
    rule: &ValueRule,
    step: Step,
    trace: &mut impl Trace,
) -> Result<(), Rejection> {
    for place in rule.places() {
        if let Place::Header(name) = place
            && verified.request().headers.is_repeated(name)
        {
            return Err(
                trace.failed(step, Rejection::Unreadable, || format!("{name} is there more than once"))
            );
        }
    }
    Ok(())
}

fn value_at<'v>(verified: &VerifiedRequest<'v>, place: &Place, found: &Found<'_>) -> Option<Cow<'v, [u8]>> {
    let request = verified.request();
    match place {
        Place::Header(name) => request.headers.first(name).map(Cow::Borrowed),
        Place::Field(name) => verified.source().recipe.field(request, name).map(Cow::Borrowed),
        Place::Json(pointer) => found.get(pointer).map(|value| Cow::Owned(value.into_bytes())),
        Place::BodyHash => None,
    }
}

fn kept_headers(verified: &VerifiedRequest<'_>) -> Result<Vec<(ByteString, Bytes)>, Rejection> {
    let headers = verified.request().headers;
    let mut kept = Vec::new();
    let mut weight = 0;
    for name in &verified.source().keep_headers {
        if let Some(value) = headers.first(name) {
            weight += name.len() + value.len();
            kept.push((ByteString::from(name.as_str()), Bytes::copy_from_slice(value)));
        }
    }
    if weight <= MAX_KEPT_HEADER_BYTES { Ok(kept) } else { Err(Rejection::HeadersTooLarge) }
}

/// A header as text that may stand in a record and in a request of ours; dropped where it may not.
fn header_text(verified: &VerifiedRequest<'_>, name: &str) -> Option<ByteString> {
    let value = verified.request().headers.first(name)?;
    let text = std::str::from_utf8(value).ok()?;
    let is_plain = !text.is_empty() && text.len() <= 256 && !text.bytes().any(|b| b.is_ascii_control());
    is_plain.then(|| ByteString::from(text))
}

/// The sender's trace where it gave one that has the W3C form, one of the event's own otherwise.
fn traceparent(verified: &VerifiedRequest<'_>, identity: &Identity) -> ByteString {
    let has_form = |text: &ByteString| {
        let lengths = text.split('-').map(str::len);
        lengths.eq([2, 32, 16, 2]) && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
    };
    header_text(verified, "traceparent").filter(has_form).unwrap_or_else(|| identity.traceparent().into())
}
