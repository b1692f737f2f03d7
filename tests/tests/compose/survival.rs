//! The stack under load, while its containers die one after the other.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use hookwell_common::lifecycle::Clock;
use hookwell_tests::audit::{self, Audit};
use hookwell_tests::docker::{Engine, Stack};
use hookwell_tests::program::get;
use hookwell_tests::reader::Reader;
use hookwell_tests::sender::{SECRET, Signed, mac, now_in_seconds, post_until_accepted};
use hookwell_tests::wait;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{ports, say};

/// What `deploy/compose/hookwell.toml` calls them.
const PREFIX: &str = "webhooks";
const GROUP: &str = "hookwell";
const DESTINATION: &str = "log";

/// How many webhooks are sent while one thing happens.
const WAVE: usize = 150;

const PROCESSORS: usize = 4;

pub(crate) fn nothing_is_lost_or_settled_twice_while_containers_of_each_kind_are_killed(
    engine: &Arc<Engine>,
) -> Result<()> {
    let scene = Scene::new(engine)?;
    let clock = Clock::start();
    scene.up()?;
    post_until_accepted(scene.port, &acme("first"))?;
    let until_first = clock.mono();
    let mut accepted = BTreeSet::from([("acme".to_owned(), "first".to_owned())]);
    accepted.extend(scene.wave("scaled", || scene.until_scraped())?);
    for service in ["processor", "ingest", "prometheus"] {
        accepted.extend(scene.wave(&format!("while-{service}-is-killed"), || scene.kill(service))?);
    }
    // A Kafka of one node that dies inside a commit may leave a partition hanging for its
    // transaction's time-out (docs/adr/0016), so it dies while nothing is open, and nothing is
    // sent before it is dead.
    scene.until_settled(&accepted)?;
    let kafka = scene.strike("kafka")?;
    accepted.extend(scene.wave("while-kafka-is-away", || scene.until_back("kafka", &kafka))?);
    scene.until_settled(&accepted)?;
    scene.stop_in_order()?;
    scene.stack.compose(&["down"])?;
    scene.up()?;
    // Copies of what was settled before the stack was taken down.
    let (copies, sent) = scene.send("scaled", 0..WAVE / 3)?;
    ensure!(copies.is_subset(&accepted), "these are no copies");
    accepted.extend(scene.wave("after-all", || scene.until_scraped())?);
    let audit = scene.until_settled(&accepted)?;
    ensure!(audit.is_clean() && audit.events == accepted.len() && audit.dead == 0, "{audit}");
    say(&format!(
        "first 200 after {:.1} s; {} webhooks accepted, {sent} of them sent again; {audit}",
        until_first.as_secs_f64(),
        accepted.len()
    ));
    Ok(())
}

/// A stack as users have it, but for its ports and its secret.
struct Scene {
    stack: Stack,
    port: u16,
    prometheus: u16,
    reader: Reader,
    _secrets: TempDir,
}

/// A container whose process was killed, and when that process had been started.
struct Struck {
    container: String,
    started: String,
}

type Accepted = BTreeSet<(String, String)>;

