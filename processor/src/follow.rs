//! The follower: reads state and retry partitions for the lanes of this process.
//!
//! It never joins the group and takes what the member was given, so that an event, its retries and
//! its state are always in one hand. A partition's state is read before its retries are: an end
//! of partition that librdkafka tells is then that of the state, for it names no topic.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use hookwell_common::failpoint;
use hookwell_common::kafka::{LoggingContext, log_client_error};
use hookwell_common::lifecycle::{Failure, spawn_thread};
use hookwell_common::topics::Topic;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use crate::delivery::{Arrival, Stream};
use crate::feed::{Feed, Flow};
use crate::lane::mail::{FollowOrder, Followed, Loads, News, Session};
use crate::poll::arrival;
use crate::retry::Tier;
use crate::shared::Shared;

/// How long a poll waits where there is nothing: the longest that an order waits.
const IDLE_POLL: Duration = Duration::from_millis(20);

/// Records that are polled before they are handed on.
const BURST: usize = 4_000;
/// And their bytes.
const BURST_BYTES: usize = 8 * 1024 * 1024;

/// State records that one message to a lane holds.
const STATES_BATCH: usize = 4_096;

/// What retries of one tier may weigh while they wait in a lane, in bytes. More stays on Kafka.
const MAX_LOAD: usize = 256 * 1024;

/// Between two renewals: a take-over takes its time, and many may ask for the same.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// The follower's own.
pub(crate) struct Follower {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<LoggingContext>>,
    renewed_at: Option<Duration>,
    orders: Receiver<FollowOrder>,
    state_topic: String,
    restores: HashMap<i32, Restore>,
    followed: HashMap<i32, Followings>,
    /// The newest take-over of each partition: what an older one still asks for means nothing.
    newest: HashMap<i32, Session>,
}

/// A state partition that is being read. It is never paused: an end of partition that was told
/// before a pause might not be told again after it.
struct Restore {
    session: Session,
    lane: Sender<Followed>,
    batch: Vec<(i64, Vec<u8>, Vec<u8>)>,
    /// Where to read on.
    next: Option<i64>,
    /// What the lane had no room for yet.
    aside: Option<News>,
    at_end: bool,
}

/// The retry partitions of one lane.
struct Followings {
    session: Session,
    lane: Sender<Followed>,
    loads: Arc<Loads>,
    tiers: BTreeMap<Tier, Following>,
}

/// One of them.
struct Following {
    feed: Feed,
    /// Where to read on.
    next: Option<i64>,
}

impl Follower {
    /// A follower that follows nobody yet.
    pub(crate) fn new(
        shared: Arc<Shared>,
        consumer: BaseConsumer<LoggingContext>,
        orders: Receiver<FollowOrder>,
    ) -> Self {
        let state_topic = Topic::State.name(&shared.settings.topic_prefix);
        Self {
            shared,
            consumer: Arc::new(consumer),
            renewed_at: None,
            orders,
            state_topic,
            restores: HashMap::new(),
            followed: HashMap::new(),
            newest: HashMap::new(),
        }
    }

