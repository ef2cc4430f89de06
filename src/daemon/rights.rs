//! Who may connect: owners and modes of sockets, from the configuration, the command line, and whom we become.

use super::options::{Options, Owner};
use crate::config::model::SocketRights;
use crate::rim::sys;
use crate::sockets::listener::Rights;

/// The numbers of an owner: of its user and of its group, where they are named.
///
/// # Errors
/// When there is no such user or group, or `text` is none of `USER`, `USER:GROUP`, `:GROUP`.
pub fn resolve_owner(text: &str) -> Result<(Option<u32>, Option<u32>), String> {
    let owner =
        Owner::new(text).ok_or_else(|| format!("owner \"{text}\": want USER, USER:GROUP or :GROUP"))?;
    numbers(owner.user.as_deref(), owner.group.as_deref())
}

/// Rights of a cluster's control socket: those of its configuration first, then `-o` and `-m`, then our own user.
///
/// # Errors
/// When a user or group that is named does not exist.
pub fn of_control_socket(options: &Options, own: &SocketRights) -> Result<Rights, String> {
    let (uid, gid) = numbers(own.user.as_deref(), own.group.as_deref())?;
    let asked = rights(options, options.socket_owner.as_ref(), options.socket_mode)?;
    Ok(Rights {
        uid: uid.or(asked.uid),
        gid: gid.or(asked.gid),
        mode: own.mode.unwrap_or(asked.mode),
    })
}

/// Rights of an admin socket: `--admin-owner` and `--admin-mode`, or the `--readonly-mode` of the one that only reads, else
/// our own user.
///
/// # Errors
/// When a user or group that is named does not exist.
pub fn of_admin_socket(options: &Options, read_only: bool) -> Result<Rights, String> {
    let mode = if read_only {
        options.readonly_mode
    } else {
        options.admin_mode
    };
    rights(options, options.admin_owner.as_ref(), mode)
}

/// `owner` where it is named, else the user that we become: what is bound before must be ours afterwards.
fn rights(options: &Options, owner: Option<&Owner>, mode: u32) -> Result<Rights, String> {
    let (uid, gid) = match owner {
        Some(owner) => numbers(owner.user.as_deref(), owner.group.as_deref())?,
        None => (None, None),
    };
    let us = options.user.as_ref().map(identity).transpose()?;
    let user = us.as_ref().map(|(account, _)| account.uid);
    let group = us.as_ref().map(|&(_, gid)| gid);
    Ok(Rights {
        uid: uid.or(user),
        gid: gid.or(group),
        mode,
    })
}

/// A user whom a process can be, and its group: the one that `owner` names, else the user's primary group.
pub(super) fn identity(owner: &Owner) -> Result<(sys::Account, u32), String> {
    let account = account(owner.user.as_deref().unwrap_or_default())?;
    let gid = match &owner.group {
        Some(name) => group(name)?,
        None => account.gid,
    };
    Ok((account, gid))
}

fn numbers(user: Option<&str>, group_name: Option<&str>) -> Result<(Option<u32>, Option<u32>), String> {
    Ok((user.map(uid).transpose()?, group_name.map(group).transpose()?))
}

fn uid(name: &str) -> Result<u32, String> {
    match sys::uid(name) {
        Ok(Some(uid)) => Ok(uid),
        // Says why there is none.
        Ok(None) | Err(_) => account(name).map(|account| account.uid),
    }
}

fn account(name: &str) -> Result<sys::Account, String> {
    match sys::account(name) {
        Ok(Some(account)) => Ok(account),
        Ok(None) => Err(format!("user \"{name}\": there is no such user on this machine")),
        Err(error) => Err(format!("user \"{name}\": cannot read the user database: {error}")),
    }
}

fn group(name: &str) -> Result<u32, String> {
    match sys::group(name) {
        Ok(Some(gid)) => Ok(gid),
        Ok(None) => Err(format!(
            "group \"{name}\": there is no such group on this machine"
        )),
        Err(error) => Err(format!(
            "group \"{name}\": cannot read the group database: {error}"
        )),
    }
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

    #[test]
    fn names_become_numbers_and_a_missing_one_is_named() {
        assert_eq!(resolve_owner("root:daemon"), Ok((Some(0), Some(1))));
        assert_eq!(resolve_owner("root"), Ok((Some(0), None)));
        assert_eq!(resolve_owner(":daemon"), Ok((None, Some(1))));
        assert_eq!(
            resolve_owner("4000000001:4000000002"),
            Ok((Some(4_000_000_001), Some(4_000_000_002)))
        );
        assert!(resolve_owner("nobody-here").unwrap_err().contains("nobody-here"));
        assert!(resolve_owner("root:nobody-here").unwrap_err().contains("group"));
        assert!(resolve_owner("a:b:c").unwrap_err().contains("USER:GROUP"));
    }

    #[test]
    fn the_configuration_wins_over_the_command_line_and_that_over_our_own_user() {
        let none = SocketRights::default();
        let plain = options("");
        assert_eq!(
            of_control_socket(&plain, &none),
            Ok(Rights {
                uid: None,
                gid: None,
                mode: 0o660
            })
        );
        let flags = options("-u daemon -o bin -m 0600");
        let own = SocketRights {
            group: Some("root".into()),
            mode: Some(0o666),
            ..none.clone()
        };
        assert_eq!(
            of_control_socket(&flags, &none),
            Ok(Rights {
                uid: Some(2),
                gid: Some(1),
                mode: 0o600
            })
        );
        assert_eq!(
            of_control_socket(&flags, &own),
            Ok(Rights {
                uid: Some(2),
                gid: Some(0),
                mode: 0o666
            })
        );
        assert_eq!(
            of_admin_socket(&flags, true),
            Ok(Rights {
                uid: Some(1),
                gid: Some(1),
                mode: 0o660
            })
        );
        let admins = options("-u daemon --admin-owner :root --admin-mode 0600 --readonly-mode 0640");
        assert_eq!(
            of_admin_socket(&admins, true).map(|rights| rights.mode),
            Ok(0o640)
        );
        assert_eq!(
            of_admin_socket(&admins, false),
            Ok(Rights {
                uid: Some(1),
                gid: Some(0),
                mode: 0o600
            })
        );
    }
}
