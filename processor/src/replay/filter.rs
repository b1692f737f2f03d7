//! Which dead letters are meant.

use std::collections::BTreeSet;
use std::fmt;

use hookwell_common::time::Timestamp;
use wildmatch::WildMatch;

use super::letter::DeadLetter;
use crate::dead_letter::DeadLetterReason;

/// Which dead letters are meant: of each list that is not empty one must fit.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Sources.
    pub sources: Vec<String>,
    /// Destinations.
    pub destinations: Vec<String>,
    /// Patterns of event types, as in routes.
    pub types: Vec<String>,
    /// Reasons.
    pub reasons: Vec<DeadLetterReason>,
    /// Event ids.
    pub ids: Vec<String>,
    /// Written at this moment or after it.
    pub since: Option<Timestamp>,
    /// Written before this moment.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether it leaves nothing out.
    pub fn is_empty(&self) -> bool {
        let Self { sources, destinations, types, reasons, ids, since, until } = self;
        sources.is_empty()
            && destinations.is_empty()
            && types.is_empty()
            && reasons.is_empty()
            && ids.is_empty()
            && since.is_none()
            && until.is_none()
    }

    /// Whether `letter` is meant.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        is_one_of(&self.sources, letter.source())
            && is_one_of(&self.destinations, letter.destination())
            && is_one_of(&self.ids, letter.event_id())
            && (self.reasons.is_empty() || self.reasons.contains(&letter.reason))
            && (self.types.is_empty()
                || self.types.iter().any(|pattern| WildMatch::new(pattern).matches(letter.event_type())))
            && self.since.is_none_or(|since| since <= letter.dead_at)
            && self.until.is_none_or(|until| letter.dead_at < until)
    }
}

fn is_one_of(wanted: &[String], found: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|name| name == found)
}

/// Names that a filter may give: those of the configuration, and those that dead letters carry,
/// for a dead letter outlives the configuration that it died under.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Sources.
    pub sources: BTreeSet<String>,
    /// Destinations.
    pub destinations: BTreeSet<String>,
}

impl Known {
    /// Notes the names that `letter` carries.
    pub fn learn(&mut self, letter: &DeadLetter) {
        for (names, name) in
            [(&mut self.sources, letter.source()), (&mut self.destinations, letter.destination())]
        {
            if !name.is_empty() && !names.contains(name) {
                names.insert(name.to_owned());
            }
        }
    }

    /// What `filter` names and nobody knows.
    pub fn strangers(&self, filter: &Filter) -> Option<UnknownNames> {
        let unknown = |wanted: &[String], known: &BTreeSet<String>, what| {
            wanted
                .iter()
                .filter(|name| !known.contains(*name))
                .map(|name| UnknownName {
                    what,
                    name: name.clone(),
                    known: known.iter().cloned().collect::<Vec<_>>().join(", "),
                })
                .collect::<Vec<_>>()
        };
        let mut all = unknown(&filter.sources, &self.sources, "source");
        all.extend(unknown(&filter.destinations, &self.destinations, "destination"));
        (!all.is_empty()).then_some(UnknownNames(all))
    }
}

/// Names of a filter that nobody knows, each with those that are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownNames(Vec<UnknownName>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct UnknownName {
    what: &'static str,
    name: String,
    known: String,
}

impl fmt::Display for UnknownNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, UnknownName { what, name, known }) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "\n" };
            let known = if known.is_empty() { "none is known" } else { known };
            write!(f, "{separator}--{what}: {name:?} is unknown; known: {known}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::letter::tests::letter;
    use super::*;

    fn filter(change: impl FnOnce(&mut Filter)) -> Filter {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    }

    fn at(seconds: u64) -> Option<Timestamp> {
        Some(Timestamp::from_seconds(seconds))
    }

    #[rstest]
    #[case::nothing_is_asked(Filter::default(), true)]
    #[case::one_of_two_sources(filter(|filter| filter.sources = vec!["x".into(), "acme".into()]), true)]
    #[case::another_source(filter(|filter| filter.sources = vec!["x".into()]), false)]
    #[case::its_destination(filter(|filter| filter.destinations = vec!["orders".into()]), true)]
    #[case::another_destination(filter(|filter| filter.destinations = vec!["order".into()]), false)]
    #[case::a_pattern_of_types(filter(|filter| filter.types = vec!["order.*".into()]), true)]
    #[case::another_type(filter(|filter| filter.types = vec!["order".into()]), false)]
    #[case::its_reason(filter(|filter| filter.reasons = vec![DeadLetterReason::Exhausted]), true)]
    #[case::another_reason(filter(|filter| filter.reasons = vec![DeadLetterReason::TooOld]), false)]
    #[case::its_id(filter(|filter| filter.ids = vec!["1".into()]), true)]
    #[case::another_id(filter(|filter| filter.ids = vec!["2".into()]), false)]
    #[case::written_at_the_first_moment(filter(|filter| filter.since = at(1_795_000_000)), true)]
    #[case::written_before_it(filter(|filter| filter.since = at(1_795_000_001)), false)]
    #[case::written_before_the_last(filter(|filter| filter.until = at(1_795_000_001)), true)]
    #[case::written_at_the_last(filter(|filter| filter.until = at(1_795_000_000)), false)]
    #[case::all_must_fit(
        filter(|filter| { filter.ids = vec!["1".into()]; filter.sources = vec!["x".into()]; }),
        false
    )]
    fn a_letter_is_meant(#[case] filter: Filter, #[case] expected: bool) {
        assert_eq!(filter.matches(&letter("1", "orders", DeadLetterReason::Exhausted)), expected);
    }

    #[test]
    fn a_name_that_nobody_knows_is_told_with_those_that_are_known() {
        let mut known = Known::default();
        known.destinations.insert("orders".into());
        known.learn(&letter("1", "old", DeadLetterReason::DestinationRemoved));
        let asked = filter(|filter| filter.destinations = vec!["old".into(), "odrers".into()]);
        let strangers = known.strangers(&asked).unwrap().to_string();
        assert_eq!(strangers, "--destination: \"odrers\" is unknown; known: old, orders");
        assert_eq!(known.strangers(&filter(|filter| filter.sources = vec!["acme".into()])), None);
    }
}
