//! A successor takes over: nothing changes here from its question to its answer, and when it serves we stop as if a
//! SIGTERM had come, with everything left where it is.

use std::os::unix::net::UnixStream;

use signal_hook::consts::SIGTERM;

use super::Shared;
use crate::dispatch::event::Subject;

impl Shared {
    /// Gives every socket to who asks over `stream`, and has the main thread stop once that one serves.
    pub(super) fn hand_over(&self, stream: UnixStream) {
        // What a reload bound now would be missing there.
        let _change = self.changes.lock();
        match self.sockets.hand_over(stream) {
            Ok(pid) => {
                let why = format!("process {pid} has taken over and serves");
                self.tell(Subject::Daemon, "leaving", &why);
                log::warn!(successor = pid; "process {pid} has taken over and serves: leaving");
                if let Err(error) = signal_hook::low_level::raise(SIGTERM) {
                    log::error!("cannot stop after the takeover: {error}");
                }
            }
            Err(error) => log::warn!("a takeover has come to nothing, serving on: {error}"),
        }
    }
}
