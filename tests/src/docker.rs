//! A Docker engine: the machine's, or one of the tests' own; and stacks of `docker-compose.yml` on it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use hookwell_common::config::Environment;

use crate::kafka::project;
use crate::program::child;

/// What was not tested for want of an engine is told in this file, under the project's folder.
pub const NOT_PROVED: &str = "target/docker-was-not-tested";

/// An engine that answers, with `docker compose`.
#[derive(Debug)]
pub struct Engine {
    environment: Vec<(&'static str, String)>,
    home: PathBuf,
    is_own: bool,
}

impl Engine {
    /// The machine's, where one answers.
    pub fn find() -> Option<Self> {
        let engine = Self { environment: Vec::new(), home: PathBuf::new(), is_own: false };
        (engine.answers() && engine.has_compose()).then_some(engine)
    }

    /// The machine's, or else one of the tests' own that lives as long as what is returned. What the
    /// project's files name is there afterwards: images that cannot be pulled have stand-ins.
    pub fn find_or_start() -> Result<Self> {
        let home = project().canonicalize()?.join("target/engine");
        let mut engine = Self { environment: Vec::new(), home, is_own: false };
        if !engine.answers() {
            engine.environment.push(("DOCKER_HOST", format!("unix://{}/docker.sock", engine.home.display())));
            engine.is_own = true;
            engine.script("start.sh", &engine.home)?;
        }
        if !engine.has_compose() {
            let config = engine.home.join("docker");
            engine.script("compose-plugin.sh", &config)?;
            engine.environment.push(("DOCKER_CONFIG", config.display().to_string()));
            ensure!(engine.has_compose(), "docker compose does not run, though it was built");
        }
        engine.script("stand-ins.sh", &crate::kafka::jars()?)?;
        Ok(engine)
    }

    /// What `docker` prints when called with `arguments`.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        output(self.command().args(arguments))
    }

    /// The variables by which other programs find it.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str()))
    }

    fn command(&self) -> Command {
        let mut command = child("docker");
        command.envs(self.environment()).current_dir(project()).stdin(Stdio::null());
        command
    }

    fn answers(&self) -> bool {
        self.docker(&["info", "--format", "{{.ServerVersion}}"])
            .is_ok_and(|version| !version.trim().is_empty())
    }

    fn has_compose(&self) -> bool {
        self.docker(&["compose", "version"]).is_ok()
    }

    /// What a script cannot do it says in words that need no others.
    fn script(&self, name: &str, argument: impl AsRef<OsStr>) -> Result<()> {
        let mut command = child("sh");
        command.arg(project().join("tests/engine").join(name)).arg(argument);
        let output = command.envs(self.environment()).stdin(Stdio::null()).output().context("no shell")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.is_own {
            self.script("stop.sh", &self.home).ok();
        }
    }
}

/// Containers, networks and volumes of `docker-compose.yml`, gone when dropped.
#[derive(Debug)]
pub struct Stack {
    engine: Arc<Engine>,
    project: String,
    variables: Vec<(String, String)>,
}

impl Stack {
    /// A stack called `project`; `variables` are those that the file asks for.
    pub fn new(engine: &Arc<Engine>, project: &str, variables: &[(&str, String)]) -> Self {
        let owned = |(name, value): &(&str, String)| ((*name).to_owned(), value.clone());
        Self {
            engine: Arc::clone(engine),
            project: project.to_owned(),
            variables: variables.iter().map(owned).collect(),
        }
    }

    /// What all that belongs to it is called.
    pub fn name(&self) -> &str {
        &self.project
    }

    /// What `docker compose` prints when called with `arguments`.
    pub fn compose(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.engine.command();
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        output(
            command.args(["compose", "--project-name", &self.project, "--progress", "quiet"]).args(arguments),
        )
    }

    /// The ids of the containers of `service`, ended ones too.
    pub fn containers(&self, service: &str) -> Result<Vec<String>> {
        let ids = self.compose(&["ps", "--all", "--quiet", service])?;
        Ok(ids.split_whitespace().map(str::to_owned).collect())
    }

    /// One value of what the engine knows of `container`, such as `{{.State.Status}}`.
    pub fn inspect(&self, container: &str, format: &str) -> Result<String> {
        Ok(self.engine.docker(&["inspect", "--format", format, container])?.trim().to_owned())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let down = ["--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "2"];
        self.compose(&down).ok();
    }
}

/// Whether this run is to do without Docker, knowingly.
pub fn is_to_be_left_out() -> bool {
    Environment::of_this_process().get("HOOKWELL_WITHOUT_DOCKER").is_some_and(|value| value == "1")
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} could not be started"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        bail!("{name} {}: {}", arguments.join(" "), err.trim());
    }
    Ok(out.into_owned())
}
