//! For every preset: each part of what proves a request, wherever it lies, there twice, empty, not
//! ASCII, and 64 KiB long. Always refused, and never a panic.

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
    let table = format!("public_url = \"https://hooks.example.com/x\"\npreset = {name:?}");
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
    let Genuine { query, draft } = request;
    let (query, headers, body) = (query.as_deref(), &draft.headers, draft.body.as_slice());
    judge(source, UnverifiedRequest { method: "POST", query, headers, body, received_at: NOW })
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
            let is_clear = verdict.is_err_and(|rejection| (400..=403).contains(&rejection.status()));
            assert!(is_clear, "{name}: {what}: {verdict:?}");
            count += 1;
        }
    }
    assert!(1000 < count, "{count}");
}
