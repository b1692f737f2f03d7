//! Load beyond what handlers, memory or sockets can take at once: the same scenes small in the tests
//! and large by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_common::lifecycle::Clock;

use crate::audit::{self, Audit, States, Status};
use crate::handler::Reply;
use crate::load::{Load, Plan};
use crate::program::Program;
use crate::raw_handler::RawHandler;
use crate::sender::{Sender, post, post_until_accepted};
use crate::socket::{Socket, head};
use crate::stage::{Settings, Stage, destination};
use crate::wait;

const MEBIBYTE: u64 = 1024 * 1024;
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The most that `docs/delivery.md` lets a processor take of memory that owns so many partitions, states
/// not counted, in bytes.
pub fn most_of_a_processor(partitions: u32) -> u64 {
    (160 + 88 * u64::from(partitions)) * MEBIBYTE
}

/// The most that it lets ingest take with so many connections and bodies of so many bytes at once.
pub fn most_of_an_ingest(connections: u64, buffered: u64) -> u64 {
    96 * MEBIBYTE + connections * 32 * 1024 + 2 * buffered
}

/// Until it is opened, nobody who waits there goes on.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Lets everybody go on.
    pub fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Waits until it is open.
    pub fn wait(&self) {
        while !self.0.load(Ordering::Relaxed) {
            wait::pause(Duration::from_millis(5));
        }
    }
}

/// A gate that a test left closed must not hold its threads for ever.
#[derive(Debug)]
pub struct Opened<'g>(pub &'g Gate);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Many destinations that hang beside one that does not.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    /// Destinations that hang.
    pub slow: usize,
    /// Events for each of them.
    pub events: usize,
    /// Events for the fast one.
    pub fast: usize,
}

/// Calls at once of one slow destination.
const CONCURRENCY: usize = 4;

impl Beside {
    /// All slow ones together may want twice as many calls as there are.
    fn max_concurrency(self) -> usize {
        2 * (self.slow + 1)
    }

    /// What the stage must be set with; `url` is where slow destinations are called.
    pub fn settings(self, settings: &mut Settings, url: &str) {
        let limits = format!("timeout = \"10m\"\nconcurrency = {CONCURRENCY}");
        settings.destinations = destination("fast", "concurrency = 8");
        settings.routes = route("fast");
        for number in 0..self.slow {
            let name = format!("slow-{number}");
            settings.destinations += &destination(&name, &limits).replace("HANDLER/", url);
            settings.routes += &route(&name);
        }
        settings.processor = format!("max_concurrency = {}", self.max_concurrency());
    }

    /// Sends all; the fast ones are done while not one slow call has ended, and nobody is called more
    /// often at once than is configured. Then the slow ones end, and everything is settled once.
    pub fn play(self, stage: &Stage, partitions: u32, slow: &RawHandler, gate: &Gate) -> Result<Peaks> {
        let _opened = Opened(gate);
        let (ingest, processor) = (stage.ingest()?, stage.processor()?);
        let mut sent = Vec::new();
        for number in 0..self.events {
            for destination in 0..self.slow {
                sent.push(send_to(stage, &format!("slow-{destination}"), number)?);
            }
            for number in number * self.fast / self.events..(number + 1) * self.fast / self.events {
                sent.push(send_to(stage, "fast", number)?);
            }
        }
        stage.handler.until_called(self.fast)?;
        let mut open: BTreeMap<String, usize> = BTreeMap::new();
        for call in slow.calls() {
            let destination = call.event.rsplit_once('.').map_or("", |(destination, _)| destination);
            *open.entry(destination.to_owned()).or_default() += 1;
        }
        ensure!(open.values().all(|calls| *calls <= CONCURRENCY), "too many calls at once: {open:?}");
        ensure!(open.values().sum::<usize>() <= self.max_concurrency(), "too many over all: {open:?}");
        ensure!(self.slow <= open.values().sum::<usize>(), "it is not busy: {open:?}");
        gate.open();
        are_done_once(stage, &sent)?;
        stage.until_caught_up()?;
        let peaks = Peaks::within_bounds(&ingest, 1, &processor, partitions)?;
        ensure!(ingest.stop()?.success() && processor.stop()?.success());
        Ok(peaks)
    }
}

/// The most that programs had in memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    /// Of ingest.
    pub ingest: u64,
    /// Of the processor.
    pub processor: u64,
}

impl Peaks {
    /// What it is until now, with so many connections and partitions; an error where that is more than
    /// is promised.
    fn within_bounds(
        ingest: &Program,
        connections: u64,
        processor: &Program,
        partitions: u32,
    ) -> Result<Self> {
        let peaks = Self { ingest: ingest.peak_bytes()?, processor: processor.peak_bytes()? };
        let bounds = (most_of_an_ingest(connections, 0), most_of_a_processor(partitions));
        ensure!(peaks.ingest < bounds.0, "ingest took {} MiB", peaks.ingest / MEBIBYTE);
        ensure!(peaks.processor < bounds.1, "the processor took {} MiB", peaks.processor / MEBIBYTE);
        Ok(peaks)
    }
}

/// A handler that answers nobody before `gate` is opened.
pub fn gated(gate: &Gate) -> Result<RawHandler> {
    let gate = gate.clone();
    RawHandler::start(move |caller| {
        caller.read()?;
        gate.wait();
        caller.send(OK)
    })
}

fn route(destination: &str) -> String {
    format!("[[routes]]\nsource = \"github\"\ntypes = [\"push.{destination}\"]\nto = [\"{destination}\"]\n")
}

