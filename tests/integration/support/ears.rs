//! A SIP server that listens for notifications, and the relay that tells it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use super::bed::listed;
use super::daemon::{Daemon, Files, config};
use super::fake::FakeMember;
use super::member;
use super::place::Place;
use super::wait::LONG;

/// A SIP server's socket for notifications: the lines that came, from whatever connection.
#[derive(Debug)]
pub struct Ears {
    lines: Receiver<String>,
}

impl Ears {
    /// Listens at `path`.
    pub fn at(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self::on(move || listener.accept().ok().map(|(stream, _)| stream))
    }

    /// Listens over TCP.
    pub fn tcp() -> (Self, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("it is bound");
        (
            Self::on(move || listener.accept().ok().map(|(stream, _)| stream)),
            address,
        )
    }

    fn on<S: std::io::Read + Send + 'static>(mut accept: impl FnMut() -> Option<S> + Send + 'static) -> Self {
        let (heard, lines) = mpsc::channel();
        thread::spawn(move || {
            while let Some(stream) = accept() {
                let heard = heard.clone();
                thread::spawn(move || {
                    for line in std::io::BufRead::split(std::io::BufReader::new(stream), b'\n') {
                        let Ok(line) = line else { return };
                        // The test may be over.
                        drop(heard.send(String::from_utf8_lossy(&line).into_owned()));
                    }
                });
            }
        });
        Self { lines }
    }

    /// The next line.
    pub fn hear(&self) -> String {
        self.lines.recv_timeout(LONG).expect("a notification")
    }

    /// The next `count` lines, sorted.
    pub fn hear_all(&self, count: usize) -> Vec<String> {
        let mut lines: Vec<String> = (0..count).map(|_| self.hear()).collect();
        lines.sort_unstable();
        lines
    }

    /// Whatever has come, without waiting.
    pub fn heard(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }
}

/// A port for a relay on this address: a test program has its addresses to itself.
pub fn relay(address: IpAddr) -> SocketAddr {
    (address, 12131).into()
}

/// The element of a configuration.
pub fn element(inbound: SocketAddr, prefix: &Path, attributes: &str) -> String {
    format!(
        "<disconnect_notify {attributes}><inbound_address>{inbound}</inbound_address>\
         <dest_socket_prefix>{}</dest_socket_prefix></disconnect_notify>",
        prefix.display()
    )
}

/// The value of a counter of cluster `C1`.
pub fn counter(daemon: &Daemon, name: &str) -> u64 {
    let stats: serde_json::Value = {
        let text = daemon.admin_ok("stats --json");
        let text = text.trim_end().strip_suffix("OK").expect("it ends with OK");
        serde_json::from_str(text).expect("it is JSON")
    };
    stats["clusters"][0]["counters"][name]
        .as_u64()
        .unwrap_or_else(|| panic!("no counter {name}: {stats}"))
}

/// A fake member that is online, a daemon with a relay, and the member's way to it.
#[derive(Debug)]
pub struct Line {
    pub daemon: Daemon,
    pub member: FakeMember,
    pub inbound: SocketAddr,
    pub place: Place,
}

impl Line {
    /// All of it, ready.
    pub fn new() -> Self {
        let place = Place::new();
        let inbound = relay(member::own_address());
        let member = FakeMember::start();
        let control = Files::in_place(&place).control;
        let element = element(inbound, &place.path("sip."), "");
        let text = config(&control, &listed(std::slice::from_ref(&member)), &element);
        let daemon = Daemon::start(&place, &text);
        daemon.wait_members(1, 0);
        Self {
            daemon,
            member,
            inbound,
            place,
        }
    }

    /// A connection from that address.
    pub fn connect_from(&self, from: IpAddr) -> TcpStream {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket
            .bind(&SocketAddr::from((from, 0)).into())
            .expect("an address");
        socket.connect(&self.inbound.into()).expect("the relay listens");
        socket.into()
    }

    /// A connection of the member.
    pub fn connect(&self) -> TcpStream {
        self.connect_from(self.member.control().ip())
    }
}
