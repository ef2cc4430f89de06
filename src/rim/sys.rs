//! System calls that neither std nor rustix offers, each behind a safe function. All `unsafe` of the daemon is here.

#![expect(
    unsafe_code,
    reason = "calls of the C library; each block says why it is sound"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;
use std::time::Duration;

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Longest record of the user database that is read, in bytes; a group of ten thousand members is shorter.
const RECORD_MAX: usize = 1 << 20;

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// As the user database spells it; `None` for a number that it does not have, as in a container.
    pub(crate) name: Option<CString>,
    pub(crate) uid: u32,
    /// The primary group; the same number where the database does not have the user.
    pub(crate) gid: u32,
}

/// The user of that name, or else of that number; `None` when it is neither.
pub(crate) fn account(text: &str) -> io::Result<Option<Account>> {
    let Ok(name) = CString::new(text) else {
        return Ok(None);
    };
    let by_name = |record, buffer, size, found| {
        // SAFETY: the name outlives the call; `record` passes a place, a buffer of that size, and a pointer.
        unsafe { libc::getpwnam_r(name.as_ptr(), record, buffer, size, found) }
    };
    if let Some(account) = record(by_name, to_account)? {
        return Ok(Some(account));
    }
    let Some(uid) = number(text) else { return Ok(None) };
    let by_number = |record, buffer, size, found| {
        // SAFETY: as above.
        unsafe { libc::getpwuid_r(uid, record, buffer, size, found) }
    };
    let known = record(by_number, to_account)?;
    Ok(known.or(Some(Account {
        name: None,
        uid,
        gid: uid,
    })))
}

/// A number of a user or group. The highest is none: to the system it says "as before".
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&number| number != u32::MAX)
}

/// The number of the user of that name, or else the number that `text` is, as in a container without entries for its
/// users; `None` when it is neither.
pub(crate) fn uid(text: &str) -> io::Result<Option<u32>> {
    let known = account(text)?.map(|account| account.uid);
    Ok(known.or_else(|| text.parse().ok()))
}

/// The number of the group of that name, or else the number that `text` is; `None` when it is neither.
pub(crate) fn group(text: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(text) else {
        return Ok(None);
    };
    let by_name = |record, buffer, size, found| {
        // SAFETY: the name outlives the call; `record` passes a place, a buffer of that size, and a pointer.
        unsafe { libc::getgrnam_r(name.as_ptr(), record, buffer, size, found) }
    };
    let named = record(by_name, |record: &libc::group| record.gr_gid)?;
    Ok(named.or_else(|| number(text)))
}

fn to_account(record: &libc::passwd) -> Account {
    // SAFETY: the record's name is a C string in the buffer, which lives until we return.
    let name = unsafe { CStr::from_ptr(record.pw_name) }.to_owned();
    Account {
        name: Some(name),
        uid: record.pw_uid,
        gid: record.pw_gid,
    }
}

/// Calls one of the `get…_r` family with a buffer that grows until the record fits, and reads what it found.
fn record<R, T>(
    call: impl Fn(*mut R, *mut libc::c_char, usize, *mut *mut R) -> libc::c_int,
    read: impl Fn(&R) -> T,
) -> io::Result<Option<T>> {
    let mut size = 1024;
    loop {
        let mut buffer: Vec<libc::c_char> = vec![0; size];
        let mut place = MaybeUninit::<R>::uninit();
        let mut found = ptr::null_mut();
        match call(
            place.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        ) {
            0 => {
                // SAFETY: null, or our own `place`, filled by the call.
                let found = unsafe { found.as_ref() };
                return Ok(found.map(read));
            }
            libc::ERANGE if size < RECORD_MAX => size *= 2,
            libc::EINTR => {}
            // Some libraries say so of a name that is not there.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Takes from this process, and from all that it might start, what the super-user's files could give back: the bounding
/// set of capabilities, and programs that run as their owner. Nothing where the system has no such thing.
pub(crate) fn give_up_privileges() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        /// More than any kernel knows, which refuses the first one too many.
        const CAPABILITIES: libc::c_ulong = 64;
        let unused: libc::c_ulong = 0;
        for capability in 0..CAPABILITIES {
            // SAFETY: takes numbers, changes this process only.
            let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, unused, unused, unused) };
            match check(done).map_err(|error| error.raw_os_error()) {
                Ok(()) => {}
                // Past the last one; or a container that lets nobody change the set: then what follows must do.
                Err(Some(libc::EINVAL | libc::EPERM)) => break,
                Err(_) => return check(done),
            }
        }
        let set: libc::c_ulong = 1;
        // SAFETY: takes numbers, changes this process only.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, set, unused, unused, unused) })?;
    }
    Ok(())
}

/// Becomes `account` with the group `gid` for good: supplementary groups, group, user, in this order, since each
/// step takes away the right to take the one before it.
pub(crate) fn become_user(account: &Account, gid: u32) -> io::Result<()> {
    set_groups_of(account, gid)?;
    // SAFETY: takes a number, changes credentials only.
    check(unsafe { libc::setgid(gid) })?;
    // SAFETY: takes a number, changes credentials only.
    check(unsafe { libc::setuid(account.uid) })
}

