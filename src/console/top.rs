//! The live view.

use super::daemon::{Daemon, Trouble};
use super::{Ending, batch};

/// Whether it is asked for.
pub(super) fn is_asked(words: &str) -> bool {
    words == "top"
}

/// Runs it.
pub(super) fn run(mut daemon: Daemon, _: &str) -> Result<Ending, Trouble> {
    batch::one(&mut daemon, "ls", false)
}
