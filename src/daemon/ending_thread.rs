//! The thread that a second SIGTERM or SIGINT wakes: whatever any other thread is at, our files are removed, the log is
//! told, and the process ends. It does nothing else, and a third signal needs not even it.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::low_level::{exit, pipe};

use super::signal_thread::AT_ONCE;
use crate::rim::{self, Thread, idle};

/// Signals that ask for the end, each a byte from its very arrival on.
#[derive(Debug)]
pub(crate) struct Endings {
    arrived: UnixStream,
    /// Whether the next one ends the process in its handler.
    hurried: Arc<AtomicBool>,
}

impl Endings {
    /// Counts from now on. To be called after the last fork.
    pub(crate) fn register() -> io::Result<Self> {
        let (arrived, sent) = UnixStream::pair()?;
        let hurried = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            register_conditional_shutdown(signal, AT_ONCE, Arc::clone(&hurried))?;
            pipe::register(signal, sent.try_clone()?)?;
        }
        Ok(Self { arrived, hurried })
    }

    /// Whether a second one has come. It waits for that, or for [`Ending::stop`].
    fn second(mut self) -> bool {
        let mut byte = [0];
        let second = (0..2).all(|_| idle(|| self.arrived.read_exact(&mut byte)).is_ok());
        self.hurried.store(second, Ordering::Release);
        second
    }
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Ending {
    stop: UnixStream,
    thread: Thread,
}

impl Ending {
    /// Starts it; `remove` removes our files, while others may be at that as well.
    ///
    /// # Errors
    /// When the system has no descriptor or no thread to give.
    pub(crate) fn start(endings: Endings, remove: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let stop = endings.arrived.try_clone()?;
        let thread = rim::spawn("ending", move || {
            if endings.second() {
                remove();
                log::warn!("a second signal to stop: ending at once, what is in flight is not answered");
                exit(AT_ONCE);
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Nothing is left to be ended in a hurry.
    pub(crate) fn stop(self) {
        // It fails when there is no other end, and then the thread has ended.
        let _ = self.stop.shutdown(Shutdown::Read);
        self.thread.join();
    }
}
