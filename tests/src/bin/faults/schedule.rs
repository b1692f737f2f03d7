//! What breaks, when, and for how long: drawn from a seed, so that the same seed breaks the same.

use std::fmt;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// How many processors work when none is broken.
pub(crate) const PROCESSORS: usize = 2;

/// How long the group of the stage waits for a member that says nothing.
const SESSION: Duration = Duration::from_secs(3);

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The only ingest.
    Ingest,
    /// One of the processors.
    Processor(usize),
}

/// A connection that has a proxy in its middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Ingest and every broker.
    IngestToKafka,
    /// The processors and every broker.
    ProcessorsToKafka,
    /// The processors and the handler.
    ProcessorsToHandler,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing comes through, in either direction; no connection ends.
    BlackHole,
    /// Requests arrive, answers do not.
    NoAnswers,
    /// Answers arrive, requests do not.
    NoRequests,
    /// Each connection is reset, and so is each new one.
    Reset,
    /// Every second one end of each connection sees the end, in turn, and the other does not.
    HalfClosed,
    /// 200 ms each way.
    Latency,
    /// One chunk in a hundred waits for its retransmission.
    Loss,
}

/// A broker, by what it is at the moment at which it is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Leads a partition of the events topic.
    Leader,
    /// Coordinates the group.
    GroupCoordinator,
    /// Coordinates the transactions of a lane.
    TransactionCoordinator,
}

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// SIGKILL, and started again.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Freeze,
    /// SIGTERM, and started again.
    Restart,
}

/// How the handler behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// No answer before the caller gives up.
    Hangs,
    /// 500 for all.
    Fails,
    /// 429 with `retry-after: 1`.
    IsBusy,
    /// Half a second for each call.
    IsSlow,
}

/// What an operator does with the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// To its end.
    Whole,
    /// Killed in the middle, and run again.
    Killed,
    /// Twice at once.
    Twice,
}

/// Something that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A program is struck.
    Program(Who, Blow),
    /// A program dies at this fail-point.
    DiesAt(&'static str),
    /// One more processor comes, and goes.
    OneMore,
    /// All processors are restarted, one after the other.
    Rolling,
    /// Both programs read their configuration again.
    Reload,
    /// A connection fails.
    Link(Link, Trouble),
    /// A broker is struck.
    Broker(Role, Blow),
    /// Two of three brokers are killed: too few replicas for an acknowledgement.
    TwoBrokers,
    /// All brokers are killed.
    AllBrokers,
    /// The handler misbehaves.
    Handler(Mood),
    /// Dead letters are replayed.
    Replay(Replay),
}

/// A fault of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Since the load began.
    pub(crate) begin: Duration,
    /// Until it is mended.
    pub(crate) lasts: Duration,
    /// What.
    pub(crate) fault: Fault,
}

/// The faults of one run. Those of a track follow each other, different tracks overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Programs; Kafka and the way to it; the handler and the way to it; the operator.
    pub(crate) tracks: [Vec<Planned>; 4],
}

impl Schedule {
    /// Draws faults for `length` on a cluster of `brokers`.
    pub(crate) fn draw(seed: u64, length: Duration, brokers: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let menus = [programs(), kafka(brokers), handler(), operator()];
        Self { tracks: menus.map(|menu| track(&mut random, &menu, length)) }
    }

    /// All faults by the time at which they begin.
    pub(crate) fn in_order(&self) -> Vec<Planned> {
        let mut all: Vec<_> = self.tracks.iter().flatten().copied().collect();
        all.sort_by_key(|planned| planned.begin);
        all
    }
}

/// The last fault ends before `length` is over.
fn track(random: &mut ChaCha8Rng, menu: &[Fault], length: Duration) -> Vec<Planned> {
    let mut planned = Vec::new();
    let mut now = Duration::ZERO;
    // Long runs leave more room between faults, or everything would be broken all the time.
    let longest_gap = (length / 6).clamp(Duration::from_secs(2), Duration::from_secs(12));
    loop {
        let begin = now + random.random_range(Duration::from_millis(500)..longest_gap);
        let Some(fault) = menu.choose(random).copied() else { return planned };
        let (least, most) = fault.lasting(length);
        let lasts = random.random_range(least..=most);
        now = begin + lasts;
        if length < now {
            return planned;
        }
        planned.push(Planned { begin, lasts, fault });
    }
}

fn programs() -> Vec<Fault> {
    let everybody = (0..PROCESSORS).map(Who::Processor).chain([Who::Ingest]);
    let blows = [Blow::Kill, Blow::Kill, Blow::Freeze, Blow::Restart];
    let struck = everybody.flat_map(|who| blows.map(|blow| Fault::Program(who, blow)));
    // Commands pass those of replays and of releases.
    let is_of_a_command = |point: &&&str| point.starts_with("replay") || point.starts_with("release");
    let points = hookwell_common::failpoint::ALL.iter().filter(|point| !is_of_a_command(point));
    let dying = points.map(|point| Fault::DiesAt(point));
    struck.chain(dying).chain([Fault::OneMore, Fault::Rolling, Fault::Reload]).collect()
}

