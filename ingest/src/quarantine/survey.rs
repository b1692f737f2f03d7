//! Reads the quarantine topic: first what was released before, then what was kept.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use hookwell_common::kafka::{
    ClientSettings, Isolation, LoggingContext, PartitionReader, Stopping, copy_record, extent,
};
use hookwell_common::lifecycle::{Clock, Failure};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message;

use super::record::{Entry, decode};
use super::released::{Place, Released};
use super::tally::Found;

/// The quarantine topic, and how far it reached when the command began: what comes later is another
/// run's.
#[derive(Debug)]
pub(crate) struct Survey {
    reader: PartitionReader,
    extents: Vec<(i64, i64)>,
    stopping: Stopping,
}

impl Survey {
    /// Looks how far `topic` reaches. To its true end, also where an open transaction hides that: what
    /// was released may lie there.
    pub(crate) fn begin(
        clients: &ClientSettings,
        group_id: &str,
        topic: &str,
        partitions: i32,
        clock: Clock,
        stopping: &Stopping,
    ) -> Result<Self, Failure> {
        let reader = PartitionReader::new(clients, group_id, topic.to_owned(), clock, stopping)?;
        let ends = watermarks(clients, Isolation::Uncommitted)?;
        let extent = |partition| {
            if stopping.load(Ordering::Relaxed) {
                return Err(Failure::No("interrupted before anything was read".to_owned()));
            }
            extent(&ends, topic, partition, clock)
        };
        let extents = (0..partitions).map(extent).collect::<Result<_, _>>()?;
        Ok(Self { reader, extents, stopping: Stopping::clone(stopping) })
    }

    /// What was released before.
    pub(crate) fn released(&self) -> Result<Released, Failure> {
        let mut released = Released::default();
        self.each(|place, entry| {
            if let Ok(Entry::Release(release)) = entry {
                released.add(place.partition, release);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        // Half of what was released must not be taken for all of it.
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Failure::No(
                "interrupted while the quarantine was read; nothing was changed".to_owned(),
            ));
        }
        Ok(released)
    }

    /// Hands each request to `visit`, and what can be read as nothing; ends early where that or somebody
    /// outside says so.
    pub(crate) fn requests(
        &self,
        mut visit: impl FnMut(Place, Found) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        self.each(|place, entry| match entry {
            Ok(Entry::Request(request)) => visit(place, Ok(request)),
            Ok(Entry::Release(_)) => Ok(ControlFlow::Continue(())),
            Err(damage) => visit(place, Err(damage)),
        })
    }

    fn each(
        &self,
        mut visit: impl FnMut(Place, Result<Entry, super::record::Damage>) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        for (partition, (start, end)) in (0..).zip(&self.extents) {
            if start == end {
                continue;
            }
            let flow = self.reader.read(partition, *end, |message| {
                visit(Place { partition, offset: message.offset() }, decode(&copy_record(message)))
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Who tells how far partitions reach.
pub(super) fn watermarks(
    clients: &ClientSettings,
    isolation: Isolation,
) -> Result<BaseConsumer<LoggingContext>, Failure> {
    BaseConsumer::from_config_and_context(&clients.watermarks(isolation), LoggingContext::default())
        .map_err(|error| Failure::Usage(format!("no Kafka client: {error}")))
}
