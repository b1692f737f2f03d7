//! Which requests in quarantine are meant, how many they are, and what is done with them.

use std::collections::{BTreeMap, BTreeSet};

use hookwell_common::time::Timestamp;
use serde::Serialize;

use super::record::{Damage, Request};
use super::released::Place;
use super::verdict::Obstacle;
use crate::rejection::Rejection;

/// What groups call a record that cannot be read.
const DAMAGED: &str = "damaged";

/// Which requests are meant: of each list that is not empty one must fit.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Sources.
    pub sources: Vec<String>,
    /// Why they failed verification.
    pub reasons: Vec<Rejection>,
    /// Received at this moment or after it.
    pub since: Option<Timestamp>,
    /// Received before this moment.
    pub until: Option<Timestamp>,
}

/// A record on the quarantine topic that is no release.
pub type Found = Result<Box<Request>, Damage>;

impl Filter {
    /// Whether it leaves nothing out.
    pub fn is_empty(&self) -> bool {
        let Self { sources, reasons, since, until } = self;
        sources.is_empty() && reasons.is_empty() && since.is_none() && until.is_none()
    }

    /// Whether `found` is meant. What cannot be read is meant where nothing is asked for.
    pub fn matches(&self, found: &Found) -> bool {
        let Ok(request) = found else { return self.is_empty() };
        (self.sources.is_empty() || self.sources.iter().any(|name| request.source == *name))
            && (self.reasons.is_empty() || self.reasons.contains(&request.reason))
            && self.since.is_none_or(|since| since <= request.received_at)
            && self.until.is_none_or(|until| request.received_at < until)
    }

    /// What it names that is neither configured nor found.
    pub fn stranger(&self, known: &BTreeSet<String>) -> Option<String> {
        let name = self.sources.iter().find(|name| !known.contains(*name))?;
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        let known = if known.is_empty() { "none is known".to_owned() } else { known.join(", ") };
        Some(format!("--source: {name:?} is unknown; known: {known}"))
    }
}

/// Requests with one source and one reason, as `--list-quarantine` shows them. The keys are a
/// published contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupLine {
    /// Empty where it cannot be read.
    pub source: String,
    /// Why they failed verification, or `damaged`.
    pub reason: &'static str,
    /// How many there are.
    pub count: u64,
    /// When the oldest was received, RFC 3339; `null` where it cannot be read.
    pub oldest: Option<String>,
    /// When the newest was received.
    pub newest: Option<String>,
}

/// Requests by source and reason.
#[derive(Clone, Debug, Default)]
pub struct Groups(BTreeMap<(String, &'static str), Span>);

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    count: u64,
    oldest: Option<Timestamp>,
    newest: Option<Timestamp>,
}

impl Groups {
    /// Counts `found`.
    pub fn add(&mut self, found: &Found) {
        let key = match found {
            Ok(request) => (request.source.to_string(), request.reason.label()),
            Err(_) => (String::new(), DAMAGED),
        };
        let at = found.as_ref().ok().map(|request| request.received_at);
        let span = self.0.entry(key).or_default();
        span.count += 1;
        span.oldest = span.oldest.min(at).or(at);
        span.newest = span.newest.max(at);
    }

    /// A line each, in the order of their names.
    pub fn lines(&self) -> impl Iterator<Item = GroupLine> {
        self.0.iter().map(|((source, reason), span)| GroupLine {
            source: source.clone(),
            reason,
            count: span.count,
            oldest: span.oldest.map(|moment| moment.to_string()),
            newest: span.newest.map(|moment| moment.to_string()),
        })
    }
}

/// One request, as `--records` shows it: nothing of its headers and its body. The keys are a
/// published contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordLine<'f> {
    /// Empty where it cannot be read.
    pub source: &'f str,
    /// Why it failed verification, or `damaged`.
    pub reason: &'static str,
    /// RFC 3339.
    pub received_at: Option<String>,
    /// Empty where it cannot be read.
    pub method: &'f str,
    /// The length of its body.
    pub body_bytes: Option<usize>,
    /// The address of the connection: the sender's, or that of a proxy.
    pub peer: Option<String>,
    /// Whether it was released.
    pub released: bool,
    /// Where it lies.
    pub partition: i32,
    /// Where it lies.
    pub offset: i64,
}

impl<'f> RecordLine<'f> {
    /// The line of what lies at `place`.
    pub fn of(found: &'f Found, place: Place, released: bool) -> Self {
        let request = found.as_ref().ok();
        Self {
            source: request.map_or("", |request| &request.source),
            reason: request.map_or(DAMAGED, |request| request.reason.label()),
            received_at: request.map(|request| request.received_at.to_string()),
            method: request.map_or("", |request| &request.method),
            body_bytes: request.map(|request| request.body.len()),
            peer: request.and_then(|request| request.peer).map(|peer| peer.to_string()),
            released,
            partition: place.partition,
            offset: place.offset,
        }
    }
}

