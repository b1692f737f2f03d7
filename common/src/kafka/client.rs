//! Every librdkafka setting that Hookwell uses, with its reason. Facts marked "measured" are
//! those of `docs/adr/0003-librdkafka.md`.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::{Config, Environment, Faults};
use crate::topics::max_record_bytes;

/// What all clients of a process have in common.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    bootstrap_servers: String,
    properties: Vec<(String, String)>,
    max_record_bytes: usize,
}

impl ClientSettings {
    /// The settings of `config`, with the secrets among its properties fetched.
    pub fn resolve(config: &Config, environment: &Environment, faults: &mut Faults) -> Self {
        Self {
            bootstrap_servers: config.kafka.bootstrap_servers.clone(),
            properties: config.kafka.resolved_properties(environment, faults),
            max_record_bytes: max_record_bytes(config.ingest.max_body_bytes),
        }
    }

    /// The brokers, for messages.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Ingest's producer: one lonely record fast, a crowd in batches.
    pub fn ingest_producer(&self, delivery_timeout: Duration) -> ClientConfig {
        let millis = delivery_timeout.as_millis().max(10).to_string();
        let mut config = self.common("hookwell-ingest");
        self.producer(&mut config);
        config
            // The sender waits: after this long it hears 503 and keeps the event.
            .set("message.timeout.ms", &millis)
            // A broker that answers nothing must not hold the connection for the default 60 s.
            .set("socket.timeout.ms", &millis)
            .set("request.timeout.ms", &millis)
            // Bounds memory while Kafka is away; beyond it requests are shed at once.
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "262144")
            .set("statistics.interval.ms", "5000");
        config
    }

    /// The producer of one lane, of one owned partition.
    pub fn transactional_producer(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.common(&format!("hookwell-lane-{transactional_id}"));
        self.producer(&mut config);
        config
            // Stable per partition: the next owner's `init_transactions` fences this one.
            .set("transactional.id", transactional_id)
            // A lane commits all it has in one go, so nothing is open for long; a dead owner's
            // transaction must not pin the last stable offset for longer than this.
            .set("transaction.timeout.ms", "15000")
            .set("message.timeout.ms", "14000")
            // One whole batch of a lane fits, or `send` would have to wait for itself.
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", "1048576")
            .set("batch.num.messages", "10000");
        config
    }

    /// The group member. It subscribes to the events topic and to nothing else.
    pub fn group_member(&self, group_id: &str) -> ClientConfig {
        let mut config = self.common("hookwell-member");
        self.consumer(&mut config, group_id);
        config.set("isolation.level", "read_committed");
        let asked = |name: &str| self.properties.iter().any(|(property, _)| property == name);
        if !self.properties.iter().any(|(name, value)| name == "group.protocol" && value == "consumer") {
            if !asked("partition.assignment.strategy") {
                config.set("partition.assignment.strategy", "cooperative-sticky");
            }
            // A dead member's partitions move after this long.
            if !asked("session.timeout.ms") {
                config.set("session.timeout.ms", "10000");
            }
            // Members learn of a rebalance with their next heartbeat: the default of 3 s makes
            // each hand-over take twice that (measured).
            if !asked("heartbeat.interval.ms") {
                config.set("heartbeat.interval.ms", "500");
            }
        }
        config.set("statistics.interval.ms", "1000");
        config
    }

    /// The consumer of retry and state partitions. It never joins the group: it follows what the
    /// member was given, and needs the group's id only to ask for committed offsets.
    pub fn follower(&self, group_id: &str) -> ClientConfig {
        let mut config = self.common("hookwell-follower");
        self.consumer(&mut config, group_id);
        config
            .set("isolation.level", "read_committed")
            // The end of a state partition is where its restore ends.
            .set("enable.partition.eof", "true")
            // While a restore waits for its end nothing else is fetched: don't wait long.
            .set("fetch.wait.max.ms", "10")
            .set("statistics.interval.ms", "1000");
        config
    }

    /// A consumer that reads nothing, and sees the true end of a partition: under
    /// `read_committed` an open transaction hides what was committed after it began.
    pub fn watermarks(&self) -> ClientConfig {
        let mut config = self.common("hookwell-watermarks");
        config.set("isolation.level", "read_uncommitted");
        config
    }

    /// For creating and describing topics.
    pub fn admin(&self) -> ClientConfig {
        self.common("hookwell-admin")
    }

    fn producer(&self, config: &mut ClientConfig) {
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // The default of 5 ms costs 5 ms and most of the throughput; at 0 batches form by
            // themselves while earlier ones are under way (measured).
            .set("linger.ms", "0")
            .set("sticky.partitioning.linger.ms", "0")
            .set("message.max.bytes", self.max_record_bytes.to_string())
            .set("retry.backoff.ms", "50");
    }

    fn consumer(&self, config: &mut ClientConfig, group_id: &str) {
        config
            .set("group.id", group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Offsets that expired must not skip what lies there: state recognises repeats. The
            // default would skip.
            .set("auto.offset.reset", "earliest")
            // The default of 1 s starves a fast consumer (measured).
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "50")
            .set("queued.min.messages", "20000")
            // Bounds what is fetched and not yet handed on, in KiB, over all partitions.
            .set("queued.max.messages.kbytes", "32768")
            .set("max.partition.fetch.bytes", self.max_record_bytes.max(1_048_576).to_string());
    }

    /// What comes first is overridden by what the user set, and that by what carries a promise.
    fn common(&self, client_id: &str) -> ClientConfig {
        #[expect(clippy::disallowed_methods, reason = "the one place that makes client configurations")]
        let mut config = ClientConfig::new();
        config
            // A broker that comes back is found again within two seconds, not ten.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "2000")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            // Idle connections are closed by brokers all the time; that is no news.
            .set("log.connection.close", "false");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.bootstrap_servers).set("client.id", client_id);
        // A topic that is missing must be found missing.
        config.set("allow.auto.create.topics", "false");
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }
}
