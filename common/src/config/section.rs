//! One table of the configuration, asked key by key and type by type.
//!
//! Nothing here stops at the first fault: a value that cannot be used is noted and its default
//! taken, so that one reading finds everything. A key that nobody asked for is a fault too, for
//! a typo must not become a default.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Node, Table, Value};
use super::fault::{Faults, Place};
use super::key_material::KeyMaterial;
use crate::event::Name;

/// A value together with where it stands, for what can only be judged later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<T> {
    /// Where.
    pub place: Place,
    /// What.
    pub value: T,
}

/// What all sections of one reading share.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) faults: RefCell<Faults>,
    /// Every key that was asked for, numbers left out: `sources[].name`.
    pub(super) asked: RefCell<BTreeSet<String>>,
    /// Where each key stands that was asked for.
    places: RefCell<BTreeMap<String, Place>>,
}

impl Reading {
    /// Where `path` stands, or the table around it.
    pub(super) fn place_of(&self, path: &str) -> Option<Place> {
        self.places.borrow().get(path).cloned()
    }
}

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    reading: &'a Reading,
    entries: Option<&'a Table>,
    path: String,
    place: Place,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(reading: &'a Reading, node: &'a Node) -> Self {
        Self::new(reading, String::new(), node.place.clone(), Some(node))
    }

    fn new(reading: &'a Reading, path: String, place: Place, node: Option<&'a Node>) -> Self {
        let entries = match node.map(|node| &node.value) {
            Some(Value::Table(entries)) => Some(entries),
            Some(other) => {
                let what = format!("must be a table, and is {}", other.describe());
                reading.faults.borrow_mut().add(&place, path.clone(), what);
                None
            }
            None => None,
        };
        Self { reading, entries, path, place, asked: RefCell::default() }
    }

    /// Where the table stands.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Where `key` stands; the table itself where it is absent.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.entries.and_then(|entries| entries.get(key)).map_or(&self.place, |node| &node.place).clone()
    }

    /// The table as a path: `sources[0].hmac`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn fault_here(&self, what: impl Into<String>) {
        self.reading.faults.borrow_mut().add(&self.place, self.path.clone(), what);
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    pub(super) fn fault(&self, key: &str, what: impl Into<String>) {
        self.reading.faults.borrow_mut().add(&self.place_of(key), self.path_of(key), what);
    }

    pub(super) fn missing(&self, key: &str, why: &str) {
        self.fault(key, format!("is missing; {why}"));
    }

    /// The table under `key`, empty where it is absent.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        Section::new(self.reading, self.path_of(key), self.place_of(key), self.node(key))
    }

    /// Reads the table under `key` whole.
    pub(super) fn read_with<T>(&self, key: &'static str, read: impl FnOnce(&Section<'_>) -> T) -> T {
        let section = self.section(key);
        let value = read(&section);
        section.finish();
        value
    }

    /// The tables under `[[key]]`.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let node = self.node(key);
        let items: &[Node] = match node.map(|node| &node.value) {
            Some(Value::List(items)) => items,
            Some(other) => {
                self.fault(key, format!("must be [[{key}]] tables, and is {}", other.describe()));
                &[]
            }
            None => &[],
        };
        let section = |(index, item): (usize, &'a Node)| {
            Section::new(
                self.reading,
                format!("{}[{index}]", self.path_of(key)),
                item.place.clone(),
                Some(item),
            )
        };
        items.iter().enumerate().map(section).collect()
    }

    /// The keys that the table holds, for one whose keys are not ours to know.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.entries.into_iter().flat_map(|entries| entries.keys().map(String::as_str))
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.read(key, "text", as_text)
    }

    pub(super) fn placed_text(&self, key: &'static str) -> Option<Placed<String>> {
        self.text(key).map(|value| Placed { place: self.place_of(key), value })
    }

    pub(super) fn boolean(&self, key: &'static str, default: bool) -> bool {
        self.read(key, "true or false", as_boolean).unwrap_or(default)
    }

    pub(super) fn integer<T>(&self, key: &'static str, range: RangeInclusive<T>, default: T) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        let read =
            |node: &Node| as_integer(node).and_then(|n| T::try_from(n).ok()).filter(|n| range.contains(n));
        self.read(key, &expected, read).unwrap_or(default)
    }

    /// A share, from 0 to 1.
    pub(super) fn share(&self, key: &'static str) -> Option<f64> {
        self.read(key, "a number from 0 to 1", |node| {
            as_float(node).filter(|share| (0.0..=1.0).contains(share))
        })
    }

    pub(super) fn duration(&self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let expected = format!(
            "a duration such as \"30s\" or \"7d\", from {} to {}",
            humantime::format_duration(*range.start()),
            humantime::format_duration(*range.end())
        );
        self.read(key, &expected, |node| as_duration(node).filter(|duration| range.contains(duration)))
    }

    pub(super) fn durations(&self, key: &'static str) -> Option<Vec<Duration>> {
        self.list(key, "durations such as \"30s\"", as_duration)
    }

    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.list(key, "texts", as_text)
    }

    /// A list whose items `parse` understands.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        self.list(key, expected, |node| as_text(node).and_then(|text| parse(&text))).unwrap_or_default()
    }

    /// One of the words of `choices`.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)], default: T) -> T {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        let find = |node: &Node| {
            let text = as_text(node)?;
            choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice)
        };
        self.read(key, &format!("one of {}", words.join(", ")), find).unwrap_or(default)
    }

    /// The `name` of a source or destination.
    pub(super) fn name(&self, key: &'static str) -> Name {
        if !self.has(key) {
            self.missing(key, "each needs a name of its own");
        }
        let name = self.read(key, Name::RULE, |node| as_text(node).and_then(|text| Name::new(&text)));
        name.unwrap_or_else(Name::unreadable)
    }

    /// `{ env = "…" }` or `{ file = "…" }`. What stands there instead is never repeated: it may be
    /// the secret itself.
    pub(super) fn key_material(&self, key: &str) -> Option<KeyMaterial> {
        self.note(key);
        let node = self.entries?.get(key)?;
        self.key_material_of(self.path_of(key), node, KeyMaterial::read)
    }

    /// A list of the same, or of `{ fetched = true }`.
    pub(super) fn key_materials(&self, key: &'static str) -> Vec<KeyMaterial> {
        match self.node(key).map(|node| &node.value) {
            Some(Value::List(items)) => items
                .iter()
                .enumerate()
                .filter_map(|(index, item)| {
                    let path = format!("{}[{index}]", self.path_of(key));
                    self.key_material_of(path, item, KeyMaterial::read_secret)
                })
                .collect(),
            Some(_) => {
                self.fault(key, format!("must be a list; each item {}", KeyMaterial::RULE));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn key_material_of(
        &self,
        path: String,
        node: &'a Node,
        read: impl FnOnce(&Section<'_>) -> Option<KeyMaterial>,
    ) -> Option<KeyMaterial> {
        if !matches!(node.value, Value::Table(_)) {
            self.reading.faults.borrow_mut().add(&node.place, path, KeyMaterial::RULE);
            return None;
        }
        let section = Section::new(self.reading, path, node.place.clone(), Some(node));
        let material = read(&section);
        section.finish();
        material
    }

    /// A value of any type, as text; for librdkafka's properties.
    pub(super) fn anything(&self, key: &str) -> Option<String> {
        self.note(key);
        let node = self.entries?.get(key)?;
        match &node.value {
            Value::Text(text) | Value::Variable(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::Boolean(yes) => Some(yes.to_string()),
            Value::Table(_) | Value::List(_) | Value::Other(_) => {
                self.fault(key, "must be text, a number or a boolean");
                None
            }
        }
    }

    /// Whether `key` holds a table.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.entries
            .and_then(|entries| entries.get(key))
            .is_some_and(|node| matches!(node.value, Value::Table(_)))
    }

    /// Notes each key that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for key in self.keys().filter(|key| !asked.contains(*key)) {
            let nearest = asked.iter().max_by(|a, b| {
                let likeness = |other: &str| strsim::jaro_winkler(key, other);
                likeness(a).total_cmp(&likeness(b))
            });
            let hint = match nearest {
                Some(known) if strsim::jaro_winkler(key, known) > 0.8 => format!("did you mean {known:?}?"),
                _ => {
                    format!("known here: {}", asked.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
                }
            };
            self.fault(key, format!("is not a key of this table; {hint}"));
        }
    }

    fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.note(key);
        self.entries?.get(key)
    }

    fn note(&self, key: &str) {
        self.asked.borrow_mut().insert(key.to_owned());
        self.reading.places.borrow_mut().insert(self.path_of(key), self.place_of(key));
        let without_numbers: String = self.path_of(key).chars().filter(|c| !c.is_ascii_digit()).collect();
        self.reading.asked.borrow_mut().insert(without_numbers);
    }

    fn read<T>(&self, key: &'static str, expected: &str, parse: impl Fn(&Node) -> Option<T>) -> Option<T> {
        let node = self.node(key)?;
        let value = parse(node);
        if value.is_none() {
            self.fault(key, format!("must be {expected}, and is {}", shown(&node.value)));
        }
        value
    }

    fn list<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let node = self.node(key)?;
        let words;
        let items = match &node.value {
            Value::List(items) => items,
            // A variable holds a list as words with commas between them.
            Value::Variable(text) => {
                let word = |word: &str| Node {
                    place: node.place.clone(),
                    value: Value::Variable(word.trim().to_owned()),
                };
                words = text.split(',').filter(|word| !word.trim().is_empty()).map(word).collect();
                &words
            }
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Table(_)
            | Value::Other(_) => {
                self.fault(key, format!("must be a list of {expected}, and is {}", node.value.describe()));
                return None;
            }
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            match parse(item) {
                Some(value) => values.push(value),
                None => {
                    let what =
                        format!("must be a list of {expected}, and one item is {}", shown(&item.value));
                    self.reading.faults.borrow_mut().add(&item.place, self.path_of(key), what);
                }
            }
        }
        Some(values)
    }
}

