//! Which published keys are known, for how long, and whether one may be asked for now.
//!
//! A forger names keys as it likes. So addresses are asked for one at a time each and no more than a
//! few in a minute, what failed is not asked for again at once, and what is remembered is bounded: a
//! name that leads nowhere never takes the place of a key that is known.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use hookwell_common::time::Now;

use crate::verify::published::{Document, KeyName, PublishedKey};

/// The most addresses that are remembered.
const MAX_ENTRIES: usize = 256;

/// The most questions to one sender in a minute.
pub const MAX_A_MINUTE: usize = 30;

const MINUTE: Duration = Duration::from_secs(60);

/// For how long what failed is not asked for again.
pub const BACK_OFF: Duration = Duration::from_secs(5);

/// For how long a set of keys is not asked for again because a token names one that is not in it.
pub const BETWEEN_READS: Duration = Duration::from_secs(15);

/// Bounds on what a host says of how long its answer holds, and what counts where it says nothing.
const SHORTEST: Duration = Duration::from_secs(5 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const USUAL: Duration = Duration::from_secs(3600);

/// How long a question may take before it counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(30);

/// What is known of the keys that senders publish.
#[derive(Debug, Default)]
pub struct KeyCache {
    entries: HashMap<String, Entry>,
    /// When each sender was asked within the last minute.
    asked: HashMap<String, VecDeque<Duration>>,
}

#[derive(Debug, Default)]
struct Entry {
    held: Option<Held>,
    /// When it was asked for, while there is no answer.
    asking_since: Option<Duration>,
    /// Until when it is not asked for again.
    failed_until: Option<Duration>,
    /// When it was last wanted.
    wanted_at: Duration,
}

#[derive(Debug)]
struct Held {
    document: Document,
    asked_at: Duration,
    stale_at: Duration,
}

/// What is to be done about a key.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is known.
    Known(PublishedKey),
    /// The sender has no such key: its address was read after somebody wanted it.
    Absent,
    /// Whoever hears this reads the address, and tells what came of it.
    Ask,
    /// Somebody else reads it.
    Wait,
    /// It is not to be had now.
    Unavailable,
}

impl KeyCache {
    /// The key called `name`, if it is known at `now`.
    pub fn known(&self, name: &KeyName, now: Now) -> Option<&PublishedKey> {
        self.entries.get(name.address())?.current(now)?.document.key(name.id())
    }

    /// What to do for somebody who has wanted `name` of `sender` since `since`.
    pub fn answer(&mut self, sender: &str, name: &KeyName, since: Duration, now: Now) -> Answer {
        if let Some(entry) = self.entries.get_mut(name.address()) {
            entry.wanted_at = now.mono;
            if let Some(held) = entry.current(now) {
                match held.document.key(name.id()) {
                    Some(key) => return Answer::Known(key.clone()),
                    None if since <= held.asked_at => return Answer::Absent,
                    None if now.mono < held.asked_at + BETWEEN_READS && !entry.is_asked_for(now) => {
                        return Answer::Unavailable;
                    }
                    None => {}
                }
            }
            if entry.is_asked_for(now) {
                return Answer::Wait;
            }
            if entry.failed_until.is_some_and(|until| now.mono < until) {
                return Answer::Unavailable;
            }
        }
        // What is known is renewed whatever strangers ask for: there is little of it, and one question
        // at a time for each.
        let is_renewal = self.entries.get(name.address()).is_some_and(|entry| entry.held.is_some());
        if !is_renewal && !self.may_ask(sender, now.mono) || !self.has_room_for(name.address()) {
            return Answer::Unavailable;
        }
        let entry = self.entries.entry(name.address().to_owned()).or_default();
        entry.wanted_at = now.mono;
        entry.asking_since = Some(now.mono);
        Answer::Ask
    }

    /// Takes what stands at `address`, which holds for `max_age` where its host says so. Gives back
    /// whether it can be used: a certificate may be over.
    pub fn learn(&mut self, address: &str, document: Document, max_age: Option<Duration>, now: Now) -> bool {
        if !document.holds(now.wall) {
            self.fail(address, now);
            return false;
        }
        let entry = self.entries.entry(address.to_owned()).or_default();
        let asked_at = entry.asking_since.take().unwrap_or(now.mono);
        let stale_at = now.mono + max_age.unwrap_or(USUAL).clamp(SHORTEST, LONGEST);
        entry.held = Some(Held { document, asked_at, stale_at });
        entry.failed_until = None;
        true
    }

    /// Takes that nothing could be read at `address`. What was read before still counts for as long
    /// as it holds.
    pub fn fail(&mut self, address: &str, now: Now) {
        let entry = self.entries.entry(address.to_owned()).or_default();
        entry.asking_since = None;
        entry.failed_until = Some(now.mono + BACK_OFF);
    }

