//! Records that are not ours, state that cannot be read, topics that do not fit.

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::reader::Record;

use crate::{Common, tests};

tests![
    a_record_that_is_not_ours_is_a_dead_letter_and_the_next_goes_on,
    a_state_record_of_an_unknown_version_stops_the_processor_with_its_name,
    an_emptied_state_topic_is_refused_and_repeats_no_work,
    topics_that_do_not_fit_are_refused_with_each_fault,
    topics_that_are_missing_are_named,
];

fn record(key: &[u8], value: &[u8], headers: &[(&str, &str)]) -> Record {
    let headers =
        headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    Record { partition: 0, offset: 0, key: key.to_vec(), value: value.to_vec(), headers, at: 0 }
}

fn a_record_that_is_not_ours_is_a_dead_letter_and_the_next_goes_on(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    let events = stage.topic("events");
    let ours = [
        ("ce_specversion", "1.0"),
        ("ce_id", "x"),
        ("ce_source", "github"),
        ("ce_type", "t"),
        ("ce_time", "2026-11-24T09:00:00Z"),
    ];
    let strangers = [
        record(b"", b"not ours", &[]),
        record(b"k", b"half of a header", &[("ce_id", "1")]),
        record(b"k", b"a strange attempt", &[ours.as_slice(), &[("hookwell-attempt", "many")]].concat()),
        record(b"k", b"a strange generation", &[ours.as_slice(), &[("hookwell-generation", "-1")]].concat()),
    ];
    strangers.iter().try_for_each(|stranger| stage.reader.write(&events, stranger))?;
    stage.accept(&["one"])?;
    let processor = stage.processor()?;
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 1 && stage.handler.calls()[0].event() == "one");
    let letters = stage.dead_letters()?;
    ensure!(letters.len() == 4, "{letters:?}");
    for (letter, stranger) in letters.iter().zip(&strangers) {
        ensure!(
            letter.value == stranger.value && letter.header("hookwell-error-class") == "undecodable",
            "{letter:?}"
        );
        ensure!(!letter.header("hookwell-original-offset").is_empty(), "{letter:?}");
    }
    let undecodable = ["reason=\"undecodable\""];
    ensure!(processor.metric("hookwell_processor_dead_letters_total", &undecodable)? == 4.0);
    Ok(())
}

fn a_state_record_of_an_unknown_version_stops_the_processor_with_its_name(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    stage.reader.write(&stage.topic("state"), &record(&[7; 16], &[9, 1, 2, 3], &[]))?;
    stage.accept(&["one"])?;
    let processor = stage.start_processor("")?;
    ensure!(processor.end()?.code() == Some(3));
    let log = processor.logged();
    ensure!(log.contains("version 9") && log.contains(&stage.topic("state")), "{log}");
    ensure!(stage.handler.count() == 0);
    Ok(())
}

fn an_emptied_state_topic_is_refused_and_repeats_no_work(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    stage.accept(&["one"])?;
    let processor = stage.processor()?;
    stage.until_settled(&["one"])?;
    stage.until_caught_up()?;
    ensure!(processor.stop()?.success());
    stage.reader.delete_topic(&stage.topic("state"))?;
    let created = stage.processor_answers(&["--create-topics"])?;
    ensure!(created.out.contains(&format!("created {}", stage.topic("state"))), "{created:?}");

    stage.accept(&["one", "two"])?;
    let processor = stage.start_processor("")?;
    ensure!(processor.end()?.code() == Some(3));
    let log = processor.logged();
    ensure!(log.contains("deleted or emptied") && log.contains("processor.group_id"), "{log}");
    ensure!(stage.handler.count() == 1);
    Ok(())
}

fn topics_that_do_not_fit_are_refused_with_each_fault(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    stage.rewrite(|settings| settings.partitions = 5)?;
    let answers = [stage.start_ingest("")?, stage.start_processor("")?];
    for program in answers {
        ensure!(program.end()?.code() == Some(3));
        let log = program.logged();
        ensure!(log.contains(&stage.topic("events")) && log.contains('5') && log.contains('3'), "{log}");
    }
    let again = stage.processor_answers(&["--create-topics"])?;
    ensure!(again.status == Some(3) && again.err.contains(&stage.topic("state")), "{again:?}");
    Ok(())
}

fn topics_that_are_missing_are_named(common: &Common) -> Result<()> {
    let stage = common.bare_stage(|_| ())?;
    let processor = stage.start_processor("")?;
    ensure!(processor.end()?.code() == Some(3));
    let log = processor.logged();
    for topic in ["events", "retry.1", "retry.2", "dlq", "state"] {
        ensure!(log.contains(&stage.topic(topic)), "{topic} is not named: {log}");
    }
    ensure!(log.contains("--create-topics"), "{log}");
    let created = stage.processor_answers(&["--create-topics"])?;
    ensure!(created.status == Some(0) && created.out.matches("created").count() == 5, "{created:?}");
    let again = stage.processor_answers(&["--create-topics"])?;
    ensure!(again.status == Some(0) && again.out.matches("exists").count() == 5, "{again:?}");
    stage.processor().context("it does not run on what it created").map(drop)
}
