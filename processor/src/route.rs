//! Event to destinations.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use hookwell_common::config::{Config, DestinationKind, Unrouted};
use smallvec::SmallVec;
use wildmatch::WildMatch;

use crate::retry::RetryPolicy;

/// Where events go, as configured now. Swapped whole on a reload.
#[derive(Debug)]
pub struct Plan {
    destinations: HashMap<ByteString, Arc<Destination>>,
    routes: Vec<Route>,
    unrouted: Unrouted,
    longest_tier: Duration,
}

/// A destination, as far as decisions need it.
#[derive(Debug)]
pub struct Destination {
    /// Its name.
    pub name: ByteString,
    /// What delivering means.
    pub kind: Kind,
    /// How often it is tried.
    pub policy: RetryPolicy,
}

/// What delivering means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A handler is called, and may fail.
    Call,
    /// A record joins the transaction.
    Kafka {
        /// The topic's full name.
        topic: String,
    },
    /// A log line is written once the transaction is committed.
    Log,
}

#[derive(Debug)]
struct Route {
    source: Option<ByteString>,
    types: Option<Vec<WildMatch>>,
    to: Vec<Arc<Destination>>,
}

/// The destinations of one event; most have one or two.
pub type Destinations = SmallVec<[Arc<Destination>; 2]>;

impl Plan {
    /// The plan of a configuration without faults.
    pub fn new(config: &Config) -> Self {
        let destination = |destination: &hookwell_common::config::DestinationConfig| {
            let name = ByteString::from(destination.name.as_str());
            let kind = match &destination.kind {
                DestinationKind::Http { .. } | DestinationKind::Custom => Kind::Call,
                DestinationKind::Kafka { topic } => Kind::Kafka { topic: topic.clone() },
                DestinationKind::Log => Kind::Log,
            };
            let policy = RetryPolicy { tiers: config.retry.tiers.clone(), limits: destination.limits };
            (name.clone(), Arc::new(Destination { name, kind, policy }))
        };
        let destinations: HashMap<_, _> = config.destinations.iter().map(destination).collect();
        let route = |route: &hookwell_common::config::RouteConfig| Route {
            source: route.source.as_ref().map(|name| ByteString::from(name.as_str())),
            types: route
                .types
                .as_ref()
                .map(|types| types.iter().map(|pattern| WildMatch::new(pattern)).collect()),
            to: route.to.iter().filter_map(|name| destinations.get(name.as_str()).cloned()).collect(),
        };
        Self {
            routes: config.routes.iter().map(route).collect(),
            unrouted: config.processor.unrouted,
            longest_tier: config.retry.tiers.last().copied().unwrap_or_default(),
            destinations,
        }
    }

    /// The destinations of an event, each once, in the order of the routes.
    pub fn destinations_of(&self, source: &str, kind: &str) -> Destinations {
        let mut found = Destinations::new();
        for route in self.routes.iter().filter(|route| route.matches(source, kind)) {
            for destination in &route.to {
                if !found.iter().any(|known| known.name == destination.name) {
                    found.push(Arc::clone(destination));
                }
            }
        }
        found
    }

    /// The destination called `name`.
    pub fn destination(&self, name: &str) -> Option<&Arc<Destination>> {
        self.destinations.get(name)
    }

    /// What becomes of an event that no route names.
    pub fn unrouted(&self) -> Unrouted {
        self.unrouted
    }

    /// The longest delay that is configured.
    pub fn longest_tier(&self) -> Duration {
        self.longest_tier
    }
}

impl Route {
    fn matches(&self, source: &str, kind: &str) -> bool {
        self.source.as_ref().is_none_or(|wanted| &**wanted == source)
            && self.types.as_ref().is_none_or(|types| types.iter().any(|pattern| pattern.matches(kind)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use hookwell_common::config::{Environment, Faults};

    use super::*;

    pub(crate) fn plan(text: &str) -> Plan {
        let mut faults = Faults::default();
        let config = Config::parse(Path::new("test.toml"), text, &Environment::default(), &mut faults);
        Plan::new(&faults.into_result(config).unwrap())
    }

    const CONFIG: &str = r#"
[[sources]]
name = "github"
[[sources]]
name = "stripe"
[[destinations]]
name = "orders"
kind = "http"
url = "http://localhost/"
[[destinations]]
name = "mirror"
kind = "log"
[[routes]]
source = "*"
to = ["mirror"]
[[routes]]
source = "github"
types = ["push", "pull_request.*"]
to = ["orders", "mirror"]
"#;

    fn routed(source: &str, kind: &str) -> Vec<String> {
        plan(CONFIG)
            .destinations_of(source, kind)
            .iter()
            .map(|destination| destination.name.to_string())
            .collect()
    }

    #[test]
    fn every_matching_route_counts_and_each_destination_once() {
        assert_eq!(routed("github", "push"), ["mirror", "orders"]);
        assert_eq!(routed("github", "pull_request.opened"), ["mirror", "orders"]);
        assert_eq!(routed("github", "pull_request_review"), ["mirror"]);
        assert_eq!(routed("stripe", "push"), ["mirror"]);
    }

    #[test]
    fn what_no_route_names_goes_nowhere() {
        let plan = plan(&CONFIG.replace("source = \"*\"", "source = \"stripe\""));
        assert!(plan.destinations_of("github", "issues").is_empty());
        assert!(plan.destinations_of("gitlab", "push").is_empty());
    }
}
