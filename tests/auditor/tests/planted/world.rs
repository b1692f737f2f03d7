//! A run with every fate in which every promise was kept, as it lies in a folder of evidence.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use hookwell_auditor::evidence::{Answer, Call, Ends, Evidence, Fault, Rest, Run, Seen};
use hookwell_auditor::judge;
use hookwell_auditor::names::{DeliveryKey, Digest, EventKey, Name, Names};
use hookwell_auditor::record::{Line, Role};
use hookwell_auditor::verdict::Verdict;

/// How many partitions each topic has.
pub(crate) const PARTITIONS: i32 = 2;

/// What a call or a state is of: source, event id, destination.
pub(crate) type Of = (&'static str, &'static str, &'static str);

pub(crate) const FINE: Of = ("github", "fine", "orders");
pub(crate) const FINE_MIRROR: Of = ("github", "fine", "mirror");
pub(crate) const FLAKY: Of = ("github", "flaky", "orders");
pub(crate) const BROKEN: Of = ("stripe", "broken", "orders");
pub(crate) const WEAK: Of = ("stripe", "weak", "orders");
pub(crate) const COPIED: Of = ("stripe", "copied", "orders");
pub(crate) const HELD: Of = ("stripe", "held", "orders");
pub(crate) const REPEATED: Of = ("stripe", "repeated", "orders");
pub(crate) const LATE: Of = ("stripe", "late", "orders");
pub(crate) const MISSED: Of = ("stripe", "missed", "orders");
pub(crate) const NOWHERE: Of = ("shopify", "nowhere", "");
pub(crate) const FORCED: Of = ("stripe", "forced", "orders");

/// All evidence, as it is written.
#[derive(Clone, Debug)]
pub(crate) struct Dump {
    pub(crate) run: Run,
    pub(crate) now: u64,
    pub(crate) answers: Vec<Answer>,
    pub(crate) calls: Vec<Call>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) topics: BTreeMap<String, Vec<Line>>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) ends: Vec<Ends>,
    pub(crate) rest: Option<Rest>,
    first_failed: HashMap<(Of, u16), u64>,
    first_seen: HashMap<Of, u64>,
}

const RUN: &str = r#"{
    "bootstrap_servers": "nowhere", "prefix": "p", "group": "g", "tiers": [300, 1000],
    "destinations": [
        {"name": "orders", "kind": "http", "max_attempts": 3},
        {"name": "mirror", "kind": "kafka", "topic": "out", "max_attempts": 3},
        {"name": "diary", "kind": "log", "max_attempts": 3}
    ],
    "routes": [
        {"source": "github", "to": ["orders", "mirror"]}, {"source": "github", "to": ["orders"]},
        {"source": "stripe", "to": ["orders"]}
    ]
}"#;

const TOPICS: [&str; 6] = ["p.events", "p.retry.1", "p.retry.2", "p.dlq", "p.state", "out"];

/// Between two events, so that the faults of one are not those of another.
const APART: u64 = 100_000;

impl Dump {
    /// Nothing yet.
    fn empty() -> Self {
        Self {
            run: serde_json::from_str(RUN).unwrap(),
            now: 1_790_000_000_001,
            answers: vec![],
            calls: vec![],
            faults: vec![],
            topics: TOPICS.map(|topic| (topic.to_owned(), vec![])).into(),
            seen: vec![],
            ends: vec![],
            rest: None,
            first_failed: HashMap::new(),
            first_seen: HashMap::new(),
        }
    }

    /// The run; what readers and processors say of it is told by [`Dump::collect`].
    pub(crate) fn clean() -> Self {
        let mut dump = Self::empty();
        dump.append("p.state", 0, Some(b"hookwell-birth"), &[], b"0.1.0");
        dump.delivered_at_once();
        dump.delivered_at_the_second_attempt(FLAKY);
        dump.given_up_and_replayed();
        dump.exhausted();
        dump.copied();
        dump.held_by_the_flood_guard();
        dump.repeated_after_a_fault();
        dump.held_back_by_a_fault();
        dump.missed_by_the_handler();
        dump.routed_nowhere();
        dump.unreadable();
        dump.forced();
        for topic in ["p.retry.1", "p.dlq", "p.state"] {
            dump.append(
                topic,
                0,
                Some(b"hookwell-end"),
                &[("hookwell-transaction", "0a1b-7".to_owned())],
                b"",
            );
        }
        // Nobody heard an answer, and nothing is there.
        let unheard = ("github", "unheard", "orders");
        dump.answers.push(Answer { status: 0, answered: None, ..answer(unheard, "body", dump.now) });
        dump
    }

