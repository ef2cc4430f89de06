//! How clients go from the cluster thread to the slow thread and back.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::connections::CONNECTIONS_MAX;
use super::kept::{Kept, Talk};
use super::slow_thread::Slow;

/// Entries of the queue: a connection is handed over at most twice at a time, to be watched and for what is left of
/// its replies.
const QUEUE: usize = 2 * CONNECTIONS_MAX;

/// What the slow thread is handed.
#[derive(Debug)]
pub enum Case {
    /// A client of a UNIX socket whose command is not whole.
    Slow(Slow),
    /// A kept connection that is idle, stalled or over.
    Talk(Talk),
    /// A kept connection that did not take all of its replies.
    Rest(Arc<Kept>),
    /// The cluster thread has ended: no more commands.
    Closing,
}

/// The others' end: hands clients over.
#[derive(Debug)]
pub struct SlowClients {
    queue: Sender<Case>,
    wake: UnixStream,
}

impl SlowClients {
    /// The two ends: what the cluster thread and kept connections hold, and what the slow thread takes.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn pair() -> std::io::Result<(Arc<Self>, Inbox)> {
        let (wake, woken) = waker()?;
        let (queue, cases) = bounded(QUEUE);
        Ok((Arc::new(Self { queue, wake }), Inbox { cases, woken }))
    }

    /// Hands a client over.
    pub fn take(&self, case: Case) {
        // A thread that has ended, or a full queue, which does not come about: what is handed over is closed.
        if let Err(TrySendError::Full(Case::Rest(kept)) | TrySendError::Disconnected(Case::Rest(kept))) =
            self.queue.try_send(case)
        {
            kept.break_off();
        }
        self.wake();
    }

    /// Has it look at those that were stalled, and at those that are over.
    pub fn wake(&self) {
        // A full pipe wakes it as well.
        let _ = (&self.wake).write(&[0]);
    }
}

/// The slow thread's end. It ends when nobody holds the other.
#[derive(Debug)]
pub struct Inbox {
    pub(super) cases: Receiver<Case>,
    pub(super) woken: UnixStream,
}

/// The slow thread's way back to the cluster thread, for connections that have something to say again.
#[derive(Debug)]
pub struct WayBack {
    queue: Sender<Talk>,
    wake: UnixStream,
}

/// The other end of it.
#[derive(Debug)]
pub struct Returned {
    pub(super) talks: Receiver<Talk>,
    pub(super) woken: UnixStream,
}

impl WayBack {
    /// The two ends.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn pair() -> std::io::Result<(Self, Returned)> {
        let (wake, woken) = waker()?;
        let (queue, talks) = bounded(CONNECTIONS_MAX);
        Ok((Self { queue, wake }, Returned { talks, woken }))
    }

    pub(super) fn take(&self, talk: Talk) {
        // When the cluster thread has ended nobody takes its commands any more.
        self.queue.try_send(talk).ok();
        let _ = (&self.wake).write(&[0]);
    }
}

/// A pipe whose reader is woken by a byte, and told by its end that no more will come.
fn waker() -> std::io::Result<(UnixStream, UnixStream)> {
    let (wake, woken) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    Ok((wake, woken))
}
