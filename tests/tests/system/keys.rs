//! Keys that senders publish: fetched from a host that stands in for theirs, and from nowhere else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hookwell_tests::key_server::{KeyServer, Page};
use hookwell_tests::program::Program;
use hookwell_tests::sender::{Signed, client, now_in_seconds, post, post_until_accepted};
use hookwell_tests::stage::Stage;
use hookwell_tests::wait;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use super::quarantine::{release, sums, until_kept};
use crate::{Common, tests};

tests![
    a_certificate_is_fetched_once_however_many_requests_want_it,
    keys_that_are_new_at_the_sender_are_read_again_once,
    while_the_host_of_the_keys_is_away_senders_hear_503_and_are_heard_when_it_is_back,
    what_a_request_names_elsewhere_is_never_asked_for,
    answers_that_hang_do_not_end_lead_elsewhere_or_hold_no_key_cost_a_503_and_no_more,
    a_host_that_shows_the_certificate_of_another_or_one_that_nobody_vouches_for_is_told_nothing,
    what_was_refused_for_a_wrong_id_is_released_with_a_key_that_is_fetched,
    a_subscription_to_a_topic_of_ours_is_confirmed_and_to_any_other_it_is_not,
];

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:alarms";
const PUSHER: &str = "push@project.iam.gserviceaccount.com";
const PUBLIC_URL: &str = "https://hooks.example.com/webhooks/jobs";
const GOOGLE: &str = "/www.googleapis.com/oauth2/v3/certs";

/// A pair of keys, made with OpenSSL.
struct Pair {
    folder: tempfile::TempDir,
}

