//! Requests that no sender would send, and configurations that nobody should run.

use base64::Engine;
use proptest::prelude::*;
use ring::signature::KeyPair;

use super::*;
use crate::verify::preset;

const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);
const BODY: &[u8] = br#"{"id":"evt_1","type":"ping","webhookTimestamp":1795000000000}"#;

/// Every preset of which the tests can sign as its sender does, and whose proof lies in a header.
fn presets() -> Vec<(&'static str, Source)> {
    let names =
        preset::all().iter().filter(|(_, preset)| !preset.has_key_pair()).map(|(name, _)| name.as_str());
    let sources = names.map(|name| (name, source(&table(name), &[secret_for(&table(name))])));
    sources.filter(|(_, source)| source.scheme.facts().header.is_some()).collect()
}

fn another_secret(preset: &str) -> &'static str {
    match secret_for(&table(preset)) {
        "hookwell:secret" => "hookwell:another",
        "736563726574" => "616e6f74686572",
        _ => "YW5vdGhlcg==",
    }
}

fn tampered(source: &Source, change: impl Fn(&mut String)) -> Headers {
    let mut headers = signed(source, BODY, NOW);
    for (name, value) in &mut headers {
        if Some(&*name) == source.scheme.facts().header.as_ref() {
            let mut text = String::from_utf8(value.clone()).unwrap();
            change(&mut text);
            *value = text.into_bytes();
        }
    }
    headers
}

#[test]
fn what_is_signed_as_the_sender_signs_is_accepted() {
    for (name, source) in presets() {
        assert_eq!(check(&source, &signed(&source, BODY, NOW), BODY, NOW), Ok(0), "{name}");
    }
}

#[test]
fn every_preset_refuses_an_altered_body_and_another_secret() {
    for (name, source) in presets() {
        let headers = signed(&source, BODY, NOW);
        let altered = check(&source, &headers, b"{}", NOW);
        let is_let_in = altered == Ok(0) && !source.scheme.facts().covers_body;
        assert!(altered == Err(Rejection::SignatureMismatch) || is_let_in, "{name}: {altered:?}");
        let other = super::source(&table(name), &[another_secret(name)]);
        assert_eq!(check(&other, &headers, BODY, NOW), Err(Rejection::SignatureMismatch), "{name}");
    }
}

#[test]
fn every_preset_refuses_a_truncated_an_empty_and_a_missing_signature() {
    for (name, source) in presets() {
        let cut = check(&source, &tampered(&source, |text| text.truncate(text.len() - 3)), BODY, NOW);
        assert!(matches!(cut, Err(Rejection::SignatureMismatch | Rejection::Unreadable)), "{name}: {cut:?}");
        let empty = tampered(&source, String::clear);
        assert_eq!(check(&source, &empty, BODY, NOW), Err(Rejection::SignatureMissing), "{name}");
        assert_eq!(check(&source, &Headers::new(), BODY, NOW), Err(Rejection::SignatureMissing), "{name}");
    }
}

#[test]
fn every_preset_refuses_a_signature_header_that_is_there_twice() {
    for (name, source) in presets() {
        let mut headers = signed(&source, BODY, NOW);
        let doubled = headers.iter().find(|(name, _)| Some(name) == source.scheme.facts().header.as_ref());
        let doubled = doubled.unwrap().clone();
        headers.push(doubled);
        assert_eq!(check(&source, &headers, BODY, NOW), Err(Rejection::Unreadable), "{name}");
    }
}

#[test]
fn every_preset_refuses_64_kib_and_bytes_that_are_no_text() {
    for (name, source) in presets() {
        let long = tampered(&source, |text| *text = "a".repeat(65_536));
        assert!(check(&source, &long, BODY, NOW).is_err(), "{name}");
        let mut headers = signed(&source, BODY, NOW);
        headers.iter_mut().for_each(|(_, value)| *value = vec![0xff, 0xfe, b'=', 0xff]);
        assert_eq!(check(&source, &headers, BODY, NOW), Err(Rejection::Unreadable), "{name}");
    }
}

