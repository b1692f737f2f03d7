//! The command line of both programs: a published contract.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use hookwell_tests::kafka::free_port;
use hookwell_tests::program::{Answer, answer, answer_to};
use hookwell_tests::sender::{SECRET, Sender, Signed, now_in_seconds};
use hookwell_tests::socket::request;
use hookwell_tests::stage::{Stage, destination};
use serde_json::Value;

use crate::{Common, tests};

tests![
    a_checked_configuration_is_shown_whole_without_secrets_and_can_be_read_again,
    ten_faults_are_told_at_once_each_with_its_line_and_what_to_do,
    what_can_go_wrong_is_told_with_its_figure_and_stops_nothing,
    a_source_without_a_scheme_or_a_secret_starts_nothing,
    a_signing_secret_that_is_missing_starts_no_processor,
    a_variable_overrides_the_file_and_one_that_names_nothing_is_a_fault,
    a_request_that_verifies_is_explained_step_by_step,
    a_request_that_does_not_verify_is_explained_with_status_1,
    a_request_is_read_as_it_was_sent_chunks_and_all,
    test_events_are_sent_as_their_sender_would,
    test_events_that_are_refused_are_a_no,
    presets_are_listed_one_object_a_line,
    whoever_has_seen_enough_of_an_answer_breaks_nothing,
    wrong_usage_ends_with_status_2,
    a_port_that_is_taken_ends_with_status_2,
    a_kafka_that_is_not_there_ends_with_status_3,
    topics_are_created_once_and_changed_never,
];

