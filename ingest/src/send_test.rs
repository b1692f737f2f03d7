//! `--send-test`: signs as the sender would, posts, and prints what it was answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use governor::{Quota, RateLimiter};
use hookwell_common::lifecycle::{Clock, Failure};
use hookwell_common::time::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::cli::{Loaded, print};
use crate::source::Source;
use crate::verify::value::{Place, ValueRule};

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'p> {
    /// How many events.
    pub count: u32,
    /// The most a second.
    pub rate: Option<NonZeroU32>,
    /// The body; one is made up where it is left out.
    pub body: Option<&'p Path>,
    /// Each event twice.
    pub duplicate: bool,
    /// Alter the body after it is signed.
    pub tamper: bool,
    /// Where to; the configured listener where it is left out.
    pub url: Option<&'p str>,
}

/// One request, ready to be sent.
#[derive(Clone, Debug)]
struct Signed {
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Reads `50/s`.
pub fn parse_rate(text: &str) -> Result<NonZeroU32, Failure> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().map_err(|_| Failure::Usage(format!("--rate {text:?} is not a rate such as 50/s")))
}

/// Sends what `plan` says to source `name`. The answer is no unless each answer was a 2xx.
pub fn send(loaded: &Loaded, name: &str, plan: &Plan<'_>) -> Result<(), Failure> {
    let source = loaded.source(name)?;
    let given = plan.body.map(|file| {
        std::fs::read(file)
            .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", file.display())))
    });
    let given = given.transpose()?;
    let url = match plan.url {
        Some(url) => url.to_owned(),
        None => format!("http://{}/webhooks/{name}", reachable(loaded.config.ingest.listen)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Usage(error.to_string()))?;
    let refused = runtime.block_on(post_all(source, &url, given.as_deref(), plan))?;
    match refused {
        0 => Ok(()),
        count => Err(Failure::No(format!("{count} answers were no 2xx"))),
    }
}

/// Gives the number of answers that were no 2xx.
async fn post_all(source: &Source, url: &str, body: Option<&[u8]>, plan: &Plan<'_>) -> Result<u32, Failure> {
    // Only the first installation counts; a second one finds what it wanted.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build();
    let client = client.map_err(|error| Failure::Usage(error.to_string()))?;
    let pace =
        plan.rate.map(|rate| RateLimiter::direct(Quota::per_second(rate).allow_burst(NonZeroU32::MIN)));
    let clock = Clock::start();
    let run = clock.now().wall.as_millis();
    let mut refused = 0;
    for number in 0..plan.count {
        let id = format!("evt_test_{run:x}_{number}");
        let signed = sign(source, &id, body, clock.now().wall, plan.tamper)?;
        for _ in 0..if plan.duplicate { 2 } else { 1 } {
            if let Some(pace) = &pace {
                pace.until_ready().await;
            }
            let begun = clock.mono();
            let sent =
                client.post(url).headers(signed.headers.clone()).body(signed.body.clone()).send().await;
            let millis = clock.mono().saturating_sub(begun).as_secs_f64() * 1000.0;
            match sent {
                Ok(answer) => {
                    let status = answer.status();
                    refused += u32::from(!status.is_success());
                    print(&format!("{id} {} in {millis:.1} ms", status.as_u16()))?;
                }
                Err(error) => {
                    refused += 1;
                    print(&format!("{id} no answer: {}", innermost(&error)))?;
                }
            }
        }
    }
    Ok(refused)
}

fn sign(
    source: &Source,
    id: &str,
    body: Option<&[u8]>,
    now: Timestamp,
    tamper: bool,
) -> Result<Signed, Failure> {
    let key = source.keys.first().ok_or_else(|| Failure::Usage("the source has no secret".to_owned()))?;
    let mut headers = vec![("content-type".to_owned(), b"application/json".to_vec())];
    let mut invented = json!({ "id": id, "type": "hookwell.test" });
    place(&source.event_id, id, &mut headers, &mut invented);
    if let Some(rule) = &source.event_type {
        place(rule, "hookwell.test", &mut headers, &mut invented);
    }
    let mut body = body.map_or_else(|| invented.to_string().into_bytes(), <[u8]>::to_vec);
    source.recipe.sign(&mut headers, &body, &source.public_url, key, now, id);
    if tamper {
        body.push(b' ');
    }
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::try_from(name).map_err(|error| Failure::Usage(error.to_string()))?;
        map.append(name, HeaderValue::try_from(value).map_err(|error| Failure::Usage(error.to_string()))?);
    }
    Ok(Signed { headers: map, body })
}

/// Puts `value` where the first alternative of `rule` looks for it.
fn place(rule: &ValueRule, value: &str, headers: &mut Vec<(String, Vec<u8>)>, body: &mut Value) {
    match rule.alternatives().next().and_then(<[Place]>::first) {
        Some(Place::Header(name)) => headers.push((name.clone(), value.as_bytes().to_vec())),
        Some(Place::Json(pointer)) => {
            let slot = pointer.iter().try_fold(&mut *body, |at, key| {
                if !at.is_object() {
                    *at = json!({});
                }
                at.as_object_mut().map(|object| object.entry(key.clone()).or_insert(Value::Null))
            });
            if let Some(slot) = slot {
                *slot = json!(value);
            }
        }
        Some(Place::Field(_) | Place::BodyHash) | None => {}
    }
}

/// The listener's address as a client can reach it.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
    SocketAddr::new(ip, listen.port())
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
