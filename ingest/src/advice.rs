//! What can go wrong with a configuration that is without a fault, told before it does: where its
//! figures do not fit what is known of its senders, and what a source does without.
//!
//! Of the times that ingest takes only `publish_timeout` is held against a sender's patience: it is
//! what the sender waits for while Kafka is slow. `read_timeout` bounds how long the sender itself
//! takes to send.

use std::fmt;
use std::time::Duration;

use hookwell_common::config::{Config, Place, SourceConfig};
use hookwell_common::event::Name;

use crate::source::{Source, Sources};
use crate::verify::handshake::Handshake;
use crate::verify::preset;
use crate::verify::published::KEY_PATIENCE;
use crate::verify::value::{self, ValueRule};

/// What can go wrong with a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concern {
    /// The source.
    pub source: Name,
    place: Place,
    key: String,
    danger: Danger,
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.key, self.danger)
    }
}

/// What an answer may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    publish_timeout: Duration,
    /// What Kafka did not take is tried once more where the spool does not take it either.
    is_tried_twice: bool,
    reads_key: bool,
}

impl Answer {
    fn may_take(self) -> Duration {
        let key = if self.reads_key { KEY_PATIENCE } else { Duration::ZERO };
        key + self.publish_timeout * if self.is_tried_twice { 2 } else { 1 }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (ingest.publish_timeout", humantime::format_duration(self.may_take()))?;
        if self.is_tried_twice {
            f.write_str(", twice, for the source spools")?;
        }
        if self.reads_key {
            write!(f, ", and {} for a key", humantime::format_duration(KEY_PATIENCE))?;
        }
        f.write_str(")")
    }
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Danger {
    /// The sender repeats itself for longer than it is remembered.
    Forgotten { repeats_for: Duration, window: Duration },
    /// The sender gives up before it is answered.
    Impatient { waits: Duration, answer: Answer },
    /// The sender never sends again what could not be stored.
    NeverAgain { publish_timeout: Duration },
    /// Only the body tells one event from another.
    NoEventId { window: Duration },
    /// The URL is part of what some requests prove, or of what the sender wants to hear.
    NoUrl,
    /// Whoever sees a request can send it with another body.
    BodyUnproven,
    /// One key signs for everybody, and nothing says whose messages are meant.
    Anybodys,
    /// Anybody may send.
    Unsigned,
}

impl Danger {
    /// The key of the source that is about it.
    fn key(self) -> &'static str {
        match self {
            Danger::Forgotten { .. } | Danger::Impatient { .. } => "preset",
            Danger::NeverAgain { .. } => "on_enqueue_failure",
            Danger::NoEventId { .. } => "event_id",
            Danger::NoUrl => "public_url",
            Danger::BodyUnproven | Danger::Anybodys => "secrets",
            Danger::Unsigned => "unsigned",
        }
    }
}

impl fmt::Display for Danger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |duration: &Duration| humantime::format_duration(*duration);
        match self {
            Danger::Forgotten { repeats_for, window } => write!(
                f,
                "this sender sends again for {}, and an event is remembered for {} (processor.dedupe_window): a copy that comes later is handled as a new event; lengthen the window",
                figure(repeats_for),
                figure(window)
            ),
            Danger::Impatient { waits, answer } => write!(
                f,
                "this sender waits {} for an answer, which may take {answer}: while Kafka is slow the sender gives up unanswered, and some switch off an address that fails often; shorten ingest.publish_timeout",
                figure(waits)
            ),
            Danger::NeverAgain { publish_timeout } => write!(
                f,
                "is \"reject\", and this sender never sends again by itself: what Kafka does not take within {} (ingest.publish_timeout) is lost, unless somebody asks for it; use \"spool\"",
                figure(publish_timeout)
            ),
            Danger::NoEventId { window } => write!(
                f,
                "is left out, and nothing tells where this sender has its event ids: two events with the same body within {} (processor.dedupe_window) count as one; say where the id lies, set \"body-hash\" if that is meant, or event_id_missing = \"accept\" if each is to count",
                figure(window)
            ),
            Danger::NoUrl => f.write_str(
                "is missing, and this sender signs its URL in some requests, or wants to hear it: they fail; set it to the URL that the sender was given",
            ),
            Danger::BodyUnproven => f.write_str(
                "prove who sends, and not the whole body: whoever sees a request can send it with another; let it come over TLS only",
            ),
            Danger::Anybodys => f.write_str(
                "have no id, and this sender signs with one key for all of its customers: a message of anybody's topic is accepted; add id = \"arn:…\" of the topic to each",
            ),
            Danger::Unsigned => {
                f.write_str("is true: anybody who knows the URL may send; bound it with allow_from")
            }
        }
    }
}

