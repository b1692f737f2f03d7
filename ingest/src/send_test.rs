//! `--send-test`: signs as the sender would, posts, and prints what it was answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use governor::{Quota, RateLimiter};
use hookwell_common::lifecycle::{Clock, Failure, print};
use hookwell_common::time::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;

use crate::cli::Loaded;
use crate::source::Source;
use crate::verify::draft::{Draft, Signing};
use crate::verify::key::SigningKey;
use crate::verify::value::{Place, ValueRule};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

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
    /// The private key to sign with, where the sender has one.
    pub key: Option<&'p Path>,
    /// Where to; the configured listener where it is left out.
    pub url: Option<&'p str>,
}

/// One request, ready to be sent.
#[derive(Clone, Debug)]
struct Signed {
    url: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Who is played.
#[derive(Clone, Copy, Debug)]
struct Sender<'s> {
    source: &'s Source,
    /// Those of the source, or one made for the test.
    keys: &'s [SigningKey],
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", file.display())))
}

/// With the id of the source's first secret, for some senders sign that too.
fn made_key(source: &Source, file: &Path) -> Result<SigningKey, Failure> {
    let id = source.keys.first().and_then(|key| key.id.clone());
    source.scheme.private_key(id, &read(file)?).ok_or_else(|| {
        Failure::Usage(format!(
            "{} holds no private key of the kind that this sender has, as PKCS #8 in PEM",
            file.display()
        ))
    })
}

