//! The command line of `processor`: a published contract. And the way to a processor with handlers
//! of one's own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgGroup, Parser};
use hookwell_common::config::{Config, Environment, Faults};
use hookwell_common::failpoint;
use hookwell_common::kafka::{ClientSettings, TopologyError, create_missing, verify};
use hookwell_common::lifecycle::{Clock, Failure, conclude, print};
use hookwell_common::telemetry::{Aspect, VERSION, check_health, start_logging};

use crate::handle::http::HttpHandler;
use crate::handle::{Handler, Handlers};
use crate::replay::arguments::DeadLetterArguments;
use crate::setup::resolve_handlers;
use crate::{replay, run};

/// Delivers accepted webhooks: deduplicated, retried, dead-lettered, exactly once inside Kafka.
#[derive(Debug, Parser)]
#[command(name = "processor", version = VERSION)]
#[command(group = ArgGroup::new("command").args(["check_config", "healthcheck", "create_topics", "list_dlq", "replay_dlq"]))]
#[command(group = ArgGroup::new("dead_letters").args(["list_dlq", "replay_dlq"]))]
struct Arguments {
    /// The configuration, one TOML file for both programs.
    #[arg(long, value_name = "FILE", default_value = "hookwell.toml")]
    config: PathBuf,

    /// Say what is wrong with the configuration, or print it as it is understood.
    #[arg(long)]
    check_config: bool,

    /// Ask the program that runs with this configuration whether it is live or ready.
    #[arg(long, value_name = "ASPECT")]
    healthcheck: Option<Aspect>,

    /// Create the topics that are missing; what exists is not changed.
    #[arg(long)]
    create_topics: bool,

    /// List what lies in the dead letter topic and is still dead.
    #[arg(long)]
    list_dlq: bool,

    /// Deliver dead letters again.
    #[arg(long)]
    replay_dlq: bool,

    #[command(flatten)]
    dead_letters: DeadLetterArguments,
}

/// A processor, with handlers of one's own for destinations of kind `custom`.
///
/// ```no_run
/// use std::process::ExitCode;
/// use hookwell_processor::{Processor, Request};
///
/// fn main() -> ExitCode {
///     Processor::new()
///         .handler("orders", async |request: Request| {
///             store(&request.idempotency_key, &request.event.body).await
///         })
///         .main()
/// }
/// # async fn store(_: &str, _: &[u8]) -> Result<(), hookwell_processor::HandlerError> { Ok(()) }
/// ```
#[derive(Default)]
pub struct Processor {
    handlers: Handlers,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor").field("handlers", &self.handlers.keys()).finish()
    }
}

/// A configuration without a fault, everything of it that the processor needs resolved.
pub struct Loaded {
    /// What the file says.
    pub config: Config,
    /// Who is called, by destination.
    pub handlers: Handlers,
    /// What all Kafka clients have in common.
    pub clients: ClientSettings,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Processor {
    /// A processor without handlers of its own, as the program `processor` is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `handler` called for the destination `name`, which is of kind `custom` in the
    /// configuration.
    #[must_use]
    pub fn handler(mut self, name: &str, handler: impl Handler) -> Self {
        self.handlers.insert(name.to_owned(), Arc::new(handler));
        self
    }

    /// Does what the command line asks, and gives the exit status.
    pub fn main(self) -> ExitCode {
        let _armed = failpoint::arm();
        conclude("processor", self.execute(&Arguments::parse()))
    }

    fn execute(self, arguments: &Arguments) -> Result<(), Failure> {
        let environment = Environment::of_this_process();
        if let Some(aspect) = arguments.healthcheck {
            // Without key material: nothing that a health check needs is secret.
            let mut faults = Faults::default();
            let config = Config::load(&arguments.config, &environment, &mut faults);
            return check_health(faults.into_result(config)?.processor.admin_listen, aspect);
        }
        let clock = Clock::start();
        let client =
            HttpHandler::client().map_err(|error| Failure::Usage(format!("no HTTP client: {error}")))?;
        let own = Arc::new(self.handlers);
        let load = {
            let (path, client, environment) = (arguments.config.clone(), client.clone(), environment);
            move || Loaded::load(&path, &own, &client, clock, &environment)
        };
        let loaded = load()?;
        if arguments.check_config {
            return print(&loaded.config.to_string());
        }
        start_logging(loaded.config.log);
        if arguments.create_topics {
            return create_topics(&loaded);
        }
        if arguments.list_dlq {
            return replay::list(&loaded.config, &loaded.clients, &arguments.dead_letters, clock);
        }
        if arguments.replay_dlq {
            return replay::replay(&loaded.config, &loaded.clients, &arguments.dead_letters, clock);
        }
        run::run(loaded, clock, load)
    }
}

impl Loaded {
    fn load(
        path: &Path,
        own: &Handlers,
        client: &reqwest::Client,
        clock: Clock,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let mut faults = Faults::default();
        let config = Config::load(path, environment, &mut faults);
        let handlers = resolve_handlers(&config, own, client, clock, environment, &mut faults);
        let clients = ClientSettings::resolve(&config, environment, &mut faults);
        Ok(faults.into_result(Self { config, handlers, clients })?)
    }
}

/// Creates what is missing, then holds everything against the configuration.
fn create_topics(loaded: &Loaded) -> Result<(), Failure> {
    let specs = loaded.config.topic_plan().specs();
    let work = async {
        let created = create_missing(&loaded.clients, &specs).await?;
        // A topic just created is not known everywhere at once.
        for _ in 0..50 {
            match verify(&loaded.clients, &specs, loaded.config.processor.dedupe_window).await {
                Err(TopologyError::Unfit(faults))
                    if faults.iter().all(|fault| created.contains(&fault.topic)) =>
                {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
                verified => return verified.map(|()| created),
            }
        }
        verify(&loaded.clients, &specs, loaded.config.processor.dedupe_window).await.map(|()| created)
    };
    let created = run::block_on(work)??;
    for spec in &specs {
        let word = if created.contains(&spec.name) { "created" } else { "exists" };
        print(&format!("{word} {}", spec.name))?;
    }
    Ok(())
}
