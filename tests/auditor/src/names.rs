//! The small values that evidence is made of: names, digests, and the hashes that name deliveries.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that occurs many times: of a source, an event, a destination, a topic.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(String::deserialize(deserializer)?.into()))
    }
}

/// Keeps each text once in memory.
#[derive(Debug, Default)]
pub struct Names(HashSet<Name>);

impl Names {
    /// The one copy of `text`.
    pub fn get(&mut self, text: &str) -> Name {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let name = Name::from(text);
        self.0.insert(name.clone());
        name
    }

    /// Has `name` share the one copy of its text.
    pub fn share(&mut self, name: &mut Name) {
        *name = self.get(name);
    }
}

/// The first half of BLAKE3 of something: there are millions of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::first_half(&blake3::hash(bytes))
    }

    /// The half of `hash` that is kept.
    pub(crate) fn first_half(hash: &blake3::Hash) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&hash.as_bytes()[..16]);
        Self(half)
    }
}

/// The hash under which the state topic keeps a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryKey(pub [u8; 16]);

impl DeliveryKey {
    /// The key of event `id` of `source` at `destination`.
    pub fn of(source: &str, id: &str, destination: &str) -> Self {
        Self(Digest::first_half(&hash_parts(&[source, id, destination])).0)
    }

    /// The key of a record that cannot be read, by the place at which it lies; tier 0 is the events
    /// topic.
    pub fn of_unreadable(tier: u16, partition: i32, offset: i64) -> Self {
        Self::of("", &format!("{tier}/{partition}/{offset}"), "")
    }

    /// What every call of the delivery carries in that generation.
    pub fn idempotency_key(&self, generation: u16) -> String {
        format!("{}-{generation}", hex::encode(self.0))
    }
}

/// The hash that stands for a source and an event id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey(pub [u8; 16]);

impl EventKey {
    /// The key of event `id` of `source`.
    pub fn of(source: &str, id: &str) -> Self {
        Self(Digest::first_half(&hash_parts(&[source, id])).0)
    }

    /// The partition on which all records of that event lie, of `count`.
    pub fn partition(&self, count: i32) -> i32 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        let number = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let count = u64::try_from(count).unwrap_or(1).max(1);
        i32::try_from(number % count).unwrap_or_default()
    }
}

/// BLAKE3 over the parts, each after its length in bytes as 8 bytes, little-endian.
fn hash_parts(parts: &[&str]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize()
}

/// Bytes that are written in hexadecimal.
macro_rules! in_hex {
    ($($name:ident),+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&hex::encode(self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let mut bytes = Self([0; 16]);
                // Of a hash that was written whole the first half counts.
                hex::decode_to_slice(text.get(..32).unwrap_or(&text), &mut bytes.0)
                    .map_err(|error| de::Error::custom(format!("{text:?}: {error}")))?;
                Ok(bytes)
            }
        }
    )+};
}

in_hex!(Digest, DeliveryKey, EventKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_page() {
        let (source, id) = ("github", "72d3162e-cc78-11e3-81ab-4c9367dc0958");
        let key = DeliveryKey::of(source, id, "orders");
        assert_eq!(key.idempotency_key(1), "b5e131c894bb631cb66c70af46240379-1");
        assert_eq!(EventKey::of(source, id).partition(12), 2);
    }
}
