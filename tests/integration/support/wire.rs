//! A control socket as its clients see it, over each of the six transports: that of an RTPproxy or of a cluster, the
//! same code for both.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use super::client::{PATIENCE, escaped};

/// How a control socket is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Unix,
    Cunix,
    Udp,
    Udp6,
    Tcp,
    Tcp6,
}

impl Transport {
    /// All six.
    pub const ALL: [Self; 6] = [
        Self::Unix,
        Self::Cunix,
        Self::Udp,
        Self::Udp6,
        Self::Tcp,
        Self::Tcp6,
    ];

    /// As the configuration names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unix => "UNIX",
            Self::Cunix => "CUNIX",
            Self::Udp => "UDP",
            Self::Udp6 => "UDP6",
            Self::Tcp => "TCP",
            Self::Tcp6 => "TCP6",
        }
    }
}

/// Where a control socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    Path(PathBuf),
    Net(SocketAddr),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Net(address) => address.fmt(f),
        }
    }
}

/// A client of one control socket.
#[derive(Debug)]
pub struct Wire {
    transport: Transport,
    at: At,
    kept: Option<Stream>,
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn open(at: &At) -> io::Result<Self> {
        match at {
            At::Path(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Self::Unix(stream))
            }
            At::Net(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire {
    /// A client that has not connected yet.
    pub fn new(transport: Transport, at: At) -> Self {
        Self {
            transport,
            at,
            kept: None,
        }
    }

    /// One command and its reply without the line end, as text; a connection that closes without a reply says
    /// `closed`.
    pub fn ask(&mut self, command: &[u8]) -> String {
        let asked = match self.transport {
            Transport::Unix => self.over_unix(command),
            Transport::Udp | Transport::Udp6 => self.over_udp(command),
            Transport::Cunix | Transport::Tcp | Transport::Tcp6 => self.over_kept(command),
        };
        let reply = asked.unwrap_or_else(|e| {
            let Self { transport, at, .. } = self;
            panic!("{} {at}: {}: {e}", transport.name(), escaped(command))
        });
        let text = String::from_utf8(reply).expect("replies are text");
        if text.is_empty() {
            return "closed".to_owned();
        }
        let line = text.strip_suffix('\n');
        line.unwrap_or_else(|| panic!("{}: no line end: {text:?}", escaped(command)))
            .to_owned()
    }

    /// A connection a command. The line end is the command's own affair.
    fn over_unix(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = Stream::open(&self.at)?;
        stream.write_all(command)?;
        let mut reply = Vec::new();
        match stream.read_to_end(&mut reply) {
            // An RTPproxy that leaves bytes unread resets the connection behind its reply.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(reply),
            other => other.map(|_| reply),
        }
    }

    fn over_kept(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => Stream::open(&self.at)?,
        };
        let mut text = command.to_vec();
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        let mut reply = Vec::new();
        let (mut lines, mut want) = (0, 1);
        let sent = stream.write_all(&text);
        while lines < want {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1..) => {}
                Ok(_) => return Ok(reply),
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(reply),
                Err(e) => return Err(e),
            }
            reply.extend_from_slice(&byte);
            if byte == *b"\n" {
                lines += 1;
                if lines == 1 && reply.starts_with(b"sessions created") {
                    let first = command
                        .split(u8::is_ascii_whitespace)
                        .find(|word| !word.is_empty());
                    let load = first.is_some_and(|word| word[1..].to_ascii_lowercase().contains(&b'l'));
                    want = if load { 6 } else { 5 };
                }
            }
        }
        sent?;
        self.kept = Some(stream);
        Ok(reply)
    }

    /// A socket a command, and a cookie that no other has.
    fn over_udp(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cookie = format!("wire{}.{} ", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let reply = exchange(&self.at, &[cookie.as_bytes(), command].concat())?;
        let text = reply.strip_prefix(cookie.as_bytes());
        Ok(text
            .unwrap_or_else(|| panic!("{}: {:?}", escaped(command), escaped(&reply)))
            .to_vec())
    }
}

/// Sends a datagram as it is, and gives the one that comes back.
pub fn datagram(at: &At, bytes: &[u8]) -> Vec<u8> {
    exchange(at, bytes).unwrap_or_else(|e| panic!("{at}: {}: {e}", escaped(bytes)))
}

fn exchange(at: &At, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let At::Net(address) = at else {
        panic!("{at}: no address")
    };
    let here = if address.is_ipv6() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        [0, 0, 0, 0].into()
    };
    let socket = UdpSocket::bind((here, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(bytes)?;
    let mut reply = vec![0; 65_536];
    let length = socket.recv(&mut reply)?;
    reply.truncate(length);
    Ok(reply)
}
