//! What librdkafka reports of the records of one transaction.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use hookwell_common::kafka::{has_place, log_client_error, log_client_line};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;

use super::ledger::Offset;
use crate::delivery::{Place, Stream};
use crate::retry::Tier;

/// What a commit left behind.
#[derive(Debug, Default)]
pub(crate) struct Receipt {
    /// Where the transaction's marker lies on the topics that the lane reads.
    pub(crate) markers: Vec<Place>,
    /// Where the first state of this commit lies on the state topic.
    pub(crate) state_begin: Option<i64>,
    /// The state topic's next offset, after the records of this commit.
    pub(crate) state_end: Option<i64>,
}

/// What a record is, for its report: the number of its retry tier, or one of these.
pub(crate) const OTHER: u32 = 0;
pub(crate) const STATE: u32 = u32::MAX;
pub(crate) const DEAD_LETTER: u32 = u32::MAX - 1;

/// What comes back with a record's report: the transaction that it belongs to, and what it is.
/// Reports of an aborted transaction may come late, and must not be counted for the next.
pub(crate) fn opaque(transaction: u32, kind: u32) -> usize {
    // Lossless where pointers have 64 bits, which rdkafka's other parts presume as well.
    ((u64::from(transaction) << 32) | u64::from(kind)) as usize
}

fn parts(opaque: usize) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = (opaque as u64).to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// Takes the delivery reports of one transaction.
#[derive(Default)]
pub(crate) struct Reports(Mutex<Reported>);

/// What was reported since the transaction began.
#[derive(Clone, Default)]
pub(crate) struct Reported {
    transaction: u32,
    /// How many records were reported.
    pub(crate) count: usize,
    /// The first failure.
    pub(crate) failure: Option<KafkaError>,
    /// Whether a record was given up that may still arrive.
    pub(crate) has_indefinite: bool,
    /// The first and the last offset on each of the lane's own topics, by what its records are.
    pub(crate) written: BTreeMap<u32, (i64, i64)>,
}

impl Reported {
    /// The marker of a transaction lies right behind its last record, for nobody else writes to
    /// the partitions of a lane.
    pub(crate) fn receipt(self) -> Receipt {
        let state = self.written.get(&STATE);
        let place = |(kind, (_, last)): (&u32, &(i64, i64))| {
            let tier = Tier(u16::try_from(*kind).ok()?);
            Some(Place { stream: Stream::Retry(tier), offset: Offset(last + 1) })
        };
        Receipt {
            markers: self.written.iter().filter_map(place).collect(),
            state_begin: state.map(|(first, _)| *first),
            state_end: state.map(|(_, last)| last + 2),
        }
    }
}

impl Reports {
    /// A transaction begins.
    pub(crate) fn begin(&self) {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *reported = Reported { transaction: reported.transaction.wrapping_add(1), ..Reported::default() };
    }

    /// The number of the transaction under way.
    pub(crate) fn transaction(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).transaction
    }

    /// What was reported.
    pub(crate) fn reported(&self) -> Reported {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many records were reported.
    pub(crate) fn reported_count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_client_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_client_error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (transaction, kind) = parts(opaque);
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if transaction != reported.transaction {
            return;
        }
        reported.count += 1;
        match result {
            Ok(record) if !has_place(record.offset()) => {
                reported.has_indefinite = true;
                let unproven = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
                reported.failure.get_or_insert(unproven);
            }
            Ok(record) if kind != OTHER => {
                let offset = record.offset();
                let (first, last) = reported.written.entry(kind).or_insert((offset, offset));
                *first = (*first).min(offset);
                *last = (*last).max(offset);
            }
            Ok(_) => {}
            Err((error, record)) => {
                reported.has_indefinite |= error.rdkafka_error_code().is_some_and(is_indefinite);
                if reported.failure.is_none() {
                    let (topic, partition) = (record.topic(), record.partition());
                    tracing::warn!(topic, partition, %error, "Kafka did not take a record of a transaction");
                    reported.failure = Some(error.clone());
                }
            }
        }
    }
}

/// Whether a record that was given up with `code` may still arrive.
pub(crate) fn is_indefinite(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::PurgeInflight)
}
