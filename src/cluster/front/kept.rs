//! A kept connection, by CUNIX or TCP: a command a line, many in flight together, replies in the order of the commands.
//!
//! - It is closed when its last reply is out: so a client that has ended its own side still gets the replies to what it
//!   wrote before, and after the last of them the end of ours.
//! - One that has too many commands in flight, or does not read its replies, is stalled: its commands wait in the kernel.

use core::net::SocketAddr;
use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::{DEADLINE, DRAIN_MAX, Desk, Here, Next, part, process, unfinished};
use crate::client::order::{After, Replies, Take};
use crate::client::{Client, Place, Turn};
use crate::dispatch::rewrite::Origin;
use crate::protocol::command::ErrorCode;
use crate::protocol::framing::{Line, line};
use crate::protocol::reply::write_error;

/// A connection that has never sent a command is closed after this time. One that has is never closed for being idle: the
/// SIP server would take us for dead.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// A client that takes none of its replies for so long is given up.
const UNREAD_FOR: Duration = Duration::from_secs(5);
/// How long a client whose connection is over may take to close it.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// How a reply goes out.
pub(super) const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It carries commands.
    Open,
    /// No further command is taken; it closes with its last reply.
    Ending,
    /// Its last reply is out; up to that moment its client may close it.
    Over(Instant),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Kept {
    stream: OwnedFd,
    pub(super) serial: u64,
    origin: Origin,
    replies: Replies,
    /// What has been read and not been served.
    text: Vec<u8>,
    /// Whether there may be more to read, which is told once.
    knocked: bool,
    phase: Phase,
    /// When the line that has no end yet began.
    line_since: Option<Instant>,
    /// When it is closed unless a command has come by then.
    silent_until: Option<Instant>,
    /// When it is given up unless it has taken some of its replies by then.
    unread_until: Option<Instant>,
    _share: Place,
}

impl Kept {
    pub(super) fn new(stream: OwnedFd, share: Place, serial: u64, now: Instant) -> Self {
        let origin = peer(&stream);
        Self {
            stream,
            serial,
            origin: origin.map_or(Origin::Unix, |peer| Origin::Ip(peer.ip())),
            replies: Replies::default(),
            text: Vec::new(),
            knocked: false,
            phase: Phase::Open,
            line_since: None,
            silent_until: Some(now + SILENT_FOR),
            unread_until: None,
            _share: share,
        }
    }

    /// Who it is, as people are told.
    pub(super) fn who(&self) -> String {
        match peer(&self.stream) {
            Some(peer) => format!("TCP {peer}"),
            None => format!("CUNIX {}", process(&self.stream)),
        }
    }

    /// It can be read.
    pub(super) fn knock(&mut self) {
        self.knocked = true;
    }

    /// Whether a reply is on its way to it.
    pub(super) fn is_waiting(&self) -> bool {
        !matches!(self.phase, Phase::Over(_)) && !self.replies.is_idle()
    }

