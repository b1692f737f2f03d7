//! `make run`: a Kafka, both programs, a handler, and sample webhooks with what became of each.

mod cluster;
mod fates;
mod samples;
mod stack;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use hookwell_common::config::{Config, DestinationKind, Environment, Faults};
use hookwell_tests::handler::HttpHandler;
use hookwell_tests::kafka::project;
use hookwell_tests::program::{Program, answer, keep_apart};
use hookwell_tests::reader::Reader;
use hookwell_tests::sender::{SECRET, Sender};
use hookwell_tests::wait;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use cluster::Cluster;

/// Where the configuration lies, from the project's directory, in which everything runs.
const CONFIG: &str = "deploy/demo/hookwell.toml";

/// What a run leaves behind, and finds again.
const HOME: &str = "target/demo";

/// Shows Hookwell at work on this machine, until Ctrl-C.
#[derive(Debug, Parser)]
struct Arguments {
    /// Use librdkafka's mock broker, as where there is no Java.
    #[arg(long)]
    mock: bool,

    /// End once the table is printed.
    #[arg(long)]
    once: bool,

    /// Be the handler and the senders of the stack of `docker-compose.yml`, in a container of it;
    /// ADDRESS is where this stack's ingest is reached from the machine.
    #[arg(long, value_name = "ADDRESS")]
    in_stack: Option<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("make run: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let told_to_stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&told_to_stop))?;
    }
    if let Some(address) = &arguments.in_stack {
        return stack::show(address, &told_to_stop);
    }
    std::env::set_current_dir(project())?;
    keep_apart();
    let config = read_config(CONFIG)?;
    check_ports(&config, arguments.mock)?;
    make_secrets()?;

    let cluster = Cluster::start(&config, arguments.mock)?;
    let handler = HttpHandler::start_at(handler_port(&config)?)?;
    handler.answer(samples::answer);
    let (ingest, processor) = start_programs(&config, &cluster)?;

    say("Sending sample webhooks ...");
    let samples = samples::send(&format!("127.0.0.1:{}", config.ingest.listen.port()))?;
    let reader = Reader::new(&cluster.bootstrap_servers());
    let metrics = config.processor.admin_listen.to_string();
    let watched = (&handler, metrics.as_str());
    let table = fates::table(&reader, &config.kafka.topic_prefix, watched, &samples, &told_to_stop)?;
    say(&format!("\n{table}\n"));
    say(&epilogue(&config, &cluster));
    while !arguments.once && !told_to_stop.load(Ordering::Relaxed) {
        for (name, program) in [("ingest", &ingest), ("processor", &processor)] {
            if let Some(status) = program.ended()? {
                bail!("{name} ended with {status}; its log is in {HOME}/{name}.log");
            }
        }
        wait::pause(Duration::from_millis(100));
    }
    say("Stopping ...");
    ensure!(ingest.stop()?.success(), "ingest did not end well; its log is in {HOME}/ingest.log");
    ensure!(processor.stop()?.success(), "processor did not end well; its log is in {HOME}/processor.log");
    Ok(())
}

fn read_config(path: &str) -> Result<Config> {
    let mut faults = Faults::default();
    let config = Config::load(&PathBuf::from(path), &Environment::of_this_process(), &mut faults);
    faults.into_result(config).map_err(Into::into)
}

