//! The names of the record headers: a published contract (`docs/topics.md`).
//!
//! The `ce_…` ones are the CloudEvents 1.0 Kafka binding in binary mode, so that any consumer of
//! CloudEvents can read the topics.

/// Version of CloudEvents: always [`SPEC_VERSION`].
pub const CE_SPECVERSION: &str = "ce_specversion";
/// The event id.
pub const CE_ID: &str = "ce_id";
/// The configured source's name.
pub const CE_SOURCE: &str = "ce_source";
/// The event type.
pub const CE_TYPE: &str = "ce_type";
/// When ingest received the event, RFC 3339 in UTC.
pub const CE_TIME: &str = "ce_time";
/// The sender's content type.
pub const CONTENT_TYPE: &str = "content-type";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// Before the lower-case name of each of the sender's HTTP headers that the source keeps.
pub const HTTP_PREFIX: &str = "http-";

/// Which call of the handler this record asks for, from 0.
pub const ATTEMPT: &str = "hookwell-attempt";
/// How often the delivery was replayed.
pub const GENERATION: &str = "hookwell-generation";
/// The one destination that this record is for. Absent on accepted events: routes decide.
pub const DESTINATION: &str = "hookwell-destination";
/// When a retry is due, milliseconds since the epoch.
pub const NOT_BEFORE: &str = "hookwell-not-before";
/// When the delivery's first attempt of this generation failed, milliseconds since the epoch.
pub const FIRST_FAILED_AT: &str = "hookwell-first-failed-at";
/// The topic on which the event was accepted.
pub const ORIGINAL_TOPIC: &str = "hookwell-original-topic";
/// The partition on which the event was accepted.
pub const ORIGINAL_PARTITION: &str = "hookwell-original-partition";
/// The offset at which the event was accepted.
pub const ORIGINAL_OFFSET: &str = "hookwell-original-offset";
/// On a retry `transient`, on a dead letter its reason.
pub const ERROR_CLASS: &str = "hookwell-error-class";
/// What went wrong, in words, at most [`MAX_ERROR_BYTES`] long.
pub const ERROR: &str = "hookwell-error";
/// `true` on a replay that was forced, so that it is accepted although the delivery was done.
pub const FORCED: &str = "hookwell-forced";
/// Which transaction wrote this record: nothing for readers, but what tells a processor how it ended
/// where Kafka has forgotten that.
pub const TRANSACTION: &str = "hookwell-transaction";

/// The configured source to which a request in quarantine was sent.
pub const REQUEST_SOURCE: &str = "hookwell-request-source";
/// Why it failed verification.
pub const REQUEST_REASON: &str = "hookwell-request-reason";
/// When ingest received it, milliseconds since the epoch.
pub const REQUEST_RECEIVED_AT: &str = "hookwell-request-received-at";
/// Something that no other request has: it stands in for an event id where the sender gives none and
/// each event counts as new.
pub const REQUEST_UNIQUE: &str = "hookwell-request-unique";
/// The method.
pub const REQUEST_METHOD: &str = "hookwell-request-method";
/// What followed `?` in the request's target.
pub const REQUEST_QUERY: &str = "hookwell-request-query";
/// The address of the connection.
pub const REQUEST_PEER: &str = "hookwell-request-peer";
/// On a record that tells of a release: the offset of the request, on the same partition.
pub const RELEASED_OFFSET: &str = "hookwell-released-offset";
/// On a record that tells of a release: which event the request was, hashed.
pub const RELEASED_EVENT: &str = "hookwell-released-event";

/// Every fixed name on the quarantine topic, in the order in which records carry them.
pub const QUARANTINE: &[&str] = &[
    REQUEST_SOURCE,
    REQUEST_REASON,
    REQUEST_RECEIVED_AT,
    REQUEST_UNIQUE,
    REQUEST_METHOD,
    REQUEST_QUERY,
    REQUEST_PEER,
    RELEASED_OFFSET,
    RELEASED_EVENT,
];

/// The value of [`CE_SPECVERSION`].
pub const SPEC_VERSION: &str = "1.0";

/// The length at which [`ERROR`] is cut.
pub const MAX_ERROR_BYTES: usize = 1024;

/// Every fixed name that tells of the event or of its delivery, in the order in which records carry
/// them.
pub const ALL: &[&str] = &[
    CE_SPECVERSION,
    CE_ID,
    CE_SOURCE,
    CE_TYPE,
    CE_TIME,
    CONTENT_TYPE,
    TRACEPARENT,
    ATTEMPT,
    GENERATION,
    DESTINATION,
    NOT_BEFORE,
    FIRST_FAILED_AT,
    ORIGINAL_TOPIC,
    ORIGINAL_PARTITION,
    ORIGINAL_OFFSET,
    ERROR_CLASS,
    ERROR,
    FORCED,
];
