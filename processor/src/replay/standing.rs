//! Where the delivery of a dead letter stands by now, and what a replay makes of it.

use std::time::Duration;

use hookwell_common::time::Timestamp;

use super::letter::DeadLetter;
use crate::route::Plan;
use crate::state::{DeliveryState, Status};

/// Where the delivery of a dead letter stands by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing has happened since.
    Dead,
    /// A replay of it is under way.
    Replaying,
    /// A replay died as well, and a newer dead letter tells of it.
    DiedAgain,
    /// It was delivered after all.
    Done {
        /// The generation that was.
        generation: u16,
        /// When, by the clock of whoever delivered it.
        at: Timestamp,
    },
}

/// What a replay makes of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is delivered again.
    Replay {
        /// The generation that it becomes.
        generation: u16,
        /// Whether it was delivered before.
        forced: bool,
    },
    /// It is left where it is.
    Skip(SkipReason),
}

/// Why a dead letter cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// It cannot be read as an event.
    Undecodable,
    /// Its destination is not configured.
    DestinationRemoved,
    /// No route names a destination for it.
    Unroutable,
    /// It was replayed as often as can be counted.
    LastGeneration,
}

impl SkipReason {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            SkipReason::Undecodable => "it cannot be read as an event",
            SkipReason::DestinationRemoved => "its destination is not configured",
            SkipReason::Unroutable => "no route names a destination for it",
            SkipReason::LastGeneration => "it was replayed too often to count",
        }
    }
}

impl Standing {
    /// Where the delivery of `letter` stands, whose state is `state`.
    pub fn of(letter: &DeadLetter, state: Option<&DeliveryState>) -> Self {
        // Without a state nothing is known but the letter itself.
        let Some(state) = state else { return Standing::Dead };
        let generation = letter.passage.generation;
        match state.status {
            // State and letter are one transaction's, but their partitions may be seen at moments
            // that lie a little apart: what is older than the letter says nothing about it.
            _ if state.generation < generation => Standing::Dead,
            Status::Dead | Status::Retrying { .. } if state.generation == generation => Standing::Dead,
            Status::Dead => Standing::DiedAgain,
            Status::Retrying { .. } => Standing::Replaying,
            Status::Done => Standing::Done { generation: state.generation, at: state.updated },
        }
    }
}

/// States keep whole seconds, rounded up.
const ROUNDING: Duration = Duration::from_secs(1);

/// What a replay makes of `letter`; `None` where it has nothing to do with it. With `force` what was
/// delivered before that moment is delivered again: not what this very run, or another beside it,
/// came to.
pub fn action(
    letter: &DeadLetter,
    standing: Standing,
    plan: &Plan,
    force: Option<Timestamp>,
) -> Option<Action> {
    let (before, forced) = match standing {
        Standing::Dead => (letter.passage.generation, false),
        Standing::Done { generation, at } if force.is_some_and(|begun| at <= begun.plus(ROUNDING)) => {
            (generation, true)
        }
        Standing::Done { .. } | Standing::Replaying | Standing::DiedAgain => return None,
    };
    Some(match obstacle(letter, plan) {
        Some(reason) => Action::Skip(reason),
        None => match before.checked_add(1) {
            Some(generation) => Action::Replay { generation, forced },
            None => Action::Skip(SkipReason::LastGeneration),
        },
    })
}

