//! The `http` destination: `POST` to a URL.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytestring::ByteString;
use hookwell_common::event::Event;
use hookwell_common::lifecycle::Clock;
use hookwell_common::secret::Secret;
use hookwell_common::time::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response};
use ring::hmac;
use url::Url;

use super::{Handled, Handler, Request};
use crate::outcome::HandlerError;

/// How much of an answer is read so that its connection can be used again.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// How long an answer's body is waited for at most; the status has already said everything.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// How long a connection is kept that nobody uses. Many servers close theirs after 5 s (Node.js, actix),
/// and a call that they close under costs its event an attempt.
const IDLE: Duration = Duration::from_secs(4);

/// The longest delay that `Retry-After` can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Headers of the sender that are not handed on, for they belong to a connection or to us.
const NOT_HANDED_ON: &[&str] =
    &["connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"];

/// Posts each event to one URL.
pub struct HttpHandler {
    client: Client,
    url: Url,
    signing_key: Option<hmac::Key>,
    timeout: Duration,
    clock: Clock,
}

impl std::fmt::Debug for HttpHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpHandler").finish_non_exhaustive()
    }
}

impl HttpHandler {
    /// Posts to `url` with `client`, signed as Standard Webhooks does where there is a secret. Calls
    /// are given up after `timeout` by whoever makes them. `None` where the secret begins with
    /// `whsec_` and is no base64 thereafter.
    pub fn new(
        client: Client,
        url: Url,
        secret: Option<&Secret>,
        timeout: Duration,
        clock: Clock,
    ) -> Option<Self> {
        let signing_key = match secret {
            None => None,
            Some(secret) => Some(hmac::Key::new(hmac::HMAC_SHA256, &key_bytes(secret.reveal())?)),
        };
        Some(Self { client, url, signing_key, timeout, clock })
    }

    /// The client that all destinations share. Redirects are answers, not instructions.
    pub fn client() -> Result<Client, reqwest::Error> {
        // Only the first installation counts; a second one finds what it wanted.
        rustls::crypto::ring::default_provider().install_default().ok();
        Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .build()
    }

    fn headers(&self, request: &Request, now: Timestamp) -> HeaderMap {
        let event = &request.event;
        let timestamp = (now.as_millis() / 1000).to_string();
        let mut headers = HeaderMap::with_capacity(12 + event.kept_headers.len());
        for (name, value) in &event.kept_headers {
            if !NOT_HANDED_ON.contains(&&**name)
                && let (Ok(name), Ok(value)) = (HeaderName::try_from(&**name), HeaderValue::from_bytes(value))
            {
                headers.insert(name, value);
            }
        }
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(name, value);
            }
        };
        if let Some(content_type) = &event.content_type {
            set(CONTENT_TYPE, content_type);
        }
        if let Some(traceparent) = &event.traceparent {
            set(HeaderName::from_static("traceparent"), traceparent);
        }
        set(HeaderName::from_static("webhook-id"), &request.idempotency_key);
        set(HeaderName::from_static("webhook-timestamp"), &timestamp);
        if let Some(key) = &self.signing_key {
            let signature = sign(key, &request.idempotency_key, &timestamp, event);
            set(HeaderName::from_static("webhook-signature"), &signature);
        }
        set(HeaderName::from_static("hookwell-source"), &event.source);
        set(HeaderName::from_static("hookwell-event-id"), &event.id);
        set(HeaderName::from_static("hookwell-event-type"), &event.kind);
        set(HeaderName::from_static("hookwell-attempt"), &request.attempt.to_string());
        set(HeaderName::from_static("hookwell-generation"), &request.generation.to_string());
        headers
    }
}

impl Handler for HttpHandler {
    fn handle(&self, request: Request) -> Handled {
        let now = self.clock.now().wall;
        let headers = self.headers(&request, now);
        let call = self.client.post(self.url.clone()).headers(headers).body(request.event.body.clone());
        let (clock, timeout, begun) = (self.clock, self.timeout, self.clock.mono());
        Box::pin(async move {
            let answer = call.send().await.map_err(|error| HandlerError::Unreachable(words(&error)))?;
            let status = answer.status();
            let retry_after = retry_after(&answer, now);
            // A body that trickles must not make a time-out of an answer that came in time.
            let left = timeout.saturating_sub(clock.mono().saturating_sub(begun));
            finish(answer, ANSWER_PATIENCE.min(left / 2)).await;
            if status.is_success() {
                Ok(())
            } else {
                Err(HandlerError::Status { status: status.as_u16(), retry_after })
            }
        })
    }
}

/// Reads an answer's body as far as its connection is worth it.
async fn finish(mut answer: Response, patience: Duration) {
    let read = async {
        let mut length = 0;
        while let Ok(Some(chunk)) = answer.chunk().await {
            length += chunk.len();
            if length > MAX_ANSWER_BYTES {
                break;
            }
        }
    };
    // Whether it ends in time decides only about the connection.
    tokio::time::timeout(patience, read).await.ok();
}

/// `Retry-After` in seconds, or as a date.
fn retry_after(answer: &Response, now: Timestamp) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wanted = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            let millis = date.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?.as_millis();
            Timestamp::from_millis(u64::try_from(millis).ok()?).since(now)
        }
    };
    Some(wanted.min(MAX_RETRY_AFTER))
}

fn sign(key: &hmac::Key, id: &str, timestamp: &str, event: &Event) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", event.body.as_ref()] {
        context.update(part);
    }
    format!("v1,{}", STANDARD.encode(context.sign()))
}

/// Base64 after `whsec_`, as Standard Webhooks shows its secrets; the bytes themselves otherwise.
fn key_bytes(secret: &[u8]) -> Option<Vec<u8>> {
    match secret.strip_prefix(b"whsec_") {
        Some(encoded) => STANDARD.decode(encoded).ok(),
        None => Some(secret.to_vec()),
    }
}

/// What went wrong, without the URL, which may hold a password.
fn words(error: &reqwest::Error) -> ByteString {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    ByteString::from(cause.to_string())
}
