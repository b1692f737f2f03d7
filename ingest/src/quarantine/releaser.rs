//! Puts events on the events topic, each with the record that tells of its release, in transactions
//! of one transactional id: whoever begins later fences whoever began before.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hookwell_common::config::KafkaConfig;
use hookwell_common::failpoint;
use hookwell_common::kafka::{
    ClientSettings, Isolation, LoggingContext, Verdict, collect_headers, extent, has_place, headers_of,
    log_client_error, log_client_line, verdict,
};
use hookwell_common::lifecycle::{Clock, Failure};
use hookwell_common::record::{Passage, record_key};
use hookwell_common::topics::Topic;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use thiserror::Error;

use super::record::Release;
use super::released::Place;
use super::survey::watermarks;
use crate::accept::Accepted;

/// How long Kafka may take to fence whoever began before, and to abort what that left open.
const TAKE_OVER: Duration = Duration::from_secs(60);

/// How long one call of a transaction may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long Kafka may take to write the markers of a transaction that it has decided: it takes
/// milliseconds, and where it takes longer it has forgotten them.
const DECIDED: Duration = Duration::from_secs(10);

const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Between two looks for delivery reports.
const REPORT_PAUSE: Duration = Duration::from_micros(200);

/// Why a batch was not released, or may not have been.
#[derive(Debug, Error)]
pub(crate) enum ReleaseError {
    /// Somebody else has begun, and does the rest; or Kafka had waited for too long.
    #[error(
        "another --release-quarantine has begun and goes on in place of this one, or Kafka ended a transaction that took too long; if nobody else is at it, run the same command again"
    )]
    TakenOver,
    /// Kafka did not do its part.
    #[error("the transaction may not have been committed: {0}")]
    Kafka(KafkaError),
    /// It is committed, and cannot be seen by everybody.
    #[error(
        "a transaction has ended, or another is open, and Kafka does not show what it wrote on {topic}/{partition}: see \"A partition stands still\" in docs/runbook.md before anything else is released"
    )]
    Hidden {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
}

/// A request that is genuine.
#[derive(Debug)]
pub(crate) struct Passing {
    /// Where it lies.
    pub(crate) place: Place,
    /// What it is.
    pub(crate) accepted: Accepted,
    /// Whether the same event was passed on before: this one then only counts as released.
    pub(crate) is_copy: bool,
}

/// The one who releases.
pub(crate) struct Releaser {
    producer: BaseProducer<Reports>,
    decided: BaseConsumer<LoggingContext>,
    events: String,
    quarantine: String,
    partitions: i32,
    clock: Clock,
}

impl Releaser {
    /// From here on every earlier release is fenced, and what it left open is aborted.
    pub(crate) fn take_over(
        clients: &ClientSettings,
        kafka: &KafkaConfig,
        clock: Clock,
    ) -> Result<Self, Failure> {
        let quarantine = Topic::Quarantine.name(&kafka.topic_prefix);
        // The topic's own name: who releases from one topic is one, whatever else differs.
        let config = clients.release_producer(&quarantine);
        let producer = BaseProducer::from_config_and_context(&config, Reports::default())
            .map_err(|error| Failure::Usage(format!("no Kafka client: {error}")))?;
        let decided = watermarks(clients, Isolation::Committed)?;
        let begun = clock.mono();
        loop {
            match producer.init_transactions(CALL_TIMEOUT) {
                Ok(()) => break,
                Err(error) if verdict(&error) == Verdict::Again && clock.mono() - begun < TAKE_OVER => {
                    std::thread::sleep(ASK_AGAIN);
                }
                Err(error) => {
                    return Err(Failure::Kafka(format!(
                        "Kafka did not let this release begin (transactional id {quarantine:?}): {error}"
                    )));
                }
            }
        }
        let events = Topic::Events.name(&kafka.topic_prefix);
        let releaser = Self { producer, decided, events, quarantine, partitions: kafka.partitions, clock };
        releaser.refuse_undecided(clients)?;
        Ok(releaser)
    }

    /// What an earlier release committed on the events topic must be there for everybody before this
    /// one's first transaction, whose marker might take it back.
    fn refuse_undecided(&self, clients: &ClientSettings) -> Result<(), Failure> {
        let ends = watermarks(clients, Isolation::Uncommitted)?;
        let last = |partition| {
            let (_, end) = extent(&ends, &self.events, partition, self.clock)?;
            Ok(((self.events.clone(), partition), end - 1))
        };
        let lasts: Result<_, Failure> = (0..self.partitions).map(last).collect();
        self.until_seen(lasts?).map_err(|error| Failure::Kafka(error.to_string()))
    }

