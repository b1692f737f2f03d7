//! Whatever may come from outside, thrown at the code that reads it: bytes in, and neither a panic nor
//! memory without bound. What can be read is written again, and has to be the same.
//!
//! `make fuzz` has libFuzzer choose the bytes; `cargo test -p hookwell-fuzz` tries the small cases of
//! `corpus`, and changes them at random.

mod addresses;
mod configuration;
pub mod input;
pub mod keys;
mod quarantine;
mod records;
pub mod requests;
mod states;

/// Code that reads what others wrote.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it reads; its cases lie in the folder of this name.
    pub name: &'static str,
    /// Reads `data`; panics where a promise is broken.
    pub read: fn(&[u8]),
    /// What is well formed, to begin with.
    pub cases: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "addresses", read: addresses::read, cases: addresses::cases },
    Target { name: "configurations", read: configuration::read, cases: configuration::cases },
    Target { name: "keys", read: keys::read, cases: keys::cases },
    Target { name: "presets", read: requests::read_as_preset, cases: requests::cases_of_presets },
    Target { name: "quarantine", read: quarantine::read, cases: quarantine::cases },
    Target { name: "recipes", read: requests::read_as_recipe, cases: requests::cases_of_recipes },
    Target { name: "records", read: records::read, cases: records::cases },
    Target { name: "states", read: states::read, cases: states::cases },
];

/// The one called `name`.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
