//! Moments as values. The pure files take these as arguments; only [`Clock`] in
//! `lifecycle.rs` reads a clock.

use std::fmt;
use std::time::Duration;

/// A wall-clock moment: milliseconds since 1970-01-01T00:00:00Z. The form in which times travel
/// between processes and lie on Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The moment `seconds` seconds after the epoch.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Seconds since the epoch, as Prometheus wants its timestamps.
    pub fn as_seconds_f64(self) -> f64 {
        Duration::from_millis(self.0).as_secs_f64()
    }

    /// This moment, later by `duration`; the end of time where that overflows.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(whole_millis(duration)))
    }

    /// This moment, earlier by `duration`; the epoch where that would lie before it.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(whole_millis(duration)))
    }

    /// How long after `earlier` this is; zero where it is not after it.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The distance between two moments, whichever is the later.
    pub fn distance(self, other: Timestamp) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// Reads RFC 3339, with any offset (`2026-11-24T10:00:00.123+01:00`).
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let parsed: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(parsed.as_millisecond()).ok().map(Self)
    }

    /// Reads what a person gives on a command line: RFC 3339, or seconds since the epoch.
    pub fn parse(text: &str) -> Option<Self> {
        match text.parse::<u64>() {
            Ok(seconds) => Some(Self::from_seconds(seconds)),
            Err(_) => Self::parse_rfc3339(text),
        }
    }
}

/// RFC 3339 in UTC, with milliseconds: `2026-11-24T09:00:00.123Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment =
            i64::try_from(self.0).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
        match moment {
            Some(moment) => write!(f, "{moment:.3}"),
            None => write!(f, "{} ms after the epoch", self.0),
        }
    }
}

/// A moment as people give it on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long ago.
    Ago(Duration),
    /// At that time.
    At(Timestamp),
}

impl Moment {
    /// Reads `2h`, RFC 3339 or seconds since the epoch.
    pub fn parse(text: &str) -> Result<Self, String> {
        let at = Timestamp::parse(text).map(Moment::At);
        at.or_else(|| humantime::parse_duration(text).ok().map(Moment::Ago)).ok_or_else(|| {
            format!("{text:?} is neither a duration such as 2h nor a time such as 2026-11-24T09:00:00Z")
        })
    }

    /// The moment, seen from `now`.
    pub fn seen_from(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::Ago(duration) => now.minus(duration),
            Moment::At(moment) => moment,
        }
    }
}

/// The present on two clocks: one that other processes share, and one that never jumps.
///
/// Waiting is measured on `mono`, so that a stepped wall clock neither shortens nor lengthens a
/// delay that has begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// What the wall clock shows.
    pub wall: Timestamp,
    /// Time since some fixed point of this process.
    pub mono: Duration,
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_survives_its_own_text() {
        let moment = Timestamp::from_millis(1_795_510_799_123);
        assert_eq!(moment.to_string(), "2026-11-24T08:59:59.123Z");
        assert_eq!(Timestamp::parse(&moment.to_string()), Some(moment));
    }

    #[test]
    fn offsets_and_unix_seconds_are_read() {
        let noon = Timestamp::from_seconds(1_577_862_000);
        assert_eq!(Timestamp::parse("2020-01-01T00:00:00-07:00"), Some(noon));
        assert_eq!(Timestamp::parse("1577862000"), Some(noon));
        assert_eq!(Timestamp::parse("yesterday"), None);
        assert_eq!(Timestamp::parse("1950-01-01T00:00:00Z"), None);
    }

    #[test]
    fn moments_are_durations_or_times() {
        let now = Timestamp::from_seconds(10_000);
        let moment = |text| Moment::parse(text).map(|moment| moment.seen_from(now));
        assert_eq!(moment("2h"), Ok(Timestamp::from_seconds(2_800)));
        assert_eq!(moment("1970-01-01T01:00:00Z"), Ok(Timestamp::from_seconds(3_600)));
        assert_eq!(moment("3600"), Ok(Timestamp::from_seconds(3_600)));
        assert!(moment("yesterday").unwrap_err().contains("2026-11-24T09:00:00Z"));
        assert!(moment("-2h").is_err());
    }

    #[test]
    fn arithmetic_stops_at_both_ends_of_time() {
        assert_eq!(Timestamp::from_millis(5).minus(Duration::from_secs(1)), Timestamp::from_millis(0));
        assert_eq!(Timestamp::from_millis(u64::MAX).plus(Duration::MAX), Timestamp::from_millis(u64::MAX));
        assert!(Timestamp::from_millis(u64::MAX).to_string().contains("after the epoch"));
    }
}
