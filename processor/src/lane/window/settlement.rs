//! Outcome to settlement, and a settlement to the state that it leaves.

use std::time::Duration;

use hookwell_common::time::Now;

use super::{Copied, Open, Window};
use crate::dead_letter::DeadLetterReason;
use crate::delivery::{Content, Delivery, Target};
use crate::lane::batch::Entry;
use crate::lane::ledger::LedgerError;
use crate::outcome::Outcome;
use crate::route::Plan;
use crate::settle::{Attempted, Settlement, settle};
use crate::state::{Burial, DeliveryState, StateKey, Status};

/// How long the flood guard holds a delivery back before its handler is asked again.
const HOLD: Duration = Duration::from_secs(5);

impl Window {
    /// Settles a delivery whose attempt ended, and its copies with it.
    pub(super) fn settle_attempt(
        &mut self,
        mut open: Open,
        outcome: Outcome,
        took: Duration,
        now: Now,
        plan: &Plan,
    ) -> Result<(), LedgerError> {
        let Target::Destination(destination) = open.delivery.target.clone() else {
            return self.bury(open, DeadLetterReason::DestinationRemoved, now, plan);
        };
        let claim = open.delivery.claim;
        let attempted = Attempted {
            attempt: claim.attempt,
            first_failed_at: open.delivery.first_failed_at,
            now: now.wall,
        };
        let settlement = settle(&outcome, attempted, &destination.policy, jitter(&open.delivery));
        match settlement {
            Settlement::Done => self.guard.earn(&destination.name),
            Settlement::Retry { .. } => {}
            Settlement::DeadLetter(_) => {
                if !self.guard.spend(&destination.name, now.mono) {
                    self.hold(open, now);
                    return Ok(());
                }
            }
        }
        if outcome != Outcome::Done {
            open.delivery.first_failed_at.get_or_insert(now.wall);
        }
        self.apply(open, Some(outcome), settlement, took, now, plan)
    }

    /// Gives a delivery up for which no handler is called.
    pub(super) fn bury(
        &mut self,
        open: Open,
        reason: DeadLetterReason,
        now: Now,
        plan: &Plan,
    ) -> Result<(), LedgerError> {
        if !self.guard.spend(&open.delivery.target.name(), now.mono) {
            self.hold(open, now);
            return Ok(());
        }
        self.apply(open, None, Settlement::DeadLetter(reason), Duration::ZERO, now, plan)
    }

    /// Keeps a delivery open that would be one dead letter too many. Its attempt is not spent.
    fn hold(&mut self, open: Open, now: Now) {
        self.held.add(now.mono + HOLD, open.delivery.key);
        self.open_bytes += open.delivery.content.weight();
        self.open.insert(open.delivery.key, open);
    }

    /// Tries a delivery again that was held back: where it goes may have been mended since.
    pub(super) fn try_held(&mut self, key: &StateKey, now: Now, plan: &Plan) -> Result<(), LedgerError> {
        let Some(Open { mut delivery, copies }) = self.close(key) else { return Ok(()) };
        let name = delivery.target.name();
        if let (false, Some(destination)) = (name.is_empty(), plan.destination(&name)) {
            delivery.target = Target::Destination(std::sync::Arc::clone(destination));
        }
        if let (Content::Event(event), Target::Nowhere) = (&delivery.content, &delivery.target)
            && !plan.destinations_of(&event.source, &event.kind).is_empty()
        {
            let (event, place) = (std::sync::Arc::clone(event), delivery.place);
            let passage = delivery.passage();
            self.fan_out(event, &passage, place, now, plan)?;
            return self.settle_copies(copies, now, plan);
        }
        self.dispatch(delivery, copies, now, plan)
    }

    /// Notes a settlement with the state that it leaves.
    fn apply(
        &mut self,
        open: Open,
        outcome: Option<Outcome>,
        settlement: Settlement,
        took: Duration,
        now: Now,
        plan: &Plan,
    ) -> Result<(), LedgerError> {
        let Open { delivery, copies } = open;
        let state = self.state_after(&delivery, settlement, now);
        self.table.put(delivery.key, state.clone());
        self.settle_place(delivery.place)?;
        self.batch.push(Entry { delivery, outcome, settlement, state, at: now.wall, took });
        self.settle_copies(copies, now, plan)
    }

    /// A replay of what no route named before has found its routes: from here on its destinations
    /// have states of their own, and this one is no longer dead. It decides nothing, for a crash
    /// may come between it and them.
    pub(super) fn hand_over(&mut self, unroutable: Delivery, now: Now) {
        let state = self.state_after(&unroutable, Settlement::Done, now);
        self.table.put(unroutable.key, state.clone());
        self.batch.refreshed.push((unroutable.key, state));
    }

    fn settle_copies(&mut self, copies: Vec<Copied>, now: Now, plan: &Plan) -> Result<(), LedgerError> {
        for copy in copies {
            match copy {
                Copied::Same(place, source) => self.drop_copy(place, source)?,
                Copied::Other(delivery) => self.admit(delivery, now, plan)?,
            }
        }
        Ok(())
    }

    fn state_after(&self, delivery: &Delivery, settlement: Settlement, now: Now) -> DeliveryState {
        let before = self.table.get(&delivery.key, now.wall);
        let claim = delivery.claim;
        let burial = |reason| Burial {
            reason,
            source: delivery.content.source(),
            destination: delivery.target.name(),
            at: now.wall,
        };
        let (status, burial) = match settlement {
            Settlement::DeadLetter(reason) => (Status::Dead, Some(burial(reason))),
            Settlement::Done => (Status::Done, None),
            Settlement::Retry { .. } => {
                (Status::Retrying { next_attempt: claim.attempt.saturating_add(1) }, None)
            }
        };
        let earlier = before.as_ref().and_then(|state| state.burial.clone());
        // Of a replay whose state had expired, only the record tells that there is a dead letter.
        let replayed = || (claim.generation > 0).then(|| burial_of_replay(delivery, now));
        DeliveryState {
            status,
            generation: claim.generation,
            first_seen: before.map_or(now.wall, |state| state.first_seen),
            updated: now.wall,
            burial: burial.or(earlier).or_else(replayed),
        }
    }
}

fn burial_of_replay(delivery: &Delivery, now: Now) -> Burial {
    Burial {
        reason: delivery.replayed_from.unwrap_or(DeadLetterReason::Exhausted),
        source: delivery.content.source(),
        destination: delivery.target.name(),
        at: now.wall,
    }
}

/// A number from 0 to 1 that spreads deliveries, the same for the same attempt of the same one.
fn jitter(delivery: &Delivery) -> f64 {
    let StateKey([.., a, b]) = delivery.key;
    let spread = u16::from_be_bytes([a, b]) ^ delivery.claim.attempt.wrapping_mul(40_503);
    f64::from(spread) / f64::from(u16::MAX)
}
