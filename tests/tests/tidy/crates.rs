//! Which crate may depend on which, and what every crate says of itself.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use hookwell_tests::kafka::project;
use toml::Table;

use super::source::CRATES;

/// Each crate, and those of ours that it may depend on.
const MAY_DEPEND_ON: [(&str, &[&str]); 7] = [
    ("common", &[]),
    ("ingest", &["common"]),
    ("processor", &["common"]),
    // It judges the others, and so shares no code with any.
    ("tests/auditor", &[]),
    ("tests/fuzz", &["common", "ingest", "processor"]),
    ("tests", &["auditor", "common", "ingest", "processor"]),
    // Measures the same programs on the same Kafka as the tests do, and ships as little; writes states
    // in bulk.
    ("bench", &["common", "processor", "tests"]),
];

fn manifest(krate: &str) -> Result<Table> {
    let path = project().join(krate).join("Cargo.toml");
    fs::read_to_string(&path)?.parse().with_context(|| path.display().to_string())
}

/// The crates of ours in every table of dependencies.
fn dependencies(manifest: &Table) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            let ours = table.keys().filter_map(|name| name.strip_prefix("hookwell-"));
            found.extend(ours.map(str::to_owned));
        } else {
            found.extend(dependencies(table));
        }
    }
    found
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    for (krate, allowed) in MAY_DEPEND_ON {
        for found in dependencies(&manifest(krate).unwrap()) {
            assert!(allowed.contains(&found.as_str()), "{krate} may not depend on {found}");
        }
    }
}

#[test]
fn every_crate_is_known_here() {
    let workspace: Table = fs::read_to_string(project().join("Cargo.toml")).unwrap().parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let members: BTreeSet<_> = members.iter().map(|member| member.as_str().unwrap()).collect();
    assert_eq!(members, BTreeSet::from(CRATES));
    assert_eq!(members, MAY_DEPEND_ON.map(|(krate, _)| krate).into());
}

#[test]
fn versions_and_lints_are_those_of_the_workspace() {
    for krate in CRATES {
        let manifest = manifest(krate).unwrap();
        let inherits = |value: Option<&toml::Value>| {
            value.and_then(|value| value.get("workspace")?.as_bool()).unwrap_or(false)
        };
        assert!(inherits(manifest.get("lints")), "{krate} must say [lints] workspace = true");
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in manifest.get(table).and_then(|table| table.as_table()).into_iter().flatten()
            {
                assert!(inherits(Some(value)), "{krate}: the version of {name} belongs into the workspace");
            }
        }
    }
}
