//! The Kafka of the story, and whether this machine can play it.

use std::fs;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use hookwell_common::config::Config;
use hookwell_tests::kafka::{Kafka, are_jars_there, can_start};

use crate::say;

/// An empty Kafka where the configuration wants it.
pub(crate) fn start(config: &Config, home: &Path) -> Result<Kafka> {
    if !are_jars_there() {
        say("Fetching Apache Kafka 4.3.1 with Maven, once ...");
    }
    say("Starting Apache Kafka 4.3.1 ...");
    let data = home.join("kafka");
    if data.exists() {
        fs::remove_dir_all(&data).with_context(|| data.display().to_string())?;
    }
    let port = address(config)?.port();
    Kafka::start_at(&data, port, port + 1)
}

/// Says plainly what is missing.
pub(crate) fn check_java() -> Result<()> {
    ensure!(
        can_start(),
        "this needs Java 17 and Maven, and they are not here. The story is one of transactions, which \
         librdkafka's mock broker does not have. Install them (on Debian: apt-get install \
         openjdk-17-jre-headless maven) and run it again; `make run` shows what can be shown without."
    );
    Ok(())
}

/// Says of every port that is taken, and how to choose another.
pub(crate) fn check_ports(config: &Config, handler: u16) -> Result<()> {
    let kafka = address(config)?;
    let wanted = [
        (config.ingest.listen, "ingest.listen"),
        (config.ingest.admin_listen, "ingest.admin_listen"),
        (config.processor.admin_listen, "processor.admin_listen"),
        (SocketAddr::from(([127, 0, 0, 1], handler)), "the url of the destination"),
        (kafka, "kafka.bootstrap_servers"),
        (
            SocketAddr::new(kafka.ip(), kafka.port() + 1),
            "kafka.bootstrap_servers, for Kafka takes the port after it too",
        ),
    ];
    let taken: String = wanted
        .iter()
        .filter(|(address, _)| TcpListener::bind(address).is_err())
        .map(|(address, key)| format!("\n  {address} is taken: end what listens there, or change {key}"))
        .collect();
    ensure!(taken.is_empty(), "is it running already? The ports stand in deploy/demo/failure.toml.{taken}");
    Ok(())
}

fn address(config: &Config) -> Result<SocketAddr> {
    let servers = &config.kafka.bootstrap_servers;
    let found = servers.to_socket_addrs().with_context(|| format!("{servers} is no address"))?.next();
    found.with_context(|| format!("{servers} is no address"))
}
