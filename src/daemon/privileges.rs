//! Becoming an ordinary user, for good, when everything that needs more is open; and, before that, whether that
//! user will be able to do what is left: read the configuration, remove our sockets and pid file, reopen the log.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::options::{LogTarget, Options, Owner};
use super::rights;
use crate::config::model::{Address, Config};
use crate::rim::sys;

/// The user that the daemon becomes.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    account: sys::Account,
    gid: u32,
    /// As the command line has it.
    spelled: Owner,
}

impl Identity {
    /// Whom `-u` names; `None` where there is nobody to become: no `-u`, or we are that user already.
    ///
    /// # Errors
    /// When there is no such user, or we may not become it.
    pub(crate) fn of(options: &Options) -> Result<Option<Self>, String> {
        let Some(owner) = &options.user else {
            return Ok(None);
        };
        let (account, gid) = rights::identity(owner)?;
        let us = rustix::process::geteuid();
        if us.is_root() {
            return Ok(Some(Self {
                account,
                gid,
                spelled: owner.clone(),
            }));
        }
        if us.as_raw() == account.uid {
            return Ok(None);
        }
        Err(format!(
            "-u {owner}: only the super-user becomes another user, and we run as user {}",
            us.as_raw()
        ))
    }

    /// User and group, as numbers.
    pub(crate) const fn numbers(&self) -> (u32, u32) {
        (self.account.uid, self.gid)
    }

    /// Whether this user may read `file` and write each of `places`. To be called while the process has one thread.
    ///
    /// # Errors
    /// One message for each place that is closed to it, with what to do.
    pub(crate) fn check(&self, file: &Path, places: &[Place]) -> Result<(), Vec<String>> {
        let check = || {
            let closed = places.iter().filter_map(|place| place.closed(&self.spelled));
            unreadable(file, &self.spelled)
                .into_iter()
                .chain(closed)
                .collect::<Vec<_>>()
        };
        match sys::acting_as(&self.account, self.gid, check) {
            Ok(faults) if faults.is_empty() => Ok(()),
            Ok(mut faults) => {
                faults.dedup();
                Err(faults)
            }
            Err(error) => Err(vec![format!(
                "-u {}: cannot try that user's rights: {error}",
                self.spelled
            )]),
        }
    }

    /// Does `what` with this user's rights. To be called while the process has one thread, or after [`Self::assume`].
    ///
    /// # Errors
    /// When the system lets us not take these rights; the process must end then.
    pub(crate) fn acting<T>(&self, what: impl FnOnce() -> T) -> io::Result<T> {
        if self.account.uid != 0 && rustix::process::geteuid().is_root() {
            sys::acting_as(&self.account, self.gid, what)
        } else {
            Ok(what())
        }
    }

    /// Becomes this user, for good: also no program that we might be made to start gets more. To be called while the
    /// process has one thread.
    ///
    /// # Errors
    /// When the system refuses, or leaves a way back.
    pub(crate) fn assume(&self) -> Result<(), String> {
        sys::give_up_privileges()
            .map_err(|error| format!("-u {}: cannot give up privileges: {error}", self.spelled))?;
        sys::become_user(&self.account, self.gid)
            .map_err(|error| format!("-u {}: cannot become that user: {error}", self.spelled))?;
        let user = (
            rustix::process::getuid().as_raw(),
            rustix::process::geteuid().as_raw(),
        );
        let group = (
            rustix::process::getgid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let (uid, gid) = self.numbers();
        if user != (uid, uid) || group != (gid, gid) || (uid != 0 && sys::could_be_root_again()) {
            return Err(format!(
                "-u {}: the system says that we became that user, but we did not wholly",
                self.spelled
            ));
        }
        Ok(())
    }
}

/// Something that is written, made or removed after the privileges are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// A directory, or a file that exists.
    path: PathBuf,
    /// What fails there.
    why: &'static str,
}

impl Place {
    fn directory_of(path: &Path, why: &'static str) -> Self {
        let path = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        Self {
            path: path.into(),
            why,
        }
    }

