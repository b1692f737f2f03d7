//! Who leads what in a cluster, and whether all is well.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::Kafka;
use crate::reader::Reader;
use crate::wait;

const OFFSETS: &str = "__consumer_offsets";
const TRANSACTIONS: &str = "__transaction_state";
const TRANSACTIONS_TOOL: &str = "org.apache.kafka.tools.TransactionsCommand";

/// A node that is away is asked first now and then.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

impl Kafka {
    /// The node that leads a partition.
    pub fn leader_of(&self, topic: &str, partition: i32) -> Result<i32> {
        let client = self.client()?;
        wait::until(&format!("a leader of {topic}-{partition}"), || {
            let metadata = client.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
            let partitions = metadata.topics().first().context("no such topic")?.partitions();
            let found =
                partitions.iter().find(|known| known.id() == partition).context("no such partition")?;
            Ok(Some(found.leader()).filter(|leader| 0 < *leader))
        })
    }

    /// The node that coordinates a group.
    pub fn group_coordinator(&self, group: &str) -> Result<i32> {
        self.coordinator(OFFSETS, group)
    }

    /// The node that coordinates the transactions of a producer.
    pub fn transaction_coordinator(&self, transactional_id: &str) -> Result<i32> {
        self.coordinator(TRANSACTIONS, transactional_id)
    }

    /// The node that leads the partition of `topic` to which `key` belongs by its hash, which is
    /// how Kafka chooses coordinators.
    fn coordinator(&self, topic: &str, key: &str) -> Result<i32> {
        let client = self.client()?;
        let partitions = wait::until(&format!("{topic} to be there"), || {
            let metadata = client.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
            let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            Ok(i32::try_from(count).ok().filter(|count| 0 < *count))
        })?;
        self.leader_of(topic, java_hash(key).checked_abs().unwrap_or(0) % partitions)
    }

    /// Waits until every node is there, and every partition of every topic has a leader and all its
    /// copies in sync.
    pub fn until_healthy(&self) -> Result<()> {
        let clients = self.nodes.iter().map(|node| client_of(&node.address())).collect::<Result<Vec<_>>>()?;
        wait::until("Kafka to be well", || {
            clients.iter().try_for_each(|client| self.is_well(client))?;
            Ok(Some(()))
        })
    }

    fn is_well(&self, client: &BaseConsumer) -> Result<()> {
        let metadata = client.fetch_metadata(None, ANSWER_WITHIN)?;
        let nodes = metadata.brokers().len();
        ensure!(nodes == self.nodes.len(), "{nodes} nodes are there");
        for topic in metadata.topics() {
            for partition in topic.partitions() {
                let (copies, in_sync) = (partition.replicas().len(), partition.isr());
                if partition.leader() < 1 || in_sync.len() < copies {
                    let (leader, name, id) = (partition.leader(), topic.name(), partition.id());
                    bail!("{name}-{id} is led by {leader}, and of {copies} copies {in_sync:?} are in sync");
                }
            }
        }
        Ok(())
    }

    /// What Kafka's own tool says of transactions whose marker is missing: a transaction that is
    /// open for as long as producers may leave one open, and of which no coordinator knows. Empty
    /// where there is none.
    pub fn hanging_transactions(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for node in &self.nodes {
            let id = node.id().to_string();
            let table = self.ask(TRANSACTIONS_TOOL, &["find-hanging", "--broker-id", &id])?;
            // The first line names the columns.
            found.extend(table.lines().skip(1).filter(|line| !line.trim().is_empty()).map(str::to_owned));
        }
        Ok(found)
    }

    /// What a tool of Kafka's prints.
    pub fn ask(&self, tool: &str, arguments: &[&str]) -> Result<String> {
        let output = self.nodes[0]
            .tool(tool)
            .args(["--bootstrap-server", &self.bootstrap_servers()])
            .args(arguments)
            .output()
            .context("java could not be started")?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{tool} {arguments:?}: {out}{err}");
        Ok(out.into_owned())
    }

    fn client(&self) -> Result<BaseConsumer> {
        client_of(&self.bootstrap_servers())
    }
}

fn client_of(bootstrap_servers: &str) -> Result<BaseConsumer> {
    let mut config = Reader::new(bootstrap_servers).config();
    Ok(config.set("reconnect.backoff.max.ms", "500").create()?)
}

/// Java's `String.hashCode`, over UTF-16 as Java has it.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::java_hash;

    #[test]
    fn the_hash_is_javas() {
        // `"hello".hashCode()` and, one that overflows, `"polygenelubricants".hashCode()`.
        assert_eq!(java_hash("hello"), 99_162_322);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
    }
}
