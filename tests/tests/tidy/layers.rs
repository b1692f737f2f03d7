//! What may be named where: pure files, the shell around Kafka and HTTP, and the path that an
//! event takes, along which imports point.

use std::collections::BTreeSet;

use super::source::{Source, shipped};

/// Files that decide and do nothing: no Kafka, no HTTP, no tasks, no metrics, no logs, no clock;
/// time comes in as an argument.
const PURE: &[&str] = &[
    "common/src/event.rs",
    "common/src/headers.rs",
    "common/src/identity.rs",
    "common/src/rate.rs",
    "common/src/record.rs",
    "common/src/secret.rs",
    "common/src/time.rs",
    "common/src/topics.rs",
    "common/src/watch.rs",
    "ingest/src/accept.rs",
    "ingest/src/advice.rs",
    "ingest/src/address.rs",
    "ingest/src/keyring/cache.rs",
    "ingest/src/quarantine/record.rs",
    "ingest/src/quarantine/released.rs",
    "ingest/src/quarantine/tally.rs",
    "ingest/src/quarantine/verdict.rs",
    "ingest/src/rejection.rs",
    "ingest/src/spool/frame.rs",
    "ingest/src/spool/ledger.rs",
    "ingest/src/verify.rs",
    "ingest/src/verify/*",
    "processor/src/dead_letter.rs",
    "processor/src/delivery.rs",
    "processor/src/flood_guard.rs",
    "processor/src/lane/batch.rs",
    "processor/src/lane/ledger.rs",
    "processor/src/lane/output.rs",
    "processor/src/lane/recall.rs",
    "processor/src/lane/waiting.rs",
    "processor/src/lane/window.rs",
    "processor/src/lane/window/*",
    "processor/src/outcome.rs",
    "processor/src/pace.rs",
    "processor/src/replay/filter.rs",
    "processor/src/replay/letter.rs",
    "processor/src/replay/standing.rs",
    "processor/src/replay/tally.rs",
    "processor/src/retry.rs",
    "processor/src/route.rs",
    "processor/src/settle.rs",
    "processor/src/state.rs",
    "processor/src/state/*",
];

/// What no pure file names.
const IMPURE_CRATES: &[&str] =
    &["rdkafka", "tokio", "actix_web", "prometheus", "tracing", "log", "reqwest", "crossbeam_channel"];
const IMPURE_NAMES: &[&str] = &["Clock", "Instant", "SystemTime", "lifecycle"];
const IMPURE_STD: &[&str] = &["env", "fs", "process", "thread"];

/// The only files that name a crate.
const ONLY_IN: &[(&str, &[&str])] = &[
    (
        "rdkafka",
        &[
            "common/src/kafka/*",
            "ingest/src/publish.rs",
            "ingest/src/quarantine/keeper.rs",
            "ingest/src/quarantine/releaser.rs",
            "ingest/src/quarantine/survey.rs",
            "processor/src/follow.rs",
            "processor/src/lane/active.rs",
            "processor/src/lane/mend.rs",
            "processor/src/lane/proof.rs",
            "processor/src/lane/reports.rs",
            "processor/src/lane/take_over.rs",
            "processor/src/lane/transaction.rs",
            "processor/src/poll.rs",
            "processor/src/poll/context.rs",
            "processor/src/reading.rs",
            "processor/src/replay/publisher.rs",
            "processor/src/replay/survey.rs",
            "processor/src/run.rs",
            "processor/src/shared.rs",
        ],
    ),
    (
        "actix_web",
        &[
            "common/src/telemetry/admin.rs",
            "ingest/src/body.rs",
            "ingest/src/connection.rs",
            "ingest/src/receive.rs",
            "ingest/src/respond.rs",
            "ingest/src/run.rs",
        ],
    ),
    ("ring", &["ingest/src/verify/*", "processor/src/handle/http.rs"]),
];

