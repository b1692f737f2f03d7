//! Reads the dead letter topic beside the state topic, a partition at a time, so that memory holds
//! the states of one partition whatever the topics hold.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hookwell_common::kafka::{ClientSettings, PartitionReader, Stopping, appended_at, copy_record};
use hookwell_common::lifecycle::{Clock, Failure};
use hookwell_common::time::Timestamp;
use hookwell_common::topics::Topic;
use rdkafka::message::{BorrowedMessage, Message};

use super::letter::DeadLetter;
use super::standing::Standing;
use crate::state::{END_KEY, Expiry, StateError, StateTable, decode};

/// Both topics of one installation, and how far they reach.
pub(crate) struct Survey {
    letters: PartitionReader,
    states: PartitionReader,
    /// The first offset of each partition of the dead letter topic, and the end as it was when the
    /// command began: what dies later is another run's.
    extents: Vec<(i64, i64)>,
}

impl Survey {
    /// Looks how far the topics under `prefix` reach.
    pub(crate) fn begin(
        clients: &ClientSettings,
        group_id: &str,
        prefix: &str,
        partitions: i32,
        clock: Clock,
        stopping: &Stopping,
    ) -> Result<Self, Failure> {
        let reader =
            |topic: Topic| PartitionReader::new(clients, group_id, topic.name(prefix), clock, stopping);
        let letters = reader(Topic::DeadLetters)?;
        let extent = |partition| {
            if stopping.load(Ordering::Relaxed) {
                return Err(Failure::No("interrupted before anything was read".to_owned()));
            }
            letters.extent(partition)
        };
        let extents = (0..partitions).map(extent).collect::<Result<_, _>>()?;
        Ok(Self { letters, states: reader(Topic::State)?, extents })
    }

    /// How many offsets there are to read.
    pub(crate) fn length(&self) -> u64 {
        self.extents.iter().map(|(start, end)| distance(*start, *end)).sum()
    }

    /// Hands each dead letter to `visit`, with where its delivery stands, and with the number of
    /// offsets that were read so far. Ends early where `visit` or somebody outside says so.
    pub(crate) fn read(
        &self,
        mut visit: impl FnMut(DeadLetter, Standing, u64) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let mut before = 0;
        for (partition, (start, end)) in (0..).zip(&self.extents) {
            if start < end {
                let Some(states) = self.states_of(partition)? else { break };
                let flow = self.letters.read(partition, *end, |message| {
                    if message.key() == Some(END_KEY) {
                        return Ok(ControlFlow::Continue(()));
                    }
                    let letter = letter(message);
                    let state = letter.key().and_then(|key| states.get(&key, Timestamp::default()));
                    let standing = Standing::of(&letter, state.as_ref());
                    Ok(visit(letter, standing, before + distance(*start, message.offset() + 1)))
                })?;
                if flow.is_break() {
                    break;
                }
            }
            before += distance(*start, *end);
        }
        Ok(())
    }

    /// The newest state of each delivery. None expires here: a replay that succeeded is remembered for
    /// as long as its record lies on Kafka. `None` where somebody wants the command to stop.
    fn states_of(&self, partition: i32) -> Result<Option<StateTable>, Failure> {
        let forever = Expiry { dedupe_window: Duration::MAX, dead_letter_retention: Duration::MAX };
        let mut table = StateTable::new(forever);
        let (_, end) = self.states.extent(partition)?;
        let flow = self.states.read(partition, end, |message| {
            let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
            match decode(key, value) {
                Ok((key, Some(state))) => table.put(key, state),
                Ok((key, None)) => table.remove(&key),
                Err(StateError::NoDelivery | StateError::ForeignKey) => {}
                Err(error @ (StateError::UnknownVersion(_) | StateError::Damaged)) => {
                    return Err(Failure::Kafka(format!(
                        "the state record at {}/{partition}/{} cannot be read: {error}",
                        self.states.topic(),
                        message.offset()
                    )));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(flow.is_continue().then_some(table))
    }
}

fn letter(message: &BorrowedMessage<'_>) -> DeadLetter {
    DeadLetter::read(&copy_record(message), message.partition(), message.offset(), appended_at(message))
}

fn distance(start: i64, end: i64) -> u64 {
    u64::try_from(end.saturating_sub(start)).unwrap_or_default()
}
