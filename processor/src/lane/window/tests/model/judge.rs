//! What is promised, asked of every state and of every call. The judge shares no decision with what
//! it judges: the acceptance rule is written down here a second time, as `docs/delivery.md` has it.

use std::collections::BTreeMap;

use super::kafka::{Kafka, Log, STREAMS, Says};
use super::world::{World, at};
use super::{Claim, DeliveryState, EXPIRY, Guard, Model, StateKey, Status, Timestamp};
use crate::delivery::Delivery;

impl Model {
    /// A handler is about to be called.
    pub(super) fn judge_call(&self, world: &mut World, p: usize, delivery: &Delivery) {
        if world.kafka.state(&delivery.key).is_some_and(|state| has_expired(state, world.now().wall)) {
            // It is as new.
            world.called.retain(|(key, _), _| *key != delivery.key);
            world.processes[p].made.retain(|(key, ..)| *key != delivery.key);
        }
        let breach = self.call_breach(world, p, delivery);
        world.breach = world.breach.take().or(breach);
        let name = (delivery.key, delivery.claim.generation);
        let body = body_of(&world.kafka, delivery);
        let (attempts, _) = world.called.entry(name).or_insert((0, body));
        *attempts |= 1 << delivery.claim.attempt;
    }

    fn call_breach(&self, world: &World, p: usize, delivery: &Delivery) -> Option<String> {
        let (key, claim) = (delivery.key, delivery.claim);
        let now = world.now().wall;
        let process = &world.processes[p];
        // Whoever was overtaken has lost the partition, whether it knows or not.
        let is_owner = self.is_owner(world, p);
        if is_owner && process.made.contains(&(key, claim.generation, claim.attempt)) {
            return broken("one owner makes a call twice, and has not died in between");
        }
        if self.max_attempts <= claim.attempt {
            return broken("an attempt beyond the maximum");
        }
        if not_before(&world.kafka, delivery).is_some_and(|due| now < due) {
            return broken("a retry is called for early");
        }
        let state = world.kafka.state(&key).filter(|state| !has_expired(state, now));
        if is_owner && !is_let_in(state, claim) {
            return broken("the owner calls for what the committed states do not let in");
        }
        let before = world.called.get(&(key, claim.generation));
        let is_first = claim.attempt == 0;
        let follows = before.is_some_and(|(attempts, _)| attempts & 1 << (claim.attempt.max(1) - 1) != 0);
        if !is_first && !follows {
            return broken("an attempt is left out");
        }
        // Whoever was overtaken between reading states and offsets may call with a later body.
        let body = body_of(&world.kafka, delivery);
        if is_owner && before.is_some_and(|(_, first)| *first != body) {
            return broken("one delivery is called for with two bodies");
        }
        None
    }

    /// Whoever nobody has overtaken: by the epoch of its producer, or where that is no fence, by
    /// the group.
    fn is_owner(&self, world: &World, p: usize) -> bool {
        let is_newest = |active: &super::world::Active| active.writer == world.kafka.epoch;
        if self.lifts(Guard::ProducerEpoch) {
            self.is_current(world, p)
        } else {
            world.processes[p].active().is_some_and(is_newest)
        }
    }

    /// What is broken in what is committed.
    pub(super) fn commit_breach(&self, world: &World) -> Option<String> {
        ended_twice(&world.kafka)
            .or_else(|| read_over(world))
            .or_else(|| retry_lost(world))
            .or_else(|| dead_letters(&world.kafka))
            .or_else(|| generations(&world.kafka))
    }

    /// All that was sent has ended, the group has read everything, and nothing hangs.
    pub(super) fn is_rest(&self, world: &World) -> bool {
        let is_read = |stream| {
            let next = world.kafka.offsets.get(stream).copied().unwrap_or_default();
            let last = world.kafka.visible(Log::of(*stream)).next_back();
            last.is_none_or(|(offset, _)| offset < next)
        };
        let has_ended = |key: &StateKey| match world.kafka.state(key).map(|state| state.status) {
            Some(Status::Done | Status::Dead) => true,
            Some(Status::Retrying { .. }) | None => false,
        };
        let owed = world.kafka.owed(Log::Events);
        !world.kafka.hangs()
            && STREAMS.iter().all(is_read)
            && owed.flat_map(|(_, keys, ..)| keys).all(has_ended)
    }
}

fn broken(what: &str) -> Option<String> {
    Some(what.to_owned())
}

/// The acceptance rule, as `docs/delivery.md` has it.
fn is_let_in(state: Option<&DeliveryState>, claim: Claim) -> bool {
    let Some(state) = state else { return true };
    let replayed = claim.generation == state.generation + 1 && claim.attempt == 0;
    match state.status {
        Status::Retrying { next_attempt } => {
            (claim.generation, claim.attempt) == (state.generation, next_attempt)
        }
        Status::Dead => replayed,
        Status::Done => replayed && claim.forced,
    }
}

/// What is done is forgotten after the window, unless it has a dead letter that it must outlive.
fn has_expired(state: &DeliveryState, now: Timestamp) -> bool {
    let is_done = state.status == Status::Done && state.burial.is_none();
    is_done && state.updated.plus(EXPIRY.dedupe_window) <= now
}

