//! Quarantine: requests that failed verification are kept, and verified again once a secret is mended.
//!
//! What is kept is no event. It becomes one by the way that every request takes, judged at the moment
//! at which it was received, and it is passed on in one transaction with a record that says so: a
//! release may be run twice, by two people at once, or be killed and run again.

pub mod arguments;
pub mod keeper;
mod list;
pub mod record;
pub mod released;
mod releaser;
mod survey;
pub mod tally;
pub mod verdict;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hookwell_common::kafka::{Stopping, verify};
use hookwell_common::lifecycle::{Clock, Failure, Signal, on_signals};
use hookwell_common::topics::{Topic, TopicSpec};
use prometheus::Registry;
use tokio::runtime::{Builder, Runtime};

use self::arguments::QuarantineArguments;
use self::list::{Records, print_groups, print_selection, print_summary};
use self::released::{Place, Released};
use self::releaser::{Passing, ReleaseError, Releaser};
use self::survey::Survey;
use self::tally::{Filter, Found, Groups, RecordLine, Selection, Summary};
use self::verdict::{Bounds, Obstacle, judge};
use crate::accept::Accepted;
use crate::cli::{Loaded, Output};
use crate::keyring::Keyring;
use crate::metrics::KeyMeters;

/// The most that one transaction passes on: it is open for milliseconds, and readers of the events
/// topic wait for it.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The longest that a wish to stop waits for the rate.
const PAUSE: Duration = Duration::from_millis(100);

/// What both commands begin with.
struct Desk<'a> {
    loaded: &'a Loaded,
    filter: Filter,
    clock: Clock,
    stopping: Stopping,
    /// On which keys are fetched.
    runtime: Runtime,
}

impl<'a> Desk<'a> {
    fn open(loaded: &'a Loaded, arguments: &QuarantineArguments) -> Result<Self, Failure> {
        let clock = Clock::start();
        let filter = arguments.filter(clock.now().wall)?;
        let stopping = Stopping::default();
        let stop = Arc::clone(&stopping);
        let cannot_start = |error| Failure::Usage(format!("cannot start: {error}"));
        on_signals(move |signal| match signal {
            // Nothing is to be reloaded: the terminal is gone.
            Signal::Stop | Signal::Reload => stop.store(true, Ordering::Relaxed),
        })
        .map_err(cannot_start)?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
        let specs = specs(loaded);
        let window = loaded.config.processor.dedupe_window;
        runtime.block_on(verify(&loaded.clients, &specs, window))?;
        Ok(Self { loaded, filter, clock, stopping, runtime })
    }

    fn survey(&self) -> Result<Survey, Failure> {
        let Loaded { config, clients, .. } = self.loaded;
        let topic = Topic::Quarantine.name(&config.kafka.topic_prefix);
        let group_id = &config.processor.group_id;
        Survey::begin(clients, group_id, &topic, config.kafka.partitions, self.clock, &self.stopping)
    }

