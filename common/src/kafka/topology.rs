//! The topics of the cluster against those of the plan.
//!
//! What is asked of the cluster is separate from what is concluded: [`mismatches`] is pure.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::Client;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use thiserror::Error;

use super::{ClientSettings, LoggingContext};
use crate::topics::{Topic, TopicSpec};

/// How long one question to the cluster may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A cluster that could not be asked, or that is not as configured.
#[derive(Debug, Error)]
pub enum TopologyError {
    /// No answer.
    #[error("Kafka at {servers} could not be asked: {error}")]
    Unreachable {
        /// Where it was looked for.
        servers: String,
        /// Why it failed.
        error: KafkaError,
    },
    /// It answered, and something does not fit.
    #[error("the topics on Kafka are not as configured:{}", .0.iter().map(|fault| format!("\n  {fault}")).collect::<String>())]
    Unfit(Vec<KafkaFault>),
    /// A topic could not be created.
    #[error("topic {topic} could not be created: {code}")]
    NotCreated {
        /// Its name.
        topic: String,
        /// Kafka's reason.
        code: RDKafkaErrorCode,
    },
}

/// One thing about one topic that does not fit, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{topic}: {what}")]
pub struct KafkaFault {
    /// The topic's name.
    pub topic: String,
    /// What is wrong, and the remedy.
    pub what: String,
}

/// A topic as the cluster shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenTopic {
    /// Its partitions.
    pub partitions: i32,
    /// Its settings; `None` where the cluster does not tell, as librdkafka's mock does not.
    pub settings: Option<BTreeMap<String, String>>,
}

/// Everything about the topics of `specs` that does not fit what was `seen`.
pub fn mismatches(
    specs: &[TopicSpec],
    seen: &BTreeMap<String, SeenTopic>,
    dedupe_window: Duration,
) -> Vec<KafkaFault> {
    let mut faults = Vec::new();
    for spec in specs {
        let mut fault = |what: String| faults.push(KafkaFault { topic: spec.name.clone(), what });
        let Some(topic) = seen.get(&spec.name) else {
            fault("does not exist; `processor --create-topics` creates it".to_owned());
            continue;
        };
        if topic.partitions != spec.partitions {
            fault(format!(
                "has {} partitions, and kafka.partitions is {}; they must be equal, for an event, its retries and its state share one number",
                topic.partitions, spec.partitions
            ));
        }
        if let Some(settings) = &topic.settings {
            setting_faults(spec, settings, dedupe_window).into_iter().for_each(&mut fault);
        }
    }
    faults
}

fn setting_faults(
    spec: &TopicSpec,
    settings: &BTreeMap<String, String>,
    dedupe_window: Duration,
) -> Vec<String> {
    let mut faults = Vec::new();
    let setting = |name: &str| settings.get(name).map_or("", String::as_str);
    let number = |name: &str| setting(name).parse::<i128>().ok();
    let mut policies: Vec<_> = setting("cleanup.policy").split(',').map(str::trim).collect();
    policies.sort_unstable();
    let policy = policies.join(",");
    if policy != spec.cleanup.policy() {
        faults.push(format!("has cleanup.policy={policy}, and must have {}", spec.cleanup.policy()));
    }
    if setting("message.timestamp.type") != "LogAppendTime" {
        faults.push(format!(
            "has message.timestamp.type={}, and must have LogAppendTime, for retention counts from the append",
            setting("message.timestamp.type")
        ));
    }
    if number("max.message.bytes").is_some_and(|bytes| bytes < spec.max_message_bytes as i128) {
        faults.push(format!(
            "has max.message.bytes={}, and needs {} for bodies of ingest.max_body_bytes",
            setting("max.message.bytes"),
            spec.max_message_bytes
        ));
    }
    if let Some(bytes) = spec.segment_bytes
        && number("retention.bytes").is_some_and(|found| found < 0)
    {
        faults.push(format!(
            "has no bound in bytes, and strangers fill it; set retention.bytes and segment.bytes to {bytes}"
        ));
    }
    if let Some(retention) = number("retention.ms") {
        faults.extend(retention_fault(spec, retention, dedupe_window));
    }
    faults
}

