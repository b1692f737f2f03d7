//! Dead letters counted: the groups of a list, and the sums of a replay.

use std::collections::BTreeMap;

use hookwell_common::time::Timestamp;
use serde::Serialize;

use super::letter::DeadLetter;
use super::standing::{Action, SkipReason};
use crate::dead_letter::DeadLetterReason;

/// Dead letters of one source, destination and reason. The keys are a published contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupLine {
    /// Empty where it cannot be read.
    pub source: String,
    /// Empty where no route named one.
    pub destination: String,
    /// A word of the closed list.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
    /// When the oldest was written, RFC 3339.
    pub oldest: String,
    /// When the newest was written, RFC 3339.
    pub newest: String,
}

/// Dead letters by source, destination and reason.
#[derive(Clone, Debug, Default)]
pub struct Groups(BTreeMap<(String, String, DeadLetterReason), Span>);

#[derive(Clone, Copy, Debug)]
struct Span {
    count: u64,
    oldest: Timestamp,
    newest: Timestamp,
}

impl Groups {
    /// Counts `letter`.
    pub fn add(&mut self, letter: &DeadLetter) {
        let at = letter.dead_at;
        let key = (letter.source().to_owned(), letter.destination().to_owned(), letter.reason);
        let span = self.0.entry(key).or_insert(Span { count: 0, oldest: at, newest: at });
        span.count += 1;
        span.oldest = span.oldest.min(at);
        span.newest = span.newest.max(at);
    }

    /// A line each, in the order of their names.
    pub fn lines(&self) -> impl Iterator<Item = GroupLine> {
        self.0.iter().map(|((source, destination, reason), span)| GroupLine {
            source: source.clone(),
            destination: destination.clone(),
            reason: reason.label(),
            count: span.count,
            oldest: span.oldest.to_string(),
            newest: span.newest.to_string(),
        })
    }
}

/// One dead letter, as `--records` shows it. The keys are a published contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordLine<'l> {
    /// Empty where it cannot be read.
    pub event_id: &'l str,
    /// Empty where it cannot be read.
    pub event_type: &'l str,
    /// Empty where it cannot be read.
    pub source: &'l str,
    /// Empty where no route named one.
    pub destination: &'l str,
    /// A word of the closed list.
    pub reason: &'static str,
    /// What went wrong, in words.
    pub error: &'l str,
    /// Calls of the handler in this generation.
    pub attempts: u16,
    /// How often it was replayed before.
    pub generation: u16,
    /// RFC 3339; absent where no handler was called.
    pub first_failed_at: Option<String>,
    /// RFC 3339.
    pub dead_at: String,
    /// Where it lies.
    pub partition: i32,
    /// Where it lies.
    pub offset: i64,
}

impl<'l> RecordLine<'l> {
    /// The line of `letter`.
    pub fn of(letter: &'l DeadLetter) -> Self {
        Self {
            event_id: letter.event_id(),
            event_type: letter.event_type(),
            source: letter.source(),
            destination: letter.destination(),
            reason: letter.reason.label(),
            error: letter.error(),
            attempts: letter.attempts(),
            generation: letter.passage.generation,
            first_failed_at: letter.passage.first_failed_at.map(|moment| moment.to_string()),
            dead_at: letter.dead_at.to_string(),
            partition: letter.partition,
            offset: letter.offset,
        }
    }
}

/// What a replay does with the dead letters that it selects.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// To be delivered again, forced or not.
    pub replays: u64,
    /// Those of them that were delivered before.
    pub forced: u64,
    /// Left where they are, by reason.
    pub skipped: BTreeMap<SkipReason, u64>,
    groups: BTreeMap<Option<SkipReason>, Groups>,
}

impl Selection {
    /// Counts what is made of `letter`.
    pub fn add(&mut self, letter: &DeadLetter, action: Action) {
        let obstacle = match action {
            Action::Replay { forced, .. } => {
                self.replays += 1;
                self.forced += u64::from(forced);
                None
            }
            Action::Skip(reason) => {
                *self.skipped.entry(reason).or_default() += 1;
                Some(reason)
            }
        };
        self.groups.entry(obstacle).or_default().add(letter);
    }

