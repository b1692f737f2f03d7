//! Senders: they sign as each sender's documentation says, with code of their own, and post.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hookwell_common::lifecycle::Clock;
use reqwest::blocking::Client;
use ring::hmac;

/// The secret that all senders here share with their sources.
pub const SECRET: &str = "a secret of the tests";

/// [`SECRET`] as Standard Webhooks writes it.
pub fn standard_secret() -> String {
    format!("whsec_{}", STANDARD.encode(SECRET))
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// GitHub.
    GitHub,
    /// Stripe; its event's id lies in the body.
    Stripe,
    /// Shopify.
    Shopify,
    /// Whoever follows Standard Webhooks.
    Standard,
}

/// A request, signed.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The configured source.
    pub source: String,
    /// The event's id.
    pub id: String,
    /// Header names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Sender {
    /// All of them.
    pub const ALL: [Sender; 4] = [Sender::GitHub, Sender::Stripe, Sender::Shopify, Sender::Standard];

    /// The preset, and the name of the source in the tests' configurations.
    pub fn name(self) -> &'static str {
        match self {
            Sender::GitHub => "github",
            Sender::Stripe => "stripe",
            Sender::Shopify => "shopify",
            Sender::Standard => "standard-webhooks",
        }
    }

    /// The secret as the configuration takes it.
    pub fn secret(self) -> String {
        match self {
            Sender::GitHub | Sender::Stripe | Sender::Shopify => SECRET.to_owned(),
            Sender::Standard => standard_secret(),
        }
    }

    /// An event with `id`, with a body made up for it.
    pub fn event(self, id: &str) -> Signed {
        let body = format!(r#"{{"id":"{id}","type":"test.sent","note":"grüße"}}"#);
        self.sign(id, body)
    }

    /// An event with `id` and `body`, signed now.
    pub fn sign(self, id: &str, body: impl Into<Bytes>) -> Signed {
        self.sign_as(SECRET, now_in_seconds(), id, body)
    }

    /// An event with `id` and `body`, signed with `secret` at `time`, in seconds since the epoch.
    pub fn sign_as(self, secret: &str, time: u64, id: &str, body: impl Into<Bytes>) -> Signed {
        let body = body.into();
        let seconds = time.to_string();
        let mac = |parts: &[&[u8]]| mac(secret, parts);
        let headers = match self {
            Sender::GitHub => vec![
                ("x-hub-signature-256", format!("sha256={}", hex::encode(mac(&[&body])))),
                ("x-github-event", "push".to_owned()),
                ("x-github-delivery", id.to_owned()),
            ],
            Sender::Stripe => {
                let signature = hex::encode(mac(&[seconds.as_bytes(), b".", &body]));
                vec![("stripe-signature", format!("t={seconds},v1={signature}"))]
            }
            Sender::Shopify => vec![
                ("x-shopify-hmac-sha256", STANDARD.encode(mac(&[&body]))),
                ("x-shopify-topic", "orders/create".to_owned()),
                ("x-shopify-webhook-id", id.to_owned()),
            ],
            Sender::Standard => {
                let signature = mac(&[id.as_bytes(), b".", seconds.as_bytes(), b".", &body]);
                vec![
                    ("webhook-id", id.to_owned()),
                    ("webhook-timestamp", seconds.clone()),
                    ("webhook-signature", format!("v1,{}", STANDARD.encode(signature))),
                ]
            }
        };
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Signed { source: self.name().to_owned(), id: id.to_owned(), headers, body }
    }
}

impl Signed {
    /// The same, sent to the source `name`.
    #[must_use]
    pub fn to(self, name: &str) -> Self {
        Self { source: name.to_owned(), ..self }
    }

    /// The same, with one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// The present, in seconds since the epoch.
pub fn now_in_seconds() -> u64 {
    Clock::start().now().wall.as_millis() / 1000
}

/// HMAC-SHA256 over `parts` under `secret`.
pub fn mac(secret: &str, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

/// Status and text of the answer to `signed`, posted to the ingest that listens on `port`.
pub fn post(port: u16, signed: &Signed) -> Result<(u16, String)> {
    post_to(&format!("127.0.0.1:{port}"), signed)
}

/// [`post`], to the ingest that listens on `address`.
pub fn post_to(address: &str, signed: &Signed) -> Result<(u16, String)> {
    let url = format!("http://{address}/webhooks/{}", signed.source);
    let mut request = client().post(url).header("content-type", "application/json").body(signed.body.clone());
    for (name, value) in &signed.headers {
        request = request.header(name, value);
    }
    let response = request.send().context("no answer")?;
    Ok((response.status().as_u16(), response.text()?))
}

/// Posts until it is accepted, as a patient sender would.
pub fn post_until_accepted(port: u16, signed: &Signed) -> Result<()> {
    until_accepted(|| post(port, signed))
}

/// Has `post` try until a webhook is accepted.
pub fn until_accepted(mut post: impl FnMut() -> Result<(u16, String)>) -> Result<()> {
    crate::wait::until("a webhook to be accepted", || {
        let (status, text) = post()?;
        match status {
            200 => Ok(Some(())),
            503 => Ok(None),
            other => Err(anyhow::anyhow!("{other}: {text}")),
        }
    })
}

/// The one HTTP client of the tests.
pub fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        // Nobody else decides for this process; a provider that is there already is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder().timeout(Duration::from_secs(30)).no_proxy();
        // Servers close a connection that is idle for five seconds, perhaps just when it is used again.
        let client = client.pool_idle_timeout(Duration::from_secs(3)).build();
        client.unwrap_or_else(|error| unreachable!("a client without TLS settings: {error}"))
    })
}
