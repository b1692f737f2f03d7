//! The window against a Kafka of the imagination: topics as lists, transactions as all or nothing.
//!
//! Scripts tell single stories; the property plays random ones, with crashes between any two
//! steps, and then asks what every promise asks.

mod losses;
mod model;

use std::collections::{BTreeMap, BTreeSet};

use hookwell_common::event::Event;
use hookwell_common::record::{Passage, RawRecord, encode_headers, record_key};
use proptest::prelude::*;

use super::*;
use crate::dead_letter::DeadLetterReason;
use crate::lane::ledger::Offset;
use crate::lane::output::{Output, OutputTopic, all_outputs};
use crate::outcome::HandlerError;
use crate::retry::Tier;
use crate::route::tests::plan as plan_of;
use crate::state::{DeliveryState, END_KEY, Expiry, Status, decode};

const EXPIRY: Expiry = Expiry {
    dedupe_window: Duration::from_secs(7 * 86_400),
    dead_letter_retention: Duration::from_secs(30 * 86_400),
};

const CONFIG: &str = r#"
[retry]
tiers = ["5s", "30s"]
max_attempts = 3
jitter = 0.5
[[sources]]
name = "github"
[[destinations]]
name = "orders"
kind = "http"
url = "http://localhost/"
[[destinations]]
name = "billing"
kind = "http"
url = "http://localhost/"
[[destinations]]
name = "mirror"
kind = "kafka"
topic = "mirror"
[[routes]]
source = "github"
types = ["push"]
to = ["orders"]
[[routes]]
source = "github"
types = ["both"]
to = ["orders", "billing"]
[[routes]]
source = "github"
types = ["copy"]
to = ["mirror"]
"#;

/// Kafka as one partition sees it: what is committed, and when it was written.
#[derive(Debug, Default)]
struct Log {
    events: Vec<(RawRecord, Timestamp)>,
    retries: BTreeMap<Tier, Vec<(RawRecord, Timestamp)>>,
    dead: Vec<RawRecord>,
    forwarded: Vec<RawRecord>,
    states: Vec<(Vec<u8>, Vec<u8>)>,
    offsets: BTreeMap<Stream, i64>,
}

/// A lane on that Kafka, with a clock that stands still until it is moved.
struct World {
    log: Log,
    plan: Plan,
    window: Window,
    read: BTreeMap<Stream, i64>,
    now: Now,
    /// Calls under way, in the order in which they were made.
    calls: Vec<Delivery>,
    /// Every call ever made: idempotency key, attempt, and when.
    made: Vec<(String, u16, Timestamp)>,
}

fn raw(event: &Event, passage: &Passage) -> RawRecord {
    let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
    encode_headers(event, passage, |name, value| headers.push((name.to_owned(), value.to_owned())));
    let key = record_key(&event.source, &event.id);
    RawRecord::copy(
        Some(&key),
        &event.body,
        headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())),
    )
}

fn event(id: &str, kind: &str) -> Event {
    Event {
        source: "github".into(),
        id: id.into(),
        kind: kind.into(),
        time: "2026-11-24T09:00:00.000Z".into(),
        content_type: None,
        traceparent: None,
        kept_headers: vec![],
        body: format!("body of {id}").into(),
    }
}

fn written(output: &Output<'_>) -> RawRecord {
    let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
    output.encode_headers(|name, value| headers.push((name.to_owned(), value.to_owned())));
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    RawRecord::copy(Some(&output.key), &output.value, headers)
}

fn status(status: u16) -> Outcome {
    Outcome::Failed(HandlerError::Status { status, retry_after: None })
}

impl World {
    fn new() -> Self {
        let now = Now { wall: Timestamp::from_seconds(1_795_000_000), mono: Duration::from_secs(50) };
        let mut world = Self {
            log: Log::default(),
            plan: plan_of(CONFIG),
            window: Window::new(beginning(&Log::default(), Recollection::default(), 0)),
            read: BTreeMap::new(),
            now,
            calls: Vec::new(),
            made: Vec::new(),
        };
        world.take_over(Recollection::default());
        world
    }

    fn publish(&mut self, id: &str, kind: &str) {
        self.log.events.push((raw(&event(id, kind), &Passage::default()), self.now.wall));
    }

    fn replay(&mut self, id: &str, destination: &str, generation: u16, forced: bool) {
        let destination = (!destination.is_empty()).then(|| destination.into());
        let passage = Passage { destination, generation, forced, ..Passage::default() };
        self.log.events.push((raw(&event(id, "push"), &passage), self.now.wall));
    }

