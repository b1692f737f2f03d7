//! A client of Kafka with the defaults of everybody, that waits while brokers recover.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::evidence::{Ends, Run};
use crate::names::Name;
use crate::record::{Line, Role};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);

/// The pause before something that failed is done again.
const PAUSE: Duration = Duration::from_secs(1);

/// How often something is done again before it is given up: brokers may recover for minutes.
const TIMES: u32 = 120;

/// How many partitions each topic has.
pub(crate) type Topics = BTreeMap<String, i32>;

/// A client that sees committed records only, or all.
pub(crate) fn consumer(run: &Run, group: &str, isolation: &str) -> Result<BaseConsumer> {
    #[expect(clippy::disallowed_methods, reason = "an independent client, with the defaults of everybody")]
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &run.bootstrap_servers)
        .set("group.id", group)
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "100")
        // A log that was cut is to be found out, and not passed over.
        .set("auto.offset.reset", "earliest");
    Ok(config.create()?)
}

/// A group of which nobody is a member: offsets are chosen here.
pub(crate) const ALONE: &str = "hookwell-auditor";

/// The topics of a run, as far as they are there by now.
pub(crate) fn topics(client: &BaseConsumer, run: &Run) -> Result<Topics> {
    let metadata = client.fetch_metadata(None, REQUEST)?;
    let is_ours = |topic: &str| match Role::of(topic, &run.prefix) {
        Role::Events | Role::Retry(_) | Role::Dead | Role::State => true,
        Role::Forward => forwards(run).any(|known| &**known == topic),
    };
    let topics = metadata.topics().iter().filter(|topic| is_ours(topic.name()) && topic.error().is_none());
    Ok(topics
        .map(|topic| (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(0)))
        .filter(|(_, partitions)| 0 < *partitions)
        .collect())
}

/// The topics of a run, once all of them are there.
pub(crate) fn all_topics(client: &BaseConsumer, run: &Run) -> Result<Topics> {
    let own = ["events", "dlq", "state"].map(|name| format!("{}.{name}", run.prefix));
    let retries = (1..=run.tiers.len()).map(|tier| format!("{}.retry.{tier}", run.prefix));
    let forwards = forwards(run).map(|topic| topic.to_string());
    let wanted: Vec<_> = own.into_iter().chain(retries).chain(forwards).collect();
    patiently("the topics", || {
        let topics = topics(client, run)?;
        let missing: Vec<_> = wanted.iter().filter(|topic| !topics.contains_key(*topic)).collect();
        if missing.is_empty() { Ok(topics) } else { bail!("{missing:?} are missing") }
    })
}

fn forwards(run: &Run) -> impl Iterator<Item = &Name> {
    run.destinations.iter().filter_map(|destination| destination.topic.as_ref())
}

/// Does something again until it succeeds.
pub(crate) fn patiently<T>(what: &str, mut step: impl FnMut() -> Result<T>) -> Result<T> {
    let mut times = 0;
    loop {
        match step() {
            Ok(done) => return Ok(done),
            Err(error) if TIMES < times => return Err(error.context(format!("{what} could not be had"))),
            Err(_) => thread::sleep(PAUSE),
        }
        times += 1;
    }
}

/// Hands every committed record of a topic to `take`, those of a partition in their order.
pub(crate) fn read(
    client: &BaseConsumer,
    (topic, partitions): (&str, i32),
    mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<()>,
) -> Result<()> {
    let mut from = TopicPartitionList::new();
    for partition in 0..partitions {
        from.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    client.assign(&from)?;
    let (mut open, mut idle): (BTreeSet<_>, _) = ((0..partitions).collect(), 0);
    while !open.is_empty() {
        match client.poll(PAUSE) {
            Some(Ok(message)) => {
                idle = 0;
                take(&message)?;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            found if TIMES < idle => {
                let last = found.and_then(Result::err);
                bail!("{topic} does not end on {open:?}: {last:?}");
            }
            Some(Err(_)) => {
                idle += 1;
                thread::sleep(PAUSE);
            }
            None => idle += 1,
        }
    }
    Ok(client.unassign()?)
}

/// A record as a line of a dump.
pub(crate) fn line(message: &BorrowedMessage<'_>, is_whole: bool) -> Line {
    let headers: Vec<_> = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter())
        .map(|header| (header.key, header.value.unwrap_or_default()))
        .collect();
    let at = message.timestamp().to_millis().unwrap_or_default();
    let place = (message.partition(), message.offset(), u64::try_from(at).unwrap_or_default());
    Line::new(place, message.key(), &headers, message.payload(), is_whole)
}

/// What the group has committed, by topic and partition.
pub(crate) fn committed(run: &Run, topics: &Topics) -> Result<BTreeMap<(String, i32), i64>> {
    let client = consumer(run, &run.group, "read_committed")?;
    let mut asked = TopicPartitionList::new();
    for (topic, partitions) in topics {
        if let Role::Events | Role::Retry(_) = Role::of(topic, &run.prefix) {
            asked.add_partition_range(topic, 0, *partitions - 1);
        }
    }
    let known = patiently("committed offsets", || {
        client.committed_offsets(asked.clone(), REQUEST).context("of the group")
    })?;
    let known = known.elements().into_iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => Some(((element.topic().to_owned(), element.partition()), offset)),
        Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
    });
    Ok(known.collect())
}

/// Where every partition begins and ends.
pub(crate) fn ends(
    run: &Run,
    topics: &Topics,
    committed: &BTreeMap<(String, i32), i64>,
) -> Result<Vec<Ends>> {
    let clients = ["read_committed", "read_uncommitted"].map(|isolation| consumer(run, ALONE, isolation));
    let [stable, all] = clients;
    let (stable, all) = (stable?, all?);
    let mut ends = Vec::new();
    for (topic, partitions) in topics {
        for partition in 0..*partitions {
            let watermarks = |client: &BaseConsumer| {
                patiently("the end of a partition", || {
                    client.fetch_watermarks(topic, partition, REQUEST).with_context(|| topic.clone())
                })
            };
            ends.push(Ends {
                topic: Name::from(&**topic),
                partition,
                low: watermarks(&all)?.0,
                stable: watermarks(&stable)?.1,
                high: watermarks(&all)?.1,
                committed: committed.get(&(topic.clone(), partition)).copied(),
            });
        }
    }
    Ok(ends)
}
