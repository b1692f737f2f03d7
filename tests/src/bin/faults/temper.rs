//! How the handler behaves: as each event's fate says, unless it is in a mood.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookwell_tests::handler::{Call, Reply};

use crate::schedule::Mood;

/// Shared between whoever changes it and the handler.
#[derive(Clone, Debug, Default)]
pub(crate) struct Temper(Arc<Mutex<Option<Mood>>>);

impl Temper {
    /// From now on the handler is in `mood`; in none it does as it should.
    pub(crate) fn set(&self, mood: Option<Mood>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// How `call` is answered.
    pub(crate) fn answer(&self, call: &Call) -> Reply {
        let mood = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match mood {
            // A status of 0: no answer at all.
            Some(Mood::Hangs) => Reply::from(0),
            Some(Mood::Fails) => Reply::from(500),
            Some(Mood::IsBusy) => Reply { retry_after: Some("1".to_owned()), ..Reply::from(429) },
            Some(Mood::IsSlow) => Reply { after: Duration::from_millis(500), ..by_fate(call) },
            None => Reply { after: Duration::from_millis(2), ..by_fate(call) },
        }
    }
}

/// Refuses one event in a hundred for good, half of these when they are replayed as well, and fails
/// one call in ten.
fn by_fate(call: &Call) -> Reply {
    let hash = |salt: &str| {
        let digest = blake3::hash([call.event(), salt].concat().as_bytes());
        u32::from(digest.as_bytes()[0]) * 256 + u32::from(digest.as_bytes()[1])
    };
    let generation = call.header("hookwell-generation");
    let is_refused = hash("") % if generation == "0" { 100 } else { 200 } == 0;
    let fails_now = hash(&[generation, "/", call.attempt()].concat()) % 10 == 0;
    Reply::from(if is_refused {
        422
    } else if fails_now {
        500
    } else {
        200
    })
}
