//! One command to a control socket of any of the six transports, and its reply. Part of the rim.

use core::cell::Cell;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use socket2::{Domain, SockAddr, Socket, Type};

use super::interrupt::{Interrupt, Wait};
use super::survey::Place;
use crate::rim;

/// How long a reply may take. A cluster answers within 5 s, whatever happens.
const PATIENCE: Duration = Duration::from_secs(6);
/// The same once it is known to be silent.
const HURRY: Duration = Duration::from_secs(1);
/// Between a datagram and its first repetition; each further one comes after twice the time.
const AGAIN: Duration = Duration::from_millis(250);
/// The longest reply that is read; those that matter have 255 bytes at most.
const REPLY_MAX: usize = 8192;

/// Where commands go.
#[derive(Debug)]
pub(crate) struct Control<'a> {
    place: &'a Place,
    /// Where they leave from, if that is an address of this machine.
    source: Option<IpAddr>,
    /// In front of each datagram, with a number.
    cookie: String,
    patience: Cell<Duration>,
    interrupt: &'a Interrupt,
}

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The name is not known.
    Name(io::Error),
    /// No way there, nobody there, or no right.
    Connect(io::Error),
    /// No reply in that time.
    Silent(Duration),
    /// The connection was closed in place of a reply.
    Closed,
    /// A signal has come.
    Interrupted,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => write!(
                f,
                "its name is not found ({error}); look at the name and at the DNS"
            ),
            Self::Connect(error) => match error.kind() {
                ErrorKind::ConnectionRefused => {
                    f.write_str("refused: nobody listens there; is it started, with that -s?")
                }
                ErrorKind::NotFound => f.write_str("no such socket; is it started, with that -s?"),
                ErrorKind::PermissionDenied => {
                    f.write_str("no right to write to the socket; run this as its owner or with sudo")
                }
                _ => write!(f, "cannot reach it: {error}"),
            },
            Self::Silent(time) => write!(
                f,
                "no answer within {} s: it is gone, hangs, or a firewall drops the commands",
                time.as_secs()
            ),
            Self::Closed => {
                f.write_str("it closed the connection without a reply; does another program listen there?")
            }
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl<'a> Control<'a> {
    /// `nonce` names our datagrams.
    pub(crate) fn new(
        place: &'a Place,
        source: Option<IpAddr>,
        nonce: u64,
        interrupt: &'a Interrupt,
    ) -> Self {
        Self {
            place,
            source,
            cookie: format!("{nonce:016x}"),
            patience: Cell::new(PATIENCE),
            interrupt,
        }
    }

    /// From now on a reply is waited for briefly.
    pub(crate) fn hurry(&self) {
        self.patience.set(HURRY);
    }

    /// The network address of the other side, where it has one.
    pub(crate) fn peer(&self) -> Result<Option<SocketAddr>, Failure> {
        if self.place.protocol.is_local() {
            return Ok(None);
        }
        let mut found = self.place.address.to_socket_addrs().map_err(Failure::Name)?;
        let v6 = self.place.protocol.is_v6();
        match found.find(|address| address.is_ipv6() == v6) {
            Some(address) => Ok(Some(address)),
            None => Err(Failure::Name(io::Error::other("no address of that family"))),
        }
    }

    /// Sends a command; the reply without its end, and how long it took.
    pub(crate) fn ask(&self, command: &str) -> Result<(String, Duration), Failure> {
        let start = rim::now();
        let reply = match self.peer()? {
            Some(peer) if self.place.protocol.is_datagram() => self.datagram(peer, command, start),
            Some(peer) => self
                .connect_tcp(peer)
                .and_then(|tcp| self.line(tcp, command, start)),
            None => self
                .connect_unix()
                .and_then(|unix| self.line(unix, command, start)),
        }?;
        Ok((reply, rim::now().saturating_duration_since(start)))
    }

    fn connect_unix(&self) -> Result<UnixStream, Failure> {
        let connect = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // Bounds the wait for room in the queue of one that hangs.
            socket.set_write_timeout(Some(self.patience.get()))?;
            socket.connect(&SockAddr::unix(&self.place.address)?)?;
            Ok(UnixStream::from(std::os::fd::OwnedFd::from(socket)))
        };
        connect().map_err(|error| self.failed(error))
    }

    fn connect_tcp(&self, peer: SocketAddr) -> Result<TcpStream, Failure> {
        let connect = || {
            let socket = Socket::new(Domain::for_address(peer), Type::STREAM, None)?;
            // An address of the daemon's machine, which need not be this one.
            let _ = socket.bind(&self.source_of(peer).into());
            socket.connect_timeout(&peer.into(), self.patience.get())?;
            Ok(TcpStream::from(socket))
        };
        connect().map_err(|error| self.failed(error))
    }

    /// Where commands to `peer` leave from.
    fn source_of(&self, peer: SocketAddr) -> SocketAddr {
        let source = self.source.filter(|source| source.is_ipv6() == peer.is_ipv6());
        source.map_or_else(|| any_of(peer.ip()), |source| (source, 0).into())
    }

    /// Over a stream: a line, and what comes up to a line end or the end.
    fn line<S>(&self, mut stream: S, command: &str, start: Instant) -> Result<String, Failure>
    where
        S: io::Read + io::Write + AsFd,
    {
        stream
            .write_all(format!("{command}\n").as_bytes())
            .map_err(|error| self.failed(error))?;
        let (mut reply, mut bytes) = (Vec::new(), [0; 512]);
        while !reply.contains(&b'\n') && reply.len() < REPLY_MAX {
            self.wait(stream.as_fd(), start + self.patience.get())?;
            match stream.read(&mut bytes) {
                Ok(0) if reply.is_empty() => return Err(Failure::Closed),
                Ok(0) => break,
                Ok(length) => reply.extend_from_slice(bytes.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(first_line(&reply))
    }

    /// Over UDP: sent again until the reply with its cookie comes.
    fn datagram(&self, peer: SocketAddr, command: &str, start: Instant) -> Result<String, Failure> {
        // An address of the daemon's machine, which need not be this one.
        let socket = UdpSocket::bind(self.source_of(peer)).or_else(|_| UdpSocket::bind(any_of(peer.ip())));
        let socket = socket.map_err(Failure::Connect)?;
        socket.connect(peer).map_err(Failure::Connect)?;
        let number = rim::now()
            .saturating_duration_since(self.interrupt.begun())
            .as_micros();
        let cookie = format!("{}.{number}", self.cookie);
        let datagram = format!("{cookie} {command}");
        let (mut again, mut pause) = (start, AGAIN);
        let mut bytes = [0; REPLY_MAX];
        loop {
            let now = rim::now();
            if now >= start + self.patience.get() {
                return Err(Failure::Silent(self.patience.get()));
            }
            if now >= again {
                socket
                    .send(datagram.as_bytes())
                    .map_err(|error| self.failed(error))?;
                again = now + pause;
                pause *= 2;
            }
            match self
                .interrupt
                .wait(&[socket.as_fd()], again.min(start + self.patience.get()))
            {
                Wait::Interrupted => return Err(Failure::Interrupted),
                Wait::Late => continue,
                Wait::Ready => {}
            }
            let length = socket.recv(&mut bytes).map_err(|error| self.failed(error))?;
            let reply = first_line(bytes.get(..length).unwrap_or_default());
            if let Some(reply) = reply.strip_prefix(&cookie) {
                return Ok(reply.trim_start().to_owned());
            }
        }
    }

    fn failed(&self, error: io::Error) -> Failure {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::Silent(self.patience.get()),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Failure::Closed,
            _ => Failure::Connect(error),
        }
    }

    fn wait(&self, socket: std::os::fd::BorrowedFd<'_>, until: Instant) -> Result<(), Failure> {
        match self.interrupt.wait(&[socket], until) {
            Wait::Ready => Ok(()),
            Wait::Late => Err(Failure::Silent(self.patience.get())),
            Wait::Interrupted => Err(Failure::Interrupted),
        }
    }
}

/// Any address and port of the same family.
pub(super) fn any_of(address: IpAddr) -> SocketAddr {
    let any: IpAddr = if address.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    (any, 0).into()
}

fn first_line(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply);
    text.lines().next().unwrap_or_default().trim_end().to_owned()
}
