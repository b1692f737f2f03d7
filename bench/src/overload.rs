//! Load beyond capacity, at length: the scenes of `tests/tests/system/overload.rs`, large.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use hookwell_common::lifecycle::{Clock, raise_open_files};
use hookwell_tests::overload::{Beside, Flood, Gate, crowd, gated, most_of_a_processor, most_of_an_ingest};
use hookwell_tests::stage::{Settings, destination};

use crate::broker::Broker;
use crate::record::{Backlog, SOURCE, event_id};
use crate::report::{complain, say};

const MEBIBYTE: f64 = 1024.0 * 1024.0;
const PARTITIONS: u32 = 12;

/// How much is done.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// How long ten times more is sent than the handler can take; 0: not at all
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// The events of a backlog; 0: none
    #[arg(long, default_value_t = 1_000_000)]
    backlog: u64,
    /// Connections to ingest at once; 0: none
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Destinations that hang beside one that does not; 0: none
    #[arg(long, default_value_t = 100)]
    slow: usize,
}

impl Plan {
    /// Does it, and prints the figures.
    pub(crate) fn run(&self) -> Result<()> {
        let broker = Broker::start()?;
        if 0 < self.slow {
            self.beside(&broker)?;
        }
        if 0 < self.connections {
            self.crowd(&broker)?;
        }
        if 0 < self.backlog {
            self.backlog(&broker)?;
        }
        if 0 < self.seconds {
            self.flood(&broker)?;
        }
        Ok(())
    }

    fn beside(&self, broker: &Broker) -> Result<()> {
        let beside = Beside { slow: self.slow, events: 20, fast: 2_000 };
        complain(&format!("{beside:?}"));
        let gate = Gate::default();
        let slow = gated(&gate)?;
        let stage = broker.set(settings(|settings| beside.settings(settings, &slow.url())))?;
        let peaks = beside.play(&stage, PARTITIONS, &slow, &gate)?;
        say(&format!(
            "{} destinations that hang, {} events each: all {} events of the fast one were delivered before one call of the others had ended; all settled once; ingest took at most {}, the processor {} MiB\n",
            beside.slow,
            beside.events,
            beside.fast,
            mebibytes(peaks.ingest),
            mebibytes(peaks.processor)
        ));
        Ok(())
    }

    fn crowd(&self, broker: &Broker) -> Result<()> {
        raise_open_files();
        complain(&format!("{} connections", self.connections));
        let stage = broker.set(settings(|settings| settings.ingest = "read_timeout = \"10m\"".to_owned()))?;
        let peak = crowd(&stage, self.connections, 1_000)?;
        let bound = most_of_an_ingest(self.connections as u64, 0);
        ensure!(peak < bound, "ingest took {peak} bytes");
        say(&format!(
            "{} connections (idle, slow head, slow body) and 1,000 requests among them: each answered 200; ingest took at most {} of {} MiB\n",
            self.connections,
            mebibytes(peak),
            mebibytes(bound)
        ));
        Ok(())
    }

    fn backlog(&self, broker: &Broker) -> Result<()> {
        complain(&format!("a backlog of {}", self.backlog));
        let stage = broker.set(settings(|settings| {
            settings.destinations = "[[destinations]]\nname = \"orders\"\nkind = \"log\"\n".to_owned();
            settings.routes += "\n[log]\nlevel = \"warn\"";
        }))?;
        let backlog = Backlog {
            run: stage.prefix.clone(),
            first: 0,
            records: self.backlog,
            repeat: 0,
            bytes: 1024,
            partitions: i32::try_from(PARTITIONS)?,
        };
        backlog.write(&stage.reader, &stage.topic("events"))?;
        let clock = Clock::start();
        let processor = stage.processor()?;
        while crate::processor::settled(&processor)? < self.backlog {
            hookwell_tests::wait::pause(Duration::from_millis(100));
        }
        let seconds = clock.mono().as_secs_f64();
        stage.until_caught_up()?;
        let peak = processor.peak_bytes()?;
        let states = processor.metric("hookwell_processor_state_bytes", &[])? as u64;
        let accepted: BTreeSet<_> =
            (0..self.backlog).map(|n| (SOURCE.to_owned(), event_id(&backlog.run, n))).collect();
        let audit = stage.until_all_settled(&accepted)?;
        ensure!(audit.is_clean(), "{audit}");
        let bound = most_of_a_processor(PARTITIONS) + states;
        ensure!(peak < bound, "the processor took {peak} bytes");
        say(&format!(
            "a backlog of {} events of 1 KB, {PARTITIONS} partitions: settled in {seconds:.0} s; the processor took at most {} of {} MiB, {} of them states; {audit}\n",
            self.backlog,
            mebibytes(peak),
            mebibytes(bound),
            mebibytes(states)
        ));
        Ok(())
    }

    fn flood(&self, broker: &Broker) -> Result<()> {
        let flood = Flood {
            connections: 8,
            pause: Duration::from_millis(15),
            events: 1,
            time: Duration::from_secs(self.seconds),
            call: Duration::from_millis(20),
        };
        complain(&format!("{flood:?}"));
        let stage = broker.set(settings(|settings| {
            Flood::settings(settings);
            settings.routes += "\n[log]\nlevel = \"warn\"";
        }))?;
        let flooded = flood.play(&stage, PARTITIONS)?;
        say(&format!(
            "a flood of {:.0} s: {} accepted ({:.0} a second), {} handled meanwhile, the rest in {:.0} s once the handler was mended; ingest took at most {}, the processor {} MiB; {}\n",
            flooded.took.as_secs_f64(),
            flooded.accepted,
            flooded.accepted as f64 / flooded.took.as_secs_f64(),
            flooded.handled,
            flooded.rest.as_secs_f64(),
            mebibytes(flooded.peaks.ingest),
            mebibytes(flooded.peaks.processor),
            flooded.audit
        ));
        Ok(())
    }
}

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings =
        Settings { partitions: PARTITIONS, destinations: destination("orders", ""), ..Settings::default() };
    change(&mut settings);
    settings
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / MEBIBYTE)
}
