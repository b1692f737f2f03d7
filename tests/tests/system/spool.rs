//! Kafka is away and the sender never sends again: its events are on ingest's own disk before it
//! hears 200, whatever dies, and on Kafka once that is back.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::audit::Events;
use hookwell_tests::program::Program;
use hookwell_tests::sender::{Sender, Signed, post, post_until_accepted};
use hookwell_tests::stage::{Settings, Stage};
use hookwell_tests::wait;

use super::disk_full::fill_the_disk;
use crate::{Common, tests};

tests![
    while_kafka_is_away_events_wait_on_the_disk_and_are_drained_in_order_when_it_is_back,
    an_ingest_that_starts_without_kafka_takes_what_it_can_keep_and_ends_if_the_topics_do_not_fit,
    killed_again_and_again_while_it_spools_it_loses_nothing_that_it_acknowledged,
    a_torn_last_write_is_cut_off_and_a_damaged_place_is_told_and_costs_nothing_behind_it,
    a_full_spool_answers_503_and_takes_events_again_once_it_is_drained,
    what_kafka_will_never_take_is_refused_and_in_the_spool_put_aside,
    a_spool_that_cannot_be_written_says_so_and_answers_503,
    a_spool_whose_disk_is_full_answers_503_and_keeps_what_it_acknowledged,
    two_processes_never_share_a_spool,
];

const SPOOLED: &[&str] = &["outcome=\"spooled\"", "source=\"acme\""];

/// A source `acme` that signs as GitHub does, and whose events are kept.
pub(crate) fn with_spool(settings: &mut Settings) {
    settings.partitions = 1;
    settings.ingest = "publish_timeout = \"5s\"\n[ingest.spool]\npath = \"FOLDER/spool\"".to_owned();
    settings.sources = "[[sources]]\nname = \"acme\"\npreset = \"github\"\nsecrets = [{ file = \"FOLDER/github\" }]\non_enqueue_failure = \"spool\"".to_owned();
}

pub(crate) fn event(id: &str) -> Signed {
    Sender::GitHub.event(id).to("acme")
}

fn events(ids: &[&str]) -> Events {
    ids.iter().map(|id| ("acme".to_owned(), (*id).to_owned())).collect()
}

/// What must be answered 200.
fn spool(stage: &Stage, ids: &[&str]) -> Result<()> {
    for id in ids {
        let (status, text) = post(stage.port, &event(id))?;
        ensure!(status == 200, "{id}: {status} {text}");
    }
    Ok(())
}

fn segments(stage: &Stage) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(stage.folder().join("spool"))?;
    let paths: Vec<_> = files.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    let mut found: Vec<_> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|kind| kind != "lock")).collect();
    found.sort();
    Ok(found)
}

fn until_empty(ingest: &Program) -> Result<()> {
    wait::until("the spool to be empty", || {
        Ok((ingest.metric("hookwell_ingest_spool_events", &[])? == 0.0).then_some(()))
    })
}

/// The ids on the events topic, copies left out, in the order in which each came first.
fn order_on_kafka(stage: &Stage) -> Result<Vec<String>> {
    let mut seen = BTreeSet::new();
    let records = stage.reader.read(&stage.topic("events"))?;
    let ids = records.iter().map(|record| record.event().1);
    Ok(ids.filter(|id| seen.insert(id.clone())).collect())
}

