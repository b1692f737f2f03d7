//! How signatures are taken out of their header, and how each is written.
//!
//! The grammar of `parse` covers most senders: `whole`, `prefix:P`, `kv:PAIRSEP:KEY` and
//! `list:SEP:TAGSEP:TAG`. The request never chooses the algorithm: a prefix that differs is a
//! signature that does not fit.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The most signatures of one header that are looked at; senders give two while they rotate.
const MAX_CANDIDATES: usize = 16;

/// How signatures are taken out of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseRule {
    /// The header is the signature.
    Whole,
    /// The signature follows a prefix: `sha256=…`.
    Prefix(String),
    /// Pairs of key and value: `t=1,v1=…,v1=…`. Other pairs are fields that the content may name.
    Pairs {
        /// What stands between pairs.
        separator: char,
        /// The key of a signature.
        key: String,
    },
    /// The same, where the prefix may be missing.
    MaybePrefix(String),
    /// Items of which the first is the field `0` and all others are signatures: `1700000000,…,…`.
    Tail(char),
    /// Tagged items: `v1,… v1,… v1a,…`.
    List {
        /// What stands between items.
        separator: char,
        /// What stands between an item's tag and its signature.
        tag_separator: char,
        /// The tag of a signature that counts.
        tag: String,
    },
}

impl ParseRule {
    /// The grammar, as an error message says it.
    pub const GRAMMAR: &'static str = "\"whole\", \"prefix:TEXT\", \"prefix?:TEXT\", \"tail:SEP\", \"kv:PAIRSEP:KEY\" or \"list:SEP:TAGSEP:TAG\", each separator one character";

    /// Reads the rule from a configuration's words.
    pub fn from_words(words: &str) -> Option<Self> {
        if words == "whole" {
            return Some(ParseRule::Whole);
        }
        if let Some(prefix) = words.strip_prefix("prefix:") {
            return (!prefix.is_empty()).then(|| ParseRule::Prefix(prefix.to_owned()));
        }
        if let Some(prefix) = words.strip_prefix("prefix?:") {
            return (!prefix.is_empty()).then(|| ParseRule::MaybePrefix(prefix.to_owned()));
        }
        if let Some(separator) = words.strip_prefix("tail:") {
            let mut chars = separator.chars();
            return chars.next().filter(|_| chars.as_str().is_empty()).map(ParseRule::Tail);
        }
        if let Some(rest) = words.strip_prefix("kv:") {
            let (separator, key) = separated(rest)?;
            return (!key.is_empty()).then(|| ParseRule::Pairs { separator, key: key.to_owned() });
        }
        let (separator, rest) = separated(words.strip_prefix("list:")?)?;
        let (tag_separator, tag) = separated(rest)?;
        (!tag.is_empty()).then(|| ParseRule::List { separator, tag_separator, tag: tag.to_owned() })
    }

