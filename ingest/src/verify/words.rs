//! From the words of a preset or of `[sources.hmac]` to a scheme, with every fault at once.

use std::time::Duration;

use hookwell_common::config::{self, Faults, HmacConfig, Placed};
use ring::{digest, hmac};

use super::adyen::Adyen;
use super::braintree::Braintree;
use super::content::Content;
use super::credential::{Credential, Form};
use super::ebay::Ebay;
use super::jwt::Jwt;
use super::key::{Algorithm, KeyForm, TokenAlgorithm};
use super::plivo::Plivo;
use super::preset::{self, Preset};
use super::public_key::Kind;
use super::published::KeySource;
use super::recipe::{Recipe, SignaturePlace};
use super::scheme::{Scheme, Way};
use super::signature::{Encoding, ParseRule};
use super::sns::Sns;
use super::timestamp::{TimestampRule, TimestampUnit};
use super::twilio::Twilio;
use super::value::{Place, Pointers, header_name};

/// How far a signed time may lie from ours where nothing else is said.
const TOLERANCE: Duration = Duration::from_secs(300);

impl Scheme {
    /// The scheme of a preset: its own way, and those of the presets that it names beside.
    pub fn of_preset(preset: &'static Preset) -> Self {
        let next = |preset: &&'static Preset| preset::all().get(preset.otherwise.as_ref()?);
        let others = std::iter::successors(next(&preset), next);
        let first = way(preset);
        let published = preset.keys.as_ref().map(|words| {
            let read = first.signs().and_then(|signs| KeySource::from_words(words, signs));
            read.expect("presets.toml is data of ours, and a test reads each of them")
        });
        Scheme::new(first, others.map(way)).with_published(published)
    }

    /// That of a sender that shows a secret at `place`, or whose certificate a proxy names there.
    pub fn of_token(place: Place) -> Self {
        Scheme::new(Way::Credential(Credential::new(place, Form::Token)), [])
    }

    /// That of a sender that proves nothing.
    pub fn unsigned() -> Self {
        Scheme::new(Way::Unsigned, [])
    }

    /// The recipe of `[sources.hmac]`; `None` where `faults` says why.
    pub fn of_config(config: &HmacConfig, faults: &mut Faults) -> Option<Self> {
        let words = Words {
            place: Some(config),
            scheme: "hmac",
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
            past_only: false,
            key_id: None,
            requires: Vec::new(),
            part: None,
        };
        let recipe = words.resolve(&mut |key, what| {
            faults.add(words.place_of(key), format!("{}.{key}", config.path), what)
        });
        recipe.map(|recipe| Scheme::new(Way::Recipe(Box::new(recipe)), []))
    }
}

fn way(preset: &Preset) -> Way {
    let header = || preset.header.as_deref().and_then(header_name);
    let way = match preset.scheme.as_str() {
        "basic" => Some(Way::Credential(Credential::basic())),
        "token" => credential(preset).map(Way::Credential),
        "twilio" => header().map(Twilio::new).map(Way::Twilio),
        "adyen" => Some(Way::Adyen(Adyen)),
        "sns" => Some(Way::Sns(Sns)),
        "ebay" => Some(Way::Ebay(Ebay)),
        "braintree" => Some(Way::Braintree(Braintree)),
        "plivo-v3" => Some(Way::Plivo(Plivo)),
        "jwt" => jwt(preset).map(Box::new).map(Way::Jwt),
        _ => Words::of_preset(preset).resolve(&mut |_, _| ()).map(Box::new).map(Way::Recipe),
    };
    way.expect("presets.toml is data of ours, and a test reads each of them")
}

fn jwt(preset: &Preset) -> Option<Jwt> {
    let prefix = preset.parse.as_deref().map_or(Some(""), |rule| rule.strip_prefix("prefix:"))?;
    Some(Jwt {
        header: header_name(preset.header.as_deref()?)?,
        prefix: prefix.to_owned(),
        algorithms: TokenAlgorithm::from_words(preset.algorithm.as_deref()?)?,
        claims: preset.claims.clone()?,
    })
}

fn credential(preset: &Preset) -> Option<Credential> {
    let words = preset.header.as_deref()?;
    let place = Place::from_words(words).or_else(|| header_name(words).map(Place::Header))?;
    let form = match &preset.parse {
        None => Form::Token,
        Some(rule) => Form::After(rule.strip_prefix("prefix:")?.to_owned()),
    };
    Some(Credential::new(place, form))
}

/// Words that are not yet known to mean anything.
struct Words<'w> {
    /// Where they stand; `None` where they are a preset's, which may say more than a configuration.
    place: Option<&'w HmacConfig>,
    scheme: &'w str,
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
    past_only: bool,
    key_id: Option<&'w str>,
    requires: Vec<(String, String)>,
    part: Option<&'w str>,
}

