//! The file of a UNIX socket: who may connect, whether it is still ours, and how several daemons that start or stop in
//! one moment take turns at a path.

use core::fmt;
use core::time::Duration;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::sockets::Kept;

/// How often a turn is asked for, and between two times. Who has it keeps it for some system calls: one second of
/// waiting means that it is stopped, or that somebody holds us up.
const TURN_ATTEMPTS: u32 = 200;
const TURN_PAUSE: Duration = Duration::from_millis(5);

/// Who may connect to a UNIX socket: its owner and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Owner; `None` is the user that we run as.
    pub uid: Option<u32>,
    /// Group; `None` is the one that the directory or our own group gives.
    pub gid: Option<u32>,
    /// Permission bits, whatever the umask.
    pub mode: u32,
}

/// Which file a path names, however it is renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.device, self.inode)
    }
}

impl Identity {
    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (device, inode) = text.split_once('.')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Self {
            device: number(device)?,
            inode: number(inode)?,
        })
    }

    /// Of what `path` names now; a symbolic link is itself.
    ///
    /// # Errors
    /// What the system says, as when there is nothing.
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|found| Self::from(&found))
    }
}

impl From<&fs::Metadata> for Identity {
    fn from(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
        }
    }
}

/// The file of a socket that we bound. It is removed when this is dropped, unless somebody else's stands there, or
/// somebody listens on for us.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Identity,
    leave: bool,
    kept: Option<Kept>,
}

impl SocketFile {
    pub(super) fn new(path: &Path, identity: Identity) -> Self {
        Self {
            path: path.into(),
            identity,
            leave: false,
            kept: None,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which file it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether it is still there. Removed, or with another in its place, nobody can connect to our socket any more:
    /// only a new one helps.
    pub fn is_there(&self) -> bool {
        Identity::of(&self.path).is_ok_and(|found| found == self.identity)
    }

    /// Who keeps its socket, if somebody does.
    pub fn keeper(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// The same for a socket that somebody may keep beside us.
    #[must_use]
    pub fn kept(mut self, kept: Kept) -> Self {
        self.kept = Some(kept);
        self
    }

    /// Lets the file stay: another process serves the socket from now on.
    pub fn leave(mut self) {
        self.leave = true;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.leave || self.kept.as_ref().is_some_and(Kept::outlives_us) {
            return;
        }
        if let Err(error) = unlink_ours(&self.path, self.identity) {
            log::warn!("{}: cannot remove our socket: {error}", self.path.display());
        }
    }
}

/// Removes `path` when it is still the file of `identity`; says whether it was.
///
/// # Errors
/// When the file is ours and the system does not remove it.
pub fn unlink_ours(path: &Path, identity: Identity) -> io::Result<bool> {
    // Without a turn, as where the directory is gone or closed to us, the removal says best what is wrong.
    let _turn = Turn::take(path);
    match Identity::of(path) {
        Ok(found) if found == identity => fs::remove_file(path).map(|()| true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the socket file at `path` its owner and mode, and says which file that is. Neither is given to what a name
/// was exchanged for meanwhile: in a directory of somebody else a link may take its place at any moment.
///
/// # Errors
/// When there is no socket, or it is not ours to give.
#[cfg(target_os = "linux")]
pub fn give(path: &Path, rights: &Rights) -> io::Result<Identity> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{AtFlags, Mode, OFlags, chownat, open};
    let file: File = open(
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?
    .into();
    let found = of_socket(file.metadata()?)?;
    if differs(rights.uid, found.uid()) || differs(rights.gid, found.gid()) {
        let owner = rights.uid.map(rustix::process::Uid::from_raw);
        let group = rights.gid.map(rustix::process::Gid::from_raw);
        chownat(&file, "", owner, group, AtFlags::EMPTY_PATH)?;
    }
    if found.mode() & 0o7777 != rights.mode {
        // There is no fchmod(2) for what is opened by its name alone.
        let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(by_number, fs::Permissions::from_mode(rights.mode))?;
    }
    Ok(Identity::from(&found))
}

/// As on Linux, by the name each time, and through no link.
#[cfg(not(target_os = "linux"))]
pub fn give(path: &Path, rights: &Rights) -> io::Result<Identity> {
    use rustix::fs::{AtFlags, CWD, Mode, RawMode, chmodat};
    let found = of_socket(fs::symlink_metadata(path)?)?;
    if differs(rights.uid, found.uid()) || differs(rights.gid, found.gid()) {
        std::os::unix::fs::lchown(path, rights.uid, rights.gid)?;
    }
    if found.mode() & 0o7777 != rights.mode {
        let mode = Mode::from_raw_mode(RawMode::try_from(rights.mode).unwrap_or_default());
        chmodat(CWD, path, mode, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(Identity::from(&found))
}

fn differs(wanted: Option<u32>, found: u32) -> bool {
    wanted.is_some_and(|wanted| wanted != found)
}

fn of_socket(found: fs::Metadata) -> io::Result<fs::Metadata> {
    if found.file_type().is_socket() {
        Ok(found)
    } else {
        Err(io::Error::other(
            "something other than a socket has taken its place",
        ))
    }
}

/// The turn of one process to look at a path and to put a socket there, or to remove its own. Looking and replacing are
/// two steps: without turns, two daemons find the same stale socket and the second removes the first one's new one.
///
/// It is a locked file beside the path, removed with the turn. A lock of the directory would need no file, but whoever
/// may read the directory could hold it for ever; who may make this file may take the path itself as well.
#[derive(Debug)]
pub(super) struct Turn {
    place: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

impl Turn {
    /// Waits for the turn, about a second at most.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".lock");
        let place = path.with_file_name(name);
        for _ in 0..TURN_ATTEMPTS {
            let lock = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&place)?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                // Who had the turn before has removed the file that we locked, unless it is the one that is there.
                Ok(()) if Identity::of(&place).ok() == Some(Identity::from(&lock.metadata()?)) => {
                    return Ok(Self { place, _lock: lock });
                }
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(TURN_PAUSE),
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{} is held by another process", place.display()),
        ))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // One that stays is nobody's, and is taken and removed by the next.
        let _ = fs::remove_file(&self.place);
    }
}
