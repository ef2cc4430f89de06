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

use super::{DEADLINE, DRAIN_MAX, Desk, Here, Next, part, unfinished};
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
        let peer = rustix::net::getpeername(&stream).ok().flatten();
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        Self {
            stream,
            serial,
            origin: peer.map_or(Origin::Unix, |peer| Origin::Ip(peer.ip())),
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
    pub(super) fn alarm(&mut self, here: Here<'_>, place: usize) -> bool {
        let is_past = |at: Option<Instant>| at.is_some_and(|at| at <= here.now);
        if matches!(self.phase, Phase::Over(until) if until <= here.now) {
            return false;
        }
        if is_past(self.unread_until) || is_past(self.silent_until) {
            here.closed_one();
            return false;
        }
        if is_past(self.line_since.map(|since| since + DEADLINE)) {
            return self.refuse(unfinished(&self.text), here, place);
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
                Lines::Refused(code) => return self.refuse(code, desk.here, place).then_some(Next::Wait),
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
            desk.command(text, self.origin, Client::Kept(turn));
            taken += length;
            self.line_since = None;
            self.silent_until = None;
        };
        self.text.drain(..taken);
        lines
    }

    /// Ends the connection with an error. Says whether it stays.
    fn refuse(&mut self, code: ErrorCode, here: Here<'_>, place: usize) -> bool {
        here.closed_one();
        let mut text = Vec::new();
        write_error(code.0, &mut text);
        text.push(b'\n');
        self.end();
        let number = self.replies.take_last();
        let stream = &self.stream;
        let first = self.replies.reply(number, &text, |bytes| send(stream, bytes));
        let then = self.replies.end(number + 1, |bytes| send(stream, bytes));
        self.follow(first, here, place) && self.follow(then, here, place)
    }

    /// A command has its reply. Says whether the connection stays, and whether it goes on that was stalled.
    pub(super) fn reply(&mut self, here: Here<'_>, turn: Turn, text: &[u8]) -> (bool, bool) {
        let stream = &self.stream;
        let after = self.replies.reply(turn.number, text, |bytes| send(stream, bytes));
        (self.follow(after, here, turn.place), after == After::Resume)
    }

    /// A command gets none: the connection ends in its place. Says whether it stays until then.
    pub(super) fn forsake(&mut self, here: Here<'_>, turn: Turn) -> bool {
        self.end();
        let stream = &self.stream;
        let after = self.replies.end(turn.number, |bytes| send(stream, bytes));
        self.follow(after, here, turn.place)
    }

    /// Sends what it did not take before. Says whether it stays.
    pub(super) fn flush(&mut self, here: Here<'_>, place: usize) -> bool {
        let stream = &self.stream;
        let before = self.replies.rest();
        let after = self.replies.flush(|bytes| send(stream, bytes));
        let left = self.replies.rest();
        if left == 0 && before > 0 {
            self.watch(here, place, false);
        } else if left < before {
            self.unread_until = Some(here.now + UNREAD_FOR);
        }
        self.follow(after, here, place)
    }

    fn watch(&mut self, here: Here<'_>, place: usize, writes: bool) {
        if let Err(error) = here.spot(place).rewatch(&self.stream, 0, writes) {
            log::debug!("cluster {}: a client: {error}", here.cluster.name);
        }
    }

    /// Says whether the connection stays.
    fn follow(&mut self, after: After, here: Here<'_>, place: usize) -> bool {
        if self.replies.rest() == 0 {
            self.unread_until = None;
        }
        match after {
            After::Done | After::Resume => {}
            After::Rest => {
                self.unread_until = Some(here.now + UNREAD_FOR);
                self.watch(here, place, true);
            }
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

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::super::super::bench::Bench;
    use crate::client::order::IN_FLIGHT_MAX;
    use crate::config::model::Protocol;

    fn read(client: &mut UnixStream, all: &mut Vec<u8>) {
        let mut buffer = [0; 8192];
        match client.read(&mut buffer) {
            Ok(length) => all.extend_from_slice(&buffer[..length]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    /// A client that does not wait, and has been accepted.
    fn client(bench: &mut Bench) -> UnixStream {
        let path = bench.open_unix(Protocol::Cunix);
        let client = UnixStream::connect(path).unwrap();
        client.set_nonblocking(true).unwrap();
        bench.run_until(|bench| bench.cluster.connections.count() == 1);
        client
    }

    #[test]
    fn who_reads_late_gets_every_reply_to_more_than_fits() {
        let mut bench = Bench::new();
        let mut client = client(&mut bench);
        let (wanted, mut written) = (20_000, 0);
        let commands = b"V\n".repeat(wanted);
        // Up to where nobody takes any more: the replies fill the connection, and the commands wait before it.
        let mut stuck = 0;
        while stuck < 50 && written < commands.len() {
            match client.write(&commands[written..]) {
                Ok(length) => (written, stuck) = (written + length, 0),
                Err(_) => stuck += 1,
            }
            bench.turn();
        }
        let mut all = Vec::new();
        bench.run_until(|_| {
            if let Ok(length) = client.write(&commands[written..]) {
                written += length;
            }
            read(&mut client, &mut all);
            all.len() >= wanted * 9
        });
        assert_eq!(all, b"20040107\n".repeat(wanted));
        assert_eq!(bench.cluster.connections.count(), 1);
    }

    #[test]
    fn one_with_too_many_in_flight_goes_on_when_they_are_answered() {
        let mut bench = Bench::new();
        let (id, member) = bench.udp_member();
        let mut client = client(&mut bench);
        let many = usize::try_from(IN_FLIGHT_MAX).unwrap() + 40;
        let commands: Vec<String> = (0..many).map(|n| format!("D call{n} a b\n")).collect();
        client.write_all(commands.concat().as_bytes()).unwrap();
        member.set_nonblocking(true).unwrap();
        let (mut all, mut buffer) = (Vec::new(), [0; 1024]);
        bench.run_until(|_| {
            while let Ok((length, from)) = member.recv_from(&mut buffer) {
                let cookie = buffer[..length].split(|byte| *byte == b' ').next().unwrap();
                member.send_to(&[cookie, b" 0"].concat(), from).unwrap();
            }
            read(&mut client, &mut all);
            all.len() >= many * 2
        });
        assert_eq!(all, b"0\n".repeat(many));
        assert!(bench.is_online(id));
    }

    #[test]
    fn one_that_ends_its_side_gets_its_replies_and_then_the_end() {
        let mut bench = Bench::new();
        let mut client = client(&mut bench);
        client.write_all(b"V\nV\n").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        bench.run_until(|bench| {
            read(&mut client, &mut all);
            bench.cluster.connections.count() == 0
        });
        read(&mut client, &mut all);
        assert_eq!(all, b"20040107\n20040107\n");
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_and_the_connection_ends() {
        let mut bench = Bench::new();
        let mut client = client(&mut bench);
        client.write_all(&[b'x'; 9_000]).unwrap();
        let mut all = Vec::new();
        bench.run_until(|_| {
            read(&mut client, &mut all);
            all.ends_with(b"\n")
        });
        assert_eq!(all, b"E5\n");
        drop(client);
        bench.run_until(|bench| bench.cluster.connections.count() == 0);
    }

    #[test]
    fn what_was_written_before_the_socket_closes_is_answered() {
        let mut bench = Bench::new();
        let path = bench.open_unix(Protocol::Cunix);
        let mut known = UnixStream::connect(&path).unwrap();
        bench.run_until(|bench| bench.cluster.connections.count() == 1);
        let mut waits = UnixStream::connect(&path).unwrap();
        known.write_all(b"V\n").unwrap();
        waits.write_all(b"V\n").unwrap();
        bench
            .cluster
            .order(super::super::super::cluster_thread::AtWork::close);
        bench.turn();
        for mut client in [known, waits] {
            let mut reply = String::new();
            client.set_nonblocking(true).unwrap();
            bench.run_until(|_| client.read_to_string(&mut reply).is_ok());
            assert_eq!(reply, "20040107\n");
        }
    }
}
