//! What the system tests and the demonstration stand on: a real Kafka, the two programs as child
//! processes, senders, a handler, and the judgement of an auditor that shares no code with what it judges.
//!
//! Nothing depends on this crate.

pub mod audit;
pub mod clock;
pub mod detour;
pub mod docker;
pub mod handler;
pub mod kafka;
pub mod key_server;
pub mod ledger;
pub mod load;
pub mod overload;
pub mod program;
pub mod proxy;
pub mod raw_handler;
pub mod reader;
pub mod recovery;
pub mod sender;
pub mod socket;
pub mod stage;
pub mod wait;
