//! What a loop waits for: descriptors that become ready, and a wake-up from other threads. Over `mio`, which is epoll
//! on Linux and kqueue on a BSD, edge by edge: who is told that a descriptor is ready reads or writes until it is not.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use super::{idle, now};

/// Events taken from the system in one turn.
const EVENTS: usize = 1024;
/// The token of the wake-up.
const WAKE: usize = usize::MAX;

/// Something is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// What it was registered as.
    pub token: usize,
    /// It can be read, has ended, or has failed.
    pub readable: bool,
    /// It can be written, or has failed.
    pub writable: bool,
}

/// What a loop blocks in.
#[derive(Debug)]
pub struct Poller {
    poll: Poll,
    events: Events,
}

impl Poller {
    /// Nothing registered yet.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
        })
    }

    /// A queue of at most `bound` messages to this loop. One poller has one.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn mailbox<T>(&self, bound: usize) -> io::Result<(Mailbox<T>, Receiver<T>)> {
        let waker = Arc::new(Waker::new(self.poll.registry(), Token(WAKE))?);
        let (queue, messages) = bounded(bound);
        Ok((Mailbox { queue, waker }, messages))
    }

    /// Where descriptors are registered.
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Waits until something is ready or it is `until`; `Some` of a moment that has passed does not wait. What is ready
    /// goes into `ready`, the wake-up excepted.
    ///
    /// # Errors
    /// What the system says; an interruption is none.
    pub fn wait(&mut self, until: Option<Instant>, ready: &mut Vec<Ready>) -> io::Result<()> {
        // The system counts milliseconds: a little late rather than early, which would be a turn for nothing.
        let patience = until.map(|until| {
            let left = until.saturating_duration_since(now());
            Duration::from_millis(u64::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX))
        });
        match idle(|| self.poll.poll(&mut self.events, patience)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        ready.extend(
            self.events
                .iter()
                .filter(|event| event.token() != Token(WAKE))
                .map(|event| Ready {
                    token: event.token().0,
                    readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                    writable: event.is_writable() || event.is_error(),
                }),
        );
        Ok(())
    }
}

/// Where one thing registers its descriptors: each as `base` and a number of its own, 256 at most.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    /// Of the loop.
    pub registry: &'a Registry,
    /// The token of its first descriptor.
    pub base: usize,
}

impl Spot<'_> {
    /// Tells of `fd` when it can be read.
    ///
    /// # Errors
    /// When the system has no room for it.
    pub fn watch(self, fd: impl AsFd, number: usize) -> io::Result<()> {
        SourceFd(&fd.as_fd().as_raw_fd()).register(
            self.registry,
            Token(self.base + number),
            Interest::READABLE,
        )
    }

    /// Tells of `fd` when it can be read or written.
    ///
    /// # Errors
    /// When the system has no room for it.
    pub fn watch_both(self, fd: impl AsFd, number: usize) -> io::Result<()> {
        SourceFd(&fd.as_fd().as_raw_fd()).register(
            self.registry,
            Token(self.base + number),
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Tells of `fd`, which is watched, when it can be read, and, with `writes`, when it can be written. What is ready
    /// now is told once more.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn rewatch(self, fd: impl AsFd, number: usize, writes: bool) -> io::Result<()> {
        let interest = if writes {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        SourceFd(&fd.as_fd().as_raw_fd()).reregister(self.registry, Token(self.base + number), interest)
    }

    /// Tells no more of `fd`. One that is closed is told of no more by itself.
    pub fn unwatch(self, fd: impl AsFd) {
        SourceFd(&fd.as_fd().as_raw_fd()).deregister(self.registry).ok();
    }
}

/// The way to a loop from other threads: a bounded queue and a wake-up.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Sender<T>,
    waker: Arc<Waker>,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            waker: Arc::clone(&self.waker),
        }
    }
}

impl<T> Mailbox<T> {
    /// A message that must not be lost: waits for room, which the loop always makes. Says no when the loop has ended.
    pub fn post(&self, message: T) -> bool {
        let sent = match self.queue.try_send(message) {
            Ok(()) => true,
            Err(TrySendError::Disconnected(_)) => false,
            Err(TrySendError::Full(message)) => {
                self.wake();
                self.queue.send(message).is_ok()
            }
        };
        self.wake();
        sent
    }

    /// A message that may be lost when there is no room: it will be sent again, or another in its place.
    pub fn try_post(&self, message: T) -> bool {
        let sent = self.queue.try_send(message).is_ok();
        self.wake();
        sent
    }

    /// A message that has time until the loop wakes up by itself. It is lost when there is no room.
    pub fn leave(&self, message: T) {
        if self.queue.try_send(message).is_err() {
            self.wake();
        }
    }

    /// Has the loop take a turn, without a message.
    pub fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("waking a thread: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_ready_is_told_and_a_message_wakes() {
        let mut poller = Poller::new().unwrap();
        let (mailbox, messages) = poller.mailbox(1).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let spot = Spot {
            registry: poller.registry(),
            base: 7,
        };
        spot.watch(&theirs, 2).unwrap();
        let mut ready = Vec::new();
        ours.write_all(b"x").unwrap();
        poller.wait(None, &mut ready).unwrap();
        assert_eq!(
            ready,
            [Ready {
                token: 9,
                readable: true,
                writable: false
            }]
        );
        ready.clear();
        assert!(mailbox.try_post(1));
        assert!(!mailbox.try_post(2), "there is room for one");
        poller.wait(None, &mut ready).unwrap();
        assert!(ready.is_empty());
        assert_eq!(messages.try_recv(), Ok(1));
        drop(messages);
        assert!(!mailbox.post(3), "nobody takes it");
    }

    #[test]
    fn a_moment_that_has_passed_is_not_waited_for() {
        let mut poller = Poller::new().unwrap();
        let mut ready = Vec::new();
        poller.wait(Some(now()), &mut ready).unwrap();
        assert!(ready.is_empty());
    }
}
