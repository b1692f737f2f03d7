//! Whether a transaction that ended is decided wherever it wrote.
//!
//! Kafka answers a commit before every partition has its marker, and a coordinator that meets a
//! partition without a leader at that moment leaves the marker out for good
//! (`docs/adr/0016-a-kafka-that-forgets-a-marker.md`). The end of the next transaction would then
//! count for this one too, and an abort would take it back. So no lane begins a transaction before
//! the last one is seen to be decided.

use std::collections::BTreeMap;
use std::time::Duration;

use hookwell_common::kafka::LoggingContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList, TopicPartitionListElem};

use super::batch::Commit;

/// How long one look may take: the thread has other things to do, and looks again.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often ends are asked for where somebody waits for the answer, and the pause between.
const TRIES: usize = 20;
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Until the first look: markers are written within milliseconds.
const FIRST_LOOK: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A Kafka that answers and shows no marker for so long has forgotten it.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// The last transaction, until it is seen to be decided.
#[derive(Debug)]
pub(crate) struct Unproven {
    /// What it held, if it was committed: for whoever takes over anew.
    pub(crate) commit: Option<Commit>,
    written: Written,
    look_at: Duration,
    pause: Duration,
    hidden_since: Option<Duration>,
}

/// The first and the last offset that a transaction wrote on each of the lane's own topics.
pub(crate) type Written = BTreeMap<String, (i64, i64)>;

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It is decided everywhere.
    Decided,
    /// Not yet, as far as can be seen.
    NotYet,
    /// Somewhere it will not be any more.
    Forgotten,
    /// Nobody can see, for a stranger's transaction hides it.
    Hidden,
}

impl Unproven {
    /// A transaction that ended at `now`; `None` where it wrote nothing.
    pub(crate) fn new(commit: Option<Commit>, written: Written, now: Duration) -> Option<Self> {
        let look_at = now + FIRST_LOOK;
        let fresh = Self { commit, written, look_at, pause: FIRST_LOOK, hidden_since: None };
        (!fresh.written.is_empty()).then_some(fresh)
    }

    /// When the next look is due, on the monotonic clock.
    pub(crate) fn look_at(&self) -> Duration {
        self.look_at
    }

    /// Looks. Where `is_blind` says that a stranger is known to hide how ours end, that is not waited
    /// for.
    pub(crate) fn look(
        &mut self,
        client: &BaseConsumer<LoggingContext>,
        partition: i32,
        is_blind: bool,
        now: Duration,
    ) -> Proof {
        let stable = wanted(self.written.keys().map(String::as_str), partition)
            .and_then(|wanted| ask(client, wanted, PATIENCE));
        if let Err(error) = &stable {
            tracing::debug!(partition, %error, "whether a transaction is decided could not be seen");
        }
        self.judge(stable.ok().as_ref(), is_blind, now)
    }

    /// What it means that topics are decided up to `stable`; `None`: Kafka did not say.
    fn judge(&mut self, stable: Option<&BTreeMap<String, i64>>, is_blind: bool, now: Duration) -> Proof {
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.look_at = now + self.pause;
        let Some(stable) = stable else { return Proof::NotYet };
        let end = |topic: &String| stable.get(topic).copied().unwrap_or_default();
        let mut undecided = self.written.iter().filter(|(topic, (_, last))| end(topic) <= *last).peekable();
        if undecided.peek().is_none() {
            return Proof::Decided;
        }
        // What ends before ours begins is held up by somebody else: all earlier ones of ours were seen
        // to be decided.
        let is_a_strangers = undecided.all(|(topic, (first, _))| end(topic) < *first);
        let since = *self.hidden_since.get_or_insert(now);
        match (FORGOTTEN <= now.saturating_sub(since), is_a_strangers) {
            (true, false) => Proof::Forgotten,
            (true, true) => Proof::Hidden,
            (false, true) if is_blind => Proof::Hidden,
            (false, _) => Proof::NotYet,
        }
    }
}

/// Where `partition` of each of `topics` ends for `client`: with `read_committed`, up to where it is
/// decided.
pub(crate) fn ends<'t>(
    client: &BaseConsumer<LoggingContext>,
    topics: impl Iterator<Item = &'t str>,
    partition: i32,
    patience: Duration,
) -> Result<BTreeMap<String, i64>, KafkaError> {
    let wanted = wanted(topics, partition)?;
    let mut tries = 0;
    loop {
        tries += 1;
        match ask(client, wanted.clone(), patience) {
            Err(error) if tries < TRIES && !is_time_out(&error) => std::thread::sleep(ASK_AGAIN),
            result => return result,
        }
    }
}

