//! The only begin, send, commit and abort.
//!
//! A commit is one short transaction: everything is written, the offsets are sent, every delivery
//! report is awaited, and only then is it committed. librdkafka would commit without a record that
//! it refused to take, so a refused record aborts; and waiting for the reports beforehand saves
//! the 100 ms that its own flush takes (measured, `docs/adr/0003-librdkafka.md`).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use hookwell_common::failpoint;
use hookwell_common::headers;
use hookwell_common::kafka::{ClientSettings, Verdict, collect_headers, verdict};
use hookwell_common::topics::Topic;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::util::Timeout;
use thiserror::Error;

use super::batch::Commit;
use super::output::{Output, OutputTopic, all_outputs};
use super::proof::Written;
use super::reports::{DEAD_LETTER, OTHER, Receipt, Reports, STATE, is_indefinite, opaque};
use crate::delivery::Stream;
use crate::retry::Tier;
use crate::state::END_KEY;

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

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It counts.
    Commit,
    /// It never was.
    Abort,
}

/// The producer of one partition.
pub(crate) struct Transactor {
    producer: BaseProducer<Reports>,
    names: TopicNames,
    partition: i32,
    /// What the names of its transactions begin with: no other producer's do.
    name: String,
    begun: Cell<u64>,
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

    /// The topics on whose partition only its lane writes.
    pub(crate) fn own(&self) -> impl Iterator<Item = &str> {
        [&self.state, &self.dead_letters].into_iter().chain(self.retries.values()).map(String::as_str)
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
        Ok(Self { producer, names, partition, name: unique_name(), begun: Cell::new(0) })
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
        self.begin().map_err(CommitError::ProducerLost)?;
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

    /// What the last transaction wrote on the lane's own topics.
    pub(crate) fn written(&self) -> Written {
        let reported = self.producer.context().reported();
        let own = reported.written.into_iter().filter_map(|(kind, extent)| {
            let topic = match kind {
                STATE => &self.names.state,
                DEAD_LETTER => &self.names.dead_letters,
                tier => self.names.retries.get(&Tier(u16::try_from(tier).ok()?))?,
            };
            Some((topic.clone(), extent))
        });
        own.collect()
    }

    /// Ends the transaction called `name` on `topic`, which an earlier producer of this id left open:
    /// the marker of a transaction that holds nothing but an end record closes both.
    pub(crate) fn end(&self, name: &str, topic: &str, ending: Ending) -> Result<(), KafkaError> {
        self.begin()?;
        let headers = collect_headers(1, |write| write(headers::TRANSACTION, name.as_bytes()));
        let opaque = opaque(self.producer.context().transaction(), OTHER);
        let record = BaseRecord::with_opaque_to(topic, opaque)
            .partition(self.partition)
            .key(END_KEY)
            .payload(b"".as_slice())
            .headers(headers);
        self.producer.send(record).map_err(|(error, _)| error)?;
        self.await_reports(1)?;
        match ending {
            Ending::Commit => self.repeat(|| self.producer.commit_transaction(Timeout::Never)),
            Ending::Abort => self.repeat(|| self.producer.abort_transaction(CALL_TIMEOUT)),
        }
    }

    /// Has the group's coordinator drop offsets that an earlier transaction of this id left
    /// undecided.
    pub(crate) fn drop_pending_offsets(&self, group: &ConsumerGroupMetadata) -> Result<(), KafkaError> {
        self.begin()?;
        let mut offsets = TopicPartitionList::with_capacity(1);
        offsets.add_partition_offset(&self.names.events, self.partition, KafkaOffset::Offset(0))?;
        self.repeat(|| self.producer.send_offsets_to_transaction(&offsets, group, CALL_TIMEOUT))?;
        self.repeat(|| self.producer.abort_transaction(CALL_TIMEOUT))
    }

    fn begin(&self) -> Result<(), KafkaError> {
        self.producer.context().begin();
        self.begun.set(self.begun.get() + 1);
        self.producer.begin_transaction()
    }

    /// The name of the transaction under way.
    fn transaction_name(&self) -> String {
        format!("{}-{}", self.name, self.begun.get())
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
        let name = self.transaction_name();
        let mut sent = 0;
        let mut outputs = all_outputs(commit).peekable();
        while let Some(output) = outputs.next() {
            self.send(&output, transaction, &name, outputs.peek().is_none(), forwards)?;
            sent += 1;
        }
        failpoint::hit("transaction-produced");
        let offsets = self.offset_list(commit, &name)?;
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
        transaction_name: &str,
        is_last: bool,
        forwards: &BTreeMap<String, i32>,
    ) -> Result<(), KafkaError> {
        let unknown = || KafkaError::MessageProduction(RDKafkaErrorCode::UnknownTopic);
        let (topic, partition, kind): (&str, i32, u32) = match output.topic {
            OutputTopic::Retry(tier) => {
                let name = self.names.retries.get(&tier).ok_or_else(unknown)?;
                (name, self.partition, u32::from(tier.0))
            }
            OutputTopic::DeadLetters => (&self.names.dead_letters, self.partition, DEAD_LETTER),
            OutputTopic::State => (&self.names.state, self.partition, STATE),
            OutputTopic::Forward(topic) => {
                let count = forwards.get(topic).ok_or_else(unknown)?;
                (topic, forward_partition(&output.key, *count), OTHER)
            }
        };
        // The last record is always a state; of the others, states do without.
        let is_named =
            is_last || matches!(kind, DEAD_LETTER) || matches!(output.topic, OutputTopic::Retry(_));
        let headers = (output.has_headers() || is_named).then(|| {
            collect_headers(24, |write| {
                output.encode_headers(&mut *write);
                if is_named {
                    write(headers::TRANSACTION, transaction_name.as_bytes());
                }
            })
        });
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

    fn offset_list(&self, commit: &Commit, name: &str) -> Result<TopicPartitionList, KafkaError> {
        let mut offsets = TopicPartitionList::with_capacity(commit.offsets.len());
        for (stream, frontier) in &commit.offsets {
            let topic = self.names.stream(*stream);
            let mut offset = offsets.add_partition(&topic, self.partition);
            offset.set_offset(KafkaOffset::Offset(frontier.0))?;
            offset.set_metadata(name);
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

/// Where a record goes on a topic of somebody else's. Never librdkafka's own choice, which other
/// clients do not share.
fn forward_partition(key: &[u8], count: i32) -> i32 {
    let hash = blake3::hash(key);
    let [a, b, c, d, ..] = *hash.as_bytes();
    let count = u32::try_from(count).unwrap_or(1).max(1);
    i32::try_from(u32::from_le_bytes([a, b, c, d]) % count).unwrap_or(0)
}

/// A name that nobody else has.
fn unique_name() -> String {
    // Its keys are drawn by chance.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
