//! What calls came to whose settlement was never committed.
//!
//! A lane that lost its producer takes over from what lies on Kafka and reads records again that
//! it had handled already. It remembers how, so that an outage of Kafka does not become a second
//! call; and it waits for calls that are still running instead of making them twice.

use std::collections::HashMap;

use crate::outcome::Outcome;
use crate::state::{Claim, StateKey};

/// What is known of calls made in an earlier life of this lane.
#[derive(Clone, Debug, Default)]
pub struct Recollection(HashMap<(StateKey, u16, u16), Recall>);

/// What is known of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recall {
    /// It ended like this.
    Known(Outcome),
    /// It is still running.
    Running,
}

impl Recollection {
    /// A call came to `outcome`, and that was not committed.
    pub fn remember(&mut self, key: StateKey, claim: Claim, outcome: Outcome) {
        self.0.insert(identity(key, claim), Recall::Known(outcome));
    }

    /// A call was made and has not ended.
    pub fn expect(&mut self, key: StateKey, claim: Claim) {
        self.0.insert(identity(key, claim), Recall::Running);
    }

    /// A call ended for which nothing is open. Kept if it was expected; otherwise it is of an
    /// assignment long gone, and means nothing.
    pub fn know(&mut self, key: StateKey, claim: Claim, outcome: Outcome) {
        if let Some(recall) = self.0.get_mut(&identity(key, claim)) {
            *recall = Recall::Known(outcome);
        }
    }

    /// What is known of this call; not known any more thereafter.
    pub fn take(&mut self, key: StateKey, claim: Claim) -> Option<Recall> {
        if self.0.is_empty() { None } else { self.0.remove(&identity(key, claim)) }
    }

    /// Adds what another recollection knows.
    pub fn extend(&mut self, other: Recollection) {
        self.0.extend(other.0);
    }
}

fn identity(key: StateKey, claim: Claim) -> (StateKey, u16, u16) {
    (key, claim.generation, claim.attempt)
}
