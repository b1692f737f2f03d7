//! From the words of a preset or of `[sources.hmac]` to a recipe, with every fault at once.

use std::time::Duration;

use hookwell_common::config::{Faults, HmacConfig, Place, Placed};
use ring::hmac;

use super::content::{Content, Part};
use super::preset::Preset;
use super::recipe::{KeyForm, Recipe, TimestampRule, TimestampUnit};
use super::signature::{Encoding, ParseRule};
use super::value;

/// How far a signed time may lie from ours where nothing else is said.
const TOLERANCE: Duration = Duration::from_secs(300);

impl Recipe {
    /// The recipe of a preset.
    pub fn of_preset(preset: &Preset) -> Self {
        let words = Words {
            place: None,
            algorithm: Some(&preset.algorithm),
            header: Some(&preset.header),
            parse: Some(&preset.parse),
            ed25519: preset.ed25519.as_deref(),
            encoding: Some(&preset.encoding),
            key: Some(&preset.key),
            content: Some(&preset.content),
            timestamp: preset.timestamp.as_deref(),
            timestamp_unit: preset.timestamp_unit.as_deref(),
            tolerance: preset.tolerance.as_deref().and_then(|text| humantime::parse_duration(text).ok()),
        };
        words.resolve(&mut |_, _| ()).expect("presets.toml is data of ours, and a test reads each of them")
    }

    /// The recipe of `[sources.hmac]`; `None` where `faults` says why.
    pub fn of_config(config: &HmacConfig, faults: &mut Faults) -> Option<Self> {
        let words = Words {
            place: Some(config),
            algorithm: text(&config.algorithm),
            header: text(&config.header),
            parse: text(&config.parse),
            ed25519: None,
            encoding: text(&config.encoding),
            key: text(&config.key),
            content: text(&config.content),
            timestamp: text(&config.timestamp),
            timestamp_unit: text(&config.timestamp_unit),
            tolerance: config.tolerance.as_ref().map(|tolerance| tolerance.value),
        };
        words
            .resolve(&mut |key, what| faults.add(words.place_of(key), format!("{}.{key}", config.path), what))
    }
}

/// Words that are not yet known to mean anything.
struct Words<'w> {
    place: Option<&'w HmacConfig>,
    algorithm: Option<&'w str>,
    header: Option<&'w str>,
    parse: Option<&'w str>,
    ed25519: Option<&'w str>,
    encoding: Option<&'w str>,
    key: Option<&'w str>,
    content: Option<&'w str>,
    timestamp: Option<&'w str>,
    timestamp_unit: Option<&'w str>,
    tolerance: Option<Duration>,
}

