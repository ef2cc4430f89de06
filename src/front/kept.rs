//! A kept connection, by CUNIX or TCP. It has two sides that know little of each other: [`Kept`], through which
//! replies go out, from whatever thread has them; and [`Talk`], from which commands come, held by the one thread that
//! reads it: the cluster thread while it is in use, the slow thread while it is idle, stalled or over.
//!
//! A connection is closed when nobody holds it any more. So a client that has ended its own side still gets the
//! replies to what it wrote before, and after the last of them the end of ours.

use core::sync::atomic::{AtomicBool, Ordering};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::connections::Place;
use super::handover::{Case, SlowClients};
use super::order::{After, Replies, Take};
use crate::dispatch::rewrite::Origin;
use crate::protocol::command::ErrorCode;
use crate::protocol::reply::write_error;

/// Bytes that are read and thrown away before a connection is closed: closing with bytes unread would reset it
/// under its last reply.
const DRAIN_MAX: usize = 64 * 1024;

/// The side of the replies.
#[derive(Debug)]
pub struct Kept {
    stream: OwnedFd,
    origin: Origin,
    replies: Mutex<Replies>,
    /// No command is taken any more.
    over: AtomicBool,
    slow: Arc<SlowClients>,
    _place: Place,
}

/// One command of a kept connection, which waits for its reply. Dropped without one, it ends the connection.
#[derive(Debug)]
pub struct Turn {
    kept: Arc<Kept>,
    number: u64,
    answered: bool,
}

/// The side of the commands.
#[derive(Debug)]
pub struct Talk {
    /// The other side.
    pub(super) kept: Arc<Kept>,
    /// What has been read and not been served.
    pub(super) text: Vec<u8>,
    /// When the line that has no end yet began.
    pub(super) line_since: Option<Instant>,
    /// When something was last heard.
    pub(super) heard: Instant,
    /// Whether a command has come, ever.
    pub(super) spoke: bool,
    /// Whether there is something to do without waiting for more.
    pub(super) more: bool,
}

impl Kept {
    /// Takes one command, which gets the next reply, as far as it may be taken now.
    pub(super) fn take(self: &Arc<Self>) -> Result<Turn, Take> {
        let take = self.replies.lock().take();
        match take {
            Take::Number(number) => Ok(Turn {
                kept: Arc::clone(self),
                number,
                answered: false,
            }),
            other => Err(other),
        }
    }

    /// Where commands of this connection come from.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether no command may be taken for the moment.
    pub(super) fn is_stalled(&self) -> bool {
        self.replies.lock().is_stalled()
    }

    /// Whether no further command will be taken.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// The last reply of a connection that does what it must not.
    pub(super) fn refuse(self: &Arc<Self>, code: ErrorCode) {
        let mut text = Vec::new();
        write_error(code.0, &mut text);
        text.push(b'\n');
        let mut replies = self.replies.lock();
        if replies.is_over() {
            return;
        }
        self.over.store(true, Ordering::Release);
        let number = replies.take_last();
        let first = replies.reply(number, &text, |bytes| self.send(bytes));
        let then = replies.end(number + 1, |bytes| self.send(bytes));
        drop(replies);
        self.follow(first);
        self.follow(then);
    }

    /// Sends what it did not take before. Gives how many bytes that was, and whether any are left.
    pub(super) fn flush(self: &Arc<Self>) -> (usize, bool) {
        let mut replies = self.replies.lock();
        let before = replies.rest();
        let after = replies.flush(|bytes| self.send(bytes));
        let left = replies.rest();
        drop(replies);
        self.follow(after);
        (before.saturating_sub(left), left > 0)
    }

    /// Gives it up: who waits at the other end finds it closed.
    pub(super) fn break_off(&self) {
        self.over.store(true, Ordering::Release);
        rustix::net::shutdown(&self.stream, Shutdown::Both).ok();
    }

    /// Reads and throws away; says whether more may come.
    pub(super) fn discard(&self, buffer: &mut [u8]) -> bool {
        match rustix::net::recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((length, _)) => length > 0,
            Err(error) => matches!(error, Errno::AGAIN | Errno::INTR),
        }
    }

    /// Never waits. The lock of the replies is held over it, since their order must be that of the wire.
    fn send(&self, bytes: &[u8]) -> Result<usize, ()> {
        loop {
            match rustix::net::send(&self.stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Err(_) => return Err(()),
            }
        }
    }

    fn follow(self: &Arc<Self>, after: After) {
        match after {
            After::Done => {}
            After::Rest => self.slow.take(Case::Rest(Arc::clone(self))),
            After::Resume => self.slow.wake(),
            After::Over => {
                rustix::net::shutdown(&self.stream, Shutdown::Write).ok();
            }
            After::Broken => {
                self.break_off();
                self.slow.wake();
            }
        }
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        rustix::net::shutdown(&self.stream, Shutdown::Write).ok();
        let mut unread = [0; 4096];
        let mut drained = 0;
        while drained < DRAIN_MAX
            && let Ok((length @ 1.., _)) = rustix::net::recv(&self.stream, &mut unread, RecvFlags::DONTWAIT)
        {
            drained += length;
        }
    }
}

impl Turn {
    /// The reply, which goes out when it is its turn.
    pub(super) fn reply(mut self, text: &[u8]) {
        self.answered = true;
        let kept = &self.kept;
        let after = kept
            .replies
            .lock()
            .reply(self.number, text, |bytes| kept.send(bytes));
        kept.follow(after);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.answered {
            let kept = &self.kept;
            kept.over.store(true, Ordering::Release);
            let after = kept.replies.lock().end(self.number, |bytes| kept.send(bytes));
            kept.follow(after);
            // It may be watched there, for more commands.
            kept.slow.wake();
        }
    }
}

impl Talk {
    /// With a client that has just connected.
    pub(super) fn new(stream: OwnedFd, place: Place, slow: &Arc<SlowClients>, now: Instant) -> Self {
        let peer = rustix::net::getpeername(&stream).ok().flatten();
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        let kept = Kept {
            stream,
            origin: peer.map_or(Origin::Unix, |peer| Origin::Ip(peer.ip())),
            replies: Mutex::default(),
            over: AtomicBool::new(false),
            slow: Arc::clone(slow),
            _place: place,
        };
        Self {
            kept: Arc::new(kept),
            text: Vec::new(),
            line_since: None,
            heard: now,
            spoke: false,
            more: false,
        }
    }
}
