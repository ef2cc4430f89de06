//! Threads and time for the rim. Every thread starts here, so that it has a name in `top -H` and an end that
//! its owner waits for; every clock reading of the program is [`now`].

use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

/// The monotonic clock. Only threads of the rim call this, once an event; pure code is given the value.
#[must_use]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
    Instant::now()
}

/// A running thread. Whoever holds it stops it (by closing what it waits for) and then calls [`Thread::join`].
#[derive(Debug)]
pub struct Thread {
    handle: JoinHandle<()>,
}

impl Thread {
    /// Waits until the thread has ended.
    pub fn join(self) {
        // A panic has ended the process already in a release build (`panic = "abort"`), and been printed.
        if self.handle.join().is_err() {
            log::error!("a thread panicked");
        }
    }

    /// Whether the thread has ended by itself.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

/// Starts a thread called `name` (15 bytes of it survive in the kernel: `cluster-0`, `reply-0.3`).
///
/// # Errors
/// When the system has no more threads to give.
pub fn spawn(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    let handle = Builder::new().name(name.into()).spawn(body)?;
    Ok(Thread { handle })
}
