//! The command line of `ingest`: a published contract.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Parser, ValueEnum};
use hookwell_common::config::{Config, Environment, Faults};
use hookwell_common::failpoint;
use hookwell_common::kafka::ClientSettings;
use hookwell_common::lifecycle::{Failure, conclude, print, warn};
use hookwell_common::rate::parse_rate;
use hookwell_common::telemetry::{Aspect, VERSION, check_health, start_logging};
use hookwell_common::watch::Look;

use crate::advice::concerns;
use crate::quarantine::arguments::QuarantineArguments;
use crate::reload::look_at;
use crate::source::{Sources, resolve_all};
use crate::{list_presets, quarantine, run, send_test, verify_file};

/// Receives webhooks: verifies them, puts them on Kafka, and answers 200 once Kafka has them.
#[derive(Debug, Parser)]
#[command(name = "ingest", version = VERSION)]
#[command(group = ArgGroup::new("command").args(["check_config", "healthcheck", "verify", "send_test", "list_presets", "list_quarantine", "release_quarantine"]))]
#[command(group = ArgGroup::new("quarantine").args(["list_quarantine", "release_quarantine"]))]
#[command(group = ArgGroup::new("paced").args(["send_test", "release_quarantine"]))]
pub struct Arguments {
    /// The configuration, one TOML file for both programs.
    #[arg(long, value_name = "FILE", default_value = "hookwell.toml")]
    config: PathBuf,

    /// Say what is wrong with the configuration, or print it as it is understood.
    #[arg(long)]
    check_config: bool,

    /// Ask the program that runs with this configuration whether it is live or ready.
    #[arg(long, value_name = "ASPECT")]
    healthcheck: Option<Aspect>,

    /// Explain, offline and without Kafka, each step of verifying a request to SOURCE.
    #[arg(long, value_name = "SOURCE", requires = "request")]
    verify: Option<String>,

    /// One HTTP/1.1 request as sent: request line, headers, empty line, body; "-" is standard input.
    #[arg(long, value_name = "FILE", requires = "verify")]
    request: Option<PathBuf>,

    /// When the request was received, RFC 3339 or Unix seconds; now where it is left out.
    #[arg(long, value_name = "TIME", requires = "verify")]
    at: Option<String>,

    /// Sign as the sender of SOURCE would, post, and print each answer's status.
    #[arg(long, value_name = "SOURCE")]
    send_test: Option<String>,

    /// How many events to send.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "send_test")]
    count: u32,

    /// The most to send or to release in a time, such as 50/s.
    #[arg(long, value_name = "N/s", requires = "paced", allow_hyphen_values = true, value_parser = parse_rate)]
    rate: Option<NonZeroU32>,

    /// The body to send.
    #[arg(long, value_name = "FILE", requires = "send_test")]
    body: Option<PathBuf>,

    /// Send each event twice.
    #[arg(long, requires = "send_test")]
    duplicate: bool,

    /// Alter the body after it is signed.
    #[arg(long, requires = "send_test")]
    tamper: bool,

    /// Sign with this private key, PKCS #8 in PEM, where the sender signs with one that only it has.
    #[arg(long, value_name = "FILE", requires = "send_test")]
    key: Option<PathBuf>,

    /// Where to post; the configured listener where it is left out.
    #[arg(long, value_name = "URL", requires = "send_test")]
    url: Option<String>,

    /// List the senders that are known by name, or tell what NAME wants of a configuration.
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    list_presets: Option<Option<String>>,

    /// List what failed verification and was kept, by source and reason.
    #[arg(long)]
    list_quarantine: bool,

    /// Verify again what was kept, as of when it was received, and pass on what is genuine by now.
    #[arg(long)]
    release_quarantine: bool,

    #[command(flatten)]
    kept: QuarantineArguments,

    /// How --verify, --list-presets and the two of the quarantine print.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Does what the command line asks, and gives the exit status.
pub fn main() -> ExitCode {
    let _armed = failpoint::arm();
    conclude("ingest", execute(Arguments::parse()))
}

/// Does what `arguments` ask.
pub fn execute(arguments: Arguments) -> Result<(), Failure> {
    if let Some(name) = &arguments.list_presets {
        return list_presets::list(name.as_deref(), arguments.output);
    }
    let environment = Environment::of_this_process();
    if let Some(aspect) = arguments.healthcheck {
        // Without key material: nothing that a health check needs is secret.
        let mut faults = Faults::default();
        let config = Config::load(&arguments.config, &environment, &mut faults);
        return check_health(faults.into_result(config)?.ingest.admin_listen, aspect);
    }
    let loaded = Loaded::load(&arguments.config, &environment)?;
    if arguments.check_config {
        concerns(&loaded.config, &loaded.sources).iter().for_each(|concern| warn("ingest", concern));
        return print(&loaded.config.to_string());
    }
    if let Some(name) = &arguments.verify {
        let request =
            verify_file::Request { file: arguments.request.as_deref(), at: arguments.at.as_deref() };
        return verify_file::explain(&loaded, &environment, name, &request, arguments.output);
    }
    if let Some(name) = &arguments.send_test {
        let plan = send_test::Plan {
            count: arguments.count,
            rate: arguments.rate,
            body: arguments.body.as_deref(),
            duplicate: arguments.duplicate,
            tamper: arguments.tamper,
            key: arguments.key.as_deref(),
            url: arguments.url.as_deref(),
        };
        return send_test::send(&loaded, name, &plan);
    }
    start_logging(loaded.config.log);
    if arguments.list_quarantine {
        return quarantine::list(&loaded, &arguments.kept, arguments.output);
    }
    if arguments.release_quarantine {
        return quarantine::release(&loaded, &arguments.kept, arguments.rate, arguments.output);
    }
    run::run(loaded, arguments.config, environment)
}

/// A configuration without a fault, everything of it that ingest needs resolved.
#[derive(Debug)]
pub struct Loaded {
    /// What the file says.
    pub config: Config,
    /// What lay in the files of their secrets before these were read.
    pub seen: Look,
    /// The senders.
    pub sources: Sources,
    /// What all Kafka clients have in common.
    pub clients: ClientSettings,
}

impl Loaded {
    /// Reads and resolves the file at `path`; every fault of it at once.
    pub fn load(path: &std::path::Path, environment: &Environment) -> Result<Self, Failure> {
        let mut faults = Faults::default();
        let config = Config::load(path, environment, &mut faults);
        let seen = look_at(&config);
        let sources = resolve_all(&config, environment, &mut faults);
        let clients = ClientSettings::resolve(&config, environment, &mut faults);
        Ok(faults.into_result(Self { config, seen, sources, clients })?)
    }

    /// The source called `name`.
    pub fn source(&self, name: &str) -> Result<&crate::source::Source, Failure> {
        self.sources.get(name).ok_or_else(|| {
            let mut known: Vec<_> = self.sources.keys().map(String::as_str).collect();
            known.sort_unstable();
            Failure::Usage(format!("there is no source {name:?}; configured: {}", known.join(", ")))
        })
    }
}