impl Scene {
    fn new(engine: &Arc<Engine>) -> Result<Self> {
        let secrets = tempfile::tempdir()?;
        fs::write(secrets.path().join("acme"), SECRET)?;
        // The programs run as a user of their own, who must be let in.
        fs::set_permissions(secrets.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let mut variables = ports()?;
        let port = |name: &str| -> Result<u16> {
            let found = variables.iter().find(|(known, _)| *known == name);
            Ok(found.context("a port of the stack")?.1.parse()?)
        };
        let kafka = port("HOOKWELL_KAFKA_PORT")?;
        let (port, prometheus) = (port("HOOKWELL_PORT")?, port("HOOKWELL_PROMETHEUS_PORT")?);
        variables.push(("HOOKWELL_SECRETS", secrets.path().display().to_string()));
        let stack = Stack::new(engine, "hookwell-test", &variables);
        stack.compose(&["build"])?;
        let reader = Reader::new(&format!("127.0.0.1:{kafka}"));
        Ok(Self { stack, port, prometheus, reader, _secrets: secrets })
    }

    fn up(&self) -> Result<()> {
        let scale = format!("processor={PROCESSORS}");
        self.stack.compose(&["up", "--detach", "--scale", &scale]).map(drop)
    }

    /// Sends webhooks while `meanwhile` happens, and gives those that were accepted: all of them,
    /// for they are sent until they are.
    fn wave(&self, name: &str, meanwhile: impl FnOnce() -> Result<()>) -> Result<Accepted> {
        thread::scope(|scope| {
            let sender = scope.spawn(|| self.send(name, 0..WAVE));
            meanwhile().with_context(|| name.to_owned())?;
            let (accepted, _) = sender.join().map_err(|_| anyhow!("the sender of {name} died"))??;
            Ok(accepted)
        })
    }

    fn send(&self, name: &str, numbers: std::ops::Range<usize>) -> Result<(Accepted, usize)> {
        let count = numbers.len();
        let send = |number: usize| {
            let signed = acme(&format!("{name}-{number}"));
            post_until_accepted(self.port, &signed)?;
            Ok((signed.source, signed.id))
        };
        Ok((numbers.map(send).collect::<Result<Accepted>>()?, count))
    }

    /// Kills the process of one container of `service`, and waits until it is back and healthy.
    fn kill(&self, service: &str) -> Result<()> {
        let struck = self.strike(service)?;
        self.until_back(service, &struck)
    }

    /// Kills the process of one container of `service`, and waits until it is dead.
    fn strike(&self, service: &str) -> Result<Struck> {
        let container = self.stack.containers(service)?.into_iter().next().context("it has no container")?;
        let id = self.stack.inspect(&container, "{{.State.Pid}}")?;
        let started = self.stack.inspect(&container, "{{.State.StartedAt}}")?;
        // A number of an engine elsewhere, as in a virtual machine, is not a process of ours.
        let groups = fs::read_to_string(format!("/proc/{id}/cgroup")).unwrap_or_default();
        if groups.contains(&container) {
            let id = Pid::from_raw(id.parse()?).context("it does not run")?;
            kill_process(id, Signal::KILL)?;
        } else {
            self.stack.compose(&["kill", service])?;
            self.up()?;
        }
        wait::until(&format!("{service} to be dead"), || {
            let state = self.stack.inspect(&container, "{{.State.StartedAt}} {{.State.Running}}")?;
            Ok((state.ends_with(" false") || !state.starts_with(&started)).then_some(()))
        })?;
        Ok(Struck { container, started })
    }

    fn until_back(&self, service: &str, struck: &Struck) -> Result<()> {
        wait::until(&format!("{service} to be back"), || {
            let format = "{{.State.StartedAt}} {{.State.Health.Status}}";
            let state = self.stack.inspect(&struck.container, format)?;
            Ok((state.ends_with(" healthy") && !state.starts_with(&struck.started)).then_some(()))
        })
    }

    /// Waits until Prometheus has every replica of both programs, and has scraped each.
    fn until_scraped(&self) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/api/v1/targets?state=active", self.prometheus);
        for (job, port, replicas) in [("ingest", 9101, 1), ("processor", 9102, PROCESSORS)] {
            let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
            let containers = self.stack.containers(job)?;
            let expected =
                containers.iter().map(|id| Ok(format!("{}:{port}", self.stack.inspect(id, address)?)));
            let expected = expected.collect::<Result<BTreeSet<_>>>()?;
            ensure!(expected.len() == replicas, "{job} has {expected:?}");
            wait::until(&format!("Prometheus to scrape {expected:?}"), || {
                let answer: Value = serde_json::from_str(&get(&url)?.1)?;
                let targets = answer["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
                let is_up = |target: &&Value| target["labels"]["job"] == job && target["health"] == "up";
                let instance = |target: &Value| target["labels"]["instance"].as_str().map(str::to_owned);
                let found: BTreeSet<_> = targets.iter().filter(is_up).filter_map(instance).collect();
                Ok((found == expected).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Waits until all of `accepted` is settled and the group has nothing open.
    fn until_settled(&self, accepted: &Accepted) -> Result<Audit> {
        let judge = || Audit::of(audit::run(&self.reader, PREFIX, GROUP, &[DESTINATION]), accepted);
        wait::until_within(Duration::from_secs(240), "all events to be settled", || {
            let audit = judge()?;
            ensure!(audit.is_settled(), "{audit}");
            Ok(Some(()))
        })
        .with_context(|| self.warnings())?;
        let topic = format!("{PREFIX}.events");
        wait::until("the group to reach the end", || {
            let committed = self.reader.committed(GROUP, &topic)?;
            let ends = self.reader.ends(&topic)?;
            let is_reached =
                |(partition, (_, end)): (&i32, &(i64, i64))| committed.get(partition).unwrap_or(&0) == end;
            Ok(ends.iter().all(is_reached).then_some(()))
        })?;
        // Topics are read one after the other: only what no longer moves can be judged.
        judge()
    }

    /// What the processors said that is not everyday.
    fn warnings(&self) -> String {
        let told = self.stack.compose(&["logs", "--no-color", "processor"]).unwrap_or_default();
        let unusual = told.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
        let last: Vec<_> = unusual.rev().take(12).collect();
        format!("the processors' last warnings: {last:#?}")
    }

    /// Both programs end by themselves when the engine asks them to, as process 1.
    fn stop_in_order(&self) -> Result<()> {
        self.stack.compose(&["stop", "ingest", "processor"])?;
        for service in ["ingest", "processor"] {
            for container in self.stack.containers(service)? {
                let status = self.stack.inspect(&container, "{{.State.ExitCode}}")?;
                ensure!(status == "0", "{service} ended with {status}");
            }
        }
        Ok(())
    }
}

/// An event of the sender that `deploy/compose/hookwell.toml` describes.
fn acme(id: &str) -> Signed {
    let body = Bytes::from(format!(r#"{{"id":"{id}","type":"order.paid"}}"#));
    let seconds = now_in_seconds().to_string();
    let signature = hex::encode(mac(SECRET, &[seconds.as_bytes(), b".", &body]));
    let headers = vec![
        ("x-acme-timestamp".to_owned(), seconds),
        ("x-acme-signature".to_owned(), format!("sha256={signature}")),
    ];
    Signed { source: "acme".to_owned(), id: id.to_owned(), headers, body }
}
