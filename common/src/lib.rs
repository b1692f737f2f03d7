//! What Hookwell's two programs must agree on, and nothing else.
//!
//! [`event`], [`record`], [`headers`], [`identity`], [`topics`], [`rate`], [`time`] and
//! [`watch`] are pure. The shell
//! that both share is [`kafka`], [`telemetry`] and [`lifecycle`].

pub mod config;
pub mod event;
pub mod failpoint;
pub mod headers;
pub mod identity;
pub mod kafka;
pub mod lifecycle;
pub mod rate;
pub mod record;
pub mod secret;
pub mod telemetry;
pub mod time;
pub mod topics;
pub mod watch;
