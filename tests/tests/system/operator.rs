//! Somebody on call, who types what `docs/runbook.md` says and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::kafka::{free_port, project};
use hookwell_tests::program::Program;
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// What Kafka's distribution calls its tools, and what runs them.
const KAFKA_TOOLS: [(&str, &str); 3] = [
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-consumer-groups.sh", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("kafka-transactions.sh", "org.apache.kafka.tools.TransactionsCommand"),
];

fn page() -> Result<String> {
    Ok(fs::read_to_string(project().join("docs/runbook.md"))?)
}

/// Each heading with what stands under it; what comes before the first has none.
fn sections() -> Result<Vec<(String, String)>> {
    let page = page()?;
    let mut parts = page.split("\n## ");
    let first = parts.next().map(|text| (String::new(), text.to_owned()));
    let entry = |part: &str| {
        let (heading, text) = part.split_once('\n').unwrap_or((part, ""));
        (heading.to_owned(), text.to_owned())
    };
    Ok(first.into_iter().chain(parts.map(entry)).collect())
}

fn blocks(heading: &str, language: &str) -> Result<Vec<String>> {
    let sections = sections()?;
    let section = sections.iter().find(|(found, _)| found == heading);
    let (_, text) = section.with_context(|| format!("there is no entry {heading:?}"))?;
    let mut parts = text.split("```");
    parts.next();
    let opening = format!("{language}\n");
    Ok(parts.step_by(2).filter_map(|block| block.strip_prefix(&opening)).map(str::to_owned).collect())
}

/// The tables of TOML in an entry.
pub(crate) fn toml_blocks(heading: &str) -> Result<Vec<String>> {
    blocks(heading, "toml")
}

/// The headings under which commands stand.
pub(crate) fn entries() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (heading, _) in sections()? {
        if !heading.is_empty() && !blocks(&heading, "sh")?.is_empty() {
            found.push(heading);
        }
    }
    Ok(found)
}

/// Types the blocks of one entry after the other, on a stage. What the blocks start ends with the
/// operator, who must be dropped before the stage.
pub(crate) struct Operator<'s> {
    stage: &'s Stage,
    tools: TempDir,
    names: BTreeMap<&'static str, String>,
    entry: String,
    blocks: Vec<String>,
}

