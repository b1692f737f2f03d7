//! JSON in which no name is there twice. Of two readers one takes the first value of such a name and
//! the other the last, so that one could look at what the other has not verified.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The most values of a body: what is built of them may cost a hundred times their length.
const MAX_VALUES: usize = 50_000;

/// What `body` holds; `None` where it is no JSON, a name is there twice anywhere in it, or it has too
/// many values.
pub(super) fn unambiguous(body: &[u8]) -> Option<Value> {
    let left = Cell::new(MAX_VALUES);
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Walk { left: &left }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok().map(|()| value)
}

#[derive(Clone, Copy)]
struct Walk<'l> {
    /// How many values there may still be.
    left: &'l Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = entries.next_key()? {
            if map.insert(name, entries.next_value_seed(self)?).is_some() {
                return Err(A::Error::custom("a name is there twice"));
            }
        }
        Ok(Value::Object(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_as_everybody_reads_it() {
        let body = br#"{"a":[1,-2,2.5,true,null,"x"],"b":{"c":""},"n":18446744073709551615}"#;
        assert_eq!(unambiguous(body), serde_json::from_slice(body).ok());
    }

    #[test]
    fn more_values_than_any_sender_sends_are_refused_before_they_are_built() {
        let list = |length: usize| format!("[{}0]", "0,".repeat(length - 1));
        assert!(unambiguous(list(MAX_VALUES - 1).as_bytes()).is_some());
        assert_eq!(unambiguous(list(MAX_VALUES).as_bytes()), None);
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused_however_deep_and_however_it_is_written() {
        for body in [
            r#"{"a":1,"a":1}"#,
            r#"{"x":[{"a":1,"b":2,"a":3}]}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":{"b":{"c":1,"c":2}}}"#,
            "garbage",
            "{\"a\":1} {}",
        ] {
            assert_eq!(unambiguous(body.as_bytes()), None, "{body}");
        }
    }
}