    /// Reads what is there and has come due, as far as the window takes it.
    fn read(&mut self) {
        loop {
            let mut next = Vec::new();
            let streams = [Stream::Events, Stream::Retry(Tier(1)), Stream::Retry(Tier(2))];
            for stream in streams {
                let at = self.read.get(&stream).copied().unwrap_or_default();
                let record =
                    usize::try_from(at).ok().and_then(|at| self.log.records(stream).get(at).cloned());
                if let Some((raw, appended_at)) = record {
                    next.push(Arrival { place: Place { stream, offset: Offset(at) }, appended_at, raw });
                    self.read.insert(stream, at + 1);
                }
            }
            if next.is_empty() {
                break;
            }
            for arrival in next {
                self.window.arrive(arrival, self.now, &self.plan).unwrap();
            }
        }
        self.window.wake(self.now, &self.plan).unwrap();
        self.make_calls();
    }

    fn make_calls(&mut self) {
        for call in self.window.take_calls() {
            self.made.push((call.idempotency_key(), call.claim.attempt, self.now.wall));
            self.calls.push(call);
        }
    }

    /// The `n`th call under way ends.
    fn answer(&mut self, n: usize, outcome: Outcome) {
        let call = self.calls.remove(n);
        let completion =
            Completion { key: call.key, claim: call.claim, outcome: Some(outcome), took: Duration::ZERO };
        self.window.complete(completion, self.now, &self.plan).unwrap();
        self.make_calls();
    }

    fn answer_all(&mut self, outcome: Outcome) {
        while !self.calls.is_empty() {
            self.answer(0, outcome.clone());
        }
    }

    fn pass(&mut self, seconds: u64) {
        let passed = Duration::from_secs(seconds);
        self.now = Now { wall: self.now.wall.plus(passed), mono: self.now.mono + passed };
        self.window.wake(self.now, &self.plan).unwrap();
        self.make_calls();
    }

    fn commit(&mut self) {
        if let Some(commit) = self.window.take_commit(false) {
            self.log.apply(&commit, self.now.wall);
            self.window.committed(&commit, &[]);
        }
    }

    /// The process dies: nothing is left but Kafka.
    fn crash(&mut self) {
        self.calls.clear();
        self.take_over(Recollection::default());
    }

    /// The lane loses its producer with `lost` uncommitted, and begins anew in the same process.
    fn lose_producer(&mut self, with_commit: bool) {
        let lost = if with_commit { self.window.take_commit(false) } else { None };
        let empty = Window::new(beginning(&Log::default(), Recollection::default(), 0));
        let recollection = std::mem::replace(&mut self.window, empty).into_recollection(lost);
        self.take_over(recollection);
    }

    fn take_over(&mut self, recollection: Recollection) {
        self.read = self.log.offsets.clone();
        self.window = Window::new(beginning(&self.log, recollection, 0));
    }

    fn state(&self, id: &str, destination: &str) -> Option<DeliveryState> {
        self.log.table().get(&StateKey::of("github", id, destination), self.now.wall)
    }

    fn dead_reasons(&self) -> Vec<String> {
        let reason = |raw: &RawRecord| {
            let found = raw.headers().find(|(name, _)| name == "hookwell-error-class");
            String::from_utf8(found.unwrap().1.to_vec()).unwrap()
        };
        self.log.dead.iter().map(reason).collect()
    }
}

fn beginning(log: &Log, recollection: Recollection, flood_guard: u32) -> Beginning {
    let start = |stream: Stream| (stream, Frontier(log.offsets.get(&stream).copied().unwrap_or_default()));
    Beginning {
        partition: 3,
        topic_prefix: "webhooks".into(),
        table: log.table(),
        frontiers: [Stream::Events, Stream::Retry(Tier(1)), Stream::Retry(Tier(2))].map(start).into(),
        birth: false,
        flood_guard,
        recollection,
    }
}

impl Log {
    fn records(&self, stream: Stream) -> &[(RawRecord, Timestamp)] {
        match stream {
            Stream::Events => &self.events,
            Stream::Retry(tier) => self.retries.get(&tier).map_or(&[], Vec::as_slice),
        }
    }

