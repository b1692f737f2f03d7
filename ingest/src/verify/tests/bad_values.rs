//! For every preset: each part of what proves a request, wherever it lies, there twice, empty, not
//! ASCII, 64 KiB long, cut short, and in another encoding; signed with another key, and at another
//! time. Always refused with the status of the table, and never a panic.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::*;

const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);
const BODY: &[u8] = br#"{"id":"evt_1","type":"ping","webhookTimestamp":1795000000000}"#;

const RSA: [&[u8]; 2] =
    [include_bytes!("../../../testdata/rsa.pem"), include_bytes!("../../../testdata/rsa.pub.pem")];
const P256: [&[u8]; 2] =
    [include_bytes!("../../../testdata/p256.pem"), include_bytes!("../../../testdata/p256.pub.pem")];
const ED25519: [&[u8]; 2] =
    [include_bytes!("../../../testdata/ed25519.pem"), include_bytes!("../../../testdata/ed25519.pub.pem")];

/// Public keys of others.
const ANOTHER: [&str; 3] = [
    include_str!("../../../../tests/fuzz/keys/rsa.pem"),
    include_str!("../../../../tests/fuzz/keys/p256.pem"),
    include_str!("../../../../tests/fuzz/keys/ed25519.pem"),
];

/// A request that is accepted.
#[derive(Clone)]
struct Genuine {
    query: Option<String>,
    draft: Draft,
}

/// The two halves of a pair of the kind that `preset` signs with.
fn pair(preset: &Preset) -> [&'static [u8]; 2] {
    match (preset.scheme.as_str(), preset.algorithm.as_deref()) {
        ("ed25519", _) => ED25519,
        ("ecdsa-p256" | "ebay", _) | ("jwt", Some("ES256")) => P256,
        _ => RSA,
    }
}

/// A source of `name`, and what its sender sends, with no more in it than it takes.
fn genuine(name: &str, preset: &'static Preset) -> (Source, Genuine) {
    let table = table(name);
    let shared = secret_for(&table);
    let secret = if preset.has_key_pair() { std::str::from_utf8(pair(preset)[1]).unwrap() } else { shared };
    let source = source(&table, &[secret]);
    let key = match preset.has_key_pair() {
        true => source.scheme.private_key(source.keys[0].id.clone(), pair(preset)[0]).expect(name),
        false => source.keys[0].clone(),
    };
    let in_query = preset.header.as_deref().and_then(|words| words.strip_prefix("query:"));
    if let Some(parameter) = in_query {
        let query = Some(format!("{parameter}={shared}"));
        return (source, Genuine { query, draft: Draft::of_body(BODY) });
    }
    let has_header = source.scheme.facts().header.is_some();
    let mut draft = if has_header { Draft::of_body(BODY) } else { Draft::default() };
    let signing = Signing { url: &source.public_url, now: NOW, filler: "filler" };
    source.scheme.sign(&mut draft, &key, &signing).expect(name);
    (source, Genuine { query: None, draft })
}

fn verdict(source: &Source, request: &Genuine) -> Result<usize, Rejection> {
    verdict_at(NOW, source, request)
}

fn verdict_at(received_at: Timestamp, source: &Source, request: &Genuine) -> Result<usize, Rejection> {
    let Genuine { query, draft } = request;
    let (query, headers, body) = (query.as_deref(), &draft.headers, draft.body.as_slice());
    judge(source, UnverifiedRequest { method: "POST", query, headers, body, received_at })
}

/// `text` with its longest word, if that is a signature, written in the other way: base64 instead of
/// hex, and hex instead of base64.
fn encoded_otherwise(text: &str) -> Option<String> {
    let is_of_word = |letter: char| letter.is_ascii_alphanumeric() || "+/_-".contains(letter);
    let word = text.split(|letter| !is_of_word(letter)).max_by_key(|word| word.len())?;
    let plain = word.replace('-', "+").replace('_', "/");
    let padded = format!("{plain}{}", "=".repeat((4 - plain.len() % 4) % 4));
    let other = match (hex::decode(word), STANDARD.decode(padded)) {
        _ if word.len() < 20 => return None,
        (Ok(bytes), _) => URL_SAFE_NO_PAD.encode(bytes),
        (Err(_), Ok(bytes)) => hex::encode(bytes),
        (Err(_), Err(_)) => return None,
    };
    Some(text.replace(word, &other))
}