fn retention_fault(spec: &TopicSpec, retention_millis: i128, dedupe_window: Duration) -> Option<String> {
    let is_shorter = |than: Duration| retention_millis >= 0 && retention_millis < than.as_millis() as i128;
    let is_longer = |than: Duration| retention_millis < 0 || retention_millis > than.as_millis() as i128;
    match spec.topic {
        Topic::Events | Topic::Retry(_) if is_longer(dedupe_window) => Some(format!(
            "has retention.ms={retention_millis}, and processor.dedupe_window is {}; the window may not be shorter, or a lost offset would repeat work",
            humantime::format_duration(dedupe_window)
        )),
        Topic::State if is_shorter(spec.retention) => Some(format!(
            "has retention.ms={retention_millis}, and needs {} (processor.dedupe_window and a day)",
            spec.retention.as_millis()
        )),
        Topic::Events | Topic::Retry(_) | Topic::DeadLetters | Topic::State | Topic::Quarantine => None,
    }
}

/// Refuses a cluster whose topics do not fit `specs`, naming everything that is wrong.
pub async fn verify(
    settings: &ClientSettings,
    specs: &[TopicSpec],
    dedupe_window: Duration,
) -> Result<(), TopologyError> {
    let names: Vec<_> = specs.iter().map(|spec| spec.name.clone()).collect();
    let faults = mismatches(specs, &describe(settings, &names).await?, dedupe_window);
    if faults.is_empty() { Ok(()) } else { Err(TopologyError::Unfit(faults)) }
}

/// Asks the cluster for all topics named in `names`; those that do not exist are left out.
pub async fn describe(
    settings: &ClientSettings,
    names: &[String],
) -> Result<BTreeMap<String, SeenTopic>, TopologyError> {
    let unreachable =
        |error| TopologyError::Unreachable { servers: settings.bootstrap_servers().to_owned(), error };
    let admin = admin(settings).map_err(unreachable)?;
    let counts = partition_counts(admin.inner()).map_err(unreachable)?;
    let mut seen: BTreeMap<String, SeenTopic> = names
        .iter()
        .filter_map(|name| Some((name.clone(), SeenTopic { partitions: *counts.get(name)?, settings: None })))
        .collect();
    // An empty question is an error, and the mock broker never answers this one.
    if seen.is_empty() || is_mock(admin.inner()) {
        return Ok(seen);
    }
    let existing: Vec<String> = seen.keys().cloned().collect();
    let resources: Vec<_> = existing.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    match admin.describe_configs(&resources, &options()).await {
        Ok(answers) => {
            for (name, answer) in existing.iter().zip(answers) {
                let topic = seen.get_mut(name);
                match (topic, answer) {
                    (Some(topic), Ok(resource)) => topic.settings = Some(settings_of(resource)),
                    (_, Err(code)) => {
                        tracing::warn!(topic = name, %code, "Kafka does not tell this topic's settings; they are not verified")
                    }
                    (None, Ok(_)) => {}
                }
            }
        }
        Err(error) => return Err(unreachable(error)),
    }
    Ok(seen)
}

/// Creates those of `specs` that do not exist, and changes nothing that does. Returns the names of
/// what it created.
pub async fn create_missing(
    settings: &ClientSettings,
    specs: &[TopicSpec],
) -> Result<Vec<String>, TopologyError> {
    let unreachable =
        |error| TopologyError::Unreachable { servers: settings.bootstrap_servers().to_owned(), error };
    let admin = admin(settings).map_err(unreachable)?;
    let existing = partition_counts(admin.inner()).map_err(unreachable)?;
    let missing: Vec<_> = specs.iter().filter(|spec| !existing.contains_key(&spec.name)).collect();
    let wanted: Vec<_> = missing.iter().map(|spec| (spec, spec.settings())).collect();
    let topics: Vec<_> = wanted
        .iter()
        .map(|(spec, settings)| {
            let topic =
                NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(spec.replication_factor));
            settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
        })
        .collect();
    let mut created = Vec::new();
    if topics.is_empty() {
        return Ok(created);
    }
    for answer in admin.create_topics(&topics, &options()).await.map_err(unreachable)? {
        match answer {
            Ok(name) => created.push(name),
            // Somebody else was faster; what exists is left alone.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(TopologyError::NotCreated { topic, code }),
        }
    }
    Ok(created)
}

/// Every topic of the cluster with its number of partitions.
pub fn partition_counts<C: ClientContext>(client: &Client<C>) -> Result<BTreeMap<String, i32>, KafkaError> {
    let metadata = client.fetch_metadata(None, PATIENCE)?;
    let count = |topic: &rdkafka::metadata::MetadataTopic| {
        (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))
    };
    Ok(metadata.topics().iter().map(count).collect())
}

/// The retry tiers that exist under `prefix`, also those above the configured number.
pub fn retry_tiers(topics: &BTreeMap<String, i32>, prefix: &str) -> Vec<u16> {
    let mut tiers: Vec<_> = topics.keys().filter_map(|name| Topic::retry_tier_of(name, prefix)).collect();
    tiers.sort_unstable();
    tiers
}

