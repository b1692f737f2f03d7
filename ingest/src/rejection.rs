//! Why a request is not accepted, and what its sender hears: the whole HTTP contract of ingest
//! but for 200. `docs/http.md` is held against it.

use std::fmt;

/// Why a request is not accepted. Carries nothing of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// No such source.
    UnknownSource,
    /// A method that the source does not use.
    MethodNotAllowed,
    /// The client's address is not on the source's list.
    AddressNotAllowed,
    /// The client took too long to send its request.
    TooSlow,
    /// The client went away in the middle of its request; nobody hears the answer.
    Aborted,
    /// The body is longer than allowed.
    BodyTooLarge,
    /// The headers to be kept are longer than allowed.
    HeadersTooLarge,
    /// No body where one is signed.
    BodyMissing,
    /// A header that is repeated or cannot be read, so that nobody can say what was signed.
    Unreadable,
    /// No signature.
    SignatureMissing,
    /// No time of signing where one is signed.
    TimestampMissing,
    /// A header, or a pair of the signature header, that is signed and not there.
    SignedPartMissing,
    /// No signature fits.
    SignatureMismatch,
    /// The time of signing lies outside its window.
    TimestampOutsideWindow,
    /// No event id, and the source demands one.
    EventIdMissing,
    /// More verified events than the source may send.
    TooMany,
    /// The sender's public key could not be read, so that nobody can say who signed.
    KeyUnavailable,
    /// The sender wanted an address visited, and that could not be done.
    ConfirmationFailed,
    /// Kafka did not acknowledge in time.
    LogUnavailable,
    /// Too much waits for Kafka already, or too many bodies are in memory.
    Overloaded,
    /// The process is about to end.
    ShuttingDown,
}

impl Rejection {
    /// All of them, in the order of their documentation.
    pub const ALL: [Rejection; 21] = [
        Rejection::BodyMissing,
        Rejection::Unreadable,
        Rejection::EventIdMissing,
        Rejection::HeadersTooLarge,
        Rejection::Aborted,
        Rejection::SignatureMissing,
        Rejection::TimestampMissing,
        Rejection::SignedPartMissing,
        Rejection::SignatureMismatch,
        Rejection::TimestampOutsideWindow,
        Rejection::AddressNotAllowed,
        Rejection::UnknownSource,
        Rejection::MethodNotAllowed,
        Rejection::TooSlow,
        Rejection::BodyTooLarge,
        Rejection::TooMany,
        Rejection::KeyUnavailable,
        Rejection::ConfirmationFailed,
        Rejection::LogUnavailable,
        Rejection::Overloaded,
        Rejection::ShuttingDown,
    ];

    /// The status, and the stable word for the problem's `type`, the log and the metrics.
    pub fn contract(self) -> (u16, &'static str) {
        match self {
            Rejection::BodyMissing => (400, "body_missing"),
            Rejection::Unreadable => (400, "unreadable"),
            Rejection::EventIdMissing => (400, "event_id_missing"),
            Rejection::HeadersTooLarge => (400, "headers_too_large"),
            Rejection::Aborted => (400, "aborted"),
            Rejection::SignatureMissing => (401, "signature_missing"),
            Rejection::TimestampMissing => (401, "timestamp_missing"),
            Rejection::SignedPartMissing => (401, "signed_part_missing"),
            Rejection::SignatureMismatch => (403, "signature_mismatch"),
            Rejection::TimestampOutsideWindow => (403, "timestamp_outside_window"),
            Rejection::AddressNotAllowed => (403, "address_not_allowed"),
            Rejection::UnknownSource => (404, "unknown_source"),
            Rejection::MethodNotAllowed => (405, "method_not_allowed"),
            Rejection::TooSlow => (408, "too_slow"),
            Rejection::BodyTooLarge => (413, "body_too_large"),
            Rejection::TooMany => (429, "too_many"),
            // It is not known to be forged, and must not be lost.
            Rejection::KeyUnavailable => (503, "key_unavailable"),
            Rejection::ConfirmationFailed => (503, "confirmation_failed"),
            // The sender keeps the event and sends it again: never a 2xx before the ack.
            Rejection::LogUnavailable => (503, "log_unavailable"),
            Rejection::Overloaded => (503, "overloaded"),
            Rejection::ShuttingDown => (503, "shutting_down"),
        }
    }

