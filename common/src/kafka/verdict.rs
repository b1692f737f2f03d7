//! What an error of a transaction's call allows: again, abort, or a new producer.
//!
//! The rule is librdkafka's (INTRODUCTION.md, "Error handling"): retriable, the same call again;
//! to be aborted, abort and begin anew; fatal, a new producer. An error with none of the three
//! marks, time-outs among them, leaves it open what happened on the broker, and counts as fatal:
//! after anything indefinite only Kafka knows the truth.

use rdkafka::error::KafkaError;

/// What to do after a failed call of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same call again.
    Again,
    /// Abort, and begin the same work anew with the same producer.
    Abort,
    /// Throw the producer away; take over from what lies on Kafka.
    NewProducer,
}

/// Whether a delivery report that says yes, and names `offset`, proves that the record was stored.
///
/// When a request is refused for now and a later one, already under way, is taken, librdkafka
/// concludes that the first was stored after all, and reports it without an offset. Brokers take any
/// first sequence from a producer that they do not know, though, so it may be lost.
pub fn has_place(offset: i64) -> bool {
    offset >= 0
}

/// Judges `error`, which a transaction's call gave.
pub fn verdict(error: &KafkaError) -> Verdict {
    #[expect(clippy::wildcard_enum_match_arm, reason = "not our enum, and the default is the safe one")]
    match error {
        KafkaError::Transaction(error) if error.is_fatal() => Verdict::NewProducer,
        KafkaError::Transaction(error) if error.txn_requires_abort() => Verdict::Abort,
        KafkaError::Transaction(error) if error.is_retriable() => Verdict::Again,
        _ => Verdict::NewProducer,
    }
}
