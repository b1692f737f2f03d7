//! The flags of `--list-dlq` and `--replay-dlq`: a published contract.

use std::num::NonZeroU32;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use hookwell_common::lifecycle::Failure;
use hookwell_common::rate::parse_rate;
use hookwell_common::time::{Moment, Timestamp};

use super::filter::Filter;
use crate::dead_letter::DeadLetterReason;

/// Which dead letters are meant, and what is done with them.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeadLetterArguments {
    /// Only those of this source; repeatable, as are the next four.
    #[arg(long, value_name = "NAME", requires = "dead_letters")]
    source: Vec<String>,

    /// Only those for this destination.
    #[arg(long, value_name = "NAME", requires = "dead_letters")]
    destination: Vec<String>,

    /// Only those of this event type; * stands for anything.
    #[arg(long = "type", value_name = "PATTERN", requires = "dead_letters")]
    types: Vec<String>,

    /// Only those with this reason.
    #[arg(long, value_name = "REASON", requires = "dead_letters", hide_possible_values = true, value_parser = reason())]
    reason: Vec<DeadLetterReason>,

    /// Only those of the event with this id.
    #[arg(long, value_name = "ID", requires = "dead_letters")]
    id: Vec<String>,

    /// Only those written since: a duration such as 2h, or a time in RFC 3339.
    #[arg(long, value_name = "TIME", requires = "dead_letters", allow_hyphen_values = true, value_parser = Moment::parse)]
    since: Option<Moment>,

    /// Only those written before: a duration such as 2h, or a time in RFC 3339.
    #[arg(long, value_name = "TIME", requires = "dead_letters", allow_hyphen_values = true, value_parser = Moment::parse)]
    until: Option<Moment>,

    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "table", requires = "dead_letters")]
    pub(crate) output: Output,

    /// List record by record.
    #[arg(long, requires = "dead_letters", conflicts_with = "replay_dlq")]
    pub(crate) records: bool,

    /// List also those that a replay has settled since.
    #[arg(long, requires = "dead_letters", conflicts_with = "replay_dlq")]
    pub(crate) all: bool,

    /// Say what a replay would do, and do nothing.
    #[arg(long, requires = "dead_letters", conflicts_with = "list_dlq")]
    pub(crate) dry_run: bool,

    /// The most to replay in a time, such as 50/s.
    #[arg(long, value_name = "N/s", requires = "dead_letters", conflicts_with = "list_dlq", allow_hyphen_values = true, value_parser = parse_rate)]
    pub(crate) rate: Option<NonZeroU32>,

    /// The most to replay.
    #[arg(long, value_name = "N", requires = "dead_letters", conflicts_with = "list_dlq", allow_hyphen_values = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,

    /// Replay also what was delivered since.
    #[arg(long, requires = "dead_letters", conflicts_with = "list_dlq")]
    pub(crate) force: bool,

    /// Don't ask.
    #[arg(long, requires = "force")]
    pub(crate) yes: bool,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs, one object a line.
    Json,
}

impl DeadLetterArguments {
    /// Which dead letters are meant, at the moment `now`.
    pub(crate) fn filter(&self, now: Timestamp) -> Result<Filter, Failure> {
        let seen = |moment: Option<Moment>| moment.map(|moment| moment.seen_from(now));
        let (since, until) = (seen(self.since), seen(self.until));
        if let (Some(since), Some(until)) = (since, until)
            && until <= since
        {
            return Err(Failure::Usage(format!(
                "--since {since} does not lie before --until {until}, so no dead letter can be meant"
            )));
        }
        Ok(Filter {
            sources: self.source.clone(),
            destinations: self.destination.clone(),
            types: self.types.clone(),
            reasons: self.reason.clone(),
            ids: self.id.clone(),
            since,
            until,
        })
    }
}

fn reason() -> impl TypedValueParser<Value = DeadLetterReason> {
    PossibleValuesParser::new(DeadLetterReason::ALL.map(DeadLetterReason::label))
        .map(|label| DeadLetterReason::from_label(&label).unwrap_or(DeadLetterReason::Undecodable))
}
