//! The independent auditor: judges a run of Hookwell by what lies on Kafka, by the ledger of who
//! sent and by the ledger of who was called. It shares no code with what it judges: formats are read
//! as `docs/topics.md` says, promises are those of `docs/delivery.md`.
//!
//! ```text
//! auditor watch   DIR                      notes every committed record until SIGTERM or SIGINT
//! auditor collect DIR                      writes down what lies on the topics, and where they end
//! auditor judge   DIR [--output text|json] judges; 0 all kept, 1 a violation, 2 no evidence
//! auditor run     DIR [--output text|json] collect and judge
//! ```
//!
//! # A folder of evidence
//!
//! Moments are milliseconds since the epoch, digests BLAKE3 in lower-case hexadecimal, of
//! which the first 32 digits count and more may follow. A file called
//! `….jsonl` holds one JSON object a line, in any order but for `seen.jsonl`.
//!
//! Written by whoever makes the run:
//!
//! - `run.json`, what was run: `{"bootstrap_servers", "prefix", "group", "tiers": [ms, …],
//!   "skew_ms": 50, "grace_ms": 0, "dedupe_window_ms": 604800000, "destinations": [{"name",
//!   "kind": "http" | "kafka" | "log", "topic"?, "max_attempts"}], "routes": [{"source": "*" | NAME,
//!   "to": [NAME, …], "sometimes"?: false}]}`. The three with a number may be left out; `sometimes` is
//!   for a route that was there for a part of the run. An event that no route names is
//!   expected among the dead letters.
//! - `answers.jsonl`, what senders heard: `{"source", "id", "sent", "answered"?, "status", "body"}`.
//!   `status` is 0 where no answer was heard, only 200 counts as acknowledged; `id` is the event id,
//!   `body` the digest of what was sent. A line for each sending, heard or not: an event that lies on
//!   the topic and was sent by nobody is a violation.
//! - `calls.jsonl`, what handlers were asked: `{"destination", "source", "id", "generation",
//!   "attempt", "key", "status", "at", "made"?, "body"}`. `status` is 0 where no answer was sent whole
//!   and in time; `at` is when the call came, `made` the end of the second in which its caller says
//!   that it made it, `key` is `webhook-id`, `body` a digest.
//! - `faults.jsonl`, may be missing: `{"kind", "target", "begin", "end", "recovered"?, "skew_ms"?}`.
//!   A fault's window goes from `begin` to the later of `end` and `recovered`, and `grace_ms`. Within
//!   it a call may be repeated, an attempt may miss in the handlers' ledger, and clocks may differ by
//!   `skew_ms` more.
//! - `rest.json`, may be missing: `{"state_ids", "state_digest"?}`, the sum of
//!   `hookwell_processor_state_ids` over processors that were started anew, and that of the digests
//!   that they log: for each id the first eight bytes of the BLAKE3 hash of its key, status,
//!   generation and next attempt as its state record has them, in wrapping addition.
//!
//! Written by this program:
//!
//! - `seen.jsonl`, may be missing: `{"topic", "partition", "offset", "digest", "key"?}`, in the order
//!   in which `watch` saw the records. `key` only on the state topic.
//! - `topics/TOPIC.jsonl`: [`record::Line`], every committed record; values on the state topic only.
//! - `offsets.json`: a list of [`evidence::Ends`].
//!
//! # The seven checks
//!
//! [`verdict::Breach`] lists all that can be wrong, by check. Nothing is asked of evidence that is not
//! there: a check that looked at nothing says so.

mod checks;
pub mod cli;
mod cluster;
pub mod collect;
pub mod evidence;
pub mod folder;
pub mod names;
pub mod record;
pub mod state;
pub mod verdict;
pub mod watch;
mod world;

use evidence::Evidence;
use verdict::Verdict;
use world::World;

/// Judges. Pure: no Kafka, no files, no clock.
pub fn judge(evidence: &Evidence) -> Verdict {
    let world = World::new(evidence);
    Verdict::of(checks::ALL.iter().map(|check| check(&world)).collect())
}
