//! Records as ingest writes them, made in bulk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use bytestring::ByteString;
use hookwell_common::event::Event;
use hookwell_common::identity::Identity;
use hookwell_common::kafka::headers_of;
use hookwell_common::record::{Passage, record_key};
use hookwell_tests::reader::Reader;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

/// The source of every event here.
pub(crate) const SOURCE: &str = "github";

/// The id of event `n` of `run`.
pub(crate) fn event_id(run: &str, n: u64) -> String {
    format!("{run}-{n:012}")
}

/// A JSON document of exactly `bytes` that holds `id`, or the shortest where that is longer.
pub(crate) fn body(id: &str, bytes: usize) -> Vec<u8> {
    let mut body = format!(r#"{{"id":"{id}","text":""#).into_bytes();
    body.resize(bytes.saturating_sub(2).max(body.len()), b'x');
    body.extend_from_slice(b"\"}");
    body
}

/// An event whose body is written apart.
pub(crate) fn event(id: &str) -> Event {
    Event {
        source: ByteString::from_static(SOURCE),
        id: ByteString::from(id),
        kind: ByteString::from_static("push"),
        time: ByteString::from_static("2026-11-24T09:00:00.000Z"),
        content_type: Some(ByteString::from_static("application/json")),
        traceparent: Some(Identity::of(SOURCE, id).traceparent().into()),
        kept_headers: vec![(ByteString::from_static("x-github-event"), Bytes::from_static(b"push"))],
        body: Bytes::new(),
    }
}

/// The headers of an event as ingest writes them.
pub(crate) fn headers(id: &str) -> OwnedHeaders {
    headers_of(&event(id), &Passage::default())
}

/// What a backlog holds.
#[derive(Clone, Debug)]
pub(crate) struct Backlog {
    /// What all ids begin with.
    pub(crate) run: String,
    /// The first event's number.
    pub(crate) first: u64,
    /// How many records.
    pub(crate) records: u64,
    /// Every how manieth record repeats an earlier event; 0 for none.
    pub(crate) repeat: u64,
    /// The length of a body.
    pub(crate) bytes: usize,
    /// The topic's partitions.
    pub(crate) partitions: i32,
}

impl Backlog {
    /// How many of the records are no copies.
    pub(crate) fn distinct(&self) -> u64 {
        self.records - self.records.checked_div(self.repeat).unwrap_or(0)
    }

    /// The number of the event that record `at` holds.
    fn event(&self, at: u64) -> u64 {
        let is_copy = |at: u64| self.repeat != 0 && at % self.repeat == self.repeat - 1;
        match at {
            original if !is_copy(original) => original,
            copy if is_copy(copy / 2) => copy / 2 - 1,
            copy => copy / 2,
        }
    }

    /// Puts it on `topic`, and waits until all of it is there.
    pub(crate) fn write(&self, reader: &Reader, topic: &str) -> Result<()> {
        let bulk = Bulk::begin(reader)?;
        for at in 0..self.records {
            let id = event_id(&self.run, self.first + self.event(at));
            let (key, value) = (record_key(SOURCE, &id), body(&id, self.bytes));
            let partition = Identity::of(SOURCE, &id).partition(self.partitions);
            let record = BaseRecord::to(topic).partition(partition).key(&key).payload(&value);
            bulk.put(record.headers(headers(&id)))?;
        }
        bulk.end(self.records)
    }
}

/// Puts many records on topics.
pub(crate) struct Bulk {
    producer: ThreadedProducer<Count>,
    stored: Arc<AtomicU64>,
}

impl Bulk {
    /// Nothing is there yet.
    pub(crate) fn begin(reader: &Reader) -> Result<Self> {
        let stored = Arc::new(AtomicU64::new(0));
        let mut config = reader.config();
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "200000");
        Ok(Self { producer: config.create_with_context(Count(Arc::clone(&stored)))?, stored })
    }

    /// Puts one there.
    pub(crate) fn put(&self, record: BaseRecord<'_, Vec<u8>, Vec<u8>>) -> Result<()> {
        send(&self.producer, record)
    }

    /// Waits until all `records` are there.
    pub(crate) fn end(self, records: u64) -> Result<()> {
        self.producer.flush(Duration::from_secs(120))?;
        let stored = self.stored.load(Ordering::Relaxed);
        ensure!(stored == records, "{stored} of {records} records were stored");
        Ok(())
    }
}

/// Sends, and waits where the queue is full.
fn send(producer: &ThreadedProducer<Count>, record: BaseRecord<'_, Vec<u8>, Vec<u8>>) -> Result<()> {
    let mut waiting = record;
    loop {
        match producer.send(waiting) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                waiting = back;
                hookwell_tests::wait::pause(Duration::from_millis(5));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// The number of an event, read from its record.
pub(crate) fn event_number(message: &impl Message) -> Result<u64> {
    let headers = message.headers().ok_or_else(|| anyhow!("a record without headers"))?;
    let id = headers.iter().find(|header| header.key == "ce_id").and_then(|header| header.value);
    let id = String::from_utf8_lossy(id.unwrap_or_default());
    let number = id.rsplit('-').next().and_then(|number| number.parse().ok());
    number.ok_or_else(|| anyhow!("a strange id: {id}"))
}

/// Counts what is stored.
struct Count(Arc<AtomicU64>);

impl ClientContext for Count {}

impl ProducerContext for Count {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.0.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_backlog_repeats_as_many_events_as_it_says() {
        let backlog =
            Backlog { run: "x".to_owned(), first: 0, records: 1000, repeat: 10, bytes: 64, partitions: 1 };
        let events: BTreeSet<_> = (0..1000).map(|at| backlog.event(at)).collect();
        assert_eq!(events.len() as u64, backlog.distinct());
        assert_eq!(backlog.distinct(), 900);
    }

    #[test]
    fn bodies_have_the_length_that_was_asked_for() {
        assert_eq!(body(&event_id("run", 7), 1024).len(), 1024);
        assert!(body("an id", 1).ends_with(b"\"}"));
    }
}
