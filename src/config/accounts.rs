//! Whether the users and groups that a file names are there: the user database is asked. Rim.

use super::fault::quoted;
use super::model::SocketRights;
use crate::rim::sys;

/// Whether user and group of `rights` can own a socket; a number can, also without an entry.
///
/// # Errors
/// The one that cannot.
pub(super) fn exist(rights: &SocketRights) -> Result<(), String> {
    let asked = [
        ("user", &rights.user, sys::uid as fn(&str) -> _),
        ("group", &rights.group, sys::group),
    ];
    for (kind, name, number) in asked {
        let Some(name) = name else { continue };
        let found = number(name);
        let found =
            found.map_err(|error| format!("{kind} {}: cannot be looked up: {error}", quoted(name)))?;
        if found.is_none() {
            let name = quoted(name);
            return Err(format!(
                "socket owner: there is no {kind} {name} on this machine: want one that exists, or a number"
            ));
        }
    }
    Ok(())
}
