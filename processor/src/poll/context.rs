//! What librdkafka tells the member, from whatever thread polls it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use hookwell_common::kafka::{Figures, Statistics, log_client_error, log_client_line};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use crate::shared::lock;

/// What librdkafka tells the member; the member takes it between two polls.
#[derive(Debug, Default)]
pub(crate) struct MemberContext {
    figures: Figures,
    /// What is asked and not answered yet.
    pub(super) rebalances: Mutex<Vec<Rebalance>>,
    /// Whether the figures showed a steady place in the group.
    pub(super) steady: AtomicBool,
    /// Whether the lanes are gone, so that a revocation needs nobody's leave.
    pub(super) leaving: AtomicBool,
}

/// What the group asks.
#[derive(Debug)]
pub(super) enum Rebalance {
    /// To take these partitions.
    Assign(Vec<i32>),
    /// To give these back; or they are `lost` already.
    Revoke { partitions: Vec<i32>, lost: bool },
}

impl MemberContext {
    /// A context that keeps librdkafka's figures in `figures`.
    pub(crate) fn new(figures: Figures) -> Self {
        Self { figures, ..Self::default() }
    }
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_client_line(level, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        let steady = statistics.cgrp.as_ref().is_some_and(|group| group.join_state == "steady");
        self.steady.store(steady, Ordering::Relaxed);
        self.figures.put(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_client_error(&error, reason);
    }
}

impl ConsumerContext for MemberContext {
    /// Only notes what is asked: the answer comes later, from the poll thread. Once that has ended,
    /// while the consumer closes, there is nobody left to ask.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.leaving.load(Ordering::Relaxed) {
            if let Err(error) = unassign(consumer, list) {
                tracing::warn!(%error, "a revocation could not be answered while leaving");
            }
            return;
        }
        let partitions = list.elements().iter().map(|element| element.partition()).collect();
        let rebalance = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Rebalance::Assign(partitions)
        } else {
            Rebalance::Revoke { partitions, lost: consumer.assignment_lost() }
        };
        lock(&self.rebalances).push(rebalance);
    }
}

/// Answers a revocation.
pub(super) fn unassign(
    consumer: &BaseConsumer<MemberContext>,
    list: &TopicPartitionList,
) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}