    /// All of a transaction.
    fn apply(&mut self, commit: &Commit, now: Timestamp) {
        for output in all_outputs(commit) {
            let record = written(&output);
            match output.topic {
                OutputTopic::Retry(tier) => self.retries.entry(tier).or_default().push((record, now)),
                OutputTopic::DeadLetters => self.dead.push(record),
                OutputTopic::Forward(_) => self.forwarded.push(record),
                OutputTopic::State => self.states.push((output.key.to_vec(), output.value.to_vec())),
            }
        }
        for (stream, frontier) in &commit.offsets {
            let before = self.offsets.insert(*stream, frontier.0).unwrap_or_default();
            assert!(before <= frontier.0, "an offset went back");
        }
    }

    fn table(&self) -> StateTable {
        let mut table = StateTable::new(EXPIRY);
        for (key, value) in &self.states {
            let (key, state) = decode(key, value).unwrap();
            table.put(key, state.unwrap());
        }
        table
    }

    /// Terminal states in the order in which they were committed: key, generation, status.
    fn terminal(&self) -> Vec<(StateKey, u16, Status)> {
        let decoded = self.states.iter().map(|(key, value)| decode(key, value).unwrap());
        decoded
            .filter_map(|(key, state)| {
                let state = state?;
                match state.status {
                    Status::Done | Status::Dead => Some((key, state.generation, state.status)),
                    Status::Retrying { .. } => None,
                }
            })
            .collect()
    }
}

#[test]
fn an_end_record_among_retries_is_passed_over_and_counts_as_read() {
    let mut world = World::new();
    let end = RawRecord::copy(Some(END_KEY), b"", [("hookwell-transaction", &b"0a-7"[..])].into_iter());
    world.log.retries.insert(Tier(1), vec![(end, world.now.wall)]);
    world.read();
    world.commit();
    assert_eq!(world.log.offsets[&Stream::Retry(Tier(1))], 1);
    assert!(world.made.is_empty() && world.log.dead.is_empty() && world.log.states.is_empty());
}

#[test]
fn every_transaction_tells_the_offset_of_the_events_topic() {
    let mut world = World::new();
    world.publish("a", "push");
    world.publish("b", "push");
    world.read();
    // The first record holds the frontier: nothing has moved.
    world.answer(1, Outcome::Done);
    let commit = world.window.take_commit(false).unwrap();
    assert_eq!(commit.offsets, [(Stream::Events, Frontier(0))]);
}

#[test]
fn an_event_is_called_for_once_and_is_done() {
    let mut world = World::new();
    world.publish("1", "push");
    world.read();
    assert_eq!(world.calls.len(), 1);
    assert!(world.window.take_commit(false).is_none(), "nothing is settled yet");
    world.answer(0, Outcome::Done);
    world.commit();
    assert_eq!(world.state("1", "orders").unwrap().status, Status::Done);
    assert_eq!(world.log.offsets[&Stream::Events], 1);
}

#[test]
fn a_copy_waits_for_the_first_and_is_settled_with_it() {
    let mut world = World::new();
    world.publish("1", "push");
    world.publish("1", "push");
    world.read();
    assert_eq!(world.calls.len(), 1, "one call for two copies");
    world.answer(0, Outcome::Done);
    world.commit();
    assert_eq!(world.log.offsets[&Stream::Events], 2);
    world.publish("1", "push");
    world.read();
    assert!(world.calls.is_empty());
    world.commit();
    assert_eq!(world.log.offsets[&Stream::Events], 3);
    assert_eq!(world.log.terminal().len(), 1);
}

#[test]
fn later_completions_commit_before_earlier_ones() {
    let mut world = World::new();
    world.publish("slow", "push");
    world.publish("fast", "push");
    world.read();
    world.answer(1, Outcome::Done);
    world.commit();
    assert_eq!(world.state("fast", "orders").unwrap().status, Status::Done);
    assert_eq!(world.log.offsets.get(&Stream::Events).copied().unwrap_or_default(), 0);
    world.crash();
    world.read();
    assert_eq!(world.calls.len(), 1, "only the slow one is handled again");
    world.answer_all(Outcome::Done);
    world.commit();
    assert_eq!(world.log.offsets[&Stream::Events], 2);
}

