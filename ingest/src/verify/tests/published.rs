//! Keys that senders publish: which addresses a request may name, what is read there, and what is
//! said where the key is not at hand.

use base64::Engine;
use serde_json::Value;

use super::*;
use crate::verify::key::Key;
use crate::verify::published::{Document, Pattern, asked_at, is_stand_in};
use crate::verify::signature::Encoding;
use crate::verify::verify_with;

const NOW: Timestamp = Timestamp::from_seconds(1_765_000_000);
const TOPIC: &str = "arn:aws:sns:us-west-2:131990247566:dongie-standard-topic";

/// A source whose keys are fetched, for each of `ids`.
fn fetching(table: &str, ids: &[&str]) -> Result<Source, Vec<String>> {
    let listed: Vec<_> = ids.iter().map(|id| format!("{{ fetched = true, id = {id:?} }}")).collect();
    let text = format!("[[sources]]\nname = \"x\"\nsecrets = [{}]\n{table}", listed.join(", "));
    resolve(&text)
}

fn resolve(text: &str) -> Result<Source, Vec<String>> {
    let mut faults = Faults::default();
    let environment = Environment::from([("S", "s3cret")]);
    let config = Config::parse(Path::new("test.toml"), text, &environment, &mut faults);
    let mut sources = resolve_all(&config, &environment, &mut faults);
    let faults: Vec<_> = faults.into_sorted().iter().map(ToString::to_string).collect();
    if faults.is_empty() { Ok(sources.remove("x").unwrap()) } else { Err(faults) }
}

/// The published vectors of `provider`: headers, body, certificate, and whether it is to be accepted.
fn vectors(provider: &str) -> Vec<(Headers, Vec<u8>, String, bool)> {
    let all: Vec<Value> = serde_json::from_str(include_str!("../../../testdata/vectors.json")).unwrap();
    let one = |vector: &Value| {
        let headers = vector["headers"].as_object().unwrap().iter();
        let headers =
            headers.map(|(name, value)| header(&name.to_ascii_lowercase(), value.as_str().unwrap()));
        let body = vector["body_b64"].as_str().unwrap();
        let body = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
        let secret = vector["secret"].as_str().unwrap();
        let in_json = serde_json::from_str::<Value>(secret).ok();
        let certificate = in_json.and_then(|json| json["cert_pem"].as_str().map(str::to_owned));
        (headers.collect(), body, certificate.unwrap_or(secret.to_owned()), vector["expect"] == "accept")
    };
    all.iter().filter(|vector| vector["provider"] == provider).map(one).collect()
}

#[test]
fn every_published_vector_holds_with_its_certificate_fetched() {
    for (provider, preset, id) in [("aws-sns", "sns", TOPIC), ("paypal", "paypal", "4JH86294D6297924G")] {
        let source = fetching(&format!("preset = {preset:?}"), &[id]).unwrap();
        for (headers, body, certificate, is_genuine) in vectors(provider) {
            let request = UnverifiedRequest {
                method: "POST",
                query: None,
                headers: &headers,
                body: &body,
                received_at: NOW,
            };
            let name = source.scheme.key_name(&request).expect("its address is one of the sender's");
            assert!(name.address().starts_with("https://") && name.id().is_none());
            let document = source.scheme.published().unwrap().read(certificate.as_bytes()).unwrap();
            let key = document.key(None).unwrap();
            let verdict =
                verify_with(request, &source, Some(key), &mut Silent).map(|verified| verified.key().0);
            let expected = if is_genuine { Ok(0) } else { Err(Rejection::SignatureMismatch) };
            assert_eq!(verdict, expected, "{provider}");
            assert_eq!(
                judge(&source, request),
                Err(Rejection::KeyUnavailable),
                "{provider}: without the key"
            );
        }
    }
}

#[test]
fn a_certificate_says_when_it_holds() {
    let source = fetching("preset = \"sns\"", &[TOPIC]).unwrap();
    let (_, _, certificate, _) = vectors("aws-sns").remove(0);
    let document = source.scheme.published().unwrap().read(certificate.as_bytes()).unwrap();
    // From 2025-11-10 to 2026-10-14.
    for (time, holds) in [(1_762_000_000, false), (1_765_000_000, true), (1_795_000_000, false)] {
        assert_eq!(document.holds(Timestamp::from_seconds(time)), holds, "{time}");
    }
}

