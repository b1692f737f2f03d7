//! `docs/configuration.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hookwell_common::config::{Config, Environment, FIXED_PROPERTIES, Fault, Faults, known_keys};
use hookwell_ingest::source::resolve_all;

use super::page::{Page, Row, codes_in};

fn page() -> Page {
    Page::read("docs/configuration.md")
}

/// The row of each key.
fn rows() -> BTreeMap<String, Row> {
    let rows: Vec<_> = page().tables("key").into_iter().flat_map(|table| table.rows).collect();
    let count = rows.len();
    let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.code(0), row)).collect();
    assert_eq!(rows.len(), count, "a key is there twice");
    rows
}

fn parse(text: &str) -> (Config, Vec<Fault>) {
    let mut faults = Faults::default();
    let config = Config::parse(Path::new("x.toml"), text, &Environment::default(), &mut faults);
    (config, faults.into_sorted())
}

/// A file in which `line`, if there is one, sets the key at `path`, as small as it can be.
fn file(path: &str, line: &str) -> String {
    let (table, key) = path.rsplit_once('.').unwrap();
    let unless =
        |name: &str, value: &str| if key == name { String::new() } else { format!("{name} = {value}\n") };
    match table {
        "sources[]" => format!("[[sources]]\n{}{line}\n", unless("name", "'a'")),
        "sources[].hmac" => format!(
            "[[sources]]\nname = 'a'\nsecrets = [{{ env = 'S' }}]\n[sources.hmac]\n{}{}{line}\n",
            unless("header", "'x-signature'"),
            if ["timestamp_unit", "tolerance"].contains(&key) { "timestamp = 'header:x'\n" } else { "" }
        ),
        "sources[].secrets[]" => format!("[[sources]]\nname = 'a'\nsecrets = [{{ {line} }}]\n"),
        "sources[].handshake_token" => {
            format!("[[sources]]\nname = 'a'\nhandshake_token = {{ {line} }}\n")
        }
        "destinations[]" => {
            format!("[[destinations]]\n{}{}{line}\n", unless("name", "'a'"), unless("kind", "'custom'"))
        }
        "destinations[].retry" => {
            format!("[[destinations]]\nname = 'a'\nkind = 'custom'\n[destinations.retry]\n{line}\n")
        }
        "destinations[].signing_secret" => {
            format!("[[destinations]]\nname = 'a'\nkind = 'custom'\nsigning_secret = {{ {line} }}\n")
        }
        "routes[]" => format!("[[routes]]\n{}{}{line}\n", unless("source", "'*'"), unless("to", "[]")),
        table => format!("[{table}]\n{line}\n"),
    }
}

/// What must stand at `path`, in the words of the message for something else.
fn demanded(path: &str) -> Option<String> {
    let key = path.rsplit('.').next()?;
    let (_, faults) = parse(&file(path, &format!("{key} = {{}}")));
    let full = path.replace("[]", "[0]");
    let words = faults.iter().filter(|fault| fault.key == full).find_map(|fault| {
        fault.what.strip_prefix("must be ")?.split_once(", and is a table").map(|(words, _)| words)
    })?;
    let mut words = words.replace(" such as \"30s\" or \"7d\",", "");
    for example in [" such as \"30s\"", " such as \"10.0.0.0/8\""] {
        words = words.replace(example, "");
    }
    Some(["a ", "an "].iter().find_map(|article| words.strip_prefix(article)).unwrap_or(&words).to_owned())
}

#[test]
fn every_key_is_documented_and_no_other_is() {
    let known: BTreeSet<_> = known_keys().into_iter().collect();
    assert_eq!(rows().into_keys().collect::<BTreeSet<_>>(), known);
}

#[test]
fn every_key_has_the_type_and_the_bounds_that_its_message_tells() {
    for (key, row) in rows() {
        if key == "kafka.properties" {
            continue;
        }
        let demanded = demanded(&key).unwrap_or_else(|| panic!("{key} takes a table"));
        assert_eq!(row.cell(1).replace('`', ""), demanded, "{key}");
    }
}

#[test]
fn a_documented_default_changes_nothing() {
    for (path, row) in rows() {
        let default = row.code(2);
        if !row.cell(2).starts_with('`') {
            continue;
        }
        let key = path.rsplit('.').next().unwrap();
        let (without, _) = parse(&file(&path, ""));
        let (with, faults) = parse(&file(&path, &format!("{key} = {default}")));
        let at_key: Vec<_> = faults.iter().filter(|fault| fault.key == path.replace("[]", "[0]")).collect();
        assert!(at_key.is_empty(), "{path} = {default}: {at_key:?}");
        if path.starts_with("sources[].hmac") {
            let environment = Environment::from([("S", "secret")]);
            let mut faults = Faults::default();
            let recipe = |config: &Config, faults: &mut Faults| {
                format!("{:?}", resolve_all(config, &environment, faults)["a"].scheme)
            };
            assert_eq!(recipe(&with, &mut faults), recipe(&without, &mut faults), "{path} = {default}");
        } else {
            assert_eq!(with, without, "{path} = {default}");
        }
    }
}

#[test]
fn every_default_is_documented() {
    let text = "[[sources]]\nname = 'a'\n[[destinations]]\nname = 'a'\nkind = 'log'\n";
    let (config, _) = parse(text);
    let rows = rows();
    let mut table = String::new();
    for line in config.to_string().lines() {
        if let Some(name) = line.strip_prefix("[[") {
            table = name.replace("]]", "[]");
        } else if let Some(name) = line.strip_prefix('[') {
            table = name.replace(']', "").replace("destinations.", "destinations[].");
        } else if let Some((key, _)) = line.split_once(" = ") {
            let key = format!("{table}.{key}");
            let Some(row) = rows.get(&key) else {
                assert!(key == "sources[].secrets", "{key} has a default and no row");
                continue;
            };
            let cell = row.cell(2);
            let is_told = cell.starts_with('`') || cell == "required" || cell.starts_with("that of");
            assert!(is_told, "{key} has a default: {line}");
        }
    }
}

#[test]
fn the_fixed_properties_are_those_that_are_refused() {
    let section = page().section("Fixed properties");
    let list = section.lines().filter(|line| line.starts_with("- ")).collect::<Vec<_>>().join("\n");
    assert_eq!(codes_in(&list), FIXED_PROPERTIES);
}
