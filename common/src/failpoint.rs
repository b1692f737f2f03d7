//! Named points at which a test has the process killed, exactly there.
//!
//! Compiled in only with the feature `failpoints` in a debug build: in a release build each call
//! is nothing. `FAILPOINTS=name=return` in the environment kills the process with SIGKILL at the
//! first passage of `name`, `name=20*off->return` at the twenty-first, `name=return(500)` 500 µs
//! after it, while the process goes on; the `fail` crate reads it. `FAILPOINTS=guard=return` lifts
//! one of [`GUARDS`], so that a test can see that it is missed.

/// Every name, so that a test cannot wait for one that does not exist.
pub const ALL: &[&str] = &[
    "ingest-verified",
    "ingest-acknowledged",
    "spool-written",
    "spool-synced",
    "spool-drained",
    "lane-polled",
    "handler-returned",
    "transaction-record-sent",
    "transaction-produced",
    "transaction-offsets-sent",
    "transaction-committing",
    "transaction-committed",
    "restore-begun",
    "restore-midway",
    "restore-ended",
    "revoke-begun",
    "revoke-drained",
    "replay-published",
    "replay-acknowledged",
    "release-event-sent",
    "release-committing",
    "release-committed",
];

/// Guards that a test can lift. Most are lifted in the model of the processor alone, and this is
/// for those that stand in one line of the shell.
pub const GUARDS: &[&str] = &["restore-to-the-true-end", "retries-are-read"];

/// Whether this is a build for tests, which tells more of itself than others need to know.
pub const IS_FOR_TESTS: bool = cfg!(all(feature = "failpoints", debug_assertions));

/// Whether the environment has `guard` lifted; never in a release build.
#[inline]
pub fn is_lifted(guard: &'static str) -> bool {
    #[cfg(all(feature = "failpoints", debug_assertions))]
    let is_lifted = armed::is_lifted(guard);
    #[cfg(not(all(feature = "failpoints", debug_assertions)))]
    let is_lifted = guard.is_empty();
    is_lifted
}

/// Dies here if the environment says so.
#[inline]
pub fn hit(name: &'static str) {
    #[cfg(all(feature = "failpoints", debug_assertions))]
    armed::hit(name);
    #[cfg(not(all(feature = "failpoints", debug_assertions)))]
    let _ = name;
}

/// Reads the environment; to be held for the life of the process.
#[must_use = "dropping it disarms all points"]
#[derive(Debug)]
pub struct Armed {
    #[cfg(all(feature = "failpoints", debug_assertions))]
    _scenario: armed::Scenario,
}

/// Arms the points that the environment names. Nothing in a release build.
pub fn arm() -> Armed {
    Armed {
        #[cfg(all(feature = "failpoints", debug_assertions))]
        _scenario: armed::Scenario::from_environment(),
    }
}

#[cfg(all(feature = "failpoints", debug_assertions))]
mod armed {
    use std::fmt;

    pub(super) struct Scenario(
        #[expect(dead_code, reason = "disarms when dropped")] fail::FailScenario<'static>,
    );

    impl Scenario {
        pub(super) fn from_environment() -> Self {
            Self(fail::FailScenario::setup())
        }
    }

    impl fmt::Debug for Scenario {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Scenario")
        }
    }

    pub(super) fn hit(name: &'static str) {
        debug_assert!(super::ALL.contains(&name), "{name} is not in failpoint::ALL");
        match fail::eval(name, |micros| micros.and_then(|text| text.parse().ok())) {
            None => {}
            Some(None) => die(name),
            Some(Some(micros)) => {
                let later = move || {
                    std::thread::sleep(std::time::Duration::from_micros(micros));
                    die(name);
                };
                crate::lifecycle::spawn_thread("failpoint", later)
                    .expect("a test machine can start a thread");
            }
        }
    }

    pub(super) fn is_lifted(guard: &'static str) -> bool {
        debug_assert!(super::GUARDS.contains(&guard), "{guard} is not in failpoint::GUARDS");
        fail::eval(guard, |_| ()).is_some()
    }

    fn die(name: &'static str) {
        tracing::warn!(failpoint = name, "dying here, as the environment asked");
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::KILL).ok();
        // The signal is on its way; nothing may happen between here and it.
        loop {
            std::thread::park();
        }
    }
}