impl Pair {
    fn new() -> Result<Self> {
        let pair = Self { folder: tempfile::tempdir()? };
        let key = pair.file("key");
        openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", text(&key)?])?;
        Ok(pair)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate that holds for two days.
    fn certificate(&self) -> Result<String> {
        let key = self.file("key");
        let subject = ["req", "-x509", "-new", "-subj", "/CN=sns.amazonaws.com", "-days", "2"];
        openssl(&[&subject[..], &["-key", text(&key)?]].concat()).and_then(|out| Ok(String::from_utf8(out)?))
    }

    /// As RFC 7517 writes the public half.
    fn jwk(&self, kid: &str) -> Result<Value> {
        let shown = openssl(&["rsa", "-in", text(&self.file("key"))?, "-noout", "-modulus"])?;
        let shown = String::from_utf8(shown)?;
        let modulus = hex::decode(shown.trim().split_once('=').context("no modulus")?.1)?;
        let n = URL_SAFE_NO_PAD.encode(modulus);
        Ok(json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": "AQAB"}))
    }

    fn sign(&self, content: &str) -> Result<Vec<u8>> {
        let signed = self.file("signed");
        fs::write(&signed, content)?;
        openssl(&["dgst", "-sha256", "-sign", text(&self.file("key"))?, text(&signed)?])
    }

    /// A notification of SNS whose certificate is said to stand at `address`.
    fn notification(&self, id: &str, address: &str) -> Result<Signed> {
        let time = "2026-11-27T00:00:00.000Z";
        let content = format!(
            "Message\n{{}}\nMessageId\n{id}\nTimestamp\n{time}\nTopicArn\n{TOPIC}\nType\nNotification\n"
        );
        let body = json!({
            "Type": "Notification", "MessageId": id, "TopicArn": TOPIC, "Message": "{}", "Timestamp": time,
            "SignatureVersion": "2", "Signature": STANDARD.encode(self.sign(&content)?),
            "SigningCertURL": address,
        });
        let (source, id) = ("alarms".to_owned(), id.to_owned());
        Ok(Signed { source, id, headers: Vec::new(), body: body.to_string().into() })
    }

    /// SNS asks whether it may send what comes to `topic`.
    fn subscription(&self, id: &str, topic: &str, certificate: &str) -> Result<Signed> {
        let time = "2026-11-27T00:00:00.000Z";
        let kind = "SubscriptionConfirmation";
        let visit = format!("https:/{}", confirmation_at(topic));
        let content = format!(
            "Message\nm\nMessageId\n{id}\nSubscribeURL\n{visit}\nTimestamp\n{time}\nToken\nt0ken\nTopicArn\n{topic}\nType\n{kind}\n"
        );
        let body = json!({
            "Type": kind, "MessageId": id, "TopicArn": topic, "Message": "m", "Timestamp": time, "Token": "t0ken",
            "SubscribeURL": visit, "SignatureVersion": "2", "Signature": STANDARD.encode(self.sign(&content)?),
            "SigningCertURL": certificate,
        });
        let (source, id) = ("alarms".to_owned(), id.to_owned());
        Ok(Signed { source, id, headers: Vec::new(), body: body.to_string().into() })
    }

    /// A message of Pub/Sub, with a token that says it is signed with `kid`.
    fn push(&self, id: &str, kid: &str, change: impl FnOnce(&mut Value)) -> Result<Signed> {
        let now = now_in_seconds();
        let mut claims = json!({
            "iss": "https://accounts.google.com", "aud": PUBLIC_URL, "email": PUSHER, "email_verified": true,
            "iat": now, "exp": now + 3600,
        });
        change(&mut claims);
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let content = format!("{}.{}", encode(&json!({"alg": "RS256", "kid": kid})), encode(&claims));
        let token = format!("{content}.{}", URL_SAFE_NO_PAD.encode(self.sign(&content)?));
        let body = json!({"message": {"messageId": id, "data": "e30="}, "subscription": "s"}).to_string();
        let headers = vec![("authorization".to_owned(), format!("Bearer {token}"))];
        Ok(Signed { source: "jobs".to_owned(), id: id.to_owned(), headers, body: body.into() })
    }
}

/// Who vouches for hosts, made with OpenSSL.
struct Authority {
    pair: Pair,
}

impl Authority {
    fn new() -> Result<Self> {
        let pair = Pair::new()?;
        fs::write(pair.file("certificate"), pair.certificate()?)?;
        Ok(Self { pair })
    }

    /// The file in which its certificate is, for whoever is to believe it.
    fn certificate(&self) -> PathBuf {
        self.pair.file("certificate")
    }

    /// What a server needs to be `host`.
    fn vouch_for(&self, host: &str) -> Result<ServerConfig> {
        let server = Pair::new()?;
        let [ours, key, request, names] =
            [self.pair.file("key"), server.file("key"), server.file("r"), server.file("n")];
        fs::write(&names, format!("subjectAltName=DNS:{host}"))?;
        let subject = format!("/CN={host}");
        openssl(&["req", "-new", "-key", text(&key)?, "-subj", &subject, "-out", text(&request)?])?;
        let theirs = self.certificate();
        let by = ["-CA", text(&theirs)?, "-CAkey", text(&ours)?, "-set_serial", "1", "-days", "2"];
        let of = ["x509", "-req", "-in", text(&request)?, "-extfile", text(&names)?];
        let certificate = openssl(&[&of[..], &by].concat())?;
        let chain = vec![CertificateDer::from_pem_slice(&certificate)?];
        let key = PrivateKeyDer::from_pem_file(&key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(config.with_no_client_auth().with_single_cert(chain, key)?)
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

fn openssl(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("openssl").args(arguments).output().context("openssl could not be started")?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// The address of a certificate, as SNS names it, and the path at which the stand-in is asked for it.
fn certificate_at(name: &str) -> (String, String) {
    let rest = format!("sns.eu-west-1.amazonaws.com/SimpleNotificationService-{name}.pem");
    (format!("https://{rest}"), format!("/{rest}"))
}

/// The path at which the stand-in is asked to confirm a subscription.
fn confirmation_at(topic: &str) -> String {
    format!("/sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token=t0ken")
}

/// What PayPal sends, but for its signature, with a certificate that is said to stand at `address`.
fn payment(address: &str) -> Signed {
    let headers = [
        ("paypal-transmission-id", "1"),
        ("paypal-transmission-time", "2026-11-27T00:00:00Z"),
        ("paypal-auth-algo", "SHA256withRSA"),
        ("paypal-transmission-sig", "c2ln"),
        ("paypal-cert-url", address),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Signed { source: "shop".to_owned(), id: "p-1".to_owned(), headers, body: "{}".into() }
}

/// The certificate of PayPal's published vector.
fn certificate_of_2015() -> Result<String> {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("../../../ingest/testdata/vectors.json"))?;
    let vector = vectors.iter().find(|vector| vector["provider"] == "paypal").context("no vector")?;
    let secret: Value = serde_json::from_str(vector["secret"].as_str().unwrap_or_default())?;
    Ok(secret["cert_pem"].as_str().context("no certificate")?.to_owned())
}

/// A stage with three sources whose keys are fetched from `server`.
fn stage(common: &Common, server: &KeyServer) -> Result<(Stage, Program)> {
    let url = server.url();
    let one = |name: &str, preset: &str, id: &str| {
        format!(
            "[[sources]]\nname = \"{name}\"\npreset = \"{preset}\"\npublic_url = \"{PUBLIC_URL}\"\nkeys_url = \"{url}\"\nsecrets = [{{ fetched = true, id = \"{id}\" }}]\n"
        )
    };
    let sources =
        [one("alarms", "sns", TOPIC), one("jobs", "google-pubsub", PUSHER), one("shop", "paypal", "WH-1")];
    let stage = common.stage_with(|settings| settings.sources = sources.concat())?;
    let ingest = stage.ingest()?;
    Ok((stage, ingest))
}

fn fetches(ingest: &Program, outcome: &str) -> Result<f64> {
    ingest.metric("hookwell_ingest_key_fetches_total", &[&format!("outcome=\"{outcome}\"")])
}

fn ensure_status(stage: &Stage, signed: &Signed, wanted: u16, label: &str) -> Result<()> {
    let (status, text) = post(stage.port, signed)?;
    ensure!(status == wanted && text.contains(label), "{}: {status} {text}", signed.id);
    Ok(())
}

fn a_certificate_is_fetched_once_however_many_requests_want_it(common: &Common) -> Result<()> {
    let (server, pair) = (KeyServer::start()?, Pair::new()?);
    let (stage, ingest) = stage(common, &server)?;
    let (address, path) = certificate_at("one");
    server.publish(&path, Page::Body(pair.certificate()?));
    let all: Vec<_> =
        (0..8).map(|number| pair.notification(&format!("m-{number}"), &address)).collect::<Result<_>>()?;
    thread::scope(|scope| {
        let posts: Vec<_> =
            all.iter().map(|signed| scope.spawn(|| ensure_status(&stage, signed, 200, ""))).collect();
        posts.into_iter().try_for_each(|post| post.join().expect("a post that panics"))
    })?;
    ensure!(server.asked() == [path], "{:?}", server.asked());
    ensure!(fetches(&ingest, "fetched")? == 1.0);
    // Another pair's signature is a forged one, though it names the same certificate.
    ensure_status(&stage, &Pair::new()?.notification("forged", &address)?, 403, "signature_mismatch")?;
    ensure!(server.asked().len() == 1 && stage.reader.read(&stage.topic("events"))?.len() == 8);
    Ok(())
}

fn keys_that_are_new_at_the_sender_are_read_again_once(common: &Common) -> Result<()> {
    let (server, old, new) = (KeyServer::start()?, Pair::new()?, Pair::new()?);
    let (stage, ingest) = stage(common, &server)?;
    let publish = |keys: &[Value]| server.publish(GOOGLE, Page::Body(json!({"keys": keys}).to_string()));
    publish(&[old.jwk("old")?]);
    ensure_status(&stage, &old.push("m-1", "old", |_| ())?, 200, "")?;
    publish(&[new.jwk("new")?, old.jwk("old")?]);
    post_until_accepted(stage.port, &new.push("m-2", "new", |_| ())?)?;
    for (id, pair, kid) in [("m-3", &new, "new"), ("m-4", &old, "old")] {
        ensure_status(&stage, &pair.push(id, kid, |_| ())?, 200, "")?;
    }
    ensure!(
        server.asked() == [GOOGLE, GOOGLE] && fetches(&ingest, "fetched")? == 2.0,
        "{:?}",
        server.asked()
    );
    // A token for somebody else, of another service account or that is over is refused, whoever signed.
    for (claim, value) in [
        ("aud", json!("https://else.example.com/")),
        ("email", json!("other@project.iam.gserviceaccount.com")),
        ("email_verified", json!(false)),
        ("iss", json!("https://accounts.evil.example")),
    ] {
        let other = new.push(claim, "unheard-of", |claims| claims[claim] = value.clone())?;
        ensure_status(&stage, &other, 403, "signature_mismatch")?;
    }
    let over = new.push("over", "unheard-of", |claims| claims["exp"] = json!(now_in_seconds() - 1))?;
    ensure_status(&stage, &over, 403, "timestamp_outside_window")?;
    ensure!(server.asked().len() == 2, "no key is read for what is refused all the same");
    Ok(())
}

fn while_the_host_of_the_keys_is_away_senders_hear_503_and_are_heard_when_it_is_back(
    common: &Common,
) -> Result<()> {
    let (server, pair) = (KeyServer::start()?, Pair::new()?);
    let (stage, ingest) = stage(common, &server)?;
    let (address, path) = certificate_at("one");
    server.publish(&path, Page::Status(500, String::new()));
    let signed = pair.notification("m-1", &address)?;
    let url = format!("http://127.0.0.1:{}/webhooks/alarms", stage.port);
    let answer = client().post(url).body(signed.body.clone()).send()?;
    ensure!(answer.status() == 503 && answer.headers()["retry-after"] == "5", "{answer:?}");
    ensure!(answer.text()?.contains("key_unavailable"));
    let unavailable = ["source=\"alarms\"", "outcome=\"key_unavailable\""];
    ensure!(ingest.metric("hookwell_ingest_requests_total", &unavailable)? == 1.0);
    ensure!(fetches(&ingest, "status")? >= 1.0);
    ensure!(ingest.logged().contains("a key could not be fetched"), "{}", ingest.logged());
    server.publish(&path, Page::Body(pair.certificate()?));
    post_until_accepted(stage.port, &signed)?;
    ensure!(fetches(&ingest, "fetched")? == 1.0);
    Ok(())
}

fn what_a_request_names_elsewhere_is_never_asked_for(common: &Common) -> Result<()> {
    let (server, pair) = (KeyServer::start()?, Pair::new()?);
    let (stage, ingest) = stage(common, &server)?;
    for (number, address) in [
        "https://evil.example/SimpleNotificationService-one.pem",
        "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-one.pem",
        "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-one.pem",
        "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-one.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-../../one.pem",
        "https://sns.s3-us-west-2.amazonaws.com/SimpleNotificationService-one.pem",
        "file:///etc/passwd",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        let signed = pair.notification(&format!("m-{number}"), address)?;
        ensure_status(&stage, &signed, 403, "signature_mismatch")?;
    }
    let signed = payment("https://api.paypal.com.evil.example/v1/notifications/certs/CERT-1");
    ensure_status(&stage, &signed, 403, "signature_mismatch")?;
    ensure!(server.asked().is_empty(), "{:?}", server.asked());
    ensure!(ingest.metric("hookwell_ingest_key_fetches_total", &[])? == 0.0);
    Ok(())
}

fn answers_that_hang_do_not_end_lead_elsewhere_or_hold_no_key_cost_a_503_and_no_more(
    common: &Common,
) -> Result<()> {
    let (server, pair) = (KeyServer::start()?, Pair::new()?);
    let (stage, ingest) = stage(common, &server)?;
    let elsewhere = format!("location: {}/elsewhere\r\n", server.url());
    for (name, page, outcome) in [
        ("silent", Page::Silence, "timed_out"),
        ("endless", Page::Endless, "too_large"),
        ("moved", Page::Status(302, elsewhere), "status"),
        ("absent", Page::Status(404, String::new()), "status"),
        ("garbage", Page::Body("no certificate".to_owned()), "unreadable"),
    ] {
        let (address, path) = certificate_at(name);
        server.publish(&path, page);
        let before = fetches(&ingest, outcome)?;
        ensure_status(&stage, &pair.notification(name, &address)?, 503, "key_unavailable")?;
        wait::until("the outcome to be counted", || {
            Ok((fetches(&ingest, outcome)? == before + 1.0).then_some(()))
        })
        .with_context(|| format!("{name}: {}", ingest.logged()))?;
    }
    server.publish("/api.paypal.com/v1/notifications/certs/CERT-1", Page::Body(certificate_of_2015()?));
    let over = payment("https://api.paypal.com/v1/notifications/certs/CERT-1");
    ensure_status(&stage, &over, 503, "key_unavailable")?;
    ensure!(fetches(&ingest, "expired")? == 1.0, "{}", ingest.logged());
    ensure!(!server.asked().contains(&"/elsewhere".to_owned()), "{:?}", server.asked());
    // One who can be asked is, all the same.
    let (address, path) = certificate_at("one");
    server.publish(&path, Page::Body(pair.certificate()?));
    ensure_status(&stage, &pair.notification("m-1", &address)?, 200, "")
}

fn a_host_that_shows_the_certificate_of_another_or_one_that_nobody_vouches_for_is_told_nothing(
    common: &Common,
) -> Result<()> {
    let (known, unknown) = (Authority::new()?, Authority::new()?);
    let another = KeyServer::start_with(known.vouch_for("sns.eu-west-1.amazonaws.com")?)?;
    let unvouched = KeyServer::start_with(unknown.vouch_for("localhost")?)?;
    let right = KeyServer::start_with(known.vouch_for("localhost")?)?;
    let pair = Pair::new()?;
    let (address, path) = certificate_at("one");
    let all = [("another", &another), ("unvouched", &unvouched), ("right", &right)];
    let source = |(name, server): (&str, &KeyServer)| {
        server.publish(&path, Page::Body(pair.certificate()?));
        let url = server.url();
        Ok(format!(
            "[[sources]]\nname = {name:?}\npreset = \"sns\"\nkeys_url = {url:?}\nsecrets = [{{ fetched = true, id = {TOPIC:?} }}]\n"
        ))
    };
    let sources: Result<String> = all.into_iter().map(source).collect();
    let sources = sources?;
    let stage = common.stage_with(|settings| settings.sources = sources)?;
    let ingest = stage.start_ingest_in(&[("SSL_CERT_FILE", text(&known.certificate())?)])?.ready()?;
    let sent = |name: &str| pair.notification(name, &address).map(|signed| signed.to(name));
    for name in ["another", "unvouched"] {
        ensure_status(&stage, &sent(name)?, 503, "key_unavailable")?;
    }
    ensure!(fetches(&ingest, "unreachable")? == 2.0, "{}", ingest.logged());
    ensure!(another.asked().is_empty() && unvouched.asked().is_empty());
    ensure_status(&stage, &sent("right")?, 200, "")?;
    ensure!(right.asked() == [path]);
    Ok(())
}

fn what_was_refused_for_a_wrong_id_is_released_with_a_key_that_is_fetched(common: &Common) -> Result<()> {
    let (server, pair) = (KeyServer::start()?, Pair::new()?);
    let (address, path) = certificate_at("one");
    let with_id = |id: &str| {
        let url = server.url();
        format!(
            "[[sources]]\nname = \"alarms\"\npreset = \"sns\"\nkeys_url = {url:?}\nquarantine = true\nquarantine_rate_limit = 1000\nsecrets = [{{ fetched = true, id = {id:?} }}]\n"
        )
    };
    let stage = common.stage_with(|settings| settings.sources = with_id("arn:aws:sns:eu-west-1:1:wrong"))?;
    let ingest = stage.ingest()?;
    for id in ["m-1", "m-2"] {
        ensure_status(&stage, &pair.notification(id, &address)?, 403, "signature_mismatch")?;
    }
    ensure_status(&stage, &Pair::new()?.notification("forged", &address)?, 403, "signature_mismatch")?;
    until_kept(&ingest, 3.0)?;
    ensure!(ingest.stop()?.success(), "{}", ingest.logged());
    stage.rewrite(|settings| settings.sources = with_id(TOPIC))?;

    let without = release(&stage, &[])?;
    ensure!(sums(&without)? == [3, 0, 3, 0] && without.out.contains("key_unavailable"), "{without:?}");
    server.publish(&path, Page::Body(pair.certificate()?));
    let before = server.asked().len();
    let released = release(&stage, &[])?;
    ensure!(sums(&released)? == [3, 2, 1, 0] && released.out.contains("signature_mismatch"), "{released:?}");
    ensure!(server.asked().len() == before + 1, "{:?}", server.asked());
    ensure!(stage.reader.read(&stage.topic("events"))?.len() == 2);
    Ok(())
}

fn a_subscription_to_a_topic_of_ours_is_confirmed_and_to_any_other_it_is_not(common: &Common) -> Result<()> {
    let (server, pair) = (KeyServer::start()?, Pair::new()?);
    let (stage, ingest) = stage(common, &server)?;
    let (address, path) = certificate_at("one");
    server.publish(&path, Page::Body(pair.certificate()?));
    let visit = confirmation_at(TOPIC);
    let ours = pair.subscription("s-1", TOPIC, &address)?;
    ensure_status(&stage, &Pair::new()?.subscription("s-0", TOPIC, &address)?, 403, "signature_mismatch")?;
    ensure_status(&stage, &ours, 503, "confirmation_failed")?;
    server.publish(&visit, Page::Body("<ConfirmSubscriptionResponse/>".to_owned()));
    ensure_status(&stage, &ours, 200, "")?;
    ensure!(server.asked() == [path.clone(), visit.clone(), visit], "{:?}", server.asked());
    ensure!(ingest.metric("hookwell_ingest_requests_total", &["outcome=\"handshake\""])? == 1.0);
    let other = pair.subscription("s-2", "arn:aws:sns:eu-west-1:999999999999:theirs", &address)?;
    ensure_status(&stage, &other, 403, "signature_mismatch")?;
    ensure!(server.asked().len() == 3 && stage.reader.read(&stage.topic("events"))?.is_empty());
    ensure!(!ingest.logged().contains("t0ken"), "a token is in the log: {}", ingest.logged());

    // A certificate that is given without a topic lets every topic in, and confirms none.
    fs::write(stage.folder().join("certificate"), pair.certificate()?)?;
    let given = common.stage_with(|settings| {
        settings.sources = format!(
            "[[sources]]\nname = \"alarms\"\npreset = \"sns\"\nsecrets = [{{ file = {:?} }}]\n",
            stage.folder().join("certificate")
        );
    })?;
    let ingest = given.ingest()?;
    ensure_status(&given, &ours, 200, "")?;
    ensure!(given.reader.read(&given.topic("events"))?.len() == 1, "it is an event");
    ensure!(ingest.logged().contains("have the sender ask again") && !ingest.logged().contains("t0ken"));
    Ok(())
}
