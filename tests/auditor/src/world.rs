//! The evidence, sorted so that each check finds what it asks for.

use std::collections::{HashMap, HashSet};

use crate::evidence::{Call, Destination, Ends, Evidence, Kind};
use crate::names::{DeliveryKey, EventKey, Name};
use crate::record::{Content, Event, Record, Role, Value};
use crate::state::{State, Status};
use crate::verdict::Violation;

/// The evidence, by what it is about.
pub(crate) struct World<'e> {
    pub(crate) evidence: &'e Evidence,
    /// Every event on the events topic, once.
    pub(crate) accepted: Vec<Accepted<'e>>,
    accepted_at: HashMap<EventKey, usize>,
    /// Every delivery that there may be: those that routes name, and those that replays and retries
    /// name.
    pub(crate) deliveries: Vec<Delivery<'e>>,
    deliveries_at: HashMap<DeliveryKey, usize>,
    /// State records, oldest first.
    pub(crate) states: Grouped<(&'e Record, &'e Value)>,
    /// Records of the retry topics.
    pub(crate) retries: Grouped<Placed<'e>>,
    /// Dead letters that can be read.
    pub(crate) dead_letters: Grouped<Placed<'e>>,
    /// Replays on the events topic.
    pub(crate) replays: Grouped<Placed<'e>>,
    /// Calls, by generation and by when they came.
    pub(crate) calls: Grouped<&'e Call>,
    /// Records of the events and retry topics that cannot be read.
    pub(crate) unreadable: Vec<Unreadable<'e>>,
    /// The destinations of each source that has events, and whether each is owed.
    routes: HashMap<&'e str, Vec<(&'e str, bool)>>,
}

/// An event on the events topic.
#[derive(Clone, Copy)]
pub(crate) struct Accepted<'e> {
    pub(crate) event: &'e Event,
    /// The first record of that event.
    pub(crate) first: &'e Record,
}

/// What an event owes to a destination.
#[derive(Clone, Copy)]
pub(crate) struct Delivery<'e> {
    pub(crate) key: DeliveryKey,
    pub(crate) accepted: Accepted<'e>,
    /// Empty where no route names one.
    pub(crate) name: &'e str,
    /// What is known of the destination.
    pub(crate) destination: Option<&'e Destination>,
    /// Whether routes name it.
    pub(crate) is_owed: bool,
}

/// A record that says something of an event, and where it lies.
#[derive(Clone, Copy)]
pub(crate) struct Placed<'e> {
    pub(crate) topic: &'e Name,
    pub(crate) record: &'e Record,
    pub(crate) event: &'e Event,
}

/// A record that cannot be read, and where it lies.
#[derive(Clone, Copy)]
pub(crate) struct Unreadable<'e> {
    pub(crate) topic: &'e Name,
    pub(crate) record: &'e Record,
    /// The key of its state.
    pub(crate) key: DeliveryKey,
}

/// Things by the delivery that they are about, in a given order for each.
pub(crate) struct Grouped<T>(Vec<(DeliveryKey, T)>);

impl<T> Grouped<T> {
    fn new(mut things: Vec<(DeliveryKey, T)>) -> Self {
        things.sort_by_key(|(key, _)| *key);
        Self(things)
    }

    /// What is about `key`.
    pub(crate) fn of(&self, key: &DeliveryKey) -> impl DoubleEndedIterator<Item = &T> + Clone {
        let begin = self.0.partition_point(|(known, _)| known < key);
        let length = self.0[begin..].partition_point(|(known, _)| known == key);
        self.0[begin..begin + length].iter().map(|(_, thing)| thing)
    }

    /// Everything, a delivery at a time.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (DeliveryKey, &[(DeliveryKey, T)])> {
        self.0.chunk_by(|one, other| one.0 == other.0).map(|group| (group[0].0, group))
    }

    /// Everything.
    pub(crate) fn all(&self) -> impl Iterator<Item = &(DeliveryKey, T)> {
        self.0.iter()
    }
}

impl<'e> World<'e> {
    pub(crate) fn new(evidence: &'e Evidence) -> Self {
        let mut world = Self {
            evidence,
            accepted: Vec::new(),
            accepted_at: HashMap::new(),
            deliveries: Vec::new(),
            deliveries_at: HashMap::new(),
            states: Grouped::new(Vec::new()),
            retries: Grouped::new(Vec::new()),
            dead_letters: Grouped::new(Vec::new()),
            replays: Grouped::new(Vec::new()),
            calls: Grouped::new(Vec::new()),
            unreadable: Vec::new(),
            routes: HashMap::new(),
        };
        world.sort_topics();
        world.sort_calls();
        world.list_deliveries();
        world
    }

