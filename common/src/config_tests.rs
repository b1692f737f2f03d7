use std::time::Duration;

use super::*;

const FILE: &str = "hookwell.toml";

fn parse_with(text: &str, environment: impl Into<Environment>) -> Result<Config, Vec<String>> {
    let mut faults = Faults::default();
    let config = Config::parse(Path::new(FILE), text, &environment.into(), &mut faults);
    faults.into_result(config).map_err(|error| error.0.iter().map(ToString::to_string).collect())
}

fn parse(text: &str) -> Result<Config, Vec<String>> {
    parse_with(text, Environment::default())
}

fn only_fault(text: &str) -> String {
    let faults = parse(text).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.into_iter().next().unwrap()
}

const EVERYTHING: &str = r#"
[kafka]
bootstrap_servers = "k1:9092,k2:9092"
topic_prefix = "hooks"
partitions = 24
replication_factor = 3
[kafka.retention]
events = "3d"
[kafka.properties]
"security.protocol" = "SASL_SSL"
"sasl.password" = { env = "SASL_PASSWORD" }
"socket.timeout.ms" = 2000

[ingest]
listen = "127.0.0.1:8081"
trusted_proxies = ["10.0.0.0/8", "::1"]

[retry]
tiers = ["1s", "1m"]
jitter = 1

[[sources]]
name = "github"
preset = "github"
secrets = [{ env = "A" }, { file = "/run/secrets/b", id = "k2" }]
allow_from = ["192.30.252.0/22"]

[[sources]]
name = "acme"
secrets = [{ env = "A" }]
event_id = "header:x-acme-delivery"
event_id_missing = "reject"
keep_headers = ["X-Acme-Kind"]
rate_limit = 100
[sources.hmac]
header = "x-acme-signature"
tolerance = "5m"

[[destinations]]
name = "orders"
kind = "http"
url = "http://user:hunter2@orders.internal/hooks"
timeout = "3s"
concurrency = 8
signing_secret = { env = "B" }
[destinations.retry]
max_attempts = 5

[[destinations]]
name = "mirror"
kind = "kafka"
topic = "mirror"

[[routes]]
source = "*"
to = ["mirror"]

[[routes]]
source = "github"
types = ["push", "pull_request.*"]
to = ["orders", "mirror"]
"#;

#[test]
fn everything_that_is_written_is_read() {
    let config = parse(EVERYTHING).unwrap();
    assert_eq!(config.kafka.partitions, 24);
    assert_eq!(config.kafka.retention.events, Duration::from_secs(3 * 86_400));
    assert_eq!(config.kafka.properties["socket.timeout.ms"], Property::Plain("2000".into()));
    assert_eq!(config.ingest.trusted_proxies.len(), 2);
    assert_eq!(config.retry.limits.jitter, 1.0);
    assert_eq!(config.sources[0].secrets[1].id.as_deref(), Some("k2"));
    assert_eq!(config.sources[1].keep_headers.as_deref(), Some(["x-acme-kind".to_owned()].as_slice()));
    assert_eq!(config.sources[1].event_id_missing, EventIdMissing::Reject);
    assert_eq!(config.destinations[0].limits.max_attempts, 5);
    assert_eq!(config.destinations[0].limits.max_age, config.retry.limits.max_age);
    assert_eq!(config.routes[1].to.len(), 2);
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.kafka, KafkaConfig::default());
    assert_eq!(config.retry.tiers.len(), 6);
}

#[test]
fn what_is_shown_can_be_read_again_and_shows_no_secret() {
    let shown = parse(EVERYTHING).unwrap().to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(parse(&shown).unwrap().to_string(), shown);
    let defaults = parse("").unwrap().to_string();
    assert_eq!(parse(&defaults).unwrap().to_string(), defaults);
}

#[test]
fn a_plain_password_in_the_file_is_not_shown() {
    let config = parse("[kafka.properties]\n\"sasl.password\" = \"hunter2\"").unwrap();
    assert!(!config.to_string().contains("hunter2"));
}