/// Says of every port that is taken, and how to choose another.
fn check_ports(config: &Config, mock: bool) -> Result<()> {
    let kafka = cluster::address(config)?;
    let handler = SocketAddr::from(([127, 0, 0, 1], handler_port(config)?));
    let controller = SocketAddr::new(kafka.ip(), kafka.port() + 1);
    let wanted = [
        (config.ingest.listen, "HOOKWELL__INGEST__LISTEN=127.0.0.1:PORT"),
        (config.ingest.admin_listen, "HOOKWELL__INGEST__ADMIN_LISTEN=127.0.0.1:PORT"),
        (config.processor.admin_listen, "HOOKWELL__PROCESSOR__ADMIN_LISTEN=127.0.0.1:PORT"),
        (handler, "another url of the destination in deploy/demo/hookwell.toml"),
        (kafka, "HOOKWELL__KAFKA__BOOTSTRAP_SERVERS=127.0.0.1:PORT"),
        (
            controller,
            "HOOKWELL__KAFKA__BOOTSTRAP_SERVERS=127.0.0.1:PORT, for Kafka takes the port after it too",
        ),
    ];
    let needed = if mock { &wanted[..4] } else { &wanted[..] };
    let is_taken = |address: SocketAddr| TcpListener::bind(address).is_err();
    let taken: String = needed
        .iter()
        .filter(|(address, _)| is_taken(*address))
        .map(|(address, remedy)| format!("\n  {address} is taken: end what listens there, or set {remedy}"))
        .collect();
    ensure!(taken.is_empty(), "is it running already?{taken}");
    Ok(())
}

fn handler_port(config: &Config) -> Result<u16> {
    let port = config.destinations.iter().find_map(|destination| match &destination.kind {
        DestinationKind::Http { url, .. } => url.port(),
        DestinationKind::Kafka { .. } | DestinationKind::Log | DestinationKind::Custom => None,
    });
    port.context("no destination of kind http names a port")
}

/// Everybody knows them: nothing here listens beyond this machine.
fn make_secrets() -> Result<()> {
    fs::create_dir_all(format!("{HOME}/secrets"))?;
    for sender in Sender::ALL {
        fs::write(format!("{HOME}/secrets/{}", sender.name()), sender.secret())?;
    }
    Ok(fs::write(format!("{HOME}/secrets/acme"), SECRET)?)
}

fn start_programs(config: &Config, cluster: &Cluster) -> Result<(Program, Program)> {
    let folder = std::env::current_exe()?.parent().context("a program lies in a folder")?.to_owned();
    let servers = cluster.bootstrap_servers();
    let environment = [("HOOKWELL__KAFKA__BOOTSTRAP_SERVERS", servers.as_str())];
    if cluster.takes_topics() {
        let created =
            answer(&folder.join("processor"), &["--config", CONFIG, "--create-topics"], &environment)?;
        ensure!(
            created.status == Some(0),
            "the topics could not be created: {}\nWhere they are an older Hookwell's, `rm -rf {HOME}` begins anew",
            created.err.trim_end()
        );
    }
    let start = |name: &str, admin: SocketAddr| {
        let log = PathBuf::from(format!("{HOME}/{name}.log"));
        fs::write(&log, "")?;
        let arguments = ["--config", CONFIG];
        Program::start(&folder.join(name), &arguments, &environment, &log, &admin.to_string())
    };
    say("Starting ingest and processor ...");
    let ingest = start("ingest", config.ingest.admin_listen)?;
    let processor = start("processor", config.processor.admin_listen)?;
    Ok((ingest.ready()?, processor.ready()?))
}

fn epilogue(config: &Config, cluster: &Cluster) -> String {
    let listen = config.ingest.listen;
    let (ingest, processor) = (config.ingest.admin_listen, config.processor.admin_listen);
    format!(
        "Send one of your own:

  body='{{\"type\":\"order.created\",\"total\":42}}'
  signature=$(printf %s \"$body\" | openssl dgst -sha256 -hmac \"$(cat {HOME}/secrets/acme)\" | sed 's/.* //')
  curl -i http://{listen}/webhooks/acme -H \"x-acme-delivery: $(date +%s)\" \\
    -H \"x-acme-signature: sha256=$signature\" -H 'content-type: application/json' --data-raw \"$body\"

or have one made:  target/debug/ingest --config {CONFIG} --send-test github

Metrics    http://{ingest}/metrics  and  http://{processor}/metrics
Health     /livez and /readyz at the same addresses
Logs       {HOME}/ingest.log and {HOME}/processor.log: a line a request, a line a settlement
Kafka      {}

Ctrl-C ends everything.",
        cluster.describe()
    )
}

/// Tells whoever watches.
#[expect(clippy::print_stdout, reason = "the demonstration is what it prints")]
fn say(words: &str) {
    println!("{words}");
}
