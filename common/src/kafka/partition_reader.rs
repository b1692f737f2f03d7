//! Reads partitions of one topic whole, for commands.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{ClientSettings, Isolation};
use super::context::{LoggingContext, log_client_error};
use crate::lifecycle::{Clock, Failure};

/// How long Kafka may give neither a record nor an end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two questions to a partition that has no leader at the moment.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How long a poll waits: the longest that a wish to stop waits while records come.
const POLL: Duration = Duration::from_millis(100);

/// Whether anybody wants the command to stop.
pub type Stopping = Arc<AtomicBool>;

/// Reads partitions of one topic from their beginning. It reads no other topic, for the end of a
/// partition that librdkafka tells names no topic.
pub struct PartitionReader {
    consumer: BaseConsumer<LoggingContext>,
    topic: String,
    clock: Clock,
    stopping: Stopping,
}

impl std::fmt::Debug for PartitionReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartitionReader").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl PartitionReader {
    /// A reader of what is committed on `topic`.
    pub fn new(
        clients: &ClientSettings,
        group_id: &str,
        topic: String,
        clock: Clock,
        stopping: &Stopping,
    ) -> Result<Self, Failure> {
        let config = clients.topic_reader(group_id, Isolation::Committed);
        let consumer = BaseConsumer::from_config_and_context(&config, LoggingContext::default())
            .map_err(|error| Failure::Usage(format!("no Kafka client: {error}")))?;
        Ok(Self { consumer, topic, clock, stopping: Arc::clone(stopping) })
    }

    /// The topic's full name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The first offset, and that after the last record that is decided: committed, and not behind
    /// one that is open.
    pub fn extent(&self, partition: i32) -> Result<(i64, i64), Failure> {
        extent(&self.consumer, &self.topic, partition, self.clock)
    }

    /// Hands each committed record before `end` to `visit`; breaks off where that or somebody outside
    /// says so.
    pub fn read(
        &self,
        partition: i32,
        end: i64,
        mut visit: impl FnMut(&BorrowedMessage<'_>) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<ControlFlow<()>, Failure> {
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(&self.topic, partition, Offset::Beginning)
            .and_then(|()| self.consumer.assign(&assignment))
            .map_err(|error| self.failure(partition, &error))?;
        let mut seen = self.clock.mono();
        let mut last_error = String::new();
        while !self.stopping.load(Ordering::Relaxed) {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) if message.partition() != partition => {}
                Some(Ok(message)) => {
                    if end <= message.offset() {
                        return Ok(ControlFlow::Continue(()));
                    }
                    if visit(&message)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    seen = self.clock.mono();
                    // The end may be a marker, which nobody is shown; this saves the wait in most cases.
                    if end == message.offset() + 1 {
                        return Ok(ControlFlow::Continue(()));
                    }
                }
                // A leader that is new may not know yet how far the partition reaches, and an open
                // transaction hides what lies behind its beginning.
                Some(Err(KafkaError::PartitionEOF(at))) if at == partition => {
                    let decided = self.extent(partition)?.1;
                    if end <= decided {
                        return Ok(ControlFlow::Continue(()));
                    }
                    last_error = format!(": it is decided up to offset {decided} of {end}");
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => {
                    log_client_error(&error, "met while reading");
                    last_error = format!(" ({error})");
                }
                None => {}
            }
            if PATIENCE < self.clock.mono().saturating_sub(seen) {
                return Err(Failure::Kafka(format!(
                    "{}/{partition} could not be read: Kafka has given nothing for {} s{last_error}",
                    self.topic,
                    PATIENCE.as_secs()
                )));
            }
        }
        Ok(ControlFlow::Break(()))
    }

    fn failure(&self, partition: i32, error: &KafkaError) -> Failure {
        failure(&self.topic, partition, error)
    }
}

/// The first offset of a partition, and that after its last record, as far as `consumer` may see.
pub fn extent(
    consumer: &BaseConsumer<LoggingContext>,
    topic: &str,
    partition: i32,
    clock: Clock,
) -> Result<(i64, i64), Failure> {
    let begun = clock.mono();
    loop {
        match consumer.fetch_watermarks(topic, partition, PATIENCE) {
            Ok(extent) => return Ok(extent),
            Err(error) if is_moving(&error) && clock.mono().saturating_sub(begun) < PATIENCE => {
                std::thread::sleep(ASK_AGAIN);
            }
            Err(error) => return Err(failure(topic, partition, &error)),
        }
    }
}

/// Whether a partition has no leader at the moment, or one that does not know it yet.
fn is_moving(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| {
        [
            RDKafkaErrorCode::NotLeaderForPartition,
            RDKafkaErrorCode::LeaderNotAvailable,
            RDKafkaErrorCode::FencedLeaderEpoch,
            RDKafkaErrorCode::UnknownLeaderEpoch,
        ]
        .contains(&code)
    })
}

fn failure(topic: &str, partition: i32, error: &KafkaError) -> Failure {
    Failure::Kafka(format!("{topic}/{partition} could not be read: {error}"))
}
