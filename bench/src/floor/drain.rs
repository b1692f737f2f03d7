//! A consumer that reads a topic to its end and forgets it.

use anyhow::Result;
use clap::Args;
use hookwell_tests::reader::Reader;

use crate::broker;

/// A bare consumer.
#[derive(Clone, Debug, Args)]
pub(crate) struct Drain {
    /// Where Kafka is
    bootstrap_servers: String,
    /// What to read
    topic: String,
}

impl Drain {
    /// Reads.
    pub(crate) fn run(self) -> Result<()> {
        let reader = Reader::new(&self.bootstrap_servers);
        let drain = broker::Drain::begin(&reader, &self.topic)?;
        super::begin(0);
        super::end(drain.read(|_| ())?);
        super::stay();
        Ok(())
    }
}