#[test]
fn of_a_chain_the_first_certificate_is_the_senders() {
    let source = fetching("preset = \"paypal\"", &["4JH86294D6297924G"]).unwrap();
    let (headers, body, certificate, _) = vectors("paypal").into_iter().find(|vector| vector.3).unwrap();
    let (_, _, other, _) = vectors("aws-sns").remove(0);
    let request =
        UnverifiedRequest { method: "POST", query: None, headers: &headers, body: &body, received_at: NOW };
    let verdict_with = |chain: [&str; 2]| {
        let document = source.scheme.published().unwrap().read(chain.concat().as_bytes()).unwrap();
        verify_with(request, &source, document.key(None), &mut Silent).map(|verified| verified.key().0)
    };
    assert_eq!(verdict_with([&certificate, &other]), Ok(0));
    assert_eq!(verdict_with([&other, &certificate]), Err(Rejection::SignatureMismatch));
}

#[test]
fn a_message_of_a_topic_that_is_not_ours_is_refused_before_any_key_is_fetched() {
    let source = fetching("preset = \"sns\"", &["arn:aws:sns:us-west-2:1:ours"]).unwrap();
    for (headers, body, ..) in vectors("aws-sns") {
        assert_eq!(check(&source, &headers, &body, NOW), Err(Rejection::SignatureMismatch));
    }
}

#[test]
fn a_request_that_names_an_address_elsewhere_is_a_forged_one() {
    let source = fetching("preset = \"sns\"", &[TOPIC]).unwrap();
    let body = |address: &Value| {
        serde_json::json!({"Type": "Notification", "TopicArn": TOPIC, "SignatureVersion": "2", "Signature": "c2ln", "SigningCertURL": address}).to_string()
    };
    for address in [Value::Null, 7.into(), "https://sns.evil.example/SimpleNotificationService-a.pem".into()]
    {
        let verdict = check(&source, &Headers::new(), body(&address).as_bytes(), NOW);
        assert_eq!(verdict, Err(Rejection::SignatureMismatch), "{address}");
    }
    let source = fetching("preset = \"paypal\"", &["WH-1"]).unwrap();
    let (mut headers, body, ..) = vectors("paypal").remove(0);
    assert_eq!(check(&source, &headers, &body, NOW), Err(Rejection::KeyUnavailable));
    headers.push(header("paypal-cert-url", "https://api.paypal.com/v1/notifications/certs/CERT-2"));
    assert_eq!(check(&source, &headers, &body, NOW), Err(Rejection::SignatureMismatch), "two addresses");
    headers.retain(|(name, _)| name != "paypal-cert-url");
    assert_eq!(check(&source, &headers, &body, NOW), Err(Rejection::SignatureMismatch), "none");
}

#[test]
fn only_the_senders_own_hosts_and_paths_fit_letter_for_letter() {
    let sns =
        Pattern::from_words("https://sns.{region}.amazonaws.com/SimpleNotificationService-{id}.pem").unwrap();
    for region in ["eu-west-1", "us-gov-west-1", "ap-southeast-2"] {
        let address = format!("https://sns.{region}.amazonaws.com/SimpleNotificationService-0a1b2c.pem");
        assert!(sns.fits(&address), "{address}");
    }
    let long =
        format!("https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-{}.pem", "a".repeat(129));
    for hostile in [
        "",
        "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-a.pem",
        "https://evil.example/sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://evil.example#sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-a.pem",
        "https://user@sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com:444/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com/other/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-../../x.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem?x=y",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem#x",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a%2epem.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-.pem",
        "https://sns.s3-us-west-2.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.s3.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.evil.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns..amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem\n",
        " https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "HTTPS://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.еu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        &long,
    ] {
        assert!(!sns.fits(hostile), "{hostile}");
    }
    for words in
        ["http://a.example/{id}", "https://{id}.example/", "https://a.example", "https://a.example/{x}"]
    {
        assert_eq!(Pattern::from_words(words), None, "{words}");
    }
}

