//! Members that come, go, die, freeze and are replaced while events keep coming: partitions are
//! shared evenly each time, nothing is lost and nothing is settled twice.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookwell_auditor::evidence::Route;
use hookwell_tests::audit::{self, Audit, States, Status};
use hookwell_tests::handler::{Call, Reply};
use hookwell_tests::load::{Load, Plan};
use hookwell_tests::program::Program;
use hookwell_tests::sender::{Sender, mac, now_in_seconds, post};
use hookwell_tests::stage::{Settings, Stage, destination};
use hookwell_tests::wait;
use rustix::process::Signal;

use crate::{Common, tests};

tests![
    twelve_partitions_are_shared_evenly_by_one_two_four_and_twelve_members,
    one_member_becomes_three_and_one_again_under_load,
    a_member_that_is_added_takes_its_share_under_load,
    a_member_that_is_told_to_stop_leaves_its_share_to_the_others_under_load,
    a_member_that_is_killed_leaves_its_share_to_the_others_under_load,
    a_member_that_freezes_beyond_its_session_and_thaws_takes_its_share_again,
    all_members_are_restarted_one_by_one_under_load,
    members_are_replaced_one_by_one_by_a_configuration_with_fewer_tiers,
    members_are_replaced_one_by_one_by_a_configuration_with_more_tiers,
];

const PARTITIONS: u32 = 12;

/// What the load keeps sending, until it is told to stop.
const STEADY: Plan = Plan { events: usize::MAX, connections: 1, pause: Duration::from_millis(15) };

/// Events that come between two changes of the group.
const BETWEEN: usize = 60;

/// A stage with ingest and load on it. Members that a test starts end before it does.
struct Scene {
    load: Load,
    ingest: Program,
    stage: Stage,
}

impl Scene {
    fn set(common: &Common) -> Result<Self> {
        let stage = common.stage_with(|settings| settings.partitions = PARTITIONS)?;
        stage.handler.answer(fails_at_first_now_and_then);
        Self::on(stage)
    }

    fn on(stage: Stage) -> Result<Self> {
        let ingest = stage.ingest()?;
        let load = Load::start(stage.port, STEADY)?;
        load.go();
        Ok(Self { load, ingest, stage })
    }

    /// Members that share the partitions evenly.
    fn members(&self, count: usize) -> Result<Vec<Program>> {
        let mut members = Vec::new();
        self.grow(&mut members, count)?;
        Ok(members)
    }

    fn grow(&self, members: &mut Vec<Program>, count: usize) -> Result<()> {
        while members.len() < count {
            members.push(self.stage.start_processor("")?);
        }
        self.settle_down(members)
    }

    /// Waits until `members` share all partitions evenly, and until more has come on that footing.
    fn settle_down(&self, members: &[Program]) -> Result<()> {
        until_shared(members)?;
        self.load.until_sent(BETWEEN)
    }

    /// Ends the load, and judges: each event that heard a 200 is done, once.
    fn judge(self, members: &[Program]) -> Result<()> {
        let accepted = self.load.stop()?;
        let audit = self.stage.until_all_settled(&accepted)?;
        ensure!(audit.is_clean() && audit.done == accepted.len(), "{audit}");
        self.stage.until_caught_up()?;
        ends_well(members.iter().chain([&self.ingest]))
    }
}

fn ends_well<'p>(programs: impl Iterator<Item = &'p Program> + Clone) -> Result<()> {
    programs.clone().try_for_each(|program| program.signal(Signal::TERM))?;
    for program in programs {
        ensure!(program.end()?.success(), "a program did not end well: {}", program.logged());
    }
    Ok(())
}

/// Calls take a moment, so that some are always under way, and some events need two.
fn fails_at_first_now_and_then(call: &Call) -> Reply {
    let fails = call.attempt() == "0" && call.event().ends_with('7');
    Reply { after: Duration::from_millis(5), ..Reply::from(if fails { 500 } else { 200 }) }
}

/// Waits until all partitions belong to somebody, and nobody has two more than another.
fn until_shared(members: &[Program]) -> Result<()> {
    wait::until("partitions to be shared evenly", || {
        let owned = members.iter().map(owned).collect::<Result<Vec<_>>>()?;
        let (least, most) = (owned.iter().min().unwrap_or(&0), owned.iter().max().unwrap_or(&0));
        Ok((owned.iter().sum::<u32>() == PARTITIONS && most - least <= 1).then_some(()))
    })
}

fn owned(member: &Program) -> Result<u32> {
    Ok(member.metric("hookwell_processor_assigned_partitions", &[])? as u32)
}

fn twelve_partitions_are_shared_evenly_by_one_two_four_and_twelve_members(common: &Common) -> Result<()> {
    let scene = Scene::set(common)?;
    let mut members = Vec::new();
    for count in [1, 2, 4, 12] {
        scene.grow(&mut members, count)?;
    }
    scene.judge(&members)
}

