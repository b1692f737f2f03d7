//! State records, read as `docs/topics.md` says.

use anyhow::{Context as _, Result, bail, ensure};

/// What the state topic says of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// What was decided last.
    pub status: Status,
    /// How often the delivery was replayed.
    pub generation: u16,
    /// When it was first seen, milliseconds since the epoch.
    pub first_seen: u64,
    /// When this was written, milliseconds since the epoch.
    pub updated: u64,
    /// Its newest dead letter.
    pub burial: Option<Box<Burial>>,
}

/// What was decided last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// This attempt is due next.
    Retrying(u16),
    /// It is delivered.
    Done,
    /// It lies among the dead letters.
    Dead,
}

/// A dead letter, as its state remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burial {
    /// When it was written, milliseconds since the epoch.
    pub at: u64,
    /// The number of its reason.
    pub reason: u8,
    /// The event's source.
    pub source: String,
    /// The destination.
    pub destination: String,
}

const SECOND: u64 = 1000;

impl State {
    /// Reads the value of a state record; `None` for one that ends what was known.
    pub fn read(value: &[u8]) -> Result<Option<Self>> {
        if value.is_empty() {
            return Ok(None);
        }
        let mut rest = Bytes(value);
        let version = rest.number(1)?;
        ensure!(version == 1, "version {version}");
        let (status, generation) = (rest.number(1)?, rest.number(2)?);
        let next = u16::try_from(rest.number(2)?)?;
        let status = match status {
            1 => Status::Retrying(next),
            2 => Status::Done,
            3 => Status::Dead,
            other => bail!("status {other}"),
        };
        let (first_seen, updated) = (rest.number(8)?, rest.number(8)?);
        let burial = if rest.0.is_empty() { None } else { Some(Box::new(rest.burial()?)) };
        ensure!(rest.0.is_empty(), "{} bytes too many", rest.0.len());
        Ok(Some(Self { status, generation: u16::try_from(generation)?, first_seen, updated, burial }))
    }

    /// Whether nothing is left to be done in this generation.
    pub fn is_terminal(&self) -> bool {
        match self.status {
            Status::Retrying(_) => false,
            Status::Done | Status::Dead => true,
        }
    }

    /// Whether `next` is this one, written again so that it does not expire: only what has a dead
    /// letter is.
    pub fn is_refreshed_by(&self, next: &State) -> bool {
        let (Some(burial), Some(again)) = (&self.burial, &next.burial) else { return false };
        let is_moment = |before: u64, after: u64| after == before || after == before.next_multiple_of(SECOND);
        self.status == next.status
            && self.generation == next.generation
            && is_moment(self.first_seen, next.first_seen)
            && is_moment(burial.at, again.at)
            && (burial.reason, &burial.source, &burial.destination)
                == (again.reason, &again.source, &again.destination)
    }
}

/// What is left of a value.
struct Bytes<'v>(&'v [u8]);

impl Bytes<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("it is too short")?;
        self.0 = rest;
        Ok(taken)
    }

    /// An unsigned number of that many bytes, big-endian.
    fn number(&mut self, bytes: usize) -> Result<u64> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(&mut self) -> Result<String> {
        let length = usize::try_from(self.number(2)?)?;
        Ok(String::from_utf8(self.take(length)?.to_vec())?)
    }

    fn burial(&mut self) -> Result<Burial> {
        let (at, reason) = (self.number(8)?, u8::try_from(self.number(1)?)?);
        Ok(Burial { at, reason, source: self.text()?, destination: self.text()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_THE_PAGE: &str =
        "01030001000 0000001a20cc88b13000001a20cc88b60000001a20cc88b600500066769746875620 0066f7264657273";

    #[test]
    fn the_example_of_the_page_is_read() {
        let value = hex::decode(OF_THE_PAGE.replace(' ', "")).unwrap();
        let state = State::read(&value).unwrap().unwrap();
        assert_eq!((state.status, state.generation), (Status::Dead, 1));
        let burial = state.burial.as_ref().unwrap();
        assert_eq!((burial.reason, &*burial.source, &*burial.destination), (5, "github", "orders"));
        assert_eq!(burial.at, state.updated);
        assert!(State::read(&value[..25]).is_err());
        assert!(State::read(&[&value[..], &[0]].concat()).is_err());
    }

    #[test]
    fn only_what_has_a_dead_letter_is_written_again() {
        let burial = Burial { at: 1_234, reason: 4, source: "a".into(), destination: "b".into() };
        let dead = State {
            status: Status::Dead,
            generation: 0,
            first_seen: 1_001,
            updated: 1_234,
            burial: Some(Box::new(burial.clone())),
        };
        let again = State { first_seen: 2_000, updated: 9_000, ..dead.clone() };
        assert!(dead.is_refreshed_by(&again));
        assert!(!dead.is_refreshed_by(&State { status: Status::Done, ..again.clone() }));
        let other = Burial { at: 1_300, ..burial };
        assert!(!dead.is_refreshed_by(&State { burial: Some(Box::new(other)), ..again }));
        let done = State { status: Status::Done, burial: None, ..dead };
        assert!(!done.is_refreshed_by(&done));
    }
}