/// Takes a key and what is wrong with it.
type Refuse<'f> = &'f mut dyn FnMut(&'static str, String);

impl Words<'_> {
    fn resolve(&self, refuse: Refuse<'_>) -> Option<Recipe> {
        let algorithm = one_of(
            self.algorithm.or(Some("sha256")),
            "algorithm",
            "\"sha1\", \"sha256\", \"sha384\" or \"sha512\"",
            algorithm,
            refuse,
        );
        let header =
            one_of(self.header, "header", "the name of the header with the signature", header_name, refuse);
        let parse =
            one_of(self.parse.or(Some("whole")), "parse", ParseRule::GRAMMAR, ParseRule::from_words, refuse);
        let encoding = one_of(
            self.encoding.or(Some("hex")),
            "encoding",
            "\"hex\", \"base64\" or \"base64url\"",
            Encoding::from_word,
            refuse,
        );
        let key_form = one_of(
            self.key.or(Some("text")),
            "key",
            "\"text\", \"base64\", \"hex\" or \"whsec\"",
            KeyForm::from_word,
            refuse,
        );
        let content =
            one_of(self.content.or(Some("{body}")), "content", Content::GRAMMAR, Content::from_words, refuse);
        if content.as_ref().is_some_and(|content| !content.covers_body()) {
            refuse("content", "does not cover {body}, so that anybody could alter it; add {body}".to_owned());
        }
        let timestamp = self.timestamp_rule(refuse);
        if let (Some(parse), Some(content)) = (&parse, &content) {
            refuse_unknown_fields(parse, content, timestamp.as_ref().and_then(Option::as_ref), refuse);
        }
        Some(Recipe {
            algorithm: algorithm?,
            header: header?,
            parse: parse?,
            ed25519: self.ed25519.and_then(ParseRule::from_words),
            encoding: encoding?,
            key_form: key_form?,
            content: content?,
            timestamp: timestamp?,
        })
    }

    /// The outer `None` for a fault, the inner for no timestamp.
    fn timestamp_rule(&self, refuse: Refuse<'_>) -> Option<Option<TimestampRule>> {
        let unit_words = "\"s\", \"ms\" or \"rfc3339\"";
        let unit = one_of(
            self.timestamp_unit.or(Some("s")),
            "timestamp_unit",
            unit_words,
            TimestampUnit::from_word,
            refuse,
        );
        if self.timestamp.is_none() {
            for (key, is_set) in
                [("timestamp_unit", self.timestamp_unit.is_some()), ("tolerance", self.tolerance.is_some())]
            {
                if is_set {
                    refuse(key, "says nothing without timestamp; set that too, or remove this".to_owned());
                }
            }
            return unit.map(|_| None);
        }
        let words = "\"header:NAME\", \"field:NAME\" or \"json:/POINTER\"";
        let not_hash =
            |text: &str| value::Place::from_words(text).filter(|place| *place != value::Place::BodyHash);
        let place = one_of(self.timestamp, "timestamp", words, not_hash, refuse);
        let tolerance = self.tolerance.unwrap_or(TOLERANCE);
        Some(Some(TimestampRule { place: place?, unit: unit?, tolerance }))
    }

    fn place_of(&self, key: &str) -> &Place {
        let config = self.place.expect("only the configuration's words have places");
        let placed = match key {
            "algorithm" => &config.algorithm,
            "header" => &config.header,
            "parse" => &config.parse,
            "encoding" => &config.encoding,
            "key" => &config.key,
            "content" => &config.content,
            "timestamp" => &config.timestamp,
            "timestamp_unit" => &config.timestamp_unit,
            "tolerance" => return config.tolerance.as_ref().map_or(&config.place, |placed| &placed.place),
            _ => &None,
        };
        placed.as_ref().map_or(&config.place, |placed| &placed.place)
    }
}

/// Only a header of pairs has fields; elsewhere every request would be refused for want of one.
fn refuse_unknown_fields(
    parse: &ParseRule,
    content: &Content,
    timestamp: Option<&TimestampRule>,
    refuse: Refuse<'_>,
) {
    if matches!(parse, ParseRule::Pairs { .. }) {
        return;
    }
    let what = "names a field, and only a header that is parsed as \"kv:…\" has fields; name a header, or change parse";
    if content.parts().iter().any(|part| matches!(part, Part::Field(_))) {
        refuse("content", what.to_owned());
    }
    if timestamp.is_some_and(|rule| matches!(rule.place, value::Place::Field(_))) {
        refuse("timestamp", what.to_owned());
    }
}

fn text(placed: &Option<Placed<String>>) -> Option<&str> {
    placed.as_ref().map(|placed| placed.value.as_str())
}

fn one_of<T>(
    words: Option<&str>,
    key: &'static str,
    expected: &str,
    read: impl FnOnce(&str) -> Option<T>,
    refuse: Refuse<'_>,
) -> Option<T> {
    let Some(words) = words else {
        refuse(key, format!("is missing; it must be {expected}"));
        return None;
    };
    let value = read(words);
    if value.is_none() {
        refuse(key, format!("must be {expected}, and is {words:?}"));
    }
    value
}

fn algorithm(word: &str) -> Option<hmac::Algorithm> {
    match word {
        // Some senders sign with nothing better; as a MAC it is still sound.
        "sha1" => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        "sha256" => Some(hmac::HMAC_SHA256),
        "sha384" => Some(hmac::HMAC_SHA384),
        "sha512" => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

/// A header's name in lower case.
pub(crate) fn header_name(name: &str) -> Option<String> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    (!name.is_empty() && name.chars().all(is_token)).then(|| name.to_ascii_lowercase())
}