/// What each of the two programs says to `arguments`.
fn both(stage: &Stage, arguments: &[&str]) -> Result<[(&'static str, Answer); 2]> {
    Ok([("ingest", stage.ingest_answers(arguments)?), ("processor", stage.processor_answers(arguments)?)])
}

/// What ingest says about `request`, a file in the stage's folder.
fn verified(stage: &Stage, source: &str, request: &[u8], more: &[&str]) -> Result<Answer> {
    let file = stage.folder().join("request");
    std::fs::write(&file, request)?;
    let file = file.to_string_lossy();
    stage.ingest_answers(&[&["--verify", source, "--request", &file], more].concat())
}

fn json(answer: &Answer) -> Result<Value> {
    ensure!(answer.out.lines().count() == 1, "{answer:?}");
    serde_json::from_str(&answer.out).with_context(|| answer.out.clone())
}

fn a_checked_configuration_is_shown_whole_without_secrets_and_can_be_read_again(
    common: &Common,
) -> Result<()> {
    let stage = common.bare_stage(|settings| {
        settings.kafka_properties += "\n\"sasl.password\" = \"hunter2\"";
        settings.destinations = settings.destinations.replace("http://", "http://user:hunter2@");
    })?;
    stage.rewrite(|settings| {
        settings.destinations =
            "[[destinations]]\nname = \"orders\"\nkind = \"http\"\nurl = \"http://user:hunter3@localhost/\"\n".to_owned();
    })?;
    for (program, shown) in both(&stage, &["--check-config"])? {
        let is_advice = |line: &str| program == "ingest" && line.starts_with("ingest: warning: ");
        ensure!(shown.status == Some(0) && shown.err.lines().all(is_advice), "{program}: {shown:?}");
        for words in
            ["max_body_bytes = 1048576", "dedupe_window = \"7days\"", "name = \"stripe\"", "max_attempts = 3"]
        {
            ensure!(shown.out.contains(words), "{program}: {words} is not in {}", shown.out);
        }
        for secret in [SECRET, "hunter2", "hunter3"] {
            ensure!(!shown.out.contains(secret), "{program}: {}", shown.out);
        }
        std::fs::write(stage.config(), &shown.out)?;
        for (program, again) in both(&stage, &["--check-config"])? {
            ensure!(again.out == shown.out, "{program}: {again:?}");
        }
    }
    Ok(())
}

/// A configuration with ten faults, and where each must be told.
const FAULTY: &str = r#"[kafka]
partitions = 0
topic_prefix = "a b"
bootstrap_server = "x"
[ingest]
max_body_bytes = "1MB"
trusted_proxies = ["10.0.0.0/33"]
[retry]
tiers = ["1m", "1s"]
[[sources]]
name = "GitHub"
secrets = [{ file = "github" }]
preset = "github"
[[destinations]]
name = "orders"
kind = "http"
[[destinations]]
name = "billing"
kind = "htp"
[[routes]]
source = "nobody"
to = ["orders"]
"#;

const FAULTS: [(usize, &str, &str); 10] = [
    (2, "kafka.partitions", "from 1 to 10000"),
    (3, "kafka.topic_prefix", "letters, digits"),
    (4, "kafka.bootstrap_server", "did you mean \"bootstrap_servers\"?"),
    (6, "ingest.max_body_bytes", "an integer"),
    (7, "ingest.trusted_proxies", "10.0.0.0/8"),
    (9, "retry.tiers", "must grow"),
    (11, "sources[0].name", "lower case"),
    (14, "destinations[0].url", "needs one"),
    (19, "destinations[1].kind", "\"http\""),
    (21, "routes[0].source", "known: "),
];

fn ten_faults_are_told_at_once_each_with_its_line_and_what_to_do(common: &Common) -> Result<()> {
    let stage = common.bare_stage(|_| ())?;
    let secret = stage.folder().join("github");
    std::fs::write(stage.config(), FAULTY.replace("\"github\" }", &format!("{secret:?} }}")))?;
    for arguments in [&["--check-config"][..], &[]] {
        for (program, told) in both(&stage, arguments)? {
            ensure!(told.status == Some(2) && told.out.is_empty(), "{program}: {told:?}");
            for (line, key, remedy) in FAULTS {
                let start = format!("{}:{line}: {key}: ", stage.config().display());
                let fault = told.err.lines().find(|fault| fault.trim_start().starts_with(&start));
                let fault = fault.with_context(|| format!("{program}: {start} is not in {}", told.err))?;
                ensure!(fault.contains(remedy), "{program}: {remedy} is not in {fault}");
            }
            ensure!(told.err.contains("10 faults"), "{program}: {}", told.err);
        }
    }
    Ok(())
}

fn what_can_go_wrong_is_told_with_its_figure_and_stops_nothing(common: &Common) -> Result<()> {
    let stage = common.stage_with(|settings| {
        settings.ingest = "publish_timeout = \"6s\"".to_owned();
        settings.sources = "[[sources]]\nname = \"open\"\nunsigned = true\n".to_owned();
    })?;
    let expected = [
        "sources[0].on_enqueue_failure: is \"reject\", and this sender never sends again",
        "sources[2].preset: this sender waits 5s for an answer, which may take 6s",
        "sources[4].event_id: is left out",
        "sources[4].unsigned: is true: anybody who knows the URL may send",
    ];
    let checked = stage.ingest_answers(&["--check-config"])?;
    ensure!(checked.status == Some(0), "{checked:?}");
    let ingest = stage.ingest()?;
    let log = ingest.logged();
    for words in expected {
        let start = format!("ingest: warning: {}:", stage.config().display());
        let is_it = |line: &&str| line.starts_with(&start) && line.contains(words);
        ensure!(checked.err.lines().filter(is_it).count() == 1, "{words} is not in {}", checked.err);
        let is_it = |line: &&str| line.contains("WARN") && line.contains(words);
        ensure!(log.lines().filter(is_it).count() == 1, "{words} is not in {log}");
    }
    ensure!(checked.err.lines().count() == expected.len(), "{}", checked.err);
    Ok(())
}

fn a_source_without_a_scheme_or_a_secret_starts_nothing(common: &Common) -> Result<()> {
    let stage = common.bare_stage(|_| ())?;
    let empty = stage.folder().join("empty");
    std::fs::write(&empty, "\n")?;
    let github = "preset = \"github\"\n";
    let cases = [
        ("secrets = [{ file = \"FILE\" }]".to_owned(), "nothing unsigned is accepted"),
        (format!("{github}secrets = []"), "secrets: is empty"),
        (github.to_owned(), "secrets: is empty"),
        (format!("{github}secrets = [{{ file = {empty:?} }}]"), "an empty secret protects nothing"),
        (format!("{github}secrets = [{{ file = \"/nowhere/secret\" }}]"), "/nowhere/secret cannot be read"),
        (
            format!("{github}secrets = [{{ env = \"HOOKWELL_TEST_ABSENT\" }}]"),
            "HOOKWELL_TEST_ABSENT is not set",
        ),
        (
            format!("{github}secrets = [\"a secret in the file\"]"),
            "key material does not belong in this file",
        ),
        (
            "preset = \"nobody\"\nsecrets = [{ file = \"FILE\" }]".to_owned(),
            "there is no preset \"nobody\"; known: ",
        ),
    ];
    for (lines, words) in cases {
        let lines = lines.replace("FILE", &stage.folder().join("github").to_string_lossy());
        stage.rewrite(|settings| settings.sources = format!("[[sources]]\nname = \"open\"\n{lines}\n"))?;
        for arguments in [&["--check-config"][..], &[]] {
            let told = stage.ingest_answers(arguments)?;
            ensure!(told.status == Some(2) && told.err.contains(words), "{lines}: {told:?}");
            ensure!(
                told.err.contains("hookwell.toml:") && !told.err.contains("a secret in"),
                "{lines}: {told:?}"
            );
        }
    }
    Ok(())
}

fn a_signing_secret_that_is_missing_starts_no_processor(common: &Common) -> Result<()> {
    let stage = common.bare_stage(|settings| {
        settings.destinations = destination("orders", "signing_secret = { file = \"/nowhere/signing\" }");
    })?;
    for arguments in [&["--check-config"][..], &["--create-topics"], &[]] {
        let told = stage.processor_answers(arguments)?;
        ensure!(told.status == Some(2) && told.err.contains("/nowhere/signing cannot be read"), "{told:?}");
        ensure!(told.err.contains("destinations[0].signing_secret: "), "{told:?}");
    }
    Ok(())
}

fn a_variable_overrides_the_file_and_one_that_names_nothing_is_a_fault(common: &Common) -> Result<()> {
    let stage = common.bare_stage(|_| ())?;
    let config = stage.config();
    let arguments = ["--config", &config.to_string_lossy(), "--check-config"];
    for binary in [&common.binaries.ingest, &common.binaries.processor] {
        let shown = answer(binary, &arguments, &[("HOOKWELL__KAFKA__PARTITIONS", "7")])?;
        ensure!(shown.status == Some(0) && shown.out.contains("partitions = 7"), "{shown:?}");
        let told = answer(binary, &arguments, &[("HOOKWELL__KAFKA__PARTITION", "7")])?;
        ensure!(
            told.status == Some(2) && told.err.contains("variable HOOKWELL__KAFKA__PARTITION: "),
            "{told:?}"
        );
    }
    Ok(())
}

const KEYS: [&str; 6] = ["event_id", "event_type", "reason", "status", "steps", "verdict"];

fn a_request_that_verifies_is_explained_step_by_step(common: &Common) -> Result<()> {
    let stage = common.bare_stage(|_| ())?;
    let signed =
        Sender::Stripe.sign_as(SECRET, 1_700_000_000, "evt_1", "{\"id\":\"evt_1\",\"type\":\"a.b\"}");
    let request = request(&signed, "");
    for at in ["1700000100", "2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00"] {
        let told = verified(&stage, "stripe", &request, &["--at", at, "--output", "json"])?;
        ensure!(told.status == Some(0) && told.err.is_empty(), "{at}: {told:?}");
        let told = json(&told)?;
        ensure!(told.as_object().is_some_and(|keys| keys.keys().eq(KEYS)), "{told}");
        ensure!(
            told["verdict"] == "accept" && told["status"] == 200 && told["reason"] == "accepted",
            "{told}"
        );
        ensure!(told["event_id"] == "evt_1" && told["event_type"] == "a.b", "{told}");
        let steps: Vec<_> = told["steps"].as_array().into_iter().flatten().collect();
        let names: Vec<_> = steps.iter().filter_map(|step| step["step"].as_str()).collect();
        for name in
            ["body", "signature-header", "signature-form", "signature", "timestamp", "event-id", "event-type"]
        {
            ensure!(names.contains(&name), "{name} is not in {names:?}");
        }
        ensure!(steps.iter().all(|step| step["passed"] == true), "{told}");
        ensure!(!told.to_string().contains(SECRET), "{told}");
    }
    let text = verified(&stage, "stripe", &request, &["--at", "1700000000"])?;
    ensure!(text.status == Some(0) && text.out.ends_with("accept: 200 accepted\n"), "{text:?}");
    // From standard input, and at this moment.
    let config = stage.config();
    let arguments = ["--config", &config.to_string_lossy(), "--verify", "github", "--request", "-"];
    let github = github_request();
    let told = answer_to(&github, &common.binaries.ingest, &arguments, &[])?;
    ensure!(told.status == Some(0), "{told:?}");
    Ok(())
}

fn github_request() -> Vec<u8> {
    request(&Sender::GitHub.event("one"), "")
}

fn a_request_that_does_not_verify_is_explained_with_status_1(common: &Common) -> Result<()> {
    let stage = common.bare_stage(|settings| settings.ingest = "max_body_bytes = 1000".to_owned())?;
    let late = Sender::Stripe.sign_as(SECRET, now_in_seconds() - 600, "one", "{}");
    let whole = github_request();
    let altered = Signed { body: "{}".into(), ..Sender::GitHub.event("one") };
    let cases = [
        ("stripe", request(&late, ""), 403, "timestamp_outside_window"),
        ("stripe", whole.clone(), 401, "signature_missing"),
        ("github", request(&altered, ""), 403, "signature_mismatch"),
        ("github", b"GET / HTTP/1.1\r\n\r\n".to_vec(), 405, "method_not_allowed"),
        ("github", request(&Sender::GitHub.sign("one", "x".repeat(1001)), ""), 413, "body_too_large"),
        ("github", whole[..whole.len() - 1].to_vec(), 400, "aborted"),
    ];
    for (source, request, status, reason) in cases {
        let told = verified(&stage, source, &request, &["--output", "json"])?;
        ensure!(told.status == Some(1) && told.err.is_empty(), "{reason}: {told:?}");
        let told = json(&told)?;
        ensure!(told.as_object().is_some_and(|keys| keys.keys().eq(KEYS)), "{told}");
        ensure!(
            told["verdict"] == "reject" && told["status"] == status && told["reason"] == reason,
            "{told}"
        );
        ensure!(told["event_id"].is_null() && told["event_type"].is_null(), "{told}");
        let failed = told["steps"].as_array().into_iter().flatten().filter(|step| step["passed"] == false);
        ensure!(failed.count() == 1, "{told}");
        let text = verified(&stage, source, &request, &[])?;
        ensure!(
            text.status == Some(1) && text.out.ends_with(&format!("reject: {status} {reason}\n")),
            "{text:?}"
        );
        ensure!(text.out.contains("FAIL "), "{text:?}");
    }
    Ok(())
}

fn a_request_is_read_as_it_was_sent_chunks_and_all(common: &Common) -> Result<()> {
    let stage = common.bare_stage(|_| ())?;
    let event = Sender::GitHub.event("one");
    let head = hookwell_tests::socket::head(&event, "transfer-encoding: chunked\r\n");
    let in_chunks = [head.as_bytes(), &hookwell_tests::socket::chunked(&event.body, 5)].concat();
    let with_line_end = [github_request(), b"\n".to_vec()].concat();
    for request in [in_chunks, with_line_end] {
        let told = verified(&stage, "github", &request, &[])?;
        ensure!(told.status == Some(0), "{told:?}");
    }
    let two = [github_request(), github_request()].concat();
    for request in [&two[..], b"", b"not HTTP", b"POST / HTTP/1.1\r\nhost: x\r\n"] {
        let told = verified(&stage, "github", request, &[])?;
        ensure!(told.status == Some(2) && told.err.contains("is not one HTTP/1.1 request: "), "{told:?}");
    }
    Ok(())
}

fn test_events_are_sent_as_their_sender_would(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let _ingest = stage.ingest()?;
    let body = stage.folder().join("body");
    std::fs::write(&body, "{\"id\":\"mine\",\"type\":\"t\"}")?;
    let body = body.to_string_lossy();
    for sender in Sender::ALL {
        let sent = stage.ingest_answers(&["--send-test", sender.name()])?;
        ensure!(sent.status == Some(0) && sent.out.contains(" 200 "), "{sent:?}");
    }
    let several =
        stage.ingest_answers(&["--send-test", "github", "--count", "3", "--rate", "100/s", "--duplicate"])?;
    ensure!(several.status == Some(0) && several.out.lines().count() == 6, "{several:?}");
    ensure!(stage.ingest_answers(&["--send-test", "stripe", "--body", &body])?.status == Some(0));
    let url = format!("http://localhost:{}/webhooks/shopify?from=test", stage.port);
    ensure!(stage.ingest_answers(&["--send-test", "shopify", "--url", &url])?.status == Some(0));
    let records = stage.reader.read(&stage.topic("events"))?;
    ensure!(records.len() == 12, "{records:?}");
    let ids: std::collections::BTreeSet<_> = records.iter().map(|record| record.event()).collect();
    ensure!(ids.len() == 9 && ids.contains(&("stripe".to_owned(), "mine".to_owned())), "{ids:?}");
    Ok(())
}

fn test_events_that_are_refused_are_a_no(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let ingest = stage.ingest()?;
    let tampered = stage.ingest_answers(&["--send-test", "github", "--tamper", "--count", "2"])?;
    ensure!(tampered.status == Some(1) && tampered.out.matches(" 403 ").count() == 2, "{tampered:?}");
    ensure!(tampered.err.contains("2 answers"), "{tampered:?}");
    // A redirect is no 2xx, wherever it leads.
    stage.handler.answer(|_| hookwell_tests::handler::Reply::from(307));
    let redirected = stage.ingest_answers(&["--send-test", "github", "--url", &stage.handler.url("x")])?;
    ensure!(redirected.status == Some(1) && redirected.out.contains(" 307 "), "{redirected:?}");
    ensure!(ingest.stop()?.success());
    let unanswered = stage.ingest_answers(&["--send-test", "github"])?;
    ensure!(unanswered.status == Some(1) && unanswered.out.contains("no answer: "), "{unanswered:?}");
    ensure!(stage.reader.read(&stage.topic("events"))?.is_empty());
    Ok(())
}

fn presets_are_listed_one_object_a_line(common: &Common) -> Result<()> {
    let listed = answer(&common.binaries.ingest, &["--list-presets", "--output", "json"], &[])?;
    ensure!(listed.status == Some(0), "{listed:?}");
    let mut names = Vec::new();
    for line in listed.out.lines() {
        ensure!(line.starts_with("{\"name\":\""), "{line}");
        let preset: Value = serde_json::from_str(line)?;
        names.extend(preset["name"].as_str().map(str::to_owned));
    }
    for name in ["github", "stripe", "shopify", "slack", "standard-webhooks"] {
        ensure!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
    }
    let table = answer(&common.binaries.ingest, &["--list-presets"], &[])?;
    ensure!(
        table.status == Some(0) && names.iter().all(|name| table.out.contains(name.as_str())),
        "{table:?}"
    );
    Ok(())
}

fn whoever_has_seen_enough_of_an_answer_breaks_nothing(common: &Common) -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut listing = Command::new(&common.binaries.ingest);
    let listing = listing.arg("--list-presets").stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    let output = listing.output()?;
    ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    Ok(())
}