#[test]
fn what_stands_in_for_the_senders_hosts_is_https_or_on_this_machine() {
    for text in [
        "https://keys.internal",
        "https://keys.internal:8443/copy",
        "http://127.0.0.1:9000",
        "http://[::1]:1",
        "http://localhost:1",
    ] {
        assert!(is_stand_in(text), "{text}");
    }
    for text in [
        "",
        "keys.internal",
        "http://keys.internal",
        "http://127.0.0.1.example",
        "ftp://localhost",
        "https://u:p@a.example",
        "https://a.example?x",
        "https://a.example#x",
    ] {
        assert!(!is_stand_in(text), "{text}");
    }
    let address = "https://www.googleapis.com/oauth2/v3/certs";
    assert_eq!(
        asked_at(address, Some("http://127.0.0.1:1/")),
        "http://127.0.0.1:1/www.googleapis.com/oauth2/v3/certs"
    );
    assert_eq!(asked_at(address, None), address);
}

/// Made with OpenSSL: two keys, and what each signed of "a.b".
const N: &str = "zF-ubob0QoIRLnJEdialbcT0wqRebQvMH3kLLYjAPhEiyA41_IWO-EcntmQNMA98EdaIfNOx5Rp_Lgv24OuTTsNC4B3tY54kGqrCZZtd3_UrYN4xkOcwCIUJqM-k_VdmnEjMdXOmD_LalIEjLbHqWZ_hi45Vn2bP9yRsGx7F954muRo4L0P92A19PFsh_GEAgRCvSq-SWcSBQleb18S6kCP0ImkZXVy0hUgvBTyVI2px6uVqGqRoE7by3VyfIO5iCd59MBOdLI_EMO30xXzervL3mpJ_5spqk3kFbBU2lC5zxOC2n0O-CfTC2yyTMjVlEqHlt4E1CfBjmygURO94EQ";
const BY_RSA: &str = "E2JSNjhhW3n-xCkc9uf6_Um1x-p6M8WGh3rpwHTmuScSQDN3bfD0Dx9RT2P9bgcS82D3DuOrzvTYmnEc4WnJpN0Ocqr4fj1guU0gWp0FRb2bTBMyNhXX1WGlVrJJmdYL50mbMlSftzXt5GRgKdJ5gM2K3EjvY2-P3Qj0KPlXOIgg3RysUO69HldwncJr33u1Ax1VAWyAuy6UxQGuZyd21Ud7uQrVJvkneXKUzprifg0ZhAufAtJ8oTjOY-xsjYAWBXMwZ7mHydQqy9AQ727tp4TExoQsDm8pfo421go1pz4JKQieRxFBugARYsPK2NIno_Kbh2vIblKsiAmap5drxQ";
const X: &str = "I8LSs141WozTO8aDUaMHvutXprDmzz-TL78yfvdpYRI";
const Y: &str = "whI32Fg0zR51mt435N50Bv-FdvHRUpOOEpzWmgkysT8";
const BY_EC: &str = "MWBLXJSa7cOWLuGm2PHYgAn4IRhAvFFwCpmILQTe-Zp5w855mTTOgKeRRJ7qmMLu3dcSSoxxkwOOV_YNZkDJ_A";

