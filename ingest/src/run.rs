//! The life of the receiving program: verify the topics, listen, reload, stop.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use arc_swap::ArcSwap;
use hookwell_common::config::{Environment, IngestConfig};
use hookwell_common::kafka::{ClientSettings, Figures, TopologyError, verify};
use hookwell_common::lifecycle::{
    Clock, Failure, Signal, note_early_reload, on_signals, raise_open_files, spawn_thread,
};
use hookwell_common::telemetry::{AdminServer, Health, Readiness, Registry, register_build_info};
use hookwell_common::topics::{Topic, TopicSpec};

use crate::advice::concerns;
use crate::body::Budget;
use crate::cli::Loaded;
use crate::connection;
use crate::keyring::Keyring;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::quarantine::keeper::Keeper;
use crate::receive::{Gateway, Limits, Unique, receive, refuse_unknown};
use crate::reload::{Reloader, tell, with_meters};
use crate::source::Source;
use crate::spool::Spool;

/// How often Kafka is asked whether it is there, and how long it may take.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Clients that the system lets wait until they are taken.
const BACKLOG: u32 = 4096;

/// Receives until told to stop.
pub fn run(loaded: Loaded, config_path: PathBuf, environment: Environment) -> Result<(), Failure> {
    let early_reload = note_early_reload().map_err(cannot_start)?;
    let (config, seen) = (loaded.config.clone(), loaded.seen.clone());
    let topics = Topics::of(&loaded);
    let can_wait = loaded.sources.values().any(Source::spools);
    let concerns = concerns(&config, &loaded.sources);
    tell(&concerns);
    let registry = Registry::new();
    let figures = Figures::default();
    let gateway = Arc::new(build(loaded, &registry, figures.clone())?);
    let place = (config_path, environment);
    let reloader = Reloader::new(Arc::clone(&gateway), place, (config.clone(), seen), concerns);
    let kafka = Mutex::new(Ok(()));
    let status = Status { kafka, gateway: Arc::clone(&gateway), figures, topics, unfit: OnceLock::new() };
    let status = Arc::new(status);
    status.verify_or_wait(can_wait)?;
    raise_open_files();
    let admin =
        AdminServer::start(config.ingest.admin_listen, registry, Arc::clone(&status) as Arc<dyn Health>)?;
    watch_kafka(Arc::clone(&status)).map_err(cannot_start)?;
    tracing::info!(admin = %admin.address(), sources = config.sources.len(), "ready to listen");

    let to_signals = Arc::clone(&gateway);
    let order = reloader.start().map_err(cannot_start)?;
    let react = move |signal| match signal {
        Signal::Stop => stop(&to_signals),
        Signal::Reload => order.give(),
    };
    let served = actix_web::rt::System::new().block_on(serve(&config.ingest, gateway, &early_reload, react));
    served.map_err(cannot_start)??;
    if let Some(spool) = &status.gateway.spool {
        spool.stop(config.ingest.shutdown_timeout);
    }
    let flushed = status.gateway.publisher.flush(config.ingest.shutdown_timeout);
    if let Some(keeper) = &status.gateway.keeper {
        keeper.flush();
    }
    admin.stop();
    tracing::info!("stopped");
    if let Some(unfit) = status.unfit.get() {
        return Err(Failure::Kafka(unfit.clone()));
    }
    flushed.map_err(|error| {
        Failure::Kafka(format!("not everything under way was acknowledged before the end: {error}"))
    })
}

fn build(loaded: Loaded, registry: &Registry, figures: Figures) -> Result<Gateway, Failure> {
    let metrics = register_build_info(registry, "ingest").and_then(|()| Metrics::register(registry));
    let metrics =
        metrics.map_err(|error| Failure::Usage(format!("the metrics could not be set up: {error}")))?;
    let config = &loaded.config;
    let topic = Topic::Events.name(&config.kafka.topic_prefix);
    let servers = loaded.clients.bootstrap_servers().to_owned();
    let publisher = Publisher::new(
        &loaded.clients,
        topic,
        config.kafka.partitions,
        config.ingest.publish_timeout,
        figures,
    )
    .map_err(|error| TopologyError::Unreachable { servers: servers.clone(), error })?;
    let publisher = Arc::new(publisher);
    let (spool, patience) = (&config.ingest.spool, config.ingest.publish_timeout);
    let open = |path: &PathBuf| {
        Spool::open(path, spool.max_bytes, patience, Arc::clone(&publisher), metrics.spool.clone())
    };
    let spool = spool.path.as_ref().map(open).transpose()?;
    let keeper = quarantines(&loaded).then(|| Keeper::new(&loaded.clients, &config.kafka)).transpose();
    let keeper = keeper.map_err(|error| TopologyError::Unreachable { servers, error })?;
    let clock = Clock::start();
    Ok(Gateway {
        senders: ArcSwap::from_pointee(with_meters(loaded.sources, &metrics)),
        publisher,
        keyring: Keyring::new(metrics.keys.clone(), clock),
        spool,
        keeper,
        is_verified: AtomicBool::new(false),
        metrics,
        budget: Budget::new(config.ingest.max_buffered_bytes),
        limits: Limits {
            max_body_bytes: config.ingest.max_body_bytes,
            read_timeout: config.ingest.read_timeout,
            trusted_proxies: config.ingest.trusted_proxies.clone(),
        },
        stopping: AtomicBool::new(false),
        server: OnceLock::new(),
        unique: Unique::new(clock.now()),
        clock,
    })
}

