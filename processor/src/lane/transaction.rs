//! The only begin, send, commit and abort.
//!
//! A commit is one short transaction: everything is written, the offsets are sent, every delivery
//! report is awaited, and only then is it committed. librdkafka would commit without a record that
//! it refused to take, so a refused record aborts; and waiting for the reports beforehand saves
//! the 100 ms that its own flush takes (measured, `docs/adr/0003-librdkafka.md`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hookwell_common::failpoint;
use hookwell_common::kafka::{
    ClientSettings, Verdict, collect_headers, has_place, log_client_error, log_client_line, verdict,
};
use hookwell_common::topics::Topic;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::util::Timeout;
use thiserror::Error;

use super::batch::Commit;
use super::output::{Output, OutputTopic, all_outputs};
use crate::delivery::{Place, Stream};
use crate::lane::ledger::Offset;
use crate::retry::Tier;

/// How long one call of a transaction may take. Librdkafka does not keep to it where the group's
/// coordinator is away; the watchdog does.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one call waits until a producer is fenced in. Where no broker is connected yet, or the
/// last owner's transaction is still being ended, librdkafka itself looks again after half a second.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Between two looks for delivery reports.
const REPORT_PAUSE: Duration = Duration::from_micros(100);

/// Why a commit has not taken effect, or may not have.
#[derive(Debug, Error)]
pub(crate) enum CommitError {
    /// It was aborted whole. The same commit can be made again.
    #[error("the transaction was aborted: {0}")]
    Aborted(KafkaError),
    /// Nobody knows: only what lies on Kafka tells. The producer is of no more use.
    #[error("the producer was lost: {0}")]
    ProducerLost(KafkaError),
    /// It was aborted, for states would have come to lie where others must lie already.
    #[error(
        "a state came to lie at offset {found} of the state topic, which ended at {end} before: the topic was cut, or deleted and created anew"
    )]
    StateCut {
        /// Where the state came to lie.
        found: i64,
        /// Where the topic ended.
        end: i64,
    },
}

/// What a commit left behind.
#[derive(Debug, Default)]
pub(crate) struct Receipt {
    /// Where the transaction's marker lies on the topics that the lane reads.
    pub(crate) markers: Vec<Place>,
    /// Where the first state of this commit lies on the state topic.
    state_begin: Option<i64>,
    /// The state topic's next offset, after the records of this commit.
    pub(crate) state_end: Option<i64>,
}

/// The producer of one partition.
pub(crate) struct Transactor {
    producer: BaseProducer<Reports>,
    names: TopicNames,
    partition: i32,
}

/// Full names, made once.
#[derive(Clone, Debug)]
pub(crate) struct TopicNames {
    prefix: String,
    events: String,
    dead_letters: String,
    state: String,
    retries: BTreeMap<Tier, String>,
}

impl TopicNames {
    /// The names under `prefix`, with the retry tiers that exist or are configured.
    pub(crate) fn new(prefix: &str, tiers: impl Iterator<Item = Tier>) -> Self {
        Self {
            prefix: prefix.to_owned(),
            events: Topic::Events.name(prefix),
            dead_letters: Topic::DeadLetters.name(prefix),
            state: Topic::State.name(prefix),
            retries: tiers.map(|tier| (tier, Topic::Retry(tier.0).name(prefix))).collect(),
        }
    }

    /// The name of a topic that the lane reads.
    pub(crate) fn stream(&self, stream: Stream) -> String {
        match stream {
            Stream::Events => self.events.clone(),
            Stream::Retry(tier) => {
                self.retries.get(&tier).cloned().unwrap_or_else(|| Topic::Retry(tier.0).name(&self.prefix))
            }
        }
    }

    /// The events topic.
    pub(crate) fn events(&self) -> &str {
        &self.events
    }

    /// The state topic.
    pub(crate) fn state(&self) -> &str {
        &self.state
    }

    /// The tiers.
    pub(crate) fn tiers(&self) -> impl Iterator<Item = Tier> + '_ {
        self.retries.keys().copied()
    }
}

impl std::fmt::Debug for Transactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transactor").field("partition", &self.partition).finish_non_exhaustive()
    }
}

impl Transactor {
    /// A producer that owns `partition`: from here on, every earlier one is fenced, and what it
    /// left open is aborted.
    pub(crate) fn take_over(
        settings: &ClientSettings,
        group_id: &str,
        partition: i32,
        names: TopicNames,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        let config = settings.transactional_producer(&format!("{group_id}-{partition}"));
        let producer = BaseProducer::from_config_and_context(&config, Reports::default())?;
        fence(&producer, timeout)?;
        Ok(Self { producer, names, partition })
    }

    /// The topics.
    pub(crate) fn names(&self) -> &TopicNames {
        &self.names
    }