fn wrong_usage_ends_with_status_2(common: &Common) -> Result<()> {
    let stage = common.bare_stage(|_| ())?;
    for arguments in [&["--no-such-flag"][..], &["unexpected"], &["--config"]] {
        for (program, told) in both(&stage, arguments)? {
            ensure!(told.status == Some(2) && !told.err.is_empty(), "{program} {arguments:?}: {told:?}");
        }
    }
    let request = stage.config();
    let request = request.to_string_lossy();
    let of_ingest: &[&[&str]] = &[
        &["--verify", "github"],
        &["--request", &request],
        &["--verify", "nobody", "--request", &request],
        &["--verify", "github", "--request", "/nowhere/request"],
        &["--verify", "github", "--request", &request, "--at", "yesterday"],
        &["--verify", "github", "--request", &request, "--output", "xml"],
        &["--send-test", "nobody"],
        &["--send-test", "github", "--rate", "fast"],
        &["--send-test", "github", "--rate", "0/s"],
        &["--send-test", "github", "--count", "-1"],
        &["--send-test", "github", "--body", "/nowhere/body"],
        &["--send-test", "github", "--verify", "github", "--request", &request],
        &["--check-config", "--list-presets"],
        &["--tamper"],
    ];
    for arguments in of_ingest {
        let told = stage.ingest_answers(arguments)?;
        ensure!(told.status == Some(2) && !told.err.is_empty(), "{arguments:?}: {told:?}");
    }
    let told = stage.processor_answers(&["--check-config", "--create-topics"])?;
    ensure!(told.status == Some(2), "{told:?}");
    for binary in [&common.binaries.ingest, &common.binaries.processor] {
        let told = answer(binary, &["--config", "/nowhere/hookwell.toml"], &[])?;
        ensure!(told.status == Some(2) && told.err.contains("name the file with --config"), "{told:?}");
        for asked in ["--help", "--version"] {
            ensure!(answer(binary, &[asked], &[])?.status == Some(0), "{asked}");
        }
    }
    Ok(())
}