    /// Follows until nobody can give orders any more, or `stopping` says so.
    pub(crate) fn run(mut self, stopping: &std::sync::atomic::AtomicBool) {
        while !stopping.load(std::sync::atomic::Ordering::Relaxed) {
            self.shared.board.follower().beat(self.shared.clock.mono());
            self.poll();
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
            self.flush_restores();
            self.flush_retries();
        }
        close_aside(self.consumer);
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
                    if BURST_BYTES <= bytes {
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(restore) = self.restores.get_mut(&partition) {
                        restore.at_end = true;
                    }
                }
                Some(Err(error)) => log_client_error(&error, "met by the follower"),
            }
            wait = Duration::ZERO;
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let partition = message.partition();
        if message.topic() == self.state_topic {
            if let Some(restore) = self.restores.get_mut(&partition) {
                let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
                restore.batch.push((message.offset(), key.to_vec(), value.to_vec()));
                restore.next = Some(message.offset() + 1);
            }
            return;
        }
        let tier = Topic::retry_tier_of(message.topic(), &self.shared.settings.topic_prefix).map(Tier);
        let following = self
            .followed
            .get_mut(&partition)
            .zip(tier)
            .and_then(|(followings, tier)| Some((tier, followings.tiers.get_mut(&tier)?)));
        if let Some((tier, following)) = following {
            following.feed.add(arrival(message, Stream::Retry(tier)));
            following.next = Some(message.offset() + 1);
        }
    }

    fn obey(&mut self, order: FollowOrder) {
        let Some((partition, session)) = order.about() else { return self.renew() };
        let newest = self.newest.entry(partition).or_insert(session);
        if session < *newest {
            return;
        }
        *newest = session;
        match order {
            FollowOrder::Restore { partition, session, from, lane } => {
                self.leave(partition);
                let (batch, next) = (Vec::new(), from);
                let restore = Restore { session, lane, batch, next, aside: None, at_end: false };
                self.restores.insert(partition, restore);
                self.assign(partition, [(self.state_topic.clone(), from)]);
            }
            FollowOrder::Follow { partition, session, starts, lane, loads } => {
                self.leave(partition);
                let topics: Vec<_> =
                    starts.iter().map(|(tier, start)| (self.retry_topic(*tier), *start)).collect();
                let following = |(tier, next)| (tier, Following { feed: Feed::new(session), next });
                let tiers = starts.into_iter().map(following).collect();
                self.followed.insert(partition, Followings { session, lane, loads, tiers });
                let names: Vec<_> = topics.iter().map(|(topic, _)| topic.clone()).collect();
                self.assign(partition, topics);
                if failpoint::is_lifted("retries-are-read") {
                    names.iter().for_each(|topic| drop(self.consumer.pause(&one(topic, partition))));
                }
            }
            FollowOrder::Leave { partition, .. } => self.leave(partition),
            FollowOrder::Renew => {}
        }
    }

    /// Goes on with another consumer, each partition from where it was read to. One that stands still
    /// somewhere cannot be talked into reading on: what it got wrong it keeps for as long as it lives.
    fn renew(&mut self) {
        let now = self.shared.clock.mono();
        if self.renewed_at.is_some_and(|at| now.saturating_sub(at) < RENEW_AGAIN) {
            return;
        }
        self.renewed_at = Some(now);
        let context = LoggingContext { figures: self.consumer.context().figures.clone() };
        let config = self.shared.clients.follower(&self.shared.settings.group_id);
        let consumer = match BaseConsumer::from_config_and_context(&config, context) {
            Ok(consumer) => Arc::new(consumer),
            Err(error) => {
                let words = format!("states and retries cannot be followed: {error}");
                return self.shared.downfall.cause(Failure::Kafka(words));
            }
        };
        close_aside(std::mem::replace(&mut self.consumer, consumer));
        tracing::warn!("states and retries are read on with a new consumer");
        for (partition, restore) in &self.restores {
            if !restore.at_end {
                self.assign(*partition, [(self.state_topic.clone(), restore.next)]);
            }
        }
        for (partition, followings) in &self.followed {
            let place = |(tier, following): (&Tier, &Following)| (self.retry_topic(*tier), following.next);
            self.assign(*partition, followings.tiers.iter().map(place));
            for (tier, _) in followings.tiers.iter().filter(|(_, following)| following.feed.is_paused()) {
                self.consumer.pause(&one(&self.retry_topic(*tier), *partition)).ok();
            }
        }
    }

    fn assign(&self, partition: i32, topics: impl IntoIterator<Item = (String, Option<i64>)>) {
        let mut list = TopicPartitionList::new();
        for (topic, start) in topics {
            let offset = start.map_or(KafkaOffset::Beginning, KafkaOffset::Offset);
            if let Err(error) = list.add_partition_offset(&topic, partition, offset) {
                tracing::error!(topic, partition, %error, "cannot be read from where it should be");
            }
        }
        // Pauses outlive assignments in librdkafka.
        let taken = self.consumer.incremental_assign(&list).and_then(|()| self.consumer.resume(&list));
        if let Err(error) = taken {
            self.shared
                .downfall
                .cause(Failure::Kafka(format!("partition {partition} cannot be followed: {error}")));
        }
    }

    fn leave(&mut self, partition: i32) {
        let mut list = TopicPartitionList::new();
        if self.restores.remove(&partition).is_some() {
            list.add_partition(&self.state_topic, partition);
        }
        if let Some(followings) = self.followed.remove(&partition) {
            for tier in followings.tiers.keys() {
                list.add_partition(&self.retry_topic(*tier), partition);
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.incremental_unassign(&list)
        {
            tracing::warn!(partition, %error, "could not be left");
        }
    }

    fn flush_restores(&mut self) {
        let done: Vec<_> = self
            .restores
            .iter_mut()
            .filter_map(|(partition, restore)| restore.flush().then_some(*partition))
            .collect();
        for partition in done {
            self.leave(partition);
        }
    }

    fn flush_retries(&mut self) {
        let prefix = &self.shared.settings.topic_prefix;
        for (partition, followings) in &mut self.followed {
            let Followings { session, lane, loads, tiers } = followings;
            for (tier, Following { feed, next: _ }) in tiers {
                let load = loads.of(*tier);
                // Once paused, a tier waits until half of what waits in the lane is gone.
                let wants = load < if feed.is_paused() { MAX_LOAD / 2 } else { MAX_LOAD };
                let flow = feed.flush(wants, |_, batch| send_retries(lane, *session, batch));
                let list = || one(&Topic::Retry(tier.0).name(prefix), *partition);
                let result = match flow {
                    Flow::Unchanged => Ok(()),
                    Flow::Pause => self.consumer.pause(&list()),
                    Flow::Resume => self.consumer.resume(&list()),
                };
                if let Err(error) = result {
                    tracing::warn!(partition, tier = tier.0, %error, "a tier could not be paused or resumed");
                }
            }
        }
    }

    fn retry_topic(&self, tier: Tier) -> String {
        Topic::Retry(tier.0).name(&self.shared.settings.topic_prefix)
    }
}

impl Restore {
    /// Hands on what there is. `true` once the lane knows that this was all.
    fn flush(&mut self) -> bool {
        loop {
            let news = match self.aside.take() {
                Some(news) => news,
                None if !self.batch.is_empty() => {
                    let rest = self.batch.split_off(self.batch.len().min(STATES_BATCH));
                    News::States(std::mem::replace(&mut self.batch, rest))
                }
                None if self.at_end => News::StatesEnd,
                None => return false,
            };
            let is_end = matches!(news, News::StatesEnd);
            match self.lane.try_send(Followed { session: self.session, news }) {
                Ok(()) if is_end => return true,
                Ok(()) => {}
                Err(TrySendError::Full(refused)) => {
                    self.aside = Some(refused.news);
                    return false;
                }
                Err(TrySendError::Disconnected(_)) => return true,
            }
        }
    }
}

/// Nobody waits for librdkafka to close a consumer: it may take as long as it likes.
fn close_aside(consumer: Arc<BaseConsumer<LoggingContext>>) {
    if let Err(error) = spawn_thread("last consumer", move || drop(consumer)) {
        tracing::warn!(%error, "a consumer is closed by the follower itself");
    }
}

fn send_retries(
    lane: &Sender<Followed>,
    session: Session,
    batch: Vec<Arrival>,
) -> Result<(), TrySendError<Vec<Arrival>>> {
    lane.try_send(Followed { session, news: News::Retries(batch) }).map_err(|refused| {
        let is_full = refused.is_full();
        let batch = match refused.into_inner().news {
            News::Retries(batch) => batch,
            News::States(_) | News::StatesEnd => Vec::new(),
        };
        if is_full { TrySendError::Full(batch) } else { TrySendError::Disconnected(batch) }
    })
}

fn one(topic: &str, partition: i32) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(topic, partition);
    list
}
