//! What is planted, and which breaches must be found, no fewer and no more.

use hookwell_auditor::evidence::{Call, Ends};
use hookwell_auditor::names::{DeliveryKey, Digest};
use hookwell_auditor::record::{Line, Text};
use hookwell_auditor::verdict::Breach::{self, *};

use super::world::{
    BROKEN, COPIED, Dump, FINE, FINE_MIRROR, FLAKY, FORCED, HELD, LATE, MISSED, Of, WEAK, answer, state_value,
};

/// In words; what must be found; what is done to the run; what is done to what was collected of it.
type Planted = (&'static str, &'static [Breach], fn(&mut Dump), fn(&mut Dump));

const GHOST: Of = ("stripe", "ghost", "orders");

fn nothing(_: &mut Dump) {}

/// The index of the line of an event's `nth` record on a topic.
fn line<'d>(dump: &'d mut Dump, topic: &str, (source, id, _): Of, nth: usize) -> &'d mut Line {
    let key = hex::encode(format!("{source}:{id}"));
    let lines = dump.topics.get_mut(topic).unwrap();
    lines.iter_mut().filter(|line| line.key == key).nth(nth).unwrap()
}

fn remove(dump: &mut Dump, topic: &str, of: Of, nth: usize) {
    let removed = line(dump, topic, of, nth).clone();
    dump.topics.get_mut(topic).unwrap().retain(|line| *line != removed);
}

fn set_header(line: &mut Line, name: &str, value: &str) {
    line.headers.retain(|(known, _)| known != name);
    line.headers.push((name.to_owned(), Text::Readable(value.to_owned())));
}

fn state(dump: &mut Dump, of: Of, nth: usize) -> &mut Line {
    let index = dump.states(of)[nth];
    &mut dump.topics.get_mut("p.state").unwrap()[index]
}

fn remove_state(dump: &mut Dump, of: Of, nth: usize) {
    let index = dump.states(of)[nth];
    dump.topics.get_mut("p.state").unwrap().remove(index);
}

/// Puts a copy of a line at the end of its topic.
fn double(dump: &mut Dump, topic: &str, line: Line) {
    let lines = dump.topics.get_mut(topic).unwrap();
    let offset = lines.iter().map(|line| line.offset).max().unwrap() + 1;
    lines.push(Line { offset, ..line });
}

/// The line of the record that cannot be read, and of its dead letter.
fn unreadable(dump: &Dump, topic: &str) -> usize {
    let is_named = |line: &Line| line.headers.iter().any(|(name, _)| name == "ce_id");
    dump.topics[topic].iter().position(|line| !is_named(line)).unwrap()
}

fn call(dump: &mut Dump, (_, id, _): Of, nth: usize) -> &mut Call {
    dump.calls.iter_mut().filter(|call| *call.id == *id).nth(nth).unwrap()
}

/// The end of a partition of a topic on which there is something.
fn ends<'d>(dump: &'d mut Dump, topic: &str) -> &'d mut Ends {
    dump.ends.iter_mut().find(|ends| *ends.topic == *topic && 1 < ends.high).unwrap()
}

