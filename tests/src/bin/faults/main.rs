//! Load while everything breaks that can break, drawn from a seed; then rest; then a verdict by a
//! program that shares no code with what it judges.

mod brokers;
mod crew;
mod evidence;
mod operator;
mod run;
mod schedule;
mod tally;
mod temper;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use hookwell_common::lifecycle::{Clock, raise_open_files};
use hookwell_tests::kafka::{Kafka, Shape, project};

use run::{Order, Report, Theatre};
use schedule::Schedule;
use tally::Tally;

/// Breaks everything under load, and judges what became of it.
#[derive(Debug, Parser)]
struct Arguments {
    /// What faults are drawn from; the same seed draws the same. By default another each time.
    #[arg(long)]
    seed: Option<u64>,

    /// For how many minutes faults are made. Each ten minutes are followed by rest and a verdict.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,

    /// How many runs, each with topics of its own and the next seed.
    #[arg(long, default_value_t = 1)]
    runs: u64,

    /// How many runs at the same time, each on a Kafka of its own.
    #[arg(long, default_value_t = 1)]
    parallel: u64,

    /// The nodes of Kafka: 3, or 1, which is never killed.
    #[arg(long, default_value_t = 3)]
    brokers: usize,

    /// How many milliseconds each of six connections waits between two events.
    #[arg(long, default_value_t = 30)]
    pause: u64,
}

/// The longest time for which faults are made without a verdict.
const ROUND: f64 = 10.0;

/// A Kafka is replaced after so many runs, for each leaves its topics behind.
const RUNS_OF_A_KAFKA: usize = 20;

fn main() -> ExitCode {
    raise_open_files();
    match run_all(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("faults: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run_all(arguments: &Arguments) -> Result<bool> {
    let seed = arguments.seed.unwrap_or_else(|| Clock::start().now().wall.as_millis() % 1_000_000);
    let troupe = Troupe {
        arguments,
        programs: std::env::current_exe()?.parent().context("a program lies in a folder")?.to_owned(),
        seeds: seed..seed.checked_add(arguments.runs).context("the seed is too large")?,
        next: AtomicU64::new(seed),
        tally: Mutex::default(),
    };
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..arguments.parallel.min(arguments.runs)).map(|_| scope.spawn(|| troupe.work())).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a run panicked"))?)
    })?;
    let tally = troupe.tally.lock().unwrap_or_else(PoisonError::into_inner);
    say(&format!("\n{}", tally.faults()));
    say(&format!(
        "{} faults in {} verdicts; {} programs could not start for want of Kafka, {} ended otherwise by themselves\n{}",
        tally.made(),
        tally.runs,
        tally.gave_up,
        tally.ended,
        tally.counts()
    ));
    for seed in &tally.failed {
        say(&format!(
            "seed {seed} failed; again: {}; evidence in {}",
            troupe.again(*seed),
            troupe.evidence(*seed).display()
        ));
    }
    Ok(tally.failed.is_empty())
}

/// All runs.
struct Troupe<'a> {
    arguments: &'a Arguments,
    programs: PathBuf,
    seeds: Range<u64>,
    next: AtomicU64,
    tally: Mutex<Tally>,
}

impl Troupe<'_> {
    /// Takes seeds until none is left.
    fn work(&self) -> Result<()> {
        loop {
            std::fs::create_dir_all(self.home())?;
            let home = tempfile::Builder::new().prefix("kafka-").tempdir_in(self.home())?;
            let shape = Shape { nodes: self.arguments.brokers, doors: 2 };
            let kafka = Arc::new(Kafka::start_as(home.path(), shape)?);
            for _ in 0..RUNS_OF_A_KAFKA {
                let seed = self.next.fetch_add(1, Ordering::Relaxed);
                if !self.seeds.contains(&seed) {
                    return Ok(());
                }
                self.run(seed, &kafka);
            }
        }
    }

    fn run(&self, seed: u64, kafka: &Arc<Kafka>) {
        let home = self.evidence(seed);
        let is_kept = self.play(seed, kafka, &home).unwrap_or_else(|error| {
            say(&format!("seed {seed}: {error:#}"));
            false
        });
        if !is_kept {
            self.tally().failed.push(seed);
        } else if 1 < self.arguments.runs {
            // The evidence of many runs that were kept is of no use to anybody.
            std::fs::remove_dir_all(&home).ok();
        }
    }

    fn play(&self, seed: u64, kafka: &Arc<Kafka>, home: &Path) -> Result<bool> {
        let rounds = (self.arguments.minutes / ROUND).ceil().max(1.0);
        let length = Duration::from_secs_f64(self.arguments.minutes * 60.0 / rounds);
        let pause = Duration::from_millis(self.arguments.pause);
        let orders: Vec<_> = (0..rounds as u64)
            .map(|round| Order { seed: seed.wrapping_add(round << 32), length, pause })
            .collect();
        let is_alone = self.arguments.runs == 1;
        if is_alone {
            say(&format!(
                "seed {seed}, on {} nodes of Kafka; again: {}\n",
                self.arguments.brokers,
                self.again(seed)
            ));
        }
        let announce = |order: &Order| {
            if is_alone {
                self.announce(order);
            }
        };
        Theatre::open(kafka, &self.programs, home)?.play(&orders, announce, |order, report| {
            self.tally().add(report);
            if is_alone {
                tell(report);
            } else {
                let words = if report.verdict.is_kept { "kept" } else { &report.verdict.words };
                say(&format!("seed {}: {} faults: {words}", order.seed, report.recovered.len()));
                report.ended.iter().for_each(|words| say(words));
            }
        })
    }

    fn announce(&self, order: &Order) {
        let schedule = Schedule::draw(order.seed, order.length, self.arguments.brokers);
        for planned in schedule.in_order() {
            say(&planned.to_string());
        }
    }

    fn home(&self) -> PathBuf {
        project().join("target/faults")
    }

    fn evidence(&self, seed: u64) -> PathBuf {
        self.home().join(seed.to_string())
    }

    /// The command that repeats a run.
    fn again(&self, seed: u64) -> String {
        let Arguments { minutes, brokers, pause, .. } = self.arguments;
        format!("target/debug/faults --seed {seed} --minutes {minutes} --brokers {brokers} --pause {pause}")
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was made and how long each took to be over, and the verdict.
fn tell(report: &Report) {
    say("");
    for recovered in &report.recovered {
        let fault = recovered.struck.fault;
        let after = recovered.after.map_or("-".to_owned(), |after| format!("{:.1} s", after.as_secs_f64()));
        let lasted = (recovered.struck.end - recovered.struck.begin) as f64 / 1000.0;
        say(&format!("{:<36} {:<12} {lasted:5.1} s, recovered after {after}", fault.kind(), fault.target()));
    }
    for words in report.gave_up.iter().chain(&report.ended) {
        say(words);
    }
    let megabytes: Vec<_> = report.resident.iter().map(|bytes| (bytes >> 20).to_string()).collect();
    say(&format!(
        "\nin memory at rest, processors and ingest: {} MB\n{}",
        megabytes.join(", "),
        report.verdict.words
    ));
}

#[expect(clippy::print_stdout, reason = "the answer")]
fn say(words: &str) {
    println!("{words}");
}