    /// When [`Kept::alarm`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        let over = match self.phase {
            Phase::Over(until) => Some(until),
            _ => None,
        };
        let line = self.line_since.map(|since| since + DEADLINE);
        [over, line, self.silent_until, self.unread_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// No further command is taken. Says whether it stays, for its replies.
    pub(super) fn end(&mut self) -> bool {
        if self.phase == Phase::Open {
            self.phase = Phase::Ending;
            self.line_since = None;
            self.silent_until = None;
        }
        !self.replies.is_idle()
    }

    /// Time has passed. Says whether it stays.
    pub(super) fn alarm(&mut self, here: Here<'_>) -> bool {
        let is_past = |at: Option<Instant>| at.is_some_and(|at| at <= here.now);
        if matches!(self.phase, Phase::Over(until) if until <= here.now) {
            return false;
        }
        if is_past(self.unread_until) || is_past(self.silent_until) {
            here.closed_one();
            return false;
        }
        if is_past(self.line_since.map(|since| since + DEADLINE)) {
            return self.refuse(unfinished(&self.text), here);
        }
        true
    }

    /// Serves the lines that have come, a batch of them. `None` when the connection goes.
    pub(super) fn serve(&mut self, desk: &mut Desk<'_>, place: usize, buffer: &mut [u8]) -> Option<Next> {
        let next = loop {
            if desk.is_full() {
                break Next::More;
            }
            match self.phase {
                Phase::Open => {}
                Phase::Ending => return Some(Next::Wait),
                Phase::Over(_) => return self.discard(buffer).then_some(Next::Wait),
            }
            match self.serve_lines(desk, place) {
                Lines::Stalled => break Next::Wait,
                Lines::Full => break Next::More,
                Lines::Refused(code) => return self.refuse(code, desk.here).then_some(Next::Wait),
                Lines::None => {}
            }
            if !self.knocked {
                break Next::Wait;
            }
            match rustix::net::recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return self.end().then_some(Next::Wait),
                Ok((length, _)) => self
                    .text
                    .extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.knocked = false;
                    break Next::Wait;
                }
                Err(error) => {
                    log::debug!("cluster {}: a client: {error}", desk.cluster.name);
                    return self.end().then_some(Next::Wait);
                }
            }
        };
        // Few clients write a line in pieces: the others hold no memory for it.
        self.text.shrink_to(0);
        self.line_since = if next == Next::Wait && !self.text.is_empty() && !self.replies.is_stalled() {
            Some(self.line_since.unwrap_or(desk.now))
        } else {
            None
        };
        Some(next)
    }

    /// Takes commands out of what has been read.
    fn serve_lines(&mut self, desk: &mut Desk<'_>, place: usize) -> Lines {
        let mut taken = 0;
        let lines = loop {
            let rest = self.text.get(taken..).unwrap_or_default();
            let length = match line(rest) {
                Line::Whole(length) => length,
                Line::More => break Lines::None,
                Line::TooLong => break Lines::Refused(ErrorCode(5)),
            };
            if desk.is_full() {
                break Lines::Full;
            }
            let Take::Number(number) = self.replies.take() else {
                break Lines::Stalled;
            };
            let turn = Turn {
                place,
                serial: self.serial,
                number,
            };
            let text = rest.get(..length).unwrap_or_default();
            desk.command(text, self.origin, Client::Kept(turn), |_| self.who());
            taken += length;
            self.line_since = None;
            self.silent_until = None;
        };
        self.text.drain(..taken);
        lines
    }

    /// Ends the connection with an error. Says whether it stays.
    fn refuse(&mut self, code: ErrorCode, here: Here<'_>) -> bool {
        here.closed_one();
        let mut text = Vec::new();
        write_error(code.0, &mut text);
        text.push(b'\n');
        self.end();
        let number = self.replies.take_last();
        let stream = &self.stream;
        let first = self.replies.reply(number, &text, |bytes| send(stream, bytes));
        let then = self.replies.end(number + 1, |bytes| send(stream, bytes));
        self.follow(first, here) && self.follow(then, here)
    }

    /// A command has its reply. Says whether the connection stays, and whether it goes on that was stalled.
    pub(super) fn reply(&mut self, here: Here<'_>, turn: Turn, text: &[u8]) -> (bool, bool) {
        let stream = &self.stream;
        let after = self.replies.reply(turn.number, text, |bytes| send(stream, bytes));
        if after == After::Rest {
            self.watch(here, turn.place, true);
        }
        (self.follow(after, here), after == After::Resume)
    }

    /// A command gets none: the connection ends in its place. Says whether it stays until then.
    pub(super) fn forsake(&mut self, here: Here<'_>, turn: Turn) -> bool {
        self.end();
        let stream = &self.stream;
        let after = self.replies.end(turn.number, |bytes| send(stream, bytes));
        if after == After::Rest {
            self.watch(here, turn.place, true);
        }
        self.follow(after, here)
    }

    /// Sends what it did not take before. Says whether it stays.
    pub(super) fn flush(&mut self, here: Here<'_>, place: usize) -> bool {
        let stream = &self.stream;
        let before = self.replies.rest();
        let after = self.replies.flush(|bytes| send(stream, bytes));
        let left = self.replies.rest();
        if left == 0 {
            self.unread_until = None;
            if before > 0 {
                self.watch(here, place, false);
            }
        } else if left < before {
            self.unread_until = Some(here.now + UNREAD_FOR);
        }
        self.follow(after, here)
    }

    fn watch(&mut self, here: Here<'_>, place: usize, writes: bool) {
        if let Err(error) = here.spot(place).rewatch(&self.stream, 0, writes) {
            log::debug!("cluster {}: a client: {error}", here.cluster.name);
        }
    }

    /// Says whether the connection stays.
    fn follow(&mut self, after: After, here: Here<'_>) -> bool {
        match after {
            After::Done | After::Resume => {}
            After::Rest => self.unread_until = Some(here.now + UNREAD_FOR),
            After::Over => {
                rustix::net::shutdown(&self.stream, Shutdown::Write).ok();
                self.phase = Phase::Over(here.now + LINGER);
                return true;
            }
            After::Broken => {
                here.closed_one();
                return false;
            }
        }
        self.phase != Phase::Ending || !self.replies.is_idle()
    }

    /// Reads and throws away; says whether more may come.
    fn discard(&mut self, buffer: &mut [u8]) -> bool {
        let mut discarded = 0;
        while discarded < DRAIN_MAX {
            match rustix::net::recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((length, _)) => discarded += length,
                Err(Errno::INTR) => {}
                Err(error) => return error == Errno::AGAIN,
            }
        }
        // Who writes on all the same is not listened to for ever.
        false
    }
}

/// What came of the lines that had been read.
enum Lines {
    /// There is no whole one.
    None,
    /// No more may be taken for the moment.
    Stalled,
    /// The batch is full.
    Full,
    Refused(ErrorCode),
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        part(&self.stream);
    }
}

/// Never waits.
fn send(stream: &OwnedFd, bytes: &[u8]) -> Result<usize, ()> {
    loop {
        match rustix::net::send(stream, bytes, SEND) {
            Ok(sent) => return Ok(sent),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            Err(_) => return Err(()),
        }
    }
}
/// Where the other end of a connection over a network is.
fn peer(stream: &OwnedFd) -> Option<SocketAddr> {
    let peer = rustix::net::getpeername(stream).ok().flatten()?;
    SocketAddr::try_from(peer).ok()
}