/// What a release does with the requests that are meant.
#[derive(Clone, Debug, Default)]
pub struct Selection(BTreeMap<Option<&'static str>, Groups>);

impl Selection {
    /// Counts what is made of `found`.
    pub fn add(&mut self, found: &Found, obstacle: Option<Obstacle>) {
        self.0.entry(obstacle.map(Obstacle::label)).or_default().add(found);
    }

    /// What is released, and then what is not and why, in groups.
    pub fn lines(&self) -> impl Iterator<Item = (Option<&'static str>, GroupLine)> {
        self.0.iter().flat_map(|(obstacle, groups)| groups.lines().map(|line| (*obstacle, line)))
    }
}

/// How a release ended. The keys are a published contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Requests that were meant and looked at: `released`, `skipped` and `left` together.
    pub selected: u64,
    /// Genuine by now, and on the events topic.
    pub released: u64,
    /// Left where they are: they still do not verify, or are an event that was released before.
    pub skipped: u64,
    /// Genuine, and not passed on, because the run was a dry one or ended before.
    pub left: u64,
    /// Whether nothing was to be passed on.
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn request(source: &str, reason: Rejection, seconds: u64) -> Found {
        Ok(Box::new(Request {
            source: source.into(),
            reason,
            received_at: Timestamp::from_seconds(seconds),
            unique: "u".into(),
            method: "POST".into(),
            query: None,
            peer: Some("192.0.2.1".parse().unwrap()),
            headers: vec![("x-secret".to_owned(), b"hush".to_vec())],
            body: Bytes::from_static(b"hush"),
        }))
    }

    fn json(lines: impl Iterator<Item = impl Serialize>) -> Vec<String> {
        lines.map(|line| serde_json::to_string(&line).unwrap()).collect()
    }

    #[test]
    fn groups_count_and_span_time() {
        let mut groups = Groups::default();
        groups.add(&request("acme", Rejection::SignatureMismatch, 1_795_000_060));
        groups.add(&request("acme", Rejection::SignatureMismatch, 1_795_000_000));
        groups.add(&Err(Damage("x")));
        assert_eq!(
            json(groups.lines()),
            [
                r#"{"source":"","reason":"damaged","count":1,"oldest":null,"newest":null}"#,
                r#"{"source":"acme","reason":"signature_mismatch","count":2,"oldest":"2026-11-18T11:06:40.000Z","newest":"2026-11-18T11:07:40.000Z"}"#,
            ]
        );
    }

    #[test]
    fn a_request_is_shown_without_anything_that_was_sent_in_confidence() {
        let found = request("acme", Rejection::SignatureMissing, 1_795_000_000);
        let place = Place { partition: 3, offset: 17 };
        let line = json([RecordLine::of(&found, place, false)].into_iter());
        assert_eq!(
            line,
            [
                r#"{"source":"acme","reason":"signature_missing","received_at":"2026-11-18T11:06:40.000Z","method":"POST","body_bytes":4,"peer":"192.0.2.1","released":false,"partition":3,"offset":17}"#
            ]
        );
        let damaged = json([RecordLine::of(&Err(Damage("x")), place, false)].into_iter());
        assert!(damaged[0].contains(r#""reason":"damaged""#), "{damaged:?}");
    }

    #[test]
    fn filters_choose() {
        let found = request("acme", Rejection::SignatureMismatch, 100);
        let matches = |change: &dyn Fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter.matches(&found)
        };
        let at = |seconds| Some(Timestamp::from_seconds(seconds));
        assert!(matches(&|_| ()));
        assert!(matches(&|filter| filter.sources = vec!["x".into(), "acme".into()]));
        assert!(!matches(&|filter| filter.sources = vec!["x".into()]));
        assert!(!matches(&|filter| filter.reasons = vec![Rejection::SignatureMissing]));
        assert!(matches(&|filter| (filter.since, filter.until) = (at(100), at(101))));
        assert!(!matches(&|filter| filter.until = at(100)));
        assert!(Filter::default().matches(&Err(Damage("x"))));
        let some = Filter { since: at(1), ..Filter::default() };
        assert!(!some.matches(&Err(Damage("x"))));
    }

    #[test]
    fn a_name_that_nobody_knows_is_told_with_those_that_are_known() {
        let filter = Filter { sources: vec!["acem".into()], ..Filter::default() };
        let known = BTreeSet::from(["acme".to_owned()]);
        assert_eq!(filter.stranger(&known).unwrap(), "--source: \"acem\" is unknown; known: acme");
        assert_eq!(Filter::default().stranger(&known), None);
    }

    #[test]
    fn a_selection_tells_what_is_released_from_what_is_not() {
        let mut selection = Selection::default();
        let found = request("acme", Rejection::SignatureMismatch, 100);
        selection.add(&found, None);
        selection.add(&found, Some(Obstacle::Unprovable));
        selection.add(&found, Some(Obstacle::Unprovable));
        let lines: Vec<_> = selection.lines().map(|(obstacle, line)| (obstacle, line.count)).collect();
        assert_eq!(lines, [(None, 1), (Some("unprovable"), 2)]);
    }
}
