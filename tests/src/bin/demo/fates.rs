//! What became of each sample, from what lies on Kafka and from the handler's own book.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use hookwell_tests::audit::{States, Status};
use hookwell_tests::handler::HttpHandler;
use hookwell_tests::program::metric_at;
use hookwell_tests::reader::{Reader, Record};
use hookwell_tests::wait;

use crate::samples::Sample;

/// The destination of the demonstration.
const DESTINATION: &str = "orders";

/// Waits until each accepted sample has its fate, and tells all of them. `processor` is the address
/// of its metrics.
pub(crate) fn table(
    reader: &Reader,
    prefix: &str,
    (handler, processor): (&HttpHandler, &str),
    samples: &[Sample],
    told_to_stop: &AtomicBool,
) -> Result<Table> {
    let accepted: Vec<_> = samples.iter().filter(|sample| sample.status == 200).collect();
    let copies = accepted.iter().filter(|sample| sample.is_copy).count();
    let states = wait::until("each sample's fate", || {
        if told_to_stop.load(Ordering::Relaxed) {
            return Ok(Some(None));
        }
        let states = States::read(reader, prefix)?;
        let is_settled = accepted
            .iter()
            .all(|sample| !matches!(status(&states, sample), None | Some(Status::Retrying(_))));
        let dropped = metric_at(processor, "hookwell_processor_duplicates_total", &[])?;
        Ok((is_settled && copies as f64 <= dropped).then_some(Some(states)))
    })?;
    let Some(states) = states else { bail!("told to stop before the samples were settled") };
    let dead_letters = reader.read(&format!("{prefix}.dlq"))?;

    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).set_header([
        "Sender",
        "Webhook",
        "Answer",
        "Handler calls",
        "What became of it",
    ]);
    for sample in samples {
        let calls = handler.calls_for(&sample.signed.id);
        let answers: Vec<_> = calls.iter().map(|call| call.status.to_string()).collect();
        table.add_row([
            sample.signed.source.clone(),
            sample.what.to_owned(),
            sample.status.to_string(),
            if sample.is_copy { "none of its own".to_owned() } else { answers.join(", ") },
            fate(&states, &dead_letters, sample, calls.len()),
        ]);
    }
    Ok(table)
}

fn status(states: &States, sample: &Sample) -> Option<Status> {
    states.status(&sample.signed.source, &sample.signed.id, DESTINATION)
}

fn fate(states: &States, dead_letters: &[Record], sample: &Sample, calls: usize) -> String {
    if sample.status != 200 {
        return "refused; nothing reached Kafka".to_owned();
    }
    match status(states, sample) {
        Some(Status::Done) if sample.is_copy && calls == 1 => "recognised as a copy, and dropped".to_owned(),
        Some(Status::Done) if sample.is_copy => "handled again, which should not be".to_owned(),
        Some(Status::Done) if calls == 1 => "delivered".to_owned(),
        Some(Status::Done) => format!("delivered at attempt {calls}"),
        Some(Status::Dead) => {
            let event = (sample.signed.source.clone(), sample.signed.id.clone());
            let letter = dead_letters.iter().find(|letter| letter.event() == event);
            let reason = letter.map(|letter| letter.header("hookwell-error-class")).unwrap_or_default();
            format!("a dead letter: {reason}")
        }
        Some(Status::Retrying(_)) | None => "not settled".to_owned(),
    }
}