fn while_kafka_is_away_events_wait_on_the_disk_and_are_drained_in_order_when_it_is_back(
    common: &Common,
) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(with_spool)?;
    let ingest = stage.ingest()?;
    spool(&stage, &["before"])?;
    ensure!(ingest.metric("hookwell_ingest_requests_total", SPOOLED)? == 0.0, "Kafka was there");
    own.kafka.kill()?;
    let ids: Vec<_> = (0..20).map(|n| format!("during-{n:02}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    spool(&stage, &ids)?;
    // Those who send again are told to.
    ensure!(post(stage.port, &Sender::GitHub.event("other"))?.0 == 503);
    ensure!(ingest.metric("hookwell_ingest_requests_total", SPOOLED)? == 20.0);
    ensure!(ingest.metric("hookwell_ingest_spool_events", &[])? == 20.0);
    ensure!(ingest.metric("hookwell_ingest_spool_bytes", &[])? > 0.0);
    ensure!(ingest.metric("hookwell_ingest_spool_oldest_timestamp_seconds", &[])? > 1.7e9);
    let log = ingest.logged();
    let line = log.lines().find(|line| line.contains("event_id=\"during-07\"")).context("no line")?;
    ensure!(line.contains("outcome=\"spooled\"") && line.contains("status=200"), "{line}");
    ensure!(ingest.is_ready()?, "nobody would send what it can keep");

    own.kafka.revive()?;
    until_empty(&ingest)?;
    ensure!(ingest.metric("hookwell_ingest_spool_drained_total", &[])? == 20.0);
    ensure!(ingest.metric("hookwell_ingest_spool_oldest_timestamp_seconds", &[])? == 0.0);
    wait::until("the files to be gone", || Ok(segments(&stage)?.is_empty().then_some(())))?;
    let expected: Vec<_> = ["before"].iter().chain(&ids).map(|id| (*id).to_owned()).collect();
    let mut order = order_on_kafka(&stage)?;
    order.retain(|id| id != "other");
    ensure!(order == expected, "{order:?}");
    let _processor = stage.processor()?;
    let audit = stage.until_all_settled(&events(&[&["before"], &ids[..]].concat()))?;
    ensure!(audit.is_clean() && audit.dead == 0, "{audit}");
    Ok(())
}

fn an_ingest_that_starts_without_kafka_takes_what_it_can_keep_and_ends_if_the_topics_do_not_fit(
    common: &Common,
) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(with_spool)?;
    own.kafka.kill()?;
    let ingest = stage.ingest()?;
    spool(&stage, &["one", "two"])?;
    let (status, _) = post(stage.port, &Sender::GitHub.event("other"))?;
    ensure!(status == 503, "{status}: nobody has seen the topics yet");
    ensure!(ingest.stop()?.success());
    // Another number of partitions, which the topic does not have.
    stage.rewrite(|settings| settings.partitions = 2)?;
    let ingest = stage.ingest()?;
    own.kafka.revive()?;
    ensure!(ingest.end()?.code() == Some(3), "{}", ingest.logged());
    ensure!(stage.reader.read(&stage.topic("events"))?.is_empty(), "published without having looked");
    stage.rewrite(|_| ())?;
    let ingest = stage.ingest()?;
    until_empty(&ingest)?;
    ensure!(order_on_kafka(&stage)? == ["one", "two"]);
    Ok(())
}

/// How often it is killed.
#[expect(
    clippy::disallowed_methods,
    reason = "a longer run is asked for by variable, as cargo test passes nothing on"
)]
fn kills() -> usize {
    std::env::var("HOOKWELL_SPOOL_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(5)
}

fn killed_again_and_again_while_it_spools_it_loses_nothing_that_it_acknowledged(
    common: &Common,
) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(with_spool)?;
    own.kafka.kill()?;
    let mut accepted = Events::new();
    for kill in 0..kills() {
        let ingest = stage.ingest()?;
        let (is_over, heard_by_anybody) = (AtomicBool::new(false), AtomicUsize::new(0));
        let send = |sender: usize| {
            let mut heard = Vec::new();
            for n in 0.. {
                let id = format!("{kill}-{sender}-{n}");
                match post(stage.port, &event(&id)) {
                    Ok((200, _)) => {
                        heard.push(id);
                        heard_by_anybody.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) | Err(_) if is_over.load(Ordering::Relaxed) => break,
                    Ok(_) | Err(_) => {}
                }
            }
            heard
        };
        thread::scope(|scope| {
            let send = &send;
            let senders: Vec<_> = (0..4).map(|sender| scope.spawn(move || send(sender))).collect();
            // Each time at another moment, from the first events on.
            wait::until("events to be acknowledged", || {
                Ok((2 <= heard_by_anybody.load(Ordering::Relaxed)).then_some(()))
            })?;
            wait::pause(Duration::from_millis(u64::try_from(kill * 37 % 400).unwrap_or(0)));
            ingest.kill()?;
            is_over.store(true, Ordering::Relaxed);
            for sender in senders {
                let heard = sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))?;
                accepted.extend(heard.into_iter().map(|id| ("acme".to_owned(), id)));
            }
            Ok::<_, anyhow::Error>(())
        })?;
        ensure!(!ingest.logged().contains("cannot be read"), "{}", ingest.logged());
    }
    ensure!(kills() < accepted.len(), "only {} heard 200", accepted.len());
    own.kafka.revive()?;
    let ingest = stage.ingest()?;
    until_empty(&ingest)?;
    let _processor = stage.processor()?;
    let audit = stage.until_all_settled(&accepted)?;
    ensure!(audit.is_clean() && audit.dead == 0 && audit.lost.is_empty(), "{audit}");
    Ok(())
}