#[test]
fn ten_faults_are_ten_lines_each_with_its_place() {
    let text = r#"
[kafka]
partitions = 0
bootstrap_server = "x"
[ingest]
listen = "everywhere"
max_body_bytes = "1MB"
[retry]
tiers = ["1m", "1s"]
[[sources]]
name = "GitHub"
preset = "github"
[[sources]]
name = "acme"
secrets = ["s3cret"]
[[destinations]]
name = "orders"
kind = "htp"
[[destinations]]
name = "billing"
kind = "http"
[[routes]]
source = "nobody"
to = ["acme"]
"#;
    let faults = parse(text).unwrap_err();
    let expected = [
        ("3", "kafka.partitions"),
        ("4", "kafka.bootstrap_server"),
        ("6", "ingest.listen"),
        ("7", "ingest.max_body_bytes"),
        ("9", "retry.tiers"),
        ("11", "sources[0].name"),
        ("15", "sources[1].secrets[0]"),
        ("18", "destinations[0].kind"),
        ("19", "destinations[1].url"),
        ("23", "routes[0].source"),
        ("24", "routes[0].to"),
    ];
    for (line, key) in expected {
        let start = format!("{FILE}:{line}: {key}: ");
        assert!(faults.iter().any(|fault| fault.starts_with(&start)), "{start} is not in {faults:#?}");
    }
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    assert!(!faults.concat().contains("s3cret"), "{faults:#?}");
}

#[test]
fn what_means_nothing_for_a_kind_of_destination_is_a_fault() {
    let fault = only_fault("[[destinations]]\nname = 'a'\nkind = 'log'\ntimeout = '1s'");
    assert!(fault.contains("destinations[0].timeout") && fault.contains("of this kind"), "{fault}");
    let fault =
        only_fault("[[destinations]]\nname = 'a'\nkind = 'http'\nurl = 'http://localhost'\ntopic = 't'");
    assert!(fault.contains("destinations[0].topic"), "{fault}");
}

#[test]
fn a_destination_cannot_feed_hookwell_itself() {
    let fault = only_fault("[[destinations]]\nname = 'a'\nkind = 'kafka'\ntopic = 'webhooks.events'");
    assert!(fault.contains("webhooks.events") && fault.contains("Hookwell's own"), "{fault}");
}

#[test]
fn a_typo_is_a_fault_that_names_the_likely_key() {
    let fault = only_fault("[kafka]\ntopic_prefx = 'a'");
    assert!(fault.contains("did you mean \"topic_prefix\"?"), "{fault}");
    let fault = only_fault("[kafak]\n");
    assert!(fault.contains("did you mean \"kafka\"?"), "{fault}");
}

#[test]
fn text_that_is_no_toml_is_told_by_line_and_does_not_hide_the_rest() {
    let faults = parse("[kafka]\npartitions = 0\ntopic_prefix = \n").unwrap_err();
    assert!(faults.iter().any(|fault| fault.starts_with("hookwell.toml:3: not TOML")), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.starts_with("hookwell.toml:2: kafka.partitions")), "{faults:?}");
}

#[test]
fn a_missing_file_says_how_to_name_one() {
    let mut faults = Faults::default();
    let config = Config::load(Path::new("/nowhere/hookwell.toml"), &Environment::default(), &mut faults);
    let error = faults.into_result(config).unwrap_err();
    assert!(error.to_string().contains("--config"), "{error}");
}

