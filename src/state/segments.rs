//! The files of a state directory: `lock`, and segments `sessions.0000000001` and on, each begun where the one before
//! has grown or could not be written. All segments that are there are read, in their order; those before a segment
//! that tells all are removed. What operators have changed is one file, replaced as a whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::encode::{self, Found, HEADER, RECORD_MAX, Record};
use super::writer::Disk;

const PREFIX: &str = "sessions.";
/// What is being made, before it has its name.
const UNNAMED: &str = "new";
/// What operators have changed, and that while it is being written.
const CHANGES: &str = "changes";
const CHANGES_NEW: &str = "changes.new";
/// It holds two configurations at most; one of 10,000 members takes 3 MB.
const CHANGES_MAX: u64 = 64 << 20;
/// Bytes that are read at once: many records, and little memory.
const CHUNK: usize = 1 << 20;
const _: () = assert!(CHUNK > 2 * RECORD_MAX + HEADER, "a record fits");

/// A state directory that is ours alone.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Held as long as we live.
    _lock: File,
    segment: Option<File>,
}

/// What was found in a state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Records that were read.
    pub records: u64,
    /// Records that say nothing to this version.
    pub unknown: u64,
    /// Pieces that are no records: cut short, flipped, or another's file.
    pub damaged: u64,
}

/// The file of changes, if there is one. It is read before the privileges go, from a directory that is not the
/// super-user's: nothing but a file is opened.
pub(super) fn read_changes(directory: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let path = directory.join(CHANGES);
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(CHANGES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

impl Directory {
    /// Makes the directory where it is absent, and locks it.
    ///
    /// # Errors
    /// `WouldBlock` when another daemon has it, and those of the file system.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => io::Error::new(io::ErrorKind::WouldBlock, "another rtp_cluster writes it"),
            _ => error.into(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            segment: None,
        })
    }

    /// Shows every record, in the order in which they were written. A file that cannot be read counts as damage.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub(super) fn read(&self, mut see: impl FnMut(&Record<'_>)) -> io::Result<Tally> {
        let mut tally = Tally::default();
        for (number, _) in self.segments()? {
            let read = File::open(self.segment_path(number))
                .and_then(|file| read_segment(file, &mut tally, &mut see));
            if let Err(error) = read {
                log::debug!("{}: {error}", self.segment_path(number).display());
                tally.damaged += 1;
            }
        }
        Ok(tally)
    }

    /// Numbers and sizes of the segments, in their order.
    fn segments(&self) -> io::Result<Vec<(u64, u64)>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            let number: Option<u64> = digits.and_then(|digits| digits.parse().ok());
            let number = number.filter(|number| name == *segment_name(*number));
            if let Some(number) = number {
                segments.push((number, entry.metadata()?.len()));
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn segment_path(&self, number: u64) -> PathBuf {
        self.path.join(segment_name(number))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

fn segment_name(number: u64) -> String {
    format!("{PREFIX}{number:010}")
}

/// Shows every record of a segment.
pub(super) fn read_segment(
    mut file: impl Read,
    tally: &mut Tally,
    see: &mut impl FnMut(&Record<'_>),
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(CHUNK);
    let mut is_first = true;
    loop {
        let room = CHUNK.saturating_sub(bytes.len()) as u64;
        let last = Read::by_ref(&mut file).take(room).read_to_end(&mut bytes)? == 0;
        let mut rest = &*bytes;
        if is_first && encode::is_header(rest) {
            rest = rest.get(HEADER..).unwrap_or_default();
        }
        is_first = false;
        let mut was_good = true;
        loop {
            let (length, is_good) = match encode::read(rest, last) {
                Found::More => break,
                Found::Record(record, length) => {
                    tally.records += 1;
                    see(&record);
                    (length, true)
                }
                Found::Unknown(length) => {
                    tally.unknown += 1;
                    (length, true)
                }
                Found::Damage(length) => (length, false),
            };
            tally.damaged += u64::from(was_good && !is_good);
            was_good = is_good;
            rest = rest.get(length..).unwrap_or_default();
        }
        if last {
            return Ok(());
        }
        let done = bytes.len() - rest.len();
        bytes.drain(..done);
    }
}

impl Disk for Directory {
    fn newest(&self) -> io::Result<u64> {
        Ok(self.segments()?.last().map_or(0, |(number, _)| *number))
    }

    fn begin(&mut self, number: u64) -> io::Result<()> {
        self.segment = None;
        let unnamed = self.path.join(UNNAMED);
        let mut file = create(&unnamed)?;
        file.write_all(&encode::header())?;
        file.sync_all()?;
        fs::rename(&unnamed, self.segment_path(number))?;
        self.sync_directory()?;
        self.segment = Some(file);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.segment.as_mut().ok_or(io::ErrorKind::NotFound)?;
        file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.segment.as_ref().map_or(Ok(()), File::sync_data)
    }

    fn keep(&mut self, changes: Option<&[u8]>) -> io::Result<()> {
        let path = self.path.join(CHANGES);
        match changes {
            Some(bytes) => {
                let unnamed = self.path.join(CHANGES_NEW);
                let mut file = create(&unnamed)?;
                file.write_all(bytes)?;
                file.sync_all()?;
                fs::rename(&unnamed, &path)?;
            }
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                removed => removed?,
            },
        }
        self.sync_directory()
    }

    fn remove_before(&mut self, number: u64) -> io::Result<()> {
        for (old, _) in self.segments()? {
            if old < number {
                fs::remove_file(self.segment_path(old))?;
            }
        }
        self.sync_directory()
    }
}
