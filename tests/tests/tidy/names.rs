//! Names that others rely on stand as text in one file each, and fail-points in one place each.

use std::collections::BTreeMap;

use super::source::shipped;

/// What an HTTP destination receives beside the headers of records.
const HTTP_HEADERS: &[&str] = &[
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "hookwell-source",
    "hookwell-event-id",
    "hookwell-event-type",
];

/// Names that HTTP has as well, and that ingest reads from requests.
const ALSO_HTTP: &[&str] = &["content-type", "traceparent"];

#[test]
fn metric_names_stand_in_one_file_each() {
    let homes = [
        (hookwell_ingest::metrics::ALL, "ingest/src/metrics.rs"),
        (hookwell_processor::metrics::ALL, "processor/src/metrics.rs"),
        (&[hookwell_common::telemetry::BUILD_INFO], "common/src/telemetry.rs"),
    ];
    for (names, home) in homes {
        for name in names {
            assert_eq!(files_with(name), BTreeMap::from([(home, 1)]), "{name} belongs into {home}, once");
        }
    }
    let is_metric = |text: &&String| {
        ["hookwell_ingest_", "hookwell_processor_"].iter().any(|prefix| text.starts_with(prefix))
    };
    for source in shipped() {
        let known = homes.iter().any(|(_, home)| *home == source.path);
        let stray = source.shipped.literals.iter().find(is_metric);
        assert!(known || stray.is_none(), "{}: {stray:?} is a metric's name", source.path);
    }
}

#[test]
fn header_names_stand_in_their_own_files() {
    // The codec matches the names as bytes; a test of its own holds them against the constants.
    let of_records = ["common/src/headers.rs", "common/src/record.rs"];
    let of_requests = "processor/src/handle/http.rs";
    for name in hookwell_common::headers::ALL.iter().filter(|name| !ALSO_HTTP.contains(name)) {
        for (file, _) in files_with(name) {
            let both = file == of_requests && ["hookwell-attempt", "hookwell-generation"].contains(name);
            assert!(of_records.contains(&file) || both, "{file}: {name} is the name of a record's header");
        }
    }
    for name in hookwell_common::headers::QUARANTINE {
        assert_eq!(files_with(name), BTreeMap::from([("common/src/headers.rs", 1)]), "{name}");
    }
    for name in HTTP_HEADERS {
        assert_eq!(files_with(name), BTreeMap::from([(of_requests, 1)]), "{name} belongs there, once");
    }
}

#[test]
fn every_failpoint_stands_in_one_place() {
    let mut found = BTreeMap::new();
    for name in shipped().flat_map(|source| &source.shipped.failpoints) {
        *found.entry(name.as_str()).or_insert(0) += 1;
    }
    use hookwell_common::failpoint::{ALL, GUARDS};
    let expected: BTreeMap<_, _> = ALL.iter().chain(GUARDS).map(|name| (*name, 1)).collect();
    assert_eq!(found, expected);
}

/// The files in which a text stands, and how often.
fn files_with(text: &str) -> BTreeMap<&'static str, usize> {
    let mut found = BTreeMap::new();
    for source in shipped() {
        let count = source.shipped.literals.iter().filter(|literal| *literal == text).count();
        if 0 < count {
            found.insert(source.path.as_str(), count);
        }
    }
    found
}