fn obstacle(letter: &DeadLetter, plan: &Plan) -> Option<SkipReason> {
    let Some(event) = &letter.event else { return Some(SkipReason::Undecodable) };
    match letter.destination() {
        "" => plan.destinations_of(&event.source, &event.kind).is_empty().then_some(SkipReason::Unroutable),
        name => plan.destination(name).is_none().then_some(SkipReason::DestinationRemoved),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::letter::tests::letter;
    use super::*;
    use crate::dead_letter::DeadLetterReason;
    use crate::route::tests::plan;

    fn state(status: Status, generation: u16) -> Option<DeliveryState> {
        let moment = Timestamp::from_millis(1000);
        Some(DeliveryState { status, generation, first_seen: moment, updated: moment, burial: None })
    }

    const fn done(generation: u16) -> Standing {
        Standing::Done { generation, at: Timestamp::from_millis(1000) }
    }

    const RETRYING: Status = Status::Retrying { next_attempt: 1 };

    #[rstest]
    #[case::its_state_is_gone(None, Standing::Dead)]
    #[case::nothing_has_happened(state(Status::Dead, 2), Standing::Dead)]
    #[case::the_state_is_seen_a_moment_earlier(state(RETRYING, 2), Standing::Dead)]
    #[case::the_state_is_seen_before_its_replay(state(Status::Dead, 1), Standing::Dead)]
    #[case::its_replay_is_under_way(state(RETRYING, 3), Standing::Replaying)]
    #[case::its_replay_died(state(Status::Dead, 3), Standing::DiedAgain)]
    #[case::its_replay_succeeded(state(Status::Done, 3), done(3))]
    #[case::it_was_sent_again_and_delivered(state(Status::Done, 2), done(2))]
    fn a_dead_letter_stands(#[case] state: Option<DeliveryState>, #[case] expected: Standing) {
        let mut letter = letter("1", "orders", DeadLetterReason::Exhausted);
        letter.passage.generation = 2;
        assert_eq!(Standing::of(&letter, state.as_ref()), expected);
    }

    const CONFIG: &str = r#"
[[sources]]
name = "acme"
[[destinations]]
name = "orders"
kind = "log"
[[routes]]
source = "acme"
types = ["order.*"]
to = ["orders"]
"#;

    const AGAIN: Option<Action> = Some(Action::Replay { generation: 1, forced: false });

    #[rstest]
    #[case::it_is_dead("orders", DeadLetterReason::Exhausted, Standing::Dead, false, AGAIN)]
    #[case::it_is_dead_and_force_changes_nothing(
        "orders",
        DeadLetterReason::Exhausted,
        Standing::Dead,
        true,
        AGAIN
    )]
    #[case::it_is_done("orders", DeadLetterReason::Exhausted, done(4), false, None)]
    #[case::it_is_done_and_forced(
        "orders", DeadLetterReason::Exhausted, done(4), true, Some(Action::Replay { generation: 5, forced: true })
    )]
    #[case::it_is_under_way("orders", DeadLetterReason::Exhausted, Standing::Replaying, true, None)]
    #[case::a_newer_letter_stands_for_it(
        "orders",
        DeadLetterReason::Exhausted,
        Standing::DiedAgain,
        true,
        None
    )]
    #[case::its_destination_is_gone(
        "old",
        DeadLetterReason::Permanent,
        Standing::Dead,
        false,
        Some(Action::Skip(SkipReason::DestinationRemoved))
    )]
    #[case::its_destination_has_come_back(
        "orders",
        DeadLetterReason::DestinationRemoved,
        Standing::Dead,
        false,
        AGAIN
    )]
    #[case::a_route_was_added("", DeadLetterReason::Unroutable, Standing::Dead, false, AGAIN)]
    #[case::it_cannot_be_read(
        "",
        DeadLetterReason::Undecodable,
        Standing::Dead,
        false,
        Some(Action::Skip(SkipReason::Undecodable))
    )]
    #[case::generations_are_used_up(
        "orders",
        DeadLetterReason::Exhausted,
        done(u16::MAX),
        true,
        Some(Action::Skip(SkipReason::LastGeneration))
    )]
    fn a_replay_makes_of_it(
        #[case] destination: &str,
        #[case] reason: DeadLetterReason,
        #[case] standing: Standing,
        #[case] force: bool,
        #[case] expected: Option<Action>,
    ) {
        let force = force.then_some(Timestamp::from_seconds(60));
        assert_eq!(action(&letter("1", destination, reason), standing, &plan(CONFIG), force), expected);
    }

    #[test]
    fn what_still_goes_nowhere_is_left_where_it_is() {
        let letter = letter("1", "", DeadLetterReason::Unroutable);
        let plan = plan(&CONFIG.replace("order.*", "refund.*"));
        let expected = Some(Action::Skip(SkipReason::Unroutable));
        assert_eq!(action(&letter, Standing::Dead, &plan, None), expected);
    }

    #[test]
    fn force_leaves_alone_what_was_delivered_after_the_command_began() {
        let letter = letter("1", "orders", DeadLetterReason::Exhausted);
        let begun = Timestamp::from_seconds(100);
        let delivered = |seconds| Standing::Done { generation: 1, at: Timestamp::from_seconds(seconds) };
        let again = Some(Action::Replay { generation: 2, forced: true });
        assert_eq!(action(&letter, delivered(100), &plan(CONFIG), Some(begun)), again);
        assert_eq!(action(&letter, delivered(102), &plan(CONFIG), Some(begun)), None);
    }
}
