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

/// Which records a consumer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Those of transactions that were committed.
    Committed,
    /// All, also of transactions that are open or were aborted.
    Uncommitted,
}

impl Isolation {
    fn name(self) -> &'static str {
        match self {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        }
    }
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
        let mut config = self.base();
        self.producer(&mut config);
        config
            .set("message.max.bytes", self.max_record_bytes.to_string())
            // The sender waits: after this long it hears 503 and keeps the event.
            .set("message.timeout.ms", &millis)
            // A broker that answers nothing must not hold the connection for the default 60 s.
            .set("socket.timeout.ms", &millis)
            .set("request.timeout.ms", &millis)
            // Bounds memory while Kafka is away; beyond it requests are shed at once.
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "262144")
            .set("statistics.interval.ms", "5000");
        self.seal(config, "hookwell-ingest")
    }

    /// The producer of one lane, of one owned partition.
    pub fn transactional_producer(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.base();
        self.producer(&mut config);
        config
            // What lies on a topic must be passed on, also where today's limit is lower: each topic
            // has its own, and the broker holds to it.
            .set("message.max.bytes", "1000000000")
            // Stable per partition: the next owner's `init_transactions` fences this one.
            .set("transactional.id", transactional_id)
            // A lane commits all it has in one go, so nothing is open for long; a dead owner's
            // transaction must not pin the last stable offset for longer than this.
            .set("transaction.timeout.ms", "15000")
            .set("message.timeout.ms", "14000")
            // Offsets that are sent while their coordinator dies may wait for a broker that is no longer
            // known, and look again only when a connection comes or goes: see to it that one does
            // (measured).
            .set("connections.max.idle.ms", "15000")
            // One whole batch of a lane fits, or `send` would have to wait for itself.
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", "1048576")
            .set("batch.num.messages", "10000")
            // Topics take batches as large as their largest record.
            .set("batch.size", self.max_record_bytes.min(1_000_000).to_string());
        self.seal(config, &format!("hookwell-lane-{transactional_id}"))
    }

    /// The group member. It subscribes to the events topic and to nothing else.
    pub fn group_member(&self, group_id: &str) -> ClientConfig {
        let mut config = self.base();
        self.consumer(&mut config, group_id);
        config.set("isolation.level", "read_committed").set("statistics.interval.ms", "1000");
        // Under the protocol "consumer" these are the broker's to set.
        if !self.properties.iter().any(|(name, value)| name == "group.protocol" && value == "consumer") {
            config
                .set("partition.assignment.strategy", "cooperative-sticky")
                // A dead member's partitions move after this long.
                .set("session.timeout.ms", "10000")
                // Members learn of a rebalance with their next heartbeat, and a hand-over takes two of
                // them: the default of 3 s makes it last six (measured).
                .set("heartbeat.interval.ms", "250");
        }
        self.seal(config, "hookwell-member")
    }

    /// The consumer of retry and state partitions. It never joins the group: it follows what the
    /// member was given, and needs the group's id only to ask for committed offsets.
    pub fn follower(&self, group_id: &str) -> ClientConfig {
        let mut config = self.base();
        self.consumer(&mut config, group_id);
        config
            .set("isolation.level", "read_committed")
            // The end of a state partition is where its restore ends.
            .set("enable.partition.eof", "true")
            .set("statistics.interval.ms", "1000");
        self.seal(config, "hookwell-follower")
    }

    /// A consumer that reads whole partitions for a command, and never joins the group.
    pub fn topic_reader(&self, group_id: &str, isolation: Isolation) -> ClientConfig {
        let mut config = self.base();
        self.consumer(&mut config, group_id);
        config
            .set("isolation.level", isolation.name())
            // A partition is read to its end, and then the next: the end of each is waited for.
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10");
        self.seal(config, "hookwell-reader")
    }

    /// The producer of replays: many records, none of them urgent.
    pub fn replay_producer(&self) -> ClientConfig {
        let mut config = self.base();
        self.producer(&mut config);
        config
            // What lies on a topic must be passed on, also where today's limit is lower.
            .set("message.max.bytes", "1000000000")
            // Kafka that is away for longer ends the command.
            .set("message.timeout.ms", "30000")
            // Topics take batches as large as their largest record, and a batch that is refused fails
            // whole.
            .set("batch.size", self.max_record_bytes.min(1_000_000).to_string())
            // Bounds memory: reading waits for the acknowledgements.
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "65536");
        self.seal(config, "hookwell-replay")
    }

    /// The producer of what failed verification: of its own, so that no event ever waits behind what
    /// strangers send, with a queue that is small, for more than it holds is dropped.
    pub fn quarantine_producer(&self) -> ClientConfig {
        let mut config = self.base();
        self.producer(&mut config);
        config
            .set("message.max.bytes", self.max_record_bytes.to_string())
            // Nobody waits for it, and it must never be lost to a fatal error: a record that is there
            // twice has one id.
            .set("enable.idempotence", "false")
            .set("linger.ms", "20")
            .set("message.timeout.ms", "30000")
            .set("queue.buffering.max.messages", "2000")
            .set("queue.buffering.max.kbytes", quarantine_queue_kilobytes(self.max_record_bytes).to_string());
        self.seal(config, "hookwell-quarantine")
    }

    /// The producer that releases what was kept: every earlier one with this id is fenced.
    pub fn release_producer(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.transactional_producer(transactional_id);
        config.set("client.id", "hookwell-release");
        config
    }

    /// A consumer that reads nothing and asks where partitions end: under `read_committed` an open
    /// transaction hides what was committed after it began. Since it never fetches, no question waits
    /// behind a fetch.
    pub fn watermarks(&self, isolation: Isolation) -> ClientConfig {
        let mut config = self.base();
        config.set("isolation.level", isolation.name());
        self.seal(config, "hookwell-watermarks")
    }

    /// For creating and describing topics.
    pub fn admin(&self) -> ClientConfig {
        self.seal(self.base(), "hookwell-admin")
    }

    fn producer(&self, config: &mut ClientConfig) {
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // The default of 5 ms costs 5 ms and most of the throughput; at 0 batches form by
            // themselves while earlier ones are under way (measured).
            .set("linger.ms", "0")
            .set("sticky.partitioning.linger.ms", "0")
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
            // A partition that begins to be read waits for the fetch under way, and whoever has nothing to
            // read asks again after as long (measured).
            .set("fetch.wait.max.ms", "50")
            .set("queued.min.messages", "20000")
            // Bounds what is fetched and not yet handed on, in KiB, over all partitions.
            .set("queued.max.messages.kbytes", "32768")
            .set("max.partition.fetch.bytes", self.max_record_bytes.max(1_048_576).to_string());
    }

    /// What suits every client.
    fn base(&self) -> ClientConfig {
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
        config
    }

    /// What the user set goes over what suits, and only what carries a promise over that: of it the
    /// user can set nothing.
    fn seal(&self, mut config: ClientConfig, client_id: &str) -> ClientConfig {
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

/// Room for a few of the largest records, and 16 MiB at least.
fn quarantine_queue_kilobytes(max_record_bytes: usize) -> usize {
    (max_record_bytes / 1024 * 4).max(16 * 1024)
}