#[test]
fn variables_override_the_file_in_every_type() {
    let config = parse_with(
        "[kafka]\npartitions = 3\n[retry]\ntiers = ['1s']",
        [
            ("HOOKWELL__KAFKA__PARTITIONS", "6"),
            ("HOOKWELL__KAFKA__BOOTSTRAP_SERVERS", "kafka:9092"),
            ("HOOKWELL__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "SSL"),
            ("HOOKWELL__KAFKA__RETENTION__DLQ", "60d"),
            ("HOOKWELL__RETRY__TIERS", "2s, 4s"),
            ("HOOKWELL__RETRY__JITTER", "0.5"),
            ("HOOKWELL__PROCESSOR__UNROUTED", "ignore"),
            ("HOOKWELL_OTHER", "not ours"),
        ],
    )
    .unwrap();
    assert_eq!(config.kafka.partitions, 6);
    assert_eq!(config.kafka.bootstrap_servers, "kafka:9092");
    assert_eq!(config.kafka.properties["security.protocol"], Property::Plain("SSL".into()));
    assert_eq!(config.kafka.retention.dead_letters, Duration::from_secs(60 * 86_400));
    assert_eq!(config.retry.tiers, [Duration::from_secs(2), Duration::from_secs(4)]);
    assert_eq!(config.processor.unrouted, Unrouted::Ignore);
}

#[test]
fn a_variable_that_names_nothing_is_a_fault() {
    for name in [
        "HOOKWELL__KAFKA",
        "HOOKWELL__SOURCES__GITHUB",
        "HOOKWELL__KAFKA__PARTITION",
        "HOOKWELL__KAFKA__X__Y",
    ] {
        let faults = parse_with("", [(name, "1")]).unwrap_err();
        assert!(faults[0].starts_with(&format!("variable {name}: ")), "{faults:?}");
    }
}

#[test]
fn properties_on_which_the_promises_rest_are_refused() {
    let fault = only_fault("[kafka.properties]\nacks = 1");
    assert!(fault.contains("fixed by Hookwell"), "{fault}");
}

#[test]
fn the_window_may_not_be_shorter_than_the_events_stay() {
    let faults = parse("[processor]\ndedupe_window = \"1d\"").unwrap_err();
    assert!(
        faults.iter().all(|fault| fault.starts_with("hookwell.toml:2: processor.dedupe_window: ")),
        "{faults:?}"
    );
    parse("[processor]\ndedupe_window = \"1d\"\n[kafka.retention]\nevents = \"1d\"\nretry = \"1d\"").unwrap();
}

#[test]
fn a_retry_must_outlive_its_delay_on_kafka() {
    let fault = only_fault("[retry]\ntiers = [\"4d\"]");
    assert!(fault.contains("twice the longest tier"), "{fault}");
}

#[test]
fn names_are_unique_and_none_is_the_name_of_the_rest() {
    let source = |name: &str| format!("[[sources]]\nname = '{name}'\n");
    let fault = only_fault(&(source("a") + &source("a")));
    assert!(fault.contains("twice"), "{fault}");
    let fault = only_fault(&source("unknown"));
    assert!(fault.contains("choose another"), "{fault}");
}

#[test]
fn a_quarantine_is_asked_for_where_something_can_be_verified_again() {
    let source = "[[sources]]\nname = 'a'\nquarantine = true\n";
    let config = parse(source).unwrap();
    assert!(config.topic_plan().quarantine && config.sources[0].quarantine_rate_limit == 10);
    assert_eq!(parse(&config.to_string()).unwrap().to_string(), config.to_string());
    assert!(!parse("[[sources]]\nname = 'a'").unwrap().topic_plan().quarantine);
    let fault = only_fault(&format!("{source}unsigned = true"));
    assert!(fault.contains("no use to a source that is unsigned"), "{fault}");
    let fault = only_fault(&format!("{source}client_certificate = 'x-cert'"));
    assert!(fault.contains("proxy's word"), "{fault}");
    let fault = only_fault(&format!("{source}[kafka.retention]\nquarantine_bytes = 1000"));
    assert!(fault.contains("must be at least 28311552"), "{fault}");
}

#[test]
fn a_source_that_spools_needs_a_directory_that_holds_its_largest_event() {
    let source = "[[sources]]\nname = 'a'\non_enqueue_failure = 'spool'\n";
    let fault = only_fault(source);
    assert!(fault.starts_with("hookwell.toml:3") && fault.contains("set path in [ingest.spool]"), "{fault}");
    let spool = |more: &str| format!("{source}[ingest.spool]\npath = '/var/lib/hookwell'\n{more}");
    let config = parse(&spool("")).unwrap();
    assert_eq!(config.ingest.spool.max_bytes, 1024 * 1024 * 1024);
    assert_eq!(parse(&config.to_string()).unwrap().to_string(), config.to_string());
    let fault = only_fault(&spool("max_bytes = 1000000"));
    assert!(fault.contains("twice max_body_bytes"), "{fault}");
    let environment = [("HOOKWELL__INGEST__SPOOL__PATH", "/spool")];
    let config = parse_with(source, Environment::from(environment)).unwrap();
    assert_eq!(config.ingest.spool.path.as_deref(), Some(Path::new("/spool")));
}

#[test]
fn key_material_is_fetched_and_an_empty_one_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, "from file\n").unwrap();
    let text = format!(
        "[[sources]]\nname = 'a'\nsecrets = [{{ env = 'A' }}, {{ file = '{}' }}, {{ env = 'EMPTY' }}, {{ env = 'ABSENT' }}, {{ file = '/nowhere' }}]",
        file.display()
    );
    let environment = Environment::from([("A", "from variable"), ("EMPTY", "")]);
    let config = parse(&text).unwrap();
    let mut faults = Faults::default();
    let secrets: Vec<_> = config.sources[0]
        .secrets
        .iter()
        .filter_map(|secret| secret.resolve(&environment, &mut faults))
        .collect();
    assert_eq!(
        secrets.iter().map(|secret| secret.reveal()).collect::<Vec<_>>(),
        [b"from variable".as_slice(), b"from file"]
    );
    let faults: Vec<_> = faults.into_sorted().iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 3);
    for (fault, words) in
        faults.iter().zip(["EMPTY is empty", "ABSENT is not set", "/nowhere cannot be read"])
    {
        assert!(fault.starts_with("hookwell.toml:3: sources[0].secrets["), "{fault}");
        assert!(fault.contains(words), "{fault}");
    }
}

