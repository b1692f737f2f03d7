//! Record to deliveries, and each delivery to a call, a settlement, or the place of a copy.

use std::sync::Arc;

use bytestring::ByteString;
use hookwell_common::config::Unrouted;
use hookwell_common::event::Event;
use hookwell_common::record::{DecodeError, Origin, Passage, RawRecord};
use hookwell_common::time::Now;
use hookwell_common::topics::Topic;

use super::{Copied, Open, Window};
use crate::dead_letter::DeadLetterReason;
use crate::delivery::{Arrival, Content, Delivery, Place, Stream, Target};
use crate::lane::ledger::LedgerError;
use crate::lane::recall::Recall;
use crate::outcome::Outcome;
use crate::route::{Kind, Plan};
use crate::state::{Acceptance, Claim, StateKey, accept};

impl Window {
    /// Takes up a record that is due. It owes one settlement so far.
    pub(super) fn open_up(&mut self, arrival: Arrival, now: Now, plan: &Plan) -> Result<(), LedgerError> {
        let Arrival { place, raw, .. } = arrival;
        match raw.decode() {
            Err(error) => {
                let delivery = self.undecodable(place, raw, error);
                self.admit(delivery, now, plan)
            }
            Ok((event, passage)) => self.fan_out(Arc::new(event), &passage, place, now, plan),
        }
    }

    /// One delivery for each destination.
    pub(super) fn fan_out(
        &mut self,
        event: Arc<Event>,
        passage: &Passage,
        place: Place,
        now: Now,
        plan: &Plan,
    ) -> Result<(), LedgerError> {
        let named = passage.destination.as_ref().filter(|name| !name.is_empty());
        if let Some(name) = named {
            let target = match plan.destination(name) {
                Some(destination) => Target::Destination(Arc::clone(destination)),
                None => Target::Removed(name.clone()),
            };
            let delivery = self.delivery(&event, passage, place, target);
            return self.admit(delivery, now, plan);
        }
        let destinations = plan.destinations_of(&event.source, &event.kind);
        if destinations.is_empty() {
            return match plan.unrouted() {
                Unrouted::Ignore => {
                    self.batch.ignored += 1;
                    self.settle_place(place)
                }
                Unrouted::DeadLetter => {
                    let delivery = self.delivery(&event, passage, place, Target::Nowhere);
                    self.admit(delivery, now, plan)
                }
            };
        }
        if passage.generation > 0 {
            let unroutable = self.delivery(&event, passage, place, Target::Nowhere);
            self.hand_over(unroutable, now);
        }
        let more = u32::try_from(destinations.len() - 1).unwrap_or(u32::MAX);
        if let Some(ledger) = self.ledgers.get_mut(&place.stream).filter(|_| more > 0) {
            ledger.owe(place.offset, more)?;
        }
        for destination in destinations {
            let delivery = self.delivery(&event, passage, place, Target::Destination(destination));
            self.admit(delivery, now, plan)?;
        }
        Ok(())
    }

    /// Judges a delivery. A copy whose first is open waits for it.
    pub(super) fn admit(&mut self, delivery: Delivery, now: Now, plan: &Plan) -> Result<(), LedgerError> {
        if let Some(open) = self.open.get_mut(&delivery.key) {
            open.copies.push(if open.delivery.claim == delivery.claim {
                Copied::Same(delivery.place, delivery.content.source())
            } else {
                Copied::Other(delivery)
            });
            return Ok(());
        }
        let state = self.table.get(&delivery.key, now.wall);
        match accept(state.as_ref(), delivery.claim) {
            Acceptance::Fresh => self.dispatch(delivery, Vec::new(), now, plan),
            Acceptance::Duplicate => self.drop_copy(delivery.place, delivery.content.source()),
            Acceptance::Stale => {
                self.batch.stale += 1;
                self.settle_place(delivery.place)
            }
        }
    }

    pub(super) fn drop_copy(&mut self, place: Place, source: ByteString) -> Result<(), LedgerError> {
        self.batch.duplicates.push(source);
        self.settle_place(place)
    }

    /// Calls the handler of an accepted delivery, or settles what needs none.
    pub(super) fn dispatch(
        &mut self,
        delivery: Delivery,
        copies: Vec<Copied>,
        now: Now,
        plan: &Plan,
    ) -> Result<(), LedgerError> {
        let open = Open { delivery, copies };
        let reason = match (&open.delivery.content, &open.delivery.target) {
            (Content::Undecodable(..), _) => DeadLetterReason::Undecodable,
            (Content::Event(_), Target::Nowhere) => DeadLetterReason::Unroutable,
            (Content::Event(_), Target::Removed(_)) => DeadLetterReason::DestinationRemoved,
            (Content::Event(_), Target::Destination(destination)) => {
                return match destination.kind {
                    Kind::Call => self.call(open, now, plan),
                    Kind::Kafka { .. } | Kind::Log => {
                        self.settle_attempt(open, Outcome::Done, std::time::Duration::ZERO, now, plan)
                    }
                };
            }
        };
        self.bury(open, reason, now, plan)
    }

    /// Has the handler called, unless that was done in an earlier life of this lane.
    fn call(&mut self, open: Open, now: Now, plan: &Plan) -> Result<(), LedgerError> {
        match self.recollection.take(&open.delivery) {
            Some(Recall::Known(outcome)) => {
                return self.settle_attempt(open, outcome, std::time::Duration::ZERO, now, plan);
            }
            Some(Recall::Running) => {}
            None => self.calls.push(open.delivery.clone()),
        }
        self.open_bytes += open.delivery.content.weight();
        self.open.insert(open.delivery.key, open);
        Ok(())
    }

    fn delivery(&self, event: &Arc<Event>, passage: &Passage, place: Place, target: Target) -> Delivery {
        let failure = passage.failure.as_ref();
        Delivery {
            key: StateKey::of(&event.source, &event.id, &target.name()),
            place,
            claim: Claim { generation: passage.generation, attempt: passage.attempt, forced: passage.forced },
            content: Content::Event(Arc::clone(event)),
            target,
            first_failed_at: passage.first_failed_at,
            not_before: passage.not_before,
            origin: passage.origin.clone().unwrap_or_else(|| self.origin_of(place)),
            replayed_from: failure.and_then(|failure| DeadLetterReason::from_label(&failure.class)),
        }
    }

    /// What cannot be read has no id; the place at which it lies names it.
    fn undecodable(&self, place: Place, raw: RawRecord, error: DecodeError) -> Delivery {
        let origin = self.origin_of(place);
        let tier = match place.stream {
            Stream::Events => 0,
            Stream::Retry(tier) => tier.0,
        };
        let id = format!("{tier}/{}/{}", self.partition, place.offset.0);
        Delivery {
            key: StateKey::of("", &id, ""),
            place,
            claim: Claim { generation: 0, attempt: 0, forced: false },
            content: Content::Undecodable(Arc::new(raw), error),
            target: Target::Nowhere,
            first_failed_at: None,
            not_before: None,
            origin,
            replayed_from: None,
        }
    }

    fn origin_of(&self, place: Place) -> Origin {
        let topic = match place.stream {
            Stream::Events => self.events_topic.clone(),
            Stream::Retry(tier) => Topic::Retry(tier.0).name(&self.topic_prefix).into(),
        };
        Origin { topic, partition: self.partition, offset: place.offset.0 }
    }
}