fn record_of<'k>(kafka: &'k Kafka, delivery: &Delivery) -> Option<&'k Says> {
    let mut records = kafka.visible(Log::of(delivery.place.stream));
    records.find(|(at, _)| *at == delivery.place.offset.0).map(|(_, record)| &record.says)
}

fn not_before(kafka: &Kafka, delivery: &Delivery) -> Option<Timestamp> {
    match record_of(kafka, delivery) {
        Some(Says::Owed { not_before, .. }) => *not_before,
        Some(Says::State { .. } | Says::Nothing) | None => None,
    }
}

fn body_of(kafka: &Kafka, delivery: &Delivery) -> u64 {
    match record_of(kafka, delivery) {
        Some(Says::Owed { body, .. }) => *body,
        Some(Says::State { .. } | Says::Nothing) | None => 0,
    }
}

/// In one generation nothing is decided after an end: not while the end is remembered.
fn ended_twice(kafka: &Kafka) -> Option<String> {
    let mut ends: BTreeMap<(StateKey, u16), &DeliveryState> = BTreeMap::new();
    for (key, state, is_decided) in kafka.states() {
        let name = (*key, state.generation);
        let is_remembered = |end: &&DeliveryState| {
            end.burial.is_some() || state.updated < end.updated.plus(EXPIRY.dedupe_window)
        };
        if is_decided && ends.get(&name).is_some_and(is_remembered) {
            return broken("a delivery is settled after it has ended, in the same generation");
        }
        match state.status {
            Status::Done | Status::Dead => drop(ends.insert(name, state)),
            Status::Retrying { .. } => {}
        }
    }
    None
}

/// What lies below a committed offset is settled: its state lets it in no more.
fn read_over(world: &World) -> Option<String> {
    let kafka = &world.kafka;
    for stream in STREAMS {
        let Some(next) = kafka.offsets.get(&stream) else { continue };
        for (offset, keys, claim, record) in kafka.owed(Log::of(stream)) {
            let is_old = record.at.plus(EXPIRY.dedupe_window) <= world.now().wall;
            let is_open = |key| is_let_in(kafka.state(key), claim);
            if offset < *next && !is_old && keys.iter().any(is_open) {
                return broken("an offset is committed beyond a record that is not settled");
            }
        }
    }
    None
}

/// Whoever is to be tried again has a record that says so, which is not read yet.
fn retry_lost(world: &World) -> Option<String> {
    let kafka = &world.kafka;
    let mut newest: BTreeMap<StateKey, &DeliveryState> = BTreeMap::new();
    newest.extend(kafka.states().map(|(key, state, _)| (*key, state)));
    for (key, state) in newest {
        let Status::Retrying { next_attempt } = state.status else { continue };
        let waits = |stream: &super::Stream| {
            let next = kafka.offsets.get(stream).copied().unwrap_or_default();
            kafka.owed(Log::of(*stream)).any(|(offset, keys, claim, _)| {
                let is_it = (claim.generation, claim.attempt) == (state.generation, next_attempt);
                next <= offset && is_it && keys.contains(&key)
            })
        };
        if !STREAMS.iter().any(waits) {
            return broken("a delivery waits for a retry that nothing will bring");
        }
    }
    None
}

/// Each generation that died has one dead letter.
fn dead_letters(kafka: &Kafka) -> Option<String> {
    let mut letters: BTreeMap<(StateKey, u16), u32> = BTreeMap::new();
    for (_, keys, claim, _) in kafka.owed(Log::Dead) {
        for key in keys {
            *letters.entry((*key, claim.generation)).or_default() += 1;
        }
    }
    if letters.values().any(|count| 1 < *count) {
        return broken("one generation has two dead letters");
    }
    let has_letter = |(key, state, _): (&StateKey, &DeliveryState, bool)| {
        state.status != Status::Dead || letters.contains_key(&(*key, state.generation))
    };
    (!kafka.states().all(has_letter)).then(|| "what is dead has no dead letter".to_owned())
}

/// A generation follows the one before it, and only once that has ended.
fn generations(kafka: &Kafka) -> Option<String> {
    let mut last: BTreeMap<StateKey, &DeliveryState> = BTreeMap::new();
    for (key, state, _) in kafka.states() {
        let before = last.insert(*key, state);
        let may_follow = match before.map(|before| (before.generation, before.status)) {
            None => true,
            Some((generation, _)) if generation == state.generation => true,
            Some((generation, Status::Done | Status::Dead)) => generation + 1 == state.generation,
            Some((_, Status::Retrying { .. })) => false,
        };
        if !may_follow {
            return broken("a generation begins before the one before it has ended");
        }
    }
    None
}

#[test]
fn the_rule_of_the_judge_is_that_of_the_lane() {
    let moment = at(0);
    let statuses =
        (0..3).map(|next_attempt| Status::Retrying { next_attempt }).chain([Status::Done, Status::Dead]);
    for status in statuses {
        for number in 0_u16..3 * 3 * 3 * 2 {
            let claim = Claim { generation: number % 3, attempt: number / 3 % 3, forced: number / 27 == 1 };
            let state = DeliveryState {
                status,
                generation: number / 9 % 3,
                first_seen: moment,
                updated: moment,
                burial: None,
            };
            let accepted = super::accept(Some(&state), claim) == super::Acceptance::Fresh;
            assert_eq!(is_let_in(Some(&state), claim), accepted, "{state:?} {claim:?}");
        }
    }
}