/// Sends what `plan` says to source `name`. The answer is no unless each answer was a 2xx.
pub fn send(loaded: &Loaded, name: &str, plan: &Plan<'_>) -> Result<(), Failure> {
    let source = loaded.source(name)?;
    let given = plan.body.map(read).transpose()?;
    let made = plan.key.map(|file| made_key(source, file)).transpose()?;
    let keys = made.as_ref().map_or(source.keys.as_slice(), std::slice::from_ref);
    let url = match plan.url {
        Some(url) => url.to_owned(),
        None => format!("http://{}/webhooks/{name}", reachable(loaded.config.ingest.listen)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Usage(error.to_string()))?;
    let refused = runtime.block_on(post_all(Sender { source, keys }, &url, given.as_deref(), plan))?;
    match refused {
        0 => Ok(()),
        count => Err(Failure::No(format!("{count} answers were no 2xx"))),
    }
}

/// Gives the number of answers that were no 2xx.
async fn post_all(
    sender: Sender<'_>,
    url: &str,
    body: Option<&[u8]>,
    plan: &Plan<'_>,
) -> Result<u32, Failure> {
    // Only the first installation counts; a second one finds what it wanted.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = client(plan).map_err(|error| Failure::Usage(error.to_string()))?;
    let pace =
        plan.rate.map(|rate| RateLimiter::direct(Quota::per_second(rate).allow_burst(NonZeroU32::MIN)));
    let clock = Clock::start();
    let run = clock.now().wall.as_millis();
    let mut refused = 0;
    for number in 0..plan.count {
        let id = format!("evt_test_{run:x}_{number}");
        let signed = sign(sender, &id, body, url, clock.now().wall, plan.tamper)?;
        for _ in 0..if plan.duplicate { 2 } else { 1 } {
            if let Some(pace) = &pace {
                pace.until_ready().await;
            }
            let begun = clock.mono();
            let sent = client
                .post(&signed.url)
                .headers(signed.headers.clone())
                .body(signed.body.clone())
                .send()
                .await;
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

/// Follows no redirect, for a redirected POST becomes a GET, and its 200 would mean nothing. What is
/// sent to the own listener passes no proxy.
fn client(plan: &Plan<'_>) -> reqwest::Result<reqwest::Client> {
    let client = reqwest::Client::builder().timeout(PATIENCE).redirect(Policy::none());
    if plan.url.is_some() { client.build() } else { client.no_proxy().build() }
}

fn sign(
    Sender { source, keys }: Sender<'_>,
    id: &str,
    body: Option<&[u8]>,
    url: &str,
    now: Timestamp,
    tamper: bool,
) -> Result<Signed, Failure> {
    let mut draft = body.map_or_else(Draft::default, Draft::of_body);
    place(&source.event_id, id, &mut draft);
    if let Some(rule) = &source.event_type {
        place(rule, "hookwell.test", &mut draft);
    }
    let url = draft.url(url).into_owned();
    let query = url.split_once('?').map(|(_, query)| query);
    let signed_url = source.signed_url(query);
    if draft.body.is_empty() {
        draft.body = b"{}".to_vec();
    }
    let signing = Signing { url: &signed_url, now, filler: id };
    // The first of several secrets that can sign.
    let signed = keys.iter().find_map(|key| {
        let mut draft = draft.clone();
        source.scheme.sign(&mut draft, key, &signing).map(|()| draft)
    });
    let signed = signed.or_else(|| source.scheme.is_unsigned().then_some(draft));
    let Some(signed) = signed else {
        let what = "this sender signs with a key that only it has: make a pair of the same kind, add the public one to the source's secrets, and name the private one with --key";
        return Err(Failure::Usage(what.to_owned()));
    };
    let kind = if signed.is_json() { "application/json" } else { "application/x-www-form-urlencoded" };
    // A token in the query, which no signature covers.
    let url = signed.url(&url).into_owned();
    let Draft { mut headers, mut body, .. } = signed;
    headers.push(("content-type".to_owned(), kind.as_bytes().to_vec()));
    if tamper {
        body.push(b' ');
    }
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::try_from(name).map_err(|error| Failure::Usage(error.to_string()))?;
        map.append(name, HeaderValue::try_from(value).map_err(|error| Failure::Usage(error.to_string()))?);
    }
    Ok(Signed { url, headers: map, body })
}

/// Puts `value` where the first alternative of `rule` looks for it: of places that are joined into the
/// last, with a word of ours in the others.
fn place(rule: &ValueRule, value: &str, draft: &mut Draft) {
    let Some((last, others)) = rule.alternatives().next().and_then(<[Place]>::split_last) else { return };
    others.iter().for_each(|other| draft.put(other, "hookwell"));
    draft.put(last, value);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::accept;
    use crate::verify::explain::Silent;
    use crate::verify::request::UnverifiedRequest;
    use crate::verify::tests::{secret_for, source};
    use crate::verify::verify;

    const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);

    /// The id and the type of what is sent to `url` for a source of `table`, if it is accepted.
    fn sent(table: &str, url: &str) -> Option<(String, String)> {
        let source = source(table, &[secret_for(table)]);
        let Signed { url, headers, body } =
            sign(Sender { source: &source, keys: &source.keys }, "evt_1", None, url, NOW, false).ok()?;
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
        let query = url.split_once('?').map(|(_, query)| query);
        let request =
            UnverifiedRequest { method: "POST", query, headers: &headers, body: &body, received_at: NOW };
        let verified = verify(request, &source, &mut Silent).ok()?;
        let event = accept(&verified, body.clone().into(), String::new, &mut Silent).ok()?.event;
        Some((event.id.to_string(), event.kind.to_string()))
    }

    #[test]
    fn every_preset_accepts_what_is_sent_as_its_sender_would() {
        for (name, preset) in crate::verify::preset::all().iter().filter(|(_, preset)| !preset.has_key_pair())
        {
            let table = format!("public_url = \"https://hooks.example.com/x\"\npreset = {name:?}");
            let (id, _) = sent(&table, "http://localhost/").expect(name);
            assert_eq!(id.starts_with("body-blake3"), preset.event_id.is_none(), "{name}: {id}");
            // What Braintree signs is the id as well.
            let is_ours = id.ends_with("evt_1") || preset.scheme == "braintree";
            assert!(is_ours || preset.event_id.is_none(), "{name}: {id}");
        }
    }

    #[test]
    fn a_query_that_is_signed_with_the_url_is_signed() {
        let table = "public_url = \"https://hooks.example.com/x\"\n[sources.hmac]\nheader = \"x\"\ncontent = \"{url}{body}\"";
        assert!(sent(table, "http://localhost/webhooks/x?a=b").is_some());
    }

    #[test]
    fn a_token_in_the_query_is_sent_beside_what_the_url_holds() {
        let table = "token = \"query:key\"\nevent_id = \"query:id\"";
        let (id, _) = sent(table, "http://localhost/webhooks/x?a=b").unwrap();
        assert_eq!(id, "evt_1");
        assert!(sent(table, "http://localhost/webhooks/x?key=another").is_none());
    }

    #[test]
    fn an_id_in_the_query_leaves_a_public_url_with_a_query_as_it_is() {
        let table = "public_url = \"https://hooks.example.com/x?tenant=1\"\nevent_id = \"query:id\"\n[sources.hmac]\nheader = \"x\"\ncontent = \"{url}{body}\"";
        assert_eq!(sent(table, "http://localhost/").map(|(id, _)| id), Some("evt_1".to_owned()));
    }

    #[test]
    fn a_time_inside_the_body_is_sent() {
        let table = "[sources.hmac]\nheader = \"x\"\ntimestamp = \"json:/meta/sent\"";
        assert!(sent(table, "http://localhost/").is_some());
    }

    #[test]
    fn one_header_for_id_and_type_is_sent_once() {
        let table = "event_id = \"header:x-a\"\nevent_type = \"header:x-a\"\n[sources.hmac]\nheader = \"x\"";
        assert_eq!(sent(table, "http://localhost/"), Some(("evt_1".to_owned(), "evt_1".to_owned())));
    }
}
