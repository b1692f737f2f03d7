//! A configured sender, resolved: how it signs, with which keys, and where its events' ids and
//! types lie.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hookwell_common::config::{
    Config, EnqueueFailure, Environment, EventIdMissing, Faults, KeyMaterial, KeyOrigin, Place, Placed,
    SourceConfig,
};
use hookwell_common::event::Name;
use hookwell_common::secret::Secret;
use ipnet::IpNet;

use crate::rejection::Rejection;
use crate::verify::handshake::Handshake;
use crate::verify::key::SigningKey;
use crate::verify::preset::{self, Preset};
use crate::verify::published::is_stand_in;
use crate::verify::scheme::Scheme;
use crate::verify::value::{EACH, Place as ValuePlace, Pointers, ValueRule, header_name};

/// A sender, ready to be verified.
#[derive(Debug)]
pub struct Source {
    /// Its name.
    pub name: Name,
    /// How it signs.
    pub scheme: Scheme,
    /// Its active secrets, in the order of the configuration.
    pub keys: Vec<SigningKey>,
    /// Who is asked for published keys, where it is not the sender itself.
    pub keys_url: Option<String>,
    /// Whether only a trusted proxy may hand its requests on, for it says who sent them.
    pub needs_proxy: bool,
    /// Who may send; empty: anybody.
    pub allow_from: Vec<IpNet>,
    /// The URL that the sender was given; empty where its scheme signs none.
    pub public_url: String,
    /// The methods that it uses.
    pub methods: Vec<String>,
    /// What it asks before it sends events.
    pub handshakes: Vec<Handshake>,
    /// The word that it was told.
    pub handshake_token: Option<Secret>,
    /// The status of an accepted event.
    pub success_status: u16,
    /// What the sender reads then.
    pub success_text: Option<&'static str>,
    /// The status of a signature that does not fit, where it is not the usual one.
    pub mismatch_status: Option<u16>,
    /// Whether the answer to what is refused has no body.
    pub bare_refusals: bool,
    /// Where the event id lies.
    pub event_id: ValueRule,
    /// What to do with an event that has none.
    pub event_id_missing: EventIdMissing,
    /// Where the event type lies; `None`: all are of one type.
    pub event_type: Option<ValueRule>,
    /// What of the body both rules look at.
    pub pointers: Pointers,
    /// The sender's headers that are kept, in lower case.
    pub keep_headers: Vec<String>,
    /// The bound on verified events.
    pub rate_limit: Option<RateLimit>,
    /// What to do with an event that Kafka cannot take.
    pub on_enqueue_failure: EnqueueFailure,
    /// Keeps what fails verification, so much of it in a second.
    pub quarantine: Option<RateLimit>,
}

/// The most that a source may send, or that is kept of it.
#[derive(Clone, Debug)]
pub struct RateLimit {
    per_second: NonZeroU32,
    limiter: Arc<DefaultDirectRateLimiter>,
}

impl RateLimit {
    /// As many in a second.
    pub fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, limiter: Arc::new(RateLimiter::direct(Quota::per_second(per_second))) }
    }

    /// Whether one more may come now, which is then counted.
    pub fn admits_one(&self) -> bool {
        self.limiter.check().is_ok()
    }
}

/// All senders, by name.
pub type Sources = HashMap<String, Source>;

/// Resolves every source of `config`; what is wrong goes to `faults`.
pub fn resolve_all(config: &Config, environment: &Environment, faults: &mut Faults) -> Sources {
    let resolved = config.sources.iter().filter_map(|source| Source::resolve(source, environment, faults));
    resolved.map(|source| (source.name.as_str().to_owned(), source)).collect()
}

