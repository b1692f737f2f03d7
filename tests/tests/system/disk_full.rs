//! Kafka's disk is full: every write beyond a length fails, as where no block is left. Nobody hears a
//! 200 for what could not be written, and when there is room again everything accepted is settled.
//!
//! What a full disk under ingest's spool does is tested beside the spool.

use anyhow::{Result, ensure};
use hookwell_tests::audit::Events;
use hookwell_tests::sender::{Sender, Signed, post, post_until_accepted};
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;

use crate::{Common, tests};

tests![while_kafkas_disk_is_full_senders_hear_503_and_what_was_accepted_is_settled_afterwards];

fn while_kafkas_disk_is_full_senders_hear_503_and_what_was_accepted_is_settled_afterwards(
    common: &Common,
) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(|settings| {
        settings.partitions = 1;
        settings.ingest = "publish_timeout = \"5s\"".to_owned();
    })?;
    let (ingest, processor) = (stage.ingest()?, stage.processor()?);
    own.kafka.limit_files(Some(3_000_000))?;
    let event = |n: usize| Sender::GitHub.sign(&format!("id-{n}"), vec![b'x'; 100_000]);
    let (mut accepted, refused) = fill_the_disk(&stage, event)?;
    ensure!((5..30).contains(&accepted.len()), "{} were accepted", accepted.len());
    // A node whose only disk fails ends itself.
    own.kafka.until_ended()?;
    for _ in 0..3 {
        ensure!(post(stage.port, &refused)?.0 == 503);
    }
    wait::until("ingest to be not ready", || Ok((!ingest.is_ready()?).then_some(())))?;

    own.kafka.revive()?;
    post_until_accepted(stage.port, &refused)?;
    accepted.insert((refused.source, refused.id));
    let audit = stage.until_all_settled(&accepted)?;
    ensure!(audit.is_clean() && audit.dead == 0, "{audit}");
    stage.until_caught_up()?;
    // One that heard a 503 may have been written all the same, and is no second event.
    ensure!(audit.events == accepted.len(), "{audit}");
    ensure!(processor.stop()?.success());
    Ok(())
}

/// Sends one event after the other until one hears 503; gives those that heard 200, and that one.
pub(crate) fn fill_the_disk(stage: &Stage, event: impl Fn(usize) -> Signed) -> Result<(Events, Signed)> {
    let mut accepted = Events::new();
    let refused = wait::until("a disk that is full", || {
        let event = event(accepted.len());
        let (status, text) = post(stage.port, &event)?;
        if status == 200 {
            accepted.insert((event.source, event.id));
            return Ok(None);
        }
        ensure!(status == 503, "{status}: {text}");
        Ok(Some(event))
    })?;
    Ok((accepted, refused))
}
