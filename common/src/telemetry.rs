//! What people watch: logs, metrics and health.

mod admin;
mod logging;
mod probe;

pub use admin::{AdminServer, Health, Readiness};
pub use logging::start_logging;
pub use probe::{Aspect, check_health};
pub use prometheus::Registry;

/// The version of this build, as metrics and `--version` show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Registers `hookwell_build_info`, which is always 1 and carries the version.
pub fn register_build_info(registry: &Registry, program: &str) -> prometheus::Result<()> {
    let options = prometheus::Opts::new(BUILD_INFO, "The version that is running; always 1.")
        .const_label("version", VERSION)
        .const_label("program", program);
    let info = prometheus::IntGauge::with_opts(options)?;
    info.set(1);
    registry.register(Box::new(info))
}

/// Name of the metric that carries the version. Labels: `version`, `program`.
pub const BUILD_INFO: &str = "hookwell_build_info";
