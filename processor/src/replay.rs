//! `--list-dlq` and `--replay-dlq`: what lies in the dead letter topic, and how it is delivered again.
//!
//! A replay is a record on the events topic like any other: it names its destination and the next
//! generation, and the acceptance rule lets it in once. So nothing here needs a lock, a transaction
//! or a running processor, and a replay may be run twice, by two people, or be killed and run again.

pub(crate) mod arguments;
pub mod filter;
pub mod letter;
mod list;
mod progress;
mod publisher;
pub mod standing;
mod survey;
pub mod tally;

use std::collections::HashSet;
use std::io::{self, BufRead as _, IsTerminal};
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hookwell_common::config::Config;
use hookwell_common::kafka::{ClientSettings, verify};
use hookwell_common::lifecycle::{Clock, Failure, Signal, on_signals};
use hookwell_common::record::Passage;
use hookwell_common::topics::Topic;

use self::arguments::DeadLetterArguments;
use self::filter::{Filter, Known};
use self::letter::DeadLetter;
use self::list::{Records, print_groups, print_selection, print_summary};
use self::progress::{Progress, write_line};
use self::publisher::Publisher;
use self::standing::{Action, Standing, action};
use self::survey::{Stopping, Survey};
use self::tally::{Groups, Selection, Summary};
use crate::route::Plan;
use crate::run::block_on;
use crate::state::StateKey;

/// What both commands begin with.
struct Desk<'a> {
    config: &'a Config,
    clients: &'a ClientSettings,
    arguments: &'a DeadLetterArguments,
    clock: Clock,
    stopping: Stopping,
    filter: Filter,
    survey: Survey,
    known: Known,
}

impl<'a> Desk<'a> {
    fn open(
        config: &'a Config,
        clients: &'a ClientSettings,
        arguments: &'a DeadLetterArguments,
        clock: Clock,
    ) -> Result<Self, Failure> {
        let filter = arguments.filter(clock.now().wall)?;
        let stopping = Stopping::default();
        let stop = Arc::clone(&stopping);
        on_signals(move |signal| match signal {
            Signal::Stop => stop.store(true, Ordering::Relaxed),
            Signal::Reload => {}
        })
        .map_err(|error| Failure::Usage(format!("cannot start: {error}")))?;
        block_on(verify(clients, &config.topic_plan().specs(), config.processor.dedupe_window))??;
        let kafka = &config.kafka;
        let group = &config.processor.group_id;
        let survey = Survey::begin(clients, group, &kafka.topic_prefix, kafka.partitions, clock, &stopping)?;
        let known = Known {
            sources: config.sources.iter().map(|source| source.name.to_string()).collect(),
            destinations: config
                .destinations
                .iter()
                .map(|destination| destination.name.to_string())
                .collect(),
        };
        Ok(Self { config, clients, arguments, clock, stopping, filter, survey, known })
    }

