//! A successor takes over: nothing changes here from its question to its answer, and when it can serve we stop as if a
//! SIGTERM had come, with everything left where it is. It may take its time, so a thread waits for it, one at a time, that
//! there is only then.

use std::os::unix::net::UnixStream;

use signal_hook::consts::SIGTERM;

use super::Shared;
use crate::dispatch::event::Subject;
use crate::rim::{idle, spawn};

impl Shared {
    /// Gives everything to who asks over `stream`; closed, it knows that it gets nothing.
    pub(super) fn begin_takeover(&self, stream: UnixStream) {
        let mut takeover = self.takeover.lock();
        if takeover.as_ref().is_some_and(|thread| !thread.is_finished()) {
            log::warn!("a takeover is under way: another one gets nothing");
            return;
        }
        if let Some(ended) = takeover.take() {
            ended.join();
        }
        let shared = self.this.clone();
        let started = spawn("takeover", move || {
            if let Some(shared) = shared.upgrade() {
                shared.hand_over(stream);
            }
        });
        match started {
            Ok(thread) => *takeover = Some(thread),
            Err(error) => log::error!("a takeover has come to nothing, serving on: {error}"),
        }
    }

    /// Gives every socket to who asks over `stream`, and has the main thread stop once that one can serve.
    fn hand_over(&self, stream: UnixStream) {
        // What a reload bound now would be missing there.
        let _change = idle(|| self.changes.lock());
        match self.sockets.hand_over(stream) {
            Ok((pid, waits)) => {
                *self.successor.lock() = Some(waits);
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