fn one_member_becomes_three_and_one_again_under_load(common: &Common) -> Result<()> {
    let scene = Scene::set(common)?;
    let mut members = scene.members(1)?;
    scene.grow(&mut members, 3)?;
    while members.len() > 1 {
        stops_in_order(&members.remove(0))?;
        scene.settle_down(&members)?;
    }
    scene.judge(&members)
}

fn a_member_that_is_added_takes_its_share_under_load(common: &Common) -> Result<()> {
    let scene = Scene::set(common)?;
    let mut members = scene.members(2)?;
    scene.grow(&mut members, 3)?;
    ensure!(owned(&members[2])? == 4);
    scene.judge(&members)
}

fn a_member_that_is_told_to_stop_leaves_its_share_to_the_others_under_load(common: &Common) -> Result<()> {
    let scene = Scene::set(common)?;
    let mut members = scene.members(3)?;
    stops_in_order(&members.remove(0))?;
    scene.settle_down(&members)?;
    scene.judge(&members)
}

fn a_member_that_is_killed_leaves_its_share_to_the_others_under_load(common: &Common) -> Result<()> {
    let scene = Scene::set(common)?;
    let mut members = scene.members(3)?;
    members.remove(0).kill()?;
    scene.settle_down(&members)?;
    scene.judge(&members)
}

fn a_member_that_freezes_beyond_its_session_and_thaws_takes_its_share_again(common: &Common) -> Result<()> {
    let scene = Scene::set(common)?;
    let mut members = scene.members(3)?;
    let frozen = members.remove(0);
    frozen.signal(Signal::STOP)?;
    scene.settle_down(&members)?;
    frozen.signal(Signal::CONT)?;
    members.push(frozen);
    scene.settle_down(&members)?;
    scene.judge(&members)
}

fn all_members_are_restarted_one_by_one_under_load(common: &Common) -> Result<()> {
    let scene = Scene::set(common)?;
    let mut members = scene.members(3)?;
    replace_all(&scene, &mut members)?;
    scene.judge(&members)
}

/// Stops each member and starts another in its place, with the configuration as it is by now.
fn replace_all(scene: &Scene, members: &mut [Program]) -> Result<()> {
    for at in 0..members.len() {
        stops_in_order(&members[at])?;
        members[at] = scene.stage.processor()?;
        scene.settle_down(members)?;
    }
    Ok(())
}

/// One that leaves the group, so that nobody has to wait for the end of its session.
fn stops_in_order(member: &Program) -> Result<()> {
    ensure!(member.stop()?.success(), "it did not end well: {}", member.logged());
    ensure!(member.logged().contains("left=true"), "it did not leave the group: {}", member.logged());
    Ok(())
}

const BEFORE: &str = "tiers = [\"200ms\", \"500ms\", \"3s\"]\nmax_attempts = 1000\njitter = 0.0";

fn members_are_replaced_one_by_one_by_a_configuration_with_fewer_tiers(common: &Common) -> Result<()> {
    rolling_deploy(common, "tiers = [\"200ms\"]\nmax_attempts = 1000\njitter = 0.0")
}

fn members_are_replaced_one_by_one_by_a_configuration_with_more_tiers(common: &Common) -> Result<()> {
    rolling_deploy(
        common,
        "tiers = [\"100ms\", \"200ms\", \"500ms\", \"600ms\", \"700ms\"]\nmax_attempts = 1000\njitter = 0.0",
    )
}

/// Three members and ingest are replaced one by one while events come: by a configuration with other
/// tiers, with `billing` for a destination instead of `legacy`, and with other secrets.
fn rolling_deploy(common: &Common, tiers: &str) -> Result<()> {
    let stage = common.bare_stage(|settings| {
        settings.partitions = PARTITIONS;
        settings.retry = BEFORE.to_owned();
        deploy(settings, "legacy", "before");
    })?;
    for name in ["before", "after"] {
        fs::write(stage.folder().join(name), secret(name))?;
    }
    create_topics(&stage)?;
    stage.handler.answer(fails_up_to_the_third_tier);
    let scene = Scene::on(stage)?;
    let stage = &scene.stage;
    let mut members = scene.members(3)?;
    ensure!(post_rotating(stage, "before", "one")? == 200);
    until_parked_in_the_third_tier(stage)?;

    stage.rewrite(|settings| {
        settings.retry = tiers.to_owned();
        deploy(settings, "billing", "after");
    })?;
    create_topics(stage)?;
    replace_all(&scene, &mut members)?;
    ensure!(scene.ingest.stop()?.success());
    let ingest = stage.ingest()?;
    ensure!(post_rotating(stage, "before", "two")? == 403);
    ensure!(post_rotating(stage, "after", "two")? == 200);
    scene.load.until_sent(BETWEEN)?;

    let mut accepted = scene.load.stop()?;
    accepted.extend(["one", "two"].map(|id| ("rotating".to_owned(), id.to_owned())));
    judge_deploy(stage, &accepted)?;
    ends_well(members.iter().chain([&ingest]))
}

