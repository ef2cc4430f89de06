//! SIP servers, as far as their control connections go.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// No reply may take longer than 5 s; this much longer is waited, to tell late from never.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// Connects, sends `bytes` as they are, reads until the other side closes, as a worker of Kamailio does that
/// writes no line end and keeps its own side open.
pub fn raw(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(socket);
    stream
        .write_all(bytes)
        .unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
    let mut reply = Vec::new();
    stream
        .read_to_end(&mut reply)
        .unwrap_or_else(|e| panic!("{}: {:?}: {e}", socket.display(), escaped(bytes)));
    reply
}

/// One command and its reply without the line end.
pub fn ask(socket: &Path, command: &str) -> String {
    let reply = String::from_utf8(raw(socket, command.as_bytes())).expect("replies are text");
    let line = reply
        .strip_suffix('\n')
        .unwrap_or_else(|| panic!("{command:?} -> {reply:?}: no line end"));
    line.to_owned()
}

/// The same of a daemon that may not be there, or be killed meanwhile: nothing for no whole reply.
pub fn try_ask(socket: &Path, command: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(command.as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    reply.strip_suffix('\n').map(str::to_owned)
}

/// A connection to a control socket.
pub fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a time-out can be set");
    stream
}

/// Bytes as they may be shown.
pub fn escaped(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(80)];
    shown.escape_ascii().to_string()
}

/// The port and the address of a reply to U or L.
pub fn media(reply: &str) -> (u16, &str) {
    let (port, address) = reply
        .split_once(' ')
        .unwrap_or_else(|| panic!("no port and address: {reply:?}"));
    (
        port.parse().unwrap_or_else(|_| panic!("no port: {reply:?}")),
        address,
    )
}

/// A kept connection: a command a line.
#[derive(Debug)]
pub struct Kept<S: Read + Write> {
    stream: BufReader<S>,
}

impl Kept<UnixStream> {
    /// Over a UNIX socket.
    pub fn unix(socket: &Path) -> Self {
        Self {
            stream: BufReader::new(connect(socket)),
        }
    }

    /// No more commands from here; replies may still come.
    pub fn finish(&self) {
        self.stream
            .get_ref()
            .shutdown(Shutdown::Write)
            .expect("the connection is open");
    }
}

impl Kept<TcpStream> {
    /// Over TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time-out can be set");
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// No more commands from here; replies may still come.
    pub fn finish(&self) {
        self.stream
            .get_ref()
            .shutdown(Shutdown::Write)
            .expect("the connection is open");
    }
}

impl<S: Read + Write> Kept<S> {
    /// The connection itself.
    pub fn stream(&mut self) -> &mut S {
        self.stream.get_mut()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream
            .get_mut()
            .write_all(bytes)
            .expect("the connection is open");
    }

    /// The next line, without its end; nothing when the other side has closed.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line)?;
        Ok((length > 0).then(|| line.trim_end_matches('\n').to_owned()))
    }

    /// One command, one line of reply.
    pub fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\n").as_bytes());
        let line = self.line().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        line.unwrap_or_else(|| panic!("{command:?}: the connection was closed"))
    }
}

/// A client over UDP that chooses its cookies.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
}

impl Datagrams {
    /// Towards a control socket of the cluster.
    pub fn to(address: SocketAddr) -> Self {
        let here: IpAddr = if address.is_ipv6() {
            Ipv6Addr::LOCALHOST.into()
        } else {
            Ipv4Addr::LOCALHOST.into()
        };
        let socket = UdpSocket::bind((here, 0)).expect("a socket");
        socket.connect(address).expect("an address");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a time-out can be set");
        Self { socket }
    }

    /// Sends bytes as they are.
    pub fn send(&self, bytes: &[u8]) {
        self.socket.send(bytes).expect("a datagram can be sent");
    }

    /// The next datagram, if one comes within `patience`.
    pub fn receive_within(&self, patience: Duration) -> Option<String> {
        self.socket
            .set_read_timeout(Some(patience))
            .expect("a time-out can be set");
        let mut reply = vec![0; 65_536];
        let length = self.socket.recv(&mut reply);
        self.socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a time-out can be set");
        Some(String::from_utf8_lossy(&reply[..length.ok()?]).into_owned())
    }

    /// The next datagram.
    pub fn receive(&self) -> String {
        let mut reply = vec![0; 65_536];
        let length = self
            .socket
            .recv(&mut reply)
            .unwrap_or_else(|e| panic!("no reply: {e}"));
        String::from_utf8_lossy(&reply[..length]).into_owned()
    }

    /// One command under this cookie; its reply without cookie and line end.
    pub fn ask(&self, cookie: &str, command: &str) -> String {
        self.send(format!("{cookie} {command}").as_bytes());
        let reply = self.receive();
        let text = reply.strip_prefix(cookie).and_then(|rest| rest.strip_prefix(' '));
        let text = text.and_then(|text| text.strip_suffix('\n'));
        text.unwrap_or_else(|| panic!("{cookie} {command:?} -> {reply:?}"))
            .to_owned()
    }
}
