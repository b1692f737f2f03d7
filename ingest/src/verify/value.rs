//! Where a value lies in a request: the event id, the event type, a timestamp.
//!
//! `header:NAME`, `field:NAME` (another pair of the signature header), `json:/pointer`, `form:NAME`
//! (a field of a form), `query:NAME` and `body-hash`. Alternatives are tried from left to right (`a | b`); `a + b` joins with a dot
//! what is there of the two, and is missing without the first.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::request::UnverifiedRequest;

/// In a pointer to a token, stands for each item of a list.
pub(crate) const EACH: &str = "*";

/// Where one value lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A header, in lower case.
    Header(String),
    /// Another pair of the signature header.
    Field(String),
    /// A JSON pointer into the body (RFC 6901).
    Json(Vec<String>),
    /// A field of a body that is a form.
    Form(String),
    /// A parameter of the request's target.
    Query(String),
    /// The hash of the body.
    BodyHash,
}

/// How a value is made of what lies in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueRule {
    alternatives: Vec<Vec<Place>>,
}

impl ValueRule {
    /// The grammar, as an error message says it.
    pub const GRAMMAR: &'static str = "\"header:NAME\", \"json:/POINTER\", \"form:NAME\", \"query:NAME\", \"field:NAME\" or \"body-hash\", with \"|\" between alternatives and \"+\" between what is joined";

    /// Reads a rule from a configuration's words.
    pub fn from_words(words: &str) -> Option<Self> {
        let joined = |alternative: &str| {
            let places: Option<Vec<Place>> =
                alternative.split('+').map(|place| Place::from_words(place.trim())).collect();
            places.filter(|places| places.len() == 1 || !places.contains(&Place::BodyHash))
        };
        let alternatives: Option<Vec<Vec<Place>>> = words.split('|').map(joined).collect();
        alternatives.map(|alternatives| Self { alternatives })
    }

    /// One that never finds anything.
    pub fn nowhere() -> Self {
        Self { alternatives: Vec::new() }
    }

    /// Every place that the rule looks at.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.alternatives.iter().flatten()
    }

    /// The alternatives, from first to last; each is a list of places to [`join`].
    pub fn alternatives(&self) -> impl Iterator<Item = &[Place]> {
        self.alternatives.iter().map(Vec::as_slice)
    }
}

/// What `find` finds at `places`, with dots between; nothing where the first is missing or empty.
/// Bytes, for text that is none must not become equal to other such text.
pub fn join<'v>(places: &[Place], find: impl Fn(&Place) -> Option<Cow<'v, [u8]>>) -> Option<Cow<'v, [u8]>> {
    let (first, rest) = places.split_first()?;
    let mut value = find(first).filter(|value| !value.is_empty())?;
    for part in rest.iter().filter_map(find) {
        value.to_mut().push(b'.');
        value.to_mut().extend_from_slice(&part);
    }
    Some(value)
}

impl Place {
    /// Reads a place from a configuration's words.
    pub fn from_words(words: &str) -> Option<Self> {
        if words == "body-hash" {
            return Some(Place::BodyHash);
        }
        match words.split_once(':')? {
            ("header", name) if !name.is_empty() => Some(Place::Header(name.to_ascii_lowercase())),
            ("field", name) if !name.is_empty() => Some(Place::Field(name.to_owned())),
            ("form", name) if !name.is_empty() => Some(Place::Form(name.to_owned())),
            ("query", name) if !name.is_empty() => Some(Place::Query(name.to_owned())),
            ("json", pointer) => {
                let unescape = |token: &str| token.replace("~1", "/").replace("~0", "~");
                Some(Place::Json(pointer.strip_prefix('/')?.split('/').map(unescape).collect()))
            }
            _ => None,
        }
    }

    /// Whether what lies at `other` lies here too.
    pub(crate) fn holds(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Json(all), Place::Json(one)) if all.len() == one.len() => {
                all.iter().zip(one).all(|(token, other)| token == EACH || token == other)
            }
            _ => self == other,
        }
    }
}

/// As [`Place::from_words`] reads it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header(name) => write!(f, "header:{name}"),
            Place::Field(name) => write!(f, "field:{name}"),
            Place::Form(name) => write!(f, "form:{name}"),
            Place::Query(name) => write!(f, "query:{name}"),
            Place::Json(pointer) => {
                f.write_str("json:")?;
                pointer
                    .iter()
                    .try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
            }
            Place::BodyHash => f.write_str("body-hash"),
        }
    }
}

/// A header's name in lower case.
pub(crate) fn header_name(name: &str) -> Option<String> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    (!name.is_empty() && name.chars().all(is_token)).then(|| name.to_ascii_lowercase())
}

/// What lies at `place` of `request`, of which the JSON is already looked up. What depends on more than
/// the request, a field of the signature header and the hash of the body, is not found here.
pub fn find<'r>(request: &UnverifiedRequest<'r>, place: &Place, found: &Found<'_>) -> Option<Cow<'r, [u8]>> {
    match place {
        Place::Header(name) => request.headers.first(name).map(Cow::Borrowed),
        Place::Json(pointer) => found.get(pointer).map(|value| Cow::Owned(value.into_bytes())),
        Place::Form(name) => parameter(request.body, name),
        Place::Query(name) => parameter(request.query.unwrap_or_default().as_bytes(), name),
        Place::Field(_) | Place::BodyHash => None,
    }
}

