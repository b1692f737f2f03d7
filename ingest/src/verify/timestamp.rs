//! When a request was signed, and how long that may be ago.

use std::time::Duration;

use hookwell_common::time::Timestamp;

use super::explain::{Step, Trace};
use super::value::Place;
use crate::rejection::Rejection;

/// Where the time of signing lies, and how far it may lie from ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampRule {
    pub(super) place: Place,
    pub(super) unit: TimestampUnit,
    pub(super) tolerance: Duration,
    /// Whether only what is too old is refused, for the sender promises no more.
    pub(super) past_only: bool,
}

/// How a time of signing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampUnit {
    /// Seconds since the epoch.
    Seconds,
    /// Milliseconds since the epoch.
    Milliseconds,
    /// RFC 3339, with any offset.
    Rfc3339,
    /// The same, where a missing offset means UTC.
    Iso8601,
}

impl TimestampRule {
    pub(super) fn is_in_body(&self) -> bool {
        matches!(self.place, Place::Json(_))
    }

    pub(super) fn check_window(
        &self,
        signed_at: Timestamp,
        now: Timestamp,
        trace: &mut impl Trace,
    ) -> Result<(), Rejection> {
        let distance = now.distance(signed_at);
        let side = if signed_at <= now { "old" } else { "ahead" };
        let (seconds, allowed) = (distance.as_secs(), self.tolerance.as_secs());
        let words = || format!("{seconds} s {side}; {allowed} s are allowed");
        if distance <= self.tolerance || self.past_only && now < signed_at {
            trace.passed(Step::Timestamp, words);
            return Ok(());
        }
        let beyond = (distance - self.tolerance).as_secs();
        let words = || format!("{}, and this is {beyond} s beyond", words());
        Err(trace.failed(Step::Timestamp, Rejection::TimestampOutsideWindow, words))
    }
}

impl TimestampUnit {
    /// Reads the unit from a configuration's word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "s" => Some(TimestampUnit::Seconds),
            "ms" => Some(TimestampUnit::Milliseconds),
            "rfc3339" => Some(TimestampUnit::Rfc3339),
            "iso8601" => Some(TimestampUnit::Iso8601),
            _ => None,
        }
    }

    pub(super) fn read(self, text: &str) -> Option<Timestamp> {
        match self {
            TimestampUnit::Seconds => text.parse().ok().map(Timestamp::from_seconds),
            TimestampUnit::Milliseconds => text.parse().ok().map(Timestamp::from_millis),
            TimestampUnit::Rfc3339 => Timestamp::parse_rfc3339(text),
            TimestampUnit::Iso8601 => {
                Timestamp::parse_rfc3339(text).or_else(|| Timestamp::parse_rfc3339(&format!("{text}Z")))
            }
        }
    }

    pub(super) fn write(self, moment: Timestamp) -> String {
        match self {
            TimestampUnit::Seconds => (moment.as_millis() / 1000).to_string(),
            TimestampUnit::Milliseconds => moment.as_millis().to_string(),
            TimestampUnit::Rfc3339 | TimestampUnit::Iso8601 => moment.to_string(),
        }
    }
}