/// What can go wrong with the sources of `config`, which are resolved as `sources`.
pub fn concerns(config: &Config, sources: &Sources) -> Vec<Concern> {
    let all = config.sources.iter();
    let all = all.filter_map(|source| Some((source, sources.get(source.name.as_str())?)));
    let concerns = |(source, resolved): (&SourceConfig, &Source)| {
        let concern = |danger: Danger| Concern {
            source: source.name.clone(),
            place: place_of(danger, source).clone(),
            key: format!("{}.{}", source.path, danger.key()),
            danger,
        };
        dangers(config, source, resolved).into_iter().map(concern).collect::<Vec<_>>()
    };
    all.flat_map(concerns).collect()
}

fn dangers(config: &Config, source: &SourceConfig, resolved: &Source) -> Vec<Danger> {
    let preset = source.preset.as_ref().and_then(|named| preset::all().get(&named.value));
    let window = config.processor.dedupe_window;
    let publish_timeout = config.ingest.publish_timeout;
    let (is_tried_twice, reads_key) = (resolved.spools(), resolved.reads_keys());
    let answer = Answer { publish_timeout, is_tried_twice, reads_key };
    let waits = preset.and_then(|preset| duration(preset.timeout.as_deref()));
    let repeats_for = preset.and_then(|preset| duration(preset.retries_for.as_deref()));
    let proof = &resolved.scheme;
    let without_url = resolved.public_url.is_empty();
    let is_told = source.event_id.is_some();
    let found = [
        repeats_for
            .filter(|repeats_for| window < *repeats_for)
            .map(|repeats_for| Danger::Forgotten { repeats_for, window }),
        waits.filter(|waits| *waits <= answer.may_take()).map(|waits| Danger::Impatient { waits, answer }),
        repeats_for
            .filter(|repeats_for| repeats_for.is_zero() && !resolved.spools())
            .map(|_| Danger::NeverAgain { publish_timeout }),
        (!is_told && is_of_body_only(&resolved.event_id)).then_some(Danger::NoEventId { window }),
        (without_url && (proof.may_cover_url() || resolved.handshakes.iter().any(Handshake::tells_url)))
            .then_some(Danger::NoUrl),
        proof.is_unsigned().then_some(Danger::Unsigned),
        preset
            .filter(|preset| preset.signs_for_all() && resolved.keys.iter().any(|key| key.id.is_none()))
            .map(|_| Danger::Anybodys),
        // A certificate vouches for the whole connection.
        (!proof.is_unsigned() && !resolved.needs_proxy && !proof.facts().covers_body)
            .then_some(Danger::BodyUnproven),
    ];
    found.into_iter().flatten().collect()
}

fn duration(words: Option<&str>) -> Option<Duration> {
    humantime::parse_duration(words?).ok()
}

fn is_of_body_only(rule: &ValueRule) -> bool {
    let mut places = rule.places().peekable();
    places.peek().is_some() && places.all(|place| *place == value::Place::BodyHash)
}