    fn delivered_at_once(&mut self) {
        self.accept(FINE, "body");
        self.called(FINE, 0, 0, 200).state(FINE, 2, 0, 0, None);
        self.mirrored(FINE_MIRROR);
    }

    fn delivered_at_the_second_attempt(&mut self, of: Of) {
        self.accept(of, "body");
        self.called(of, 0, 0, 503).retry(of, 0, 1, 1).called(of, 0, 1, 200).state(of, 2, 0, 0, None);
        self.mirrored((of.0, of.1, "mirror"));
    }

    fn given_up_and_replayed(&mut self) {
        self.accept(BROKEN, "body");
        self.called(BROKEN, 0, 0, 400).dead(BROKEN, 0, 0, "permanent");
        let died = self.now;
        self.state(BROKEN, 3, 0, 0, Some((died, 4)));
        self.replay(BROKEN, 1, false);
        self.called(BROKEN, 1, 0, 200).state(BROKEN, 2, 1, 0, Some((died, 4)));
        // Written again, for it must outlive its dead letter.
        self.first_seen.insert(BROKEN, self.first_seen[&BROKEN].next_multiple_of(1000));
        self.state(BROKEN, 2, 1, 0, Some((died, 4)));
    }

    fn exhausted(&mut self) {
        self.accept(WEAK, "body");
        self.called(WEAK, 0, 0, 500).retry(WEAK, 0, 1, 1);
        self.called(WEAK, 0, 1, 500).retry(WEAK, 0, 2, 2);
        self.called(WEAK, 0, 2, 0).dead(WEAK, 0, 2, "exhausted");
        self.state(WEAK, 3, 0, 0, Some((self.now, 5)));
    }

    fn copied(&mut self) {
        self.answers.push(Answer { status: 503, ..answer(COPIED, "body", self.now) });
        self.accept(COPIED, "body");
        self.accept(COPIED, "another body");
        self.called(COPIED, 0, 0, 200).state(COPIED, 2, 0, 0, None);
    }

    fn held_by_the_flood_guard(&mut self) {
        self.accept(HELD, "body");
        self.called(HELD, 0, 0, 400);
        self.now += 5000;
        self.called(HELD, 0, 0, 400);
        self.now += 5000;
        self.called(HELD, 0, 0, 200).state(HELD, 2, 0, 0, None);
    }

    fn repeated_after_a_fault(&mut self) {
        self.accept(REPEATED, "body");
        self.called(REPEATED, 0, 0, 200).fault(2000);
        self.called(REPEATED, 0, 0, 200).state(REPEATED, 2, 0, 0, None);
    }

    /// Two calls come when their caller has long given them up, and the fault is over: one before the
    /// call that takes their place, and one after it.
    fn held_back_by_a_fault(&mut self) {
        self.accept(LATE, "body");
        let made = self.now;
        self.fault(2000).now += 1000;
        self.called(LATE, 0, 0, 200);
        self.calls.last_mut().unwrap().made = Some(made);
        self.called(LATE, 0, 0, 200).called(LATE, 0, 0, 200);
        self.calls.last_mut().unwrap().made = Some(made);
        self.state(LATE, 2, 0, 0, None);
    }

    fn missed_by_the_handler(&mut self) {
        self.accept(MISSED, "body");
        self.fault(1000);
        self.first_failed.insert((MISSED, 0), self.now);
        self.retry(MISSED, 0, 1, 1).called(MISSED, 0, 1, 200).state(MISSED, 2, 0, 0, None);
    }

