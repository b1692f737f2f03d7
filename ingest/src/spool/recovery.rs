//! What a process finds that takes over the directory of one that ended, however it ended.

use std::io;

use hookwell_common::time::Timestamp;

use super::folder::{Folder, Kind, is_of_the_disk};
use super::frame::{HEAD_BYTES, Key, Piece, Pieces, is_as_long_as_it_says, received_at};
use super::ledger::Segment;

/// What lies in the directory.
#[derive(Debug)]
pub(super) struct Found {
    /// The segments that wait for Kafka, in order.
    pub(super) segments: Vec<Segment>,
    /// A sequence that no file has, nor any after it.
    pub(super) next_sequence: u64,
    /// How many places cannot be read.
    pub(super) damage: u64,
    /// How many files are there for people.
    pub(super) set_aside: usize,
}

/// Reads all segments of `folder`. A write that was cut short by the end of its process was never
/// answered 200, and is cut off; what else cannot be read is told and kept.
pub(super) fn recover(folder: &Folder) -> io::Result<Found> {
    let files = folder.list()?;
    let next_sequence = files.last().map_or(1, |(sequence, _)| sequence.saturating_add(1));
    let waiting: Vec<_> =
        files.iter().filter(|(_, kind)| *kind == Kind::Waiting).map(|(sequence, _)| *sequence).collect();
    let set_aside = files.len() - waiting.len();
    let mut found = Found { segments: Vec::new(), next_sequence, damage: 0, set_aside };
    for sequence in &waiting {
        let is_last = waiting.last() == Some(sequence);
        found.take(folder, *sequence, is_last)?;
    }
    Ok(found)
}