    /// Makes room for one more where there is none: first of those at which nothing was found, then of
    /// those that nobody has wanted for longest.
    fn has_room_for(&mut self, address: &str) -> bool {
        if self.entries.len() < MAX_ENTRIES || self.entries.contains_key(address) {
            return true;
        }
        let idle = self.entries.iter().filter(|(_, entry)| entry.asking_since.is_none());
        let least = idle.min_by_key(|(_, entry)| (entry.held.is_some(), entry.wanted_at));
        let Some(least) = least.map(|(address, _)| address.clone()) else { return false };
        self.entries.remove(&least);
        true
    }

    /// Whether `sender` may be asked something once more in this minute; counts it.
    pub fn may_ask(&mut self, sender: &str, now: Duration) -> bool {
        let asked = self.asked.entry(sender.to_owned()).or_default();
        while asked.front().is_some_and(|at| *at + MINUTE <= now) {
            asked.pop_front();
        }
        let may = asked.len() < MAX_A_MINUTE;
        if may {
            asked.push_back(now);
        }
        may
    }
}

impl Entry {
    fn current(&self, now: Now) -> Option<&Held> {
        self.held.as_ref().filter(|held| now.mono < held.stale_at && held.document.holds(now.wall))
    }

    fn is_asked_for(&self, now: Now) -> bool {
        self.asking_since.is_some_and(|since| now.mono < since + LOST_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::public_key::Validity;
    use hookwell_common::time::Timestamp;

    const ADDRESS: &str = "https://keys.example.com/set";

    fn at(seconds: u64) -> Now {
        Now { wall: Timestamp::from_seconds(1_795_000_000 + seconds), mono: Duration::from_secs(seconds) }
    }

    /// What somebody hears who wants `id` at `seconds`, and since then.
    fn wanted(cache: &mut KeyCache, address: &str, id: Option<&str>, seconds: u64) -> &'static str {
        let now = at(seconds);
        word(cache.answer("sender", &KeyName::of(address, id), now.mono, now))
    }

    fn word(answer: Answer) -> &'static str {
        match answer {
            Answer::Known(_) => "known",
            Answer::Absent => "absent",
            Answer::Ask => "ask",
            Answer::Wait => "wait",
            Answer::Unavailable => "unavailable",
        }
    }

    fn learn(cache: &mut KeyCache, ids: &[Option<&str>], max_age: Option<u64>, seconds: u64) {
        let max_age = max_age.map(Duration::from_secs);
        assert!(cache.learn(ADDRESS, Document::of(ids, None), max_age, at(seconds)));
    }

    #[test]
    fn one_asks_and_all_others_wait_and_then_all_know() {
        let mut cache = KeyCache::default();
        assert_eq!(wanted(&mut cache, ADDRESS, Some("a"), 0), "ask");
        assert_eq!(wanted(&mut cache, ADDRESS, Some("a"), 1), "wait");
        assert_eq!(wanted(&mut cache, ADDRESS, Some("b"), 1), "wait");
        learn(&mut cache, &[Some("a"), Some("b")], None, 2);
        assert_eq!(wanted(&mut cache, ADDRESS, Some("a"), 2), "known");
        assert_eq!(wanted(&mut cache, ADDRESS, Some("b"), 3000), "known");
        assert!(cache.known(&KeyName::of(ADDRESS, Some("a")), at(3)).is_some());
    }

    #[test]
    fn whoever_asked_and_never_told_is_not_waited_for_without_end() {
        let mut cache = KeyCache::default();
        assert_eq!(wanted(&mut cache, ADDRESS, None, 0), "ask");
        assert_eq!(wanted(&mut cache, ADDRESS, None, 29), "wait");
        assert_eq!(wanted(&mut cache, ADDRESS, None, 30), "ask");
    }

    #[test]
    fn what_a_host_says_of_how_long_its_answer_holds_is_believed_within_bounds() {
        for (max_age, holds_for) in
            [(None, 3600), (Some(0), 300), (Some(7200), 7200), (Some(1 << 40), 86_400)]
        {
            let mut cache = KeyCache::default();
            learn(&mut cache, &[None], max_age, 0);
            assert_eq!(wanted(&mut cache, ADDRESS, None, holds_for - 1), "known", "{max_age:?}");
            assert_eq!(wanted(&mut cache, ADDRESS, None, holds_for), "ask", "{max_age:?}");
        }
    }