fn kafka(brokers: usize) -> Vec<Fault> {
    let links = [Link::IngestToKafka, Link::ProcessorsToKafka];
    let troubled = links.iter().flat_map(|link| TROUBLES.map(|trouble| Fault::Link(*link, trouble)));
    // A single node that is killed may forget a transaction's marker: docs/adr/0016.
    let blows: &[Blow] =
        if brokers == 1 { &[Blow::Freeze] } else { &[Blow::Kill, Blow::Kill, Blow::Freeze, Blow::Restart] };
    let roles = [Role::Leader, Role::GroupCoordinator, Role::TransactionCoordinator];
    let struck = roles.iter().flat_map(|role| blows.iter().map(|blow| Fault::Broker(*role, *blow)));
    let many = [Fault::TwoBrokers, Fault::AllBrokers];
    troubled.chain(struck).chain(many.into_iter().filter(|_| 1 < brokers)).collect()
}

fn handler() -> Vec<Fault> {
    let moods = [Mood::Hangs, Mood::Fails, Mood::IsBusy, Mood::IsSlow].map(Fault::Handler);
    let troubled = TROUBLES.map(|trouble| Fault::Link(Link::ProcessorsToHandler, trouble));
    moods.into_iter().chain(troubled).collect()
}

fn operator() -> Vec<Fault> {
    [Replay::Whole, Replay::Killed, Replay::Twice].map(Fault::Replay).to_vec()
}

const TROUBLES: [Trouble; 7] = [
    Trouble::BlackHole,
    Trouble::NoAnswers,
    Trouble::NoRequests,
    Trouble::Reset,
    Trouble::HalfClosed,
    Trouble::Latency,
    Trouble::Loss,
];

impl Fault {
    /// How long it lasts, at least and at most, in a run of `length`.
    fn lasting(self, length: Duration) -> (Duration, Duration) {
        let (least, most) = match self {
            Fault::Program(_, Blow::Freeze) => (SESSION / 3, SESSION * 2),
            Fault::Program(_, Blow::Kill | Blow::Restart) | Fault::DiesAt(_) => {
                (Duration::ZERO, Duration::from_secs(2))
            }
            Fault::Rolling | Fault::Reload | Fault::Replay(_) => return (Duration::ZERO, Duration::ZERO),
            Fault::OneMore | Fault::Handler(_) => (Duration::from_secs(1), Duration::from_secs(6)),
            Fault::Link(..) | Fault::Broker(..) => (Duration::from_secs(1), Duration::from_secs(20)),
            Fault::TwoBrokers | Fault::AllBrokers => (Duration::from_secs(5), Duration::from_secs(60)),
        };
        let most = most.min(length / 4);
        (least.min(most), most)
    }

    /// The kind by which faults are counted.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Fault::Program(Who::Ingest, Blow::Kill) => "ingest killed",
            Fault::Program(Who::Ingest, Blow::Freeze) => "ingest frozen",
            Fault::Program(Who::Ingest, Blow::Restart) => "ingest restarted",
            Fault::Program(Who::Processor(_), Blow::Kill) => "processor killed",
            Fault::Program(Who::Processor(_), Blow::Freeze) => "processor frozen",
            Fault::Program(Who::Processor(_), Blow::Restart) => "processor restarted",
            Fault::DiesAt(point) => point,
            Fault::OneMore => "one more processor",
            Fault::Rolling => "rolling restart",
            Fault::Reload => "reload",
            Fault::Link(Link::IngestToKafka, trouble) => trouble.kind_of(0),
            Fault::Link(Link::ProcessorsToKafka, trouble) => trouble.kind_of(1),
            Fault::Link(Link::ProcessorsToHandler, trouble) => trouble.kind_of(2),
            Fault::Broker(Role::Leader, blow) => blow.kind_of(0),
            Fault::Broker(Role::GroupCoordinator, blow) => blow.kind_of(1),
            Fault::Broker(Role::TransactionCoordinator, blow) => blow.kind_of(2),
            Fault::TwoBrokers => "two of three brokers killed",
            Fault::AllBrokers => "all brokers killed",
            Fault::Handler(Mood::Hangs) => "handler hangs",
            Fault::Handler(Mood::Fails) => "handler answers 500",
            Fault::Handler(Mood::IsBusy) => "handler answers 429",
            Fault::Handler(Mood::IsSlow) => "handler is slow",
            Fault::Replay(Replay::Whole) => "replay",
            Fault::Replay(Replay::Killed) => "replay killed midway",
            Fault::Replay(Replay::Twice) => "replay twice at once",
        }
    }

    /// Whether it may have a call made that nothing else explains: ingest makes none, and who is slow
    /// is waited for.
    pub(crate) fn disturbs_calls(self) -> bool {
        match self {
            Fault::Program(who, _) => who != Who::Ingest,
            Fault::DiesAt(point) => who_passes(point) != Who::Ingest,
            Fault::Link(link, _) => link != Link::IngestToKafka,
            Fault::Handler(mood) => mood != Mood::IsSlow,
            Fault::Reload | Fault::Replay(_) => false,
            Fault::OneMore | Fault::Rolling | Fault::Broker(..) | Fault::TwoBrokers | Fault::AllBrokers => {
                true
            }
        }
    }

    /// Whose, where the kind does not say it.
    pub(crate) fn target(self) -> String {
        match self {
            Fault::Program(Who::Processor(number), _) => format!("processor {}", number + 1),
            Fault::Program(Who::Ingest, _)
            | Fault::DiesAt(_)
            | Fault::OneMore
            | Fault::Rolling
            | Fault::Reload
            | Fault::Link(..)
            | Fault::Broker(..)
            | Fault::TwoBrokers
            | Fault::AllBrokers
            | Fault::Handler(_)
            | Fault::Replay(_) => String::new(),
        }
    }
}