/// Whether a source has kept what fails verification.
fn quarantines(loaded: &Loaded) -> bool {
    loaded.sources.values().any(Source::quarantines)
}

/// The outer error for the process, the inner for its listener.
async fn serve(
    config: &IngestConfig,
    gateway: Arc<Gateway>,
    early_reload: &AtomicBool,
    react: impl Fn(Signal) + Send + Sync + 'static,
) -> io::Result<Result<(), Failure>> {
    let shared = web::Data::new(Arc::clone(&gateway));
    let app = move || {
        App::new()
            .app_data(shared.clone())
            .route("/webhooks/{source}", web::route().to(receive))
            .default_service(web::to(refuse_unknown))
    };
    let (clock, patience) = (gateway.clock, config.keep_alive + config.read_timeout);
    let mut server = HttpServer::new(app)
        .disable_signals()
        .on_connect(move |socket, extensions| connection::note(socket, extensions, clock, patience))
        .keep_alive(config.keep_alive)
        .client_request_timeout(config.read_timeout)
        .client_disconnect_timeout(Duration::from_secs(2))
        .shutdown_timeout(config.shutdown_timeout.as_secs())
        .backlog(BACKLOG);
    if config.workers > 0 {
        server = server.workers(config.workers);
    }
    let server = match server.bind(config.listen) {
        Ok(server) => server.run(),
        Err(error) => return Ok(Err(cannot_listen(config, &error))),
    };
    gateway.server.get_or_init(|| server.handle());
    // Kafka may have turned out not to be as configured.
    if gateway.stopping.load(Ordering::Relaxed) {
        stop(&gateway);
    }
    let react = Arc::new(react);
    let to_signals = Arc::clone(&react);
    on_signals(move |signal| to_signals(signal))?;
    // What was read may be older than the order to read it again.
    if early_reload.load(Ordering::Relaxed) {
        react(Signal::Reload);
    }
    tracing::info!(listen = %config.listen, "receiving");
    server.await.map(Ok)
}

fn stop(gateway: &Gateway) {
    tracing::info!("told to stop: answering what is in flight");
    gateway.stopping.store(true, Ordering::Relaxed);
    if let Some(server) = gateway.server.get() {
        drop(server.stop(true));
    }
}

fn cannot_listen(config: &IngestConfig, error: &io::Error) -> Failure {
    Failure::Usage(format!(
        "ingest.listen = {:?} cannot be listened on: {error}; is the port taken?",
        config.listen.to_string()
    ))
}

fn cannot_start(error: io::Error) -> Failure {
    Failure::Usage(format!("cannot start: {error}"))
}

/// What ingest tells of itself.
struct Status {
    kafka: Mutex<Readiness>,
    gateway: Arc<Gateway>,
    figures: Figures,
    topics: Topics,
    /// What does not fit on a Kafka that was away at the start.
    unfit: OnceLock<String>,
}

impl Status {
    /// Nothing is published before the topics are known to be as configured. Where nothing could be
    /// accepted meanwhile the start waits for that; where a source spools, only as long as Kafka
    /// answers at all: its sender does not come again.
    fn verify_or_wait(&self, can_wait: bool) -> Result<(), Failure> {
        let begin_without = |why: String| {
            tracing::warn!("{why}; events of sources that spool are taken meanwhile");
            *self.kafka.lock().unwrap_or_else(PoisonError::into_inner) = Err(why);
            Ok(())
        };
        if can_wait && let Err(error) = self.gateway.publisher.answers(PROBE_TIMEOUT) {
            return begin_without(format!("Kafka does not answer: {error}"));
        }
        match self.topics.verify() {
            Err(Failure::Topology(error @ TopologyError::Unreachable { .. })) if can_wait => {
                begin_without(error.to_string())
            }
            Err(failure) => Err(failure),
            Ok(()) => {
                self.note_verified();
                Ok(())
            }
        }
    }

