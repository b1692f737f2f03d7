//! Where key material comes from: the environment or a file, never the configuration itself.

use std::fmt;
use std::path::PathBuf;

use super::document::Environment;
use super::fault::{Faults, Place};
use super::section::Section;
use crate::secret::Secret;

/// Names a secret without holding it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMaterial {
    /// Where the configuration says so.
    pub place: Place,
    /// The key as a path: `sources[0].secrets[0]`.
    pub key: String,
    /// Where the bytes are.
    pub origin: KeyOrigin,
    /// The sender's name for this key, where it names one.
    pub id: Option<String>,
}

/// Where a secret's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// An environment variable.
    Variable(String),
    /// A file; one line end at its end does not count.
    File(PathBuf),
    /// Nowhere yet: a public key that its sender publishes, of which ingest knows where.
    Published,
}

impl KeyMaterial {
    pub(super) const RULE: &'static str =
        "must be { env = \"NAME\" } or { file = \"PATH\" }: key material does not belong in this file";

    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        Self::read_with(section, false)
    }

    /// The same, where `fetched = true` may stand instead.
    pub(super) fn read_secret(section: &Section<'_>) -> Option<Self> {
        let is_published = section.boolean("fetched", false);
        Self::read_with(section, is_published)
    }

    fn read_with(section: &Section<'_>, is_published: bool) -> Option<Self> {
        let variable = section.text("env");
        let file = section.text("file");
        let id = section.text("id");
        let origin = match (variable, file) {
            (None, None) if is_published => KeyOrigin::Published,
            (Some(_), _) | (_, Some(_)) if is_published => {
                section.fault("fetched", "stands beside env or file; a key is either fetched or given");
                return None;
            }
            (Some(name), None) => KeyOrigin::Variable(name),
            (None, Some(path)) => KeyOrigin::File(PathBuf::from(path)),
            (Some(_), Some(_)) | (None, None) => {
                section.fault_here(Self::RULE);
                return None;
            }
        };
        Some(Self { place: section.place().clone(), key: section.path().to_owned(), origin, id })
    }

    /// Fetches the secret; what is wrong with it goes to `faults`. One that is empty, or as good as
    /// empty, is a fault: it would verify what anybody can forge.
    pub fn resolve(&self, environment: &Environment, faults: &mut Faults) -> Option<Secret> {
        let found = match &self.origin {
            KeyOrigin::Variable(name) => environment
                .get(name)
                .map(|value| Secret::new(value.as_bytes().to_vec()))
                .ok_or_else(|| format!("variable {name} is not set; set it, or name another")),
            KeyOrigin::File(path) => std::fs::read(path).map(Secret::new).map_err(|error| {
                let path = path.display();
                format!("file {path} cannot be read: {error}; put the secret there, readable for this user")
            }),
            KeyOrigin::Published => Err("is fetched, and not given".to_owned()),
        };
        match found {
            Ok(secret) if secret.is_blank() => {
                faults.add(
                    &self.place,
                    self.key.clone(),
                    format!("{} is empty; an empty secret protects nothing", self.origin),
                );
                None
            }
            Ok(secret) => Some(secret),
            Err(what) => {
                faults.add(&self.place, self.key.clone(), what);
                None
            }
        }
    }
}

impl fmt::Display for KeyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyOrigin::Variable(name) => write!(f, "variable {name}"),
            KeyOrigin::File(path) => write!(f, "file {}", path.display()),
            KeyOrigin::Published => f.write_str("a key that is fetched"),
        }
    }
}