/// The first value of `name` among parameters in the form of a URL's query.
pub(crate) fn parameter<'r>(parameters: &'r [u8], name: &str) -> Option<Cow<'r, [u8]>> {
    let mut all = url::form_urlencoded::parse(parameters);
    let (_, value) = all.find(|(known, _)| known == name)?;
    Some(match value {
        Cow::Borrowed(value) => Cow::Borrowed(value.as_bytes()),
        Cow::Owned(value) => Cow::Owned(value.into_bytes()),
    })
}

/// A parameter that is there more than once, so that nobody can say which one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeated;

/// The value of `name` among parameters, where it is there no more than once.
pub(crate) fn only_parameter<'r>(
    parameters: &'r [u8],
    name: &str,
) -> Result<Option<Cow<'r, [u8]>>, Repeated> {
    let count = url::form_urlencoded::parse(parameters).filter(|(known, _)| known == name).take(2).count();
    if count < 2 { Ok(parameter(parameters, name)) } else { Err(Repeated) }
}

/// Whether what lies at `place` is there more than once, as far as that is looked for: in JSON the
/// first counts.
pub(crate) fn is_repeated(request: &UnverifiedRequest<'_>, place: &Place) -> bool {
    match place {
        Place::Header(name) => request.headers.is_repeated(name),
        Place::Form(name) => only_parameter(request.body, name).is_err(),
        Place::Query(name) => only_parameter(request.query.unwrap_or_default().as_bytes(), name).is_err(),
        Place::Json(_) | Place::Field(_) | Place::BodyHash => false,
    }
}

/// JSON pointers, looked up together in one pass over a body.
#[derive(Clone, Debug, Default)]
pub struct Pointers(Vec<Vec<String>>);

impl Pointers {
    /// Those among `places`.
    pub fn of<'p>(places: impl Iterator<Item = &'p Place>) -> Self {
        let mut pointers = Vec::new();
        for place in places {
            if let Place::Json(pointer) = place
                && !pointers.contains(pointer)
            {
                pointers.push(pointer.clone());
            }
        }
        Self(pointers)
    }

    /// Looks them all up in `body`. Reading stops once everything is found, and a body that is no
    /// JSON has nothing anywhere. Strings come unescaped, numbers as they are written, for a
    /// number beyond 64 bits must not become its neighbour; anything else counts as missing.
    pub fn look_up(&self, body: &[u8]) -> Found<'_> {
        let mut found = Found { pointers: &self.0, values: vec![None; self.0.len()] };
        if !self.0.is_empty() {
            let wanted =
                self.0.iter().enumerate().map(|(slot, pointer)| (slot, pointer.as_slice())).collect();
            let mut deserializer = serde_json::Deserializer::from_slice(body);
            let walk = Walk { wanted, values: &mut found.values };
            // An error is either the sign that all is found or the end of what can be read.
            walk.deserialize(&mut deserializer).ok();
        }
        found
    }
}

/// What lies at some pointers of a body.
#[derive(Debug)]
pub struct Found<'p> {
    pointers: &'p [Vec<String>],
    values: Vec<Option<String>>,
}

impl Found<'_> {
    /// The value at `pointer`.
    pub fn get(&self, pointer: &[String]) -> Option<String> {
        let slot = self.pointers.iter().position(|known| known == pointer)?;
        self.values[slot].clone()
    }
}

/// Descends into one JSON value, looking for the rests of the pointers that lead here.
struct Walk<'w> {
    wanted: Vec<(usize, &'w [String])>,
    values: &'w mut Vec<Option<String>>,
}

