//! The published vectors that the presets and the recipe engine cover.

use std::collections::BTreeSet;

use base64::Engine;
use serde_json::Value;

use super::*;
use crate::verify::preset;

const VECTORS: &str = include_str!("../../../testdata/vectors.json");
const RECIPES: &str = include_str!("../../../testdata/recipes.json");

/// Senders whose preset has another name than their vectors.
const NAMES: [(&str, &str); 3] = [("paddle-billing", "paddle"), ("x-twitter", "x"), ("aws-sns", "sns")];

/// Whether it shows how an address is proved to be ours, and no event.
fn is_challenge(vector: &Value) -> bool {
    vector["scheme"].as_str().unwrap().contains("challenge")
}

/// What verification says to a vector, and what it should say.
fn run(vector: &Value, table: &str) -> (String, String) {
    let text = |key: &str| vector[key].as_str().unwrap_or_default();
    let url = vector["url"].as_str().map_or(String::new(), |url| format!("public_url = {url:?}\n"));
    let named = |secret: &Value| {
        let value = secret["secret"].as_str().or(secret["cert_pem"].as_str()).or(secret.as_str()).unwrap();
        let id = secret["key"].as_str().or(secret["webhook_id"].as_str());
        (value.to_owned(), id.map(str::to_owned))
    };
    let secrets = match serde_json::from_str::<Value>(text("secret")) {
        Ok(Value::Array(secrets)) if text("secret_kind").starts_with("json") => {
            secrets.iter().map(named).collect()
        }
        Ok(secret @ Value::Object(_)) if text("secret_kind").starts_with("json") => vec![named(&secret)],
        _ => vec![(text("secret").to_owned(), None)],
    };
    let verdict = match try_source_with(&format!("{url}{table}"), &secrets) {
        Err(faults) => panic!("{}: {faults:?}", text("provider")),
        Ok(source) => {
            let headers: Headers = vector["headers"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| header(&name.to_ascii_lowercase(), value.as_str().unwrap()))
                .collect();
            let body = base64::engine::general_purpose::STANDARD.decode(text("body_b64")).unwrap();
            let now = Timestamp::from_seconds(vector["now"].as_u64().unwrap_or(1_700_000_000));
            let method = vector["method"].as_str().unwrap_or("POST");
            let query = vector["url"].as_str().and_then(|url| url.split_once('?')).map(|(_, query)| query);
            judge(
                &source,
                UnverifiedRequest { method, query, headers: &headers, body: &body, received_at: now },
            )
        }
    };
    let said = if verdict.is_ok() { "accept" } else { "reject" };
    (
        format!("{} {said} ({})", text("provider"), text("note")),
        format!("{} {} ({})", text("provider"), text("expect"), text("note")),
    )
}

fn vectors() -> Vec<Value> {
    serde_json::from_str(VECTORS).unwrap()
}

#[test]
fn every_published_vector_of_a_preset_holds() {
    let mut count = 0;
    let mut proved = BTreeSet::new();
    for vector in vectors() {
        let provider = vector["provider"].as_str().unwrap();
        let name = NAMES.iter().find(|(other, _)| *other == provider).map_or(provider, |(_, name)| name);
        if preset::all().contains_key(name) && !is_challenge(&vector) {
            let (said, expected) = run(&vector, &format!("preset = {name:?}"));
            assert_eq!(said, expected);
            count += 1;
            if vector["expect"] == "accept" {
                proved.extend(proved_by(&vector, name));
            }
        }
    }
    assert_eq!(count, 126);
    let said = preset::all().iter().filter(|(_, preset)| preset.vector).map(|(name, _)| name.clone());
    assert_eq!(said.collect::<BTreeSet<_>>(), proved, "what presets say of vectors, and what there is");
}

/// Of `name` and the presets that it names beside, those that accept `vector`.
fn proved_by(vector: &Value, name: &str) -> Vec<String> {
    let next = |name: &String| preset::all()[name].otherwise.clone();
    let all = std::iter::successors(Some(name.to_owned()), next);
    let url = if vector["url"].is_null() { "public_url = \"https://hooks.example.com/x\"\n" } else { "" };
    let accepts = |name: &String| {
        let (said, expected) = run(vector, &format!("{url}preset = {name:?}"));
        said == expected
    };
    let first = name.to_owned();
    all.filter(|name| *name == first || accepts(name)).collect()
}

/// The same senders, and others, written as `[sources.hmac]`.
#[test]
fn every_published_vector_that_the_recipe_engine_covers_holds() {
    let recipes: Value = serde_json::from_str(RECIPES).unwrap();
    let mut count = 0;
    for vector in vectors() {
        let provider = vector["provider"].as_str().unwrap();
        if let Some(table) = hmac_table(&recipes, provider, vector["scheme"].as_str().unwrap()) {
            let (said, expected) = run(&vector, &table);
            assert_eq!(said, expected);
            count += 1;
        }
    }
    assert_eq!(count, 54);
}

fn hmac_table(recipes: &Value, provider: &str, scheme: &str) -> Option<String> {
    let mut recipe = recipes.get(provider)?;
    while let Some(other) = recipe["same"].as_str() {
        recipe = &recipes[other];
    }
    let word = |key: &str| recipe[key].as_str();
    let is_hmac = scheme.contains("hmac") || ["standard-webhooks-v1", "stripe-v1", "box"].contains(&scheme);
    let is_beyond =
        word("parse")?.starts_with("tail") || word("key")? == "nfkd" || word("unit") == Some("iso-utc");
    if !is_hmac || scheme.contains("challenge") || is_beyond {
        return None;
    }
    let content = word("content")?.replace("{h:", "{header:").replace("{f:", "{field:");
    let mut table = format!(
        "[sources.hmac]\nalgorithm = {:?}\nheader = {:?}\nparse = {:?}\nencoding = {:?}\nkey = {:?}\ncontent = {content:?}\n",
        word("alg")?,
        word("header")?,
        word("parse")?,
        word("enc")?,
        word("key")?
    );
    if let Some(place) = word("ts") {
        let place = place.replace("h:", "header:").replace("f:", "field:");
        let unit = word("unit").filter(|unit| *unit != "iso").unwrap_or("rfc3339");
        let tolerance = recipe["tol"].as_u64().unwrap_or(300);
        table += &format!("timestamp = {place:?}\ntimestamp_unit = {unit:?}\ntolerance = \"{tolerance}s\"\n");
    }
    Some(table)
}