    /// Hands each dead letter that is meant to `visit`, with where its delivery stands.
    fn read(
        &mut self,
        mut visit: impl FnMut(&DeadLetter, Standing) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        let mut progress = Progress::begin("read", self.survey.length(), self.clock);
        let (filter, known) = (&self.filter, &mut self.known);
        let mut failure = None;
        let mut is_whole = true;
        self.survey.read(|letter, standing, position| {
            progress.at(position);
            known.learn(&letter);
            if !filter.matches(&letter) {
                return ControlFlow::Continue(());
            }
            let flow = visit(&letter, standing).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            });
            is_whole &= flow.is_continue();
            flow
        })?;
        progress.end();
        if let Some(failure) = failure {
            return Err(failure);
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Failure::No(
                "interrupted while dead letters were read; nothing was changed".to_owned(),
            ));
        }
        // What was not read to its end may know the name further on.
        match known.strangers(filter).filter(|_| is_whole) {
            Some(strangers) => Err(Failure::Usage(strangers.to_string())),
            None => Ok(()),
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// Lists what lies in the dead letter topic.
pub(crate) fn list(
    config: &Config,
    clients: &ClientSettings,
    arguments: &DeadLetterArguments,
    clock: Clock,
) -> Result<(), Failure> {
    let mut desk = Desk::open(config, clients, arguments, clock)?;
    let mut groups = Groups::default();
    let mut records = Records::new(arguments.output, arguments.all);
    let mut count = 0_u64;
    desk.read(|letter, standing| {
        if arguments.all || standing == Standing::Dead {
            count += 1;
            if arguments.records {
                records.add(letter, standing)?;
            } else {
                groups.add(letter);
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if count == 0 {
        tell_none(&desk.filter, arguments);
        return Ok(());
    }
    if arguments.records { records.end() } else { print_groups(&groups, arguments.output) }
}

/// Publishes dead letters again, the next generation each.
pub(crate) fn replay(
    config: &Config,
    clients: &ClientSettings,
    arguments: &DeadLetterArguments,
    clock: Clock,
) -> Result<(), Failure> {
    let now = clock.now().wall;
    let must_ask = arguments.force && !arguments.yes && !arguments.dry_run;
    let must_ask = must_ask && arguments.filter(now)?.is_empty();
    if must_ask && !io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "--force without a filter delivers everything again that ever died; give a filter, or --yes if that is meant".to_owned(),
        ));
    }
    let mut desk = Desk::open(config, clients, arguments, clock)?;
    let plan = Plan::new(desk.config);
    let mut planned = Selector::new(&plan, arguments);
    desk.read(|letter, standing| {
        planned.take(letter, standing);
        Ok(if planned.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let planned = planned.selection;
    if planned.selected() == 0 {
        tell_none(&desk.filter, arguments);
    } else {
        print_selection(&planned, arguments.output)?;
    }
    if must_ask && 0 < planned.replays {
        confirm(&planned)?;
    }
    if arguments.dry_run || planned.replays == 0 {
        return print_summary(&Summary::of(&planned, 0, 0, arguments.dry_run), arguments.output);
    }
    publish(&desk, &plan, &planned)
}

/// What a replay takes, in the order of the topic.
struct Selector<'p> {
    plan: &'p Plan,
    force: bool,
    limit: u64,
    selection: Selection,
    /// The deliveries of one partition that were taken: each is replayed once, however many dead
    /// letters tell of it.
    taken: HashSet<StateKey>,
    partition: i32,
}

impl<'p> Selector<'p> {
    fn new(plan: &'p Plan, arguments: &DeadLetterArguments) -> Self {
        Self {
            plan,
            force: arguments.force,
            limit: arguments.limit.unwrap_or(u64::MAX),
            selection: Selection::default(),
            taken: HashSet::new(),
            partition: 0,
        }
    }

    fn take(&mut self, letter: &DeadLetter, standing: Standing) -> Option<Action> {
        if letter.partition != self.partition {
            self.partition = letter.partition;
            self.taken.clear();
        }
        let action = action(letter, standing, self.plan, self.force)?;
        if letter.key().is_some_and(|key| !self.taken.insert(key)) {
            return None;
        }
        self.selection.add(letter, action);
        Some(action)
    }

    fn is_full(&self) -> bool {
        self.limit <= self.selection.replays
    }
}

/// Publishes what is selected now: what somebody else has replayed since it was planned is not.
fn publish(desk: &Desk<'_>, plan: &Plan, planned: &Selection) -> Result<(), Failure> {
    let arguments = desk.arguments;
    let publisher = Publisher::new(desk.clients, Topic::Events.name(&desk.config.kafka.topic_prefix))?;
    let pace = arguments.rate.map(pace);
    let mut progress = Progress::begin("replayed", planned.replays, desk.clock);
    let mut selector = Selector::new(plan, arguments);
    let read = desk.survey.read(|letter, standing, _| {
        if desk.filter.matches(&letter)
            && let Some(Action::Replay { generation, forced }) = selector.take(&letter, standing)
            && let Some(event) = &letter.event
        {
            wait_for_turn(pace.as_ref(), &publisher, desk);
            if desk.is_stopping() {
                return ControlFlow::Break(());
            }
            let passage = Passage {
                generation,
                attempt: 0,
                forced,
                not_before: None,
                first_failed_at: None,
                ..letter.passage
            };
            publisher.publish(event, &passage, letter.partition);
            progress.at(publisher.acknowledged() + publisher.failed());
        }
        if selector.is_full() || publisher.is_cut_off() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    publisher.finish();
    progress.end();
    let is_whole = read.is_ok() && !desk.is_stopping() && !publisher.is_cut_off();
    let selection = if is_whole { &selector.selection } else { planned };
    let summary = Summary::of(selection, publisher.acknowledged(), publisher.failed(), false);
    print_summary(&summary, arguments.output)?;
    let cut_off = publisher.is_cut_off().then(|| Failure::Kafka("Kafka went away".to_owned()));
    conclude(&summary, desk.is_stopping(), read.err().or(cut_off))
}

fn conclude(
    summary: &Summary,
    was_interrupted: bool,
    fault_of_kafka: Option<Failure>,
) -> Result<(), Failure> {
    let Summary { failed, left, .. } = summary;
    let again = "run the same command again to go on: what was replayed is not replayed twice";
    if let Some(fault) = fault_of_kafka {
        return Err(Failure::Kafka(format!("{fault}; {} are left; {again}", failed + left)));
    }
    if was_interrupted && 0 < *left {
        return Err(Failure::No(format!("interrupted; {left} are left; {again}")));
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::No(format!("{failed} were not taken by Kafka; {again}"))),
    }
}

fn pace(rate: NonZeroU32) -> DefaultDirectRateLimiter {
    RateLimiter::direct(Quota::per_second(rate).allow_burst(NonZeroU32::MIN))
}

/// Waits as `--rate` wants it, and meanwhile hears what Kafka acknowledges.
fn wait_for_turn(pace: Option<&DefaultDirectRateLimiter>, publisher: &Publisher, desk: &Desk<'_>) {
    let Some(pace) = pace else { return };
    while let Err(early) = pace.check() {
        if desk.is_stopping() {
            return;
        }
        publisher.listen(early.wait_time_from(DefaultClock::default().now()));
    }
}

/// Tells that nothing is meant, and why that may be.
fn tell_none(filter: &Filter, arguments: &DeadLetterArguments) {
    let kind =
        if arguments.all || arguments.force { "dead letter" } else { "dead letter that is still open" };
    let words = if filter.is_empty() {
        format!("there is no {kind}")
    } else {
        format!("no {kind} fits these filters")
    };
    write_line(&words);
}

fn confirm(planned: &Selection) -> Result<(), Failure> {
    write_line(&format!(
        "This delivers {} events again, {} of which were delivered before. Type yes to go on:",
        planned.replays, planned.forced
    ));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).ok();
    match answer.trim() {
        "yes" | "y" => Ok(()),
        _ => Err(Failure::No("nothing was replayed".to_owned())),
    }
}
