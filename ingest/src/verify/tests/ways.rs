//! What words do not describe: bodies that carry their own signature, tokens, and senders with more
//! than one way to sign.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use super::*;

const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);

fn draft_of(source: &Source, body: Option<&[u8]>) -> Draft {
    let mut draft = body.map_or_else(Draft::default, Draft::of_body);
    let signing = Signing { url: &source.public_url, now: NOW, filler: "filler" };
    source.scheme.sign(&mut draft, &source.keys[0], &signing).unwrap();
    draft
}

fn source_of(preset: &str, secret: &str) -> Source {
    source(&table(preset), &[secret])
}

#[test]
fn a_body_that_carries_its_signature_is_accepted_and_with_another_secret_refused() {
    for (preset, secret, another) in [
        ("mailgun", "s3cret", "another"),
        ("mailgun-routes", "s3cret", "another"),
        ("dropbox-sign", "s3cret", "another"),
        ("adyen-standard", "736563726574", "616e6f74686572"),
    ] {
        let draft = draft_of(&source_of(preset, secret), None);
        let verdict = |secret| check(&source_of(preset, secret), &draft.headers, &draft.body, NOW);
        assert_eq!(verdict(secret), Ok(0), "{preset}");
        assert_eq!(verdict(another), Err(Rejection::SignatureMismatch), "{preset}");
        let unsigned = check(&source_of(preset, secret), &Headers::new(), b"{}", NOW);
        assert!(
            matches!(unsigned, Err(Rejection::SignatureMissing | Rejection::Unreadable)),
            "{preset}: {unsigned:?}"
        );
    }
}

#[test]
fn an_item_without_a_signature_beside_a_signed_one_is_refused() {
    let source = source_of("adyen", "736563726574");
    let one = draft_of(&source_of("adyen-standard", "736563726574"), None);
    assert_eq!(check(&source, &one.headers, &one.body, NOW), Ok(0), "by the preset that knows both ways");
    let mut body: Value = serde_json::from_slice(&one.body).unwrap();
    let items = body["notificationItems"].as_array_mut().unwrap();
    items.push(json!({"NotificationRequestItem": {"pspReference": "forged", "success": "true"}}));
    let forged = check(&source, &one.headers, body.to_string().as_bytes(), NOW);
    assert_eq!(forged, Err(Rejection::SignatureMissing));
}

#[test]
fn a_part_of_a_body_of_many_is_found_wherever_it_is() {
    let source = source_of("dropbox-sign", "s3cret");
    let json = String::from_utf8(draft_of(&source, None).body).unwrap();
    let body = format!(
        "--b\r\ncontent-disposition: form-data; name=\"other\"\r\n\r\n{{}}\r\n--b\r\ncontent-disposition: form-data; name=\"json\"\r\n\r\n{json}\r\n--b--\r\n"
    );
    let headers = vec![header("content-type", "multipart/form-data; boundary=b")];
    assert_eq!(check(&source, &headers, body.as_bytes(), NOW), Ok(0));
    let cut = &body.as_bytes()[..body.len() - 60];
    assert!(check(&source, &headers, cut, NOW).is_err());
}

/// A token of MessageBird's kind with the given header and claims.
fn token(algorithm: hmac::Algorithm, header: &Value, claims: &Value) -> Headers {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let content = format!("{}.{}", encode(header), encode(claims));
    let tag = hmac::sign(&hmac::Key::new(algorithm, b"s3cret"), content.as_bytes());
    let token = format!("{content}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
    vec![super::header("upstash-signature", token)]
}

#[test]
fn a_token_of_another_algorithm_or_of_none_fits_with_nothing() {
    let source = source_of("qstash", "s3cret");
    let body_hash = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, b"{}"));
    let claims = json!({"iss": "Upstash", "sub": "https://hooks.example.com/x", "exp": 1_795_000_060, "body": body_hash});
    let verdict = |algorithm, header: Value, claims: &Value| {
        check(&source, &token(algorithm, &header, claims), b"{}", NOW)
    };
    assert_eq!(verdict(hmac::HMAC_SHA256, json!({"alg": "HS256"}), &claims), Ok(0));
    let mismatch = Err(Rejection::SignatureMismatch);
    assert_eq!(verdict(hmac::HMAC_SHA512, json!({"alg": "HS512"}), &claims), mismatch);
    assert_eq!(verdict(hmac::HMAC_SHA256, json!({"alg": "none"}), &claims), mismatch);
    assert_eq!(verdict(hmac::HMAC_SHA256, json!({}), &claims), Err(Rejection::Unreadable));
    for (claim, value) in
        [("iss", json!("Other")), ("sub", json!("https://else")), ("body", json!(7)), ("body", Value::Null)]
    {
        let mut other = claims.clone();
        other[claim] = value;
        assert_eq!(verdict(hmac::HMAC_SHA256, json!({"alg": "HS256"}), &other), mismatch, "{claim}");
    }
    let mut ended = claims.clone();
    ended["exp"] = json!(1_795_000_000);
    let outside = Err(Rejection::TimestampOutsideWindow);
    assert_eq!(verdict(hmac::HMAC_SHA256, json!({"alg": "HS256"}), &ended), outside);
    for garbage in ["", ".", "..", "a.b.c", "e30.e30.e30.e30", "é.é.é", &"a".repeat(65_536)] {
        let verdict = check(&source, &vec![super::header("upstash-signature", garbage)], b"{}", NOW);
        assert!(verdict.is_err(), "{garbage}");
    }
}

