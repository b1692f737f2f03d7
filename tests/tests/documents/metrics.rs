//! `docs/metrics.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hookwell_common::config::{Config, Environment, Faults};
use hookwell_common::telemetry::{BUILD_INFO, Registry, register_build_info};
use hookwell_ingest::source::resolve_all;
use prometheus::proto::{MetricFamily, MetricType};

use super::page::{Page, all_pages};

const CONFIG: &str = "
[[sources]]
name = 'github'
preset = 'github'
secrets = [{ env = 'SECRET' }]
[[destinations]]
name = 'orders'
kind = 'log'
";

/// Labels whose values are ours and not the configuration's.
const CLOSED: [&str; 6] = ["outcome", "settlement", "reason", "result", "state", "program"];

/// Every series of both programs, as it is at the start.
fn registered() -> Vec<MetricFamily> {
    let environment = Environment::from([("SECRET", "secret")]);
    let mut faults = Faults::default();
    let config = Config::parse(Path::new("metrics.toml"), CONFIG, &environment, &mut faults);
    let sources = resolve_all(&config, &environment, &mut faults);
    faults.into_result(()).unwrap();

    let ingest = Registry::new();
    let metrics = hookwell_ingest::metrics::Metrics::register(&ingest).unwrap();
    sources.values().for_each(|source| drop(metrics.of_source(source)));
    let processor = hookwell_processor::metrics::at_start(&config).unwrap();
    let about = Registry::new();
    register_build_info(&about, "ingest").unwrap();
    let more = Registry::new();
    register_build_info(&more, "processor").unwrap();
    [ingest, processor, about, more].iter().flat_map(Registry::gather).collect()
}

fn names_of_labels(family: &MetricFamily) -> BTreeSet<String> {
    family.get_metric()[0].get_label().iter().map(|label| label.name().to_owned()).collect()
}

fn word(kind: MetricType) -> &'static str {
    match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => "none of ours",
    }
}

#[test]
fn every_series_is_documented_with_its_type_and_its_labels_and_no_other_is() {
    let is = |family: &MetricFamily| {
        let kind = word(family.get_field_type()).to_owned();
        (family.name().to_owned(), (kind, names_of_labels(family)))
    };
    let registered: BTreeMap<_, _> = registered().iter().map(is).collect();
    let rows = Page::read("docs/metrics.md").tables("series").into_iter().flat_map(|table| table.rows);
    let documented: Vec<_> = rows
        .map(|row| (row.code(0), (row.cell(1).to_owned(), row.codes(2).into_iter().collect::<BTreeSet<_>>())))
        .collect();
    let distinct: BTreeMap<_, _> = documented.iter().cloned().collect();
    assert_eq!(distinct.len(), documented.len(), "a series is there twice");
    assert_eq!(distinct, registered);
    let all = [hookwell_ingest::metrics::ALL, hookwell_processor::metrics::ALL, &[BUILD_INFO]].concat();
    assert_eq!(distinct.keys().map(String::as_str).collect::<BTreeSet<_>>(), all.into_iter().collect());
}

#[test]
fn every_value_of_a_label_of_ours_is_documented() {
    let mut known: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for family in registered() {
        for label in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
            if CLOSED.contains(&label.name()) {
                let name = (label.name().to_owned(), family.name().to_owned());
                known.entry(name).or_default().insert(label.value().to_owned());
            }
        }
    }
    let table = Page::read("docs/metrics.md").table("Label values");
    let mut documented = BTreeMap::new();
    for row in table.rows {
        for series in row.codes(1) {
            documented.insert((row.code(0), series), row.codes(2).into_iter().collect::<BTreeSet<_>>());
        }
    }
    assert_eq!(documented, known);
}

#[test]
fn every_series_that_a_page_names_exists() {
    let crates =
        ["hookwell_common", "hookwell_ingest", "hookwell_processor", "hookwell_tests", "hookwell_bench"];
    let all = [hookwell_ingest::metrics::ALL, hookwell_processor::metrics::ALL, &[BUILD_INFO]].concat();
    for page in all_pages() {
        let words = page.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("hookwell_") && !crates.contains(word)) {
            let series = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            let is_known = all.contains(&word) || series.is_some_and(|series| all.contains(&series));
            assert!(is_known, "{} names {word}", page.path.display());
        }
    }
}
