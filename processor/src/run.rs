//! The life of the delivering program: verify the topics, join the group, reload, stop.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hookwell_common::config::{Config, DestinationKind};
use hookwell_common::kafka::{
    ClientSettings, Figures, Isolation, KafkaFault, LoggingContext, TopologyError, describe, verify,
};
use hookwell_common::lifecycle::{Clock, Failure, Signal, on_signals, spawn_thread};
use hookwell_common::telemetry::{AdminServer, Health, Registry, register_build_info};
use hookwell_common::topics::{Topic, max_record_bytes};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use crate::cli::Loaded;
use crate::delivery::Stream;
use crate::follow::Follower;
use crate::lane::mail::{FollowOrder, Report};
use crate::metrics::Metrics;
use crate::poll::{Member, MemberContext};
use crate::reading::{LOOK, PATIENCE, Reading};
use crate::setup::{Setup, Workshop};
use crate::shared::{Parts, Settings, Shared};
use crate::state::Expiry;
use crate::status::Status;

/// How often the watchdog looks.
const WATCH: Duration = Duration::from_secs(1);

/// A thread that has not moved for so long never will,
const BLOCKED: Duration = Duration::from_secs(120);

/// if Kafka has answered for so long: an outage is not held against it, and what it waits for may come
/// a while after.
const ANSWERING: Duration = Duration::from_secs(60);

/// A lane's thread that has not moved for so long may be waiting for librdkafka.
const STANDING: Duration = Duration::from_secs(3);

/// And if Kafka answers for so long meanwhile, in vain: by then librdkafka has given up what it gives
/// up at all, the records of a transaction and those of its end. But `send_offsets_to_transaction`
/// never returns when its coordinator went away at the wrong moment (librdkafka 5456).
const IN_VAIN: Duration = Duration::from_secs(30);

/// How much longer than its lanes a process may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(20);

/// Delivers until told to stop.
pub(crate) fn run(
    loaded: Loaded,
    clock: Clock,
    load: impl Fn() -> Result<Loaded, Failure> + Send + 'static,
) -> Result<(), Failure> {
    let config = loaded.config.clone();
    let forwards = block_on(verify_topology(&loaded.config, &loaded.clients))??;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("handlers").build();
    let runtime = runtime.map_err(cannot_start)?;
    let workshop = Workshop::new(runtime.handle().clone(), clock, config.processor.max_concurrency);

    let registry = Registry::new();
    let figures = Figures::default();
    let metrics = register_build_info(&registry, "processor").and_then(|()| Metrics::register(&registry));
    let metrics =
        metrics.map_err(|error| Failure::Usage(format!("the metrics could not be set up: {error}")))?;
    metrics.expect(&config);
    let (to_member, reports) = crossbeam_channel::bounded(4096);
    let (to_follower, orders) = crossbeam_channel::bounded(4096);
    let setup = Setup::new(&config, &loaded.handlers, forwards, &workshop);
    let consumers = Consumers::new(&loaded.clients, &config, &figures).map_err(|error| {
        TopologyError::Unreachable { servers: loaded.clients.bootstrap_servers().to_owned(), error }
    })?;
    let shared = Arc::new(Shared::new(Parts {
        clients: loaded.clients,
        settings: settings(&config),
        setup,
        member: consumers.member,
        watermarks: consumers.watermarks,
        stable_watermarks: consumers.stable_watermarks,
        to_member,
        to_follower,
        metrics,
        clock,
    }));

    let stopping = Arc::new(AtomicBool::new(false));
    let status = Status::new(Arc::clone(&shared), figures.clone(), Arc::clone(&stopping));
    let admin =
        AdminServer::start(config.processor.admin_listen, registry, Arc::new(status) as Arc<dyn Health>)?;
    react_to_signals(&shared, &stopping, workshop, load).map_err(cannot_start)?;
    tracing::info!(group = config.processor.group_id, admin = %admin.address(), destinations = config.destinations.len(), "delivering");

    let follower = Follower::new(Arc::clone(&shared), consumers.follower, orders);
    let follow_until = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&follow_until);
    let follow = spawn_thread("follow", move || follower.run(&until)).map_err(cannot_start)?;
    let member = Member::new(Arc::clone(&shared), Topic::Events.name(&config.kafka.topic_prefix), reports);
    let told_to_stop = Arc::clone(&stopping);
    let (ended, has_ended) = crossbeam_channel::bounded(1);
    let poll = spawn_thread("poll", move || {
        member.run(&told_to_stop);
        drop(ended);
    })
    .map_err(cannot_start)?;

    watch(&shared, &figures, &stopping, &has_ended, config.processor.drain_timeout + STOP_GRACE)?;
    follow_until.store(true, Ordering::Relaxed);
    for (name, thread) in [("poll", poll), ("follow", follow)] {
        if thread.join().is_err() {
            shared
                .downfall
                .cause(Failure::Kafka(format!("the {name} thread panicked: a fault of Hookwell's")));
        }
    }
    runtime.shutdown_background();
    admin.stop();
    match shared.downfall.take() {
        Some(failure) => Err(failure),
        None => {
            tracing::info!("stopped");
            Ok(())
        }
    }
}