    /// The signatures in `header`, still as text.
    pub fn candidates<'h>(&self, header: &'h str) -> Vec<&'h str> {
        match self {
            ParseRule::Whole => vec![header],
            ParseRule::Prefix(prefix) => header.strip_prefix(prefix.as_str()).into_iter().collect(),
            // One, or several with commas between them.
            ParseRule::MaybePrefix(prefix) => header
                .split(',')
                .map(|item| item.trim())
                .map(|item| item.strip_prefix(prefix.as_str()).unwrap_or(item))
                .take(MAX_CANDIDATES)
                .collect(),
            ParseRule::Tail(separator) => {
                header.split(*separator).skip(1).map(str::trim).take(MAX_CANDIDATES).collect()
            }
            ParseRule::Pairs { separator, key } => pairs(header, *separator)
                .filter(|(name, _)| name == key)
                .map(|(_, value)| value)
                .take(MAX_CANDIDATES)
                .collect(),
            ParseRule::List { separator, tag_separator, tag } => header
                .split(*separator)
                .filter_map(|item| item.split_once(*tag_separator))
                .filter(|(item_tag, _)| item_tag == tag)
                .map(|(_, value)| value)
                .take(MAX_CANDIDATES)
                .collect(),
        }
    }

    /// The value of another pair of the header: `t` of `t=1,v1=…`.
    pub fn field<'h>(&self, header: &'h str, name: &str) -> Option<&'h str> {
        match self {
            ParseRule::Pairs { separator, .. } => {
                pairs(header, *separator).find(|(key, _)| *key == name).map(|(_, value)| value)
            }
            ParseRule::Tail(separator) if name == "0" => header.split(*separator).next().map(str::trim),
            ParseRule::Whole
            | ParseRule::Prefix(_)
            | ParseRule::MaybePrefix(_)
            | ParseRule::Tail(_)
            | ParseRule::List { .. } => None,
        }
    }

    /// A header as the sender would write it, for `signature` and the fields that are signed.
    pub fn write(&self, signature: &str, fields: &[(String, String)]) -> String {
        match self {
            ParseRule::Whole => signature.to_owned(),
            ParseRule::Prefix(prefix) | ParseRule::MaybePrefix(prefix) => format!("{prefix}{signature}"),
            ParseRule::Tail(separator) => {
                let first = fields.first().map_or("", |(_, value)| value.as_str());
                format!("{first}{separator}{signature}")
            }
            ParseRule::Pairs { separator, key } => {
                let fields = fields.iter().map(|(name, value)| format!("{name}={value}"));
                let pairs: Vec<_> = fields.chain([format!("{key}={signature}")]).collect();
                pairs.join(&separator.to_string())
            }
            ParseRule::List { tag_separator, tag, .. } => format!("{tag}{tag_separator}{signature}"),
        }
    }
}

/// As [`ParseRule::from_words`] reads it.
impl fmt::Display for ParseRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseRule::Whole => f.write_str("whole"),
            ParseRule::Prefix(prefix) => write!(f, "prefix:{prefix}"),
            ParseRule::MaybePrefix(prefix) => write!(f, "prefix?:{prefix}"),
            ParseRule::Tail(separator) => write!(f, "tail:{separator}"),
            ParseRule::Pairs { separator, key } => write!(f, "kv:{separator}:{key}"),
            ParseRule::List { separator, tag_separator, tag } => {
                write!(f, "list:{separator}:{tag_separator}:{tag}")
            }
        }
    }
}

fn pairs(header: &str, separator: char) -> impl Iterator<Item = (&str, &str)> {
    header.split(separator).filter_map(|pair| pair.trim().split_once('='))
}

/// `c:rest`, where `c` is any one character.
fn separated(words: &str) -> Option<(char, &str)> {
    let mut chars = words.chars();
    let separator = chars.next()?;
    Some((separator, chars.as_str().strip_prefix(':')?))
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal; either case, for the bytes are compared.
    Hex,
    /// Base64.
    Base64,
    /// Base64 with the alphabet for URLs.
    Base64Url,
}

/// Padding or none, as senders please; but the spare bits of the last character must be zero, or
/// a signature could be altered and still decode to the same bytes.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(false);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT.with_encode_padding(false));

