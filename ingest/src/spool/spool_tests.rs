//! Writer, folder and drain together, on a real disk that fails as told.

use std::collections::VecDeque;
use std::fs;
use std::io;

use bytes::Bytes;
use hookwell_common::identity::Identity;
use prometheus::Registry;

use super::drain::Step;
use super::folder::Kind;
use super::writer::Disk;
use super::*;
use crate::publish::{PublishError, too_large};

/// What a disk does with one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Fine,
    CannotCreate,
    HalfAWrite,
    CannotSync,
}

/// A disk that does each write as told, and then is fine.
struct Moody {
    files: Files,
    moods: VecDeque<Mood>,
    syncs: Arc<Mutex<usize>>,
}

impl Moody {
    fn now(&self) -> Mood {
        self.moods.front().copied().unwrap_or(Mood::Fine)
    }

    fn failed(&mut self) -> io::Result<()> {
        self.moods.pop_front();
        Err(io::Error::other("as told"))
    }
}

impl Disk for Moody {
    fn create(&mut self, sequence: u64) -> io::Result<()> {
        match self.now() {
            Mood::CannotCreate => self.failed(),
            Mood::Fine | Mood::HalfAWrite | Mood::CannotSync => self.files.create(sequence),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.now() == Mood::HalfAWrite {
            self.files.write(&bytes[..bytes.len() / 2])?;
            return self.failed();
        }
        self.files.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        *self.syncs.lock().unwrap() += 1;
        if self.now() == Mood::CannotSync {
            return self.failed();
        }
        self.moods.pop_front();
        self.files.sync()
    }

    fn leave(&mut self, sequence: u64, length: u64) {
        self.files.leave(sequence, length);
    }
}

/// A spool without threads.
struct Scene {
    home: tempfile::TempDir,
    folder: Folder,
    shared: Arc<Shared>,
    writer: Writer<Moody>,
    syncs: Arc<Mutex<usize>>,
}

impl Scene {
    fn set(moods: &[Mood]) -> Self {
        Self::within(tempfile::tempdir().unwrap(), moods, 1_000_000)
    }

    fn within(home: tempfile::TempDir, moods: &[Mood], max_bytes: u64) -> Self {
        let folder = Folder::open(home.path()).unwrap();
        let found = recover(&folder).unwrap();
        let meters = SpoolMeters::register(&Registry::new()).unwrap();
        meters.damaged.inc_by(found.damage);
        let shared = Arc::new(Shared::new(begin(found, max_bytes), meters));
        let syncs = Arc::default();
        let files = Files::new(folder.clone());
        let disk = Moody { files, moods: moods.iter().copied().collect(), syncs: Arc::clone(&syncs) };
        let writer = Writer::new(disk, Arc::clone(&shared));
        Self { home, folder, shared, writer, syncs }
    }

    /// The next process takes over; what this one had in memory is gone.
    fn taken_over(self) -> Self {
        let Self { home, folder, shared, writer, .. } = self;
        drop((folder, shared, writer));
        Self::within(home, &[], 1_000_000)
    }

    fn put(&mut self, ids: &[&str]) -> Vec<Result<Spooled, SpoolError>> {
        self.put_events(ids.iter().map(|id| event(id, b"{}")).collect())
    }

    fn put_events(&mut self, events: Vec<Event>) -> Vec<Result<Spooled, SpoolError>> {
        let (entries, mut answers): (Vec<_>, Vec<_>) = events
            .into_iter()
            .map(|event| {
                let (answer, answered) = oneshot::channel();
                (Entry { event, answer, _share: None }, answered)
            })
            .unzip();
        self.writer.commit(entries);
        answers.iter_mut().map(|answered| answered.try_recv().expect("each is answered")).collect()
    }

    fn files(&self, kind: Kind) -> Vec<u64> {
        let files = self.folder.list().unwrap();
        files.iter().filter(|(_, found)| *found == kind).map(|(sequence, _)| *sequence).collect()
    }

    /// Drains until nothing is left to do, by way of a Kafka that takes all but what `refuse` names,
    /// once or for ever. What it took, in order.
    fn drain(&self, refuse: impl FnMut(&str) -> Option<PublishError>) -> Vec<String> {
        let (mut taken, mut refuse) = (Vec::new(), refuse);
        let publish = |events: &[(Event, Identity)]| {
            for (acknowledged, (event, _)) in events.iter().enumerate() {
                if let Some(failure) = refuse(&event.id) {
                    return Published { acknowledged, failure: Some(failure) };
                }
                taken.push(event.id.to_string());
            }
            Published { acknowledged: events.len(), failure: None }
        };
        let mut drain = Drain::new(self.folder.clone(), Arc::clone(&self.shared), publish);
        while drain.step() != Step::Idle {}
        drop(drain);
        taken
    }