fn create_topics(stage: &Stage) -> Result<()> {
    let created = stage.processor_answers(&["--create-topics"])?;
    ensure!(created.status == Some(0), "{created:?}");
    Ok(())
}

/// Destinations `orders` and `other`, calls of which are signed with the secret `name`, as are the
/// requests of the source `rotating`.
fn deploy(settings: &mut Settings, other: &str, name: &str) {
    let signed = format!("signing_secret = {{ file = \"FOLDER/{name}\" }}");
    settings.destinations = destination("orders", &signed) + &destination(other, &signed);
    settings.routes = format!("[[routes]]\nsource = \"*\"\nto = [\"orders\", \"{other}\"]");
    settings.sources = format!(
        "[[sources]]\nname = \"rotating\"\npreset = \"github\"\nsecrets = [{{ file = \"FOLDER/{name}\" }}]"
    );
}

fn secret(name: &str) -> String {
    format!("the secret of {name}")
}

fn post_rotating(stage: &Stage, name: &str, id: &str) -> Result<u16> {
    let signed = Sender::GitHub.sign_as(&secret(name), now_in_seconds(), id, "{}").to("rotating");
    Ok(post(stage.port, &signed)?.0)
}

/// What `orders` cannot take at first comes to the third tier, and what `legacy` cannot stays there.
fn fails_up_to_the_third_tier(call: &Call) -> Reply {
    let is_hard = call.event().ends_with('7');
    let fails = match (call.path.as_str(), call.attempt()) {
        ("/legacy", _) | ("/orders", "0" | "1" | "2") | ("/billing", "0") => is_hard,
        _ => false,
    };
    Reply { after: Duration::from_millis(5), ..Reply::from(if fails { 500 } else { 200 }) }
}

fn until_parked_in_the_third_tier(stage: &Stage) -> Result<()> {
    let topic = stage.topic("retry.3");
    wait::until("retries of both destinations in the third tier", || {
        let parked: BTreeSet<_> =
            stage.reader.read(&topic)?.iter().map(|record| record.header("hookwell-destination")).collect();
        Ok((parked.len() == 2).then_some(()))
    })
}

fn judge_deploy(stage: &Stage, accepted: &BTreeSet<(String, String)>) -> Result<()> {
    let states = wait::until("all deliveries to end", || {
        let states = States::read(&stage.reader, &stage.prefix)?;
        let ended = accepted.iter().all(|(source, id)| {
            let status = |destination| states.status(source, id, destination);
            let others = [status("legacy"), status("billing")];
            status("orders") == Some(Status::Done)
                && others != [None, None]
                && !others.iter().any(|status| matches!(status, Some(Status::Retrying(_))))
        });
        Ok(ended.then_some(states))
    })?;
    let mut run = audit::run(&stage.reader, &stage.prefix, &stage.prefix, &["orders"]);
    let to = ["legacy", "billing"].map(Into::into).into();
    run.routes.push(Route { source: "*".into(), to, sometimes: true });
    let audit = Audit::of(run, accepted)?;
    ensure!(audit.is_clean(), "{audit}");
    for (source, id) in accepted {
        for destination in ["legacy", "billing"] {
            let is_dead = states.status(source, id, destination) == Some(Status::Dead);
            ensure!(!is_dead || destination == "legacy", "{source} {id} died at {destination}");
        }
    }
    let letters = stage.dead_letters()?;
    ensure!(!letters.is_empty(), "nothing was parked for the destination that is gone");
    for letter in letters {
        let (class, to) = (letter.header("hookwell-error-class"), letter.header("hookwell-destination"));
        ensure!(class == "destination_removed" && to == "legacy", "{letter:?}");
    }
    is_signed_by_whoever_called(stage)
}

/// The old configuration knows the old secret and `legacy`, the new one the new secret and `billing`.
fn is_signed_by_whoever_called(stage: &Stage) -> Result<()> {
    let mut orders = BTreeSet::new();
    for call in stage.handler.calls() {
        let signer = ["before", "after"].into_iter().find(|name| is_signed_with(&secret(name), &call));
        match (call.path.as_str(), signer) {
            ("/orders", Some(name)) => drop(orders.insert(name)),
            ("/legacy", Some("before")) | ("/billing", Some("after")) => {}
            (_, signer) => anyhow::bail!("{call:?} was signed by {signer:?}"),
        }
    }
    ensure!(orders.len() == 2, "only {orders:?} called");
    Ok(())
}

fn is_signed_with(secret: &str, call: &Call) -> bool {
    let time = call.header("webhook-timestamp");
    let parts = [call.key().as_bytes(), b".", time.as_bytes(), b".", &call.body];
    call.header("webhook-signature") == format!("v1,{}", STANDARD.encode(mac(secret, &parts)))
}
