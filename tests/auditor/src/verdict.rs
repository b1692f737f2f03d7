//! What the checks found, and how it is told.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::names::Name;
use crate::record::{Event, Record};

/// The seven checks.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Whether every promise was kept.
    pub kept: bool,
    /// One report a check, in their order.
    pub checks: Vec<Report>,
}

/// What one check looked at, and found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// From 1 to 7.
    pub number: u8,
    /// What it asks.
    pub name: &'static str,
    /// How many things it looked at.
    pub looked_at: u64,
    /// What it counted, by name, in the order in which it did.
    pub counts: Vec<(&'static str, u64)>,
    /// How many violations of each kind it found.
    pub breaches: BTreeMap<Breach, u64>,
    /// The first of them.
    pub violations: Vec<Violation>,
}

/// A promise that was not kept, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The number of the check.
    pub check: u8,
    /// What is wrong.
    pub breach: Breach,
    /// Of which source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of which event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// At which destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// In which generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u16>,
    /// At which attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u16>,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What was expected, and what was found.
    pub expected: String,
}

/// Where a record lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset; absent for the partition as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

/// Every way in which a promise can be broken, with its check and its words.
macro_rules! breaches {
    ($($check:literal { $($(#[$doc:meta])* $name:ident = $words:literal,)+ })+) => {
        /// What is wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Breach {
            $($($(#[$doc])* $name,)+)+
        }

        impl Breach {
            /// All of them.
            pub const ALL: &[Breach] = &[$($(Breach::$name,)+)+];

            /// The number of the check that finds it.
            pub fn check(self) -> u8 {
                match self { $($(Breach::$name => $check,)+)+ }
            }

            /// In words.
            pub fn words(self) -> &'static str {
                match self { $($(Breach::$name => $words,)+)+ }
            }
        }
    };
}

breaches! {
    1 {
        /// An event heard a 200 and is not on the events topic.
        Lost = "lost",
        /// A delivery has no end.
        NoEnd = "without an end",
        /// A state of something that is not on the events topic.
        Stray = "a state of nothing",
        /// A body is not that of the first record.
        OtherBody = "another body",
        /// An event that nobody sent, or with a body that nobody sent under its id.
        NeverSent = "never sent",
        /// A record lies on a partition that is not its event's.
        WrongPartition = "on the wrong partition",
        /// A record names an origin that is not where its event was accepted.
        WrongOrigin = "another origin",
    }
    2 {
        /// Something followed an end in its generation, or a state went back.
        SettledTwice = "settled twice",
        /// A state has a lower generation than the one before it.
        GenerationFell = "the generation went down",
        /// A generation began that no replay asked for.
        NoReplay = "a generation without a replay",
        /// A state record that cannot be read.
        UnreadableState = "a state that cannot be read",
        /// Two dead letters in one generation.
        BuriedTwice = "buried twice",
        /// A generation ended dead without a dead letter.
        NoDeadLetter = "dead without a dead letter",
        /// A dead letter of a delivery that is not dead.
        NotDead = "a dead letter of what is not dead",
        /// More or fewer records on a destination's topic than deliveries that ended done.
        Forwarded = "not forwarded once",
    }
    3 {
        /// A delivery ended done and no call succeeded.
        DoneUncalled = "done without a call that succeeded",
        /// A delivery is dead although a call of it succeeded.
        DeadAfterSuccess = "dead although a call succeeded",
        /// A call carries another key than its delivery's.
        OtherKey = "another key",
        /// A call too many, outside every fault.
        ExtraCall = "a call too many",
        /// A call for something that was never accepted.
        CallForNothing = "a call for nothing",
    }
    4 {
        /// A retry was made before it was due.
        Early = "too early",
        /// A call of a later attempt without its retry record.
        NoRetry = "an attempt without its retry",
        /// Two retry records of one attempt.
        RetriedTwice = "two retries of one attempt",
        /// An attempt was left out.
        Skipped = "an attempt left out",
        /// An attempt beyond the last.
        TooMany = "an attempt too many",
        /// A retry is due before the delay of its tier has passed.
        DueTooSoon = "due too soon",
        /// Given up as exhausted before the last attempt.
        GivenUpEarly = "given up too early",
    }
    5 {
        /// The last stable offset lies below the end.
        OpenTransaction = "an open transaction",
        /// The group has not read everything.
        Lag = "lag",
        /// Processors remember another number of ids than the topic holds.
        OtherIds = "another number of ids",
        /// A restored state is not that of the topic.
        OtherStates = "other states",
    }
    6 {
        /// A record below the committed offset that left no state.
        Unsettled = "passed over",
        /// The group has committed an offset beyond the end.
        BeyondEnd = "committed beyond the end",
    }
    7 {
        /// A record that was seen is not there.
        Gone = "seen and gone",
        /// A record that was seen is another one now.
        Changed = "seen and changed",
        /// A record is there that the reader passed over.
        Unseen = "never seen",
        /// Offsets did not rise.
        OutOfOrder = "out of order",
    }
}

/// Violations that a report keeps whole.
const KEPT: usize = 1000;

/// Violations that a text shows.
const SHOWN: usize = 20;

impl Report {
    /// A check that has looked at nothing yet.
    pub(crate) fn new(number: u8, name: &'static str) -> Self {
        Self {
            number,
            name,
            looked_at: 0,
            counts: Vec::new(),
            breaches: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    /// Something is looked at, which must be as it should. What is wrong with it is only put into
    /// words if it is not.
    pub(crate) fn expect(&mut self, is_kept: bool, violation: impl FnOnce() -> Violation) {
        self.looked_at += 1;
        if !is_kept {
            self.found(violation);
        }
    }

    /// Something is wrong.
    pub(crate) fn found(&mut self, violation: impl FnOnce() -> Violation) {
        let violation = violation();
        debug_assert_eq!(violation.check, self.number, "{violation}");
        *self.breaches.entry(violation.breach).or_default() += 1;
        if self.violations.len() < KEPT {
            self.violations.push(violation);
        }
    }

    /// Tells a number.
    pub(crate) fn count(&mut self, name: &'static str, count: u64) {
        self.counts.push((name, count));
    }

    /// How many violations it found.
    pub fn found_in_all(&self) -> u64 {
        self.breaches.values().sum()
    }
}

impl Violation {
    /// Something is wrong; in words what was expected.
    pub(crate) fn new(breach: Breach, expected: impl Into<String>) -> Self {
        Self {
            check: breach.check(),
            breach,
            source: None,
            id: None,
            destination: None,
            generation: None,
            attempt: None,
            place: None,
            expected: expected.into(),
        }
    }

    pub(crate) fn of(mut self, source: &str, id: &str) -> Self {
        self.source = Some(source.to_owned());
        self.id = Some(id.to_owned());
        self
    }

    pub(crate) fn to(mut self, destination: &str) -> Self {
        self.destination = Some(destination.to_owned());
        self
    }

    pub(crate) fn in_generation(mut self, generation: u16) -> Self {
        self.generation = Some(generation);
        self
    }

    pub(crate) fn at_attempt(mut self, attempt: u16) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// All that a record says of its delivery.
    pub(crate) fn of_event(self, event: &Event) -> Self {
        let violation = self.of(&event.source, &event.id);
        match event.passage() {
            Some(passage) => violation
                .to(event.destination())
                .in_generation(passage.generation)
                .at_attempt(passage.attempt),
            None => violation,
        }
    }

    pub(crate) fn at(self, topic: &Name, record: &Record) -> Self {
        self.on(topic, record.partition, Some(record.offset))
    }

    pub(crate) fn on(mut self, topic: &str, partition: i32, offset: Option<i64>) -> Self {
        self.place = Some(Place { topic: topic.to_owned(), partition, offset });
        self
    }
}

impl Verdict {
    /// The verdict of those checks.
    pub(crate) fn of(checks: Vec<Report>) -> Self {
        Self { kept: checks.iter().all(|check| check.breaches.is_empty()), checks }
    }

    /// The first violations of every check.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.checks.iter().flat_map(|check| &check.violations)
    }

    /// How many violations of one kind there are.
    pub fn found(&self, breach: Breach) -> u64 {
        self.checks.iter().filter_map(|check| check.breaches.get(&breach)).sum()
    }

    /// What a check counted under `name`; 0 where it counted nothing so called.
    pub fn counted(&self, name: &str) -> u64 {
        let counts = self.checks.iter().flat_map(|check| &check.counts);
        counts.filter(|(known, _)| *known == name).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.checks.iter().try_for_each(|check| writeln!(f, "{check}"))?;
        for violation in self.violations().take(SHOWN) {
            writeln!(f, "{violation}")?;
        }
        let all: u64 = self.checks.iter().map(Report::found_in_all).sum();
        match all.saturating_sub(SHOWN as u64) {
            0 => {}
            rest => writeln!(f, "and {rest} more")?,
        }
        let broken = self.checks.iter().filter(|check| !check.breaches.is_empty()).count();
        match broken {
            0 => write!(f, "every promise was kept"),
            _ => write!(f, "{all} violations, found by {broken} of {} checks", self.checks.len()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.number, self.name)?;
        match (self.looked_at, self.found_in_all()) {
            (0, 0) => return write!(f, "looked at nothing"),
            (_, 0) => write!(f, "kept")?,
            (_, found) => write!(f, "{found} violations")?,
        }
        write!(f, ", {} things looked at", self.looked_at)?;
        self.counts.iter().try_for_each(|(name, count)| write!(f, ", {name} {count}"))?;
        self.breaches.iter().try_for_each(|(breach, count)| write!(f, ", {} {count}", breach.words()))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "check {}, {}:", self.check, self.breach.words())?;
        let texts = [("source", &self.source), ("id", &self.id), ("destination", &self.destination)];
        for (name, text) in texts {
            if let Some(text) = text {
                write!(f, " {name} {text:?}")?;
            }
        }
        for (name, number) in [("generation", self.generation), ("attempt", self.attempt)] {
            if let Some(number) = number {
                write!(f, " {name} {number}")?;
            }
        }
        if let Some(Place { topic, partition, offset }) = &self.place {
            write!(f, " at {topic}/{partition}")?;
            offset.map_or(Ok(()), |offset| write!(f, "/{offset}"))?;
        }
        write!(f, " ({})", self.expected)
    }
}
