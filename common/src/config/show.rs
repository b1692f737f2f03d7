//! The resolved configuration as text, as `--check-config` prints it: defaults filled in, secrets
//! only by where they are, and readable as a configuration again.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use super::destination::DestinationKind;
use super::kafka::Property;
use super::key_material::{KeyMaterial, KeyOrigin};
use super::log::{LogFormat, LogLevel};
use super::processor::{RetryLimits, Unrouted};
use super::section::Placed;
use super::source::{EnqueueFailure, EventIdMissing, HmacConfig};
use super::{Config, DestinationConfig, RouteConfig, SourceConfig};

impl Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = Page(String::new());
        show_kafka(&mut page, self);
        show_ingest(&mut page, self);
        show_processor(&mut page, self);
        self.sources.iter().for_each(|source| show_source(&mut page, source));
        self.destinations.iter().for_each(|destination| show_destination(&mut page, destination));
        self.routes.iter().for_each(|route| show_route(&mut page, route));
        f.write_str(page.0.trim_start())
    }
}

/// TOML that grows line by line.
struct Page(String);

impl Page {
    fn heading(&mut self, heading: &str) {
        self.line(format_args!("\n{heading}"));
    }

    fn set(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key} = {value}"));
    }

    fn set_text(&mut self, key: &str, value: impl Display) {
        self.set(key, quoted(&value.to_string()));
    }

    fn set_placed(&mut self, key: &str, value: Option<&Placed<String>>) {
        if let Some(placed) = value {
            self.set_text(key, &placed.value);
        }
    }

    fn set_duration(&mut self, key: &str, value: Duration) {
        self.set_text(key, humantime::format_duration(value));
    }

    fn set_list<T: Display>(&mut self, key: &str, values: &[T]) {
        let items: Vec<_> = values.iter().map(|value| quoted(&value.to_string())).collect();
        self.set(key, format_args!("[{}]", items.join(", ")));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("writing to a string does not fail");
    }
}

fn show_kafka(page: &mut Page, config: &Config) {
    let kafka = &config.kafka;
    page.heading("[kafka]");
    page.set_text("bootstrap_servers", &kafka.bootstrap_servers);
    page.set_text("topic_prefix", &kafka.topic_prefix);
    page.set("partitions", kafka.partitions);
    page.set("replication_factor", kafka.replication_factor);
    page.heading("[kafka.retention]");
    page.set_duration("events", kafka.retention.events);
    page.set_duration("retry", kafka.retention.retry);
    page.set_duration("dlq", kafka.retention.dead_letters);
    page.set_duration("quarantine", kafka.retention.quarantine);
    page.set("quarantine_bytes", kafka.retention.quarantine_bytes);
    if !kafka.properties.is_empty() {
        page.heading("[kafka.properties]");
    }
    for (name, property) in &kafka.properties {
        let key = quoted(name);
        match property {
            Property::Plain(_) if sounds_secret(name) => page.set(&key, "\"***\""),
            Property::Plain(value) => page.set_text(&key, value),
            Property::Secret(material) => page.set(&key, shown_material(material)),
        }
    }
}

fn show_ingest(page: &mut Page, config: &Config) {
    let ingest = &config.ingest;
    page.heading("[ingest]");
    page.set_text("listen", ingest.listen);
    page.set_text("admin_listen", ingest.admin_listen);
    page.set("max_body_bytes", ingest.max_body_bytes);
    page.set_list("trusted_proxies", &ingest.trusted_proxies);
    page.set("workers", ingest.workers);
    page.set_duration("read_timeout", ingest.read_timeout);
    page.set_duration("keep_alive", ingest.keep_alive);
    page.set_duration("publish_timeout", ingest.publish_timeout);
    page.set("max_buffered_bytes", ingest.max_buffered_bytes);
    page.set_duration("shutdown_timeout", ingest.shutdown_timeout);
    page.heading("[ingest.spool]");
    if let Some(path) = &ingest.spool.path {
        page.set_text("path", path.display());
    }
    page.set("max_bytes", ingest.spool.max_bytes);
}

fn show_processor(page: &mut Page, config: &Config) {
    let processor = &config.processor;
    page.heading("[processor]");
    page.set_text("group_id", &processor.group_id);
    page.set_text("admin_listen", processor.admin_listen);
    page.set_duration("dedupe_window", processor.dedupe_window);
    page.set_text(
        "unrouted",
        match processor.unrouted {
            Unrouted::DeadLetter => "dead-letter",
            Unrouted::Ignore => "ignore",
        },
    );
    page.set_duration("commit_interval", processor.commit_interval);
    page.set_duration("drain_timeout", processor.drain_timeout);
    page.set("max_lanes", processor.max_lanes);
    page.set("max_concurrency", processor.max_concurrency);
    page.set("flood_guard", processor.flood_guard);
    page.heading("[retry]");
    let tiers: Vec<_> = config.retry.tiers.iter().map(|tier| humantime::format_duration(*tier)).collect();
    page.set_list("tiers", &tiers);
    show_limits(page, config.retry.limits);
    page.heading("[log]");
    page.set_text(
        "level",
        match config.log.level {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        },
    );
    page.set_text(
        "format",
        match config.log.format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        },
    );
}

