//! A real RTPproxy: the engine of PyPI's `rtp.io`, with real control sockets and real media.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use super::member::{self, CONTROL_PORT};
use super::place::Place;
use super::process::Process;
use super::wire::{At, Transport};

const SCRIPT: &str = include_str!("rtpproxy.py");

/// A running RTPproxy.
#[derive(Debug)]
pub struct RealMember {
    process: Process,
    sockets: Sockets,
}

#[derive(Debug)]
struct Sockets {
    control: SocketAddr,
    /// The media address of its other side, where it bridges.
    inside: Option<IpAddr>,
    /// Nothing on a machine that has no IPv6.
    six: Option<SocketAddr>,
    unix: PathBuf,
    cunix: PathBuf,
    /// Further arguments of its own.
    flags: Vec<String>,
}

impl Sockets {
    fn in_place(place: &Place, name: &str, control: SocketAddr) -> Self {
        Self {
            control,
            inside: None,
            six: free_ipv6(),
            unix: place.path(&format!("{name}.sock")),
            cunix: place.path(&format!("{name}.kept.sock")),
            flags: Vec::new(),
        }
    }
}

impl RealMember {
    /// Starts one on UDP and TCP, of IPv4 and IPv6, and two UNIX sockets in `place`, and waits until it serves.
    pub fn start(place: &Place, name: &str) -> Self {
        Self::start_with(place, name, &[])
    }

    /// The same with further arguments for RTPproxy.
    pub fn start_with(place: &Place, name: &str, flags: &[&str]) -> Self {
        Self::start_at(place, name, (member::own_address(), CONTROL_PORT).into(), flags)
    }

    /// The same with this address and port for UDP and TCP.
    pub fn start_at(place: &Place, name: &str, control: SocketAddr, flags: &[&str]) -> Self {
        let sockets = Sockets {
            flags: flags.iter().map(ToString::to_string).collect(),
            ..Sockets::in_place(place, name, control)
        };
        let process = launch(&sockets);
        Self { process, sockets }
    }

    /// Starts one that bridges: it has a second media address, for the parties inside.
    pub fn start_bridging(place: &Place, name: &str) -> Self {
        let control = (member::own_address(), CONTROL_PORT).into();
        let sockets = Sockets {
            inside: Some(member::own_address()),
            ..Sockets::in_place(place, name, control)
        };
        let process = launch(&sockets);
        Self { process, sockets }
    }

    /// The address in its replies, where it was not asked for IPv6; that one is `::1` at all of them.
    pub fn media(&self) -> String {
        self.sockets.control.ip().to_string()
    }

    /// The address in its replies to parties inside, where it bridges.
    pub fn media_inside(&self) -> Option<String> {
        self.sockets.inside.map(|inside| inside.to_string())
    }

    /// Its control socket over UDP, and over TCP.
    pub fn control(&self) -> SocketAddr {
        self.sockets.control
    }

    /// Its socket that takes one command a connection.
    pub fn unix(&self) -> &Path {
        &self.sockets.unix
    }

    /// Its socket that keeps connections.
    pub fn cunix(&self) -> &Path {
        &self.sockets.cunix
    }

    /// Its control socket of that transport; nothing where the machine has no IPv6.
    pub fn at(&self, transport: Transport) -> Option<At> {
        match transport {
            Transport::Unix => Some(At::Path(self.sockets.unix.clone())),
            Transport::Cunix => Some(At::Path(self.sockets.cunix.clone())),
            Transport::Udp | Transport::Tcp => Some(At::Net(self.control())),
            Transport::Udp6 | Transport::Tcp6 => self.sockets.six.map(At::Net),
        }
    }

    /// Sessions that it counts.
    pub fn sessions(&self) -> u64 {
        member::active_sessions(self.control())
    }

    /// SIGSTOP: silent, its sockets still there.
    pub fn stop(&self) {
        self.process.stop();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// `kill -9`: its sockets are gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after [`RealMember::kill`], on the same sockets, without its sessions.
    pub fn restart(&mut self) {
        self.process = launch(&self.sockets);
    }
}

/// The Python of the environment that `tests/run.sh` makes beside the build.
pub fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("a directory of the build");
    target.join("rtpproxy/bin/python")
}

/// A port of `::1`, which is the one IPv6 address that every machine has, free for UDP and TCP. It is below those that
/// the system gives to whoever asks for any, so that nobody gets it in between.
pub fn free_ipv6() -> Option<SocketAddr> {
    free_port(Ipv6Addr::LOCALHOST.into())
}

/// A port of this address that is free over UDP and TCP, and stays so while its owner is restarted: below those that
/// the system gives to whoever asks for any. Nothing where the machine has no such address.
pub fn free_port(address: IpAddr) -> Option<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    UdpSocket::bind((address, 0)).ok()?;
    // Another test program that runs now has another number, and so begins elsewhere.
    let ours = std::process::id().wrapping_mul(97) % 20_000;
    let mut ports = (0..20_000).map(|_| 10_000 + (ours + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000);
    ports.find_map(|port| {
        let address = SocketAddr::new(address, u16::try_from(port).ok()?);
        let free = UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok();
        free.then_some(address)
    })
}

fn launch(sockets: &Sockets) -> Process {
    let Sockets {
        control,
        inside,
        six,
        unix,
        cunix,
        flags,
    } = sockets;
    let python = python();
    assert!(
        python.exists(),
        "no RTPproxy: {} is missing; run `sh tests/run.sh`",
        python.display()
    );
    for path in [unix, cunix] {
        // What a killed one has left.
        drop(std::fs::remove_file(path));
    }
    let mut command = Command::new(python);
    // What it records, it writes where it is.
    command.current_dir(unix.parent().expect("a file has a directory"));
    let (address, port) = (control.ip(), control.port());
    // One that bridges has an inside of the same family, and no labels.
    let second = match (inside, six) {
        (Some(inside), _) => format!("/{inside}"),
        (None, Some(six)) => format!(",{}", six.ip()),
        (None, None) => String::new(),
    };
    command.args(["-c", SCRIPT]).arg(format!("{address}{second}"));
    for transport in ["udp", "tcp"] {
        command.arg(format!("{transport}:{address}:{port}"));
        if let Some(six) = six {
            command.arg(format!("{transport}6:{}:{}", six.ip(), six.port()));
        }
    }
    command
        .arg(format!("unix:{}", unix.display()))
        .arg(format!("cunix:{}", cunix.display()))
        .arg("--")
        .args(flags);
    // It tells of every command that it refuses, and the tests send many of those.
    let mut process = Process::start(
        "RTPproxy",
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let mut line = String::new();
    let stdout = process.stdout.take().expect("the output is a pipe");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("the output can be read");
    assert_eq!(line, "ready\n", "RTPproxy did not start at {address}");
    process
}