#[test]
fn a_hash_that_begins_with_the_secret_is_not_continued() {
    let source = source_of("hubspot-v1", "s3cret");
    let headers = draft_of(&source, Some(b"{}")).headers;
    assert_eq!(check(&source, &headers, b"{}", NOW), Ok(0));
    // The padding of SHA-256 begins with 0x80.
    assert_eq!(check(&source, &headers, b"{}\x80\0\0", NOW), Err(Rejection::Unreadable));
}

#[test]
fn the_first_way_that_a_request_takes_counts() {
    let all = source_of("hubspot", "s3cret");
    for preset in ["hubspot", "hubspot-v2", "hubspot-v1"] {
        let draft = draft_of(&source_of(preset, "s3cret"), Some(b"[]"));
        assert_eq!(check(&all, &draft.headers, b"[]", NOW), Ok(0), "{preset}");
        assert_eq!(check(&all, &draft.headers, b"{}", NOW), Err(Rejection::SignatureMismatch), "{preset}");
    }
    // Whoever adds the header of a better way is held to it.
    let mut headers = draft_of(&source_of("hubspot-v1", "s3cret"), Some(b"[]")).headers;
    headers.push(header("x-hubspot-signature-v3", "Zm9yZ2Vk"));
    headers.push(header("x-hubspot-request-timestamp", "1795000000000"));
    assert_eq!(check(&all, &headers, b"[]", NOW), Err(Rejection::SignatureMismatch));
}

#[test]
fn a_hub_may_sign_with_either_hash() {
    let source = source_of("websub", "s3cret");
    for preset in ["websub", "websub-sha1"] {
        let headers = draft_of(&source_of(preset, "s3cret"), Some(b"<feed/>")).headers;
        assert_eq!(check(&source, &headers, b"<feed/>", NOW), Ok(0), "{preset}");
        assert_eq!(check(&source, &headers, b"<feed>", NOW), Err(Rejection::SignatureMismatch), "{preset}");
    }
}

#[test]
fn ways_that_share_a_header_are_told_apart_by_how_long_a_signature_is() {
    let source = source_of("cloudinary", "s3cret");
    for preset in ["cloudinary", "cloudinary-sha1"] {
        let headers = draft_of(&source_of(preset, "s3cret"), Some(b"{}")).headers;
        assert_eq!(check(&source, &headers, b"{}", NOW), Ok(0), "{preset}");
        assert_eq!(check(&source, &headers, b"[]", NOW), Err(Rejection::SignatureMismatch), "{preset}");
    }
}