/// Everything that is planted, check by check.
pub(crate) const PLANTED: &[Planted] = &[
    // 1: every accepted event ends, byte for byte.
    (
        "an event that heard a 200 is nowhere",
        &[Lost],
        |dump| dump.answers.push(answer(GHOST, "body", dump.now)),
        nothing,
    ),
    (
        "a delivery waits for ever",
        &[NoEnd],
        |dump| {
            let value = state_value(1, 0, 1, (dump.now, dump.now), None, ("", ""));
            state(dump, HELD, 0).value = Some(hex::encode(value));
        },
        nothing,
    ),
    (
        "an event is read and leaves no state",
        &[NoEnd, Unsettled],
        |dump| remove_state(dump, FINE, 0),
        nothing,
    ),
    (
        "one of two destinations is forgotten",
        &[NoEnd, Unsettled, Forwarded],
        |dump| remove_state(dump, FINE_MIRROR, 0),
        nothing,
    ),
    (
        "something ends that was never accepted",
        &[Stray],
        |dump| {
            dump.state(GHOST, 2, 0, 0, None);
        },
        nothing,
    ),
    (
        "an event ends at a destination that no route names",
        &[Stray],
        |dump| {
            dump.state(("stripe", "held", "mirror"), 2, 0, 0, None);
        },
        nothing,
    ),
    (
        "a dead letter of something that was never accepted",
        &[Stray, NotDead],
        |dump| dump.event("p.dlq", GHOST, vec![], "body"),
        nothing,
    ),
    (
        "a retry carries another body",
        &[OtherBody],
        |dump| line(dump, "p.retry.1", FLAKY, 0).body = Digest::of(b"other"),
        nothing,
    ),
    (
        "of two bodies with one id the second is delivered",
        &[OtherBody],
        |dump| call(dump, COPIED, 0).body = Digest::of(b"another body"),
        nothing,
    ),
    (
        "a body lies on the topic that was sent under another id",
        &[NeverSent],
        |dump| dump.answers[0].body = Digest::of(b"another body"),
        nothing,
    ),
    (
        "an event lies on the topic that nobody sent",
        &[NeverSent],
        |dump| dump.answers.retain(|answer| *answer.id != *FINE.1),
        nothing,
    ),
    (
        "an event lies on another partition than its hash says",
        &[WrongPartition],
        |dump| {
            let line = line(dump, "p.events", FINE, 0);
            (line.partition, line.offset) = (1 - line.partition, 1000);
        },
        nothing,
    ),
    (
        "a state lies on another partition than its event",
        &[WrongPartition],
        |dump| {
            let line = state(dump, HELD, 0);
            (line.partition, line.offset) = (1 - line.partition, 1000);
        },
        nothing,
    ),
    (
        "a dead letter names another origin",
        &[WrongOrigin],
        |dump| set_header(line(dump, "p.dlq", WEAK, 0), "hookwell-original-offset", "77"),
        nothing,
    ),
    // 2: one outcome in each generation.
    (
        "a delivery is done twice",
        &[SettledTwice],
        |dump| {
            dump.state(HELD, 2, 0, 0, None);
        },
        nothing,
    ),
    (
        "what is done dies",
        &[SettledTwice],
        |dump| {
            dump.dead(FINE_MIRROR, 0, 0, "destination_removed");
            dump.state(FINE_MIRROR, 3, 0, 0, Some((dump.now, 3)));
        },
        nothing,
    ),
    (
        "what is dead dies again and is taken for a refresh",
        &[SettledTwice],
        |dump| {
            let later = dump.now + 1;
            dump.state(WEAK, 3, 0, 0, Some((later, 5)));
        },
        nothing,
    ),
    (
        "attempts go back in the states",
        &[SettledTwice],
        |dump| {
            let first = state(dump, WEAK, 0).value.clone();
            let second = state(dump, WEAK, 1).value.clone();
            state(dump, WEAK, 0).value = second;
            state(dump, WEAK, 1).value = first;
        },
        nothing,
    ),
    (
        "a generation follows a later one",
        &[GenerationFell],
        |dump| {
            dump.state(FORCED, 2, 0, 0, None).state(FORCED, 2, 1, 0, None);
        },
        nothing,
    ),
    (
        "what was dead is delivered and nobody replayed it",
        &[NoReplay],
        |dump| remove(dump, "p.events", BROKEN, 1),
        nothing,
    ),
    (
        "what was done is delivered again and nobody forced it",
        &[NoReplay],
        |dump| set_header(line(dump, "p.events", FORCED, 1), "hookwell-forced", "false"),
        nothing,
    ),
    (
        "a state cannot be read",
        &[UnreadableState],
        |dump| state(dump, FLAKY, 0).value = Some("01ff".to_owned()),
        nothing,
    ),
    (
        "a delivery lies twice among the dead",
        &[BuriedTwice],
        |dump| {
            dump.dead(WEAK, 0, 2, "exhausted");
        },
        nothing,
    ),
    (
        "what cannot be read lies twice among the dead",
        &[BuriedTwice],
        |dump| {
            let letter = dump.topics["p.dlq"][unreadable(dump, "p.dlq")].clone();
            double(dump, "p.dlq", letter);
        },
        nothing,
    ),
    (
        "a delivery is dead and its dead letter is nowhere",
        &[NoDeadLetter],
        |dump| remove(dump, "p.dlq", WEAK, 0),
        nothing,
    ),
    (
        "what cannot be read is dead and its dead letter is nowhere",
        &[NoDeadLetter],
        |dump| {
            let index = unreadable(dump, "p.dlq");
            dump.topics.get_mut("p.dlq").unwrap().remove(index);
        },
        nothing,
    ),
    (
        "a dead letter of what was delivered",
        &[NotDead],
        |dump| {
            dump.dead(HELD, 0, 0, "permanent");
        },
        nothing,
    ),
    (
        "a topic gets an event twice",
        &[Forwarded],
        |dump| {
            let line = line(dump, "out", FINE, 0).clone();
            double(dump, "out", line);
        },
        nothing,
    ),
    (
        "a topic does not get an event that is done",
        &[Forwarded],
        |dump| remove(dump, "out", FINE, 0),
        nothing,
    ),
    // 3: one key a delivery, and no call too many.
    (
        "a delivery is done and nobody was called",
        &[DoneUncalled],
        |dump| dump.calls.retain(|call| *call.id != *FINE.1),
        nothing,
    ),
    (
        "a delivery is done and its handler's answer came too late",
        &[DoneUncalled],
        |dump| call(dump, FINE, 0).status = 0,
        nothing,
    ),
    (
        "a replay is done by the call of the generation before",
        &[DoneUncalled],
        |dump| call(dump, FORCED, 1).status = 0,
        nothing,
    ),
    (
        "a call succeeds and the delivery dies",
        &[DeadAfterSuccess],
        |dump| call(dump, WEAK, 2).status = 200,
        nothing,
    ),
    ("a retry carries another key", &[OtherKey], |dump| call(dump, FLAKY, 1).key.push('0'), nothing),
    (
        "two generations carry one key",
        &[OtherKey],
        |dump| {
            let (source, id, destination) = FORCED;
            call(dump, FORCED, 1).key = DeliveryKey::of(source, id, destination).idempotency_key(0);
        },
        nothing,
    ),
    (
        "a call that succeeded is made again without a fault",
        &[ExtraCall],
        |dump| {
            let again = call(dump, FINE, 0).clone();
            dump.calls.push(Call { at: again.at + 6000, ..again });
        },
        nothing,
    ),
    (
        "a call that succeeded is made again after a fault",
        &[ExtraCall],
        |dump| dump.faults[0].begin = dump.faults[0].end + 1500,
        |dump| dump.faults[0].recovered = None,
    ),
    (
        "a call that succeeded is made again during a fault that calls do not feel",
        &[ExtraCall],
        |dump| dump.faults[0].disturbs_calls = false,
        nothing,
    ),
    (
        "a call that succeeded is made again, and was itself made when the fault was over",
        &[ExtraCall],
        |dump| {
            let late = call(dump, LATE, 0);
            late.made = Some(late.at - 500);
        },
        nothing,
    ),
    (
        "a call that failed is made again before the flood guard would",
        &[ExtraCall],
        |dump| call(dump, HELD, 1).at -= 2000,
        nothing,
    ),
    (
        "a call for something that was never accepted",
        &[CallForNothing],
        |dump| {
            dump.called(GHOST, 0, 0, 200);
        },
        nothing,
    ),
    (
        "a call at a destination that no route names",
        &[CallForNothing],
        |dump| {
            dump.called(("stripe", "held", "diary"), 0, 0, 200);
        },
        nothing,
    ),
    (
        "a call in a generation that there never was",
        &[CallForNothing],
        |dump| {
            dump.called(HELD, 7, 0, 200);
        },
        nothing,
    ),
    // 4: never early, and attempts follow each other.
    ("a retry is made early", &[Early], |dump| call(dump, FLAKY, 1).at -= 70, nothing),
    (
        "a retry is made that nobody wrote down",
        &[NoRetry],
        |dump| remove(dump, "p.retry.1", FLAKY, 0),
        nothing,
    ),
    (
        "a retry is written twice",
        &[RetriedTwice],
        |dump| {
            let line = line(dump, "p.retry.1", FLAKY, 0).clone();
            double(dump, "p.retry.1", line);
        },
        nothing,
    ),
    ("a retry is left out", &[Skipped, NoRetry], |dump| remove(dump, "p.retry.1", WEAK, 0), nothing),
    (
        "an attempt is counted and nobody was called, without a fault",
        &[Skipped],
        |dump| drop(dump.faults.pop()),
        nothing,
    ),
    (
        "the handler is said to have refused and nobody was called",
        &[Skipped],
        |dump| dump.calls.retain(|call| *call.id != *BROKEN.1 || call.generation == 1),
        nothing,
    ),
    (
        "there are more attempts than may be",
        &[TooMany],
        |dump| dump.run.destinations[0].max_attempts = 2,
        nothing,
    ),
    (
        "a delivery is given up before its last attempt",
        &[GivenUpEarly],
        |dump| dump.run.destinations[0].max_attempts = 4,
        nothing,
    ),
    (
        "a retry is due before its delay has passed since the call",
        &[DueTooSoon],
        |dump| {
            let line = line(dump, "p.retry.2", WEAK, 0);
            let due = (line.at + 900).to_string();
            set_header(line, "hookwell-not-before", &due);
        },
        nothing,
    ),
    (
        "a retry is due before its delay has passed since the first failure",
        &[DueTooSoon],
        |dump| {
            let line = line(dump, "p.retry.1", MISSED, 0);
            let due = (line.at + 299).to_string();
            set_header(line, "hookwell-not-before", &due);
        },
        nothing,
    ),
    (
        "a retry waits in a tier that is too short for it",
        &[DueTooSoon],
        |dump| {
            let moved = line(dump, "p.retry.2", WEAK, 0).clone();
            remove(dump, "p.retry.2", WEAK, 0);
            double(dump, "p.retry.1", moved);
        },
        nothing,
    ),
    // 5: at rest nothing is open.
    ("a transaction is open", &[OpenTransaction], nothing, |dump| ends(dump, "p.state").stable -= 1),
    ("a retry is left", &[Lag], nothing, |dump| {
        let ends = ends(dump, "p.retry.1");
        ends.committed = ends.committed.map(|committed| committed - 1);
    }),
    ("the group has committed nothing", &[Lag], nothing, |dump| ends(dump, "p.events").committed = None),
    ("processors remember one id in another state", &[OtherStates], nothing, |dump| {
        let digest = dump.rest.as_mut().unwrap().state_digest.as_mut().unwrap();
        *digest = digest.wrapping_add(1);
    }),
    ("processors remember fewer ids than the topic", &[OtherIds], nothing, |dump| {
        dump.rest.as_mut().unwrap().state_ids -= 1
    }),
    // 6: what is committed has its state.
    (
        "a retry is read and its delivery still waits for it",
        &[NoEnd, Unsettled],
        |dump| remove_state(dump, FLAKY, 1),
        nothing,
    ),
    ("a replay of what is dead is passed over", &[Unsettled], |dump| dump.replay(WEAK, 1, false), nothing),
    (
        "a forced replay of what is done is passed over",
        &[Unsettled],
        |dump| dump.replay(HELD, 1, true),
        nothing,
    ),
    (
        "what cannot be read is passed over",
        &[Unsettled],
        |dump| {
            dump.append("p.retry.1", 0, None, &[], b"?");
        },
        nothing,
    ),
    ("the group has committed more than there is", &[BeyondEnd], nothing, |dump| {
        let ends = ends(dump, "p.retry.2");
        ends.committed = Some(ends.high + 1);
    }),
    // 7: readers during and after agree.
    ("a record that was seen is gone", &[Gone], nothing, |dump| {
        dump.topics.get_mut("p.state").unwrap().retain(|line| line.key.len() == 32)
    }),
    ("a record was seen that was never committed", &[Gone], nothing, |dump| {
        let mut seen = dump.seen.last().unwrap().clone();
        seen.offset += 1;
        dump.seen.push(seen);
    }),
    ("a record that was seen is another one now", &[Changed], nothing, |dump| dump.seen[3].digest.0[0] ^= 1),
    ("the reader passed a record over", &[Unseen], nothing, |dump| drop(dump.seen.remove(0))),
    ("the reader went back", &[OutOfOrder], nothing, |dump| dump.seen.swap(0, 1)),
    ("one place holds two records", &[OutOfOrder], nothing, |dump| {
        let lines = dump.topics.get_mut("p.events").unwrap();
        lines.insert(0, lines[0].clone());
    }),
];