impl<'s> Operator<'s> {
    /// With the programs and tools at hand that the page calls by name.
    pub(crate) fn hired(stage: &'s Stage) -> Result<Self> {
        let tools = tempfile::Builder::new().prefix("hookwell-operator-").tempdir()?;
        let address = || Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port()?));
        let names = BTreeMap::from([
            ("kafka", stage.kafka.bootstrap_servers()),
            ("prefix", stage.prefix.clone()),
            ("group", stage.prefix.clone()),
            ("ingest", String::new()),
            ("processor", address()?),
            ("spare", address()?),
        ]);
        let operator = Self { stage, tools, names, entry: String::new(), blocks: Vec::new() };
        operator.lay_out_tools()?;
        Ok(operator)
    }

    fn lay_out_tools(&self) -> Result<()> {
        let here = self.tools.path().display();
        let jars = project().join("target/kafka/jars").canonicalize()?;
        for (name, class) in KAFKA_TOOLS {
            let run = format!("exec java -XX:TieredStopAtLevel=1 -cp '{}/*' {class} \"$@\"", jars.display());
            self.lay_out(name, &run)?;
        }
        let programs = [
            ("ingest", env!("CARGO_BIN_EXE_ingest-under-test")),
            ("processor", env!("CARGO_BIN_EXE_processor-under-test")),
        ];
        for (name, binary) in programs {
            // One that stays leaves its process id, and its lines in a file.
            let run = format!(
                "case \" $* \" in *' --send-test '*|*-dlq*|*-quarantine*|*' --create-topics '*|*' --check-config '*) exec {binary} \"$@\" ;; esac
echo $$ >> {here}/started
[ -n \"${{HOOKWELL__PROCESSOR__ADMIN_LISTEN-}}\" ] || echo $$ > {here}/{name}.pid
export HOOKWELL__PROCESSOR__ADMIN_LISTEN=\"${{HOOKWELL__PROCESSOR__ADMIN_LISTEN-$usual_admin}}\"
exec {binary} \"$@\" >> {here}/{name}.log 2>&1"
            );
            self.lay_out(name, &run)?;
        }
        self.lay_out("pidof", &format!("exec cat {here}/\"$1\".pid"))
    }

    fn lay_out(&self, name: &str, script: &str) -> Result<()> {
        let path = self.tools.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
    }

    /// An ingest that the operator knows of.
    pub(crate) fn ingest(&mut self) -> Result<Program> {
        let program = self.stage.ingest()?;
        self.knows("ingest", &program)?;
        Ok(program)
    }

    /// A processor that the operator knows of.
    pub(crate) fn processor(&mut self) -> Result<Program> {
        self.starting_processor()?.ready()
    }

    /// [`Operator::processor`], before it is ready.
    pub(crate) fn starting_processor(&mut self) -> Result<Program> {
        let program = self.stage.start_processor("")?;
        self.knows("processor", &program)?;
        Ok(program)
    }

    fn knows(&mut self, name: &'static str, program: &Program) -> Result<()> {
        let address = program.admin("").trim_start_matches("http://").trim_end_matches('/').to_owned();
        self.names.insert(name, address);
        Ok(fs::write(self.tools.path().join(format!("{name}.pid")), program.id().to_string())?)
    }

    /// Opens the page at an entry.
    pub(crate) fn turn_to(&mut self, entry: &str) -> Result<()> {
        entry.clone_into(&mut self.entry);
        self.blocks = blocks(entry, "sh")?;
        self.blocks.reverse();
        Ok(())
    }

    /// Types the next block, which must hold `words`, and gives what it printed.
    pub(crate) fn types(&mut self, words: &str) -> Result<String> {
        let block = self.next(words)?;
        self.run(&block)
    }

    /// Types the next block again and again, until it prints what is waited for.
    pub(crate) fn types_until(&mut self, words: &str, fits: impl Fn(&str) -> bool) -> Result<String> {
        let block = self.next(words)?;
        let mut last = String::new();
        wait::until(&format!("{block:?} to tell"), || {
            last = self.run(&block)?;
            Ok(fits(&last).then_some(()))
        })
        .with_context(|| last.clone())?;
        Ok(last)
    }

    /// Nothing of the entry is left to be typed.
    pub(crate) fn closes(&self) -> Result<()> {
        ensure!(self.blocks.is_empty(), "{:?}: nobody has typed {:#?}", self.entry, self.blocks);
        Ok(())
    }

    fn next(&mut self, words: &str) -> Result<String> {
        let block = self.blocks.pop();
        let block = block.with_context(|| format!("{:?} has no more to type: {words:?}", self.entry))?;
        ensure!(block.contains(words), "{:?}: {words:?} is not next, but {block}", self.entry);
        Ok(block)
    }

    /// The block of names that the page begins with, with those of the stage.
    fn names(&self) -> Result<String> {
        let blocks = blocks("", "sh")?;
        ensure!(blocks.len() == 1, "the page begins with {} blocks", blocks.len());
        let named: Vec<_> = blocks[0].lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        let mut known: Vec<_> = self.names.keys().copied().collect();
        known.sort_by_key(|name| named.iter().position(|other| other == name));
        ensure!(named == known, "the page begins with {named:?}");
        Ok(self.names.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect())
    }

    fn run(&self, block: &str) -> Result<String> {
        // Where the file would name an address, and the file of a stage does not.
        let (tools, admin) = (self.tools.path().display(), &self.names["processor"]);
        let path = format!("PATH={tools}:$PATH\nexport usual_admin={admin}\n");
        let output = Command::new("sh")
            .args(["-ec", &format!("{path}{}{block}", self.names()?)])
            .current_dir(self.stage.folder())
            .stdin(Stdio::null())
            .output()?;
        let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let told = told.concat();
        ensure!(output.status.success(), "{block}ended with {}: {told}", output.status);
        Ok(told)
    }
}

impl Drop for Operator<'_> {
    fn drop(&mut self) {
        let started = fs::read_to_string(self.tools.path().join("started")).unwrap_or_default();
        // An id may be somebody else's by now.
        let is_ours = |id: &&str| {
            let binary = fs::read_link(format!("/proc/{id}/exe")).unwrap_or_default();
            binary.to_string_lossy().ends_with("-under-test")
        };
        for id in started.lines().filter(is_ours).filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
            kill_process(id, Signal::KILL).ok();
        }
    }
}