    /// The status.
    pub fn status(self) -> u16 {
        self.contract().0
    }

    /// The stable word.
    pub fn label(self) -> &'static str {
        self.contract().1
    }

    /// The rejection that the log and the metrics call `label`.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rejection| rejection.label() == label)
    }

    /// Whether it says that the request does not prove itself, which other secrets or words of the
    /// configuration could mend: such requests can be kept.
    pub fn is_of_verification(self) -> bool {
        match self {
            Rejection::Unreadable
            | Rejection::SignatureMissing
            | Rejection::TimestampMissing
            | Rejection::SignedPartMissing
            | Rejection::SignatureMismatch
            | Rejection::TimestampOutsideWindow => true,
            Rejection::UnknownSource
            | Rejection::MethodNotAllowed
            | Rejection::AddressNotAllowed
            | Rejection::TooSlow
            | Rejection::Aborted
            | Rejection::BodyTooLarge
            | Rejection::HeadersTooLarge
            | Rejection::BodyMissing
            | Rejection::EventIdMissing
            | Rejection::TooMany
            | Rejection::LogUnavailable
            | Rejection::Overloaded
            | Rejection::ShuttingDown
            | Rejection::KeyUnavailable
            | Rejection::ConfirmationFailed => false,
        }
    }

    /// After how many seconds the sender should try again, where it should.
    pub fn retry_after_seconds(self) -> Option<u32> {
        match self.status() {
            429 => Some(1),
            503 => Some(5),
            _ => None,
        }
    }

    /// Whether the connection is closed with the answer, for what the client still sends on it
    /// cannot be told from a next request, or nobody wants to wait for it.
    pub fn closes_connection(self) -> bool {
        matches!(
            self,
            Rejection::TooSlow | Rejection::Aborted | Rejection::BodyTooLarge | Rejection::ShuttingDown
        )
    }
}

/// For people. Says nothing about which part of a signature differed.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rejection::UnknownSource => "there is no such source",
            Rejection::MethodNotAllowed => "this source does not use this method",
            Rejection::AddressNotAllowed => "this address may not send to this source",
            Rejection::TooSlow => "the request took too long to arrive",
            Rejection::Aborted => "the request ended before its body did",
            Rejection::BodyTooLarge => "the body is too large",
            Rejection::HeadersTooLarge => "the headers are too large",
            Rejection::BodyMissing => "the body is empty where one is signed",
            Rejection::Unreadable => "a header that is needed is repeated or cannot be read",
            Rejection::SignatureMissing => "the signature is missing",
            Rejection::TimestampMissing => "the time of signing is missing",
            Rejection::SignedPartMissing => "a header that is signed is missing",
            Rejection::SignatureMismatch => "the signature does not fit",
            Rejection::TimestampOutsideWindow => "the time of signing lies outside the window",
            Rejection::EventIdMissing => "the event id is missing",
            Rejection::TooMany => "too many requests for this source",
            Rejection::KeyUnavailable => "the key of this signature could not be had; send the event again",
            Rejection::ConfirmationFailed => "the subscription could not be confirmed; ask again",
            Rejection::LogUnavailable => "the event could not be stored; send it again",
            Rejection::Overloaded => "too much is waiting; send the event again",
            Rejection::ShuttingDown => "this server is about to end; send the event again",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejection_has_a_word_of_its_own() {
        let labels: std::collections::BTreeSet<_> = Rejection::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), Rejection::ALL.len());
    }

    #[test]
    fn whatever_is_our_fault_tells_the_sender_when_to_come_back() {
        for rejection in Rejection::ALL {
            let ours = rejection.status() >= 500 || rejection.status() == 429;
            assert_eq!(rejection.retry_after_seconds().is_some(), ours, "{rejection:?}");
        }
    }

    #[test]
    fn no_rejection_looks_like_success() {
        assert!(Rejection::ALL.iter().all(|rejection| (400..=503).contains(&rejection.status())));
    }
}