    /// Passes on all of `batch`, or nothing: each event with the record that tells that the request at
    /// that place was released.
    pub(crate) fn release(&self, batch: &[Passing]) -> Result<(), ReleaseError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.producer.context().begin();
        self.producer.begin_transaction().map_err(|error| self.explain(error))?;
        self.fill(batch).map_err(|error| self.abort(error))?;
        failpoint::hit("release-committing");
        self.repeat(|| self.producer.commit_transaction(CALL_TIMEOUT)).map_err(|error| self.abort(error))?;
        failpoint::hit("release-committed");
        // The marker of the next transaction would close this one too, and an abort would take it back
        // (docs/adr/0016).
        let written = self.producer.context().reported().written.clone();
        self.until_seen(written)
    }

    fn fill(&self, batch: &[Passing]) -> Result<(), KafkaError> {
        let mut sent = 0;
        for Passing { place, accepted: Accepted { event, identity }, is_copy } in batch {
            if !is_copy {
                let key = record_key(&event.source, &event.id);
                let record = BaseRecord::to(&self.events)
                    .partition(identity.partition(self.partitions))
                    .key(key.as_slice())
                    .payload(event.body.as_ref())
                    .headers(headers_of(event, &Passage::default()));
                self.send(record)?;
                sent += 1;
                failpoint::hit("release-event-sent");
            }
            let release = Release { offset: place.offset, event: identity.short() };
            let record = BaseRecord::to(&self.quarantine)
                .partition(place.partition)
                .key(AsRef::<[u8]>::as_ref(event.source.as_bytes()))
                .payload(b"".as_slice())
                .headers(collect_headers(2, |write| release.encode(write)));
            self.send(record)?;
            sent += 1;
        }
        self.await_reports(sent)
    }

    fn send(&self, record: BaseRecord<'_, [u8], [u8]>) -> Result<(), KafkaError> {
        self.producer.send(record).map_err(|(error, _)| error)
    }

    /// Librdkafka gives each record up in time, so this ends.
    fn await_reports(&self, sent: usize) -> Result<(), KafkaError> {
        loop {
            self.producer.poll(Duration::ZERO);
            let reported = self.producer.context().reported();
            if let Some(error) = &reported.failure {
                return Err(error.clone());
            }
            if reported.count == sent {
                return Ok(());
            }
            drop(reported);
            std::thread::sleep(REPORT_PAUSE);
        }
    }

    /// Waits until everybody can see the record at each of these offsets.
    fn until_seen(&self, lasts: BTreeMap<(String, i32), i64>) -> Result<(), ReleaseError> {
        let begun = self.clock.mono();
        for ((topic, partition), last) in lasts {
            loop {
                let seen = self.decided.fetch_watermarks(&topic, partition, CALL_TIMEOUT);
                match seen {
                    Ok((_, stable)) if last < stable => break,
                    Ok(_) if DECIDED < self.clock.mono() - begun => {
                        return Err(ReleaseError::Hidden { topic, partition });
                    }
                    Err(error) if CALL_TIMEOUT < self.clock.mono() - begun => {
                        return Err(ReleaseError::Kafka(error));
                    }
                    Ok(_) | Err(_) => std::thread::sleep(ASK_AGAIN),
                }
            }
        }
        Ok(())
    }

    /// The same call again, for as long as librdkafka says that it can be.
    fn repeat(&self, call: impl Fn() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
        loop {
            match call() {
                Err(error) if verdict(&error) == Verdict::Again => std::thread::sleep(ASK_AGAIN),
                result => return result,
            }
        }
    }

    /// Ends the transaction after `cause`, so that no reader waits for it. Where nobody knows what
    /// arrived that is left to Kafka: its own end fences what may still be under way. Nothing more is
    /// released by this producer, and whether anything was is for the next run to see.
    fn abort(&self, cause: KafkaError) -> ReleaseError {
        // Librdkafka aborts nothing before somebody has heard what became of each record.
        while 0 < self.producer.in_flight_count() {
            self.producer.poll(REPORT_PAUSE);
        }
        let is_refused =
            matches!(cause, KafkaError::MessageProduction(_)) || verdict(&cause) == Verdict::Abort;
        if is_refused
            && !self.producer.context().reported().is_unknown
            && let Err(error) = self.repeat(|| self.producer.abort_transaction(CALL_TIMEOUT))
        {
            tracing::debug!(%error, "the transaction was not aborted; Kafka does that after its time-out");
        }
        self.explain(cause)
    }

    fn explain(&self, cause: KafkaError) -> ReleaseError {
        let fatal = self.producer.client().fatal_error().map(|(code, _)| code);
        let is_fenced = |code: RDKafkaErrorCode| {
            [
                RDKafkaErrorCode::Fenced,
                RDKafkaErrorCode::ProducerFenced,
                RDKafkaErrorCode::InvalidProducerEpoch,
            ]
            .contains(&code)
        };
        if fatal.is_some_and(is_fenced) || cause.rdkafka_error_code().is_some_and(is_fenced) {
            return ReleaseError::TakenOver;
        }
        ReleaseError::Kafka(cause)
    }
}

/// What was reported of the transaction under way.
#[derive(Debug, Default)]
struct Reported {
    count: usize,
    failure: Option<KafkaError>,
    /// Whether nobody knows of a record whether it arrived.
    is_unknown: bool,
    /// The last offset on each partition.
    written: BTreeMap<(String, i32), i64>,
}

#[derive(Debug, Default)]
struct Reports(Mutex<Reported>);

impl Reports {
    fn begin(&self) {
        *self.reported() = Reported::default();
    }

    fn reported(&self) -> MutexGuard<'_, Reported> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut reported = self.reported();
        match result {
            Ok(record) if has_place(record.offset()) => {
                reported.count += 1;
                let last = reported.written.entry((record.topic().to_owned(), record.partition()));
                let last = last.or_insert(record.offset());
                *last = (*last).max(record.offset());
            }
            Ok(_) => reported.failure = Some(KafkaError::MessageProduction(RDKafkaErrorCode::Unknown)),
            Err((error, _)) => {
                let unknown = [RDKafkaErrorCode::MessageTimedOut, RDKafkaErrorCode::PurgeInflight];
                reported.is_unknown |= error.rdkafka_error_code().is_some_and(|code| unknown.contains(&code));
                reported.failure = Some(error.clone());
            }
        }
    }
}
