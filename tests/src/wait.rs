//! Waiting for a condition, never for a time.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use hookwell_common::lifecycle::Clock;

/// How long a condition may take to come true on a slow machine before a test gives up. No test
/// passes or fails by how long it took.
pub const PATIENCE: Duration = Duration::from_secs(300);

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Waits until `look` finds something. An error of `look` is nothing found yet; the last one is
/// told when patience ends.
pub fn until<T>(what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    until_within(PATIENCE, what, look)
}

/// [`until`], with another patience.
pub fn until_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let clock = Clock::start();
    loop {
        let last = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if patience < clock.mono() {
            bail!("waited {} s in vain for {what}{last}", patience.as_secs());
        }
        pause(LOOK_AGAIN);
    }
}

/// Lets time pass where time itself is the condition: a process that has to stay frozen for
/// longer than the group waits for it, and load that is paced.
pub fn pause(time: Duration) {
    thread::sleep(time);
}
