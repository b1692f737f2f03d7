//! Who replays dead letters while everything is broken.

use std::time::Duration;

use anyhow::Result;
use hookwell_tests::program::Program;
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;

use crate::schedule::Replay;

/// A command that Kafka keeps waiting is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Replays what is dead. A replay that fails is one that is run again another day.
pub(crate) fn replay(stage: &Stage, how: Replay) -> Result<()> {
    let start = || stage.start_command(&["--replay-dlq", "--rate", "50/s"]);
    match how {
        Replay::Whole => end(&start()?),
        Replay::Killed => {
            let first = start()?;
            wait::pause(Duration::from_millis(700));
            first.kill()?;
            end(&start()?)
        }
        Replay::Twice => {
            let both = [start()?, start()?];
            both.iter().try_for_each(end)
        }
    }
}

fn end(command: &Program) -> Result<()> {
    wait::until_within(PATIENCE, "a command to end", || command.ended()).map(drop).or_else(|_| command.kill())
}