impl Source {
    /// Resolves one source; `None` where `faults` says why.
    pub fn resolve(config: &SourceConfig, environment: &Environment, faults: &mut Faults) -> Option<Self> {
        let preset = resolve_preset(config, faults);
        let scheme = resolve_scheme(config, preset, faults);
        let keys = resolve_keys(config, scheme.as_ref(), environment, faults);
        let token = config.handshake_token.as_ref();
        let handshake_token = token.and_then(|token| token.resolve(environment, faults));
        let public_url = resolve_url(config, scheme.as_ref(), faults);
        let event_id = config.event_id.as_ref();
        let default_id = preset.map_or("body-hash", Preset::event_id);
        let counts_each = config.event_id_missing == EventIdMissing::Accept && default_id == "body-hash";
        let event_id = if event_id.is_none() && counts_each {
            Some(ValueRule::nowhere())
        } else {
            resolve_rule(config, "event_id", event_id, Some(default_id), faults)
        };
        let event_type = config.event_type.as_ref();
        let default_type = preset.and_then(|preset| preset.event_type.as_deref());
        let event_type = resolve_rule(config, "event_type", event_type, default_type, faults);
        let keep_headers = resolve_kept(config, preset, faults);
        if let Some(scheme) = &scheme {
            refuse_kept_secret(
                config,
                scheme,
                [event_id.as_ref(), event_type.as_ref()],
                &keep_headers,
                faults,
            );
        }
        let places = event_id.iter().chain(&event_type).flat_map(ValueRule::places);
        let pointers = Pointers::of(places);
        let per_second = config.rate_limit.and_then(NonZeroU32::new);
        let kept = NonZeroU32::new(config.quarantine_rate_limit).filter(|_| config.quarantine);
        Some(Self {
            name: config.name.clone(),
            scheme: scheme?,
            keys,
            keys_url: resolve_keys_url(config, faults),
            needs_proxy: config.client_certificate.is_some(),
            allow_from: config.allow_from.clone(),
            public_url,
            methods: preset.map_or_else(|| vec!["POST".to_owned()], |preset| preset.methods.clone()),
            handshakes: preset.map(Preset::handshakes).unwrap_or_default(),
            handshake_token,
            success_status: preset.and_then(|preset| preset.success_status).unwrap_or(200),
            success_text: preset.and_then(|preset| preset.success_text.as_deref()),
            mismatch_status: preset.and_then(|preset| preset.mismatch_status),
            bare_refusals: preset.is_some_and(|preset| preset.bare_refusals),
            event_id: event_id?,
            event_id_missing: config.event_id_missing,
            event_type,
            pointers,
            keep_headers,
            rate_limit: per_second.map(RateLimit::new),
            on_enqueue_failure: config.on_enqueue_failure,
            quarantine: kept.map(RateLimit::new),
        })
    }
}

fn resolve_preset(config: &SourceConfig, faults: &mut Faults) -> Option<&'static Preset> {
    let name = config.preset.as_ref()?;
    let found = preset::all().get(&name.value);
    if found.is_none() {
        let known: Vec<_> = preset::all().keys().map(String::as_str).collect();
        let what = format!(
            "there is no preset {:?}; known: {}; for another sender write [sources.hmac] or token",
            name.value,
            known.join(", ")
        );
        faults.add(&name.place, format!("{}.preset", config.path), what);
    }
    found
}

fn resolve_scheme(
    config: &SourceConfig,
    preset: Option<&'static Preset>,
    faults: &mut Faults,
) -> Option<Scheme> {
    let SourceConfig { preset: named, hmac, token, unsigned, client_certificate: certificate, .. } = config;
    let said = [
        ("preset", named.as_ref().map(|placed| &placed.place)),
        ("hmac", hmac.as_ref().map(|hmac| &hmac.place)),
        ("token", token.as_ref().map(|placed| &placed.place)),
        ("unsigned", unsigned.as_ref().map(|placed| &placed.place)),
        ("client_certificate", certificate.as_ref().map(|placed| &placed.place)),
    ];
    let mut said = said.into_iter().filter_map(|(key, place)| Some((key, place?)));
    let Some((first, place)) = said.next() else {
        let what = "says nothing about how the sender signs, and nothing unsigned is accepted; add a preset, [sources.hmac], token, client_certificate, or unsigned = true if anybody may send";
        faults.add(&config.place, config.path.clone(), what);
        return None;
    };
    if let Some((second, _)) = said.next() {
        let what = format!(
            "stands beside {second}, and only one of the two can say how the sender proves what it sends; remove one"
        );
        faults.add(place, format!("{}.{first}", config.path), what);
        return None;
    }
    if let Some(hmac) = hmac {
        return Scheme::of_config(hmac, faults);
    }
    if let Some(token) = token {
        let is_one_place = |place: &ValuePlace| match place {
            ValuePlace::Header(name) => header_name(name).is_some(),
            ValuePlace::Query(name) => !name.contains(['|', '+']),
            ValuePlace::Json(pointer) => {
                let lists = pointer.iter().filter(|token| *token == EACH).count();
                lists < 2 && !token.value.contains(['|', '+'])
            }
            ValuePlace::Form(_) | ValuePlace::Field(_) | ValuePlace::BodyHash => false,
        };
        let place = ValuePlace::from_words(&token.value).filter(is_one_place);
        if place.is_none() {
            // Not what stands there: it may be the token itself.
            let what = "must be the one place where the sender shows its token, \"header:NAME\", \"query:NAME\" or \"json:/POINTER\"; the token itself belongs into secrets";
            faults.add(&token.place, format!("{}.token", config.path), what);
        }
        return place.map(Scheme::of_token);
    }
    if let Some(header) = certificate {
        let name = header_name(&header.value);
        if name.is_none() {
            let what = format!("{:?} is no header's name", header.value);
            faults.add(&header.place, format!("{}.client_certificate", config.path), what);
        }
        return name.map(ValuePlace::Header).map(Scheme::of_token);
    }
    if unsigned.is_some() {
        return Some(Scheme::unsigned());
    }
    preset.map(Scheme::of_preset)
}

