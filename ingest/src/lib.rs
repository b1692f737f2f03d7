//! Receives webhooks: HTTP bytes become a verified event, and an acknowledged record on Kafka,
//! before the sender hears 200. Modules in the order in which a request meets them.

pub mod address;
pub mod body;
pub mod connection;
pub mod keyring;
pub mod receive;

pub mod source;
pub mod verify;

pub mod accept;
pub mod publish;
pub mod quarantine;
pub mod rejection;
pub mod respond;
pub mod spool;

pub mod advice;
pub mod cli;
pub mod hints;
pub mod list_presets;
pub mod metrics;
pub mod reload;
pub mod run;
pub mod send_test;
pub mod verify_file;
