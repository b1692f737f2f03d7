//! The group member: the poll thread, which owns the assignment and answers rebalances.
//!
//! It subscribes to the events topic and to nothing else. Rebalances are not answered in their
//! callback but once the lanes have finished, while polling goes on; only what is lost already is
//! let go at once.

mod context;
mod hosts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use hookwell_common::kafka::{appended_at, copy_record, log_client_error};
use hookwell_common::lifecycle::Failure;
use rdkafka::consumer::{BaseConsumer, Consumer, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use crate::delivery::{Arrival, Place, Stream};
use crate::feed::{EAR_DEPTH, Feed, Flow};
use crate::lane::ledger::Offset;
use crate::lane::mail::{Ears, Epoch, Order, Ownership, Report, Session};
use crate::lane::window::MAX_OPEN;
use crate::shared::{Shared, lock};

pub(crate) use context::MemberContext;
use context::{Rebalance, unassign};
use hosts::Hosts;

/// How long a poll waits where there is nothing: the longest that a lane's report waits.
const IDLE_POLL: Duration = Duration::from_millis(20);

/// How often librdkafka is asked something. It only looks whether a heartbeat is due, or what the
/// group asks for next, when something wakes it: in a member that has nothing to do, once a second.
const WAKE: Duration = Duration::from_millis(50);

/// Records that are polled before they are handed on.
const BURST: usize = 2_000;
/// And their bytes.
const BURST_BYTES: usize = 8 * 1024 * 1024;

/// How much longer than the lanes the member waits for them.
const GRACE: Duration = Duration::from_secs(3);

/// How long a partition may take until it can be read from where its lane says.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);

/// How long leaving the group may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// The poll thread's own.
pub(crate) struct Member {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<MemberContext>>,
    topic: String,
    reports: Receiver<Report>,
    owned: BTreeMap<i32, Owned>,
    hosts: Hosts,
    revoking: Option<Revoking>,
    epochs: u64,
    woken_at: Duration,
}

/// A partition that the group gave us.
struct Owned {
    epoch: Epoch,
    /// Whether the lane may still begin anything.
    ours: Arc<AtomicBool>,
    events: Sender<(Session, Vec<Arrival>)>,
    /// Where a lane that has become ready wants to read from, until librdkafka goes there.
    start: Option<Start>,
    /// Present once it does.
    feed: Option<Feed>,
}

/// Where a lane wants to read from.
#[derive(Clone, Copy, Debug)]
struct Start {
    session: Session,
    offset: KafkaOffset,
    since: Duration,
}

/// A revocation that is not answered yet.
struct Revoking {
    partitions: Vec<i32>,
    waiting: BTreeSet<(i32, u64)>,
    deadline: Duration,
}

impl Member {
    /// A member of the group that has not asked for anything yet.
    pub(crate) fn new(shared: Arc<Shared>, topic: String, reports: Receiver<Report>) -> Self {
        let consumer = Arc::clone(&shared.member);
        let hosts = Hosts::new(Arc::clone(&shared));
        Self {
            shared,
            consumer,
            topic,
            reports,
            owned: BTreeMap::new(),
            hosts,
            revoking: None,
            epochs: 0,
            woken_at: Duration::ZERO,
        }
    }

    /// Joins, and polls until `stopping` says so; then hands everything back.
    pub(crate) fn run(mut self, stopping: &AtomicBool) {
        if let Err(error) = self.consumer.subscribe(&[&self.topic]) {
            self.shared
                .downfall
                .cause(Failure::Kafka(format!("{} could not be subscribed to: {error}", self.topic)));
            return;
        }
        while !stopping.load(Ordering::Relaxed) && !self.shared.downfall.has_come() {
            self.turn();
        }
        self.hand_everything_back();
        self.hosts.end();
    }

    /// One round: records, what librdkafka asked, what lanes report.
    fn turn(&mut self) {
        let now = self.shared.clock.mono();
        self.shared.board.member().beat(now);
        let steady = self.consumer.context().steady.load(Ordering::Relaxed);
        self.shared.board.set_joined(steady);
        self.wake_librdkafka(now);
        self.poll();
        let rebalances = std::mem::take(&mut *lock(&self.consumer.context().rebalances));
        for rebalance in rebalances {
            match rebalance {
                Rebalance::Assign(partitions) => self.assign(&partitions),
                Rebalance::Revoke { partitions, lost } => self.revoke(partitions, lost),
            }
        }
        while let Ok(report) = self.reports.try_recv() {
            self.note(report);
        }
        self.finish_revocation();
        self.hosts.show_blocked();
        self.begin_reading();
        self.flush();
    }

    fn wake_librdkafka(&mut self, now: Duration) {
        if WAKE <= now.saturating_sub(self.woken_at) {
            self.woken_at = now;
            drop(self.consumer.group_metadata());
        }
    }

    fn poll(&mut self) {
        let consumer = Arc::clone(&self.consumer);
        let (mut wait, mut bytes) = (IDLE_POLL, 0);
        for _ in 0..BURST {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    self.take(&message);
                    bytes += message.payload_len();
                }
                Some(Err(error)) if is_fatal(&error) => {
                    let words = format!("the group member cannot go on: {error}");
                    self.shared.downfall.cause(Failure::Kafka(words));
                    break;
                }
                Some(Err(error)) => log_client_error(&error, "met by the group member"),
            }
            wait = Duration::ZERO;
            if BURST_BYTES <= bytes || !lock(&consumer.context().rebalances).is_empty() {
                break;
            }
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        // What comes before the lane is ready is read again from where it says.
        let feed = self.owned.get_mut(&message.partition()).and_then(|owned| owned.feed.as_mut());
        if let Some(feed) = feed {
            feed.add(arrival(message, Stream::Events));
        }
    }

    /// The group gave us partitions: each gets a lane, and nothing is read before it is ready.
    fn assign(&mut self, partitions: &[i32]) {
        if let Err(error) = self.take_assignment(partitions) {
            self.shared.downfall.cause(Failure::Kafka(format!("the assignment could not be taken: {error}")));
            return;
        }
        tracing::info!(?partitions, "assigned");
        self.shared
            .metrics
            .assigned_partitions
            .set(i64::try_from(self.owned.len() + partitions.len()).unwrap_or(i64::MAX));
        for partition in partitions {
            self.own(*partition);
        }
    }

    /// Answers an assignment; nothing is read of it for now. Lanes say later where to read from: an
    /// offset is only given so that librdkafka does not ask for the committed ones, which it does for
    /// all partitions at once, and waits where a transaction on one of them hangs.
    fn take_assignment(&self, partitions: &[i32]) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(&self.topic, *partition, KafkaOffset::Offset(0))?;
        }
        let list = &list;
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_assign(list)?,
            RebalanceProtocol::Eager | RebalanceProtocol::None => self.consumer.assign(list)?,
        }
        self.consumer.pause(list)
    }

    fn own(&mut self, partition: i32) {
        self.epochs += 1;
        let epoch = Epoch(self.epochs);
        let (events, hear_events) = crossbeam_channel::bounded(EAR_DEPTH);
        let (follow, hear_follow) = crossbeam_channel::bounded(EAR_DEPTH);
        let (completions, hear_completions) = crossbeam_channel::bounded(MAX_OPEN + 64);
        let ours = Arc::new(AtomicBool::new(true));
        let ownership = Ownership {
            partition,
            epoch,
            ears: Ears { events: hear_events, follow: hear_follow, completions: hear_completions },
            follow,
            completions,
            ours: Arc::clone(&ours),
        };
        self.owned.insert(partition, Owned { epoch, ours, events, start: None, feed: None });
        if !self.hosts.order(partition, Order::Own(ownership)) {
            self.give_up_host(self.hosts.number_of(partition), &[]);
        }
    }

    /// The group takes partitions away.
    fn revoke(&mut self, partitions: Vec<i32>, lost: bool) {
        let now = self.shared.clock.mono();
        tracing::info!(?partitions, lost, "revoked");
        let mut waiting = BTreeSet::new();
        for partition in &partitions {
            let Some(owned) = self.owned.get_mut(partition) else { continue };
            let epoch = owned.epoch;
            owned.ours.store(false, Ordering::Relaxed);
            owned.start = None;
            owned.feed = None;
            let drain_by = now + self.shared.settings.drain_timeout;
            let order = if lost {
                Order::Abandon { partition: *partition, epoch }
            } else {
                Order::Drain { partition: *partition, epoch, deadline: drain_by }
            };
            if !self.hosts.order(*partition, order) {
                self.give_up_host(self.hosts.number_of(*partition), &partitions);
            } else if !lost {
                waiting.insert((*partition, epoch.0));
            }
        }
        let deadline = now + self.shared.settings.drain_timeout + GRACE;
        self.revoking = Some(Revoking { partitions, waiting, deadline });
    }

    /// Answers a revocation once all its lanes have let go, or will not.
    fn finish_revocation(&mut self) {
        let now = self.shared.clock.mono();
        let Some(revoking) =
            self.revoking.take_if(|revoking| revoking.waiting.is_empty() || revoking.deadline <= now)
        else {
            return;
        };
        for partition in &revoking.partitions {
            self.owned.remove(partition);
        }
        let blocked: BTreeSet<_> =
            revoking.waiting.iter().map(|(partition, _)| self.hosts.number_of(*partition)).collect();
        for number in blocked {
            self.give_up_host(number, &[]);
        }
        let is_asked = !self.consumer.context().leaving.load(Ordering::Relaxed);
        if is_asked && let Err(error) = unassign(&self.consumer, &self.list(&revoking.partitions)) {
            tracing::warn!(%error, "a revocation could not be answered");
        }
        self.shared.metrics.assigned_partitions.set(i64::try_from(self.owned.len()).unwrap_or(i64::MAX));
        tracing::info!(partitions = ?revoking.partitions, "handed back");
    }

    fn note(&mut self, report: Report) {
        let now = self.shared.clock.mono();
        match report {
            Report::Ready { partition, epoch, session, start } => {
                let owned = self.owned.get_mut(&partition).filter(|owned| owned.epoch == epoch);
                let is_leaving = self.revoking.as_ref().is_some_and(|it| it.partitions.contains(&partition));
                if let Some(owned) = owned.filter(|_| !is_leaving) {
                    let offset = start.map_or(KafkaOffset::Beginning, KafkaOffset::Offset);
                    owned.start = Some(Start { session, offset, since: now });
                }
            }
            Report::Blocked { host } => self.give_up_host(host, &[]),
            Report::Lost { partition, epoch } => {
                let owned = self.owned.get_mut(&partition).filter(|owned| owned.epoch == epoch);
                if let Some(owned) = owned {
                    owned.start = None;
                    if owned.feed.take().is_some() {
                        self.pause(partition);
                    }
                }
            }
            Report::Drained { partition, epoch } => {
                if let Some(revoking) = &mut self.revoking {
                    revoking.waiting.remove(&(partition, epoch.0));
                }
            }
        }
    }

    /// Has ready lanes read on from what is committed. Their partitions are paused so far.
    fn begin_reading(&mut self) {
        for (partition, owned) in &mut self.owned {
            let Some(Start { session, offset, since }) = owned.start else { continue };
            let mut list = TopicPartitionList::new();
            let sought = list
                .add_partition_offset(&self.topic, *partition, offset)
                .and_then(|()| self.consumer.seek_partitions(list.clone(), Duration::from_secs(5)))
                .and_then(|answer| answer.elements().iter().try_for_each(|element| element.error()))
                .and_then(|()| self.consumer.resume(&list));
            match sought {
                Ok(()) => {
                    owned.start = None;
                    owned.feed = Some(Feed::new(session));
                }
                // A partition just assigned is not fetched yet, and Kafka may be away; both pass.
                Err(_) if self.shared.clock.mono().saturating_sub(since) < BEGIN_WITHIN => {}
                Err(error) => self.shared.downfall.cause(Failure::Kafka(format!(
                    "partition {partition} could not be read from {offset:?}: {error}"
                ))),
            }
        }
    }

    fn flush(&mut self) {
        let mut pause = Vec::new();
        let mut resume = Vec::new();
        for (partition, owned) in &mut self.owned {
            let Some(feed) = &mut owned.feed else { continue };
            let events = &owned.events;
            let flow = feed.flush(true, |session, batch| {
                events.try_send((session, batch)).map_err(|refused| match refused {
                    TrySendError::Full((_, batch)) => TrySendError::Full(batch),
                    TrySendError::Disconnected((_, batch)) => TrySendError::Disconnected(batch),
                })
            });
            match flow {
                Flow::Unchanged => {}
                Flow::Pause => pause.push(*partition),
                Flow::Resume => resume.push(*partition),
            }
        }
        for partition in pause {
            self.pause(partition);
        }
        if !resume.is_empty()
            && let Err(error) = self.consumer.resume(&self.list(&resume))
        {
            tracing::warn!(%error, "partitions could not be resumed");
        }
    }

    fn pause(&self, partition: i32) {
        if let Err(error) = self.consumer.pause(&self.list(&[partition])) {
            tracing::warn!(partition, %error, "the partition could not be paused");
        }
    }

    /// Stops as a member that leaves in order: drains every lane, then leaves the group.
    fn hand_everything_back(&mut self) {
        // What the group has asked for already must still be answered.
        self.await_revocation();
        let all: Vec<_> = self.owned.keys().copied().collect();
        tracing::info!(partitions = ?all, "stopping: handing everything back");
        self.consumer.context().leaving.store(true, Ordering::Relaxed);
        self.revoke(all, false);
        self.await_revocation();
        self.leave_group();
    }

    fn await_revocation(&mut self) {
        while self.revoking.is_some() {
            while let Ok(report) = self.reports.recv_timeout(Duration::from_millis(10)) {
                self.note(report);
            }
            self.shared.board.member().beat(self.shared.clock.mono());
            self.finish_revocation();
        }
    }

    /// Tells the group, so that the next owners need not wait for this member's session to end.
    /// Not where Kafka does not answer: librdkafka may crash when it leaves a coordinator that is
    /// away (fixed in 2.14.2).
    fn leave_group(&mut self) {
        if self.shared.watermarks.fetch_metadata(None, LEAVE_WITHIN).is_err() {
            return;
        }
        // What the group asked for between the last poll and now.
        for rebalance in std::mem::take(&mut *lock(&self.consumer.context().rebalances)) {
            let answered = match rebalance {
                Rebalance::Assign(partitions) => self.take_assignment(&partitions),
                Rebalance::Revoke { partitions, .. } => unassign(&self.consumer, &self.list(&partitions)),
            };
            if let Err(error) = answered {
                tracing::warn!(%error, "a rebalance could not be answered while leaving");
            }
        }
        if let Err(error) = self.consumer.close_queue() {
            tracing::warn!(%error, "the group could not be left");
            return;
        }
        let leave_by = self.shared.clock.mono() + LEAVE_WITHIN;
        while !self.consumer.closed() && self.shared.clock.mono() < leave_by {
            // Whatever comes now is the next owner's.
            drop(self.consumer.poll(IDLE_POLL));
        }
        tracing::info!(left = self.consumer.closed(), "out of the group");
    }

    /// Leaves the host `number` to itself. Its partitions get another of this process, but for those
    /// that are `leaving`.
    fn give_up_host(&mut self, number: usize, leaving: &[i32]) {
        self.hosts.give_up(number);
        let also_leaving = self.revoking.as_ref().map(|it| it.partitions.clone()).unwrap_or_default();
        let orphans: Vec<_> = self
            .owned
            .keys()
            .copied()
            .filter(|partition| self.hosts.number_of(*partition) == number)
            .filter(|partition| !leaving.contains(partition) && !also_leaving.contains(partition))
            .collect();
        for partition in orphans {
            if let Some(owned) = self.owned.get(&partition) {
                owned.ours.store(false, Ordering::Relaxed);
            }
            self.pause(partition);
            self.own(partition);
        }
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        list
    }
}

/// Whether a member that met `error` is none any more: librdkafka then gives up its assignment
/// without a word.
fn is_fatal(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
}

/// A record as a lane takes it.
pub(crate) fn arrival(message: &BorrowedMessage<'_>, stream: Stream) -> Arrival {
    Arrival {
        place: Place { stream, offset: Offset(message.offset()) },
        appended_at: appended_at(message),
        raw: copy_record(message),
    }
}