    fn sort_topics(&mut self) {
        let (mut states, mut retries, mut dead, mut replays) = (vec![], vec![], vec![], vec![]);
        for (topic, role, record) in self.records() {
            let tier = match role {
                Role::Events => Some(0),
                Role::Retry(tier) => Some(tier),
                Role::Dead | Role::State | Role::Forward => None,
            };
            match (&record.content, role, tier) {
                (Content::State(key, value), ..) => states.push((*key, (record, value))),
                (Content::Event(event), role, _) => {
                    let placed = Placed { topic, record, event };
                    match role {
                        Role::Events => {
                            self.accept(event, record);
                            if is_replay(event) {
                                replays.push((event.delivery(), placed));
                            }
                        }
                        Role::Retry(_) => retries.push((event.delivery(), placed)),
                        Role::Dead => dead.push((event.delivery(), placed)),
                        Role::State | Role::Forward => {}
                    }
                }
                (Content::Unreadable(_), _, Some(tier)) => {
                    let key = DeliveryKey::of_unreadable(tier, record.partition, record.offset);
                    self.unreadable.push(Unreadable { topic, record, key });
                }
                (Content::Unreadable(_) | Content::Aside, ..) => {}
            }
        }
        self.states = Grouped::new(states);
        self.retries = Grouped::new(retries);
        self.dead_letters = Grouped::new(dead);
        self.replays = Grouped::new(replays);
    }

    fn accept(&mut self, event: &'e Event, record: &'e Record) {
        let number = self.accepted.len();
        let known = *self.accepted_at.entry(event.key()).or_insert(number);
        if known == number {
            self.accepted.push(Accepted { event, first: record });
        } else if record.offset < self.accepted[known].first.offset {
            // Only where copies lie on different partitions, which is told elsewhere.
            self.accepted[known] = Accepted { event, first: record };
        }
    }

    fn sort_calls(&mut self) {
        let calls = self.evidence.calls.iter().flatten();
        let mut calls: Vec<_> =
            calls.map(|call| (DeliveryKey::of(&call.source, &call.id, &call.destination), call)).collect();
        calls.sort_by_key(|(_, call)| (call.generation, call.at));
        self.calls = Grouped::new(calls);
    }

    fn list_deliveries(&mut self) {
        let run = &self.evidence.run;
        for index in 0..self.accepted.len() {
            let accepted = self.accepted[index];
            let source = &*accepted.event.source;
            let names = self.routes.entry(source).or_insert_with(|| routed(self.evidence, source)).clone();
            for (name, is_owed) in names {
                let destination = run.destinations.iter().find(|known| *known.name == *name);
                let key = DeliveryKey::of(source, &accepted.event.id, name);
                self.add_delivery(Delivery { key, accepted, name, destination, is_owed });
            }
        }
        let named: Vec<_> = self.replays.all().chain(self.retries.all()).copied().collect();
        for (key, placed) in named {
            let Some(accepted) = self.accepted_of(&placed.event.key()) else { continue };
            let name = placed.event.destination();
            let destination = run.destinations.iter().find(|known| *known.name == *name);
            self.add_delivery(Delivery { key, accepted, name, destination, is_owed: false });
        }
    }

    fn add_delivery(&mut self, delivery: Delivery<'e>) {
        let number = self.deliveries.len();
        if *self.deliveries_at.entry(delivery.key).or_insert(number) == number {
            self.deliveries.push(delivery);
        }
    }