fn a_torn_last_write_is_cut_off_and_a_damaged_place_is_told_and_costs_nothing_behind_it(
    common: &Common,
) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(with_spool)?;
    own.kafka.kill()?;
    let ingest = stage.ingest()?;
    spool(&stage, &["one", "two", "three"])?;
    ingest.kill()?;
    let first = segments(&stage)?.pop().context("no segment")?;
    let whole = fs::metadata(&first)?.len();
    OpenOptions::new().append(true).open(&first)?.write_all(&fs::read(&first)?[56..150])?;
    let ingest = stage.ingest()?;
    ensure!(fs::metadata(&first)?.len() == whole, "the torn write is still there");
    ensure!(ingest.logged().contains("cut short"), "{}", ingest.logged());
    ensure!(ingest.metric("hookwell_ingest_spool_faults_total", &["damaged"])? == 0.0);
    spool(&stage, &["four"])?;
    ingest.kill()?;

    let mut bytes = fs::read(&first)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&first, bytes)?;
    let ingest = stage.ingest()?;
    ensure!(ingest.metric("hookwell_ingest_spool_faults_total", &["damaged"])? == 1.0);
    let log = ingest.logged();
    ensure!(log.contains("cannot be read") && log.contains(&*first.to_string_lossy()), "{log}");
    own.kafka.revive()?;
    until_empty(&ingest)?;
    ensure!(order_on_kafka(&stage)? == ["one", "three", "four"], "{:?}", order_on_kafka(&stage)?);
    wait::until("the damaged segment to be the only file", || {
        Ok((segments(&stage)? == [first.with_extension("damaged")]).then_some(()))
    })
}

fn a_full_spool_answers_503_and_takes_events_again_once_it_is_drained(common: &Common) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(|settings| {
        with_spool(settings);
        settings.ingest = format!("max_body_bytes = 30000\n{}\nmax_bytes = 65536", settings.ingest);
    })?;
    own.kafka.kill()?;
    let ingest = stage.ingest()?;
    let large = |n: usize| Sender::GitHub.sign(&format!("id-{n}"), vec![b'x'; 20_000]).to("acme");
    let statuses: Vec<_> = (0..5).map(|n| Ok(post(stage.port, &large(n))?.0)).collect::<Result<_>>()?;
    ensure!(statuses == [200, 200, 200, 503, 503], "{statuses:?}");
    let overloaded = &["outcome=\"overloaded\"", "source=\"acme\""];
    ensure!(ingest.metric("hookwell_ingest_requests_total", overloaded)? == 2.0);
    ensure!(ingest.metric("hookwell_ingest_spool_faults_total", &["full"])? == 2.0);
    ensure!(ingest.logged().matches("the spool is full").count() == 1, "{}", ingest.logged());
    ensure!(!ingest.is_ready()?, "ready for what it cannot take");
    own.kafka.revive()?;
    until_empty(&ingest)?;
    ensure!(post(stage.port, &large(5))?.0 == 200);
    until_empty(&ingest)?;
    ensure!(order_on_kafka(&stage)? == ["id-0", "id-1", "id-2", "id-5"]);
    Ok(())
}