#[test]
fn every_known_key_is_a_leaf_and_found_once() {
    let keys = known_keys();
    for key in [
        "kafka.partitions",
        "kafka.retention.dlq",
        "kafka.properties",
        "sources[].hmac.header",
        "sources[].secrets[].env",
        "destinations[].retry.max_age",
        "routes[].to",
    ] {
        assert!(keys.iter().any(|known| known == key), "{key} is not in {keys:#?}");
    }
    assert!(!keys.iter().any(|key| key == "sources[].hmac" || key == "kafka"), "{keys:#?}");
}

#[test]
fn a_secret_of_white_space_is_refused_like_an_empty_one() {
    let config = parse("[[sources]]\nname = 'a'\nsecrets = [{ env = 'A' }]").unwrap();
    let mut faults = Faults::default();
    let environment = Environment::from([("A", "  ")]);
    assert_eq!(config.sources[0].secrets[0].resolve(&environment, &mut faults), None);
    assert!(faults.into_sorted()[0].what.contains("protects nothing"));
}

#[test]
fn a_network_of_ipv4_may_be_written_as_ipv6() {
    let text =
        "[ingest]\ntrusted_proxies = ['::ffff:10.0.0.0/104', '::ffff:192.0.2.1', '2001:db8::/32', '::/0']";
    let networks = parse(text).unwrap().ingest.trusted_proxies;
    let shown: Vec<_> = networks.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::/0"]);
}

#[test]
fn the_files_of_sources_are_those_of_their_secrets_and_words_and_no_others() {
    let config = parse(
        "[kafka.properties]\n\"sasl.password\" = { file = 'kafka' }
        [[sources]]\nname = 'a'\nsecrets = [{ file = 'new' }, { env = 'A' }, { file = 'old' }]
        [[sources]]\nname = 'b'\nsecrets = [{ file = 'old' }]\nhandshake_token = { file = 'token' }
        [[destinations]]\nname = 'd'\nkind = 'http'\nurl = 'http://d'\nsigning_secret = { file = 'signing' }",
    )
    .unwrap();
    assert_eq!(config.files_of_sources(), ["new", "old", "token"].map(Path::new).into());
}
