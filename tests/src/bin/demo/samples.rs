//! What is sent: genuine, copied, forged and ill-fated webhooks of five senders.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use hookwell_tests::handler::{Call, Reply};
use hookwell_tests::sender::{SECRET, Sender, Signed, mac, now_in_seconds, post_to};

/// A webhook that was sent.
#[derive(Debug)]
pub(crate) struct Sample {
    /// What it shows.
    pub(crate) what: &'static str,
    /// What was sent.
    pub(crate) signed: Signed,
    /// What was answered.
    pub(crate) status: u16,
    /// Whether the same event was sent before.
    pub(crate) is_copy: bool,
}

/// How the handler answers, which goes by the event's id.
pub(crate) fn answer(call: &Call) -> Reply {
    let id = call.event();
    if id.starts_with("busy") && call.attempt() == "0" {
        return Reply { retry_after: Some("1".to_owned()), ..Reply::from(503) };
    }
    if id.starts_with("broken") {
        return Reply::from(500);
    }
    if id.starts_with("refused") {
        return Reply::from(422);
    }
    Reply { after: Duration::from_millis(20), ..Reply::from(200) }
}

/// Sends all samples to the ingest that listens on `address`.
pub(crate) fn send(address: &str) -> Result<Vec<Sample>> {
    let seconds = now_in_seconds();
    // Topics outlive a run, so each run has ids of its own.
    let id = |name: &str| format!("{name}-{seconds}");
    let push = Sender::GitHub.event(&id("push"));
    let forged =
        Signed { body: Bytes::from_static(b"{\"forged\":true}"), ..Sender::GitHub.event(&id("forged")) };
    let old = Sender::Stripe.sign_as(SECRET, seconds - 3600, &id("old"), body(&id("old")));
    let nobody = Sender::GitHub.event(&id("lost")).to("nobody");
    let samples = [
        ("genuine", push.clone()),
        ("the same again", push),
        ("forged", forged),
        ("genuine", Sender::Stripe.event(&id("charge"))),
        ("signed an hour ago", old),
        ("its handler is busy at first", Sender::Stripe.event(&id("busy"))),
        ("genuine", Sender::Shopify.event(&id("order"))),
        ("its handler is broken", Sender::Shopify.event(&id("broken"))),
        ("its handler will never take it", Sender::Standard.event(&id("refused"))),
        ("genuine, a sender of your own", acme(&id("acme"))),
        ("for an unknown source", nobody),
    ];
    let mut sent: Vec<Sample> = Vec::with_capacity(samples.len());
    for (what, signed) in samples {
        let is_copy = sent
            .iter()
            .any(|earlier| (&earlier.signed.source, &earlier.signed.id) == (&signed.source, &signed.id));
        let (status, _) = post_to(address, &signed)?;
        sent.push(Sample { what, signed, status, is_copy });
    }
    Ok(sent)
}

fn body(id: &str) -> String {
    format!(r#"{{"id":"{id}","type":"demo.sent"}}"#)
}

/// The sender that `deploy/demo/hookwell.toml` describes.
fn acme(id: &str) -> Signed {
    let body = Bytes::from(body(id));
    let headers = vec![
        ("x-acme-delivery".to_owned(), id.to_owned()),
        ("x-acme-signature".to_owned(), format!("sha256={}", hex::encode(mac(SECRET, &[&body])))),
    ];
    Signed { source: "acme".to_owned(), id: id.to_owned(), headers, body }
}