fn what_kafka_will_never_take_is_refused_and_in_the_spool_put_aside(common: &Common) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(with_spool)?;
    let ingest = stage.ingest()?;
    let large = Sender::GitHub.sign("large", vec![b'x'; 20_000]).to("acme");
    stage.reader.limit_records(&stage.topic("events"), 5_000)?;
    ensure!(post(stage.port, &large)?.0 == 503);
    ensure!(ingest.metric("hookwell_ingest_spool_events", &[])? == 0.0, "it would wait for ever");
    own.kafka.kill()?;
    spool(&stage, &["one"])?;
    // Nobody can ask.
    ensure!(post(stage.port, &large)?.0 == 200);
    spool(&stage, &["two"])?;
    own.kafka.revive()?;
    until_empty(&ingest)?;
    ensure!(order_on_kafka(&stage)? == ["one", "two"], "{:?}", order_on_kafka(&stage)?);
    ensure!(ingest.metric("hookwell_ingest_spool_faults_total", &["refused"])? == 1.0);
    ensure!(ingest.stop()?.success());

    let aside = segments(&stage)?.pop().context("no file")?;
    ensure!(aside.extension().is_some_and(|kind| kind == "refused"), "{aside:?}");
    stage.reader.limit_records(&stage.topic("events"), 10_000_000)?;
    fs::rename(&aside, aside.with_extension("spool"))?;
    let ingest = stage.ingest()?;
    until_empty(&ingest)?;
    ensure!(order_on_kafka(&stage)? == ["one", "two", "large"]);
    Ok(())
}

fn a_spool_that_cannot_be_written_says_so_and_answers_503(common: &Common) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(with_spool)?;
    let ingest = stage.ingest()?;
    let folder = stage.folder().join("spool");
    fs::remove_dir_all(&folder)?;
    fs::write(&folder, "a file where a directory was")?;
    // As long as Kafka is there nobody notices.
    spool(&stage, &["before"])?;
    own.kafka.kill()?;
    let answers = [post(stage.port, &event("one"))?, post(stage.port, &event("two"))?];
    ensure!(answers.iter().all(|(status, _)| *status == 503), "{answers:?}");
    ensure!(ingest.logged().matches("the spool cannot be written").count() == 1, "{}", ingest.logged());
    ensure!(ingest.metric("hookwell_ingest_spool_faults_total", &["unwritable"])? >= 2.0);
    fs::remove_file(&folder)?;
    fs::create_dir(&folder)?;
    spool(&stage, &["three"])?;
    ensure!(ingest.logged().contains("takes events again"), "{}", ingest.logged());
    ensure!(ingest.stop()?.success());
    // At the start it is told at once, and before anybody is waited for.
    fs::remove_dir_all(&folder)?;
    fs::write(&folder, "a file where a directory was")?;
    let ingest = stage.start_ingest("")?;
    ensure!(
        ingest.end()?.code() == Some(2) && ingest.logged().contains("ingest.spool.path"),
        "{}",
        ingest.logged()
    );
    Ok(())
}

fn a_spool_whose_disk_is_full_answers_503_and_keeps_what_it_acknowledged(common: &Common) -> Result<()> {
    let (own, stage) = common.stage_on_own_kafka(with_spool)?;
    own.kafka.kill()?;
    let ingest = stage.ingest_on_a_small_disk()?;
    ingest.limit_files(Some(1_000_000))?;
    let large = |n: usize| Sender::GitHub.sign(&format!("id-{n}"), vec![b'x'; 100_000]).to("acme");
    let (mut accepted, refused) = fill_the_disk(&stage, large)?;
    ensure!((5..12).contains(&accepted.len()), "{} were accepted", accepted.len());
    ensure!(ingest.metric("hookwell_ingest_spool_faults_total", &["unwritable"])? >= 1.0);
    ensure!(ingest.logged().contains("the spool cannot be written"), "{}", ingest.logged());
    ingest.limit_files(None)?;
    post_until_accepted(stage.port, &refused)?;
    accepted.insert((refused.source, refused.id));
    // What it holds is all that its heir finds.
    ingest.kill()?;
    own.kafka.revive()?;
    let heir = stage.ingest()?;
    until_empty(&heir)?;
    ensure!(!heir.logged().contains("cannot be read"), "{}", heir.logged());
    let _processor = stage.processor()?;
    let audit = stage.until_all_settled(&accepted)?;
    ensure!(audit.is_clean() && audit.dead == 0 && audit.events == accepted.len(), "{audit}");
    Ok(())
}

fn two_processes_never_share_a_spool(common: &Common) -> Result<()> {
    let stage = common.stage_with(with_spool)?;
    let _first = stage.ingest()?;
    let second = stage.start_ingest("")?;
    ensure!(second.end()?.code() == Some(2), "{}", second.logged());
    ensure!(second.logged().contains("in use by another process"), "{}", second.logged());
    Ok(())
}
