//! One GET to a sender's host: bounded in time and in size, without redirects, and by no proxy but
//! one that the configuration names.

use std::fmt;
use std::time::Duration;

use reqwest::Client;
use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap};
use reqwest::redirect::Policy;

/// How long an answer may take, its body included; shorter than any sender's patience.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long it may take to be connected.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// The most of an answer that is read.
const MAX_BYTES: usize = 64 * 1024;

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A key was read.
    Fetched,
    /// There was no answer in time.
    TimedOut,
    /// There was no connection, or a broken one, or not with whom it was meant.
    Unreachable,
    /// The answer was no 200.
    Status,
    /// The answer was too long.
    TooLarge,
    /// The answer holds no key with which this sender could sign.
    Unreadable,
    /// The certificate is over, or does not hold yet.
    Expired,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 7] = [
        Outcome::Fetched,
        Outcome::TimedOut,
        Outcome::Unreachable,
        Outcome::Status,
        Outcome::TooLarge,
        Outcome::Unreadable,
        Outcome::Expired,
    ];

    /// The stable word for the metric and the log.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Fetched => "fetched",
            Outcome::TimedOut => "timed_out",
            Outcome::Unreachable => "unreachable",
            Outcome::Status => "status",
            Outcome::TooLarge => "too_large",
            Outcome::Unreadable => "unreadable",
            Outcome::Expired => "expired",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Fetched => "a key was read",
            Outcome::TimedOut => "no answer in time",
            Outcome::Unreachable => "no connection; may this machine reach it, and does its certificate fit?",
            Outcome::Status => "the answer is no 200",
            Outcome::TooLarge => "the answer is too long",
            Outcome::Unreadable => "the answer holds no key with which this sender could sign",
            Outcome::Expired => "the certificate is over, or does not hold yet",
        })
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The body.
    pub body: Vec<u8>,
    /// For how long it holds, where the host says so.
    pub max_age: Option<Duration>,
}

/// The client for all of them. Connections are not kept: there are few questions, and long between.
pub fn client() -> reqwest::Result<Client> {
    // Only the first installation counts; a second one finds what it wanted.
    rustls::crypto::ring::default_provider().install_default().ok();
    Client::builder()
        .timeout(PATIENCE)
        .connect_timeout(CONNECT_PATIENCE)
        .redirect(Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
}

/// Asks for `url`.
pub async fn get(client: &Client, url: &str) -> Result<Fetched, Outcome> {
    let mut answer = client.get(url).send().await.map_err(|error| outcome_of(&error))?;
    if answer.status() != reqwest::StatusCode::OK {
        return Err(Outcome::Status);
    }
    let max_age = max_age(answer.headers());
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| outcome_of(&error))? {
        if MAX_BYTES < body.len() + chunk.len() {
            return Err(Outcome::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Fetched { body, max_age })
}

fn outcome_of(error: &reqwest::Error) -> Outcome {
    if error.is_timeout() { Outcome::TimedOut } else { Outcome::Unreachable }
}

/// `max-age` of `Cache-Control` less what a cache on the way has used up of it (RFC 9111); none at all
/// where nothing may be kept.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let mut directives = text(CACHE_CONTROL)?.split(',').map(str::trim);
    let max_age = directives.find_map(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.to_ascii_lowercase().as_str() {
            "max-age" => value.trim_matches('"').parse().ok().map(Duration::from_secs),
            "no-store" | "no-cache" => Some(Duration::ZERO),
            _ => None,
        }
    });
    let age = text(AGE).and_then(|age| age.trim().parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
    max_age.map(|max_age| max_age.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_an_answer_holds_is_read_from_its_headers() {
        let seconds = |control: &'static str, age: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, control.parse().unwrap());
            age.map(|age| headers.insert(AGE, age.parse().unwrap()));
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(seconds("public, max-age=19008, must-revalidate", None), Some(19_008));
        assert_eq!(seconds("public, max-age=19008", Some("19000")), Some(8));
        assert_eq!(seconds("max-age=10", Some("11")), Some(0));
        assert_eq!(seconds("max-age=10", Some("old")), Some(10));
        assert_eq!(seconds("Max-Age=\"5\"", None), Some(5));
        assert_eq!(seconds("no-store", None), Some(0));
        assert_eq!(seconds("public", Some("1")), None);
        assert_eq!(seconds("max-age=soon", None), None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }
}
