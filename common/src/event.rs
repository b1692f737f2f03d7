//! The domain words: what a request becomes once it is verified, and the names it carries.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

/// The longest event id that is kept as it came, in bytes. A longer one is replaced by its hash,
/// so that a stranger cannot fill keys and headers.
pub const MAX_EVENT_ID_BYTES: usize = 256;

/// The longest event type that is kept, in bytes; what lies beyond is cut.
pub const MAX_EVENT_TYPE_BYTES: usize = 256;

/// The type of an event whose source says nothing about it.
pub const UNTYPED: &str = "webhook";

/// An accepted webhook: what one record on the events topic holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The configured sender.
    pub source: ByteString,
    /// The sender's name for this event, or a hash that stands in for it. Equal ids of one source
    /// are one event.
    pub id: ByteString,
    /// What kind of event this is, in the sender's words. Routes match on it.
    pub kind: ByteString,
    /// When ingest received it, RFC 3339. Text, for nothing on the way reckons with it.
    pub time: ByteString,
    /// The sender's `content-type`.
    pub content_type: Option<ByteString>,
    /// W3C trace context, handed on to every destination.
    pub traceparent: Option<ByteString>,
    /// The sender's own headers that the source keeps, names in lower case.
    pub kept_headers: Vec<(ByteString, Bytes)>,
    /// The request body, byte for byte.
    pub body: Bytes,
}

/// A name from the configuration: a source or a destination. Lower case letters, digits, `-` and
/// `_`, at most 63 of them, the first a letter or digit, so that it can stand in a URL, a metric
/// label and a CloudEvents source without escaping.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The rule, as an error message says it.
    pub const RULE: &'static str =
        "1 to 63 lower case letters, digits, '-' or '_', the first a letter or digit";

    /// `None` where `text` breaks [`Name::RULE`].
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = text.bytes();
        let starts_well = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let goes_on_well =
            bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        (starts_well && goes_on_well && text.len() <= 63).then(|| Self(text.into()))
    }

    /// Stands in for a name that could not be read, so that the rest of its table can be: no
    /// configuration that runs has it.
    pub(crate) fn unreadable() -> Self {
        Self("?".into())
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The event id for what a sender sent as one: itself where it is short printable text, its hash
/// otherwise. Different bytes never give the same id; `None` for no bytes at all, for a missing
/// id is never an id.
pub fn event_id_from_sender(raw: &[u8]) -> Option<ByteString> {
    if raw.is_empty() {
        return None;
    }
    match std::str::from_utf8(raw) {
        Ok(text) if is_plain(text) => Some(ByteString::from(text)),
        Ok(_) | Err(_) => Some(hashed("id-blake3", raw)),
    }
}

/// The event id for a body whose sender names none. Equal bodies are one event.
pub fn event_id_from_body(body: &[u8]) -> ByteString {
    hashed("body-blake3", body)
}

/// The event type for what a sender sent as one; [`UNTYPED`] where nothing readable is left.
pub fn event_kind_from_sender(raw: &str) -> ByteString {
    let readable: String = raw.chars().filter(|c| !c.is_control()).collect();
    let mut end = readable.len().min(MAX_EVENT_TYPE_BYTES);
    while !readable.is_char_boundary(end) {
        end -= 1;
    }
    match readable[..end].trim() {
        "" => ByteString::from_static(UNTYPED),
        kind => ByteString::from(kind),
    }
}

/// A sender's text is taken as it is unless it could be mistaken for one of our hashes, or could
/// not stand in a header.
fn is_plain(text: &str) -> bool {
    text.len() <= MAX_EVENT_ID_BYTES
        && text.chars().all(|c| !c.is_control())
        && !text.starts_with("id-blake3:")
        && !text.starts_with("body-blake3:")
}

fn hashed(prefix: &str, bytes: &[u8]) -> ByteString {
    ByteString::from(format!("{prefix}:{}", blake3::hash(bytes).to_hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_stand_in_a_url_and_a_label() {
        for good in ["github", "a", "0-x_y", &"n".repeat(63)] {
            assert_eq!(Name::new(good).as_ref().map(Name::as_str), Some(good));
        }
        for bad in ["", "GitHub", "-a", "a b", "a/b", "é", &"n".repeat(64)] {
            assert_eq!(Name::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_missing_event_id_is_never_an_id() {
        assert_eq!(event_id_from_sender(b""), None);
    }

    #[test]
    fn strange_event_ids_stay_different() {
        let long = vec![b'x'; MAX_EVENT_ID_BYTES + 1];
        let longer = vec![b'x'; MAX_EVENT_ID_BYTES + 2];
        let strange: [&[u8]; 6] = [&long, &longer, b"\xff", b"\xfe", b"a\nb", b"a\rb"];
        let ids: std::collections::HashSet<_> = strange.iter().map(|raw| event_id_from_sender(raw)).collect();
        assert_eq!(ids.len(), strange.len());
        assert!(ids.iter().flatten().all(|id| id.len() < MAX_EVENT_ID_BYTES));
    }

    #[test]
    fn a_sender_cannot_name_its_event_like_one_of_our_hashes() {
        let ours = event_id_from_body(b"body");
        assert_ne!(event_id_from_sender(ours.as_bytes()), Some(ours));
    }

    #[test]
    fn an_event_type_is_cut_and_cleaned_but_never_empty() {
        assert_eq!(event_kind_from_sender("push"), "push");
        assert_eq!(event_kind_from_sender("  pu\u{7}sh "), "push");
        assert_eq!(event_kind_from_sender("\n"), UNTYPED);
        assert_eq!(event_kind_from_sender(&"é".repeat(200)).len(), 256);
    }
}
