//! A real Kafka, or what stands in for it where there is none.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use hookwell_common::config::Config;
use hookwell_tests::docker::{Engine, Stack};
use hookwell_tests::kafka::{Kafka, are_jars_there, can_start};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::{HOME, say};

/// What the programs run on.
pub(crate) enum Cluster {
    /// Apache Kafka, one node, on this machine's Java.
    Real(Kafka),
    /// The same in a container: the service `kafka` of `docker-compose.yml`.
    Docker { stack: Stack, port: u16 },
    /// Librdkafka's mock broker, in this process.
    Mock(MockCluster<'static, DefaultProducerContext>),
}

impl Cluster {
    /// A real one where Docker or Java is here, unless `mock` says otherwise.
    pub(crate) fn start(config: &Config, mock: bool) -> Result<Self> {
        if !mock && let Some(engine) = Engine::find() {
            match Self::in_container(engine, address(config)?.port()) {
                Ok(cluster) => return Ok(cluster),
                Err(error) => say(&format!("Docker is here, but gives no Kafka ({error:#}).")),
            }
        }
        if mock || !can_start() {
            say(
                "There is no Java here, so this runs on librdkafka's mock broker: it cannot show transactions, and so neither exactly-once nor what survives a restart.",
            );
            return Self::mock(config);
        }
        if !are_jars_there() {
            say("Fetching Apache Kafka 4.3.1 with Maven, once ...");
        }
        say("Starting Apache Kafka 4.3.1 ...");
        let port = address(config)?.port();
        Ok(Self::Real(Kafka::start_at(&Path::new(HOME).join("kafka"), port, port + 1)?))
    }

    fn in_container(engine: Engine, port: u16) -> Result<Self> {
        say("Starting Apache Kafka 4.3.1 on Docker ...");
        let variables = [("HOOKWELL_KAFKA_PORT", port.to_string())];
        let stack = Stack::new(&Arc::new(engine), "hookwell-run", &variables);
        stack.compose(&["up", "--detach", "--wait", "kafka"])?;
        Ok(Self::Docker { stack, port })
    }

    fn mock(config: &Config) -> Result<Self> {
        let mock = MockCluster::new(1)?;
        for spec in config.topic_plan().specs() {
            mock.create_topic(&spec.name, spec.partitions, 1)?;
        }
        Ok(Self::Mock(mock))
    }

    /// Where clients begin.
    pub(crate) fn bootstrap_servers(&self) -> String {
        match self {
            Cluster::Real(kafka) => kafka.bootstrap_servers(),
            Cluster::Docker { port, .. } => format!("127.0.0.1:{port}"),
            Cluster::Mock(mock) => mock.bootstrap_servers(),
        }
    }

    /// Whether topics are created from outside, as they are in production.
    pub(crate) fn takes_topics(&self) -> bool {
        !matches!(self, Cluster::Mock(_))
    }

    /// In one line.
    pub(crate) fn describe(&self) -> String {
        match self {
            Cluster::Real(kafka) => {
                format!("Apache Kafka 4.3.1 at {}, its data in {HOME}/kafka", kafka.bootstrap_servers())
            }
            Cluster::Docker { stack, port } => {
                format!(
                    "Apache Kafka 4.3.1 at 127.0.0.1:{port}, in a container of {}, gone with Ctrl-C",
                    stack.name()
                )
            }
            Cluster::Mock(mock) => {
                format!("librdkafka's mock broker at {}, gone with Ctrl-C", mock.bootstrap_servers())
            }
        }
    }
}

/// Where the configuration wants Kafka to be.
pub(crate) fn address(config: &Config) -> Result<SocketAddr> {
    let servers = &config.kafka.bootstrap_servers;
    let mut found = servers.to_socket_addrs().with_context(|| format!("{servers} is no address"))?;
    found.next().with_context(|| format!("{servers} is no address"))
}
