//! What senders ask before they send events.

use super::*;
use crate::verify::handshake::Reply;
use crate::verify::key::MatchedKey;
use crate::verify::shake_hands;

const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);

/// What `preset` hears, whose secret and handshake token are `s3cret` and `t0ken`.
fn asked(
    preset: &str,
    method: &str,
    query: Option<&str>,
    headers: &Headers,
    body: &[u8],
) -> Option<Result<Reply, Rejection>> {
    let table = format!(
        "public_url = \"https://hooks.example.com/x\"\nhandshake_token = {{ env = \"T\" }}\npreset = {preset:?}"
    );
    let source = source(&table, &["s3cret"]);
    let request = UnverifiedRequest { method, query, headers, body, received_at: NOW };
    assert!(source.uses(method), "{preset}");
    let early = shake_hands(&request, &source, None, &mut Silent);
    early.or_else(|| {
        let verified = verify(request, &source, &mut Silent).ok()?;
        shake_hands(&request, &source, Some(verified.key()), &mut Silent)
    })
}

fn reply(content_type: &'static str, body: &str) -> Option<Result<Reply, Rejection>> {
    let body = body.to_owned();
    Some(Ok(Reply { status: 200, content_type: Some(content_type), body, ..Reply::default() }))
}

/// The headers with which `preset` would sign `body`.
fn signed_by(preset: &str, body: &[u8]) -> Headers {
    let table = table(preset);
    signed(&source(&table, &["s3cret"]), body, NOW)
}

fn mac(text: &str, encode: impl Fn(&[u8]) -> String) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"s3cret");
    encode(ring::hmac::sign(&key, text.as_bytes()).as_ref())
}

#[test]
fn a_challenge_in_the_query_comes_back_as_text() {
    let none = Headers::new();
    for (preset, method, query) in [
        ("dropbox", "GET", "challenge=a%20b%2Bc"),
        ("nylas", "GET", "challenge=a%20b%2Bc"),
        ("microsoft-graph", "POST", "validationToken=a%20b%2Bc"),
        ("meta", "GET", "hub.mode=subscribe&hub.verify_token=t0ken&hub.challenge=a%20b%2Bc"),
        ("websub", "GET", "hub.mode=subscribe&hub.topic=t0ken&hub.challenge=a%20b%2Bc"),
    ] {
        assert_eq!(asked(preset, method, Some(query), &none, b""), reply("text/plain", "a b+c"), "{preset}");
    }
    for (preset, query) in [
        ("meta", "hub.verify_token=forged&hub.challenge=1"),
        ("meta", "hub.challenge=1"),
        ("websub", "hub.mode=subscribe&hub.topic=other&hub.challenge=1"),
    ] {
        let refused = Some(Err(Rejection::SignatureMismatch));
        assert_eq!(asked(preset, "GET", Some(query), &none, b""), refused, "{preset}");
    }
    // Whoever knows the topic could ask the hub to end the subscription.
    let query = "hub.mode=unsubscribe&hub.topic=t0ken&hub.challenge=1";
    assert_eq!(asked("websub", "GET", Some(query), &none, b""), None);
}

