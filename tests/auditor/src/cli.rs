//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::verdict::Verdict;
use crate::{collect, folder, judge, watch};

/// Judges a run of Hookwell by what lies on Kafka and by the ledgers of who sent and who was called.
///
/// Exit status: 0 every promise was kept, 1 one was not, 2 wrong usage or no evidence.
#[derive(Debug, Parser)]
#[command(name = "auditor", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Notes every committed record while faults are under way, until SIGTERM or SIGINT.
    Watch(Folder),
    /// Writes down what lies on the topics and where they end.
    Collect(Folder),
    /// Judges what was collected.
    Judge(Judge),
    /// Collects and judges.
    Run(Judge),
}

#[derive(Debug, Args)]
struct Folder {
    /// The folder of evidence; run.json lies there.
    folder: PathBuf,
}

#[derive(Debug, Args)]
struct Judge {
    #[command(flatten)]
    folder: Folder,

    /// How the verdict is told.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One object.
    Json,
}

const BROKEN: u8 = 1;
const NO_EVIDENCE: u8 = 2;

/// The whole program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Where nobody can read it, nobody can be told.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { NO_EVIDENCE } else { 0 });
        }
    };
    match execute(&arguments.command) {
        Ok(Some(false)) => ExitCode::from(BROKEN),
        Ok(Some(true) | None) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(NO_EVIDENCE)
        }
    }
}

/// Whether every promise was kept, where that was asked.
fn execute(command: &Command) -> Result<Option<bool>> {
    match command {
        Command::Watch(folder) => watch::watch(&folder.folder).map(|()| None),
        Command::Collect(folder) => collect::collect(&folder.folder).map(|()| None),
        Command::Judge(judge) => tell(&judge.folder.folder, judge.output).map(Some),
        Command::Run(judge) => {
            collect::collect(&judge.folder.folder)?;
            tell(&judge.folder.folder, judge.output).map(Some)
        }
    }
}

fn tell(path: &Path, output: Output) -> Result<bool> {
    let verdict: Verdict = judge(&folder::read(path)?);
    match output {
        Output::Text => say(&verdict.to_string()),
        Output::Json => say(&serde_json::to_string(&verdict)?),
    }
    Ok(verdict.kept)
}

#[expect(clippy::print_stdout, reason = "the verdict is the program's answer")]
fn say(words: &str) {
    println!("{words}");
}

#[expect(clippy::print_stderr, reason = "who runs it must learn why there is no verdict")]
fn complain(words: &str) {
    eprintln!("auditor: {words}");
}