/// The modules of ingest from the command line down to the decisions: each imports only what
/// stands after it.
const INGEST: &[&str] = &[
    "cli",
    "list_presets",
    "verify_file",
    "send_test",
    "quarantine",
    "quarantine::list",
    "quarantine::arguments",
    "quarantine::releaser",
    "quarantine::survey",
    "quarantine::tally",
    "quarantine::verdict",
    "quarantine::released",
    "run",
    "reload",
    "receive",
    "connection",
    "spool",
    "spool::drain",
    "spool::writer",
    "spool::recovery",
    "spool::folder",
    "spool::ledger",
    "spool::frame",
    "publish",
    "quarantine::keeper",
    "quarantine::record",
    "body",
    "address",
    "respond",
    "keyring",
    "metrics",
    "metrics::quarantine",
    "keyring::fetch",
    "keyring::cache",
    "accept",
    "hints",
    "advice",
    "verify",
    "source",
    "verify::words",
    "verify::preset",
    "verify::scheme",
    "verify::sign",
    "verify::recipe",
    "verify::twilio",
    "verify::adyen",
    "verify::jwt",
    "verify::sns",
    "verify::credential",
    "verify::handshake",
    "verify::ebay",
    "verify::braintree",
    "verify::plivo",
    "verify::draft",
    "verify::published",
    "verify::multipart",
    "verify::timestamp",
    "verify::json",
    "verify::header",
    "verify::key",
    "verify::facts",
    "verify::private_key",
    "verify::public_key",
    "verify::content",
    "verify::canonical",
    "verify::value",
    "verify::request",
    "verify::explain",
    "verify::signature",
    "rejection",
];

/// The modules of the processor from the command line down to the decisions.
const PROCESSOR: &[&str] = &[
    "cli",
    "replay",
    "replay::list",
    "replay::arguments",
    "replay::progress",
    "replay::publisher",
    "replay::survey",
    "replay::tally",
    "replay::filter",
    "replay::standing",
    "replay::letter",
    "run",
    "status",
    "reading",
    "follow",
    "poll",
    "poll::hosts",
    "poll::context",
    "lane",
    "lane::host",
    "lane::active",
    "report",
    "lane::take_over",
    "lane::mend",
    "shared",
    "setup",
    "metrics",
    "board",
    "handle::http",
    "handle",
    "lane::transaction",
    "lane::reports",
    "lane::proof",
    "lane::output",
    "feed",
    "lane::mail",
    "lane::window",
    "lane::window::admission",
    "lane::window::settlement",
    "lane::recall",
    "lane::batch",
    "lane::waiting",
    "delivery",
    "lane::ledger",
    "flood_guard",
    "pace",
    "state",
    "state::codec",
    "state::table",
    "route",
    "settle",
    "outcome",
    "retry",
    "dead_letter",
];

/// Imports that point up, each with its reason. Whoever takes one away takes it off this list.
const UPWARD: &[(&str, &str, &str)] = &[
    ("ingest/list_presets", "cli", "prints in the form that the command line asks for"),
    ("ingest/verify_file", "cli", "prints in the form that the command line asks for"),
    ("ingest/send_test", "cli", "runs on what the command line loaded"),
    ("ingest/run", "cli", "runs on what the command line loaded"),
    ("ingest/reload", "cli", "loads again what the command line loaded"),
    ("ingest/quarantine", "cli", "runs on what the command line loaded"),
    ("ingest/quarantine::list", "cli", "prints in the form that the command line asks for"),
    ("processor/run", "cli", "runs on what the command line loaded"),
    ("processor/shared", "poll", "holds the member, whose type names its context"),
    ("processor/board", "shared", "locks as everybody does"),
];

fn is_in(path: &str, list: &[&str]) -> bool {
    list.iter().any(|entry| match entry.strip_suffix('*') {
        Some(folder) => path.starts_with(folder),
        None => path == *entry,
    })
}

fn names_crate(source: &Source, krate: &str) -> bool {
    source.shipped.paths.iter().any(|path| path[0] == krate)
}

#[test]
fn pure_files_touch_nothing() {
    for source in shipped().filter(|source| is_in(&source.path, PURE)) {
        for path in &source.shipped.paths {
            let at = path.join("::");
            assert!(!IMPURE_CRATES.contains(&path[0].as_str()), "{} is pure and names {at}", source.path);
            let named = path.iter().any(|part| IMPURE_NAMES.contains(&part.as_str()));
            assert!(!named, "{} is pure and names {at}; take the time as an argument", source.path);
            let does =
                path[0] == "std" && path.get(1).is_some_and(|part| IMPURE_STD.contains(&part.as_str()));
            assert!(!does, "{} is pure and names {at}", source.path);
        }
    }
}

