//! The configuration as text: one TOML file, and the environment variables that override it.
//!
//! What the values mean is not known here; `section.rs` asks for them by type.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, Place};

/// What the variables that override the file begin with.
pub const VARIABLE_PREFIX: &str = "HOOKWELL__";

/// The tables that variables may set: those of which there is just one.
const OVERRIDABLE: &[&str] = &["kafka", "ingest", "processor", "retry", "log"];

/// The process environment, read once.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process. Variables that are not UTF-8 are passed over.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn of_this_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// The value of one variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<'v> FromIterator<(&'v str, &'v str)> for Environment {
    fn from_iter<T: IntoIterator<Item = (&'v str, &'v str)>>(variables: T) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        variables.into_iter().collect()
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value as it was written.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    /// From the environment: becomes whatever type it is asked for.
    Variable(String),
    /// A date, or a number beyond 64 bits: nothing that we ask for.
    Other(&'static str),
}

impl Value {
    /// What the value is, for a sentence that says it should be something else.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Value::Text(_) | Value::Variable(_) => "text",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Boolean(_) => "a boolean",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

/// The entries of a table, by key.
pub(super) type Table = BTreeMap<String, Node>;

/// Reads `text`, which stands in `path`, and lets the environment override it.
pub(super) fn parse(path: &Path, text: &str, environment: &Environment, faults: &mut Faults) -> Node {
    let source = Source { path: Arc::new(path.to_path_buf()), text };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = error.span().map_or_else(|| source.whole(), |span| source.place(span.start));
        faults.add(&place, "", format!("not TOML: {}", error.message()));
    }
    let mut root = source.table(document.get_ref());
    override_from(environment, &mut root, faults);
    Node { place: source.whole(), value: Value::Table(root) }
}

/// The file, to find the lines of what stands in it.
struct Source<'a> {
    path: Arc<PathBuf>,
    text: &'a str,
}

impl Source<'_> {
    fn whole(&self) -> Place {
        Place::File(Arc::clone(&self.path))
    }

    fn place(&self, offset: usize) -> Place {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Place::Line(Arc::clone(&self.path), line)
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        table
            .iter()
            .map(|(key, value)| {
                // An inline value is best found by its key, for its own span may be that of a
                // table header far above.
                let node = Node { place: self.place(key.span().start), ..self.node(value) };
                (key.get_ref().to_string(), node)
            })
            .collect()
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        let place = self.place(value.span().start);
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Other("an integer too large"), Value::Integer),
            DeValue::Float(number) => {
                number.as_str().parse().map_or(Value::Other("a number too large"), Value::Float)
            }
            DeValue::Boolean(yes) => Value::Boolean(*yes),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(items) => Value::List(items.iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { place, value }
    }
}

/// `HOOKWELL__TABLE__KEY` sets `key` of `[table]`; `HOOKWELL__KAFKA__PROPERTIES__SASL_USERNAME`
/// sets the property `sasl.username`, for a variable's name cannot hold a dot.
fn override_from(environment: &Environment, root: &mut Table, faults: &mut Faults) {
    for (variable, value) in &environment.0 {
        let Some(path) = variable.strip_prefix(VARIABLE_PREFIX) else {
            continue;
        };
        let place = Place::Variable(variable.clone());
        let lower = path.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split("__").collect();
        let (table, inner, key) = match parts.as_slice() {
            [table, key] => (*table, None, (*key).to_owned()),
            ["kafka", inner @ "properties", key] => ("kafka", Some(*inner), key.replace('_', ".")),
            ["kafka", inner @ "retention", key] => ("kafka", Some(*inner), (*key).to_owned()),
            ["ingest", inner @ "spool", key] => ("ingest", Some(*inner), (*key).to_owned()),
            _ => ("", None, String::new()),
        };
        if !OVERRIDABLE.contains(&table) || key.is_empty() {
            let tables = OVERRIDABLE.join(", ").to_ascii_uppercase();
            let what = format!(
                "names no setting; write {VARIABLE_PREFIX}TABLE__KEY with one of the tables {tables}"
            );
            faults.add(&place, "", what);
            continue;
        }
        let target = [Some(table), inner].into_iter().flatten().try_fold(&mut *root, |at, name| {
            let empty = Node { place: place.clone(), value: Value::Table(Table::new()) };
            let entry = &mut at.entry(name.to_owned()).or_insert(empty).value;
            if let Value::Table(entries) = entry { Some(entries) } else { None }
        });
        if let Some(entries) = target {
            entries.insert(key, Node { place, value: Value::Variable(value.clone()) });
        }
    }
}