impl Found {
    fn take(&mut self, folder: &Folder, sequence: u64, is_last: bool) -> io::Result<()> {
        let file = folder.file(sequence, Kind::Waiting);
        let bytes = match folder.read(sequence, 0, None) {
            Err(error) if is_of_the_disk(&error) => {
                self.damage += 1;
                tracing::error!(%error, file = %file.display(), "a segment of the spool cannot be read, and stays where it is for the next start");
                return Ok(());
            }
            read => read?,
        };
        let Some(key) = Key::of_segment(&bytes) else {
            if is_last && bytes.len() < HEAD_BYTES {
                tracing::warn!(file = %file.display(), "a segment of the spool that was only begun is removed");
                return folder.remove(sequence);
            }
            self.damage += 1;
            self.set_aside += 1;
            let kept = folder.set_aside(sequence)?;
            tracing::error!(file = %kept.display(), offset = 0, bytes = bytes.len(), "the head of a segment of the spool cannot be read, so nothing of it can; the file is kept");
            return Ok(());
        };
        let mut segment = Segment {
            sequence,
            key,
            length: HEAD_BYTES as u64,
            drained: HEAD_BYTES as u64,
            events: 0,
            oldest: Timestamp::default(),
            is_damaged: false,
            is_left: false,
            is_sealed: true,
        };
        for piece in Pieces::new(key, &bytes, HEAD_BYTES) {
            match piece {
                Piece::Event { end, event, .. } => {
                    if segment.events == 0 {
                        segment.oldest = received_at(&event);
                    }
                    segment.events += 1;
                    segment.length = end as u64;
                }
                // A frame that is as long as it says was not cut short.
                Piece::Unreadable { start, end }
                    if is_last && end == bytes.len() && !is_as_long_as_it_says(&key, &bytes[start..]) =>
                {
                    tracing::warn!(file = %file.display(), offset = start, bytes = end - start, "the last write to the spool was cut short, before anybody heard 200 for it; it is cut off");
                    folder.cut(sequence, start as u64)?;
                }
                Piece::Unreadable { start, end } => {
                    tracing::error!(file = %file.display(), offset = start, bytes = end - start, "a place of the spool cannot be read; the rest is drained, and the file kept");
                    self.damage += 1;
                    segment.is_damaged = true;
                    segment.length = end as u64;
                }
            }
        }
        match segment.events {
            0 if !segment.is_damaged => folder.remove(sequence),
            _ => {
                self.segments.push(segment);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use bytes::Bytes;
    use hookwell_common::event::Event;

    use super::super::frame::append;
    use super::*;

    fn event(id: &str) -> Event {
        Event {
            source: "acme".into(),
            id: id.into(),
            kind: "push".into(),
            time: "2026-11-24T09:00:00.000Z".into(),
            content_type: None,
            traceparent: None,
            kept_headers: Vec::new(),
            body: Bytes::from_static(b"{}"),
        }
    }

    fn segment(ids: &[&str]) -> (Vec<u8>, Vec<usize>) {
        let key = Key::new([7; 32]);
        let mut bytes = key.head().to_vec();
        let mut ends = Vec::new();
        for id in ids {
            append(&key, &event(id), &mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn found(path: &Path, files: &[(&str, &[u8])]) -> Found {
        for (name, bytes) in files {
            fs::write(path.join(name), bytes).unwrap();
        }
        recover(&Folder::open(path).unwrap()).unwrap()
    }

    fn counts(found: &Found) -> Vec<(u64, u64, bool)> {
        found.segments.iter().map(|segment| (segment.sequence, segment.events, segment.is_damaged)).collect()
    }

    #[test]
    fn what_waits_is_found_in_order_and_new_segments_come_after_it() {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = (segment(&["a", "b"]).0, segment(&["c"]).0);
        let files: [(&str, &[u8]); 4] =
            [("2.spool", &two), ("1.spool", &one), ("9.refused", b""), ("lock", b"")];
        let names = files.map(|(name, bytes)| {
            let (stem, kind) = name.split_once('.').unwrap_or((name, ""));
            let name = stem.parse().map_or(stem.to_owned(), |number: u64| format!("{number:020}.{kind}"));
            (name, bytes)
        });
        let files: Vec<_> = names.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        let found = found(home.path(), &files);
        assert_eq!(counts(&found), [(1, 2, false), (2, 1, false)]);
        assert_eq!((found.next_sequence, found.set_aside, found.damage), (10, 1, 0));
        assert_eq!(found.segments[0].oldest, Timestamp::parse_rfc3339("2026-11-24T09:00:00Z").unwrap());
    }

    #[test]
    fn a_last_write_that_is_cut_anywhere_is_cut_off_and_what_was_answered_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let (bytes, ends) = segment(&["a", "b", "c"]);
        let name = "00000000000000000001.spool";
        for cut in 0..bytes.len() {
            let found = found(home.path(), &[(name, &bytes[..cut])]);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let expected = if whole == 0 { vec![] } else { vec![(1, whole as u64, false)] };
            assert_eq!((counts(&found), found.damage), (expected, 0), "cut at {cut}");
            let left = fs::read(home.path().join(name)).map(|bytes| bytes.len()).unwrap_or_default();
            assert_eq!(left, whole.checked_sub(1).map_or(0, |last| ends[last]), "cut at {cut}");
        }
    }

    #[test]
    fn a_last_frame_that_is_whole_and_cannot_be_read_is_damage_and_not_a_write_cut_short() {
        let home = tempfile::tempdir().unwrap();
        let (mut bytes, ends) = segment(&["a", "b"]);
        bytes[ends[1] - 1] ^= 1;
        let name = "00000000000000000001.spool";
        let found = found(home.path(), &[(name, &bytes)]);
        assert_eq!((counts(&found), found.damage), (vec![(1, 1, true)], 1));
        assert_eq!(fs::read(home.path().join(name)).unwrap(), bytes);
    }

    #[test]
    fn a_place_in_the_middle_that_cannot_be_read_is_told_and_hides_nothing_behind_it() {
        let home = tempfile::tempdir().unwrap();
        let (mut bytes, ends) = segment(&["a", "b", "c"]);
        bytes[ends[0] + 30] ^= 1;
        let found = found(home.path(), &[("00000000000000000001.spool", &bytes)]);
        assert_eq!((counts(&found), found.damage), (vec![(1, 2, true)], 1));
        assert_eq!(found.segments[0].length, bytes.len() as u64);
    }

    #[test]
    fn in_a_segment_that_was_followed_by_another_no_end_is_taken_for_a_write_cut_short() {
        let home = tempfile::tempdir().unwrap();
        let (bytes, _) = segment(&["a", "b"]);
        let files = [
            ("00000000000000000001.spool", &bytes[..bytes.len() - 1]),
            ("00000000000000000002.spool", &bytes[..]),
        ];
        let found = found(home.path(), &files);
        assert_eq!((counts(&found), found.damage), (vec![(1, 1, true), (2, 2, false)], 1));
    }

    #[test]
    fn a_segment_whose_head_cannot_be_read_is_kept_for_people() {
        let home = tempfile::tempdir().unwrap();
        let (mut bytes, _) = segment(&["a"]);
        bytes[20] ^= 1;
        let found = found(home.path(), &[("00000000000000000001.spool", &bytes)]);
        assert_eq!((counts(&found), found.damage, found.next_sequence), (vec![], 1, 2));
        assert!(home.path().join("00000000000000000001.damaged").exists());
    }

    #[test]
    fn a_directory_is_for_one_process() {
        let home = tempfile::tempdir().unwrap();
        let first = Folder::open(home.path()).unwrap();
        let second = Folder::open(home.path()).unwrap_err();
        assert!(second.contains("in use by another process"), "{second}");
        drop(first);
        assert!(Folder::open(home.path()).is_ok());
    }
}
