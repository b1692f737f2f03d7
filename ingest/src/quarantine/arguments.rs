//! The flags of `--list-quarantine` and `--release-quarantine`: a published contract.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use hookwell_common::lifecycle::Failure;
use hookwell_common::time::{Moment, Timestamp};

use super::tally::Filter;
use crate::rejection::Rejection;

/// Which requests in quarantine are meant, and what is done with them.
#[derive(Args, Clone, Debug)]
pub struct QuarantineArguments {
    /// Only requests to this source; repeatable, as is the next.
    #[arg(long, value_name = "NAME", requires = "quarantine")]
    source: Vec<String>,

    /// Only those that failed verification for this reason.
    #[arg(long, value_name = "REASON", requires = "quarantine", hide_possible_values = true, value_parser = reason())]
    reason: Vec<Rejection>,

    /// Only those received since: a duration such as 2h, or a time in RFC 3339.
    #[arg(long, value_name = "TIME", requires = "quarantine", allow_hyphen_values = true, value_parser = Moment::parse)]
    since: Option<Moment>,

    /// Only those received before: a duration such as 2h, or a time in RFC 3339.
    #[arg(long, value_name = "TIME", requires = "quarantine", allow_hyphen_values = true, value_parser = Moment::parse)]
    until: Option<Moment>,

    /// List request by request.
    #[arg(long, requires = "quarantine", conflicts_with = "release_quarantine")]
    pub records: bool,

    /// List also those that were released.
    #[arg(long, requires = "quarantine", conflicts_with = "release_quarantine")]
    pub all: bool,

    /// Say what a release would do, and do nothing.
    #[arg(long, requires = "quarantine", conflicts_with = "list_quarantine")]
    pub dry_run: bool,

    /// The most to release.
    #[arg(long, value_name = "N", requires = "quarantine", conflicts_with = "list_quarantine", allow_hyphen_values = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

impl QuarantineArguments {
    /// Which requests are meant, at the moment `now`.
    pub fn filter(&self, now: Timestamp) -> Result<Filter, Failure> {
        let seen = |moment: Option<Moment>| moment.map(|moment| moment.seen_from(now));
        let (since, until) = (seen(self.since), seen(self.until));
        if let (Some(since), Some(until)) = (since, until)
            && until <= since
        {
            return Err(Failure::Usage(format!(
                "--since {since} does not lie before --until {until}, so no request can be meant"
            )));
        }
        Ok(Filter { sources: self.source.clone(), reasons: self.reason.clone(), since, until })
    }
}

fn reason() -> impl TypedValueParser<Value = Rejection> {
    let kept = Rejection::ALL.into_iter().filter(|rejection| rejection.is_of_verification());
    PossibleValuesParser::new(kept.map(Rejection::label).collect::<Vec<_>>())
        .map(|label| Rejection::from_label(&label).unwrap_or(Rejection::SignatureMismatch))
}
