//! The auditor is judged: a run in which every promise was kept, and for every way in which one can
//! be broken a violation, planted, that it must find; it and nothing else.

// For the rules of lints all of this is test code.
#[cfg(test)]
mod planted {
    pub(crate) mod violations;
    pub(crate) mod world;
}

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use hookwell_auditor::record::Line;
use hookwell_auditor::verdict::{Breach, Verdict};
use planted::violations::PLANTED;
use planted::world::{Dump, FINE};

fn breaches(verdict: &Verdict) -> BTreeSet<Breach> {
    verdict.checks.iter().flat_map(|check| check.breaches.keys().copied()).collect()
}

#[test]
fn a_run_in_which_every_promise_was_kept_is_found_to_be_so() {
    let verdict = Dump::clean().collect().judge();
    assert!(verdict.kept, "{verdict}");
    assert!(verdict.checks.iter().all(|check| 0 < check.looked_at), "{verdict}");
    let counts = [
        ("acknowledged", 11),
        ("events", 11),
        ("done", 11),
        ("dead", 2),
        ("dead letters", 3),
        ("records forwarded", 2),
        ("extra within a fault", 3),
        ("repeated by the flood guard", 2),
        ("extra outside every fault", 0),
        ("retries", 4),
    ];
    for (name, count) in counts {
        assert_eq!(verdict.counted(name), count, "{name}");
    }
}

#[test]
fn for_every_way_to_break_a_promise_a_violation_is_planted() {
    let planted: BTreeSet<_> = PLANTED.iter().flat_map(|(_, expected, ..)| *expected).copied().collect();
    let all: BTreeSet<_> = Breach::ALL.iter().copied().collect();
    assert_eq!(planted, all);
}

#[test]
fn each_violation_is_found_by_the_check_that_it_is_for_and_by_no_other() {
    for (name, expected, plant, plant_after) in PLANTED {
        let mut dump = Dump::clean();
        plant(&mut dump);
        dump.collect();
        plant_after(&mut dump);
        let verdict = dump.judge();
        assert_eq!(breaches(&verdict), expected.iter().copied().collect(), "{name}: {verdict}");
        for violation in verdict.violations() {
            assert_eq!(violation.check, violation.breach.check());
            assert!(
                violation.id.is_some() || violation.place.is_some() || violation.check == 5,
                "{violation}"
            );
        }
    }
}

#[test]
fn nothing_is_asked_of_ledgers_that_nobody_kept() {
    let run = Dump::clean().run;
    let verdict = hookwell_auditor::judge(&hookwell_auditor::evidence::Evidence::of(run));
    assert!(verdict.kept);
    assert_eq!(verdict.to_string().matches("looked at nothing").count(), 7, "{verdict}");
}

#[cfg(test)]
fn judge(folder: &Path, more: &[&str]) -> Output {
    let mut auditor = Command::new(env!("CARGO_BIN_EXE_auditor"));
    auditor.arg("judge").arg(folder).args(more).output().unwrap()
}

#[test]
fn the_program_reads_a_folder_and_its_exit_status_is_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let mut dump = Dump::clean();
    dump.collect().write(folder.path());
    let kept = judge(folder.path(), &[]);
    assert_eq!(kept.status.code(), Some(0), "{kept:?}");
    assert!(String::from_utf8(kept.stdout).unwrap().ends_with("every promise was kept\n"));

    dump.calls.retain(|call| *call.id != *FINE.1);
    dump.write(folder.path());
    let broken = judge(folder.path(), &["--output", "json"]);
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
    let verdict: serde_json::Value = serde_json::from_slice(&broken.stdout).unwrap();
    let first = &verdict["checks"][2]["violations"][0];
    assert_eq!((&first["breach"], &first["id"]), (&"done-uncalled".into(), &FINE.1.into()), "{verdict}");
}

#[test]
fn what_cannot_be_read_is_neither_kept_nor_broken() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(judge(folder.path(), &[]).status.code(), Some(2));
    Dump::clean().collect().write(folder.path());
    assert_eq!(judge(folder.path(), &["--output", "loud"]).status.code(), Some(2));
    for file in ["run.json", "answers.jsonl", "calls.jsonl", "offsets.json", "topics/p.events.jsonl"] {
        let path = folder.path().join(file);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&text[..], b"{"].concat()).unwrap();
        let torn = judge(folder.path(), &[]);
        assert_eq!(torn.status.code(), Some(2), "{file}: {torn:?}");
        assert!(String::from_utf8(torn.stderr).unwrap().contains(file), "it names {file}");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(judge(folder.path(), &[]).status.code(), Some(2), "without {file}");
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(judge(folder.path(), &[]).status.code(), Some(0));
}

#[test]
fn of_many_violations_the_first_are_told_and_the_rest_counted() {
    let mut dump = Dump::clean();
    dump.collect();
    dump.calls.iter_mut().for_each(|call| call.key.push('0'));
    dump.seen.iter_mut().for_each(|seen| seen.digest.0[0] ^= 1);
    let text = dump.judge().to_string();
    assert_eq!(text.matches("\ncheck ").count(), 20, "{text}");
    let all = dump.calls.len() + dump.seen.len();
    assert!(text.contains(&format!("and {} more", all - 20)), "{text}");
}

/// No record can be taken away or be there twice, but for those of which the promises say so.
#[test]
fn a_record_that_is_taken_away_or_doubled_is_missed() {
    let clean = Dump::clean();
    for (topic, lines) in &clean.topics {
        for (index, doubled) in (0..lines.len()).flat_map(|index| [(index, false), (index, true)]) {
            let mut dump = clean.clone();
            let lines = dump.topics.get_mut(topic).unwrap();
            let is_harmless = is_harmless(topic, lines, index, doubled);
            if doubled {
                let offset = lines.iter().map(|line| line.offset).max().unwrap() + 1;
                lines.push(Line { offset, ..lines[index].clone() });
            } else {
                lines.remove(index);
            }
            let verdict = dump.collect().judge();
            assert_eq!(verdict.kept, is_harmless, "{topic} {index}, doubled {doubled}: {verdict}");
        }
    }
}

/// A copy of an event is what state is there for. Of the states of a delivery compaction may leave
/// the last one only, and what has a dead letter may be written again; birth and end records are of
/// none.
fn is_harmless(topic: &str, lines: &[Line], index: usize, doubled: bool) -> bool {
    let line = &lines[index];
    let is_mine = |other: &&Line| other.key == line.key;
    let is_named = |name: &str| line.headers.iter().any(|(known, _)| known == name);
    let is_accepted = is_named("ce_id") && !is_named("hookwell-generation");
    // Version, status, generation.
    let decided = |line: &Line| line.value.as_deref().unwrap_or_default()[..8].to_owned();
    match topic {
        "p.events" if doubled => is_named("ce_id"),
        "p.events" => is_accepted && lines[..index].iter().any(|other| is_mine(&other)),
        "p.state" if line.key.len() != 32 => true,
        _ if line.key == hex::encode("hookwell-end") => true,
        "p.state" if doubled => {
            let has_dead_letter = 44 < line.value.as_deref().unwrap_or_default().len();
            has_dead_letter && !lines[index + 1..].iter().any(|other| is_mine(&other))
        }
        "p.state" => {
            let before = lines[..index].iter().rfind(is_mine);
            lines[index + 1..].iter().any(|other| is_mine(&other))
                || before.is_some_and(|before| decided(before) == decided(line))
        }
        _ => false,
    }
}
