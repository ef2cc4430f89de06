//! The members' side: one [`Link`] a member, a file a transport. A link is a state machine of the loop that owns it, the
//! cluster's or that of health: it sends without ever waiting, reads what is ready, and hands what comes back to a
//! [`Sink`]: replies, refusals, broken connections. It knows nothing of what the commands mean.
//!
//! | transport | in flight together | a reply is matched by |
//! |---|---|---|
//! | `udp.rs` | as many as there are | its cookie |
//! | `stream.rs` (CUNIX, TCP) | as many as there are, on one kept connection | its order |
//! | `unix.rs` | [`unix::CONNECTIONS`], a connection each; the others queue, those of one call in their order | its connection |
//!
//! A link to a host name has no address at first: whoever looks the name up tells it ([`Link::move_to`]).

#[cfg(test)]
mod bench;
pub mod stream;
pub mod udp;
pub mod unix;

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io;
use std::time::Instant;

use rustix::io::Errno;
use socket2::Socket;

use crate::config::model::{Address, Member, Protocol};
use crate::protocol::Words;
use crate::protocol::command::Verb;
use crate::protocol::cookie::Cookie;
use crate::protocol::reply::judge;
use crate::rim::readiness::Spot;

/// Longest reply of a member, in bytes, as RTPproxy's own buffers.
pub const REPLY_MAX: usize = 8192;
/// How long a stream connection may take to come about.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// A command that a link has had for so long has been answered for by others.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Where a link hands what comes back.
pub trait Sink {
    /// A reply, without cookie and line end.
    fn reply(&mut self, cookie: Cookie, text: &[u8]);
    /// Something that has no cookie of ours, or that nobody asked for.
    fn foreign(&mut self);
    /// The member's socket refuses: nobody is there, or nobody can be reached.
    fn refused(&mut self, why: Refused);
    /// The connection of one command broke before its reply.
    fn broken(&mut self, cookie: Cookie);
}

/// The member refused, and what the system said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub Errno);

impl Refused {
    /// Nobody knows yet where it is.
    const NOWHERE: Self = Self(Errno::DESTADDRREQ);

    fn from_io(error: &io::Error) -> Self {
        let timed_out = (error.kind() == io::ErrorKind::TimedOut).then_some(Errno::TIMEDOUT);
        let errno = error.raw_os_error().map(Errno::from_raw_os_error).or(timed_out);
        Self(errno.unwrap_or(Errno::IO))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Errno::CONNREFUSED => f.write_str("refused"),
            Errno::NOENT => f.write_str("there is no such socket"),
            Errno::ACCESS | Errno::PERM => f.write_str("no rights to its socket or its directory"),
            Errno::NETUNREACH | Errno::HOSTUNREACH => f.write_str("no route to it"),
            Errno::TIMEDOUT => f.write_str("it does not take the connection"),
            Errno::DESTADDRREQ => f.write_str("its name has not been looked up yet"),
            Errno::PROTOTYPE | Errno::NOTSOCK => f.write_str("its path is no such socket"),
            errno => io::Error::from(errno).fmt(f),
        }
    }
}

/// A member's link.
#[derive(Debug)]
pub enum Link {
    /// Datagrams.
    Udp(udp::Udp),
    /// One kept connection.
    Stream(stream::Stream),
    /// A connection a command.
    Unix(Box<unix::Unix>),
}

impl Link {
    /// A link that is not registered yet. Nothing is waited for: a member that is not there shows as a refusal.
    ///
    /// # Errors
    /// When the system has no socket to give, or `cmd_out_address` is not one of this machine.
    pub fn open(member: &Member) -> io::Result<Self> {
        match (member.protocol, &member.address) {
            (Protocol::Udp | Protocol::Udp6, _) => udp::Udp::open(member).map(Self::Udp),
            (Protocol::Unix, Address::Path(path)) => Ok(Self::Unix(Box::new(unix::Unix::new(path)))),
            _ => stream::Stream::open(member).map(Self::Stream),
        }
    }

    /// Registers what is open.
    pub fn start(&mut self, spot: Spot<'_>) {
        if let Self::Udp(udp) = self {
            udp.start(spot);
        }
    }

    /// Sends `text`, which is `COOKIE SP COMMAND LF`. `again` says whether it may reach the member twice.
    ///
    /// # Errors
    /// When the member's socket refused it.
    pub fn send(
        &mut self,
        now: Instant,
        cookie: Cookie,
        again: bool,
        text: &[u8],
        spot: Spot<'_>,
    ) -> Result<(), Refused> {
        match self {
            Self::Udp(udp) => udp.send(text),
            Self::Stream(stream) => stream.send(now, cookie, again, without_cookie(text), spot),
            Self::Unix(unix) => unix.send(now, cookie, again, without_cookie(text), spot),
        }
    }

    /// The descriptor `number` of it is ready. Says whether there is more to read, which is not told again.
    pub fn ready(&mut self, now: Instant, number: usize, spot: Spot<'_>, sink: &mut dyn Sink) -> bool {
        match self {
            Self::Udp(udp) => return udp.ready(sink),
            Self::Stream(stream) => stream.ready(now, spot, sink),
            Self::Unix(unix) => unix.ready(now, number, spot, sink),
        }
        false
    }