fn resolve_keys(
    config: &SourceConfig,
    scheme: Option<&Scheme>,
    environment: &Environment,
    faults: &mut Faults,
) -> Vec<SigningKey> {
    if config.unsigned.is_some() {
        if let Some(material) = config.secrets.first() {
            let what = "is of no use to a source that is unsigned; remove it, or say how the sender signs";
            faults.add(&material.place, format!("{}.secrets", config.path), what);
        }
        return Vec::new();
    }
    if config.secrets.is_empty() {
        let what = "is empty; name at least one secret, as { env = \"NAME\" } or { file = \"PATH\" }";
        faults.add(&config.place, format!("{}.secrets", config.path), what);
    }
    let mut keys = Vec::with_capacity(config.secrets.len());
    for (index, material) in config.secrets.iter().enumerate() {
        let label = material.id.clone().unwrap_or_else(|| index.to_string());
        if material.origin == KeyOrigin::Published {
            keys.extend(scheme.and_then(|scheme| published_key(scheme, label, material, faults)));
            continue;
        }
        let Some(secret) = material.resolve(environment, faults) else { continue };
        let Some(scheme) = scheme else { continue };
        if scheme.facts().needs_ids && material.id.is_none() {
            let what = "needs an id, by which this sender knows it; add id = \"…\" as it calls it";
            faults.add(&material.place, material.key.clone(), what);
        }
        match scheme.key(label, material.id.clone(), secret.reveal()) {
            Some(key) => keys.push(key),
            None => {
                let what = format!(
                    "{} does not hold a key as this sender shows it ({})",
                    material.origin,
                    scheme.facts().key_words
                );
                faults.add(&material.place, material.key.clone(), what);
            }
        }
    }
    keys
}

/// One without an id would let in whatever else the sender signs with its one key for all.
fn published_key(
    scheme: &Scheme,
    label: String,
    material: &KeyMaterial,
    faults: &mut Faults,
) -> Option<SigningKey> {
    let Some(published) = scheme.published() else {
        let what = "asks for a key that is fetched, and this sender publishes none; name it as { env = \"NAME\" } or { file = \"PATH\" }";
        faults.add(&material.place, material.key.clone(), what);
        return None;
    };
    if material.id.is_none() {
        let what =
            format!("needs an id, for this sender signs for everybody: add id = \"…\", {}", published.id);
        faults.add(&material.place, material.key.clone(), what);
        return None;
    }
    Some(scheme.published_key(label, material.id.clone()))
}

fn resolve_keys_url(config: &SourceConfig, faults: &mut Faults) -> Option<String> {
    let url = config.keys_url.as_ref()?;
    let key = format!("{}.keys_url", config.path);
    if !is_stand_in(&url.value) {
        let what = "must be https://HOST, or http://127.0.0.1:PORT on this machine, without query, name and password";
        faults.add(&url.place, key, what);
    } else if !config.secrets.iter().any(|material| material.origin == KeyOrigin::Published) {
        let what = "says nothing where no key is fetched; add { fetched = true } to secrets, or remove it";
        faults.add(&url.place, key, what);
    }
    Some(url.value.clone())
}

fn resolve_url(config: &SourceConfig, scheme: Option<&Scheme>, faults: &mut Faults) -> String {
    match &config.public_url {
        Some(url) => {
            if url::Url::parse(&url.value).is_err() {
                faults.add(
                    &url.place,
                    format!("{}.public_url", config.path),
                    "must be the whole URL that the sender was given",
                );
            }
            url.value.clone()
        }
        None => {
            if scheme.is_some_and(|scheme| scheme.facts().covers_url) {
                let what =
                    "is missing, and this sender signs its URL; set it to the URL that the sender was given";
                faults.add(&config.place, format!("{}.public_url", config.path), what);
            }
            String::new()
        }
    }
}

fn resolve_rule(
    config: &SourceConfig,
    key: &str,
    placed: Option<&Placed<String>>,
    default: Option<&str>,
    faults: &mut Faults,
) -> Option<ValueRule> {
    let (words, place): (&str, &Place) = match placed {
        Some(placed) => (&placed.value, &placed.place),
        None => (default?, &config.place),
    };
    let rule = ValueRule::from_words(words);
    if rule.is_none() {
        faults.add(
            place,
            format!("{}.{key}", config.path),
            format!("must be {}, and is {words:?}", ValueRule::GRAMMAR),
        );
    }
    rule
}