    fn routed_nowhere(&mut self) {
        self.accept(NOWHERE, "body");
        self.dead(NOWHERE, 0, 0, "unroutable");
        self.state(NOWHERE, 3, 0, 0, Some((self.now, 2)));
    }

    fn unreadable(&mut self) {
        let offset = self.append("p.events", 0, None, &[], b"?");
        let headers = [
            ("hookwell-original-topic", "p.events".to_owned()),
            ("hookwell-original-partition", "0".to_owned()),
            ("hookwell-original-offset", offset.to_string()),
            ("hookwell-error-class", "undecodable".to_owned()),
        ];
        self.append("p.dlq", 0, Some(b""), &headers, b"?");
        let key = DeliveryKey::of("", &format!("0/0/{offset}"), "");
        let value = state_value(3, 0, 0, (self.now, self.now), Some((self.now, 1)), ("", ""));
        self.append("p.state", 0, Some(&key.0), &[], &value);
    }

    fn forced(&mut self) {
        self.accept(FORCED, "body");
        self.called(FORCED, 0, 0, 200).state(FORCED, 2, 0, 0, None);
        self.replay(FORCED, 1, true);
        self.called(FORCED, 1, 0, 200).state(FORCED, 2, 1, 0, None);
    }

    /// The partition of an event.
    pub(crate) fn partition((source, id, _): Of) -> i32 {
        EventKey::of(source, id).partition(PARTITIONS)
    }

    /// A record at the end of a topic; those of transactions leave room for a marker.
    pub(crate) fn append(
        &mut self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        headers: &[(&str, String)],
        value: &[u8],
    ) -> i64 {
        let lines = self.topics.get_mut(topic).unwrap();
        let last = lines.iter().filter(|line| line.partition == partition).map(|line| line.offset).max();
        let room = if topic == "p.events" { 1 } else { 2 };
        let offset = last.map_or(0, |last| last + room);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let place = (partition, offset, self.now);
        lines.push(Line::new(place, key, &headers, Some(value), topic == "p.state"));
        offset
    }

    /// An event, answered with 200.
    pub(crate) fn accept(&mut self, of: Of, body: &str) {
        self.now += APART;
        self.answers.push(answer(of, body, self.now));
        self.event("p.events", of, vec![], body);
        self.first_seen.entry(of).or_insert(self.now);
    }

    /// A record of an event.
    pub(crate) fn event(&mut self, topic: &str, of: Of, mut more: Vec<(&str, String)>, body: &str) {
        let (source, id, _) = of;
        let names = [("ce_id", id), ("ce_source", source), ("ce_type", "test"), ("ce_time", "now")];
        let mut headers = vec![("ce_specversion", "1.0".to_owned())];
        headers.extend(names.map(|(name, value)| (name, value.to_owned())));
        headers.append(&mut more);
        let key = format!("{source}:{id}");
        self.append(topic, Self::partition(of), Some(key.as_bytes()), &headers, body.as_bytes());
    }

    /// What records of a delivery say beside.
    fn passage(&self, of: Of, generation: u16, attempt: u16, class: &str) -> Vec<(&'static str, String)> {
        let (source, id, destination) = of;
        let first = self.lines("p.events", (source, id)).next().unwrap();
        let mut headers = vec![
            ("hookwell-attempt", attempt.to_string()),
            ("hookwell-generation", generation.to_string()),
            ("hookwell-original-topic", "p.events".to_owned()),
            ("hookwell-original-partition", first.partition.to_string()),
            ("hookwell-original-offset", first.offset.to_string()),
            ("hookwell-error-class", class.to_owned()),
        ];
        if !destination.is_empty() {
            headers.push(("hookwell-destination", destination.to_owned()));
        }
        if let Some(at) = self.first_failed.get(&(of, generation)) {
            headers.push(("hookwell-first-failed-at", at.to_string()));
        }
        headers
    }