    fn takes_without_kafka(&self) -> bool {
        let takes = self.gateway.spool.as_ref().is_some_and(Spool::takes);
        takes && self.gateway.senders.load().values().any(|(source, _)| source.spools())
    }

    fn note_verified(&self) {
        self.gateway.is_verified.store(true, Ordering::Relaxed);
        if let Some(spool) = &self.gateway.spool {
            spool.set_away(false);
        }
        tracing::info!("Kafka is as configured");
    }

    /// Asks Kafka whether it is there; the first time whether it is as configured.
    fn ask_kafka(&self) -> Readiness {
        let publisher = &self.gateway.publisher;
        if self.gateway.is_verified.load(Ordering::Relaxed) {
            return renew_if_lost(publisher).and_then(|()| publisher.probe(PROBE_TIMEOUT));
        }
        publisher.answers(PROBE_TIMEOUT).map_err(|error| format!("Kafka does not answer: {error}"))?;
        match self.topics.verify() {
            Ok(()) => {
                self.note_verified();
                Ok(())
            }
            Err(Failure::Topology(error @ TopologyError::Unfit(_))) => {
                self.unfit.get_or_init(|| error.to_string());
                stop(&self.gateway);
                Err(error.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The topics as they must be.
struct Topics {
    clients: ClientSettings,
    specs: Vec<TopicSpec>,
    dedupe_window: Duration,
}

impl Topics {
    fn of(loaded: &Loaded) -> Self {
        let specs = loaded.config.topic_plan().specs();
        Self {
            clients: loaded.clients.clone(),
            specs: specs.into_iter().filter(|spec| is_written_here(spec.topic)).collect(),
            dedupe_window: loaded.config.processor.dedupe_window,
        }
    }

    fn verify(&self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(cannot_start)?;
        Ok(runtime.block_on(verify(&self.clients, &self.specs, self.dedupe_window))?)
    }
}

fn is_written_here(topic: Topic) -> bool {
    match topic {
        Topic::Events | Topic::Quarantine => true,
        Topic::Retry(_) | Topic::DeadLetters | Topic::State => false,
    }
}

impl Health for Status {
    fn live(&self) -> Readiness {
        Ok(())
    }

    fn ready(&self) -> Readiness {
        if self.gateway.stopping.load(Ordering::Relaxed) {
            return Err("about to end".to_owned());
        }
        if self.gateway.server.get().is_none() {
            return Err("not listening yet".to_owned());
        }
        let kafka = self.kafka.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Who asks whether to send requests here is to send those that can be kept.
        kafka.or_else(|why| if self.takes_without_kafka() { Ok(()) } else { Err(why) })
    }

    fn refresh(&self) {
        self.gateway.metrics.show_figures(&self.figures);
        if let Some(spool) = &self.gateway.spool {
            spool.refresh();
        }
        self.gateway
            .metrics
            .buffered_bytes
            .set(i64::try_from(self.gateway.budget.used()).unwrap_or(i64::MAX));
    }
}

/// Asks Kafka now and then whether it is there, on a thread of its own, for the question blocks.
fn watch_kafka(status: Arc<Status>) -> io::Result<()> {
    let watch = move || {
        while !status.gateway.stopping.load(Ordering::Relaxed) {
            let found = status.ask_kafka();
            if let Some(spool) = &status.gateway.spool {
                spool.set_away(found.is_err());
            }
            let mut known = status.kafka.lock().unwrap_or_else(PoisonError::into_inner);
            match (&*known, &found) {
                (Ok(()), Err(why)) => tracing::warn!("not ready: {why}"),
                (Err(_), Ok(())) => tracing::info!("ready again"),
                (Ok(()), Ok(())) | (Err(_), Err(_)) => {}
            }
            *known = found;
            drop(known);
            std::thread::sleep(PROBE_INTERVAL);
        }
    };
    spawn_thread("probe", watch).map(drop)
}

fn renew_if_lost(publisher: &Publisher) -> Readiness {
    let Some(why) = publisher.fatal_error() else { return Ok(()) };
    tracing::warn!("the producer is lost, and a new one takes its place: {why}");
    publisher.renew().map_err(|error| format!("there is no new producer: {error}"))
}
