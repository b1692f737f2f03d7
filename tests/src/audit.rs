//! The auditor's judgement of a stage, without the ledgers that most tests do not keep.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use anyhow::Result;
use hookwell_auditor::collect::look;
use hookwell_auditor::evidence::{Call, Fault, Route, Run};
use hookwell_auditor::judge;
use hookwell_auditor::names::{DeliveryKey, EventKey};
use hookwell_auditor::record::{Content, Role};
use hookwell_auditor::state::State;
use hookwell_auditor::verdict::{Breach, Verdict};

pub use hookwell_auditor::state::Status;

use crate::reader::Reader;

/// Sources and ids of events.
pub type Events = BTreeSet<(String, String)>;

/// The check that holds at rest only.
const AT_REST: u8 = 5;

/// What became of all events.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Distinct events on the events topic.
    pub events: usize,
    /// Deliveries that ended done.
    pub done: usize,
    /// Deliveries that ended dead.
    pub dead: usize,
    /// Events that heard a 200 and are not on the events topic.
    pub lost: Vec<(String, String)>,
    /// How many deliveries with an event on the topic have no terminal state.
    pub untold: usize,
    /// How many were settled, or laid among the dead, twice in one generation.
    pub doubled: usize,
    verdict: Verdict,
}

impl Audit {
    /// Judges what lies on the topics of `run`. Each of `accepted` heard a 200.
    pub fn of(run: Run, accepted: &Events) -> Result<Self> {
        let evidence = look(run)?;
        let mut there = HashSet::new();
        for (topic, records) in &evidence.topics {
            if Role::of(topic, &evidence.run.prefix) == Role::Events {
                there.extend(records.iter().filter_map(|record| match &record.content {
                    Content::Event(event) => Some(event.key()),
                    Content::Unreadable(_) | Content::State(..) | Content::Aside => None,
                }));
            }
        }
        let is_lost = |(source, id): &&(String, String)| !there.contains(&EventKey::of(source, id));
        let lost = accepted.iter().filter(is_lost).cloned().collect();
        let verdict = judge(&evidence);
        let counted = |name| verdict.counted(name) as usize;
        let found = |breach| verdict.found(breach) as usize;
        Ok(Self {
            events: counted("events"),
            done: counted("done"),
            dead: counted("dead"),
            lost,
            untold: found(Breach::NoEnd),
            doubled: found(Breach::SettledTwice) + found(Breach::BuriedTwice),
            verdict,
        })
    }

    /// Whether all that was accepted has ended.
    pub fn is_settled(&self) -> bool {
        self.lost.is_empty() && self.untold == 0
    }

    /// Whether every promise was kept but those that hold at rest only.
    pub fn is_clean(&self) -> bool {
        let mut checks = self.verdict.checks.iter().filter(|check| check.number != AT_REST);
        self.lost.is_empty() && checks.all(|check| check.breaches.is_empty())
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, done, dead, lost, untold, doubled, verdict } = self;
        let some: Vec<_> = lost.iter().take(3).collect();
        write!(f, "{events} events, {done} done, {dead} dead; lost {} {some:?}, ", lost.len())?;
        write!(f, "without an end {untold}, settled twice {doubled}")?;
        let found = verdict.violations().filter(|violation| violation.check != AT_REST);
        found.take(5).try_for_each(|violation| write!(f, "; {violation}"))
    }
}

/// A run of which no more is known than where its topics lie, and that every event goes to
/// `destinations`.
pub fn run(reader: &Reader, prefix: &str, group: &str, destinations: &[&str]) -> Run {
    Run {
        bootstrap_servers: reader.bootstrap_servers().to_owned(),
        prefix: prefix.to_owned(),
        group: group.to_owned(),
        tiers: Vec::new(),
        skew_ms: 0,
        grace_ms: 0,
        dedupe_window_ms: u64::MAX,
        destinations: Vec::new(),
        routes: vec![Route {
            source: "*".into(),
            to: destinations.iter().map(|name| (*name).into()).collect(),
            sometimes: false,
        }],
    }
}

/// What is found on the topics of `run` at rest, given what the handler was asked and what was broken.
pub fn with_ledgers(run: Run, calls: Vec<Call>, faults: Vec<Fault>) -> Result<Vec<String>> {
    let mut evidence = look(run)?;
    evidence.calls = Some(calls);
    evidence.faults = faults;
    let verdict = judge(&evidence);
    let found = verdict.violations().filter(|violation| violation.check != AT_REST);
    Ok(found.take(5).map(|violation| violation.to_string()).collect())
}

/// What the state topic says of each delivery.
#[derive(Clone, Debug, Default)]
pub struct States(HashMap<DeliveryKey, State>);

impl States {
    /// Reads the state topic under `prefix`.
    pub fn read(reader: &Reader, prefix: &str) -> Result<Self> {
        let mut states = HashMap::new();
        for record in reader.read(&format!("{prefix}.state"))? {
            let Ok(key) = <[u8; 16]>::try_from(record.key.as_slice()) else { continue };
            states.extend(State::read(&record.value)?.map(|state| (DeliveryKey(key), state)));
        }
        Ok(Self(states))
    }

    /// What was decided last of the delivery of event `id` of `source` to `destination`.
    pub fn status(&self, source: &str, id: &str, destination: &str) -> Option<Status> {
        self.0.get(&DeliveryKey::of(source, id, destination)).map(|state| state.status)
    }
}
