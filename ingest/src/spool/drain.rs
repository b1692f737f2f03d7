//! From the disk to Kafka: in order, a bounded number of events at once, from the first that Kafka
//! has not acknowledged on. A segment leaves once Kafka has all of it.
//!
//! Nothing is noted on the disk of how far a segment is drained. After a crash it is published from
//! its beginning, and state recognises the copies.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hookwell_common::event::Event;
use hookwell_common::failpoint;
use hookwell_common::identity::Identity;

use super::Shared;
use super::folder::{Folder, is_of_the_disk};
use super::frame::{Piece, Pieces, received_at};
use super::ledger::Segment;
use crate::publish::PublishError;

/// The most that is under way to Kafka at once.
const MAX_WINDOW_EVENTS: usize = 512;
const MAX_WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// How long to wait after a failure, and how often to look where nothing is told.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a segment is read in vain before it is passed over, lest it hold back all others.
const MAX_READS: u32 = 10;

/// How often Kafka has to refuse an event that is alone: what else goes there from this process may go
/// with it, and be what is refused.
const MAX_REFUSALS: u32 = 3;

/// What became of events that were published in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// How many of them, from the first on, Kafka has acknowledged.
    pub(super) acknowledged: usize,
    /// Why the next is not.
    pub(super) failure: Option<PublishError>,
}

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more to do at once.
    Went,
    /// There is nothing to do.
    Idle,
    /// Not now.
    Failed,
}

/// Drains a folder by way of `publish`.
pub(super) struct Drain<P> {
    folder: Folder,
    shared: Arc<Shared>,
    publish: P,
    window: usize,
    chunk: Chunk,
    failed_reads: u32,
    refusals: u32,
    /// The segment of which Kafka refused something, and the sequence of the file that holds that.
    refused: Option<(u64, u64)>,
    /// Drained segments whose files could not be taken away yet.
    leftovers: Vec<Segment>,
    is_failing: bool,
}

/// What was read of a segment.
#[derive(Debug, Default)]
struct Chunk {
    sequence: u64,
    start: u64,
    bytes: Vec<u8>,
}

/// What goes to Kafka together.
#[derive(Debug)]
struct Window {
    events: Vec<(Event, Identity)>,
    /// Up to where the segment is drained once each is acknowledged.
    places: Vec<u64>,
    /// Up to where nothing can be read before the first.
    skipped: u64,
    /// The first that is not among them.
    next: Option<Event>,
}

impl<P: FnMut(&[(Event, Identity)]) -> Published> Drain<P> {
    pub(super) fn new(folder: Folder, shared: Arc<Shared>, publish: P) -> Self {
        let chunk = Chunk::default();
        Self {
            folder,
            shared,
            publish,
            window: 1,
            chunk,
            failed_reads: 0,
            refusals: 0,
            refused: None,
            leftovers: Vec::new(),
            is_failing: false,
        }
    }

