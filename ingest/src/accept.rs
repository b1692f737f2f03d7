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
use crate::verify::request::{RequestHeaders, UnverifiedRequest};
use crate::verify::value::{Place, ValueRule, find, join};

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
    let request = verified.request();
    // Of a GET the fields stand in the query: that is then what is passed on.
    let fields = request.query.filter(|_| request.method == "GET" && body.is_empty()).unwrap_or_default();
    let is_in_query = !fields.is_empty();
    let body = if is_in_query { Bytes::copy_from_slice(fields.as_bytes()) } else { body };
    let request = UnverifiedRequest { body: &body, ..*request };
    let document = source.scheme.document(&request);
    let found = source.pointers.look_up(&document);
    let look = |place: &Place| {
        let Place::Field(name) = place else { return find(&request, place, &found) };
        source.scheme.field(&request, name)
    };
    let id = event_id(verified, look, &document, unique, trace)?;
    let kind = event_kind(verified, look, trace)?;
    let kept_headers = kept_headers(verified)?;
    let identity = Identity::of(source.name.as_str(), &id);
    let event = Event {
        source: ByteString::from(source.name.as_str()),
        id,
        kind,
        time: ByteString::from(verified.request().received_at.to_string()),
        content_type: match is_in_query {
            true => Some(ByteString::from_static("application/x-www-form-urlencoded")),
            false => header_text(verified, "content-type"),
        },
        traceparent: Some(traceparent(verified, &identity)),
        kept_headers,
        body,
    };
    Ok(Accepted { event, identity })
}

