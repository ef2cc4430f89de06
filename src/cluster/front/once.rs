//! A client of a UNIX control socket: a connection that carries one command. What the first read brings is taken if it is
//! a command, as RTPproxy does; who has written less is waited for, aside.

use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use core::sync::atomic::Ordering;
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown};

use super::kept::LINGER;
use super::{DEADLINE, Here, unfinished};
use crate::client::Place;
use crate::protocol::command::{COMMAND_MAX, ErrorCode, parse};
use crate::protocol::framing::{First, first};
use crate::protocol::reply::write_error;

/// A text that came in pieces, is a command and has no line end counts as one after this silence.
const QUIET: Duration = Duration::from_millis(20);

/// A client whose command is not whole.
#[derive(Debug)]
pub(super) struct Once {
    stream: OwnedFd,
    share: Place,
    /// What came in pieces.
    text: Vec<u8>,
    deadline: Instant,
    /// When a text that could be a command is taken for one.
    taken_at: Option<Instant>,
    /// It has its reply, and is given that time to close.
    over: bool,
}

/// What is to become of it.
pub(super) enum Next {
    /// It is waited for up to that moment.
    Wait(Instant),
    /// So many bytes of its text, or of the buffer where it has none, are its command.
    Take(usize),
    /// It gets this error, or nothing, and is closed.
    Refuse(Option<ErrorCode>),
    /// It has connected and left: a probe of somebody's.
    Gone,
}

impl Once {
    pub(super) fn new(stream: OwnedFd, share: Place, now: Instant) -> Self {
        Self {
            stream,
            share,
            text: Vec::new(),
            deadline: now + DEADLINE,
            taken_at: None,
            over: false,
        }
    }

    pub(super) fn into_parts(self) -> (OwnedFd, Place, Vec<u8>) {
        (self.stream, self.share, self.text)
    }

    pub(super) fn due(&self) -> Instant {
        self.taken_at.map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// The socket closes: who has begun a command goes at once, who has written nothing by then. Says whether it stays.
    pub(super) fn leave_by(&mut self, until: Instant) -> bool {
        self.deadline = self.deadline.min(until);
        self.text.is_empty() && !self.over
    }

    /// Whether it may still bring a command.
    pub(super) fn is_waiting(&self) -> bool {
        !self.over
    }

    /// Reads and throws away, up to its end.
    fn discard(&self, now: Instant, buffer: &mut [u8]) -> Next {
        if self.deadline <= now {
            return Next::Gone;
        }
        loop {
            match rustix::net::recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((1.., _)) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Next::Wait(self.deadline),
                Ok(_) | Err(_) => return Next::Gone,
            }
        }
    }

    /// Gives it an error. What it writes after that is read and thrown away, since a close would reset the reply.
    pub(super) fn refuse(&mut self, code: ErrorCode, now: Instant) {
        let mut reply = Vec::new();
        write_error(code.0, &mut reply);
        reply.push(b'\n');
        rustix::net::send(&self.stream, &reply, super::kept::SEND).ok();
        rustix::net::shutdown(&self.stream, Shutdown::Write).ok();
        self.text = Vec::new();
        self.taken_at = None;
        self.over = true;
        self.deadline = now + LINGER;
    }

