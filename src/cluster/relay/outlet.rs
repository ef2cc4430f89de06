//! The way to one socket of the SIP server: a connection that is kept, made anew when it breaks, and a bounded
//! queue for what it does not take at the moment. A socket that cannot be reached is given up after a while.

use core::mem;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::dispatch::rewrite::Addressee;
use crate::rim::backoff::Backoff;
use crate::rim::readiness::Spot;

/// Bytes that wait for one socket at most: some thousand notifications. Beyond that the oldest are dropped.
pub const QUEUE_BYTES: usize = 128 * 1024;
/// Pauses between tries to connect: a SIP server that restarts is back in seconds, and nobody is tried more often than
/// once a second.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
/// A socket that could not be reached for so long is given up, with what waits for it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// How long a connection over TCP may take to come about.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// The connection.
#[derive(Debug)]
enum Connection {
    None,
    /// Under way until that moment at most.
    Coming(Socket, Instant),
    Open(Socket),
}

/// One socket of the SIP server.
#[derive(Debug)]
pub struct Outlet {
    /// Where it is.
    pub to: Addressee,
    /// Where a connection over TCP leaves from.
    from: Option<IpAddr>,
    connection: Connection,
    backoff: Backoff,
    /// Each with its line end.
    queue: VecDeque<Box<[u8]>>,
    queued: usize,
    /// Bytes of the first one that are written already.
    written: usize,
    /// Whether the connection takes no more for now.
    full: bool,
    /// When it was last used, to find the one that is needed least.
    pub used: Instant,
    /// When it was first tried to reach it since it last was.
    failing: Option<Instant>,
}

/// What a turn of an outlet came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Notifications written.
    pub written: u64,
    /// Why the connection failed, if it did.
    pub failed: Option<io::Error>,
}

impl Outlet {
    /// Not connected yet.
    pub fn new(to: Addressee, from: Option<IpAddr>, now: Instant) -> Self {
        Self {
            to,
            from,
            connection: Connection::None,
            backoff: BACKOFF,
            queue: VecDeque::new(),
            queued: 0,
            written: 0,
            full: false,
            used: now,
            failing: None,
        }
    }

    /// What it costs that it is given up: nothing where nothing waits; what waits where it is not reached, the less the
    /// longer that goes on; else the less the longer nothing has come for it.
    pub fn worth(&self) -> (u8, Instant) {
        match (self.queue.is_empty(), self.failing) {
            (true, _) => (0, self.used),
            (false, Some(since)) => (1, since),
            (false, None) => (2, self.used),
        }
    }

    /// Whether it could not be reached for too long.
    pub fn is_given_up(&self, now: Instant) -> bool {
        self.failing.is_some_and(|since| now >= since + GIVE_UP_AFTER)
    }

    /// Notifications that wait for it.
    pub fn waiting(&self) -> u64 {
        self.queue.len() as u64
    }

    /// Queues one notification, and gives how many older ones had to go for it.
    pub fn push(&mut self, now: Instant, text: &[u8]) -> u64 {
        self.used = now;
        let mut line = Vec::with_capacity(text.len() + 1);
        line.extend_from_slice(text);
        line.push(b'\n');
        self.queued += line.len();
        self.queue.push_back(line.into());
        let mut dropped = 0;
        while self.queued > QUEUE_BYTES && self.queue.len() > 1 {
            // One that is written in part must be ended: the next one goes.
            let Some(oldest) = self.queue.remove(usize::from(self.written > 0)) else {
                break;
            };
            self.queued -= oldest.len();
            dropped += 1;
        }
        dropped
    }

    /// When it wants its next turn though nothing happens.
    pub fn due(&self) -> Option<Instant> {
        match self.connection {
            Connection::None if !self.queue.is_empty() => self.backoff.due(),
            Connection::Coming(_, until) => Some(until),
            _ => None,
        }
    }

    /// Does what can be done now; `ready` is whether its connection is.
    pub fn turn(&mut self, now: Instant, ready: bool, spot: Spot<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        if let Err(error) = self.advance(now, ready, spot, &mut outcome) {
            self.connection = Connection::None;
            self.full = false;
            self.written = 0;
            self.backoff.failed(now);
            outcome.failed = Some(error);
        }
        outcome
    }

