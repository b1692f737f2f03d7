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
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hookwell_common::config::Config;
use hookwell_common::kafka::{ClientSettings, Stopping, verify};
use hookwell_common::lifecycle::{Clock, Failure, Signal, on_signals, spawn_thread};
use hookwell_common::record::Passage;
use hookwell_common::time::Timestamp;
use hookwell_common::topics::Topic;

use self::arguments::DeadLetterArguments;
use self::filter::{Filter, Known};
use self::letter::DeadLetter;
use self::list::{Records, print_groups, print_selection, print_summary};
use self::progress::{Progress, write_line};
use self::publisher::Publisher;
use self::standing::{Action, Standing, action};
use self::survey::Survey;
use self::tally::{Groups, Selection, Summary};
use crate::route::Plan;
use crate::run::block_on;
use crate::state::StateKey;

/// How long an answer is waited for before it is asked whether anybody wants to stop.
const ANSWER: Duration = Duration::from_millis(100);

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
            // Nothing is to be reloaded: the terminal is gone.
            Signal::Stop | Signal::Reload => stop.store(true, Ordering::Relaxed),
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
    let read = desk.read(|letter, standing| {
        if arguments.all || standing == Standing::Dead {
            count += 1;
            if arguments.records {
                records.add(letter, standing)?;
            } else {
                groups.add(letter);
            }
        }
        Ok(ControlFlow::Continue(()))
    });
    records.end()?;
    read?;
    if count == 0 {
        tell_none(&desk.filter, arguments);
        return Ok(());
    }
    if arguments.records { Ok(()) } else { print_groups(&groups, arguments.output) }
}

/// Publishes dead letters again, the next generation each.
pub(crate) fn replay(
    config: &Config,
    clients: &ClientSettings,
    arguments: &DeadLetterArguments,
    clock: Clock,
) -> Result<(), Failure> {
    let begun = clock.now().wall;
    let is_blind = arguments.force && arguments.filter(begun)?.is_empty();
    let must_ask = is_blind && !arguments.yes && !arguments.dry_run;
    if must_ask && !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure::Usage(
            "--force without a filter delivers everything again that ever died; give a filter, or --yes if that is meant".to_owned(),
        ));
    }
    let mut desk = Desk::open(config, clients, arguments, clock)?;
    let plan = Plan::new(desk.config);
    let mut planned = Selector::new(&plan, arguments, begun);
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
        confirm(&planned, &desk)?;
    }
    if arguments.dry_run || planned.replays == 0 {
        return print_summary(&Summary::of(&planned, 0, 0, arguments.dry_run), arguments.output);
    }
    publish(&desk, &plan, &planned, begun)
}

/// What a replay takes, in the order of the topic.
struct Selector<'p> {
    plan: &'p Plan,
    /// With `--force`: when the command began.
    force: Option<Timestamp>,
    limit: u64,
    selection: Selection,
    /// The deliveries of one partition that were taken: each is replayed once, however many dead
    /// letters tell of it.
    taken: HashSet<StateKey>,
    partition: i32,
}

impl<'p> Selector<'p> {
    fn new(plan: &'p Plan, arguments: &DeadLetterArguments, begun: Timestamp) -> Self {
        Self {
            plan,
            force: arguments.force.then_some(begun),
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
fn publish(desk: &Desk<'_>, plan: &Plan, planned: &Selection, begun: Timestamp) -> Result<(), Failure> {
    let arguments = desk.arguments;
    let publisher = Publisher::new(desk.clients, Topic::Events.name(&desk.config.kafka.topic_prefix))?;
    let pace = arguments.rate.map(pace);
    let mut progress = Progress::begin("replayed", planned.replays, desk.clock);
    let mut selector = Selector::new(plan, arguments, begun);
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
            publisher.publish(event, &passage, letter.partition, || desk.is_stopping());
            progress.at(publisher.acknowledged() + publisher.failed());
        }
        if selector.is_full() || publisher.cut_off().is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    publisher.finish();
    progress.end();
    let fault = read.err().or_else(|| publisher.cut_off().map(Failure::Kafka));
    let is_whole = fault.is_none() && !desk.is_stopping();
    // What was not come to is known from the count alone.
    let selection = if is_whole { &selector.selection } else { planned };
    let summary = Summary::of(selection, publisher.acknowledged(), publisher.failed(), false);
    let printed = print_summary(&summary, arguments.output);
    conclude(&summary, arguments, fault).and(printed)
}

fn conclude(
    summary: &Summary,
    arguments: &DeadLetterArguments,
    fault: Option<Failure>,
) -> Result<(), Failure> {
    let Summary { failed, left, .. } = summary;
    let again = match (arguments.force, arguments.limit) {
        (false, None) => "run the same command again to go on: what was replayed is not replayed twice",
        (true, _) => {
            "run the same command again only if what was replayed now may be delivered once more; without --force nothing is"
        }
        (false, Some(_)) => "what was replayed is not replayed twice, but counts no more towards --limit",
    };
    if let Some(fault) = fault {
        return Err(Failure::Kafka(format!("{fault}; {} are left; {again}", failed + left)));
    }
    match (left, failed) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::No(format!("{failed} were not taken by Kafka; {again}"))),
        _ => Err(Failure::No(format!("interrupted; {left} are left; {again}"))),
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

fn confirm(planned: &Selection, desk: &Desk<'_>) -> Result<(), Failure> {
    write_line(&format!(
        "This delivers {} events again, {} of which were delivered before. Type yes to go on:",
        planned.replays, planned.forced
    ));
    let (to_us, answers) = crossbeam_channel::bounded(1);
    // On a thread of its own, for a read does not hear of Ctrl-C.
    let asking = spawn_thread("answer", move || {
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).ok();
        to_us.send(answer).ok()
    });
    asking.map_err(|error| Failure::Usage(format!("cannot ask: {error}")))?;
    while !desk.is_stopping() {
        match answers.recv_timeout(ANSWER) {
            Ok(answer) if ["yes", "y"].contains(&answer.trim()) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Err(Failure::No("nothing was replayed".to_owned()))
}