    /// How many are skipped.
    pub fn skips(&self) -> u64 {
        self.skipped.values().sum()
    }

    /// How many are selected.
    pub fn selected(&self) -> u64 {
        self.replays + self.skips()
    }

    /// What is replayed, and then what is skipped and why, in groups.
    pub fn lines(&self) -> impl Iterator<Item = (Option<SkipReason>, GroupLine)> {
        self.groups.iter().flat_map(|(obstacle, groups)| groups.lines().map(|line| (*obstacle, line)))
    }
}

/// How a replay ended. The keys are a published contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Dead letters that were meant: `replayed`, `skipped`, `failed` and `left` together.
    pub selected: u64,
    /// Published again, acknowledged by Kafka.
    pub replayed: u64,
    /// Left where they are.
    pub skipped: u64,
    /// Not acknowledged: they are dead letters as before, or are replayed after all.
    pub failed: u64,
    /// Not come to, because the run was interrupted, or because it was a dry one.
    pub left: u64,
    /// Whether nothing was to be published.
    pub dry_run: bool,
}

impl Summary {
    /// Of what was `selected`, so much was acknowledged and so much was not.
    pub fn of(selected: &Selection, replayed: u64, failed: u64, dry_run: bool) -> Self {
        let skipped = selected.skips();
        let left = selected.replays.saturating_sub(replayed + failed);
        Self { selected: skipped + replayed + failed + left, replayed, skipped, failed, left, dry_run }
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::*;

    #[test]
    fn groups_count_and_span_time() {
        let mut groups = Groups::default();
        let mut older = letter("1", "orders", DeadLetterReason::Exhausted);
        older.dead_at = Timestamp::from_seconds(1_795_000_000);
        let mut newer = letter("2", "orders", DeadLetterReason::Exhausted);
        newer.dead_at = Timestamp::from_seconds(1_795_000_060);
        [&newer, &older, &letter("3", "", DeadLetterReason::Unroutable)]
            .iter()
            .for_each(|letter| groups.add(letter));
        let lines: Vec<_> = groups.lines().map(|line| serde_json::to_string(&line).unwrap()).collect();
        assert_eq!(
            lines,
            [
                r#"{"source":"acme","destination":"","reason":"unroutable","count":1,"oldest":"2026-11-18T11:06:40.000Z","newest":"2026-11-18T11:06:40.000Z"}"#,
                r#"{"source":"acme","destination":"orders","reason":"exhausted","count":2,"oldest":"2026-11-18T11:06:40.000Z","newest":"2026-11-18T11:07:40.000Z"}"#,
            ]
        );
    }

    #[test]
    fn a_record_is_shown_with_every_key_of_the_contract() {
        let line = serde_json::to_string(&RecordLine::of(&letter("1", "orders", DeadLetterReason::TooOld)));
        assert_eq!(
            line.unwrap(),
            r#"{"event_id":"1","event_type":"order.paid","source":"acme","destination":"orders","reason":"too_old","error":"it said no","attempts":3,"generation":0,"first_failed_at":null,"dead_at":"2026-11-18T11:06:40.000Z","partition":3,"offset":17}"#
        );
    }

    #[test]
    fn a_selection_tells_replays_from_what_is_skipped() {
        let mut selection = Selection::default();
        let exhausted = letter("1", "orders", DeadLetterReason::Exhausted);
        selection.add(&exhausted, Action::Replay { generation: 1, forced: false });
        selection.add(&exhausted, Action::Replay { generation: 2, forced: true });
        let gone = letter("2", "old", DeadLetterReason::Permanent);
        selection.add(&gone, Action::Skip(SkipReason::DestinationRemoved));
        assert_eq!(
            (selection.selected(), selection.replays, selection.forced, selection.skips()),
            (3, 2, 1, 1)
        );
        let lines: Vec<_> = selection.lines().map(|(obstacle, line)| (obstacle, line.count)).collect();
        assert_eq!(lines, [(None, 2), (Some(SkipReason::DestinationRemoved), 1)]);
    }
}