/// Waits for the member to end; sees to it that it can.
fn watch(
    shared: &Shared,
    figures: &Figures,
    stopping: &AtomicBool,
    has_ended: &crossbeam_channel::Receiver<()>,
    stop_within: Duration,
) -> Result<(), Failure> {
    let mut stop_by: Option<Duration> = None;
    let (mut stalled, mut standing, mut reading) =
        (Stalled::default(), Standing::default(), Reading::default());
    let mut looked_at = Duration::ZERO;
    loop {
        match has_ended.recv_timeout(WATCH) {
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let now = shared.clock.mono();
        if stopping.load(Ordering::Relaxed) || shared.downfall.has_come() {
            let stop_by = *stop_by.get_or_insert(now + stop_within);
            if stop_by <= now {
                // What is not committed is repeated by the next owner.
                let words =
                    "a lane did not end in time; what it had not committed is repeated by the next owner";
                return Err(shared.downfall.take().unwrap_or_else(|| Failure::Kafka(words.to_owned())));
            }
        } else if let Some(name) = stalled.look(shared.board.stalled(now, BLOCKED), now, || answers(shared)) {
            let words = format!(
                "a {name} thread has not moved for two minutes though Kafka answers; the process had better begin anew"
            );
            shared.downfall.cause(Failure::Kafka(words));
        } else {
            let hosts = shared.board.standing_hosts(now, STANDING);
            // Their lanes show what was, and their consumers are not to blame.
            reading.forget(|partition| hosts.contains(&shared.host_of(partition)));
            for host in standing.look(hosts, now, || answers(shared)) {
                // One that is not told is told at the next look.
                shared.to_member.try_send(Report::Blocked { host }).ok();
            }
            let since_last_look = now.saturating_sub(looked_at);
            if LOOK <= since_last_look {
                looked_at = now;
                if 2 * LOOK < since_last_look {
                    // This process was frozen, or Kafka took its time.
                    reading.forget(|_| true);
                }
                mend_reading(shared, &reading.look_at(shared, &figures.all(), now));
            }
        }
    }
}

/// Has what is not read on be read by somebody else.
fn mend_reading(shared: &Shared, stuck: &[(Stream, i32)]) {
    for (stream, partition) in stuck {
        let topic = stream.topic(&shared.settings.topic_prefix);
        let words = format!("{topic}[{partition}] has not been read on for {} s", PATIENCE.as_secs());
        match stream {
            // The group's own consumer cannot be replaced without leaving the group.
            Stream::Events => {
                let words = format!("{words} though Kafka answers; the process had better begin anew");
                shared.downfall.cause(Failure::Kafka(words));
            }
            Stream::Retry(_) => {
                tracing::error!("{words} though Kafka answers");
                shared.to_follower.try_send(FollowOrder::Renew).ok();
            }
        }
    }
}

/// Since when Kafka answers while a thread has not moved.
#[derive(Debug, Default)]
struct Stalled(Option<Duration>);

impl Stalled {
    /// The thread of this name, if Kafka has answered for long enough. It is asked only if there is one.
    fn look(
        &mut self,
        name: Option<&'static str>,
        now: Duration,
        kafka_answers: impl FnOnce() -> bool,
    ) -> Option<&'static str> {
        if name.is_none() || !kafka_answers() {
            self.0 = None;
            return None;
        }
        let since = *self.0.get_or_insert(now);
        name.filter(|_| ANSWERING <= now.saturating_sub(since))
    }
}

/// The lanes' threads that stand still though Kafka answers, and since when.
#[derive(Debug, Default)]
struct Standing(BTreeMap<usize, Duration>);

