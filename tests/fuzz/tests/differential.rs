//! Every recipe, judged by a second implementation in another language: `recipes.py`, which shares
//! with ours what the documentation says, and nothing else.

use std::io::Write as _;
use std::iter;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookwell_common::lifecycle::spawn_thread;
use hookwell_common::time::Timestamp;
use hookwell_fuzz::requests::{self, NOW, URL};
use hookwell_ingest::source::Source;
use hookwell_ingest::verify::draft::Draft;
use hookwell_ingest::verify::explain::Silent;
use hookwell_ingest::verify::preset::{self, Preset};
use hookwell_ingest::verify::request::UnverifiedRequest;
use hookwell_ingest::verify::verify;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

/// Requests of each preset.
const REQUESTS: usize = 40;

struct Case {
    preset: &'static str,
    method: String,
    query: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    now: Timestamp,
}

/// Whose signatures words describe, and nothing but words.
fn recipes() -> impl Iterator<Item = (&'static str, &'static Source)> {
    const SCHEMES: [&str; 6] = ["hmac", "digest", "ed25519", "ecdsa-p256", "rsa-sha1", "rsa-sha256"];
    let is_recipe = |preset: &Preset| SCHEMES.contains(&preset.scheme.as_str());
    requests::presets().iter().map(|(name, source)| (*name, source)).filter(move |(name, _)| {
        let all = preset::all();
        let other = |one: &&Preset| one.otherwise.as_ref().map(|other| &all[other]);
        iter::successors(all.get(*name), other).all(is_recipe)
    })
}

#[test]
fn a_second_implementation_judges_every_recipe_as_ours_does() -> Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let (mut cases, mut verdicts) = (Vec::new(), Vec::new());
    let mut names = 0;
    for (name, source) in recipes() {
        names += 1;
        for number in 0..REQUESTS {
            let case = case(name, source, number, &mut random).context(name)?;
            verdicts.push(is_accepted(&case, source));
            cases.push(case);
        }
        assert!(verdicts[verdicts.len() - REQUESTS], "{name} refuses what it signed");
    }
    assert!(100 < names, "only {names} recipes");
    let accepted = verdicts.iter().filter(|verdict| **verdict).count();
    assert!(names < accepted && accepted < verdicts.len() / 2, "{accepted} of {}", verdicts.len());
    for ((case, ours), theirs) in cases.iter().zip(&verdicts).zip(judged_by_python(&cases)?) {
        let headers: Vec<_> =
            case.headers.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
        assert_eq!(
            *ours,
            theirs,
            "{}: ours first: {} {:?} {headers:?} {:?}",
            case.preset,
            case.method,
            case.query,
            String::from_utf8_lossy(&case.body)
        );
    }
    Ok(())
}

/// The first of a preset as it is signed, the others altered in one place or two.
fn case(preset: &'static str, source: &Source, number: usize, random: &mut ChaCha8Rng) -> Option<Case> {
    let given = [
        &b"{\"id\":\"evt_1\",\"note\":\"gr\xc3\xbc\xc3\x9fe\"}"[..],
        b"{\"n\": 1.50, \"id\": \"\\u00e9\"}\n",
    ];
    let draft = match number {
        0 => Draft::default(),
        _ if random.random_bool(0.5) => Draft::default(),
        _ => Draft::of_body(given.choose(random)?),
    };
    let query = Some("a=1&b=%2F".to_owned()).filter(|_| number % 5 == 3);
    let url = source.signed_url(query.as_deref());
    let draft = requests::signed(source, &url, &draft).unwrap_or(draft);
    let Draft { mut headers, mut body, .. } = draft;
    let mut now = NOW;
    let mut method = source.methods[0].clone();
    for _ in 0..number.min(2) {
        match random.random_range(0..9) {
            0 => body.push(*b" \n".choose(random)?),
            1 => now = NOW.plus(std::time::Duration::from_secs(random.random_range(0..700))),
            2 => now = NOW.minus(std::time::Duration::from_secs(random.random_range(0..700))),
            3 if !headers.is_empty() => {
                headers.remove(random.random_range(0..headers.len()));
            }
            4 if !headers.is_empty() => {
                let twice = headers[random.random_range(0..headers.len())].clone();
                headers.push(twice);
            }
            5 => method = source.methods.choose(random)?.clone(),
            _ => {
                if let Some((_, value)) = headers.iter_mut().find(|_| random.random_bool(0.5)) {
                    alter(value, random)?;
                }
            }
        }
    }
    Some(Case { preset, method, query, headers, body, now })
}

fn alter(value: &mut Vec<u8>, random: &mut ChaCha8Rng) -> Option<()> {
    let at = random.random_range(0..=value.len());
    match random.random_range(0..6) {
        0 => value.truncate(at),
        1 => value.make_ascii_uppercase(),
        2 => value.insert(at, *b"=, :;v1a ".choose(random)?),
        3 => value.extend_from_slice(b"="),
        4 => *value = [&value[..], b",", value].concat(),
        _ => *value = [&value[..], b" ", value].concat(),
    }
    Some(())
}

fn is_accepted(case: &Case, source: &Source) -> bool {
    let request = UnverifiedRequest {
        method: &case.method,
        query: case.query.as_deref(),
        headers: &case.headers,
        body: &case.body,
        received_at: case.now,
    };
    verify(request, source, &mut Silent).is_ok()
}

fn judged_by_python(cases: &[Case]) -> Result<Vec<bool>> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let mut python = Command::new("python3")
        .arg(format!("{folder}/recipes.py"))
        .arg(format!("{folder}/../../ingest/src/verify/presets.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3 is installed by deploy/prepare.sh")?;
    let mut asked = String::new();
    for case in cases {
        let headers: Vec<_> =
            case.headers.iter().map(|(name, value)| (name, STANDARD.encode(value))).collect();
        let line = json!({
            "preset": case.preset, "secret": requests::secret_of(&preset::all()[case.preset]),
            "secret_id": "k", "url": URL, "now": case.now.as_millis() / 1000, "method": case.method,
            "query": case.query, "headers": headers, "body": STANDARD.encode(&case.body),
        });
        asked += &format!("{line}\n");
    }
    let mut stdin = python.stdin.take().context("it is piped")?;
    let writer = spawn_thread("to-python".to_owned(), move || stdin.write_all(asked.as_bytes()))?;
    let output = python.wait_with_output()?;
    writer.join().map_err(|_| anyhow!("the writer panicked"))??;
    ensure!(output.status.success(), "{}", output.status);
    let words = String::from_utf8(output.stdout)?;
    let verdicts: Vec<_> = words.lines().map(|word| word == "accepted").collect();
    ensure!(verdicts.len() == cases.len(), "{} of {}", verdicts.len(), cases.len());
    Ok(verdicts)
}
