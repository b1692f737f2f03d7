//! Requests, to every sender that is known by name and to senders of one's own, as ingest meets them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use hookwell_common::config::{Config, Environment, Faults};
use hookwell_common::time::Timestamp;
use hookwell_ingest::accept::accept;
use hookwell_ingest::hints::{Other, hints};
use hookwell_ingest::rejection::Rejection;
use hookwell_ingest::source::{Source, resolve_all};
use hookwell_ingest::verify::draft::{Draft, Signing};
use hookwell_ingest::verify::explain::{Explanation, Silent, Trace};
use hookwell_ingest::verify::preset::{self, Preset};
use hookwell_ingest::verify::request::{RequestHeaders, UnverifiedRequest};
use hookwell_ingest::verify::{shake_hands, verify};

use crate::input::{Input, MadeUp, Output, Written};

/// When every request is received.
pub const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);
const METHODS: [&str; 4] = ["POST", "GET", "PUT", "HEAD"];
/// The URL that every sender was given.
pub const URL: &str = "https://hooks.example.com/x";

/// Every sender that is known by name, with the secret of [`secret_of`].
pub fn presets() -> &'static BTreeMap<&'static str, Source> {
    &PRESETS
}

/// A request to a sender that is known by name; whether it is accepted.
pub fn is_accepted_by_preset(data: &[u8]) -> bool {
    let input = Input::new(data);
    let name = input.text();
    // A name that nobody has is as good as any.
    let source = PRESETS.get(name).or_else(|| PRESETS.values().nth(name.len() % PRESETS.len()));
    source.is_some_and(|source| read_request(source, input))
}

pub(crate) fn read_as_preset(data: &[u8]) {
    is_accepted_by_preset(data);
}

/// For each sender that is known by name: its name, and a request as it would make it, for
/// [`is_accepted_by_preset`].
pub fn genuine_of_presets() -> Vec<(&'static str, Vec<u8>)> {
    let of_one = |(name, source): (&&'static str, &Source)| {
        let mut head = Output::default();
        head.bytes(name.as_bytes());
        Some((*name, genuine(source, head)?))
    };
    PRESETS.iter().filter_map(of_one).collect()
}

pub(crate) fn cases_of_presets() -> Vec<Vec<u8>> {
    genuine_of_presets().into_iter().map(|(_, case)| case).collect()
}

/// A request to a sender of one's own, which words describe; whether it is accepted.
pub fn is_accepted_by_recipe(data: &[u8]) -> bool {
    let input = Input::new(data);
    let words = input.text();
    // Another table of the file, perhaps with files of this machine, is not what is tried.
    let is_of_the_table = !words.contains(['[', '\r']) && !words.contains("file");
    let source = Some(words).filter(|_| is_of_the_table).and_then(source_of_recipe);
    source.is_some_and(|source| read_request(&source, input))
}

pub(crate) fn read_as_recipe(data: &[u8]) {
    is_accepted_by_recipe(data);
}

/// Requests as senders would make them whom words describe, for [`is_accepted_by_recipe`].
pub fn cases_of_recipes() -> Vec<Vec<u8>> {
    let of_words = |words: &&str| {
        let mut head = Output::default();
        head.bytes(words.as_bytes());
        genuine(&source_of_recipe(words)?, head)
    };
    RECIPES.iter().filter_map(of_words).collect()
}

