//! The explainer: what each step of a verification found, in words, and never a secret or a
//! computed signature.

use serde::Serialize;

use crate::rejection::Rejection;

/// A step of a verification, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The body is there as a whole, and no longer than allowed.
    Body,
    /// The method is one that the source uses.
    Method,
    /// The sender asks whether the address is its receiver's.
    Handshake,
    /// The header with the signature is there.
    SignatureHeader,
    /// The header holds signatures as the sender writes them.
    SignatureForm,
    /// A signature fits.
    Signature,
    /// The time of signing lies within its window.
    Timestamp,
    /// The event id.
    EventId,
    /// The event type.
    EventType,
}

/// What one step found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The step.
    pub step: Step,
    /// Whether it was passed.
    pub passed: bool,
    /// In words.
    pub detail: String,
}

/// Somebody who may want to know. Words are only made for those who do.
pub trait Trace {
    /// Takes one finding.
    fn find(&mut self, step: Step, passed: bool, words: impl FnOnce() -> String);

    /// A step that was passed.
    fn passed(&mut self, step: Step, words: impl FnOnce() -> String) {
        self.find(step, true, words);
    }

    /// A step that was not passed; gives the rejection back.
    fn failed(&mut self, step: Step, rejection: Rejection, words: impl FnOnce() -> String) -> Rejection {
        self.find(step, false, words);
        rejection
    }
}

/// Nobody wants to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Trace for Silent {
    fn find(&mut self, _: Step, _: bool, _: impl FnOnce() -> String) {}
}

/// Keeps everything.
#[derive(Clone, Debug, Default)]
pub struct Explanation(pub Vec<Finding>);

impl Trace for Explanation {
    fn find(&mut self, step: Step, passed: bool, words: impl FnOnce() -> String) {
        self.0.push(Finding { step, passed, detail: words() });
    }
}