impl Encoding {
    /// Reads the encoding from a configuration's word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "hex" => Some(Encoding::Hex),
            "base64" => Some(Encoding::Base64),
            "base64url" => Some(Encoding::Base64Url),
            _ => None,
        }
    }

    /// The bytes that `text` stands for.
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Encoding::Hex => hex::decode(text).ok(),
            Encoding::Base64 => BASE64.decode(text).ok(),
            Encoding::Base64Url => BASE64_URL.decode(text).ok(),
        }
    }

    /// `bytes` as the sender writes them.
    pub fn encode(self, bytes: &[u8]) -> String {
        match self {
            Encoding::Hex => hex::encode(bytes),
            Encoding::Base64 => BASE64.encode(bytes),
            Encoding::Base64Url => BASE64_URL.encode(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates<'h>(rule: &str, header: &'h str) -> Vec<&'h str> {
        ParseRule::from_words(rule).unwrap().candidates(header)
    }

    #[test]
    fn each_rule_finds_its_signatures() {
        assert_eq!(candidates("whole", "abc"), ["abc"]);
        assert_eq!(candidates("prefix:sha256=", "sha256=abc"), ["abc"]);
        assert_eq!(candidates("prefix?:sha256=", "sha256=abc"), ["abc"]);
        assert_eq!(candidates("prefix?:sha256=", "abc"), ["abc"]);
        assert_eq!(candidates("tail:,", "17,abc,def"), ["abc", "def"]);
        assert_eq!(candidates("kv:,:v1", "t=1,v1=abc,v0=no,v1=def"), ["abc", "def"]);
        assert_eq!(candidates("kv:;:h1", "ts=1;h1=abc;h2=no"), ["abc"]);
        assert_eq!(candidates("list: :,:v1", "v1,abc v1a,no v1,def"), ["abc", "def"]);
    }

    #[test]
    fn another_prefix_or_tag_is_no_signature() {
        assert!(candidates("prefix:sha256=", "sha1=abc").is_empty());
        assert!(candidates("kv:,:v1", "t=1,v0=abc").is_empty());
        assert!(candidates("list: :,:v1", "v1a,abc").is_empty());
    }

    #[test]
    fn base64_with_its_own_equal_signs_stays_whole() {
        assert_eq!(candidates("kv:,:v1", "t=1,v1=YWI="), ["YWI="]);
    }

    #[test]
    fn a_header_full_of_signatures_costs_no_more_than_a_few() {
        assert_eq!(candidates("kv:,:v1", &"v1=a,".repeat(10_000)).len(), MAX_CANDIDATES);
        assert_eq!(candidates("list: :,:v1", &"v1,a ".repeat(10_000)).len(), MAX_CANDIDATES);
    }

    #[test]
    fn separators_may_be_any_character_a_colon_too() {
        let rule = ParseRule::from_words("kv:::v1").unwrap();
        assert_eq!(rule.candidates("t=1:v1=abc"), ["abc"]);
        assert_eq!(rule.field("t=1:v1=abc", "t"), Some("1"));
    }

    #[test]
    fn rules_are_shown_as_they_are_written() {
        for words in
            ["whole", "prefix:sha256=", "prefix?:sha256=", "tail:,", "kv:,:v1", "list: :,:v1", "kv:::v1"]
        {
            assert_eq!(ParseRule::from_words(words).unwrap().to_string(), words);
        }
    }

    #[test]
    fn rules_outside_the_grammar_are_refused() {
        for words in
            ["", "hole", "prefix:", "kv:,", "kv:,:", "kv:ab:c", "list: :,", "list: :,:", "tail:", "tail:ab"]
        {
            assert_eq!(ParseRule::from_words(words), None, "{words}");
        }
    }

    #[test]
    fn what_is_written_is_found_again() {
        let fields = [("t".to_owned(), "12".to_owned())];
        for words in ["whole", "prefix:sha256=", "prefix?:sha256=", "tail:,", "kv:,:v1", "list: :,:v1"] {
            let rule = ParseRule::from_words(words).unwrap();
            let header = rule.write("c2ln", &fields);
            assert_eq!(rule.candidates(&header), ["c2ln"], "{words}");
        }
    }

    #[test]
    fn hex_has_no_case_and_base64_no_second_spelling() {
        assert_eq!(Encoding::Hex.decode("AB0f"), Encoding::Hex.decode("ab0F"));
        assert_eq!(Encoding::Base64.decode("YWI="), Some(b"ab".to_vec()));
        assert_eq!(Encoding::Base64.decode("YWI"), Some(b"ab".to_vec()));
        assert_eq!(Encoding::Base64.decode("YWJ="), None);
        assert_eq!(Encoding::Base64Url.decode("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(Encoding::Hex.decode("zz"), None);
    }
}
