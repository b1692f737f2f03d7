//! Each sender that is known by name, tried without it through the running stack.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::program::answer;
use hookwell_tests::sender::client;
use serde_json::Value;

use crate::{Common, tests};

tests![
    every_preset_can_be_tried_without_its_sender,
    a_certificate_counts_only_where_a_trusted_proxy_names_it,
    whoever_asks_whether_the_address_is_ours_is_answered_and_kafka_hears_nothing_of_it,
];

/// What the test has to know of a preset.
struct Preset {
    name: String,
    proof: String,
    secret: String,
    needs_id: bool,
    covers_body: bool,
}

impl Preset {
    fn all(common: &Common) -> Result<Vec<Self>> {
        let listed = answer(&common.binaries.ingest, &["--list-presets", "--output", "json"], &[])?;
        let one = |line: &str| -> Result<Self> {
            let preset: Value = serde_json::from_str(line)?;
            let text = |key: &str| preset[key].as_str().map(str::to_owned).context(key.to_owned());
            let is = |key: &str| preset[key].as_bool().context(key.to_owned());
            Ok(Self {
                name: text("name")?,
                proof: text("proof")?,
                secret: text("secret")?,
                needs_id: is("secret_id")?,
                covers_body: is("covers_body")?,
            })
        };
        listed.out.lines().map(one).collect()
    }