/// Values that are never those of a sender.
fn bad_values() -> [(&'static str, String); 3] {
    [("empty", String::new()), ("not ASCII", "é√\u{0}".to_owned()), ("64 KiB", "a".repeat(65_536))]
}

/// Every change of one header.
fn of_headers(genuine: &Genuine) -> Vec<(String, Genuine)> {
    let mut all = Vec::new();
    for (index, (name, value)) in genuine.draft.headers.iter().enumerate() {
        let mut twice = genuine.clone();
        twice.draft.headers.push((name.clone(), value.clone()));
        all.push((format!("{name} twice"), twice));
        for (what, bad) in bad_values() {
            let mut other = genuine.clone();
            other.draft.headers[index].1 = bad.into_bytes();
            all.push((format!("{name} {what}"), other));
        }
        let text = String::from_utf8(value.clone()).unwrap();
        let cut = Some(text[..text.len().saturating_sub(3)].to_owned());
        for (what, changed) in [("cut short", cut), ("in another encoding", encoded_otherwise(&text))] {
            let Some(changed) = changed else { continue };
            let mut other = genuine.clone();
            other.draft.headers[index].1 = changed.into_bytes();
            all.push((format!("{name} {what}"), other));
        }
        for part in 0..text.split('.').count() {
            for (what, bad) in bad_values() {
                let mut parts: Vec<_> = text.split('.').collect();
                parts[part] = &bad;
                let mut other = genuine.clone();
                other.draft.headers[index].1 = parts.join(".").into_bytes();
                all.push((format!("part {part} of {name} {what}"), other));
            }
        }
    }
    all
}

/// Every change of one parameter.
fn of_parameters(text: &str) -> Vec<(String, String)> {
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
    let write = |fields: &[(String, String)]| {
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
    };
    let mut all = Vec::new();
    for (index, (name, value)) in fields.iter().enumerate() {
        for again in [value.as_str(), "other"] {
            let twice = [&fields[..], &[(name.clone(), again.to_owned())]].concat();
            all.push((format!("{name} twice"), write(&twice)));
        }
        for (what, bad) in bad_values() {
            let mut other = fields.clone();
            other[index].1 = bad;
            all.push((format!("{name} {what}"), write(&other)));
        }
    }
    all
}

/// Every change of one value in JSON.
fn of_json(json: &Value) -> Vec<(String, String)> {
    fn leaves(json: &Value, path: String, found: &mut Vec<String>) {
        match json {
            Value::Object(fields) => {
                fields.iter().for_each(|(key, value)| leaves(value, format!("{path}/{key}"), found));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(at, value)| leaves(value, format!("{path}/{at}"), found));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => found.push(path),
        }
    }
    let mut paths = Vec::new();
    leaves(json, String::new(), &mut paths);
    let mut all = Vec::new();
    for path in paths {
        let bad = bad_values().map(|(what, bad)| (what, Value::String(bad)));
        let others =
            [("an object", serde_json::json!({"a": 1})), ("null", Value::Null), ("a number", 1e300.into())];
        for (what, bad) in bad.into_iter().chain(others) {
            let mut other = json.clone();
            *other.pointer_mut(&path).unwrap() = bad;
            all.push((format!("{path} {what}"), other.to_string()));
        }
    }
    all
}

fn changed(genuine: &Genuine, has_own_body: bool) -> Vec<(String, Genuine)> {
    let mut all = of_headers(genuine);
    if let Some(query) = &genuine.query {
        let one = |(what, query)| (what, Genuine { query: Some(query), ..genuine.clone() });
        all.extend(of_parameters(query).into_iter().map(one));
    }
    if has_own_body {
        let body = String::from_utf8(genuine.draft.body.clone()).unwrap();
        let bodies = match serde_json::from_str(&body) {
            Ok(json) => of_json(&json),
            Err(_) => of_parameters(&body),
        };
        for (what, body) in bodies {
            let mut other = genuine.clone();
            other.draft.body = body.into_bytes();
            all.push((what, other));
        }
    }
    all
}

#[test]
fn no_bad_value_of_what_proves_a_request_is_accepted_by_any_preset() {
    let mut count = 0;
    for (name, preset) in preset::all() {
        let (source, genuine) = genuine(name, preset);
        assert_eq!(verdict(&source, &genuine), Ok(0), "{name}: what its sender sends");
        for (what, request) in changed(&genuine, !genuine.draft.is_body_given) {
            let verdict = verdict(&source, &request);
            assert!(is_as_the_table_says(&source, preset, verdict), "{name}: {what}: {verdict:?}");
            count += 1;
        }
    }
    assert!(1000 < count, "{count}");
}

/// Whether a refusal has the usual status, or where the signature does not fit that of its sender.
fn is_as_the_table_says(source: &Source, preset: &Preset, verdict: Result<usize, Rejection>) -> bool {
    let Err(rejection) = verdict else { return false };
    let own = preset.mismatch_status.filter(|_| rejection == Rejection::SignatureMismatch);
    source.status_of(rejection) == own.unwrap_or_else(|| rejection.status())
        && (400..=403).contains(&rejection.status())
}

#[test]
fn what_was_signed_with_another_key_is_accepted_by_no_preset() {
    for (name, preset) in preset::all() {
        let (_, genuine) = genuine(name, preset);
        let table = table(name);
        let others = if preset.has_key_pair() {
            &ANOTHER[..]
        } else {
            &["another:secret", "616e6f74686572", "YW5vdGhlcg=="]
        };
        let sources: Vec<_> = others.iter().filter_map(|other| try_source(&table, &[other]).ok()).collect();
        assert!(!sources.is_empty(), "{name}: no other key is one of its sender's");
        for source in sources {
            let verdict = verdict(&source, &genuine);
            assert!(is_as_the_table_says(&source, preset, verdict), "{name}: {verdict:?}");
        }
    }
}

#[test]
fn an_altered_body_is_accepted_only_where_its_sender_does_not_sign_it() {
    for (name, preset) in preset::all() {
        let (source, mut genuine) = genuine(name, preset);
        if source.scheme.facts().covers_body {
            genuine.draft.body.push(b' ');
            let verdict = verdict(&source, &genuine);
            assert!(is_as_the_table_says(&source, preset, verdict), "{name}: {verdict:?}");
        }
    }
}

#[test]
fn what_a_key_pair_signed_too_long_ago_or_ahead_of_time_is_refused() {
    for (name, preset) in preset::all().iter().filter(|(_, preset)| preset.has_key_pair()) {
        let Some(window) = preset.window() else { continue };
        let (source, genuine) = genuine(name, preset);
        let window = humantime::parse_duration(window).unwrap();
        assert_eq!(verdict_at(NOW.plus(window), &source, &genuine), Ok(0), "{name}");
        let beyond = window + std::time::Duration::from_secs(1);
        for elsewhere in [NOW.plus(beyond), NOW.minus(beyond)] {
            let verdict = verdict_at(elsewhere, &source, &genuine);
            assert_eq!(verdict, Err(Rejection::TimestampOutsideWindow), "{name}");
        }
    }
}

#[test]
fn a_token_of_another_year_is_refused() {
    let year = std::time::Duration::from_secs(365 * 86_400);
    for (name, preset) in preset::all().iter().filter(|(_, preset)| preset.scheme == "jwt") {
        let (source, genuine) = genuine(name, preset);
        let verdict = verdict_at(NOW.plus(year), &source, &genuine);
        assert!(is_as_the_table_says(&source, preset, verdict), "{name}: {verdict:?}");
    }
}