/// Where the key stands that is about `danger`, or else the source.
fn place_of(danger: Danger, source: &SourceConfig) -> &Place {
    let key = match danger {
        Danger::Forgotten { .. } | Danger::Impatient { .. } => {
            source.preset.as_ref().map(|placed| &placed.place)
        }
        Danger::Unsigned => source.unsigned.as_ref().map(|placed| &placed.place),
        Danger::BodyUnproven | Danger::Anybodys => source.secrets.first().map(|material| &material.place),
        Danger::NeverAgain { .. } | Danger::NoEventId { .. } | Danger::NoUrl => None,
    };
    key.unwrap_or(&source.place)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hookwell_common::config::{Environment, Faults, IngestConfig};

    use super::*;
    use crate::source::resolve_all;

    const PUBLIC_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==";

    /// What is told of the source that `lines` describe, `more` standing before it.
    fn told_with(more: &str, lines: &str) -> Vec<String> {
        let text = format!("{more}\n[[sources]]\nname = 'x'\n{lines}");
        let environment = Environment::from([("S", "name:s3cret"), ("K", PUBLIC_KEY)]);
        let mut faults = Faults::default();
        let config = Config::parse(Path::new("x.toml"), &text, &environment, &mut faults);
        let sources = resolve_all(&config, &environment, &mut faults);
        faults.into_result(()).unwrap();
        concerns(&config, &sources).iter().map(ToString::to_string).collect()
    }

    fn told(lines: &str) -> Vec<String> {
        told_with("", lines)
    }

    fn preset(name: &str, more: &str) -> String {
        format!("preset = '{name}'\nsecrets = [{{ env = 'S' }}]\n{more}")
    }

    /// The one thing that is told, which must begin with `start` and hold `words`.
    fn check(told: &[String], start: &str, words: &[&str]) {
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(start), "{told:?}");
        assert!(words.iter().all(|word| told[0].contains(word)), "{told:?}");
    }

    #[test]
    fn of_a_sender_that_signs_all_names_its_events_and_is_patient_nothing_is_told() {
        for name in ["stripe", "shopify", "slack"] {
            assert_eq!(told(&preset(name, "")), Vec::<String>::new());
        }
    }

    #[test]
    fn a_sender_that_repeats_itself_for_longer_than_it_is_remembered_is_told_with_both_figures() {
        let short = "[processor]\ndedupe_window = '1d'\n[kafka.retention]\nevents = '1d'\nretry = '1d'";
        let stripe = preset("stripe", "");
        check(
            &told_with(short, &stripe),
            "x.toml:8: sources[0].preset: ",
            &["again for 3days", "for 1day ("],
        );
        let enough = short.replace("'1d'", "'3d'");
        assert_eq!(told_with(&enough, &stripe), Vec::<String>::new());
    }

    #[test]
    fn a_publish_timeout_that_a_sender_does_not_wait_for_is_told_with_both_figures() {
        let stage =
            |timeout| told_with(&format!("[ingest]\npublish_timeout = '{timeout}'"), &preset("shopify", ""));
        check(
            &stage("5s"),
            "x.toml:5: sources[0].preset: ",
            &["waits 5s", "may take 5s (ingest.publish_timeout)"],
        );
        assert_eq!(stage("4900ms"), Vec::<String>::new());
        check(
            &told_with("[ingest.spool]\npath = '/tmp/x'", &preset("shopify", "on_enqueue_failure = 'spool'")),
            "x.toml:5: sources[0].preset: ",
            &["waits 5s", "may take 5s (ingest.publish_timeout, twice, for the source spools)"],
        );
    }

    #[test]
    fn how_long_a_sender_itself_may_take_to_send_is_nothing_that_it_waits_for() {
        let patient = "[ingest]\nread_timeout = '1h'";
        assert_eq!(told_with(patient, &preset("shopify", "")), Vec::<String>::new());
    }

    #[test]
    fn a_sender_that_never_sends_again_is_told_unless_its_events_are_spooled() {
        let start = "x.toml:2: sources[0].on_enqueue_failure: ";
        check(&told(&preset("github", "")), start, &["is \"reject\"", "within 2s 500ms"]);
        let spool = preset("github", "on_enqueue_failure = 'spool'");
        assert_eq!(told_with("[ingest.spool]\npath = '/tmp/spool'", &spool), Vec::<String>::new());
    }

    #[test]
    fn a_sender_without_event_ids_is_told_unless_the_configuration_says_that_this_is_meant() {
        let start = "x.toml:2: sources[0].event_id: ";
        check(&told(&preset("dropbox", "")), start, &["within 7days (processor.dedupe_window)"]);
        assert_eq!(told(&preset("dropbox", "event_id = 'body-hash'")), Vec::<String>::new());
        assert_eq!(told(&preset("dropbox", "event_id = 'json:/id'")), Vec::<String>::new());
        let own = "secrets = [{ env = 'S' }]\n[sources.hmac]\nheader = 'x-signature'";
        check(&told(own), start, &["count as one"]);
    }

    #[test]
    fn a_url_that_only_some_requests_prove_or_a_question_asks_for_is_told_where_it_is_missing() {
        let url = "public_url = 'https://hooks.example.com/x'";
        for name in ["hubspot", "ebay"] {
            let source = |more| format!("preset = '{name}'\nsecrets = [{{ env = 'K', id = 'k' }}]\n{more}");
            check(&told(&source("")), "x.toml:2: sources[0].public_url: ", &["is missing"]);
            assert_eq!(told(&source(url)), Vec::<String>::new());
        }
    }

    #[test]
    fn a_proof_that_leaves_the_body_out_is_told_unless_it_is_a_certificate() {
        for name in ["okta", "chargebee", "mailgun"] {
            check(&told(&preset(name, "")), "x.toml:5: sources[0].secrets: ", &["not the whole body"]);
        }
        let certificate =
            "client_certificate = 'x-client-cert'\nsecrets = [{ env = 'S' }]\nevent_id = 'json:/id'";
        assert_eq!(told(certificate), Vec::<String>::new());
    }

    #[test]
    fn a_sender_that_signs_for_all_of_its_customers_is_told_where_no_topic_is_named() {
        let key = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/rsa.pub.pem");
        let of_topic = |id| format!("preset = 'sns'\nsecrets = [{{ file = '{key}'{id} }}]");
        let is_told = |id| told(&of_topic(id)).iter().any(|line| line.contains("anybody's topic"));
        assert!(is_told(""));
        assert!(!is_told(", id = 'arn:aws:sns:us-west-2:1:ours'"));
    }

    #[test]
    fn a_sender_that_proves_nothing_is_told() {
        let unsigned = "unsigned = true\nevent_id = 'json:/id'";
        check(&told(unsigned), "x.toml:4: sources[0].unsigned: ", &["anybody who knows the URL may send"]);
    }

    #[test]
    fn with_the_defaults_only_senders_that_wait_a_second_are_called_impatient() {
        let publish_timeout = IngestConfig::default().publish_timeout;
        let is_told = |preset: &preset::Preset| {
            duration(preset.timeout.as_deref()).is_some_and(|waits| waits <= publish_timeout)
        };
        let all = preset::all().iter();
        let impatient: Vec<_> = all.filter(|(_, preset)| is_told(preset)).map(|(name, _)| name).collect();
        assert_eq!(impatient, ["sentry"]);
    }
}