    /// How a pair of its kind is made with OpenSSL; `None` where it has none.
    fn pair(&self) -> Option<&'static [&'static str]> {
        if self.proof.starts_with("Ed25519") {
            Some(&["-algorithm", "ed25519"])
        } else if self.proof.starts_with("ECDSA") || self.proof.contains("ES256") {
            Some(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
        } else if self.proof.starts_with("RSA") || self.proof.contains("RS256") {
            Some(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        } else {
            None
        }
    }

    /// Writes its secret to `file`, or the public half of a pair whose private one goes beside it.
    fn write_secret(&self, file: &Path) -> Result<()> {
        if let Some(pair) = self.pair() {
            let private = file.with_extension("pem");
            openssl(&[&["genpkey", "-out", path(&private)?], pair].concat())?;
            return openssl(&["pkey", "-pubout", "-in", path(&private)?, "-out", path(file)?]);
        }
        Ok(fs::write(
            file,
            match self.secret.as_str() {
                "NAME:PASSWORD" => "hookwell:secret",
                "hex" => "736563726574",
                _ => "c2VjcmV0",
            },
        )?)
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

fn openssl(arguments: &[&str]) -> Result<()> {
    let output = Command::new("openssl").args(arguments).output().context("openssl could not be started")?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn every_preset_can_be_tried_without_its_sender(common: &Common) -> Result<()> {
    let presets = Preset::all(common)?;
    let folder = tempfile::tempdir()?;
    let mut sources = String::new();
    for preset in &presets {
        let (name, file) = (&preset.name, folder.path().join(&preset.name));
        preset.write_secret(&file)?;
        let id = if preset.needs_id { ", id = \"k\"" } else { "" };
        write!(
            sources,
            "[[sources]]\nname = \"try-{name}\"\npreset = {name:?}\npublic_url = \"https://hooks.example.com/{name}\"\nsecrets = [{{ file = {file:?}{id} }}]\n"
        )?;
    }
    let stage = common.stage_with(|settings| settings.sources = sources)?;
    let _ingest = stage.ingest()?;
    for preset in &presets {
        let (source, private) =
            (format!("try-{}", preset.name), folder.path().join(&preset.name).with_extension("pem"));
        let key: &[&str] = if preset.pair().is_some() { &["--key", path(&private)?] } else { &[] };
        let sent = stage.ingest_answers(&[&["--send-test", &source], key].concat())?;
        ensure!(sent.status == Some(0), "{}: {sent:?}", preset.name);
        // Those without a pair are tampered with in the tests of verification.
        if preset.covers_body && preset.pair().is_some() {
            let tampered = stage.ingest_answers(&[&["--send-test", &source, "--tamper"], key].concat())?;
            ensure!(
                tampered.status == Some(1)
                    && [" 403 ", " 401 ", " 412 "].iter().any(|status| tampered.out.contains(status)),
                "{}: {tampered:?}",
                preset.name
            );
        }
    }
    let accepted = stage.reader.read(&stage.topic("events"))?;
    ensure!(accepted.len() == presets.len(), "{} of {} are on Kafka", accepted.len(), presets.len());
    Ok(())
}

fn whoever_asks_whether_the_address_is_ours_is_answered_and_kafka_hears_nothing_of_it(
    common: &Common,
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    fs::write(&token, "s3cret\n")?;
    let one = |preset: &str| {
        format!(
            "[[sources]]\nname = \"{preset}\"\npreset = \"{preset}\"\nsecrets = [{{ file = {token:?} }}]\nhandshake_token = {{ file = {token:?} }}\n"
        )
    };
    let sources =
        ["meta", "asana", "trello"].map(one).concat() + "public_url = \"https://hooks.example.com/trello\"\n";
    let stage = common.stage_with(|settings| settings.sources = sources)?;
    let ingest = stage.ingest()?;
    let url = |rest: &str| format!("http://127.0.0.1:{}/webhooks/{rest}", stage.port);
    let asked =
        client().get(url("meta?hub.mode=subscribe&hub.verify_token=s3cret&hub.challenge=42")).send()?;
    ensure!(asked.status() == 200 && asked.headers()["x-content-type-options"] == "nosniff", "{asked:?}");
    ensure!(asked.headers()["content-type"] == "text/plain" && asked.text()? == "42");
    let forged =
        client().get(url("meta?hub.mode=subscribe&hub.verify_token=forged&hub.challenge=42")).send()?;
    ensure!(forged.status() == 403, "{forged:?}");
    let other = client().get(url("meta")).send()?;
    ensure!(other.status() == 405 && other.headers()["allow"] == "GET, POST", "{other:?}");
    let secret = client().post(url("asana")).header("x-hook-secret", "theirs").send()?;
    ensure!(secret.status() == 200 && secret.headers()["x-hook-secret"] == "theirs", "{secret:?}");
    ensure!(client().head(url("trello")).send()?.status() == 200);
    let counted = |source: &str| {
        let labels = [&*format!("source=\"{source}\""), "outcome=\"handshake\""];
        ingest.metric("hookwell_ingest_requests_total", &labels)
    };
    ensure!(counted("meta")? == 1.0 && counted("asana")? == 1.0 && counted("trello")? == 1.0);
    ensure!(stage.reader.read(&stage.topic("events"))?.is_empty());
    ensure!(
        !ingest.logged().contains("theirs") && !ingest.logged().contains("s3cret"),
        "{}",
        ingest.logged()
    );
    Ok(())
}

fn a_certificate_counts_only_where_a_trusted_proxy_names_it(common: &Common) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("certificate");
    fs::write(&file, "aa:bb")?;
    for (trusted, status) in [("[\"127.0.0.0/8\"]", 200), ("[]", 403)] {
        let stage = common.stage_with(|settings| {
            settings.ingest = format!("trusted_proxies = {trusted}");
            settings.sources = format!(
                "[[sources]]\nname = \"bank\"\nclient_certificate = \"x-client-cert\"\nsecrets = [{{ file = {file:?} }}]\n[[sources]]\nname = \"anybody\"\nunsigned = true\n"
            );
        })?;
        let ingest = stage.ingest()?;
        let post = |source: &str| {
            client().post(format!("http://127.0.0.1:{}/webhooks/{source}", stage.port)).body("{}")
        };
        let named = post("bank").header("x-client-cert", "aa:bb").send()?;
        ensure!(named.status() == status, "{trusted}: {named:?}");
        ensure!(post("anybody").send()?.status() == 200);
        ensure!(ingest.logged().contains("anybody who knows the URL may send"), "{}", ingest.logged());
    }
    Ok(())
}