fn event_id<'v>(
    verified: &VerifiedRequest<'_>,
    look: impl Fn(&Place) -> Option<Cow<'v, [u8]>>,
    body: &[u8],
    unique: impl FnOnce() -> String,
    trace: &mut impl Trace,
) -> Result<ByteString, Rejection> {
    let source = verified.source();
    refuse_repeated(verified, &source.event_id, Step::EventId, trace)?;
    // Where the sender signs a header with its id, none that it does not sign may speak in its place.
    let is_signed =
        |places: &&[Place]| places.iter().all(|place| source.scheme.signs(verified.request(), place));
    let mut alternatives = source.event_id.alternatives();
    let has_signed =
        1 < source.event_id.alternatives().count() && alternatives.any(|places| is_signed(&places));
    let is_of_headers = |places: &[Place]| places.iter().any(|place| matches!(place, Place::Header(_)));
    let may_speak = |places: &&[Place]| !has_signed || is_signed(places) || !is_of_headers(places);
    let given = source.event_id.alternatives().filter(may_speak).find_map(|places| match places {
        [Place::BodyHash] => Some(event_id_from_body(body)),
        places => join(places, &look).and_then(|raw| event_id_from_sender(&raw)),
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

fn event_kind<'v>(
    verified: &VerifiedRequest<'_>,
    look: impl Fn(&Place) -> Option<Cow<'v, [u8]>>,
    trace: &mut impl Trace,
) -> Result<ByteString, Rejection> {
    let Some(rule) = &verified.source().event_type else { return Ok(ByteString::from_static(UNTYPED)) };
    refuse_repeated(verified, rule, Step::EventType, trace)?;
    let given = rule.alternatives().find_map(|places| join(places, &look));
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

fn kept_headers(verified: &VerifiedRequest<'_>) -> Result<Vec<(ByteString, Bytes)>, Rejection> {
    let mut kept = Vec::new();
    let mut weight = 0;
    for name in &verified.source().keep_headers {
        if let Some(value) = whole_value(verified.request().headers, name) {
            weight += name.len() + value.len();
            kept.push((ByteString::from(name.as_str()), value));
        }
    }
    if weight <= MAX_KEPT_HEADER_BYTES { Ok(kept) } else { Err(Rejection::HeadersTooLarge) }
}

/// All values of a header as one, with commas between, which means the same (RFC 9110, 5.3).
fn whole_value(headers: &dyn RequestHeaders, name: &str) -> Option<Bytes> {
    let first = headers.first(name)?;
    if !headers.is_repeated(name) {
        return Some(Bytes::copy_from_slice(first));
    }
    let values: Vec<_> = (0..).map_while(|n| headers.nth(name, n)).collect();
    Some(values.join(b", ".as_slice()).into())
}

/// A header as text that may stand in a record and in a request of ours; dropped where it may not,
/// and where it is there twice, so that nobody can say which one counts.
fn header_text(verified: &VerifiedRequest<'_>, name: &str) -> Option<ByteString> {
    let headers = verified.request().headers;
    let value = headers.first(name).filter(|_| !headers.is_repeated(name))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::explain::Silent;
    use crate::verify::tests::{Headers, header, signed, source};
    use crate::verify::verify;
    use hookwell_common::time::Timestamp;

    const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);
    const BODY: &[u8] = br#"{"id":"evt_1","type":"ping"}"#;

    /// What becomes of a request that `table` verifies and that has `more` headers.
    fn judge(table: &str, more: &[(&str, &str)]) -> Result<Event, Rejection> {
        let source = source(table, &["s3cret"]);
        let mut headers: Headers = signed(&source, BODY, NOW);
        headers.extend(more.iter().map(|(name, value)| header(name, value)));
        let request = UnverifiedRequest {
            method: "POST",
            query: None,
            headers: &headers,
            body: BODY,
            received_at: NOW,
        };
        let verified = verify(request, &source, &mut Silent).unwrap();
        let accepted = accept(&verified, Bytes::from_static(BODY), || "unique".to_owned(), &mut Silent);
        accepted.map(|accepted| accepted.event)
    }

    #[test]
    fn an_id_or_a_type_that_is_there_twice_is_refused() {
        for name in ["x-github-delivery", "x-github-event"] {
            let twice = judge("preset = \"github\"", &[(name, "one"), (name, "two")]);
            assert_eq!(twice, Err(Rejection::Unreadable), "{name}");
        }
    }

    #[test]
    fn the_fields_of_a_get_are_what_is_passed_on() {
        let source = source("preset = \"plivo\"\npublic_url = \"https://hooks.example.com/x\"", &["s3cret"]);
        let headers: Headers = signed(&source, b"", NOW);
        let query = "MessageUUID=a%20b&Status=sent";
        let request = UnverifiedRequest {
            method: "GET",
            query: Some(query),
            headers: &headers,
            body: b"",
            received_at: NOW,
        };
        let verified = verify(request, &source, &mut Silent).unwrap();
        let event = accept(&verified, Bytes::new(), || "unique".to_owned(), &mut Silent).unwrap().event;
        assert_eq!((&*event.id, &*event.kind, &*event.body), ("a b.sent", "sent", query.as_bytes()));
        assert_eq!(event.content_type.as_deref(), Some("application/x-www-form-urlencoded"));
    }

    #[test]
    fn a_kept_header_that_is_there_twice_is_kept_whole() {
        let table = "preset = \"github\"\nkeep_headers = [\"X-Shop\"]";
        let event = judge(table, &[("x-shop", "one"), ("x-other", "no"), ("x-shop", "two")]).unwrap();
        assert_eq!(event.kept_headers, [("x-shop".into(), Bytes::from_static(b"one, two"))]);
    }

    #[test]
    fn kept_headers_that_weigh_too_much_are_refused() {
        let table = "preset = \"github\"\nkeep_headers = [\"x-shop\"]";
        let long = "x".repeat(MAX_KEPT_HEADER_BYTES);
        assert_eq!(judge(table, &[("x-shop", &long)]), Err(Rejection::HeadersTooLarge));
    }

    #[test]
    fn a_content_type_or_a_trace_that_is_there_twice_does_not_count() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let once = judge("preset = \"github\"", &[("content-type", "a/b"), ("traceparent", trace)]).unwrap();
        assert_eq!((once.content_type.as_deref(), once.traceparent.as_deref()), (Some("a/b"), Some(trace)));
        let more = [
            ("content-type", "a/b"),
            ("content-type", "c/d"),
            ("traceparent", trace),
            ("traceparent", trace),
        ];
        let twice = judge("preset = \"github\"", &more).unwrap();
        assert_eq!(twice.content_type, None);
        assert_ne!(twice.traceparent.as_deref(), Some(trace));
    }

    #[test]
    fn an_id_that_is_not_signed_does_not_speak_where_one_is() {
        let of = |preset: &str| {
            source(&format!("preset = {preset:?}"), &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
        };
        // Svix may sign as Standard Webhooks does, and the header of the other way is then anybody's.
        for (signs_as, others) in [("svix", "webhook-id"), ("standard-webhooks", "svix-id")] {
            let genuine = signed(&of(signs_as), BODY, NOW);
            let id = |more: &[(&str, &str)]| {
                let mut headers = genuine.clone();
                headers.extend(more.iter().map(|(name, value)| header(name, value)));
                let received_at = NOW;
                let request = UnverifiedRequest {
                    method: "POST",
                    query: None,
                    headers: &headers,
                    body: BODY,
                    received_at,
                };
                let source = of("svix");
                let verified = verify(request, &source, &mut Silent).unwrap();
                let unique = || "unique".to_owned();
                accept(&verified, Bytes::from_static(BODY), unique, &mut Silent).unwrap().event.id.to_string()
            };
            assert_eq!(id(&[(others, "forged")]), id(&[]), "{signs_as}");
            assert!(!id(&[]).starts_with("body-"), "{signs_as}");
        }
    }

    #[test]
    fn what_is_done_without_an_id_is_the_sources_choice() {
        let table = |choice: &str| format!("preset = \"github\"\nevent_id_missing = {choice:?}");
        let id = |choice| judge(&table(choice), &[]).map(|event| event.id.to_string());
        assert_eq!(id("hash"), Ok(event_id_from_body(BODY).to_string()));
        assert_eq!(id("accept"), Ok("unique".to_owned()));
        assert_eq!(id("reject"), Err(Rejection::EventIdMissing));
        // Of a sender that gives none in the first place, too.
        let ping = |choice: &str| format!("preset = \"dropbox\"\nevent_id_missing = {choice:?}");
        let id = |choice| judge(&ping(choice), &[]).map(|event| event.id.to_string());
        assert_eq!(id("hash"), Ok(event_id_from_body(BODY).to_string()));
        assert_eq!(id("accept"), Ok("unique".to_owned()));
    }
}
