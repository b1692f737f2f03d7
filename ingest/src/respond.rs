//! Ack or Rejection to an answer.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER};
use actix_web::{HttpResponse, HttpResponseBuilder};

use crate::rejection::Rejection;
use crate::source::Source;
use crate::verify::handshake::Reply;

/// What the stable `type` of a problem begins with (RFC 9457).
pub const PROBLEM_TYPE_PREFIX: &str = "urn:hookwell:problem:";

/// The answer to an accepted event: an empty 200, but for senders that want another one.
pub fn accepted(source: Option<&Source>) -> HttpResponse {
    let status = source.map_or(200, |source| source.success_status);
    let mut answer = HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::OK));
    match source.and_then(|source| source.success_text) {
        None => answer.finish(),
        Some(text) => answer.insert_header((CONTENT_TYPE, "text/plain")).body(text),
    }
}

/// What a sender hears that asked whether the address is ours.
pub fn handshake(reply: Reply) -> HttpResponse {
    let mut answer = HttpResponse::build(StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK));
    for header in reply.headers {
        answer.append_header(header);
    }
    // What comes back is the sender's own text, and nobody's page.
    answer.insert_header(("x-content-type-options", "nosniff"));
    match reply.content_type {
        None => answer.finish(),
        Some(kind) => answer.insert_header((CONTENT_TYPE, kind)).body(reply.body),
    }
}

/// The answer to a request that is not accepted: problem details that never say which part of a
/// signature differed.
pub fn rejected(rejection: Rejection, source: Option<&Source>) -> HttpResponse {
    let (usual, label) = rejection.contract();
    let status = source.map_or(usual, |source| source.status_of(rejection));
    let status_code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = HttpResponseBuilder::new(status_code);
    if let Some(seconds) = rejection.retry_after_seconds() {
        answer.insert_header((RETRY_AFTER, seconds.to_string()));
    }
    if rejection == Rejection::MethodNotAllowed {
        answer.insert_header(("allow", source.map_or("POST".to_owned(), Source::allowed)));
    }
    if rejection.closes_connection() {
        answer.force_close();
    }
    if source.is_some_and(|source| source.bare_refusals) {
        return answer.finish();
    }
    let problem = serde_json::json!({
        "type": format!("{PROBLEM_TYPE_PREFIX}{label}"),
        "title": rejection.to_string(),
        "status": status,
    });
    answer.insert_header((CONTENT_TYPE, "application/problem+json"));
    answer.body(problem.to_string())
}
