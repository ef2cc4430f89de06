//! What this machine tells of the daemon: its process, its limits, the rights of its sockets. Part of the rim. All of
//! it may be unknown: the daemon may be another user's, or behind a socket that is forwarded.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::daemon::options::{self, Asked, Options};

/// The daemon's process.
#[derive(Debug)]
pub(super) struct Process {
    directory: PathBuf,
    /// How it was started.
    pub(super) options: Options,
}

impl Process {
    /// The daemon of this machine that was started with this admin socket.
    pub(super) fn find(admin: &Path) -> Option<Self> {
        let entries = fs::read_dir("/proc").ok()?.flatten();
        let mut daemons = entries.filter_map(|entry| Self::at(entry.path()));
        daemons.find(|daemon| {
            let Options {
                admin_socket,
                readonly_socket,
                ..
            } = &daemon.options;
            is_same(admin_socket, admin)
                || readonly_socket
                    .as_deref()
                    .is_some_and(|path| is_same(path, admin))
        })
    }

    fn at(directory: PathBuf) -> Option<Self> {
        let name = fs::read_to_string(directory.join("comm")).ok()?;
        if name.trim_end() != "rtp_cluster" {
            return None;
        }
        let bytes = fs::read(directory.join("cmdline")).ok()?;
        let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        let arguments: Vec<OsString> = words
            .skip(1)
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect();
        match options::parse(&arguments) {
            Ok(Asked::Run(options)) => Some(Self { directory, options }),
            _ => None,
        }
    }

    /// The descriptors that it has open, where we may look, and how many it may have.
    pub(super) fn descriptors(&self) -> Option<(Option<usize>, u64)> {
        let limits = fs::read_to_string(self.directory.join("limits")).ok()?;
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))?;
        let limit = line.split_whitespace().next()?;
        let limit = if limit == "unlimited" {
            u64::MAX
        } else {
            limit.parse().ok()?
        };
        let open = fs::read_dir(self.directory.join("fd")).ok().map(Iterator::count);
        Some((open, limit))
    }
}

/// Whether two paths lead to the same file: `/var/run` is `/run` on most machines.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    one == other || real(one).is_some_and(|one| real(other) == Some(one))
}

/// Mode and owner of a socket in the file system; nothing where there is none, or we may not look.
pub(super) fn socket(path: &Path) -> Option<(u32, String)> {
    let found = fs::metadata(path)
        .ok()
        .filter(|found| found.file_type().is_socket())?;
    let owner = format!(
        "{}:{}",
        name("/etc/passwd", found.uid()),
        name("/etc/group", found.gid())
    );
    Some((found.mode(), owner))
}

/// The name of a number in a file of accounts; the number where it has none.
fn name(file: &str, number: u32) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let wanted = number.to_string();
    let mut lines = text.lines().map(|line| line.split(':'));
    let found = lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == wanted).then(|| name.to_owned())
    });
    found.unwrap_or(wanted)
}