#[test]
fn retries_climb_the_tiers_are_never_early_and_end_in_the_dead_letter_topic() {
    let mut world = World::new();
    world.publish("1", "push");
    world.read();
    for (tier, delay) in [(1, 5), (2, 30)] {
        world.answer_all(status(500));
        world.commit();
        assert_eq!(world.log.retries[&Tier(tier)].len(), 1);
        world.read();
        world.pass(delay - 1);
        assert!(world.calls.is_empty(), "early");
        world.pass(delay);
        assert_eq!(world.calls.len(), 1);
    }
    world.answer_all(status(500));
    world.commit();
    assert_eq!(world.dead_reasons(), ["exhausted"]);
    assert_eq!(world.state("1", "orders").unwrap().status, Status::Dead);
    assert_eq!(world.made.iter().map(|(_, attempt, _)| *attempt).collect::<Vec<_>>(), [0, 1, 2]);
    let keys: BTreeSet<_> = world.made.iter().map(|(key, _, _)| key).collect();
    assert_eq!(keys.len(), 1, "every call carries the same key");
}

#[test]
fn a_dead_letter_tells_where_it_came_from_and_why() {
    let mut world = World::new();
    world.publish("0", "push");
    world.publish("1", "push");
    world.read();
    world.answer(0, Outcome::Done);
    world.answer(0, status(500));
    world.commit();
    world.read();
    world.pass(10);
    world.answer(0, status(400));
    world.commit();
    let (event, passage) = world.log.dead[0].decode().unwrap();
    assert_eq!(event, super::tests::event("1", "push"));
    let origin = passage.origin.unwrap();
    assert_eq!((&*origin.topic, origin.partition, origin.offset), ("webhooks.events", 3, 1));
    assert_eq!((passage.attempt, passage.generation), (1, 0));
    let failure = passage.failure.unwrap();
    assert_eq!((&*failure.class, &*failure.detail), ("permanent", "answered 400"));
    assert!(passage.first_failed_at.is_some() && passage.not_before.is_none());
}

#[test]
fn two_destinations_are_settled_apart_and_the_offset_waits_for_both() {
    let mut world = World::new();
    world.publish("1", "both");
    world.read();
    assert_eq!(world.calls.len(), 2);
    world.answer(0, Outcome::Done);
    world.commit();
    assert_eq!(world.log.offsets.get(&Stream::Events).copied().unwrap_or_default(), 0);
    world.crash();
    world.read();
    assert_eq!(world.calls.len(), 1, "only the one that is open is called again");
    world.answer_all(status(503));
    world.commit();
    assert_eq!(world.log.offsets[&Stream::Events], 1);
    world.read();
    world.pass(10);
    world.answer_all(Outcome::Done);
    world.commit();
    for destination in ["orders", "billing"] {
        assert_eq!(world.state("1", destination).unwrap().status, Status::Done);
    }
}

#[test]
fn what_goes_to_a_topic_is_forwarded_once_with_its_bytes() {
    let mut world = World::new();
    world.publish("1", "copy");
    world.publish("1", "copy");
    world.read();
    world.commit();
    assert_eq!(world.log.forwarded.len(), 1);
    assert_eq!(world.log.forwarded[0].decode().unwrap(), (event("1", "copy"), Passage::default()));
}

#[test]
fn what_no_route_names_is_a_dead_letter_until_a_route_does() {
    let mut world = World::new();
    world.publish("1", "unheard-of");
    world.read();
    world.commit();
    assert_eq!(world.dead_reasons(), ["unroutable"]);
    assert_eq!(world.state("1", "").unwrap().status, Status::Dead);
    world.replay("1", "", 1, false);
    world.read();
    assert_eq!(world.calls.len(), 1, "the replay is of a type that a route names");
    world.commit();
    world.crash();
    world.read();
    assert_eq!(world.calls.len(), 1, "a crash before its settlement loses nothing");
    world.answer_all(Outcome::Done);
    world.commit();
    assert_eq!(world.state("1", "").unwrap().status, Status::Done);
    assert_eq!(world.state("1", "orders").unwrap().status, Status::Done);
}

#[test]
fn what_cannot_be_read_is_a_dead_letter_with_its_bytes_and_headers() {
    let mut world = World::new();
    let foreign = RawRecord::copy(Some(b"k"), b"\xff\x00", [("x", b"1".as_slice())].into_iter());
    world.log.events.push((foreign, world.now.wall));
    world.read();
    world.commit();
    assert_eq!(world.dead_reasons(), ["undecodable"]);
    assert_eq!(world.log.dead[0].value().as_ref(), b"\xff\x00");
    assert!(world.log.dead[0].headers().any(|(name, value)| name == "x" && value == "1"));
    assert_eq!(world.log.offsets[&Stream::Events], 1);
}