    /// Every record, with its topic.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&'e Name, Role, &'e Record)> + use<'e> {
        let evidence = self.evidence;
        evidence.topics.iter().flat_map(move |(topic, records)| {
            let role = Role::of(topic, &evidence.run.prefix);
            records.iter().map(move |record| (topic, role, record))
        })
    }

    /// Where the partitions of topics begin and end that are there for what `is_meant` says.
    pub(crate) fn ends(&self, is_meant: impl Fn(Role) -> bool) -> impl Iterator<Item = &'e Ends> {
        let prefix = &self.evidence.run.prefix;
        self.evidence.ends.iter().filter(move |ends| is_meant(Role::of(&ends.topic, prefix)))
    }

    /// The destinations that routes name for a source; one without a name where they name none.
    pub(crate) fn owed(&self, source: &str) -> impl Iterator<Item = &'e str> {
        let routes = self.routes.get(source).into_iter().flatten();
        routes.filter(|(_, is_owed)| *is_owed).map(|(name, _)| *name)
    }

    /// The event with that key, if it lies on the events topic.
    pub(crate) fn accepted_of(&self, key: &EventKey) -> Option<Accepted<'e>> {
        self.accepted_at.get(key).map(|index| self.accepted[*index])
    }

    /// The delivery with that key, if there may be one.
    pub(crate) fn delivery(&self, key: &DeliveryKey) -> Option<Delivery<'e>> {
        self.deliveries_at.get(key).map(|index| self.deliveries[*index])
    }

    /// What was decided of a delivery, oldest first.
    pub(crate) fn history(&self, key: &DeliveryKey) -> impl DoubleEndedIterator<Item = &'e State> + Clone {
        self.states.of(key).filter_map(|(_, value)| match value {
            Value::State(state) => Some(state),
            Value::Ended | Value::Unreadable(_) => None,
        })
    }

    /// What the topic says of a delivery now.
    pub(crate) fn state(&self, key: &DeliveryKey) -> Option<&'e State> {
        match self.states.of(key).next_back()? {
            (_, Value::State(state)) => Some(state),
            (_, Value::Ended | Value::Unreadable(_)) => None,
        }
    }

    /// The generations in which a delivery came to `status`, each once.
    pub(crate) fn generations(&self, key: &DeliveryKey, status: Status) -> Vec<u16> {
        let mut found: Vec<_> =
            self.history(key).filter(|state| state.status == status).map(|state| state.generation).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether a fault that calls feel was under way between two moments, both included.
    pub(crate) fn is_fault_between(&self, from: u64, to: u64) -> bool {
        self.faults_between(from, to).any(|fault| fault.disturbs_calls)
    }

    /// By how much two clocks may differ between two moments, milliseconds.
    pub(crate) fn skew_between(&self, from: u64, to: u64) -> u64 {
        let by_faults = self.faults_between(from, to).map(|fault| fault.skew_ms).max();
        self.evidence.run.skew_ms + by_faults.unwrap_or(0)
    }

    fn faults_between(&self, from: u64, to: u64) -> impl Iterator<Item = &'e crate::evidence::Fault> {
        let grace = self.evidence.run.grace_ms;
        self.evidence.faults.iter().filter(move |fault| {
            let end = fault.end.max(fault.recovered.unwrap_or(0)).saturating_add(grace);
            fault.begin <= to && from <= end
        })
    }
}

impl Delivery<'_> {
    /// Whether a handler with a ledger is called for it.
    pub(crate) fn is_called(&self) -> bool {
        self.destination.is_some_and(|destination| match destination.kind {
            Kind::Http => true,
            Kind::Kafka | Kind::Log => false,
        })
    }

    /// `violation`, of this delivery.
    pub(crate) fn name(&self, violation: Violation) -> Violation {
        violation.of(&self.accepted.event.source, &self.accepted.event.id).to(self.name)
    }
}

/// Whether a record of the events topic was put there by a replay.
pub(crate) fn is_replay(event: &Event) -> bool {
    event.generation() > 0 || !event.destination().is_empty()
}

/// The destinations that routes name for a source, each once, and whether each is owed; an empty one
/// where they name none.
fn routed<'e>(evidence: &'e Evidence, source: &str) -> Vec<(&'e str, bool)> {
    let is_for = |name: &str| name == "*" || name == source;
    let routes = evidence.run.routes.iter().filter(|route| is_for(&route.source));
    let (passing, lasting): (Vec<_>, Vec<_>) = routes.partition(|route| route.sometimes);
    let mut known = HashSet::new();
    let mut found = Vec::new();
    for (routes, is_owed) in [(lasting, true), (passing, false)] {
        let names = routes.into_iter().flat_map(|route| &route.to).map(|name| &**name);
        found.extend(names.filter(|name| known.insert(*name)).map(|name| (name, is_owed)));
    }
    if found.is_empty() {
        found.push(("", true));
    }
    found
}