/// Sends event `number` for `destination`; gives its id and the destination.
fn send_to(stage: &Stage, destination: &str, number: usize) -> Result<(String, String)> {
    let id = format!("{destination}.{number}");
    let signed = Sender::GitHub.sign(&id, format!("{{\"action\":\"{destination}\"}}"));
    let (status, text) = post(stage.port, &signed)?;
    ensure!(status == 200, "{status}: {text}");
    Ok((id, destination.to_owned()))
}

fn are_done_once(stage: &Stage, sent: &[(String, String)]) -> Result<()> {
    wait::until("all to be done", || {
        let states = States::read(&stage.reader, &stage.prefix)?;
        let is_done = |(id, destination): &(String, String)| {
            states.status("github", id, destination) == Some(Status::Done)
        };
        Ok(sent.iter().all(is_done).then_some(()))
    })?;
    let destinations: Vec<_> = sent.iter().map(|(_, destination)| destination.as_str()).collect();
    let mut run = audit::run(&stage.reader, &stage.prefix, &stage.prefix, &destinations);
    // Each event goes to one of them.
    run.routes.iter_mut().for_each(|route| route.sometimes = true);
    let audit = Audit::of(run, &Default::default())?;
    ensure!(audit.is_clean() && audit.done == sent.len(), "{audit}");
    Ok(())
}

/// More events than the handler can take.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Connections of each of three senders.
    pub connections: usize,
    /// How long a connection waits between two events.
    pub pause: Duration,
    /// How many are to be accepted before it ends, and how long it lasts at least.
    pub events: usize,
    /// See above.
    pub time: Duration,
    /// How long each of the two calls takes that the handler takes at once.
    pub call: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Flooded {
    /// Events that heard a 200.
    pub accepted: usize,
    /// How long that took.
    pub took: Duration,
    /// Events that were handled meanwhile.
    pub handled: usize,
    /// The most that both programs had in memory.
    pub peaks: Peaks,
    /// How long the rest took once the handler was mended.
    pub rest: Duration,
    /// The judgement.
    pub audit: Audit,
}

impl Flood {
    /// What the stage must be set with.
    pub fn settings(settings: &mut Settings) {
        settings.destinations = destination("orders", "concurrency = 2");
    }

    /// Sends while the handler is slow, then mends it, and waits until all is settled.
    pub fn play(self, stage: &Stage, partitions: u32) -> Result<Flooded> {
        stage.handler.answer(move |_| Reply { after: self.call, ..Reply::from(200) });
        let (ingest, processor) = (stage.ingest()?, stage.processor()?);
        let plan = Plan { events: usize::MAX, connections: self.connections, pause: self.pause };
        let (load, clock) = (Load::start(stage.port, plan)?, Clock::start());
        load.go();
        while load.sent() < self.events || clock.mono() < self.time {
            ensure!(processor.ended()?.is_none() && ingest.ended()?.is_none(), "a program has ended");
            wait::pause(Duration::from_millis(50));
        }
        let (accepted, took, handled) = (load.stop()?, clock.mono(), stage.handler.count());
        ensure!(handled * 3 < accepted.len(), "{handled} of {} were handled: no flood", accepted.len());
        stage.handler.answer(|_| Reply::from(200));
        let begun = clock.mono();
        until_settled(stage, accepted.len(), &processor)?;
        let rest = clock.mono() - begun;
        let audit = stage.until_all_settled(&accepted)?;
        ensure!(audit.is_clean() && audit.done == accepted.len(), "{audit}");
        let peaks = Peaks::within_bounds(&ingest, 3 * self.connections as u64, &processor, partitions)?;
        ensure!(ingest.stop()?.success() && processor.stop()?.success());
        let accepted = accepted.len();
        Ok(Flooded { accepted, took, handled, peaks, rest, audit })
    }
}

/// However long it takes, as long as there is progress.
fn until_settled(stage: &Stage, events: usize, processor: &Program) -> Result<()> {
    let mut last = 0;
    while last < events {
        let more = wait::until("progress", || {
            let done = processor.metric("hookwell_processor_settlements_total", &["\"done\""])? as usize;
            Ok((last < done).then_some(done))
        })?;
        last = more;
    }
    stage.until_caught_up()
}

/// A third of `count` connections idle after a request, a third in the middle of a head, a third in the
/// middle of a body; and senders among them that are served. Gives the most that ingest had in memory.
pub fn crowd(stage: &Stage, count: usize, active: usize) -> Result<u64> {
    let ingest = stage.ingest()?;
    let signed = |n: usize| Sender::GitHub.event(&format!("crowd-{n}"));
    let mut accepted = BTreeSet::new();
    let mut held = Vec::with_capacity(count);
    for n in 0..count {
        let event = signed(n);
        let start = head(&event, &format!("content-length: {}\r\n", event.body.len()));
        let (first, rest) = match n % 3 {
            0 => ([start.as_bytes(), &event.body].concat(), Vec::new()),
            1 => (start.as_bytes()[..20].to_vec(), [&start.as_bytes()[20..], &event.body].concat()),
            _ => ([start.as_bytes(), &event.body[..10]].concat(), event.body[10..].to_vec()),
        };
        let mut socket = Socket::sending(stage.port, first)?;
        if rest.is_empty() {
            ensure!(socket.answer()?.status == 200);
        }
        accepted.insert((event.source, event.id));
        held.push((socket, rest));
    }
    for n in count..count + active {
        let event = signed(n);
        post_until_accepted(stage.port, &event)?;
        accepted.insert((event.source, event.id));
    }
    let peak = ingest.peak_bytes()?;
    for (socket, rest) in held.iter_mut().filter(|(_, rest)| !rest.is_empty()) {
        socket.send(rest)?;
        let answer = socket.answer()?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    drop(held);
    ensure!(stage.audit(&accepted)?.lost.is_empty());
    ensure!(ingest.stop()?.success());
    Ok(peak)
}
