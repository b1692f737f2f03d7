//! Secrets are rotated while senders send, and none of them hears anything but 200; what is broken is
//! refused, and what was read before goes on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use hookwell_tests::program::Program;
use hookwell_tests::sender::{Sender, Signed, post};
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;
use rustix::process::Signal;

use crate::{Common, tests};

tests![
    a_secret_is_rotated_by_two_orders_to_reload_and_no_request_fails,
    a_secret_whose_file_is_written_in_place_is_rotated_and_no_request_fails,
    a_secret_whose_file_is_replaced_is_rotated_and_no_request_fails,
    a_secret_that_kubernetes_swaps_is_rotated_and_no_request_fails,
    a_secret_that_is_no_good_is_refused_and_the_last_one_still_counts,
    a_broken_configuration_is_refused_and_secrets_are_rotated_all_the_same,
];

const RELOADS: &str = "hookwell_ingest_config_reloads_total";
const SUCCESSFUL: &str = "hookwell_ingest_config_last_reload_successful";
const SUCCESS_TIME: &str = "hookwell_ingest_config_last_reload_success_timestamp_seconds";

/// A stage on which nobody hears 503 because Kafka is slow.
fn patient_stage(common: &Common) -> Result<Stage> {
    common.stage_with(|settings| settings.ingest = "publish_timeout = \"25s\"".to_owned())
}

/// A source `turns` that signs as GitHub does, with these secrets.
fn turns(secrets: &str) -> String {
    format!("[[sources]]\nname = \"turns\"\npreset = \"github\"\nsecrets = [{secrets}]\n")
}

/// One of its secrets.
fn secret_in(file: &Path, id: &str) -> String {
    format!("{{ file = {file:?}, id = \"{id}\" }}")
}

fn signed(secret: &str, id: &str) -> Signed {
    Sender::GitHub.sign_as(secret, 0, id, "{}").to("turns")
}

/// Senders that send without a pause.
struct Load<'s> {
    stage: &'s Stage,
    /// What they sign with; held by each request that is under way.
    secret: RwLock<String>,
    sent: AtomicUsize,
    is_over: AtomicBool,
}

impl Load<'_> {
    fn send(&self) -> Result<()> {
        while !self.is_over.load(Ordering::Relaxed) {
            let secret = self.secret.read().unwrap_or_else(PoisonError::into_inner);
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            let (status, text) = post(self.stage.port, &signed(&secret, &format!("id-{number}")))?;
            ensure!(status == 200, "request {number}, signed with {secret:?}: {status} {text}");
        }
        Ok(())
    }

    /// From here on nothing is signed otherwise, and nothing that was is under way.
    fn sign_with(&self, secret: &str) {
        let mut signing = self.secret.write().unwrap_or_else(PoisonError::into_inner);
        secret.clone_into(&mut signing);
    }

    fn until_more_is_sent(&self) -> Result<()> {
        let before = self.sent.load(Ordering::Relaxed);
        wait::until("more requests", || Ok((before + 50 < self.sent.load(Ordering::Relaxed)).then_some(())))
    }
}