impl Walk<'_> {
    /// The pointers that go on under `key`.
    fn under(&mut self, key: &str) -> Option<Walk<'_>> {
        let wanted: Vec<_> = self
            .wanted
            .iter()
            .filter_map(|(slot, rest)| {
                Some((*slot, rest.split_first().filter(|(first, _)| *first == key)?.1))
            })
            .filter(|(slot, _)| self.values[*slot].is_none())
            .collect();
        (!wanted.is_empty()).then_some(Walk { wanted, values: self.values })
    }

    fn is_complete(&self) -> bool {
        self.values.iter().all(Option::is_some)
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        let Some(here) = self.wanted.iter().position(|(_, rest)| rest.is_empty()) else {
            return deserializer.deserialize_any(self);
        };
        let (slot, _) = self.wanted.swap_remove(here);
        let raw = <&RawValue as serde::Deserialize>::deserialize(deserializer)?;
        self.values[slot] = scalar(raw.get());
        if self.wanted.is_empty() {
            return Ok(());
        }
        self.deserialize(&mut serde_json::Deserializer::from_str(raw.get())).map_err(D::Error::custom)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match self.under(&key) {
                Some(walk) => map.next_value_seed(walk)?,
                None => map.next_value::<IgnoredAny>().map(|_| ())?,
            }
            if self.is_complete() {
                return Err(A::Error::custom("all found"));
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let more = match self.under(&index.to_string()) {
                Some(walk) => items.next_element_seed(walk)?.is_some(),
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if self.is_complete() {
                return Err(A::Error::custom("all found"));
            }
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// The text of a JSON string or number.
fn scalar(raw: &str) -> Option<String> {
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'-' | b'0'..=b'9' => Some(raw.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(body: &str, words: &str) -> Option<String> {
        let rule = ValueRule::from_words(words).unwrap();
        let pointers = Pointers::of(rule.places());
        let found = pointers.look_up(body.as_bytes());
        let find = |place: &Place| match place {
            Place::Json(pointer) => found.get(pointer).map(|value| Cow::Owned(value.into_bytes())),
            Place::Header(_) | Place::Field(_) | Place::Form(_) | Place::Query(_) | Place::BodyHash => None,
        };
        let value = rule.alternatives().find_map(|places| join(places, find))?;
        Some(String::from_utf8(value.into_owned()).unwrap())
    }

    #[test]
    fn values_are_found_wherever_they_lie() {
        let body = r#"{"a":[1,{"b":"x"}],"type":"t\u00e9","n":12345678901234567890123,"c/d":{"~":"y"}}"#;
        for (pointer, value) in [
            ("json:/a/0", "1"),
            ("json:/a/1/b", "x"),
            ("json:/type", "té"),
            ("json:/n", "12345678901234567890123"),
            ("json:/c~1d/~0", "y"),
        ] {
            assert_eq!(look_up(body, pointer).as_deref(), Some(value), "{pointer}");
        }
    }

    #[test]
    fn a_place_is_written_as_it_is_read() {
        for words in ["header:x-a", "field:t", "form:a b", "query:key", "json:/a/0/c~1d/~0", "body-hash"] {
            assert_eq!(Place::from_words(words).unwrap().to_string(), words);
        }
    }

    #[test]
    fn what_is_no_text_and_no_number_is_missing() {
        for body in [
            r#"{"id":null}"#,
            r#"{"id":true}"#,
            r#"{"id":{}}"#,
            r#"{"id":[]}"#,
            "{}",
            "[]",
            "3",
            "",
            "garbage",
            "{\"id\":",
        ] {
            assert_eq!(look_up(body, "json:/id"), None, "{body}");
        }
    }

    #[test]
    fn alternatives_are_tried_and_parts_are_joined() {
        let rule = "json:/event/type | json:/type";
        assert_eq!(look_up(r#"{"type":"a","event":{"type":"b"}}"#, rule).as_deref(), Some("b"));
        assert_eq!(look_up(r#"{"type":"a"}"#, rule).as_deref(), Some("a"));
        let rule = "json:/kind + json:/action";
        assert_eq!(
            look_up(r#"{"kind":"pull_request","action":"opened"}"#, rule).as_deref(),
            Some("pull_request.opened")
        );
        assert_eq!(look_up(r#"{"kind":"push"}"#, rule).as_deref(), Some("push"));
        assert_eq!(look_up(r#"{"action":"opened"}"#, rule), None);
    }

    #[test]
    fn two_pointers_are_found_in_one_pass_in_any_order() {
        let rule = ValueRule::from_words("json:/id+json:/data/id").unwrap();
        let pointers = Pointers::of(rule.places());
        for body in [r#"{"id":"1","data":{"id":"2"}}"#, r#"{"data":{"id":"2"},"id":"1"}"#] {
            let found = pointers.look_up(body.as_bytes());
            assert_eq!(found.get(&["id".into()]).as_deref(), Some("1"));
            assert_eq!(found.get(&["data".into(), "id".into()]).as_deref(), Some("2"));
        }
    }

    #[test]
    fn a_pointer_may_lead_through_what_another_names() {
        assert_eq!(look_up(r#"{"a":{"b":"x"}}"#, "json:/a|json:/a/b").as_deref(), Some("x"));
        assert_eq!(look_up(r#"{"a":"y"}"#, "json:/a/b|json:/a").as_deref(), Some("y"));
    }

    #[test]
    fn of_two_equal_keys_the_first_counts() {
        assert_eq!(look_up(r#"{"id":"1","id":"2"}"#, "json:/id").as_deref(), Some("1"));
    }

    #[test]
    fn a_body_of_brackets_alone_exhausts_nothing() {
        assert_eq!(look_up(&"[".repeat(1_000_000), "json:/id"), None);
        assert_eq!(look_up(&r#"{"a":"#.repeat(100_000), "json:/a/a"), None);
    }

    #[test]
    fn rules_outside_the_grammar_are_refused() {
        for words in
            ["", "id", "header:", "json:id", "form:", "query:", "json:/a |", "body_hash", "body-hash+json:/a"]
        {
            assert_eq!(ValueRule::from_words(words), None, "{words}");
        }
    }
}