    /// Makes one transaction of `commit`. `group` is the member's metadata of this moment: with it
    /// the broker refuses whoever is no longer a member. `forwards` tells the partitions of the
    /// topics of `kafka` destinations, and `state_end` where the state topic ended at last.
    pub(crate) fn commit(
        &self,
        commit: &Commit,
        group: &ConsumerGroupMetadata,
        forwards: &BTreeMap<String, i32>,
        state_end: i64,
    ) -> Result<Receipt, CommitError> {
        self.producer.context().begin();
        self.producer.begin_transaction().map_err(CommitError::ProducerLost)?;
        match self.fill(commit, group, forwards) {
            Ok(receipt) => {
                if let Some(found) = receipt.state_begin.filter(|found| *found < state_end) {
                    // Whatever becomes of the abort: nothing may count on top of states that are gone.
                    self.repeat(|| self.producer.abort_transaction(CALL_TIMEOUT)).ok();
                    return Err(CommitError::StateCut { found, end: state_end });
                }
                failpoint::hit("transaction-committing");
                self.repeat(|| self.producer.commit_transaction(Timeout::Never))
                    .map_err(|error| self.abort(error))?;
                failpoint::hit("transaction-committed");
                Ok(receipt)
            }
            Err(error) => Err(self.abort(error)),
        }
    }

    /// Lets librdkafka tell what it has to tell.
    pub(crate) fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    fn fill(
        &self,
        commit: &Commit,
        group: &ConsumerGroupMetadata,
        forwards: &BTreeMap<String, i32>,
    ) -> Result<Receipt, KafkaError> {
        let transaction = self.producer.context().transaction();
        let mut sent = 0;
        for output in all_outputs(commit) {
            self.send(&output, transaction, forwards)?;
            sent += 1;
        }
        failpoint::hit("transaction-produced");
        let offsets = self.offset_list(commit)?;
        if !commit.offsets.is_empty() {
            self.repeat(|| self.producer.send_offsets_to_transaction(&offsets, group, CALL_TIMEOUT))?;
        }
        failpoint::hit("transaction-offsets-sent");
        self.await_reports(sent)
    }

    fn send(
        &self,
        output: &Output<'_>,
        transaction: u32,
        forwards: &BTreeMap<String, i32>,
    ) -> Result<(), KafkaError> {
        let unknown = || KafkaError::MessageProduction(RDKafkaErrorCode::UnknownTopic);
        let (topic, partition, kind): (&str, i32, u32) = match output.topic {
            OutputTopic::Retry(tier) => {
                let name = self.names.retries.get(&tier).ok_or_else(unknown)?;
                (name, self.partition, u32::from(tier.0))
            }
            OutputTopic::DeadLetters => (&self.names.dead_letters, self.partition, OTHER),
            OutputTopic::State => (&self.names.state, self.partition, STATE),
            OutputTopic::Forward(topic) => {
                let count = forwards.get(topic).ok_or_else(unknown)?;
                (topic, forward_partition(&output.key, *count), OTHER)
            }
        };
        let headers = output.has_headers().then(|| collect_headers(24, |write| output.encode_headers(write)));
        let mut record = BaseRecord::with_opaque_to(topic, opaque(transaction, kind))
            .partition(partition)
            .payload(&*output.value);
        if !output.key.is_empty() {
            record = record.key(&*output.key);
        }
        record.headers = headers;
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    failpoint::hit("transaction-record-sent");
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    self.producer.poll(Duration::from_millis(1));
                    record = refused;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn offset_list(&self, commit: &Commit) -> Result<TopicPartitionList, KafkaError> {
        let mut offsets = TopicPartitionList::with_capacity(commit.offsets.len());
        for (stream, frontier) in &commit.offsets {
            let topic = self.names.stream(*stream);
            offsets.add_partition_offset(&topic, self.partition, KafkaOffset::Offset(frontier.0))?;
        }
        Ok(offsets)
    }

    /// Waits until each of `sent` records is reported, and fails if one of them failed. Librdkafka
    /// gives each record up in time, so this ends.
    fn await_reports(&self, sent: usize) -> Result<Receipt, KafkaError> {
        loop {
            let reported = self.producer.context().reported();
            if let Some(error) = reported.failure {
                return Err(error);
            }
            if reported.count == sent {
                return Ok(reported.receipt());
            }
            self.producer.poll(Duration::ZERO);
            if self.producer.context().reported_count() == reported.count {
                std::thread::sleep(REPORT_PAUSE);
            }
        }
    }

    /// The same call again, for as long as librdkafka says that it can be.
    fn repeat(&self, call: impl Fn() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
        loop {
            match call() {
                Err(error) if verdict(&error) == Verdict::Again => {
                    tracing::debug!(partition = self.partition, %error, "a call of the transaction is made again");
                    std::thread::sleep(Duration::from_millis(50));
                }
                result => return result,
            }
        }
    }

    /// Aborts after `cause`. What cannot be aborted is lost.
    fn abort(&self, cause: KafkaError) -> CommitError {
        if !can_abort(&cause) {
            return CommitError::ProducerLost(cause);
        }
        // What is still under way must be reported before librdkafka lets the abort end, and only
        // this thread can take the reports. Nothing is purged: a record given up under way could
        // arrive late, in the next transaction. Each is given up in time, so this ends.
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::from_millis(1));
        }
        if self.producer.context().reported().has_indefinite {
            return CommitError::ProducerLost(cause);
        }
        match self.repeat(|| self.producer.abort_transaction(CALL_TIMEOUT)) {
            Ok(()) => CommitError::Aborted(cause),
            Err(error) => CommitError::ProducerLost(error),
        }
    }
}