    fn drained(&self) -> Vec<String> {
        self.drain(|_| None)
    }
}

fn event(id: &str, body: &[u8]) -> Event {
    Event {
        source: "acme".into(),
        id: id.into(),
        kind: "push".into(),
        time: "2026-11-24T09:00:00.000Z".into(),
        content_type: None,
        traceparent: None,
        kept_headers: Vec::new(),
        body: Bytes::copy_from_slice(body),
    }
}

const OK: Result<Spooled, SpoolError> = Ok(Spooled(()));
const UNWRITABLE: Result<Spooled, SpoolError> = Err(SpoolError::Unwritable);

#[test]
fn what_was_answered_is_drained_in_order_by_whoever_comes_next() {
    let mut scene = Scene::set(&[]);
    assert_eq!(scene.put(&["a", "b"]), [OK, OK]);
    assert_eq!(scene.put(&["c"]), [OK]);
    let scene = scene.taken_over();
    assert_eq!(scene.shared.ledger().events(), 3);
    assert_eq!(scene.drained(), ["a", "b", "c"]);
    assert_eq!(scene.shared.ledger().events(), 0);
    assert_eq!(scene.shared.ledger().bytes(), 0);
    assert_eq!(scene.files(Kind::Waiting), Vec::<u64>::new());
    assert_eq!(scene.shared.meters.drained.get(), 3);
}

#[test]
fn all_that_wait_together_share_one_fsync() {
    let mut scene = Scene::set(&[]);
    let ids: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    assert!(scene.put(&ids).iter().all(Result::is_ok));
    assert_eq!(*scene.syncs.lock().unwrap(), 1);
    assert_eq!(scene.drained(), ids);
}

#[test]
fn whatever_the_disk_fails_at_nobody_hears_yes_and_what_was_answered_before_and_after_is_kept() {
    for mood in [Mood::CannotCreate, Mood::HalfAWrite, Mood::CannotSync] {
        // With the first segment, and behind what is in it.
        for before in [0, 1] {
            let moods: Vec<_> = std::iter::repeat_n(Mood::Fine, before).chain([mood]).collect();
            let mut scene = Scene::set(&moods);
            let mut expected = Vec::new();
            if before == 1 {
                assert_eq!(scene.put(&["before"]), [OK]);
                expected.push("before");
            }
            let is_tried = before == 0 || mood != Mood::CannotCreate;
            if is_tried {
                assert_eq!(scene.put(&["a", "b"]), [UNWRITABLE, UNWRITABLE], "{mood:?}");
                assert_eq!(scene.shared.meters.unwritable.get(), 2);
            }
            assert_eq!(scene.put(&["after"]), [OK], "{mood:?}");
            expected.push("after");
            let scene = scene.taken_over();
            assert_eq!(scene.shared.meters.damaged.get(), 0, "{mood:?}");
            assert_eq!(scene.drained(), expected, "{mood:?}");
        }
    }
}

#[test]
fn nothing_is_added_to_a_segment_whose_fsync_failed() {
    let mut scene = Scene::set(&[Mood::Fine, Mood::CannotSync]);
    scene.put(&["a"]);
    scene.put(&["b"]);
    scene.put(&["c"]);
    assert_eq!(scene.files(Kind::Waiting), [1, 2]);
}

#[test]
fn a_full_spool_refuses_what_does_not_fit_and_takes_it_once_there_is_room() {
    let mut scene = Scene::within(tempfile::tempdir().unwrap(), &[], 10_000);
    let large = |id: &str| event(id, &[b'x'; 4_000]);
    let answers = scene.put_events(vec![large("a"), large("b"), large("c"), event("small", b"{}")]);
    assert_eq!(answers, [OK, OK, Err(SpoolError::Full), OK]);
    assert_eq!(scene.put_events(vec![large("c")]), [Err(SpoolError::Full)]);
    assert_eq!(scene.shared.meters.full.get(), 2);
    assert!(scene.shared.ledger().bytes() <= 10_000);
    assert_eq!(scene.drained(), ["a", "b", "small"]);
    assert_eq!(scene.put_events(vec![large("c")]), [OK]);
    assert_eq!(scene.drained(), ["c"]);
}

#[test]
fn a_directory_that_is_gone_is_noticed_before_anybody_hears_yes() {
    let mut scene = Scene::set(&[]);
    assert_eq!(scene.put(&["a"]), [OK]);
    fs::remove_dir_all(scene.home.path()).unwrap();
    assert_eq!(scene.put(&["b"]), [UNWRITABLE]);
    assert_eq!(scene.put(&["c"]), [UNWRITABLE]);
    fs::create_dir(scene.home.path()).unwrap();
    assert_eq!(scene.put(&["d"]), [OK]);
    assert_eq!(scene.drained(), ["d"]);
    assert_eq!(scene.shared.meters.damaged.get(), 1);
}

#[test]
fn the_drain_stops_at_the_first_failure_and_goes_on_from_there() {
    let mut scene = Scene::set(&[]);
    scene.put(&["a", "b", "c", "d", "e"]);
    let publish =
        |_: &[(Event, Identity)]| Published { acknowledged: 0, failure: Some(PublishError::TimedOut) };
    let mut drain = Drain::new(scene.folder.clone(), Arc::clone(&scene.shared), publish);
    assert_eq!((drain.step(), drain.step()), (Step::Failed, Step::Failed));
    drop(drain);
    assert_eq!(scene.shared.ledger().events(), 5);

    let mut failures = 0;
    let taken = scene.drain(|id| {
        let fails = id == "c" && failures < 3;
        failures += usize::from(fails);
        fails.then_some(PublishError::Unproven)
    });
    assert_eq!((taken, failures), (["a", "b", "c", "d", "e"].map(str::to_owned).to_vec(), 3));
}

#[test]
fn the_age_is_that_of_the_first_that_waits() {
    let mut scene = Scene::set(&[]);
    let at =
        |second: u8| Event { time: format!("2026-11-24T09:00:0{second}.000Z").into(), ..event("x", b"") };
    scene.put_events(vec![at(1), at(2), at(3)]);
    let oldest = |scene: &Scene| scene.shared.ledger().oldest().map(|oldest| oldest.to_string());
    assert_eq!(oldest(&scene).as_deref(), Some("2026-11-24T09:00:01.000Z"));
    let publish = |_: &[(Event, Identity)]| Published { acknowledged: 1, failure: None };
    let mut drain = Drain::new(scene.folder.clone(), Arc::clone(&scene.shared), publish);
    drain.step();
    assert_eq!(oldest(&scene).as_deref(), Some("2026-11-24T09:00:02.000Z"));
    drop(drain);
    scene.drained();
    assert_eq!(oldest(&scene), None);
}

#[test]
fn what_kafka_will_never_take_is_put_aside_and_holds_nothing_back() {
    let mut scene = Scene::set(&[]);
    scene.put(&["a", "too-large", "b"]);
    assert_eq!(scene.drain(|id| (id == "too-large").then(too_large)), ["a", "b"]);
    // Its file has a name that no segment has or will have.
    assert_eq!((scene.files(Kind::Waiting), scene.files(Kind::Refused)), (vec![], vec![2]));
    assert_eq!((scene.shared.meters.refused.get(), scene.shared.meters.drained.get()), (1, 2));
    let (from, to) = (scene.folder.file(2, Kind::Refused), scene.folder.file(2, Kind::Waiting));
    fs::rename(from, to).unwrap();
    assert_eq!(scene.taken_over().drained(), ["too-large"]);
}

#[test]
fn several_that_are_refused_for_one_of_them_are_not_put_aside() {
    let mut scene = Scene::set(&[]);
    scene.put(&["a", "b", "c", "d"]);
    let mut together = 0;
    let publish = |events: &[(Event, Identity)]| {
        together += usize::from(1 < events.len());
        let failure = (1 < events.len()).then(too_large);
        Published { acknowledged: if failure.is_some() { 0 } else { 1 }, failure }
    };
    let mut drain = Drain::new(scene.folder.clone(), Arc::clone(&scene.shared), publish);
    while drain.step() != Step::Idle {}
    drop(drain);
    assert!(0 < together);
    assert_eq!((scene.shared.meters.drained.get(), scene.files(Kind::Refused)), (4, vec![]));
}

#[test]
fn what_is_damaged_while_it_waits_is_told_and_the_file_kept_once_the_rest_is_drained() {
    let mut scene = Scene::set(&[]);
    scene.put(&["a", "b", "c"]);
    let file = scene.folder.file(1, Kind::Waiting);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_eq!(scene.drained(), ["a", "c"]);
    assert_eq!((scene.files(Kind::Waiting), scene.files(Kind::Damaged)), (vec![], vec![1]));
    assert_eq!(scene.shared.meters.damaged.get(), 1);
    assert_eq!(scene.put(&["d"]), [OK]);
    assert_eq!(scene.drained(), ["d"]);
}

#[test]
fn segments_follow_each_other_and_the_room_of_one_is_free_once_it_is_drained() {
    let mut scene = Scene::within(tempfile::tempdir().unwrap(), &[], 20_000);
    for n in 0..8 {
        assert_eq!(scene.put_events(vec![event(&n.to_string(), &[b'x'; 2_000])]), [OK]);
    }
    let segments = scene.files(Kind::Waiting).len();
    assert!(2 < segments, "{segments}");
    assert_eq!(scene.drained(), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(scene.shared.ledger().bytes(), 0);
}

#[test]
fn what_cannot_be_read_for_want_of_something_is_waited_for_and_not_given_up() {
    let mut scene = Scene::set(&[]);
    scene.put(&["a", "b"]);
    let file = scene.folder.file(1, Kind::Waiting);
    let elsewhere = scene.home.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    // It can be opened, and not be read.
    fs::create_dir(&file).unwrap();
    let publish = |events: &[(Event, Identity)]| Published { acknowledged: events.len(), failure: None };
    let mut drain = Drain::new(scene.folder.clone(), Arc::clone(&scene.shared), publish);
    for _ in 0..50 {
        assert_eq!(drain.step(), Step::Failed);
    }
    assert_eq!((scene.shared.ledger().events(), scene.shared.meters.damaged.get()), (2, 0));
    fs::remove_dir(&file).unwrap();
    fs::rename(&elsewhere, &file).unwrap();
    assert_eq!(scene.drained(), ["a", "b"]);
}

#[test]
fn a_segment_that_is_away_holds_back_no_other_and_is_drained_by_whoever_finds_it_again() {
    let mut scene = Scene::set(&[Mood::Fine, Mood::CannotSync]);
    scene.put(&["a"]);
    scene.put(&["b"]);
    scene.put(&["c"]);
    let file = scene.folder.file(1, Kind::Waiting);
    let elsewhere = scene.home.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    assert_eq!(scene.drained(), ["c"]);
    assert_eq!(scene.shared.meters.damaged.get(), 1);
    fs::rename(&elsewhere, &file).unwrap();
    assert_eq!(scene.taken_over().drained(), ["a"]);
}

#[test]
fn of_a_segment_that_has_become_shorter_the_rest_is_drained_and_the_file_kept() {
    let mut scene = Scene::set(&[]);
    scene.put(&["a", "b", "c"]);
    let file = scene.folder.file(1, Kind::Waiting);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(scene.drained(), ["a", "b"]);
    assert_eq!((scene.files(Kind::Waiting), scene.files(Kind::Damaged)), (vec![], vec![1]));
}

#[test]
fn what_kafka_refuses_and_cannot_be_put_aside_stays_in_its_segment_and_holds_nothing_back() {
    let mut scene = Scene::set(&[]);
    scene.put(&["a", "too-large", "b"]);
    fs::create_dir(scene.folder.file(2, Kind::Refused)).unwrap();
    assert_eq!(scene.drain(|id| (id == "too-large").then(too_large)), ["a", "b"]);
    assert_eq!((scene.files(Kind::Waiting), scene.files(Kind::Damaged)), (vec![], vec![1]));
}

#[test]
fn what_kafka_refuses_for_the_sake_of_another_is_not_put_aside() {
    let mut scene = Scene::set(&[]);
    scene.put(&["a", "b"]);
    let mut refusals = 0;
    let taken = scene.drain(|id| {
        let is_refused = id == "a" && refusals < 2;
        refusals += usize::from(is_refused);
        is_refused.then(too_large)
    });
    assert_eq!((taken, scene.files(Kind::Refused)), (vec!["a".to_owned(), "b".to_owned()], vec![]));
}

#[test]
fn a_drained_file_that_cannot_be_taken_away_is_taken_away_later() {
    let mut scene = Scene::set(&[]);
    scene.put(&["a"]);
    let file = scene.folder.file(1, Kind::Waiting);
    let in_the_way = file.join("x");
    let publish = |events: &[(Event, Identity)]| {
        fs::remove_file(&file).unwrap();
        fs::create_dir_all(&in_the_way).unwrap();
        Published { acknowledged: events.len(), failure: None }
    };
    let mut drain = Drain::new(scene.folder.clone(), Arc::clone(&scene.shared), publish);
    while drain.step() != Step::Idle {}
    assert!(file.exists());
    fs::remove_dir_all(&file).unwrap();
    fs::write(&file, b"").unwrap();
    assert_eq!(drain.step(), Step::Idle);
    assert!(!file.exists());
}