#[test]
fn a_challenge_that_is_signed_comes_back_only_if_the_signature_fits() {
    for (preset, more, body, expected) in [
        ("slack", None, r#"{"type":"url_verification","challenge":"abc"}"#, "abc"),
        (
            "twitch",
            Some(("twitch-eventsub-message-type", "webhook_callback_verification")),
            r#"{"challenge":"abc"}"#,
            "abc",
        ),
    ] {
        let more = more.map(|(name, value)| header(name, value));
        let genuine: Headers = signed_by(preset, body.as_bytes()).into_iter().chain(more.clone()).collect();
        assert_eq!(asked(preset, "POST", None, &genuine, body.as_bytes()), reply("text/plain", expected));
        let forged: Headers = signed_by(preset, b"{}").into_iter().chain(more).collect();
        assert_eq!(asked(preset, "POST", None, &forged, body.as_bytes()), None, "{preset}");
    }
}

#[test]
fn a_challenge_is_signed_where_the_sender_wants_that() {
    let zoom = br#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#;
    let encrypted = mac("qgg8vlvZRS6UYooatFL8Aw", |tag| hex::encode(tag));
    let expected = format!(r#"{{"encryptedToken":"{encrypted}","plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#);
    assert_eq!(
        asked("zoom", "POST", None, &signed_by("zoom", zoom), zoom),
        reply("application/json", &expected)
    );
    let expected = format!(r#"{{"challenge":"{}"}}"#, mac("abc-def", |tag| hex::encode(tag)));
    for smartcar in [
        r#"{"eventName":"verify","payload":{"challenge":"abc-def"}}"#,
        r#"{"eventId":"52f6","eventType":"VERIFY","data":{"challenge":"abc-def"},"meta":{"version":"4.0"}}"#,
    ] {
        // Whether these are signed their sender does not say.
        for headers in [signed_by("smartcar", smartcar.as_bytes()), Headers::new()] {
            let heard = asked("smartcar", "POST", None, &headers, smartcar.as_bytes());
            assert_eq!(heard, reply("application/json", &expected));
        }
    }
    let base64 = |tag: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, tag);
    let expected = format!(r#"{{"response_token":"sha256={}"}}"#, mac("abc", base64));
    let x = asked("x", "GET", Some("crc_token=abc&nonce=def"), &Headers::new(), b"");
    assert_eq!(x, reply("application/json", &expected));
}

/// The answer to X is an HMAC with the secret that signs events, for anybody who asks.
#[test]
fn nothing_is_signed_for_a_stranger_that_could_be_the_body_of_an_event() {
    for challenge in ["%7B%22id%22%3A1%7D", "a%3Ab", "a%26b", "v0%3A1%3A", "a=b", "", "%00", "%C3%A9"] {
        let query = format!("crc_token={challenge}");
        let heard = asked("x", "GET", Some(&query), &Headers::new(), b"");
        assert!(matches!(heard, None | Some(Err(Rejection::Unreadable))), "{challenge}: {heard:?}");
    }
}

#[test]
fn what_was_signed_for_a_stranger_is_no_event() {
    for preset in ["x", "smartcar"] {
        let source = source(&format!("preset = {preset:?}"), &["s3cret"]);
        for (body, verdict) in [("12345", Err(Rejection::Unreadable)), (r#"{"id":"12345"}"#, Ok(0))] {
            let headers = signed_by(preset, body.as_bytes());
            assert_eq!(check(&source, &headers, body.as_bytes(), NOW), verdict, "{preset}: {body}");
        }
    }
}

#[test]
fn some_senders_want_a_header_a_status_or_any_answer_at_all() {
    let secret = vec![header("x-hook-secret", "abc")];
    let asana = asked("asana", "POST", None, &secret, b"{}").unwrap().unwrap();
    assert_eq!(asana.headers, [("x-hook-secret".to_owned(), "abc".to_owned())]);
    let mut unsolicited = signed_by("asana", b"{}");
    unsolicited.push(secret[0].clone());
    assert_eq!(asked("asana", "POST", None, &unsolicited, b"{}"), None, "an event is no handshake");
    let okta = vec![header("x-okta-verification-challenge", "abc")];
    let heard = asked("okta", "GET", None, &okta, b"");
    assert_eq!(heard, reply("application/json", r#"{"verification":"abc"}"#));
    let origin = vec![header("webhook-request-origin", "events.example.com")];
    let allowed = asked("cloudevents", "OPTIONS", None, &origin, b"").unwrap().unwrap();
    assert!(
        allowed.headers.contains(&("webhook-allowed-origin".to_owned(), "events.example.com".to_owned()))
    );
    for preset in ["trello", "mandrill", "intercom"] {
        let heard = asked(preset, "HEAD", None, &Headers::new(), b"").unwrap().unwrap();
        assert_eq!(heard, Reply { status: 200, ..Reply::default() }, "{preset}");
    }
}

#[test]
fn a_challenge_that_is_too_long_or_no_text_does_not_come_back() {
    for challenge in [&"a".repeat(1025), "%0d%0aset-cookie%3a%20x"] {
        let query = format!("challenge={challenge}");
        let heard = asked("dropbox", "GET", Some(&query), &Headers::new(), b"");
        assert_eq!(heard, Some(Err(Rejection::Unreadable)), "{challenge}");
    }
}

#[test]
fn discord_is_told_that_its_probes_are_refused_with_the_status_that_it_wants() {
    let key = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public = hex::encode(ring::signature::KeyPair::public_key(&key));
    let source = source("preset = \"discord\"", &[&public]);
    let heard = |body: &[u8]| {
        let signature = hex::encode(key.sign(&[b"1795000000", body].concat()));
        let headers =
            vec![header("x-signature-ed25519", signature), header("x-signature-timestamp", "1795000000")];
        let request =
            UnverifiedRequest { method: "POST", query: None, headers: &headers, body, received_at: NOW };
        let verified = verify(request, &source, &mut Silent).unwrap();
        shake_hands(&request, &source, Some(verified.key()), &mut Silent).map(|reply| reply.unwrap())
    };
    assert_eq!(heard(br#"{"type":0}"#).unwrap().status, 204);
    assert_eq!(heard(br#"{"type":1}"#).unwrap().body, r#"{"type":1}"#);
    assert_eq!(heard(br#"{"type":1,"event":{"type":"x"}}"#), None);
    assert_eq!(source.status_of(Rejection::SignatureMismatch), 401);
    assert_eq!(source.status_of(Rejection::SignatureMissing), 401);
}

#[test]
fn smartcar_hears_what_its_own_library_would_say() {
    let source = source("preset = \"smartcar\"", &["amt"]);
    let body = br#"{"eventName": "verify", "payload": {"challenge": "challenge"}}"#;
    let request =
        UnverifiedRequest { method: "POST", query: None, headers: &Headers::new(), body, received_at: NOW };
    let heard = shake_hands(&request, &source, None, &mut Silent);
    let digest = "9baf5a7464bd86740ad5a06e439dcf535a075022ed2c92d74efacf646d79328e";
    assert_eq!(heard, reply("application/json", &format!(r#"{{"challenge":"{digest}"}}"#)));
}

#[test]
fn while_a_secret_is_rotated_a_signed_challenge_is_answered_with_the_one_that_signed_it() {
    let body = br#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#;
    let heard = |secrets: &[&str]| {
        let source = source("preset = \"zoom\"", secrets);
        let headers = signed_by("zoom", body);
        let request =
            UnverifiedRequest { method: "POST", query: None, headers: &headers, body, received_at: NOW };
        let verified = verify(request, &source, &mut Silent).unwrap();
        shake_hands(&request, &source, Some(verified.key()), &mut Silent)
    };
    let alone = heard(&["s3cret"]);
    assert!(alone.is_some());
    assert_eq!(heard(&["the new one", "s3cret"]), alone);
}

#[test]
fn every_handshake_of_a_preset_means_something() {
    for preset in preset::all().values() {
        preset.handshakes();
    }
}

#[test]
fn ebay_hears_the_hash_of_its_challenge_the_word_that_it_was_told_and_the_url() {
    let table =
        "public_url = \"https://hooks.example.com/x\"\nhandshake_token = { env = \"T\" }\npreset = \"ebay\"";
    let key = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==";
    let source = source(table, &[key]);
    let query = Some("challenge_code=a8628072-3d33-45ee-9004-bee86830a22d");
    let request =
        UnverifiedRequest { method: "GET", query, headers: &Headers::new(), body: b"", received_at: NOW };
    let heard = shake_hands(&request, &source, None, &mut Silent).unwrap().unwrap();
    let all = "a8628072-3d33-45ee-9004-bee86830a22dt0kenhttps://hooks.example.com/x";
    let hash = hex::encode(ring::digest::digest(&ring::digest::SHA256, all.as_bytes()));
    assert_eq!(heard.body, format!("{{\"challengeResponse\":\"{hash}\"}}"));
}

/// What SNS hears that wants `address` visited for `topic`, once its signature fits, where the source's
/// secret has `id`; and what the user is told.
fn confirmed(id: &str, topic: &str, address: &str) -> (Option<Result<Option<String>, Rejection>>, bool) {
    let text =
        format!("[[sources]]\nname = \"x\"\npreset = \"sns\"\nsecrets = [{{ fetched = true, id = {id:?} }}]");
    let mut faults = Faults::default();
    let config = Config::parse(Path::new("test.toml"), &text, &Environment::default(), &mut faults);
    let source = resolve_all(&config, &Environment::default(), &mut faults).remove("x").unwrap();
    let body =
        serde_json::json!({"Type": "SubscriptionConfirmation", "TopicArn": topic, "SubscribeURL": address});
    let body = body.to_string();
    let request = UnverifiedRequest {
        method: "POST",
        query: None,
        headers: &Headers::new(),
        body: body.as_bytes(),
        received_at: NOW,
    };
    assert_eq!(shake_hands(&request, &source, None, &mut Silent), None, "not before the signature fits");
    let heard = shake_hands(&request, &source, Some(MatchedKey(0)), &mut Silent);
    (heard.map(|reply| reply.map(|reply| reply.visit)), super::super::advice(&request, &source).is_some())
}

#[test]
fn a_subscription_is_confirmed_at_the_senders_host_and_for_a_topic_of_ours() {
    let topic = "arn:aws:sns:eu-west-1:1:ours";
    let address =
        format!("https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token=abc");
    assert_eq!(confirmed(topic, topic, &address), (Some(Ok(Some(address.clone()))), false));
    assert_eq!(
        confirmed("arn:aws:sns:eu-west-1:1:other", topic, &address),
        (None, true),
        "nobody allowed it"
    );
    for elsewhere in [
        "",
        "https://evil.example/?Action=ConfirmSubscription&TopicArn=x&Token=y",
        "https://sns.eu-west-1.amazonaws.com/?Action=DeleteTopic&TopicArn=x",
        "https://sns.eu-west-1.amazonaws.com.evil.example/?Action=ConfirmSubscription&TopicArn=x",
        "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=x#y",
        "http://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=x",
    ] {
        assert_eq!(
            confirmed(topic, topic, elsewhere),
            (Some(Err(Rejection::Unreadable)), false),
            "{elsewhere}"
        );
    }
}