    /// Hands each request that is meant to `visit`.
    fn read(
        &self,
        survey: &Survey,
        mut visit: impl FnMut(Place, &Found) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        let mut known: BTreeSet<_> = self.loaded.sources.keys().cloned().collect();
        let mut is_whole = true;
        survey.requests(|place, found| {
            if let Ok(request) = &found
                && !known.contains(&*request.source)
            {
                known.insert(request.source.to_string());
            }
            if let Err(damage) = &found {
                let Place { partition, offset } = place;
                tracing::warn!(partition, offset, "a record in quarantine cannot be read: {damage}");
            }
            if !self.filter.matches(&found) {
                return Ok(ControlFlow::Continue(()));
            }
            let flow = visit(place, &found)?;
            is_whole &= flow.is_continue();
            Ok(flow)
        })?;
        // What was not read to its end may know the name further on.
        match self.filter.stranger(&known).filter(|_| is_whole) {
            Some(stranger) => Err(Failure::Usage(stranger)),
            None => Ok(()),
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn tell_none(&self) {
        let words = if self.filter.is_empty() {
            "there is no request in quarantine"
        } else {
            "no request in quarantine fits these filters"
        };
        write_line(words);
    }
}

/// Lists what lies in quarantine.
pub fn list(loaded: &Loaded, arguments: &QuarantineArguments, output: Output) -> Result<(), Failure> {
    let desk = Desk::open(loaded, arguments)?;
    let survey = desk.survey()?;
    let released = survey.released()?;
    let (mut groups, mut records, mut count) = (Groups::default(), Records::new(output), 0_u64);
    let read = desk.read(&survey, |place, found| {
        let is_released = released.has(place);
        if arguments.all || !is_released {
            count += 1;
            if arguments.records {
                records.add(&RecordLine::of(found, place, is_released))?;
            } else {
                groups.add(found);
            }
        }
        Ok(ControlFlow::Continue(()))
    });
    records.end()?;
    read?;
    if desk.is_stopping() {
        return Err(Failure::No("interrupted while the quarantine was read".to_owned()));
    }
    if count == 0 {
        desk.tell_none();
        return Ok(());
    }
    if arguments.records { Ok(()) } else { print_groups(&groups, output) }
}

/// Passes on what is genuine by now, each once.
pub fn release(
    loaded: &Loaded,
    arguments: &QuarantineArguments,
    rate: Option<NonZeroU32>,
    output: Output,
) -> Result<(), Failure> {
    let desk = Desk::open(loaded, arguments)?;
    // Nothing of a source that is not configured can be verified.
    if let Some(stranger) = desk.filter.stranger(&loaded.sources.keys().cloned().collect()) {
        return Err(Failure::Usage(stranger));
    }
    // Before anything is read: what an earlier one has released is decided from here on.
    let releaser = if arguments.dry_run {
        None
    } else {
        Some(Releaser::take_over(&loaded.clients, &loaded.config.kafka, desk.clock)?)
    };
    let survey = desk.survey()?;
    let mut run = Run {
        released: survey.released()?,
        pace: rate.map(|rate| RateLimiter::direct(Quota::per_second(rate).allow_burst(NonZeroU32::MIN))),
        limit: arguments.limit.unwrap_or(u64::MAX),
        desk: &desk,
        keyring: keyring(desk.clock)?,
        releaser,
        batch: Vec::new(),
        batch_bytes: 0,
        selection: Selection::default(),
        genuine: 0,
        summary: Summary { dry_run: arguments.dry_run, ..Summary::default() },
        failure: None,
    };
    let read = desk.read(&survey, |place, found| Ok(run.take(place, found)));
    // Also where reading failed: what is here is verified, and what was released is known.
    let _flow = run.pass_on();
    let summary = run.end();
    if summary.selected == 0 {
        desk.tell_none();
    } else {
        print_selection(&run.selection, output)?;
    }
    let printed = print_summary(&summary, output);
    read.and_then(|()| run.verdict(&summary)).and(printed)
}

/// A release under way.
struct Run<'d> {
    desk: &'d Desk<'d>,
    keyring: Keyring,
    released: Released,
    /// `None` for a dry run.
    releaser: Option<Releaser>,
    pace: Option<DefaultDirectRateLimiter>,
    limit: u64,
    /// Genuine, and not passed on yet.
    batch: Vec<Passing>,
    batch_bytes: usize,
    selection: Selection,
    genuine: u64,
    summary: Summary,
    failure: Option<ReleaseError>,
}

impl Run<'_> {
    fn take(&mut self, place: Place, found: &Found) -> ControlFlow<()> {
        if self.released.has(place) {
            return ControlFlow::Continue(());
        }
        let accepted = match self.judge(found) {
            Ok(accepted) => accepted,
            Err(obstacle) => {
                self.selection.add(found, Some(obstacle));
                self.summary.skipped += 1;
                return ControlFlow::Continue(());
            }
        };
        let event = accepted.identity.short();
        let is_copy = self.released.has_event(event);
        if is_copy {
            self.selection.add(found, Some(Obstacle::Duplicate));
            self.summary.skipped += 1;
        } else {
            self.wait_for_turn()?;
            self.selection.add(found, None);
            self.genuine += 1;
        }
        self.released.add(place.partition, record::Release { offset: place.offset, event });
        self.batch_bytes += accepted.event.body.len();
        self.batch.push(Passing { place, accepted, is_copy });
        if BATCH <= self.batch.len() || BATCH_BYTES <= self.batch_bytes || self.pace.is_some() {
            self.pass_on()?;
        }
        if self.limit <= self.genuine { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn judge(&self, found: &Found) -> Result<Accepted, Obstacle> {
        let request = found.as_ref().map_err(|_| Obstacle::Damaged)?;
        let ingest = &self.desk.loaded.config.ingest;
        let bounds =
            Bounds { max_body_bytes: ingest.max_body_bytes, trusted_proxies: &ingest.trusted_proxies };
        let verify = |request, source| self.desk.runtime.block_on(self.keyring.verify(request, source));
        judge(request, &self.desk.loaded.sources, bounds, verify)
    }

    /// Passes on what waits; breaks off where that fails.
    fn pass_on(&mut self) -> ControlFlow<()> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let Some(releaser) = self.releaser.as_ref().filter(|_| self.failure.is_none()) else {
            return ControlFlow::Continue(());
        };
        match releaser.release(&batch) {
            Ok(()) => {
                let passed = batch.iter().filter(|passing| !passing.is_copy).count();
                self.summary.released += u64::try_from(passed).unwrap_or(u64::MAX);
                ControlFlow::Continue(())
            }
            Err(error) => {
                self.failure = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Waits as `--rate` wants it.
    fn wait_for_turn(&self) -> ControlFlow<()> {
        let Some(pace) = self.pace.as_ref().filter(|_| self.releaser.is_some()) else {
            return ControlFlow::Continue(());
        };
        while let Err(early) = pace.check() {
            if self.desk.is_stopping() {
                return ControlFlow::Break(());
            }
            std::thread::sleep(early.wait_time_from(DefaultClock::default().now()).min(PAUSE));
        }
        ControlFlow::Continue(())
    }

    fn end(&self) -> Summary {
        let left = self.genuine.saturating_sub(self.summary.released);
        Summary { left, selected: self.genuine + self.summary.skipped, ..self.summary }
    }

    fn verdict(&self, summary: &Summary) -> Result<(), Failure> {
        const AGAIN: &str = "run the same command again to go on: what was released is not released twice";
        match &self.failure {
            Some(error @ ReleaseError::TakenOver) => Err(Failure::No(error.to_string())),
            Some(error @ ReleaseError::Kafka(_)) => Err(Failure::Kafka(format!("{error}; {AGAIN}"))),
            Some(error @ ReleaseError::Hidden { .. }) => Err(Failure::Kafka(error.to_string())),
            None if self.desk.is_stopping() => Err(Failure::No(format!("interrupted; {AGAIN}"))),
            None if 0 < summary.left && !summary.dry_run => {
                Err(Failure::No(format!("{} are left; {AGAIN}", summary.left)))
            }
            None => Ok(()),
        }
    }
}

/// What it counts nobody asks for: the command is over before.
fn keyring(clock: Clock) -> Result<Keyring, Failure> {
    let meters = KeyMeters::register(&Registry::new());
    let meters = meters.map_err(|error| Failure::Usage(format!("cannot start: {error}")))?;
    Ok(Keyring::new(meters, clock))
}

/// Both topics as they must be, whether or not a source keeps anything now: what lies there may be
/// older than today's configuration.
fn specs(loaded: &Loaded) -> Vec<TopicSpec> {
    let plan = loaded.config.topic_plan();
    let events = plan.specs().into_iter().filter(|spec| spec.topic == Topic::Events);
    events.chain([plan.quarantine_spec()]).collect()
}

/// Tells whoever watches; nothing that a program would read.
fn write_line(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}