fn show_source(page: &mut Page, source: &SourceConfig) {
    page.heading("[[sources]]");
    page.set_text("name", &source.name);
    page.set_placed("preset", source.preset.as_ref());
    page.set_placed("token", source.token.as_ref());
    if source.unsigned.is_some() {
        page.set("unsigned", true);
    }
    page.set_placed("client_certificate", source.client_certificate.as_ref());
    let secrets: Vec<_> = source.secrets.iter().map(shown_material).collect();
    page.set("secrets", format_args!("[{}]", secrets.join(", ")));
    if let Some(token) = &source.handshake_token {
        page.set("handshake_token", shown_material(token));
    }
    page.set_placed("keys_url", source.keys_url.as_ref());
    page.set_list("allow_from", &source.allow_from);
    page.set_placed("public_url", source.public_url.as_ref());
    page.set_placed("event_id", source.event_id.as_ref());
    page.set_text(
        "event_id_missing",
        match source.event_id_missing {
            EventIdMissing::Hash => "hash",
            EventIdMissing::Accept => "accept",
            EventIdMissing::Reject => "reject",
        },
    );
    page.set_placed("event_type", source.event_type.as_ref());
    if let Some(headers) = &source.keep_headers {
        page.set_list("keep_headers", headers);
    }
    if let Some(rate) = source.rate_limit {
        page.set("rate_limit", rate);
    }
    page.set_text(
        "on_enqueue_failure",
        match source.on_enqueue_failure {
            EnqueueFailure::Reject => "reject",
            EnqueueFailure::Spool => "spool",
        },
    );
    page.set("quarantine", source.quarantine);
    page.set("quarantine_rate_limit", source.quarantine_rate_limit);
    if let Some(hmac) = &source.hmac {
        show_hmac(page, hmac);
    }
}

fn show_hmac(page: &mut Page, hmac: &HmacConfig) {
    page.heading("[sources.hmac]");
    let words = [
        ("algorithm", &hmac.algorithm),
        ("header", &hmac.header),
        ("parse", &hmac.parse),
        ("encoding", &hmac.encoding),
        ("key", &hmac.key),
        ("content", &hmac.content),
        ("timestamp", &hmac.timestamp),
        ("timestamp_unit", &hmac.timestamp_unit),
    ];
    for (key, word) in words {
        page.set_placed(key, word.as_ref());
    }
    if let Some(tolerance) = &hmac.tolerance {
        page.set_duration("tolerance", tolerance.value);
    }
}

fn show_destination(page: &mut Page, destination: &DestinationConfig) {
    page.heading("[[destinations]]");
    page.set_text("name", &destination.name);
    match &destination.kind {
        DestinationKind::Http { url, signing_secret } => {
            page.set_text("kind", "http");
            page.set_text("url", without_password(url));
            if let Some(material) = signing_secret {
                page.set("signing_secret", shown_material(material));
            }
        }
        DestinationKind::Kafka { topic } => {
            page.set_text("kind", "kafka");
            page.set_text("topic", topic);
        }
        DestinationKind::Log => page.set_text("kind", "log"),
        DestinationKind::Custom => page.set_text("kind", "custom"),
    }
    if destination.kind.is_called() {
        page.set_duration("timeout", destination.calls.timeout);
        page.set("concurrency", destination.calls.concurrency);
        page.heading("[destinations.retry]");
        show_limits(page, destination.limits);
    }
}

fn show_limits(page: &mut Page, limits: RetryLimits) {
    page.set("max_attempts", limits.max_attempts);
    page.set_duration("max_age", limits.max_age);
    page.set("jitter", format_args!("{:?}", limits.jitter));
}

fn show_route(page: &mut Page, route: &RouteConfig) {
    page.heading("[[routes]]");
    page.set_text("source", route.source.as_ref().map_or("*", |name| name.as_str()));
    if let Some(types) = &route.types {
        page.set_list("types", types);
    }
    page.set_list("to", &route.to);
}

fn shown_material(material: &KeyMaterial) -> String {
    let id = material.id.as_ref().map_or(String::new(), |id| format!(", id = {}", quoted(id)));
    match &material.origin {
        KeyOrigin::Variable(name) => format!("{{ env = {}{id} }}", quoted(name)),
        KeyOrigin::File(path) => format!("{{ file = {}{id} }}", quoted(&path.to_string_lossy())),
        KeyOrigin::Published => format!("{{ fetched = true{id} }}"),
    }
}

fn without_password(url: &url::Url) -> url::Url {
    let mut shown = url.clone();
    if shown.password().is_some() {
        // Fails only for URLs that cannot have a password, which this one has.
        shown.set_password(Some("***")).ok();
    }
    shown
}

fn sounds_secret(property: &str) -> bool {
    ["password", "secret", "key.pem", "jaas", "token"].iter().any(|word| property.contains(word))
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
