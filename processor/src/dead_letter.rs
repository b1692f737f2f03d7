//! Why a delivery is given up: a closed list, and a published contract.

use std::fmt;

/// Why a delivery is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadLetterReason {
    /// The record cannot be read as an event.
    Undecodable,
    /// No route names a destination for it.
    Unroutable,
    /// Its destination is no longer configured.
    DestinationRemoved,
    /// The handler said that trying again is useless.
    Permanent,
    /// The last attempt failed.
    Exhausted,
    /// It failed for longer than it may be tried.
    TooOld,
}

impl DeadLetterReason {
    /// All of them, in the order of their documentation.
    pub const ALL: [DeadLetterReason; 6] = [
        DeadLetterReason::Undecodable,
        DeadLetterReason::Unroutable,
        DeadLetterReason::DestinationRemoved,
        DeadLetterReason::Permanent,
        DeadLetterReason::Exhausted,
        DeadLetterReason::TooOld,
    ];

    /// The word in headers, metrics and lists.
    pub fn label(self) -> &'static str {
        match self {
            DeadLetterReason::Undecodable => "undecodable",
            DeadLetterReason::Unroutable => "unroutable",
            DeadLetterReason::DestinationRemoved => "destination_removed",
            DeadLetterReason::Permanent => "permanent",
            DeadLetterReason::Exhausted => "exhausted",
            DeadLetterReason::TooOld => "too_old",
        }
    }

    /// The reason with this word.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.label() == label)
    }

    /// The number in state records; frozen.
    pub fn code(self) -> u8 {
        match self {
            DeadLetterReason::Undecodable => 1,
            DeadLetterReason::Unroutable => 2,
            DeadLetterReason::DestinationRemoved => 3,
            DeadLetterReason::Permanent => 4,
            DeadLetterReason::Exhausted => 5,
            DeadLetterReason::TooOld => 6,
        }
    }

    /// The reason with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for DeadLetterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_number() {
        assert!(
            DeadLetterReason::ALL
                .iter()
                .all(|reason| DeadLetterReason::from_code(reason.code()) == Some(*reason))
        );
        assert_eq!(DeadLetterReason::from_code(0), None);
    }
}
