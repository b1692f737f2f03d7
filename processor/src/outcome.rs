//! What happened to a delivery: facts, that decide nothing.

use std::time::Duration;

use bytestring::ByteString;

/// How one call of a handler ended, for one attempt of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an outcome that is not settled leaves its offset open"]
pub enum Outcome {
    /// The handler took it.
    Done,
    /// The handler was called and failed.
    Failed(HandlerError),
}

/// How a handler failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// It answered with a status that is no success.
    #[error("answered {status}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// What it said in `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// It did not answer in time.
    #[error("did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// It could not be reached, or the connection broke.
    #[error("could not be reached: {0}")]
    Unreachable(ByteString),
    /// A handler of one's own says that trying again may help.
    #[error("{0}")]
    Transient(ByteString),
    /// A handler of one's own says that trying again is useless.
    #[error("{0}")]
    Permanent(ByteString),
    /// A handler of one's own panicked.
    #[error("the handler panicked")]
    Panicked,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// It can.
    Transient,
    /// It cannot.
    Permanent,
}

impl HandlerError {
    /// Whether trying again can help. 408, 425, 429 and 5xx say so, other statuses the opposite.
    pub fn class(&self) -> FailureClass {
        match self {
            HandlerError::Status { status: 408 | 425 | 429 | 500..=599, .. } => FailureClass::Transient,
            HandlerError::Status { .. } | HandlerError::Permanent(_) => FailureClass::Permanent,
            HandlerError::TimedOut(_)
            | HandlerError::Unreachable(_)
            | HandlerError::Transient(_)
            | HandlerError::Panicked => FailureClass::Transient,
        }
    }

    /// The least time to wait, where the handler said one.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            HandlerError::Status { retry_after, .. } => *retry_after,
            HandlerError::TimedOut(_)
            | HandlerError::Unreachable(_)
            | HandlerError::Transient(_)
            | HandlerError::Permanent(_)
            | HandlerError::Panicked => None,
        }
    }
}

impl Outcome {
    /// The words of the label `outcome`, in the order of their documentation.
    pub const LABELS: [&'static str; 9] = [
        "done",
        "status_3xx",
        "status_4xx",
        "status_5xx",
        "timed_out",
        "unreachable",
        "transient",
        "permanent",
        "panicked",
    ];

    /// A stable word for metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Failed(HandlerError::Status { status: 400..=499, .. }) => "status_4xx",
            Outcome::Failed(HandlerError::Status { status: 500.., .. }) => "status_5xx",
            Outcome::Failed(HandlerError::Status { .. }) => "status_3xx",
            Outcome::Failed(HandlerError::TimedOut(_)) => "timed_out",
            Outcome::Failed(HandlerError::Unreachable(_)) => "unreachable",
            Outcome::Failed(HandlerError::Transient(_)) => "transient",
            Outcome::Failed(HandlerError::Permanent(_)) => "permanent",
            Outcome::Failed(HandlerError::Panicked) => "panicked",
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn status(status: u16) -> HandlerError {
        HandlerError::Status { status, retry_after: None }
    }

    #[rstest]
    #[case(status(301), FailureClass::Permanent, "status_3xx")]
    #[case(status(400), FailureClass::Permanent, "status_4xx")]
    #[case(status(408), FailureClass::Transient, "status_4xx")]
    #[case(status(425), FailureClass::Transient, "status_4xx")]
    #[case(status(429), FailureClass::Transient, "status_4xx")]
    #[case(status(500), FailureClass::Transient, "status_5xx")]
    #[case(status(599), FailureClass::Transient, "status_5xx")]
    #[case(HandlerError::TimedOut(Duration::from_secs(1)), FailureClass::Transient, "timed_out")]
    #[case(HandlerError::Unreachable("refused".into()), FailureClass::Transient, "unreachable")]
    #[case(HandlerError::Permanent("no".into()), FailureClass::Permanent, "permanent")]
    #[case(HandlerError::Panicked, FailureClass::Transient, "panicked")]
    fn each_failure_has_its_class_and_its_word(
        #[case] error: HandlerError,
        #[case] class: FailureClass,
        #[case] label: &str,
    ) {
        assert_eq!(error.class(), class);
        assert_eq!(Outcome::Failed(error).label(), label);
        assert!(Outcome::LABELS.contains(&label));
    }
}