impl Standing {
    /// Those of `hosts` that have stood still for too long while Kafka answered. It is asked only if
    /// there is somebody whom it could keep waiting.
    fn look(&mut self, hosts: Vec<usize>, now: Duration, kafka_answers: impl FnOnce() -> bool) -> Vec<usize> {
        if hosts.is_empty() || !kafka_answers() {
            self.0.clear();
            return Vec::new();
        }
        self.0.retain(|host, _| hosts.contains(host));
        let mut in_vain = hosts;
        in_vain.retain(|host| IN_VAIN <= now.saturating_sub(*self.0.entry(*host).or_insert(now)));
        // Once is enough: by the next look another thread has taken its place.
        self.0.retain(|host, _| !in_vain.contains(host));
        in_vain
    }
}

fn answers(shared: &Shared) -> bool {
    shared.watermarks.fetch_metadata(None, Duration::from_secs(5)).is_ok()
}

fn react_to_signals(
    shared: &Arc<Shared>,
    stopping: &Arc<AtomicBool>,
    workshop: Workshop,
    load: impl Fn() -> Result<Loaded, Failure> + Send + 'static,
) -> io::Result<()> {
    let (shared, stopping) = (Arc::clone(shared), Arc::clone(stopping));
    // Reloading asks Kafka, and a signal to stop must not wait for that.
    let (wish, wishes) = crossbeam_channel::bounded(1);
    spawn_thread("reload", move || {
        for () in wishes {
            match load().and_then(|mut loaded| reload(&shared, &mut loaded, &workshop)) {
                Ok(()) => {
                    tracing::info!(
                        "reloaded routes and destinations; the rest takes effect at the next start"
                    )
                }
                Err(failure) => {
                    tracing::error!("not reloaded, and what was read before still counts: {failure}")
                }
            }
        }
    })?;
    on_signals(move |signal| match signal {
        Signal::Stop => stopping.store(true, Ordering::Relaxed),
        // One that waits already sees the file as it is by then.
        Signal::Reload => drop(wish.try_send(())),
    })
}

/// Swaps routes and destinations. A topic that a destination newly names must fit, too; retry tiers
/// stay as they were at the start, for each has a topic that lanes follow.
fn reload(shared: &Shared, loaded: &mut Loaded, workshop: &Workshop) -> Result<(), Failure> {
    loaded.config.retry.tiers.clone_from(&shared.settings.tiers);
    let mut forwards = block_on(verify_forwards(&loaded.config, &loaded.clients))??;
    shared.metrics.expect(&loaded.config);
    // What was decided before the reload still has to be written.
    for (topic, partitions) in &shared.setup.load().forwards {
        forwards.entry(topic.clone()).or_insert(*partitions);
    }
    let setup = Arc::new(Setup::new(&loaded.config, &loaded.handlers, forwards, workshop));
    let last = shared.setup.swap(Arc::clone(&setup));
    last.dispatcher.give_way_to(&setup.dispatcher);
    Ok(())
}

/// Refuses topics that do not fit, and gives the partitions of those that destinations name.
async fn verify_topology(
    config: &Config,
    clients: &ClientSettings,
) -> Result<BTreeMap<String, i32>, TopologyError> {
    verify(clients, &config.topic_plan().specs(), config.processor.dedupe_window).await?;
    verify_forwards(config, clients).await
}

async fn verify_forwards(
    config: &Config,
    clients: &ClientSettings,
) -> Result<BTreeMap<String, i32>, TopologyError> {
    let topic_of = |kind: &DestinationKind| match kind {
        DestinationKind::Kafka { topic } => Some(topic.clone()),
        DestinationKind::Http { .. } | DestinationKind::Log | DestinationKind::Custom => None,
    };
    let names: Vec<_> =
        config.destinations.iter().filter_map(|destination| topic_of(&destination.kind)).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let seen = describe(clients, &names).await?;
    let needed = max_record_bytes(config.ingest.max_body_bytes);
    let mut faults = Vec::new();
    for name in &names {
        let mut fault = |what: String| faults.push(KafkaFault { topic: name.clone(), what });
        let Some(topic) = seen.get(name) else {
            fault("does not exist, and a destination of kind \"kafka\" names it; create it".to_owned());
            continue;
        };
        let limit =
            topic.settings.as_ref().and_then(|settings| settings.get("max.message.bytes")?.parse().ok());
        if limit.is_some_and(|limit: usize| limit < needed) {
            fault(format!(
                "takes records of {} bytes, and events may need {needed}; raise max.message.bytes",
                limit.unwrap_or_default()
            ));
        }
    }
    if faults.is_empty() {
        Ok(seen.into_iter().map(|(name, topic)| (name, topic.partitions)).collect())
    } else {
        Err(TopologyError::Unfit(faults))
    }
}

