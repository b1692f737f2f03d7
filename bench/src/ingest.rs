//! `ingest` beside a handler that only answers, and a producer that only produces. What ingest
//! does is at least both, and an HMAC.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use hookwell_common::lifecycle::Clock;
use hookwell_tests::kafka::free_port;
use hookwell_tests::reader::Reader;
use hookwell_tests::sender::SECRET;
use hookwell_tests::stage::Stage;
use ring::hmac;

use crate::broker::{Broker, More, create_topic, drain};
use crate::cost::{Cost, Meter, Process};
use crate::floor::Running;
use crate::load::Load;
use crate::record::{body, event_number};
use crate::report::{Series, complain, say, table};

/// Enough for connections, caches and the broker's own warm-up.
const WARM_UP: Duration = Duration::from_secs(1);

/// No turn sends more than this.
const MOST: u64 = 1_000_000;

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// How often each takes its turn
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// How long a turn counts, in seconds
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// How many connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    connections: u64,
    /// The length of a body
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(64..=1_000_000))]
    bytes: u64,
    /// The partitions of each topic
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=256))]
    partitions: u32,
    /// The log level of a second ingest that takes turns as well, to see what a setting changes
    #[arg(long, default_value = "warn", value_parser = ["error", "warn", "info", "debug"])]
    other_log_level: String,
    /// Lines of TOML for its [ingest], such as `workers = 1`
    #[arg(long, default_value = "")]
    other_ingest: String,
    /// Lines of TOML for its [kafka.properties], such as `"linger.ms" = 0.5`
    #[arg(long, default_value = "")]
    other_kafka: String,
}

/// Who takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Ours, as configured by default.
    Ours,
    /// The same, where each request is signed with another's secret.
    Forged,
    /// Ours, configured otherwise: by default without the line that it logs for each request.
    Other,
    /// A handler that answers.
    Http,
    /// A producer that produces.
    Produce,
}

const TURNS: [Turn; 5] = [Turn::Ours, Turn::Http, Turn::Produce, Turn::Other, Turn::Forged];

/// Nobody's.
const FORGER: &str = "a secret of nobody's";

/// Where the turns are taken, and what came of those so far.
struct Scene {
    broker: Broker,
    ours: Arena,
    other: Arena,
    floor_topic: String,
    costs: [Vec<Cost>; 5],
    hmac: Vec<f64>,
}

/// A stage, and the events that its ingest has accepted.
struct Arena {
    stage: Stage,
    accepted: BTreeSet<u64>,
    next: u64,
}

impl Plan {
    /// Measures, and prints the figures.
    pub(crate) fn run(&self) -> Result<()> {
        let mut scene = self.set()?;
        // The first round is for the broker, which is slow until its code is compiled.
        for round in 0..=self.rounds {
            complain(&format!(
                "round {round} of {}{}",
                self.rounds,
                if round == 0 { ", warm-up" } else { "" }
            ));
            let mut order: Vec<usize> = (0..TURNS.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let cost = self.turn(&mut scene, TURNS[at])?;
                if 0 < round {
                    scene.costs[at].push(cost);
                }
            }
            if 0 < round {
                scene.hmac.push(self.hmac());
            }
        }
        scene.ours.reconcile()?;
        scene.other.reconcile()?;
        self.show(&scene);
        Ok(())
    }

    fn set(&self) -> Result<Scene> {
        let broker = Broker::start()?;
        let ours = Arena::new(&broker, self.partitions, &More::default())?;
        let more = More {
            log_level: self.other_log_level.clone(),
            ingest: self.other_ingest.clone(),
            kafka_properties: self.other_kafka.clone(),
        };
        let other = Arena::new(&broker, self.partitions, &more)?;
        let floor_topic = "floor.produce".to_owned();
        create_topic(&Reader::new(&broker.bootstrap_servers()), &floor_topic, self.partitions)?;
        Ok(Scene { broker, ours, other, floor_topic, costs: Default::default(), hmac: Vec::new() })
    }

    fn turn(&self, scene: &mut Scene, turn: Turn) -> Result<Cost> {
        match turn {
            Turn::Ours => scene.ours.turn(self, &scene.broker),
            Turn::Forged => scene.ours.refuse(self, &scene.broker),
            Turn::Other => scene.other.turn(self, &scene.broker),
            Turn::Http => self.http(&scene.broker),
            Turn::Produce => self.produce(scene),
        }
    }

    fn load(&self, port: u16, first: u64, time: Duration) -> Result<Load> {
        Ok(Load {
            port,
            connections: usize::try_from(self.connections)?,
            time,
            most: MOST,
            bytes: usize::try_from(self.bytes)?,
            run: "bench".to_owned(),
            first,
            secret: SECRET,
        })
    }

    fn http(&self, broker: &Broker) -> Result<Cost> {
        let port = free_port()?;
        let mut floor = Running::start("http", &[&port.to_string()])?;
        floor.until("begin")?;
        let (cost, _) = self.measure(self.load(port, 0, WARM_UP)?, 200, floor.process(), broker)?;
        Ok(cost)
    }

    fn produce(&self, scene: &Scene) -> Result<Cost> {
        let numbers = [u64::from(self.partitions), self.connections, self.bytes, self.seconds];
        let numbers = numbers.map(|number| number.to_string());
        let servers = scene.broker.bootstrap_servers();
        let mut arguments = vec![servers.as_str(), &scene.floor_topic];
        arguments.extend(numbers.iter().map(String::as_str));
        Running::start("produce", &arguments)?.measure(scene.broker.process()?)
    }