/// Has `producer` fence every earlier one of its id, and abort what that left open. Librdkafka goes
/// on in the background when a call times out, and the next call has it look again at once.
fn fence(producer: &BaseProducer<Reports>, timeout: Duration) -> Result<(), KafkaError> {
    let mut left = timeout;
    loop {
        match producer.init_transactions(ASK_AGAIN) {
            Err(error) if ASK_AGAIN < left && verdict(&error) == Verdict::Again => left -= ASK_AGAIN,
            result => return result,
        }
    }
}

/// Whether a transaction that failed with `cause` can be aborted and made again by the same
/// producer: not where nobody knows what arrived.
fn can_abort(cause: &KafkaError) -> bool {
    if let KafkaError::MessageProduction(code) = cause {
        return !is_indefinite(*code);
    }
    verdict(cause) == Verdict::Abort
}

/// Whether a record that was given up with `code` may still arrive.
fn is_indefinite(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::PurgeInflight)
}

/// Where a record goes on a topic of somebody else's. Never librdkafka's own choice, which other
/// clients do not share.
fn forward_partition(key: &[u8], count: i32) -> i32 {
    let hash = blake3::hash(key);
    let [a, b, c, d, ..] = *hash.as_bytes();
    let count = u32::try_from(count).unwrap_or(1).max(1);
    i32::try_from(u32::from_le_bytes([a, b, c, d]) % count).unwrap_or(0)
}

/// What a record is, for its report: the number of its retry tier, or one of these.
const OTHER: u32 = 0;
const STATE: u32 = u32::MAX;

/// What comes back with a record's report: the transaction that it belongs to, and what it is.
/// Reports of an aborted transaction may come late, and must not be counted for the next.
fn opaque(transaction: u32, kind: u32) -> usize {
    // Lossless where pointers have 64 bits, which rdkafka's other parts presume as well.
    ((u64::from(transaction) << 32) | u64::from(kind)) as usize
}

fn parts(opaque: usize) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = (opaque as u64).to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// Takes the delivery reports of one transaction.
#[derive(Default)]
struct Reports(Mutex<Reported>);

/// What was reported since the transaction began.
#[derive(Clone, Default)]
struct Reported {
    transaction: u32,
    count: usize,
    failure: Option<KafkaError>,
    /// Whether a record was given up that may still arrive.
    has_indefinite: bool,
    /// The last offset on each retry topic, by tier.
    retries: BTreeMap<u32, i64>,
    /// The first and the last offset on the state topic.
    state: Option<(i64, i64)>,
}

impl Reported {
    /// The marker of a transaction lies right behind its last record, for nobody else writes to
    /// the partitions of a lane.
    fn receipt(self) -> Receipt {
        let place = |(tier, last): (u32, i64)| Place {
            stream: Stream::Retry(Tier(u16::try_from(tier).unwrap_or(u16::MAX))),
            offset: Offset(last + 1),
        };
        Receipt {
            markers: self.retries.into_iter().map(place).collect(),
            state_begin: self.state.map(|(first, _)| first),
            state_end: self.state.map(|(_, last)| last + 2),
        }
    }
}

impl Reports {
    fn begin(&self) {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *reported = Reported { transaction: reported.transaction.wrapping_add(1), ..Reported::default() };
    }

    fn transaction(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).transaction
    }

    fn reported(&self) -> Reported {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reported_count(&self) -> usize {
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
            Ok(record) => match kind {
                OTHER => {}
                STATE => {
                    let (first, last) = reported.state.unwrap_or((i64::MAX, i64::MIN));
                    reported.state = Some((first.min(record.offset()), last.max(record.offset())));
                }
                tier => {
                    let last = reported.retries.entry(tier).or_default();
                    *last = (*last).max(record.offset());
                }
            },
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
