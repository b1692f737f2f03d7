//! `[ingest]`: the receiving program.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::section::Section;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// `[ingest]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestConfig {
    /// Where webhooks are received.
    pub listen: SocketAddr,
    /// Where metrics and health are shown.
    pub admin_listen: SocketAddr,
    /// The longest body that is taken, in bytes.
    pub max_body_bytes: usize,
    /// Who may name the client in `X-Forwarded-For`.
    pub trusted_proxies: Vec<IpNet>,
    /// Threads that serve requests; 0 for one a core.
    pub workers: usize,
    /// How long a client may take to send its headers, and again its body.
    pub read_timeout: Duration,
    /// How long a connection may wait for its next request before it is closed. Longer than a load
    /// balancer keeps its own, or it sends into connections that are being closed.
    pub keep_alive: Duration,
    /// How long Kafka may take to acknowledge before the sender hears 503. Shorter than the
    /// patience of the least patient sender.
    pub publish_timeout: Duration,
    /// The most that bodies which are being received or published may take in memory, in bytes.
    pub max_buffered_bytes: usize,
    /// How long requests in flight may take to finish after a signal to stop.
    pub shutdown_timeout: Duration,
    /// `[ingest.spool]`.
    pub spool: SpoolConfig,
}

/// `[ingest.spool]`: where events wait that Kafka cannot take, for sources that ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The directory; `None`: there is no spool.
    pub path: Option<PathBuf>,
    /// The most that waiting events may take of the disk, in bytes.
    pub max_bytes: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { path: None, max_bytes: 1024 * 1024 * 1024 }
    }
}

impl SpoolConfig {
    fn read(section: &Section<'_>) -> Self {
        let path = section.text("path").map(PathBuf::from);
        if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            section.fault("path", "is empty; name a directory, or leave it out where no source spools");
        }
        let max_bytes = section.integer("max_bytes", 65_536..=u64::MAX >> 1, Self::default().max_bytes);
        Self { path, max_bytes }
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9101)),
            max_body_bytes: 1024 * 1024,
            trusted_proxies: Vec::new(),
            workers: 0,
            read_timeout: 15 * SECOND,
            keep_alive: 75 * SECOND,
            publish_timeout: 2500 * MILLISECOND,
            max_buffered_bytes: 256 * 1024 * 1024,
            shutdown_timeout: 10 * SECOND,
            spool: SpoolConfig::default(),
        }
    }
}

impl IngestConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let config = Self {
            listen: read_address(section, "listen", default.listen),
            admin_listen: read_address(section, "admin_listen", default.admin_listen),
            max_body_bytes: section.integer("max_body_bytes", 1..=64 * 1024 * 1024, default.max_body_bytes),
            trusted_proxies: section.parsed(
                "trusted_proxies",
                "networks such as \"10.0.0.0/8\"",
                parse_network,
            ),
            workers: section.integer("workers", 0..=1024, default.workers),
            read_timeout: section.duration("read_timeout", SECOND..=HOUR).unwrap_or(default.read_timeout),
            keep_alive: section.duration("keep_alive", SECOND..=HOUR).unwrap_or(default.keep_alive),
            publish_timeout: section
                .duration("publish_timeout", 100 * MILLISECOND..=HOUR)
                .unwrap_or(default.publish_timeout),
            max_buffered_bytes: section.integer(
                "max_buffered_bytes",
                1..=usize::MAX >> 1,
                default.max_buffered_bytes,
            ),
            shutdown_timeout: section
                .duration("shutdown_timeout", SECOND..=HOUR)
                .unwrap_or(default.shutdown_timeout),
            spool: section.read_with("spool", SpoolConfig::read),
        };
        if config.max_buffered_bytes < config.max_body_bytes {
            section.fault(
                "max_buffered_bytes",
                "must be at least max_body_bytes, or the largest body could never be received",
            );
        }
        if config.listen == config.admin_listen && config.listen.port() != 0 {
            section.fault("admin_listen", "must differ from listen, for metrics are not for senders");
        }
        config
    }
}

pub(super) fn read_address(section: &Section<'_>, key: &'static str, default: SocketAddr) -> SocketAddr {
    let Some(text) = section.text(key) else {
        return default;
    };
    text.parse().unwrap_or_else(|_| {
        section.fault(key, format!("must be an address such as {:?}, and is {text:?}", default.to_string()));
        default
    })
}

/// `10.0.0.0/8`, or a single address. IPv4 written as IPv6 (`::ffff:10.0.0.0/104`) is IPv4, as it
/// is in the addresses that are compared with it.
pub(super) fn parse_network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse().ok().map(|address: IpAddr| IpNet::from(address)));
    network.map(|network: IpNet| match network.addr().to_canonical() {
        IpAddr::V4(address) if network.max_prefix_len() == 128 && network.prefix_len() >= 96 => {
            IpNet::new(IpAddr::V4(address), network.prefix_len() - 96).unwrap_or(network)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => network,
    })
}
