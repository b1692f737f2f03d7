//! Delivers accepted webhooks: record, dedupe, handler, outcome, settlement, commit.
//!
//! The program `processor` is [`Processor::new`] and nothing else; a program with handlers of
//! one's own is that and a line for each of them.
//!
//! Pure, and in the order in which a record meets them: [`delivery`], [`route`], [`state`],
//! [`outcome`], [`settle`], [`retry`], [`dead_letter`], [`flood_guard`], [`pace`], and the heart of
//! a lane, [`lane::window`] with [`lane::ledger`]. Around them is the shell.

pub mod replay;

mod poll;

mod feed;
mod follow;

pub mod delivery;
pub mod lane;
pub mod route;
pub mod state;

pub mod handle;

pub mod dead_letter;
pub mod flood_guard;
pub mod outcome;
pub mod pace;
pub mod retry;
pub mod settle;

mod board;
pub mod cli;
pub mod metrics;
mod reading;
mod report;
mod run;
mod setup;
mod shared;
mod status;

pub use cli::Processor;
pub use handle::{Handler, Request};
pub use outcome::HandlerError;