    /// Reads what has come, up to the end of it, which is told once, and judges all of it.
    pub(super) fn read(&mut self, here: Here<'_>, buffer: &mut [u8]) -> Next {
        if self.over {
            return self.discard(here.now, buffer);
        }
        loop {
            let fresh = self.text.is_empty();
            // One byte more than a command may have, so that one too long is seen.
            let room = buffer.get_mut(..COMMAND_MAX + 2).unwrap_or_default();
            match rustix::net::recv(&self.stream, &mut *room, RecvFlags::DONTWAIT) {
                Ok((0, _)) if fresh => return Next::Gone,
                // It has ended its text: what there is, is the command.
                Ok((0, _)) => {
                    return match parse(&self.text) {
                        Ok(_) => Next::Take(self.text.len()),
                        Err(code) => Next::Refuse(Some(code)),
                    };
                }
                Ok((length, _)) => {
                    let text = buffer.get(..length).unwrap_or_default();
                    if fresh && let First::Command(length) = first(text) {
                        return Next::Take(length);
                    }
                    if fresh {
                        here.cluster.front.slow.fetch_add(1, Ordering::Relaxed);
                    }
                    self.text.extend_from_slice(text);
                    match self.judge(here.now) {
                        Next::Wait(_) => {}
                        judged => return judged,
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return self.look(here.now),
                Err(_) if fresh => return Next::Gone,
                Err(_) => return Next::Refuse(None),
            }
        }
    }

    /// What the text is, now that there is more of it. Only a first read is taken for whole without a line end: what
    /// comes in pieces may have another piece.
    fn judge(&mut self, now: Instant) -> Next {
        match first(&self.text) {
            First::TooLong => return Next::Refuse(Some(ErrorCode(5))),
            First::Command(length) if self.text.get(..length).is_some_and(|text| text.contains(&b'\n')) => {
                return Next::Take(length);
            }
            First::Command(_) => self.taken_at = Some(now + QUIET),
            First::More => self.taken_at = None,
        }
        self.look(now)
    }

    /// Whether its time is up.
    fn look(&self, now: Instant) -> Next {
        if self.text.len() > COMMAND_MAX {
            return Next::Refuse(Some(ErrorCode(5)));
        }
        if self.taken_at.is_some_and(|at| at <= now) {
            return Next::Take(self.text.len());
        }
        if self.deadline > now {
            return Next::Wait(self.due());
        }
        Next::Refuse((!self.text.is_empty()).then(|| unfinished(&self.text)))
    }
}

impl AsFd for Once {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::Shutdown as End;
    use std::os::unix::net::UnixStream;

    use super::super::super::bench::Bench;
    use super::*;
    use crate::config::model::Protocol;

    fn count(counter: &core::sync::atomic::AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    fn reply(bench: &mut Bench, client: &mut UnixStream) -> String {
        client.set_nonblocking(true).unwrap();
        let mut all = Vec::new();
        bench.run_until(|_| match client.read_to_end(&mut all) {
            Err(error) => error.kind() != ErrorKind::WouldBlock,
            Ok(_) => true,
        });
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_first_read_that_is_a_command_is_taken_and_the_rest_dropped() {
        let mut bench = Bench::new();
        let path = bench.open_unix(Protocol::Unix);
        let mut client = UnixStream::connect(path).unwrap();
        client.write_all(b"V\nV\n").unwrap();
        assert_eq!(reply(&mut bench, &mut client), "20040107\n");
    }

    #[test]
    fn the_end_of_a_text_is_seen_though_it_came_with_the_last_piece() {
        let mut bench = Bench::new();
        let path = bench.open_unix(Protocol::Unix);
        let mut client = UnixStream::connect(path).unwrap();
        client.write_all(b"U ca").unwrap();
        bench.run_until(|bench| count(&bench.cluster.front.slow) == 1);
        client.write_all(b"ll").unwrap();
        client.shutdown(End::Write).unwrap();
        // In this turn, and not when its time is up.
        bench.turn();
        client.set_nonblocking(true).unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).unwrap();
        assert!(all.starts_with('E'), "{all}");
    }

    #[test]
    fn who_connects_and_leaves_holds_nothing() {
        let mut bench = Bench::new();
        let path = bench.open_unix(Protocol::Unix);
        let client = UnixStream::connect(path).unwrap();
        bench.run_until(|bench| bench.cluster.connections.count() == 1);
        drop(client);
        bench.run_until(|bench| bench.cluster.connections.count() == 0);
        assert_eq!(
            count(&bench.cluster.front.closed),
            0,
            "it is no fault of anybody's"
        );
    }
}