/// Who comes by `point`.
pub(crate) fn who_passes(point: &str) -> Who {
    let is_of_ingest = point.starts_with("ingest") || point.starts_with("spool");
    if is_of_ingest { Who::Ingest } else { Who::Processor(0) }
}

impl Trouble {
    /// Of the link between ingest and Kafka, processor and Kafka, processor and handler.
    fn kind_of(self, link: usize) -> &'static str {
        let kinds = match self {
            Trouble::BlackHole => {
                ["ingest-Kafka black hole", "processor-Kafka black hole", "handler black hole"]
            }
            Trouble::NoAnswers => {
                ["ingest-Kafka without answers", "processor-Kafka without answers", "handler without answers"]
            }
            Trouble::NoRequests => [
                "ingest-Kafka without requests",
                "processor-Kafka without requests",
                "handler without requests",
            ],
            Trouble::Reset => ["ingest-Kafka reset", "processor-Kafka reset", "handler reset"],
            Trouble::HalfClosed => {
                ["ingest-Kafka half-closed", "processor-Kafka half-closed", "handler half-closed"]
            }
            Trouble::Latency => ["ingest-Kafka 200 ms", "processor-Kafka 200 ms", "handler 200 ms"],
            Trouble::Loss => ["ingest-Kafka loses 1 %", "processor-Kafka loses 1 %", "handler loses 1 %"],
        };
        kinds[link]
    }
}

impl Blow {
    /// Of the leader, the group coordinator, the transaction coordinator.
    fn kind_of(self, role: usize) -> &'static str {
        let kinds = match self {
            Blow::Kill => ["leader killed", "group coordinator killed", "transaction coordinator killed"],
            Blow::Freeze => ["leader frozen", "group coordinator frozen", "transaction coordinator frozen"],
            Blow::Restart => {
                ["leader restarted", "group coordinator restarted", "transaction coordinator restarted"]
            }
        };
        kinds[role]
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begin, lasts) = (self.begin.as_secs_f64(), self.lasts.as_secs_f64());
        write!(f, "{begin:7.1} s  {:<36} {:<12} for {lasts:.1} s", self.fault.kind(), self.fault.target())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: Duration = Duration::from_secs(600);

    #[test]
    fn a_seed_draws_the_same_faults_each_time_and_another_draws_others() {
        assert_eq!(Schedule::draw(7, MINUTES, 3), Schedule::draw(7, MINUTES, 3));
        assert_ne!(Schedule::draw(7, MINUTES, 3), Schedule::draw(8, MINUTES, 3));
    }

    #[test]
    fn faults_of_a_track_follow_each_other_and_end_in_time() {
        for seed in 0..50 {
            for track in Schedule::draw(seed, MINUTES, 3).tracks {
                assert!(!track.is_empty());
                let ends = |planned: &Planned| planned.begin + planned.lasts;
                assert!(track.windows(2).all(|pair| ends(&pair[0]) <= pair[1].begin));
                assert!(track.iter().all(|planned| ends(planned) <= MINUTES));
            }
        }
    }

    #[test]
    fn every_kind_of_fault_is_drawn_in_the_end() {
        let menu: Vec<_> = [programs(), kafka(3), handler(), operator()].concat();
        let kinds = |faults: Vec<Fault>| {
            faults.into_iter().map(Fault::kind).collect::<std::collections::BTreeSet<_>>()
        };
        let schedules = (0..100).map(|seed| Schedule::draw(seed, MINUTES, 3));
        let drawn = schedules.flat_map(|schedule| schedule.in_order()).map(|planned| planned.fault).collect();
        assert_eq!(kinds(menu), kinds(drawn));
    }

    #[test]
    fn a_single_node_is_never_killed() {
        for seed in 0..100 {
            for planned in Schedule::draw(seed, MINUTES, 1).in_order() {
                let is_deadly = match planned.fault {
                    Fault::Broker(_, blow) => blow != Blow::Freeze,
                    Fault::TwoBrokers | Fault::AllBrokers => true,
                    Fault::Program(..)
                    | Fault::DiesAt(_)
                    | Fault::OneMore
                    | Fault::Rolling
                    | Fault::Reload
                    | Fault::Link(..)
                    | Fault::Handler(_)
                    | Fault::Replay(_) => false,
                };
                assert!(!is_deadly, "{planned}");
            }
        }
    }
}
