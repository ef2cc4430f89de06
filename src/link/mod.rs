//! The rim on the member's side: one [`Link`] a member, a file a transport. A link sends commands without ever
//! waiting, and hands what comes back to a [`Sink`]: replies, refusals, broken connections. It knows nothing of
//! what the commands mean.
//!
//! | transport | in flight together | a reply is matched by |
//! |---|---|---|
//! | `udp.rs` | as many as there are | its cookie |
//! | `stream.rs` (CUNIX, TCP) | as many as there are, on one kept connection | its order |
//! | `unix.rs` | [`unix::WORKERS`], a connection each; the others queue | its connection |
//!
//! A host name is looked up by `resolver_thread.rs`, never on the path of a command.

pub mod resolver_thread;
pub mod stream;
pub mod timer_thread;
pub mod udp;
pub mod unix;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;

use rustix::io::Errno;
use socket2::Socket;

use crate::config::model::{Address, Member, Protocol};
use crate::dispatch::session::MemberId;
use crate::protocol::Words;
use crate::protocol::command::Verb;
use crate::protocol::cookie::Cookie;
use crate::protocol::reply::judge;
use crate::rim::idle;

/// Longest reply of a member, in bytes, as RTPproxy's own buffers.
pub const REPLY_MAX: usize = 8192;
/// How long a stream connection may take to come about.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Where a link hands what comes back. The cluster is one.
pub trait Sink: Send + Sync {
    /// A reply, without cookie and line end.
    fn reply(&self, from: MemberId, cookie: Cookie, text: &[u8]);
    /// A datagram that has no cookie of ours.
    fn foreign(&self, from: MemberId);
    /// The member's socket refuses: nobody is there.
    fn refused(&self, from: MemberId);
    /// The connection of one command broke before its reply.
    fn broken(&self, from: MemberId, cookie: Cookie);
}

/// The member refused a command at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// What a thread of a link is called: the cluster's number and the member's place in it.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Number of the cluster.
    pub cluster: usize,
    /// The member.
    pub member: MemberId,
}

/// A member's link.
#[derive(Debug)]
pub enum Link {
    /// Datagrams.
    Udp(Arc<udp::Udp>),
    /// One kept connection.
    Stream(Arc<stream::Stream>),
    /// A connection a command.
    Unix(unix::Unix),
}

impl Link {
    /// Opens the link of a member and starts its thread. Nothing is waited for: a name that does not resolve, or a
    /// member that is not there, shows as a refusal.
    ///
    /// # Errors
    /// When the system has no socket or thread to give, or `cmd_out_address` is not one of this machine.
    pub fn open(member: &Member, label: Label, sink: Arc<dyn Sink>) -> io::Result<Self> {
        match (member.protocol, &member.address) {
            (Protocol::Udp | Protocol::Udp6, _) => udp::Udp::open(member, label, sink).map(Self::Udp),
            (Protocol::Unix, Address::Path(path)) => Ok(Self::Unix(unix::Unix::open(path, label, sink))),
            _ => stream::Stream::open(member, label, sink).map(Self::Stream),
        }
    }

    /// Sends `text`, which is `COOKIE SP COMMAND LF`. `again` says whether it may reach the member twice.
    ///
    /// # Errors
    /// When the member's socket refused it.
    pub fn send(&self, cookie: Cookie, again: bool, text: &[u8]) -> Result<(), Refused> {
        match self {
            Self::Udp(udp) => udp.send(text),
            Self::Stream(stream) => stream.send(cookie, again, without_cookie(text)),
            Self::Unix(unix) => unix.send(cookie, again, without_cookie(text)),
        }
    }

    /// Whether the member is at that address, whatever its port.
    pub fn is_at(&self, address: IpAddr) -> bool {
        match self {
            Self::Udp(udp) => udp.is_at(address),
            Self::Stream(stream) => stream.is_at(address),
            Self::Unix(_) => false,
        }
    }

    /// For a member that is offline and still does not answer: a host name is looked up again, and a connection
    /// on which it owes replies is given up.
    pub fn refresh(&self) {
        match self {
            Self::Udp(udp) => udp.refresh(),
            Self::Stream(stream) => stream.refresh(),
            Self::Unix(_) => {}
        }
    }

    /// Begins to end the link's threads, without waiting for them as [`Link::close`] does.
    pub fn stop(&self) {
        match self {
            Self::Udp(udp) => udp.stop(),
            Self::Stream(stream) => stream.stop(),
            Self::Unix(unix) => unix.stop(),
        }
    }

    /// Ends the link's threads and waits for them.
    pub fn close(&self) {
        match self {
            Self::Udp(udp) => udp.close(),
            Self::Stream(stream) => stream.close(),
            Self::Unix(unix) => unix.close(),
        }
    }
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

/// The address of a socket, looked up when it is a name. Blocks on DNS: only for changes of an operator.
pub(crate) fn resolve(protocol: Protocol, address: &Address) -> io::Result<SocketAddr> {
    let found = resolve_all(protocol, address)?;
    found
        .first()
        .copied()
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// All addresses of a name, one at least. Blocks on DNS: only for the thread that is there for it.
fn resolve_all(protocol: Protocol, address: &Address) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = match address {
        Address::Ip(address) => vec![*address],
        Address::Host(host, port) => idle(|| (&**host, *port).to_socket_addrs())?
            .filter(|found| found.is_ipv6() == protocol.is_v6())
            .collect(),
        Address::Path(path) => {
            let what = format!("{} is a path", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
    };
    if found.is_empty() {
        let family = if protocol.is_v6() { "IPv6" } else { "IPv4" };
        let what = format!("it has no {family} address");
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    Ok(found)
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