    /// When [`Link::alarm`] is to be called.
    pub fn due(&self) -> Option<Instant> {
        match self {
            Self::Udp(udp) => udp.due(),
            Self::Stream(stream) => stream.due(),
            Self::Unix(unix) => unix.due(),
        }
    }

    /// Time has passed.
    pub fn alarm(&mut self, now: Instant, spot: Spot<'_>, sink: &mut dyn Sink) {
        match self {
            Self::Udp(udp) => udp.alarm(now, spot),
            Self::Stream(stream) => stream.alarm(now, spot, sink),
            Self::Unix(unix) => unix.alarm(now, spot, sink),
        }
    }

    /// The name has these addresses now: commands go to the first of them, unless they go to another of them already.
    pub fn move_to(&mut self, now: Instant, addresses: &[SocketAddr], spot: Spot<'_>) {
        match self {
            Self::Udp(udp) => udp.move_to(now, addresses, spot),
            Self::Stream(stream) => stream.move_to(addresses),
            Self::Unix(_) => {}
        }
    }

    /// Whether the member is at that address, whatever its port.
    pub fn is_at(&self, address: IpAddr) -> bool {
        let at = match self {
            Self::Udp(udp) => udp.at(),
            Self::Stream(stream) => stream.at(),
            Self::Unix(_) => return false,
        };
        at.iter().any(|at| at.ip() == address)
    }

    /// The member is offline, or has not answered a probe: a connection on which it owes a reply for `owed` is given up,
    /// since there may be something wrong with that one alone.
    pub fn renew(&mut self, now: Instant, owed: Duration, spot: Spot<'_>, sink: &mut dyn Sink) {
        if let Self::Stream(stream) = self {
            stream.renew(now, owed, spot, sink);
        }
    }
}

/// Puts the address that is used in front, if it is still one of those that a name has: servers of names give them in
/// any order. Says whether another one is used from now on.
fn keep_first(known: &mut Vec<SocketAddr>, found: &[SocketAddr]) -> bool {
    let before = known.first().copied();
    known.clear();
    known.extend_from_slice(found);
    if let Some(place) = known.iter().position(|address| Some(*address) == before) {
        known.swap(0, place);
        return false;
    }
    known.first().copied() != before
}

fn without_cookie(text: &[u8]) -> &[u8] {
    text.get(Cookie::LEN + 1..).unwrap_or_default()
}

/// Whether `reply` is all of the reply to `command` on a stream: one line, or five of an `I`, six with its load.
fn is_whole(command: &[u8], reply: &[u8]) -> bool {
    let lines = reply.split(|byte| *byte == b'\n').count() - 1;
    let mut word = command.iter().take_while(|byte| !byte.is_ascii_whitespace());
    let is_info = word
        .next()
        .is_some_and(|letter| letter.eq_ignore_ascii_case(&b'I'));
    if !is_info || reply.first() == Some(&b'E') {
        return lines >= 1;
    }
    lines
        >= if word.any(|letter| letter.eq_ignore_ascii_case(&b'l')) {
            6
        } else {
            5
        }
}

/// Length of the whole reply to `command` at the start of `bytes`, line end and all.
fn reply_length(command: &[u8], bytes: &[u8]) -> Option<usize> {
    let ends = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1);
    ends.into_iter()
        .find(|end| is_whole(command, bytes.get(..*end).unwrap_or_default()))
}

/// Whether `reply` can be one to `command`. After one that cannot, nobody knows which reply is whose on that
/// connection.
fn is_plausible(command: &[u8], reply: &[u8]) -> bool {
    let verb = Words::new(command).next().and_then(Verb::split);
    verb.is_some_and(|(verb, _)| judge(verb, reply).is_some())
}

/// Whether a connection could not be made for a reason of our own: no descriptor, no memory, no port. It says
/// nothing of the member.
fn is_our_fault(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRINUSE)
    )
}

/// Binds a socket to where our commands to that member leave from, if that is fixed.
fn bind_source(socket: &Socket, member: &Member) -> io::Result<()> {
    let Some(wanted) = member.cmd_out_address else {
        return Ok(());
    };
    socket.bind(&SocketAddr::new(wanted, 0).into()).map_err(|error| {
        if is_our_fault(&error) {
            error
        } else {
            io::Error::new(error.kind(), format!("cmd_out_address {wanted}: {error}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_whole_when_its_lines_are_there() {
        assert!(!is_whole(b"V\n", b"2004"));
        assert!(is_whole(b"V\n", b"20040107\n"));
        assert!(!is_whole(b"Ib\n", b"sessions created: 1\nactive sessions: 1\n"));
        assert!(is_whole(b"ib\n", b"a: 1\nb: 1\nc: 2\nd: 0\ne: 0\n"));
        assert!(!is_whole(b"IL\n", b"a: 1\nb: 1\nc: 2\nd: 0\ne: 0\n"));
        assert!(is_whole(b"Ib\n", b"E1\n"));
    }
}