    fn advance(
        &mut self,
        now: Instant,
        ready: bool,
        spot: Spot<'_>,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        match mem::replace(&mut self.connection, Connection::None) {
            Connection::Coming(socket, until) => {
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                // What is ready may be what this place had before.
                if ready && socket.peer_addr().is_ok() {
                    self.opened(socket);
                } else if now >= until {
                    return Err(io::ErrorKind::TimedOut.into());
                } else {
                    self.connection = Connection::Coming(socket, until);
                    return Ok(());
                }
            }
            Connection::Open(socket) => {
                if !ready || still_open(&socket)? {
                    self.connection = Connection::Open(socket);
                    self.full &= !ready;
                } else {
                    // The SIP server closed it: no fault, the next notification makes another.
                    self.full = false;
                    self.written = 0;
                }
            }
            Connection::None => {}
        }
        if self.queue.is_empty() {
            return Ok(());
        }
        if matches!(self.connection, Connection::None) {
            if !self.backoff.is_over(now) {
                return Ok(());
            }
            self.failing.get_or_insert(now);
            let (socket, open) = connect(&self.to, self.from)?;
            spot.watch_both(&socket, 0)?;
            if !open {
                self.connection = Connection::Coming(socket, now + CONNECT_WITHIN);
                return Ok(());
            }
            self.opened(socket);
        }
        self.write(outcome)
    }

    fn opened(&mut self, socket: Socket) {
        self.connection = Connection::Open(socket);
        self.backoff.worked();
        self.failing = None;
        self.full = false;
        self.written = 0;
    }

    /// Writes as much as the connection takes.
    fn write(&mut self, outcome: &mut Outcome) -> io::Result<()> {
        let Connection::Open(socket) = &self.connection else {
            return Ok(());
        };
        while let Some(first) = self.queue.front().filter(|_| !self.full) {
            let rest = first.get(self.written..).unwrap_or_default();
            match rustix::net::send(socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) if sent < rest.len() => self.written += sent,
                Ok(_) => {
                    self.queued -= first.len();
                    self.queue.pop_front();
                    self.written = 0;
                    outcome.written += 1;
                }
                Err(Errno::AGAIN) => self.full = true,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Whether the other side has not closed; what it says is read and forgotten.
fn still_open(socket: &Socket) -> io::Result<bool> {
    let mut unwanted = [0; 512];
    match rustix::net::recv(socket, &mut unwanted[..], RecvFlags::DONTWAIT) {
        Ok((read, _)) => Ok(read > 0),
        Err(Errno::AGAIN | Errno::INTR) => Ok(true),
        Err(Errno::CONNRESET) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Begins a connection, and says whether it is there already.
fn connect(to: &Addressee, from: Option<IpAddr>) -> io::Result<(Socket, bool)> {
    let (domain, address) = match to {
        Addressee::Path(path) => (Domain::UNIX, SockAddr::unix(path)?),
        Addressee::Tcp(address) => (Domain::for_address(*address), SocketAddr::into(*address)),
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let (Addressee::Tcp(to), Some(from)) = (to, from)
        && to.is_ipv4() == from.is_ipv4()
    {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    match socket.connect(&address) {
        Ok(()) => Ok((socket, true)),
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => Ok((socket, false)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_or_reaches_is_worth_least() {
        let now = crate::rim::now();
        let later = now + Duration::from_secs(1);
        let outlet = |used, failing, waits: bool| {
            let to = Addressee::Path("/sip".into());
            let mut outlet = Outlet::new(to, None, used);
            if waits {
                outlet.push(used, b"tag");
            }
            outlet.failing = failing;
            outlet.worth()
        };
        let order = [
            outlet(now, None, false),
            outlet(later, Some(now), false),
            outlet(later, Some(now), true),
            outlet(now, Some(later), true),
            outlet(now, None, true),
            outlet(later, None, true),
        ];
        assert!(order.is_sorted(), "{order:?}");
    }
}