    /// Warms up with `load`, and measures with the same; gives the events that were accepted, too.
    fn measure(&self, warm: Load, status: u16, who: Process, broker: &Broker) -> Result<(Cost, Vec<u64>)> {
        let load = Load { first: warm.first + MOST, time: Duration::from_secs(self.seconds), ..warm.clone() };
        let warm = warm.send()?;
        let meter = Meter::begin(who, broker.process()?)?;
        let sent = load.send()?;
        let cost = meter.end(sent.requests())?;
        ensure!(sent.statuses.keys().eq([&status]), "not all heard {status}: {:?}", sent.statuses);
        Ok((cost, [warm.accepted, sent.accepted].concat()))
    }

    /// Microseconds that signing one body takes.
    fn hmac(&self) -> f64 {
        const TIMES: u32 = 200_000;
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let body = body("an id", usize::try_from(self.bytes).unwrap_or(1024));
        let clock = Clock::start();
        for _ in 0..TIMES {
            std::hint::black_box(hmac::sign(&key, std::hint::black_box(&body)));
        }
        clock.mono().as_secs_f64() * 1e6 / f64::from(TIMES)
    }

    fn show(&self, scene: &Scene) {
        let of = |at: usize, what: fn(&Cost) -> f64| scene.costs[at].iter().map(what).collect::<Series>();
        let other =
            format!("ingest, log level {} {} {}", self.other_log_level, self.other_ingest, self.other_kafka);
        let other = other.trim().replace('\n', " ");
        let forged = "ingest, requests that are forged";
        let names = ["ingest", "floor: a handler that answers", "floor: a producer", &other, forged];
        say(&format!(
            "{} bytes, {} connections, {} partitions, {} turns of {} s each; median (least to most)\n",
            self.bytes, self.connections, self.partitions, self.rounds, self.seconds
        ));
        let row = |(at, name): (usize, &&str)| {
            vec![
                (*name).to_owned(),
                of(at, Cost::rate).show(0),
                of(at, Cost::own_micros).show(1),
                of(at, Cost::broker_micros).show(1),
                of(at, Cost::load_micros).show(1),
            ]
        };
        let head = ["", "events/s", "CPU us an event", "of Kafka", "of the load generator"];
        table(&head, names.iter().enumerate().map(row).collect());

        let hmac: Series = scene.hmac.iter().copied().collect();
        let [ours, http, produce, otherwise, refused] = [0, 1, 2, 3, 4].map(|at| of(at, Cost::own_micros));
        let [rate, http_rate, _, other_rate] = [0, 1, 2, 3].map(|at| of(at, Cost::rate));
        let floor = http.plus(&produce).plus(&hmac);
        say(&format!("\nHMAC alone, us: {}", hmac.show(2)));
        say(&format!("CPU of the three floors together, us: {}\n", floor.show(1)));
        let rows = [
            ("CPU, ingest / the floors together", ours.over(&floor)),
            ("CPU, ingest / the handler that answers", ours.over(&http)),
            ("events/s, ingest / the handler that answers", rate.over(&http_rate)),
            ("CPU, configured otherwise / the floors together", otherwise.over(&floor)),
            ("CPU, configured otherwise / ingest", otherwise.over(&ours)),
            ("events/s, configured otherwise / ingest", other_rate.over(&rate)),
            ("CPU, a request that is refused / one that is accepted", refused.over(&ours)),
        ];
        let rows = rows.into_iter().map(|(name, ratio)| vec![name.to_owned(), ratio.show(2)]);
        table(&["ratio, round by round", ""], rows.collect());
    }
}

impl Arena {
    fn new(broker: &Broker, partitions: u32, more: &More) -> Result<Self> {
        let stage = broker.stage(partitions, more)?;
        Ok(Self { stage, accepted: BTreeSet::new(), next: 0 })
    }

    fn turn(&mut self, plan: &Plan, broker: &Broker) -> Result<Cost> {
        let ingest = self.stage.ingest()?;
        let load = plan.load(self.stage.port, self.next, WARM_UP)?;
        let (cost, accepted) = plan.measure(load, 200, Process(ingest.id()), broker)?;
        ensure!(ingest.stop()?.success(), "ingest did not end well");
        self.accepted.extend(accepted);
        self.next += 2 * MOST;
        Ok(cost)
    }

    /// The same with requests of a forger.
    fn refuse(&self, plan: &Plan, broker: &Broker) -> Result<Cost> {
        let ingest = self.stage.ingest()?;
        let load = Load { secret: FORGER, ..plan.load(self.stage.port, self.next, WARM_UP)? };
        let (cost, _) = plan.measure(load, 403, Process(ingest.id()), broker)?;
        ensure!(ingest.stop()?.success(), "ingest did not end well");
        Ok(cost)
    }

    /// What was accepted lies on the topic, once, and nothing else does.
    fn reconcile(&self) -> Result<()> {
        let mut stored = BTreeSet::new();
        let mut strange = None;
        let records =
            drain(&self.stage.reader, &self.stage.topic("events"), |message| match event_number(message) {
                Ok(number) => drop(stored.insert(number)),
                Err(error) => strange = Some(error),
            })?;
        if let Some(error) = strange {
            return Err(error);
        }
        let lost = self.accepted.difference(&stored).count();
        let unasked = stored.difference(&self.accepted).count();
        let doubled = records - stored.len() as u64;
        ensure!((lost, unasked, doubled) == (0, 0, 0), "lost {lost}, unasked {unasked}, doubled {doubled}");
        say(&format!("{records} events heard 200; all of them, and nothing else, lie on the topic"));
        Ok(())
    }
}
