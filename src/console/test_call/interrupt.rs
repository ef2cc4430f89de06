//! A test that is told to end deletes its session first: signals come over a pipe that every wait looks at. Part of
//! the rim.

use core::cell::Cell;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{SigId, flag, low_level};

use crate::rim;

/// As long as it lives, signals that would end the process end what waits here.
#[derive(Debug)]
pub(crate) struct Interrupt {
    pipe: UnixStream,
    begun: Instant,
    /// What cleans up waits all the same.
    deaf: Cell<bool>,
    /// Where the process had nobody who looked at signals: what to take back.
    own: Option<(Vec<SigId>, Arc<AtomicBool>)>,
}

/// How a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Ready,
    Late,
    Interrupted,
}

impl Interrupt {
    /// Over the pipe of a prompt, which knows of Ctrl-C already; or over one of its own.
    pub(crate) fn new(prompt: Option<UnixStream>) -> io::Result<Self> {
        let begun = rim::now();
        if let Some(pipe) = prompt {
            return Ok(Self {
                pipe,
                begun,
                deaf: Cell::new(false),
                own: None,
            });
        }
        let (pipe, signals) = UnixStream::pair()?;
        let over = Arc::new(AtomicBool::new(false));
        let mut ids = Vec::new();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Once it is over, a signal does again what it did before.
            flag::register_conditional_default(signal, Arc::clone(&over))?;
            ids.push(low_level::pipe::register(signal, signals.try_clone()?)?);
        }
        Ok(Self {
            pipe,
            begun,
            deaf: Cell::new(false),
            own: Some((ids, over)),
        })
    }

    /// When it was made.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// Does `work`, which a signal does not end.
    pub(crate) fn ignored<T>(&self, work: impl FnOnce() -> T) -> T {
        self.deaf.set(true);
        let done = work();
        self.deaf.set(false);
        done
    }

    /// Waits until one of the sockets can be read.
    pub(crate) fn wait(&self, sockets: &[BorrowedFd<'_>], until: Instant) -> Wait {
        loop {
            let left = until.saturating_duration_since(rim::now());
            let pipe = (!self.deaf.get()).then(|| self.pipe.as_fd());
            let mut polled: Vec<PollFd<'_>> = pipe
                .into_iter()
                .chain(sockets.iter().copied())
                .map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN))
                .collect();
            // An error of the system's is met again at the read.
            let count = poll(&mut polled, Timespec::try_from(left).ok().as_ref());
            let first = polled.first().is_some_and(|pipe| !pipe.revents().is_empty());
            if first && !self.deaf.get() {
                return Wait::Interrupted;
            }
            match count {
                Ok(0) if rim::now() >= until => return Wait::Late,
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                _ => return Wait::Ready,
            }
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some((ids, over)) = self.own.take() {
            over.store(true, Ordering::Release);
            for id in ids {
                low_level::unregister(id);
            }
        }
    }
}
