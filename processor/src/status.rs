//! What the processor tells of itself: health, and the figures that are only reckoned when asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hookwell_common::kafka::{Figures, Statistics};
use hookwell_common::telemetry::{Health, Readiness};
use hookwell_common::time::Timestamp;

use crate::board::{LaneState, LaneView};
use crate::shared::Shared;

/// A thread that was not seen for so long makes no progress.
const STALL: Duration = Duration::from_secs(120);

/// What the processor tells of itself.
#[derive(Debug)]
pub(crate) struct Status {
    shared: Arc<Shared>,
    figures: Figures,
    stopping: Arc<AtomicBool>,
}

impl Status {
    /// Of what lanes and clients show.
    pub(crate) fn new(shared: Arc<Shared>, figures: Figures, stopping: Arc<AtomicBool>) -> Self {
        Self { shared, figures, stopping }
    }

    fn show_lanes(&self, lanes: &BTreeMap<i32, LaneView>) {
        let metrics = &self.shared.metrics;
        for state in LaneState::ALL {
            let count = lanes.values().filter(|lane| lane.state == state).count();
            metrics.lanes.with_label_values(&[state.label()]).set(as_gauge(count));
        }
        let sum = |of: fn(&LaneView) -> usize| as_gauge(lanes.values().map(of).sum());
        metrics.open.set(sum(|lane| lane.gauges.open));
        metrics.waiting.set(sum(|lane| lane.gauges.waiting));
        metrics.state_ids.set(sum(|lane| lane.gauges.ids));
        metrics.state_bytes.set(sum(|lane| lane.gauges.state_bytes));
        let oldest = lanes.values().filter_map(|lane| lane.gauges.oldest_unsettled).min();
        metrics.oldest_unsettled.set(oldest.map_or(0.0, Timestamp::as_seconds_f64));
    }

    fn show_dead(&self, lanes: &BTreeMap<i32, LaneView>) {
        let metrics = &self.shared.metrics;
        let setup = self.shared.setup.load();
        let mut open: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
        let mut oldest: BTreeMap<&str, Timestamp> = BTreeMap::new();
        for ((source, destination, reason), (count, at)) in lanes.values().flat_map(|lane| &lane.dead) {
            let (source, destination) = (setup.names.source(source), setup.names.destination(destination));
            *open.entry((source, destination, reason.label())).or_default() += count;
            let first = oldest.entry(destination).or_insert(*at);
            *first = (*first).min(*at);
        }
        // What is no longer there must fall to zero, and not stay at its last value.
        metrics.clear_dead(&setup.names);
        for ((source, destination, reason), count) in open {
            metrics.dlq_open.with_label_values(&[source, destination, reason]).set(as_gauge(count));
        }
        for (destination, at) in oldest {
            metrics.dlq_oldest.with_label_values(&[destination]).set(at.as_seconds_f64());
        }
    }

    /// Log ends as the consumers saw them last, minus what is settled. At the end of a retry topic may
    /// lie what was aborted, which nobody is shown and no frontier passes: where all that was shown is
    /// settled and the consumer has met the end, nothing is left.
    fn show_lag(&self, lanes: &BTreeMap<i32, LaneView>) {
        let metrics = &self.shared.metrics;
        let clients = self.figures.all();
        metrics.lag.reset();
        for (partition, lane) in lanes {
            for (stream, frontier) in &lane.gauges.frontiers {
                let topic = stream.topic(&self.shared.settings.topic_prefix);
                if let Some(end) =
                    clients.iter().filter_map(|client| log_end(client, &topic, *partition)).max()
                {
                    let is_through = !lane.gauges.unsettled.contains(stream)
                        && clients.iter().any(|client| has_met(end, client, &topic, *partition));
                    let lag = if is_through { 0 } else { (end - frontier.0).max(0) };
                    metrics.lag.with_label_values(&[topic.as_str(), partition.to_string().as_str()]).set(lag);
                }
            }
        }
        for client in clients.iter().filter(|client| client.cgrp.is_some()) {
            let up =
                client.brokers.values().filter(|broker| broker.nodeid >= 0 && broker.state == "UP").count();
            metrics.brokers_up.set(as_gauge(up));
            metrics.rebalances.set(client.cgrp.as_ref().map_or(0, |group| group.rebalance_cnt));
        }
    }
}

impl Health for Status {
    fn live(&self) -> Readiness {
        match self.shared.board.stalled(self.shared.clock.mono(), STALL) {
            Some(name) => Err(format!("a {name} thread has not moved for {} s", STALL.as_secs())),
            None => Ok(()),
        }
    }

    fn ready(&self) -> Readiness {
        if self.stopping.load(Ordering::Relaxed) || self.shared.downfall.has_come() {
            return Err("about to end".to_owned());
        }
        if !self.shared.board.has_joined() {
            return Err("the group has not given this process its place yet".to_owned());
        }
        let assigned = self.shared.metrics.assigned_partitions.get();
        let lanes = self.shared.board.lanes();
        let active = lanes.values().filter(|lane| lane.state == LaneState::Active).count();
        if as_gauge(active) < assigned {
            return Err(format!("{active} of {assigned} assigned partitions are restored"));
        }
        Ok(())
    }

    fn refresh(&self) {
        let lanes = self.shared.board.lanes();
        self.show_lanes(&lanes);
        self.show_dead(&lanes);
        self.show_lag(&lanes);
    }
}

fn log_end(client: &Statistics, topic: &str, partition: i32) -> Option<i64> {
    let end = client.topics.get(topic)?.partitions.get(&partition)?.hi_offset;
    (end >= 0).then_some(end)
}

/// Whether a consumer has come to `end`, and handed over all that lies before it.
fn has_met(end: i64, client: &Statistics, topic: &str, partition: i32) -> bool {
    let partition = client.topics.get(topic).and_then(|topic| topic.partitions.get(&partition));
    partition.is_some_and(|partition| partition.eof_offset >= end && partition.fetchq_cnt == 0)
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
