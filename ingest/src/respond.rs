//! Ack or Rejection to an answer.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER};
use actix_web::{HttpResponse, HttpResponseBuilder};

use crate::rejection::Rejection;

/// What the stable `type` of a problem begins with (RFC 9457).
pub const PROBLEM_TYPE_PREFIX: &str = "urn:hookwell:problem:";

/// The answer to an accepted event.
pub fn accepted() -> HttpResponse {
    HttpResponse::Ok().finish()
}

/// The answer to a request that is not accepted: problem details that never say which part of a
/// signature differed.
pub fn rejected(rejection: Rejection) -> HttpResponse {
    let (status, label) = rejection.contract();
    let status_code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = HttpResponseBuilder::new(status_code);
    answer.insert_header((CONTENT_TYPE, "application/problem+json"));
    if let Some(seconds) = rejection.retry_after_seconds() {
        answer.insert_header((RETRY_AFTER, seconds.to_string()));
    }
    if rejection == Rejection::MethodNotAllowed {
        answer.insert_header(("allow", "POST"));
    }
    if rejection.closes_connection() {
        answer.force_close();
    }
    let problem = serde_json::json!({
        "type": format!("{PROBLEM_TYPE_PREFIX}{label}"),
        "title": rejection.to_string(),
        "status": status,
    });
    answer.body(problem.to_string())
}
