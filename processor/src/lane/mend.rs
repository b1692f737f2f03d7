//! Ends a transaction whose marker Kafka has forgotten, as it was decided.
//!
//! A coordinator that finds a partition without a leader when it writes a transaction's markers
//! takes the partition for deleted, and the transaction for complete
//! (`docs/adr/0016-a-kafka-that-forgets-a-marker.md`). There the transaction stays open for good,
//! and hides whatever comes after it. The marker of any later transaction of the same id closes it;
//! so one is made that ends the same way.
//!
//! Every transaction has a name, which lies beside the committed offset of the events topic and on
//! the last record of each topic that it wrote to. No lane begins another before one is decided, so
//! where the name can be seen anywhere, the transaction was committed. Where it cannot, nothing of
//! it can, and aborting it is what would have come of a death just before the commit.

use std::collections::BTreeSet;
use std::time::Duration;

use hookwell_common::headers;
use hookwell_common::kafka::{Isolation, LoggingContext, copy_record};
use hookwell_common::record::RawRecord;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::proof::ends;
use super::transaction::{Ending, Transactor};
use crate::shared::Shared;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far back the last transaction is looked for on a topic that is decided to its end.
const BACK: i64 = 64;

/// A topic on which an undecided transaction hides what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hidden {
    /// The topic.
    pub(crate) topic: String,
    /// Up to where it is decided.
    pub(crate) stable: i64,
    /// Its true end.
    pub(crate) end: i64,
}

/// How the transaction `name` was decided, when `seen` are the names of those that can be seen.
fn ending(name: &str, seen: &BTreeSet<String>) -> Ending {
    if seen.contains(name) { Ending::Commit } else { Ending::Abort }
}

/// Ends what is open on `hidden`, if it is ours. The producer of `transactor` must have fenced all
/// others, so that nothing of this id is under way any more.
pub(crate) fn mend(
    shared: &Shared,
    transactor: &Transactor,
    partition: i32,
    hidden: &[Hidden],
) -> Result<(), KafkaError> {
    let seen = seen(shared, transactor, partition, hidden)?;
    for place in hidden {
        let last = last_record(shared, Isolation::Uncommitted, &place.topic, partition, place.stable)?;
        let Some(name) = last.as_ref().and_then(name_of) else {
            tracing::warn!(
                topic = place.topic,
                partition,
                "what is open there is not ours, or of a version that could not mend it"
            );
            continue;
        };
        let ending = ending(&name, &seen);
        transactor.end(&name, &place.topic, ending)?;
        tracing::warn!(
            topic = place.topic,
            partition,
            ?ending,
            "Kafka had forgotten how a transaction ended here; it is ended"
        );
    }
    Ok(())
}

/// Has offsets forgotten that a transaction of ours sent and whose end Kafka has forgotten, if
/// `error` may mean that. Without them records are read again, and state recognises them.
pub(crate) fn mend_offsets(shared: &Shared, transactor: &Transactor, error: &KafkaError) {
    let may_be_pending = matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::UnstableOffsetCommit | RDKafkaErrorCode::OperationTimedOut)
    );
    let Some(group) = shared.member.group_metadata().filter(|_| may_be_pending) else { return };
    match transactor.drop_pending_offsets(&group) {
        Ok(()) => tracing::info!("offsets that a transaction may have left undecided are dropped"),
        Err(error) => {
            tracing::warn!(%error, "offsets that a transaction left undecided could not be dropped")
        }
    }
}

/// The names of transactions that can be seen: beside the committed offset, and at the end of each
/// topic that is decided to its end.
fn seen(
    shared: &Shared,
    transactor: &Transactor,
    partition: i32,
    hidden: &[Hidden],
) -> Result<BTreeSet<String>, KafkaError> {
    let mut seen = BTreeSet::new();
    seen.extend(name_beside_offset(shared, transactor, partition)?);
    let names = transactor.names();
    let decided: Vec<_> =
        names.own().filter(|topic| hidden.iter().all(|place| place.topic != *topic)).collect();
    for (topic, end) in ends(&shared.stable_watermarks, decided.into_iter(), partition, PATIENCE)? {
        let from = (end - BACK).max(0);
        let last = last_record(shared, Isolation::Committed, &topic, partition, from)?;
        seen.extend(last.as_ref().and_then(name_of));
    }
    Ok(seen)
}

/// The name beside the committed offset of the events topic.
fn name_beside_offset(
    shared: &Shared,
    transactor: &Transactor,
    partition: i32,
) -> Result<Option<String>, KafkaError> {
    let events = transactor.names().events();
    let ask = || -> Result<_, KafkaError> {
        let mut wanted = TopicPartitionList::with_capacity(1);
        wanted.add_partition(events, partition);
        let found = shared.member.committed_offsets(wanted, PATIENCE)?;
        let element = found.find_partition(events, partition);
        element.map_or(Ok(None), |element| element.error().map(|()| Some(element.metadata().to_owned())))
    };
    ask().or_else(|error| {
        mend_offsets(shared, transactor, &error);
        ask()
    })
}

fn name_of(record: &RawRecord) -> Option<String> {
    let is_name = |name: &[u8]| name == headers::TRANSACTION.as_bytes();
    let value = record.headers().find_map(|(name, value)| is_name(&name).then_some(value))?;
    String::from_utf8(value.to_vec()).ok()
}

/// The last record from `from` on that can be seen under `isolation`.
fn last_record(
    shared: &Shared,
    isolation: Isolation,
    topic: &str,
    partition: i32,
    from: i64,
) -> Result<Option<RawRecord>, KafkaError> {
    let config = shared.clients.topic_reader(&shared.settings.group_id, isolation);
    let consumer: BaseConsumer<LoggingContext> =
        BaseConsumer::from_config_and_context(&config, LoggingContext::default())?;
    let mut place = TopicPartitionList::with_capacity(1);
    place.add_partition_offset(topic, partition, KafkaOffset::Offset(from))?;
    consumer.assign(&place)?;
    let begun = shared.clock.mono();
    let mut last = None;
    while shared.clock.mono().saturating_sub(begun) < PATIENCE {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => last = Some(copy_record(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
            Some(Err(error)) => tracing::debug!(topic, partition, %error, "met on the way to its end"),
            None => {}
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: &[(&str, &[u8])]) -> RawRecord {
        RawRecord::copy(Some(b"key"), b"value", headers.iter().copied())
    }

    #[test]
    fn a_transaction_ends_as_it_was_decided_if_its_name_can_be_seen_and_never_was_if_not() {
        let seen = BTreeSet::from(["one".to_owned(), "two".to_owned()]);
        assert_eq!(ending("two", &seen), Ending::Commit);
        assert_eq!(ending("three", &seen), Ending::Abort);
        assert_eq!(ending("one", &BTreeSet::new()), Ending::Abort);
    }

    #[test]
    fn a_record_names_its_transaction_in_a_header() {
        let named = record(&[("other", b"1"), (headers::TRANSACTION, b"0a-7")]);
        assert_eq!(name_of(&named).as_deref(), Some("0a-7"));
        assert_eq!(name_of(&record(&[("other", b"1")])), None);
        assert_eq!(name_of(&record(&[(headers::TRANSACTION, b"\xff")])), None);
    }
}