/// Has three senders send while `rotate` does so, signing with `secret` to begin with. Gives how many
/// requests they sent, all of which were accepted.
fn under_load(stage: &Stage, secret: &str, rotate: impl FnOnce(&Load<'_>) -> Result<()>) -> Result<usize> {
    let secret = RwLock::new(secret.to_owned());
    let load = Load { stage, secret, sent: AtomicUsize::new(0), is_over: AtomicBool::new(false) };
    thread::scope(|scope| {
        let senders = [(); 3].map(|()| scope.spawn(|| load.send()));
        let rotated = rotate(&load);
        load.is_over.store(true, Ordering::Relaxed);
        senders.into_iter().try_for_each(|sender| sender.join().map_err(|_| anyhow!("a panic"))?)?;
        rotated
    })?;
    Ok(load.sent.into_inner())
}

/// The value of a series about one secret.
fn of_secret(ingest: &Program, series: &str, id: &str) -> Result<f64> {
    ingest.metric(
        &format!("hookwell_ingest_secret_{series}"),
        &["source=\"turns\"", &format!("secret=\"{id}\"")],
    )
}

fn reloads(ingest: &Program, outcome: &str) -> Result<f64> {
    ingest.metric(RELOADS, &[&format!("outcome=\"{outcome}\"")])
}

fn until_reloads(ingest: &Program, outcome: &str, count: f64) -> Result<()> {
    wait::until("a reload", || Ok((reloads(ingest, outcome)? == count).then_some(())))
}

fn a_secret_is_rotated_by_two_orders_to_reload_and_no_request_fails(common: &Common) -> Result<()> {
    let stage = patient_stage(common)?;
    let secrets = ["old", "new"].map(|name| {
        let file = stage.folder().join(name);
        fs::write(&file, name).map(|()| secret_in(&file, name))
    });
    let [old, new] = secrets;
    let (old, new) = (old?, new?);
    let configure = |secrets: String| stage.rewrite(|settings| settings.sources = turns(&secrets));
    configure(old.clone())?;
    let ingest = stage.ingest()?;
    ensure!(of_secret(&ingest, "last_match_timestamp_seconds", "old")? == 0.0);
    let began = ingest.metric(SUCCESS_TIME, &[])?;
    ensure!(ingest.metric(SUCCESSFUL, &[])? == 1.0 && began > 1.7e9, "{began}");

    let sent = under_load(&stage, "old", |load| {
        load.until_more_is_sent()?;
        configure(format!("{new}, {old}"))?;
        ingest.signal(Signal::HUP)?;
        until_reloads(&ingest, "succeeded", 1.0)?;
        load.sign_with("new");
        load.until_more_is_sent()?;
        configure(new.clone())?;
        ingest.signal(Signal::HUP)?;
        until_reloads(&ingest, "succeeded", 2.0)?;
        load.until_more_is_sent()
    })?;
    let [old, new] = ["old", "new"].map(|id| of_secret(&ingest, "matches_total", id));
    let (old, new) = (old?, new?);
    ensure!(old > 0.0 && new > 0.0 && old + new == sent as f64, "{old} + {new} of {sent}");
    let [old, new] = ["old", "new"].map(|id| of_secret(&ingest, "last_match_timestamp_seconds", id));
    let (old, new) = (old?, new?);
    ensure!(began <= old && old <= new, "{began}, {old}, {new}");
    ensure!(ingest.metric(SUCCESS_TIME, &[])? > began);
    ensure!(post(stage.port, &signed("old", "late"))?.0 == 403, "the old secret still counts");
    ensure!(stage.reader.read(&stage.topic("events"))?.len() == sent);
    Ok(())
}

/// Puts the current and the previous secret into a folder.
type Put = fn(&Path, [(&str, &str); 2]) -> Result<()>;

fn rotates(common: &Common, put: Put) -> Result<()> {
    let stage = patient_stage(common)?;
    let folder = stage.folder().join("secrets");
    fs::create_dir(&folder)?;
    let rotate = |current, previous| put(&folder, [("previous", previous), ("current", current)]);
    rotate("first", "none")?;
    let secrets = ["current", "previous"].map(|name| secret_in(&folder.join(name), name));
    stage.rewrite(|settings| settings.sources = turns(&secrets.join(", ")))?;
    let ingest = stage.ingest()?;
    let until_known = |secret: &str| {
        wait::until("the new secret to be known", || {
            Ok((post(stage.port, &signed(secret, "is it known?"))?.0 == 200).then_some(()))
        })
    };
    let sent = under_load(&stage, "first", |load| {
        for (current, previous) in [("second", "first"), ("third", "second")] {
            load.until_more_is_sent()?;
            rotate(current, previous)?;
            until_known(current)?;
            load.until_more_is_sent()?;
            load.sign_with(current);
        }
        load.until_more_is_sent()
    })?;
    let accepted =
        ingest.metric("hookwell_ingest_requests_total", &["source=\"turns\"", "outcome=\"accepted\""])?;
    ensure!(accepted == (sent + 2) as f64, "{accepted} of {sent}");
    ensure!(reloads(&ingest, "succeeded")? >= 2.0 && ingest.metric(SUCCESSFUL, &[])? == 1.0);
    ensure!(of_secret(&ingest, "matches_total", "previous")? > 0.0);
    ensure!(post(stage.port, &signed("first", "late"))?.0 == 403, "the first secret still counts");
    let log = ingest.logged();
    let told = log.lines().find(|line| line.contains("secrets changed in their files"));
    ensure!(told.is_some_and(|line| line.contains("secrets/current")), "{log}");
    Ok(())
}

fn a_secret_whose_file_is_written_in_place_is_rotated_and_no_request_fails(common: &Common) -> Result<()> {
    rotates(common, |folder, secrets| {
        secrets.iter().try_for_each(|(name, secret)| Ok(fs::write(folder.join(name), secret)?))
    })
}

fn a_secret_whose_file_is_replaced_is_rotated_and_no_request_fails(common: &Common) -> Result<()> {
    rotates(common, |folder, secrets| {
        secrets.iter().try_for_each(|(name, secret)| {
            fs::write(folder.join("beside"), secret)?;
            Ok(fs::rename(folder.join("beside"), folder.join(name))?)
        })
    })
}

/// As its kubelet does: files are links into `..data`, which is a link to a directory that is made
/// anew and is there for all of them at once.
fn a_secret_that_kubernetes_swaps_is_rotated_and_no_request_fails(common: &Common) -> Result<()> {
    rotates(common, |folder, secrets| {
        let data = folder.join("..data");
        let last = fs::read_link(&data).ok();
        let version = format!("..{}", secrets[1].1);
        fs::create_dir(folder.join(&version))?;
        for (name, secret) in secrets {
            fs::write(folder.join(&version).join(name), secret)?;
        }
        symlink(&version, folder.join("..data_tmp"))?;
        fs::rename(folder.join("..data_tmp"), &data)?;
        match last {
            Some(last) => fs::remove_dir_all(folder.join(last))?,
            None => {
                for (name, _) in secrets {
                    symlink(Path::new("..data").join(name), folder.join(name))?;
                }
            }
        }
        Ok(())
    })
}

fn a_secret_that_is_no_good_is_refused_and_the_last_one_still_counts(common: &Common) -> Result<()> {
    let stage = patient_stage(common)?;
    let file = stage.folder().join("turns");
    fs::write(&file, "old")?;
    stage.rewrite(|settings| settings.sources = turns(&secret_in(&file, "only")))?;
    let ingest = stage.ingest()?;
    let is_old_accepted = || Ok::<_, anyhow::Error>(post(stage.port, &signed("old", "one"))?.0 == 200);
    let key = format!("sources[{}].secrets[0]", Sender::ALL.len());

    fs::write(&file, "")?;
    until_reloads(&ingest, "refused", 1.0)?;
    ensure!(ingest.metric(SUCCESSFUL, &[])? == 0.0 && is_old_accepted()?);
    fs::remove_file(&file)?;
    until_reloads(&ingest, "refused", 2.0)?;
    ensure!(ingest.metric(SUCCESSFUL, &[])? == 0.0 && is_old_accepted()?);
    let log = ingest.logged();
    let told: Vec<_> = log.lines().filter(|line| line.contains(&key)).collect();
    ensure!(told.len() == 2, "{log}");
    ensure!(told[0].contains("is empty; an empty secret protects nothing"), "{log}");
    ensure!(told[1].contains("cannot be read"), "{log}");
    ensure!(log.matches("what was read before still counts").count() == 2, "{log}");

    fs::write(&file, "new")?;
    until_reloads(&ingest, "succeeded", 1.0)?;
    ensure!(ingest.metric(SUCCESSFUL, &[])? == 1.0 && !is_old_accepted()?);
    ensure!(post(stage.port, &signed("new", "two"))?.0 == 200);
    Ok(())
}

fn a_broken_configuration_is_refused_and_secrets_are_rotated_all_the_same(common: &Common) -> Result<()> {
    let stage = patient_stage(common)?;
    let file = stage.folder().join("turns");
    fs::write(&file, "old")?;
    let source = turns(&secret_in(&file, "only"));
    stage.rewrite(|settings| settings.sources = source.clone())?;
    let ingest = stage.ingest()?;

    let early = "[[sources]]\nname = \"early\"\nunsigned = true\n";
    stage.rewrite(|settings| {
        settings.sources = source.clone() + early;
        settings.ingest += "\nmax_body_bites = 1";
    })?;
    ingest.signal(Signal::HUP)?;
    until_reloads(&ingest, "refused", 1.0)?;
    ensure!(ingest.metric(SUCCESSFUL, &[])? == 0.0);
    ensure!(ingest.logged().contains("max_body_bites"), "{}", ingest.logged());
    ensure!(post(stage.port, &signed("old", "one"))?.0 == 200);

    fs::write(&file, "new")?;
    until_reloads(&ingest, "succeeded", 1.0)?;
    ensure!(post(stage.port, &signed("new", "two"))?.0 == 200);
    ensure!(ingest.metric(SUCCESSFUL, &[])? == 0.0, "the order is still to be followed");
    let to_early = || Ok::<_, anyhow::Error>(post(stage.port, &signed("", "three").to("early"))?.0);
    ensure!(to_early()? == 404, "what nobody ordered has taken effect");

    stage.rewrite(|settings| settings.sources = source.clone() + early)?;
    ingest.signal(Signal::HUP)?;
    until_reloads(&ingest, "succeeded", 2.0)?;
    ensure!(ingest.metric(SUCCESSFUL, &[])? == 1.0 && to_early()? == 200);
    ensure!(ingest.logged().contains("anybody who knows the URL may send"), "{}", ingest.logged());
    Ok(())
}
