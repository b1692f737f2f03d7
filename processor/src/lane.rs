//! One owned partition, from take-over to hand-back.

pub(crate) mod host;
pub(crate) mod mail;
pub(crate) mod mend;
pub(crate) mod proof;
pub(crate) mod reports;
pub(crate) mod take_over;

pub(crate) mod active;
pub(crate) mod transaction;

pub mod batch;
pub mod ledger;
pub mod output;
pub mod recall;
pub mod waiting;
pub mod window;