/// Takes a key and what is wrong with it.
type Refuse<'f> = &'f mut dyn FnMut(&'static str, String);

impl<'w> Words<'w> {
    fn of_preset(preset: &'w Preset) -> Self {
        let requires = preset.requires.iter().map(|(name, value)| (name.clone(), value.clone()));
        Self {
            place: None,
            scheme: &preset.scheme,
            algorithm: preset.algorithm.as_deref(),
            header: preset.header.as_deref(),
            parse: preset.parse.as_deref(),
            ed25519: preset.ed25519.as_deref(),
            encoding: preset.encoding.as_deref(),
            key: preset.key.as_deref(),
            content: preset.content.as_deref(),
            timestamp: preset.timestamp.as_deref(),
            timestamp_unit: preset.timestamp_unit.as_deref(),
            tolerance: preset.tolerance.as_deref().and_then(|text| humantime::parse_duration(text).ok()),
            past_only: preset.past_only,
            key_id: preset.key_id.as_deref(),
            requires: requires.collect(),
            part: preset.part.as_deref(),
        }
    }

    fn resolve(&self, refuse: Refuse<'_>) -> Option<Recipe> {
        let algorithm = one_of(
            self.algorithm.or(Some("sha256")),
            "algorithm",
            "\"sha1\", \"sha256\", \"sha384\" or \"sha512\"",
            |word| algorithm(self.scheme, word),
            refuse,
        );
        let signature = one_of(
            self.header,
            "header",
            "the name of the header with the signature",
            |words| match self.place {
                Some(_) => header_name(words).map(|name| SignaturePlace::Headers(vec![name])),
                None => SignaturePlace::from_words(words),
            },
            refuse,
        );
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
            "\"text\", \"base64\", \"hex\", \"whsec\" or \"nfkd\"",
            // A public key is no key of an HMAC.
            |word| KeyForm::from_word(word).filter(|form| *form != KeyForm::Spki || self.place.is_none()),
            refuse,
        );
        let content =
            one_of(self.content.or(Some("{body}")), "content", Content::GRAMMAR, Content::from_words, refuse);
        let is_of_user = self.place.is_some();
        if content.as_ref().is_some_and(Content::holds_secret) && self.scheme != "digest" {
            refuse("content", "names {secret}, with which an HMAC is keyed already; remove it".to_owned());
        }
        let covers = |content: &Content| content.covers_body() && !content.leaves_out_a_field();
        if is_of_user && content.as_ref().is_some_and(|content| !covers(content)) {
            refuse("content", "does not cover {body}, so that anybody could alter it; add {body}".to_owned());
        }
        let timestamp = self.timestamp_rule(refuse);
        if let (Some(parse), Some(content)) = (&parse, &content) {
            refuse_unknown_fields(parse, content, timestamp.as_ref().and_then(Option::as_ref), refuse);
        }
        let (signature, content) = (signature?, content?);
        let key_id = self.key_id.and_then(Place::from_words);
        let in_body = match &signature {
            SignaturePlace::Value(place) => Some(place),
            SignaturePlace::Headers(_) | SignaturePlace::Numbered(_) => None,
        };
        let pointers = Pointers::of(content.places().chain(&key_id).chain(in_body));
        Some(Recipe {
            algorithm: algorithm?,
            signature,
            parse: parse?,
            ed25519: self.ed25519.and_then(ParseRule::from_words),
            encoding: encoding?,
            key_form: key_form?,
            content,
            timestamp: timestamp?,
            key_id,
            requires: self.requires.clone(),
            pointers,
            part: self.part.map(str::to_owned),
        })
    }

    /// The outer `None` for a fault, the inner for no timestamp.
    fn timestamp_rule(&self, refuse: Refuse<'_>) -> Option<Option<TimestampRule>> {
        let unit_words = "\"s\", \"ms\", \"rfc3339\" or \"iso8601\"";
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
        let words = "\"header:NAME\", \"field:NAME\", \"json:/POINTER\", \"form:NAME\" or \"query:NAME\"";
        let not_hash = |text: &str| Place::from_words(text).filter(|place| *place != Place::BodyHash);
        let place = one_of(self.timestamp, "timestamp", words, not_hash, refuse);
        let tolerance = self.tolerance.unwrap_or(TOLERANCE);
        Some(Some(TimestampRule { place: place?, unit: unit?, tolerance, past_only: self.past_only }))
    }

    fn place_of(&self, key: &str) -> &config::Place {
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
    if matches!(parse, ParseRule::Pairs { .. } | ParseRule::Tail(_)) {
        return;
    }
    let what = "names a field, and only a header that is parsed as \"kv:…\" or \"tail:…\" has fields; name a header, or change parse";
    if content.places().any(|place| matches!(place, Place::Field(_))) {
        refuse("content", what.to_owned());
    }
    if timestamp.is_some_and(|rule| matches!(rule.place, Place::Field(_))) {
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

fn algorithm(scheme: &str, word: &str) -> Option<Algorithm> {
    match (scheme, word) {
        // Some senders sign with nothing better; as a MAC it is still sound.
        ("hmac", "sha1") => Some(Algorithm::Hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY)),
        ("hmac", "sha256") => Some(Algorithm::Hmac(hmac::HMAC_SHA256)),
        ("hmac", "sha384") => Some(Algorithm::Hmac(hmac::HMAC_SHA384)),
        ("hmac", "sha512") => Some(Algorithm::Hmac(hmac::HMAC_SHA512)),
        ("digest", "sha1") => Some(Algorithm::Digest(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
        ("digest", "sha256") => Some(Algorithm::Digest(&digest::SHA256)),
        ("ed25519", _) => Some(Algorithm::Public(Kind::Ed25519)),
        ("ecdsa-p256", _) => Some(Algorithm::Public(Kind::EcdsaP256)),
        // Old, and all that this sender has: whoever forges needs a second preimage, or a hand in what is
        // signed.
        ("rsa-sha1", _) => Some(Algorithm::Public(Kind::RsaSha1)),
        ("rsa-sha256", _) => Some(Algorithm::Public(Kind::RsaSha256)),
        _ => None,
    }
}