#[test]
fn a_set_of_keys_is_read_as_rfc_7517_writes_it() {
    use crate::verify::key::TokenAlgorithm::{Es256, Rs256};
    use crate::verify::public_key::{Kind, PublicKey};
    let rsa = PublicKey::of_numbers(Kind::RsaSha256, N, "AQAB").unwrap();
    let ec = PublicKey::of_point(Kind::EcdsaP256Fixed, X, Y).unwrap();
    let bytes = |text| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
    for (key, signature) in [(&rsa, BY_RSA), (&ec, BY_EC)] {
        assert!(key.signed(b"a.b", &[bytes(signature)]) && !key.signed(b"a.c", &[bytes(signature)]));
    }
    // A single one may be a secret, as Plaid gives it.
    let json = format!(r#"{{"kty":"EC","crv":"P-256","kid":"k","x":{X:?},"y":{Y:?}}}"#);
    let read = PublicKey::read(Kind::EcdsaP256Fixed, Encoding::Base64, json.as_bytes()).unwrap();
    assert!(read.signed(b"a.b", &[bytes(BY_EC)]));
    for broken in [json.replace("EC", "oct"), json.replace("P-256", "P-384"), "{".to_owned()] {
        assert!(PublicKey::read(Kind::EcdsaP256Fixed, Encoding::Base64, broken.as_bytes()).is_none());
    }
    assert!(PublicKey::of_numbers(Kind::EcdsaP256Fixed, N, "AQAB").is_none());
    assert!(PublicKey::of_point(Kind::RsaSha256, X, Y).is_none());
    assert!(PublicKey::of_point(Kind::EcdsaP256Fixed, &X[..20], Y).is_none());

    let google = preset::all()["google-pubsub"].clone();
    let words = google.keys.unwrap();
    let read = |algorithms, text: String| {
        let signs = crate::verify::published::Signs::Tokens(algorithms);
        let source = crate::verify::published::KeySource::from_words(&words, signs).unwrap();
        source.read(text.as_bytes())
    };
    let set = format!(
        r#"{{"keys":[{{"kty":"RSA","use":"sig","alg":"RS256","kid":"one","n":"{N}","e":"AQAB"}},{{"kty":"EC","crv":"P-256","kid":"two","x":"{X}","y":"{Y}"}},{{"kty":"oct","kid":"three","k":"c2VjcmV0"}}]}}"#
    );
    let has = |document: &Document, id| {
        document.key(Some(id)).map(|key| matches!(&*key.0, Key::Tokens(keys) if keys.len() == 1))
    };
    let only_rsa = read(vec![Rs256], set.clone()).unwrap();
    assert_eq!(
        (has(&only_rsa, "one"), has(&only_rsa, "two"), has(&only_rsa, "three")),
        (Some(true), None, None)
    );
    let both = read(vec![Rs256, Es256], set).unwrap();
    assert_eq!((has(&both, "one"), has(&both, "two"), has(&both, "three")), (Some(true), Some(true), None));
    assert!(both.key(None).is_none());
    for nothing in [
        "",
        "{}",
        "[]",
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kid":"a","n":"AA","e":"AQAB"}]}"#,
        r#"{"keys":[{"kid":"a","n":"!","e":"AQAB"}]}"#,
    ] {
        assert!(read(vec![Rs256], nothing.to_owned()).is_none(), "{nothing}");
    }
}

#[test]
fn what_is_to_be_fetched_must_say_whose_requests_count_and_have_a_sender_that_publishes() {
    let told = |text: &str, words: &str| {
        let faults = resolve(&format!("[[sources]]\nname = \"x\"\n{text}")).unwrap_err();
        assert!(faults.iter().any(|fault| fault.contains(words)), "{text}: {faults:?}");
    };
    told("preset = \"sns\"\nsecrets = [{ fetched = true }]", "the ARN of the topic");
    told("preset = \"github\"\nsecrets = [{ fetched = true, id = \"a\" }]", "publishes none");
    told(
        "preset = \"sns\"\nsecrets = [{ fetched = true, env = \"S\", id = \"a\" }]\nunsigned = false",
        "stands beside",
    );
    told(
        "preset = \"github\"\nsecrets = [{ env = \"S\" }]\nkeys_url = \"https://a.example\"",
        "says nothing",
    );
    told(
        "preset = \"sns\"\nsecrets = [{ fetched = true, id = \"a\" }]\nkeys_url = \"http://a.example\"",
        "must be https",
    );
    let told = resolve(
        "[[sources]]\nname = \"x\"\npreset = \"github\"\nsecrets = [{ env = \"S\" }]\nhandshake_token = { fetched = true }",
    );
    assert!(told.unwrap_err().iter().any(|fault| fault.contains("fetched: is not a key")));
}

#[test]
fn a_key_that_is_given_counts_before_any_is_fetched() {
    let (headers, body, certificate, _) = vectors("aws-sns").into_iter().find(|vector| vector.3).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("certificate");
    std::fs::write(&file, certificate).unwrap();
    let text = format!(
        "[[sources]]\nname = \"x\"\npreset = \"sns\"\nsecrets = [{{ fetched = true, id = {TOPIC:?} }}, {{ file = {file:?} }}]"
    );
    let both = resolve(&text).unwrap();
    assert_eq!(check(&both, &headers, &body, NOW), Ok(1));
}
