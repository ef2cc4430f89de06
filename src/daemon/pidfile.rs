//! The pid file: its lock, not its content, says that a daemon lives. A file that a crash left behind is no hindrance.

use core::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FlockOperation;

/// Longest content that is taken for a pid, in bytes. A configuration named by mistake is longer, or no number.
const CONTENT_MAX: u64 = 32;
/// How often we begin again when the file is removed between opening and locking it.
const ATTEMPTS: u32 = 10;

/// Our pid file, locked. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    file: File,
    /// It is another's to remove: a predecessor's that serves on, or a successor's.
    not_ours: AtomicBool,
}

/// Why the pid file is not ours.
#[derive(Debug)]
pub(crate) enum PidError {
    /// Another instance holds the lock.
    Held {
        path: PathBuf,
        /// What it wrote, where that is a number.
        pid: Option<u32>,
    },
    /// The file is something else.
    NotAPidFile(PathBuf),
    /// The system refused.
    System(PathBuf, io::Error),
}

impl PidError {
    /// The exit status of a daemon that ends with this.
    pub(crate) const fn exit(&self) -> u8 {
        match self {
            Self::Held { .. } => 75,
            Self::NotAPidFile(_) | Self::System(..) => 1,
        }
    }
}

impl fmt::Display for PidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { path, pid: Some(pid) } => {
                write!(f, "{}: another instance lives, with pid {pid}", path.display())
            }
            Self::Held { path, pid: None } => write!(f, "{}: another instance lives", path.display()),
            Self::NotAPidFile(path) => {
                write!(
                    f,
                    "{}: holds something other than a pid and is left alone; choose another with -P",
                    path.display()
                )
            }
            Self::System(path, error) => write!(
                f,
                "{}: cannot make the pid file: {error}; want a directory that may be written, or another with -P",
                path.display()
            ),
        }
    }
}

impl PidFile {
    /// Locks `path`, writes our pid into it, and gives it to `owner` (user and group) who will start it again.
    pub(crate) fn take(path: &Path, owner: Option<(u32, u32)>) -> Result<Self, PidError> {
        let failed = |error| PidError::System(path.into(), error);
        for _ in 0..ATTEMPTS {
            let mut file = open(path).map_err(failed)?;
            let found = file.metadata().map_err(failed)?;
            // One with a second name may be another's, linked here by who owns the directory.
            if !found.is_file() || found.nlink() > 1 {
                return Err(PidError::NotAPidFile(path.into()));
            }
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(PidError::Held {
                        path: path.into(),
                        pid: content(&mut file).ok().and_then(|text| pid(&text)),
                    });
                }
                Err(error) => return Err(failed(error.into())),
            }
            // A daemon that was just leaving may have removed the file that we locked.
            if !is_at(&file, path) {
                continue;
            }
            let found = content(&mut file).map_err(failed)?;
            if !found.trim_matches(blank).is_empty() && pid(&found).is_none() {
                return Err(PidError::NotAPidFile(path.into()));
            }
            let ours = Self {
                path: path.into(),
                file,
                not_ours: AtomicBool::new(false),
            };
            ours.fill(owner).map_err(failed)?;
            return Ok(ours);
        }
        Err(failed(io::Error::other(
            "it is made and removed by others all the time",
        )))
    }

    /// Takes over the locked file of a predecessor, if that is the one at `path`. Its content is the other's still.
    pub(crate) fn inherit(path: &Path, file: File) -> Option<Self> {
        is_at(&file, path).then(|| Self {
            path: path.into(),
            file,
            not_ours: AtomicBool::new(true),
        })
    }

    /// A successor has it.
    pub(crate) fn give_away(&self) {
        self.not_ours.store(true, Ordering::Release);
    }

    /// The same file once more, for a successor.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// Makes it ours: our pid, and `owner` who will start it again.
    pub(crate) fn fill(&self, owner: Option<(u32, u32)>) -> io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        self.file.set_permissions(Permissions::from_mode(0o644))?;
        if let (Some((uid, gid)), true) = (owner, rustix::process::geteuid().is_root()) {
            fchown(&self.file, Some(uid), Some(gid))?;
        }
        self.not_ours.store(false, Ordering::Release);
        Ok(())
    }

    /// Removes the file while the lock is still held, so that it is never a successor's.
    pub(crate) fn remove(&self) {
        if self.not_ours.load(Ordering::Acquire) || !is_at(&self.file, &self.path) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("{}: cannot remove the pid file: {error}", self.path.display());
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Opens or creates the file. Links are not followed: a root daemon writes through nobody's trap.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(flags)
        .open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// The text of the file, as far as one could be a pid.
fn content(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(CONTENT_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn pid(text: &str) -> Option<u32> {
    text.trim_matches(blank).parse().ok()
}

/// White space; and NUL, which a power loss leaves in place of what was written.
fn blank(c: char) -> bool {
    c.is_whitespace() || c == '\0'
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn place() -> PathBuf {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        std::env::temp_dir().join(format!("rtpc-pid-{}-{serial}", std::process::id()))
    }

    #[test]
    fn the_second_instance_is_told_who_the_first_is() {
        let path = place();
        let first = PidFile::take(&path, None).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        let refused = PidFile::take(&path, None).unwrap_err();
        assert_eq!(refused.exit(), 75);
        assert!(
            refused
                .to_string()
                .contains(&format!("pid {}", std::process::id())),
            "{refused}"
        );
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_crash_left_is_taken() {
        for left in ["", "123456789\n", "\0\0\0\0", "1"] {
            let path = place();
            fs::write(&path, left).unwrap();
            let ours = PidFile::take(&path, None).unwrap();
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                format!("{}\n", std::process::id())
            );
            drop(ours);
        }
    }

    #[test]
    fn a_file_of_another_kind_is_never_overwritten() {
        let path = place();
        fs::write(&path, "<rtp_cluster_config/>").unwrap();
        let refused = PidFile::take(&path, None).unwrap_err();
        assert_eq!(refused.exit(), 1);
        assert!(refused.to_string().contains("-P"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "<rtp_cluster_config/>");
        let link = place();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(PidFile::take(&link, None), Err(PidError::System(..))));
        fs::remove_file(&link).unwrap();
        fs::write(&path, "").unwrap();
        fs::hard_link(&path, &link).unwrap();
        assert!(matches!(
            PidFile::take(&link, None),
            Err(PidError::NotAPidFile(_))
        ));
        fs::remove_file(&link).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(PidFile::take(Path::new("/dev/null"), None).is_err());
    }

    #[test]
    fn a_successors_file_is_not_removed() {
        let path = place();
        let ours = PidFile::take(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        let successor = PidFile::take(&path, None).unwrap();
        drop(ours);
        assert!(path.exists());
        drop(successor);
        assert!(!path.exists());
    }

    #[test]
    fn a_missing_directory_is_told_with_the_path_and_what_the_system_said() {
        let refused = PidFile::take(Path::new("/nonexistent-rtpc/pid"), None)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("/nonexistent-rtpc/pid") && refused.contains("os error 2"),
            "{refused}"
        );
    }
}
