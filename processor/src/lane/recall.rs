//! What calls came to whose settlement was never committed.
//!
//! A lane that lost its producer takes over from what lies on Kafka and reads records again that
//! it had handled already. It remembers how, so that an outage of Kafka does not become a second
//! call; and it waits for calls that are still running instead of making them twice.

use std::collections::HashMap;

use crate::delivery::{Delivery, Place};
use crate::outcome::Outcome;
use crate::state::{Claim, StateKey};

/// What is known of calls made in an earlier life of this lane, each with the record for which it
/// was made: the same event may come again much later, and is then called for anew.
#[derive(Clone, Debug, Default)]
pub struct Recollection(HashMap<(StateKey, u16, u16), (Place, Recall)>);

/// What is known of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recall {
    /// It ended like this.
    Known(Outcome),
    /// It is still running.
    Running,
}

impl Recollection {
    /// The call of `delivery` came to `outcome`, and that was not committed.
    pub fn remember(&mut self, delivery: &Delivery, outcome: Outcome) {
        self.insert(delivery, Recall::Known(outcome));
    }

    /// The call of `delivery` was made and has not ended.
    pub fn expect(&mut self, delivery: &Delivery) {
        self.insert(delivery, Recall::Running);
    }

    /// A call ended for which nothing is open. Kept if it was expected; otherwise it is of an
    /// assignment long gone, and means nothing.
    pub fn know(&mut self, key: StateKey, claim: Claim, outcome: Outcome) {
        if let Some((_, recall)) = self.0.get_mut(&identity(key, claim)) {
            *recall = Recall::Known(outcome);
        }
    }

    /// What is known of the call of `delivery`; not known any more thereafter.
    pub fn take(&mut self, delivery: &Delivery) -> Option<Recall> {
        if self.0.is_empty() {
            return None;
        }
        let (place, recall) = self.0.remove(&identity(delivery.key, delivery.claim))?;
        (place == delivery.place).then_some(recall)
    }

    /// Forgets the calls whose records are not `open` any more: what they came to was committed
    /// after all.
    pub fn retain(&mut self, open: impl Fn(Place) -> bool) {
        self.0.retain(|_, (place, _)| open(*place));
    }

    /// What is left once nobody hears any more how calls end that are still running.
    pub fn into_known(mut self) -> Self {
        self.0.retain(|_, (_, recall)| matches!(recall, Recall::Known(_)));
        self
    }

    /// Adds what another recollection knows.
    pub fn extend(&mut self, other: Recollection) {
        self.0.extend(other.0);
    }

    /// What is known, in the order of its names.
    #[cfg(test)]
    pub(crate) fn known(&self) -> std::collections::BTreeMap<(StateKey, u16, u16), (Place, Recall)> {
        self.0.iter().map(|(name, known)| (*name, known.clone())).collect()
    }

    fn insert(&mut self, delivery: &Delivery, recall: Recall) {
        self.0.insert(identity(delivery.key, delivery.claim), (delivery.place, recall));
    }
}

fn identity(key: StateKey, claim: Claim) -> (StateKey, u16, u16) {
    (key, claim.generation, claim.attempt)
}