/// Whether this is librdkafka's mock broker, which stands in for Kafka in a demonstration.
fn is_mock<C: ClientContext>(client: &Client<C>) -> bool {
    let is_mock = client.fetch_cluster_id(PATIENCE).is_some_and(|id| id.starts_with("mockCluster"));
    if is_mock {
        tracing::warn!("this is a mock broker: it keeps none of Hookwell's promises, and tells no settings");
    }
    is_mock
}

fn admin(settings: &ClientSettings) -> Result<AdminClient<LoggingContext>, KafkaError> {
    AdminClient::from_config_and_context(&settings.admin(), LoggingContext::default())
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

fn settings_of(resource: ConfigResource) -> BTreeMap<String, String> {
    resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KafkaConfig;
    use crate::topics::TopicPlan;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_topic_that_strangers_fill_must_be_bounded_in_bytes() {
        let kafka = KafkaConfig::default();
        let specs = [plan(&kafka).quarantine_spec()];
        let mut seen = as_created(&specs);
        assert_eq!(mismatches(&specs, &seen, 7 * DAY), []);
        set(&mut seen, "webhooks.quarantine", "retention.bytes", "-1");
        let faults = mismatches(&specs, &seen, 7 * DAY);
        assert!(faults.len() == 1 && faults[0].what.contains("no bound in bytes"), "{faults:?}");
    }

    fn plan(kafka: &KafkaConfig) -> TopicPlan<'_> {
        TopicPlan { kafka, tiers: 1, max_body_bytes: 1000, dedupe_window: 7 * DAY, quarantine: false }
    }

    fn specs() -> Vec<TopicSpec> {
        plan(&KafkaConfig::default()).specs()
    }

    fn as_created(specs: &[TopicSpec]) -> BTreeMap<String, SeenTopic> {
        let seen = |spec: &TopicSpec| {
            let settings =
                spec.settings().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            (spec.name.clone(), SeenTopic { partitions: spec.partitions, settings: Some(settings) })
        };
        specs.iter().map(seen).collect()
    }

    fn faults_after(change: impl FnOnce(&mut BTreeMap<String, SeenTopic>)) -> Vec<String> {
        let mut seen = as_created(&specs());
        change(&mut seen);
        mismatches(&specs(), &seen, 7 * DAY).iter().map(ToString::to_string).collect()
    }

    fn set(seen: &mut BTreeMap<String, SeenTopic>, topic: &str, name: &str, value: &str) {
        let topic = seen.get_mut(topic).unwrap();
        topic.settings.as_mut().unwrap().insert(name.to_owned(), value.to_owned());
    }

    #[test]
    fn topics_as_they_are_created_fit() {
        assert_eq!(faults_after(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn each_mismatch_names_its_topic_and_the_remedy() {
        let faults = faults_after(|seen| {
            seen.remove("webhooks.dlq");
            seen.get_mut("webhooks.events").unwrap().partitions = 3;
            set(seen, "webhooks.state", "cleanup.policy", "delete");
            set(seen, "webhooks.state", "retention.ms", "1000");
            set(seen, "webhooks.retry.1", "message.timestamp.type", "CreateTime");
            set(seen, "webhooks.retry.1", "max.message.bytes", "1000");
        });
        let expected = [
            ("webhooks.events: ", "has 3 partitions"),
            ("webhooks.retry.1: ", "LogAppendTime"),
            ("webhooks.retry.1: ", "max.message.bytes=1000"),
            ("webhooks.dlq: ", "--create-topics"),
            ("webhooks.state: ", "must have compact,delete"),
            ("webhooks.state: ", "retention.ms=1000"),
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, (topic, words)) in faults.iter().zip(expected) {
            assert!(fault.starts_with(topic) && fault.contains(words), "{fault}");
        }
    }

    #[test]
    fn events_that_stay_longer_than_the_window_do_not_fit() {
        for retention in ["-1", "604800001"] {
            let faults = faults_after(|seen| set(seen, "webhooks.events", "retention.ms", retention));
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains("dedupe_window"), "{faults:?}");
        }
    }

    #[test]
    fn the_order_of_cleanup_policies_means_nothing() {
        assert_eq!(
            faults_after(|seen| set(seen, "webhooks.state", "cleanup.policy", "delete,compact")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn settings_that_the_cluster_does_not_tell_are_not_held_against_it() {
        assert_eq!(
            faults_after(|seen| seen.values_mut().for_each(|topic| topic.settings = None)),
            Vec::<String>::new()
        );
    }
}
