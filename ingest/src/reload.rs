//! What counts is read again: all of it when somebody asks for it, and the files of secrets when
//! their contents change. A request keeps the senders with which it began, so none fails of it.
//!
//! The configuration itself is not watched: what is written there takes effect when its author says
//! so, and a secret that is rotated meanwhile does not bring it along.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use hookwell_common::config::{Config, Environment, Faults};
use hookwell_common::lifecycle::{Failure, spawn_thread};
use hookwell_common::watch::{Look, Sight, Verdict, Watch};

use crate::advice::{Concern, concerns};
use crate::cli::Loaded;
use crate::metrics::{Metrics, ReloadMeters};
use crate::receive::{Gateway, Senders};
use crate::source::{Source, Sources, resolve_all};

/// How often the files of secrets are looked at. Two looks must agree, so a change takes effect
/// within three of these.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Reads again what counts, on a thread of its own: a file that cannot be read for long must not hold
/// up a signal to stop.
#[derive(Debug)]
pub struct Reloader {
    gateway: Arc<Gateway>,
    path: PathBuf,
    environment: Environment,
    config: Config,
    watch: Watch,
    told: Vec<Concern>,
    /// Whether the last order was refused.
    is_order_refused: bool,
    /// Whether what lies in the files of secrets was.
    are_files_refused: bool,
}

/// Has a [`Reloader`] read the configuration again.
#[derive(Clone, Debug)]
pub struct Order(SyncSender<()>);

impl Order {
    /// Gives the order. Where one waits already, that one will see the file as it is now.
    pub fn give(&self) {
        self.0.try_send(()).ok();
    }
}

impl Reloader {
    /// One that goes on from `config`, whose files of secrets were as `seen`, and which stands at
    /// `path`. What can go wrong with it has been `told`.
    pub fn new(
        gateway: Arc<Gateway>,
        (path, environment): (PathBuf, Environment),
        (config, seen): (Config, Look),
        told: Vec<Concern>,
    ) -> Self {
        let watch = Watch::new(seen);
        let reloader = Self {
            gateway,
            path,
            environment,
            config,
            watch,
            told,
            is_order_refused: false,
            are_files_refused: false,
        };
        reloader.note_success();
        reloader
    }

    /// Begins to look and to listen.
    pub fn start(self) -> io::Result<Order> {
        let (order, orders) = sync_channel(1);
        spawn_thread("reload", move || self.run(&orders))?;
        Ok(Order(order))
    }

    fn run(mut self, orders: &Receiver<()>) {
        while !self.gateway.stopping.load(Ordering::Relaxed) {
            match orders.recv_timeout(LOOK_INTERVAL) {
                Ok(()) => self.reload(),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Swaps the senders for those of the configuration as it is now. A broken one is refused, and
    /// what runs keeps running.
    fn reload(&mut self) {
        let loaded = Loaded::load(&self.path, &self.environment);
        match loaded.and_then(|loaded| self.refuse_what_needs_a_start(loaded)) {
            Ok(Loaded { config, seen, sources, clients: _ }) => {
                let count = sources.len();
                self.config = config;
                self.watch = Watch::new(seen);
                self.is_order_refused = false;
                self.take_over(sources);
                tracing::info!(
                    sources = count,
                    "reloaded sources and secrets; the rest takes effect at the next start"
                );
            }
            Err(failure) => {
                self.is_order_refused = true;
                self.note_refusal();
                tracing::error!("not reloaded, and what was read before still counts: {failure}");
            }
        }
    }

    fn refuse_what_needs_a_start(&self, loaded: Loaded) -> Result<Loaded, Failure> {
        if self.gateway.spool.is_none() && loaded.sources.values().any(Source::spools) {
            return Err(Failure::Usage(
                "a source has on_enqueue_failure = \"spool\", and the directory of [ingest.spool] is opened at the next start only".to_owned(),
            ));
        }
        if self.gateway.keeper.is_none() && loaded.sources.values().any(Source::quarantines) {
            return Err(Failure::Usage(
                "a source has quarantine = true, and the topic for that is looked at at the next start only"
                    .to_owned(),
            ));
        }
        Ok(loaded)
    }

    /// Swaps the senders for the same with other secrets, if there are any in the files.
    fn look(&mut self) {
        let now = look_at(&self.config);
        match self.watch.judge(&now) {
            Verdict::Unchanged | Verdict::Unsettled => {}
            Verdict::Changed(files) => self.reread(now, &files),
        }
    }

    fn reread(&mut self, seen: Look, files: &[PathBuf]) {
        let mut faults = Faults::default();
        let sources = resolve_all(&self.config, &self.environment, &mut faults);
        if look_at(&self.config) != seen {
            // Some may have been read before they changed, and others after it.
            return;
        }
        self.watch.answer(seen);
        match faults.into_result(sources) {
            Ok(sources) => {
                self.take_over(sources);
                tracing::info!(?files, "secrets changed in their files, and the new ones count");
            }
            Err(error) => {
                self.are_files_refused = true;
                self.note_refusal();
                tracing::error!(
                    ?files,
                    "secrets changed in their files, and what was read before still counts: {error}"
                );
            }
        }
    }

    fn take_over(&mut self, mut sources: Sources) {
        let concerns = concerns(&self.config, &sources);
        tell(concerns.iter().filter(|concern| !self.told.contains(concern)));
        self.told = concerns;
        let last = self.gateway.senders.load_full();
        for (name, source) in &mut sources {
            if let Some((last, _)) = last.get(name) {
                source.succeed(last);
            }
        }
        self.gateway.senders.store(Arc::new(with_meters(sources, &self.gateway.metrics)));
        self.are_files_refused = false;
        self.meters().succeeded.inc();
        self.note_success();
    }

    fn note_success(&self) {
        self.meters().last_success.set(self.gateway.clock.now().wall.as_seconds_f64());
        self.meters().last_successful.set(i64::from(!self.is_order_refused && !self.are_files_refused));
    }

    fn note_refusal(&self) {
        self.meters().refused.inc();
        self.meters().last_successful.set(0);
    }

    fn meters(&self) -> &ReloadMeters {
        &self.gateway.metrics.reloads
    }
}

/// What lies in the files of `config`'s secrets.
pub fn look_at(config: &Config) -> Look {
    let files = config.files_of_sources();
    files.into_iter().map(|path| (path.to_owned(), Sight::of(std::fs::read(path)))).collect()
}

/// Tells what can go wrong.
pub fn tell<'c>(concerns: impl IntoIterator<Item = &'c Concern>) {
    for concern in concerns {
        tracing::warn!(source = concern.source.as_str(), "{concern}");
    }
}

/// The senders with their counters.
pub fn with_meters(sources: Sources, metrics: &Metrics) -> Senders {
    let meters = |(name, source): (String, Source)| {
        let meters = metrics.of_source(&source);
        (name, (source, meters))
    };
    sources.into_iter().map(meters).collect()
}
