//! The spool: how many events a second it takes while Kafka is away, each synced before its 200, and
//! how fast they are drained, beside the least that a sync costs on the same disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use hookwell_common::lifecycle::Clock;
use hookwell_tests::program::Program;
use hookwell_tests::sender::SECRET;
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;

use crate::broker::{Broker, More, drain};
use crate::load::Load;
use crate::record::event_number;
use crate::report::{Series, complain, say, table};

/// No round sends more than this.
const MOST: u64 = 1_000_000;

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// How many outages
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// How long events come in each, in seconds
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// How many connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    connections: u64,
    /// The length of a body
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(64..=1_000_000))]
    bytes: u64,
}

/// One outage.
struct Outage {
    events_a_second: f64,
    syncs_a_second: f64,
    drained_a_second: f64,
}

impl Plan {
    /// Measures, and prints the figures.
    pub(crate) fn run(&self) -> Result<()> {
        let broker = Broker::start()?;
        let more = More {
            log_level: "warn".to_owned(),
            ingest: "[ingest.spool]\npath = \"FOLDER/spool\"\nmax_bytes = 17179869184".to_owned(),
            ..More::default()
        };
        let stage = broker.stage(12, &more)?;
        self.name_source(&stage)?;
        let ingest = stage.ingest()?;
        let (mut outages, mut accepted) = (Vec::new(), BTreeSet::new());
        for round in 0..self.rounds {
            complain(&format!("outage {} of {}", round + 1, self.rounds));
            outages.push(self.outage(&broker, &stage, &ingest, round, &mut accepted)?);
        }
        ensure!(ingest.stop()?.success(), "ingest did not end well");
        reconcile(&stage, &accepted)?;
        self.show(&outages);
        Ok(())
    }

    /// The load is sent to `github`, which here is a source that spools.
    fn name_source(&self, stage: &Stage) -> Result<()> {
        let text = std::fs::read_to_string(stage.config())?;
        let table = "name = \"github\"\n";
        ensure!(text.contains(table), "there is no source github");
        let text = text.replace(table, &format!("{table}on_enqueue_failure = \"spool\"\n"));
        Ok(std::fs::write(stage.config(), text)?)
    }

    fn outage(
        &self,
        broker: &Broker,
        stage: &Stage,
        ingest: &Program,
        round: u64,
        accepted: &mut BTreeSet<u64>,
    ) -> Result<Outage> {
        let syncs_a_second = self.syncs(stage.folder())?;
        broker.kill()?;
        // The first one waits for the time-out, and from then on it is known.
        let load = |first: u64, time: Duration, connections: u64| {
            Ok::<_, anyhow::Error>(Load {
                port: stage.port,
                connections: usize::try_from(connections)?,
                time,
                most: MOST / 2,
                bytes: usize::try_from(self.bytes)?,
                run: "bench".to_owned(),
                first,
                secret: SECRET,
            })
        };
        let warm = load(round * MOST, Duration::from_millis(100), 1)?.send()?;
        let clock = Clock::start();
        let sent =
            load(round * MOST + MOST / 2, Duration::from_secs(self.seconds), self.connections)?.send()?;
        let events_a_second = sent.requests() as f64 / clock.mono().as_secs_f64();
        ensure!(sent.statuses.keys().eq([&200]), "not all were accepted: {:?}", sent.statuses);
        accepted.extend(warm.accepted.iter().chain(&sent.accepted));
        broker.revive()?;
        let drained_a_second = drained(ingest)?;
        Ok(Outage { events_a_second, syncs_a_second, drained_a_second })
    }

    /// Writes of one body each, one after the other, each synced.
    fn syncs(&self, folder: &Path) -> Result<f64> {
        let path = folder.join("floor");
        let mut file = File::create(&path)?;
        let body = vec![b'x'; usize::try_from(self.bytes)?];
        let (clock, mut count) = (Clock::start(), 0u32);
        while clock.mono() < Duration::from_secs(1) {
            file.write_all(&body)?;
            file.sync_data()?;
            count += 1;
        }
        let rate = f64::from(count) / clock.mono().as_secs_f64();
        std::fs::remove_file(path)?;
        Ok(rate)
    }

    fn show(&self, outages: &[Outage]) {
        let of = |what: fn(&Outage) -> f64| outages.iter().map(what).collect::<Series>();
        let (events, syncs) = (of(|outage| outage.events_a_second), of(|outage| outage.syncs_a_second));
        say(&format!(
            "\n{} bytes, {} connections, {} outages of {} s each; median (least to most)\n",
            self.bytes, self.connections, self.rounds, self.seconds
        ));
        let rows = [
            ("spooled, events a second, each synced before its 200", events.show(0)),
            ("floor: one write and one sync after the other, a second", syncs.show(0)),
            ("drained, events a second", of(|outage| outage.drained_a_second).show(0)),
            ("ratio: spooled / floor", events.over(&syncs).show(2)),
        ];
        table(&["", ""], rows.into_iter().map(|(name, figure)| vec![name.to_owned(), figure]).collect());
    }
}

/// How many events a second leave the spool, from the first to the last.
fn drained(ingest: &Program) -> Result<f64> {
    let waiting = || ingest.metric("hookwell_ingest_spool_events", &[]);
    let before = waiting()?;
    wait::until("the first event to be drained", || Ok((waiting()? < before).then_some(())))?;
    let (clock, begun) = (Clock::start(), waiting()?);
    wait::until("the last event to be drained", || Ok((waiting()? == 0.0).then_some(())))?;
    Ok(begun / clock.mono().as_secs_f64().max(0.001))
}

/// What was accepted lies on the topic, and nothing else does; some of it twice, as is promised.
fn reconcile(stage: &Stage, accepted: &BTreeSet<u64>) -> Result<()> {
    let mut stored = BTreeSet::new();
    let mut strange = None;
    let records = drain(&stage.reader, &stage.topic("events"), |message| match event_number(message) {
        Ok(number) => drop(stored.insert(number)),
        Err(error) => strange = Some(error),
    })?;
    if let Some(error) = strange {
        return Err(error);
    }
    let (lost, unasked) = (accepted.difference(&stored).count(), stored.difference(accepted).count());
    ensure!((lost, unasked) == (0, 0), "lost {lost}, unasked {unasked}");
    let copies = records - stored.len() as u64;
    say(&format!("{} events heard 200; all of them lie on the topic, {copies} twice", stored.len()));
    Ok(())
}
