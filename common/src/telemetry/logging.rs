//! Log lines on standard error, for people or for programs.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// Sends all that is logged from here on to standard error. Lines from the libraries below count
/// one level less, for what is news to them is seldom news to us.
///
/// Does nothing where a log is set up already, as in tests.
pub fn start_logging(config: LogConfig) {
    let (ours, theirs) = match config.level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::ERROR),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
    };
    let targets = Targets::new()
        .with_default(theirs)
        .with_targets([
            ("hookwell_common", ours),
            ("hookwell_ingest", ours),
            ("hookwell_processor", ours),
            ("kafka", ours),
        ])
        // It calls every request that is none an error; whoever sends garbage must not fill our log.
        .with_target("actix_http", LevelFilter::OFF)
        .with_targets([("request", ours), ("settlement", ours), ("destination", ours)]);
    let lines = match config.format {
        LogFormat::Text => fmt::layer().with_writer(std::io::stderr).with_ansi(false).boxed(),
        LogFormat::Json => fmt::layer()
            .with_writer(std::io::stderr)
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    };
    // A filter for all and not one of the layer's own: that one loses the line after a record of the
    // `log` crate that it had refused.
    tracing_subscriber::registry().with(targets).with(lines).try_init().ok();
}
