//! Kafka's shell: every librdkafka setting with its reason, the topics of the cluster against
//! those of the plan, and what an error means for a transaction.

mod carry;
pub mod client;
mod context;
mod partition_reader;
mod topology;
mod verdict;

pub use carry::{appended_at, collect_headers, copy_record, headers_of};
pub use client::{ClientSettings, Isolation};
pub use context::{Figures, LoggingContext, Statistics, log_client_error, log_client_line};
pub use partition_reader::{PartitionReader, Stopping, extent};
pub use topology::{
    KafkaFault, SeenTopic, TopologyError, create_missing, describe, mismatches, partition_counts,
    retry_tiers, verify,
};
pub use verdict::{Verdict, has_place, verdict};
