//! The demonstration in a container of `docker-compose.yml`: the handler, and the senders.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use hookwell_tests::handler::HttpHandler;
use hookwell_tests::reader::Reader;
use hookwell_tests::wait;

use crate::{fates, handler_port, read_config, samples, say};

/// The services, as containers of the stack know them.
const INGEST: &str = "ingest:8080";
const PROCESSOR: &str = "processor:9102";

/// Handles, sends, tells what became of each sample, and goes on handling until told to stop.
pub(crate) fn show(published: &str, told_to_stop: &AtomicBool) -> Result<()> {
    let config = read_config("hookwell.toml")?;
    let handler = HttpHandler::start_on(SocketAddr::from(([0, 0, 0, 0], handler_port(&config)?)))?;
    handler.answer(samples::answer);
    say("Sending sample webhooks ...");
    let samples = samples::send(INGEST)?;
    let reader = Reader::new(&config.kafka.bootstrap_servers);
    let watched = (&handler, PROCESSOR);
    let table = fates::table(&reader, &config.kafka.topic_prefix, watched, &samples, told_to_stop)?;
    say(&format!("\n{table}\n"));
    say(&epilogue(published));
    while !told_to_stop.load(Ordering::Relaxed) {
        wait::pause(Duration::from_millis(100));
    }
    Ok(())
}

fn epilogue(published: &str) -> String {
    format!(
        "Send one of your own:

  body='{{\"type\":\"order.created\",\"total\":42}}'
  signature=$(printf %s \"$body\" | openssl dgst -sha256 -hmac \"$(cat deploy/compose/demo/secrets/acme)\" | sed 's/.* //')
  curl -i http://{published}/webhooks/acme -H \"x-acme-delivery: $(date +%s)\" \\
    -H \"x-acme-signature: sha256=$signature\" -H 'content-type: application/json' --data-raw \"$body\"

Ctrl-C ends everything."
    )
}