    /// A call, and the moment at which it ended.
    pub(crate) fn called(&mut self, of: Of, generation: u16, attempt: u16, status: u16) -> &mut Self {
        let (source, id, destination) = of;
        self.now += 10;
        self.calls.push(Call {
            destination: destination.into(),
            source: source.into(),
            id: id.into(),
            generation,
            attempt,
            key: DeliveryKey::of(source, id, destination).idempotency_key(generation),
            status,
            at: self.now,
            made: Some(self.now - 5),
            body: Digest::of(b"body"),
        });
        self.now += 10;
        if status != 200 {
            self.first_failed.entry((of, generation)).or_insert(self.now);
        }
        self
    }

    /// A retry with its state, and the moment at which it is due.
    pub(crate) fn retry(&mut self, of: Of, generation: u16, attempt: u16, tier: u16) -> &mut Self {
        let due = self.now + self.run.tiers[usize::from(tier) - 1];
        let mut headers = self.passage(of, generation, attempt, "transient");
        headers.push(("hookwell-not-before", due.to_string()));
        self.event(&format!("p.retry.{tier}"), of, headers, "body");
        self.state(of, 1, generation, attempt, None);
        self.now = due;
        self
    }

    /// A dead letter.
    pub(crate) fn dead(&mut self, of: Of, generation: u16, attempt: u16, class: &str) -> &mut Self {
        let headers = self.passage(of, generation, attempt, class);
        self.event("p.dlq", of, headers, "body");
        self
    }

    /// A replay.
    pub(crate) fn replay(&mut self, of: Of, generation: u16, forced: bool) {
        self.now += 1000;
        let mut headers = self.passage(of, generation, 0, "permanent");
        if forced {
            headers.push(("hookwell-forced", "true".to_owned()));
        }
        self.event("p.events", of, headers, "body");
    }

    /// A state record; of a dead letter when it was written, and the number of its reason.
    pub(crate) fn state(
        &mut self,
        of: Of,
        status: u8,
        generation: u16,
        next: u16,
        burial: Option<(u64, u8)>,
    ) -> &mut Self {
        let (source, id, destination) = of;
        let first_seen = *self.first_seen.entry(of).or_insert(self.now);
        let moments = (first_seen, self.now);
        let value = state_value(status, generation, next, moments, burial, (source, destination));
        let key = DeliveryKey::of(source, id, destination);
        self.append("p.state", Self::partition(of), Some(&key.0), &[], &value);
        self
    }

    /// Delivered to a topic.
    fn mirrored(&mut self, of: Of) {
        self.event("out", of, vec![], "body");
        self.state(of, 2, 0, 0, None);
    }

    /// A fault that begins now and lasts so long.
    pub(crate) fn fault(&mut self, lasts: u64) -> &mut Self {
        let (begin, end) = (self.now, self.now + lasts / 2);
        let recovered = Some(self.now + lasts);
        let (kind, target) = ("kill".to_owned(), "processor".to_owned());
        self.faults.push(Fault { kind, target, begin, end, recovered, skew_ms: 0, disturbs_calls: true });
        self.now += lasts;
        self
    }

    /// The lines of an event on a topic.
    pub(crate) fn lines(&self, topic: &str, (source, id): (&str, &str)) -> impl Iterator<Item = &Line> {
        let key = hex::encode(format!("{source}:{id}"));
        self.topics[topic].iter().filter(move |line| line.key == key)
    }

    /// The indices of a delivery's state records.
    pub(crate) fn states(&self, (source, id, destination): Of) -> Vec<usize> {
        let key = hex::encode(DeliveryKey::of(source, id, destination).0);
        let lines = self.topics["p.state"].iter().enumerate();
        lines.filter(|(_, line)| line.key == key).map(|(index, _)| index).collect()
    }

