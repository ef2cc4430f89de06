//! The prompt.

use std::io;

use super::daemon::{Daemon, Trouble};
use super::{Ending, batch};

/// Runs it.
pub(super) fn run(mut daemon: Daemon) -> Result<Ending, Trouble> {
    batch::script(&mut daemon, io::stdin().lock(), false)
}