/// Whether this process, having left the super-user, could become it again. It tries.
pub(crate) fn could_be_root_again() -> bool {
    // SAFETY: takes a number, changes credentials only.
    let became = unsafe { libc::seteuid(0) };
    became == 0
}

/// Runs `what` with the effective rights of `account` and `gid`, then takes the super-user's back.
/// For a process that has one thread.
///
/// # Errors
/// When the system lets us not become that user, or not come back; the process must end then.
pub(crate) fn acting_as<T>(account: &Account, gid: u32, what: impl FnOnce() -> T) -> io::Result<T> {
    let groups = rustix::process::getgroups()?;
    let groups: Vec<libc::gid_t> = groups.iter().map(|group| group.as_raw()).collect();
    let (uid_before, gid_before) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    set_groups_of(account, gid)?;
    set_effective_group(gid)?;
    set_effective_user(account.uid)?;
    let result = what();
    set_effective_user(uid_before)?;
    set_effective_group(gid_before)?;
    // SAFETY: the list outlives the call and has the length that is told.
    check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
    Ok(result)
}

fn set_groups_of(account: &Account, gid: u32) -> io::Result<()> {
    match &account.name {
        // SAFETY: the name is a C string that outlives the call.
        Some(name) => check(unsafe { libc::initgroups(name.as_ptr(), gid) }),
        // SAFETY: a list of one, which outlives the call.
        None => check(unsafe { libc::setgroups(1, &raw const gid) }),
    }
}

fn set_effective_user(uid: u32) -> io::Result<()> {
    // SAFETY: takes a number, changes credentials only.
    check(unsafe { libc::seteuid(uid) })
}

fn set_effective_group(gid: u32) -> io::Result<()> {
    // SAFETY: takes a number, changes credentials only.
    check(unsafe { libc::setegid(gid) })
}

/// Whether something keeps the clock of this machine right, as the kernel has been told; `None` where it does not say.
#[cfg(target_os = "linux")]
pub(crate) fn clock_is_kept() -> Option<bool> {
    // SAFETY: it is numbers only, and with its modes at 0 the call reads.
    let state = unsafe { libc::adjtimex(&mut core::mem::zeroed()) };
    (state >= 0).then_some(state != libc::TIME_ERROR)
}

/// Whether something keeps the clock of this machine right: nothing tells here.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn clock_is_kept() -> Option<bool> {
    None
}

/// Whether the effective user may write `path`, which for a directory means making and removing files there.
pub(crate) fn may_write(path: &Path) -> io::Result<()> {
    let mode = if path.is_dir() {
        libc::W_OK | libc::X_OK
    } else {
        libc::W_OK
    };
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that outlives the call.
    check(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) })
}

/// Closes what we inherited beside the standard streams. A daemon that holds on to somebody's pipe keeps him waiting
/// for its end: a package's installation, say, or a remote shell. To be called before anything is opened.
pub(crate) fn close_inherited() {
    // Kernels before 5.9 do not know the call; then the daemon lives with what it has, as on other systems.
    #[cfg(target_os = "linux")]
    // SAFETY: nothing of ours owns a descriptor yet.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// The `count` descriptors behind the standard streams, which whoever started us gives away; `None` for one that is
/// not open. What we start in turn does not get them. To be called once, before anything is opened.
pub(crate) fn take_descriptors(count: u32) -> Vec<Option<OwnedFd>> {
    let first = libc::STDERR_FILENO + 1;
    (first..)
        .zip(0..count)
        .map(|(number, _)| {
            // SAFETY: sets a flag of whatever that descriptor is; nothing, where it is not open.
            let open = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
            // SAFETY: it is open, and nothing of ours owns a descriptor yet.
            open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
        })
        .collect()
}

/// The reading of CLOCK_MONOTONIC, which systemd wants with RELOADING=1 and which `Instant` does not show.
pub(crate) fn monotonic() -> Duration {
    let mut reading = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: fills a value that we own; this clock exists on every system we build for.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut reading) };
    let seconds = u64::try_from(reading.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(reading.tv_nsec).unwrap_or_default())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        let root = account("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(account("0").unwrap().unwrap(), root);
        assert_eq!(account("no-such-user-here").unwrap(), None);
        assert_eq!(account("nul\0").unwrap(), None);
        let unknown = account("3999999999").unwrap().unwrap();
        assert_eq!(
            (unknown.name, unknown.uid, unknown.gid),
            (None, 3_999_999_999, 3_999_999_999)
        );
        assert_eq!(account("4294967295").unwrap(), None);
        assert_eq!(group("4294967295").unwrap(), None);
        assert_eq!(group("daemon").unwrap(), Some(1));
        assert_eq!(group("4711").unwrap(), Some(4711));
        assert_eq!(group("no-such-group-here").unwrap(), None);
    }

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let first = monotonic();
        assert!(first > Duration::ZERO);
        assert!(monotonic() >= first);
    }
}