    /// What a reader saw, what processors say, and where topics end: all as it should be.
    pub(crate) fn collect(&mut self) -> &mut Self {
        for (topic, lines) in &mut self.topics {
            lines.sort_by_key(|line| (line.partition, line.offset));
            let is_read = topic.starts_with("p.events") || topic.starts_with("p.retry");
            for partition in 0..PARTITIONS {
                let mine = lines.iter().filter(|line| line.partition == partition);
                let next = mine.map(|line| line.offset + 1).max().unwrap_or(0);
                let committed = (is_read && 0 < next).then_some(next);
                let (topic, high) = (Name::from(&**topic), next + 1);
                self.ends.push(Ends { topic, partition, low: 0, stable: high, high, committed });
            }
            let is_state = topic == "p.state";
            self.seen.extend(lines.iter().map(|line| Seen {
                topic: Name::from(&**topic),
                partition: line.partition,
                offset: line.offset,
                digest: line.digest,
                key: state_key(line).filter(|_| is_state),
            }));
        }
        let ids: BTreeSet<_> = self.topics["p.state"].iter().filter_map(state_key).collect();
        // Status, generation and next attempt of each, as the newest value has them.
        let newest: BTreeMap<_, _> = self.topics["p.state"]
            .iter()
            .filter_map(|line| Some((state_key(line)?, hex::decode(line.value.as_ref()?).unwrap())))
            .collect();
        let one = |(key, value): (&DeliveryKey, &Vec<u8>)| {
            let hash = blake3::hash(&[&key.0, &value[1..6]].concat());
            u64::from_be_bytes(hash.as_bytes()[..8].try_into().unwrap())
        };
        let digest = newest.iter().map(one).fold(0, u64::wrapping_add);
        self.rest = Some(Rest { state_ids: ids.len() as u64, state_digest: Some(digest) });
        self
    }

    /// The judgement of it.
    pub(crate) fn judge(&self) -> Verdict {
        let mut names = Names::default();
        let topics = self.topics.iter().map(|(topic, lines)| {
            let role = Role::of(topic, &self.run.prefix);
            (Name::from(&**topic), lines.iter().map(|line| line.read(role, &mut names)).collect())
        });
        judge(&Evidence {
            run: self.run.clone(),
            answers: Some(self.answers.clone()),
            calls: Some(self.calls.clone()),
            faults: self.faults.clone(),
            seen: self.seen.clone(),
            rest: self.rest,
            topics: topics.collect(),
            ends: self.ends.clone(),
        })
    }

    /// Writes it as it lies in a folder.
    pub(crate) fn write(&self, folder: &Path) {
        let put = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
        put("run.json", serde_json::to_string(&self.run).unwrap());
        put("answers.jsonl", in_lines(&self.answers));
        put("calls.jsonl", in_lines(&self.calls));
        put("faults.jsonl", in_lines(&self.faults));
        put("seen.jsonl", in_lines(&self.seen));
        put("offsets.json", serde_json::to_string(&self.ends).unwrap());
        put("rest.json", serde_json::to_string(&self.rest).unwrap());
        fs::create_dir_all(folder.join("topics")).unwrap();
        for (topic, lines) in &self.topics {
            put(&format!("topics/{topic}.jsonl"), in_lines(lines));
        }
    }
}

fn in_lines<T: serde::Serialize>(entries: &[T]) -> String {
    entries.iter().map(|entry| serde_json::to_string(entry).unwrap() + "\n").collect()
}

/// A sending that heard a 200.
pub(crate) fn answer((source, id, _): Of, body: &str, now: u64) -> Answer {
    Answer {
        source: source.into(),
        id: id.into(),
        sent: now - 5,
        answered: Some(now),
        status: 200,
        body: Digest::of(body.as_bytes()),
    }
}

fn state_key(line: &Line) -> Option<DeliveryKey> {
    let mut key = DeliveryKey([0; 16]);
    hex::decode_to_slice(&line.key, &mut key.0).ok().map(|()| key)
}

/// A state as `docs/topics.md` writes it.
pub(crate) fn state_value(
    status: u8,
    generation: u16,
    next: u16,
    (first_seen, updated): (u64, u64),
    burial: Option<(u64, u8)>,
    (source, destination): (&str, &str),
) -> Vec<u8> {
    let mut value = vec![1, status];
    value.extend(generation.to_be_bytes());
    value.extend(next.to_be_bytes());
    value.extend(first_seen.to_be_bytes());
    value.extend(updated.to_be_bytes());
    if let Some((at, reason)) = burial {
        value.extend(at.to_be_bytes());
        value.push(reason);
        for text in [source, destination] {
            value.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            value.extend(text.as_bytes());
        }
    }
    value
}
