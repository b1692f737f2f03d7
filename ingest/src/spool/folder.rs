//! The spool's directory: one file a segment, named by its sequence, and a lock.
//!
//! `….spool` waits for Kafka. `….damaged` held something that cannot be read, `….refused` holds what
//! Kafka will never take: both are for people, and nothing here reads them again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hookwell_common::event::Event;

use super::frame::{self, Key};

/// What becomes of a segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It waits for Kafka.
    Waiting,
    /// Something in it cannot be read.
    Damaged,
    /// It holds what Kafka will never take.
    Refused,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Waiting, Kind::Damaged, Kind::Refused];

    fn extension(self) -> &'static str {
        match self {
            Kind::Waiting => "spool",
            Kind::Damaged => "damaged",
            Kind::Refused => "refused",
        }
    }
}

/// The directory, locked for as long as this or a clone of it lives.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: Arc<File>,
}

impl Folder {
    /// Opens the directory at `path`, which is made where it is missing. What goes wrong is told in
    /// words that say what to do.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let cannot = |error: io::Error| {
            format!("cannot be used: {error}; it must be a directory that this user may write to")
        };
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let made: Vec<_> = path.ancestors().take_while(is_missing).collect();
        // Bodies are nobody else's to read.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(cannot)?;
        // A directory is there for good once the one above it says so.
        for directory in made {
            let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
            sync_directory(above.unwrap_or(Path::new("."))).map_err(cannot)?;
        }
        let lock = new_file(OpenOptions::new().create(true).truncate(false), &path.join("lock"));
        let lock = lock.map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err("is in use by another process; each needs a directory of its own".to_owned());
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let folder = Self { path: path.to_owned(), _lock: Arc::new(lock) };
        folder.sync().map_err(cannot)?;
        Ok(folder)
    }

    /// The file of a segment.
    pub(super) fn file(&self, sequence: u64, kind: Kind) -> PathBuf {
        self.path.join(format!("{sequence:020}.{}", kind.extension()))
    }

    /// All segments, in order.
    pub(super) fn list(&self) -> io::Result<Vec<(u64, Kind)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = PathBuf::from(entry?.file_name());
            let sequence = name.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            let is = |kind: &Kind| name.extension().is_some_and(|extension| extension == kind.extension());
            found.extend(sequence.zip(Kind::ALL.into_iter().find(is)));
        }
        found.sort_unstable_by_key(|(sequence, _)| *sequence);
        Ok(found)
    }

    /// Makes the file of a new segment. It is there for good after [`Folder::sync`].
    pub(super) fn create(&self, sequence: u64) -> io::Result<File> {
        new_file(OpenOptions::new().create_new(true), &self.file(sequence, Kind::Waiting))
    }

    /// Files that were made, renamed or removed are so for good.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }

    /// What lies in a segment from `from` to `to`, or to its end.
    pub(super) fn read(&self, sequence: u64, from: u64, to: Option<u64>) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.file(sequence, Kind::Waiting))?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        match to {
            Some(to) => {
                let length = to.saturating_sub(from);
                file.take(length).read_to_end(&mut bytes)?;
                if u64::try_from(bytes.len()) != Ok(length) {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it was"));
                }
            }
            None => {
                file.read_to_end(&mut bytes)?;
            }
        }
        Ok(bytes)
    }

    /// Cuts a segment's file at `length`, for good.
    pub(super) fn cut(&self, sequence: u64, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.file(sequence, Kind::Waiting))?;
        file.set_len(length)?;
        file.sync_all()
    }

    /// How long a segment's file is.
    pub(super) fn length(&self, sequence: u64) -> io::Result<u64> {
        Ok(fs::metadata(self.file(sequence, Kind::Waiting))?.len())
    }

    /// Removes a segment's file, for good; also where only the last of that is left to be done.
    pub(super) fn remove(&self, sequence: u64) -> io::Result<()> {
        unless_gone(fs::remove_file(self.file(sequence, Kind::Waiting)))?;
        self.sync()
    }

    /// Keeps a segment of which something cannot be read, for people; also where only the last of that
    /// is left to be done.
    pub(super) fn set_aside(&self, sequence: u64) -> io::Result<PathBuf> {
        let to = self.file(sequence, Kind::Damaged);
        unless_gone(fs::rename(self.file(sequence, Kind::Waiting), &to))?;
        self.sync()?;
        Ok(to)
    }

    /// Keeps an event that Kafka will never take, for people, in a file whose `sequence` no segment has.
    /// Renamed to `….spool` the file is tried again at the next start.
    pub(super) fn keep_refused(&self, sequence: u64, key: &Key, event: &Event) -> io::Result<PathBuf> {
        let path = self.file(sequence, Kind::Refused);
        let mut file = new_file(OpenOptions::new().create(true).append(true), &path)?;
        let mut bytes = Vec::new();
        let before = file.metadata()?.len();
        if before == 0 {
            bytes.extend_from_slice(&key.head());
        }
        frame::append(key, event, &mut bytes);
        let written = file.write_all(&bytes).and_then(|()| file.sync_all()).and_then(|()| self.sync());
        if written.is_err() {
            // Or it would lie there once for each time that this is tried.
            file.set_len(before).ok();
        }
        written.map(|()| path)
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn new_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.write(true).mode(0o600).open(path)
}

/// Whether the disk itself could not read, and not this process for want of something.
pub(super) fn is_of_the_disk(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO)
}

/// Whether `file` can still be found under its name: what is written to one that was removed is
/// gone with the process.
pub(super) fn is_linked(file: &File) -> io::Result<bool> {
    Ok(0 < file.metadata()?.nlink())
}