fn is_time_out(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut)
}

fn wanted<'t>(
    topics: impl Iterator<Item = &'t str>,
    partition: i32,
) -> Result<TopicPartitionList, KafkaError> {
    let mut wanted = TopicPartitionList::new();
    for topic in topics {
        // Asked for the time "end", Kafka gives the end.
        wanted.add_partition_offset(topic, partition, KafkaOffset::End)?;
    }
    Ok(wanted)
}

fn ask(
    client: &BaseConsumer<LoggingContext>,
    wanted: TopicPartitionList,
    patience: Duration,
) -> Result<BTreeMap<String, i64>, KafkaError> {
    let found = client.offsets_for_times(wanted, patience).and_then(|found| {
        let end = |element: TopicPartitionListElem<'_>| {
            element.error()?;
            let end = element.offset().to_raw().filter(|end| 0 <= *end);
            Ok(end.map(|end| (element.topic().to_owned(), end)))
        };
        found.elements().into_iter().filter_map(|element| end(element).transpose()).collect()
    });
    if found.is_err() {
        // Librdkafka remembers for minutes that a partition had no leader, or who led it, unless it
        // is made to look (measured).
        client.fetch_metadata(None, patience).ok();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its records lie at 5 to 7 and at 3.
    fn unproven() -> Unproven {
        let written = [("state".to_owned(), (5, 7)), ("retry.1".to_owned(), (3, 3))];
        Unproven::new(None, written.into(), NOW).unwrap()
    }

    fn stable(state: i64, retry: i64) -> BTreeMap<String, i64> {
        BTreeMap::from([("state".to_owned(), state), ("retry.1".to_owned(), retry)])
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_transaction_that_wrote_nothing_needs_no_proof() {
        assert!(Unproven::new(None, BTreeMap::new(), NOW).is_none());
    }

    #[test]
    fn a_transaction_is_decided_once_every_topic_is_stable_beyond_its_last_record() {
        assert_eq!(unproven().judge(Some(&stable(9, 5)), false, NOW), Proof::Decided);
        assert_eq!(unproven().judge(Some(&stable(7, 5)), false, NOW), Proof::NotYet);
        assert_eq!(unproven().judge(Some(&stable(9, 3)), false, NOW), Proof::NotYet);
        assert_eq!(unproven().judge(Some(&BTreeMap::new()), false, NOW), Proof::NotYet);
    }

    #[test]
    fn a_marker_counts_as_forgotten_only_while_kafka_answers() {
        let mut unproven = unproven();
        assert_eq!(unproven.judge(None, false, NOW), Proof::NotYet);
        assert_eq!(unproven.judge(None, false, NOW + FORGOTTEN), Proof::NotYet);
        assert_eq!(unproven.judge(Some(&stable(7, 5)), false, NOW + FORGOTTEN), Proof::NotYet);
        assert_eq!(unproven.judge(Some(&stable(7, 5)), false, NOW + 2 * FORGOTTEN), Proof::Forgotten);
    }

    #[test]
    fn what_a_stranger_hides_is_waited_for_no_longer_than_what_is_forgotten() {
        let mut unproven = unproven();
        assert_eq!(unproven.judge(Some(&stable(4, 5)), false, NOW), Proof::NotYet);
        assert_eq!(unproven.judge(Some(&stable(4, 3)), false, NOW + FORGOTTEN), Proof::Forgotten);
        assert_eq!(unproven.judge(Some(&stable(4, 2)), false, NOW + FORGOTTEN), Proof::Hidden);
    }

    #[test]
    fn what_a_known_stranger_hides_is_not_waited_for_at_all() {
        assert_eq!(unproven().judge(Some(&stable(4, 5)), true, NOW), Proof::Hidden);
        assert_eq!(unproven().judge(Some(&stable(5, 5)), true, NOW), Proof::NotYet);
        assert_eq!(unproven().judge(Some(&stable(9, 5)), true, NOW), Proof::Decided);
    }

    #[test]
    fn looks_become_rarer() {
        let mut unproven = unproven();
        let pauses: Vec<_> = (0..8)
            .map(|_| {
                unproven.judge(None, false, NOW);
                (unproven.look_at() - NOW).as_millis()
            })
            .collect();
        assert_eq!(pauses, [8, 16, 32, 64, 128, 200, 200, 200]);
    }
}