#[test]
fn what_cannot_be_read_is_found_again_by_the_topic_that_it_came_from() {
    let mut world = World::new();
    let foreign = || RawRecord::copy(None, b"?", std::iter::empty());
    world.log.events.push((foreign(), world.now.wall));
    world.log.retries.entry(Tier(1)).or_default().push((foreign(), world.now.wall));
    world.read();
    world.commit();
    let origins = world.log.dead.iter().map(|letter| letter.passage().origin.unwrap().topic);
    assert_eq!(origins.collect::<Vec<_>>(), ["webhooks.events", "webhooks.retry.1"]);
}

#[test]
fn a_retry_whose_destination_is_gone_is_a_dead_letter() {
    let mut world = World::new();
    world.publish("1", "push");
    world.read();
    world.answer_all(status(500));
    world.commit();
    let without =
        CONFIG.replace("name = \"orders\"", "name = \"others\"").replace("\"orders\"", "\"others\"");
    world.plan = plan_of(&without);
    world.read();
    world.pass(10);
    world.commit();
    assert_eq!(world.dead_reasons(), ["destination_removed"]);
    assert_eq!(world.state("1", "orders").unwrap().status, Status::Dead);
}

#[test]
fn a_replay_is_handled_once_however_often_it_is_published() {
    let mut world = World::new();
    world.publish("1", "push");
    world.read();
    world.answer_all(status(400));
    world.commit();
    world.replay("1", "orders", 1, false);
    world.replay("1", "orders", 1, false);
    world.read();
    assert_eq!(world.calls.len(), 1);
    world.answer_all(Outcome::Done);
    world.commit();
    world.replay("1", "orders", 1, false);
    world.read();
    assert!(world.calls.is_empty());
    world.replay("1", "orders", 2, false);
    world.read();
    assert!(world.calls.is_empty(), "what is done is only replayed by force");
    world.replay("1", "orders", 2, true);
    world.read();
    assert_eq!(world.calls.len(), 1);
    let keys: BTreeSet<_> = world.made.iter().map(|(key, _, _)| key).collect();
    assert_eq!(keys.len(), 3, "each generation has a key of its own");
}

#[test]
fn while_everything_fails_lag_grows_and_the_mended_handler_gets_what_was_held_back() {
    let mut world = World::new();
    world.window = Window::new(beginning(&world.log, Recollection::default(), 10));
    for number in 0..50 {
        world.publish(&number.to_string(), "push");
    }
    world.read();
    world.answer_all(status(400));
    world.commit();
    assert_eq!(world.log.dead.len(), 10);
    assert_eq!(world.log.offsets[&Stream::Events], 10);
    assert_eq!(world.window.gauges().open, 40);
    world.pass(5);
    assert_eq!(world.calls.len(), 40, "the handler is asked again");
    world.answer_all(Outcome::Done);
    world.commit();
    assert_eq!(world.log.dead.len(), 10);
    assert_eq!(world.log.offsets[&Stream::Events], 50);
    assert!(world.made.iter().all(|(_, attempt, _)| *attempt == 0), "no attempt was spent by holding back");
}

#[test]
fn a_window_with_something_uncommitted_does_not_give_its_states_away() {
    let mut world = World::new();
    world.publish("1", "copy");
    world.read();
    let empty = Window::new(beginning(&Log::default(), Recollection::default(), 0));
    assert!(std::mem::replace(&mut world.window, empty).into_table().is_none());
}

#[test]
fn a_full_window_says_so_and_takes_up_nothing_that_is_due() {
    let mut world = World::new();
    for number in 0..MAX_OPEN {
        world.publish(&number.to_string(), "push");
    }
    world.read();
    assert!(world.window.is_full());
    world.answer_all(status(500));
    world.commit();
    world.read();
    for number in 0..MAX_OPEN {
        world.publish(&format!("later {number}"), "push");
    }
    world.read();
    world.pass(60);
    assert_eq!(world.calls.len(), MAX_OPEN);
    assert_eq!(world.window.next_due(), None);
    world.answer(0, Outcome::Done);
    world.pass(0);
    assert_eq!(world.calls.len(), MAX_OPEN);
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u8, bool),
    Replay(u8),
    Read,
    Answer(usize, u8),
    Pass(u64),
    Commit,
    Crash,
    LoseProducer(bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..12, any::<bool>()).prop_map(|(id, both)| Step::Publish(id, both)),
        1 => (0u8..12).prop_map(Step::Replay),
        6 => Just(Step::Read),
        8 => (any::<usize>(), 0u8..4).prop_map(|(n, outcome)| Step::Answer(n, outcome)),
        3 => (1u64..60).prop_map(Step::Pass),
        6 => Just(Step::Commit),
        1 => Just(Step::Crash),
        1 => any::<bool>().prop_map(Step::LoseProducer),
    ]
}