fn a_port_that_is_taken_ends_with_status_2(common: &Common) -> Result<()> {
    let stage = common.stage()?;
    let _first = stage.ingest()?;
    let told = stage.ingest_answers(&[])?;
    ensure!(told.status == Some(2) && told.err.contains("is the port taken?"), "{told:?}");
    let admin = free_port()?.to_string();
    let elsewhere = [("HOOKWELL__INGEST__ADMIN_LISTEN", format!("127.0.0.1:{admin}"))];
    let elsewhere = elsewhere.each_ref().map(|(name, value)| (*name, value.as_str()));
    let config = stage.config();
    let told = answer(&common.binaries.ingest, &["--config", &config.to_string_lossy()], &elsewhere)?;
    ensure!(told.status == Some(2) && told.err.contains("ingest.listen = "), "{told:?}");
    Ok(())
}

fn a_kafka_that_is_not_there_ends_with_status_3(common: &Common) -> Result<()> {
    let stage = common.bare_stage(|_| ())?;
    let nobody = format!("127.0.0.1:{}", free_port()?);
    let away = [("HOOKWELL__KAFKA__BOOTSTRAP_SERVERS", nobody.as_str())];
    let config = stage.config();
    let with_config = |more: &[&'static str]| -> Vec<String> {
        ["--config", &config.to_string_lossy()].iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    let ask = |binary: &Path, more: &[&'static str]| {
        let arguments = with_config(more);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        answer(binary, &arguments, &away)
    };
    let (ingest, processor) = (&common.binaries.ingest, &common.binaries.processor);
    let answers = std::thread::scope(|scope| {
        let asked = [
            scope.spawn(|| ask(ingest, &[])),
            scope.spawn(|| ask(processor, &[])),
            scope.spawn(|| ask(processor, &["--create-topics"])),
        ];
        asked.map(std::thread::ScopedJoinHandle::join)
    });
    for told in answers {
        let told = told.map_err(|_| anyhow::anyhow!("a panic"))??;
        ensure!(told.status == Some(3) && told.err.contains(&nobody), "{told:?}");
    }
    // What needs no Kafka asks for none.
    for binary in [ingest, processor] {
        ensure!(ask(binary, &["--check-config"])?.status == Some(0));
    }
    Ok(())
}

fn topics_are_created_once_and_changed_never(common: &Common) -> Result<()> {
    let stage = common.bare_stage(|_| ())?;
    let topics = ["events", "retry.1", "retry.2", "dlq", "state"].map(|name| stage.topic(name));
    for word in ["created", "exists", "exists"] {
        let told = stage.processor_answers(&["--create-topics"])?;
        let expected: Vec<_> = topics.iter().map(|topic| format!("{word} {topic}")).collect();
        ensure!(told.status == Some(0) && told.out.lines().eq(expected), "{told:?}");
    }
    // A tier more is a topic more, and nothing else.
    stage.rewrite(|settings| settings.retry = "tiers = [\"300ms\", \"1s\", \"2s\"]".to_owned())?;
    let told = stage.processor_answers(&["--create-topics"])?;
    ensure!(told.status == Some(0) && told.out.matches("created").count() == 1, "{told:?}");
    // What does not fit is told, not mended.
    stage.rewrite(|settings| settings.partitions = 5)?;
    for _ in 0..2 {
        let told = stage.processor_answers(&["--create-topics"])?;
        ensure!(told.status == Some(3) && told.err.contains("has 3 partitions"), "{told:?}");
    }
    Ok(())
}