fn resolve_kept(config: &SourceConfig, preset: Option<&Preset>, faults: &mut Faults) -> Vec<String> {
    let names = match &config.keep_headers {
        Some(names) => names.clone(),
        None => preset.map(|preset| preset.keep_headers.clone()).unwrap_or_default(),
    };
    for name in &names {
        if header_name(name).is_none() {
            faults.add(
                &config.place,
                format!("{}.keep_headers", config.path),
                format!("{name:?} is no header's name"),
            );
        }
    }
    // A body that was compressed before it was signed stays so, and its reader must know.
    let always = ["content-encoding".to_owned()];
    let mut all: Vec<_> = names.into_iter().chain(always).collect();
    all.sort();
    all.dedup();
    all
}

/// What counts as an id or a type, and what is kept, is read by everybody downstream, and logged.
fn refuse_kept_secret(
    config: &SourceConfig,
    scheme: &Scheme,
    [event_id, event_type]: [Option<&ValueRule>; 2],
    keep_headers: &[String],
    faults: &mut Faults,
) {
    // How a proxy names a certificate is no secret.
    if config.client_certificate.is_some() {
        return;
    }
    for secret in &scheme.facts().secret_places {
        let names =
            |rule: Option<&ValueRule>| rule.is_some_and(|rule| rule.places().any(|it| secret.holds(it)));
        let is_kept =
            keep_headers.iter().any(|name| *secret == ValuePlace::Header(name.to_ascii_lowercase()));
        let keys = [
            ("event_id", names(event_id), config.event_id.as_ref()),
            ("event_type", names(event_type), config.event_type.as_ref()),
            ("keep_headers", is_kept, None),
        ];
        for (key, _, placed) in keys.into_iter().filter(|(_, names_it, _)| *names_it) {
            let what = format!("names {secret}, where this sender shows its secret; leave that out");
            let place = placed.map_or(&config.place, |placed| &placed.place);
            faults.add(place, format!("{}.{key}", config.path), what);
        }
    }
}

impl Source {
    /// Takes over from the same source as it was before a reload what it has used up of its rate.
    pub fn succeed(&mut self, last: &Source) {
        if let (Some(limit), Some(used)) = (&mut self.rate_limit, &last.rate_limit)
            && limit.per_second == used.per_second
        {
            limit.clone_from(used);
        }
    }

    /// Whether its events are kept where Kafka cannot take them.
    pub fn spools(&self) -> bool {
        self.on_enqueue_failure == EnqueueFailure::Spool
    }

    /// Whether keys that its sender publishes count.
    pub fn reads_keys(&self) -> bool {
        self.keys.iter().any(SigningKey::is_published)
    }

    /// Whether what fails verification is kept.
    pub fn quarantines(&self) -> bool {
        self.quarantine.is_some()
    }

    /// Whether what it sends proves itself, so that it can be verified again by whoever has it.
    pub fn is_provable(&self) -> bool {
        !self.scheme.is_unsigned() && !self.needs_proxy
    }

    /// Whether it sends requests with this method.
    pub fn uses(&self, method: &str) -> bool {
        self.all_methods().any(|known| known == method)
    }

    /// The methods that it uses, with commas between.
    pub fn allowed(&self) -> String {
        self.all_methods()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn all_methods(&self) -> impl Iterator<Item = &str> {
        self.methods.iter().map(String::as_str).chain(self.handshakes.iter().map(Handshake::method))
    }

    /// The status of `rejection`: the usual one, or what the sender wants to hear.
    pub fn status_of(&self, rejection: Rejection) -> u16 {
        let own = self.mismatch_status.filter(|_| rejection == Rejection::SignatureMismatch);
        own.unwrap_or_else(|| rejection.status())
    }

    /// The URL that was signed: the configured one, with the query of the request where the
    /// configured one has none of its own.
    pub fn signed_url<'s>(&'s self, query: Option<&str>) -> std::borrow::Cow<'s, str> {
        match query {
            Some(query) if !query.is_empty() && !self.public_url.contains('?') => {
                format!("{}?{query}", self.public_url).into()
            }
            _ => self.public_url.as_str().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::tests::source;

    #[test]
    fn a_reload_gives_nobody_more_to_send_than_the_rate() {
        let of_rate = |rate: u32| source(&format!("preset = \"github\"\nrate_limit = {rate}"), &["s3cret"]);
        let is_same = |one: &Source, other: &Source| match (&one.rate_limit, &other.rate_limit) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one.limiter, &other.limiter),
            (None, _) | (_, None) => false,
        };
        let (last, mut same, mut other) = (of_rate(5), of_rate(5), of_rate(6));
        same.succeed(&last);
        other.succeed(&last);
        assert!(is_same(&same, &last) && !is_same(&other, &last));
    }
}
