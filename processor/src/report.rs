//! What is told of a transaction once it is committed: counters, and a line a settlement.

use std::time::Duration;

use crate::delivery::{Content, Stream, Target};
use crate::lane::batch::{Commit, Entry};
use crate::lane::reports::Receipt;
use crate::lane::transaction::CommitError;
use crate::metrics::{KnownNames, Pair};
use crate::route::Kind;
use crate::settle::Settlement;
use crate::shared::Shared;

/// Counts a transaction.
pub(crate) fn transaction(shared: &Shared, result: &Result<Receipt, CommitError>, took: Duration) {
    let word = match result {
        Ok(_) => "committed",
        Err(CommitError::Aborted(_)) => "aborted",
        Err(CommitError::ProducerLost(_) | CommitError::StateCut { .. }) => "lost",
    };
    shared.metrics.transactions.with_label_values(&[word]).inc();
    shared.metrics.transaction_seconds.observe(took.as_secs_f64());
}

/// Counts and logs what was committed: facts now.
pub(crate) fn settlements(shared: &Shared, commit: &Commit) {
    let setup = shared.setup.load();
    for entry in &commit.batch.entries {
        count(shared, &setup.names, entry);
        log(entry);
    }
    for source in &commit.batch.duplicates {
        shared.metrics.count_duplicate(setup.names.source(source));
    }
    shared.metrics.stale.inc_by(u64::try_from(commit.batch.stale).unwrap_or(u64::MAX));
}

fn count(shared: &Shared, names: &KnownNames, entry: &Entry) {
    let (source, destination) = (entry.delivery.content.source(), entry.delivery.target.name());
    let labels = Pair { source: names.source(&source), destination: names.destination(&destination) };
    if let Some(outcome) = &entry.outcome {
        shared.metrics.count_attempt(labels, outcome, entry.took.as_secs_f64());
    }
    shared.metrics.count_settlement(labels, entry.settlement);
}

/// The one line of a settled delivery. No body, and nothing of a handler's answer but its status.
fn log(entry: &Entry) {
    let delivery = &entry.delivery;
    let event_id = match &delivery.content {
        Content::Event(event) => &*event.id,
        Content::Undecodable(..) => "",
    };
    let stream = match delivery.place.stream {
        Stream::Events => 0,
        Stream::Retry(tier) => tier.0,
    };
    let (tier, reason) = match entry.settlement {
        Settlement::Done => (None, None),
        Settlement::Retry { tier, .. } => (Some(tier.0), None),
        Settlement::DeadLetter(reason) => (None, Some(reason.label())),
    };
    tracing::info!(
        target: "settlement",
        source = &*delivery.content.source(),
        event_id,
        destination = &*delivery.target.name(),
        generation = delivery.claim.generation,
        attempt = delivery.claim.attempt,
        outcome = entry.outcome.as_ref().map(|outcome| outcome.label()),
        settlement = entry.settlement.label(),
        tier,
        reason,
        partition = delivery.origin.partition,
        stream,
        offset = delivery.place.offset.0,
        millis = entry.took.as_secs_f64() * 1000.0,
    );
    if let (Settlement::Done, Target::Destination(destination), Content::Event(event)) =
        (entry.settlement, &delivery.target, &delivery.content)
        && destination.kind == Kind::Log
    {
        tracing::info!(
            target: "destination",
            destination = &*destination.name,
            source = &*event.source,
            event_id = &*event.id,
            event_type = &*event.kind,
            bytes = event.body.len(),
            "delivered to the log",
        );
    }
}