#[test]
fn every_preset_with_a_window_refuses_what_lies_outside_it() {
    for (name, source) in presets() {
        let Some(window) = preset::all()[name].window() else { continue };
        let window = humantime::parse_duration(window).unwrap();
        let headers = signed(&source, BODY, NOW);
        assert_eq!(check(&source, &headers, BODY, NOW.plus(window)), Ok(0), "{name}");
        let beyond = window + std::time::Duration::from_secs(1);
        let ahead = Some(NOW.minus(beyond)).filter(|_| !preset::all()[name].past_only);
        for elsewhere in [NOW.plus(beyond)].into_iter().chain(ahead) {
            assert_eq!(
                check(&source, &headers, BODY, elsewhere),
                Err(Rejection::TimestampOutsideWindow),
                "{name}"
            );
        }
    }
}

#[test]
fn a_forged_request_does_not_learn_whether_its_time_was_right() {
    let source = source("preset = \"slack\"", &["s3cret"]);
    let headers = signed(&source, BODY, NOW);
    let late = NOW.plus(std::time::Duration::from_secs(3600));
    assert_eq!(check(&source, &headers, b"forged", late), Err(Rejection::SignatureMismatch));
}

#[test]
fn a_signed_header_that_is_missing_or_doubled_is_refused() {
    let source = source("preset = \"standard-webhooks\"", &["c2VjcmV0"]);
    for (header, missing) in
        [("webhook-id", Rejection::SignedPartMissing), ("webhook-timestamp", Rejection::TimestampMissing)]
    {
        let mut headers = signed(&source, BODY, NOW);
        headers.push((header.to_owned(), b"again".to_vec()));
        assert_eq!(check(&source, &headers, BODY, NOW), Err(Rejection::Unreadable), "{header}");
        headers.retain(|(name, _)| name != header);
        assert_eq!(check(&source, &headers, BODY, NOW), Err(missing), "{header}");
    }
}

