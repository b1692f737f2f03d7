//! Whether files changed, by their contents: what tells a file that was written in place from one
//! that was replaced, or from a symbolic link that leads elsewhere, does not matter, and no file
//! system is too simple for it. Whoever looks does so now and then, and asks here what to make of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// What a look found in one file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Contents, by their hash: nobody keeps a secret only to compare it.
    Contents(blake3::Hash),
    /// Nothing that can be read.
    Unreadable,
}

impl Sight {
    /// What is seen where reading a file gave `read`.
    pub fn of(read: io::Result<Vec<u8>>) -> Self {
        read.map_or(Self::Unreadable, |contents| Self::Contents(blake3::hash(&contents)))
    }
}

/// Without the hash, of which a short secret could be guessed.
impl fmt::Debug for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sight::Contents(_) => "***",
            Sight::Unreadable => "unreadable",
        })
    }
}

/// What a look found in every file.
pub type Look = BTreeMap<PathBuf, Sight>;

/// What to make of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is as it was when somebody last acted on it.
    Unchanged,
    /// Something is being changed: the next look will tell.
    Unsettled,
    /// These files are not as they were, and nothing has moved since the look before.
    Changed(Vec<PathBuf>),
}

/// What was seen so far.
#[derive(Clone, Debug)]
pub struct Watch {
    answered: Look,
    last: Look,
}

impl Watch {
    /// From `seen` on, which somebody has acted on.
    pub fn new(seen: Look) -> Self {
        Self { answered: seen.clone(), last: seen }
    }

    /// Judges one more look. Two that agree are needed for a change, so that neither a file that is
    /// half written counts, nor some that are new beside others that are still old.
    pub fn judge(&mut self, now: &Look) -> Verdict {
        let is_settled = self.last == *now;
        if !is_settled {
            self.last.clone_from(now);
        }
        match (self.answered == *now, is_settled) {
            (true, _) => Verdict::Unchanged,
            (false, false) => Verdict::Unsettled,
            (false, true) => Verdict::Changed(self.changed(now)),
        }
    }

    /// Notes that somebody has acted on `look`, whatever came of it: it is not told again.
    pub fn answer(&mut self, look: Look) {
        self.answered = look;
    }

    fn changed(&self, now: &Look) -> Vec<PathBuf> {
        let is_new = |(path, sight): &(&PathBuf, &Sight)| self.answered.get(*path) != Some(*sight);
        now.iter().filter(is_new).map(|(path, _)| path.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(files: &[(&str, Option<&str>)]) -> Look {
        let sight = |contents: Option<&str>| {
            Sight::of(contents.map(|text| text.as_bytes().to_vec()).ok_or(io::ErrorKind::NotFound.into()))
        };
        files.iter().map(|(path, contents)| (PathBuf::from(path), sight(*contents))).collect()
    }

    fn one(contents: &str) -> Look {
        look(&[("one", Some(contents))])
    }

    fn changed(files: &[&str]) -> Verdict {
        Verdict::Changed(files.iter().map(PathBuf::from).collect())
    }

    #[test]
    fn what_stays_as_it_was_is_unchanged() {
        let mut watch = Watch::new(one("old"));
        assert_eq!(watch.judge(&one("old")), Verdict::Unchanged);
        assert_eq!(watch.judge(&one("old")), Verdict::Unchanged);
    }

    #[test]
    fn a_change_counts_once_two_looks_agree_and_only_once() {
        let mut watch = Watch::new(one("old"));
        assert_eq!(watch.judge(&one("new")), Verdict::Unsettled);
        assert_eq!(watch.judge(&one("new")), changed(&["one"]));
        watch.answer(one("new"));
        assert_eq!(watch.judge(&one("new")), Verdict::Unchanged);
    }

    #[test]
    fn a_file_that_is_being_written_is_waited_for() {
        let mut watch = Watch::new(one("old"));
        for half in ["", "n", "ne"] {
            assert_eq!(watch.judge(&one(half)), Verdict::Unsettled);
        }
        assert_eq!(watch.judge(&one("new")), Verdict::Unsettled);
        assert_eq!(watch.judge(&one("new")), changed(&["one"]));
    }

    #[test]
    fn files_that_change_one_after_the_other_are_waited_for_together() {
        let both = |one, other| look(&[("one", Some(one)), ("other", Some(other))]);
        let mut watch = Watch::new(both("old", "older"));
        assert_eq!(watch.judge(&both("new", "older")), Verdict::Unsettled);
        assert_eq!(watch.judge(&both("new", "old")), Verdict::Unsettled);
        assert_eq!(watch.judge(&both("new", "old")), changed(&["one", "other"]));
    }

    #[test]
    fn what_is_put_back_was_never_changed() {
        let mut watch = Watch::new(one("old"));
        assert_eq!(watch.judge(&one("new")), Verdict::Unsettled);
        assert_eq!(watch.judge(&one("old")), Verdict::Unchanged);
        assert_eq!(watch.judge(&one("new")), Verdict::Unsettled);
    }

    #[test]
    fn a_file_that_is_gone_is_a_change_and_so_is_its_return() {
        let (there, gone) = (look(&[("one", Some("old"))]), look(&[("one", None)]));
        let mut watch = Watch::new(there.clone());
        assert_eq!(watch.judge(&gone), Verdict::Unsettled);
        assert_eq!(watch.judge(&gone), changed(&["one"]));
        watch.answer(gone.clone());
        assert_eq!(watch.judge(&gone), Verdict::Unchanged);
        assert_eq!(watch.judge(&there), Verdict::Unsettled);
        assert_eq!(watch.judge(&there), changed(&["one"]));
    }

    #[test]
    fn what_was_seen_does_not_print_itself() {
        assert_eq!(format!("{:?}", one("s3cret")), "{\"one\": ***}");
    }

    #[test]
    fn a_change_that_nobody_could_act_on_is_told_again() {
        let mut watch = Watch::new(one("old"));
        assert_eq!(watch.judge(&one("new")), Verdict::Unsettled);
        assert_eq!(watch.judge(&one("new")), changed(&["one"]));
        assert_eq!(watch.judge(&one("new")), changed(&["one"]));
    }
}
