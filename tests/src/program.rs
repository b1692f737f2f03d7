//! The two programs as child processes: started, watched, killed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::sender::client;
use crate::wait;

/// Whether children belong to a process group of their own.
static APART: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C at a terminal reaches this process and not what it starts, so that it can
/// end its children in order.
pub fn keep_apart() {
    APART.store(true, Ordering::Relaxed);
}

/// A command that starts `binary`.
pub(crate) fn child(binary: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(binary);
    if APART.load(Ordering::Relaxed) {
        command.process_group(0);
    }
    command
}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Mutex<Child>,
    admin: String,
    log: PathBuf,
}

impl Program {
    /// Starts `binary`; what it logs goes to `log`. `admin` is the address of its metrics.
    pub fn start(
        binary: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: &Path,
        admin: &str,
    ) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = child(binary)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{} could not be started", binary.display()))?;
        Ok(Self { child: Mutex::new(child), admin: admin.to_owned(), log: log.to_owned() })
    }

    /// Waits until `/readyz` says yes.
    pub fn ready(self) -> Result<Self> {
        wait::until("a program to be ready", || match self.ended()? {
            Some(status) => Ok(Some(Err(anyhow::anyhow!("it ended with {status}: {}", self.last_words())))),
            None => Ok(self.is_ready()?.then_some(Ok(()))),
        })
        .with_context(|| self.last_words())??;
        Ok(self)
    }

    /// What `/readyz` says now.
    pub fn is_ready(&self) -> Result<bool> {
        Ok(self.readiness()?.0 == 200)
    }

    /// Status and words of `/readyz`.
    pub fn readiness(&self) -> Result<(u16, String)> {
        get(&format!("http://{}/readyz", self.admin))
    }

    /// The URL of `page` on its admin listener.
    pub fn admin(&self, page: &str) -> String {
        format!("http://{}/{page}", self.admin)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.lock().id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.lock()), signal)?)
    }

    /// Lets none of its files grow beyond so many bytes: what a full disk is to whoever writes.
    pub fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        limit_files(&self.lock(), bytes)
    }

    /// Kills it at once, and waits for its end.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.lock();
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.end()
    }

    /// Waits for its end.
    pub fn end(&self) -> Result<ExitStatus> {
        wait::until("a program to end", || self.ended()).with_context(|| self.last_words())
    }

    /// Waits for the death that its fail-point brings it.
    pub fn die(&self) -> Result<()> {
        match self.end()?.signal() {
            Some(signal) if signal == Signal::KILL.as_raw() => Ok(()),
            other => bail!("it ended with {other:?} and not at its fail-point: {}", self.last_words()),
        }
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        Ok(self.lock().try_wait()?)
    }

    /// All that it has logged.
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The sum of all series called `name` that have each of `labels`, such as
    /// `destination="orders"`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        metric_at(&self.admin, name, labels)
    }

    /// All of `/metrics`.
    pub fn metrics(&self) -> Result<String> {
        Ok(get(&format!("http://{}/metrics", self.admin))?.1)
    }

    /// The bytes that it has in memory.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most bytes that it ever had in memory.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, what: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what)).context("no such line")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    fn last_words(&self) -> String {
        let log = self.logged();
        let start = log.len().saturating_sub(3000);
        let start = (start..log.len()).find(|index| log.is_char_boundary(*index)).unwrap_or(0);
        format!("its last words:\n{}", &log[start..])
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill().ok();
    }
}

/// What a command that runs to its end printed, and its exit status.
#[derive(Debug)]
pub struct Answer {
    /// The exit status.
    pub status: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Lets no file of `process` grow beyond so many bytes.
pub(crate) fn limit_files(process: &Child, bytes: Option<u64>) -> Result<()> {
    // Only the soft limit, which can be raised again.
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(Some(Pid::from_child(process)), Resource::Fsize, limit)?;
    Ok(())
}

/// Runs `binary` to its end.
pub fn answer(binary: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Answer> {
    answer_to(b"", binary, arguments, environment)
}

/// [`answer`], with `input` on its standard input, which must be short.
pub fn answer_to(
    input: &[u8],
    binary: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<Answer> {
    let mut child = Command::new(binary)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} could not be started", binary.display()))?;
    if let Some(mut to) = child.stdin.take() {
        // One that does not read it has ended already.
        to.write_all(input).ok();
    }
    let output = child.wait_with_output()?;
    Ok(Answer {
        status: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Status and text of one GET.
pub fn get(url: &str) -> Result<(u16, String)> {
    let response = client().get(url).send()?;
    Ok((response.status().as_u16(), response.text()?))
}

/// [`Program::metric`], of whoever has its admin listener at `admin`.
pub fn metric_at(admin: &str, name: &str, labels: &[&str]) -> Result<f64> {
    let text = get(&format!("http://{admin}/metrics"))?.1;
    let of_that_name = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    };
    let values = text.lines().filter(of_that_name).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| Ok(value.parse::<f64>()?)).sum()
}