/// A wrong value, as an error repeats it.
fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) | Value::Variable(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(_) | Value::List(_) | Value::Table(_) | Value::Other(_) => value.describe().to_owned(),
    }
}

fn as_text(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) | Value::Variable(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => None,
        Value::List(_) | Value::Table(_) | Value::Other(_) => None,
    }
}

fn as_boolean(node: &Node) -> Option<bool> {
    match &node.value {
        Value::Boolean(yes) => Some(*yes),
        Value::Variable(text) => text.parse().ok(),
        Value::Text(_) | Value::Integer(_) | Value::Float(_) => None,
        Value::List(_) | Value::Table(_) | Value::Other(_) => None,
    }
}

fn as_integer(node: &Node) -> Option<i64> {
    match &node.value {
        Value::Integer(number) => Some(*number),
        Value::Variable(text) => text.parse().ok(),
        Value::Text(_) | Value::Float(_) | Value::Boolean(_) => None,
        Value::List(_) | Value::Table(_) | Value::Other(_) => None,
    }
}

fn as_float(node: &Node) -> Option<f64> {
    match &node.value {
        Value::Float(number) => Some(*number),
        Value::Integer(number) => i32::try_from(*number).ok().map(f64::from),
        Value::Variable(text) => text.parse().ok(),
        Value::Text(_) | Value::Boolean(_) => None,
        Value::List(_) | Value::Table(_) | Value::Other(_) => None,
    }
}

fn as_duration(node: &Node) -> Option<Duration> {
    humantime::parse_duration(as_text(node)?.trim()).ok()
}
