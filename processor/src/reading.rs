//! Whether consumers read on.
//!
//! librdkafka may stop reading a partition for good and say nothing: it takes a leader that a broker
//! does not know yet for one with whatever epoch lies in its memory, and refuses all true ones as
//! older (`docs/adr/0003-librdkafka.md`). Its own figures then show no lag, for they come with what
//! is read. So Kafka is asked by another client.

use std::collections::BTreeMap;
use std::time::Duration;

use hookwell_common::kafka::Statistics;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use crate::board::{LaneState, LaneView};
use crate::delivery::Stream;
use crate::shared::Shared;

/// Between two looks.
pub(crate) const LOOK: Duration = Duration::from_secs(10);

/// How long a partition may hold something that its consumer does not read.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long Kafka may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A partition of a topic that a lane reads.
type Read = (Stream, i32);

/// The partitions of which something is not read, how far they are read, and since when.
#[derive(Debug, Default)]
pub(crate) struct Reading(BTreeMap<Read, (i64, Duration)>);

impl Reading {
    /// The partitions of `read` that end behind where they are read to and have not been read on
    /// from there for too long. Each is told once, and then again after as long.
    fn look(&mut self, read: &BTreeMap<Read, i64>, ends: &BTreeMap<Read, i64>, now: Duration) -> Vec<Read> {
        let is_behind = |(place, up_to): &(&Read, &i64)| ends.get(place).is_some_and(|end| *up_to < end);
        let behind = read.iter().filter(is_behind).map(|(place, up_to)| {
            let known = self.0.get(place).filter(|(known, _)| known == up_to);
            (*place, (*up_to, known.map_or(now, |(_, since)| *since)))
        });
        self.0 = behind.collect();
        let is_stuck = |since: Duration| PATIENCE <= now.saturating_sub(since);
        let stuck = self.0.iter().filter(|(_, (_, since))| is_stuck(*since)).map(|(place, _)| *place);
        let stuck: Vec<_> = stuck.collect();
        self.0.retain(|_, (_, since)| !is_stuck(*since));
        stuck
    }

    /// Forgets what is known of the partitions that `is_unclear` names.
    pub(crate) fn forget(&mut self, is_unclear: impl Fn(i32) -> bool) {
        self.0.retain(|(_, partition), _| !is_unclear(*partition));
    }

    /// Asks Kafka, and says what is not read on. An outage is held against nobody.
    pub(crate) fn look_at(
        &mut self,
        shared: &Shared,
        clients: &[impl AsRef<Statistics>],
        now: Duration,
    ) -> Vec<Read> {
        let read = read_to(shared, &shared.board.lanes(), clients);
        match ends(shared, read.keys()) {
            Some(ends) => self.look(&read, &ends, now),
            None => {
                self.0.clear();
                Vec::new()
            }
        }
    }
}

/// How far lanes at work were read for, where all that was handed to them is settled: somebody whose
/// lane is full does not read on, and is not stuck.
fn read_to(
    shared: &Shared,
    lanes: &BTreeMap<i32, LaneView>,
    clients: &[impl AsRef<Statistics>],
) -> BTreeMap<Read, i64> {
    let mut read = BTreeMap::new();
    for (partition, lane) in lanes.iter().filter(|(_, lane)| lane.state == LaneState::Active) {
        for (stream, frontier) in &lane.gauges.frontiers {
            let has_room = *stream != Stream::Events || lane.takes_events;
            if has_room && !lane.gauges.unsettled.contains(stream) {
                let topic = stream.topic(&shared.settings.topic_prefix);
                let next = |client: &Statistics| {
                    Some(client.topics.get(&topic)?.partitions.get(partition)?.next_offset)
                };
                // Markers of transactions are read, and never settled.
                if let Some(next) = clients.iter().filter_map(|client| next(client.as_ref())).max() {
                    read.insert((*stream, *partition), next.max(frontier.0));
                }
            }
        }
    }
    read
}

/// Up to where each is decided; `None` where Kafka does not say.
fn ends<'r>(shared: &Shared, read: impl Iterator<Item = &'r Read>) -> Option<BTreeMap<Read, i64>> {
    let prefix = &shared.settings.topic_prefix;
    let places: Vec<_> = read.copied().collect();
    let mut wanted = TopicPartitionList::with_capacity(places.len());
    for (stream, partition) in &places {
        wanted.add_partition_offset(&stream.topic(prefix), *partition, KafkaOffset::End).ok()?;
    }
    let found = shared.stable_watermarks.offsets_for_times(wanted, ANSWER_WITHIN).ok()?;
    let end = |(stream, partition): &Read| {
        let element = found.find_partition(&stream.topic(prefix), *partition)?;
        element.error().ok()?;
        element.offset().to_raw()
    };
    Some(places.iter().filter_map(|place| Some((*place, end(place)?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::Tier;

    const EVENTS: Read = (Stream::Events, 3);
    const RETRIES: Read = (Stream::Retry(Tier(1)), 3);

    const fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    /// What a look says where both are read up to 5 and 7, and end there.
    fn look(reading: &mut Reading, read: [i64; 2], ends: [i64; 2], now: u64) -> Vec<Read> {
        let places = |offsets: [i64; 2]| [EVENTS, RETRIES].into_iter().zip(offsets).collect();
        reading.look(&places(read), &places(ends), second(now))
    }

    #[test]
    fn what_is_not_read_for_a_minute_though_it_is_there_is_told_and_told_again_after_another() {
        let mut reading = Reading::default();
        assert!(look(&mut reading, [5, 7], [5, 8], 10).is_empty());
        assert!(look(&mut reading, [5, 7], [9, 8], 69).is_empty());
        assert_eq!(look(&mut reading, [5, 7], [9, 9], 70), [RETRIES]);
        assert_eq!(look(&mut reading, [5, 7], [9, 9], 130), [EVENTS]);
        assert_eq!(look(&mut reading, [9, 7], [9, 9], 190), [RETRIES]);
    }

    #[test]
    fn who_reads_on_is_not_stuck_however_far_behind() {
        let mut reading = Reading::default();
        for step in 0..20 {
            assert!(look(&mut reading, [5 + step, 7], [1000, 7], 10 * step.unsigned_abs()).is_empty());
        }
    }

    #[test]
    fn what_cannot_be_judged_for_a_while_begins_anew() {
        let mut reading = Reading::default();
        assert!(look(&mut reading, [5, 7], [5, 8], 10).is_empty());
        assert!(reading.look(&BTreeMap::new(), &BTreeMap::new(), second(60)).is_empty());
        assert!(look(&mut reading, [5, 7], [5, 8], 70).is_empty());
        assert_eq!(look(&mut reading, [5, 7], [5, 8], 130), [RETRIES]);
    }
}
