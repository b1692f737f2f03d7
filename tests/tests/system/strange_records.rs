//! Records that are not ours, state that cannot be read, topics that do not fit.

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::reader::Record;
use hookwell_tests::wait;

use crate::{Common, tests};

tests![
    a_record_that_is_not_ours_is_a_dead_letter_and_the_next_goes_on,
    poison_on_the_events_and_on_a_retry_topic_is_buried_and_harms_nobody,
    a_record_of_a_stranger_that_is_larger_than_any_of_ours_holds_its_partition_until_there_is_room,
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
    wait::until("dead letters to be counted", || {
        let letters = processor.metric("hookwell_processor_dead_letters_total", &undecodable)?;
        Ok((letters == 4.0).then_some(()))
    })?;
    Ok(())
}

fn poison_on_the_events_and_on_a_retry_topic_is_buried_and_harms_nobody(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| settings.partitions = 1)?;
    let many: Vec<_> = (0..20_000).map(|n| (format!("x-{n}"), b"x".to_vec())).collect();
    let raw = |headers: Vec<(String, Vec<u8>)>, value: &[u8]| Record { headers, ..record(b"k", value, &[]) };
    let ours = |id: Vec<u8>| {
        let text = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
        let time = text("ce_time", b"2026-11-24T09:00:00Z");
        vec![
            text("ce_specversion", b"1.0"),
            ("ce_id".to_owned(), id),
            text("ce_source", b"github"),
            text("ce_type", b"t"),
            time,
        ]
    };
    let poison = [
        raw(Vec::new(), b""),
        raw(many, b"a bomb of headers"),
        raw(vec![("x".to_owned(), vec![b'x'; 990_000])], b"a header of nearly 1 MB"),
        raw(vec![(String::new(), b"x".to_vec()), ("x".to_owned(), Vec::new())], b"empty names and values"),
        raw(ours(vec![0xff, 0xfe]), b"an id that is not UTF-8"),
        raw(ours(Vec::new()), b"an id that is empty"),
        raw(ours(vec![b'x'; 300_000]), b"an id of 300 KB"),
    ];
    for topic in ["events", "retry.1"] {
        for record in &poison {
            stage.reader.write(&stage.topic(topic), record)?;
        }
        stage.reader.write_tombstone(&stage.topic(topic), 0, b"a key")?;
    }
    stage.accept(&["one"])?;
    let processor = stage.processor()?;
    // The last of them can be read, is the same event on both topics, and is more than an HTTP server
    // takes in a header.
    let undecodable = 2 * poison.len();
    let letters = stage.reader.until_holds(&stage.topic("dlq"), undecodable + 1)?;
    stage.until_caught_up()?;
    let of_class =
        |class: &str| letters.iter().filter(|it| it.header("hookwell-error-class") == class).count();
    ensure!(
        (of_class("undecodable"), of_class("permanent")) == (undecodable, 1),
        "{} letters",
        letters.len()
    );
    ensure!(
        stage.handler.count() == 1 && stage.handler.calls()[0].event() == "one",
        "{:?}",
        stage.handler.calls()
    );
    ensure!(processor.stop()?.success());
    // Its heir meets none of it again.
    let _processor = stage.processor()?;
    stage.accept(&["two"])?;
    stage.until_caught_up()?;
    ensure!(stage.dead_letters()?.len() == letters.len() && stage.handler.count() == 2);
    Ok(())
}

fn a_record_of_a_stranger_that_is_larger_than_any_of_ours_holds_its_partition_until_there_is_room(
    common: &Common,
) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.partitions = 1;
        settings.ingest = "max_body_bytes = 100000".to_owned();
    })?;
    // As much as the events topic takes: there is no room for the headers of a dead letter.
    let limit = 100_000 + 144 * 1024;
    stage.reader.write(&stage.topic("events"), &record(b"k", &vec![b'x'; limit - 100], &[]))?;
    stage.accept(&["one"])?;
    let processor = stage.processor()?;
    wait::until("the producer to be thrown away", || {
        Ok(processor.logged().contains("taking over anew").then_some(()))
    })?;
    ensure!(processor.logged().contains("Kafka did not take a record"), "{}", processor.logged());
    ensure!(stage.dead_letters()?.is_empty() && stage.reader.read(&stage.topic("state"))?.is_empty());

    stage.reader.limit_records(&stage.topic("dlq"), 2 * limit)?;
    ensure!(stage.reader.until_holds(&stage.topic("dlq"), 1)?[0].value.len() == limit - 100);
    stage.until_caught_up()?;
    ensure!(stage.handler.count() == 1, "{:?}", stage.handler.calls());
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