/// Every word of `[sources.hmac]`, in the end, but `{signed-headers}`, which a preset has.
pub const RECIPES: &[&str] = &[
    "header = 'x-signature'",
    "header = 'x-signature'\nalgorithm = 'sha1'\nparse = 'prefix:sha1='\nencoding = 'base64'\nkey = 'base64'",
    "header = 's'\nalgorithm = 'sha512'\nparse = 'kv:,:v1'\ncontent = '{field:t}.{body}'\ntimestamp = 'field:t'",
    "header = 's'\nalgorithm = 'sha384'\nparse = 'list: :,:v1'\nkey = 'nfkd'\ncontent = '{header:i}.{header:t}.{body}'\ntimestamp = 'header:t'\ntimestamp_unit = 'ms'\ntolerance = '1m'",
    "header = 's'\nparse = 'prefix?:v='\nencoding = 'base64url'\ncontent = '{method}{url}{bare-url}{encoded-path}{crc32}{secret-id}{body}'",
    "header = 's'\nparse = 'tail:,'\ncontent = '{field:0},{body}'\ntimestamp = 'field:0'",
    "header = 's'\ncontent = '{json:/a/b?}{json:/t}{body}'\ntimestamp = 'json:/t'\ntimestamp_unit = 'rfc3339'",
    "header = 's'\ncontent = '{form}{form:t}{query:q?}'\ntimestamp = 'form:t'\ntimestamp_unit = 'iso8601'",
];

/// `draft` as the sender would sign it for `url`.
pub fn signed(source: &Source, url: &str, draft: &Draft) -> Option<Draft> {
    let signing = Signing { url, now: NOW, filler: "filler" };
    let ours = source.keys.first()?;
    let made = match preset::all().get(source.name.as_str()).and_then(pair_of) {
        Some(pair) => Some(source.scheme.private_key(ours.id.clone(), pair.private.as_bytes())?),
        None => None,
    };
    let sign = |draft: &Draft| {
        let mut draft = draft.clone();
        source.scheme.sign(&mut draft, made.as_ref().unwrap_or(ours), &signing).map(|()| draft)
    };
    let signed = sign(draft)?;
    // Whose signature lies in the body has made one.
    if signed.body.is_empty() { sign(&Draft { body: b"{}".to_vec(), ..draft.clone() }) } else { Some(signed) }
}

fn genuine(source: &Source, mut head: Output) -> Option<Vec<u8>> {
    let draft = signed(source, &source.public_url, &Draft::default())?;
    let target = draft.url("/");
    let (method, query) = (source.methods.first()?, target.split_once('?').map_or("", |(_, query)| query));
    head.0.push(u8::try_from(METHODS.iter().position(|known| known == method)?).ok()?);
    head.bytes(query.as_bytes());
    head.bytes(&draft.body);
    let headers = Written::behind(head, &draft.headers);
    judge(source, method, query, &draft.body, &headers);
    Some(headers.into_bytes())
}

fn read_request(source: &Source, input: Input<'_>) -> bool {
    let method = METHODS[usize::from(input.byte()) % METHODS.len()];
    let (query, body) = (input.text(), input.bytes());
    judge(source, method, query, body, &MadeUp::of(input))
}

/// Whether the request is accepted, after everything that ingest asks of it, and `--verify`.
fn judge(source: &Source, method: &str, query: &str, body: &[u8], headers: &dyn RequestHeaders) -> bool {
    let query = Some(query).filter(|query| !query.is_empty());
    let request = UnverifiedRequest { method, query, headers, body, received_at: NOW };
    let verdict = verdict_on(request, source, &mut Silent);
    let mut explanation = Explanation::default();
    assert_eq!(verdict, verdict_on(request, source, &mut explanation), "explaining changed the verdict");
    match verdict {
        Ok(()) => {
            forge(request, source);
            true
        }
        Err(rejection) => {
            assert!(!rejection.label().is_empty());
            for hint in hints(request, source, &others(source), rejection) {
                assert!(!hint.is_empty());
            }
            false
        }
    }
}

fn verdict_on(
    request: UnverifiedRequest<'_>,
    source: &Source,
    trace: &mut impl Trace,
) -> Result<(), Rejection> {
    if let Some(reply) = shake_hands(&request, source, None, trace) {
        return reply.map(drop);
    }
    let verified = verify(request, source, trace)?;
    if let Some(reply) = shake_hands(&request, source, Some(verified.key()), trace) {
        return reply.map(drop);
    }
    accept(&verified, Bytes::copy_from_slice(request.body), || "unique".to_owned(), trace).map(drop)
}