    #[test]
    fn a_certificate_does_not_count_outside_its_time_whatever_its_host_says() {
        let validity = |from, until| Some(Validity { from: at(from).wall, until: at(until).wall });
        let mut cache = KeyCache::default();
        assert!(!cache.learn(ADDRESS, Document::of(&[None], validity(10, 90)), None, at(0)), "not yet");
        assert_eq!(wanted(&mut cache, ADDRESS, None, 1), "unavailable");
        assert!(cache.learn(ADDRESS, Document::of(&[None], validity(10, 90)), None, at(10)));
        assert_eq!(wanted(&mut cache, ADDRESS, None, 89), "known");
        assert_eq!(wanted(&mut cache, ADDRESS, None, 90), "ask");
        assert!(!cache.learn(ADDRESS, Document::of(&[None], validity(10, 90)), None, at(91)), "no more");
        assert_eq!(wanted(&mut cache, ADDRESS, None, 92), "unavailable");
    }

    #[test]
    fn what_failed_is_asked_for_again_after_a_while_and_what_was_known_still_counts() {
        let mut cache = KeyCache::default();
        assert_eq!(wanted(&mut cache, ADDRESS, Some("a"), 0), "ask");
        cache.fail(ADDRESS, at(1));
        assert_eq!(wanted(&mut cache, ADDRESS, Some("a"), 5), "unavailable");
        assert_eq!(wanted(&mut cache, ADDRESS, Some("a"), 6), "ask");
        learn(&mut cache, &[Some("a")], None, 7);
        assert_eq!(wanted(&mut cache, ADDRESS, Some("b"), 60), "ask");
        cache.fail(ADDRESS, at(61));
        assert_eq!(wanted(&mut cache, ADDRESS, Some("a"), 62), "known");
        assert_eq!(wanted(&mut cache, ADDRESS, Some("b"), 62), "unavailable");
    }

    #[test]
    fn a_key_that_is_new_is_asked_for_once_and_one_that_is_not_there_is_absent() {
        let mut cache = KeyCache::default();
        learn(&mut cache, &[Some("a")], None, 0);
        let name = KeyName::of(ADDRESS, Some("b"));
        assert_eq!(word(cache.answer("sender", &name, at(60).mono, at(60))), "ask");
        learn(&mut cache, &[Some("a"), Some("b")], None, 61);
        assert_eq!(word(cache.answer("sender", &name, at(60).mono, at(61))), "known");
        let forged = KeyName::of(ADDRESS, Some("c"));
        assert_eq!(word(cache.answer("sender", &forged, at(59).mono, at(61))), "absent");
        // What was read before this one came says nothing of it, and is not read again at once.
        assert_eq!(word(cache.answer("sender", &forged, at(62).mono, at(62))), "unavailable");
        assert_eq!(word(cache.answer("sender", &forged, at(76).mono, at(76))), "ask");
    }

    #[test]
    fn a_forger_who_names_ever_new_keys_has_us_ask_a_few_times_a_minute() {
        let mut cache = KeyCache::default();
        learn(&mut cache, &[Some("a")], Some(86_400), 0);
        let mut asked = 0;
        for second in 0..600 {
            for number in 0..10 {
                let id = format!("forged-{second}-{number}");
                if wanted(&mut cache, ADDRESS, Some(&id), second) == "ask" {
                    asked += 1;
                    learn(&mut cache, &[Some("a")], Some(86_400), second);
                }
            }
            assert_eq!(wanted(&mut cache, ADDRESS, Some("a"), second), "known");
        }
        assert_eq!(asked, 600 / 15 - 1);
        assert_eq!(cache.entries.len(), 1);
    }

    #[test]
    fn a_forger_who_uses_up_all_questions_does_not_keep_what_is_known_from_being_renewed() {
        let mut cache = KeyCache::default();
        learn(&mut cache, &[None], Some(600), 0);
        for number in 0..MAX_A_MINUTE {
            let address = format!("https://keys.example.com/{number}");
            assert_eq!(wanted(&mut cache, &address, None, 599), "ask");
        }
        assert_eq!(wanted(&mut cache, "https://keys.example.com/new", None, 599), "unavailable");
        assert_eq!(wanted(&mut cache, ADDRESS, None, 601), "ask");
        assert_eq!(wanted(&mut cache, ADDRESS, None, 601), "wait");
    }

    #[test]
    fn a_forger_who_names_ever_new_addresses_does_neither_hammer_nor_fill_nor_drive_out_what_is_known() {
        let mut cache = KeyCache::default();
        learn(&mut cache, &[None], Some(86_400), 0);
        let mut asked = 0;
        for number in 0..36_000 {
            let (address, second) = (format!("https://keys.example.com/{number}"), number / 10);
            if wanted(&mut cache, &address, None, second) == "ask" {
                asked += 1;
                cache.fail(&address, at(second));
            }
        }
        assert_eq!(asked, 60 * MAX_A_MINUTE);
        assert_eq!(cache.entries.len(), MAX_ENTRIES);
        assert_eq!(wanted(&mut cache, ADDRESS, None, 3600), "known");
        // Another sender's keys are still to be had.
        let now = at(3600);
        assert_eq!(word(cache.answer("another", &KeyName::of("https://other", None), now.mono, now)), "ask");
    }
}