#[test]
fn a_time_inside_the_body_is_read_once_the_signature_fits() {
    let table = "[sources.hmac]\nheader = \"x\"\ntimestamp = \"json:/sent\"";
    let source = source(table, &["s3cret"]);
    let judge = |body: &[u8]| check(&source, &signed(&source, body, NOW), body, NOW);
    assert_eq!(judge(br#"{"sent":1795000000}"#), Ok(0));
    assert_eq!(judge(br#"{"sent":1794990000}"#), Err(Rejection::TimestampOutsideWindow));
    assert_eq!(judge(br#"{"sent":"now"}"#), Err(Rejection::Unreadable));
    assert_eq!(judge(b"{}"), Err(Rejection::TimestampMissing));
    let forged = signed(&source, b"{}", NOW);
    assert_eq!(check(&source, &forged, b"not even JSON", NOW), Err(Rejection::SignatureMismatch));
}

#[test]
fn a_key_of_nothing_but_zero_bytes_is_no_key() {
    for (key, zeros) in [("hex", "000000"), ("base64", "AAAA"), ("whsec", "whsec_AAAA")] {
        let table = format!("[sources.hmac]\nheader = \"x\"\nkey = {key:?}");
        let faults = try_source(&table, &[zeros]).unwrap_err();
        assert!(faults[0].contains("does not hold a key"), "{faults:?}");
    }
}

#[test]
fn a_field_where_the_header_has_none_is_a_fault() {
    let table = "[sources.hmac]\nheader = \"x\"\ncontent = \"{field:t}.{body}\"\ntimestamp = \"field:t\"";
    let faults = try_source(table, &["s"]).unwrap_err();
    let told = |key: &str| faults.iter().any(|fault| fault.contains(&format!("hmac.{key}: names a field")));
    assert!(faults.len() == 2 && told("content") && told("timestamp"), "{faults:?}");
}

#[test]
fn a_tolerance_without_a_timestamp_is_told_with_its_own_line() {
    let faults = try_source("[sources.hmac]\nheader = \"x\"\ntolerance = \"5m\"", &["s"]).unwrap_err();
    assert!(faults[0].starts_with("test.toml:6: sources[0].hmac.tolerance: "), "{faults:?}");
}

#[test]
fn an_empty_body_is_told_apart_where_the_body_is_signed() {
    let source = source("preset = \"github\"", &["s3cret"]);
    assert_eq!(check(&source, &signed(&source, b"", NOW), b"", NOW), Err(Rejection::BodyMissing));
}

#[test]
fn each_of_several_secrets_verifies_and_is_told() {
    let (old, new) = ("old-secret", "new-secret");
    let both = source("preset = \"github\"", &[old, new]);
    for (index, secret) in [old, new].into_iter().enumerate() {
        let sender = source("preset = \"github\"", &[secret]);
        assert_eq!(check(&both, &signed(&sender, BODY, NOW), BODY, NOW), Ok(index));
    }
}

/// A signature of Standard Webhooks' second scheme, by a key made up here.
fn signed_with_ed25519(key: &ring::signature::Ed25519KeyPair, body: &[u8]) -> Headers {
    let time = (NOW.as_millis() / 1000).to_string();
    let signature = key.sign(&[b"msg_1.", time.as_bytes(), b".", body].concat());
    let signature = base64::engine::general_purpose::STANDARD.encode(signature);
    let all = [("webhook-id", "msg_1".to_owned()), ("webhook-timestamp", time)];
    let signature = ("webhook-signature", format!("v1,c2ln v1a,{signature}"));
    all.into_iter().chain([signature]).map(|(name, value)| header(name, value)).collect()
}

#[test]
fn a_public_key_verifies_beside_a_secret_and_never_stands_in_for_one() {
    let key = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public = base64::engine::general_purpose::STANDARD.encode(key.public_key());
    let public = format!("whpk_{public}");
    let table = "preset = \"standard-webhooks\"";
    let both = source(table, &["c2VjcmV0", &public]);
    let headers = signed_with_ed25519(&key, BODY);
    assert_eq!(check(&both, &headers, BODY, NOW), Ok(1));
    assert_eq!(check(&both, &headers, b"forged", NOW), Err(Rejection::SignatureMismatch));
    assert_eq!(check(&both, &signed(&both, BODY, NOW), BODY, NOW), Ok(0));
    let only_secret = source(table, &["c2VjcmV0"]);
    assert_eq!(check(&only_secret, &headers, BODY, NOW), Err(Rejection::SignatureMismatch));
    // Everybody knows a public key: an HMAC with it proves nothing.
    let only_public = source(table, &[&public]);
    let forger = source(table, &[public.trim_start_matches("whpk_")]);
    assert_eq!(
        check(&only_public, &signed(&forger, BODY, NOW), BODY, NOW),
        Err(Rejection::SignatureMismatch)
    );
    assert!(try_source(table, &["whpk_c2hvcnQ="]).unwrap_err()[0].contains("does not hold a key"));
}

#[test]
fn senders_with_a_pair_of_keys_are_known_by_their_public_one() {
    let key = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let time = "1795000000";
    let stranger = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let discord = (hex::encode(key.public_key()), hex::encode(key.sign(&[time.as_bytes(), BODY].concat())));
    let signed = key.sign(&[time.as_bytes(), b"|", BODY].concat());
    let telnyx = (base64(key.public_key().as_ref()), base64(signed.as_ref()));
    let strangers = [hex::encode(stranger.public_key()), base64(stranger.public_key().as_ref())];
    for (preset, (public, signature), stranger, names) in [
        ("discord", discord, &strangers[0], ["x-signature-ed25519", "x-signature-timestamp"]),
        ("telnyx", telnyx, &strangers[1], ["telnyx-signature-ed25519", "telnyx-timestamp"]),
    ] {
        let source = source(&table(preset), &[&public]);
        let headers = vec![header(names[0], signature), header(names[1], time)];
        assert_eq!(check(&source, &headers, BODY, NOW), Ok(0), "{preset}");
        let forged = check(&source, &headers, b"forged", NOW);
        assert_eq!(forged, Err(Rejection::SignatureMismatch), "{preset}");
        let other = super::source(&table(preset), &[stranger]);
        assert_eq!(check(&other, &headers, BODY, NOW), Err(Rejection::SignatureMismatch), "{preset}");
        assert!(try_source(&table(preset), &["c2hvcnQ="]).unwrap_err()[0].contains("does not hold a key"));
    }
}

#[test]
fn where_the_sender_names_its_key_a_secret_needs_an_id_and_only_the_named_one_counts() {
    let secrets = |ids: [Option<&str>; 2]| {
        let [one, two] = ids.map(|id| id.map(str::to_owned));
        vec![("first".to_owned(), one), ("second".to_owned(), two)]
    };
    let table = table("pusher");
    let faults = try_source_with(&table, &secrets([Some("a"), None])).unwrap_err();
    assert!(faults[0].contains("needs an id"), "{faults:?}");
    let both = try_source_with(&table, &secrets([Some("a"), Some("b")])).unwrap();
    let headers = signed(&both, BODY, NOW);
    assert_eq!(check(&both, &headers, BODY, NOW), Ok(0));
    let swapped = try_source_with(&table, &secrets([Some("b"), Some("a")])).unwrap();
    assert_eq!(check(&swapped, &headers, BODY, NOW), Err(Rejection::SignatureMismatch));
    let unnamed: Headers = headers.into_iter().filter(|(name, _)| name != "x-pusher-key").collect();
    assert_eq!(check(&both, &unnamed, BODY, NOW), Err(Rejection::SignedPartMissing));
}

#[test]
fn a_header_that_must_have_a_value_and_has_another_makes_a_request_unreadable() {
    let source = source(&table("box"), &["s3cret"]);
    let mut headers = signed(&source, BODY, NOW);
    assert_eq!(check(&source, &headers, BODY, NOW), Ok(0));
    for (name, value) in &mut headers {
        if name == "box-signature-version" {
            *value = b"2".to_vec();
        }
    }
    assert_eq!(check(&source, &headers, BODY, NOW), Err(Rejection::Unreadable));
}

#[test]
fn either_of_two_signature_headers_will_do_and_so_will_any_number() {
    let table_of_box = table("box");
    let (old, new) = ("old-secret", "new-secret");
    let source_of_box = source(&table_of_box, &[new]);
    let rename = |headers: Headers, from: &str, to: &str| -> Headers {
        let rename = |name: String| if name == from { to.to_owned() } else { name };
        headers.into_iter().map(|(name, value)| (rename(name), value)).collect()
    };
    let headers = signed(&source_of_box, BODY, NOW);
    let second = rename(headers, "box-signature-primary", "box-signature-secondary");
    assert_eq!(check(&source_of_box, &second, BODY, NOW), Ok(0));
    let source_of_docusign = source(&table("docusign"), &[new]);
    let by_old = signed(&source(&table("docusign"), &[old]), BODY, NOW);
    let by_new = signed(&source_of_docusign, BODY, NOW);
    let by_new = rename(by_new, "x-docusign-signature-1", "x-docusign-signature-2");
    let both: Headers = by_old.into_iter().chain(by_new).collect();
    assert_eq!(check(&source_of_docusign, &both, BODY, NOW), Ok(0));
}

#[test]
fn only_post_is_used() {
    let source = source("preset = \"github\"", &["s3cret"]);
    let headers = signed(&source, BODY, NOW);
    for method in ["GET", "PUT", "post"] {
        let request =
            UnverifiedRequest { method, query: None, headers: &headers, body: BODY, received_at: NOW };
        assert_eq!(verify(request, &source, &mut Silent).err(), Some(Rejection::MethodNotAllowed));
    }
}

#[test]
fn an_explanation_names_the_step_and_shows_no_secret() {
    let source = source("preset = \"github\"", &["s3cret-value"]);
    let headers = vec![header("x-hub-signature", "sha1=abc")];
    let request =
        UnverifiedRequest { method: "POST", query: None, headers: &headers, body: BODY, received_at: NOW };
    let mut explanation = Explanation::default();
    verify(request, &source, &mut explanation).unwrap_err();
    let words = serde_json::to_string(&explanation.0).unwrap();
    assert!(words.contains("x-hub-signature is there"), "{words}");
    assert!(!words.contains("s3cret-value"), "{words}");
}

#[test]
fn a_source_that_says_nothing_about_its_signature_does_not_start() {
    let faults = try_source("", &["s"]).unwrap_err();
    assert!(faults[0].contains("nothing unsigned is accepted"), "{faults:?}");
}

#[test]
fn every_fault_of_a_recipe_is_told_at_once() {
    let table = "[sources.hmac]\nalgorithm = \"md5\"\nparse = \"tail\"\nencoding = \"base32\"\nkey = \"raw\"\ncontent = \"{header:x}\"\ntimestamp = \"body-hash\"\ntimestamp_unit = \"ns\"";
    let faults = try_source(table, &["s"]).unwrap_err();
    let keys = ["algorithm", "header", "parse", "encoding", "key", "content", "timestamp", "timestamp_unit"];
    assert_eq!(faults.len(), keys.len(), "{faults:#?}");
    for key in keys {
        assert!(
            faults.iter().any(|fault| fault.contains(&format!("sources[0].hmac.{key}: "))),
            "{key}: {faults:#?}"
        );
    }
}

#[test]
fn a_secret_that_is_not_written_as_the_sender_shows_it_is_a_fault() {
    let faults = try_source("preset = \"standard-webhooks\"", &["not base64!"]).unwrap_err();
    assert!(faults[0].contains("whsec") && !faults[0].contains("not base64!"), "{faults:?}");
}

#[test]
fn a_signed_url_must_be_configured() {
    let table = "[sources.hmac]\nheader = \"x\"\ncontent = \"{url}{body}\"";
    let faults = try_source(table, &["s"]).unwrap_err();
    assert!(faults[0].contains("public_url"), "{faults:?}");
}

proptest! {
    #[test]
    fn no_header_and_no_body_makes_a_preset_panic_or_accept(
        preset in proptest::sample::select(presets().into_iter().map(|(name, _)| name).collect::<Vec<_>>()),
        values in proptest::collection::vec("(t=[0-9]{0,12},)?(v1[=,]|sha256=|v0=)?[ -~é]{0,80}", 3),
        body in any::<Vec<u8>>(),
    ) {
        let source = source(&table(preset), &[secret_for(&table(preset))]);
        let first = source.scheme.facts().header.unwrap();
        let names = [&*first, "webhook-id", "webhook-timestamp", "x-slack-request-timestamp"];
        let headers: Headers = names.iter().zip(values).map(|(name, value)| header(name, value)).collect();
        prop_assert!(check(&source, &headers, &body, NOW).is_err());
    }

    #[test]
    fn every_recipe_verifies_what_it_signs(
        algorithm in proptest::sample::select(vec!["sha1", "sha256", "sha384", "sha512"]),
        parse in proptest::sample::select(vec!["whole", "prefix:sig=", "kv:;:s", "list: :,:v1"]),
        encoding in proptest::sample::select(vec!["hex", "base64", "base64url"]),
        content in proptest::sample::select(vec!["{body}", "{method}.{body}", "{header:x-id}{body}.", "{url}|{body}"]),
        unit in proptest::sample::select(vec!["s", "ms", "rfc3339"]),
        body in proptest::collection::vec(any::<u8>(), 1..200),
    ) {
        let table = format!(
            "public_url = \"https://hooks.example.com/x\"\n[sources.hmac]\nheader = \"x-sig\"\nalgorithm = {algorithm:?}\nparse = {parse:?}\nencoding = {encoding:?}\ncontent = {content:?}\ntimestamp = \"header:x-time\"\ntimestamp_unit = {unit:?}"
        );
        let source = source(&table, &["s3cret"]);
        let headers = signed(&source, &body, NOW);
        prop_assert_eq!(check(&source, &headers, &body, NOW), Ok(0));
        let mut altered = body.clone();
        altered[0] ^= 1;
        prop_assert_eq!(check(&source, &headers, &altered, NOW), Err(Rejection::SignatureMismatch));
    }
}