fn play(world: &mut World, step: &Step) {
    match step {
        Step::Publish(id, both) => world.publish(&id.to_string(), if *both { "both" } else { "push" }),
        Step::Replay(id) => {
            let id = id.to_string();
            if let Some(state) = world.state(&id, "orders") {
                world.replay(&id, "orders", state.generation + 1, false);
            }
        }
        Step::Read => world.read(),
        Step::Answer(n, outcome) => {
            if !world.calls.is_empty() {
                let n = n % world.calls.len();
                let outcome =
                    [Outcome::Done, status(500), status(429), status(400)][usize::from(*outcome)].clone();
                world.answer(n, outcome);
            }
        }
        Step::Pass(seconds) => world.pass(*seconds),
        Step::Commit => world.commit(),
        Step::Crash => world.crash(),
        Step::LoseProducer(with_commit) => world.lose_producer(*with_commit),
    }
}

/// Lets everything come to rest.
fn settle_down(world: &mut World) {
    for _ in 0..200 {
        world.read();
        world.answer_all(Outcome::Done);
        world.commit();
        world.pass(60);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever dies, and whenever: every delivery ends once a generation, none is lost, none is
    /// tried early, and Kafka alone tells all of it.
    #[test]
    fn every_delivery_ends_exactly_once(steps in proptest::collection::vec(any_step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            play(&mut world, step);
        }
        settle_down(&mut world);

        let terminal = world.log.terminal();
        let once: BTreeSet<_> = terminal.iter().map(|(key, generation, _)| (*key, *generation)).collect();
        prop_assert_eq!(once.len(), terminal.len(), "a delivery ended twice in one generation");

        for (raw, _) in &world.log.events {
            let (event, passage) = raw.decode().unwrap();
            for destination in world.plan.destinations_of(&event.source, &event.kind) {
                if passage.destination.as_ref().is_none_or(|only| *only == destination.name) {
                    let state = world.state(&event.id, &destination.name);
                    let is_terminal = matches!(state.as_ref().map(|state| state.status), Some(Status::Done | Status::Dead));
                    prop_assert!(is_terminal, "{} to {} ended as {state:?}", event.id, destination.name);
                }
            }
        }
        for (stream, read) in &world.read {
            let frontier = world.log.offsets.get(stream).copied().unwrap_or_default();
            prop_assert_eq!(*read, frontier, "something of {:?} was left open", stream);
        }
        prop_assert!(world.window.take_commit(false).is_none());
        let again = world.log.table();
        prop_assert_eq!(again.len(), world.window.table().len(), "memory and Kafka tell different stories");
    }

    /// Nothing is called before its time: each retry lies at least its tier's delay after the
    /// record that asked for it was written.
    #[test]
    fn no_retry_is_early(steps in proptest::collection::vec(any_step(), 1..150)) {
        let mut world = World::new();
        let mut checked = 0;
        for step in &steps {
            play(&mut world, step);
            for (key, attempt, at) in &world.made[checked..] {
                let asked = world.log.retries.values().flatten().find_map(|(raw, _)| {
                    let (event, passage) = raw.decode().unwrap();
                    let name = passage.destination.clone().unwrap();
                    let retry_key = crate::delivery::idempotency_key(
                        &StateKey::of(&event.source, &event.id, &name), passage.generation);
                    (retry_key == *key && passage.attempt == *attempt).then_some(passage.not_before.unwrap())
                });
                if *attempt > 0 {
                    prop_assert!(asked.is_some_and(|due| due <= *at), "attempt {attempt} of {key} at {at}, due {asked:?}");
                }
            }
            checked = world.made.len();
        }
    }
}

#[test]
fn a_dead_letter_is_counted_and_remembered_with_its_reason() {
    let mut world = World::new();
    world.publish("1", "push");
    world.read();
    world.answer_all(status(400));
    world.commit();
    let table = world.log.table();
    let (burial, is_dead) = table.burials().next().unwrap();
    assert_eq!(
        (burial.reason, &*burial.source, &*burial.destination),
        (DeadLetterReason::Permanent, "github", "orders")
    );
    assert!(is_dead);
}