/// With another body the same headers must not do.
fn forge(request: UnverifiedRequest<'_>, source: &Source) {
    let mut body = request.body.to_vec();
    if let Some(last) = body.last_mut().filter(|_| source.scheme.facts().covers_body) {
        *last ^= 1;
        let is_let_in = verify(UnverifiedRequest { body: &body, ..request }, source, &mut Silent).is_ok();
        assert!(
            !is_let_in || is_question(&request, source),
            "{} lets a forged body in",
            source.name.as_str()
        );
    }
}

/// Whether it is accepted for being a question and not for its signature.
fn is_question(request: &UnverifiedRequest<'_>, source: &Source) -> bool {
    shake_hands(request, source, None, &mut Silent).is_some()
}

static PRESETS: LazyLock<BTreeMap<&'static str, Source>> = LazyLock::new(|| {
    let source = |(name, preset): (&'static String, &Preset)| {
        Some((name.as_str(), source_of_preset(name, &secret_of(preset))?))
    };
    preset::all().iter().filter_map(source).collect()
});

/// Whose requests might have been meant, and their secret as the sender of `judged` would compute with it.
fn others(judged: &Source) -> Vec<Other<'static>> {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let names = ["github", "stripe", "twilio"].into_iter();
        names.filter_map(|name| source_of_preset(name, "another")).collect()
    });
    let keys = || judged.scheme.key("0".to_owned(), None, b"another").into_iter().collect();
    SOURCES.iter().map(|source| Other { source, keys: keys() }).collect()
}

fn source_of_recipe(words: &str) -> Option<Source> {
    let table = format!("public_url = {URL:?}\n[sources.hmac]\n{words}");
    resolve("recipe", &table, "c2VjcmV0", true)
}

fn source_of_preset(name: &str, secret: &str) -> Option<Source> {
    let table = format!("public_url = {URL:?}\npreset = {name:?}");
    [true, false].into_iter().find_map(|has_id| resolve(name, &table, secret, has_id))
}

/// Two keys that belong together, in PEM.
#[derive(Clone, Copy)]
struct Pair {
    private: &'static str,
    public: &'static str,
}

/// One of the kind with which this sender signs, where it does.
fn pair_of(preset: &Preset) -> Option<Pair> {
    macro_rules! pair {
        ($name:literal) => {
            Pair {
                private: include_str!(concat!("../../../ingest/testdata/", $name, ".pem")),
                public: include_str!(concat!("../../../ingest/testdata/", $name, ".pub.pem")),
            }
        };
    }
    let pair = match (preset.scheme.as_str(), preset.algorithm.as_deref()) {
        ("ed25519", _) => pair!("ed25519"),
        ("ecdsa-p256" | "ebay", _) | ("jwt", Some("ES256")) => pair!("p256"),
        _ => pair!("rsa"),
    };
    preset.has_key_pair().then_some(pair)
}

/// A secret as this sender shows it, or a public key of its kind.
pub fn secret_of(preset: &Preset) -> String {
    let key = match (pair_of(preset), preset.scheme.as_str(), preset.key.as_deref()) {
        (Some(pair), _, _) => pair.public,
        (None, "basic", _) => "hookwell:secret",
        (None, _, Some("hex")) => "736563726574",
        (None, _, _) => "c2VjcmV0",
    };
    key.to_owned()
}

fn resolve(name: &str, table: &str, secret: &str, has_id: bool) -> Option<Source> {
    let mut text = format!("[[sources]]\nname = {name:?}\n");
    let id = if has_id { ", id = \"k\"" } else { "" };
    writeln!(text, "secrets = [{{ env = \"SECRET\"{id} }}]\n{table}").ok()?;
    let environment = Environment::from([("SECRET", secret)]);
    let mut faults = Faults::default();
    let config = Config::parse(Path::new("hookwell.toml"), &text, &Environment::default(), &mut faults);
    let mut sources = resolve_all(&config, &environment, &mut faults);
    sources.remove(name).filter(|_| faults.is_empty())
}