#[test]
fn each_crate_is_named_only_where_it_belongs() {
    for (krate, files) in ONLY_IN {
        for source in shipped().filter(|source| names_crate(source, krate)) {
            assert!(is_in(&source.path, files), "{} names {krate}, which is for {files:?}", source.path);
        }
    }
}

#[test]
fn lists_name_only_what_is_there() {
    let exists = |entry: &&&str| shipped().any(|source| is_in(&source.path, &[entry]));
    let pure = PURE.iter();
    assert_eq!(pure.filter(|entry| !exists(entry)).collect::<Vec<_>>(), Vec::<&&str>::new());
    for (krate, files) in ONLY_IN {
        let named = |entry: &&&str| {
            shipped().any(|source| is_in(&source.path, &[entry]) && names_crate(source, krate))
        };
        let idle: Vec<_> = files.iter().filter(|entry| !named(entry)).collect();
        assert!(idle.is_empty(), "{idle:?} no longer need {krate}");
    }
    for (krate, order) in [("ingest", INGEST), ("processor", PROCESSOR)] {
        let modules: BTreeSet<_> = modules(krate).map(Source::module).collect();
        let known: BTreeSet<_> = order.iter().map(|module| (*module).to_owned()).collect();
        assert_eq!(known.len(), order.len(), "{krate}: a module is listed twice");
        let strangers: Vec<_> = modules.symmetric_difference(&known).collect();
        assert!(strangers.is_empty(), "{krate}: give {strangers:?} a place in the order, or take it off");
    }
}

#[test]
fn imports_point_down_the_path() {
    let mut used = BTreeSet::new();
    for (krate, order) in [("ingest", INGEST), ("processor", PROCESSOR)] {
        for source in modules(krate) {
            let from = source.module();
            for to in imports(source, order) {
                let upward = UPWARD.iter().position(|(f, t, _)| *f == format!("{krate}/{from}") && *t == to);
                used.extend(upward);
                let points_down = place(order, &from) < place(order, to);
                assert!(
                    points_down || upward.is_some(),
                    "{krate}: {from} imports {to}, which stands above it in the order"
                );
            }
        }
    }
    let idle: Vec<_> = (0..UPWARD.len()).filter(|at| !used.contains(at)).map(|at| UPWARD[at]).collect();
    assert!(idle.is_empty(), "no longer there: {idle:?}");
}

fn modules(krate: &str) -> impl Iterator<Item = &'static Source> {
    let is_root = |source: &Source| ["lib", "main"].contains(&&*source.module());
    let is_within = move |source: &&Source| source.path.starts_with(&format!("{krate}/src/"));
    shipped().filter(is_within).filter(move |source| !is_root(source))
}

fn place(order: &[&str], module: &str) -> Option<usize> {
    order.iter().position(|known| *known == module)
}

/// The modules of its own crate that a file names; a module and its own children are one.
fn imports<'o>(source: &Source, order: &[&'o str]) -> BTreeSet<&'o str> {
    let from = source.module();
    let mut found = BTreeSet::new();
    for path in &source.shipped.paths {
        let Some(path) = absolute(&from, path) else { continue };
        let named = (1..=path.len()).rev().find_map(|length| {
            let module = path[..length].join("::");
            order.iter().find(|known| **known == module)
        });
        found.extend(named.filter(|to| !is_family(&from, to)));
    }
    found
}

/// `crate::…` and `super::…` from the crate's root on.
fn absolute(module: &str, path: &[String]) -> Option<Vec<String>> {
    let mut base: Vec<String> = match path[0].as_str() {
        "crate" => Vec::new(),
        "super" => {
            let mut base: Vec<String> = module.split("::").map(str::to_owned).collect();
            base.pop();
            base
        }
        _ => return None,
    };
    let mut rest = &path[1..];
    while rest.first().is_some_and(|part| part == "super") {
        base.pop();
        rest = &rest[1..];
    }
    base.extend_from_slice(rest);
    Some(base)
}

fn is_family(one: &str, other: &str) -> bool {
    let inside = |inner: &str, outer: &str| inner == outer || inner.starts_with(&format!("{outer}::"));
    inside(one, other) || inside(other, one)
}
