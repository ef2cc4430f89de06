//! The rim on the member's side: one [`Link`] a member, a file a transport. A link sends commands without ever
//! waiting, and hands what comes back to a [`Sink`]: replies, refusals, broken connections. It knows nothing of
//! what the commands mean.
//!
//! | transport | in flight together | a reply is matched by |
//! |---|---|---|
//! | `udp.rs` | as many as there are | its cookie |
//! | `stream.rs` (CUNIX, TCP) | as many as there are, on one kept connection | its order |
//! | `unix.rs` | [`unix::WORKERS`], a connection each; the others queue | its connection |

pub mod backoff;
pub mod stream;
pub mod timer_thread;
pub mod udp;
pub mod unix;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;

use crate::config::model::{Address, Member, Protocol};
use crate::dispatch::session::MemberId;
use crate::protocol::cookie::Cookie;
use crate::sync::idle;

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

    /// Looks a host name up again; for a member that does not answer.
    pub fn refresh(&self) {
        if let Self::Udp(udp) = self {
            udp.refresh();
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

/// The address of a socket, looked up when it is a name. Blocks on DNS: only for threads of a link, and for changes
/// of an operator.
pub(crate) fn resolve(protocol: Protocol, address: &Address) -> io::Result<SocketAddr> {
    match address {
        Address::Ip(address) => Ok(*address),
        Address::Host(host, port) => idle(|| (&**host, *port).to_socket_addrs())?
            .find(|found| found.is_ipv6() == protocol.is_v6())
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("{host} has no address of the family"),
                )
            }),
        Address::Path(path) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is a path", path.display()),
        )),
    }
}

/// The local end of our commands: the wanted source address, or any of the family.
fn source(protocol: Protocol, wanted: Option<IpAddr>) -> SocketAddr {
    let any = if protocol.is_v6() {
        IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED)
    };
    SocketAddr::new(wanted.unwrap_or(any), 0)
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