    /// Drains until it is to stop.
    pub(super) fn run(mut self) {
        while !self.shared.is_stopping() {
            let step = if self.shared.is_away() { Step::Idle } else { self.step() };
            match step {
                Step::Went => {}
                Step::Idle => self.shared.wait(PAUSE),
                Step::Failed => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Publishes one window, or takes out a segment that is drained.
    pub(super) fn step(&mut self) -> Step {
        let first = self.shared.ledger().first();
        let Some(first) = first else {
            self.tidy();
            return Step::Idle;
        };
        if first.length <= first.drained {
            return self.finish();
        }
        if let Err(error) = self.load(&first) {
            return self.cannot_read(&first, &error);
        }
        self.failed_reads = 0;
        let window = self.gather(&first);
        let Some((first_event, _)) = window.events.first() else {
            self.shared.ledger().drain(window.skipped, 0, None);
            return Step::Went;
        };
        let first_event = first_event.clone();
        let Published { acknowledged, failure } = (self.publish)(&window.events);
        self.note(&window, acknowledged);
        let Some(failure) = failure else {
            self.refusals = 0;
            self.window = (self.window * 2).min(MAX_WINDOW_EVENTS);
            if std::mem::take(&mut self.is_failing) {
                tracing::info!("the spool is being drained");
            }
            return Step::Went;
        };
        let was_alone = window.events.len() == 1;
        self.window = 1;
        match failure {
            // Several go to Kafka together and are refused together, all for one of them.
            PublishError::Unfit(_) if was_alone => {
                self.refusals += 1;
                if self.refusals < MAX_REFUSALS {
                    return Step::Failed;
                }
                self.refusals = 0;
                self.keep_refused(&first, &window, &first_event, &failure)
            }
            PublishError::Unfit(_) => Step::Went,
            PublishError::QueueFull
            | PublishError::TimedOut
            | PublishError::Unproven
            | PublishError::Unverified
            | PublishError::Refused(_) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(error = %failure, "the spool cannot be drained at the moment");
                }
                Step::Failed
            }
        }
    }

    /// Reads on where all that was read is drained.
    fn load(&mut self, first: &Segment) -> io::Result<()> {
        let end = self.chunk.start + self.chunk.bytes.len() as u64;
        let is_there =
            self.chunk.sequence == first.sequence && (self.chunk.start..end).contains(&first.drained);
        if !is_there {
            let bytes = self.folder.read(first.sequence, first.drained, Some(first.length))?;
            self.chunk = Chunk { sequence: first.sequence, start: first.drained, bytes };
        }
        Ok(())
    }

    fn gather(&self, first: &Segment) -> Window {
        let base = self.chunk.start;
        let at = usize::try_from(first.drained - base).unwrap_or(usize::MAX);
        let mut window =
            Window { events: Vec::new(), places: Vec::new(), skipped: first.drained, next: None };
        let mut weight = 0;
        for piece in Pieces::new(first.key, &self.chunk.bytes, at) {
            match piece {
                Piece::Event { event, .. }
                    if self.window <= window.events.len() || MAX_WINDOW_BYTES <= weight =>
                {
                    window.next = Some(*event);
                    break;
                }
                Piece::Event { end, event, .. } => {
                    weight += event.body.len();
                    let identity = Identity::of(&event.source, &event.id);
                    window.events.push((*event, identity));
                    window.places.push(base + end as u64);
                }
                Piece::Unreadable { start, end } => {
                    self.note_damage(first, base + start as u64, end - start);
                    *window.places.last_mut().unwrap_or(&mut window.skipped) = base + end as u64;
                }
            }
        }
        window
    }

    /// The first `acknowledged` events of `window` are on Kafka.
    fn note(&self, window: &Window, acknowledged: usize) {
        let Some(place) = acknowledged.checked_sub(1).and_then(|last| window.places.get(last)) else {
            return;
        };
        let next = window.events.get(acknowledged).map(|(event, _)| event).or(window.next.as_ref());
        self.shared.meters.drained.inc_by(acknowledged as u64);
        self.shared.ledger().drain(*place, acknowledged as u64, next.map(received_at));
    }

    /// What was found at the start has been told and counted.
    fn note_damage(&self, first: &Segment, offset: u64, bytes: usize) {
        if self.shared.ledger().damage() {
            self.shared.meters.damaged.inc();
            tracing::error!(
                segment = first.sequence,
                offset,
                bytes,
                "a place of the spool cannot be read; the rest is drained, and the file kept"
            );
        }
    }

    /// Kafka refuses it for good, and it must neither hold back the others nor be lost.
    fn keep_refused(
        &mut self,
        first: &Segment,
        window: &Window,
        event: &Event,
        failure: &PublishError,
    ) -> Step {
        let (source, id) = (&*event.source, &*event.id);
        let known = self.refused.filter(|(segment, _)| *segment == first.sequence);
        let (_, sequence) =
            *self.refused.insert(known.unwrap_or_else(|| (first.sequence, self.shared.ledger().claim())));
        match self.folder.keep_refused(sequence, &first.key, event) {
            Ok(file) => {
                let file = file.display();
                tracing::error!(error = %failure, %file, source, event_id = id, "Kafka will never take an event of the spool; it is kept in a file of its own");
            }
            Err(error) => {
                tracing::error!(%error, source, event_id = id, "an event that Kafka will never take cannot be put aside; its segment is kept as damaged instead");
                self.shared.ledger().damage();
            }
        }
        self.shared.meters.refused.inc();
        if let Some(place) = window.places.first() {
            self.shared.ledger().drain(*place, 1, window.next.as_ref().map(received_at));
        }
        Step::Went
    }

    /// Takes out the oldest segment, of which Kafka has everything that can be read.
    fn finish(&mut self) -> Step {
        let (taken, left) = {
            let mut ledger = self.shared.ledger();
            (ledger.take_drained(), ledger.events())
        };
        let Some(segment) = taken else { return Step::Idle };
        self.chunk = Chunk::default();
        failpoint::hit("spool-drained");
        if let Err(error) = self.take_away(&segment) {
            let sequence = segment.sequence;
            tracing::error!(%error, sequence, "a segment of the spool that is drained cannot be taken away; that is tried again, and the next start would drain it again");
            self.leftovers.push(segment);
        }
        if left == 0 {
            tracing::info!("the spool is empty");
        }
        Step::Went
    }

    fn take_away(&self, segment: &Segment) -> io::Result<()> {
        match (segment.is_left, segment.is_damaged) {
            (true, _) => Ok(()),
            (false, true) => self.folder.set_aside(segment.sequence).map(drop),
            (false, false) => self.folder.remove(segment.sequence),
        }
    }

    /// Takes away what could not be taken away before.
    fn tidy(&mut self) {
        let before = std::mem::take(&mut self.leftovers);
        let left = before.into_iter().filter(|segment| self.take_away(segment).is_err()).collect();
        self.leftovers = left;
    }

    fn cannot_read(&mut self, first: &Segment, error: &io::Error) -> Step {
        let (segment, events) = (first.sequence, first.events);
        let is_short = error.kind() == io::ErrorKind::UnexpectedEof;
        let is_lasting = is_short || error.kind() == io::ErrorKind::NotFound || is_of_the_disk(error);
        self.failed_reads = self.failed_reads.saturating_add(1);
        if self.failed_reads == 1 {
            tracing::error!(%error, segment, events, "a segment of the spool cannot be read at the moment");
        }
        // What this process lacks, a descriptor or a right, it may have again.
        if !is_lasting || self.failed_reads < MAX_READS {
            return Step::Failed;
        }
        self.failed_reads = 0;
        self.shared.meters.damaged.inc();
        match self.folder.length(segment) {
            Ok(length) if is_short => {
                tracing::error!(
                    segment,
                    length,
                    was = first.length,
                    "a segment of the spool is shorter than it was; what is left of it is drained, and the file kept"
                );
                self.shared.ledger().shorten_first(length.max(first.drained));
            }
            Ok(_) | Err(_) => {
                tracing::error!(%error, segment, events, "a segment of the spool cannot be read and is passed over; its file stays where it is for the next start");
                self.shared.ledger().leave_first();
            }
        }
        Step::Went
    }
}
