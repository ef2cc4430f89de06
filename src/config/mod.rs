//! The configuration: what a file says, as values.
//!
//! [`read`] takes a file from the disk, [`parse`] makes a [`model::Config`] of it or lists all that is wrong,
//! [`write`] prints one as a file, [`diff`] says where two differ. `fields` reads single values, for files and for
//! the admin interface alike, and [`ELEMENTS`] is the one table of all that can be said. Only `read` touches the
//! disk, only `accounts` asks the user database, everything else is text in, values out. There is no search for a file, no include and no variable.

mod accounts;
pub mod address;
mod check;
mod diff;
mod doubts;
mod elements;
mod encoding;
mod fault;
pub mod fields;
mod hints;
pub mod model;
pub mod pairs;
mod parse;
mod read;
mod tree;
mod value;
mod write;

use std::path::Path;

pub use check::{check_cluster_fits, check_member_fits};
pub use diff::{diff, undone};
pub use elements::{Attribute, CLUSTER, ELEMENTS, Element, Holder, MEMBER, POOL, Range, Times, children};
pub use fault::{FAULTS_MAX, Fault, Faults, Position};
pub use pairs::Setting;
pub use parse::parse;
pub use read::read;
pub use value::Value;
pub use write::write;

/// Bytes of a file: room for some 20,000 members, read and parsed in well under a second.
pub const FILE_MAX: usize = 4 << 20;

/// A configuration without fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// What the file says.
    pub config: model::Config,
    /// What is allowed but probably not meant, in the order of the file.
    pub warnings: Vec<Fault>,
}

/// Reads and parses the file at `path`; owners of sockets must exist on this machine. The contents come along for the one who later asks whether the file has
/// changed.
///
/// # Errors
/// The file's one fault when it cannot be read, else all of its text.
pub fn load(path: &Path) -> Result<(Parsed, Vec<u8>), Faults> {
    let contents = read(path)?;
    let parsed = parse::checked(path, &contents, accounts::exist)?;
    Ok((parsed, contents))
}
