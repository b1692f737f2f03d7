//! Small cases for every target, well formed and changed, without libFuzzer.

use std::fs;
use std::path::Path;

use anyhow::Result;
use hookwell_fuzz::keys;
use hookwell_fuzz::requests::{
    RECIPES, cases_of_recipes, genuine_of_presets, is_accepted_by_preset, is_accepted_by_recipe, presets,
};
use hookwell_fuzz::{TARGETS, Target};
use hookwell_ingest::verify::preset;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// Changes to the cases of one target: a few seconds, and always the same.
const CHANGES: usize = 1_000;

/// Well-formed cases, and those in which libFuzzer found something once.
fn cases(target: Target) -> Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let found = fs::read_dir(folder).into_iter().flatten().map(|file| Ok(fs::read(file?.path())?));
    (target.cases)().into_iter().map(Ok).chain(found).collect()
}

#[test]
fn every_case_is_read_and_so_is_whatever_becomes_of_it_when_bytes_change() {
    for target in TARGETS {
        let cases = cases(*target).unwrap();
        assert!(!cases.is_empty(), "{}", target.name);
        cases.iter().for_each(|case| (target.read)(case));
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for _ in 0..CHANGES {
            let case = cases.choose(&mut random).unwrap();
            let other = cases.choose(&mut random).unwrap();
            (target.read)(&changed(case, other, &mut random));
        }
    }
}

/// `case` with bytes flipped, cut out, repeated, or replaced by some of `other`.
fn changed(case: &[u8], other: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = case.to_vec();
    for _ in 0..random.random_range(1..4) {
        let end = random.random_range(0..=bytes.len());
        let start = end - random.random_range(0..=end.min(40));
        match random.random_range(0..5) {
            0 => bytes.iter_mut().skip(start).take(1).for_each(|byte| *byte = random.random()),
            1 => drop(bytes.drain(start..end)),
            2 => bytes.truncate(end),
            3 => {
                let piece = bytes[start..end].to_vec();
                bytes.splice(start..start, piece);
            }
            _ => {
                let from = random.random_range(0..=other.len());
                let piece = &other[from..(from + end - start).min(other.len())];
                bytes.splice(start..end, piece.iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn what_a_known_sender_would_send_is_accepted_in_the_form_in_which_it_is_fuzzed() {
    assert_eq!(presets().len(), preset::all().len(), "some cannot be configured");
    let genuine = genuine_of_presets();
    assert_eq!(genuine.len(), preset::all().len());
    for (name, case) in genuine {
        assert!(is_accepted_by_preset(&case), "{name}");
    }
}

#[test]
fn what_a_recipe_asks_for_is_accepted_in_the_form_in_which_it_is_fuzzed() {
    let cases = cases_of_recipes();
    assert_eq!(cases.len(), RECIPES.len());
    for (words, case) in RECIPES.iter().zip(cases) {
        assert!(is_accepted_by_recipe(&case), "{words}");
    }
}

/// Each sender that publishes keys does so in one of the two forms.
#[test]
fn what_a_sender_publishes_is_read_in_the_form_in_which_it_is_fuzzed() {
    let cases = keys::cases();
    assert!(!cases.is_empty());
    for forms in cases.chunks(2) {
        assert_eq!(forms.iter().filter(|case| keys::is_read(case)).count(), 1);
    }
}