struct Consumers {
    member: Arc<BaseConsumer<MemberContext>>,
    follower: BaseConsumer<LoggingContext>,
    watermarks: BaseConsumer<LoggingContext>,
    stable_watermarks: BaseConsumer<LoggingContext>,
}

impl Consumers {
    fn new(clients: &ClientSettings, config: &Config, figures: &Figures) -> Result<Self, KafkaError> {
        let group_id = &config.processor.group_id;
        let member = MemberContext::new(figures.clone());
        let follower = LoggingContext { figures: figures.clone() };
        Ok(Self {
            member: Arc::new(BaseConsumer::from_config_and_context(&clients.group_member(group_id), member)?),
            follower: BaseConsumer::from_config_and_context(&clients.follower(group_id), follower)?,
            watermarks: BaseConsumer::from_config_and_context(
                &clients.watermarks(Isolation::Uncommitted),
                LoggingContext::default(),
            )?,
            stable_watermarks: BaseConsumer::from_config_and_context(
                &clients.watermarks(Isolation::Committed),
                LoggingContext::default(),
            )?,
        })
    }
}

fn settings(config: &Config) -> Settings {
    let partitions = u32::try_from(config.kafka.partitions).unwrap_or(1).max(1);
    Settings {
        group_id: config.processor.group_id.clone(),
        topic_prefix: config.kafka.topic_prefix.clone(),
        tiers: config.retry.tiers.clone(),
        expiry: Expiry {
            dedupe_window: config.processor.dedupe_window,
            dead_letter_retention: config.kafka.retention.dead_letters,
        },
        commit_interval: config.processor.commit_interval,
        drain_timeout: config.processor.drain_timeout,
        flood_guard: config.processor.flood_guard.div_ceil(partitions),
        max_lanes: config.processor.max_lanes,
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    }
}

/// Runs `work` to its end on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(cannot_start)?.block_on(work))
}

fn cannot_start(error: io::Error) -> Failure {
    Failure::Usage(format!("cannot start: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_process_ends_for_a_thread_that_does_not_move_though_kafka_answers_for_long() {
        let mut stalled = Stalled::default();
        assert_eq!(stalled.look(Some("poll"), second(130), || true), None);
        assert_eq!(stalled.look(Some("poll"), second(189), || true), None);
        assert_eq!(stalled.look(Some("poll"), second(190), || true), Some("poll"));
    }

    #[test]
    fn after_a_long_outage_a_thread_has_time_to_move_again() {
        let mut stalled = Stalled::default();
        assert_eq!(stalled.look(Some("lane"), second(130), || false), None);
        assert_eq!(stalled.look(Some("lane"), second(600), || true), None);
        assert_eq!(stalled.look(None, second(610), || unreachable!("everybody moves")), None);
        assert_eq!(stalled.look(Some("lane"), second(700), || true), None);
        assert_eq!(stalled.look(Some("lane"), second(701), || false), None);
        assert_eq!(stalled.look(Some("lane"), second(759), || true), None);
        assert_eq!(stalled.look(Some("lane"), second(820), || true), Some("lane"));
    }

    #[test]
    fn a_thread_that_stands_still_while_kafka_answers_is_given_up_once() {
        let mut standing = Standing::default();
        assert!(standing.look(vec![3], second(10), || true).is_empty());
        assert!(standing.look(vec![3], second(39), || true).is_empty());
        assert_eq!(standing.look(vec![3], second(40), || true), [3]);
        assert!(standing.look(vec![3], second(41), || true).is_empty());
    }

    #[test]
    fn a_thread_that_moves_again_is_not_given_up() {
        let mut standing = Standing::default();
        standing.look(vec![3], second(10), || true);
        standing.look(vec![4], second(20), || true);
        assert!(standing.look(vec![3, 4], second(45), || true).is_empty());
    }

    #[test]
    fn an_outage_of_kafka_is_not_held_against_a_thread() {
        let mut standing = Standing::default();
        standing.look(vec![3], second(10), || true);
        standing.look(vec![3], second(30), || false);
        assert!(standing.look(vec![3], second(45), || true).is_empty());
        assert_eq!(standing.look(vec![3], second(75), || true), [3]);
    }

    #[test]
    fn kafka_is_asked_only_for_somebodys_sake() {
        let asked = || unreachable!("everybody moves");
        assert!(Standing::default().look(Vec::new(), second(1), asked).is_empty());
    }
}