#[test]
fn it_is_told_what_a_signature_looks_like_that_is_not_as_it_should_be() {
    let told = |name: &str, value: &str| {
        let (source, headers) = (source_of("github", "s3cret"), vec![header(name, value)]);
        let request = UnverifiedRequest {
            method: "POST",
            query: None,
            headers: &headers,
            body: b"{}",
            received_at: NOW,
        };
        let mut trace = Explanation::default();
        verify(request, &source, &mut trace).unwrap_err();
        trace.0.iter().map(|finding| finding.detail.as_str()).collect::<Vec<_>>().join("; ")
    };
    let name = "x-hub-signature-256";
    for (name, value, words) in [
        (
            name,
            format!("sha256={}", base64::engine::general_purpose::STANDARD.encode([7; 32])),
            "as Base64 it would be that long",
        ),
        (name, format!("sha256={}", "ab".repeat(20)), "one of SHA-1"),
        (name, format!("sha256={}", "ab".repeat(31)), "31 bytes long; 32 are expected"),
        ("x-hub-signature", "sha1=ab".to_owned(), "x-hub-signature is there"),
        ("x-gitlab-token", "abc".to_owned(), "x-gitlab-token is there"),
    ] {
        let told = told(name, &value);
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn a_form_is_signed_whatever_the_order_of_its_fields() {
    let source = source_of("twilio", "s3cret");
    let headers = draft_of(&source, Some(b"b=2&a=1&a=0")).headers;
    assert_eq!(check(&source, &headers, b"a=0&a=1&b=2", NOW), Ok(0));
    for other in ["a=0&a=1&b=3", "a=0&a=1", "a=0&a=1&b=2&c=3", "{}"] {
        assert_eq!(check(&source, &headers, other.as_bytes(), NOW), Err(Rejection::SignatureMismatch));
    }
}

#[test]
fn a_sender_that_proves_nothing_must_be_said_to() {
    let unsigned = source("unsigned = true", &[]);
    assert_eq!(check(&unsigned, &Headers::new(), b"{}", NOW), Ok(0));
    let told = |table: &str, secrets: &[&str], words: &str| {
        let faults = try_source(table, secrets).unwrap_err();
        assert!(faults.len() == 1 && faults[0].contains(words), "{table}: {faults:?}");
    };
    told("unsigned = true", &["s3cret"], "of no use");
    told("unsigned = true\npreset = \"github\"", &[], "stands beside");
    told("unsigned = true\n[sources.hmac]\nheader = \"x\"", &[], "stands beside");
    told("unsigned = false", &["s3cret"], "nothing unsigned is accepted");
    told("token = \"query:key\"\nunsigned = true", &[], "stands beside");
    told("token = \"key\"", &["s3cret"], "must be the one place");
    told("token = \"body-hash\"", &["s3cret"], "must be the one place");
    told("token = \"header:x-key | query:key\"", &["s3cret"], "must be the one place");
    told("token = \"json:/a/*/b/*/c\"", &["s3cret"], "must be the one place");
    told("token = \"query:key + header:x-key\"", &["s3cret"], "must be the one place");
    told("client_certificate = \"x\"\npreset = \"github\"", &["s3cret"], "stands beside");
    told("client_certificate = \"a header\"", &["s3cret"], "no header's name");
}

#[test]
fn what_shows_the_secret_is_neither_an_id_nor_kept() {
    let refused = |table: &str, key: &str, place: &str| {
        let faults = try_source(table, &["name:s3cret"]).unwrap_err();
        let told = format!("{key}: names {place}, where this sender shows its secret");
        assert!(faults.len() == 1 && faults[0].contains(&told), "{table}: {faults:?}");
    };
    let is_refused = |table: &str, key: &str| refused(table, key, "header:authorization");
    is_refused("token = \"header:Authorization\"\nevent_id = \"header:authorization\"", "event_id");
    is_refused("token = \"header:authorization\"\nkeep_headers = [\"Authorization\"]", "keep_headers");
    is_refused("preset = \"basic-auth\"\nevent_type = \"json:/type | header:authorization\"", "event_type");
    refused("token = \"query:key\"\nevent_id = \"json:/id + query:key\"", "event_id", "query:key");
    refused("token = \"json:/a~1b\"\nevent_type = \"json:/a~1b\"", "event_type", "json:/a~1b");
    let of_each = "token = \"json:/value/*/t\"\nevent_id = \"json:/value/0/t\"";
    refused(of_each, "event_id", "json:/value/*/t");
    let certificate = "client_certificate = \"x-cert\"\nkeep_headers = [\"x-cert\"]";
    assert!(try_source(certificate, &["s3cret"]).is_ok());
}

#[test]
fn a_token_counts_where_it_is_said_to_be_shown_and_once() {
    let secrets = ["s3cret", "t0p&more"];
    let verdict = |place: &str, query: Option<&str>, headers: Headers, body: &[u8]| {
        let source = source(&format!("token = {place:?}"), &secrets);
        judge(&source, UnverifiedRequest { method: "POST", query, headers: &headers, body, received_at: NOW })
    };
    let by_query =
        |query| verdict("query:key", query, vec![header("key", "s3cret")], b"{\"key\":\"s3cret\"}");
    assert_eq!(by_query(Some("a=b&key=s3cret")), Ok(0));
    assert_eq!(by_query(Some("key=t0p%26more")), Ok(1));
    for (query, rejection) in [
        (None, Rejection::SignatureMissing),
        (Some("keys=s3cret"), Rejection::SignatureMissing),
        (Some("key="), Rejection::SignatureMissing),
        (Some("key=S3cret"), Rejection::SignatureMismatch),
        (Some("key=s3cret&key=s3cret"), Rejection::Unreadable),
        (Some("key=%ff"), Rejection::SignatureMismatch),
    ] {
        assert_eq!(by_query(query), Err(rejection), "{query:?}");
    }
    assert_eq!(verdict("header:X-Key", None, vec![header("x-key", "s3cret")], b""), Ok(0));
    assert_eq!(verdict("json:/auth/key", None, Headers::new(), b"{\"auth\":{\"key\":\"s3cret\"}}"), Ok(0));
}

#[test]
fn a_certificate_that_a_proxy_names_is_one_of_the_secrets() {
    let source = source("client_certificate = \"X-Client-Cert\"", &["aa:bb", "cc:dd"]);
    assert!(source.needs_proxy);
    let verdict = |value: &str| check(&source, &vec![header("x-client-cert", value)], b"{}", NOW);
    assert_eq!(verdict("cc:dd"), Ok(1));
    assert_eq!(verdict("ee:ff"), Err(Rejection::SignatureMismatch));
    assert_eq!(check(&source, &Headers::new(), b"{}", NOW), Err(Rejection::SignatureMissing));
}
