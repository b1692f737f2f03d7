//! Counts what was lost, settled twice, or never settled, from nothing but the topics and a list of
//! what was accepted. Shares no code with the programs: formats are read as `docs/topics.md` says.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use anyhow::{Result, bail, ensure};

use crate::reader::{Reader, Record};

/// What became of all events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Distinct events on the events topic.
    pub events: usize,
    /// Deliveries that ended done.
    pub done: usize,
    /// Deliveries that ended dead.
    pub dead: usize,
    /// Events that heard a 200 and are not on the events topic.
    pub lost: Vec<(String, String)>,
    /// Deliveries with an event on the topic, and no terminal state.
    pub untold: Vec<(String, String)>,
    /// Deliveries that were settled, or laid among the dead, twice in one generation.
    pub doubled: Vec<(String, String)>,
}

impl Audit {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.untold.is_empty() && self.doubled.is_empty()
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = |what: &[(String, String)]| what.iter().take(3).cloned().collect::<Vec<_>>();
        write!(
            f,
            "{} events, {} done, {} dead; lost {} {:?}, untold {} {:?}, doubled {} {:?}",
            self.events,
            self.done,
            self.dead,
            self.lost.len(),
            first(&self.lost),
            self.untold.len(),
            first(&self.untold),
            self.doubled.len(),
            first(&self.doubled)
        )
    }
}

/// What a state record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    status: Status,
    generation: u16,
}

/// How far a delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It will be tried again.
    Retrying,
    /// It is delivered.
    Done,
    /// It lies among the dead letters.
    Dead,
}

/// Judges the topics under `prefix`. Each of `accepted` (source and id) heard a 200; each event
/// owes a terminal state to the destinations that `destinations` names for its source.
pub fn audit(
    reader: &Reader,
    prefix: &str,
    accepted: &BTreeSet<(String, String)>,
    destinations: impl Fn(&str) -> Vec<String>,
) -> Result<Audit> {
    let events: BTreeSet<_> = reader.read(&format!("{prefix}.events"))?.iter().map(Record::event).collect();
    let history = History::read(reader, prefix)?;
    let dead_letters = reader.read(&format!("{prefix}.dlq"))?;

    let mut audit = Audit { events: events.len(), ..Audit::default() };
    audit.lost = accepted.difference(&events).cloned().collect();
    for event in &events {
        for destination in destinations(&event.0) {
            match history.status(&event.0, &event.1, &destination) {
                Some(Status::Done) => audit.done += 1,
                Some(Status::Dead) => audit.dead += 1,
                Some(Status::Retrying) | None => audit.untold.push(event.clone()),
            }
            if history.is_settled_twice(&event.0, &event.1, &destination) {
                audit.doubled.push(event.clone());
            }
        }
    }
    audit.doubled.extend(buried_twice(&dead_letters));
    Ok(audit)
}

/// All states of each delivery, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History(HashMap<[u8; 16], Vec<State>>);

impl History {
    /// Reads the state topic under `prefix`.
    pub fn read(reader: &Reader, prefix: &str) -> Result<Self> {
        let mut histories: HashMap<[u8; 16], Vec<State>> = HashMap::new();
        for record in reader.read(&format!("{prefix}.state"))? {
            let Ok(key) = <[u8; 16]>::try_from(record.key.as_slice()) else { continue };
            histories.entry(key).or_default().push(state(&record)?);
        }
        Ok(Self(histories))
    }

    /// What was decided last of the delivery of event `id` of `source` to `destination`.
    pub fn status(&self, source: &str, id: &str, destination: &str) -> Option<Status> {
        self.states(source, id, destination).last().map(|state| state.status)
    }

    /// Whether that delivery was settled twice in one generation.
    pub fn is_settled_twice(&self, source: &str, id: &str, destination: &str) -> bool {
        settled_twice(self.states(source, id, destination))
    }

    fn states(&self, source: &str, id: &str, destination: &str) -> &[State] {
        self.0.get(&state_key(source, id, destination)).map_or(&[], Vec::as_slice)
    }
}

fn state(record: &Record) -> Result<State> {
    let value = &record.value;
    ensure!(value.len() >= 22 && value[0] == 1, "a strange state record: {record:?}");
    let status = match value[1] {
        1 => Status::Retrying,
        2 => Status::Done,
        3 => Status::Dead,
        other => bail!("a strange status, {other}, in {record:?}"),
    };
    Ok(State { status, generation: u16::from_be_bytes([value[2], value[3]]) })
}

/// A terminal state may be written again, which refreshes it and changes nothing; within one
/// generation it may not follow another that was decided anew, and nothing may follow it.
fn settled_twice(states: &[State]) -> bool {
    let mut terminal: BTreeSet<u16> = BTreeSet::new();
    states.iter().any(|state| {
        let is_late = terminal.contains(&state.generation);
        if state.status != Status::Retrying {
            terminal.insert(state.generation);
        }
        is_late
    })
}

fn buried_twice(dead_letters: &[Record]) -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    let place = |record: &Record| {
        (record.event(), record.header("hookwell-destination"), record.header("hookwell-generation"))
    };
    let again =
        dead_letters.iter().filter(|record| !record.event().1.is_empty() && !seen.insert(place(record)));
    again.map(Record::event).collect()
}

/// The key of a state record: BLAKE3-128 of source, id and destination, each after its length.
fn state_key(source: &str, id: &str, destination: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in [source, id, destination] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::{State, Status, settled_twice};

    fn state(status: Status, generation: u16) -> State {
        State { status, generation }
    }

    #[test]
    fn one_end_in_each_generation_is_none_too_many() {
        assert!(!settled_twice(&[
            state(Status::Retrying, 0),
            state(Status::Retrying, 0),
            state(Status::Dead, 0),
            state(Status::Done, 1)
        ]));
    }

    #[test]
    fn a_second_end_in_a_generation_is_found() {
        assert!(settled_twice(&[state(Status::Done, 0), state(Status::Done, 0)]));
        assert!(settled_twice(&[state(Status::Dead, 0), state(Status::Retrying, 0)]));
    }
}
