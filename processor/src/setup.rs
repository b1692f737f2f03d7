//! What a reload changes, together: where events go, and who is called.

use std::collections::BTreeMap;
use std::sync::Arc;

use hookwell_common::config::{Config, DestinationKind, Environment, Faults};
use hookwell_common::lifecycle::Clock;
use tokio::runtime;
use tokio::sync::Semaphore;

use crate::handle::http::HttpHandler;
use crate::handle::{Dispatcher, Handler, Handlers};
use crate::metrics::KnownNames;
use crate::route::Plan;

/// What a reload changes, together.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Where events go.
    pub(crate) plan: Plan,
    /// Who is called.
    pub(crate) dispatcher: Dispatcher,
    /// Partitions of the topics of `kafka` destinations.
    pub(crate) forwards: BTreeMap<String, i32>,
    /// What may stand in labels.
    pub(crate) names: KnownNames,
}

/// On what calls are made.
#[derive(Clone, Debug)]
pub(crate) struct Workshop {
    /// Where handlers run.
    pub(crate) runtime: runtime::Handle,
    /// The clocks.
    pub(crate) clock: Clock,
    /// One half of the calls that may be made at once, for whoever needs them.
    pub(crate) all: Arc<Semaphore>,
    /// The other half, shared out among the destinations.
    pub(crate) shared_out: usize,
}

impl Workshop {
    /// Calls on `runtime`, at most `max_concurrency` at once.
    pub(crate) fn new(runtime: runtime::Handle, clock: Clock, max_concurrency: usize) -> Self {
        let shared_out = max_concurrency / 2;
        Self { runtime, clock, all: Arc::new(Semaphore::new(max_concurrency - shared_out)), shared_out }
    }
}

impl Setup {
    /// The setup of a configuration whose handlers are resolved.
    pub(crate) fn new(
        config: &Config,
        handlers: &Handlers,
        forwards: BTreeMap<String, i32>,
        workshop: &Workshop,
    ) -> Self {
        let mut dispatcher =
            Dispatcher::new(workshop.runtime.clone(), workshop.clock, Arc::clone(&workshop.all));
        // However many hang: each destination has some calls that no other can take.
        let own = workshop.shared_out / handlers.len().max(1);
        for destination in &config.destinations {
            if let Some(handler) = handlers.get(destination.name.as_str()) {
                dispatcher.add(destination.name.as_str(), Arc::clone(handler), destination.calls, own);
            }
        }
        Self { plan: Plan::new(config), dispatcher, forwards, names: KnownNames::of(config) }
    }
}

/// The handler of each destination that is called: those of the configuration, and those that the
/// program brings along. What is wrong goes to `faults`.
pub(crate) fn resolve_handlers(
    config: &Config,
    own: &Handlers,
    client: &reqwest::Client,
    clock: Clock,
    environment: &Environment,
    faults: &mut Faults,
) -> Handlers {
    let mut handlers = Handlers::new();
    for destination in &config.destinations {
        let name = destination.name.as_str();
        let handler: Option<Arc<dyn Handler>> = match &destination.kind {
            DestinationKind::Http { url, signing_secret } => {
                let secret =
                    signing_secret.as_ref().map(|material| (material, material.resolve(environment, faults)));
                let revealed = secret.as_ref().and_then(|(_, secret)| secret.as_ref());
                let handler =
                    HttpHandler::new(client.clone(), url.clone(), revealed, destination.calls.timeout, clock);
                if let (None, Some((material, _))) = (&handler, &secret) {
                    let what = "begins with whsec_ and is no base64 thereafter";
                    faults.add(&material.place, material.key.clone(), what);
                }
                handler.map(|handler| Arc::new(handler) as Arc<dyn Handler>)
            }
            DestinationKind::Custom => {
                if !own.contains_key(name) {
                    let what = format!(
                        "destination {name:?} is of kind \"custom\", and this program brings no handler of that name; build your own processor with one, or use kind \"http\""
                    );
                    faults.add(&destination.place, "destinations.kind", what);
                }
                own.get(name).cloned()
            }
            DestinationKind::Kafka { .. } | DestinationKind::Log => None,
        };
        handlers.extend(handler.map(|handler| (name.to_owned(), handler)));
    }
    handlers
}