    /// The message, when the effective user may not write here; `user` is how it is called.
    fn closed(&self, user: &Owner) -> Option<String> {
        let error = sys::may_write(&self.path).err()?;
        let path = self.path.display();
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => format!("make it: install -d -o {user} {path}"),
            _ if self.path.is_file() => format!("chown {user} {path}"),
            // Not the other way round: this may be a directory of the system.
            _ => format!(
                "use a directory of its own: install -d -o {user} DIR, or, where it is one, chown {user} {path}"
            ),
        };
        let remedy = remedy.replace(&format!("-o {user}"), &install_owner(user));
        Some(format!(
            "{path}: user {user} cannot write there ({error}), so {}; {remedy}",
            self.why
        ))
    }
}

/// The message, when the effective user may not read the configuration.
fn unreadable(file: &Path, user: &Owner) -> Option<String> {
    let error = fs::File::open(file).err()?;
    let file = file.display();
    Some(format!(
        "{file}: user {user} cannot read it ({error}), so a reload would fail (-c); chown {user} {file}, and have each \
         directory above it let {user} through"
    ))
}

/// The flags of install(1) for an owner.
fn install_owner(user: &Owner) -> String {
    let name = user.user.as_deref().unwrap_or_default();
    match &user.group {
        Some(group) => format!("-o {name} -g {group}"),
        None => format!("-o {name}"),
    }
}

/// Every place where the daemon writes once it is an ordinary user.
pub(crate) fn places(options: &Options, config: &Config) -> Vec<Place> {
    const SOCKET: &str = "a stop could not remove our sockets";
    let mut places = vec![Place::directory_of(
        &options.pid_file,
        "a stop could not remove the pid file (-P)",
    )];
    let control = config
        .clusters
        .iter()
        .filter_map(|cluster| match &cluster.address {
            Address::Path(path) => Some(path),
            Address::Ip(_) | Address::Host(..) => None,
        });
    for socket in control
        .chain([&options.admin_socket])
        .chain(&options.readonly_socket)
    {
        let place = Place::directory_of(socket, SOCKET);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    if let (LogTarget::File(path), false) = (&options.log_file, options.foreground) {
        let why = "a rotated log could not be reopened (-L)";
        let found = fs::metadata(path);
        // A device is written, not rotated: its directory does not matter.
        if !found.as_ref().is_ok_and(|found| !found.is_file()) {
            places.push(Place::directory_of(path, why));
        }
        if found.is_ok() {
            places.push(Place {
                path: path.clone(),
                why,
            });
        }
    }
    if let Some(path) = &options.state_dir {
        places.push(Place {
            path: path.clone(),
            why: "the session map could not be kept",
        });
    }
    places
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::daemon::options::{Asked, parse};

    fn options(line: &str) -> Options {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        match parse(&args) {
            Ok(Asked::Run(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    fn paths(line: &str) -> Vec<PathBuf> {
        places(&options(line), &Config::default())
            .into_iter()
            .map(|place| place.path)
            .collect()
    }

    #[test]
    fn each_directory_that_is_written_later_is_looked_at() {
        let all = paths("-P /a/pid -s /b/s -r /c/r -L /nonexistent-rtpc/log -S /e");
        let want = ["/a", "/b", "/c", "/nonexistent-rtpc", "/e"].map(PathBuf::from);
        assert_eq!(all, want);
        let sockets_once = paths("-f -P /a/pid -s /b/s -r /b/r");
        assert_eq!(sockets_once, ["/a", "/b"].map(PathBuf::from));
        let device = paths("-P /a/pid -s /b/s -L /dev/null");
        assert_eq!(device, ["/a", "/b", "/dev/null"].map(PathBuf::from));
        assert_eq!(Place::directory_of(Path::new("pid"), "").path, Path::new("."));
    }

    #[test]
    fn a_missing_directory_is_told_with_the_remedy() {
        let place = Place::directory_of(Path::new("/nonexistent-rtpc/x"), "x");
        let message = place.closed(&Owner::new("sip:media").unwrap()).unwrap();
        assert!(
            message.contains("install -d -o sip -g media /nonexistent-rtpc"),
            "{message}"
        );
    }

    #[test]
    fn nobody_to_become_and_nobody_of_that_name() {
        assert!(Identity::of(&options("")).unwrap().is_none());
        assert!(
            Identity::of(&options("-u no-such-user-here"))
                .unwrap_err()
                .contains("no-such-user-here")
        );
    }
}
